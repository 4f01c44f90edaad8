//! PURE: configurations in which a certificate is the value of a key: Postfix, Exim, PostgreSQL, slapd, ejabberd, OpenSIPS and
//! Prosody.

use super::{Site, Texts, path};

/// Most sites of one service.
const SITES_MAX: usize = 400;

/// How a service says it.
struct Words {
    service: &'static str,
    certificate: &'static [&'static str],
    key: &'static [&'static str],
    separator: char,
    /// Where it answers.
    listen: &'static str,
    /// Where a path that is not absolute begins.
    base: &'static str,
}

const WORDS: [Words; 4] = [
    Words {
        service: "postfix",
        certificate: &["smtpd_tls_cert_file"],
        key: &["smtpd_tls_key_file"],
        separator: '=',
        listen: "smtp://127.0.0.1:25",
        base: "/etc/postfix",
    },
    Words {
        service: "exim",
        certificate: &["MAIN_TLS_CERTIFICATE", "tls_certificate"],
        key: &["MAIN_TLS_PRIVATEKEY", "tls_privatekey"],
        separator: '=',
        listen: "smtp://127.0.0.1:25",
        base: "/etc/exim4",
    },
    Words {
        service: "postgresql",
        certificate: &["ssl_cert_file"],
        key: &["ssl_key_file"],
        separator: '=',
        listen: "postgres://127.0.0.1:5432",
        base: "",
    },
    Words {
        service: "slapd",
        certificate: &["olcTLSCertificateFile"],
        key: &["olcTLSCertificateKeyFile"],
        separator: ':',
        listen: "ldap://127.0.0.1:389",
        base: "/etc/ldap",
    },
];

/// Returns what a service says of its certificate.
pub(super) fn sites(service: &str, dump: &str, texts: &Texts) -> Vec<Site> {
    let listed = texts.iter().map(|(source, text)| (source.as_str(), text.as_str()));
    match service {
        "ejabberd" => listed.flat_map(|(source, text)| ejabberd(source, text)).take(SITES_MAX).collect(),
        "opensips" => listed.flat_map(|(source, text)| opensips(source, text)).take(SITES_MAX).collect(),
        _ => {
            let Some(words) = WORDS.iter().find(|words| words.service == service) else { return Vec::new() };
            if dump.is_empty() {
                return listed.filter_map(|(source, text)| by_words(words, source, text)).take(SITES_MAX).collect();
            }
            by_words(words, "postconf -n", dump).into_iter().collect()
        }
    }
}

fn by_words(words: &Words, source: &str, text: &str) -> Option<Site> {
    // A cluster's own directory is where relative paths of PostgreSQL begin, and is not known here.
    let base = words.base;
    let value = |names: &[&str]| -> Option<String> {
        let lines = text.lines().filter(|line| !line.trim_start().starts_with('#'));
        let pairs = lines.filter_map(|line| line.split_once(words.separator));
        // The last one counts.
        let found = pairs.rev().find(|(key, _)| names.contains(&key.trim())).map(|(_, value)| plain(value))?;
        (!base.is_empty() || found.starts_with('/')).then(|| path(&found, base)).filter(|path| !path.is_empty())
    };
    let mut site = Site { source: source.to_owned(), listens: vec![words.listen.to_owned()], ..Site::default() };
    match value(words.certificate) {
        Some(certificate) => {
            site.key = value(words.key).unwrap_or_else(|| certificate.clone());
            site.certificate = certificate;
        }
        None => chain_files(&mut site, text)?,
    }
    if let Some(name) = text.lines().find_map(|line| line.strip_prefix("myhostname")) {
        site.add_name(name.trim_start_matches([' ', '\t', '=']).trim());
    }
    Some(site)
}

/// Postfix: `smtpd_tls_chain_files`, each key before its certificates, or both in one.
fn chain_files(site: &mut Site, text: &str) -> Option<()> {
    let line = text.lines().find_map(|line| line.strip_prefix("smtpd_tls_chain_files"))?;
    let files = line.trim_start_matches([' ', '\t', '=']).split([' ', ',', '\t']).filter(|file| !file.is_empty());
    let files: Vec<String> = files.map(|file| path(file, "/etc/postfix")).filter(|file| !file.is_empty()).collect();
    match files.as_slice() {
        [one] => (site.key, site.certificate) = (one.clone(), one.clone()),
        [key, certificate, ..] => (site.key, site.certificate) = (key.clone(), certificate.clone()),
        [] => return None,
    }
    Some(())
}

