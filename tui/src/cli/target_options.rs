//! The options that describe one target: `--preset --file --owner --mode --validate --reload --verify --drift`. Parses text into
//! `TargetSpec` parts and refuses what no controller could accept; whether the agent's policy allows it is the agent's word, not
//! ours.
//! Called by `certs create`, `targets add` and `targets set`.

use clap::Args;
use clap::builder::{PossibleValuesParser, TypedValueParser};
use proto::endpoint::EndpointError;
use proto::operator::v1::TargetSpec;
use proto::presets::{PRESETS, Preset};
use proto::types::v1::{Command, Endpoint, FileContent, FileSpec, Http01, OnDrift, http01};

use crate::client::{content_of, default_files, default_mode, file_content, holds_key, on_drift_of, preset_spec};

/// Port of HTTP-01 (RFC 8555 §8.3).
const HTTP01_PORT: u32 = 80;
/// Words that mean something to a shell only. There is no shell, so they would be passed on as arguments.
const SHELL_WORDS: [&str; 8] = ["&&", "||", "|", ";", "&", ">", ">>", "<"];

/// How the files look, what is reloaded, where the proof is taken.
#[derive(Args, Clone, Debug)]
pub(crate) struct TargetOptions {
    /// Service that uses the certificate: fills in what no other option says; `targets presets` shows with what
    #[arg(long, value_name = "SERVICE", value_parser = preset(), requires = "agent", hide_possible_values = true)]
    preset: Option<&'static Preset>,
    /// File to write instead of the default list: cert, key, chain, fullchain, combined (leaf, chain and key in one), pfx or pfx-password, and
    /// its name (repeats)
    #[arg(long = "file", value_name = "CONTENT=NAME", value_parser = file, requires = "agent")]
    files: Vec<(FileContent, String)>,
    /// Owner and group of every file; default: the agent's own user
    #[arg(long, value_name = "USER:GROUP", value_parser = owner, requires = "agent")]
    owner: Option<String>,
    /// Permission bits of one file, octal; default 0600 with the key in it, 0644 without (repeats)
    #[arg(long = "mode", value_name = "CONTENT=MODE", value_parser = mode, requires = "agent")]
    modes: Vec<(FileContent, u32)>,
    /// Command that must succeed before anything is reloaded, for example '/usr/sbin/nginx -t' (repeats, in order)
    #[arg(long = "validate", value_name = "ARGV", value_parser = command, requires = "agent")]
    validate: Vec<Command>,
    /// Command to run after the files are in place: absolute path and arguments, no shell (repeats, in order)
    #[arg(long = "reload", value_name = "ARGV", value_parser = command, requires = "agent")]
    reload: Vec<Command>,
    /// Where a TLS handshake must show the new certificate, as seen from the agent (repeats); smtp, imap, pop3, xmpp, ldap
    /// or postgres before :// where TLS begins by STARTTLS, for example smtp://127.0.0.1:25
    #[arg(long = "verify", value_name = "[PROTOCOL://]ADDR:PORT[/SNI]", value_parser = endpoint, requires = "agent")]
    verify: Vec<Endpoint>,
    /// What the agent does with files that are changed or removed behind its back: write them again (repair, the default; what stood
    /// there is kept), or only tell it (show)
    #[arg(long, value_name = "repair|show", value_parser = drift(), requires = "agent", hide_possible_values = true)]
    drift: Option<OnDrift>,
}

/// What may be done about a drift.
fn drift() -> impl TypedValueParser<Value = OnDrift> {
    PossibleValuesParser::new(["repair", "show"]).map(|word| on_drift_of(&word).unwrap_or_default())
}

impl TargetOptions {
    /// Returns the target of a certificate: what the options say, else what the preset says.
    ///
    /// # Errors
    /// When a mode is given for a file that is not in the list.
    pub(crate) fn spec(&self, certificate: &str, agent: String, dir: Option<String>) -> Result<TargetSpec, String> {
        let preset = self.preset.map(|preset| preset_spec(preset, certificate)).unwrap_or_default();
        let or = |said: &[Command], else_: Vec<Command>| if said.is_empty() { else_ } else { said.to_vec() };
        Ok(TargetSpec {
            agent,
            dir: dir.unwrap_or(preset.dir),
            files: self.file_specs(preset.files)?,
            validate: or(&self.validate, preset.validate),
            reload: or(&self.reload, preset.reload),
            verify: if self.verify.is_empty() { preset.verify } else { self.verify.clone() },
            on_drift: self.drift.unwrap_or_default().into(),
        })
    }

