//! `config/pointsman.toml` is what operators copy: it must be right, and complete.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use config::{Parsed, Severity, parse};
use control::health::{
    CheckKind, CheckOverride, DnsCheck, ProbeTarget, StatusSet, TcpCheck, UdpCheck,
};
use control::vrrp::{AnnounceTimes, AuthPass, ChecksumMode, Handover, Version};
use control::{FailurePolicy, FastPath, MinHealthy, Poll, Service, XdpMode, ZeroCopy};
use dataplane::{HashInput, Protocol, SchedulerKind, Timeouts};

const EXAMPLE: &str = include_str!("../../../config/pointsman.toml");

fn accept(text: &str) -> Parsed {
    let parsed = parse("pointsman.toml", text).unwrap_or_else(|errors| panic!("{errors}"));
    // That it is no secret is said of every password.
    let mut warnings = parsed.warnings.iter();
    assert!(warnings.all(|one| one.message().starts_with("`auth_pass`")), "{}", parsed.warnings);
    parsed
}

/// The example with the defaults it shows written out.
fn uncommented() -> String {
    let lines = EXAMPLE.lines().map(|line| match line.strip_prefix('#') {
        Some(default) if default.starts_with(|c: char| c.is_ascii_lowercase()) => default,
        _ => line,
    });
    lines.collect::<Vec<_>>().join("\n")
}

#[test]
fn means_what_it_says() {
    let desired = accept(EXAMPLE).desired;
    assert_eq!(desired.node_name.as_deref(), Some("lb1"));
    assert_eq!(desired.interfaces.len(), 1);
    assert_eq!(desired.interfaces[0].name, "eth0");
    let [web, web_tls, mail, game, syslog, dns] = desired.services.as_slice() else {
        panic!("six services")
    };
    let [edge, second] = desired.vrrp.as_slice() else { panic!("two instances") };
    assert_eq!((second.version, second.source), (Version::V2, Some([192, 0, 2, 2].into())));
    assert_eq!(second.auth_pass, AuthPass::new("1111"));
    assert_eq!(
        (edge.name.as_str(), edge.interface.as_str(), edge.vrid.get()),
        ("VI_1", "eth0", 37)
    );
    assert_eq!((edge.priority, edge.advert_interval), (150, Duration::from_millis(100)));
    assert_eq!(edge.group.as_deref(), Some("edge"));
    let weights: Vec<_> = edge.track.iter().map(|track| track.weight).collect();
    assert_eq!(weights, [Some(-60), Some(-40), Some(1), None]);
    assert_eq!((web.vrrp.as_deref(), dns.vrrp.as_deref()), (Some("VI_1"), None));
    assert_eq!(desired.vips_of("VI_1"), [web.vip]);
    assert_eq!((web.name.as_str(), web.vip), ("web", IpAddr::from([192, 0, 2, 10])));
    assert_eq!((web.protocol, web.first_port, web.last_port), (Protocol::Tcp, 80, 80));
    let persistence = web.persistence.as_ref().expect("web is persistent");
    assert_eq!(persistence.timeout, Duration::from_secs(50));
    assert_eq!((web.group(), web_tls.group(), mail.group()), (Some("shop"), Some("shop"), None));
    assert_eq!((game.hash, dns.hash), (Some(HashInput::Source), None));
    let weights: Vec<_> = web.backends.iter().map(|b| (b.name.as_str(), b.weight)).collect();
    assert_eq!(weights, [("web1", 1), ("web2", 2)]);
    assert_eq!((dns.protocol, dns.first_port, dns.last_port), (Protocol::Udp, 53, 53));
    assert_eq!(dns.persistence, None);
    let kinds = |service: &Service| {
        service.health.iter().map(|check| check.kind.clone()).collect::<Vec<_>>()
    };
    assert!(matches!(kinds(web).as_slice(), [CheckKind::Http(_), CheckKind::Ping]));
    let [CheckKind::Http(_), CheckKind::Script(_), CheckKind::Ping] = kinds(web_tls).as_slice()
    else {
        panic!("its own, then the one by name")
    };
    assert!(matches!(kinds(mail).as_slice(), [CheckKind::Tcp(_), CheckKind::Tcp(_)]));
    assert!(matches!(kinds(game).as_slice(), [CheckKind::Udp(_)]));
    assert!(matches!(kinds(syslog).as_slice(), [CheckKind::Udp(_)]));
    assert!(matches!(kinds(dns).as_slice(), [CheckKind::Dns(_), CheckKind::Udp(_)]));
}

