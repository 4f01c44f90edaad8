//! What follows from what an agent found on its server (features.md N5, N6): for each certificate there, and for each virtual
//! host without one, the certificate and the target that would fit; and what its policy does not allow of that yet. Called by
//! `rpc/operator/detected`.

use proto::presets::Preset;
use proto::types::v1::{Endpoint as WireEndpoint, FoundCertificate, FoundKey, FoundRenewer, FoundSite, Picture};

use super::agent::Policy;
use super::certificate::{Custody, Http01, is_name};
use super::policy::{name_matches, refuse_http01, refuse_target};
use super::target::{Content, Endpoint, File, OnDrift, Protocol, TARGET_ITEMS_MAX, Target};

/// Most endpoints at which one target is proven.
const ENDPOINTS_MAX: usize = 4;
/// Most identifiers of one certificate.
const NAMES_MAX: usize = 100;
/// Bits that a file may have at all, and one with a key.
const MODE_BITS: u32 = 0o644;
const KEY_MODE_BITS: u32 = 0o640;

/// A certificate, or a target, that would fit what was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Suggestion {
    /// Stable while the server stays as it is; unique among those of one agent.
    pub name: String,
    /// What applying it does.
    pub does: Does,
    /// Name of the certificate that it makes or adds to.
    pub certificate: String,
    /// What it covers.
    pub identifiers: Vec<String>,
    /// The service that reads the files, as `proto::presets` calls it; empty when none of ours does.
    pub preset: String,
    /// Without ids.
    pub target: Target,
    /// How challenges would be answered.
    pub http01: Http01,
    /// The files are there already, under these paths.
    pub adopts: bool,
    /// What the server's configuration must say, and the file that says it now; empty when nothing must change.
    pub configure: String,
    /// Where the virtual host stands.
    pub source: String,
    /// What to add to the agent's policy, line by line.
    pub policy: Vec<String>,
    /// What to know before.
    pub warnings: Vec<String>,
    /// What to run on the host first.
    pub first: Vec<String>,
}

/// What applying a suggestion does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Does {
    /// It makes a certificate and its first target.
    Create,
    /// It adds a target to a certificate that is there.
    Add,
    /// Nothing: it is done.
    Present,
}

impl Does {
    /// The word of the wire.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Create => "certificate",
            Self::Add => "target",
            Self::Present => "present",
        }
    }
}

/// A certificate that is managed already.
#[derive(Clone, Debug)]
pub struct Held {
    /// Its name.
    pub name: String,
    /// What it covers.
    pub identifiers: Vec<String>,
    /// Whether its key never leaves its one agent.
    pub custody: Custody,
    /// Directories and file names of its targets on the agent.
    pub places: Vec<(String, Vec<String>)>,
    /// It has a target somewhere.
    pub has_target: bool,
}

/// Returns what would fit, in the order of the picture; what it does and what the policy lacks is not looked at yet.
#[must_use]
pub fn drafts(picture: &Picture, agent_id: &str) -> Vec<Suggestion> {
    let mut found: Vec<Suggestion> = Vec::new();
    let mut done: Vec<&str> = Vec::new();
    let mut add = |draft: Option<Suggestion>| {
        let Some(mut draft) = draft else { return };
        let stem = draft.name.clone();
        let mut number = 1;
        while found.iter().any(|other| other.name == draft.name) {
            number += 1;
            draft.name = format!("{stem}-{number}");
        }
        found.push(draft);
    };
    for site in &picture.sites {
        if site.certificate.is_empty() || done.contains(&site.certificate.as_str()) {
            continue;
        }
        done.push(&site.certificate);
        add(draft(picture, &site.certificate, agent_id));
    }
    for renewer in &picture.renewers {
        if !renewer.certificate.is_empty() && !done.contains(&renewer.certificate.as_str()) {
            done.push(&renewer.certificate);
            add(draft(picture, &renewer.certificate, agent_id));
        }
    }
    for site in picture.sites.iter().filter(|site| site.certificate.is_empty() && !has_tls(picture, site)) {
        // Caddy gets certificates for its sites by itself.
        if !site.names.is_empty() && site.service != "caddy" && !site.listens.is_empty() {
            add(plain(picture, site, agent_id));
        }
    }
    found
}

/// Whether another site answers for a site's names with TLS.
fn has_tls(picture: &Picture, site: &FoundSite) -> bool {
    let others = picture.sites.iter().filter(|other| !other.certificate.is_empty() && other.service == site.service);
    let covered: Vec<&String> = others.flat_map(|other| &other.names).collect();
    site.names.iter().any(|name| covered.iter().any(|known| name_matches(known, name)))
}

