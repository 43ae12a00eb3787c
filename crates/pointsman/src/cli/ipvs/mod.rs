//! `pointsman ipvs`: the services as `ipvsadm -Ln` prints them, for scripts and exporters that read that.

mod rows;
#[cfg(test)]
mod tests;

use std::io::Write;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};

use api::listing::{Flow, FlowState, ListFlows, ListTemplates, Template};
use api::request::GetStatus;
use api::status::{Service, Status};
use clap::Args;
use dataplane::Protocol;

use super::flows::clock;
use super::listing::{How, Out, list};
use super::{Exit, default_socket, say};
use crate::serve::control_socket::ask;
use rows::Table;

/// List services and backends as `ipvsadm` does
///
/// Columns are those of `ipvsadm -Ln`, so that scripts go on working. Where the two differ: names are
/// never looked up; backends that are down are listed with weight 0; a service on a range of ports is
/// listed by the first one, on all ports by 0; OutPkts and OutBytes are 0, as with direct routing in LVS
/// (`pointsman status` has the bytes that clients acknowledged).
///
/// Example: pointsman ipvs -Ln --stats
#[derive(Debug, Args)]
#[expect(clippy::struct_excessive_bools, reason = "the options of ipvsadm")]
pub(super) struct Ipvs {
    /// Addresses and ports as numbers: always so
    #[arg(short = 'n', long)]
    numeric: bool,
    /// List: what this command does
    #[arg(short = 'L', short_alias = 'l', long)]
    list: bool,
    /// Connections, packets and bytes
    #[arg(long, conflicts_with_all = ["rate", "connection", "persistent_conn"])]
    stats: bool,
    /// The same per second
    #[arg(long, conflicts_with_all = ["connection", "persistent_conn"])]
    rate: bool,
    /// Connections, and persistence templates (client port 0)
    #[arg(short = 'c', long)]
    connection: bool,
    /// Persistence templates of each backend
    #[arg(long)]
    persistent_conn: bool,
    /// Numbers in full instead of K, M, G
    #[arg(long)]
    exact: bool,
    /// Only this TCP service
    #[arg(short = 't', long, value_name = "VIP:PORT", conflicts_with = "udp_service")]
    tcp_service: Option<SocketAddr>,
    /// Only this UDP service
    #[arg(short = 'u', long, value_name = "VIP:PORT")]
    udp_service: Option<SocketAddr>,
    /// Print the services as JSON
    #[arg(long, conflicts_with = "connection")]
    json: bool,
    /// Control socket of the daemon
    #[arg(long, default_value_os_t = default_socket())]
    socket: PathBuf,
}

impl Ipvs {
    pub(super) fn run(self) -> Exit {
        let mut status = match ask(&self.socket, GetStatus) {
            Ok(status) => status,
            Err(error) => return error.into(),
        };
        let only = self.only();
        if let Some((protocol, at)) = only {
            status.services.retain(|service| is_at(service, protocol, at));
            if status.services.is_empty() {
                super::print_error("No such service");
                return Exit::Failed;
            }
        }
        if self.json {
            say(&format!("{:#}", serde_json::json!(status.services)));
        } else if self.connection {
            return connections(&self.socket, &status);
        } else {
            say(self.table().text(&status, only.is_none()).trim_end_matches('\n'));
        }
        Exit::Done
    }

    fn only(&self) -> Option<(Protocol, SocketAddr)> {
        let tcp = self.tcp_service.map(|at| (Protocol::Tcp, at));
        tcp.or_else(|| self.udp_service.map(|at| (Protocol::Udp, at)))
    }

    const fn table(&self) -> Table {
        let Self { stats, rate, persistent_conn, exact, .. } = *self;
        match (stats, rate, persistent_conn) {
            (true, ..) => Table::Stats { exact },
            (_, true, _) => Table::Rate { exact },
            (.., true) => Table::PersistentConn,
            (false, false, false) => Table::Plain,
        }
    }
}

fn is_at(service: &Service, protocol: Protocol, at: SocketAddr) -> bool {
    service.protocol == protocol && service.vip == at.ip() && port(service) == at.port()
}

/// The port that stands for a service: the first one, or 0 for all.
fn port(service: &Service) -> u16 {
    let first = service.port.split('-').next();
    first.and_then(|first| first.parse().ok()).unwrap_or_default()
}

/// All connections, then all templates.
fn connections(socket: &Path, status: &Status) -> Exit {
    let how = How { json: false, limit: None, head: CONNECTIONS };
    let row = |out: &mut Out<'_>, flow: &Flow<'_>| match connection(status, flow) {
        Some(line) => out.write_all(line.as_bytes()),
        None => Ok(()),
    };
    let exit = list(socket, ListFlows::default(), how, row);
    if exit != Exit::Done {
        return exit;
    }
    let how = How { head: "", ..how };
    list(socket, ListTemplates::default(), how, |out, entry| match template(status, entry) {
        Some(line) => out.write_all(line.as_bytes()),
        None => Ok(()),
    })
}

/// A line for a flow of one of the services.
fn connection(status: &Status, flow: &Flow<'_>) -> Option<String> {
    let service = status.services.iter().find(|service| service.name == flow.service)?;
    let port = flow.destination.parse::<SocketAddr>().ok()?.port();
    let state = match flow.state {
        // ip_vs sees the client's half only, and takes its ACK for the whole handshake as well.
        FlowState::PickedUp | FlowState::Opening | FlowState::Established => "ESTABLISHED",
        FlowState::Closing => "FIN_WAIT",
        FlowState::Reset => "CLOSE",
        FlowState::Udp => "UDP",
    };
    let (source, virtual_address) = (&*flow.source, &*flow.destination);
    let destination = endpoint(flow.address?, port);
    let expires = flow.expires_seconds;
    Some(line(service.protocol, expires, [state, source, virtual_address, &destination]))
}

/// A line for a template; that of a group stands under its first service.
fn template(status: &Status, template: &Template<'_>) -> Option<String> {
    let is_of = |service: &&Service| {
        let owner = service.persistence_group.as_ref().unwrap_or(&service.name);
        *owner == template.service
    };
    let service = status.services.iter().find(is_of)?;
    let port = port(service);
    let (source, vip) = (endpoint(template.source, 0), endpoint(service.vip, port));
    let destination = endpoint(template.address?, port);
    let expires = template.expires_seconds;
    Some(line(service.protocol, expires, ["ASSURED", &source, &vip, &destination]))
}

fn line(protocol: Protocol, expires: f64, [state, source, vip, destination]: [&str; 4]) -> String {
    let (protocol, expires) = (rows::protocol(protocol), clock(expires));
    format!("{protocol} {expires:<6} {state:<11} {source:<18} {vip:<18} {destination}\n")
}

fn endpoint(address: IpAddr, port: u16) -> String {
    SocketAddr::new(address, port).to_string()
}

const CONNECTIONS: &str = "IPVS connection entries
pro expire state       source             virtual            destination";
