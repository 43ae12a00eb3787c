//! Why a probe failed.

use std::fmt;

/// Why a probe failed. Texts that come from outside are cut and escaped where they are made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Failure {
    /// The connection was refused (RST to a SYN, ICMP port unreachable).
    Refused,
    /// The connection was made and then reset.
    Reset,
    /// The server closed the connection before a whole answer.
    Closed,
    /// No answer within the check's timeout.
    Timeout,
    /// No way to the host: ICMP unreachable, no answer to ARP, link down.
    Unreachable,
    /// A status code that does not pass.
    Status(u16),
    /// The answer does not contain what it must.
    Mismatch,
    /// An answer that does not pass: a response code of DNS.
    Answer(&'static str),
    /// The answer is no HTTP, or larger than is read (headers 32 KiB, 256 lines).
    Protocol(String),
    /// No TLS, or a certificate that is not valid.
    Tls(String),
    /// The script ended with this code.
    Exit(i32),
    /// The script was ended by this signal.
    Signal(i32),
    /// The probe could not be made on this node.
    Local(String),
}

label::labels! {
    /// The kinds of [`Failure`].
    pub enum FailureKind {
        Refused => "refused", "The connection was refused.";
        Reset => "reset", "The connection was made and then reset.";
        Closed => "closed", "The server closed the connection before a whole answer.";
        Timeout => "timeout", "No answer within the check's timeout.";
        Unreachable => "unreachable", "No way to the host.";
        Status => "status", "A status code that does not pass.";
        Mismatch => "mismatch", "The answer does not contain what it must.";
        Protocol => "protocol", "The answer is no HTTP, or larger than is read.";
        Tls => "tls", "No TLS, or a certificate that is not valid.";
        Exit => "exit", "The script ended with another code than 0.";
        Signal => "signal", "The script was ended by a signal.";
        Local => "local", "The probe could not be made on this node.";
    }
}

impl Failure {
    /// The metric label.
    pub const fn name(&self) -> &'static str {
        self.kind().name()
    }

    /// Its kind.
    pub const fn kind(&self) -> FailureKind {
        match self {
            Self::Refused => FailureKind::Refused,
            Self::Reset => FailureKind::Reset,
            Self::Closed => FailureKind::Closed,
            Self::Timeout => FailureKind::Timeout,
            Self::Unreachable => FailureKind::Unreachable,
            Self::Status(_) => FailureKind::Status,
            Self::Mismatch | Self::Answer(_) => FailureKind::Mismatch,
            Self::Protocol(_) => FailureKind::Protocol,
            Self::Tls(_) => FailureKind::Tls,
            Self::Exit(_) => FailureKind::Exit,
            Self::Signal(_) => FailureKind::Signal,
            Self::Local(_) => FailureKind::Local,
        }
    }

    /// Whether it says that the server is not reached, and not only that it answers wrongly.
    pub const fn is_of_connection(&self) -> bool {
        matches!(
            self,
            Self::Refused | Self::Reset | Self::Closed | Self::Timeout | Self::Unreachable
        )
    }

    /// Whether the host answers that the port is closed: what a dead server looks like.
    pub const fn is_refusal(&self) -> bool {
        matches!(self, Self::Refused | Self::Reset)
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Refused => f.write_str("connect refused"),
            Self::Reset => f.write_str("connection reset"),
            Self::Closed => f.write_str("closed before the answer was complete"),
            Self::Timeout => f.write_str("timed out"),
            Self::Unreachable => f.write_str("host unreachable"),
            Self::Status(code) => write!(f, "status {code}"),
            Self::Mismatch => f.write_str("the answer is not the expected one"),
            Self::Answer(what) => write!(f, "the answer is {what}"),
            Self::Protocol(what) => write!(f, "not HTTP: {what}"),
            Self::Tls(what) => write!(f, "TLS: {what}"),
            Self::Exit(code) => write!(f, "exit code {code}"),
            Self::Signal(signal) => write!(f, "ended by signal {signal}"),
            Self::Local(what) => write!(f, "cannot probe: {what}"),
        }
    }
}
