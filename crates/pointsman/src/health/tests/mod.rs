//! Every kind of probe against real servers on loopback, and the driver over them.

mod appliances;
mod driver;
mod hostile;
mod http;
mod https;
mod others;
mod queries;
mod servers;

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use control::health::{Asked, Check, CheckKind, Failure, HttpCheck, ProbeTarget, StatusSet};
use control::{Backend, FailurePolicy, Service};
use dataplane::{Protocol, SchedulerKind};
use tokio::sync::watch;

use super::outcome::Outcome;
use super::prepared::{Egress, Prepared, Reachability};
use super::tls::Contexts;
use crate::clock;

/// For answers that come.
const AMPLE: Duration = Duration::from_secs(5);
/// For answers that do not.
const SHORT: Duration = Duration::from_millis(200);

/// A check that starts every 50 ms.
fn check(kind: CheckKind, timeout: Duration) -> Check {
    Check {
        kind,
        interval: Duration::from_millis(50),
        timeout,
        rise: 1,
        fall: 1,
        fast_interval: Duration::from_millis(20),
        down_interval: Duration::from_millis(50),
        jitter_percent: 0,
        starts_up: false,
        port: None,
        target: ProbeTarget::Backend,
        source: None,
        sentinel: false,
    }
}

fn get(path: &str) -> HttpCheck {
    HttpCheck {
        method: "GET".to_owned(),
        path: path.to_owned(),
        host: None,
        headers: Vec::new(),
        status: StatusSet::default(),
        body: None,
        tls: None,
    }
}

fn service(address: SocketAddr, health: Vec<Check>) -> Service {
    let backend = Backend {
        name: "rs1".to_owned(),
        address: address.ip(),
        weight: 1,
        check: control::health::CheckOverride::default(),
        drain: None,
    };
    Service {
        name: "web".to_owned(),
        vrrp: None,
        vip: IpAddr::V4(Ipv4Addr::new(192, 0, 2, 10)),
        protocol: Protocol::Tcp,
        first_port: address.port(),
        last_port: address.port(),
        closed_ports: control::ClosedPorts::Reject,
        scheduler: SchedulerKind::Maglev,
        hash: None,
        persistence: None,
        backends: vec![backend],
        health,
        failure: FailurePolicy::default(),
    }
}

fn loopback() -> Egress {
    Egress { interface: Arc::from("lo"), ifindex: 1 }
}

/// Makes one probe, as the driver does; returns how long it took, too.
async fn probe(check: &Check, address: SocketAddr, keep: bool) -> (Outcome, Duration) {
    let service = service(address, vec![check.clone()]);
    let asked = Asked::new(&service, &service.backends[0], check);
    let prepared = Prepared::new(&asked, address.ip(), &mut Contexts::default(), None);
    let (_road, mut way) = watch::channel(Reachability::Via(loopback(), clock::now()));
    let begin = Instant::now();
    let deadline = tokio::time::Instant::now() + check.timeout;
    let outcome = tokio::time::timeout_at(deadline, prepared.probe(&mut way, keep, deadline)).await;
    let outcome = outcome.unwrap_or_else(|_| Outcome::failed(Failure::Timeout));
    (outcome, begin.elapsed())
}

/// The result of one probe.
async fn result(kind: CheckKind, address: SocketAddr, timeout: Duration) -> Result<(), Failure> {
    probe(&check(kind, timeout), address, false).await.0.result
}

/// A loopback address without a listener.
fn nobody() -> SocketAddr {
    let listener = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
    listener.local_addr().expect("an address")
}
