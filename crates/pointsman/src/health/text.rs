//! Text that comes from a backend, made fit for logs and metrics.

use std::fmt::Display;

/// No text of a failure is longer.
const MOST: usize = 120;

/// The text in printable ASCII, other characters escaped, cut to [`MOST`] bytes: a backend can
/// neither write control characters into a log nor fill it.
pub(super) fn printable(text: impl Display) -> String {
    let mut clean = String::new();
    for character in text.to_string().chars() {
        let escaped = match character {
            ' '..='~' => String::from(character),
            _ => character.escape_default().to_string(),
        };
        if clean.len() + escaped.len() > MOST {
            clean.truncate(MOST - 3);
            clean.push_str("...");
            break;
        }
        clean.push_str(&escaped);
    }
    clean
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_but_printable_ascii_is_left() {
        assert_eq!(printable("a \x1b[2J\r\n\u{202e}é\\"), r"a \u{1b}[2J\r\n\u{202e}\u{e9}\");
        assert_eq!(printable("x".repeat(MOST)), "x".repeat(MOST));
        let cut = printable("é".repeat(1000));
        assert!(cut.len() <= MOST && cut.ends_with("..."), "{cut}");
    }
}
