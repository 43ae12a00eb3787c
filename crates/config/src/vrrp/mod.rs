//! `[[vrrp]]`: one virtual router.

mod check;
mod senders;
mod track;

use std::net::IpAddr;
use std::ops::RangeInclusive;
use std::time::Duration;

use control::vrrp::{
    AnnounceTimes, AuthPass, ChecksumMode, ChecksumStyle, Handover, Version, Vrid,
};
use control::{Notify, Track, Vrrp};

use crate::diagnostic::Diagnostic;
use crate::duration::duration;
use crate::section::Section;
use crate::source::{Span, WithSpan, Written};
use crate::value::{self, Checked, Value};
use crate::{interface, net, notify};

pub(crate) use check::cross_check;
use track::RawTrack;

/// An instance as far as it could be read.
#[derive(Debug)]
pub(crate) struct RawVrrp {
    header: Span,
    name: Option<WithSpan<String>>,
    interface: Option<WithSpan<String>>,
    vrid: Option<WithSpan<u8>>,
    version: Option<Version>,
    priority: Option<u8>,
    /// `None` also when it is wrong, which was reported.
    advert_interval: Option<WithSpan<Duration>>,
    interval_is_wrong: bool,
    preempt: Option<bool>,
    preempt_delay: Option<Duration>,
    down_adverts: Option<u8>,
    checksum: Option<ChecksumMode>,
    handover: Option<Handover>,
    unicast: Option<bool>,
    source: Written<IpAddr>,
    peers: Option<Vec<WithSpan<IpAddr>>>,
    auth_pass: Written<AuthPass>,
    group: Option<WithSpan<String>>,
    control_timeout: Option<Duration>,
    announce: Option<AnnounceTimes>,
    track: Option<Vec<RawTrack>>,
    /// `None` also when it is wrong, which was reported.
    notify: Option<Notify>,
}

impl RawVrrp {
    pub(crate) fn read(section: &mut Section<'_>) -> Self {
        let interval_is_written = section.has("advert_interval");
        let advert_interval = section.read("advert_interval", duration(INTERVAL));
        let instance = Self {
            header: section.header().clone(),
            name: section.required("name", "name = \"VI_1\"", value::name),
            interface: section.required("interface", "interface = \"eth0\"", interface::name),
            vrid: section.required("vrid", "vrid = 37", value::number(1..=255)),
            version: section.or("version", Version::V3, version),
            priority: section.or("priority", 100, value::number(1..=255)),
            interval_is_wrong: interval_is_written && advert_interval.is_none(),
            advert_interval,
            preempt: section.or("preempt", true, value::boolean),
            preempt_delay: section.or("preempt_delay", Duration::ZERO, duration(DELAY)),
            down_adverts: section.or("down_adverts", 3, value::number(2..=100)),
            checksum: section.or("checksum", ChecksumMode::Auto, value::choice(CHECKSUMS)),
            handover: section.or("handover", Handover::Lease, value::choice(HANDOVERS)),
            unicast: section.or("mode", false, value::choice(MODES)),
            source: section.optional("source", net::host_address),
            auth_pass: section.optional("auth_pass", auth_pass),
            peers: section.or("peers", Vec::new(), value::list(PEERS, net::host_address)),
            group: section.read("group", value::name),
            control_timeout: section.or(
                "control_timeout",
                Duration::from_secs(60),
                duration(CONTROL_TIMEOUT),
            ),
            announce: section.settings("announce", announce),
            track: section.tables("track", RawTrack::read),
            notify: section.table("notify", notify::read).flatten(),
        };
        for mistake in instance.check() {
            section.report(mistake);
        }
        instance
    }

    pub(crate) fn build(self) -> Option<Vrrp> {
        if self.interval_is_wrong {
            return None;
        }
        Some(Vrrp {
            name: self.name?.value,
            interface: self.interface?.value,
            vrid: Vrid::new(self.vrid?.value)?,
            version: self.version?,
            priority: self.priority?,
            advert_interval: self.advert_interval.map_or(DEFAULT_INTERVAL, |at| at.value),
            preempt: self.preempt?,
            preempt_delay: self.preempt_delay?,
            down_adverts: self.down_adverts?,
            checksum: self.checksum?,
            handover: self.handover?,
            unicast: self.unicast?,
            source: self.source.if_right()?,
            auth_pass: self.auth_pass.if_right()?,
            peers: self.peers?.into_iter().map(|peer| peer.value).collect(),
            group: self.group.map(|group| group.value),
            control_timeout: self.control_timeout?,
            announce: self.announce?,
            track: self.track?.into_iter().map(RawTrack::build).collect::<Option<Vec<Track>>>()?,
            notify: self.notify,
        })
    }

    /// For messages: `` `VI_1` ``, or nothing when the name is missing.
    fn title(&self) -> String {
        self.name.as_ref().map_or_else(String::new, |name| format!(" `{}`", name.value))
    }

    /// Checks that need the instance alone.
    fn check(&self) -> Vec<Diagnostic> {
        let mut mistakes = Vec::new();
        mistakes.extend(self.interval_of_version());
        if let Some(peers) = &self.peers {
            mistakes.extend(value::repeated("peer", peers));
            if self.unicast == Some(true) && peers.is_empty() {
                let message = format!("VRRP instance{} is unicast and has no peers", self.title());
                let error = Diagnostic::error(&self.header, message)
                    .with_label("no peer to send adverts to");
                let help = "add `peers = [\"192.0.2.3\"]` with the other node's address";
                mistakes.push(error.with_help(help));
            }
        }
        mistakes.extend(self.unlisted_peers());
        mistakes.extend(self.password());
        mistakes
    }

