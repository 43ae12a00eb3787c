//! QEMU's control socket: one JSON command, one answer; events in between are skipped.

use std::{
    io::{BufRead as _, BufReader, Write as _},
    os::unix::net::UnixStream,
    time::Duration,
};

use serde_json::{Value, json};

use crate::error::{Doing as _, LabError, Result};

#[derive(Debug)]
pub(super) struct Qmp {
    stream: BufReader<UnixStream>,
}

impl Qmp {
    /// Takes over a connection to QEMU's socket.
    pub(super) fn new(stream: UnixStream) -> Result<Self> {
        stream.set_read_timeout(Some(ANSWER)).doing(|| "set a time-out".into())?;
        let mut this = Self { stream: BufReader::new(stream) };
        this.read()?;
        this.execute("qmp_capabilities", json!({}))?;
        Ok(this)
    }

    /// Runs a command; its return value.
    pub(super) fn execute(&mut self, command: &str, arguments: Value) -> Result<Value> {
        let request = json!({ "execute": command, "arguments": arguments });
        let doing = || format!("QEMU: {request}");
        self.stream.get_mut().write_all(format!("{request}\n").as_bytes()).doing(doing)?;
        loop {
            let mut answer = self.read()?;
            if let Some(value) = answer.get_mut("return") {
                return Ok(value.take());
            }
            if let Some(error) = answer.get("error") {
                return Err(LabError::Malformed { what: doing(), detail: error.to_string() });
            }
        }
    }

    fn read(&mut self) -> Result<Value> {
        let mut line = String::new();
        self.stream.read_line(&mut line).doing(|| "read from QEMU".into())?;
        let bad = |error| LabError::Malformed { what: format!("QEMU: {line}"), detail: error };
        serde_json::from_str(&line).map_err(|error| bad(error.to_string()))
    }
}

/// QEMU answers at once, but the machine may be busy.
const ANSWER: Duration = Duration::from_secs(20);
