//! `[[vrrp.track]]`: a thing that changes the priority.

use std::time::Duration;

use control::vrrp::ScriptTimes;
use control::{Track, TrackTarget};

use crate::diagnostic::Diagnostic;
use crate::duration::{PERIOD, duration};
use crate::interface;
use crate::section::Section;
use crate::source::{Span, WithSpan};
use crate::value::{self, Checked, Value};

/// A tracked thing as far as it could be read.
#[derive(Debug)]
pub(super) struct RawTrack {
    header: Span,
    /// What is tracked, as far as it is right, in the order of [`KINDS`].
    targets: Vec<WithSpan<TrackTarget>>,
    /// Keys of [`KINDS`] that are written.
    written: Vec<&'static str>,
    /// `None` also when it is wrong, which was reported.
    weight: Option<i16>,
    weight_is_wrong: bool,
}

impl RawTrack {
    pub(super) fn read(section: &mut Section<'_>) -> Self {
        let written = KINDS.into_iter().filter(|kind| section.has(kind)).collect();
        let targets = [
            section.read("interface", |v| interface::name(v).map(TrackTarget::Interface)),
            section.read("service", |v| value::name(v).map(TrackTarget::Service)),
            section.read("file", |v| value::absolute_path(FILE)(v).map(TrackTarget::File)),
            script(section),
        ];
        let weight_is_written = section.has("weight");
        let weight = section.read("weight", weight).map(|at| at.value);
        let track = Self {
            header: section.header().clone(),
            targets: targets.into_iter().flatten().collect(),
            written,
            weight,
            weight_is_wrong: weight_is_written && weight.is_none(),
        };
        if let Some(mistake) = track.check() {
            section.report(mistake);
        }
        track
    }

    pub(super) fn build(self) -> Option<Track> {
        let mut targets = self.targets.into_iter();
        let target = targets.next().filter(|_| !self.weight_is_wrong)?.value;
        Some(Track { target, weight: self.weight })
    }

    /// The name of the service that is tracked, if one is.
    pub(super) fn service(&self) -> Option<(&str, &Span)> {
        self.targets.iter().find_map(|at| match &at.value {
            TrackTarget::Service(name) => Some((name.as_str(), &at.span)),
            TrackTarget::Interface(_) | TrackTarget::Script(..) | TrackTarget::File(_) => None,
        })
    }

    fn check(&self) -> Option<Diagnostic> {
        let message = match self.written.as_slice() {
            [_] => return None,
            [] => "`[[vrrp.track]]` does not say what to track".to_owned(),
            [first, second, ..] => {
                format!("`[[vrrp.track]]` has both `{first}` and `{second}`")
            }
        };
        let help = "write one of `interface`, `service`, `file` and `script`; \
                    another thing is another `[[vrrp.track]]`";
        Some(Diagnostic::error(&self.header, message).with_label("needs one thing").with_help(help))
    }
}

/// `script` and the keys that only it has.
fn script(section: &mut Section<'_>) -> Option<WithSpan<TrackTarget>> {
    if !section.has("script") {
        return None;
    }
    let argv = section.read("script", value::argv);
    let interval = section.or("interval", Duration::from_secs(1), duration(PERIOD));
    let timeout = section.or("timeout", Duration::from_secs(1), duration(PERIOD));
    let rise = section.or("rise", 1, value::number(1..=100));
    let fall = section.or("fall", 1, value::number(1..=100));
    let WithSpan { value: argv, span } = argv?;
    let times = ScriptTimes { interval: interval?, timeout: timeout?, rise: rise?, fall: fall? };
    Some(WithSpan { value: TrackTarget::Script(argv, times), span })
}

fn weight(value: &Value<'_>) -> Checked<i16> {
    match value::number(-253..=253)(value)? {
        0 => {
            let error = value.error("`weight` cannot be 0").with_label("would change nothing");
            let help = "write -253 to 253; without `weight` its failure releases the VIPs";
            Err(vec![error.with_help(help)])
        }
        weight => Ok(weight),
    }
}

const KINDS: [&str; 4] = ["interface", "service", "file", "script"];
const FILE: &str = "/run/pointsman/priority";
