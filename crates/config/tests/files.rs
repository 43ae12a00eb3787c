//! A configuration of several files, and of several nodes.

use config::{Desired, File, includes, nodes, parse_files};

const MAIN: &str = r#"include = ["conf.d/*.toml"]

[[interface]]
name = "eth0"

[[vrrp]]
name = "vi1"
interface = "eth0"
vrid = 7

[[service]]
name = "web"
vip = "192.0.2.10"
port = 80
vrrp = "vi1"

[node.lb1.vrrp.vi1]
priority = 150

[node.lb2.vrrp.vi1]
priority = 50
interface = "ens1"

[node.lb2.interface.eth0]
name = "ens1"
mode = "generic"

[node.lb2.metrics]
listen = "127.0.0.1:9999"
"#;

const DNS: &str = r#"# The name servers.
[[service]]
name = "dns"
vip = "192.0.2.20"
protocol = "udp"
port = 53
"#;

fn files(texts: &[(&str, &str)]) -> Vec<File> {
    texts.iter().map(|(name, text)| File { name: (*name).into(), text: (*text).into() }).collect()
}

fn read(texts: &[(&str, &str)], node: &str) -> Desired {
    let parsed = parse_files(&files(texts), Some(node));
    parsed.unwrap_or_else(|mistakes| panic!("{mistakes}")).desired
}

fn refused(texts: &[(&str, &str)], node: Option<&str>) -> String {
    parse_files(&files(texts), node).expect_err("a mistake").render(false)
}

#[test]
fn lists_go_on_in_other_files() {
    let desired = read(&[("main.toml", MAIN), ("dns.toml", DNS)], "lb1");
    let names: Vec<_> = desired.services.iter().map(|service| service.name.as_str()).collect();
    assert_eq!(names, ["web", "dns"]);
    let listed = includes(&files(&[("main.toml", MAIN)])[0]).expect("a list");
    assert_eq!((listed[0].pattern.as_str(), listed[0].span.line()), ("conf.d/*.toml", 1));
}

#[test]
fn one_file_serves_two_nodes() {
    let texts = [("main.toml", MAIN), ("dns.toml", DNS)];
    assert_eq!(nodes(&files(&texts)), ["lb1", "lb2"]);
    let [first, second] = ["lb1", "lb2"].map(|node| read(&texts, node));
    assert_eq!([first.vrrp[0].priority, second.vrrp[0].priority], [150, 50]);
    assert_eq!([&*first.interfaces[0].name, &*second.interfaces[0].name], ["eth0", "ens1"]);
    assert_eq!(second.vrrp[0].interface, "ens1");
    assert_eq!(first.node_name.as_deref(), Some("lb1"));
    assert_eq!(second.metrics_listen.map(|at| at.port()), Some(9999));
    assert_eq!(first.services, second.services);
}

#[test]
fn a_node_without_a_section_is_told_which_there_are() {
    for node in [Some("lb9"), None] {
        let said = refused(&[("main.toml", MAIN)], node);
        assert!(said.contains("main.toml:17:") && said.contains("lb1, lb2"), "{said}");
    }
    let common = MAIN.split("[node.lb1").next().expect("a beginning");
    assert_eq!(read(&[("main.toml", common)], "lb9").node_name, None, "no node has a section");
}

#[test]
fn mistakes_stand_in_their_file_and_line() {
    let texts = |wrong: &'static str| [("main.toml", MAIN), ("dns.toml", wrong)];
    let port = DNS.replace("port = 53", "port = 99999");
    let said = refused(&texts(port.leak()), Some("lb1"));
    assert!(said.contains("dns.toml:6:8"), "{said}");
    let said = refused(&texts("[[service]\n"), Some("lb1"));
    assert!(said.contains("dns.toml:1:"), "{said}");
    let same = DNS.replace("\"dns\"", "\"web\"");
    let said = refused(&texts(same.leak()), Some("lb1"));
    assert!(said.contains("dns.toml:3:8") && said.contains("main.toml:12:8"), "{said}");
    for (text, expected) in [
        ("[metrics]\nlisten = \"off\"\n[dataplane]\n", "`metrics` is set in two files"),
        ("include = [\"more.toml\"]\n", "an included file includes no others"),
    ] {
        let main = format!("{MAIN}[metrics]\nlisten = \"127.0.0.1:1\"\n");
        let said = refused(&[("main.toml", &main), ("more.toml", text)], Some("lb1"));
        assert!(said.contains(expected) && said.contains("more.toml:1:"), "{said}");
    }
    for (section, expected) in [
        ("[node.lb1.check.x]\n", "`check` cannot differ between nodes"),
        ("[node.lb1.vrrp.vi9]\npriority = 1\n", "there is no `[[vrrp]]` called `vi9`"),
        ("[node.lb1.services.web]\n", "did you mean `service`?"),
        ("[node.lb1.service.web]\nvipp = \"192.0.2.9\"\n", "`vip`"),
    ] {
        let said = refused(&[("main.toml", MAIN), ("lb1.toml", section)], Some("lb1"));
        assert!(said.contains(expected), "{section}{said}");
    }
}

#[test]
fn an_include_that_is_no_list_is_refused_with_its_place() {
    for wrong in ["include = \"a.toml\"", "include = [1]"] {
        let said = includes(&files(&[("main.toml", wrong)])[0]).expect_err("a mistake");
        assert!(said.render(false).contains("main.toml:1:11"), "{said}");
    }
}
