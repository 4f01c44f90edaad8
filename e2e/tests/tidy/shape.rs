//! The shape of files and folders: headers, lengths, names. Functions' lengths are clippy's (`too_many_lines`).

use crate::none;
use crate::source::{root, sources};

/// Longest file without its tests, lines.
const FILE_LINES_MAX: usize = 800;
/// Longest ARCHITECTURE.md, lines.
const ARCHITECTURE_LINES_MAX: usize = 200;
/// Names that say nothing.
const EMPTY_NAMES: [&str; 9] = ["util", "utils", "common", "helper", "helpers", "manager", "misc", "shared", "prelude"];

#[test]
fn every_file_says_in_its_header_what_it_is() {
    let headless = sources().into_iter().filter(|source| !source.text.starts_with("//! "));
    none("a .rs file starts with a `//!` header", &headless.map(|source| source.path).collect::<Vec<_>>());
}

#[test]
fn no_file_is_longer_than_a_reader_can_hold() {
    let mut offences = Vec::new();
    for source in sources() {
        let tests_start = source.product.trim_end().lines().count();
        if tests_start > FILE_LINES_MAX {
            offences.push(format!("{}: {tests_start} lines without tests, at most {FILE_LINES_MAX}", source.path));
        }
    }
    none("split by noun", &offences);
}

#[test]
fn files_and_folders_have_names_that_say_something() {
    let mut offences = Vec::new();
    for source in sources() {
        for part in source.path.trim_end_matches(".rs").split('/') {
            if part == "mod" || EMPTY_NAMES.iter().any(|name| part.split('_').any(|word| word == *name)) {
                offences.push(format!("{}: \"{part}\"", source.path));
            }
        }
        for (number, line) in source.code.lines().enumerate() {
            let name = line.trim_start().trim_start_matches("pub(crate) ").trim_start_matches("pub ");
            let name = name.strip_prefix("mod ").unwrap_or_default().trim_end_matches([' ', '{', ';']);
            if EMPTY_NAMES.contains(&name) {
                offences.push(format!("{}:{}: mod {name}", source.path, number + 1));
            }
        }
    }
    none("foo.rs + foo/, never mod.rs; no util, common, helper, manager", &offences);
}

#[test]
fn the_architecture_fits_a_sitting() {
    let text = std::fs::read_to_string(root().join("ARCHITECTURE.md")).unwrap_or_default();
    let lines = text.lines().count();
    assert!(lines <= ARCHITECTURE_LINES_MAX, "ARCHITECTURE.md has {lines} lines, at most {ARCHITECTURE_LINES_MAX}");
}
