//! `[dataplane]` and `[dataplane.timeouts]`.

use std::ops::RangeInclusive;

use ::dataplane::Timeouts;
use control::{Dataplane, FastPath, Poll};

use crate::duration::{TIMEOUT, duration};
use crate::section::Section;
use crate::value::{self, Checked, Value};

pub(crate) fn read(section: &mut Section<'_>) -> Option<Dataplane> {
    let cpus = section.or("cpus", None, value::numbers_or("auto", CPU_MAX));
    let poll = section.or("poll", Poll::Adaptive, value::choice(POLL));
    let fast_path = section.or("fast_path", FastPath::Auto, value::choice(FAST_PATH));
    let flow_capacity = section.or("flow_capacity", 1_000_000, value::number(CAPACITY));
    let persistence_capacity =
        section.or("persistence_capacity", 1_000_000, value::number(CAPACITY));
    let pending_capacity = section.or("pending_capacity", 1 << 20, value::number(CAPACITY));
    let frames = section.or("frames", 8192, frames);
    let timeouts = section.settings("timeouts", timeouts);
    Some(Dataplane {
        cpus: cpus?,
        poll: poll?,
        fast_path: fast_path?,
        flow_capacity: flow_capacity?,
        persistence_capacity: persistence_capacity?,
        pending_capacity: pending_capacity?,
        frames: frames?,
        timeouts: timeouts?,
    })
}

fn timeouts(section: &mut Section<'_>) -> Option<Timeouts> {
    let default = Timeouts::default();
    let half_open = section.or("half_open", default.half_open, duration(TIMEOUT));
    let established = section.or("established", default.established, duration(TIMEOUT));
    let closing = section.or("closing", default.closing, duration(TIMEOUT));
    let reset = section.or("reset", default.reset, duration(TIMEOUT));
    let udp = section.or("udp", default.udp, duration(TIMEOUT));
    Some(Timeouts {
        half_open: half_open?,
        established: established?,
        closing: closing?,
        reset: reset?,
        udp: udp?,
    })
}

/// The rings of an AF_XDP socket hold powers of two.
fn frames(value: &Value<'_>) -> Checked<u32> {
    let frames = value::number(FRAMES)(value)?;
    if frames.is_power_of_two() {
        return Ok(frames);
    }
    let above = frames.next_power_of_two();
    let error = value.error(format!("`{}` is not a power of two: {frames}", value.key));
    let error = error.with_label("the rings hold powers of two");
    Err(vec![error.with_help(format!("write {} or {above}", above / 2))])
}

const POLL: &[(&str, Poll)] = &[("adaptive", Poll::Adaptive), ("busy", Poll::Busy)];
const FAST_PATH: &[(&str, FastPath)] =
    &[("auto", FastPath::Auto), ("on", FastPath::On), ("off", FastPath::Off)];
const CAPACITY: RangeInclusive<usize> = 1_024..=67_108_864;
const FRAMES: RangeInclusive<u32> = 4_096..=65_536;

/// Linux supports 8,192 CPUs.
const CPU_MAX: u32 = 8191;
