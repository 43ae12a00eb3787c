//! Requirement: each kind of check gives both verdicts against a real server (nginx, nginx with
//! TLS, a UDP server, …).

use std::fs;
use std::net::{SocketAddr, UdpSocket};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::{Duration, Instant, SystemTime};

use lab::{
    Capture, Direction, EchoResponder, Lab, NetNs, Nginx, NginxStyle, Pointsman, Process,
    ServiceText,
};
use tests::health;
use tests::lifecycle::run;
use tests::status;

const LIMIT: Duration = Duration::from_secs(5);
/// Response codes of DNS.
const NXDOMAIN: u8 = 3;
const REFUSED: u8 = 5;

const TIMES: &str = "interval = \"200ms\"\ntimeout = \"200ms\"\nfall = 2\nrise = 1";

/// One service with one backend and one check: what the log says as the server goes and comes.
struct Bench {
    lab: Lab,
    lb: Pointsman,
}

impl Bench {
    /// With the backend up.
    fn start(lab: Lab, adapt: fn(ServiceText) -> ServiceText, checks: &[&str]) -> Self {
        let service = adapt(ServiceText::web(&lab)).with(health::STEADY);
        let with =
            |service: ServiceText, check: &&str| service.health(&format!("{check}\n{TIMES}"));
        let lb = health::start(&lab, &checks.iter().fold(service, with));
        Self { lab, lb }
    }

    fn goes_down(&self, why: &str, act: impl FnOnce(&Lab)) {
        let from = SystemTime::now();
        act(&self.lab);
        let (_, line) = health::await_verdict(&self.lb, "rs1", "UP -> DOWN", from, LIMIT);
        assert!(line.contains(why), "not because of `{why}`: {line}");
    }

    fn comes_up(&self, act: impl FnOnce(&Lab)) {
        let from = SystemTime::now();
        act(&self.lab);
        health::await_verdict(&self.lb, "rs1", "DOWN -> UP", from, LIMIT);
    }
}

fn one() -> Lab {
    Lab::builder().backends(1).build().unwrap()
}

#[test]
fn http_status_and_body() {
    let lab = one();
    let mut nginx = Some(lab.start_nginx(0).unwrap());
    let page = lab.files().dir().join("state.txt");
    fs::write(&page, "all is well\n").unwrap();
    let check = "http = { path = \"/state.txt\", body = \"is (well|fine)\", status = [200, 204] }";
    let bench = Bench::start(lab, |web| web, &[check]);
    bench.goes_down("not the expected one", |_| fs::write(&page, "all is lost\n").unwrap());
    bench.comes_up(|_| fs::write(&page, "all is fine\n").unwrap());
    bench.goes_down("refused", |_| drop(nginx.take()));
    bench.comes_up(|lab| nginx = Some(lab.start_nginx(0).unwrap()));
}

#[test]
fn http_with_another_status() {
    let lab = one();
    let _nginx = lab.start_nginx(0).unwrap();
    let check = format!("http = {{ path = \"/health\", status = 204 }}\n{TIMES}");
    let (begin, service) = (SystemTime::now(), ServiceText::web(&lab).health(&check));
    let lb = lab.start_pointsman(0, &service.to_toml()).unwrap();
    let (_, line) = health::await_verdict(&lb, "rs1", "CHECKING -> DOWN", begin, LIMIT);
    assert!(line.contains("status 200"), "{line}");
}

#[test]
fn https_with_a_certificate_that_must_be_valid() {
    let lab = one();
    let (good, other) = (certificate(&lab, "www.example.org"), certificate(&lab, "other.example"));
    let style = |pair: &(PathBuf, PathBuf)| NginxStyle {
        certificate: Some(pair.clone()),
        ..NginxStyle::default()
    };
    let mut nginx: Option<Nginx> = Some(lab.start_nginx_as(0, &style(&good)).unwrap());
    let check = format!(
        "https = {{ path = \"/health\", sni = \"www.example.org\", ca_file = \"{}\" }}",
        good.0.display()
    );
    let bench = Bench::start(lab, |web| web.port(443), &[&check]);
    let mut renew = |lab: &Lab, pair| {
        nginx = None;
        nginx = Some(lab.start_nginx_as(0, &style(pair)).unwrap());
    };
    // The server that goes away first is noticed, too: what is waited for is the reason.
    bench.goes_down("", |lab| renew(lab, &other));
    bench.comes_up(|lab| renew(lab, &good));
}

