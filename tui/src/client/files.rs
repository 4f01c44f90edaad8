//! What a target is when the operator does not say: the files it holds (features.md D2), all of it for a service that is
//! known; and in which lines two settings of one differ. Used by the command line, the wizard and the target's sheet.

use proto::operator::v1::TargetSpec;
use proto::presets::Preset;
use proto::types::v1::{Command, FileContent, FileSpec};

use super::words::{file_content, on_drift};

/// Returns the name a file has by default: `cert.pem`, `key.pem`, `chain.pem`, `fullchain.pem`.
#[must_use]
pub fn default_name(content: FileContent) -> &'static str {
    match content {
        FileContent::Unspecified => "",
        FileContent::Cert => "cert.pem",
        FileContent::Key => "key.pem",
        FileContent::Chain => "chain.pem",
        FileContent::Fullchain => "fullchain.pem",
        FileContent::Combined => "combined.pem",
        FileContent::Pfx => "keystore.pfx",
        FileContent::PfxPassword => "keystore.password",
    }
}

/// Whether the private key is in such a file, or what opens it.
#[must_use]
pub fn holds_key(content: FileContent) -> bool {
    matches!(content, FileContent::Key | FileContent::Combined | FileContent::Pfx | FileContent::PfxPassword)
}

/// Returns the permission bits a file has by default: 0600 with the key in it, 0644 without.
#[must_use]
pub fn default_mode(content: FileContent) -> u32 {
    if holds_key(content) { 0o600 } else { 0o644 }
}

/// Returns the four default files.
#[must_use]
pub fn default_files() -> Vec<FileSpec> {
    [FileContent::Cert, FileContent::Key, FileContent::Chain, FileContent::Fullchain]
        .map(|content| FileSpec {
            content: content.into(),
            name: default_name(content).to_owned(),
            owner: String::new(),
            mode: default_mode(content),
        })
        .to_vec()
}

/// Returns what a preset says of a certificate's target; the agent is not in it.
#[must_use]
pub fn preset_spec(preset: &Preset, certificate: &str) -> TargetSpec {
    let files = preset.files_of(certificate).map(|(content, name)| FileSpec {
        content: content.into(),
        name,
        owner: preset.owner.to_owned(),
        mode: if holds_key(content) { preset.key_mode } else { default_mode(content) },
    });
    let command = |argv: &[&str]| Command { argv: argv.iter().map(|word| (*word).to_owned()).collect() };
    TargetSpec {
        agent: String::new(),
        dir: preset.dir_of(certificate),
        files: files.collect(),
        validate: Some(preset.validate).filter(|argv| !argv.is_empty()).map(command).into_iter().collect(),
        reload: vec![command(preset.reload)],
        verify: preset.verify.parse().into_iter().collect(),
        on_drift: 0,
    }
}

/// Returns the settings of a target in lines: directory, each file, each command, each endpoint.
fn target_lines(spec: &TargetSpec) -> Vec<String> {
    let file = |file: &FileSpec| {
        let owner = if file.owner.is_empty() { String::new() } else { format!(" {}", file.owner) };
        format!("file {}={} {:04o}{owner}", file_content(file.content), file.name, file.mode)
    };
    let command = |what: &'static str| move |command: &Command| format!("{what} {}", command.argv.join(" "));
    let mut lines = vec![format!("dir {}", spec.dir)];
    lines.extend(spec.files.iter().map(file));
    lines.extend(spec.validate.iter().map(command("validate")));
    lines.extend(spec.reload.iter().map(command("reload")));
    lines.extend(spec.verify.iter().map(|endpoint| format!("verify {endpoint}")));
    lines.push(format!("drift {}", on_drift(spec.on_drift)));
    lines
}

/// Returns what changes between two settings of a target: `- ` before what goes, `+ ` before what comes.
#[must_use]
pub fn target_changes(before: &TargetSpec, after: &TargetSpec) -> Vec<String> {
    let (before, after) = (target_lines(before), target_lines(after));
    let gone = before.iter().filter(|line| !after.contains(line)).map(|line| format!("- {line}"));
    let come = after.iter().filter(|line| !before.contains(line)).map(|line| format!("+ {line}"));
    gone.chain(come).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_differs_between_two_settings_is_shown() {
        let before = TargetSpec { dir: "/etc/x".into(), files: default_files(), ..TargetSpec::default() };
        let mut after = before.clone();
        assert!(target_changes(&before, &after).is_empty());
        after.files.retain(|file| file.name != "chain.pem");
        after.files.iter_mut().for_each(|file| file.owner = "root:www-data".into());
        after.reload.push(Command { argv: vec!["/usr/sbin/nginx".into(), "-s".into(), "reload".into()] });
        let changes = target_changes(&before, &after);
        assert!(changes.contains(&"- file chain=chain.pem 0644".to_owned()), "{changes:?}");
        assert!(changes.contains(&"+ file key=key.pem 0600 root:www-data".to_owned()), "{changes:?}");
        assert!(changes.contains(&"+ reload /usr/sbin/nginx -s reload".to_owned()), "{changes:?}");
        assert!(!changes.iter().any(|line| line.contains("dir ")), "{changes:?}");
    }
}
