//! The policy written at enrolment: the usual directories and reload commands of the services found on this server, and
//! port 80. Only looks for directories and programs; never runs anything.

use std::fmt::Write as _;
use std::fs::OpenOptions;
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use crate::problem::Problem;

struct Service {
    /// Its directory below /etc, and its systemd unit.
    name: &'static str,
    /// Owners of key files, beside root:root, where the group exists.
    groups: &'static [&'static str],
    /// Its own reload commands.
    reload: &'static [&'static [&'static str]],
}

const SERVICES: &[Service] = &[
    Service { name: "nginx", groups: &["www-data", "nginx"], reload: &[&["/usr/sbin/nginx", "-s", "reload"]] },
    Service { name: "apache2", groups: &["www-data"], reload: &[&["/usr/sbin/apache2ctl", "graceful"]] },
    Service { name: "haproxy", groups: &["haproxy"], reload: &[] },
    Service { name: "postfix", groups: &["postfix"], reload: &[&["/usr/sbin/postfix", "reload"]] },
    Service { name: "dovecot", groups: &["dovecot"], reload: &[&["/usr/bin/doveadm", "reload"]] },
];
const FOLDERS: &[&str] = &["ssl", "tls", "certs"];
const SYSTEMCTL: &str = "usr/bin/systemctl";

/// Returns the policy for the services found below `root` (`/`, or a directory in tests).
#[must_use]
pub fn text(root: &Path) -> String {
    let mut text = String::from(
        "# What the certwright agent may write, run and serve on this server. The controller cannot widen it.\n\
         # Check an edit with `certwright-agent policy check`; it counts from the next deployment on.\n",
    );
    let groups = std::fs::read_to_string(root.join("etc/group")).unwrap_or_default();
    let systemctl = root.join(SYSTEMCTL).exists();
    for service in SERVICES.iter().filter(|service| root.join("etc").join(service.name).is_dir()) {
        section(&mut text, service, &groups);
        if systemctl {
            command(&mut text, &["/usr/bin/systemctl", "reload", service.name]);
        }
        for argv in service.reload.iter().filter(|argv| argv.first().is_some_and(|path| exists(root, path))) {
            command(&mut text, argv);
        }
    }
    text.push_str("\n[http01]\nports = [80]\nwebroots = []\n\n[key]\ncustody = [\"agent\", \"controller\"]\n");
    text
}

/// Writes the default policy to a file that must not exist yet, mode 0644.
///
/// # Errors
/// When the file exists or cannot be written.
pub fn install(path: &Path) -> Result<(), Problem> {
    let problem = |error: std::io::Error| {
        Problem::new(
            "POLICY_INSTALL",
            format!("cannot write the policy file {}", path.display()),
            error.to_string(),
            "an existing policy is never replaced: edit it, or remove it first",
        )
    };
    if let Some(parent) = path.parent().filter(|parent| !parent.as_os_str().is_empty()) {
        std::fs::create_dir_all(parent).map_err(problem)?;
    }
    let mut file = OpenOptions::new().create_new(true).write(true).mode(0o644).open(path).map_err(problem)?;
    file.write_all(text(Path::new("/")).as_bytes()).and_then(|()| file.sync_all()).map_err(problem)
}

fn section(text: &mut String, service: &Service, groups: &str) {
    let mut owners = vec!["\"root:root\"".to_owned()];
    for group in service.groups {
        if groups.lines().any(|line| line.split(':').next() == Some(group)) {
            owners.push(format!("\"root:{group}\""));
        }
    }
    for folder in FOLDERS {
        write!(
            text,
            "\n[[dir]]\npath = \"/etc/{}/{folder}\"\nfiles = [\"*.pem\", \"*.crt\", \"*.key\"]\nowners = [{}]\nkey_mode_max = \"0640\"\n",
            service.name,
            owners.join(", ")
        )
        .expect("writing to a string cannot fail");
    }
}

fn command(text: &mut String, argv: &[&str]) {
    let words: Vec<String> = argv.iter().map(|word| format!("\"{word}\"")).collect();
    write!(text, "\n[[command]]\nargv = [{}]\ntimeout = \"30s\"\n", words.join(", "))
        .expect("writing to a string cannot fail");
}

fn exists(root: &Path, path: &str) -> bool {
    root.join(path.trim_start_matches('/')).exists()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::Policy;

    #[test]
    fn covers_the_services_of_the_server_and_parses() {
        let root = tempfile::tempdir().unwrap();
        for dir in ["etc/nginx", "usr/sbin", "usr/bin"] {
            std::fs::create_dir_all(root.path().join(dir)).unwrap();
        }
        for file in ["usr/sbin/nginx", "usr/bin/systemctl"] {
            std::fs::write(root.path().join(file), "").unwrap();
        }
        std::fs::write(root.path().join("etc/group"), "root:x:0:\nwww-data:x:33:\n").unwrap();
        let policy = Policy::parse("default", &text(root.path())).unwrap();
        let paths: Vec<&str> = policy.dirs.iter().map(|dir| dir.path.as_str()).collect();
        assert_eq!(paths, ["/etc/nginx/ssl", "/etc/nginx/tls", "/etc/nginx/certs"]);
        assert_eq!(policy.dirs[0].owners, ["root:root", "root:www-data"]);
        let argv: Vec<String> = policy.commands.iter().map(|command| command.argv.join(" ")).collect();
        assert_eq!(argv, ["/usr/bin/systemctl reload nginx", "/usr/sbin/nginx -s reload"]);
        assert_eq!(policy.http01_ports, [80]);
    }

    #[test]
    fn an_existing_policy_is_never_replaced() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("sub/policy.toml");
        install(&path).unwrap();
        assert_eq!(install(&path).unwrap_err().reason, "POLICY_INSTALL");
        crate::policy::file::read(&path).unwrap();
    }
}
