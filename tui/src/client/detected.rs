//! What an agent found on its server, and what is suggested for it, in lines that the command line and the dashboard show.

use proto::clock::from_wire;
use proto::operator::v1::{Detected, Suggestion, TargetSpec};
use proto::types::v1::{
    Command, FileSpec, FoundCertificate, FoundKey, FoundRenewer, FoundService, FoundSite, Http01, OnDrift, http01,
};

use super::words::file_content;

/// Lines of one kind that no reader should need more of; JSON has them all.
const LINES_MAX: usize = 200;

/// One line of what was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DetectedLine {
    /// A section begins.
    Section(String),
    /// A thing.
    Text(String),
    /// What is said of it.
    Below(String),
}

impl DetectedLine {
    /// Returns its words.
    #[must_use]
    pub fn text(&self) -> &str {
        match self {
            Self::Section(text) | Self::Text(text) | Self::Below(text) => text,
        }
    }
}

/// Returns what was found line by line.
#[must_use]
pub fn detected_lines(found: &Detected) -> Vec<DetectedLine> {
    let picture = found.picture.clone().unwrap_or_default();
    let mut lines = vec![DetectedLine::Text(format!("os  {}", picture.os))];
    let mut section = |title: &str, texts: Vec<DetectedLine>| {
        if !texts.is_empty() {
            lines.push(DetectedLine::Section(title.to_owned()));
            lines.extend(texts.into_iter().take(LINES_MAX));
        }
    };
    section("services", picture.services.iter().map(|one| DetectedLine::Text(service_words(one))).collect());
    section("sites", picture.sites.iter().flat_map(site_lines).collect());
    let certificates = picture.certificates.iter().flat_map(certificate_lines);
    section("certificates", certificates.collect());
    section("renewed by others", picture.renewers.iter().map(|one| DetectedLine::Text(renewer_words(one))).collect());
    section("notes", picture.notes.iter().map(|note| DetectedLine::Text(note.clone())).collect());
    section("suggestions", found.suggestions.iter().flat_map(suggestion_lines).collect());
    lines
}

fn service_words(one: &FoundService) -> String {
    let how = match (one.is_running, one.unit.as_str()) {
        (false, _) => "does not run".to_owned(),
        (true, "") => "runs, not as a unit of systemd".to_owned(),
        (true, unit) => format!("runs as {unit}.service"),
    };
    format!("{}  {how}", one.preset)
}

fn site_lines(one: &FoundSite) -> Vec<DetectedLine> {
    let names = if one.names.is_empty() { "(no name)".to_owned() } else { one.names.join(" ") };
    let mut said = vec![one.listens.join(" ")];
    said.extend(Some(format!("root {}", one.root)).filter(|_| !one.root.is_empty()));
    said.extend(Some("WordPress".to_owned()).filter(|_| one.wordpress));
    said.extend(Some("redirects".to_owned()).filter(|_| one.redirects));
    said.extend(Some(one.certificate.clone()).filter(|path| !path.is_empty()));
    vec![DetectedLine::Text(format!("{}  {names}  {}", one.service, one.source)), DetectedLine::Below(said.join("  "))]
}

fn certificate_lines(one: &FoundCertificate) -> Vec<DetectedLine> {
    let what = match one.problem.as_str() {
        "" => format!("{}  expires {}  key {}", one.identifiers.join(" "), date(one.not_after), found_key(one)),
        problem => problem.to_owned(),
    };
    vec![DetectedLine::Text(one.path.clone()), DetectedLine::Below(what)]
}

fn renewer_words(one: &FoundRenewer) -> String {
    let active = if one.is_active { "renews by itself" } else { "was not seen to run by itself" };
    format!("{} {}  {active}  {}", one.program, one.name, one.certificate)
}

/// Returns one suggestion as a difference: what would be there that is not there now.
#[must_use]
pub fn suggestion_lines(one: &Suggestion) -> Vec<DetectedLine> {
    let below = |text: String| DetectedLine::Below(text);
    if one.kind == "present" {
        return vec![DetectedLine::Text(format!("= {}  certificate {} is deployed there", one.name, one.certificate))];
    }
    let how = if one.adopts { "takes over the files that are there" } else { "new files" };
    let mut lines = vec![DetectedLine::Text(format!("+ {}  {how}", one.name))];
    if one.kind == "certificate" {
        lines.push(below(format!("+ certificate {} for {}", one.certificate, one.identifiers.join(", "))));
        lines.extend(one.http01.as_ref().map(|http01| below(format!("+ http-01 {}", http01_words(http01)))));
    } else {
        lines.push(below(format!("= certificate {}", one.certificate)));
    }
    if let Some(spec) = &one.target {
        lines.push(below(format!("+ target {} on {}", spec.dir, spec.agent)));
        lines.extend(target_lines(spec).into_iter().map(|line| below(format!("+   {line}"))));
    }
    if !one.configure.is_empty() {
        lines.push(below(format!("then in {}: {}", one.source, one.configure)));
    }
    lines.extend(one.warnings.iter().map(|warning| below(format!("! {warning}"))));
    lines.extend(one.first.iter().map(|command| below(format!("first, as root on the host: {command}"))));
    if !one.policy.is_empty() {
        lines.push(below("the agent's policy lacks, as root on the host:".to_owned()));
        lines.extend(one.policy.iter().map(|line| below(format!("  {line}"))));
    }
    lines
}

/// Returns the word for how the key beside a certificate was found.
#[must_use]
pub fn found_key(one: &FoundCertificate) -> &'static str {
    match one.key() {
        FoundKey::Missing => "missing",
        FoundKey::Matches => "matches",
        FoundKey::Combined => "combined",
        FoundKey::Differs => "differs",
        FoundKey::Unreadable => "unreadable",
    }
}

/// Returns how challenges are answered, as `--http01` spells it.
#[must_use]
pub fn http01_words(http01: &Http01) -> String {
    match &http01.mode {
        Some(http01::Mode::StandalonePort(port)) => format!("standalone:{port}"),
        Some(http01::Mode::Webroot(dir)) => format!("webroot:{dir}"),
        None => String::new(),
    }
}

/// Returns what a target writes, runs and proves, a line each.
#[must_use]
pub fn target_lines(spec: &TargetSpec) -> Vec<String> {
    let file = |file: &FileSpec| {
        let owner = if file.owner.is_empty() { String::new() } else { format!(" {}", file.owner) };
        format!("{}={} {:04o}{owner}", file_content(file.content), file.name, file.mode)
    };
    let files: Vec<String> = spec.files.iter().map(file).collect();
    let mut lines = Vec::new();
    if !files.is_empty() {
        lines.push(format!("files: {}", files.join(", ")));
    }
    lines.extend(spec.validate.iter().map(|Command { argv }| format!("validate: {}", argv.join(" "))));
    lines.extend(spec.reload.iter().map(|Command { argv }| format!("reload: {}", argv.join(" "))));
    lines.extend(spec.verify.iter().map(|endpoint| format!("verify: {endpoint}")));
    if spec.on_drift() == OnDrift::Show {
        lines.push("drift: only shown".to_owned());
    }
    lines
}

fn date(at: i64) -> String {
    from_wire(at).map_or_else(|| "-".to_owned(), |at| at.strftime("%F").to_string())
}
