//! What a target is when the operator does not say: the files it holds (features.md D2), all of it for a service that is
//! known. Used by the command line and the wizard.

use proto::operator::v1::TargetSpec;
use proto::presets::Preset;
use proto::types::v1::{Command, FileContent, FileSpec};

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
    }
}

/// Whether the private key is in such a file.
#[must_use]
pub fn holds_key(content: FileContent) -> bool {
    matches!(content, FileContent::Key | FileContent::Combined)
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
    }
}
