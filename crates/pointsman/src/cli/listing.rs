//! Asks for a listing and prints what comes, as it comes.

use std::io::{self, BufRead, BufReader, BufWriter, StdoutLock, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail};
use api::listing::Page;
use api::request::{Answer, Listing, Request, VERSION};

use super::Exit;
use crate::serve::control_socket::AskError;

/// Where the entries go.
pub(super) type Out<'a> = BufWriter<StdoutLock<'a>>;

/// What is printed of a listing.
#[derive(Clone, Copy, Debug)]
pub(super) struct How<'a> {
    /// Each entry as a line of JSON, instead of a table.
    pub(super) json: bool,
    /// So many entries, then no more.
    pub(super) limit: Option<u64>,
    /// The lines over the table; empty: none.
    pub(super) head: &'a str,
}

/// Lists; exit code 1 if the daemon refuses or the listing ends before its end.
pub(super) fn list<L: Listing>(
    socket: &Path,
    call: L,
    how: How<'_>,
    row: impl Fn(&mut Out<'_>, &L::Entry<'_>) -> io::Result<()>,
) -> Exit {
    let stream = match UnixStream::connect(socket) {
        Ok(stream) => stream,
        Err(error) => return AskError::NotRunning(socket.to_owned(), error).into(),
    };
    match exchange(stream, call, how, row) {
        Ok(()) => Exit::Done,
        // A reader that went away (`| head`) has what it wants.
        Err(error) if is_broken_pipe(&error) => Exit::Done,
        Err(error) => AskError::Refused(format!("{error:#}")).into(),
    }
}

fn exchange<L: Listing>(
    mut stream: UnixStream,
    call: L,
    how: How<'_>,
    row: impl Fn(&mut Out<'_>, &L::Entry<'_>) -> io::Result<()>,
) -> Result<()> {
    stream.set_read_timeout(Some(SILENCE))?;
    let request = Request { version: VERSION, verb: call.into() };
    stream.write_all(format!("{}\n", serde_json::to_string(&request)?).as_bytes())?;
    let mut lines = BufReader::with_capacity(READ_BYTES, stream);
    let mut out = BufWriter::with_capacity(READ_BYTES, io::stdout().lock());
    let mut left = how.limit.unwrap_or(u64::MAX);
    if !how.json && !how.head.is_empty() {
        writeln!(out, "{}", how.head).map_err(Printing)?;
    }
    let mut line = String::new();
    while left > 0 {
        line.clear();
        if lines.read_line(&mut line)? == 0 {
            bail!("the listing is not whole: the daemon ended it");
        }
        let page = page::<L>(&line)?;
        for entry in page.entries.iter().take(usize::try_from(left).unwrap_or(usize::MAX)) {
            left -= 1;
            if how.json {
                serde_json::to_writer(&mut out, entry)
                    .map_err(io::Error::from)
                    .map_err(Printing)?;
                out.write_all(b"\n").map_err(Printing)?;
            } else {
                row(&mut out, entry).map_err(Printing)?;
            }
        }
        if page.last {
            break;
        }
    }
    out.flush().map_err(Printing)?;
    Ok(())
}

fn page<L: Listing>(line: &str) -> Result<Page<L::Entry<'_>>> {
    let answer: Answer<Page<L::Entry<'_>>> =
        serde_json::from_str(line).context("the daemon's answer is not understood")?;
    answer.ok.ok_or_else(|| anyhow!(answer.error.unwrap_or_else(|| "empty answer".into())))
}

/// Standard output does not take it.
#[derive(Debug, thiserror::Error)]
#[error("cannot print: {0}")]
struct Printing(io::Error);

fn is_broken_pipe(error: &anyhow::Error) -> bool {
    let printing = error.downcast_ref::<Printing>();
    printing.is_some_and(|Printing(error)| error.kind() == io::ErrorKind::BrokenPipe)
}

/// Without a line for so long the daemon hangs; a machine that is busy lists slowly.
const SILENCE: Duration = Duration::from_secs(30);

const READ_BYTES: usize = 256 * 1024;
