//! What a changed file changes of a running node: every setting is either taken over or refused.

use config::parse;
use control::reload::Plan;

const BASE: &str = r#"
[node]
name = "lb1"

[dataplane]
flow_capacity = 4096

[metrics]
listen = "127.0.0.1:9477"

[[interface]]
name = "eth0"

[[vrrp]]
name = "vi1"
interface = "eth0"
vrid = 7
priority = 150
advert_interval = "1s"
peers = ["192.0.2.3"]

[[service]]
name = "web"
vip = "192.0.2.10"
protocol = "tcp"
port = 80
scheduler = "rr"
vrrp = "vi1"

[service.persistence]
timeout = "50s"

[[service.health]]
http = { path = "/health" }

[[service.backend]]
name = "rs1"
address = "192.0.2.11"
weight = 1

[[service.backend]]
name = "rs2"
address = "192.0.2.12"
weight = 1

[[service]]
name = "dns"
vip = "192.0.2.20"
protocol = "udp"
port = 53

[[service.backend]]
name = "rs1"
address = "192.0.2.11"
"#;

fn plan(old: &str, new: &str) -> Plan {
    let read =
        |text: &str| parse("test.toml", text).unwrap_or_else(|error| panic!("{error}")).desired;
    Plan::between(&read(old), &read(new))
}

fn changes(from: &str, to: &str) -> Vec<String> {
    assert_eq!(BASE.matches(from).count(), 1, "{from:?} must stand there once");
    let plan = plan(BASE, &BASE.replace(from, to));
    assert_eq!(plan.fixed, [], "{from:?} -> {to:?}");
    plan.changes.iter().map(ToString::to_string).collect()
}

#[test]
fn an_unchanged_file_changes_nothing() {
    assert!(plan(BASE, BASE).is_empty());
    assert!(plan(BASE, &format!("# a comment\n{BASE}")).is_empty());
}

#[test]
fn what_can_change_has_a_line_that_says_what() {
    let rs3 = "name = \"rs2\"\naddress = \"192.0.2.12\"\nweight = 1\n\n[[service.backend]]\n\
               name = \"rs3\"\naddress = \"192.0.2.13\"\nweight = 5";
    for (from, to, expected) in [
        ("priority = 150", "priority = 90", "~ vrrp vi1: priority 150 -> 90"),
        ("interval = \"1s\"", "interval = \"2s\"", "~ vrrp vi1: advert_interval 1 s -> 2 s"),
        ("vrid = 7", "vrid = 7\npreempt = false", "~ vrrp vi1: preempt true -> false"),
        ("vrid = 7", "vrid = 7\npreempt_delay = \"5s\"", "~ vrrp vi1: preempt_delay 0 s -> 5 s"),
        (
            "peers = [\"192.0.2.3\"]",
            "peers = [\"192.0.2.3\", \"192.0.2.4\"]",
            "~ vrrp vi1: + peer 192.0.2.4",
        ),
        ("scheduler = \"rr\"", "scheduler = \"wlc\"", "~ service web: scheduler rr -> wlc"),
        ("timeout = \"50s\"", "timeout = \"5m\"", "~ service web: persistence 50 s -> 300 s"),
        ("path = \"/health\"", "path = \"/ok\"", "~ service web: health checks"),
        (
            "port = 53",
            "port = 5353",
            "~ service dns: udp 192.0.2.20:53 -> udp 192.0.2.20:5353: its connections end",
        ),
        (
            "name = \"rs2\"\naddress = \"192.0.2.12\"\nweight = 1",
            rs3,
            "~ service web: + backend rs3 192.0.2.13 (weight 5)",
        ),
        (
            "[[service.backend]]\nname = \"rs2\"\naddress = \"192.0.2.12\"\nweight = 1",
            "",
            "~ service web: - backend rs2 192.0.2.12 (drained: its connections go on)",
        ),
        (
            "address = \"192.0.2.12\"\nweight = 1",
            "address = \"192.0.2.12\"\nweight = 7",
            "~ service web: backend rs2: weight 1 -> 7",
        ),
        ("name = \"dns\"", "name = \"names\"", "~ service names: was called dns"),
        ("name = \"dns\"\n", "name = \"dns\"\non_down = \"drop\"\n", "~ service dns: on_down"),
        (
            "name = \"dns\"\n",
            "name = \"dns\"\nclosed_ports = \"drop\"\n",
            "~ service dns: closed_ports",
        ),
    ] {
        assert_eq!(changes(from, to), [expected], "{from:?} -> {to:?}");
    }
}

#[test]
fn a_service_that_joins_an_instance_brings_its_vip() {
    assert_eq!(
        changes("port = 53", "port = 53\nvrrp = \"vi1\""),
        ["~ vrrp vi1: + VIP 192.0.2.20", "~ service dns: vrrp none -> vi1"]
    );
}

#[test]
fn services_come_and_go() {
    let at = BASE.find("[[service]]\nname = \"dns\"").expect("the second service");
    let without = &BASE[..at];
    let lines = |plan: Plan| plan.changes.iter().map(ToString::to_string).collect::<Vec<_>>();
    assert_eq!(lines(plan(BASE, without)), ["- service dns: its connections end"]);
    assert_eq!(lines(plan(without, BASE)), ["+ service dns: udp 192.0.2.20:53, 1 backends"]);
}

#[test]
fn what_is_read_at_the_start_only_is_refused_with_its_place() {
    let more = "name = \"eth0\"\n\n[[interface]]\nname = \"eth1\"";
    for (from, to, expected) in [
        ("name = \"lb1\"", "name = \"lb2\"", "NodeName"),
        ("flow_capacity = 4096", "flow_capacity = 8192", "Dataplane(\"flow_capacity\")"),
        ("flow_capacity = 4096", "flow_capacity = 4096\ncpus = [0]", "Dataplane(\"cpus\")"),
        (
            "flow_capacity = 4096",
            "flow_capacity = 4096\ntimeouts.udp = \"9s\"",
            "Dataplane(\"timeouts\")",
        ),
        ("127.0.0.1:9477", "127.0.0.1:9478", "MetricsListen"),
        (
            "name = \"eth0\"\n\n",
            "name = \"eth0\"\nmode = \"generic\"\n\n",
            "Interface(\"eth0\", \"mode\")",
        ),
        (
            "name = \"eth0\"\n\n[[vrrp]]",
            &format!("{more}\n\n[[vrrp]]"),
            "Interface(\"eth1\", \"name\")",
        ),
        ("vrid = 7", "vrid = 8", "Vrrp(\"vi1\", \"vrid\")"),
        ("vrid = 7", "vrid = 7\ndown_adverts = 5", "Vrrp(\"vi1\", \"down_adverts\")"),
        ("vip = \"192.0.2.10\"", "vip = \"192.0.2.30\"", "Vrrp(\"vi1\", \"name\")"),
    ] {
        assert_eq!(BASE.matches(from).count(), 1, "{from:?} must stand there once");
        let plan = plan(BASE, &BASE.replace(from, to));
        let settings: Vec<String> =
            plan.fixed.iter().map(|fixed| format!("{:?}", fixed.setting)).collect();
        assert_eq!(settings, [expected], "{from:?} -> {to:?}");
    }
}