    /// Returns what becomes of a target of the same certificate: what the options say, else what the preset says, else what
    /// it has. Directory and agent stay.
    ///
    /// # Errors
    /// When a mode is given for a file that is not in the list.
    pub(crate) fn change(&self, present: &TargetSpec, certificate: &str) -> Result<TargetSpec, String> {
        let base = match self.preset {
            Some(preset) => preset_spec(preset, certificate),
            None => present.clone(),
        };
        let mut files = if self.files.is_empty() { base.files } else { self.listed(&present.files) };
        if let Some(owner) = &self.owner {
            files.iter_mut().for_each(|spec| spec.owner.clone_from(owner));
        }
        let or = |said: &[Command], else_: Vec<Command>| if said.is_empty() { else_ } else { said.to_vec() };
        Ok(TargetSpec {
            files: self.with_modes(files)?,
            validate: or(&self.validate, base.validate),
            reload: or(&self.reload, base.reload),
            verify: if self.verify.is_empty() { base.verify } else { self.verify.clone() },
            on_drift: self.drift.map_or(present.on_drift, Into::into),
            ..present.clone()
        })
    }

    /// The files that `--file` names; what a file of the same content has now stays.
    fn listed(&self, present: &[FileSpec]) -> Vec<FileSpec> {
        let key_mode = self.preset.map(|preset| preset.key_mode);
        let spec = |(content, name): &(FileContent, String)| {
            let like = present.iter().find(|spec| spec.content() == *content).filter(|_| self.preset.is_none());
            let owner =
                like.or_else(|| present.first()).map(|spec| spec.owner.clone()).filter(|_| self.preset.is_none());
            let usual = key_mode.filter(|_| holds_key(*content)).unwrap_or_else(|| default_mode(*content));
            FileSpec {
                content: (*content).into(),
                name: name.clone(),
                owner: owner.or_else(|| self.preset.map(|preset| preset.owner.to_owned())).unwrap_or_default(),
                mode: like.map_or(usual, |spec| spec.mode),
            }
        };
        self.files.iter().map(spec).collect()
    }

    fn with_modes(&self, mut specs: Vec<FileSpec>) -> Result<Vec<FileSpec>, String> {
        for (content, mode) in &self.modes {
            let content = i32::from(*content);
            if !specs.iter().any(|spec| spec.content == content) {
                return Err(format!("there is no {} file in the list that --file gives", file_content(content)));
            }
            specs.iter_mut().filter(|spec| spec.content == content).for_each(|spec| spec.mode = *mode);
        }
        Ok(specs)
    }

    /// Returns the list of files, defaults filled in.
    fn file_specs(&self, preset: Vec<FileSpec>) -> Result<Vec<FileSpec>, String> {
        let key_mode = self.preset.map(|preset| preset.key_mode);
        let mut specs = if !self.files.is_empty() {
            let spec = |(content, name): &(FileContent, String)| FileSpec {
                content: (*content).into(),
                name: name.clone(),
                owner: String::new(),
                mode: key_mode.filter(|_| holds_key(*content)).unwrap_or_else(|| default_mode(*content)),
            };
            self.files.iter().map(spec).collect()
        } else if preset.is_empty() {
            default_files()
        } else {
            preset
        };
        let owner = self.owner.as_deref().or_else(|| self.preset.map(|preset| preset.owner)).unwrap_or_default();
        specs.iter_mut().for_each(|spec| owner.clone_into(&mut spec.owner));
        self.with_modes(specs)
    }
}

/// Reads the name of a service; an unknown one is told the names there are.
fn preset() -> impl TypedValueParser<Value = &'static Preset> {
    PossibleValuesParser::new(PRESETS.iter().map(|preset| preset.name))
        .try_map(|name| Preset::named(&name).ok_or("no such service"))
}

