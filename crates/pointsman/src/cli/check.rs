//! `pointsman check FILE`: is this configuration sound?

use std::path::PathBuf;

use clap::Args;
use steer::KernelVersion;

use crate::configuration::Loaded;

use super::{Exit, load, print_error, say};

/// Check a configuration file and say all that is wrong with it
#[derive(Debug, Args)]
pub(super) struct Check {
    /// The file
    file: PathBuf,
}

impl Check {
    pub(super) fn run(&self) -> Exit {
        match load(&self.file) {
            Ok(Loaded { parsed, .. }) => {
                // The file may be meant for another machine: no reason to reject it.
                if let Err(old) = KernelVersion::check() {
                    print_error(&format!("warning: it would not run here: {old}"));
                }
                let services = parsed.desired.services.len();
                let backends: usize =
                    parsed.desired.services.iter().map(|service| service.backends.len()).sum();
                say(&format!(
                    "{}: sound ({services} services, {backends} backends)",
                    self.file.display()
                ));
                Exit::Done
            }
            Err(exit) => exit,
        }
    }
}
