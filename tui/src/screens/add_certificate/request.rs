//! From the wizard's fields to the request, the summary, the exact files and the equivalent command; and from the
//! controller's field names back to fields. Pure. Used by `add_certificate` only.

use proto::operator::v1::{CreateCertificateRequest, TargetSpec};
use proto::presets::Preset;
use proto::types::v1::{Command, Custody, Endpoint, FieldError, FileContent, FileSpec, Http01, OnDrift, http01};

use super::{AUTOMATIC, NO_AGENT, WEBROOT, Wizard};
use crate::client::{content_of, file_content, holds_key, on_drift_of};
use crate::screens::sheet::certificate as sheet;

/// The default files, as the field shows them (features.md D2).
pub(super) const FILES_DEFAULT: &str = "cert=cert.pem key=key.pem chain=chain.pem fullchain=fullchain.pem";
const MODE_DEFAULT: u32 = 0o644;
const KEY_MODE_DEFAULT: u32 = 0o600;
const MODE_MAX: u32 = 0o777;

/// Returns the names in a text, split at spaces and commas, in their order.
pub(super) fn identifiers(text: &str) -> Vec<String> {
    text.split([' ', ',', ';']).map(str::trim).filter(|name| !name.is_empty()).map(str::to_owned).collect()
}

/// Returns the files of a service, as the field shows them.
pub(super) fn files_of(service: &Preset, name: &str) -> String {
    let files = service.files_of(name).map(|(content, name)| format!("{}={name}", file_content(content.into())));
    files.collect::<Vec<_>>().join(" ")
}

/// Returns an argv as one line that reads back as the same argv.
pub(super) fn joined(argv: &[String]) -> String {
    argv.iter().map(|word| quoted(word)).collect::<Vec<_>>().join(" ")
}

fn quoted(word: &str) -> String {
    // A NUL cannot stand in an argument at all; the controller refuses it at its field.
    shlex::try_quote(word).map_or_else(|_| word.replace('\0', ""), std::borrow::Cow::into_owned)
}

/// Returns the step and field that the controller's name of a request field means.
pub(super) fn place_of(field: &str) -> (usize, &'static str) {
    let plain = field.rsplit('.').next().unwrap_or(field);
    let plain = plain.split('[').next().unwrap_or(plain);
    let whole = field.split(['.', '[']).next().unwrap_or(field);
    for word in [plain, whole] {
        match word.trim_start_matches("--").replace('-', "_").as_str() {
            "identifiers" | "identifier" | "san" | "sans" => return (0, "identifiers"),
            "http01" | "challenge" => return (1, "http01"),
            "standalone_port" | "port" => return (1, "http01_port"),
            "webroot" => return (1, "http01_webroot"),
            "responders" | "responder" => return (1, "responders"),
            "issuer" => return (2, "issuer"),
            "key_type" | "key" => return (2, "key_type"),
            "custody" => return (2, "custody"),
            "fallbacks" | "fallback" => return (2, "fallbacks"),
            "profile" => return (2, "profile"),
            "agent" => return (3, "agent"),
            "dir" => return (3, "dir"),
            "files" | "file" => return (3, "files"),
            "owner" => return (3, "owner"),
            "mode" => return (3, "key_mode"),
            "validate" => return (3, "validate"),
            "reload" => return (3, "reload"),
            "verify" => return (3, "verify"),
            "drift" => return (3, "drift"),
            "target" => return (3, "agent"),
            "name" => return (0, "name"),
            _ => {}
        }
    }
    (usize::MAX, "")
}

fn complaint(field: &str, message: &str, hint: &str) -> FieldError {
    FieldError { field: field.to_owned(), message: message.to_owned(), hint: hint.to_owned() }
}

/// Returns what is wrong with a step as far as it can be seen here; the controller sees the rest.
pub(super) fn complaints(wizard: &Wizard, step: usize) -> Vec<FieldError> {
    let mut found = Vec::new();
    match step {
        0 => {
            let names = identifiers(wizard.value(0, "identifiers"));
            if names.is_empty() {
                found.push(complaint("identifiers", "at least one name is needed", "for example www.example.com"));
            } else if let Some(wild) = names.iter().find(|name| name.starts_with("*.")) {
                let message = format!("{wild} cannot be proven over HTTP-01");
                found.push(complaint("identifiers", &message, "name each host"));
            }
        }
        1 if wizard.chosen(1, "http01") == WEBROOT => {
            let absolute = wizard.value(1, "http01_webroot").starts_with('/');
            let wrong = complaint("http01_webroot", "an absolute directory is needed", "for example /var/www/html");
            found.extend((!absolute).then_some(wrong));
        }
        1 => {
            let wrong = complaint("http01_port", "not a port", "a number from 1 to 65535, usually 80");
            found.extend(port(wizard).is_none().then_some(wrong));
        }
        2 if wizard.chosen(2, "issuer").is_empty() => {
            found.push(complaint("issuer", "an issuer is needed", "0, then n: add one"));
        }
        3 if wizard.target_agent().is_some() => found.extend(target_complaints(wizard)),
        _ => {}
    }
    found
}

