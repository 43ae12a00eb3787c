//! A log that cannot be written harms nothing: forwarding, health and the end of the process go on,
//! and what was lost is counted. Needs root.
#![expect(clippy::print_stdout, reason = "what was measured")]

use std::fs::File;
use std::io::{Error, ErrorKind, Read as _, Write as _};
use std::net::{Ipv4Addr, TcpStream};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::PathBuf;
use std::thread::sleep;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use lab::{Lab, Nginx, Pointsman, ServiceText};
use tests::lifecycle::{config, fetch, started_by_shell, status, wait_for};
use tests::{close_books, health};

/// A balancer whose log goes elsewhere.
struct Bench {
    lb: Pointsman,
    web: Vec<Nginx>,
    lab: Lab,
}

impl Bench {
    /// `redirection` is where standard error goes, of the shell's kind.
    fn start(redirection: impl FnOnce(&Lab) -> Result<String>) -> Result<Self> {
        let lab = Lab::builder().backends(2).build()?;
        let web = lab.start_web()?;
        let node = lab.balancer(0);
        // All that there is to log: a full queue needs a megabyte.
        let binary = started_by_shell(node, "env POINTSMAN_LOG=debug", &redirection(&lab)?)?;
        let text = config(&ServiceText::web(&lab).persistence("50s").health(health::HTTP));
        let mut lb = Pointsman::spawn_binary(node, &binary, &text)?;
        lb.wait_ready(Duration::from_secs(10))?;
        Ok(Self { lb, web, lab })
    }

    /// Its log goes to a pipe, whose reading end comes with it.
    fn start_with_pipe() -> Result<(Self, File)> {
        let mut reader = None;
        let bench = Self::start(|lab| {
            let (path, file) = fifo(lab)?;
            reader = Some(file);
            Ok(format!("2>{}", path.display()))
        })?;
        Ok((bench, reader.context("the pipe was opened")?))
    }

    /// Logs until lines are lost that were not lost before.
    fn lose_lines(&self) -> Result<()> {
        let lost = || Ok::<_, anyhow::Error>(status(&self.lb)?["log_lines_lost"].as_u64());
        let before = lost()?;
        wait_for("lines are lost and counted", Duration::from_secs(30), || {
            self.lab.balancer(0).netns().enter(nonsense)??;
            Ok(lost()? > before)
        })?;
        Ok(())
    }

    /// Logs until something is lost; meanwhile and afterwards all goes on.
    fn serves_on(&mut self) -> Result<()> {
        self.lose_lines()?;
        let metric = self.lb.metrics()?.value("pointsman_log_lines_lost_total", &[]);
        ensure!(metric > Some(0.0), "{metric:?}");
        fetch(&self.lab)?;
        // Health checks go on: a dead backend is found, and a new one.
        self.web.truncate(1);
        self.wait_state("down")?;
        for _ in 0..10 {
            fetch(&self.lab)?;
        }
        self.web.push(self.lab.start_nginx(1)?);
        self.wait_state("up")?;
        close_books(&self.lb);
        Ok(())
    }

    fn wait_state(&self, state: &str) -> Result<()> {
        let second = "/services/0/backends/1/state";
        let took = wait_for(state, Duration::from_secs(5), || {
            Ok(status(&self.lb)?.pointer(second).is_some_and(|now| now == state))
        })?;
        println!("the second backend is {state} after {took:?}");
        Ok(())
    }

    /// Ends by SIGTERM, in time and with nothing to complain of.
    fn stops(mut self) -> Result<()> {
        let (exit, took) = self.lb.process().stop(Duration::from_secs(5))?;
        println!("stopped after {took:?}: {exit}");
        ensure!(exit.code() == Some(0), "{exit}");
        ensure!(took < Duration::from_millis(1500), "took {took:?}");
        Ok(())
    }
}

/// Requests that are not HTTP: each is worth a line of the log.
fn nonsense() -> Result<()> {
    for _ in 0..500 {
        let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, 9477))?;
        stream.set_read_timeout(Some(Duration::from_secs(2)))?;
        stream.write_all(b"no request\r\n\r\n")?;
        // The answer, or a reset; but not silence.
        let answer = stream.read(&mut [0; 512]);
        let silent = |error: Error| error.kind() == ErrorKind::WouldBlock;
        ensure!(!answer.is_err_and(silent), "the daemon stands still");
    }
    Ok(())
}

/// A pipe with a name; held open for reading, so that it can be opened for writing.
fn fifo(lab: &Lab) -> Result<(PathBuf, File)> {
    let path = lab.balancer(0).dir().join("log.fifo");
    let mode = rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR;
    rustix::fs::mknodat(rustix::fs::CWD, &path, rustix::fs::FileType::Fifo, mode, 0)?;
    let reader = File::options().read(true).custom_flags(libc::O_NONBLOCK).open(&path)?;
    Ok((path, reader))
}

#[test]
fn a_full_disk_under_the_log_costs_lines_only() -> Result<()> {
    let mut bench = Bench::start(|_| Ok("2>/dev/full".to_owned()))?;
    bench.serves_on()?;
    bench.stops()
}

#[test]
fn a_reader_of_the_log_that_went_away_costs_lines_only() -> Result<()> {
    let (mut bench, reader) = Bench::start_with_pipe()?;
    drop(reader);
    bench.serves_on()?;
    bench.stops()
}

#[test]
fn a_reader_of_the_log_that_stalls_costs_lines_only() -> Result<()> {
    let (mut bench, mut reader) = Bench::start_with_pipe()?;
    bench.serves_on()?;
    // Once it reads again the log goes on, and says what is missing.
    let mut text = String::new();
    wait_for("the log says how much was lost", Duration::from_secs(10), || {
        let mut piece = vec![0; 1 << 16];
        while let Ok(length @ 1..) = reader.read(&mut piece) {
            text += &String::from_utf8_lossy(&piece[..length]);
        }
        sleep(Duration::from_millis(10));
        Ok(text.contains("lines of the log were lost"))
    })?;
    // The reader stalls again: the end does not wait for it.
    bench.lose_lines()?;
    bench.stops()
}

#[test]
fn no_standard_error_at_all_is_no_reason_to_die() -> Result<()> {
    let bench = Bench::start(|_| Ok("2>&-".to_owned()))?;
    fetch(&bench.lab)?;
    bench.stops()
}
