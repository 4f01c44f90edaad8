//! What is in the packages: files, owners, modes and scripts, as `content.txt` pins them. The manual pages are counted only.

use std::process::Command;

use anyhow::{Context, ensure};

use super::{package, repository};

const NAMES: [&str; 3] = ["certwright-controller", "certwright-agent", "certwright"];

fn printed(program: &str, words: &[&str]) -> anyhow::Result<String> {
    let ran = Command::new(program).args(words).output().with_context(|| program.to_owned())?;
    ensure!(ran.status.success(), "{program} {words:?}: {}", String::from_utf8_lossy(&ran.stderr));
    Ok(String::from_utf8(ran.stdout)?)
}

/// Adds a line per file, and says how many manual pages there are.
fn list(kind: &str, name: &str, files: impl Iterator<Item = (String, String)>, found: &mut String) {
    let (pages, mut rest): (Vec<_>, Vec<_>) = files.partition(|(_, path)| path.contains("/man/man1/"));
    rest.sort_by(|a, b| a.1.cmp(&b.1));
    found.push_str(&format!("== {name}.{kind}\n"));
    for (how, path) in rest {
        found.push_str(&format!("{how} {path}\n"));
    }
    let is_root = pages.iter().all(|(how, _)| how.ends_with("root root") || how.ends_with("root/root"));
    let enough = if name == "certwright" { 40 } else { 3 };
    assert!(is_root && pages.len() >= enough, "{name}.{kind}: {pages:?}");
}

fn content() -> anyhow::Result<String> {
    let mut found = String::new();
    for name in NAMES {
        let path = package(name, "deb")?.to_string_lossy().into_owned();
        let files = printed("dpkg-deb", &["--contents", &path])?;
        let files = files.lines().filter(|line| line.starts_with('-')).map(|line| {
            let words: Vec<&str> = line.split_whitespace().collect();
            (
                words.iter().take(2).copied().collect::<Vec<_>>().join(" "),
                words.last().copied().unwrap_or("").to_owned(),
            )
        });
        list("deb", name, files, &mut found);
        found.push_str(&printed("dpkg-deb", &["--field", &path, "Recommends"])?);
    }
    for name in NAMES {
        let path = package(name, "rpm")?.to_string_lossy().into_owned();
        let files = printed("rpm", &["--query", "--package", "--dump", &path])?;
        let files = files.lines().map(|line| {
            let words: Vec<&str> = line.split_whitespace().collect();
            let config = if words.get(7) == Some(&"1") { "config " } else { "" };
            let how: Vec<&str> = words.iter().skip(4).take(3).copied().collect();
            (format!("{config}{}", how.join(" ")), words.first().copied().unwrap_or_default().to_owned())
        });
        list("rpm", name, files, &mut found);
        found.push_str(&printed("rpm", &["--query", "--package", "--scripts", &path])?);
    }
    Ok(found)
}

#[test]
fn the_packages_hold_what_they_should_and_do_what_they_should() -> anyhow::Result<()> {
    let found = content()?;
    let pinned = std::fs::read_to_string(repository().join("e2e/tests/packages/content.txt")).unwrap_or_default();
    assert!(found == pinned, "content.txt is not what the packages hold; they hold:\n{found}");
    Ok(())
}

#[test]
fn their_version_is_the_workspaces() -> anyhow::Result<()> {
    for name in NAMES {
        let deb = package(name, "deb")?.to_string_lossy().into_owned();
        let rpm = package(name, "rpm")?.to_string_lossy().into_owned();
        assert_eq!(printed("dpkg-deb", &["--field", &deb, "Version"])?.trim(), env!("CARGO_PKG_VERSION"));
        let version = ["--query", "--package", "--queryformat", "%{VERSION} %{LICENSE}", &rpm];
        assert_eq!(printed("rpm", &version)?, format!("{} MIT OR Apache-2.0", env!("CARGO_PKG_VERSION")));
    }
    Ok(())
}
