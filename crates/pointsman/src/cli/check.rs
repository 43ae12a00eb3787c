//! `pointsman check FILE`: is this configuration sound?

use std::path::PathBuf;

use clap::Args;
use steer::KernelVersion;

use crate::configuration::{self, Loaded};

use super::{Exit, color, load, print_error, say};

/// Check a configuration file and say all that is wrong with it
///
/// A file with sections for several nodes is checked for each of them.
///
/// Example: pointsman check /etc/pointsman/pointsman.toml
#[derive(Debug, Args)]
pub(super) struct Check {
    /// The file
    file: PathBuf,
    /// Check it for this node only
    #[arg(long, value_name = "NAME")]
    node: Option<String>,
}

impl Check {
    pub(super) fn run(&self) -> Exit {
        let nodes = match (&self.node, configuration::nodes(&self.file, color())) {
            (Some(node), _) => vec![node.clone()],
            (None, Ok(nodes)) => nodes,
            (None, Err(mistakes)) => {
                print_error(&mistakes);
                return Exit::Failed;
            }
        };
        // The file may be meant for another machine: no reason to reject it.
        if let Err(old) = KernelVersion::check() {
            print_error(&format!("warning: it would not run here: {old}"));
        }
        if nodes.is_empty() {
            return self.check(&configuration::host_name(), "");
        }
        let exits: Vec<Exit> =
            nodes.iter().map(|node| self.check(node, &format!(" for {node}"))).collect();
        exits.into_iter().find(|exit| *exit != Exit::Done).unwrap_or(Exit::Done)
    }

    fn check(&self, node: &str, for_whom: &str) -> Exit {
        match load(&self.file, node) {
            Ok(Loaded { parsed, .. }) => {
                let services = parsed.desired.services.len();
                let backends: usize =
                    parsed.desired.services.iter().map(|service| service.backends.len()).sum();
                let file = self.file.display();
                say(&format!("{file}: sound{for_whom} ({services} services, {backends} backends)"));
                Exit::Done
            }
            Err(exit) => exit,
        }
    }
}
