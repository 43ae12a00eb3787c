//! Checks with all that can be made ahead, one per backend and check.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use control::health::{Asked, CheckKind, DnsCheck, Failure, HttpCheck, Scope, TcpCheck, UdpCheck};
use dataplane::Tick;
use tokio::sync::watch;
use tokio::time::Instant;

use super::detour::{Detour, Detours};
use super::http::Http;
use super::outcome::Outcome;
use super::socket::Target;
use super::text::printable;
use super::tls::Contexts;
use super::{dns, ping, script, tcp, tls, udp};
use crate::clock;

/// The interface towards a backend.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Egress {
    /// Its kernel name.
    pub interface: Arc<str>,
    /// Its kernel index.
    pub ifindex: u32,
}

/// Whether there is a way to a backend.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Reachability {
    /// Not known yet: probes wait.
    Unknown,
    /// Not reachable.
    Gone,
    /// This one, and when it was found: a link that went down took its routes along.
    Via(Egress, Tick),
}

impl Reachability {
    /// Whether it is another one now.
    pub(super) fn set(&mut self, way: Option<Egress>) -> bool {
        let next = match (way, &*self) {
            (None, Self::Gone) => return false,
            (Some(new), Self::Via(old, _)) if new == *old => return false,
            (None, Self::Unknown | Self::Via(..)) => Self::Gone,
            (Some(new), Self::Unknown | Self::Gone | Self::Via(..)) => Self::Via(new, clock::now()),
        };
        *self = next;
        true
    }
}

/// A check of one backend.
#[derive(Debug)]
pub(super) struct Prepared {
    kind: Kind,
    asked: SocketAddr,
    source: Option<IpAddr>,
    /// Of probes to the VIP.
    detour: Option<(Detours, u32)>,
    backend: IpAddr,
}

#[derive(Debug)]
enum Kind {
    Http(Box<Http>),
    Tcp(TcpCheck),
    Udp(UdpCheck),
    Dns(DnsCheck),
    Ping,
    Script(Vec<String>, Vec<(&'static str, String)>),
    /// It cannot be made.
    Impossible(String),
}

impl Prepared {
    /// Prepares a check of a backend. `detour`: by which the VIP is reached at it.
    pub(super) fn new(
        asked: &Asked,
        backend: IpAddr,
        contexts: &mut Contexts,
        detour: Option<(Detours, u32)>,
    ) -> Self {
        let address = asked.address;
        let kind = match &asked.check.kind {
            CheckKind::Http(http) => {
                prepare_http(http, address, contexts).map_or_else(Kind::Impossible, Kind::Http)
            }
            CheckKind::Tcp(tcp) => Kind::Tcp(tcp.clone()),
            CheckKind::Udp(udp) => Kind::Udp(udp.clone()),
            CheckKind::Dns(dns) => Kind::Dns(dns.clone()),
            CheckKind::Ping => Kind::Ping,
            CheckKind::Script(argv) => {
                let scope = asked.scope.as_ref();
                let environment = scope.map(|scope| environment(scope, backend, address));
                Kind::Script(argv.clone(), environment.unwrap_or_default())
            }
        };
        Self { kind, asked: address, source: asked.check.source, detour, backend }
    }

    /// Makes a probe; with `keep` in such a way that its connection can be kept. It takes as long
    /// as it takes, but knows when it will be given up. Without a way to the backend, or when that
    /// goes meanwhile, it says nothing of the backend.
    pub(super) async fn probe(
        &self,
        reachability: &mut watch::Receiver<Reachability>,
        keep: bool,
        deadline: Instant,
    ) -> Outcome {
        let mut lost = reachability.clone();
        tokio::select! {
            outcome = self.ask(reachability, keep, deadline) => outcome,
            _ = lost.wait_for(|reachability| *reachability == Reachability::Gone) => Outcome::failed(no_way()),
        }
    }

    async fn ask(
        &self,
        reachability: &mut watch::Receiver<Reachability>,
        keep: bool,
        deadline: Instant,
    ) -> Outcome {
        let target = match self.target(reachability).await {
            Ok(target) => target,
            Err(failure) => return Outcome::failed(failure),
        };
        match &self.kind {
            Kind::Http(http) => http.probe(&target, keep).await,
            Kind::Tcp(check) => tcp::probe(check, &target).await,
            Kind::Udp(check) => Outcome::bare(udp::probe(check, &target, deadline).await),
            Kind::Dns(check) => Outcome::bare(dns::probe(check, &target, deadline).await),
            Kind::Ping => Outcome::bare(ping::probe(&target).await),
            Kind::Script(argv, environment) => {
                Outcome::bare(script::probe(argv, environment).await)
            }
            Kind::Impossible(why) => Outcome::failed(Failure::Local(why.clone())),
        }
    }

    async fn target(
        &self,
        reachability: &mut watch::Receiver<Reachability>,
    ) -> Result<Target, Failure> {
        let (way, found) = way(reachability).await?;
        let mut mark = None;
        if let Some((detours, number)) = &self.detour {
            let (vip, backend, ifindex) = (self.asked.ip(), self.backend, way.ifindex);
            detours.make(*number, Detour { vip, backend, ifindex, found }).await?;
            mark = Some(*number);
        }
        Ok(Target { address: self.asked, source: self.source, device: way.interface, mark })
    }
}

/// The path of probes to the VIP, once it is set up or failed.
async fn way(reachability: &mut watch::Receiver<Reachability>) -> Result<(Egress, Tick), Failure> {
    match reachability
        .wait_for(|reachability| *reachability != Reachability::Unknown)
        .await
        .as_deref()
    {
        Ok(Reachability::Via(way, found)) => Ok((way.clone(), *found)),
        // The sender is gone, and soon this task as well.
        Ok(Reachability::Unknown | Reachability::Gone) | Err(_) => Err(no_way()),
    }
}

/// It is this node that has no link.
fn no_way() -> Failure {
    Failure::Local("no link towards the backend".to_owned())
}

fn prepare_http(
    check: &HttpCheck,
    asked: SocketAddr,
    contexts: &mut Contexts,
) -> Result<Box<Http>, String> {
    let tls = match &check.tls {
        Some(tls) => {
            let context = contexts.of(tls).map_err(printable)?;
            Some((context, tls::server_name(check, tls, asked.ip())))
        }
        None => None,
    };
    Http::new(check, asked, tls).map(Box::new).map_err(printable)
}

/// The environment of a script.
fn environment(scope: &Scope, backend: IpAddr, asked: SocketAddr) -> Vec<(&'static str, String)> {
    vec![
        ("POINTSMAN_SERVICE", scope.service.clone()),
        ("POINTSMAN_VIP", scope.vip.to_string()),
        ("POINTSMAN_BACKEND", scope.backend.clone()),
        ("POINTSMAN_ADDRESS", backend.to_string()),
        ("POINTSMAN_PORT", asked.port().to_string()),
    ]
}
