//! Host names as they are sent to a server (`Host`, SNI).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::value::{Checked, Value};

/// `Host` header: a name or an address, IPv6 in brackets; a port may follow.
pub(super) fn header(value: &Value<'_>) -> Checked<String> {
    let written = value.str("a string", "\"www.example.org\"")?;
    let (host, port) = split(written);
    let address = match host.strip_prefix('[').and_then(|host| host.strip_suffix(']')) {
        Some(bracketed) => bracketed.parse::<Ipv6Addr>().is_ok(),
        None => host.parse::<Ipv4Addr>().is_ok(),
    };
    let port = port.is_none_or(|port| port.parse::<u16>().is_ok_and(|port| port != 0));
    if (address || is_name(host)) && port {
        return Ok(written.to_owned());
    }
    let mut help = format!("write for example `{} = \"www.example.org\"`", value.key);
    let label = if written.contains("://") {
        "a URL"
    } else if written.parse::<Ipv6Addr>().is_ok() {
        help = format!("write `{} = \"[{written}]\"`", value.key);
        "an IPv6 address needs brackets"
    } else if !port {
        "what follows `:` must be a port"
    } else {
        "not a name or address"
    };
    let error = value.error(format!("`{}` is not a host: `{}`", value.key, written.escape_debug()));
    Err(vec![error.with_label(label).with_help(help)])
}

/// A name for TLS: RFC 6066 §3 has no addresses and no final dot.
pub(super) fn server_name(value: &Value<'_>) -> Checked<String> {
    let written = value.str("a string", "\"www.example.org\"")?;
    if is_name(written) {
        return Ok(written.to_owned());
    }
    let address = written.trim_matches(['[', ']']).parse::<IpAddr>().is_ok();
    let label = match split(written) {
        _ if address => "an address; TLS server names are host names only",
        (name, Some(_)) if is_name(name) => "has a port",
        _ if written.strip_suffix('.').is_some_and(is_name) => "ends with a dot",
        _ => "not a name",
    };
    let message = format!("`{}` is not a host name: `{}`", value.key, written.escape_debug());
    let help = format!("write the certificate's name: `{} = \"www.example.org\"`", value.key);
    Err(vec![value.error(message).with_label(label).with_help(help)])
}

/// The name in a `Host` header, if it is not an address.
pub(super) fn name_of(header: &str) -> Option<&str> {
    Some(split(header).0).filter(|host| is_name(host))
}

/// Host and port.
fn split(written: &str) -> (&str, Option<&str>) {
    match written.rsplit_once(':') {
        Some((host, port)) if !port.contains(']') => (host, Some(port)),
        _ => (written, None),
    }
}

/// A DNS name in ASCII: labels of 1 to 63 letters, digits, `-` and `_`, 253 bytes in all. The last
/// one has a letter: else it is an address, right or wrong.
fn is_name(written: &str) -> bool {
    let label = |label: &str| {
        let chars = label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_');
        chars && (1..=63).contains(&label.len()) && !label.starts_with('-') && !label.ends_with('-')
    };
    let last = written.rsplit('.').next().unwrap_or_default();
    written.len() <= 253
        && written.split('.').all(label)
        && last.bytes().any(|b| b.is_ascii_alphabetic())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_what_is_none() {
        let long = format!("{}.example", "a".repeat(63));
        for name in ["localhost", "www.example.org", "a_b.c-d", "xn--bcher-kva.example", &long] {
            assert!(is_name(name), "{name}");
        }
        let longer = format!("{}.example", "a".repeat(64));
        for other in
            ["", ".", "a..b", "a.", "-a", "a-", "192.0.2.1", "1", "bücher.de", "a b", &longer]
        {
            assert!(!is_name(other), "{other}");
        }
        let longest = format!("{}a", "abc.".repeat(63));
        assert!(is_name(&longest) && !is_name(&format!("{longest}b")));
    }

    #[test]
    fn the_name_of_a_host_header() {
        assert_eq!(name_of("www.example.org:8080"), Some("www.example.org"));
        assert_eq!(name_of("www.example.org"), Some("www.example.org"));
        for address in ["192.0.2.1", "192.0.2.1:80", "[2001:db8::1]", "[2001:db8::1]:80"] {
            assert_eq!(name_of(address), None);
        }
    }
}
