//! `tcp` and `udp`: what is sent and what must come back, as text or as hex digits.

use control::health::{CheckKind, TcpCheck, UdpCheck};

use super::kind::{Kind, PortUse};
use crate::diagnostic::Diagnostic;
use crate::duration::{PERIOD, duration};
use crate::section::Section;
use crate::value::{Checked, Value};

pub(super) const TCP: Kind = Kind {
    key: "tcp",
    port: PortUse::Asked { usual: 80 },
    connected: true,
    steerable: true,
    read: |section| section.table_or_true("tcp", tcp).map(CheckKind::Tcp),
};

pub(super) const UDP: Kind = Kind {
    key: "udp",
    port: PortUse::Asked { usual: 53 },
    connected: false,
    steerable: true,
    read: |section| section.table_or_true("udp", udp).map(CheckKind::Udp),
};

/// Reads the `tcp` key.
fn tcp(section: &mut Section<'_>) -> Option<TcpCheck> {
    let send = bytes(section, &["send"], &["send_hex"]);
    let expect = bytes(section, &["expect"], &["expect_hex"]);
    Some(TcpCheck { send: send?, expect: expect? })
}

/// Reads the `udp` key.
fn udp(section: &mut Section<'_>) -> Option<UdpCheck> {
    let payload = bytes(section, &["payload", "send"], &["payload_hex", "send_hex"]);
    let expect = bytes(section, &["expect"], &["expect_hex"]);
    let window = section.optional("refusal_window", duration(PERIOD));
    if payload.as_ref().is_some_and(Vec::is_empty) && window.is_absent() {
        let warning = Diagnostic::warning(section.header(), "`udp` sends an empty datagram");
        let warning = warning.with_label("few servers answer one");
        section.report(warning.with_help("add as `payload` a request that the server answers"));
    }
    Some(UdpCheck { payload: payload?, expect: expect?, refusal_window: window.if_right()? })
}

/// The bytes of one of these keys, text or hex digits; empty if none is there. `None`: reported.
fn bytes(
    section: &mut Section<'_>,
    texts: &[&'static str],
    hexes: &[&'static str],
) -> Option<Vec<u8>> {
    let mut written = Vec::new();
    for key in texts {
        written.push((*key, section.optional(key, text_bytes)));
    }
    for key in hexes {
        written.push((*key, section.optional(key, hex_bytes)));
    }
    written.retain(|(_, value)| !value.is_absent());
    if let [(one, first), (two, second), ..] = written.as_slice()
        && let (Some(first), Some(second)) = (first.at(), second.at())
    {
        let message = format!("both `{one}` and `{two}` are written");
        let error = Diagnostic::error(&second.span, message).with_label("says the same again");
        let error = error.with_place(&first.span, format!("`{one}`"));
        section.report(error.with_help("remove one of the two"));
    }
    match written.into_iter().next() {
        Some((_, value)) => value.or(Vec::new()),
        None => Some(Vec::new()),
    }
}

fn text_bytes(value: &Value<'_>) -> Checked<Vec<u8>> {
    let written = value.str("a string", "\"PING\\r\\n\"")?;
    short_enough(value, written.as_bytes().to_vec())
}

/// Pairs of digits; blanks between pairs do not count.
fn hex_bytes(value: &Value<'_>) -> Checked<Vec<u8>> {
    let written = value.str("a string", "\"50 49 4e 47 0d 0a\"")?;
    let refuse = |label: String| {
        let error = value.error(format!("`{}` is not hex digits", value.key));
        Err(vec![error.with_label(label).with_help("write two digits a byte: `\"0d 0a\"`")])
    };
    if let Some(odd) = written.chars().find(|c| !c.is_ascii_hexdigit() && *c != ' ') {
        return refuse(format!("contains `{}`", odd.escape_default()));
    }
    let mut bytes = Vec::new();
    for group in written.split(' ') {
        for pair in group.as_bytes().chunks(2) {
            let digits = str::from_utf8(pair).ok().filter(|digits| digits.len() == 2);
            match digits.and_then(|digits| u8::from_str_radix(digits, 16).ok()) {
                Some(byte) => bytes.push(byte),
                None => return refuse("an odd number of digits".to_owned()),
            }
        }
    }
    short_enough(value, bytes)
}

fn short_enough(value: &Value<'_>, bytes: Vec<u8>) -> Checked<Vec<u8>> {
    if bytes.len() <= LONGEST {
        return Ok(bytes);
    }
    let error = value.error(format!("`{}` is longer than {LONGEST} bytes", value.key));
    let error = error.with_label(format!("{} bytes", bytes.len()));
    Err(vec![error.with_help("write less: a few bytes tell whether a server answers")])
}

/// The longest datagram over IPv4; also less than what is read of an answer, 64 KiB.
const LONGEST: usize = 65_507;
