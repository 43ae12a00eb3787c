//! Debian's keepalived as the other node: adverts of a second, elections, a long time. Needs root.

use std::time::Duration;

use lab::Result;

use crate::keepalived::{
    IPV6, LONG, MULTICAST, PASSWORD, TEN_VIPS, UNICAST, VERSION_2, Way, backups, both_ways,
    changes, check_accepted, instance, masters, wait_for,
};
use crate::vrrp;

#[test]
fn version_2() -> Result<()> {
    both_ways(&VERSION_2)
}

/// With `auth_type PASS`, which most posted keepalived files have.
#[test]
fn version_2_with_a_password() -> Result<()> {
    both_ways(&PASSWORD)
}

/// Of two that are both Active with one priority, the higher address stays (RFC 9568 §6.4.3).
#[test]
fn the_higher_address_wins_a_tie() -> Result<()> {
    at_once([|| tie(0), || tie(1)])
}

/// Without preemption a higher priority waits until the Active is gone.
#[test]
fn without_preemption_the_active_stays() -> Result<()> {
    at_once([keepalived_does_not_preempt, pointsman_does_not_preempt])
}

/// Nothing happens for a minute, or ten in the long run: three ways, both as the Active.
#[test]
fn nothing_happens_for_a_long_time() -> Result<()> {
    let time = Duration::from_secs(if vrrp::runs() > 5 { 600 } else { 60 });
    let cases = [(TEN_VIPS, 0), (UNICAST, 1), (IPV6, 0), (IPV6, 1)];
    std::thread::scope(|scope| {
        let soak = |(way, ours_at)| scope.spawn(move || soak(&way, ours_at, time));
        let running: Vec<_> = cases.into_iter().map(soak).collect();
        running.into_iter().try_for_each(|case| case.join().expect("no panic"))
    })
}

fn at_once<F: FnOnce() -> Result<()> + Send>(cases: [F; 2]) -> Result<()> {
    std::thread::scope(|scope| {
        cases
            .map(|case| scope.spawn(case))
            .into_iter()
            .try_for_each(|case| case.join().expect("no panic"))
    })
}

/// A partition makes both Active; when it is healed, the second balancer stays: 10.77.2.2.
fn tie(ours_at: usize) -> Result<()> {
    let (way, theirs_at) = (MULTICAST, 1 - ours_at);
    let lab = way.lab()?;
    for at in [0, 1] {
        lab.isolate(lab.balancer(at), true)?;
    }
    let mut theirs = way.start_keepalived(&lab, theirs_at, 100, true)?;
    let ours = lab.start_pointsman(ours_at, &way.config(&lab, ours_at, 100, true))?;
    wait_for(&ours, "active")?;
    theirs.wait_until("master", LONG, |keepalived| Ok(masters(keepalived) == 1))?;
    let before = backups(&theirs);
    for at in [0, 1] {
        lab.isolate(lab.balancer(at), false)?;
    }
    if ours_at == 0 {
        wait_for(&ours, "backup").unwrap_or_else(|error| panic!("{error}\n{}", theirs.log()));
        std::thread::sleep(10 * way.interval);
        assert_eq!(instance(&ours)["reason"], "higher_address");
        assert_eq!(backups(&theirs), before, "{}", theirs.log());
    } else {
        theirs.wait_until("backup", LONG, |keepalived| Ok(backups(keepalived) == before + 1))?;
        std::thread::sleep(10 * way.interval);
        assert_eq!(instance(&ours)["state"], "active");
        assert_eq!(masters(&theirs), 1, "{}", theirs.log());
    }
    check_accepted(&ours, &theirs);
    Ok(())
}

fn keepalived_does_not_preempt() -> Result<()> {
    let (way, lab) = (MULTICAST, MULTICAST.lab()?);
    let mut ours = lab.start_pointsman(0, &way.config(&lab, 0, 100, true))?;
    wait_for(&ours, "active")?;
    let mut theirs = way.start_keepalived(&lab, 1, 150, false)?;
    theirs.wait_until("backup", LONG, |keepalived| Ok(backups(keepalived) == 1))?;
    std::thread::sleep(20 * way.interval);
    let state = (masters(&theirs), &instance(&ours)["state"]);
    assert_eq!(state, (0, &"active".into()), "{}\n{}", ours.log(), theirs.log());
    check_accepted(&ours, &theirs);
    ours.process().kill()?;
    theirs.wait_until("master", LONG, |keepalived| Ok(masters(keepalived) == 1))
}

fn pointsman_does_not_preempt() -> Result<()> {
    let (way, lab) = (MULTICAST, MULTICAST.lab()?);
    let mut theirs = way.start_keepalived(&lab, 1, 100, true)?;
    theirs.wait_until("master", LONG, |keepalived| Ok(masters(keepalived) == 1))?;
    let ours = lab.start_pointsman(0, &way.config(&lab, 0, 150, false))?;
    wait_for(&ours, "backup")?;
    std::thread::sleep(20 * way.interval);
    assert_eq!((masters(&theirs), backups(&theirs)), (1, 1), "{}", theirs.log());
    assert_eq!(instance(&ours)["state"], "backup");
    check_accepted(&ours, &theirs);
    theirs.kill()?;
    wait_for(&ours, "active")
}

/// The first balancer is preferred and Active; then nothing changes.
fn soak(way: &Way, ours_at: usize, time: Duration) -> Result<()> {
    let lab = way.lab()?;
    let priority = |at: usize| if at == 0 { 150 } else { 100 };
    let theirs_at = 1 - ours_at;
    let mut theirs = way.start_keepalived(&lab, theirs_at, priority(theirs_at), true)?;
    let ours = lab.start_pointsman(ours_at, &way.config(&lab, ours_at, priority(ours_at), true))?;
    if ours_at == 0 {
        wait_for(&ours, "active")?;
    } else {
        theirs.wait_until("master", LONG, |keepalived| Ok(masters(keepalived) >= 1))?;
        wait_for(&ours, "backup")?;
    }
    std::thread::sleep(20 * way.interval);
    // One that we preempt claims the VIPs until it has heard us: not so afterwards.
    let claims = || instance(&ours)["foreign_claims"].clone();
    let before = (changes(&ours), masters(&theirs), backups(&theirs), claims());
    std::thread::sleep(time);
    let after = (changes(&ours), masters(&theirs), backups(&theirs), claims());
    assert_eq!(after, before, "{way:?}, {ours_at}\n{}\n{}", ours.log(), theirs.log());
    check_accepted(&ours, &theirs);
    Ok(())
}
