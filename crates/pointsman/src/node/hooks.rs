//! Programs that are run because something happened: no shell, no input, killed when they hang.

use std::collections::VecDeque;
use std::time::Duration;

use control::Notify;
use dataplane::Tick;
use tracing::warn;

use crate::clock;
use crate::process::{self, Leftovers, Program, Variable};

/// The running ones, and those whose turn comes.
#[derive(Debug, Default)]
pub(super) struct Hooks {
    waiting: Waiting,
    running: Vec<Hook>,
    /// A hook may leave something running, but not beyond its time.
    leftovers: Leftovers,
}

/// Which go first: one of a backend may be one of hundreds at once, and others tell what they
/// amount to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Rank {
    /// Of a VRRP instance or of a service.
    First,
    /// Of a backend.
    Second,
}

/// Those whose turn comes: by rank, then in the order they came in.
#[derive(Debug, Default)]
struct Waiting {
    first: VecDeque<PendingHook>,
    second: VecDeque<PendingHook>,
}

/// One that is to be started.
#[derive(Debug, PartialEq, Eq)]
struct PendingHook {
    argv: Vec<String>,
    environment: Vec<Variable>,
    timeout: Duration,
}

#[derive(Debug)]
struct Hook {
    program: String,
    child: Program,
    kill_at: Tick,
    killed: bool,
}

/// So many at once; others wait.
const MOST_RUNNING: usize = 64;
/// So many are started at a time: each takes a moment in which no verdict is published.
const MOST_STARTED: usize = 4;
/// More of a rank do not wait: something is wrong with them.
const MOST_WAITING: usize = 4096;

impl Hooks {
    /// Has one started soon, with these words appended; those of a rank in the order of the calls.
    pub(super) fn run(
        &mut self,
        rank: Rank,
        notify: &Notify,
        words: &[&str],
        environment: Vec<Variable>,
    ) {
        let mut argv = notify.command.clone();
        argv.extend(words.iter().map(|word| (*word).to_owned()));
        let hook = PendingHook { argv, environment, timeout: notify.timeout };
        if let Err(PendingHook { argv, .. }) = self.waiting.push(rank, hook) {
            warn!(program = ?argv.first(), ?words, "hook not run: {MOST_WAITING} of them wait");
        }
    }

    /// Starts waiting hooks, as many as may run.
    fn start(&mut self, now: Tick) {
        for _ in 0..MOST_STARTED {
            if self.running.len() >= MOST_RUNNING {
                return;
            }
            let Some(PendingHook { argv, environment, timeout }) = self.waiting.pop() else {
                return;
            };
            let program = argv.first().cloned().unwrap_or_default();
            match process::start(&argv, &environment) {
                Ok(child) => {
                    self.running.push(Hook {
                        program,
                        child,
                        kill_at: now + timeout,
                        killed: false,
                    });
                }
                Err(error) => warn!(%program, %error, "cannot run the hook"),
            }
        }
    }

    /// Takes note of ended hooks, kills hanging ones, and starts others.
    pub(super) fn turn(&mut self, now: Tick) {
        self.reap(now);
        self.start(now);
        self.leftovers.turn(now);
    }

    /// Has waiting and running hooks come to their end, within `limit`.
    pub(super) async fn finish(&mut self, limit: Duration) {
        let deadline = clock::now() + limit;
        while !self.is_idle() {
            let now = clock::now();
            if now >= deadline {
                let (running, waiting) = (self.running.len(), self.waiting.len());
                warn!(running, waiting, "hooks are cut off: the end does not wait for them longer");
                break;
            }
            self.turn(now);
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        // Dropping them kills what still runs.
        *self = Self::default();
    }

    fn is_idle(&self) -> bool {
        self.running.is_empty() && self.waiting.len() == 0
    }

    fn reap(&mut self, now: Tick) {
        let ended = self.running.extract_if(.., |hook| hook.has_ended(now));
        for hook in ended.filter(|hook| !hook.killed) {
            self.leftovers.keep(hook.child, hook.kill_at);
        }
    }
}

impl Hook {
    /// Whether it has; it is killed when its time is over.
    fn has_ended(&mut self, now: Tick) -> bool {
        match self.child.try_wait() {
            Ok(Some(status)) => {
                if !status.success() && !self.killed {
                    warn!(program = %self.program, %status, "hook failed");
                }
                true
            }
            Ok(None) => {
                if now >= self.kill_at && !self.killed {
                    warn!(program = %self.program, "hook killed: it ran for too long");
                    self.child.kill();
                    self.killed = true;
                }
                false
            }
            Err(error) => {
                warn!(program = %self.program, %error, "cannot wait for the hook");
                true
            }
        }
    }
}

impl Waiting {
    /// Gives it back if there is no room.
    fn push(&mut self, rank: Rank, order: PendingHook) -> Result<(), PendingHook> {
        let queue = match rank {
            Rank::First => &mut self.first,
            Rank::Second => &mut self.second,
        };
        if queue.len() >= MOST_WAITING {
            return Err(order);
        }
        queue.push_back(order);
        Ok(())
    }

