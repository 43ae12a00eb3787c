//! `http` and `https`.

use control::health::{BodyPattern, CheckKind, HttpCheck, StatusSet};
use regex::bytes::RegexBuilder;

use super::kind::{Kind, PortUse};
use super::{header, host, status, tls};
use crate::diagnostic::Diagnostic;
use crate::section::Section;
use crate::source::Written;
use crate::value::{Checked, Value};

pub(super) const HTTP: Kind = Kind {
    key: "http",
    port: PortUse::Asked { usual: 80 },
    connected: true,
    steerable: true,
    read: |section| section.table_or_true("http", plain).map(CheckKind::Http),
};

pub(super) const HTTPS: Kind = Kind {
    key: "https",
    port: PortUse::Asked { usual: 443 },
    connected: true,
    steerable: true,
    read: |section| section.table_or_true("https", over_tls).map(CheckKind::Http),
};

/// `http`.
fn plain(section: &mut Section<'_>) -> Option<HttpCheck> {
    let host = section.optional("host", host::header);
    request(section, &host)
}

/// `https`: the same over TLS.
fn over_tls(section: &mut Section<'_>) -> Option<HttpCheck> {
    let host = section.optional("host", host::header);
    let tls = tls::read(section, &host);
    let request = request(section, &host);
    Some(HttpCheck { tls: Some(tls?), ..request? })
}

fn request(section: &mut Section<'_>, host: &Written<String>) -> Option<HttpCheck> {
    let method = section.or("method", "GET".to_owned(), header::method);
    let path = section.or("path", "/".to_owned(), path);
    let headers = section.or("headers", Vec::new(), header::list);
    let status = section.or("status", StatusSet::default(), status::set);
    let body = section.optional("body", body);
    if let Some(body) = body.at().filter(|_| method.as_deref() == Some("HEAD")) {
        let error = Diagnostic::error(&body.span, "an answer to `HEAD` has no body");
        let error = error.with_label("could never match");
        section.report(error.with_help("write `method = \"GET\"`, or remove `body`"));
    }
    Some(HttpCheck {
        method: method?,
        path: path?,
        host: host.if_right()?,
        headers: headers?,
        status: status?,
        body: body.if_right()?,
        tls: None,
    })
}

/// What stands in the request line: a path and a query, no fragment.
pub(super) fn path(value: &Value<'_>) -> Checked<String> {
    let written = value.str("a string", "\"/health\"")?;
    let refuse = |label: &str, help: &str| {
        let error =
            value.error(format!("`{}` is not a path: `{}`", value.key, written.escape_debug()));
        Err(vec![error.with_label(label).with_help(help)])
    };
    if written.contains("://") && !written.starts_with('/') {
        return refuse("a URL", "write the path alone; the name is `host`, the port `port`");
    }
    if !written.starts_with('/') {
        return refuse("must begin with `/`", "write for example `path = \"/health\"`");
    }
    if written.contains('#') {
        return refuse("servers are not sent what follows `#`", "remove it, or write `%23`");
    }
    if let Some(odd) = written.chars().find(|c| !c.is_ascii_graphic()) {
        let label = format!("contains `{}`", odd.escape_default());
        return refuse(&label, "write blanks as `%20` and other bytes likewise");
    }
    Ok(written.to_owned())
}

/// A regular expression that is not too large to be searched for in every answer.
fn body(value: &Value<'_>) -> Checked<BodyPattern> {
    let pattern = value.str("a string", "\"status: ok\"")?;
    let refuse = |label: &str, help: &str| {
        let error = value.error(format!("`{}` is not a usable regular expression", value.key));
        Err(vec![error.with_label(label).with_help(help)])
    };
    if pattern.is_empty() {
        return refuse("matches every answer", "write what must be there, or remove it");
    }
    match RegexBuilder::new(pattern).size_limit(PATTERN_BYTES).build() {
        Ok(regex) => Ok(BodyPattern(regex)),
        Err(regex::Error::CompiledTooBig(_)) => {
            refuse("more than 1 MiB when compiled", "use smaller repetitions, such as `{1,10}`")
        }
        Err(error) => {
            let text = error.to_string();
            let why = text.lines().last().unwrap_or_default().trim_start_matches("error: ");
            let help = "a backslash makes a character literal: `'\\.'`; \
                        there is no look-around and no back-reference";
            refuse(why, help)
        }
    }
}

/// Of a compiled pattern.
const PATTERN_BYTES: usize = 1 << 20;