/// TLS 1.1, RSA key exchange, a key of 1,024 bits and a certificate of version 1.
#[test]
fn https_of_an_old_appliance() {
    let lab = one();
    let (certificate, key) = certificate_of_old(&lab);
    let appliance = |lab: &Lab| {
        let node = lab.backend(0);
        let (certificate, key) = (certificate.display().to_string(), key.display().to_string());
        let argv = [
            "openssl",
            "s_server",
            "-tls1_1",
            "-cipher",
            "AES128-SHA:@SECLEVEL=0",
            "-cert",
            &certificate,
            "-key",
            &key,
            "-www",
            "-accept",
            "443",
        ];
        Process::start(node.netns(), "appliance", &argv, &node.dir().join("appliance.log")).unwrap()
    };
    let mut server = Some(appliance(&lab));
    let ca_file = format!("ca_file = \"{}\"", certificate.display());
    let verified = format!("https = {{ host = \"old.example\", {ca_file} }}\n{TIMES}");
    let (begin, service) = (SystemTime::now(), ServiceText::web(&lab).port(443).health(&verified));
    let mut lb = lab.start_pointsman(0, &service.to_toml()).unwrap();
    let (_, line) = health::await_verdict(&lb, "rs1", "CHECKING -> DOWN", begin, LIMIT);
    assert!(line.contains("TLS: ") && line.contains("protocol version"), "{line}");
    lb.process().stop(LIMIT).unwrap();
    let bench = Bench::start(lab, |web| web.port(443), &["https = { verify = false }"]);
    bench.goes_down("refused", |_| drop(server.take()));
    bench.comes_up(|lab| server = Some(appliance(lab)));
}

#[test]
fn tcp_with_a_dialogue() {
    let lab = one();
    let mut nginx = Some(lab.start_nginx(0).unwrap());
    let check = "tcp = { send = \"HEAD /health HTTP/1.0\\r\\n\\r\\n\", expect = \"200 OK\" }";
    let bench = Bench::start(lab, |web| web, &[check]);
    bench.goes_down("refused", |_| drop(nginx.take()));
    bench.comes_up(|lab| nginx = Some(lab.start_nginx(0).unwrap()));
}

#[test]
fn udp_with_an_answer() {
    let lab = one();
    let echo = |lab: &Lab| {
        let at = (lab.backend(0).address(), 7).into();
        EchoResponder::start(lab.backend(0).netns(), at).unwrap()
    };
    let mut server = Some(echo(&lab));
    let check = "udp = { payload = \"are you there\", expect = \"you\" }";
    let bench = Bench::start(lab, |web| web.udp().port(7), &[check]);
    bench.goes_down("refused", |_| drop(server.take()));
    bench.comes_up(|lab| server = Some(echo(lab)));
}

/// A server that never answers: silence passes, a closed port does not.
#[test]
fn udp_one_way() {
    let lab = one();
    // Each probe of a closed port is answered; by default Linux answers one a second.
    lab.backend(0).netns().set_sysctls(&["net/ipv4/icmp_ratelimit=0"]).unwrap();
    let at: SocketAddr = (lab.backend(0).address(), 514).into();
    let listen = |lab: &Lab| lab.backend(0).netns().enter(|| UdpSocket::bind(at)).unwrap().unwrap();
    let mut server = Some(listen(&lab));
    let check = "udp = { send = \"<14>up\", refusal_window = \"100ms\" }";
    let bench = Bench::start(lab, |web| web.udp().port(514), &[check]);
    bench.goes_down("refused", |_| drop(server.take()));
    bench.comes_up(|lab| server = Some(listen(lab)));
}

