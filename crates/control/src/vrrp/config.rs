//! One VRRP instance as configured, checked once before it runs.

use std::net::IpAddr;
use std::time::Duration;

use super::auth::AuthPass;
use super::packet::{
    ChecksumStyle, GROUP_V4, GROUP_V6, MAX_CENTISECONDS, MAX_VIPS_V4, MAX_VIPS_V6, Version, Vrid,
};

/// One virtual router on one interface and of one address family.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// Protocol version; both nodes must have the same.
    pub version: Version,
    /// Virtual router ID, unique per interface and family.
    pub vrid: Vrid,
    /// Primary address of the interface: source of the adverts, decides between equal priorities.
    /// Its family is that of the instance.
    pub primary: IpAddr,
    /// 1–254, or 255 for the owner of the addresses.
    pub priority: u8,
    /// Version 3: 10 ms–40.95 s in steps of 10 ms. Version 2: 1–255 s in whole seconds.
    pub interval: Duration,
    /// Whether a higher priority takes over from a living Active.
    pub preempt: bool,
    /// How long a lower-priority Active is followed before it is preempted.
    pub preempt_delay: Duration,
    /// How many missing adverts make an Active dead, 2–100.
    pub down_adverts: u8,
    /// Checksum of version 3 over IPv4.
    pub checksum: ChecksumMode,
    /// What to wait for when preempting.
    pub handover: Handover,
    /// Sources that are believed; empty: any (multicast only). Targets in unicast mode.
    pub peers: Vec<IpAddr>,
    /// Adverts go to each peer instead of to the group.
    pub unicast: bool,
    /// Virtual addresses, at least one, of the family of `primary`.
    pub vips: Vec<IpAddr>,
    /// Gratuitous ARP and unsolicited neighbour advertisements.
    pub announce: AnnounceTimes,
    /// Password of version 2.
    pub auth_pass: Option<AuthPass>,
}

/// Which checksum is sent in version 3 over IPv4. Both are accepted, always.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum ChecksumMode {
    /// What the peer sends; RFC 9568 until one is heard.
    #[default]
    Auto,
    /// Always this one.
    Fixed(ChecksumStyle),
}

/// When a preempting node activates the VIPs, having advertised.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Handover {
    /// As soon as the old Active says goodbye, at the latest when its lease is over. Frozen at the
    /// wrong moment, the old Active cannot become a second owner.
    #[default]
    Lease,
    /// At once, as RFC 9568 has it: for peers that have no lease and say no goodbye (keepalived),
    /// where waiting would only lengthen the gap.
    AtOnce,
}

/// How often the VIPs' link-layer address is announced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AnnounceTimes {
    /// Frames per VIP and burst.
    pub count: u8,
    /// The second burst comes this long after the first one.
    pub delay: Duration,
    /// Further bursts at this interval. `None`: no more.
    pub refresh: Option<Duration>,
}

impl Default for AnnounceTimes {
    fn default() -> Self {
        Self { count: 5, delay: Duration::from_secs(5), refresh: None }
    }
}

impl Config {
    /// RFC 9568 defaults: priority 100, 1 s, preemption, multicast, any source.
    pub fn new(vrid: Vrid, primary: IpAddr, vips: Vec<IpAddr>) -> Self {
        Self {
            version: Version::V3,
            vrid,
            primary,
            priority: 100,
            interval: Duration::from_secs(1),
            preempt: true,
            preempt_delay: Duration::ZERO,
            down_adverts: 3,
            checksum: ChecksumMode::default(),
            handover: Handover::default(),
            peers: Vec::new(),
            unicast: false,
            vips,
            announce: AnnounceTimes::default(),
            auth_pass: None,
        }
    }

    /// The multicast group of the family.
    pub const fn group(&self) -> IpAddr {
        match self.primary {
            IpAddr::V4(_) => IpAddr::V4(GROUP_V4),
            IpAddr::V6(_) => IpAddr::V6(GROUP_V6),
        }
    }