fn target_complaints(wizard: &Wizard) -> Vec<FieldError> {
    let mut found = Vec::new();
    if !wizard.value(3, "dir").starts_with('/') {
        found.push(complaint("dir", "an absolute directory is needed", "one that the agent's policy allows"));
    }
    if let Err(word) = named_files(wizard) {
        let message = format!("`{word}` is not CONTENT=NAME");
        found.push(complaint(
            "files",
            &message,
            "cert, key, chain, fullchain, combined, pfx or pfx-password, then = and a file name",
        ));
    }
    for id in ["mode", "key_mode"] {
        if mode(wizard.value(3, id)).is_none() {
            found.push(complaint(id, "not permission bits", "octal, for example 0640"));
        }
    }
    for text in wizard.value(3, "verify").split_whitespace() {
        if let Err(error) = text.parse::<Endpoint>() {
            let hint = "[PROTOCOL://]ADDR:PORT[/SNI], for example smtp://127.0.0.1:25";
            found.push(complaint("verify", &format!("`{text}`: {error}"), hint));
            break;
        }
    }
    found
}

fn port(wizard: &Wizard) -> Option<u16> {
    wizard.value(1, "http01_port").parse().ok().filter(|port| *port > 0)
}

fn mode(text: &str) -> Option<u32> {
    u32::from_str_radix(text, 8).ok().filter(|mode| *mode <= MODE_MAX)
}

/// Reads `cert=NAME key=NAME …`; the word that is none of these is the error.
fn named_files(wizard: &Wizard) -> Result<Vec<(FileContent, String)>, String> {
    let words = identifiers(wizard.value(3, "files"));
    let read = words.into_iter().map(|word| {
        let (content, name) = word.split_once('=').ok_or_else(|| word.clone())?;
        let content = content_of(content).ok_or_else(|| word.clone())?;
        if name.is_empty() { Err(word.clone()) } else { Ok((content, name.to_owned())) }
    });
    read.collect()
}

fn file_specs(wizard: &Wizard) -> Vec<FileSpec> {
    let owner = wizard.value(3, "owner").to_owned();
    let modes = (
        mode(wizard.value(3, "mode")).unwrap_or(MODE_DEFAULT),
        mode(wizard.value(3, "key_mode")).unwrap_or(KEY_MODE_DEFAULT),
    );
    let specs = named_files(wizard).unwrap_or_default().into_iter().map(|(content, name)| FileSpec {
        content: content.into(),
        name,
        owner: owner.clone(),
        mode: if holds_key(content) { modes.1 } else { modes.0 },
    });
    specs.collect()
}

/// Whether the files are the default ones, which the request leaves out.
fn files_are_default(wizard: &Wizard) -> bool {
    wizard.value(3, "files") == FILES_DEFAULT
        && wizard.value(3, "owner").is_empty()
        && mode(wizard.value(3, "mode")) == Some(MODE_DEFAULT)
        && mode(wizard.value(3, "key_mode")) == Some(KEY_MODE_DEFAULT)
}

/// The picked commands of a field, each as one line.
fn picked(wizard: &Wizard, field: &str) -> Vec<String> {
    wizard.form(3).map(|form| form.picked(field)).unwrap_or_default()
}

fn commands(wizard: &Wizard, field: &str) -> Vec<Command> {
    picked(wizard, field).iter().map(|line| Command { argv: shlex::split(line).unwrap_or_default() }).collect()
}

fn responders(wizard: &Wizard) -> Vec<String> {
    wizard.form(1).map(|form| form.picked("responders")).unwrap_or_default()
}

fn fallbacks(wizard: &Wizard) -> Vec<String> {
    identifiers(wizard.value(2, "fallbacks"))
}

fn profile(wizard: &Wizard) -> String {
    wizard.form(2).map(sheet::profile).unwrap_or_default()
}

fn reuses_key(wizard: &Wizard) -> bool {
    wizard.chosen(2, "reuse_key") == sheet::SAME_KEY
}

