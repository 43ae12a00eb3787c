//! A shell inside a guest, on the other end of a serial port.
//!
//! Every command is followed by a numbered mark with its exit status. Should a command not end in
//! time, the mark of a later one is waited for as usual: what is printed before it is skipped.

use std::{
    io::{ErrorKind, Read as _, Write as _},
    os::unix::net::UnixStream,
    time::{Duration, Instant},
};

use crate::error::{Doing as _, LabError, Result};

#[derive(Debug)]
pub(super) struct Shell {
    stream: UnixStream,
    commands: u32,
    /// Read, but not yet used.
    buffer: Vec<u8>,
}

impl Shell {
    /// Takes over a connection to the serial port's socket.
    pub(super) fn new(stream: UnixStream) -> Result<Self> {
        let doing = || "set time-outs".into();
        stream.set_read_timeout(Some(STEP)).doing(doing)?;
        stream.set_write_timeout(Some(Duration::from_secs(20))).doing(doing)?;
        Ok(Self { stream, commands: 0, buffer: Vec::new() })
    }

    /// Reads what has come until `mark` appears; whether it has.
    pub(super) fn seen(&mut self, mark: &str) -> Result<bool> {
        self.read()?;
        Ok(self.until(mark).is_some())
    }

    /// Runs a command in a shell of its own; exit status, and standard output and error together.
    pub(super) fn run(&mut self, command: &str, limit: Duration) -> Result<(u8, String)> {
        self.commands += 1;
        let begin = format!("#begin-{}\n", self.commands);
        let end = format!("\n#end-{} ", self.commands);
        // The marks are put together by the guest: an echo of the command would not be taken for
        // one. Input is closed for the command, which would else read the next one.
        let text = format!(
            "printf '#%s\\n' begin-{0}\n(\n{command}\n) </dev/null 2>&1\n\
             printf '\\n#%s %d\\n' end-{0} $?\n",
            self.commands
        );
        self.stream.write_all(text.as_bytes()).doing(|| format!("send to the guest: {command}"))?;
        let deadline = Instant::now() + limit;
        self.wait(&begin, deadline, command, limit)?;
        let output = self.wait(&end, deadline, command, limit)?;
        let status = self.wait("\n", deadline, command, limit)?;
        let parsed = status.trim().parse().map_err(|_| LabError::Malformed {
            what: format!("end of `{command}`"),
            detail: status.clone(),
        });
        Ok((parsed?, output))
    }

    /// What comes before `mark`.
    fn wait(
        &mut self,
        mark: &str,
        deadline: Instant,
        command: &str,
        limit: Duration,
    ) -> Result<String> {
        loop {
            if let Some(text) = self.until(mark) {
                return Ok(text);
            }
            if Instant::now() >= deadline {
                let so_far = String::from_utf8_lossy(&self.buffer);
                let what = format!("end of `{command}` in the guest; it printed: {so_far}");
                return Err(LabError::Timeout { what, limit });
            }
            self.read()?;
        }
    }

    fn until(&mut self, mark: &str) -> Option<String> {
        let at = self.buffer.windows(mark.len()).position(|bytes| bytes == mark.as_bytes())?;
        let text = String::from_utf8_lossy(&self.buffer[..at]).into_owned();
        self.buffer.drain(..at + mark.len());
        Some(text)
    }

    /// Waits at most [`STEP`] for more.
    fn read(&mut self) -> Result<()> {
        let mut piece = [0; 4096];
        match self.stream.read(&mut piece) {
            Ok(0) => Err(LabError::Malformed {
                what: "the guest's shell".into(),
                detail: "QEMU has closed the serial port".into(),
            }),
            Ok(length) => {
                self.buffer.extend_from_slice(&piece[..length]);
                Ok(())
            }
            Err(e) if matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => Ok(()),
            Err(error) => Err(error).doing(|| "read from the guest's shell".into()),
        }
    }
}

const STEP: Duration = Duration::from_millis(20);
