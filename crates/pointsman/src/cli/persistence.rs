//! `pointsman persistence` and `pointsman flush persistence`: which backends sources keep.

use std::io::{self, Write};
use std::path::PathBuf;

use api::listing::{FlushPersistence, ListTemplates, Template};
use clap::{Args, Subcommand};

use super::flows::clock;
use super::listing::{How, Out, list};
use super::{Exit, default_socket, say};
use crate::serve::control_socket::ask;

/// List persistence templates: which source keeps which backend
///
/// CONNS: connections that hold the template; while there are any, it does not expire. With --json each
/// template is a line of its own.
///
/// Example: pointsman persistence --service web --source 192.0.2.7
#[derive(Debug, Args)]
pub(super) struct Persistence {
    /// Only those of sources in this prefix (an address, or ADDRESS/BITS)
    #[arg(long, value_name = "PREFIX")]
    source: Option<String>,
    /// Only those of this service, or of its group
    #[arg(long)]
    service: Option<String>,
    /// Only those that name this backend: SERVICE/BACKEND, or BACKEND in every service
    #[arg(long)]
    backend: Option<String>,
    /// At most so many
    #[arg(long)]
    limit: Option<u64>,
    /// Print each template as a line of JSON
    #[arg(long)]
    json: bool,
    /// Control socket of the daemon
    #[arg(long, default_value_os_t = default_socket())]
    socket: PathBuf,
}

/// Forget what is remembered
#[derive(Debug, Args)]
pub(super) struct Flush {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// Forget persistence templates
    ///
    /// Connections go on where they are; the next new connection of a source goes where the scheduler
    /// says. Without a filter all are forgotten.
    ///
    /// Example: pointsman flush persistence --source 192.0.2.7 --service web
    Persistence {
        /// Only those of sources in this prefix (an address, or ADDRESS/BITS)
        #[arg(long, value_name = "PREFIX")]
        source: Option<String>,
        /// Only those of this service; where it is in a group, those of the group
        #[arg(long)]
        service: Option<String>,
        /// Print the answer as JSON
        #[arg(long)]
        json: bool,
        /// Control socket of the daemon
        #[arg(long, default_value_os_t = default_socket())]
        socket: PathBuf,
    },
}

impl Persistence {
    pub(super) fn run(self) -> Exit {
        let Self { source, service, backend, limit, json, socket } = self;
        let how = How { json, limit, head: HEAD };
        list(&socket, ListTemplates { source, service, backend }, how, row)
    }
}

impl Flush {
    pub(super) fn run(self) -> Exit {
        let What::Persistence { source, service, json, socket } = self.what;
        match ask(&socket, FlushPersistence { source, service }) {
            Ok(flushed) if json => say(&serde_json::json!(flushed).to_string()),
            Ok(flushed) => say(&format!("{} templates forgotten", flushed.templates)),
            Err(error) => return error.into(),
        }
        Exit::Done
    }
}

fn row(out: &mut Out<'_>, template: &Template<'_>) -> io::Result<()> {
    let Template { source, service, backend, live_flows, .. } = template;
    let expire = clock(template.expires_seconds);
    writeln!(out, "{source:<39} {expire:<7} {live_flows:>6}  {service}/{backend}")
}

const HEAD: &str = "SOURCE                                  EXPIRE   CONNS  BACKEND";