    fn len(&self) -> usize {
        self.first.len() + self.second.len()
    }

    fn pop(&mut self) -> Option<PendingHook> {
        self.first.pop_front().or_else(|| self.second.pop_front())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn order(number: usize) -> PendingHook {
        PendingHook {
            argv: vec![number.to_string()],
            environment: Vec::new(),
            timeout: Duration::ZERO,
        }
    }

    #[test]
    fn those_of_services_go_before_those_of_backends() {
        let mut waiting = Waiting::default();
        for (rank, number) in
            [(Rank::Second, 3), (Rank::First, 1), (Rank::Second, 4), (Rank::First, 2)]
        {
            assert_eq!(waiting.push(rank, order(number)), Ok(()));
        }
        let popped: Vec<_> = std::iter::from_fn(|| waiting.pop()).collect();
        assert_eq!(popped, [order(1), order(2), order(3), order(4)]);
    }

    #[test]
    fn a_flood_of_backends_leaves_room_for_services() {
        let mut waiting = Waiting::default();
        for number in 0..MOST_WAITING {
            assert_eq!(waiting.push(Rank::Second, order(number)), Ok(()));
        }
        assert_eq!(waiting.push(Rank::Second, order(MOST_WAITING)), Err(order(MOST_WAITING)));
        assert_eq!(waiting.push(Rank::First, order(7)), Ok(()));
        assert_eq!(waiting.pop(), Some(order(7)));
        assert_eq!(waiting.pop(), Some(order(0)));
    }

    #[test]
    fn of_a_hundred_at_once_none_is_lost() {
        let path = std::env::temp_dir().join(format!("pointsman-hooks-{}", std::process::id()));
        let script = "echo \"$1\" >> \"$0\"";
        let command = ["/bin/sh", "-c", script, &path.to_string_lossy()].map(str::to_owned);
        let notify = Notify { command: command.to_vec(), timeout: Duration::from_secs(10) };
        let mut hooks = Hooks::default();
        for number in 0..100 {
            hooks.run(Rank::Second, &notify, &[&number.to_string()], Vec::new());
        }
        let begin = clock::now();
        hooks.turn(begin);
        assert_eq!(hooks.running.len(), MOST_STARTED);
        while !hooks.running.is_empty() {
            hooks.turn(clock::now());
            assert!(hooks.running.len() <= MOST_RUNNING);
            assert!(clock::now().saturating_since(begin) < Duration::from_secs(20));
            std::thread::sleep(Duration::from_millis(1));
        }
        let text = std::fs::read_to_string(&path).unwrap_or_default();
        let _ = std::fs::remove_file(&path);
        let mut seen: Vec<u32> = text.lines().filter_map(|line| line.parse().ok()).collect();
        seen.sort_unstable();
        assert_eq!(seen, (0..100).collect::<Vec<_>>());
    }

    #[test]
    fn one_that_hangs_is_killed_with_what_it_started() {
        let command = ["/bin/sh", "-c", "sleep 60 & wait"].map(str::to_owned).to_vec();
        let notify = Notify { command, timeout: Duration::from_millis(50) };
        let mut hooks = Hooks::default();
        hooks.run(Rank::First, &notify, &[], Vec::new());
        let begin = clock::now();
        hooks.turn(begin);
        while !hooks.running.is_empty() {
            hooks.turn(clock::now());
            assert!(clock::now().saturating_since(begin) < Duration::from_secs(5));
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}
