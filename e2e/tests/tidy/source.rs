//! The repository as text: every Rust file with its comments, strings and test code told apart. It judges nothing; the
//! other tidy modules do.

use std::fs;
use std::path::{Path, PathBuf};

/// Folders that hold Rust code of ours.
const CRATES: [&str; 5] = ["proto", "controller", "agent", "tui", "e2e"];

/// One Rust file.
pub(crate) struct Source {
    /// Path from the root of the repository, with `/`.
    pub(crate) path: String,
    /// The whole text.
    pub(crate) text: String,
    /// The text without comments and test modules; strings are kept. Same line numbers.
    pub(crate) product: String,
    /// `product` with the content of strings blanked as well. Same line numbers.
    pub(crate) code: String,
}

impl Source {
    /// Returns the crate's folder: "controller".
    pub(crate) fn krate(&self) -> &str {
        self.path.split('/').next().unwrap_or_default()
    }

    /// Returns the module path below `src`: `["store", "engine"]`; empty for lib.rs and main.rs and outside `src`.
    pub(crate) fn modules(&self) -> Vec<&str> {
        let Some((_, below)) = self.path.split_once("/src/") else { return Vec::new() };
        let below = below.trim_end_matches(".rs");
        if matches!(below, "lib" | "main") { Vec::new() } else { below.split('/').collect() }
    }

    /// Returns the first module below `src`, the room: "store".
    pub(crate) fn room(&self) -> &str {
        self.modules().first().copied().unwrap_or_default()
    }

    /// Tells whether the whole file is test code.
    pub(crate) fn is_test(&self) -> bool {
        self.krate() == "e2e" || self.path.contains("/tests/") || self.path.ends_with("/tests.rs")
    }
}

/// Returns the root of the repository.
pub(crate) fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("e2e lies in the repository").to_owned()
}

/// Reads every Rust file of the workspace, in path order.
pub(crate) fn sources() -> Vec<Source> {
    let root = root();
    let mut files = Vec::new();
    for krate in CRATES {
        collect(&root.join(krate), &mut files);
    }
    files.sort();
    assert!(files.len() > 10, "found almost no source below {}", root.display());
    files.iter().map(|file| read(&root, file)).collect()
}

