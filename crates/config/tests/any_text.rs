//! Whatever the text, the parser answers, and every mistake is somewhere in it.

use config::{Diagnostics, parse};
use proptest::prelude::*;

const EXAMPLE: &str = include_str!("../../../config/pointsman.toml");

/// Words that the parser looks for, and what breaks them.
const TOKENS: &[&str] = &[
    "[",
    "]",
    "[[",
    "]]",
    "{",
    "}",
    "=",
    ".",
    ",",
    "\"",
    "'",
    "\"\"\"",
    "#",
    "\n",
    "\r\n",
    "\r",
    "\t",
    " ",
    "\\",
    "\u{feff}",
    "µ",
    "日本",
    "\u{0}",
    "-",
    "+",
    "0x",
    "1e9",
    "inf",
    "nan",
    "true",
    "1979-05-27",
    "99999999999999999999",
    "-1",
    "0",
    "80",
    "\"80-79\"",
    "\"any\"",
    "\"5 sek\"",
    "\"::ffff:1.2.3.4\"",
    "\"192.0.2.10\"",
    "\"192.0.2.11\"",
    "\"2001:db8::10\"",
    "[0, 0]",
    "node",
    "interface",
    "dataplane",
    "timeouts",
    "metrics",
    "control",
    "service",
    "persistence",
    "backend",
    "name",
    "vip",
    "port",
    "address",
    "weight",
    "queues",
    "listen",
    "socket",
    "frames",
    "vrrp",
    "vrid",
    "track",
    "notify",
    "announce",
    "peers",
    "\"VI_1\"",
    "health",
    "http",
    "https",
    "tcp",
    "{ path = \"/\" }",
    "{ sni = \"a.example\", verify = false }",
    "headers",
    "{ a = \"b\", A = 1 }",
    "status",
    "[200, \"300-399\"]",
    "body",
    "send_hex",
    "\"0d 0\"",
    "interval",
    "fallback",
    "min_healthy",
    "\"50%\"",
    "\"1s\"",
    "hold_down",
];

/// Cuts the example at two spans and puts something between.
fn mutated() -> impl Strategy<Value = String> {
    let between = prop::collection::vec(prop::sample::select(TOKENS), 0..6);
    (0..EXAMPLE.len(), 0..EXAMPLE.len(), between).prop_map(|(head, tail, between)| {
        let head = EXAMPLE.get(..head).unwrap_or_default();
        let tail = EXAMPLE.get(tail..).unwrap_or_default();
        format!("{head}{}{tail}", between.concat())
    })
}

/// Replaces one token of one line: mostly still TOML, so that the checks behind it run.
fn edited() -> impl Strategy<Value = String> {
    let lines: Vec<&str> = EXAMPLE.lines().filter(|line| !line.starts_with('#')).collect();
    let count = lines.len();
    let edit = (0..count, prop::sample::select(TOKENS), 0..4_u8);
    prop::collection::vec(edit, 1..5).prop_map(move |edits| {
        let mut lines: Vec<String> = lines.iter().map(|&line| line.to_owned()).collect();
        for (at, token, how) in edits {
            let (key, value) = lines[at].split_once('=').unwrap_or((&lines[at], ""));
            lines[at] = match how {
                0 => format!("{key}= {token}"),
                1 => format!("{token} = {value}"),
                2 => String::new(),
                _ => format!("{}\n{}", lines[at], lines[(at + 7) % count]),
            };
        }
        lines.join("\n")
    })
}

fn soup() -> impl Strategy<Value = String> {
    prop::collection::vec(prop::sample::select(TOKENS), 0..60).prop_map(|tokens| tokens.concat())
}

/// Parses, renders in every way, and checks where each mistake is said to be.
fn answer(text: &str) {
    let found = match parse("any.toml", text) {
        Ok(parsed) => {
            assert!(!parsed.warnings.has_errors());
            parsed.warnings
        }
        Err(errors) => {
            assert!(errors.has_errors(), "refused without an error");
            errors
        }
    };
    located(text, &found);
    let rendered = found.render(false);
    assert!(found.render(true).len() >= rendered.len());
    for one in found.iter().take(100) {
        let span = format!("any.toml:{}:{}", one.line(), one.column());
        assert!(rendered.contains(&span), "{span} is not in\n{rendered}");
    }
}

fn located(text: &str, found: &Diagnostics) {
    let lines: Vec<&str> = text.split('\n').collect();
    for one in found {
        let line = lines.get(one.line() - 1).expect("a line of the text");
        let columns = line.chars().count() + 1;
        assert!((1..=columns).contains(&one.column()), "column {}: {line}", one.column());
        assert!(!one.message().is_empty());
    }
}

/// As many as `PROPTEST_CASES` says, at least 2,000.
fn cases() -> ProptestConfig {
    let default = ProptestConfig::default();
    ProptestConfig { cases: default.cases.max(2_000), failure_persistence: None, ..default }
}

proptest! {
    #![proptest_config(cases())]

    #[test]
    fn any_text_is_answered(text in any::<String>()) {
        answer(&text);
    }

    #[test]
    fn any_soup_of_tokens_is_answered(text in soup()) {
        answer(&text);
    }

    #[test]
    fn any_mutation_of_the_example_is_answered(text in mutated()) {
        answer(&text);
    }

    #[test]
    fn any_edit_of_the_example_is_answered(text in edited()) {
        answer(&text);
    }
}