/// For a certificate that is there.
fn draft(picture: &Picture, path: &str, agent_id: &str) -> Option<Suggestion> {
    let sites: Vec<&FoundSite> = picture.sites.iter().filter(|site| site.certificate == path).collect();
    let found = picture.certificates.iter().find(|found| found.path == path);
    let names = names(found, &sites);
    let first = names.first()?;
    let renewer = picture.renewers.iter().find(|renewer| is_of(renewer, path, found));
    let preset = sites.first().and_then(|site| Preset::named(&site.service));
    let certificate = called(first);
    let adopted = found.and_then(|found| Some((dir_of(path)?, adopted_files(found, preset)?)));
    let adopts = adopted.is_some();
    let (dir, files) = match adopted {
        Some(adopted) => adopted,
        None => preset_files(preset?, &certificate),
    };
    let target = Target { dir, files, ..target(picture, &sites, agent_id) };
    let configure = preset.filter(|_| !adopts).map(|preset| preset.configuration(&target.dir)).unwrap_or_default();
    let mut warnings = warnings(found, &names, &sites);
    let webroot = renewer.map(|renewer| renewer.webroot.clone()).filter(|webroot| !webroot.is_empty());
    let mut first: Vec<String> = renewer.map(stop).into_iter().collect();
    if adopts {
        first.extend(found.map(unlink).unwrap_or_default());
    }
    if let Some(renewer) = renewer {
        let active = if renewer.is_active {
            "renews it too, by itself"
        } else {
            "knows it too, and was not seen to run by itself"
        };
        warnings.push(format!("{} {active}: two writers of one file", renewer.program));
    }
    Some(Suggestion {
        name: certificate.clone(),
        does: Does::Create,
        http01: webroot.map_or_else(|| http01(picture, &names), Http01::Webroot),
        certificate,
        identifiers: names,
        preset: preset.map(|preset| preset.name.to_owned()).unwrap_or_default(),
        target,
        adopts,
        configure,
        source: sites.first().map(|site| site.source.clone()).unwrap_or_default(),
        policy: Vec::new(),
        warnings,
        first,
    })
}

/// For a virtual host that has no certificate.
fn plain(picture: &Picture, site: &FoundSite, agent_id: &str) -> Option<Suggestion> {
    let preset = Preset::named(&site.service)?;
    let certificate = called(site.names.first()?);
    let (dir, files) = preset_files(preset, &certificate);
    let names = site.names.iter().take(NAMES_MAX).cloned().collect::<Vec<_>>();
    let endpoint = Endpoint { address: preset.verify.to_owned(), server_name: String::new(), protocol: Protocol::Tls };
    let target = Target { dir, files, verify: vec![endpoint], ..target(picture, &[site], agent_id) };
    Some(Suggestion {
        name: certificate.clone(),
        does: Does::Create,
        http01: http01(picture, &names),
        warnings: warnings(None, &names, &[site]),
        configure: preset.configuration(&target.dir),
        certificate,
        identifiers: names,
        preset: preset.name.to_owned(),
        target,
        adopts: false,
        source: site.source.clone(),
        policy: Vec::new(),
        first: Vec::new(),
    })
}

/// The names of the certificate that is there, and those that its sites have besides.
fn names(found: Option<&FoundCertificate>, sites: &[&FoundSite]) -> Vec<String> {
    let mut names: Vec<String> = Vec::new();
    let known = found.iter().flat_map(|found| &found.identifiers);
    for name in known.chain(sites.iter().flat_map(|site| &site.names)).filter(|name| name.contains('.')) {
        let covered = names.iter().any(|known| name_matches(known, name));
        if !covered && names.len() < NAMES_MAX {
            names.push(name.to_ascii_lowercase());
        }
    }
    names
}

fn is_of(renewer: &FoundRenewer, path: &str, found: Option<&FoundCertificate>) -> bool {
    let same_dir = |other: &str| dir_of(other).is_some() && dir_of(other) == dir_of(path);
    let leads = found.map(|found| found.leads_to.as_str()).filter(|leads| !leads.is_empty());
    renewer.certificate == path || (leads.is_some() && same_dir(&renewer.certificate))
}

/// What keeps another renewer from writing the files, and leaves them.
fn stop(renewer: &FoundRenewer) -> String {
    match renewer.program.as_str() {
        "certbot" => {
            let path = format!("/etc/letsencrypt/renewal/{}.conf", renewer.name);
            format!("mv {} {}", shell(&path), shell(&format!("{path}.certwright")))
        }
        _ => format!("/root/.acme.sh/acme.sh --remove -d {}", shell(&renewer.name)),
    }
}

