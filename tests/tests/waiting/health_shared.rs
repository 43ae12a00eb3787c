//! Requirement: what several services ask alike of one server is asked once and counts for all of
//! them; a backend may have a port, host and path of its own in the checks of its service.

use std::fmt::Write as _;
use std::fs;
use std::time::{Duration, Instant};

use lab::{Capture, Direction, Lab, Pointsman};
use tests::{measured, status};

const SERVICES: u16 = 50;
const LENGTH: Duration = Duration::from_secs(10);
const LIMIT: Duration = Duration::from_secs(10);

#[test]
fn fifty_services_on_one_server_ask_it_once() {
    let lab = Lab::builder().backends(1).build().unwrap();
    let mut web = Some(lab.start_nginx(0).unwrap());
    let lb = lab.start_pointsman(0, &fifty(&lab)).unwrap();
    await_states(&lb, "up");
    // A segment that begins with `GET `.
    let get = "tcp dst port 80 and tcp[((tcp[12:1] & 0xf0) >> 2):4] = 0x47455420";
    let (netns, file) = (lab.backend(0).netns(), lab.backend(0).dir().join("shared.pcap"));
    let capture = Capture::start(netns, "eth0", Direction::In, get, file).unwrap();
    std::thread::sleep(LENGTH);
    let requests = capture.finish().unwrap().len();
    measured("requests_in_10_s", requests, "", "~10");
    // Each on its own they would be 500. A probe that a busy machine delays is followed by some more.
    assert!((5..=30).contains(&requests), "{requests} requests in {LENGTH:?}");
    assert_eq!(counted_once(&lb), 50, "each service is said to have the check");
    drop(web.take());
    await_states(&lb, "down");
    let _web = lab.start_nginx(0).unwrap();
    await_states(&lb, "up");
}

#[test]
fn a_backend_has_what_is_its_own() {
    let lab = Lab::builder().backends(2).build().unwrap();
    let _web = [lab.start_nginx(0).unwrap(), lab.start_nginx(1).unwrap()];
    let own = "check = { port = 80, host = \"own.example\", path = \"/health\" }";
    let mut text = interface();
    let _ = write!(
        text,
        "\n[[service]]\nname = \"web\"\nvip = \"{}\"\nport = 8080\nhold_down = \"0s\"\n\
         \n[[service.health]]\nhttp = {{ path = \"/no/such/page\" }}\ninterval = \"200ms\"\n",
        lab.vip()
    );
    for (at, own) in [(0, own), (1, "")] {
        let address = lab.backend(at).address();
        let _ = write!(
            text,
            "\n[[service.backend]]\nname = \"rs{at}\"\naddress = \"{address}\"\n{own}\n"
        );
    }
    let file = lab.backend(0).dir().join("own.pcap");
    let netns = lab.backend(0).netns();
    let capture =
        Capture::start(netns, "eth0", Direction::In, "tcp dst port 80", file.clone()).unwrap();
    let lb = lab.start_pointsman(0, &text).unwrap();
    let begin = Instant::now();
    let label = loop {
        let status = status(&lb);
        let [first, second] = status.services[0].backends.as_slice() else { panic!("two") };
        let states = (first.state.name(), second.state.name());
        if states == ("up", "down") {
            break first.checks[0].label.clone();
        }
        assert!(begin.elapsed() < LIMIT, "{states:?}\n{}", lb.log());
        std::thread::sleep(Duration::from_millis(50));
    };
    assert_eq!(label, "http :80 /health");
    capture.finish().unwrap();
    let seen = fs::read(file).unwrap();
    let host = b"host: own.example\r\n";
    assert!(seen.windows(host.len()).any(|window| window == host), "another host was asked for");
}

/// Metrics have the check once, under its address; how many services have it.
fn counted_once(lb: &Pointsman) -> usize {
    let page = lb.http("/metrics").unwrap().1;
    let samples = |name: &str| page.lines().filter(|line| line.starts_with(name)).count();
    assert_eq!(samples("pointsman_health_check_successes_total{"), 1, "{page}");
    assert_eq!(samples("pointsman_health_check_duration_seconds_count{"), 1, "{page}");
    samples("pointsman_health_check_info{")
}

fn interface() -> String {
    "[[interface]]\nname = \"eth0\"\n".to_owned()
}

/// Services on ports of their own, all with the same check of the same server.
fn fifty(lab: &Lab) -> String {
    let mut text = interface();
    text += "\n[[check]]\nname = \"web\"\nhttp = { path = \"/health\" }\nport = 80\n";
    for at in 0..SERVICES {
        // Writing to a String cannot fail.
        let _ = write!(
            text,
            "\n[[service]]\nname = \"web{at}\"\nvip = \"{}\"\nport = {}\ncheck = \"web\"\n\
             hold_down = \"0s\"\n\
             \n[[service.backend]]\nname = \"rs1\"\naddress = \"{}\"\n",
            lab.vip(),
            8000 + at,
            lab.backend(0).address()
        );
    }
    text
}

/// Waits until the backend has this state in all services.
fn await_states(lb: &Pointsman, wanted: &str) {
    let begin = Instant::now();
    loop {
        let status = status(lb);
        let backends = status.services.iter().flat_map(|service| &service.backends);
        let count = backends.filter(|backend| backend.state.name() == wanted).count();
        if count == usize::from(SERVICES) {
            return;
        }
        assert!(begin.elapsed() < LIMIT, "{wanted} in {count} services\n{}", lb.log());
        std::thread::sleep(Duration::from_millis(50));
    }
}