/// Who signs, in one line: the issuer, its profile, who is asked when it fails.
fn signers(wizard: &Wizard) -> String {
    let issuer = wizard.chosen(2, "issuer");
    let mut said = vec![if issuer.is_empty() { "not chosen".to_owned() } else { issuer.to_owned() }];
    said.extend(Some(profile(wizard)).filter(|name| !name.is_empty()).map(|name| format!("profile {name}")));
    said.extend(
        Some(fallbacks(wizard).join(", ")).filter(|names| !names.is_empty()).map(|names| format!("then {names}")),
    );
    said.join(", ")
}

fn target(wizard: &Wizard) -> Option<TargetSpec> {
    let agent = wizard.target_agent()?;
    let verify = wizard.value(3, "verify").split_whitespace().filter_map(|text| text.parse::<Endpoint>().ok());
    Some(TargetSpec {
        agent: agent.name.clone(),
        dir: wizard.value(3, "dir").to_owned(),
        files: if files_are_default(wizard) { Vec::new() } else { file_specs(wizard) },
        validate: commands(wizard, "validate"),
        reload: commands(wizard, "reload"),
        verify: verify.collect(),
        on_drift: on_drift_of(wizard.chosen(3, "drift")).unwrap_or_default().into(),
    })
}

/// Returns the request for the draft.
pub(super) fn request(wizard: &Wizard, request_id: String, dry_run: bool) -> CreateCertificateRequest {
    let key_type = sheet::key_type_of(wizard.chosen(2, "key_type"));
    let custody = match wizard.chosen(2, "custody") {
        "agent" => Custody::Agent,
        "controller" => Custody::Controller,
        _ => Custody::Unspecified,
    };
    let mode = if wizard.chosen(1, "http01") == WEBROOT {
        http01::Mode::Webroot(wizard.value(1, "http01_webroot").to_owned())
    } else {
        http01::Mode::StandalonePort(u32::from(port(wizard).unwrap_or(80)))
    };
    CreateCertificateRequest {
        request_id,
        name: wizard.name(),
        identifiers: identifiers(wizard.value(0, "identifiers")),
        issuer: wizard.chosen(2, "issuer").to_owned(),
        key_type: key_type.into(),
        custody: custody.into(),
        http01: (!wizard.is_private()).then_some(Http01 { mode: Some(mode) }),
        responders: if wizard.is_private() { Vec::new() } else { responders(wizard) },
        target: target(wizard),
        dry_run,
        fallbacks: fallbacks(wizard),
        profile: profile(wizard),
        reuse_key: reuses_key(wizard),
    }
}

/// Returns the draft in words.
pub(super) fn summary(wizard: &Wizard) -> Vec<String> {
    let or = |text: &str, none: &str| if text.is_empty() { none.to_owned() } else { text.to_owned() };
    let names = identifiers(wizard.value(0, "identifiers")).join(" ");
    let way = if wizard.chosen(1, "http01") == WEBROOT {
        format!("files below {}", or(wizard.value(1, "http01_webroot"), "?"))
    } else {
        format!("listens on port {}", or(wizard.value(1, "http01_port"), "?"))
    };
    let who = or(&responders(wizard).join(", "), "the target's agent");
    let custody = match wizard.chosen(2, "custody") {
        AUTOMATIC => "custody automatic".to_owned(),
        custody => format!("custody {custody}"),
    };
    let mut lines = vec![
        format!("Name       {}", or(&wizard.name(), "?")),
        format!("Names      {}", or(&names, "?")),
        if wizard.is_private() { "HTTP-01    not needed".to_owned() } else { format!("HTTP-01    {who} {way}") },
        format!("Issuer     {}", signers(wizard)),
        format!("Key        {}, {}, {custody}", wizard.chosen(2, "key_type"), wizard.chosen(2, "reuse_key")),
    ];
    match wizard.target_agent() {
        None => lines.push(format!("Target     {NO_AGENT}: issued, but nothing uses it")),
        Some(agent) => {
            lines.push(format!("Target     {} on {}", or(wizard.value(3, "dir"), "?"), agent.name));
            lines.push(format!("Validate   {}", or(&picked(wizard, "validate").join("; "), "nothing")));
            lines.push(format!("Reload     {}", or(&picked(wizard, "reload").join("; "), "nothing")));
            lines.push(format!("Verify     {}", or(wizard.value(3, "verify"), "nothing: never shown as ok")));
            lines.extend((wizard.chosen(3, "drift") == "show").then(|| "Drift      only shown".to_owned()));
            let dir = wizard.value(3, "dir").trim_end_matches('/');
            lines.extend(
                wizard.service().map(|service| format!("{} says {}", service.label, service.configuration(dir))),
            );
        }
    }
    lines
}