/// What makes files of links, with what they lead to: an agent replaces no link of somebody else's.
fn unlink(found: &FoundCertificate) -> Vec<String> {
    let pairs = [(&found.path, &found.leads_to), (&found.key_path, &found.key_leads_to)];
    let links = pairs.into_iter().filter(|(_, leads_to)| !leads_to.is_empty());
    links.map(|(path, leads_to)| format!("cp -p --remove-destination {} {}", shell(leads_to), shell(path))).collect()
}

/// One word of a shell's.
fn shell(word: &str) -> String {
    let is_plain = |ch: char| ch.is_ascii_alphanumeric() || "/._-+:@".contains(ch);
    if !word.is_empty() && word.chars().all(is_plain) {
        word.to_owned()
    } else {
        format!("'{}'", word.replace('\'', "'\\''"))
    }
}

fn called(name: &str) -> String {
    let name = name.replace("*.", "wildcard.");
    let name: String = name.chars().filter(|ch| ch.is_ascii_alphanumeric() || ".-_".contains(*ch)).take(60).collect();
    if is_name(&name) { name } else { "found".to_owned() }
}

/// The directory of a file, when a target can be there.
fn dir_of(path: &str) -> Option<String> {
    let (dir, name) = path.rsplit_once('/')?;
    let is_whole = dir.split('/').skip(1).all(|part| !matches!(part, "" | "." | ".." | ".certwright"));
    let is_file = !name.is_empty() && !name.starts_with('.') && name.len() <= 200;
    (is_whole && is_file && dir.starts_with('/')).then(|| dir.to_owned())
}

fn file_of(path: &str) -> &str {
    path.rsplit_once('/').map_or(path, |(_, name)| name)
}

/// The files as they are there; nothing when one target cannot write them: in two directories, or without a key.
fn adopted_files(found: &FoundCertificate, preset: Option<&Preset>) -> Option<Vec<File>> {
    let key_mode = preset.map_or(0o600, |preset| preset.key_mode);
    let owner = |owner: &str| if owner == "root:root" { String::new() } else { owner.to_owned() };
    let mode =
        |mode: u32, bits: u32, otherwise: u32| if mode & 0o400 != 0 && mode & !bits == 0 { mode } else { otherwise };
    let key_mode = mode(found.key_mode, KEY_MODE_BITS, key_mode);
    let name = file_of(&found.path).to_owned();
    match found.key() {
        FoundKey::Combined => {
            Some(vec![File { content: Content::Combined, name, owner: owner(&found.key_owner), mode: key_mode }])
        }
        FoundKey::Matches | FoundKey::Differs if dir_of(&found.key_path) == dir_of(&found.path) => {
            let key = file_of(&found.key_path).to_owned();
            let mode = mode(found.mode, MODE_BITS, 0o644);
            Some(vec![
                File { content: Content::Fullchain, name, owner: owner(&found.owner), mode },
                File { content: Content::Key, name: key, owner: owner(&found.key_owner), mode: key_mode },
            ])
        }
        FoundKey::Matches | FoundKey::Differs | FoundKey::Missing | FoundKey::Unreadable => None,
    }
}

fn preset_files(preset: &Preset, certificate: &str) -> (String, Vec<File>) {
    use proto::types::v1::FileContent;
    let file = |(content, name): (FileContent, String)| {
        let content = match content {
            FileContent::Key => Content::Key,
            FileContent::Chain => Content::Chain,
            FileContent::Fullchain => Content::Fullchain,
            FileContent::Combined => Content::Combined,
            FileContent::Pfx => Content::Pfx,
            FileContent::PfxPassword => Content::PfxPassword,
            FileContent::Cert | FileContent::Unspecified => Content::Cert,
        };
        let mode = if content.holds_key() { preset.key_mode } else { 0o644 };
        File { content, name, owner: preset.owner.to_owned(), mode }
    };
    (preset.dir_of(certificate), preset.files_of(certificate).map(file).collect())
}

