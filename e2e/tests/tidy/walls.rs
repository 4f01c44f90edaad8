//! The walls of design §3: which crate, room and file may know which. Tests are not looked at: they may stand anywhere.

use std::collections::BTreeSet;

use crate::none;
use crate::source::{Source, root, sources};

/// Crates of ours and what each may depend on.
const DEPENDENCIES: [(&str, &[&str]); 5] = [
    ("proto", &[]),
    ("controller", &["proto"]),
    ("agent", &["proto"]),
    ("tui", &["proto"]),
    ("e2e", &["proto", "controller", "agent", "tui"]),
];

#[test]
fn controller_agent_and_tui_know_only_proto() {
    let mut offences = Vec::new();
    for (krate, allowed) in DEPENDENCIES {
        let text = std::fs::read_to_string(root().join(krate).join("Cargo.toml")).expect("a crate has a Cargo.toml");
        let manifest: toml::Table = text.parse().expect("Cargo.toml is TOML");
        for section in ["dependencies", "dev-dependencies", "build-dependencies"] {
            let names = manifest.get(section).and_then(toml::Value::as_table).into_iter().flat_map(toml::Table::keys);
            for name in names.filter(|name| DEPENDENCIES.iter().any(|(ours, _)| ours == name)) {
                if !allowed.contains(&name.as_str()) && name != krate {
                    offences.push(format!("{krate} has {name} in its {section}"));
                }
            }
        }
    }
    none("controller, agent and tui depend only on proto", &offences);
}

/// Rooms of one crate, and what each may name: a room, or one item of a room. A room that is not listed may name all.
const ROOMS: [(&str, &str, &[&str]); 18] = [
    ("controller", "lifecycle", &["lifecycle"]),
    ("controller", "config", &["lifecycle"]),
    ("controller", "store", &["store", "lifecycle"]),
    ("controller", "acme", &["acme", "lifecycle"]),
    ("controller", "ca", &["ca", "lifecycle", "store"]),
    ("controller", "private_ca", &["private_ca", "lifecycle"]),
    ("controller", "dns", &["dns", "lifecycle"]),
    ("controller", "preflight", &["preflight", "dns", "lifecycle"]),
    ("controller", "rpc", &["rpc", "tasks", "store", "ca", "lifecycle", "config"]),
    ("controller", "tasks", &["tasks", "store", "acme", "ca", "private_ca", "dns", "preflight", "lifecycle", "config"]),
    ("agent", "plan", &["plan", "target", "policy", "problem"]),
    ("agent", "target", &["target", "policy", "problem"]),
    ("agent", "policy", &["policy", "target", "problem"]),
    ("agent", "detect", &["detect", "policy::glob_matches"]),
    ("tui", "app", FACE),
    ("tui", "screens", FACE),
    ("tui", "view", FACE),
    ("tui", "widgets", FACE),
];
/// The dashboard's pure rooms know each other, and of the client only its words and errors, never the connection.
const FACE: &[&str] = &[
    "app",
    "screens",
    "view",
    "widgets",
    "keys",
    "theme",
    "format",
    "client::ClientError",
    "client::ErrorKind",
    "client::AuditAct",
    "client::AuditFilter",
    "client::default_files",
    "client::default_mode",
    "client::default_name",
    "client::content_of",
    "client::holds_key",
    "client::preset_spec",
    "client::agent_status",
    "client::batch_words",
    "client::custody",
    "client::file_content",
    "client::limit_exemption",
    "client::limit_subject",
    "client::limit_used",
    "client::on_drift",
    "client::on_drift_of",
    "client::parse_limit",
    "client::parse_period",
    "client::period",
    "client::key_type",
    "client::reason",
    "client::target_status",
    "client::test_result",
    "client::test_verdict",
    "client::seen_word",
    "client::restore_audit",
    "client::restore_effects",
    "client::restore_finding",
    "client::restore_name",
    "client::restore_removals",
    "client::restore_shown",
    "client::retire_effects",
    "client::retire_name",
    "client::slot_does",
    "client::target_changes",
    "client::DetectedLine",
    "client::detected_lines",
    "client::suggestion_lines",
];

