//! Checks and failure policies that are allowed, and what they mean.

use std::path::Path;
use std::time::Duration;

use config::parse;
use control::health::{
    Check, CheckKind, HttpCheck, ProbeTarget, StatusSet, TcpCheck, TlsCheck, UdpCheck,
};
use control::{Damping, FailurePolicy, MinHealthy, OnAllDown, OnDown, Service};

/// A service with two backends, of weight 1 and 2, and these settings; without warnings.
fn service(settings: &str) -> Service {
    let text = format!(
        "interface = [{{ name = \"eth0\" }}]\n[[service]]\nname = \"web\"\nvip = \"192.0.2.10\"\n\
         port = \"8080-8090\"\nbackend = [{{ name = \"web1\", address = \"192.0.2.11\" }},\n\
         {{ name = \"web2\", address = \"192.0.2.12\", weight = 2 }}]\n{settings}"
    );
    let parsed = parse("health.toml", &text).unwrap_or_else(|errors| panic!("{errors}"));
    assert!(parsed.warnings.is_empty(), "{}", parsed.warnings);
    parsed.desired.services.into_iter().next().expect("one service")
}

fn check(settings: &str) -> Check {
    let mut health = service(&format!("[[service.health]]\n{settings}")).health;
    assert_eq!(health.len(), 1);
    health.remove(0)
}

fn http(settings: &str) -> HttpCheck {
    let CheckKind::Http(http) = check(settings).kind else { panic!("not http: {settings}") };
    http
}

fn failure(settings: &str) -> FailurePolicy {
    service(settings).failure
}

const fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

#[test]
fn nothing_written_means_the_defaults() {
    let service = service("");
    assert_eq!(service.health, []);
    assert_eq!(service.failure, FailurePolicy::default());
}

#[test]
fn each_kind_with_its_defaults() {
    let request = HttpCheck {
        method: "GET".to_owned(),
        path: "/".to_owned(),
        host: None,
        headers: Vec::new(),
        status: StatusSet(vec![(200, 299)]),
        body: None,
        tls: None,
    };
    for written in ["http = true", "http = {}", "[service.health.http]"] {
        assert_eq!(http(written), request, "{written}");
    }
    let tls = |https: &str| http(&format!("https = {{ {https} }}")).tls.expect("TLS");
    let ca_file = Some(Path::new("/etc/ssl/certs/ca-certificates.crt").to_owned());
    let sni = Some("a.example".to_owned());
    let named = TlsCheck { sni, verify: true, ca_file: ca_file.clone() };
    assert_eq!(tls("sni = \"a.example\""), named);
    let by_host = TlsCheck { sni: None, verify: true, ca_file };
    assert_eq!(tls("host = \"a.example:8443\""), by_host);
    let anybody = TlsCheck { sni: None, verify: false, ca_file: None };
    assert_eq!(tls("verify = false"), anybody);
    for written in ["tcp = true", "tcp = {}"] {
        assert_eq!(check(written).kind, CheckKind::Tcp(TcpCheck::default()));
    }
    assert_eq!(check("ping = true").kind, CheckKind::Ping);
    let argv = vec!["/usr/bin/check".to_owned(), String::new()];
    assert_eq!(check("script = [\"/usr/bin/check\", \"\"]").kind, CheckKind::Script(argv));
}

#[test]
fn the_sentinel_is_for_connections() {
    for kind in ["http = true", "https = { verify = false }", "tcp = true"] {
        assert!(check(kind).sentinel, "{kind}");
        assert!(!check(&format!("{kind}\nsentinel = false")).sentinel, "{kind}");
    }
    for kind in ["udp = { payload = \"x\" }", "ping = true", "script = [\"/bin/true\"]"] {
        assert!(!check(kind).sentinel, "{kind}");
        assert!(!check(&format!("{kind}\nsentinel = false")).sentinel, "{kind}");
    }
}