#[test]
fn checks_mean_what_they_say() {
    let desired = accept(EXAMPLE).desired;
    let [web, web_tls, mail, game, syslog, dns] = desired.services.as_slice() else { panic!() };
    let CheckKind::Http(http) = &web.health[0].kind else { panic!("http") };
    assert_eq!((http.method.as_str(), http.path.as_str()), ("GET", "/health"));
    assert_eq!(http.host.as_deref(), Some("www.example.org"));
    let names: Vec<_> = http.headers.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names, ["User-Agent", "Accept"]);
    assert!(http.body.as_ref().is_some_and(|body| body.0.is_match(b"the status: ok")));
    let CheckKind::Http(https) = &web_tls.health[0].kind else { panic!("https") };
    let tls = https.tls.as_ref().expect("TLS");
    assert_eq!((tls.sni.as_deref(), tls.verify), (Some("www.example.org"), true));
    let bytes = |text: &str| text.as_bytes().to_vec();
    let banner = TcpCheck { send: Vec::new(), expect: bytes("220 ") };
    let scanner = TcpCheck { send: bytes("nPING\n"), expect: bytes("PONG") };
    assert_eq!(mail.health[0].kind, CheckKind::Tcp(banner));
    assert_eq!((mail.health[1].port, &mail.health[1].kind), (Some(3310), &CheckKind::Tcp(scanner)));
    let ping = UdpCheck { payload: bytes("ping\n"), expect: bytes("pong"), refusal_window: None };
    assert_eq!((game.health[0].port, &game.health[0].kind), (Some(27_015), &CheckKind::Udp(ping)));
    let CheckKind::Udp(log) = &syslog.health[0].kind else { panic!("udp") };
    assert_eq!(log.refusal_window, Some(Duration::from_millis(200)));
    let rcodes = [0].into();
    let name = DnsCheck { name: "www.example.org".to_owned(), rtype: 1, rcodes };
    assert_eq!(dns.health[0].kind, CheckKind::Dns(name));
    assert_eq!((web.health[0].source, web.health[1].source), (Some([192, 0, 2, 2].into()), None));
    let CheckKind::Udp(query) = &dns.health[1].kind else { panic!("udp") };
    assert_eq!((query.payload.len(), query.expect.as_slice()), (17, [0x12, 0x34].as_slice()));
    let own = CheckOverride {
        port: Some(8081),
        host: Some("web2.example.org".to_owned()),
        path: Some("/health?node=2".to_owned()),
    };
    assert_eq!(web.backends[1].check, own);
    assert_eq!(web.backends[0].check, CheckOverride::default());
    let fallback = web.failure.fallback.as_ref().expect("a fallback");
    assert_eq!((fallback.name.as_str(), fallback.weight), ("sorry", 1));
    assert!(web.failure.notify.is_some());
    assert_eq!(web_tls.failure.min_healthy, MinHealthy::Percent { min: 50, hysteresis: 10 });
}

