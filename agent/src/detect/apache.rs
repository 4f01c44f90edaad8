//! PURE: virtual hosts of Apache, from the files that `apachectl -D DUMP_VHOSTS` names or that lie where packages put them.

use super::{Site, Texts, path, reachable};

/// Most files a dump may name.
const FILES_MAX: usize = 500;
/// Deepest nesting of sections that is followed.
const DEPTH_MAX: usize = 16;

/// Returns the files that a dump names: "(/etc/apache2/sites-enabled/www.conf:1)".
pub(crate) fn files_of(dump: &str) -> Vec<String> {
    let mut files: Vec<String> = Vec::new();
    for part in dump.split('(').skip(1) {
        let Some((place, _)) = part.split_once(')') else { continue };
        let Some((file, line)) = place.rsplit_once(':') else { continue };
        let is_place = file.starts_with('/') && line.parse::<u32>().is_ok();
        if is_place && files.len() < FILES_MAX && !files.iter().any(|known| known == file) {
            files.push(path(file, ""));
        }
    }
    files.retain(|file| !file.is_empty());
    files
}

/// Returns the virtual hosts of the files.
pub(super) fn sites(texts: &Texts) -> Vec<Site> {
    texts.iter().flat_map(|(source, text)| sites_of(source, text)).collect()
}

fn sites_of(source: &str, text: &str) -> Vec<Site> {
    let mut sites = Vec::new();
    // The sections around a line, and the host that is open.
    let mut around: Vec<String> = Vec::new();
    let mut host: Option<Host> = None;
    for line in joined(text) {
        let words = words(&line);
        let Some(first) = words.first() else { continue };
        if let Some(name) = first.strip_prefix("</") {
            let name = name.trim_end_matches('>').to_ascii_lowercase();
            if name == "virtualhost" {
                sites.extend(host.take().map(Host::into_site));
            }
            if let Some(at) = around.iter().rposition(|open| *open == name) {
                around.truncate(at);
            }
            continue;
        }
        if let Some(name) = first.strip_prefix('<') {
            let name = name.trim_end_matches('>').to_ascii_lowercase();
            if name == "virtualhost" {
                host = Some(Host::new(source, words.get(1..).unwrap_or_default()));
            }
            if around.len() < DEPTH_MAX {
                around.push(name);
            }
            continue;
        }
        // What counts stands in the host itself; conditions around it are taken as true.
        let inside = around.iter().any(|name| !matches!(name.as_str(), "virtualhost" | "ifmodule" | "ifdefine" | "if"));
        if let Some(host) = host.as_mut().filter(|_| !inside) {
            host.read(&first.to_ascii_lowercase(), words.get(1..).unwrap_or_default());
        }
    }
    sites
}

struct Host {
    site: Site,
    addresses: Vec<(String, String)>,
    is_tls: bool,
}

impl Host {
    fn new(source: &str, words: &[String]) -> Self {
        let addresses = words.iter().map(|word| word.trim_end_matches('>')).filter(|word| !word.is_empty());
        let addresses = addresses.map(|word| match word.rsplit_once(':') {
            Some((host, port)) if !port.ends_with(']') => (host.to_owned(), port.to_owned()),
            _ => (word.to_owned(), "80".to_owned()),
        });
        let site = Site { source: source.to_owned(), ..Site::default() };
        Self { site, addresses: addresses.collect(), is_tls: false }
    }

    fn read(&mut self, name: &str, values: &[String]) {
        let value = values.first().map_or("", String::as_str);
        match name {
            "servername" | "serveralias" => {
                for name in values {
                    // `https://www.example.com:443` is allowed.
                    let host = name.rsplit_once("://").map_or(name.as_str(), |(_, host)| host);
                    self.site.add_name(host.split(':').next().unwrap_or_default());
                }
            }
            "sslengine" => self.is_tls = !value.eq_ignore_ascii_case("off"),
            "sslcertificatefile" if self.site.certificate.is_empty() => {
                self.site.certificate = path(value, "/etc/apache2")
            }
            "sslcertificatekeyfile" if self.site.key.is_empty() => self.site.key = path(value, "/etc/apache2"),
            "documentroot" => self.site.root = path(value, "/etc/apache2"),
            "redirect" | "redirectpermanent" => {
                let place = values.iter().find(|value| value.starts_with('/'));
                self.site.redirects |= place.is_some_and(|place| place == "/");
            }
            "redirectmatch" => self.site.redirects = true,
            "rewriterule" => {
                let flags = values.last().filter(|flags| flags.starts_with('['));
                let sends = |flag: &str| flag == "R" || flag.starts_with("R=");
                self.site.redirects |= flags.is_some_and(|flags| flags.trim_matches(['[', ']']).split(',').any(sends));
            }
            _ => {}
        }
    }

    fn into_site(mut self) -> Site {
        for (host, port) in self.addresses {
            let Some(address) = reachable(&host, &port) else { continue };
            self.site.add_listen(if self.is_tls { address } else { format!("http://{address}") });
        }
        if !self.is_tls {
            self.site.certificate.clear();
            self.site.key.clear();
        } else if self.site.key.is_empty() {
            self.site.key.clone_from(&self.site.certificate);
        }
        self.site
    }
}

/// Lines without comments; a backslash at the end joins the next one.
fn joined(text: &str) -> Vec<String> {
    let mut lines = Vec::new();
    let mut line = String::new();
    for part in text.lines() {
        match part.strip_suffix('\\') {
            Some(part) => line.push_str(part),
            None => {
                line.push_str(part);
                let whole = std::mem::take(&mut line);
                if !whole.trim_start().starts_with('#') {
                    lines.push(whole);
                }
            }
        }
    }
    lines
}

/// Words, with quotes taken off.
fn words(line: &str) -> Vec<String> {
    let mut words = Vec::new();
    let mut chars = line.chars().peekable();
    loop {
        while chars.next_if(|ch| ch.is_whitespace()).is_some() {}
        let Some(first) = chars.next() else { return words };
        let quote = Some(first).filter(|ch| matches!(ch, '"' | '\''));
        let mut word: String = if quote.is_some() { String::new() } else { first.to_string() };
        while let Some(ch) = chars.next_if(|ch| quote.is_some() || !ch.is_whitespace()) {
            if Some(ch) == quote {
                break;
            }
            let escaped = quote.is_some() && ch == '\\' && chars.peek().copied() == quote;
            word.extend(if escaped { chars.next() } else { Some(ch) });
        }
        words.push(word);
    }
}
