//! Whether the XDP program of an interface forwards the packets of known flows itself.

use crate::desired::FastPath;

/// What is known of an interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FastPathFacts {
    /// Whether this kernel loaded the program with it.
    pub loaded: bool,
    /// Whether a queue's socket is zero-copy.
    pub zero_copy: bool,
    /// Whether what the program sends may be lost without a trace: a veth whose other end has no XDP
    /// program, which cannot be seen from here.
    pub may_lose: bool,
}

/// Whether it does, and why.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FastPathChoice {
    /// Whether it does.
    pub on: bool,
    /// For an operator.
    pub why: &'static str,
}

/// Decides.
pub const fn fast_path(wanted: FastPath, facts: FastPathFacts) -> FastPathChoice {
    let FastPathFacts { loaded, zero_copy, may_lose } = facts;
    let (on, why) = match wanted {
        FastPath::Off => (false, "fast_path = \"off\""),
        FastPath::Auto | FastPath::On if !loaded => (false, "this kernel does not load it"),
        FastPath::On => (true, "fast_path = \"on\""),
        FastPath::Auto if zero_copy => (false, "the socket is zero-copy"),
        FastPath::Auto if may_lose => (
            false,
            "a veth, whose other end loses what the program sends unless it has an XDP program as \
             well: say fast_path = \"on\" if it has",
        ),
        FastPath::Auto => (true, "frames are copied"),
    };
    FastPathChoice { on, why }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn on_where_frames_are_copied_and_nothing_is_lost() {
        use FastPath::{Auto, Off, On};
        for (wanted, loaded, zero_copy, may_lose, on) in [
            (Auto, true, false, false, true),
            (Auto, true, true, false, false),
            (Auto, true, false, true, false),
            (Auto, false, false, false, false),
            (On, true, true, true, true),
            (On, false, false, false, false),
            (Off, true, false, false, false),
        ] {
            let choice = fast_path(wanted, FastPathFacts { loaded, zero_copy, may_lose });
            assert_eq!(choice.on, on, "{wanted:?} {loaded} {zero_copy} {may_lose}: {}", choice.why);
        }
    }
}
