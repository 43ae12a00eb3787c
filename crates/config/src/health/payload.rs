//! `tcp` and `udp`: what is sent and what must come back, as text or as hex digits.

use control::health::{CheckKind, TcpCheck, UdpCheck};

use super::kind::{Kind, PortUse};
use crate::diagnostic::Diagnostic;
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

/// `tcp`.
fn tcp(section: &mut Section<'_>) -> Option<TcpCheck> {
    let send = bytes(section, "send", "send_hex");
    let expect = bytes(section, "expect", "expect_hex");
    Some(TcpCheck { send: send?, expect: expect? })
}

/// `udp`.
fn udp(section: &mut Section<'_>) -> Option<UdpCheck> {
    let payload = bytes(section, "payload", "payload_hex");
    let expect = bytes(section, "expect", "expect_hex");
    if payload.as_ref().is_some_and(Vec::is_empty) {
        let warning = Diagnostic::warning(section.header(), "`udp` sends an empty datagram");
        let warning = warning.with_label("few servers answer one");
        section.report(warning.with_help("add as `payload` a request that the server answers"));
    }
    Some(UdpCheck { payload: payload?, expect: expect? })
}

/// Either key, empty if neither is there. `None`: reported.
fn bytes(section: &mut Section<'_>, text: &'static str, hex: &'static str) -> Option<Vec<u8>> {
    let as_text = section.optional(text, text_bytes);
    let as_hex = section.optional(hex, hex_bytes);
    if let (Some(first), Some(second)) = (as_text.at(), as_hex.at()) {
        let message = format!("both `{text}` and `{hex}` are written");
        let error = Diagnostic::error(&second.span, message).with_label("the same in hex digits");
        let error = error.with_place(&first.span, "as text");
        section.report(error.with_help("remove one of the two"));
    }
    if as_text.is_absent() { as_hex.or(Vec::new()) } else { as_text.or(Vec::new()) }
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
