//! Every mistake that an operator can make has its file in `bad/` and its message beside it.

use config::{Diagnostics, parse};

/// A test for each file `bad/<name>.toml`: what an operator is shown is `bad/<name>.snap`.
macro_rules! bad {
    ($($name:ident)*) => {$(
        #[test]
        fn $name() {
            let file = concat!(stringify!($name), ".toml");
            let found = mistakes(file, include_str!(concat!("bad/", stringify!($name), ".toml")));
            assert_located(file, &found);
            let mut settings = insta::Settings::clone_current();
            settings.set_snapshot_path("bad");
            settings.set_prepend_module_to_snapshot(false);
            settings.set_omit_expression(true);
            settings.bind(|| insta::assert_snapshot!(stringify!($name), found.render(false)));
        }
    )*};
}

bad! {
    syntax_unquoted_address
    syntax_unquoted_duration
    syntax_unclosed_string
    syntax_unclosed_list
    syntax_duplicate_key
    syntax_duplicate_section
    syntax_yaml
    syntax_keepalived
    syntax_no_value
    unknown_section
    unknown_section_without_a_likeness
    unknown_section_that_is_nested
    unknown_interface_list
    unknown_key_at_the_top
    unknown_key_node
    unknown_key_interface
    unknown_key_dataplane
    unknown_key_timeouts
    unknown_key_metrics
    unknown_key_control
    unknown_key_service
    unknown_key_persistence
    unknown_key_backend
    unknown_table_in_service
    many_at_once
    type_string_for_number
    type_number_for_string
    type_float_for_number
    type_string_for_boolean
    type_boolean_for_word
    type_list_for_address
    type_value_for_table
    type_value_for_list
    type_value_in_list
    type_single_brackets
    type_double_brackets
    duration_without_unit
    duration_without_unit_in_string
    duration_unknown_unit
    duration_too_short
    duration_too_long
    duration_list
    empty_file
    no_interface
    no_interface_name
    no_service
    no_service_keys
    no_persistence_timeout
    no_backend
    only_weight_zero
    duplicate_interface
    duplicate_service
    duplicate_backend_name
    duplicate_backend_address
    claimed_twice
    closed_ports_differ
    closed_ports_unknown
    group_differs
    group_two_names
    group_alone
    hash_misfits
    claimed_twice_by_ranges
    claimed_twice_by_any
    backend_is_own_vip
    backend_is_other_vip
    backend_other_family
    backend_multicast
    vip_multicast
    vip_loopback
    vip_unspecified
    vip_broadcast
    vip_mapped
    vip_with_prefix
    vip_with_port
    vip_host_name
    vip_garbage
    vip_in_brackets
    metrics_on_vip
    listen_without_port
    listen_without_address
    listen_host_name
    listen_port_zero
    listen_garbage
    port_zero
    port_too_large
    port_in_quotes
    port_reversed
    port_range_from_zero
    port_name
    port_list
    weight_negative
    weight_too_large
    weight_beyond_64_bits
    capacity_out_of_range
    frames_not_a_power_of_two
    frames_out_of_range
    prefix_out_of_range
    queues_empty
    queues_repeated
    queues_negative
    queues_unknown_word
    queues_number
    cpus_out_of_range
    mode_unknown
    poll_misspelt
    protocol_upper_case
    scheduler_unknown
    interface_name_too_long
    interface_name_with_slash
    interface_name_dots
    name_empty
    name_with_control_character
    name_too_long
    socket_relative
    socket_too_long
    socket_directory
    vrrp_no_keys
    vrrp_unknown_key
    vrrp_unknown_instance
    vrrp_service_without_any_instance
    vrrp_without_vip
    vrrp_duplicate_name
    vrrp_duplicate_vrid
    vrrp_unknown_interface
    vrrp_mixed_families
    vrrp_torn_vip
    vrrp_v2_over_ipv6
    vrrp_v2_subsecond
    vrrp_v3_between_steps
    vrrp_v3_too_slow
    vrrp_out_of_range
    vrrp_unicast_without_peers
    vrrp_peer_mistakes
    vrrp_peer_not_an_address
    vrrp_source_mistakes
    vrrp_auth_pass
    vrrp_allowed_with_warnings
    vrrp_words
    vrrp_announce
    vrrp_track_nothing
    vrrp_track_two_things
    vrrp_track_mistakes
    vrrp_notify
    health_nothing
    health_two_kinds
    health_at_the_top
    health_single_brackets
    health_unknown_keys
    health_kind_types
    health_script
    health_times_out_of_range
    health_times_in_disorder
    health_counts
    health_words
    health_misfits
    health_without_port
    health_same_twice
    health_http_path
    health_http_method
    health_http_host
    health_http_headers
    health_http_status
    health_http_body
    health_tls_without_a_name
    health_tls_sni
    health_tls_ca_file
    health_payload_hex
    health_payload_twice
    health_payload_type
    health_udp_empty
    health_refusal_window
    health_dns
    health_source
    check_by_name
    check_unused
    backend_check
    health_unusable_service_port
    failure_words
    failure_unknown_keys
    failure_durations
    failure_hold_down_max
    failure_inhibit
    failure_min_healthy_zero
    failure_min_healthy_percent
    failure_min_healthy_type
    failure_min_healthy_sum
    failure_min_healthy_units
    failure_min_healthy_default_unit
    failure_min_healthy_out_of_reach
    failure_min_healthy_not_regained
    fallback_no_keys
    fallback_double_brackets
    fallback_is_a_backend
    fallback_is_a_vip
    fallback_other_family
    fallback_alone
    service_notify
}

