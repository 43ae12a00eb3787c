//! The log: lines for standard error, written by a thread of their own.
//!
//! A thread that logs puts its line into a bounded queue and goes on. A line that finds no room there
//! or that standard error refuses (a full disk, a closed pipe) is lost and counted. The crate
//! `tracing-appender` works alike, but its shutdown prints to standard error again: it blocks on a
//! pipe that is not read, and panics on one that is closed.

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, OnceLock};
use std::thread::Builder;
use std::time::{Duration, Instant};

use crossbeam::channel::{Receiver, Sender, bounded};
use rustix::event::{PollFd, PollFlags, poll};
use tracing::warn;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::MakeWriter;

/// The queue in front of the writing thread. Clones share it.
#[derive(Clone, Debug)]
pub struct Log {
    queue: Sender<Message>,
    shared: Arc<Shared>,
}

/// Takes lines as [`io::Write`]; each call is a line. It never fails and never waits.
#[derive(Debug)]
pub struct LineWriter<'a>(&'a Log);

#[derive(Debug)]
enum Message {
    Line(Box<[u8]>),
    /// All lines before this one were written; to be answered.
    Flush(Sender<()>),
}

#[derive(Debug, Default)]
struct Shared {
    /// Bytes of the lines in the queue.
    queued: AtomicUsize,
    /// Lines.
    lost: AtomicU64,
}

/// A duplicate of standard error, without the lock of [`std::io::Stderr`]: a thread that hangs in a
/// write must not hold it.
#[derive(Debug)]
struct StandardError(File);

/// The log of this process.
static LOG: OnceLock<Log> = OnceLock::new();
/// Room of the queue: some minutes of a busy log.
const MOST_LINES: usize = 8192;
const MOST_BYTES: usize = 1024 * 1024;
/// How long the end of the process waits for the last lines.
const END_WAIT: Duration = Duration::from_millis(300);

/// Levels unless others are wanted. What `netlink_proto` warns of, an overrun, the node says itself.
const USUAL: &str = "info,netlink_proto=error";

/// Starts the log of this process. Its level is that of the environment variable `POINTSMAN_LOG`,
/// else `info`.
///
/// # Errors
/// What thread creation returns, or that no descriptor is left.
pub fn start(color: bool) -> io::Result<()> {
    if LOG.get().is_some() {
        return Ok(());
    }
    let log = LOG.get_or_init({
        let stderr = io::stderr().as_fd().try_clone_to_owned()?;
        let log = Log::new(StandardError(stderr.into()))?;
        || log
    });
    let filter = EnvFilter::try_from_env("POINTSMAN_LOG").unwrap_or_else(|_| USUAL.into());
    // It fails only where a test has set a subscriber of its own.
    let _ = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(log.clone())
        .with_ansi(color)
        .log_internal_errors(false)
        .try_init();
    Ok(())
}

/// Lines lost so far.
pub fn lost() -> u64 {
    LOG.get().map_or(0, Log::lost)
}

/// Writes a last text behind all lines, and waits for them, but not for long.
pub fn end(text: &str) {
    if let Some(log) = LOG.get() {
        log.end(text, END_WAIT);
    }
}

impl Log {
    /// Starts the thread that writes to `sink`.
    fn new(sink: impl Write + Send + 'static) -> io::Result<Self> {
        let (queue, lines) = bounded(MOST_LINES);
        let shared = Arc::new(Shared::default());
        let log = Self { queue, shared: Arc::clone(&shared) };
        Builder::new().name("log".into()).spawn(move || write_lines(sink, &lines, &shared))?;
        Ok(log)
    }

    fn lost(&self) -> u64 {
        self.shared.lost.load(Relaxed)
    }

    fn put(&self, line: &[u8]) {
        let before = self.shared.queued.fetch_add(line.len(), Relaxed);
        let fits = before.saturating_add(line.len()) <= MOST_BYTES;
        if !fits || self.queue.try_send(Message::Line(line.into())).is_err() {
            self.shared.queued.fetch_sub(line.len(), Relaxed);
            self.shared.lost.fetch_add(1, Relaxed);
        }
    }

