//! Transcripts: what goes in, what comes out, in `tests/vrrp/*.txt`.
//!
//! A file is an intent (`#`), a configuration, and steps. A step is `@<ms> <input>`; the lines with
//! `=` below it are what came out. `UPDATE_GOLDEN=1` writes them anew: read the difference.
//!
//! ```text
//! router [priority=N] [interval=MS] [preempt=no] [delay=MS] [version=2] [down=N] [handover=at_once]
//!        (one line per member; two or more make a sync group)
//! sends fail | sends work
//! @ms [member:] start | shutdown | heard ADDRESS PRIORITY [INTERVAL-MS] | priority N | block WHY |
//!               unblock | resign SECONDS | announce | wake
//! @ms run       every deadline up to then
//! ```

use std::fmt::Write as _;
use std::net::IpAddr;
use std::path::Path;
use std::time::{Duration, Instant};

use control::vrrp::{
    Action, AddressList, Block, ChecksumStyle, Config, Event, Group, Handover, Heard, Router,
    Version, Vrid,
};

/// One router, or several in a sync group.
enum Machine {
    One(Box<Router>),
    Many(Group),
}

impl Machine {
    fn new(configs: &[Config]) -> Self {
        let router = |config: &Config| Router::new(config.clone()).expect("valid configuration");
        match configs {
            [one] => Self::One(Box::new(router(one))),
            many => Self::Many(Group::new(many.iter().map(router).collect(), 0)),
        }
    }

    fn members(&self) -> Vec<&Router> {
        match self {
            Self::One(router) => vec![&**router],
            Self::Many(group) => group.members().iter().collect(),
        }
    }

    fn handle(&mut self, member: Option<usize>, event: Event, now: Instant) {
        match (self, member) {
            (Self::One(router), _) => router.handle(event, now),
            (Self::Many(group), Some(member)) => group.handle(member, event, now),
            (Self::Many(group), None) => group.handle_all(event, now),
        }
    }

    fn handle_timeout(&mut self, now: Instant) {
        match self {
            Self::One(router) => router.handle_timeout(now),
            Self::Many(group) => group.handle_timeout(now),
        }
    }

    fn next_deadline(&self) -> Option<Instant> {
        match self {
            Self::One(router) => router.next_deadline(),
            Self::Many(group) => group.next_deadline(),
        }
    }

    fn poll_action(&mut self) -> Option<(usize, Action)> {
        match self {
            Self::One(router) => Some((0, router.poll_action()?)),
            Self::Many(group) => group.poll_action(),
        }
    }

    fn advert_sent(&mut self, member: usize, now: Instant, ok: bool) {
        match self {
            Self::One(router) => router.advert_sent(now, now, ok),
            Self::Many(group) => group.advert_sent(member, now, now, ok),
        }
    }
}

/// Plays one file.
struct Player {
    machine: Machine,
    start: Instant,
    sends_work: bool,
    out: String,
}

impl Player {
    fn step(&mut self, now: Instant, input: &str) {
        let (member, input) = match input.split_once(':') {
            Some((member, input)) => (Some(member.parse().expect("member")), input.trim()),
            None => (None, input),
        };
        match input {
            "run" => {
                while let Some(at) = self.machine.next_deadline().filter(|&at| at <= now) {
                    self.machine.handle_timeout(at);
                    self.drain(at, true);
                }
                self.summary(now);
                return;
            }
            "wake" => self.machine.handle_timeout(now),
            input => self.machine.handle(member, event(input), now),
        }
        self.drain(now, false);
        self.summary(now);
    }

    fn drain(&mut self, now: Instant, stamped: bool) {
        let grouped = matches!(self.machine, Machine::Many(_));
        while let Some((member, action)) = self.machine.poll_action() {
            self.out.push_str("= ");
            if stamped {
                write!(self.out, "[{}] ", self.ms(now)).unwrap();
            }
            if grouped {
                write!(self.out, "{member}: ").unwrap();
            }
            let text = match action {
                Action::SendAdvert { priority } => {
                    self.machine.advert_sent(member, now, self.sends_work);
                    format!("send advert, priority {priority}")
                }
                Action::Activate { until } => format!("activate until {}", self.ms(until)),
                Action::Renew { until } => format!("renew until {}", self.ms(until)),
                Action::Deactivate => "deactivate".into(),
                Action::AnnounceBurst { count, why } => {
                    format!("announce {count} times ({})", why.name())
                }
                Action::Transition { from, to, reason } => {
                    format!("{} -> {} ({})", from.shown(), to.shown(), reason.name())
                }
            };
            self.out.push_str(&text);
            self.out.push('\n');
        }
    }