#[test]
fn intervals_follow_the_interval() {
    let times = |settings: &str| {
        let check = check(&format!("tcp = true\n{settings}"));
        (check.interval, check.fast_interval, check.down_interval, check.timeout)
    };
    assert_eq!(times(""), (ms(1000), ms(200), ms(1000), ms(500)));
    assert_eq!(times("interval = \"100ms\""), (ms(100), ms(100), ms(100), ms(500)));
    assert_eq!(times("interval = \"1h\""), (ms(3_600_000), ms(200), ms(3_600_000), ms(500)));
    let all =
        "interval = \"5s\"\nfast_interval = \"5s\"\ndown_interval = \"10ms\"\ntimeout = \"5s\"";
    assert_eq!(times(all), (ms(5000), ms(5000), ms(10), ms(5000)));
}

#[test]
fn the_limits_themselves_are_allowed() {
    let low = check("tcp = true\nrise = 1\nfall = 1\njitter_percent = 0\nport = 1\nstart = \"up\"");
    assert_eq!((low.rise, low.fall, low.jitter_percent, low.port), (1, 1, 0, Some(1)));
    assert!(low.starts_up);
    let high = check("ping = true\nrise = 100\nfall = 100\njitter_percent = 50\ntarget = \"vip\"");
    assert_eq!((high.rise, high.fall, high.jitter_percent, high.port), (100, 100, 50, None));
    assert_eq!(high.target, ProbeTarget::Vip);
    let both = failure("slow_start = \"1h\"\nhold_down = \"1h\"\nhold_down_max = \"1h\"");
    assert_eq!((both.slow_start, both.damping.max), (ms(3_600_000), ms(3_600_000)));
}

#[test]
fn status_codes() {
    let cases: [(&str, &[(u16, u16)]); 6] = [
        ("204", &[(204, 204)]),
        ("\"200-299\"", &[(200, 299)]),
        ("\"100 - 599\"", &[(100, 599)]),
        ("[200]", &[(200, 200)]),
        ("[200, \"300-399\", 599]", &[(200, 200), (300, 399), (599, 599)]),
        ("\"200-200\"", &[(200, 200)]),
    ];
    for (written, expected) in cases {
        let status = http(&format!("http = {{ status = {written} }}")).status;
        assert_eq!(status, StatusSet(expected.to_vec()), "{written}");
    }
}

#[test]
fn requests() {
    let all = http(
        "[service.health.http]\nmethod = \"PURGE\"\npath = \"/a%20b?c=d&e\"\n\
         host = \"[2001:db8::1]:8080\"\nbody = '(?i)up\\b'\n\
         headers.X-Z = \"last\"\nheaders.X-A = \"\\t first\"\nheaders.X-E = \"\"\n",
    );
    assert_eq!((all.method.as_str(), all.path.as_str()), ("PURGE", "/a%20b?c=d&e"));
    assert_eq!(all.host.as_deref(), Some("[2001:db8::1]:8080"));
    let expected = [("X-Z", "last"), ("X-A", "\t first"), ("X-E", "")];
    assert_eq!(all.headers, expected.map(|(name, text)| (name.to_owned(), text.to_owned())));
    let body = all.body.expect("a pattern");
    assert!(body.0.is_match(b"\xff UP.") && !body.0.is_match(b"upper"));
    for host in ["localhost", "192.0.2.1", "192.0.2.1:80", "[::1]", "a_b.example"] {
        let read = http(&format!("http = {{ host = \"{host}\" }}")).host;
        assert_eq!(read.as_deref(), Some(host));
    }
}

#[test]
fn bytes_are_text_or_hex() {
    let send = |written: &str| {
        let CheckKind::Tcp(tcp) = check(&format!("tcp = {{ {written} }}")).kind else {
            panic!("not tcp: {written}")
        };
        tcp.send
    };
    assert_eq!(send("send = \"\\r\\n\\u0000é\""), b"\r\n\0\xc3\xa9");
    assert_eq!(send("send = 'a\\r'"), b"a\\r");
    assert_eq!(send("send_hex = \"00fF 0a\""), [0, 255, 10]);
    assert!(send("send_hex = \"\"").is_empty());
    let long = "a".repeat(65_507);
    assert_eq!(send(&format!("send = \"{long}\"")).len(), 65_507);
    let udp = check("udp = { payload_hex = \"01\", expect = \"ok\" }").kind;
    assert_eq!(
        udp,
        CheckKind::Udp(UdpCheck { payload: vec![1], expect: b"ok".to_vec(), refusal_window: None })
    );
}