/// The commands and endpoints of every service that reads the files.
fn target(picture: &Picture, sites: &[&FoundSite], agent_id: &str) -> Target {
    let (mut validate, mut reload, mut verify) = (Vec::new(), Vec::new(), Vec::new());
    let mut seen: Vec<&str> = Vec::new();
    for site in sites {
        let endpoints = site.listens.iter().filter_map(|listen| listen.parse::<WireEndpoint>().ok());
        for endpoint in endpoints.filter_map(endpoint) {
            if verify.len() < ENDPOINTS_MAX && !verify.contains(&endpoint) {
                verify.push(endpoint);
            }
        }
        let Some(preset) = Preset::named(&site.service).filter(|_| !seen.contains(&site.service.as_str())) else {
            continue;
        };
        seen.push(&site.service);
        let unit = picture.services.iter().find(|one| one.preset == preset.name).filter(|one| one.is_running);
        let words = |argv: &[&str]| argv.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>();
        let (check, again) = match unit.map(|one| one.unit.as_str()) {
            // On other systems than Debian's it may be called otherwise.
            Some("httpd") => (vec!["/usr/sbin/httpd".to_owned(), "-t".to_owned()], with_unit(preset, "httpd")),
            Some("") if !preset.reload_alone.is_empty() => (words(preset.validate), words(preset.reload_alone)),
            Some(unit) if !unit.is_empty() => (words(preset.validate), with_unit(preset, unit)),
            _ => (words(preset.validate), words(preset.reload)),
        };
        validate.extend(Some(check).filter(|argv| !argv.is_empty()));
        reload.push(again);
    }
    Target {
        id: String::new(),
        certificate_id: String::new(),
        agent_id: agent_id.to_owned(),
        dir: String::new(),
        files: Vec::new(),
        validate,
        reload,
        verify,
        deploy_wish: 0,
        released: None,
        on_drift: OnDrift::Repair,
    }
}

/// `systemctl reload UNIT` for the unit that was found; one that only serves instances is reloaded by its own name.
fn with_unit(preset: &Preset, unit: &str) -> Vec<String> {
    let mut words: Vec<String> = preset.reload.iter().map(|word| (*word).to_owned()).collect();
    let is_systemctl = words.first().is_some_and(|program| program.ends_with("/systemctl"));
    if let Some(last) = words.last_mut().filter(|_| is_systemctl && !unit.contains('@')) {
        *last = unit.to_owned();
    }
    words
}

fn endpoint(wire: WireEndpoint) -> Option<Endpoint> {
    use proto::types::v1::VerifyProtocol as P;
    let protocol = match wire.protocol() {
        P::Tls => Protocol::Tls,
        P::Smtp => Protocol::Smtp,
        P::Imap => Protocol::Imap,
        P::Pop3 => Protocol::Pop3,
        P::Xmpp => Protocol::Xmpp,
        P::Ldap => Protocol::Ldap,
        P::Postgres => Protocol::Postgres,
    };
    (wire.address.len() <= 300).then_some(Endpoint { address: wire.address, server_name: wire.server_name, protocol })
}

/// Where port 80 is held, by the files of who holds it; else by a listener of the agent's.
fn http01(picture: &Picture, names: &[String]) -> Http01 {
    let is_plain =
        |site: &&FoundSite| site.listens.iter().any(|listen| listen.starts_with("http://") && listen.ends_with(":80"));
    let fits = |site: &&FoundSite| names.iter().any(|name| site.names.contains(name));
    let challenges = |site: &FoundSite| Some(site.challenges.clone()).filter(|dir| !dir.is_empty());
    let root = |site: &FoundSite| Some(site.root.clone()).filter(|dir| !dir.is_empty());
    let plain: Vec<&FoundSite> = picture.sites.iter().filter(is_plain).collect();
    let own = || plain.iter().copied().filter(|site| fits(site));
    let served = own().find_map(challenges).or_else(|| own().filter(|site| !site.redirects).find_map(root));
    // A CA follows a redirect to the same host's site with TLS.
    let followed = || picture.sites.iter().filter(|site| fits(site) && !site.redirects).find_map(root);
    // A host that has no site of its own on port 80 is answered by the first one.
    let first = || plain.first().copied().filter(|site| !site.redirects).and_then(root);
    match served.or_else(followed).or_else(first) {
        Some(dir) if !plain.is_empty() => Http01::Webroot(dir),
        _ => Http01::Standalone(80),
    }
}

fn warnings(found: Option<&FoundCertificate>, names: &[String], sites: &[&FoundSite]) -> Vec<String> {
    let mut warnings = Vec::new();
    if let Some(name) = names.iter().find(|name| name.starts_with("*.")) {
        warnings.push(format!("{name} is a wildcard: HTTP-01 cannot prove it; a private CA can certify it"));
    }
    match found {
        Some(found) if !found.problem.is_empty() => {
            warnings.push(format!("{} could not be read: {}", found.path, found.problem));
        }
        Some(found) if found.key() == FoundKey::Differs => {
            warnings.push(format!("{} is not the key of {}", found.key_path, found.path));
        }
        Some(found) if found.key() == FoundKey::Unreadable => {
            warnings.push(format!(
                "the key {} has a passphrase or is of an unknown kind: new files are written elsewhere",
                found.key_path
            ));
        }
        _ => {}
    }
    if sites.iter().any(|site| site.service == "caddy" && !site.certificate.is_empty()) {
        warnings.push("Caddy can get this certificate by itself, if its line `tls` is removed".to_owned());
    }
    warnings
}

