//! PURE: nginx's configuration language (ngx_conf_file.c): words, quotes, comments, blocks and includes, from `nginx -T` or
//! from files; and the sites in it.

use std::collections::BTreeMap;

use super::{Site, Texts, path, reachable};
use crate::policy::glob_matches;

/// Deepest nesting of blocks and includes that is followed; nginx itself has no use for more.
const DEPTH_MAX: usize = 24;
/// Most directives that are looked at: files may include each other.
const DIRECTIVES_MAX: usize = 100_000;
/// Most sites.
const SITES_MAX: usize = 2_000;
/// What `nginx -T` writes before each file.
const FILE: &str = "# configuration file ";
const MAIN: &str = "/etc/nginx/nginx.conf";

/// One directive, with what stands in its block.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Directive {
    pub(super) words: Vec<String>,
    pub(super) block: Vec<Self>,
}

impl Directive {
    fn name(&self) -> &str {
        self.words.first().map_or("", String::as_str)
    }

    fn value(&self) -> &str {
        self.words.get(1).map_or("", String::as_str)
    }
}

/// Returns the sites of a dump, or of the files where there is no dump.
pub(super) fn sites(dump: &str, texts: &Texts) -> Vec<Site> {
    let dumped = split(dump);
    let main = dumped.first().map_or(MAIN, |(path, _)| *path).to_owned();
    let files: BTreeMap<String, Vec<Directive>> = if dumped.is_empty() {
        texts.iter().map(|(path, text)| (path.clone(), parse(text))).collect()
    } else {
        dumped.into_iter().map(|(path, text)| (path.to_owned(), parse(text))).collect()
    };
    let base = main.rsplit_once('/').map_or("", |(base, _)| base).to_owned();
    let mut reader = Reader { files: &files, base, left: DIRECTIVES_MAX, sites: Vec::new() };
    if let Some(top) = files.get(&main) {
        reader.top(&main, top);
    }
    reader.sites
}

/// Splits a dump into its files, in its order.
fn split(dump: &str) -> Vec<(&str, &str)> {
    let mut files = Vec::new();
    let mut rest = dump;
    while let Some((_, after)) = rest.split_once(FILE) {
        let Some((path, text)) = after.split_once(":\n") else { break };
        let end = text.find(FILE).unwrap_or(text.len());
        let (text, next) = text.split_at_checked(end).unwrap_or((text, ""));
        // A comment of somebody's that looks the same names no path.
        if path.starts_with('/') && !path.contains('\n') {
            files.push((path, text));
        }
        rest = next;
    }
    files
}

struct Reader<'a> {
    files: &'a BTreeMap<String, Vec<Directive>>,
    base: String,
    left: usize,
    sites: Vec<Site>,
}

/// What a server inherits from the block around it.
#[derive(Clone, Default)]
struct Inherited {
    certificates: Vec<String>,
    keys: Vec<String>,
    root: String,
}

impl<'a> Reader<'a> {
    fn top(&mut self, main: &'a str, top: &'a [Directive]) {
        for (_, directive) in self.flat(main, top) {
            if !matches!(directive.name(), "http" | "stream" | "mail") {
                continue;
            }
            let is_http = directive.name() == "http";
            let inside = self.flat(main, &directive.block);
            let inherited = self.inherited(&inside, &Inherited::default());
            for (source, server) in inside.iter().filter(|(_, one)| one.name() == "server") {
                let lines = self.flat(source, &server.block);
                self.server(source, &lines, &inherited, is_http);
            }
        }
    }

    /// Opens includes, so that a block's directives stand in one list, each with the file it stands in.
    fn flat(&mut self, source: &'a str, directives: &'a [Directive]) -> Vec<(&'a str, &'a Directive)> {
        let mut found = Vec::new();
        self.open(source, directives, 0, &mut found);
        found
    }

    fn open(
        &mut self,
        source: &'a str,
        directives: &'a [Directive],
        depth: usize,
        found: &mut Vec<(&'a str, &'a Directive)>,
    ) {
        for directive in directives {
            let Some(left) = self.left.checked_sub(1) else { return };
            self.left = left;
            if directive.name() != "include" {
                found.push((source, directive));
                continue;
            }
            if depth >= DEPTH_MAX {
                continue;
            }
            let pattern = path(directive.value(), &self.base);
            let files = self.files;
            for (file, inside) in files.iter().filter(|(file, _)| matches(&pattern, file)) {
                self.open(file, inside, depth + 1, found);
            }
        }
    }