/// Returns the draft in as few lines as the review has room for.
pub(super) fn review(wizard: &Wizard) -> Vec<String> {
    let request = request(wizard, String::new(), false);
    let summary = summary(wizard);
    let mut lines = vec![format!("{}: {}", request.name, request.identifiers.join(" "))];
    lines.extend(summary.get(2).cloned());
    let pinned = if request.reuse_key { " kept over renewals" } else { "" };
    let (key, custody) = (wizard.chosen(2, "key_type"), wizard.chosen(2, "custody"));
    lines.push(format!("Issuer     {}; key {key}{pinned}, custody {custody}", signers(wizard)));
    lines.extend(summary.into_iter().skip(5).filter(|line| !(line.starts_with("Target") && request.target.is_some())));
    lines
}

/// What a file holds, for people.
fn holds(content: i32) -> &'static str {
    match FileContent::try_from(content) {
        Ok(FileContent::Cert) => "leaf",
        Ok(FileContent::Key) => "private key",
        Ok(FileContent::Chain) => "chain",
        Ok(FileContent::Fullchain) => "leaf and chain",
        Ok(FileContent::Combined) => "leaf, chain and private key",
        Ok(FileContent::Pfx) => "leaf, chain and private key as PKCS #12",
        Ok(FileContent::PfxPassword) => "its password, which the agent makes once",
        Ok(FileContent::Unspecified) | Err(_) => "",
    }
}

/// Returns where files will be written, and then each with its mode, its owner and what it holds.
pub(super) fn file_lines(wizard: &Wizard) -> Vec<String> {
    let Some(agent) = wizard.target_agent() else { return Vec::new() };
    let dir = wizard.value(3, "dir").trim_end_matches('/');
    let owner = match wizard.value(3, "owner") {
        "" => "the agent's user",
        owner => owner,
    };
    let place = format!("on {} in {dir}/", agent.name);
    let files = file_specs(wizard);
    let width = files.iter().map(|spec| spec.name.len()).max().unwrap_or(0);
    let line = |spec: &FileSpec| format!("{:width$}  {:04o}  {owner}  {}", spec.name, spec.mode, holds(spec.content));
    std::iter::once(place).chain(files.iter().map(line)).collect()
}

/// Returns the command that does the same.
pub(super) fn command_line(wizard: &Wizard) -> String {
    let request = request(wizard, String::new(), false);
    let mut words = vec!["certwright".to_owned(), "certs".to_owned(), "create".to_owned(), request.name.clone()];
    let mut option = |name: &str, value: &str| words.extend([format!("--{name}"), value.to_owned()]);
    for identifier in &request.identifiers {
        option("san", identifier);
    }
    option("issuer", &request.issuer);
    for fallback in &request.fallbacks {
        option("fallback", fallback);
    }
    if !request.profile.is_empty() {
        option("profile", &request.profile);
    }
    match wizard.chosen(2, "key_type") {
        "p256" => {}
        key => option("key", key),
    }
    match wizard.chosen(2, "custody") {
        AUTOMATIC => {}
        custody => option("custody", custody),
    }
    if request.reuse_key {
        words.push("--reuse-key".to_owned());
    }
    let mut option = |name: &str, value: &str| words.extend([format!("--{name}"), value.to_owned()]);
    match request.http01.and_then(|http01| http01.mode) {
        Some(http01::Mode::Webroot(dir)) => option("http01", &format!("webroot:{dir}")),
        Some(http01::Mode::StandalonePort(port)) => option("http01", &format!("standalone:{port}")),
        None => {}
    }
    for responder in &request.responders {
        option("responder", responder);
    }
    if let Some(target) = &request.target {
        option("agent", &target.agent);
        option("dir", &target.dir);
        for file in &target.files {
            option("file", &format!("{}={}", file_content(file.content), file.name));
        }
        if !target.files.is_empty() {
            if !wizard.value(3, "owner").is_empty() {
                option("owner", wizard.value(3, "owner"));
            }
            for file in &target.files {
                option("mode", &format!("{}={:04o}", file_content(file.content), file.mode));
            }
        }
        for field in ["validate", "reload"] {
            for line in picked(wizard, field) {
                option(field, &line);
            }
        }
        for endpoint in &target.verify {
            option("verify", &endpoint.to_string());
        }
        if target.on_drift() == OnDrift::Show {
            option("drift", "show");
        }
    }
    joined(&words)
}
