//! The command line is a promise (design §7): what the three programs' `--help` shows is pinned in `command_line.txt`, and
//! the packaged units use nothing else. A change of the tree changes that file in the same commit.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, ensure};
use e2e::lab::program;

const PROGRAMS: [&str; 3] = ["certwright-controller", "certwright-agent", "certwright"];

fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("e2e lies in the repository").to_owned()
}

#[test]
fn the_command_line_is_the_one_we_promised() -> anyhow::Result<()> {
    let mut tree = String::new();
    for name in PROGRAMS {
        describe(name, &[], &[], &mut tree)?;
    }
    let pinned = std::fs::read_to_string(repository().join("e2e/tests/real/command_line.txt"))?;
    for line in tree.lines() {
        assert!(
            pinned.lines().any(|known| known == line),
            "not in command_line.txt: {line}\n\nthe whole tree:\n{tree}"
        );
    }
    for line in pinned.lines() {
        assert!(tree.lines().any(|shown| shown == line), "promised, and no longer there: {line}");
    }
    Ok(())
}

/// Writes one line per command: its words, then its own options.
fn describe(name: &str, verbs: &[&str], known: &[String], tree: &mut String) -> anyhow::Result<()> {
    let output = Command::new(program(name)?).args(verbs).arg("--help").output()?;
    let help = String::from_utf8(output.stdout).context("help is text")?;
    ensure!(output.status.success(), "{name} {verbs:?} --help fails: {help}");
    let all = options(&help);
    let own = all.iter().filter(|option| !known.contains(option)).map(String::as_str);
    let words = std::iter::once(name).chain(verbs.iter().copied()).chain(own);
    tree.push_str(&words.collect::<Vec<_>>().join(" "));
    tree.push('\n');
    for verb in commands(&help).iter().filter(|verb| *verb != "help") {
        describe(name, &[verbs, &[verb.as_str()]].concat(), &all, tree)?;
    }
    Ok(())
}

/// Names below "Commands:".
fn commands(help: &str) -> Vec<String> {
    let section = help.lines().skip_while(|line| *line != "Commands:").skip(1).take_while(|line| !line.is_empty());
    let names = section.filter(|line| line.starts_with("  ") && !line.starts_with("   "));
    names.filter_map(|line| line.split_whitespace().next()).map(str::to_owned).collect()
}

/// Long options, in the order of the help.
fn options(help: &str) -> Vec<String> {
    let lines = help.lines().map(str::trim_start).filter(|line| line.starts_with('-'));
    let long = lines.filter_map(|line| line.split([' ', ',', '=', '[']).find(|word| word.starts_with("--")));
    long.filter(|option| !matches!(*option, "--help" | "--version")).map(str::to_owned).collect()
}

#[test]
fn the_packaged_units_speak_the_command_line() -> anyhow::Result<()> {
    let pinned = std::fs::read_to_string(repository().join("e2e/tests/real/command_line.txt"))?;
    for entry in std::fs::read_dir(repository().join("packaging/systemd"))? {
        let path = entry?.path();
        let unit = std::fs::read_to_string(&path)?;
        let start = unit.lines().find_map(|line| line.strip_prefix("ExecStart=/usr/bin/")).context("ExecStart=")?;
        let mut words = start.split(' ');
        let command = [words.next().unwrap_or_default(), words.next().unwrap_or_default()].join(" ");
        let promise = pinned.lines().find(|line| line.starts_with(&command));
        let promise = promise.with_context(|| format!("{} starts `{command}`", path.display()))?;
        for option in words.filter(|word| word.starts_with("--")) {
            ensure!(promise.split(' ').any(|known| known == option), "{}: {option}", path.display());
        }
    }
    Ok(())
}