    fn inherited(&self, lines: &[(&str, &Directive)], above: &Inherited) -> Inherited {
        let values = |name: &str| -> Vec<String> {
            let named = lines.iter().filter(|(_, line)| line.name() == name);
            let values = named.map(|(_, line)| path(line.value(), &self.base));
            values.filter(|value| !value.is_empty()).take(4).collect()
        };
        let or = |own: Vec<String>, above: &[String]| if own.is_empty() { above.to_vec() } else { own };
        Inherited {
            certificates: or(values("ssl_certificate"), &above.certificates),
            keys: or(values("ssl_certificate_key"), &above.keys),
            root: values("root").pop().unwrap_or_else(|| above.root.clone()),
        }
    }

    fn server(&mut self, source: &str, lines: &[(&'a str, &'a Directive)], above: &Inherited, is_http: bool) {
        if self.sites.len() >= SITES_MAX {
            return;
        }
        let own = self.inherited(lines, above);
        let mut site = Site { source: source.to_owned(), root: own.root.clone(), ..Site::default() };
        let all_tls = lines.iter().any(|(_, line)| line.name() == "ssl" && line.value() == "on");
        let mut has_tls = false;
        for (source, line) in lines {
            match line.name() {
                "server_name" => line.words.iter().skip(1).for_each(|name| add_name(&mut site, name)),
                "listen" => {
                    let is_tls = all_tls || line.words.iter().skip(2).any(|word| word == "ssl" || word == "quic");
                    has_tls |= is_tls;
                    if let Some(address) = listen(line.value()) {
                        let protocol = if is_http { "http://" } else { "plain://" };
                        site.add_listen(if is_tls { address } else { format!("{protocol}{address}") });
                    }
                }
                "return" if line.value().starts_with('3') => site.redirects = true,
                "rewrite" => {
                    let last = line.words.last().map_or("", String::as_str);
                    site.redirects |= matches!(last, "permanent" | "redirect");
                }
                "location" => self.location(source, line, &mut site),
                _ => {}
            }
        }
        // nginx takes 80 where a server does not say.
        if site.listens.is_empty() && is_http && !lines.iter().any(|(_, line)| line.name() == "listen") {
            site.add_listen("http://127.0.0.1:80".to_owned());
        }
        if !has_tls || own.certificates.is_empty() {
            self.sites.push(site);
            return;
        }
        for (index, certificate) in own.certificates.into_iter().enumerate() {
            let key = own.keys.get(index).cloned().unwrap_or_default();
            let one = Site { certificate, key, ..site.clone() };
            // Files that include each other say the same again.
            if !self.sites.contains(&one) {
                self.sites.push(one);
            }
        }
    }

    /// Of a location counts whether it is all of the site, or the one for challenges.
    fn location(&mut self, source: &'a str, line: &'a Directive, site: &mut Site) {
        let place = line.words.last().map_or("", String::as_str);
        let is_all = place == "/";
        let is_challenge = place.starts_with("/.well-known");
        if !is_all && !is_challenge {
            return;
        }
        for (_, inside) in self.flat(source, &line.block) {
            let value = path(inside.value(), &self.base);
            match inside.name() {
                "root" if is_challenge => site.challenges = value,
                "alias" if is_challenge => {
                    let above = value.trim_end_matches('/').strip_suffix("/.well-known/acme-challenge");
                    site.challenges = above.unwrap_or_default().to_owned();
                }
                "root" if site.root.is_empty() => site.root = value,
                "return" if is_all && inside.value().starts_with('3') => site.redirects = true,
                _ => {}
            }
        }
    }
}

/// `*` and `?` stand for no slash.
fn matches(pattern: &str, file: &str) -> bool {
    pattern.split('/').count() == file.split('/').count()
        && pattern.split('/').zip(file.split('/')).all(|(pattern, part)| glob_matches(pattern, part))
}

fn add_name(site: &mut Site, name: &str) {
    match name.strip_prefix('.') {
        // nginx: `.example.com` is both.
        Some(name) => {
            site.add_name(name);
            site.add_name(&format!("*.{name}"));
        }
        None => site.add_name(name),
    }
}

