//! `pointsman flows`: the connections that the workers remember.

use std::io::{self, Write};
use std::path::PathBuf;

use api::listing::{Flow, FlowState, ListFlows};
use clap::Args;
use clap::builder::PossibleValuesParser;
use clap::builder::TypedValueParser as _;

use super::listing::{How, Out, list};
use super::{Exit, default_socket};

/// List connections (flows), as `ipvsadm -Lnc` does
///
/// EXPIRE: forgotten in so many minutes and seconds if no packet comes. Filters are combined. With --json
/// each flow is a line of its own. Workers are not held up, however many flows there are.
///
/// Example: pointsman flows --source 192.0.2.0/24 --backend web/rs1 --state established
#[derive(Debug, Args)]
pub(super) struct Flows {
    /// Only those of clients in this prefix (an address, or ADDRESS/BITS)
    #[arg(long, value_name = "PREFIX")]
    source: Option<String>,
    /// Only those of this service
    #[arg(long)]
    service: Option<String>,
    /// Only those of this backend: SERVICE/BACKEND, or BACKEND in every service
    #[arg(long)]
    backend: Option<String>,
    /// Only those in this state
    #[arg(long, value_parser = states())]
    state: Option<FlowState>,
    /// At most so many
    #[arg(long)]
    limit: Option<u64>,
    /// Print each flow as a line of JSON
    #[arg(long)]
    json: bool,
    /// Control socket of the daemon
    #[arg(long, default_value_os_t = default_socket())]
    socket: PathBuf,
}

impl Flows {
    pub(super) fn run(self) -> Exit {
        let Self { source, service, backend, state, limit, json, socket } = self;
        let how = How { json, limit, head: HEAD };
        list(&socket, ListFlows { source, service, backend, state }, how, row)
    }
}

fn row(out: &mut Out<'_>, flow: &Flow<'_>) -> io::Result<()> {
    let Flow { source, destination, service, backend, .. } = flow;
    let protocol = flow.protocol.name().to_uppercase();
    let (state, expire) = (flow.state.name(), clock(flow.expires_seconds));
    writeln!(
        out,
        "{protocol} {expire:<7} {state:<11} {source:<21} {destination:<21} {service}/{backend}"
    )
}

/// Minutes and seconds, as ip_vs shows them.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "whole seconds")]
pub(super) fn clock(seconds: f64) -> String {
    let whole = seconds.max(0.0) as u64;
    format!("{:02}:{:02}", whole / 60, whole % 60)
}

fn states() -> impl clap::builder::TypedValueParser<Value = FlowState> {
    let names = PossibleValuesParser::new(FlowState::ALL.map(FlowState::name));
    names.try_map(|name| {
        let found = FlowState::ALL.into_iter().find(|state| state.name() == name);
        found.ok_or("not a state")
    })
}

const HEAD: &str = "PRO EXPIRE  STATE       SOURCE                DESTINATION           BACKEND";
