//! What an agent's policy, as it told it, would refuse: said before anything is spent. The agent remains the authority
//! and checks again. Called by `rpc` when a certificate or a target is asked for.

use super::agent::{Policy, PolicyDir};
use super::certificate::{Custody, Http01};
use super::target::{Content, Target};

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
    match policy.dirs.iter().find(|dir| is_below(&target.dir, &dir.path)) {
        None => refusals.push(refusal(
            "dir",
            format!("directory {} is not allowed", target.dir),
            format!("[[dir]] path = \"{}\"", target.dir),
        )),
        Some(dir) => refusals.extend(refuse_files(dir, target, identifiers)),
    }
    let unknown = target.reload.iter().filter(|argv| !policy.commands.contains(argv));
    refusals.extend(unknown.map(|argv| {
        let words = argv.iter().map(|word| format!("\"{word}\"")).collect::<Vec<_>>().join(", ");
        refusal("reload", format!("command {} is not allowed", argv.join(" ")), format!("[[command]] argv = [{words}]"))
    }));
    let word = match custody {
        Custody::Agent => "agent",
        Custody::Controller => "controller",
    };
    if !policy.custody.is_empty() && !policy.custody.iter().any(|allowed| allowed == word) {
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
            format!("[http01] ports = [{port}]"),
        )),
        Http01::Webroot(dir) if policy.webroots.iter().any(|root| is_below(dir, root)) => None,
        Http01::Webroot(dir) => {
            Some(refusal("http01", format!("webroot {dir} is not allowed"), format!("[http01] webroots = [\"{dir}\"]")))
        }
    }
}

fn refuse_files(dir: &PolicyDir, target: &Target, identifiers: &[String]) -> Vec<Refusal> {
    let mut refusals = Vec::new();
    let allowed =
        |patterns: &[String], text: &str| patterns.is_empty() || patterns.iter().any(|pattern| matches(pattern, text));
    for name in identifiers.iter().filter(|name| !allowed(&dir.names, name)) {
        refusals.push(refusal(
            "san",
            format!("{name} is not allowed in {}", dir.path),
            format!("names = [\"{name}\"]"),
        ));
    }
    for file in &target.files {
        if !allowed(&dir.files, &file.name) {
            refusals.push(refusal(
                "file",
                format!("file name {} is not allowed in {}", file.name, dir.path),
                format!("files = [\"{}\"]", file.name),
            ));
        }
        if !file.owner.is_empty() && !dir.owners.is_empty() && !dir.owners.contains(&file.owner) {
            refusals.push(refusal(
                "owner",
                format!("owner {} is not allowed in {}", file.owner, dir.path),
                format!("owners = [\"{}\"]", file.owner),
            ));
        }
        if file.content == Content::Key && file.mode & !dir.key_mode_max != 0 {
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

/// `*` stands for any characters but a dot at the start of a host name (`*.example.com`), and for any characters in a
/// file name (`*.pem`). One star at most.
fn matches(pattern: &str, text: &str) -> bool {
    match pattern.split_once('*') {
        None => pattern.eq_ignore_ascii_case(text),
        Some((head, tail)) => {
            let middle = text.strip_prefix(head).and_then(|rest| rest.strip_suffix(tail));
            let host = head.is_empty() && tail.starts_with('.') && tail.matches('.').count() > 1;
            middle.is_some_and(|middle| !middle.is_empty() && (!host || !middle.contains('.')))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::target::File;
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
            reload: vec![],
            verify: vec![],
            deploy_wish: 0,
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
        assert_eq!(fields(&target("/etc/nginx/ssl", 0o600, "key.txt"), ok, Custody::Agent), ["file"]);
        assert_eq!(fields(&target("/etc/nginx/ssl", 0o600, "key.pem"), "a.b.example.com", Custody::Agent), ["san"]);
        assert_eq!(fields(&target("/etc/nginx/ssl", 0o600, "key.pem"), ok, Custody::Controller), ["custody"]);
        let mut with_command = target("/etc/nginx/ssl", 0o600, "key.pem");
        with_command.reload = vec![vec!["/bin/sh".into()]];
        assert_eq!(fields(&with_command, ok, Custody::Agent), ["reload"]);
        assert_eq!(refuse_http01(&policy(), &Http01::Standalone(8080)).unwrap().field, "http01");
    }
}
