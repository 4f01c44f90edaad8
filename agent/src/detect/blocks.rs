//! PURE: configurations of lines with blocks in braces: Caddy's and Dovecot's.

use super::{Site, Texts, path, reachable};

/// Deepest nesting that is followed.
const DEPTH_MAX: usize = 32;
/// Most hosts of one file.
const HOSTS_MAX: usize = 400;

/// Returns Caddy's sites; those without files of their own have certificates that Caddy gets by itself.
pub(super) fn caddy(texts: &Texts) -> Vec<Site> {
    texts.iter().flat_map(|(source, text)| caddy_of(source, text)).collect()
}

fn caddy_of(source: &str, text: &str) -> Vec<Site> {
    let mut sites: Vec<Site> = Vec::new();
    let mut depth = 0_usize;
    let mut is_site = false;
    for line in text.lines() {
        let words: Vec<&str> = line.split_whitespace().take_while(|word| !word.starts_with('#')).collect();
        let opens = words.last().is_some_and(|word| word.ends_with('{'));
        match words.as_slice() {
            ["}"] => depth = depth.saturating_sub(1),
            header if depth == 0 && opens => {
                let names: Vec<&str> = header.iter().flat_map(|word| word.split(',')).collect();
                // `(name)` is a snippet, a lone brace the options of all.
                is_site = names.iter().any(|name| !matches!(*name, "{" | "")) && !line.trim_start().starts_with('(');
                if is_site && sites.len() < HOSTS_MAX {
                    sites.push(caddy_site(source, &names));
                }
            }
            words if depth == 1 && is_site => {
                if let Some(site) = sites.last_mut() {
                    caddy_line(site, words);
                }
            }
            _ => {}
        }
        if opens && depth < DEPTH_MAX {
            depth += 1;
        }
    }
    sites
}

fn caddy_site(source: &str, names: &[&str]) -> Site {
    let mut site = Site { source: source.to_owned(), ..Site::default() };
    for name in names {
        let name = name.trim_end_matches('{');
        let (is_plain, name) = match name.split_once("://") {
            Some((scheme, name)) => (scheme == "http", name),
            None => (false, name),
        };
        let (host, port) = name.split_once(':').unwrap_or((name, if is_plain { "80" } else { "443" }));
        site.add_name(host);
        if let Some(address) = reachable("", port.trim_end_matches('/')).filter(|_| !name.is_empty()) {
            site.add_listen(if is_plain { format!("http://{address}") } else { address });
        }
    }
    site
}

fn caddy_line(site: &mut Site, words: &[&str]) {
    match words {
        ["tls", certificate, key, ..] if certificate.starts_with('/') => {
            (site.certificate, site.key) = (path(certificate, ""), path(key, ""));
        }
        ["root", "*", root] | ["root", root] => site.root = path(root, ""),
        ["redir", ..] => site.redirects = true,
        _ => {}
    }
}

/// Returns Dovecot's certificates: the common one, and those of `local_name`. Its dump does not tell where keys are.
pub(super) fn dovecot(dump: &str, texts: &Texts) -> Vec<Site> {
    let all = texts.values().map(String::as_str).chain([dump]);
    let mut sites: Vec<(String, Site)> = Vec::new();
    for text in all {
        let mut open: Vec<String> = Vec::new();
        for line in text.lines().map(str::trim) {
            if line.starts_with('#') {
                continue;
            }
            if line == "}" {
                open.pop();
            } else if let Some(header) = line.strip_suffix('{') {
                if open.len() < DEPTH_MAX {
                    open.push(header.trim().to_owned());
                }
            } else if let Some((key, value)) = line.split_once('=') {
                let host = open.iter().find_map(|header| header.strip_prefix("local_name ")).unwrap_or_default();
                dovecot_line(&mut sites, host.trim_matches('"'), key.trim(), value.trim());
            }
        }
    }
    let source = if dump.is_empty() { "/etc/dovecot" } else { "doveconf -n" };
    sites.retain(|(_, site)| !site.certificate.is_empty());
    sites.into_iter().map(|(_, site)| Site { source: source.to_owned(), ..site }).collect()
}

fn dovecot_line(sites: &mut Vec<(String, Site)>, host: &str, key: &str, value: &str) {
    let is_certificate = matches!(key, "ssl_cert" | "ssl_server_cert_file");
    let is_key = matches!(key, "ssl_key" | "ssl_server_key_file");
    let file = path(value.trim_start_matches('<').trim().trim_matches('"'), "/etc/dovecot");
    // The dump hides what it calls a secret.
    if !(is_certificate || is_key) || value.starts_with('#') || file.is_empty() {
        return;
    }
    let at = sites.iter().position(|(known, _)| known == host).unwrap_or_else(|| {
        let mut site = Site { listens: vec!["127.0.0.1:993".to_owned()], ..Site::default() };
        host.split_whitespace().for_each(|name| site.add_name(name));
        sites.push((host.to_owned(), site));
        sites.len() - 1
    });
    if let Some((_, site)) = sites.get_mut(at).filter(|_| at < HOSTS_MAX) {
        *(if is_key { &mut site.key } else { &mut site.certificate }) = file;
    }
}
