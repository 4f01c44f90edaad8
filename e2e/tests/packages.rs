//! What people install: the deb packages live on two machines with systemd (systemd-nspawn), and the rpm packages hold
//! what they should. `scripts/test packages` builds the packages and the image first. Needs real root.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test ends by panicking"
)]

#[path = "packages/content.rs"]
mod content;
#[path = "packages/life.rs"]
mod life;

use std::path::{Path, PathBuf};

use anyhow::Context;

/// What `scripts/package --dev` has made.
fn packages() -> PathBuf {
    let target = std::env::var_os("CARGO_TARGET_DIR").map(PathBuf::from);
    target.unwrap_or_else(|| repository().join("target")).join("packages")
}

fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("e2e lies in the repository").to_owned()
}

/// The one package of that name and kind.
fn package(name: &str, kind: &str) -> anyhow::Result<PathBuf> {
    let folder = packages();
    let first = format!("{name}{}", if kind == "deb" { "_" } else { "-0" });
    let files =
        std::fs::read_dir(&folder).with_context(|| format!("{}: run scripts/package --dev", folder.display()))?;
    let mut found = files.filter_map(Result::ok).map(|entry| entry.path()).filter(|path| {
        let is_named = path.file_name().is_some_and(|file| file.to_string_lossy().starts_with(&first));
        is_named && path.extension().is_some_and(|extension| extension == kind)
    });
    found.next().with_context(|| format!("no {name}.{kind} in {}: run scripts/package --dev", folder.display()))
}
