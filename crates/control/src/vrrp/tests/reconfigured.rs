//! Another configuration while a router runs.

use std::time::Duration;

use super::*;

const SECOND: Duration = Duration::from_secs(1);

fn interval(ms: u64) -> Config {
    Config { interval: Duration::from_millis(ms), ..config() }
}

impl Bench {
    fn reconfigure(&mut self, config: Config) -> String {
        self.router.reconfigure(config, self.now).expect("nothing fixed");
        self.outcome()
    }

    /// How long the lease is that the advert of this moment gave.
    fn lease(&self) -> Duration {
        self.router.lease_until().expect("active") - self.now
    }

    /// An advert of another router with this list of addresses.
    fn hear(&mut self, source: IpAddr, priority: u8, vips: &[IpAddr]) -> Result<(), Reject> {
        let Config { version, vrid, interval, .. } = *self.router.config();
        let destination = self.router.config().group();
        let outgoing = Outgoing {
            version,
            vrid,
            priority,
            interval,
            vips,
            checksum: ChecksumStyle::Plain,
            source,
            destination,
            auth: None,
        };
        let mut bytes = [0; 64];
        let len = encode(&outgoing, &mut bytes).expect("fits");
        let from = Envelope { source, destination, ttl: MAX_TTL };
        self.router.receive(&bytes[..len], &from, self.now).map(drop)
    }
}

/// A Backup that lost the first adverts with the longer interval waits as for the shorter one.
#[test]
fn a_longer_interval_is_kept_to_when_down_adverts_have_told_of_it() {
    let mut bench = Bench::active(interval(100));
    bench.reconfigure(interval(1000));
    assert!(bench.lease() <= Duration::from_millis(250), "{:?}", bench.lease());
    let begin = bench.now;
    let mut adverts = 1;
    while adverts < 3 {
        assert!(bench.router.easing.is_some(), "after {adverts}");
        adverts += u32::from(bench.next().contains("advert"));
        if adverts < 3 {
            assert!(bench.lease() <= Duration::from_millis(250), "{:?}", bench.lease());
        }
    }
    assert_eq!(bench.now - begin, Duration::from_millis(200), "in the former rhythm");
    assert_eq!(bench.lease(), Duration::from_millis(2500));
    assert_eq!(bench.router.state(), StateName::Active);
}

/// A Backup that hears of the shorter one no longer waits for a long lease.
#[test]
fn a_shorter_interval_shortens_the_lease_before_it_is_advertised() {
    let mut bench = Bench::active(interval(1000));
    assert!(bench.lease() > SECOND);
    let said = bench.reconfigure(interval(100));
    let (renew, advert) = (said.find("renew 250;"), said.find("advert"));
    assert!(renew.is_some() && renew < advert, "{said}");
    assert_eq!(bench.lease(), Duration::from_millis(250));
}

#[test]
fn a_reloaded_peer_is_followed_as_long_as_one_address_is_common() {
    let mut bench = Bench::backup(config());
    assert_eq!(bench.hear(ip(9), 200, &[ip(100)]), Ok(()));
    assert_eq!(bench.hear(ip(9), 200, &[ip(100), ip(101)]), Ok(()), "it was accepted before");
    assert_eq!(bench.hear(ip(8), 200, &[ip(100), ip(101)]), Err(Reject::Addresses), "unknown");
    assert_eq!(bench.hear(ip(9), 200, &[ip(101)]), Err(Reject::Addresses), "nothing in common");
}

#[test]
fn a_peer_that_was_not_reloaded_yet_is_known_by_the_former_list() {
    let mut bench = Bench::active(config());
    bench.reconfigure(Config { vips: vec![ip(100), ip(101)], ..config() });
    assert_eq!(bench.hear(ip(9), 50, &[ip(100)]), Ok(()));
    assert_eq!(bench.router.state(), StateName::Backup, "it would not hear this router");
    bench.now += 3601 * SECOND;
    assert_eq!(bench.hear(ip(7), 50, &[ip(100)]), Err(Reject::Addresses), "an hour later");
}

/// Its adverts have a list that the Active may discard: it would be a second owner.
#[test]
fn an_active_with_the_former_list_is_not_preempted() {
    let mut bench = Bench::backup(Config { priority: 50, ..config() });
    bench.hear(ip(9), 100, &[ip(100)]).unwrap();
    let wanted = Config { priority: 200, vips: vec![ip(100), ip(101)], ..config() };
    bench.reconfigure(wanted.clone());
    bench.event(Event::SetPriority(200));
    for _ in 0..20 {
        bench.wait(1000);
        bench.timeout();
        bench.hear(ip(9), 100, &[ip(100)]).unwrap();
        assert_eq!(bench.router.state(), StateName::Backup);
    }
    // It has been reloaded.
    bench.hear(ip(9), 100, &wanted.vips).unwrap();
    bench.next();
    assert_eq!(bench.router.state(), StateName::Active);
}

#[test]
fn what_peers_know_it_by_is_fixed() {
    let v2 = Config { version: Version::V2, ..config() };
    for (before, wanted, key) in [
        (config(), Config { vrid: Vrid::new(9).unwrap(), ..config() }, "vrid"),
        (config(), v2.clone(), "version"),
        (config(), Config { primary: ip(6), ..config() }, "source"),
        (config(), Config { down_adverts: 5, ..config() }, "down_adverts"),
        (v2.clone(), Config { interval: 2 * SECOND, ..v2 }, "advert_interval"),
    ] {
        let mut bench = Bench::active(before);
        let untouched = bench.router.clone();
        let refused = bench.router.reconfigure(wanted, bench.now);
        assert_eq!(refused, Err(ConfigError::Fixed(key)));
        assert_eq!(bench.router, untouched);
    }
}
