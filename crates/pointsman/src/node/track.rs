//! Reads the things that an instance tracks: links, services, files, scripts.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use control::TrackTarget;
use control::vrrp::{Reading, Script, ScriptAction, Tracked, Tracker};
use dataplane::Tick;
use tracing::warn;

use crate::process::{self, Program, Variable};

/// What one instance tracks.
#[derive(Debug)]
pub(super) struct Tracking {
    tracker: Tracker,
    sources: Vec<Source>,
    /// The environment of a script.
    environment: Vec<Variable>,
    next_files: Tick,
}

#[derive(Debug)]
enum Source {
    Interface(String),
    Service(String),
    File(PathBuf),
    Script(Vec<String>, Box<Script>, Option<Program>),
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
            environment: vec![("POINTSMAN_INSTANCE", wanted.name.clone())],
            next_files: now,
        }
    }

    /// The effective priority and its reasons.
    pub(super) fn tracker(&self) -> &Tracker {
        &self.tracker
    }

    /// Takes another configured priority; what is known of the tracked things stays.
    pub(super) fn set_priority(&mut self, priority: u8) {
        self.tracker.set_priority(priority);
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
                Source::Script(argv, script, child) => run(argv, &self.environment, script, child),
            };
            self.tracker.read(at, reading);
        }
        let after = self.tracker.effective();
        (after != before).then_some(after)
    }
}

impl Drop for Source {
    fn drop(&mut self) {
        if let Self::Script(_, _, Some(child)) = self {
            child.kill();
            let _ = child.try_wait();
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

/// One that was killed stays in `child` until it is dead: no other is started beside it.
fn run(
    argv: &[String],
    environment: &[Variable],
    script: &mut Script,
    child: &mut Option<Program>,
) -> Reading {
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
            ScriptAction::Run if child.is_some() => script.exited(false),
            ScriptAction::Run => match process::start(argv, environment) {
                Ok(started) => *child = Some(started),
                Err(error) => {
                    warn!(program = ?argv.first(), %error, "cannot run the tracking script");
                    script.exited(false);
                }
            },
            ScriptAction::Kill => {
                if let Some(running) = child {
                    running.kill();
                }
            }
        }
    }
    script.reading()
}

#[cfg(test)]
mod tests {
    use control::vrrp::ScriptTimes;

    use super::*;

    const TIMES: ScriptTimes = ScriptTimes {
        interval: Duration::from_millis(20),
        timeout: Duration::from_millis(10),
        rise: 1,
        fall: 1,
    };

    /// The child does not end: it stands for one that was killed and waits for a dead disk.
    #[test]
    fn while_one_does_not_die_no_other_is_started_and_all_have_failed() {
        let sleep = ["/bin/sleep", "60"].map(str::to_owned);
        let started = process::start(&sleep, &[]).unwrap();
        let id = started.id();
        let mut child = Some(started);
        let start = Instant::now();
        let mut script = Script::new(TIMES, start);
        assert_eq!(run(&["/bin/true".to_owned()], &[], &mut script, &mut child), Reading::Down);
        assert_eq!(child.as_ref().map(Program::id), Some(id));
        child.as_ref().unwrap().kill();
        let begin = Instant::now();
        while run(&["/bin/true".to_owned()], &[], &mut script, &mut child) != Reading::Up {
            assert!(begin.elapsed() < Duration::from_secs(5));
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    #[test]
    fn one_that_takes_too_long_is_killed_and_reaped() {
        let sleep = ["/bin/sleep", "60"].map(str::to_owned);
        let (mut script, mut child) = (Script::new(TIMES, Instant::now()), None);
        let begin = Instant::now();
        run(&sleep, &[], &mut script, &mut child);
        let first = child.as_ref().map(Program::id);
        assert!(first.is_some());
        while child.as_ref().map(Program::id) == first {
            run(&sleep, &[], &mut script, &mut child);
            assert!(begin.elapsed() < Duration::from_secs(5));
            std::thread::sleep(Duration::from_millis(1));
        }
        assert_eq!(script.reading(), Reading::Down);
        drop(Source::Script(sleep.to_vec(), Box::new(script), child));
    }
}
