use super::*;
use crate::desired::Backend;

/// `web` and `mail` with `rs1` and `rs2`, of weight 1 each; `rs1` is the name of a service, too.
fn desired() -> Desired {
    let mut desired = crate::controller::tests::desired(Vec::new());
    desired.services = ["web", "mail", "rs1"]
        .map(|name| {
            let mut service = crate::controller::tests::service(name, 100, &[]);
            let backends = [("rs1", 1), ("rs2", 2)];
            let backend = |(name, last): (&str, u8)| Backend {
                name: name.to_owned(),
                address: [10, 0, 0, last].into(),
                weight: 1,
                check: crate::health::CheckOverride::default(),
                drain: None,
            };
            service.backends = backends.map(backend).to_vec();
            service
        })
        .to_vec();
    desired
}

fn weights(overrides: &Overrides) -> Vec<[u32; 2]> {
    let desired = overrides.apply(&desired());
    desired.services.iter().map(|s| [s.backends[0].weight, s.backends[1].weight]).collect()
}

#[test]
fn a_target_means_the_most_exact_thing_of_its_name() {
    let mut overrides = Overrides::default();
    let drained = Some(Override::Drained(Drain::default()));
    assert_eq!(overrides.set(&desired(), "web/rs1", drained), ["web/rs1"]);
    assert_eq!(weights(&overrides), [[0, 1], [1, 1], [1, 1]]);
    let all = ["web/rs1", "mail/rs1", "rs1/rs1"];
    assert_eq!(overrides.set(&desired(), "rs1", Some(Override::Weight(7))), all);
    assert_eq!(weights(&overrides), [[7, 1], [7, 1], [7, 1]]);
    assert_eq!(overrides.set(&desired(), "mail", drained), ["mail/rs1", "mail/rs2"]);
    assert_eq!(weights(&overrides), [[7, 1], [0, 0], [7, 1]]);
    assert!(overrides.set(&desired(), "nothing", drained).is_empty());
    assert_eq!(overrides.set(&desired(), "mail/rs2", None), ["mail/rs2"]);
    assert_eq!(overrides.of("mail", "rs2"), None);
    assert_eq!(weights(&overrides), [[7, 1], [0, 1], [7, 1]]);
}

#[test]
fn what_the_configuration_does_not_name_is_forgotten() {
    let (mut overrides, mut smaller) = (Overrides::default(), desired());
    overrides.set(&desired(), "rs1", Some(Override::Drained(Drain::default())));
    smaller.services.remove(1);
    smaller.services[0].backends.remove(0);
    overrides.retain(&smaller);
    assert_eq!(weights(&overrides), [[1, 1], [1, 1], [0, 1]]);
}

#[test]
fn a_drain_ends_once_at_its_deadline() {
    let start = Tick::from_nanos(1_000_000_000);
    let minute = std::time::Duration::from_secs(60);
    let mut overrides = Overrides::default();
    let drain = |deadline| Some(Override::Drained(Drain { deadline, ..Drain::default() }));
    overrides.set(&desired(), "web/rs1", drain(Some(start + minute)));
    overrides.set(&desired(), "web/rs2", drain(None));
    let ended = |overrides: &Overrides| {
        let applied = overrides.apply(&desired());
        [0, 1].map(|at: usize| applied.services[0].backends[at].drain.unwrap().ended)
    };
    assert!(overrides.expire(start + minute / 2).is_empty());
    assert_eq!(ended(&overrides), [false, false]);
    assert_eq!(overrides.expire(start + minute), ["web/rs1"]);
    assert!(overrides.expire(start + 2 * minute).is_empty(), "once");
    assert_eq!(ended(&overrides), [true, false]);
    overrides.set(&desired(), "web", None);
    assert_eq!(overrides.apply(&desired()), desired());
}

#[test]
fn changes_are_the_same_when_they_are_put_together_again() {
    let mut overrides = Overrides::default();
    let drain = Drain { keep_sticky: true, ..Drain::default() };
    overrides.set(&desired(), "web", Some(Override::Drained(drain)));
    overrides.set(&desired(), "mail/rs2", Some(Override::Weight(7)));
    assert_eq!(overrides.iter().collect::<Overrides>(), overrides);
}