/// `443`, `*:443`, `10.0.0.1:443`, `[::]:443`, `example.com`.
fn listen(value: &str) -> Option<String> {
    if value.starts_with("unix:") {
        return None;
    }
    if value.bytes().all(|byte| byte.is_ascii_digit()) {
        return reachable("", value);
    }
    match value.rsplit_once(':') {
        Some((host, port)) if !port.ends_with(']') => reachable(host, port),
        _ => reachable(value, "80"),
    }
}

enum Token {
    Word(String),
    Semicolon,
    Open,
    Close,
}

struct Lexer<'a> {
    chars: std::iter::Peekable<std::str::Chars<'a>>,
}

impl Lexer<'_> {
    fn next(&mut self) -> Option<Token> {
        loop {
            match self.chars.peek().copied()? {
                '#' => while self.chars.next().is_some_and(|ch| ch != '\n') {},
                ch if ch.is_whitespace() => drop(self.chars.next()),
                _ => break,
            }
        }
        match self.chars.next()? {
            ';' => Some(Token::Semicolon),
            '{' => Some(Token::Open),
            '}' => Some(Token::Close),
            quote @ ('"' | '\'') => Some(Token::Word(self.quoted(quote))),
            first => Some(Token::Word(self.bare(first))),
        }
    }

    fn quoted(&mut self, quote: char) -> String {
        let mut word = String::new();
        while let Some(ch) = self.chars.next() {
            match ch {
                '\\' => word.extend(self.chars.next()),
                ch if ch == quote => break,
                ch => word.push(ch),
            }
        }
        word
    }

    fn bare(&mut self, first: char) -> String {
        let mut word = String::new();
        let mut next = Some(first);
        while let Some(ch) = next {
            match ch {
                '\\' => word.extend(self.chars.next()),
                ch => word.push(ch),
            }
            // `${name}` is a variable, no block.
            if ch == '$' && self.chars.peek() == Some(&'{') {
                while let Some(ch) = self.chars.next_if(|ch| !ch.is_whitespace()) {
                    word.push(ch);
                    if ch == '}' {
                        break;
                    }
                }
            }
            next = self.chars.next_if(|ch| !ch.is_whitespace() && !matches!(ch, ';' | '{' | '}'));
        }
        word
    }

    /// Passes over a block in another language, whose braces are balanced.
    fn skip_code(&mut self) {
        let mut depth = 1_usize;
        while let Some(ch) = self.chars.next() {
            match ch {
                '{' => depth += 1,
                '}' => depth -= 1,
                '"' | '\'' => drop(self.quoted(ch)),
                '-' if self.chars.peek() == Some(&'-') => while self.chars.next().is_some_and(|ch| ch != '\n') {},
                _ => {}
            }
            if depth == 0 {
                return;
            }
        }
    }
}

/// Parses one file. What is not closed ends with the file; what is too deep is passed over.
pub(super) fn parse(text: &str) -> Vec<Directive> {
    let mut lexer = Lexer { chars: text.chars().peekable() };
    let mut open: Vec<Directive> = vec![Directive::default()];
    let mut words: Vec<String> = Vec::new();
    let mut too_deep = 0_usize;
    while let Some(token) = lexer.next() {
        match token {
            Token::Word(word) => words.push(word),
            Token::Semicolon => {
                let words = std::mem::take(&mut words);
                if let Some(around) = open.last_mut().filter(|_| too_deep == 0 && !words.is_empty()) {
                    around.block.push(Directive { words, block: Vec::new() });
                }
            }
            Token::Open => {
                let words = std::mem::take(&mut words);
                if words.first().is_some_and(|name| name.ends_with("_by_lua_block")) {
                    lexer.skip_code();
                } else if open.len() > DEPTH_MAX {
                    too_deep += 1;
                } else {
                    open.push(Directive { words, block: Vec::new() });
                }
            }
            Token::Close => {
                words.clear();
                match too_deep.checked_sub(1) {
                    Some(less) => too_deep = less,
                    None => close(&mut open),
                }
            }
        }
    }
    while open.len() > 1 {
        close(&mut open);
    }
    open.pop().map(|top| top.block).unwrap_or_default()
}

fn close(open: &mut Vec<Directive>) {
    if open.len() < 2 {
        return;
    }
    if let (Some(inner), Some(around)) = (open.pop(), open.last_mut()) {
        around.block.push(inner);
    }
}
