//! How long to wait for what: RFC 9568 §6.1, RFC 3768 §6.1, and the lease of an Active.

use std::time::Duration;

use super::packet::Version;

/// `Skew_Time`: the lower the priority, the longer.
///
/// Computed in nanoseconds: on the wire's scale of centiseconds it would be 0 for a 10 ms advert.
/// `interval` is `Active_Adver_Interval`, the one heard from the Active.
pub fn skew(version: Version, priority: u8, interval: Duration) -> Duration {
    let scale = 256 - u32::from(priority);
    match version {
        // RFC 3768 §6.1: ((256 - Priority) / 256) seconds, whatever the interval.
        Version::V2 => Duration::from_secs(1) * scale / 256,
        // RFC 9568 §6.1: ((256 - Priority) * Active_Adver_Interval) / 256.
        Version::V3 => interval * scale / 256,
    }
}

/// `Active_Down_Interval`: RFC 9568 §6.1 has 3 in the place of `down_adverts`.
pub fn active_down(
    version: Version,
    priority: u8,
    interval: Duration,
    down_adverts: u8,
) -> Duration {
    interval * u32::from(down_adverts) + skew(version, priority, interval)
}

/// How long after a successful advert the VIPs stay active without another one.
///
/// Half an interval shorter than what any Backup waits: with `down_adverts` = 3 the two cannot meet
/// as long as clocks drift apart by less than a fifth.
pub fn lease(interval: Duration, down_adverts: u8) -> Duration {
    interval * u32::from(down_adverts) - interval / 2
}

/// When the lease of an Active that was heard is over for certain.
///
/// Between [`lease`] and [`active_down`], so taking over from a silent Active never waits for it.
pub fn foreign_lease(interval: Duration, down_adverts: u8) -> Duration {
    interval * u32::from(down_adverts)
}

/// How long a new Active listens, having advertised, before it activates the VIPs.
///
/// Two Backups whose timers end within one packet's delay both become Active; the better one is
/// heard within this time, and the other one has not touched the VIPs.
pub fn settle(interval: Duration) -> Duration {
    interval / 16
}

/// A Backup's timer that is late by more than this was not a wait but a stall.
///
/// One advert at most goes unheard in a shorter one, and `down_adverts` is at least 2.
pub fn lateness(interval: Duration) -> Duration {
    interval
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    #[test]
    fn skew_of_v3_scales_with_the_interval() {
        assert_eq!(skew(Version::V3, 100, ms(1000)), Duration::from_micros(609_375));
        assert_eq!(skew(Version::V3, 100, ms(100)), Duration::from_nanos(60_937_500));
        assert_eq!(skew(Version::V3, 255, ms(10)), Duration::from_nanos(39_062));
    }

    #[test]
    fn skew_of_v2_does_not_scale() {
        assert_eq!(skew(Version::V2, 100, ms(1000)), Duration::from_micros(609_375));
        assert_eq!(skew(Version::V2, 100, ms(5000)), Duration::from_micros(609_375));
    }

    #[test]
    fn keepalived_waits_as_long() {
        assert_eq!(active_down(Version::V3, 100, ms(1000), 3).as_millis(), 3609);
        assert_eq!(active_down(Version::V3, 150, ms(1000), 3).as_millis(), 3414);
        assert_eq!(active_down(Version::V3, 100, ms(100), 3).as_millis(), 360);
    }

    #[test]
    fn a_lease_ends_before_any_backup_may_take_over() {
        for down_adverts in 2..=100 {
            for interval in [ms(10), ms(1000), ms(40_950)] {
                let shortest = active_down(Version::V3, 255, interval, down_adverts);
                let foreign = foreign_lease(interval, down_adverts);
                assert!(lease(interval, down_adverts) < foreign && foreign < shortest);
            }
        }
    }
}
