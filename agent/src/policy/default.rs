//! The policy written at enrolment: the usual directories and the exact commands of the services found on this server
//! (`proto::presets`), and port 80. Only looks for directories and programs; never runs anything.

use std::fmt::Write as _;
use std::fs::OpenOptions;
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use proto::presets::{PRESETS, Preset};

use crate::problem::Problem;

const FOLDERS: &[&str] = &["ssl", "tls", "certs"];

/// Returns the policy for the services found below `root` (`/`, or a directory in tests).
#[must_use]
pub fn text(root: &Path) -> String {
    let mut text = String::from(
        "# What the certwright agent may write, run and serve on this server. The controller cannot widen it.\n\
         # Check an edit with `certwright-agent policy check`; it counts from the next deployment on.\n",
    );
    let groups = std::fs::read_to_string(root.join("etc/group")).unwrap_or_default();
    for service in PRESETS.iter().filter(|service| below(root, service.installed).is_dir()) {
        section(&mut text, service, &groups);
        for argv in service.commands().filter(|argv| argv.first().is_some_and(|path| below(root, path).exists())) {
            command(&mut text, argv);
        }
    }
    text.push_str("\n[http01]\nports = [80]\nwebroots = []\n\n[key]\ncustody = [\"agent\", \"controller\"]\n");
    text.push_str("\n# What only prints a service's configuration may be run to detect what is on this server. With `homes` it also\n\
         # looks into /root and /home, for document roots and for acme.sh.\n[detect]\ncommands = true\nhomes = false\n");
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

fn section(text: &mut String, service: &Preset, groups: &str) {
    let mut owners = vec!["\"root:root\"".to_owned()];
    for group in service.groups {
        if groups.lines().any(|line| line.split(':').next() == Some(group)) {
            owners.push(format!("\"root:{group}\""));
        }
    }
    for folder in FOLDERS {
        write!(
            text,
            "\n[[dir]]\npath = \"{}/{folder}\"\nfiles = [\"*.pem\", \"*.crt\", \"*.key\"]\nowners = [{}]\nkey_mode_max = \"0640\"\n",
            service.home,
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

fn below(root: &Path, path: &str) -> PathBuf {
    root.join(path.trim_start_matches('/'))
}

#[cfg(test)]
mod tests {
    use proto::agent::v1 as wire;
    use proto::types::v1 as types;

    use super::*;
    use crate::policy::Policy;
    use crate::target::{Desired, Target};

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
        assert_eq!(argv, ["/usr/sbin/nginx -t", "/usr/bin/systemctl reload nginx", "/usr/sbin/nginx -s reload"]);
        assert_eq!(policy.http01_ports, [80]);
    }

    #[test]
    fn every_preset_is_permitted_where_its_service_is_installed() {
        for preset in PRESETS {
            let root = tempfile::tempdir().unwrap();
            std::fs::create_dir_all(below(root.path(), preset.installed)).unwrap();
            for argv in preset.commands() {
                let program = below(root.path(), argv[0]);
                std::fs::create_dir_all(program.parent().unwrap()).unwrap();
                std::fs::write(program, "").unwrap();
            }
            let groups: String = preset.groups.iter().map(|group| format!("{group}:x:1:\n")).collect();
            std::fs::create_dir_all(root.path().join("etc")).unwrap();
            std::fs::write(root.path().join("etc/group"), groups).unwrap();
            let policy = Policy::parse("default", &text(root.path())).unwrap();
            assert_eq!(policy.dirs.len(), FOLDERS.len(), "{}: nothing of another service", preset.name);
            let target = target_of(preset);
            policy.permit(&target).unwrap();
            for argv in preset.commands() {
                let argv: Vec<String> = argv.iter().map(|word| (*word).to_owned()).collect();
                policy.permit_command(&argv).unwrap();
            }
        }
    }

    /// The target that a preset asks for, through the wire.
    fn target_of(preset: &Preset) -> Target {
        let files = preset.files_of("www.example.test").map(|(content, name)| types::FileSpec {
            content: content.into(),
            name,
            owner: preset.owner.into(),
            mode: if matches!(content, types::FileContent::Fullchain) { 0o644 } else { preset.key_mode },
        });
        let argv = preset.reload.iter().map(|word| (*word).to_owned()).collect();
        let item = wire::DesiredTarget {
            target_id: "t".into(),
            certificate_name: "www".into(),
            identifiers: vec!["www.example.test".into()],
            version_id: "v".into(),
            fingerprint_sha256: vec![1; 32],
            custody: types::Custody::Agent.into(),
            key_slot_id: "k".into(),
            dir: preset.dir_of("www.example.test"),
            files: files.collect(),
            reload: vec![types::Command { argv }],
            ..wire::DesiredTarget::default()
        };
        let response = wire::GetDesiredResponse { targets: vec![item], ..wire::GetDesiredResponse::default() };
        let desired = Desired::from_wire(&response);
        assert!(desired.refused.targets.is_empty(), "{}: {:?}", preset.name, desired.refused.targets);
        desired.targets.into_iter().next().unwrap()
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