    fn end(&self, text: &str, limit: Duration) {
        let deadline = Instant::now() + limit;
        if !text.is_empty() {
            self.shared.queued.fetch_add(text.len(), Relaxed);
            let _ = self.queue.send_deadline(Message::Line(text.as_bytes().into()), deadline);
        }
        let (answer, written) = bounded(1);
        if self.queue.send_deadline(Message::Flush(answer), deadline).is_ok() {
            let _ = written.recv_deadline(deadline);
        }
    }
}

impl<'a> MakeWriter<'a> for Log {
    type Writer = LineWriter<'a>;

    fn make_writer(&'a self) -> Self::Writer {
        LineWriter(self)
    }
}

impl Write for LineWriter<'_> {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        self.0.put(line);
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The thread: each line is tried once, for a sink that refuses one may take the next.
fn write_lines(mut sink: impl Write, lines: &Receiver<Message>, shared: &Shared) {
    let mut reported = 0;
    while let Ok(message) = lines.recv() {
        match message {
            Message::Line(line) => {
                shared.queued.fetch_sub(line.len(), Relaxed);
                if sink.write_all(&line).is_err() {
                    shared.lost.fetch_add(1, Relaxed);
                    continue;
                }
                let lost = shared.lost.load(Relaxed);
                if lost > reported {
                    warn!(lines = lost - reported, "lines of the log were lost");
                    reported = lost;
                }
            }
            // The caller may have given up.
            Message::Flush(answer) => drop(answer.try_send(())),
        }
    }
}

impl Write for StandardError {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        loop {
            match self.0.write(bytes) {
                // The other end of a pipe may have made it non-blocking.
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    poll(&mut [PollFd::new(&self.0, PollFlags::OUT)], None)?;
                }
                result => return result,
            }
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, pipe};

    use super::*;

    const LIMIT: Duration = Duration::from_secs(10);

    #[test]
    fn lines_are_written_in_order_before_the_last_text() {
        let (mut read, write) = pipe().unwrap();
        let log = Log::new(write).unwrap();
        for number in 0..1000 {
            writeln!(log.make_writer(), "{number}").unwrap();
        }
        log.end("the end\n", LIMIT);
        drop(log);
        let mut text = String::new();
        read.read_to_string(&mut text).unwrap();
        let expected: String = (0..1000).map(|number| format!("{number}\n")).collect();
        assert_eq!(text, expected + "the end\n");
    }

    #[test]
    fn a_pipe_that_is_not_read_costs_lines_and_no_time() {
        let (mut read, write) = pipe().unwrap();
        let log = Log::new(write).unwrap();
        let line = [b'x'; 1024];
        let begin = Instant::now();
        for _ in 0..5000 {
            log.make_writer().write_all(&line).unwrap();
        }
        log.end("the end\n", Duration::from_millis(100));
        assert!(begin.elapsed() < Duration::from_secs(5), "{:?}", begin.elapsed());
        let lost = log.lost();
        // The queue holds 1024 of them, the pipe 64, and one is being written.
        assert!((3800..4000).contains(&lost), "{lost}");
        // Once it is read again, what was kept arrives.
        drop(log);
        let mut text = Vec::new();
        read.read_to_end(&mut text).unwrap();
        let kept = text.iter().filter(|byte| **byte == b'x').count() / line.len();
        assert_eq!(kept as u64 + lost, 5000);
    }

    #[test]
    fn a_refused_line_is_counted_and_the_next_one_tried() {
        struct Full(Arc<AtomicU64>);
        impl Write for Full {
            fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
                match self.0.fetch_add(1, Relaxed) {
                    0..3 => Err(io::ErrorKind::StorageFull.into()),
                    _ => Ok(bytes.len()),
                }
            }
            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        let tried = Arc::new(AtomicU64::new(0));
        let log = Log::new(Full(Arc::clone(&tried))).unwrap();
        for _ in 0..5 {
            log.put(b"a line\n");
        }
        log.end("", LIMIT);
        assert_eq!((tried.load(Relaxed), log.lost()), (5, 3));
    }

    #[test]
    fn a_long_line_counts_as_what_it_is() {
        let (_read, write) = pipe().unwrap();
        let log = Log::new(write).unwrap();
        log.put(&vec![b'x'; MOST_BYTES + 1]);
        assert_eq!((log.lost(), log.shared.queued.load(Relaxed)), (1, 0));
    }
}