fn collect(folder: &Path, files: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).expect("the folder is readable") {
        let path = entry.expect("the entry is readable").path();
        if path.is_dir() && !path.ends_with("target") {
            collect(&path, files);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
}

fn read(root: &Path, file: &Path) -> Source {
    let path = file.strip_prefix(root).expect("the file lies below the root").to_string_lossy().into_owned();
    let text = fs::read_to_string(file).expect("the file is UTF-8");
    let (without_comments, code) = strip(&text);
    let tests = test_lines(&code);
    Source { path, product: blank_lines(&without_comments, &tests), code: blank_lines(&code, &tests), text }
}

/// Returns the text without comments, and the text without comments and string contents.
fn strip(text: &str) -> (String, String) {
    let characters: Vec<char> = text.chars().collect();
    let (mut kept, mut code) = (String::new(), String::new());
    let mut at = 0;
    while let Some(&character) = characters.get(at) {
        let rest = characters.get(at..).unwrap_or_default();
        let (length, is_comment) = match (character, rest.get(1)) {
            ('/', Some('/')) => (rest.iter().take_while(|c| **c != '\n').count(), true),
            ('/', Some('*')) => (block_comment(rest), true),
            _ => (literal(rest, at.checked_sub(1).and_then(|before| characters.get(before))), false),
        };
        let piece = rest.get(..length.max(1)).unwrap_or(rest);
        for &c in piece {
            let inside = length > 1;
            kept.push(if is_comment && c != '\n' { ' ' } else { c });
            code.push(if inside && c != '\n' { ' ' } else { c });
        }
        at += piece.len();
    }
    (kept, code)
}

fn block_comment(rest: &[char]) -> usize {
    let mut depth = 0_usize;
    let mut at = 0;
    while at < rest.len() {
        match (rest.get(at), rest.get(at + 1)) {
            (Some('/'), Some('*')) => (depth, at) = (depth + 1, at + 2),
            (Some('*'), Some('/')) => {
                (depth, at) = (depth - 1, at + 2);
                if depth == 0 {
                    return at;
                }
            }
            _ => at += 1,
        }
    }
    rest.len()
}

/// Returns how many characters the literal at the start of `rest` has; 0 if there is none.
fn literal(rest: &[char], before: Option<&char>) -> usize {
    let in_word = before.is_some_and(|c| c.is_alphanumeric() || *c == '_');
    match rest.first() {
        Some('"') => 1 + quoted(rest.get(1..).unwrap_or_default()),
        Some('r') if !in_word || before == Some(&'b') => raw_string(rest),
        Some('\'') => match (rest.get(1), rest.get(2)) {
            (Some('\\'), _) => 3 + rest.iter().skip(3).take_while(|c| **c != '\'').count(),
            (Some(_), Some('\'')) => 3,
            _ => 0, // a lifetime
        },
        _ => 0,
    }
}

fn quoted(rest: &[char]) -> usize {
    let mut at = 0;
    while let Some(character) = rest.get(at) {
        match character {
            '\\' => at += 2,
            '"' => return at + 1,
            _ => at += 1,
        }
    }
    rest.len()
}

fn raw_string(rest: &[char]) -> usize {
    let hashes = rest.iter().skip(1).take_while(|c| **c == '#').count();
    if rest.get(1 + hashes) != Some(&'"') {
        return 0;
    }
    let body = rest.get(2 + hashes..).unwrap_or_default();
    let closes = |at: usize| {
        body.get(at) == Some(&'"')
            && body.get(at + 1..at + 1 + hashes).is_some_and(|tail| tail.iter().all(|c| *c == '#'))
    };
    let end = (0..body.len()).find(|at| closes(*at)).unwrap_or(body.len());
    2 + hashes + end + 1 + hashes
}

/// Returns, per line, whether it belongs to a `#[cfg(test)]` item.
fn test_lines(code: &str) -> Vec<bool> {
    let mut tests = Vec::new();
    let mut item: Option<TestItem> = None;
    for line in code.lines() {
        if item.is_none() && line.trim_start().starts_with("#[cfg(test)]") {
            item = Some(TestItem { depth: 0, opened: false });
        }
        tests.push(item.is_some());
        if item.as_mut().is_some_and(|item| item.ends_with(line)) {
            item = None;
        }
    }
    tests
}

struct TestItem {
    depth: usize,
    opened: bool,
}

impl TestItem {
    /// Takes one more line in; returns whether the item ends with it.
    fn ends_with(&mut self, line: &str) -> bool {
        self.depth = (self.depth + line.matches('{').count()).saturating_sub(line.matches('}').count());
        self.opened |= line.contains('{');
        self.depth == 0 && (self.opened || line.trim_end().ends_with(';'))
    }
}

fn blank_lines(text: &str, blank: &[bool]) -> String {
    let lines = text.lines().zip(blank.iter().chain(std::iter::repeat(&false)));
    lines.map(|(line, blank)| if *blank { "" } else { line }).collect::<Vec<_>>().join("\n")
}

#[test]
fn comments_strings_and_test_modules_are_told_apart() {
    let text = "let a = \"sh -c\"; // bash\nlet b = r#\"x\"y\"#; /* c */ let c = '\"'; let d: &'static str;\n\
                #[cfg(test)]\nmod tests {\n  fn f() {}\n}\nfn after() {}";
    let (kept, code) = strip(text);
    assert!(kept.contains("sh -c") && !kept.contains("bash") && kept.contains("x\"y") && !kept.contains("c */"));
    assert!(!code.contains("sh -c") && !code.contains('"') && code.contains("'static str"), "{code}");
    assert_eq!(test_lines(&code), [false, false, true, true, true, true, false]);
}