    /// The states after the step and how long nothing will happen.
    fn summary(&mut self, now: Instant) {
        let states: Vec<_> = self.machine.members().iter().map(|r| r.state().name()).collect();
        write!(self.out, "= {}", states.join(", ")).unwrap();
        match self.machine.next_deadline() {
            Some(at) if at >= now => writeln!(self.out, ", next at {}", self.ms(at)).unwrap(),
            Some(at) => writeln!(self.out, ", overdue since {}", self.ms(at)).unwrap(),
            None => self.out.push_str(", nothing planned\n"),
        }
    }

    fn ms(&self, at: Instant) -> String {
        format!("{}", (at - self.start).as_micros() as f64 / 1000.0)
    }
}

fn event(input: &str) -> Event {
    let words: Vec<&str> = input.split_whitespace().collect();
    match words[..] {
        ["start"] => Event::Start,
        ["shutdown"] => Event::Shutdown,
        ["heard", source, priority] => heard(source, priority, "1000"),
        ["heard", source, priority, interval] => heard(source, priority, interval),
        ["priority", priority] => Event::SetPriority(priority.parse().expect("priority")),
        ["block", why] => {
            let block = Block::ALL.iter().find(|block| block.name() == why);
            Event::SetForwarding(Some(*block.expect("a reason")))
        }
        ["unblock"] => Event::SetForwarding(None),
        ["resign", time] => Event::Resign(Duration::from_secs(time.parse().expect("seconds"))),
        ["announce"] => Event::Announce,
        _ => panic!("unknown input: {input}"),
    }
}

fn heard(source: &str, priority: &str, interval: &str) -> Event {
    Event::Heard(Heard {
        source: source.parse().expect("address"),
        priority: priority.parse().expect("priority"),
        interval: Duration::from_millis(interval.parse().expect("interval")),
        checksum: ChecksumStyle::Plain,
        list: AddressList::Same,
    })
}

fn config(words: &str) -> Config {
    let own = IpAddr::from([192, 0, 2, 5]);
    let mut config = Config::new(Vrid::MIN, own, vec![[192, 0, 2, 100].into()]);
    for word in words.split_whitespace() {
        let (key, value) = word.split_once('=').expect("key=value");
        let ms = || Duration::from_millis(value.parse().expect("ms"));
        match key {
            "priority" => config.priority = value.parse().expect("priority"),
            "interval" => config.interval = ms(),
            "preempt" => config.preempt = value == "yes",
            "delay" => config.preempt_delay = ms(),
            "down" => config.down_adverts = value.parse().expect("down"),
            "version" => config.version = if value == "2" { Version::V2 } else { Version::V3 },
            "handover" => config.handover = Handover::AtOnce,
            _ => panic!("unknown key: {key}"),
        }
    }
    config
}

/// The file with its outputs as they are now.
#[expect(clippy::disallowed_methods, reason = "an Instant has no other constructor")]
fn play(text: &str) -> String {
    let configs: Vec<Config> =
        text.lines().filter_map(|line| line.strip_prefix("router")).map(config).collect();
    let mut player = Player {
        machine: Machine::new(&configs),
        start: Instant::now(),
        sends_work: true,
        out: String::new(),
    };
    for line in text.lines().filter(|line| !line.starts_with('=')) {
        player.out.push_str(line);
        player.out.push('\n');
        if let Some(step) = line.strip_prefix('@') {
            let (ms, input) = step.split_once(' ').expect("@<ms> <input>");
            let us = (ms.parse::<f64>().expect("ms") * 1000.0).round();
            let now = player.start + Duration::from_secs_f64(us / 1e6);
            player.step(now, input.trim());
        } else if let Some(how) = line.strip_prefix("sends ") {
            player.sends_work = how == "work";
        } else {
            let known = line.is_empty() || line.starts_with('#') || line.starts_with("router");
            assert!(known, "unknown line: {line}");
        }
    }
    player.out
}

#[test]
#[expect(clippy::disallowed_methods, reason = "a test may read its data")]
fn transcripts() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/vrrp");
    let update = std::env::var_os("UPDATE_GOLDEN").is_some();
    let mut paths: Vec<_> =
        std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    assert!(paths.len() >= 10, "{paths:?}");
    let mut differ = String::new();
    for path in paths {
        let text = std::fs::read_to_string(&path).unwrap();
        let played = play(&text);
        if update {
            std::fs::write(&path, &played).unwrap();
        } else if played != text {
            let name = path.file_name().unwrap().display();
            let lines = text.lines().zip(played.lines());
            let (at, (want, got)) =
                lines.enumerate().find(|(_, (want, got))| want != got).unwrap_or_default();
            writeln!(differ, "{name}:{}\n  want {want}\n   got {got}", at + 1).unwrap();
        }
    }
    assert!(differ.is_empty(), "\n{differ}");
}
