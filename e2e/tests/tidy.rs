//! The rules of design §3 and the style guide that a machine can hold, so that a reviewer need not.
//! Reads the repository's text, never runs the product, never changes a file. `cargo test -p e2e --test tidy` runs it.
#![allow(clippy::panic, clippy::expect_used, reason = "a test ends by panicking with what it found")]

#[path = "tidy/shape.rs"]
mod shape;
#[path = "tidy/source.rs"]
mod source;
#[path = "tidy/supply.rs"]
mod supply;
#[path = "tidy/walls.rs"]
mod walls;
#[path = "tidy/words.rs"]
mod words;

/// Ends the test with every offence, one per line, if there is any.
fn none(rule: &str, offences: &[String]) {
    assert!(offences.is_empty(), "{rule}:\n  {}\n", offences.join("\n  "));
}