    /// Any router on the link with this VRID and these VIPs would be followed.
    fn unlisted_peers(&self) -> Option<Diagnostic> {
        if self.unicast? || !self.peers.as_ref()?.is_empty() {
            return None;
        }
        let message = format!("VRRP instance{} is multicast and has no `peers`", self.title());
        let warning = Diagnostic::warning(&self.header, message)
            .with_label("follows any router with this VRID and these VIPs");
        let help = "add `peers = [\"192.0.2.3\"]` with the addresses that the adverts of the other \
                    nodes come from";
        Some(warning.with_help(help))
    }

    /// A password is version 2's, and no secret.
    fn password(&self) -> Option<Diagnostic> {
        let pass = self.auth_pass.at()?;
        Some(match self.version? {
            Version::V2 => {
                let message = "`auth_pass` is sent in clear text with every advert";
                let warning = Diagnostic::warning(&pass.span, message)
                    .with_label("every host on the link can read it");
                warning.with_help("it keeps out mistakes, not attackers; list the `peers` too")
            }
            Version::V3 => {
                let message = "`auth_pass` is set, and version 3 has no authentication";
                let error = Diagnostic::error(&pass.span, message).with_label("would not be sent");
                error.with_help("remove it (RFC 9568 §9), or use `version = 2` on all nodes")
            }
        })
    }

    /// RFC 9568 counts in hundredths of a second, RFC 3768 in seconds.
    fn interval_of_version(&self) -> Option<Diagnostic> {
        let interval = self.advert_interval.as_ref()?;
        let (step, low, high, label) = match self.version? {
            Version::V2 => (1_000, 1, 255, "version 2 counts in whole seconds"),
            Version::V3 => (10, 1, 4_095, "version 3 counts in hundredths of a second"),
        };
        let millis = interval.value.as_nanos() / 1_000_000;
        let whole = interval.value.as_nanos().is_multiple_of(step * 1_000_000);
        if whole && (low..=high).contains(&(millis / step)) {
            return None;
        }
        let message = format!("`advert_interval` cannot be {}", interval.span.text());
        let help = match self.version? {
            Version::V2 => "write 1s to 255s, or use `version = 3`",
            Version::V3 => "write 10ms to 40.95s in steps of 10ms, such as `\"100ms\"`",
        };
        Some(Diagnostic::error(&interval.span, message).with_label(label).with_help(help))
    }
}

fn announce(section: &mut Section<'_>) -> Option<AnnounceTimes> {
    let default = AnnounceTimes::default();
    let count = section.or("count", default.count, value::number(1..=100));
    let delay = section.or("delay", default.delay, duration(REPEAT));
    let refresh = section.or("refresh", default.refresh, refresh);
    Some(AnnounceTimes { count: count?, delay: delay?, refresh: refresh? })
}

/// 1–8 bytes: what version 2 has room for.
fn auth_pass(value: &Value<'_>) -> Checked<AuthPass> {
    let written = value.str("a string", "\"1111\"")?;
    let printable = written.bytes().all(|byte| byte.is_ascii_graphic());
    AuthPass::new(written).filter(|_| printable).ok_or_else(|| {
        let error = value.error("`auth_pass` must be 1 to 8 printable ASCII characters");
        let error = error.with_label(format!("{} characters", written.chars().count()));
        vec![error.with_help("keepalived sends the first eight of a longer one: write these")]
    })
}

fn version(value: &Value<'_>) -> Checked<Version> {
    Ok(if value::number(2..=3)(value)? == 2 { Version::V2 } else { Version::V3 })
}

fn refresh(value: &Value<'_>) -> Checked<Option<Duration>> {
    if value.value.as_str() == Some("off") {
        return Ok(None);
    }
    duration(REPEAT)(value).map(Some)
}

const PEERS: &str = "[\"192.0.2.3\"]";

const MODES: &[(&str, bool)] = &[("multicast", false), ("unicast", true)];

const HANDOVERS: &[(&str, Handover)] = &[("lease", Handover::Lease), ("at-once", Handover::AtOnce)];

const CHECKSUMS: &[(&str, ChecksumMode)] = &[
    ("auto", ChecksumMode::Auto),
    ("rfc9568", ChecksumMode::Fixed(ChecksumStyle::Plain)),
    ("pseudo-header", ChecksumMode::Fixed(ChecksumStyle::PseudoHeader)),
];

const DEFAULT_INTERVAL: Duration = Duration::from_secs(1);
const INTERVAL: RangeInclusive<Duration> = Duration::from_millis(10)..=Duration::from_secs(255);
const DELAY: RangeInclusive<Duration> = Duration::ZERO..=Duration::from_secs(3600);
const REPEAT: RangeInclusive<Duration> = Duration::from_secs(1)..=Duration::from_secs(24 * 3600);
const CONTROL_TIMEOUT: RangeInclusive<Duration> =
    Duration::from_secs(1)..=Duration::from_secs(24 * 3600);
