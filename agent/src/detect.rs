//! PURE: what a server looks like, read from the texts of its configurations. Every text may be anybody's: whatever is in
//! it, a parser ends, never panics, and gives no more than its limits. `apply::detect` reads the texts and fills in what
//! only the disk knows. Nothing of a private key ever comes in here.

use std::collections::BTreeMap;

use proto::text::one_line;
use serde::{Deserialize, Serialize};

pub(crate) mod apache;
pub(crate) mod blocks;
pub(crate) mod haproxy;
pub(crate) mod nginx;
pub(crate) mod processes;
pub(crate) mod renewer;
pub(crate) mod settings;

/// Most sites, certificates and renewers of one server that are told.
const SITES_MAX: usize = 400;
/// Most names and listening addresses of one site.
const NAMES_MAX: usize = 50;
const LISTENS_MAX: usize = 8;
/// Most notes.
const NOTES_MAX: usize = 32;
/// Longest text of one field, characters; a path has at most 1024 (`target`).
const TEXT_CHARS_MAX: usize = 1024;
/// Largest picture as it is told, bytes.
const BYTES_MAX: usize = 256 * 1024;

/// What was found on this server.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Picture {
    /// As /etc/os-release calls it: "Debian GNU/Linux 12 (bookworm)".
    pub(crate) os: String,
    pub(crate) services: Vec<Service>,
    pub(crate) sites: Vec<Site>,
    pub(crate) certificates: Vec<Certificate>,
    pub(crate) renewers: Vec<Renewer>,
    /// What could not be looked at, and what would allow it.
    pub(crate) notes: Vec<String>,
}

/// A server program that is installed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Service {
    /// As in `proto::presets`.
    pub(crate) preset: String,
    /// The unit of systemd it runs as, without ".service"; empty when it runs as none.
    pub(crate) unit: String,
    pub(crate) is_running: bool,
}

/// A virtual host, or whatever has a certificate of its own.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Site {
    /// As in `proto::presets`.
    pub(crate) service: String,
    pub(crate) names: Vec<String>,
    /// As an endpoint is spelled, from here; "http://ADDRESS" where no TLS is spoken.
    pub(crate) listens: Vec<String>,
    /// Paths; empty where there is none.
    pub(crate) certificate: String,
    pub(crate) key: String,
    pub(crate) root: String,
    /// Where requests for challenges are answered from, when it is another place than `root`.
    pub(crate) challenges: String,
    /// Every request is sent elsewhere.
    pub(crate) redirects: bool,
    pub(crate) wordpress: bool,
    /// The file it stands in.
    pub(crate) source: String,
}

/// A certificate file that a site or a renewer names.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Certificate {
    pub(crate) path: String,
    /// Where the path leads when it is a symbolic link.
    pub(crate) leads_to: String,
    pub(crate) key_path: String,
    /// Likewise of the key's.
    pub(crate) key_leads_to: String,
    pub(crate) key: KeyState,
    /// Certificates in the file.
    pub(crate) chain_len: u32,
    pub(crate) identifiers: Vec<String>,
    pub(crate) issuer_cn: String,
    /// Unix milliseconds; 0 when it could not be read.
    pub(crate) not_after: i64,
    /// Lower-case hex.
    pub(crate) fingerprint_sha256: String,
    /// "user:group" and permission bits of the file with the key; empty and 0 when there is none.
    pub(crate) key_owner: String,
    pub(crate) key_mode: u32,
    pub(crate) owner: String,
    pub(crate) mode: u32,
    /// Why it could not be read.
    pub(crate) problem: String,
}

/// How the key beside a certificate was found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum KeyState {
    #[default]
    Missing,
    /// It is the certificate's key, in a file of its own.
    Matches,
    /// The same, in the certificate's own file.
    Combined,
    /// It is another certificate's key.
    Differs,
    /// It is protected by a passphrase, or of an unknown kind.
    Unreadable,
}

/// Another program that renews certificates here.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Renewer {
    /// "certbot" or "acme.sh".
    pub(crate) program: String,
    /// What it calls the certificate.
    pub(crate) name: String,
    pub(crate) certificate: String,
    pub(crate) key: String,
    /// Where it answers challenges, when it does so by files.
    pub(crate) webroot: String,
    /// It renews by itself: a timer or a cron job of it is there.
    pub(crate) is_active: bool,
}

/// Texts by their paths.
pub(crate) type Texts = BTreeMap<String, String>;

/// Reads the sites of one service from its texts. `dump` is what the program itself printed, empty where it was not asked.
pub(crate) fn sites(service: &str, dump: &str, texts: &Texts) -> Vec<Site> {
    let mut sites = match service {
        "nginx" => nginx::sites(dump, texts),
        "apache" => apache::sites(texts),
        "haproxy" => haproxy::sites(texts),
        "caddy" => blocks::caddy(texts),
        "dovecot" => blocks::dovecot(dump, texts),
        "prosody" => settings::prosody(texts),
        other => settings::sites(other, dump, texts),
    };
    for site in &mut sites {
        site.service = service.to_owned();
    }
    sites
}

impl Site {
    /// Adds a name that a certificate may have; others (`_`, patterns) are passed over.
    pub(crate) fn add_name(&mut self, name: &str) {
        let name = name.trim_end_matches('.').to_ascii_lowercase();
        if self.names.len() < NAMES_MAX && is_name(&name) && !self.names.contains(&name) {
            self.names.push(name);
        }
    }

    pub(crate) fn add_listen(&mut self, listen: String) {
        if self.listens.len() < LISTENS_MAX && !self.listens.contains(&listen) {
            self.listens.push(listen);
        }
    }
}