#[test]
fn rooms_know_only_what_stands_below_them() {
    let mut offences = Vec::new();
    let all = sources();
    for source in all.iter().filter(|source| !source.is_test()) {
        let rooms = all.iter().filter(|other| other.krate() == source.krate()).map(|other| other.room().to_owned());
        let rooms = rooms.filter(|room| !room.is_empty()).collect();
        let rule = ROOMS.iter().find(|(krate, room, _)| source.krate() == *krate && source.room() == *room);
        let Some((_, _, allowed)) = rule else { continue };
        for (number, path) in crate_paths(&source.code) {
            let is_type_of_root = path.chars().next().is_some_and(char::is_uppercase);
            let below = |room: &&&str| path.strip_prefix(**room).is_some_and(|r| r.is_empty() || r.starts_with("::"));
            if allowed.iter().find(below).is_none() && !is_type_of_root {
                offences.push(format!("{}:{number}: names crate::{path}", source.path));
            }
        }
        offences.extend(escapes(source, &rooms));
    }
    none("a room names only the rooms below it", &offences);
}

#[test]
fn net_and_apply_meet_only_in_the_request() {
    let mut offences = Vec::new();
    for source in sources().iter().filter(|source| source.krate() == "agent") {
        for (number, path) in crate_paths(&source.code) {
            let meets = match (source.room(), path.split("::").next().unwrap_or_default()) {
                ("net", "apply") => path.starts_with("apply::request"),
                ("apply", "net") => false,
                _ => true,
            };
            if !meets {
                offences.push(format!("{}:{number}: names crate::{path}", source.path));
            }
        }
    }
    none("agent: net and apply meet only in apply::request", &offences);
}

/// Folders that decide, or draw, and must not touch the world; and what they would touch it with.
const PURE: [(&str, &str); 7] = [
    ("controller", "lifecycle"),
    ("agent", "plan"),
    ("agent", "target"),
    ("agent", "detect"),
    ("tui", "app"),
    ("tui", "screens"),
    ("tui", "view"),
];
const WORLD: [&str; 14] = [
    "tokio",
    "std::fs",
    "std::env",
    "std::process",
    "std::net::Tcp",
    "std::net::Udp",
    "std::io",
    "std::thread",
    "tonic",
    "hyper",
    "nix",
    "rustix",
    "getrandom",
    ".await",
];

#[test]
fn pure_rooms_do_not_touch_the_world() {
    let mut offences = Vec::new();
    for source in sources().iter().filter(|s| PURE.contains(&(s.krate(), s.room()))) {
        for (number, line) in source.code.lines().enumerate() {
            if let Some(word) = WORLD.iter().find(|word| names(line, word)) {
                offences.push(format!("{}:{}: {word}", source.path, number + 1));
            }
        }
    }
    none("pure rooms know neither time, disk, network nor processes", &offences);
}

/// A library and its homes: path prefixes.
const HOMES: [(&str, &[&str]); 14] = [
    ("redb", &["controller/src/store/engine", "e2e/"]),
    ("aes_gcm", &["controller/src/store/seal"]),
    ("argon2", &["controller/src/store/seal"]),
    ("instant_acme", &["controller/src/acme", "e2e/"]),
    ("hickory_resolver", &["controller/src/dns", "e2e/"]),
    ("hickory_proto", &["controller/src/dns", "e2e/"]),
    ("hickory_server", &["controller/src/dns", "e2e/"]),
    ("dns_update", &["controller/src/dns"]),
    ("ratatui", &["tui/"]),
    ("crossterm", &["tui/"]),
    ("tui_input", &["tui/"]),
    ("tonic", &["controller/src/rpc", "controller/src/app", "agent/src/net", "tui/src/client", "proto/", "e2e/"]),
    ("notify", &["agent/src/apply/watch"]),
    ("psl", &["controller/src/lifecycle/rate_limit"]),
];

