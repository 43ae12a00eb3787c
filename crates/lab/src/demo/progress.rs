//! How far a load is: one line that is rewritten on a terminal, and a new one now and then elsewhere.

use std::{
    io::{self, IsTerminal as _, Write as _},
    time::{Duration, Instant},
};

use lab::RunningLoad;

/// Shows how far a load is.
pub(super) struct Progress {
    out: io::Stdout,
    terminal: bool,
    last: Instant,
}

impl Progress {
    pub(super) fn new() -> Self {
        let out = io::stdout();
        Self { terminal: out.is_terminal(), out, last: Instant::now() }
    }

    /// To be called often. `what` is what goes on.
    pub(super) fn show(&mut self, what: &str, load: &RunningLoad) -> io::Result<()> {
        let (done, failed) = load.progress();
        if self.terminal {
            write!(self.out, "\r\x1b[K  {what}: {done} done, {failed} failed ")?;
            return self.out.flush();
        }
        if self.last.elapsed() < Duration::from_secs(3) {
            return Ok(());
        }
        self.last = Instant::now();
        writeln!(self.out, "  {what}: {done} done, {failed} failed so far")
    }

    /// Takes the line away again.
    pub(super) fn clear(&mut self) -> io::Result<()> {
        if self.terminal {
            write!(self.out, "\r\x1b[K")?;
        }
        self.out.flush()
    }
}
