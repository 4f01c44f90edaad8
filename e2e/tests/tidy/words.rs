//! Words that must not stand in the product's code, each with its reason. What clippy can see by itself
//! (`clippy.toml`, the lints of the root Cargo.toml) is not repeated here.

use crate::none;
use crate::source::{Source, sources};

/// Where a word is looked for.
enum Where {
    /// In the product: comments and tests are not looked at.
    Product,
    /// In the product's code: strings are not looked at either.
    Code,
    /// In tests as well, strings not.
    Everywhere,
}

/// A forbidden word, where, and why.
const FORBIDDEN: [(&str, Where, &str); 13] = [
    ("sh -c", Where::Product, "commands are argv, never a shell line"),
    ("\"-c\"", Where::Product, "commands are argv, never a shell line"),
    ("/bin/sh", Where::Product, "commands are argv, never a shell line"),
    ("bash", Where::Product, "no shell"),
    ("map_err(|_|", Where::Code, "keep the source of an error"),
    ("todo!", Where::Everywhere, "main is whole"),
    ("unimplemented!", Where::Everywhere, "main is whole"),
    ("#[ignore", Where::Everywhere, "a test runs or does not exist"),
    ("unbounded", Where::Code, "every queue has a bound"),
    ("thread::spawn", Where::Code, "spawn on a JoinSet that someone awaits"),
    ("thread::Builder", Where::Code, "spawn on a JoinSet that someone awaits"),
    ("process::exit", Where::Code, "return from main, so that everything is drained"),
    ("#[allow(dead_code", Where::Code, "what nobody calls goes away"),
];

/// Uses that are right all the same: file, forbidden word, why. Each must still be needed.
const ALLOWED: [(&str, &str, &str); 2] = [
    (
        "tui/src/terminal/signals.rs",
        "thread::Builder",
        "waits for signals, and must put the terminal back when the runtime no longer runs",
    ),
    ("proto/src/presets.rs", "\"-c\"", "HAProxy's own word for a check of its configuration"),
];

#[test]
fn forbidden_words_are_absent() {
    let mut offences = Vec::new();
    for source in sources().iter().filter(|source| !source.path.starts_with("e2e/tests/tidy/")) {
        for (word, place, why) in &FORBIDDEN {
            let text = match place {
                Where::Product if source.is_test() => continue,
                Where::Code if source.is_test() => continue,
                Where::Product => &source.product,
                Where::Code => &source.code,
                Where::Everywhere => &source.text,
            };
            for (number, _) in text.lines().enumerate().filter(|(_, line)| line.contains(word)) {
                if !is_allowed(source, word) {
                    offences.push(format!("{}:{}: {word} – {why}", source.path, number + 1));
                }
            }
        }
    }
    none("words that must not stand here", &offences);
}

fn is_allowed(source: &Source, word: &str) -> bool {
    ALLOWED.iter().any(|(path, allowed, _)| source.path == *path && *allowed == word)
}

/// Files that decide when: a life is a fraction of what the certificate says, never a number of days.
const SCHEDULING: [&str; 5] = ["renewal", "backoff", "order", "desired", "certificate"];
/// Spellings of a number of days.
const DAYS: [&str; 8] = ["86400", "86_400", "86_400_000", "days(", "_days", "DAYS", "hours(24", "24 * "];
/// Numbers of days that are right: file, what the line contains, why.
const DAYS_ALLOWED: [(&str, &str, &str); 4] = [
    ("controller/src/lifecycle/backoff.rs", "from_secs(24 * 3_600)", "A12: the last wait of the series is a day"),
    ("controller/src/lifecycle/backoff.rs", "RETRY_AFTER_MAX", "a CA's Retry-After is not believed beyond a week"),
    (
        "controller/src/lifecycle/renewal_info.rs",
        "ASK_AGAIN_MAX",
        "A13: how seldom a CA is asked, not when it is renewed",
    ),
    ("controller/src/lifecycle/renewal.rs", "SHORT_LIFETIME", "A13: half of a life shorter than 10 days"),
];

#[test]
fn scheduling_knows_fractions_not_days() {
    let mut offences = Vec::new();
    for source in sources().iter().filter(|source| source.path.starts_with("controller/src/")) {
        let modules = source.modules();
        let decides = matches!(modules.first().copied(), Some("lifecycle" | "tasks"))
            && modules.iter().any(|module| SCHEDULING.iter().any(|name| module.contains(name)));
        for (number, line) in source.code.lines().enumerate().filter(|_| decides) {
            let allowed = DAYS_ALLOWED.iter().any(|(path, part, _)| source.path == *path && line.contains(part));
            if DAYS.iter().any(|days| line.contains(days)) && !allowed {
                offences.push(format!("{}:{}: {}", source.path, number + 1, line.trim()));
            }
        }
    }
    none("no number of days where renewal is decided", &offences);
}