/// Errors, or the warnings of a configuration that is allowed.
fn mistakes(file: &str, text: &str) -> Diagnostics {
    match parse(file, text) {
        Ok(parsed) => parsed.warnings,
        Err(errors) => {
            assert!(errors.has_errors(), "refused without an error");
            errors
        }
    }
}

/// Each is shown at its span, with a way to fix it.
fn assert_located(file: &str, found: &Diagnostics) {
    assert!(!found.is_empty(), "no mistake was found");
    let rendered = found.render(false);
    for one in found {
        let span = format!("--> {file}:{}:{}\n", one.line(), one.column());
        assert!(rendered.contains(&span), "{span} is not in\n{rendered}");
        assert!(one.help().is_some(), "no help: {}", one.message());
    }
}

#[test]
fn a_long_list_is_cut() {
    let keys: String = (0..150).map(|n| format!("unknown{n} = 1\n")).collect();
    let found = mistakes("long.toml", &format!("{keys}[[interface]]\nname = \"eth0\"\n"));
    let rendered = found.render(false);
    assert_eq!(found.summary(), "150 errors, 1 warning");
    assert_eq!(rendered.matches("error: unknown key").count(), 99);
    assert!(rendered.ends_with("\n… and 51 more\n"), "{rendered}");
    let garbage = mistakes("garbage.toml", &"}{\n".repeat(1000));
    assert_eq!(garbage.summary(), "10 errors");
}

/// A file with so many services, each with so many backends and a fallback.
fn services(services: u16, backends: u16) -> String {
    let mut text = String::from("[[interface]]\nname = \"eth0\"\n");
    for service in 0..services {
        text += &format!("[[service]]\nname = \"s{service}\"\nvip = \"192.0.2.10\"\nport = ");
        text += &format!("{}\n", 1 + service);
        for backend in 0..backends {
            let [high, low] = backend.to_be_bytes();
            text += &format!("[[service.backend]]\nname = \"rs{backend}\"\n");
            text += &format!("address = \"10.0.{high}.{low}\"\n");
        }
        text += "[service.fallback]\nname = \"sorry\"\naddress = \"10.1.0.1\"\n";
    }
    text
}

#[test]
fn what_finds_no_place_is_an_error_at_the_first_that_is_too_many() {
    assert!(parse("full.toml", &services(1024, 3)).is_ok(), "1,024 services of 4 backends");
    assert!(parse("wide.toml", &services(4, 1023)).is_ok(), "4 services of 1,024 backends");
    let found = mistakes("services.toml", &services(1100, 2));
    let said: Vec<_> = found.iter().map(|one| (one.line(), one.message().to_owned())).collect();
    let header = 2 + 1024 * 13 + 1;
    let services_of = "there are 1100 services, of at most 1024".to_owned();
    assert_eq!(said, [(header, services_of)]);
    assert_located("services.toml", &found);

    let found = mistakes("backends.toml", &services(5, 999));
    let said: Vec<_> = found.iter().map(|one| (one.line(), one.message().to_owned())).collect();
    // The fifth service's 97th.
    let address = 2 + 4 * (4 + 999 * 3 + 3) + 4 + 96 * 3 + 3;
    let together = "the services have 5000 backends, of at most 4096 together".to_owned();
    assert_eq!(said, [(address, together)]);
    assert_located("backends.toml", &found);
}

#[test]
fn colour_changes_nothing_but_the_colour() {
    let found = mistakes("many_at_once.toml", include_str!("bad/many_at_once.toml"));
    let coloured = found.render(true);
    assert!(coloured.contains("\u{1b}["));
    let mut plain = String::new();
    for (at, piece) in coloured.split("\u{1b}[").enumerate() {
        plain.push_str(if at == 0 { piece } else { piece.split_once('m').map_or("", |(_, p)| p) });
    }
    assert_eq!(plain, found.render(false));
}
