//! What an agent's policy, as it told it, would refuse: said before anything is spent. The agent remains the authority
//! and checks again. Called by `rpc` when a certificate or a target is asked for.

use std::cmp::Reverse;
use std::str::Chars;

use super::agent::{Policy, PolicyDir};
use super::certificate::{Custody, Http01};
use super::target::Target;

/// One thing the agent will refuse.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// The flag that asks for it.
    pub field: &'static str,
    /// What is not allowed.
    pub message: String,
    /// The line to add to the policy.
    pub line: String,
}

/// Returns what `policy` does not allow of a target.
#[must_use]
pub fn refuse_target(policy: &Policy, target: &Target, identifiers: &[String], custody: Custody) -> Vec<Refusal> {
    let mut refusals = Vec::new();
    // As the agent looks: the closest directory first, and one that allows everything is enough.
    let mut dirs: Vec<&PolicyDir> = policy.dirs.iter().filter(|dir| is_below(&target.dir, &dir.path)).collect();
    dirs.sort_by_key(|dir| Reverse(dir.path.len()));
    let mut found: Vec<Vec<Refusal>> = dirs.iter().map(|dir| refuse_files(dir, target, identifiers)).collect();
    if found.is_empty() {
        refusals.push(refusal(
            "dir",
            format!("directory {} is not allowed", target.dir),
            format!("[[dir]] path = \"{}\"", target.dir),
        ));
    } else if found.iter().all(|refusals| !refusals.is_empty()) {
        refusals.append(&mut found.swap_remove(0));
    }
    let validate = target.validate.iter().map(|argv| ("validate", argv));
    let commands = validate.chain(target.reload.iter().map(|argv| ("reload", argv)));
    refusals.extend(commands.filter(|(_, argv)| !policy.commands.contains(argv)).map(|(field, argv)| {
        let words = argv.iter().map(|word| format!("\"{word}\"")).collect::<Vec<_>>().join(", ");
        refusal(field, format!("command {} is not allowed", argv.join(" ")), format!("[[command]] argv = [{words}]"))
    }));
    let word = match custody {
        Custody::Agent => "agent",
        Custody::Controller => "controller",
    };
    if !policy.custody.iter().any(|allowed| allowed == word) {
        refusals.push(refusal(
            "custody",
            format!("key custody {word} is not allowed"),
            format!("[key] custody = [\"{word}\"]"),
        ));
    }
    refusals
}

/// Returns what `policy` does not allow of answering challenges.
#[must_use]
pub fn refuse_http01(policy: &Policy, http01: &Http01) -> Option<Refusal> {
    match http01 {
        Http01::Standalone(port) if policy.http01_ports.contains(port) => None,
        Http01::Standalone(port) => Some(refusal(
            "http01",
            format!("a listener on port {port} is not allowed"),
            format!("add {port} to ports of [http01]"),
        )),
        Http01::Webroot(dir) if policy.webroots.contains(dir) => None,
        Http01::Webroot(dir) => {
            Some(refusal("http01", format!("webroot {dir} is not allowed"), format!("[http01] webroots = [\"{dir}\"]")))
        }
    }
}

fn refuse_files(dir: &PolicyDir, target: &Target, identifiers: &[String]) -> Vec<Refusal> {
    let mut refusals = Vec::new();
    let allowed = |patterns: &[String], text: &str, matches: fn(&str, &str) -> bool| {
        patterns.is_empty() || patterns.iter().any(|pattern| matches(pattern, text))
    };
    for name in identifiers.iter().filter(|name| !allowed(&dir.names, name, name_matches)) {
        refusals.push(refusal(
            "san",
            format!("{name} is not allowed in {}", dir.path),
            format!("names = [\"{name}\"]"),
        ));
    }
    for file in &target.files {
        if !allowed(&dir.files, &file.name, glob_matches) {
            refusals.push(refusal(
                "file",
                format!("file name {} is not allowed in {}", file.name, dir.path),
                format!("files = [\"{}\"]", file.name),
            ));
        }
        // Without a list only root may own.
        let owned = if dir.owners.is_empty() { file.owner == "root:root" } else { dir.owners.contains(&file.owner) };
        if !file.owner.is_empty() && !owned {
            refusals.push(refusal(
                "owner",
                format!("owner {} is not allowed in {}", file.owner, dir.path),
                format!("owners = [\"{}\"]", file.owner),
            ));
        }
        if file.content.holds_key() && file.mode & !dir.key_mode_max != 0 {
            refusals.push(refusal(
                "mode",
                format!("key mode {:04o} is wider than {:04o}", file.mode, dir.key_mode_max),
                format!("key_mode_max = \"{:04o}\"", file.mode),
            ));
        }
    }
    refusals
}