/// A name server that answers with `REFUSED` is down, one that does not know the name is up where
/// that is said to pass.
#[test]
fn dns_with_a_code() {
    let lab = one();
    let code = Arc::new(AtomicU8::new(NXDOMAIN));
    let at: SocketAddr = (lab.backend(0).address(), 53).into();
    let netns = lab.backend(0).netns();
    let socket = netns.enter(|| UdpSocket::bind(at)).unwrap().unwrap();
    let answers = Arc::clone(&code);
    let serve = move || {
        let mut message = [0; 512];
        while let Ok((len, client)) = socket.recv_from(&mut message) {
            message[2] |= 0x80;
            message[3] |= answers.load(Ordering::Relaxed);
            if len == 12 || socket.send_to(&message[..len], client).is_err() {
                return;
            }
        }
    };
    let thread = netns.spawn("names", serve).unwrap();
    let check = "dns = { name = \"no.such.example\", rcode = [\"NOERROR\", \"NXDOMAIN\"] }";
    let bench = Bench::start(lab, |web| web.udp().port(53), &[check]);
    bench.goes_down("REFUSED", |_| code.store(REFUSED, Ordering::Relaxed));
    bench.comes_up(|_| code.store(NXDOMAIN, Ordering::Relaxed));
    // A header alone ends it.
    let stop = || UdpSocket::bind((at.ip(), 0)).and_then(|socket| socket.send_to(&[0; 12], at));
    bench.lab.backend(0).netns().enter(stop).unwrap().unwrap();
    thread.join().unwrap();
}

/// Probes come from the address that is asked for; without that address on the node they say so, and
/// nothing of the backend.
#[test]
fn from_a_source_address() {
    let lab = one();
    let _nginx = lab.start_nginx(0).unwrap();
    let source = "10.77.9.9";
    let add = |lab: &Lab, verb: &str| {
        lab.balancer(0).netns().ip(&format!("addr {verb} {source}/16 dev eth0\n")).unwrap();
    };
    add(&lab, "add");
    let file = lab.backend(0).dir().join("source.pcap");
    let filter = format!("tcp and src {source} and dst port 80");
    let capture =
        Capture::start(lab.backend(0).netns(), "eth0", Direction::In, &filter, file).unwrap();
    let check = format!("{}\nsource = \"{source}\"\nsentinel = false", health::HTTP);
    let bench = Bench::start(lab, |web| web, &[&check]);
    assert!(!capture.finish().unwrap().is_empty(), "no probe came from {source}");
    add(&bench.lab, "del");
    let begin = Instant::now();
    let failure = loop {
        let status = status(&bench.lb);
        let check = &status.services[0].backends[0].checks[0];
        let local = check.last_failure.clone().filter(|why| why.contains(source));
        if let Some(failure) = local {
            break failure;
        }
        assert!(begin.elapsed() < LIMIT, "{check:?}");
        std::thread::sleep(Duration::from_millis(50));
    };
    assert_eq!(failure, format!("cannot probe: this node does not have the source {source}"));
    let backend = &status(&bench.lb).services[0].backends[0];
    assert_eq!(backend.state.name(), "up", "the node's own trouble is not the backend's");
}

#[test]
fn ping() {
    let lab = one();
    let bench = Bench::start(lab, |web| web, &["ping = true"]);
    let silent = |netns: &NetNs, on: u8| {
        netns.set_sysctls(&[&format!("net/ipv4/icmp_echo_ignore_all={on}")]).unwrap();
    };
    bench.goes_down("timed out", |lab| silent(lab.backend(0).netns(), 1));
    bench.comes_up(|lab| silent(lab.backend(0).netns(), 0));
}

#[test]
fn a_script() {
    let lab = one();
    let flag = lab.backend(0).dir().join("well");
    fs::write(&flag, "").unwrap();
    let check = format!("script = [\"/usr/bin/test\", \"-e\", \"{}\"]", flag.display());
    let bench = Bench::start(lab, |web| web, &[&check]);
    bench.goes_down("exit code 1", |_| fs::remove_file(&flag).unwrap());
    bench.comes_up(|_| fs::write(&flag, "").unwrap());
}

