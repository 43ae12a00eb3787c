//! What a `[[service.health]]` asks for.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use regex::bytes::Regex;

use crate::desired::Service;

/// One check of every backend of a service. Several of them must all pass.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Check {
    /// What is asked, and which answer is right.
    pub kind: CheckKind,
    /// From one start to the next while the backend is up.
    pub interval: Duration,
    /// The whole probe, connection and TLS included, is over after this long.
    pub timeout: Duration,
    /// Successes in a row that bring it up, 1–100.
    pub rise: u8,
    /// Failures in a row that bring it down, 1–100.
    pub fall: u8,
    /// From one start to the next while it is suspected: after a first failure, until it is decided.
    pub fast_interval: Duration,
    /// From one start to the next while it is down.
    pub down_interval: Duration,
    /// Each interval is longer or shorter by up to this part of it, in per cent, 0–50: so that
    /// checks of many backends do not run in step.
    pub jitter_percent: u8,
    /// Whether the backend takes clients before the first result.
    pub starts_up: bool,
    /// The port that is asked. `None`: that of the service (its first one).
    pub port: Option<u16>,
    /// The address that is asked.
    pub target: ProbeTarget,
    /// The address of this node that probes come from. `None`: the kernel chooses.
    pub source: Option<IpAddr>,
    /// Whether a kept connection shows at once that the server went away; `http`, `https`, `tcp`.
    pub sentinel: bool,
}

impl Check {
    /// The port that is asked of a service's backends.
    pub fn port_of(&self, service: &Service) -> u16 {
        match (self.port, service.first_port) {
            (Some(port), _) => port,
            // The service has every port.
            (None, 0) if matches!(self.kind, CheckKind::Dns(_)) => 53,
            (None, first) => first,
        }
    }

    /// Names it among the checks of a backend: `http /health`, `tcp :8080`, `ping`.
    pub(super) fn label(&self) -> String {
        let mut label = self.kind.name().to_owned();
        if let Some(port) = self.port {
            label.push_str(&format!(" :{port}"));
        }
        let detail = match &self.kind {
            CheckKind::Http(http) => Some(&http.path),
            CheckKind::Script(argv) => argv.first(),
            CheckKind::Dns(dns) => Some(&dns.name),
            CheckKind::Tcp(_) | CheckKind::Udp(_) | CheckKind::Ping => None,
        };
        if let Some(detail) = detail {
            label.push(' ');
            label.push_str(detail);
        }
        label
    }
}

/// The labels of a backend's checks, in their order, each unique: a label that an earlier check has
/// gets a number, ` #2`, ` #3`, …
pub(super) fn labels(plain: impl Iterator<Item = String>) -> Vec<String> {
    let mut labels: Vec<String> = Vec::new();
    for plain in plain {
        let mut label = plain.clone();
        let mut number = 2;
        while labels.contains(&label) {
            label = format!("{plain} #{number}");
            number += 1;
        }
        labels.push(label);
    }
    labels
}

/// What a backend has of its own in all checks of it that have such a thing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CheckOverride {
    /// The port that is asked.
    pub port: Option<u16>,
    /// `Host` header, and by it the name in TLS unless `sni` is written.
    pub host: Option<String>,
    /// Path and query.
    pub path: Option<String>,
}

impl CheckOverride {
    /// A check with these in place of its own.
    pub fn applied_to(&self, check: &Check) -> Check {
        let mut check = check.clone();
        match &mut check.kind {
            CheckKind::Http(http) => {
                if self.host.is_some() {
                    http.host.clone_from(&self.host);
                }
                if let Some(path) = &self.path {
                    http.path.clone_from(path);
                }
                check.port = self.port.or(check.port);
            }
            CheckKind::Tcp(_) | CheckKind::Udp(_) | CheckKind::Dns(_) => {
                check.port = self.port.or(check.port);
            }
            CheckKind::Ping | CheckKind::Script(_) => {}
        }
        check
    }
}

/// Which address a probe goes to. Either way the frames go to the backend.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProbeTarget {
    /// The backend's own address.
    Backend,
    /// The VIP, as a client would.
    Vip,
}

/// What is asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CheckKind {
    /// An HTTP/1.1 request, over TLS if `tls` is there.
    Http(HttpCheck),
    /// A TCP connection.
    Tcp(TcpCheck),
    /// A datagram and its answer.
    Udp(UdpCheck),
    /// A DNS query over UDP.
    Dns(DnsCheck),
    /// An ICMP or ICMPv6 echo.
    Ping,
    /// A program and its arguments, no shell; it passes if it exits with 0.
    Script(Vec<String>),
}