/// Reads `standalone`, `standalone:PORT` or `webroot:DIR`.
pub(crate) fn http01(text: &str) -> Result<Http01, String> {
    let (kind, rest) = text.split_once(':').map_or((text, None), |(kind, rest)| (kind, Some(rest)));
    let mode = match (kind, rest) {
        ("standalone", None) => http01::Mode::StandalonePort(HTTP01_PORT),
        ("standalone", Some(text)) => http01::Mode::StandalonePort(port(text)?.into()),
        ("webroot", Some(dir)) if dir.starts_with('/') => http01::Mode::Webroot(dir.to_owned()),
        ("webroot", _) => return Err("webroot needs an absolute directory: webroot:/var/www/html".to_owned()),
        _ => return Err("expected standalone, standalone:PORT or webroot:DIR".to_owned()),
    };
    Ok(Http01 { mode: Some(mode) })
}

/// Reads the directory of a target.
pub(crate) fn dir(text: &str) -> Result<String, String> {
    if text.starts_with('/') { Ok(text.to_owned()) } else { Err("a directory on the agent is absolute".to_owned()) }
}

fn content(text: &str) -> Result<FileContent, String> {
    if text == "jks" {
        return Err("Java reads PKCS #12 as a key store: use pfx= and pfx-password=".to_owned());
    }
    let expected = "cert, key, chain, fullchain, combined, pfx or pfx-password";
    content_of(text).ok_or_else(|| format!("'{text}' is no file: expected {expected}"))
}

fn file(text: &str) -> Result<(FileContent, String), String> {
    let (kind, name) = text.split_once('=').ok_or("expected CONTENT=NAME, for example fullchain=server.crt")?;
    let kind = content(kind)?;
    if name.is_empty() || name.contains('/') || name == "." || name == ".." {
        return Err(format!("'{name}' is no bare file name: the directory is given by --dir"));
    }
    Ok((kind, name.to_owned()))
}

fn owner(text: &str) -> Result<String, String> {
    match text.split_once(':') {
        Some((user, group)) if !user.is_empty() && !group.is_empty() && !group.contains(':') => Ok(text.to_owned()),
        _ => Err("expected USER:GROUP, for example root:www-data".to_owned()),
    }
}

fn mode(text: &str) -> Result<(FileContent, u32), String> {
    let (kind, bits) = text.split_once('=').ok_or("expected CONTENT=MODE, for example key=0640")?;
    let kind = content(kind)?;
    match u32::from_str_radix(bits, 8) {
        Ok(mode) if mode <= 0o777 => Ok((kind, mode)),
        Ok(_) => Err(format!("'{bits}' has more than permission bits: 0777 is the most")),
        Err(error) => Err(format!("'{bits}' is no octal mode such as 0640: {error}")),
    }
}

fn command(text: &str) -> Result<Command, String> {
    let argv = shlex::split(text).ok_or("a quote is not closed")?;
    let Some(program) = argv.first() else {
        return Err("the command is empty".to_owned());
    };
    if !program.starts_with('/') {
        return Err(format!(
            "'{program}' is no absolute path: there is no shell and no PATH; find it with: command -v {program}"
        ));
    }
    if let Some(word) = argv.iter().find(|word| SHELL_WORDS.contains(&word.as_str())) {
        return Err(format!("'{word}' needs a shell and there is none: give each command an option of its own"));
    }
    Ok(Command { argv })
}

fn endpoint(text: &str) -> Result<Endpoint, String> {
    text.parse().map_err(|error: EndpointError| error.to_string())
}

