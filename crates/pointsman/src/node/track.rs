//! Reads the things that an instance tracks: links, services, files, scripts.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::Child;
use std::time::{Duration, Instant};

use control::TrackTarget;
use control::vrrp::{Reading, Script, ScriptAction, Tracked, Tracker};
use dataplane::Tick;
use tracing::warn;

use crate::process;

/// What one instance tracks.
#[derive(Debug)]
pub(super) struct Tracking {
    tracker: Tracker,
    sources: Vec<Source>,
    next_files: Tick,
}

#[derive(Debug)]
enum Source {
    Interface(String),
    Service(String),
    File(PathBuf),
    Script(Vec<String>, Box<Script>, Option<Child>),
}

const FILES_EVERY: Duration = Duration::from_millis(500);

impl Tracking {
    pub(super) fn new(wanted: &control::Vrrp, now: Tick) -> Self {
        let tracked = wanted.track.iter().map(|track| Tracked {
            kind: track.target.kind(),
            name: track.target.name(),
            weight: track.weight,
            reading: Reading::Unknown,
        });
        let sources = wanted.track.iter().map(|track| match &track.target {
            TrackTarget::Interface(name) => Source::Interface(name.clone()),
            TrackTarget::Service(name) => Source::Service(name.clone()),
            TrackTarget::File(path) => Source::File(path.clone()),
            TrackTarget::Script(argv, times) => {
                Source::Script(argv.clone(), Box::new(Script::new(*times, Instant::now())), None)
            }
        });
        Self {
            tracker: Tracker::new(wanted.priority, tracked.collect()),
            sources: sources.collect(),
            next_files: now,
        }
    }

    /// The effective priority and its reasons.
    pub(super) fn tracker(&self) -> &Tracker {
        &self.tracker
    }

    /// Reads everything; returns the effective priority if it changed.
    pub(super) fn look(
        &mut self,
        links: &BTreeMap<String, bool>,
        services: &BTreeMap<String, bool>,
        now: Tick,
    ) -> Option<u8> {
        let before = self.tracker.effective();
        let files = now >= self.next_files;
        if files {
            self.next_files = now + FILES_EVERY;
        }
        for (at, source) in self.sources.iter_mut().enumerate() {
            let reading = match source {
                Source::Interface(name) => up(links.get(name).copied()),
                Source::Service(name) => up(services.get(name).copied()),
                Source::File(path) if files => read(path),
                Source::File(_) => continue,
                Source::Script(argv, script, child) => run(argv, script, child),
            };
            self.tracker.read(at, reading);
        }
        let after = self.tracker.effective();
        (after != before).then_some(after)
    }
}

impl Drop for Source {
    fn drop(&mut self) {
        if let Self::Script(_, _, child) = self
            && let Some(child) = child.take()
        {
            process::kill(child);
        }
    }
}

fn up(state: Option<bool>) -> Reading {
    if state == Some(true) { Reading::Up } else { Reading::Down }
}

/// A file that is missing or holds no number says nothing, as with keepalived.
fn read(path: &PathBuf) -> Reading {
    let text = std::fs::read_to_string(path).unwrap_or_default();
    text.trim().parse().map_or(Reading::Unknown, Reading::Value)
}

fn run(argv: &[String], script: &mut Script, child: &mut Option<Child>) -> Reading {
    if let Some(running) = child {
        match running.try_wait() {
            Ok(None) => {}
            Ok(Some(status)) => {
                script.exited(status.success());
                *child = None;
            }
            Err(_) => {
                script.exited(false);
                *child = None;
            }
        }
    }
    while let Some(action) = script.handle_timeout(Instant::now()) {
        match action {
            ScriptAction::Run => match process::start(argv) {
                Ok(started) => *child = Some(started),
                Err(error) => {
                    warn!(program = ?argv.first(), %error, "cannot run the tracking script");
                    script.exited(false);
                }
            },
            ScriptAction::Kill => {
                if let Some(running) = child.take() {
                    process::kill(running);
                }
            }
        }
    }
    script.reading()
}
