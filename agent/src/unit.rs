//! The paths of the policy as systemd's sandbox must leave them open: a drop-in for the unit of the half that writes files.
//! Written by `policy install` and at enrolment, because a unit cannot read a policy.

use std::fmt::Write as _;
use std::path::Path;

use crate::policy::Policy;
use crate::problem::Problem;
use crate::state::replace;

/// The unit of the half that writes, and where packages put it.
const UNIT: &str = "certwright-agent-apply.service";
const UNIT_PLACES: [&str; 2] = ["/usr/lib/systemd/system", "/lib/systemd/system"];
/// The policy that the unit names.
const POLICY: &str = "/etc/certwright/policy.toml";
const DROP_IN: &str = "/etc/systemd/system/certwright-agent-apply.service.d/policy.conf";

/// Whether this server runs the agent that obeys this policy as units of systemd. One that was started by hand beside them, with
/// a policy of its own, is none of theirs.
#[must_use]
pub fn is_for(policy: &Path) -> bool {
    policy == Path::new(POLICY) && UNIT_PLACES.iter().any(|place| Path::new(place).join(UNIT).exists())
}

/// Writes the drop-in, where the unit is installed and obeys this policy; returns its path when it is another one than before.
///
/// # Errors
/// When it cannot be written.
pub fn install(policy: &Policy) -> Result<Option<&'static str>, Problem> {
    let (path, text) = (Path::new(DROP_IN), text(policy, Path::new("/")));
    if !is_for(Path::new(&policy.source)) || std::fs::read_to_string(path).is_ok_and(|before| before == text) {
        return Ok(None);
    }
    let folder = path.parent().unwrap_or(path);
    let written = std::fs::create_dir_all(folder).and_then(|()| replace(path, text.as_bytes(), 0o644));
    written.map(|()| Some(DROP_IN)).map_err(|error| {
        let hint = "run it as root; without this file the agent may write nowhere";
        Problem::new("DROP_IN", format!("cannot write {DROP_IN}"), error.to_string(), hint)
    })
}

/// Returns the drop-in. A path that does not exist yet is represented by what exists above it, or the agent could not make
/// it: what lies there besides stays closed by the policy.
#[must_use]
pub fn text(policy: &Policy, root: &Path) -> String {
    let mut text = format!(
        "# Written by `certwright-agent policy install` from {}: run it again after an edit of [[dir]] or webroots,\n\
         # then `systemctl daemon-reload` and `systemctl restart {UNIT}`.\n[Service]\n",
        policy.source
    );
    let mut paths: Vec<String> = policy
        .dirs
        .iter()
        .map(|dir| dir.path.as_str())
        .chain(policy.webroots.iter().map(String::as_str))
        .filter_map(|path| existing(root, path))
        .collect();
    paths.sort_unstable();
    paths.dedup();
    // Elsewhere in the unit the homes are closed.
    if paths.iter().any(|path| ["/home/", "/root/"].iter().any(|home| path.starts_with(home))) {
        text.push_str("ProtectHome=no\n");
    } else if policy.detect_homes {
        text.push_str("ProtectHome=read-only\n");
    }
    for path in paths {
        writeln!(text, "ReadWritePaths=\"-{}\"", escaped(&path)).expect("writing to a string cannot fail");
    }
    text
}

/// The path, or its nearest parent that exists and is not a directory of everybody's.
fn existing(root: &Path, path: &str) -> Option<String> {
    let exists = |path: &&Path| root.join(path.strip_prefix("/").unwrap_or(path)).is_dir();
    let found = Path::new(path).ancestors().find(exists)?;
    (found.components().count() > 2).then(|| found.display().to_string())
}

/// As systemd unquotes it (systemd.syntax(7)), without specifiers.
fn escaped(path: &str) -> String {
    path.replace('\\', "\\\\").replace('"', "\\\"").replace('%', "%%")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_unit_is_not_opened_for_a_policy_that_it_does_not_obey() {
        let policy = Policy::parse("/tmp/policy.toml", "").unwrap();
        assert!(!is_for(Path::new(&policy.source)));
        assert_eq!(install(&policy).unwrap(), None);
        let unit = include_str!("../../packaging/systemd/certwright-agent-apply.service");
        assert!(unit.contains(&format!("--policy {POLICY} ")));
    }

    #[test]
    fn opens_what_the_policy_opens_and_no_more() {
        let root = tempfile::tempdir().unwrap();
        for dir in ["etc/nginx/ssl", "etc/haproxy", "var/www/a %b", "home/shop/www"] {
            std::fs::create_dir_all(root.path().join(dir)).unwrap();
        }
        let policy = "[[dir]]\npath = \"/etc/nginx/ssl\"\n[[dir]]\npath = \"/etc/haproxy/certs\"\n\
                      [[dir]]\npath = \"/etc/none/certs\"\n[http01]\nwebroots = [\"/var/www/a %b\"]\n";
        let text = |policy| text(&Policy::parse("policy.toml", policy).unwrap(), root.path());
        let home = text("[http01]\nwebroots = [\"/home/shop/www\"]\n");
        assert!(home.ends_with("[Service]\nProtectHome=no\nReadWritePaths=\"-/home/shop/www\"\n"), "{home}");
        let text = text(policy);
        assert!(!text.contains("ProtectHome"));
        let lines: Vec<&str> = text.lines().filter(|line| line.starts_with("ReadWritePaths")).collect();
        // What lies nowhere is not opened: all of /etc would be.
        let expected = ["/etc/haproxy", "/etc/nginx/ssl", "/var/www/a %%b"];
        assert_eq!(lines, expected.map(|path| format!("ReadWritePaths=\"-{path}\"")));
    }
}
