use super::*;
use api::status::{BackendState, example};

/// The samples of a page whose line begins with one of these.
fn samples(page: &str, prefixes: &[&str]) -> String {
    let wanted = |line: &&str| prefixes.iter().any(|prefix| line.starts_with(prefix));
    page.lines().filter(wanted).map(|line| format!("{line}\n")).collect()
}

#[test]
fn health_as_it_is_exposed() {
    let page = render(&example()).expect("metrics");
    let expected = r#"pointsman_backend_connections_total{backend="rs1",service="web"} 5
pointsman_backend_connections_total{backend="rs2",service="web"} 0
pointsman_backend_connections_total{backend="sorry",service="web"} 0
pointsman_backend_effective_weight{backend="rs1",service="web"} 0
pointsman_backend_effective_weight{backend="rs2",service="web"} 0
pointsman_backend_effective_weight{backend="sorry",service="web"} 1
pointsman_backend_handshakes_attempted_total{backend="rs1",service="web"} 6
pointsman_backend_handshakes_attempted_total{backend="rs2",service="web"} 0
pointsman_backend_handshakes_attempted_total{backend="sorry",service="web"} 0
pointsman_backend_resets_total{backend="rs1",service="web"} 0
pointsman_backend_resets_total{backend="rs2",service="web"} 12
pointsman_backend_resets_total{backend="sorry",service="web"} 0
pointsman_backend_suspicions_total{backend="rs1",service="web"} 0
pointsman_backend_suspicions_total{backend="rs2",service="web"} 1
pointsman_backend_suspicions_total{backend="sorry",service="web"} 0
pointsman_health_check_duration_seconds_bucket{address="192.0.2.11",check="http /health",le="0.001"} 1
pointsman_health_check_duration_seconds_bucket{address="192.0.2.11",check="http /health",le="0.01"} 89
pointsman_health_check_duration_seconds_bucket{address="192.0.2.11",check="http /health",le="+Inf"} 90
pointsman_health_check_duration_seconds_sum{address="192.0.2.11",check="http /health"} 0.5
pointsman_health_check_duration_seconds_count{address="192.0.2.11",check="http /health"} 90
pointsman_health_check_duration_seconds_bucket{address="192.0.2.12",check="http /health",le="0.001"} 1
pointsman_health_check_duration_seconds_bucket{address="192.0.2.12",check="http /health",le="0.01"} 89
pointsman_health_check_duration_seconds_bucket{address="192.0.2.12",check="http /health",le="+Inf"} 90
pointsman_health_check_duration_seconds_sum{address="192.0.2.12",check="http /health"} 0.5
pointsman_health_check_duration_seconds_count{address="192.0.2.12",check="http /health"} 90
pointsman_health_check_failures_total{address="192.0.2.11",check="http /health",reason="refused"} 0
pointsman_health_check_failures_total{address="192.0.2.11",check="http /health",reason="timeout"} 0
pointsman_health_check_failures_total{address="192.0.2.12",check="http /health",reason="refused"} 3
pointsman_health_check_failures_total{address="192.0.2.12",check="http /health",reason="timeout"} 0
pointsman_health_check_info{address="192.0.2.11",backend="rs1",check="http /health",service="web"} 1
pointsman_health_check_info{address="192.0.2.12",backend="rs2",check="http /health",service="web"} 1
pointsman_health_check_late_seconds_bucket{le="0.001"} 180
pointsman_health_check_late_seconds_bucket{le="+Inf"} 182
pointsman_health_check_late_seconds_sum 0.02
pointsman_health_check_late_seconds_count 182
pointsman_health_check_successes_total{address="192.0.2.11",check="http /health"} 90
pointsman_health_check_successes_total{address="192.0.2.12",check="http /health"} 90
pointsman_health_sentinel_losses_total{address="192.0.2.11",check="http /health"} 0
pointsman_health_sentinel_losses_total{address="192.0.2.12",check="http /health"} 1
pointsman_health_triggers_ignored_total{backend="rs1",service="web"} 0
pointsman_health_triggers_ignored_total{backend="rs2",service="web"} 0
pointsman_health_triggers_ignored_total{backend="sorry",service="web"} 0
pointsman_service_fallback_active{service="web"} 1
pointsman_service_healthy_weight{service="web"} 1
pointsman_service_rejected_total{service="web"} 4
pointsman_service_total_weight{service="web"} 3
pointsman_service_up{service="web"} 0
"#;
    let prefixes = [
        "pointsman_health_",
        "pointsman_service_",
        "pointsman_backend_connections",
        "pointsman_backend_effective",
        "pointsman_backend_handshakes",
        "pointsman_backend_resets",
        "pointsman_backend_suspicions",
    ];
    assert_eq!(samples(&page, &prefixes), expected);
}

#[test]
fn a_backend_is_in_one_state_of_those_that_are_listed() {
    let page = render(&example()).expect("metrics");
    for backend in ["rs1", "rs2", "sorry"] {
        let of = format!("pointsman_backend_state{{backend=\"{backend}\",");
        let states = samples(&page, &[&of]);
        assert_eq!(states.lines().count(), BackendState::COUNT, "{states}");
        assert_eq!(states.lines().filter(|line| line.ends_with(" 1")).count(), 1, "{states}");
    }
}

#[test]
fn a_check_that_services_share_is_counted_once() {
    let mut status = example();
    let mut other = status.services[0].clone();
    other.name = "shop".to_owned();
    // There it is the second one of its kind.
    other.backends[0].checks[0].label += " #2";
    status.services.push(other);
    let mut third = status.services[0].clone();
    third.name = "own".to_owned();
    third.backends[0].checks[0].number = 1;
    status.services.push(third);
    let page = render(&status).expect("metrics");
    let of = r#"{address="192.0.2.11",check="http /health""#;
    for name in ["health_check_successes_total", "health_check_duration_seconds_count"] {
        let sample = format!("pointsman_{name}{of}");
        assert_eq!(samples(&page, &[&sample]), format!("{sample}}} 180\n"));
    }
    let users = samples(&page, &["pointsman_health_check_info{address=\"192.0.2.11\""]);
    for service in ["web", "shop", "own"] {
        let user = format!(r#"backend="rs1",check="http /health",service="{service}"}} 1"#);
        assert!(users.contains(&user), "{users}");
    }
}