#[test]
fn every_library_has_one_home() {
    let mut offences = Vec::new();
    for source in sources().iter().filter(|source| source.krate() == "e2e" || !source.is_test()) {
        for (number, line) in source.code.lines().enumerate() {
            for (library, homes) in HOMES {
                let at_home = homes.iter().any(|home| source.path.starts_with(home));
                if !at_home && names(line, &format!("{library}::")) && !line.contains(&format!("::{library}::")) {
                    offences.push(format!("{}:{}: {library} lives in {}", source.path, number + 1, homes.join(", ")));
                }
            }
        }
    }
    none("one home per library", &offences);
}

/// Tells whether a line of code names `word` and not only a longer word that ends with it.
fn names(line: &str, word: &str) -> bool {
    line.match_indices(word).any(|(at, _)| {
        let before = line.get(..at).unwrap_or_default().chars().next_back();
        let after = line.get(at + word.len()..).unwrap_or_default().chars().next();
        let part_of_word = |c: Option<char>| c.is_some_and(|c| c.is_alphanumeric() || c == '_');
        let starts_with_sign = word.starts_with('.');
        let ends_open = word.ends_with(':') || word.ends_with("Tcp") || word.ends_with("Udp");
        (starts_with_sign || !part_of_word(before)) && (ends_open || !part_of_word(after))
    })
}

/// Returns every path after `crate::`, groups opened, with its line number.
fn crate_paths(code: &str) -> Vec<(usize, String)> {
    let mut paths = Vec::new();
    for (at, _) in code.match_indices("crate::") {
        let inside_word = code.get(..at).and_then(|before| before.chars().next_back());
        if inside_word.is_some_and(|c| c.is_alphanumeric() || c == '_' || c == '$') {
            continue;
        }
        let number = code.get(..at).unwrap_or_default().matches('\n').count() + 1;
        let rest = code.get(at + "crate::".len()..).unwrap_or_default();
        for path in open(rest) {
            paths.push((number, path));
        }
    }
    paths
}

/// Opens `a::{b, c::{d, e}}` into `a::b`, `a::c::d`, `a::c::e`.
fn open(rest: &str) -> Vec<String> {
    let end = rest.find(|c: char| !c.is_alphanumeric() && c != '_' && c != ':').unwrap_or(rest.len());
    let (stem, after) = rest.split_at(end);
    let Some(group) = after.strip_prefix('{') else { return vec![stem.trim_end_matches("::").to_owned()] };
    let mut depth = 0_usize;
    let mut parts = vec![String::new()];
    for character in group.chars() {
        match character {
            '}' if depth == 0 => break,
            ',' if depth == 0 => parts.push(String::new()),
            _ => parts.last_mut().expect("starts with one").push(character),
        }
        depth = match character {
            '{' => depth + 1,
            '}' => depth - 1,
            _ => depth,
        };
    }
    let parts = parts.iter().map(|part| part.trim()).filter(|part| !part.is_empty());
    parts.flat_map(open).map(|part| format!("{stem}{part}")).collect()
}

/// Paths that climb out of their room by `super::super::`, which would go round the wall.
fn escapes(source: &Source, rooms: &BTreeSet<String>) -> Vec<String> {
    let climb = "super::".repeat(source.modules().len());
    let mut offences = Vec::new();
    for (number, line) in source.code.lines().enumerate() {
        let above =
            line.split(&climb).skip(1).filter_map(|rest| rest.split(|c: char| !c.is_alphanumeric() && c != '_').next());
        for room in above.filter(|room| rooms.contains(*room) && *room != source.room()) {
            offences.push(format!("{}:{}: climbs to {room}, write crate::{room}", source.path, number + 1));
        }
    }
    offences
}

#[test]
fn groups_and_words_are_read_right() {
    let paths = crate_paths("use crate::{store::{Store, Changes}, acme::Acme};\nlet a = crate::dns::lookup::x;");
    let found: Vec<_> = paths.iter().map(|(line, path)| (*line, path.as_str())).collect();
    assert_eq!(found, [(1, "store::Store"), (1, "store::Changes"), (1, "acme::Acme"), (2, "dns::lookup::x")]);
    assert!(names("use tonic::Status;", "tonic::") && !names("use tonic_prost::X;", "tonic::"));
    assert!(names("x.await?", ".await") && names("use std::net::TcpStream;", "std::net::Tcp"));
    assert!(!names("let unix = 1;", "nix"));
}