/// Whether a certificate may have this name: a host name, maybe with a wildcard in front.
pub(crate) fn is_name(name: &str) -> bool {
    let host = name.strip_prefix("*.").unwrap_or(name);
    let label = |label: &str| {
        (1..=63).contains(&label.len())
            && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_')
    };
    host.len() <= 253 && host.contains('.') && host.split('.').all(label)
}

/// Returns a path as it may be told: absolute, without what a program would put into it.
pub(crate) fn path(text: &str, base: &str) -> String {
    let is_whole = text.is_empty() || text.starts_with('/');
    let text = if is_whole { text.to_owned() } else { format!("{base}/{text}") };
    let is_plain = (is_whole || !base.is_empty())
        && text.len() <= TEXT_CHARS_MAX
        && !text.contains('$')
        && !text.chars().any(char::is_control);
    if is_plain { text } else { String::new() }
}

/// Returns where this server answers at a listening address of its own, as `HOST:PORT`.
pub(crate) fn reachable(host: &str, port: &str) -> Option<String> {
    let port = port.parse::<u16>().ok().filter(|port| *port != 0)?;
    let host = match host {
        "" | "*" | "0.0.0.0" | "_default_" | "default" | "localhost" => "127.0.0.1",
        "[::]" | "::" => "[::1]",
        other => other,
    };
    let address = format!("{host}:{port}");
    address.parse::<proto::types::v1::Endpoint>().is_ok().then_some(address)
}

impl Picture {
    /// Makes it fit to be told: every text sanitised, every list and the whole below its limit.
    pub(crate) fn seal(&mut self) {
        self.sites.sort_by(|a, b| (&a.service, &a.source).cmp(&(&b.service, &b.source)));
        self.sites.dedup();
        self.cut(SITES_MAX);
        self.each_text(|text| *text = one_line(text, TEXT_CHARS_MAX));
        let mut most = SITES_MAX;
        while serde_json::to_vec(self).map_or(usize::MAX, |bytes| bytes.len()) > BYTES_MAX && most > 1 {
            most /= 2;
            self.cut(most);
        }
    }

    fn cut(&mut self, most: usize) {
        let counts = (self.sites.len(), self.certificates.len(), self.renewers.len());
        self.sites.truncate(most);
        self.certificates.truncate(most);
        self.renewers.truncate(most);
        if counts != (self.sites.len(), self.certificates.len(), self.renewers.len()) {
            self.note(format!(
                "only the first {most} are told of {} sites, {} certificates and {} renewals",
                counts.0, counts.1, counts.2
            ));
        }
        self.notes.truncate(NOTES_MAX);
    }

    pub(crate) fn note(&mut self, text: impl Into<String>) {
        let text = text.into();
        if self.notes.len() < NOTES_MAX && !self.notes.contains(&text) {
            self.notes.push(text);
        }
    }

    fn each_text(&mut self, clean: impl Fn(&mut String)) {
        clean(&mut self.os);
        self.notes.iter_mut().for_each(&clean);
        for service in &mut self.services {
            [&mut service.preset, &mut service.unit].into_iter().for_each(&clean);
        }
        for site in &mut self.sites {
            let Site { service, certificate, key, root, challenges, source, names, listens, .. } = site;
            [service, certificate, key, root, challenges, source].into_iter().for_each(&clean);
            names.iter_mut().chain(listens).for_each(&clean);
        }
        for found in &mut self.certificates {
            found.identifiers.truncate(NAMES_MAX * 2);
            let Certificate { path, leads_to, key_path, key_leads_to, issuer_cn, key_owner, owner, problem, .. } =
                found;
            [path, leads_to, key_path, key_leads_to, issuer_cn, key_owner, owner, problem].into_iter().for_each(&clean);
            found.identifiers.iter_mut().for_each(&clean);
        }
        for renewer in &mut self.renewers {
            let Renewer { program, name, certificate, key, webroot, .. } = renewer;
            [program, name, certificate, key, webroot].into_iter().for_each(&clean);
        }
    }
}

/// Returns the system's name from /etc/os-release (os-release(5)).
pub(crate) fn os(text: &str) -> String {
    let value = |wanted: &str| {
        let found = text.lines().find_map(|line| line.strip_prefix(wanted)?.strip_prefix('='));
        found.map(|value| value.trim_matches(['"', '\'']).to_owned())
    };
    value("PRETTY_NAME").or_else(|| value("NAME")).map(|name| one_line(&name, 80)).unwrap_or_default()
}

/// Every parser, for the fuzzer.
#[cfg(any(test, fuzzing))]
pub(crate) fn read_all(text: &str) -> usize {
    let one = |path: &str| Texts::from([(path.to_owned(), text.to_owned())]);
    let mut picture = Picture { os: os(text), ..Picture::default() };
    for preset in proto::presets::PRESETS {
        for dump in ["", text] {
            picture.sites.extend(sites(preset.name, dump, &one("/etc/nginx/nginx.conf")));
        }
    }
    picture.certificates.extend(
        haproxy::certificate_list(text, "/c").into_iter().map(|path| Certificate { path, ..Certificate::default() }),
    );
    picture.renewers.extend(renewer::certbot("x", text));
    picture.renewers.extend(renewer::acme_sh(text));
    picture.notes.extend(apache::files_of(text));
    processes::unit_of(text);
    picture.seal();
    serde_json::to_vec(&picture).map_or(0, |bytes| bytes.len())
}

#[cfg(test)]
mod tests;