/// A value without its quotes and the comment behind it.
fn plain(value: &str) -> String {
    let value = value.trim();
    for quote in ['\'', '"'] {
        if let Some((inside, _)) = value.strip_prefix(quote).and_then(|rest| rest.split_once(quote)) {
            return inside.to_owned();
        }
    }
    value.split([' ', '\t', '#']).next().unwrap_or_default().to_owned()
}

/// `certfiles:` and `hosts:`, lists of YAML.
fn ejabberd(source: &str, text: &str) -> Vec<Site> {
    let list = |wanted: &str| -> Vec<String> {
        let mut lines = text.lines().skip_while(|line| line.trim_end() != wanted).skip(1);
        let items = std::iter::from_fn(|| lines.next()?.trim().strip_prefix("- ").map(plain));
        items.take(SITES_MAX).collect()
    };
    let hosts = list("hosts:");
    let files =
        list("certfiles:").into_iter().filter(|file| !file.contains('*')).map(|file| path(&file, "/etc/ejabberd"));
    let site = |file: String| {
        let listens = vec!["xmpp://127.0.0.1:5222".to_owned()];
        let mut site =
            Site { source: source.to_owned(), key: file.clone(), certificate: file, listens, ..Site::default() };
        hosts.iter().for_each(|host| site.add_name(host));
        site
    };
    files.filter(|file| !file.is_empty()).map(site).collect()
}

/// `modparam("tls_mgm", "certificate", "[domain]/path")`.
fn opensips(source: &str, text: &str) -> Vec<Site> {
    let lines = text.lines().map(str::trim).filter(|line| line.starts_with("modparam"));
    let words = lines.map(|line| line.split('"').skip(1).step_by(2).collect::<Vec<_>>());
    let mut sites: Vec<(String, Site)> = Vec::new();
    for words in words {
        let [module, name, value] = words.as_slice() else { continue };
        if !module.split('|').any(|module| module == "tls_mgm") || !matches!(*name, "certificate" | "private_key") {
            continue;
        }
        let (domain, file) = value.strip_prefix('[').and_then(|rest| rest.split_once(']')).unwrap_or(("", value));
        let at = sites.iter().position(|(known, _)| known == domain).unwrap_or_else(|| {
            let listens = vec!["127.0.0.1:5061".to_owned()];
            sites.push((domain.to_owned(), Site { source: source.to_owned(), listens, ..Site::default() }));
            sites.len() - 1
        });
        if let Some((_, site)) = sites.get_mut(at) {
            *(if *name == "private_key" { &mut site.key } else { &mut site.certificate }) = path(file, "");
        }
    }
    sites.into_iter().map(|(_, site)| site).filter(|site| !site.certificate.is_empty()).collect()
}

/// Prosody's hosts: `VirtualHost "x"` and, below it, `certificate = "…"` and `key = "…"`; else its file has the host's name.
pub(super) fn prosody(texts: &Texts) -> Vec<Site> {
    texts.iter().flat_map(|(source, text)| prosody_of(source, text)).take(SITES_MAX).collect()
}

fn prosody_of(source: &str, text: &str) -> Vec<Site> {
    let mut sites: Vec<Site> = Vec::new();
    for line in text.lines() {
        let line = line.split("--").next().unwrap_or_default();
        let mut parts = line.split('"');
        while let (Some(before), Some(value)) = (parts.next(), parts.next()) {
            let word = before.trim().trim_end_matches('=').trim_end();
            let word = word.rsplit(|ch: char| !ch.is_ascii_alphanumeric() && ch != '_').next().unwrap_or_default();
            match word {
                "VirtualHost" if sites.len() < SITES_MAX => {
                    let listens = vec![format!("xmpp://127.0.0.1:5222/{value}")];
                    let mut site = Site { source: source.to_owned(), listens, ..Site::default() };
                    site.add_name(value);
                    sites.push(site);
                }
                "certificate" | "key" => {
                    let Some(site) = sites.last_mut() else { continue };
                    let file = path(value, "/etc/prosody");
                    *(if word == "key" { &mut site.key } else { &mut site.certificate }) = file;
                }
                _ => {}
            }
        }
    }
    for site in sites.iter_mut().filter(|site| site.certificate.is_empty()) {
        if let Some(name) = site.names.first() {
            site.certificate = format!("/etc/prosody/certs/{name}.crt");
            site.key = format!("/etc/prosody/certs/{name}.key");
        }
    }
    sites.retain(|site| !site.names.is_empty());
    sites
}
