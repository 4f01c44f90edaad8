//! PURE: where HAProxy's configuration binds with TLS, and the certificates it names there.

use super::{Site, Texts, path, reachable};

/// Most certificates of a `crt-list`.
const LIST_MAX: usize = 200;

/// Returns one site for each certificate of each `bind`; a certificate may be a directory.
pub(super) fn sites(texts: &Texts) -> Vec<Site> {
    texts.iter().flat_map(|(source, text)| sites_of(source, text)).collect()
}

fn sites_of(source: &str, text: &str) -> Vec<Site> {
    let mut sites = Vec::new();
    let mut base = "/etc/haproxy".to_owned();
    for line in text.lines() {
        let words = words(line);
        let mut rest = words.iter().map(String::as_str);
        match rest.next() {
            Some("crt-base") => base = path(rest.next().unwrap_or_default(), "/etc/haproxy"),
            Some("bind") => {
                let addresses = rest.next().unwrap_or_default();
                let options: Vec<&str> = rest.collect();
                sites.extend(bind(source, addresses, &options, &base));
            }
            _ => {}
        }
    }
    sites
}

fn bind(source: &str, addresses: &str, options: &[&str], base: &str) -> Vec<Site> {
    let is_tls = options.contains(&"ssl");
    let mut site = Site { source: source.to_owned(), ..Site::default() };
    for address in addresses.split(',') {
        let Some((host, port)) = address.rsplit_once(':') else { continue };
        let host = ["ipv4@", "ipv6@"].iter().find_map(|kind| host.strip_prefix(kind)).unwrap_or(host);
        let host = if host.contains(':') && !host.starts_with('[') { format!("[{host}]") } else { host.to_owned() };
        // A range of ports: its first is looked at.
        let port = port.split('-').next().unwrap_or_default();
        if let Some(address) = reachable(&host, port) {
            site.add_listen(if is_tls { address } else { format!("http://{address}") });
        }
    }
    let named = options.windows(2).filter_map(|pair| match pair {
        ["crt" | "crt-list", value] if is_tls => Some(path(value, base)),
        _ => None,
    });
    let certificates: Vec<String> = named.filter(|value| !value.is_empty()).collect();
    if certificates.is_empty() {
        return vec![site];
    }
    let with = |certificate: String| Site { key: certificate.clone(), certificate, ..site.clone() };
    certificates.into_iter().map(with).collect()
}

/// Returns the certificates of a file that `crt-list` names: the first word of each line.
pub(crate) fn certificate_list(text: &str, base: &str) -> Vec<String> {
    let firsts = text.lines().filter_map(|line| line.split_whitespace().next());
    let paths = firsts.filter(|word| !word.starts_with('#')).map(|word| path(word, base));
    paths.filter(|path| !path.is_empty()).take(LIST_MAX).collect()
}

/// Words; quotes and backslashes as the manual's §2.2 says.
fn words(line: &str) -> Vec<String> {
    let (mut words, mut word, mut is_open) = (Vec::new(), String::new(), false);
    let mut quote = None;
    let mut chars = line.chars();
    while let Some(ch) = chars.next() {
        match (quote, ch) {
            (None, '#') => break,
            (None | Some('"'), '\\') => {
                word.extend(chars.next());
                is_open = true;
            }
            (None, '"' | '\'') => {
                quote = Some(ch);
                is_open = true;
            }
            (Some(open), _) if ch == open => quote = None,
            (None, _) if ch.is_whitespace() => {
                if std::mem::take(&mut is_open) {
                    words.push(std::mem::take(&mut word));
                }
            }
            _ => {
                word.push(ch);
                is_open = true;
            }
        }
    }
    if is_open {
        words.push(word);
    }
    words
}