#[test]
fn udp_without_an_answer() {
    let read = |written: &str| {
        check(&format!("{written}\n[service.health.udp]\nsend = \"x\"\nrefusal_window = \"200ms\""))
            .kind
    };
    let refusal_window = Some(ms(200));
    let expected =
        CheckKind::Udp(UdpCheck { payload: b"x".to_vec(), expect: Vec::new(), refusal_window });
    assert_eq!(read(""), expected);
    let empty = check("udp = { refusal_window = \"499ms\" }").kind;
    let refusal_window = Some(ms(499));
    assert_eq!(empty, CheckKind::Udp(UdpCheck { refusal_window, ..UdpCheck::default() }));
}

#[test]
fn name_servers() {
    let dns = |written: &str| {
        let CheckKind::Dns(dns) = check(&format!("dns = {{ {written} }}")).kind else { panic!() };
        (dns.name, dns.rtype, dns.rcodes.into_iter().collect::<Vec<_>>())
    };
    let is = |name: &str, rtype: u16, rcodes: &[u8]| (name.to_owned(), rtype, rcodes.to_vec());
    assert_eq!(dns("name = \"a.example.\""), is("a.example", 1, &[0]));
    assert_eq!(dns("name = \".\", type = \"NS\""), is("", 2, &[0]));
    assert_eq!(
        dns("name = \"_sip._udp.x\", type = \"SRV\", rcode = \"NXDOMAIN\""),
        is("_sip._udp.x", 33, &[3])
    );
    assert_eq!(dns("name = \"x\", rcode = [\"NXDOMAIN\", \"NOERROR\"]"), is("x", 1, &[0, 3]));
    let all = service(
        "[[service.health]]\ndns = { name = \"x\" }\n[[service.health]]\ndns = { name = \"x\" }\nport = 5353",
    );
    let ports: Vec<_> = all.health.iter().map(|check| check.port_of(&all)).collect();
    assert_eq!(ports, [8080, 5353]);
    let any = Service { first_port: 0, last_port: u16::MAX, ..all };
    assert_eq!(any.health.first().map(|check| check.port_of(&any)), Some(53));
}

#[test]
fn sources() {
    let source = |written: &str| check(&format!("ping = true\nsource = {written}")).source;
    let v4 = Some([192, 0, 2, 9].into());
    assert_eq!(source("\"192.0.2.9\""), v4);
    assert_eq!(source("[\"2001:db8::9\", \"192.0.2.9\"]"), v4);
    assert_eq!(check("ping = true").source, None);
}

#[test]
fn checks_by_name() {
    let text = "interface = [{ name = \"eth0\" }]\n\
        [[check]]\nname = \"up\"\ntcp = true\nsource = [\"192.0.2.9\", \"2001:db8::9\"]\n\
        [[check]]\nname = \"alive\"\nping = true\n\
        [[service]]\nname = \"a\"\nvip = \"192.0.2.10\"\nport = 80\ncheck = [\"alive\", \"up\"]\n\
        backend = [{ name = \"1\", address = \"192.0.2.11\" }]\nhealth = [{ udp = { send = \"x\" } }]\n\
        [[service]]\nname = \"b\"\nvip = \"2001:db8::10\"\nport = 81\ncheck = \"up\"\n\
        backend = [{ name = \"1\", address = \"2001:db8::11\" }]\n";
    let parsed = parse("shared.toml", text).unwrap_or_else(|errors| panic!("{errors}"));
    assert!(parsed.warnings.is_empty(), "{}", parsed.warnings);
    let [a, b] = parsed.desired.services.as_slice() else { panic!("two services") };
    let names = |service: &Service| {
        service.health.iter().map(|check| check.kind.name()).collect::<Vec<_>>()
    };
    assert_eq!((names(a), names(b)), (vec!["udp", "ping", "tcp"], vec!["tcp"]));
    let sources = (a.health[2].source, b.health[0].source);
    let expected = ("192.0.2.9".parse().ok(), "2001:db8::9".parse().ok());
    assert_eq!(sources, expected, "each family has its own");
}

