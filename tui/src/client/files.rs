//! The files a target holds when the operator names none (features.md D2). Used by the command line and the wizard.

use proto::types::v1::{FileContent, FileSpec};

/// Returns the name a file has by default: `cert.pem`, `key.pem`, `chain.pem`, `fullchain.pem`.
#[must_use]
pub fn default_name(content: FileContent) -> &'static str {
    match content {
        FileContent::Unspecified => "",
        FileContent::Cert => "cert.pem",
        FileContent::Key => "key.pem",
        FileContent::Chain => "chain.pem",
        FileContent::Fullchain => "fullchain.pem",
    }
}

/// Returns the permission bits a file has by default: 0600 for the key, 0644 for the rest.
#[must_use]
pub fn default_mode(content: FileContent) -> u32 {
    if content == FileContent::Key { 0o600 } else { 0o644 }
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