    /// Whether everything is in range; the first mistake otherwise.
    pub fn validate(&self) -> Result<(), ConfigError> {
        let v4 = self.primary.is_ipv4();
        if self.version == Version::V2 && !v4 {
            return Err(ConfigError::V2OverIpv6);
        }
        if self.priority == 0 {
            return Err(ConfigError::Priority);
        }
        if !self.interval_fits() {
            return Err(ConfigError::Interval(self.interval));
        }
        if !matches!(self.down_adverts, 2..=100) {
            return Err(ConfigError::DownAdverts(self.down_adverts));
        }
        let max = if v4 { MAX_VIPS_V4 } else { MAX_VIPS_V6 };
        if self.vips.is_empty() || self.vips.len() > max {
            return Err(ConfigError::VipCount { got: self.vips.len(), max });
        }
        let foreign = |ip: &&IpAddr| ip.is_ipv4() != v4 || ip.is_multicast() || ip.is_unspecified();
        if let Some(ip) = self.vips.iter().chain(&self.peers).find(foreign) {
            return Err(ConfigError::Family(*ip));
        }
        if self.peers.contains(&self.primary) {
            return Err(ConfigError::OwnPeer(self.primary));
        }
        if self.unicast && self.peers.is_empty() {
            return Err(ConfigError::NoPeers);
        }
        Ok(())
    }

    fn interval_fits(&self) -> bool {
        let nanos = self.interval.as_nanos();
        let (unit, max) = match self.version {
            Version::V2 => (1_000_000_000, 255),
            Version::V3 => (10_000_000, u128::from(MAX_CENTISECONDS)),
        };
        nanos.is_multiple_of(unit) && (1..=max).contains(&(nanos / unit))
    }
}

/// Why an instance cannot run as configured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    /// RFC 3768 is IPv4 only.
    #[error("VRRP version 2 has no IPv6; use version 3")]
    V2OverIpv6,
    /// 0 means "leaving" on the wire.
    #[error("priority must be 1-255")]
    Priority,
    /// Not sayable on the wire.
    #[error(
        "advert interval {0:?} must be 10ms-40.95s in steps of 10ms (version 3) or 1-255 whole \
         seconds (version 2)"
    )]
    Interval(Duration),
    /// With 1 the lease would end before the next advert.
    #[error("down_adverts must be 2-100, not {0}")]
    DownAdverts(u8),
    /// None or too many.
    #[error("{got} virtual addresses; 1-{max} fit one advert")]
    VipCount {
        /// How many there are.
        got: usize,
        /// How many may be.
        max: usize,
    },
    /// VIPs and peers must be unicast addresses of the instance's family.
    #[error("{0} is not a unicast address of the interface's family")]
    Family(IpAddr),
    /// A node is not its own peer.
    #[error("{0} is this node's own address, not a peer's")]
    OwnPeer(IpAddr),
    /// What cannot change while the router runs.
    #[error("{0} cannot change while the router runs")]
    Fixed(&'static str),
    /// Unicast without peers.
    #[error("unicast mode needs at least one peer")]
    NoPeers,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config() -> Config {
        let ip = |last| IpAddr::from([192, 0, 2, last]);
        Config::new(Vrid::MIN, ip(1), vec![ip(10)])
    }

    #[test]
    fn defaults_are_valid() {
        assert_eq!(config().validate(), Ok(()));
    }

    #[test]
    fn each_mistake_has_its_error() {
        let ms = Duration::from_millis;
        let v6 = IpAddr::from([0xfe80, 0, 0, 0, 0, 0, 0, 1]);
        let cases: [(Config, ConfigError); 11] = [
            (Config { priority: 0, ..config() }, ConfigError::Priority),
            (Config { interval: ms(15), ..config() }, ConfigError::Interval(ms(15))),
            (Config { interval: ms(0), ..config() }, ConfigError::Interval(ms(0))),
            (Config { interval: ms(40_960), ..config() }, ConfigError::Interval(ms(40_960))),
            (
                Config { version: Version::V2, interval: ms(1500), ..config() },
                ConfigError::Interval(ms(1500)),
            ),
            (Config { down_adverts: 1, ..config() }, ConfigError::DownAdverts(1)),
            (Config { vips: vec![], ..config() }, ConfigError::VipCount { got: 0, max: 255 }),
            (Config { vips: vec![v6], ..config() }, ConfigError::Family(v6)),
            (
                Config { peers: vec![config().primary], ..config() },
                ConfigError::OwnPeer(config().primary),
            ),
            (Config { unicast: true, ..config() }, ConfigError::NoPeers),
            (
                Config { version: Version::V2, primary: v6, vips: vec![v6], ..config() },
                ConfigError::V2OverIpv6,
            ),
        ];
        for (config, error) in cases {
            assert_eq!(config.validate(), Err(error), "{config:?}");
        }
    }
}