#[test]
fn too_many_bytes_are_refused() {
    let text = format!(
        "interface = [{{ name = \"eth0\" }}]\n[[service]]\nname = \"web\"\nvip = \"192.0.2.10\"\n\
         port = 80\nbackend = [{{ name = \"web1\", address = \"192.0.2.11\" }}]\n\
         health = [{{ tcp = {{ send = \"{}\" }} }}]",
        "a".repeat(65_508)
    );
    let errors = parse("long.toml", &text).expect_err("too long");
    let messages: Vec<_> = errors.iter().map(|error| error.message()).collect();
    assert_eq!(messages, ["`send` is longer than 65507 bytes"]);
}

#[test]
fn several_checks_keep_their_order() {
    let several = "health = [{ ping = true }, { tcp = true }, { tcp = true, port = 22 }]";
    let health = service(several).health;
    let ports: Vec<_> = health.iter().map(|check| check.port).collect();
    assert_eq!(ports, [None, None, Some(22)]);
    assert_eq!(health.first().map(|check| &check.kind), Some(&CheckKind::Ping));
}

#[test]
fn failure_words() {
    let cases = [("reset", OnDown::Reset), ("keep", OnDown::Keep), ("drop", OnDown::Drop)];
    for (written, expected) in cases {
        assert_eq!(failure(&format!("on_down = \"{written}\"")).on_down, expected);
    }
    let cases = [("reject", OnAllDown::Reject), ("keep-last", OnAllDown::KeepLast)];
    for (written, expected) in cases {
        assert_eq!(failure(&format!("on_all_down = \"{written}\"")).on_all_down, expected);
    }
    assert!(
        failure("inhibit = true").inhibit && failure("inhibit = true\non_down = \"keep\"").inhibit
    );
}

#[test]
fn healthy_enough() {
    let weight = |min, hysteresis| MinHealthy::Weight { min, hysteresis };
    let percent = |min, hysteresis| MinHealthy::Percent { min, hysteresis };
    let cases = [
        ("min_healthy = 2", weight(2, 0)),
        ("min_healthy = 2\nmin_healthy_hysteresis = 1", weight(2, 1)),
        ("min_healthy_hysteresis = 2", weight(1, 2)),
        ("min_healthy_hysteresis = \"0%\"", weight(1, 0)),
        ("min_healthy = \"100%\"", percent(100, 0)),
        ("min_healthy = \"1 %\"\nmin_healthy_hysteresis = \"99%\"", percent(1, 99)),
        ("min_healthy = \"50%\"\nmin_healthy_hysteresis = 0", percent(50, 0)),
    ];
    for (written, expected) in cases {
        assert_eq!(failure(written).min_healthy, expected, "{written}");
    }
}

#[test]
fn holding_down() {
    let damping = |settings: &str| failure(settings).damping;
    assert_eq!(damping("hold_down = \"0s\"").hold, Duration::ZERO);
    assert_eq!(damping("hold_down = \"5s\""), Damping { hold: ms(5000), max: ms(60_000) });
    assert_eq!(damping("hold_down = \"2m\""), Damping { hold: ms(120_000), max: ms(120_000) });
    assert_eq!(damping("hold_down_max = \"1s\""), Damping { hold: ms(1000), max: ms(1000) });
}

#[test]
fn fallback_and_hook() {
    let service = service(
        "fallback = { name = \"sorry\", address = \"192.0.2.20\" }\n\
         notify = { command = [\"/bin/logger\", \"-t\"], timeout = \"3s\" }",
    );
    let notify = service.failure.notify.as_ref().expect("a hook");
    assert_eq!((notify.command.len(), notify.timeout), (2, ms(3000)));
    let names: Vec<_> = service.hosts().map(|host| host.name.as_str()).collect();
    assert_eq!(names, ["web1", "web2", "sorry"]);
}
