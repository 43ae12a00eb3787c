//! What can go wrong while a lab is built or used. Every variant says which step failed.

use std::{io, path::PathBuf, time::Duration};

/// Why a lab step failed.
#[derive(Debug, thiserror::Error)]
pub enum LabError {
    /// A system call or file operation failed.
    #[error("{what}: {source}")]
    Io {
        /// The step, as a noun phrase.
        what: String,
        /// What the system said.
        source: io::Error,
    },
    /// A command ended with a status other than 0.
    #[error("`{command}` failed ({status}): {stderr}")]
    Command {
        /// The command line.
        command: String,
        /// Its exit status in words.
        status: String,
        /// What it printed, without trailing blanks.
        stderr: String,
    },
    /// Something did not happen in time.
    #[error("{what}: not within {limit:?}")]
    Timeout {
        /// What was waited for.
        what: String,
        /// How long.
        limit: Duration,
    },
    /// A process ended although it should have gone on.
    #[error("{name} ended early ({status}); its last output:\n{log}")]
    Ended {
        /// Name of the process.
        name: String,
        /// Its exit status in words.
        status: String,
        /// The end of its log.
        log: String,
    },
    /// Network namespaces need root.
    #[error("the lab makes network namespaces: run it as root (for example with sudo)")]
    NotRoot,
    /// Programs that the lab calls are not installed.
    #[error("missing programs: {0}\n  install them with: apt-get install {1}")]
    MissingTools(String, String),
    /// The product's binary is not where it should be.
    #[error(
        "no pointsman binary at {}: build it with `cargo build -p pointsman` or name it in POINTSMAN_BIN",
        .0.display()
    )]
    NoBinary(PathBuf),
    /// A reply or a file does not have the expected form.
    #[error("{what}: {detail}")]
    Malformed {
        /// What was read.
        what: String,
        /// What is wrong with it.
        detail: String,
    },
    /// The process is being ended by a signal; nothing new may be made.
    #[error("interrupted")]
    Interrupted,
}

/// Result of a lab step.
pub type Result<T> = std::result::Result<T, LabError>;

/// Adds the step's name to an I/O error.
pub(crate) trait Doing<T> {
    /// `what` names the step; evaluated on failure only.
    fn doing(self, what: impl FnOnce() -> String) -> Result<T>;
}

impl<T, E: Into<io::Error>> Doing<T> for std::result::Result<T, E> {
    fn doing(self, what: impl FnOnce() -> String) -> Result<T> {
        self.map_err(|source| LabError::Io { what: what(), source: source.into() })
    }
}
