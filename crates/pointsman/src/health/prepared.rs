//! Checks with all that can be made ahead, one per backend and check.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use control::health::{
    Check, CheckKind, DnsCheck, Failure, ProbeTarget, TcpCheck, TlsCheck, UdpCheck,
};
use control::{Backend, Service};
use dataplane::Tick;
use openssl::ssl::SslContext;
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

/// What the backends of a service share of a check.
#[derive(Debug)]
pub(super) struct Plan {
    /// TLS if it has any, or why it cannot be.
    tls: Option<Result<SslContext, String>>,
    /// Whether it asks the VIP.
    pub(super) vip: bool,
    detours: Detours,
}

impl Plan {
    pub(super) fn new(check: &Check, contexts: &mut Contexts, detours: &Detours) -> Self {
        Self {
            tls: tls_check(check).map(|tls| contexts.of(tls).map_err(printable)),
            vip: check.target == ProbeTarget::Vip,
            detours: detours.clone(),
        }
    }
}

/// What a check wants of TLS.
pub(super) fn tls_check(check: &Check) -> Option<&TlsCheck> {
    if let CheckKind::Http(http) = &check.kind { http.tls.as_ref() } else { None }
}

impl Prepared {
    /// Prepares a check. `mark`: by which the VIP is reached at this backend.
    pub(super) fn new(
        service: &Service,
        backend: &Backend,
        check: &Check,
        plan: &Plan,
        mark: Option<u32>,
    ) -> Self {
        let address = match check.target {
            ProbeTarget::Backend => backend.address,
            ProbeTarget::Vip => service.vip,
        };
        let asked = SocketAddr::new(address, check.port_of(service));
        let kind = match &check.kind {
            CheckKind::Http(http) => match plan.tls.as_ref().map(Result::as_ref).transpose() {
                Ok(config) => {
                    let tls = config.zip(http.tls.as_ref()).map(|(config, tls)| {
                        (config.clone(), tls::server_name(http, tls, address))
                    });
                    match Http::new(http, asked, tls) {
                        Ok(http) => Kind::Http(Box::new(http)),
                        Err(error) => Kind::Impossible(printable(error)),
                    }
                }
                Err(error) => Kind::Impossible(error.clone()),
            },
            CheckKind::Tcp(tcp) => Kind::Tcp(tcp.clone()),
            CheckKind::Udp(udp) => Kind::Udp(udp.clone()),
            CheckKind::Dns(dns) => Kind::Dns(dns.clone()),
            CheckKind::Ping => Kind::Ping,
            CheckKind::Script(argv) => {
                Kind::Script(argv.clone(), environment(service, backend, asked))
            }
        };
        let detour = mark.filter(|_| plan.vip).map(|mark| (plan.detours.clone(), mark));
        Self { kind, asked, source: check.source, detour, backend: backend.address }
    }

    /// The address that is asked.
    pub(super) const fn asked(&self) -> SocketAddr {
        self.asked
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

/// The way, as soon as somebody says whether there is one.
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

/// The environment of a script.
fn environment(
    service: &Service,
    backend: &Backend,
    asked: SocketAddr,
) -> Vec<(&'static str, String)> {
    vec![
        ("POINTSMAN_SERVICE", service.name.clone()),
        ("POINTSMAN_VIP", service.vip.to_string()),
        ("POINTSMAN_BACKEND", backend.name.clone()),
        ("POINTSMAN_ADDRESS", backend.address.to_string()),
        ("POINTSMAN_PORT", asked.port().to_string()),
    ]
}
