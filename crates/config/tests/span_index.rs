//! Environment checks point into the text.

use config::{Diagnostic, Diagnostics, Span, parse};

const TEXT: &str = r#"[metrics]
listen = "127.0.0.1:9999"

[[interface]]
name = "eth7"
queues = [0, 9]

[[service]]
name = "web"
vip = "192.0.2.10"
port = 80

[[service.backend]]
name = "web1"
address = "192.0.2.11"

[[service.backend]]
name = "web2"
address = "198.51.100.12"

[service.fallback]
name = "sorry"
address = "192.0.2.20"
"#;

fn at(span: Span) -> (usize, usize) {
    (span.line(), span.column())
}

#[test]
fn each_setting_is_found() {
    let spans = parse("a.toml", TEXT).expect("valid").spans;
    assert_eq!(at(spans.metrics_listen()), (2, 10));
    assert_eq!(at(spans.interface("eth7")), (5, 8));
    assert_eq!(at(spans.interface_setting("eth7", "queues")), (6, 10));
    assert_eq!(at(spans.service("web")), (9, 8));
    assert_eq!(at(spans.service_vip("web")), (10, 7));
    assert_eq!(at(spans.backend_address("web", "web1")), (15, 11));
    assert_eq!(at(spans.backend_address("web", "web2")), (19, 11));
    assert_eq!(at(spans.backend_address("web", "sorry")), (23, 11));
}

#[test]
fn what_is_not_written_gives_the_nearest_section() {
    let spans = parse("a.toml", TEXT).expect("valid").spans;
    assert_eq!(at(spans.interface_setting("eth7", "mode")), (4, 1));
    assert_eq!(at(spans.backend_address("web", "web3")), (8, 1));
    assert_eq!(at(spans.control_socket()), (1, 1));
    assert_eq!(at(spans.dataplane("cpus")), (1, 1));
    assert_eq!(at(spans.file()), (1, 1));
}

#[test]
fn an_environment_error_is_shown_in_the_text() {
    let spans = parse("a.toml", TEXT).expect("valid").spans;
    let message = "interface `eth7` does not exist";
    let mut found = Diagnostics::at(&spans.interface("eth7"), message, "`ip link` lists: lo, eth0");
    let off_link = Diagnostic::error(
        &spans.backend_address("web", "web2"),
        "backend `web2` is not on a connected network",
    );
    let off_link = off_link.with_label("reached through 192.0.2.1");
    let off_link = off_link.with_help("direct routing needs the backend on a network of this node");
    let in_use = Diagnostic::warning(&spans.control_socket(), "the socket is left from a crash");
    found.extend([off_link, in_use]);
    assert_eq!(found.summary(), "2 errors, 1 warning");
    insta::assert_snapshot!(found, @r#"
    warning: the socket is left from a crash
    --> a.toml:1:1

    error: interface `eth7` does not exist
     --> a.toml:5:8
      |
    5 | name = "eth7"
      |        ^^^^^^
      |
      = help: `ip link` lists: lo, eth0

    error: backend `web2` is not on a connected network
      --> a.toml:19:11
       |
    19 | address = "198.51.100.12"
       |           ^^^^^^^^^^^^^^^ reached through 192.0.2.1
       |
       = help: direct routing needs the backend on a network of this node
    "#);
}

#[test]
fn places_in_two_files_are_shown_apart() {
    let old = parse("old.toml", TEXT).expect("valid").spans;
    let new = parse("new.toml", "[[interface]]\nname = \"eth0\"\n").expect("valid").spans;
    let error = Diagnostic::error(&new.interface("eth0"), "interface `eth7` cannot be removed");
    let found: Diagnostics =
        [error.with_place(&old.interface("eth7"), "in use")].into_iter().collect();
    insta::assert_snapshot!(found, @r#"
    error: interface `eth7` cannot be removed
     --> new.toml:2:8
      |
    2 | name = "eth0"
      |        ^^^^^^
      |
     ::: old.toml:5:8
      |
    5 | name = "eth7"
      |        ------ in use
    "#);
}

#[test]
fn a_check_is_found_where_it_is_written() {
    let checks = "[[check]]\nname = \"tls\"\nhttps = { host = \"a.example\" }\n\n\
                  [[check]]\nname = \"port\"\ntcp = true\n\n";
    let services = "[[interface]]\nname = \"eth0\"\n\n\
         [[service]]\nname = \"one\"\nvip = \"192.0.2.10\"\nport = 443\ncheck = \"tls\"\n\n\
         [[service.backend]]\nname = \"a\"\naddress = \"192.0.2.11\"\n\n\
         [[service]]\nname = \"both\"\nvip = \"192.0.2.10\"\nport = 444\ncheck = [\"port\", \"tls\"]\n\n\
         [[service.health]]\nhttps = { host = \"b.example\" }\n\n\
         [[service.backend]]\nname = \"a\"\naddress = \"192.0.2.11\"\n";
    let spans = parse("a.toml", &format!("{checks}{services}")).expect("valid").spans;
    assert_eq!(at(spans.health_check("one", 0)), (3, 9), "`https` of `[[check]]`");
    assert_eq!(at(spans.health_check("both", 0)), (29, 9), "the service's own");
    assert_eq!(at(spans.health_check("both", 1)), (5, 1), "no `https`: the section");
    assert_eq!(at(spans.health_check("both", 2)), (3, 9));
    assert_eq!(at(spans.health_check("both", 3)), (26, 9), "not there");
}
