//! The sheet of a target: where its files go, which, whose, what tests and reloads, where it is proven; with the difference
//! to what holds now. The agent is not in it: a target stays where it is.

use proto::operator::v1::{Certificate, SetTargetRequest, Target, TargetSpec};
use proto::types::v1::{Command, Endpoint, FileContent, FileSpec};

use super::{Wish, quoted, words};
use crate::app::call::Call;
use crate::client::{content_of, default_mode, file_content, holds_key, on_drift, on_drift_of, target_changes};
use crate::widgets::form::{Field, Form};

/// Stands between two commands of a field.
const BETWEEN: &str = ";";
const MODE_MAX: u32 = 0o777;
const DRIFT: &str =
    "Files that are changed or removed on the server: written again (what stood there is kept), or only shown.";
const COMMANDS: &str = "Absolute path and arguments, no shell; several with ; between, in order.";

/// Returns the form with what holds now.
pub(super) fn form(target: &Target) -> Form {
    let spec = target.spec.clone().unwrap_or_default();
    let mut form = Form::new(vec![
        Field::text("dir", "Directory", &spec.dir, "Absolute. What lies in the old one stays there."),
        Field::text(
            "files",
            "File names",
            &file_words(&spec),
            "CONTENT=NAME: cert, key, chain, fullchain, combined, pfx. A name that is no longer listed is removed there.",
        ),
        Field::text("owner", "Owner", &common(&spec, |_| true, |file| file.owner.clone()), "USER:GROUP of every file."),
        Field::text("mode", "Mode", &mode_text(&spec, false), "Octal, of the files without the key."),
        Field::text("key_mode", "Key's mode", &mode_text(&spec, true), "Octal: 0600 or 0640."),
        Field::text("validate", "Test", &command_words(&spec.validate), COMMANDS),
        Field::text("reload", "Reload", &command_words(&spec.reload), COMMANDS),
        Field::text("verify", "Verify", &endpoint_words(&spec), "[PROTOCOL://]ADDR:PORT[/SNI], separated by spaces."),
        Field::choice("drift", "Drift", vec!["repair".to_owned(), "show".to_owned()], DRIFT),
        Field::button("save", "Save"),
    ]);
    if let Some(field) = form.field_mut("drift") {
        field.choose(on_drift(spec.on_drift));
    }
    form.focus("dir");
    form
}

/// Returns the field that the controller's name of a request field means.
pub(super) fn place_of(field: &str) -> &'static str {
    match field.trim_start_matches("--").split(['.', '[']).next().unwrap_or_default() {
        "dir" => "dir",
        "file" | "files" => "files",
        "owner" => "owner",
        "mode" => "key_mode",
        "validate" => "validate",
        "reload" => "reload",
        "verify" => "verify",
        "drift" => "drift",
        _ => "",
    }
}

fn file_words(spec: &TargetSpec) -> String {
    let word = |file: &FileSpec| format!("{}={}", file_content(file.content), file.name);
    spec.files.iter().map(word).collect::<Vec<_>>().join(" ")
}

fn command_words(commands: &[Command]) -> String {
    let line = |command: &Command| command.argv.iter().map(|word| quoted(word)).collect::<Vec<_>>().join(" ");
    commands.iter().map(line).collect::<Vec<_>>().join(&format!(" {BETWEEN} "))
}

fn endpoint_words(spec: &TargetSpec) -> String {
    spec.verify.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ")
}

/// What all files of a kind have in common; empty when they differ.
fn common(spec: &TargetSpec, of: impl Fn(&FileSpec) -> bool, part: impl Fn(&FileSpec) -> String) -> String {
    let mut parts = spec.files.iter().filter(|file| of(file)).map(part);
    let first = parts.next().unwrap_or_default();
    if parts.all(|other| other == first) { first } else { String::new() }
}

fn mode_text(spec: &TargetSpec, key: bool) -> String {
    common(spec, |file| holds_key(file.content()) == key, |file| format!("{:04o}", file.mode))
}

fn mode(text: &str) -> Option<u32> {
    u32::from_str_radix(text, 8).ok().filter(|mode| *mode <= MODE_MAX)
}

/// Returns what the form asks for. A field that was left alone leaves each file what it has.
pub(super) fn wish(record: &Certificate, target: &Target, form: &Form) -> Wish {
    let mut wish = Wish::default();
    let before = target.spec.clone().unwrap_or_default();
    let verify: Result<Vec<Endpoint>, _> = form.value("verify").split_whitespace().map(str::parse).collect();
    if verify.is_err() {
        wish.complain("verify", "not an endpoint", "[PROTOCOL://]ADDR:PORT[/SNI], for example smtp://127.0.0.1:25");
    }
    if !form.value("dir").starts_with('/') {
        wish.complain("dir", "an absolute directory is needed", "one that the agent's policy allows");
    }
    let after = TargetSpec {
        dir: form.value("dir").to_owned(),
        files: files(&before, form, &mut wish),
        validate: commands("validate", form, &mut wish),
        reload: commands("reload", form, &mut wish),
        verify: verify.unwrap_or_else(|_| before.verify.clone()),
        on_drift: on_drift_of(form.chosen("drift")).map_or(before.on_drift, Into::into),
        ..before.clone()
    };
    let changes = target_changes(&before, &after);
    if changes.is_empty() && wish.complaints.is_empty() {
        return wish;
    }
    wish.command = command(record, &before, &after);
    let now = "It is written, reloaded and proven there at once; nothing is ordered.".to_owned();
    let now = if record.current.is_none() { "It counts from the first version on.".to_owned() } else { now };
    wish.effects = changes.into_iter().chain([now]).collect();
    wish.call = Some(Call::SetTarget(Box::new(SetTargetRequest {
        certificate: record.name.clone(),
        target_id: target.id.clone(),
        expected_revision: target.revision,
        target: Some(after),
        ..SetTargetRequest::default()
    })));
    wish
}

