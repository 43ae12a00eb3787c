//! One thread of the load client: plain blocking sockets and as little HTTP as is needed.

use std::{
    io::{self, ErrorKind, Read as _, Write as _},
    net::{IpAddr, SocketAddr, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use rustix::io::Errno;
use sha2::{Digest as _, Sha256};
use socket2::{Domain, Protocol, Socket, Type};

use super::{LoadClient, Outcome, Record, Shared, Timeline};

/// A thread's records, and the names of the backends that their numbers stand for.
#[derive(Debug, Default)]
pub(super) struct ThreadRecords {
    records: Vec<Record>,
    backends: Vec<String>,
}

/// Fetches the file until the plan is fulfilled.
pub(super) struct Fetcher {
    plan: Arc<LoadClient>,
    shared: Arc<Shared>,
    number: u32,
    request: Vec<u8>,
    buffer: Vec<u8>,
    connection: Option<Connection>,
    out: ThreadRecords,
}

struct Connection {
    stream: TcpStream,
    source: Option<u32>,
}

/// The part of a response's head that matters.
struct Head {
    status: u16,
    length: u64,
    backend: Option<u16>,
    /// Where the body begins in the buffer, and how much of the buffer is filled.
    body: usize,
    filled: usize,
}

/// What is known about a request when it has ended, well or badly.
#[derive(Default)]
struct Seen {
    source: Option<u32>,
    first_byte: Option<Duration>,
    backend: Option<u16>,
    bytes: u64,
}

impl Fetcher {
    pub(super) fn new(plan: Arc<LoadClient>, shared: Arc<Shared>, number: u32) -> Self {
        let request = format!("GET {} HTTP/1.1\r\nHost: {}\r\n\r\n", plan.path, plan.target);
        Self {
            plan,
            shared,
            number,
            request: request.into_bytes(),
            buffer: vec![0; BUFFER],
            connection: None,
            out: ThreadRecords::default(),
        }
    }

    pub(super) fn run(mut self) -> ThreadRecords {
        let pause = self.plan.requests_per_second.map(|rate| {
            // A pause of more than a day is as good as one of a day.
            Duration::try_from_secs_f64(f64::from(self.plan.threads) / rate)
                .unwrap_or(Duration::from_secs(86_400))
        });
        let mut due = self.shared.began + pause.unwrap_or_default().mul_f64(self.share());
        while self.may_begin() {
            if let Some(pause) = pause {
                if !self.sleep_until(due) {
                    break;
                }
                due = next_due(due, pause, Instant::now());
            }
            if self
                .plan
                .requests
                .is_some_and(|bound| self.shared.begun.fetch_add(1, Ordering::Relaxed) >= bound)
            {
                break;
            }
            self.one_request();
        }
        self.out
    }

    /// 0 for the first thread, almost 1 for the last: spreads their starts over one pause.
    fn share(&self) -> f64 {
        f64::from(self.number) / f64::from(self.plan.threads)
    }

    fn may_begin(&self) -> bool {
        let over = self.plan.duration.is_some_and(|limit| self.shared.began.elapsed() >= limit);
        !over && !self.shared.stop.load(Ordering::Relaxed)
    }

    /// Sleeps in short pieces, so that a stop is noticed. `false` when the load is over.
    fn sleep_until(&self, due: Instant) -> bool {
        loop {
            let left = due.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return self.may_begin();
            }
            if !self.may_begin() {
                return false;
            }
            thread::sleep(left.min(Duration::from_millis(50)));
        }
    }

    fn one_request(&mut self) {
        let start = self.shared.began.elapsed();
        let mut seen = Seen::default();
        let result = self.fetch(&mut seen);
        if result.is_err() || !self.plan.kept {
            self.connection = None;
        }
        let end = self.shared.began.elapsed();
        let outcome = result.err().unwrap_or(Outcome::Ok);
        let Seen { source, first_byte, backend, bytes } = seen;
        self.out.records.push(Record { start, first_byte, end, outcome, backend, source, bytes });
        let counter = if outcome.is_ok() { &self.shared.done } else { &self.shared.failed };
        counter.fetch_add(1, Ordering::Relaxed);
    }

    fn fetch(&mut self, seen: &mut Seen) -> Result<(), Outcome> {
        let connection = match self.connection.take() {
            Some(connection) => connection,
            None => {
                let source = self.next_source();
                seen.source = source;
                Connection { stream: self.connect(source)?, source }
            }
        };
        let Connection { stream, source } = self.connection.insert(connection);
        seen.source = *source;
        stream.write_all(&self.request).map_err(|e| Outcome::of_transfer(&e))?;
        let head = read_head(stream, &mut self.buffer, &self.shared, seen, &mut self.out.backends)?;
        seen.backend = head.backend;
        if head.status != 200 {
            return Err(Outcome::BadStatus(head.status));
        }
        if head.length != self.plan.length {
            return Err(Outcome::WrongLength);
        }
        self.read_body(&head, seen)
    }

    /// The sources are used in turn by all threads together.
    fn next_source(&self) -> Option<u32> {
        let count = self.plan.sources.len() as u64;
        let turn = self.shared.turn.fetch_add(1, Ordering::Relaxed);
        u32::try_from(turn.checked_rem(count)?).ok()
    }

    fn connect(&self, source: Option<u32>) -> Result<TcpStream, Outcome> {
        let address = source.and_then(|index| self.plan.sources.get(index as usize)).copied();
        let mut socket = self.socket()?;
        // A port may be in use on this address (TIME_WAIT): take the next one, within reason.
        for _ in 0..PORT_ATTEMPTS {
            if let Some(address) = address
                && !bind(&socket, address)?
            {
                continue;
            }
            match socket.connect(&self.plan.target.into()) {
                Ok(()) => return Ok(socket.into()),
                Err(e) if e.kind() == ErrorKind::AddrNotAvailable => socket = self.socket()?,
                Err(e) => return Err(Outcome::of_connect(&e)),
            }
        }
        Err(Outcome::NoLocalPort)
    }

    fn socket(&self) -> Result<Socket, Outcome> {
        let make = || {
            let domain = Domain::for_address(self.plan.target);
            let socket = Socket::new(domain, Type::STREAM, Some(Protocol::TCP))?;
            // On Linux the send time-out also bounds connect(2).
            socket.set_write_timeout(Some(self.plan.connect_timeout))?;
            socket.set_read_timeout(Some(self.plan.read_timeout))?;
            if self.plan.bytes_per_second.is_some() {
                socket.set_recv_buffer_size(SLOW_RECEIVE_BUFFER)?;
            }
            Ok::<_, io::Error>(socket)
        };
        make().map_err(|_| Outcome::Other)
    }

    /// Reads the rest of the body and checks it.
    fn read_body(&mut self, head: &Head, seen: &mut Seen) -> Result<(), Outcome> {
        let Some(connection) = self.connection.as_mut() else { return Err(Outcome::Other) };
        let begin = Instant::now();
        let mut hasher = self.plan.hash.map(|expected| (Sha256::new(), expected));
        let early = &self.buffer[head.body..head.filled];
        if let Some((hasher, _)) = hasher.as_mut() {
            hasher.update(early);
        }
        seen.bytes = early.len() as u64;
        while seen.bytes < head.length {
            let piece = match self.plan.bytes_per_second {
                Some(rate) => slow_down(begin, seen.bytes, rate, &mut self.buffer),
                None => &mut self.buffer[..],
            };
            let count = match connection.stream.read(piece) {
                Ok(0) => return Err(Outcome::ShortBody),
                Ok(count) => count,
                Err(e) if e.kind() == ErrorKind::Interrupted => continue,
                Err(e) => return Err(Outcome::of_transfer(&e)),
            };
            if let Some((hasher, _)) = hasher.as_mut() {
                hasher.update(&piece[..count]);
            }
            seen.bytes += count as u64;
        }
        let wrong = hasher.is_some_and(|(hasher, expected)| hasher.finalize()[..] != expected);
        if seen.bytes != head.length {
            return Err(Outcome::WrongLength);
        }
        if wrong { Err(Outcome::HashMismatch) } else { Ok(()) }
    }
}

/// The turn after the one at `due`. Turns that have passed meanwhile are left out, but for the last:
/// that one is late. So threads that were held up together do not go on in step.
fn next_due(due: Instant, pause: Duration, now: Instant) -> Instant {
    let next = due + pause;
    let late = now.saturating_duration_since(next).as_nanos();
    let passed = late - late.checked_rem(pause.as_nanos()).unwrap_or_default();
    next + Duration::from_nanos(u64::try_from(passed).unwrap_or_default())
}

/// Puts the threads' records together, in the order in which the requests began.
pub(super) fn merge(
    threads: Vec<ThreadRecords>,
    sources: Vec<IpAddr>,
    length: Duration,
) -> Timeline {
    let mut backends = Vec::new();
    let mut records = Vec::new();
    for thread in threads {
        let numbers: Vec<Option<u16>> =
            thread.backends.iter().map(|name| number_of(&mut backends, name)).collect();
        records.extend(thread.records.into_iter().map(|record| Record {
            backend: record.backend.and_then(|b| numbers.get(usize::from(b)).copied().flatten()),
            ..record
        }));
    }
    Timeline::new(records, backends, sources, length)
}

/// Binds to the address and the next port in turn; `false` when that port is taken.
fn bind(socket: &Socket, address: IpAddr) -> Result<bool, Outcome> {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let turn = NEXT.fetch_add(1, Ordering::Relaxed) % PORTS;
    let port = u16::try_from(turn).unwrap_or(0) + FIRST_PORT;
    match socket.bind(&SocketAddr::new(address, port).into()) {
        Ok(()) => Ok(true),
        Err(e) if e.kind() == ErrorKind::AddrInUse => Ok(false),
        Err(_) => Err(Outcome::NoLocalPort),
    }
}

/// Reads until the end of the head; what came after it stays in the buffer.
fn read_head(
    stream: &mut TcpStream,
    buffer: &mut [u8],
    shared: &Shared,
    seen: &mut Seen,
    backends: &mut Vec<String>,
) -> Result<Head, Outcome> {
    let mut filled = 0;
    loop {
        let space = buffer.get_mut(filled..).filter(|space| !space.is_empty());
        let count = match stream.read(space.ok_or(Outcome::Malformed)?) {
            Ok(0) if filled == 0 => return Err(Outcome::Reset),
            Ok(0) => return Err(Outcome::ShortBody),
            Ok(count) => count,
            Err(e) if e.kind() == ErrorKind::Interrupted => continue,
            Err(e) => return Err(Outcome::of_transfer(&e)),
        };
        seen.first_byte.get_or_insert_with(|| shared.began.elapsed());
        // The mark may begin in the last three bytes of what was there before.
        let from = filled.saturating_sub(3);
        filled += count;
        let mark = buffer[from..filled].windows(4).position(|four| four == b"\r\n\r\n");
        if let Some(at) = mark {
            let body = from + at + 4;
            let head = parse_head(&buffer[..body], backends).ok_or(Outcome::Malformed)?;
            return Ok(Head { body, filled, ..head });
        }
    }
}

fn parse_head(bytes: &[u8], backends: &mut Vec<String>) -> Option<Head> {
    let text = std::str::from_utf8(bytes).ok()?;
    let mut lines = text.split("\r\n");
    let status = lines.next()?.strip_prefix("HTTP/1.1 ")?.get(..3)?.parse().ok()?;
    let (mut length, mut backend) = (None, None);
    for (name, value) in lines.filter_map(|line| line.split_once(':')) {
        if name.eq_ignore_ascii_case("content-length") {
            length = Some(value.trim().parse().ok()?);
        } else if name.eq_ignore_ascii_case("x-backend") {
            backend = number_of(backends, value.trim());
        }
    }
    Some(Head { status, length: length?, backend, body: 0, filled: 0 })
}

/// The number that stands for a name. A handful of names: a search beats a hash table.
fn number_of(names: &mut Vec<String>, name: &str) -> Option<u16> {
    let at = names.iter().position(|known| known == name).unwrap_or_else(|| {
        names.push(name.to_owned());
        names.len() - 1
    });
    u16::try_from(at).ok()
}

/// Waits until `done` bytes are due at `rate`, and returns a buffer for about 20 ms of data.
fn slow_down(begin: Instant, done: u64, rate: u64, buffer: &mut [u8]) -> &mut [u8] {
    let due = Duration::from_secs_f64(done as f64 / rate as f64);
    if let Some(early) = due.checked_sub(begin.elapsed()) {
        thread::sleep(early);
    }
    let piece = usize::try_from(rate / 50).unwrap_or(usize::MAX).clamp(1, buffer.len());
    &mut buffer[..piece]
}

impl Outcome {
    fn of_connect(error: &io::Error) -> Self {
        match Errno::from_io_error(error) {
            Some(Errno::CONNREFUSED) => Self::Refused,
            // The send time-out ends a connect(2) with the first, the kernel's own with the last.
            Some(Errno::INPROGRESS | Errno::AGAIN | Errno::TIMEDOUT) => Self::ConnectTimeout,
            Some(Errno::HOSTUNREACH | Errno::NETUNREACH) => Self::Unreachable,
            Some(Errno::CONNRESET) => Self::Reset,
            _ => Self::Other,
        }
    }

    fn of_transfer(error: &io::Error) -> Self {
        match Errno::from_io_error(error) {
            Some(Errno::AGAIN | Errno::TIMEDOUT) => Self::ReadTimeout,
            Some(Errno::CONNRESET | Errno::PIPE) => Self::Reset,
            Some(Errno::HOSTUNREACH | Errno::NETUNREACH) => Self::Unreachable,
            _ => Self::Other,
        }
    }
}

/// Large enough for several segments per call, small enough for the cache.
const BUFFER: usize = 64 * 1024;
const SLOW_RECEIVE_BUFFER: usize = 32 * 1024;
const FIRST_PORT: u16 = 1024;
/// 1024 to 65535.
const PORTS: u32 = 64_512;
const PORT_ATTEMPTS: u32 = 256;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_a_head_whatever_the_case_of_its_fields() {
        let mut names = vec!["rs9".to_owned()];
        let text = b"HTTP/1.1 200 OK\r\ncontent-LENGTH: 12\r\nX-Backend: rs1\r\n\r\n";
        let head = parse_head(text, &mut names).unwrap();
        assert_eq!((head.status, head.length, head.backend), (200, 12, Some(1)));
        assert_eq!(names, ["rs9", "rs1"]);
    }

    #[test]
    fn refuses_what_is_no_head() {
        for bad in [
            "",
            "HTTP/1.1 \r\n\r\n",
            "HTTP/1.0 200 OK\r\nContent-Length: 1\r\n\r\n",
            "HTTP/1.1 200 OK\r\n\r\n",
            "HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n",
        ] {
            assert!(parse_head(bad.as_bytes(), &mut Vec::new()).is_none(), "{bad:?}");
        }
    }

    #[test]
    fn turns_stay_where_they_are_whatever_was_missed() {
        let (zero, ms) = (Instant::now(), Duration::from_millis);
        let next = |now| next_due(zero, ms(100), zero + ms(now)).duration_since(zero).as_millis();
        assert_eq!([next(0), next(99), next(100), next(150)], [100; 4]);
        assert_eq!([next(200), next(299), next(300), next(5050)], [200, 200, 300, 5000]);
        assert_eq!(next_due(zero, Duration::ZERO, zero + ms(5)), zero + ms(5));
    }

    #[test]
    fn merging_gives_each_backend_one_number() {
        let record = |start, backend| Record {
            start: Duration::from_millis(start),
            first_byte: None,
            end: Duration::from_millis(start + 1),
            outcome: Outcome::Ok,
            backend,
            source: None,
            bytes: 0,
        };
        let thread = |records, backends: [&str; 2]| ThreadRecords {
            records,
            backends: backends.map(str::to_owned).to_vec(),
        };
        let first = thread(vec![record(2, Some(0)), record(4, Some(1))], ["a", "b"]);
        let second = thread(vec![record(1, Some(0)), record(3, None)], ["b", "c"]);
        let timeline = merge(vec![first, second], Vec::new(), Duration::from_secs(1));
        let names: Vec<Option<&str>> =
            timeline.records().iter().map(|r| timeline.backend_of(r)).collect();
        assert_eq!(names, [Some("b"), Some("a"), None, Some("b")]);
    }
}
