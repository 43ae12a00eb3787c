//! Enums whose variants are metric labels, words of the status document and of its JSON Schema: the
//! word, its meaning and its index stand in one list.

#[doc(hidden)]
pub use {schemars, serde};

/// Makes an enum of labels. Each variant has its label (lower case, `[a-z0-9_-]`) and one sentence
/// for operators.
///
/// It gets `ALL` (every variant, in the order of the list), `COUNT`, `name` (the label), `help` (the
/// sentence), `index` (the place in the list, as for an array of counters), and is displayed and
/// serialised as its label.
///
/// ```
/// label::labels! {
///     /// Where a frame is.
///     pub enum Place {
///         Fill => "fill", "With the kernel, to be filled.";
///         Tx => "tx", "With the kernel, to be sent.";
///     }
/// }
/// assert_eq!(Place::Tx.name(), "tx");
/// assert_eq!(Place::ALL[Place::Tx.index()], Place::Tx);
/// ```
#[macro_export]
macro_rules! labels {
    (
        $(#[$meta:meta])*
        $vis:vis enum $name:ident { $($variant:ident => $label:literal, $help:literal;)+ }
    ) => {
        $(#[$meta])*
        #[derive(
            Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash,
            $crate::serde::Serialize, $crate::serde::Deserialize, $crate::schemars::JsonSchema,
        )]
        #[serde(crate = "label::serde")]
        #[schemars(crate = "label::schemars")]
        #[repr(u8)]
        $vis enum $name {
            $(#[doc = $help] #[serde(rename = $label)] $variant,)+
        }

        impl $name {
            /// All of them, in the order of the list.
            $vis const ALL: [Self; Self::COUNT] = [$(Self::$variant,)+];

            /// How many there are.
            $vis const COUNT: usize = [$($label,)+].len();

            /// The label.
            $vis const fn name(self) -> &'static str {
                match self { $(Self::$variant => $label,)+ }
            }

            /// One sentence for an operator.
            $vis const fn help(self) -> &'static str {
                match self { $(Self::$variant => $help,)+ }
            }

            /// The place in the list.
            $vis const fn index(self) -> usize {
                self as usize
            }
        }

        impl std::fmt::Display for $name {
            /// The label.
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.pad(self.name())
            }
        }

        const _: () = $crate::assert_labels(&[$($label,)+]);
    };
}

/// Fails at compile time if a label has other characters than `[a-z0-9_-]`, or stands there twice.
#[doc(hidden)]
pub const fn assert_labels(labels: &[&str]) {
    let mut at = 0;
    while at < labels.len() {
        assert!(is_label(labels[at].as_bytes()), "a label is made of [a-z0-9_-]");
        let mut other = 0;
        while other < at {
            assert!(
                !equal(labels[at].as_bytes(), labels[other].as_bytes()),
                "a label is used twice"
            );
            other += 1;
        }
        at += 1;
    }
}

const fn is_label(text: &[u8]) -> bool {
    let mut at = 0;
    while at < text.len() {
        if !matches!(text[at], b'a'..=b'z' | b'0'..=b'9' | b'_' | b'-') {
            return false;
        }
        at += 1;
    }
    at > 0
}

const fn equal(one: &[u8], other: &[u8]) -> bool {
    if one.len() != other.len() {
        return false;
    }
    let mut at = 0;
    while at < one.len() {
        if one[at] != other[at] {
            return false;
        }
        at += 1;
    }
    true
}

#[cfg(test)]
extern crate self as label;

#[cfg(test)]
mod tests {
    use super::*;

    labels! {
        /// For the test.
        enum Letter {
            First => "first", "The first one.";
            Second => "second-one", "The second one.";
        }
    }

    #[test]
    fn the_list_gives_order_word_and_meaning() {
        assert_eq!(Letter::ALL, [Letter::First, Letter::Second]);
        assert_eq!(Letter::ALL.map(Letter::index), [0, 1]);
        assert_eq!(
            (Letter::Second.name(), Letter::Second.help()),
            ("second-one", "The second one.")
        );
    }

    #[test]
    fn json_has_the_label_and_nothing_else() {
        let text = serde_json::to_string(&Letter::Second).expect("a word");
        assert_eq!(text, "\"second-one\"");
        assert_eq!(serde_json::from_str::<Letter>(&text).expect("its variant"), Letter::Second);
        let unknown = serde_json::from_str::<Letter>("\"third\"").expect_err("not in the list");
        assert!(unknown.to_string().contains("expected `first` or `second-one`"), "{unknown}");
        let schema = serde_json::to_value(schemars::schema_for!(Letter)).expect("schema");
        assert_eq!(schema["oneOf"][1]["const"], "second-one");
        assert_eq!(schema["oneOf"][1]["description"], "The second one.");
    }

    #[test]
    fn words_that_are_no_labels_and_doubles_are_found() {
        assert!(!is_label(b"Two words") && !is_label(b""));
        for wrong in [&["a", "b", "a"][..], &["A"][..]] {
            std::panic::catch_unwind(|| assert_labels(wrong)).expect_err("refused");
        }
    }
}
