//! Drivers that say they can and cannot, by measurement.

use super::features;

/// Whether `zero_copy = "auto"` has to leave zero-copy alone on this interface: bound in that mode, igb
/// receives nothing on Linux 6.18 before the link is set down and up (7.3 does), and its counters
/// stand still meanwhile, so that nothing tells. Kicks after the bind do not help.
pub(super) fn spoil_zero_copy(interface: &str) -> bool {
    let uname = rustix::system::uname();
    let driver = features::driver(interface);
    let spoiled =
        driver.is_some_and(|driver| is_spoiled(&driver, &uname.release().to_string_lossy()));
    if spoiled {
        tracing::info!(
            interface,
            "zero-copy is not tried: this driver receives nothing by it before \
             Linux 7.3"
        );
    }
    spoiled
}

fn is_spoiled(driver: &str, release: &str) -> bool {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map(str::parse::<u32>);
    let mut next = || numbers.next().and_then(Result::ok).unwrap_or(0);
    let version = (next(), next());
    driver == "igb" && version < (7, 3)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn igb_is_left_alone_where_it_was_measured_to_receive_nothing() {
        for (driver, release, spoiled) in [
            ("igb", "6.18.15+deb13-amd64", true),
            ("igb", "6.14.0", true),
            ("igb", "7.2.9-rc1", true),
            ("igb", "7.3.1", false),
            ("igb", "10.0", false),
            ("ixgbe", "6.18.15", false),
            ("", "6.18.15", false),
        ] {
            assert_eq!(is_spoiled(driver, release), spoiled, "{driver} {release}");
        }
    }
}