fn files(before: &TargetSpec, form: &Form, wish: &mut Wish) -> Vec<FileSpec> {
    let touched = |id: &str, was: String| Some(form.value(id).to_owned()).filter(|text| *text != was);
    let owner = touched("owner", common(before, |_| true, |file| file.owner.clone()));
    let modes = [false, true].map(|key| {
        let field = if key { "key_mode" } else { "mode" };
        let text = touched(field, mode_text(before, key))?;
        if mode(&text).is_none() {
            wish.complain(field, "not permission bits", "octal, for example 0640");
        }
        mode(&text)
    });
    let [plain_mode, key_mode] = modes;
    let mut specs = Vec::new();
    for word in words(form.value("files")) {
        let named = word.split_once('=').and_then(|(content, name)| Some((content_of(content)?, name)));
        let Some((content, name)) = named.filter(|(_, name)| !name.is_empty()) else {
            wish.complain(
                "files",
                "not CONTENT=NAME",
                "cert, key, chain, fullchain, combined, pfx or pfx-password, then = and a file name",
            );
            return before.files.clone();
        };
        let wanted = if holds_key(content) { key_mode } else { plain_mode };
        specs.push(file(before, content, name, owner.as_deref(), wanted));
    }
    if specs.is_empty() {
        wish.complain("files", "at least one file is needed", "for example fullchain=fullchain.pem key=key.pem");
    }
    specs
}

/// One file: what was typed, else what a file of this content has now, else what is usual.
fn file(before: &TargetSpec, content: FileContent, name: &str, owner: Option<&str>, mode: Option<u32>) -> FileSpec {
    let like = before.files.iter().find(|file| file.content() == content);
    let had = like.or_else(|| before.files.first()).map(|file| file.owner.as_str());
    FileSpec {
        content: content.into(),
        name: name.to_owned(),
        owner: owner.or(had).unwrap_or_default().to_owned(),
        mode: mode.or_else(|| like.map(|file| file.mode)).unwrap_or_else(|| default_mode(content)),
    }
}

fn commands(field: &'static str, form: &Form, wish: &mut Wish) -> Vec<Command> {
    let Some(typed) = shlex::split(form.value(field)) else {
        wish.complain(field, "a quote is not closed", COMMANDS);
        return Vec::new();
    };
    let argvs: Vec<&[String]> = typed.split(|word| word == BETWEEN).filter(|argv| !argv.is_empty()).collect();
    if argvs.iter().any(|argv| argv.first().is_some_and(|program| !program.starts_with('/'))) {
        wish.complain(field, "not an absolute program", COMMANDS);
    }
    argvs.into_iter().map(|argv| Command { argv: argv.to_vec() }).collect()
}

/// Returns the command that does the same.
fn command(record: &Certificate, before: &TargetSpec, after: &TargetSpec) -> String {
    let mut line = format!("certwright targets set {} --agent {}", record.name, before.agent);
    let mut option = |name: &str, value: String| line.push_str(&format!(" --{name} {}", quoted(&value)));
    let on_agent = |target: &&Target| target.spec.as_ref().is_some_and(|spec| spec.agent == before.agent);
    if record.targets.iter().filter(on_agent).count() > 1 {
        option("dir", before.dir.clone());
    }
    if after.dir != before.dir {
        option("new-dir", after.dir.clone());
    }
    let named = |spec: &TargetSpec| spec.files.iter().map(|file| (file.content, file.name.clone())).collect::<Vec<_>>();
    if named(before) != named(after) {
        named(after)
            .into_iter()
            .for_each(|(content, name)| option("file", format!("{}={name}", file_content(content))));
    }
    for file in &after.files {
        let had = before.files.iter().find(|old| old.content == file.content);
        if had.map_or_else(|| default_mode(file.content()), |old| old.mode) != file.mode {
            option("mode", format!("{}={:04o}", file_content(file.content), file.mode));
        }
    }
    let owner = after.files.first().map(|file| file.owner.clone()).unwrap_or_default();
    if before.files.iter().any(|file| file.owner != owner) && after.files.iter().all(|file| file.owner == owner) {
        option("owner", owner);
    }
    for (name, had, has) in [("validate", &before.validate, &after.validate), ("reload", &before.reload, &after.reload)]
    {
        if had != has {
            has.iter().for_each(|command| option(name, command_words(std::slice::from_ref(command))));
        }
    }
    if before.verify != after.verify {
        after.verify.iter().for_each(|endpoint| option("verify", endpoint.to_string()));
    }
    if on_drift(before.on_drift) != on_drift(after.on_drift) {
        option("drift", on_drift(after.on_drift).to_owned());
    }
    for (name, had, has) in [
        ("validate", before.validate.len(), after.validate.len()),
        ("reload", before.reload.len(), after.reload.len()),
        ("verify", before.verify.len(), after.verify.len()),
    ] {
        if had > 0 && has == 0 {
            line.push_str(&format!(" --no-{name}"));
        }
    }
    line
}