fn port(text: &str) -> Result<u16, String> {
    match text.parse::<u16>() {
        Ok(0) => Err("port 0 is none".to_owned()),
        Ok(port) => Ok(port),
        Err(error) => Err(format!("'{text}' is no port: {error}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reload_is_one_absolute_command_without_expansion() {
        let argv = |text: &str| command(text).unwrap().argv;
        assert_eq!(argv("/usr/sbin/nginx -s reload"), ["/usr/sbin/nginx", "-s", "reload"]);
        assert_eq!(argv("/bin/x 'a b' \"c d\" $HOME *"), ["/bin/x", "a b", "c d", "$HOME", "*"]);
        for (text, said) in [
            ("nginx -s reload", "absolute"),
            ("", "empty"),
            ("  ", "empty"),
            ("/bin/x 'a", "quote"),
            ("/bin/a && /bin/b", "shell"),
            ("/bin/a | /bin/b", "shell"),
        ] {
            assert!(command(text).unwrap_err().contains(said), "{text}");
        }
    }

    #[test]
    fn a_challenge_is_answered_standalone_or_from_a_webroot() {
        let mode = |text: &str| http01(text).unwrap().mode.unwrap();
        assert_eq!(mode("standalone"), http01::Mode::StandalonePort(80));
        assert_eq!(mode("standalone:8080"), http01::Mode::StandalonePort(8080));
        assert_eq!(mode("webroot:/var/www"), http01::Mode::Webroot("/var/www".into()));
        for text in ["", "standalone:", "standalone:x", "webroot", "webroot:www", "dns"] {
            assert!(http01(text).is_err(), "{text}");
        }
    }

    fn options(files: &[&str], modes: &[&str]) -> TargetOptions {
        TargetOptions {
            preset: None,
            files: files.iter().map(|text| file(text).unwrap()).collect(),
            owner: Some("root:www-data".into()),
            modes: modes.iter().map(|text| mode(text).unwrap()).collect(),
            validate: Vec::new(),
            reload: Vec::new(),
            verify: Vec::new(),
            drift: None,
        }
    }

    #[test]
    fn files_are_the_default_four_or_exactly_those_named() {
        let list = |options: &TargetOptions| -> Vec<String> {
            let specs = options.file_specs(Vec::new()).unwrap();
            assert!(specs.iter().all(|spec| spec.owner == "root:www-data"));
            specs.iter().map(|spec| format!("{} {:04o}", spec.name, spec.mode)).collect()
        };
        assert_eq!(
            list(&options(&[], &["key=0640"])),
            ["cert.pem 0644", "key.pem 0640", "chain.pem 0644", "fullchain.pem 0644"]
        );
        assert_eq!(
            list(&options(&["fullchain=server.crt", "key=server.key"], &[])),
            ["server.crt 0644", "server.key 0600"]
        );
        assert_eq!(list(&options(&["combined=site.pem"], &[])), ["site.pem 0600"]);
        assert_eq!(list(&options(&["combined=site.pem"], &["combined=0640"])), ["site.pem 0640"]);
        assert!(options(&["fullchain=server.crt"], &["key=0640"]).file_specs(Vec::new()).is_err());
    }

    #[test]
    fn a_preset_says_what_no_option_says() {
        let mut options = TargetOptions { preset: Preset::named("haproxy"), owner: None, ..options(&[], &[]) };
        let spec = options.spec("site", "web1".into(), None).unwrap();
        assert_eq!((spec.agent.as_str(), spec.dir.as_str()), ("web1", "/etc/haproxy/certs"));
        let files = |spec: &TargetSpec| {
            spec.files.iter().map(|file| format!("{} {:04o} {}", file.name, file.mode, file.owner)).collect::<Vec<_>>()
        };
        assert_eq!(files(&spec), ["site.pem 0600 "]);
        assert_eq!(spec.reload[0].argv, ["/usr/bin/systemctl", "reload", "haproxy"]);
        assert_eq!(spec.verify[0].address, "127.0.0.1:443");

        options.preset = Preset::named("postgresql");
        options.files = vec![file("key=server.key").unwrap()];
        options.reload = vec![command("/bin/true").unwrap()];
        options.verify = vec![endpoint("192.0.2.1:5432").unwrap()];
        let spec = options.spec("site", "web1".into(), Some("/srv/tls".into())).unwrap();
        assert_eq!((spec.dir.as_str(), files(&spec)), ("/srv/tls", vec!["server.key 0640 root:postgres".to_owned()]));
        assert_eq!(spec.reload[0].argv, ["/bin/true"]);
        assert_eq!(spec.verify[0].address, "192.0.2.1:5432");
        options.owner = Some("root:root".into());
        options.modes = vec![mode("key=0600").unwrap()];
        let spec = options.spec("site", "web1".into(), None).unwrap();
        assert_eq!(files(&spec), ["server.key 0600 root:root"]);
    }

    #[test]
    fn a_file_name_is_bare_and_a_mode_is_octal() {
        for text in ["key", "key=", "key=../x", "key=a/b", "pem=x", "key=.."] {
            assert!(file(text).is_err(), "{text}");
        }
        for text in ["key", "key=", "key=999", "key=01777", "0640", "pem=0640"] {
            assert!(mode(text).is_err(), "{text}");
        }
        for text in ["root", "root:", ":x", "a:b:c"] {
            assert!(owner(text).is_err(), "{text}");
        }
    }
}
