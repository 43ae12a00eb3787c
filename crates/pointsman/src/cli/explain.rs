//! `pointsman explain`: where a client goes, and why.

use std::path::PathBuf;

use api::explain::{Explain as Question, Explained, Outcome};
use clap::Args;
use dataplane::Protocol;

use super::{Exit, default_socket, load, print_error, say};
use crate::configuration;
use crate::explain::Setting;
use crate::serve::control_socket::ask;

/// Say where the next packet of a client goes, and why
///
/// The answer is that of the packet path itself; nothing changes by it. With the port of a connection
/// that is there it is about that one, else about a new one. Exit code 1 if the packet goes to no backend.
///
/// Example: pointsman explain 192.0.2.7 203.0.113.10:443
#[derive(Debug, Args)]
pub(super) struct Explain {
    /// The client: ADDRESS or ADDRESS:PORT
    source: String,
    /// The VIP: ADDRESS:PORT, or ADDRESS if it has one service
    destination: String,
    /// A packet of TCP: so without --udp as well
    #[arg(long, conflicts_with = "udp")]
    tcp: bool,
    /// A datagram of UDP
    #[arg(long)]
    udp: bool,
    /// Ask this configuration instead of the daemon, as if all its backends were up
    #[arg(long, value_name = "FILE", conflicts_with = "socket")]
    config: Option<PathBuf>,
    /// Which `[node.NAME]` of that file; the name of the host without it
    #[arg(long, value_name = "NAME", requires = "config")]
    node: Option<String>,
    /// Print the answer as JSON
    #[arg(long)]
    json: bool,
    /// Control socket of the daemon
    #[arg(long, default_value_os_t = default_socket())]
    socket: PathBuf,
}

impl Explain {
    pub(super) fn run(self) -> Exit {
        let Self { source, destination, udp, config, node, json, socket, .. } = self;
        let node = node.unwrap_or_else(configuration::host_name);
        let protocol = if udp { Protocol::Udp } else { Protocol::Tcp };
        let question = Question { source, destination, protocol };
        let explained = match config {
            None => ask(&socket, question).map_err(Exit::from),
            Some(file) => load(&file, &node).and_then(|loaded| {
                let setting = Setting::of_configuration(loaded.parsed.desired);
                setting.and_then(|setting| setting.explain(&question)).map_err(|error| {
                    print_error(&format!("error: {error}"));
                    Exit::Failed
                })
            }),
        };
        match explained {
            Ok(explained) => show(&explained, json),
            Err(exit) => exit,
        }
    }
}

fn show(explained: &Explained, json: bool) -> Exit {
    if json {
        say(&format!("{:#}", serde_json::json!(explained)));
    } else {
        let service = explained.service.as_deref().unwrap_or("no service");
        let to = match (&explained.backend, explained.address) {
            (Some(backend), Some(address)) => format!("{backend} {address}"),
            (Some(backend), None) => backend.clone(),
            (None, _) => explained.outcome.name().to_owned(),
        };
        say(&format!("{service} -> {to}"));
        explained.why.iter().for_each(|line| say(&format!("  {line}")));
    }
    if explained.outcome == Outcome::Forwarded { Exit::Done } else { Exit::Failed }
}