fn refusal(field: &'static str, message: String, line: String) -> Refusal {
    Refusal { field, message, line }
}

/// Whether an absolute, normal path is `root` or below it.
fn is_below(path: &str, root: &str) -> bool {
    let root = root.trim_end_matches('/');
    path == root || path.strip_prefix(root).is_some_and(|rest| rest.starts_with('/'))
}

/// `*.example.com` stands for exactly one label, and for the wildcard identifier itself.
pub(super) fn name_matches(pattern: &str, identifier: &str) -> bool {
    let (pattern, identifier) = (pattern.to_ascii_lowercase(), identifier.to_ascii_lowercase());
    let label = |parent| identifier.strip_suffix(parent).and_then(|rest| rest.strip_suffix('.'));
    pattern == identifier
        || pattern.strip_prefix("*.").and_then(label).is_some_and(|label| !label.is_empty() && !label.contains('.'))
}

/// `*` stands for any run of characters, `?` for one.
fn glob_matches(pattern: &str, name: &str) -> bool {
    let (mut pattern, mut name) = (pattern.chars(), name.chars());
    let mut star: Option<(Chars<'_>, Chars<'_>)> = None;
    loop {
        let (mut wanted_rest, mut rest) = (pattern.clone(), name.clone());
        match (wanted_rest.next(), rest.next()) {
            (None, None) => return true,
            (Some('*'), _) => {
                star = Some((wanted_rest.clone(), name.clone()));
                pattern = wanted_rest;
            }
            (Some(wanted), Some(ch)) if wanted == '?' || wanted == ch => (pattern, name) = (wanted_rest, rest),
            // The last star takes one character more.
            _ => {
                let Some((after, from)) = &mut star else { return false };
                if from.next().is_none() {
                    return false;
                }
                (pattern, name) = (after.clone(), from.clone());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::target::{Content, File, OnDrift};
    use super::*;

    fn policy() -> Policy {
        Policy {
            dirs: vec![PolicyDir {
                path: "/etc/nginx/ssl".into(),
                names: vec!["*.example.com".into()],
                files: vec!["*.pem".into()],
                owners: vec!["root:root".into()],
                key_mode_max: 0o640,
            }],
            commands: vec![vec!["/usr/sbin/nginx".into(), "-s".into(), "reload".into()]],
            http01_ports: vec![80],
            webroots: vec!["/var/www/html".into()],
            custody: vec!["agent".into()],
        }
    }

    fn target(dir: &str, mode: u32, name: &str) -> Target {
        Target {
            id: "t".into(),
            certificate_id: "c".into(),
            agent_id: "a".into(),
            dir: dir.into(),
            files: vec![File { content: Content::Key, name: name.into(), owner: String::new(), mode }],
            validate: vec![],
            reload: vec![],
            verify: vec![],
            deploy_wish: 0,
            released: None,
            on_drift: OnDrift::Repair,
        }
    }

    #[test]
    fn what_the_policy_allows_is_not_refused() {
        let names = ["www.example.com".to_owned()];
        assert_eq!(
            refuse_target(&policy(), &target("/etc/nginx/ssl/www", 0o600, "key.pem"), &names, Custody::Agent),
            []
        );
        assert_eq!(refuse_http01(&policy(), &Http01::Standalone(80)), None);
        assert_eq!(refuse_http01(&policy(), &Http01::Webroot("/var/www/html".into())), None);
    }

    #[test]
    fn every_refusal_names_its_flag() {
        let fields = |target: &Target, name: &str, custody| {
            refuse_target(&policy(), target, &[name.to_owned()], custody)
                .iter()
                .map(|one| one.field)
                .collect::<Vec<_>>()
        };
        let ok = "www.example.com";
        assert_eq!(fields(&target("/etc/nginx/sslx", 0o600, "key.pem"), ok, Custody::Agent), ["dir"]);
        assert_eq!(fields(&target("/etc/nginx/ssl", 0o644, "key.pem"), ok, Custody::Agent), ["mode"]);
        let mut combined = target("/etc/nginx/ssl", 0o644, "site.pem");
        combined.files[0].content = Content::Combined;
        assert_eq!(fields(&combined, ok, Custody::Agent), ["mode"]);
        assert_eq!(fields(&target("/etc/nginx/ssl", 0o600, "key.txt"), ok, Custody::Agent), ["file"]);
        assert_eq!(fields(&target("/etc/nginx/ssl", 0o600, "key.pem"), "a.b.example.com", Custody::Agent), ["san"]);
        assert_eq!(fields(&target("/etc/nginx/ssl", 0o600, "key.pem"), ok, Custody::Controller), ["custody"]);
        let mut with_command = target("/etc/nginx/ssl", 0o600, "key.pem");
        with_command.reload = vec![vec!["/bin/sh".into()]];
        assert_eq!(fields(&with_command, ok, Custody::Agent), ["reload"]);
        with_command.validate = vec![vec!["/usr/bin/env".into()]];
        assert_eq!(fields(&with_command, ok, Custody::Agent), ["validate", "reload"]);
        assert_eq!(refuse_http01(&policy(), &Http01::Standalone(8080)).unwrap().field, "http01");
        let silent = Policy { custody: vec![], ..policy() };
        let refused = refuse_target(&silent, &target("/etc/nginx/ssl", 0o600, "key.pem"), &[ok.into()], Custody::Agent);
        assert_eq!(refused.iter().map(|one| one.field).collect::<Vec<_>>(), ["custody"]);
        let below = Http01::Webroot("/var/www/html/sub".into());
        assert_eq!(refuse_http01(&policy(), &below).unwrap().field, "http01");
    }

    #[test]
    fn without_owners_only_root_may_own() {
        let fields = |owner: &str, owners: &[&str]| {
            let mut policy = policy();
            policy.dirs[0].owners = owners.iter().map(|owner| (*owner).to_owned()).collect();
            let mut target = target("/etc/nginx/ssl", 0o600, "key.pem");
            target.files[0].owner = owner.into();
            let names = ["www.example.com".to_owned()];
            refuse_target(&policy, &target, &names, Custody::Agent).iter().map(|one| one.field).collect::<Vec<_>>()
        };
        assert_eq!(fields("", &[]), [""; 0]);
        assert_eq!(fields("root:root", &[]), [""; 0]);
        assert_eq!(fields("www:www", &[]), ["owner"]);
        assert_eq!(fields("www:www", &["www:www"]), [""; 0]);
    }

    #[test]
    fn one_directory_that_allows_everything_is_enough() {
        let mut policy = policy();
        let wide = PolicyDir { path: "/etc".into(), names: vec!["other.test".into()], ..policy.dirs[0].clone() };
        policy.dirs.insert(0, wide);
        let target = target("/etc/nginx/ssl", 0o600, "key.pem");
        assert_eq!(refuse_target(&policy, &target, &["www.example.com".into()], Custody::Agent), []);
        assert_eq!(refuse_target(&policy, &target, &["other.test".into()], Custody::Agent), []);
        let refused = refuse_target(&policy, &target, &["third.test".into()], Custody::Agent);
        assert_eq!(refused.len(), 1);
        assert!(refused[0].message.ends_with("in /etc/nginx/ssl"), "the closest directory speaks");
    }

    #[test]
    fn patterns_mean_what_they_mean_to_the_agent() {
        let name = |pattern, identifier, expected| assert_eq!(name_matches(pattern, identifier), expected, "{pattern}");
        name("*.example.com", "www.example.com", true);
        name("*.Example.com", "WWW.example.com", true);
        name("*.example.com", "*.example.com", true);
        name("*.example.com", "example.com", false);
        name("*.example.com", "a.b.example.com", false);
        name("*.test", "a.test", true);
        name("*.test", "a.b.test", false);
        let glob = |pattern, file, expected| assert_eq!(glob_matches(pattern, file), expected, "{pattern} {file}");
        glob("*.pem", "key.pem", true);
        glob("*.pem", "key.txt", false);
        glob("key.pem", "KEY.pem", false);
        glob("?.pem", "a.pem", true);
        glob("?.pem", "ab.pem", false);
        glob("a*b*c", "a-b-b-c", true);
        glob("a*b*c", "a-b-b-d", false);
        glob("*", "", true);
        glob("", "a", false);
        glob(&"*a".repeat(40), &"b".repeat(200), false);
    }
}