/// The frame has the backend's MAC and the VIP; a backend that does not serve the VIP is down.
/// Nothing of it stays behind in the kernel of the balancer.
#[test]
fn http_to_the_vip() {
    let lab = one();
    let _nginx = lab.start_nginx(0).unwrap();
    let (vip, file) = (lab.vip(), lab.backend(0).dir().join("vip.pcap"));
    let filter = format!("tcp and src {} and dst {vip}", lab.balancer(0).address());
    let netns = lab.backend(0).netns();
    let capture = Capture::start(netns, "eth0", Direction::In, &filter, file).unwrap();
    let check = format!("{}\ntarget = \"vip\"", health::HTTP);
    let mut bench = Bench::start(lab, |web| web, &[&check]);
    assert!(!capture.finish().unwrap().is_empty(), "no probe went to the VIP");
    let address = |verb: &str| format!("addr {verb} {vip}/32 dev lo\n");
    bench.goes_down("", |lab| lab.backend(0).netns().ip(&address("del")).unwrap());
    bench.comes_up(|lab| lab.backend(0).netns().ip(&address("add")).unwrap());
    let rules = |lab: &Lab| run(lab.balancer(0).netns(), &["ip", "rule"]).unwrap().lines().count();
    assert!(rules(&bench.lab) > 3, "it works without a rule");
    bench.lb.process().stop(LIMIT).unwrap();
    assert_eq!(rules(&bench.lab), 3, "local, main and default are left");
}

/// Two checks: one that fails is enough.
#[test]
fn several_checks_must_all_pass() {
    let lab = one();
    let _nginx = lab.start_nginx(0).unwrap();
    let flag = lab.backend(0).dir().join("well");
    fs::write(&flag, "").unwrap();
    let script = format!("script = [\"/usr/bin/test\", \"-e\", \"{}\"]", flag.display());
    let bench = Bench::start(lab, |web| web, &[health::HTTP, &script]);
    bench.goes_down("exit code 1", |_| fs::remove_file(&flag).unwrap());
    bench.comes_up(|_| fs::write(&flag, "").unwrap());
}

/// What an appliance made for itself in 2005, and its key.
fn certificate_of_old(lab: &Lab) -> (PathBuf, PathBuf) {
    let dir = lab.backend(0).dir();
    let path = |name: &str| dir.join(name);
    let (request, certificate, key) = (path("old.csr"), path("old.pem"), path("old.key"));
    let text = |path: &Path| path.display().to_string();
    let make = [
        "openssl",
        "req",
        "-new",
        "-newkey",
        "rsa:1024",
        "-nodes",
        "-subj",
        "/CN=old.example",
        "-out",
        &text(&request),
        "-keyout",
        &text(&key),
    ];
    // Without extensions it becomes one of version 1.
    let sign = [
        "openssl",
        "x509",
        "-req",
        "-days",
        "2",
        "-in",
        &text(&request),
        "-signkey",
        &text(&key),
        "-out",
        &text(&certificate),
    ];
    for argv in [&make[..], &sign[..]] {
        run(lab.backend(0).netns(), argv).unwrap();
    }
    (certificate, key)
}

/// A certificate of its own for a name, and its key.
fn certificate(lab: &Lab, name: &str) -> (PathBuf, PathBuf) {
    let dir: &Path = lab.backend(0).dir();
    let (certificate, key) = (dir.join(format!("{name}.pem")), dir.join(format!("{name}.key")));
    let (subject, alternative) = (format!("/CN={name}"), format!("subjectAltName=DNS:{name}"));
    let (certificate_text, key_text) =
        (certificate.display().to_string(), key.display().to_string());
    let argv = [
        "openssl",
        "req",
        "-x509",
        "-newkey",
        "ec",
        "-pkeyopt",
        "ec_paramgen_curve:prime256v1",
        "-nodes",
        "-days",
        "2",
        "-subj",
        &subject,
        "-addext",
        &alternative,
        "-addext",
        "basicConstraints=critical,CA:FALSE",
        "-out",
        &certificate_text,
        "-keyout",
        &key_text,
    ];
    run(lab.backend(0).netns(), &argv).unwrap();
    (certificate, key)
}