#[test]
fn defaults() {
    let desired = accept(EXAMPLE).desired;
    let interface = &desired.interfaces[0];
    assert_eq!((interface.mode, interface.zero_copy), (XdpMode::Auto, ZeroCopy::Auto));
    assert_eq!(interface.queues, None);
    let dataplane = &desired.dataplane;
    assert_eq!((&dataplane.cpus, dataplane.poll), (&None, Poll::Adaptive));
    assert_eq!(dataplane.fast_path, FastPath::Auto);
    assert_eq!((dataplane.flow_capacity, dataplane.persistence_capacity), (1_000_000, 1_000_000));
    assert_eq!((dataplane.pending_capacity, dataplane.frames), (1 << 20, 8192));
    assert_eq!(dataplane.timeouts, Timeouts::default());
    assert_eq!(desired.metrics_listen, Some(SocketAddr::from(([127, 0, 0, 1], 9477))));
    assert_eq!(desired.control_socket.as_os_str(), "/run/pointsman/pointsman.sock");
    let edge = &desired.vrrp[0];
    assert_eq!((edge.version, edge.down_adverts, edge.unicast), (Version::V3, 3, false));
    assert_eq!((edge.preempt, edge.preempt_delay), (true, Duration::ZERO));
    assert_eq!((edge.checksum, edge.handover), (ChecksumMode::Auto, Handover::Lease));
    assert_eq!((edge.announce, edge.source), (AnnounceTimes::default(), None));
    let web = &desired.services[0];
    assert_eq!(web.scheduler, SchedulerKind::Maglev);
    let persistence = web.persistence.as_ref().expect("web is persistent");
    assert_eq!((persistence.prefix_v4, persistence.prefix_v6), (32, 128));
    assert!(!persistence.sticky_when_drained);
    assert_eq!(desired.services[2].failure, FailurePolicy::default());
    let seconds = Duration::from_secs;
    let [http, tls] = [&web.health[0], &desired.services[1].health[0]];
    assert_eq!((http.interval, http.down_interval), (seconds(1), seconds(1)));
    assert_eq!(http.timeout, Duration::from_millis(500));
    assert_eq!(http.fast_interval, Duration::from_millis(200));
    assert_eq!((http.rise, http.fall, http.jitter_percent), (2, 3, 10));
    assert_eq!((http.starts_up, http.target), (false, ProbeTarget::Backend));
    assert!(http.sentinel && tls.sentinel && !web.health[1].sentinel);
    let CheckKind::Http(tls) = &tls.kind else { panic!("https") };
    assert_eq!(tls.status, StatusSet::default());
    let ca_file = tls.tls.as_ref().and_then(|tls| tls.ca_file.as_ref()).expect("a default");
    assert_eq!(ca_file.as_os_str(), "/etc/ssl/certs/ca-certificates.crt");
}

#[test]
fn the_defaults_it_shows_are_the_defaults() {
    let shown = uncommented();
    assert_ne!(shown, EXAMPLE);
    assert_eq!(accept(&shown).desired, accept(EXAMPLE).desired);
}

/// Every key and section that the parser knows is in the example. An unknown key in a section makes
/// the parser list what it knows there.
#[test]
fn shows_every_key() {
    let shown = uncommented();
    let headers: BTreeSet<&str> = shown.lines().filter(|line| line.starts_with('[')).collect();
    let probes =
        headers.iter().map(|header| shown.replacen(header, &format!("{header}\n0 = 0"), 1));
    let mut checked = 0;
    for probe in probes.chain([format!("0 = 0\n{shown}")]) {
        let errors = parse("probe.toml", &probe).expect_err("`0` is unknown");
        let error = errors.iter().find(|one| one.severity() == Severity::Error);
        let help = error.and_then(|error| error.help()).expect("known keys");
        let (_, known) = help.split_once(": ").expect("a list");
        for key in known.split(", ").map(|key| key.trim_matches('`')) {
            let written = shown.lines().any(|line| {
                let header = line.trim_matches(['[', ']']);
                line.starts_with(&format!("{key} = "))
                    || header == key
                    || (line.starts_with('[') && header.ends_with(&format!(".{key}")))
            });
            assert!(written, "`{key}` is not in the example");
            checked += 1;
        }
    }
    assert_eq!(headers.len(), 22, "{headers:?}");
    assert!(checked > 100, "only {checked} keys");
}