/// Says what each one does beside what is managed already, and what the agent's policy lacks for it.
#[must_use]
pub fn settle(drafts: Vec<Suggestion>, held: &[Held], policy: &Policy) -> Vec<Suggestion> {
    drafts.into_iter().map(|draft| settled(draft, held, policy)).collect()
}

fn settled(mut one: Suggestion, held: &[Held], policy: &Policy) -> Suggestion {
    let names: Vec<&String> = one.target.files.iter().map(|file| &file.name).collect();
    let is_there =
        |(dir, files): &(String, Vec<String>)| *dir == one.target.dir && names.iter().any(|name| files.contains(name));
    let there = held.iter().find(|held| held.places.iter().any(is_there));
    let same = held.iter().find(|held| is_same(&held.identifiers, &one.identifiers));
    if let Some(held) = there {
        (one.does, one.certificate) = (Does::Present, held.name.clone());
    } else if let Some(held) = same {
        (one.does, one.certificate) = (Does::Add, held.name.clone());
        if held.custody == Custody::Agent && held.has_target {
            one.warnings.push(format!(
                "the key of {0} never leaves its one agent: first certwright certs set {0} --custody controller",
                held.name
            ));
        }
    } else {
        let stem = one.certificate.clone();
        let mut number = 1;
        while held.iter().any(|held| held.name == one.certificate) {
            number += 1;
            one.certificate = format!("{stem}-{number}");
        }
    }
    if one.does != Does::Present {
        one.policy = lacking(policy, &one);
    }
    one
}

fn is_same(left: &[String], right: &[String]) -> bool {
    left.len() == right.len() && left.iter().all(|name| right.contains(name))
}

/// The lines that the policy lacks, as they stand in its file.
fn lacking(policy: &Policy, one: &Suggestion) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    let refusals = refuse_target(policy, &one.target, &one.identifiers, Custody::Agent);
    if refusals.iter().any(|refusal| !matches!(refusal.field, "validate" | "reload" | "custody")) {
        let mut owners: Vec<String> = vec!["root:root".to_owned()];
        owners.extend(one.target.files.iter().map(|file| file.owner.clone()).filter(|owner| !owner.is_empty()));
        owners.dedup();
        let files: Vec<String> = one.target.files.iter().take(TARGET_ITEMS_MAX).map(|file| file.name.clone()).collect();
        lines.extend([
            "[[dir]]".to_owned(),
            format!("path = {}", quoted(&one.target.dir)),
            format!("names = {}", list(&one.identifiers)),
            format!("files = {}", list(&files)),
            format!("owners = {}", list(&owners)),
            "key_mode_max = \"0640\"".to_owned(),
        ]);
    }
    for argv in one.target.validate.iter().chain(&one.target.reload).filter(|argv| !policy.commands.contains(argv)) {
        lines.extend(["[[command]]".to_owned(), format!("argv = {}", list(argv)), "timeout = \"30s\"".to_owned()]);
    }
    if refusals.iter().any(|refusal| refusal.field == "custody") {
        lines.extend(["[key]".to_owned(), "custody = [\"agent\", \"controller\"]".to_owned()]);
    }
    // A table stands once in the file: its lines take the place of those that are there.
    if refuse_http01(policy, &one.http01).is_some() {
        let (mut ports, mut webroots) = (policy.http01_ports.clone(), policy.webroots.clone());
        match &one.http01 {
            Http01::Standalone(port) => ports.push(*port),
            Http01::Webroot(dir) => webroots.push(dir.clone()),
        }
        let ports: Vec<String> = ports.iter().map(u16::to_string).collect();
        lines.extend([
            "[http01]".to_owned(),
            format!("ports = [{}]", ports.join(", ")),
            format!("webroots = {}", list(&webroots)),
        ]);
    }
    lines
}

fn list(items: &[String]) -> String {
    let items: Vec<String> = items.iter().map(|item| quoted(item)).collect();
    format!("[{}]", items.join(", "))
}

/// A TOML string.
fn quoted(text: &str) -> String {
    format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""))
}

#[cfg(test)]
mod tests;
