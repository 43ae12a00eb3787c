//! Method and headers of a request (RFC 9110 §5 and §9).

use crate::diagnostic::Diagnostic;
use crate::source::WithSpan;
use crate::suggest;
use crate::value::{Checked, Value, repeated};

/// `GET`, `HEAD`, or any other word; upper case matters.
pub(super) fn method(value: &Value<'_>) -> Checked<String> {
    let written = value.str("a string", "\"GET\"")?;
    let upper = written.to_ascii_uppercase();
    let label = if !is_token(written) {
        "not a word".to_owned()
    } else if written == "CONNECT" {
        "would open a tunnel".to_owned()
    } else if written != upper && METHODS.contains(&upper.as_str()) {
        format!("did you mean `{upper}`?")
    } else {
        return Ok(written.to_owned());
    };
    let error = value.error(format!(
        "`{}` is not a usable method: `{}`",
        value.key,
        written.escape_debug()
    ));
    Err(vec![error.with_label(label).with_help("write `GET` or `HEAD`")])
}

/// A table of names and values, in the order of the text.
pub(super) fn list(value: &Value<'_>) -> Checked<Vec<(String, String)>> {
    if !value.value.is_table() {
        let help = format!("write for example `{} = {{ Accept = \"text/plain\" }}`", value.key);
        return Err(value.wrong_type("a table", &help));
    }
    let (mut headers, mut names, mut mistakes) = (Vec::new(), Vec::new(), Vec::new());
    for (span, item) in value.entries() {
        names.push(WithSpan { value: item.key.to_ascii_lowercase(), span: span.clone() });
        let text = content(&item);
        if let Some((label, help)) = refused(item.key) {
            let message = format!("`{}` cannot be a header of a check", item.key);
            let error = Diagnostic::error(&span, message);
            mistakes.push(error.with_label(label).with_help(help));
        }
        match text {
            Ok(text) => headers.push((item.key.to_owned(), text)),
            Err(more) => mistakes.extend(more),
        }
    }
    mistakes.extend(repeated("header", &names));
    if mistakes.is_empty() { Ok(headers) } else { Err(mistakes) }
}

/// Printable ASCII: a line end would begin another header.
fn content(value: &Value<'_>) -> Checked<String> {
    let written = value.str("a string", "\"text/plain\"")?;
    let odd = written.chars().find(|c| *c != '\t' && *c != ' ' && !c.is_ascii_graphic());
    match odd {
        None => Ok(written.to_owned()),
        Some(odd) => {
            let message = format!("`{}` has a value that cannot be sent", value.key);
            let label = format!("contains `{}`", odd.escape_default());
            let help = "write printable ASCII characters and blanks";
            Err(vec![value.error(message).with_label(label).with_help(help)])
        }
    }
}

/// Why a name is not a header name, or may not be set by the operator, and what to do.
fn refused(name: &str) -> Option<(&'static str, String)> {
    let lower = name.to_ascii_lowercase();
    if !is_token(name) {
        let help = "a name consists of ASCII letters, digits and `-`";
        Some(("not a header name", help.to_owned()))
    } else if lower == "host" {
        Some(("has a key of its own", "write `host = \"www.example.org\"` instead".to_owned()))
    } else if OWN.contains(&lower.as_str()) {
        let help = format!("remove it; the check sets these: {}", suggest::list(OWN));
        Some(("set by the check itself", help))
    } else {
        None
    }
}

/// RFC 9110 §5.6.2.
fn is_token(word: &str) -> bool {
    let token = |b: u8| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b);
    !word.is_empty() && word.bytes().all(token)
}

const METHODS: [&str; 9] =
    ["GET", "HEAD", "POST", "PUT", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH"];

/// Headers that say how the connection is used and where the request ends.
const OWN: [&str; 6] =
    ["connection", "content-length", "expect", "te", "transfer-encoding", "upgrade"];