impl CheckKind {
    /// As it is configured; the metric label.
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Http(HttpCheck { tls: None, .. }) => "http",
            Self::Http(HttpCheck { tls: Some(_), .. }) => "https",
            Self::Tcp(_) => "tcp",
            Self::Udp(_) => "udp",
            Self::Dns(_) => "dns",
            Self::Ping => "ping",
            Self::Script(_) => "script",
        }
    }
}

/// An HTTP request and the answers that pass.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HttpCheck {
    /// `GET`, `HEAD`, …
    pub method: String,
    /// Begins with `/`; a query may follow.
    pub path: String,
    /// `Host` header. `None`: the address that is asked.
    pub host: Option<String>,
    /// Further headers.
    pub headers: Vec<(String, String)>,
    /// Status codes that pass.
    pub status: StatusSet,
    /// What the body must contain, within its first 64 KiB.
    pub body: Option<BodyPattern>,
    /// TLS, for `https`.
    pub tls: Option<TlsCheck>,
}

/// TLS of a check.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsCheck {
    /// Server name. `None`: that of the `Host` header if it is a name, else none is sent.
    pub sni: Option<String>,
    /// Whether the certificate must be valid for that name.
    pub verify: bool,
    /// Certificates in PEM that are trusted, when `verify` is on.
    pub ca_file: Option<PathBuf>,
}

/// A TCP connection: it passes when it is made and, if `expect` is there, the bytes arrive.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TcpCheck {
    /// Sent after the connection is made.
    pub send: Vec<u8>,
    /// What must be among the first 64 KiB received. Empty: nothing is waited for.
    pub expect: Vec<u8>,
}

/// A datagram.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct UdpCheck {
    /// Its payload.
    pub payload: Vec<u8>,
    /// What must be in an answer. Empty: any answer passes.
    pub expect: Vec<u8>,
    /// For servers that never answer: silence passes after this long, so that only an ICMP error
    /// (port or host unreachable) or a wrong answer within it fails. Less than the check's timeout.
    pub refusal_window: Option<Duration>,
}

/// A query and the responses that pass.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DnsCheck {
    /// What is asked for, without a final dot; empty for the root.
    pub name: String,
    /// Number of the record type, one of [`DNS_TYPES`].
    pub rtype: u16,
    /// Response codes that pass, of [`DNS_RCODES`].
    pub rcodes: BTreeSet<u8>,
}

impl DnsCheck {
    /// What a response code is called.
    pub fn rcode_name(code: u8) -> &'static str {
        DNS_RCODES
            .iter()
            .find(|(_, known)| *known == code)
            .map_or("an unknown code", |(name, _)| name)
    }
}

/// Record types that can be asked for (IANA, "Resource Record (RR) TYPEs").
pub const DNS_TYPES: &[(&str, u16)] = &[
    ("A", 1),
    ("NS", 2),
    ("CNAME", 5),
    ("SOA", 6),
    ("PTR", 12),
    ("MX", 15),
    ("TXT", 16),
    ("AAAA", 28),
    ("SRV", 33),
    ("CAA", 257),
];

/// Response codes (RFC 1035 §4.1.1, RFC 2136 §2.2).
pub const DNS_RCODES: &[(&str, u8)] = &[
    ("NOERROR", 0),
    ("FORMERR", 1),
    ("SERVFAIL", 2),
    ("NXDOMAIN", 3),
    ("NOTIMP", 4),
    ("REFUSED", 5),
    ("YXDOMAIN", 6),
    ("YXRRSET", 7),
    ("NXRRSET", 8),
    ("NOTAUTH", 9),
    ("NOTZONE", 10),
];

/// Status codes, as ranges.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StatusSet(pub Vec<(u16, u16)>);

impl StatusSet {
    /// Whether the code is in one of the ranges, both ends included.
    pub fn contains(&self, code: u16) -> bool {
        self.0.iter().any(|(first, last)| (*first..=*last).contains(&code))
    }
}

impl Default for StatusSet {
    /// 200–299, as keepalived.
    fn default() -> Self {
        Self(vec![(200, 299)])
    }
}

/// A regular expression over bytes.
#[derive(Clone, Debug)]
pub struct BodyPattern(pub Regex);

impl PartialEq for BodyPattern {
    fn eq(&self, other: &Self) -> bool {
        self.0.as_str() == other.0.as_str()
    }
}

impl Eq for BodyPattern {}
