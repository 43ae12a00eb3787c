//! Addresses.

use std::net::{IpAddr, SocketAddr};

use crate::diagnostic::Diagnostic;
use crate::value::{Checked, Value};

/// An address that one host on the network can have: not loopback, multicast, broadcast or
/// unspecified, and not IPv4 in IPv6 clothes, which would be a second spelling of the same one.
pub(crate) fn host_address(value: &Value<'_>) -> Checked<IpAddr> {
    let written = value.str("a string", "\"192.0.2.10\"")?;
    let address: IpAddr = written.parse().map_err(|_| vec![not_an_address(value, written)])?;
    let why = match address {
        _ if address.is_unspecified() => "the unspecified address",
        _ if address.is_loopback() => "a loopback address",
        _ if address.is_multicast() => "a multicast address",
        IpAddr::V4(v4) if v4.is_broadcast() => "the broadcast address",
        IpAddr::V6(v6) => match v6.to_ipv4_mapped() {
            Some(v4) => {
                let error = value.error(format!("`{}` is IPv4 written as IPv6", value.key));
                let error = error.with_label("the same address would have two spellings");
                return Err(vec![error.with_help(format!("write `{} = \"{v4}\"`", value.key))]);
            }
            None => return Ok(address),
        },
        IpAddr::V4(_) => return Ok(address),
    };
    let error = value.error(format!("`{}` cannot be {why}: {address}", value.key));
    let error = error.with_label("no single host on the network has it");
    Err(vec![error.with_help("write the address of one host, such as `192.0.2.10`")])
}

/// `address:port`, or `"off"` for none.
pub(crate) fn listen_address(value: &Value<'_>) -> Checked<Option<SocketAddr>> {
    let written = value.str("a string", "\"127.0.0.1:9477\"")?;
    if written == "off" {
        return Ok(None);
    }
    let key = value.key;
    let usual = format!("write `{key} = \"127.0.0.1:9477\"`, or `\"off\"`");
    let refuse = |label: &str, help: String| {
        let error = value.error(format!("`{key}` is not an address and port: `{written}`"));
        Err(vec![error.with_label(label).with_help(help)])
    };
    if let Ok(listen) = written.parse::<SocketAddr>() {
        return match listen.port() {
            0 => refuse("port 0 would be another one at each start", usual),
            1.. => Ok(Some(listen)),
        };
    }
    if let Ok(address) = written.parse::<IpAddr>() {
        let listen = SocketAddr::new(address, 9477);
        return refuse("the port is missing", format!("write `{key} = \"{listen}\"`"));
    }
    match written.rsplit_once(':') {
        Some(("" | "*", port)) if port.parse::<u16>().is_ok() => refuse(
            "the address is missing",
            format!("write `{key} = \"0.0.0.0:{port}\"` to listen on every IPv4 address"),
        ),
        Some((host, port)) if port.parse::<u16>().is_ok() && is_host_name(host) => {
            refuse("host names are not looked up", usual)
        }
        _ => refuse("not `address:port`", usual),
    }
}

fn not_an_address(value: &Value<'_>, written: &str) -> Diagnostic {
    let error = value.error(format!("`{}` is not an IP address: `{written}`", value.key));
    let alone =
        |address: IpAddr| format!("give the address alone: `{} = \"{address}\"`", value.key);
    let before_slash = written.split_once('/').and_then(|(address, _)| address.parse().ok());
    if let Some(address) = before_slash {
        return error.with_label("has a prefix length").with_help(alone(address));
    }
    if let Ok(socket) = written.parse::<SocketAddr>() {
        let help = format!("{}; the port is the service's `port`", alone(socket.ip()));
        return error.with_label("has a port").with_help(help);
    }
    let unwrapped = written.trim_matches(['[', ']', ' ']);
    if let Ok(address) = unwrapped.parse() {
        return error.with_label("has brackets or spaces").with_help(alone(address));
    }
    let label = if is_host_name(written) { "host names are not looked up" } else { "not valid" };
    error.with_label(label).with_help("write it like `192.0.2.10` or `2001:db8::10`")
}

/// Letters among what host names consist of.
fn is_host_name(written: &str) -> bool {
    written.contains(|c: char| c.is_ascii_alphabetic())
        && written.chars().all(|c| c.is_ascii_alphanumeric() || ['.', '-', '_'].contains(&c))
}
