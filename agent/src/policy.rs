//! The agent's local policy (design §5): what may be written, run and served here. The agent is the authority; the
//! controller only picks from it. Parsing and deciding only; `policy::file` reads it from the disk.

use std::time::Duration;

use proto::text::one_line;
use proto::types::v1 as wire;
use proto::x509::LeafFacts;
use serde::{Deserialize, Serialize};

use crate::problem::Problem;
use crate::target::{Owner, Target, normalise};

pub mod default;
pub mod explain;
pub mod file;

/// A key file's widest mode where the policy names none.
const KEY_MODE_MAX: u32 = 0o640;
/// A command's time limit where the policy names none, and the longest one it may name.
const TIMEOUT: Duration = Duration::from_secs(30);
const TIMEOUT_MAX: Duration = Duration::from_secs(600);

/// A parsed policy file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Policy {
    /// The file it came from, for hints.
    pub source: String,
    /// Where certificates may be written.
    pub dirs: Vec<Dir>,
    /// What may be run.
    pub commands: Vec<Command>,
    /// Where challenges may be answered by a listener.
    pub http01_ports: Vec<u16>,
    /// Where challenges may be answered by files.
    pub webroots: Vec<String>,
    /// Keys made here may be used.
    pub custody_agent: bool,
    /// Keys made by the controller may be used.
    pub custody_controller: bool,
    /// What only prints a service's configuration may be run, to detect what is on this server.
    pub detect_commands: bool,
    /// It may look into /root and /home.
    pub detect_homes: bool,
}

/// A directory, and everything below, where certificates may be written.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Dir {
    /// Absolute, normalised.
    pub path: String,
    /// Identifiers allowed there; empty = any. `*.example.com` stands for one label and for itself.
    pub names: Vec<String>,
    /// File names allowed there, with `*` and `?`; empty = any.
    pub files: Vec<String>,
    /// Owners allowed there as "user:group"; empty = only root:root. A target that names none keeps the agent's own user.
    pub owners: Vec<String>,
    /// The widest mode of a key file.
    pub key_mode_max: u32,
}

/// An exact argv.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Command {
    /// Absolute program and its arguments.
    pub argv: Vec<String>,
    /// It is killed after this time.
    pub timeout: Duration,
}

impl Policy {
    /// Parses the text of a policy file.
    ///
    /// # Errors
    /// When it is not TOML, has an unknown key, or a value is not allowed; the problem names key and line.
    pub fn parse(source: &str, text: &str) -> Result<Self, Problem> {
        let raw: raw::File = toml::from_str(text).map_err(|error| invalid(source, error.to_string()))?;
        let policy = raw.into_policy(source).map_err(|cause| invalid(source, cause))?;
        Ok(policy)
    }

    /// Checks a target and returns the policy directory to open as its root.
    ///
    /// # Errors
    /// A refusal that says which line to add.
    pub(crate) fn permit(&self, target: &Target) -> Result<&Dir, Problem> {
        let mut refusal = None;
        let dir = self.dirs_above(target).into_iter().find(|dir| match self.permit_in(dir, target) {
            Ok(()) => true,
            Err(problem) => {
                refusal.get_or_insert(problem);
                false
            }
        });
        let dir = dir.ok_or_else(|| refusal.unwrap_or_else(|| self.outside(&target.dir)))?;
        for argv in target.commands() {
            self.permit_command(argv)?;
        }
        self.permit_custody(target)?;
        Ok(dir)
    }

    /// The closest first.
    fn dirs_above(&self, target: &Target) -> Vec<&Dir> {
        let mut above: Vec<&Dir> = self.dirs.iter().filter(|dir| is_below(&target.dir, &dir.path)).collect();
        above.sort_by_key(|dir| std::cmp::Reverse(dir.path.len()));
        above
    }

    /// Whether certificates may be written to a directory at all, whatever else is wanted there.
    pub(crate) fn allows_dir(&self, dir: &str) -> bool {
        self.dirs.iter().any(|allowed| is_below(dir, &allowed.path))
    }

    fn permit_in(&self, dir: &Dir, target: &Target) -> Result<(), Problem> {
        self.refusals_in(dir, target).into_iter().next().map_or(Ok(()), Err)
    }

    /// Returns everything that a directory's lines do not allow of a target.
    fn refusals_in(&self, dir: &Dir, target: &Target) -> Vec<Problem> {
        let place = dir.place();
        let mut found: Vec<Problem> = self.permit_names(dir, target, &target.identifiers).err().into_iter().collect();
        for file in &target.files {
            let path = format!("{}/{}", target.dir, file.name);
            let mut refuse = |reason, message: String, line: String| {
                found.push(self.refusal(reason, message, &place, &line));
            };
            if !dir.permits_file(&file.name) {
                let message = format!("the policy does not allow the file {path}");
                refuse("POLICY_FILE", message, format!("files = [\"{}\"]", file.name));
            }
            if let Some(owner) = file.owner.as_ref().filter(|owner| !dir.permits_owner(owner)) {
                let message = format!("the policy does not allow the owner {owner} for {path}");
                refuse("POLICY_OWNER", message, format!("owners = [\"{owner}\"]"));
            }
            if file.content.holds_key() && file.mode & !dir.key_mode_max != 0 {
                let message = format!("the policy does not allow the mode {:04o} for the key {path}", file.mode);
                let line = format!("key_mode_max = \"{:04o}\"", file.mode | dir.key_mode_max);
                refuse("POLICY_KEY_MODE", message, line);
            }
        }
        found
    }

    /// Returns the directory of the policy that allows a target's files, and everything that is not allowed of the target. Without
    /// one nothing may be told of what lies there.
    pub(crate) fn judge(&self, target: &Target) -> (Option<&Dir>, Vec<Problem>) {
        let below = self.dirs_above(target);
        let dir = below.iter().copied().find(|dir| self.permit_in(dir, target).is_ok());
        let mut refusals = match (dir, below.first()) {
            (Some(_), _) => Vec::new(),
            (None, Some(closest)) => self.refusals_in(closest, target),
            (None, None) => vec![self.outside(&target.dir)],
        };
        refusals.extend(target.commands().filter_map(|argv| self.permit_command(argv).err()));
        refusals.extend(self.permit_custody(target).err());
        (dir, refusals)
    }

    /// Checks the leaf itself: a target's identifiers are only the controller's word. `dir` is what `permit` returned.
    ///
    /// # Errors
    /// A refusal that says what to add.
    pub(crate) fn permit_leaf(&self, dir: &Dir, target: &Target, leaf: &LeafFacts) -> Result<(), Problem> {
        self.permit_names(dir, target, &leaf.identifiers)?;
        // `names` are DNS names and addresses: where there is a list, no other kind of name is on it.
        let uris: &[String] = if dir.names.is_empty() { &[] } else { &leaf.uris };
        self.permit_names(dir, target, uris)
    }

    fn permit_names(&self, dir: &Dir, target: &Target, names: &[String]) -> Result<(), Problem> {
        let Some(name) = names.iter().find(|name| !dir.permits_name(name)) else { return Ok(()) };
        // A leaf's URI may hold anything.
        let name = one_line(name, 253);
        let message = format!("the policy does not allow {name} in {}", target.dir);
        Err(self.refusal("POLICY_NAME", message, &dir.place(), &format!("names = [\"{name}\"]")))
    }

    /// Checks an argv and returns its time limit.
    ///
    /// # Errors
    /// A refusal that says which line to add.
    pub(crate) fn permit_command(&self, argv: &[String]) -> Result<Duration, Problem> {
        let found = self.commands.iter().find(|command| command.argv == argv);
        found.map(|command| command.timeout).ok_or_else(|| {
            let words: Vec<String> = argv.iter().map(|word| format!("{word:?}")).collect();
            let message = format!("the policy does not allow the command {}", argv.join(" "));
            self.refusal("POLICY_COMMAND", message, "[[command]]", &format!("argv = [{}]", words.join(", ")))
        })
    }

    fn permit_custody(&self, target: &Target) -> Result<(), Problem> {
        match target.key_slot_id {
            Some(_) => self.permit_agent_keys(),
            None => self.permit_keys(self.custody_controller || target.version.is_none(), "controller"),
        }
    }

    /// Checks that keys may be made here.
    ///
    /// # Errors
    /// A refusal that says what to add.
    pub(crate) fn permit_agent_keys(&self) -> Result<(), Problem> {
        self.permit_keys(self.custody_agent, "agent")
    }

    fn permit_keys(&self, allowed: bool, word: &str) -> Result<(), Problem> {
        if allowed {
            return Ok(());
        }
        let message = format!("the policy does not allow keys in {word} custody");
        Err(self.refusal("POLICY_CUSTODY", message, "[key]", &format!("custody = [\"{word}\"]")))
    }

    /// Checks an http-01 port.
    ///
    /// # Errors
    /// A refusal that says which line to add.
    pub(crate) fn permit_port(&self, port: u16) -> Result<(), Problem> {
        if self.http01_ports.contains(&port) {
            return Ok(());
        }
        let message = format!("the policy does not allow answering challenges on port {port}");
        Err(self.refusal("POLICY_PORT", message, "[http01]", &format!("ports = [{port}]")))
    }

    /// Checks an http-01 webroot.
    ///
    /// # Errors
    /// A refusal that says which line to add.
    pub(crate) fn permit_webroot(&self, path: &str) -> Result<(), Problem> {
        if self.webroots.iter().any(|webroot| webroot == path) {
            return Ok(());
        }
        let message = format!("the policy does not allow answering challenges in {path}");
        Err(self.refusal("POLICY_WEBROOT", message, "[http01]", &format!("webroots = [\"{path}\"]")))
    }

    fn outside(&self, dir: &str) -> Problem {
        let message = format!("the policy allows no certificate in {dir}");
        self.refusal("POLICY_DIR", message, "[[dir]]", &format!("path = \"{dir}\""))
    }

    fn refusal(&self, reason: &str, message: String, place: &str, line: &str) -> Problem {
        let hint = format!("as root, in {}, under {place}, allow it with: {line}", self.source);
        Problem::new(reason, message, "the agent's local policy decides, the controller cannot widen it", hint)
    }
}

impl Dir {
    /// Where its lines stand in the file, for hints.
    fn place(&self) -> String {
        format!("[[dir]] path = \"{}\"", self.path)
    }

    fn permits_name(&self, identifier: &str) -> bool {
        self.names.is_empty() || self.names.iter().any(|pattern| name_matches(pattern, identifier))
    }

    fn permits_file(&self, name: &str) -> bool {
        self.files.is_empty() || self.files.iter().any(|pattern| glob_matches(pattern, name))
    }

    /// Without a list only root's: an agent that is not root could not give a file away anyhow.
    fn permits_owner(&self, owner: &Owner) -> bool {
        if self.owners.is_empty() {
            return owner.user == "root" && owner.group == "root";
        }
        self.owners.iter().any(|allowed| *allowed == owner.to_string())
    }
}

impl From<&Policy> for wire::Policy {
    fn from(policy: &Policy) -> Self {
        let dirs = policy.dirs.iter().map(|dir| wire::PolicyDir {
            path: dir.path.clone(),
            names: dir.names.clone(),
            files: dir.files.clone(),
            owners: dir.owners.clone(),
            key_mode_max: dir.key_mode_max,
        });
        let agent = policy.custody_agent.then_some(wire::Custody::Agent.into());
        let controller = policy.custody_controller.then_some(wire::Custody::Controller.into());
        Self {
            dirs: dirs.collect(),
            commands: policy.commands.iter().map(|command| wire::Command { argv: command.argv.clone() }).collect(),
            http01_ports: policy.http01_ports.iter().map(|port| u32::from(*port)).collect(),
            webroots: policy.webroots.clone(),
            custody: agent.into_iter().chain(controller).collect(),
        }
    }
}

fn is_below(path: &str, root: &str) -> bool {
    path == root || path.strip_prefix(root).is_some_and(|rest| rest.starts_with('/'))
}

/// `*.example.com` stands for exactly one label, and for the wildcard identifier itself.
fn name_matches(pattern: &str, identifier: &str) -> bool {
    let identifier = identifier.to_ascii_lowercase();
    let pattern = pattern.to_ascii_lowercase();
    if pattern == identifier {
        return true;
    }
    let Some(parent) = pattern.strip_prefix("*.") else { return false };
    identifier.split_once('.').is_some_and(|(label, rest)| !label.is_empty() && rest == parent)
}

/// `*` stands for any run of characters, `?` for one.
pub(crate) fn glob_matches(pattern: &str, name: &str) -> bool {
    let pattern: Vec<char> = pattern.chars().collect();
    let mut reachable = vec![false; pattern.len() + 1];
    let open = |reachable: &mut Vec<bool>| {
        for (index, ch) in pattern.iter().enumerate() {
            let from = reachable.get(index).copied().unwrap_or_default();
            if let Some(next) = reachable.get_mut(index + 1)
                && *ch == '*'
            {
                *next |= from;
            }
        }
    };
    if let Some(start) = reachable.first_mut() {
        *start = true;
    }
    open(&mut reachable);
    for ch in name.chars() {
        let mut next = vec![false; pattern.len() + 1];
        for (index, wanted) in pattern.iter().enumerate() {
            if !reachable.get(index).copied().unwrap_or_default() {
                continue;
            }
            let to = if *wanted == '*' { index } else { index + 1 };
            if (*wanted == '*' || *wanted == '?' || *wanted == ch)
                && let Some(slot) = next.get_mut(to)
            {
                *slot = true;
            }
        }
        open(&mut next);
        reachable = next;
    }
    reachable.last().copied().unwrap_or_default()
}

fn invalid(source: &str, cause: impl AsRef<str>) -> Problem {
    Problem::new(
        "POLICY_INVALID",
        format!("the policy file {source} cannot be used"),
        cause,
        format!("correct it and check it with `certwright-agent policy check --policy {source}`"),
    )
}

/// The file's grammar, as TOML gives it.
mod raw {
    use super::{Command, Deserialize, Dir, KEY_MODE_MAX, Policy, TIMEOUT, TIMEOUT_MAX, normalise};
    use std::time::Duration;

    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    pub(super) struct File {
        #[serde(default)]
        dir: Vec<RawDir>,
        #[serde(default)]
        command: Vec<RawCommand>,
        #[serde(default)]
        http01: RawHttp01,
        #[serde(default)]
        key: RawKey,
        #[serde(default)]
        detect: RawDetect,
    }

    #[derive(Deserialize, Default)]
    #[serde(deny_unknown_fields)]
    struct RawDetect {
        #[serde(default)]
        commands: bool,
        #[serde(default)]
        homes: bool,
    }

    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    struct RawDir {
        path: String,
        #[serde(default)]
        names: Vec<String>,
        #[serde(default)]
        files: Vec<String>,
        #[serde(default)]
        owners: Vec<String>,
        key_mode_max: Option<String>,
    }

    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    struct RawCommand {
        argv: Vec<String>,
        timeout: Option<String>,
    }

    #[derive(Deserialize, Default)]
    #[serde(deny_unknown_fields)]
    struct RawHttp01 {
        #[serde(default)]
        ports: Vec<u16>,
        #[serde(default)]
        webroots: Vec<String>,
    }

    #[derive(Deserialize, Default)]
    #[serde(deny_unknown_fields)]
    struct RawKey {
        custody: Option<Vec<Custody>>,
    }

    #[derive(Deserialize, PartialEq)]
    #[serde(rename_all = "lowercase")]
    enum Custody {
        Agent,
        Controller,
    }

    impl File {
        pub(super) fn into_policy(self, source: &str) -> Result<Policy, String> {
            if self.http01.ports.contains(&0) {
                return Err("[http01] ports: 0 is not a port".to_owned());
            }
            let custody = self.key.custody.unwrap_or_else(|| vec![Custody::Agent, Custody::Controller]);
            Ok(Policy {
                source: source.to_owned(),
                dirs: self.dir.into_iter().map(RawDir::into_dir).collect::<Result<_, _>>()?,
                commands: self.command.into_iter().map(RawCommand::into_command).collect::<Result<_, _>>()?,
                http01_ports: self.http01.ports,
                webroots: self.http01.webroots.iter().map(|path| absolute(path)).collect::<Result<_, _>>()?,
                custody_agent: custody.contains(&Custody::Agent),
                custody_controller: custody.contains(&Custody::Controller),
                detect_commands: self.detect.commands,
                detect_homes: self.detect.homes,
            })
        }
    }

    impl RawDir {
        fn into_dir(self) -> Result<Dir, String> {
            let path = absolute(&self.path)?;
            let key_mode_max = match self.key_mode_max {
                None => KEY_MODE_MAX,
                Some(text) => match u32::from_str_radix(&text, 8) {
                    Ok(mode) if mode <= 0o777 => mode,
                    Ok(_) | Err(_) => {
                        return Err(format!(
                            "[[dir]] {path}: key_mode_max = {text:?} is not an octal mode like \"0640\""
                        ));
                    }
                },
            };
            for text in self.names.iter().chain(&self.files).chain(&self.owners) {
                if text.is_empty() || text.chars().any(char::is_control) || text.contains('/') {
                    return Err(format!("[[dir]] {path}: {text:?} holds a slash or a control character, or is empty"));
                }
            }
            if let Some(owner) = self.owners.iter().find(|owner| owner.split_once(':').is_none()) {
                return Err(format!("[[dir]] {path}: the owner {owner:?} is not of the form \"user:group\""));
            }
            Ok(Dir { path, names: self.names, files: self.files, owners: self.owners, key_mode_max })
        }
    }

    impl RawCommand {
        fn into_command(self) -> Result<Command, String> {
            let program = self.argv.first().map_or("", String::as_str);
            if !program.starts_with('/') {
                return Err(format!("[[command]] argv = {:?}: the program must be an absolute path", self.argv));
            }
            let timeout = match &self.timeout {
                None => TIMEOUT,
                Some(text) => {
                    duration(text).filter(|timeout| !timeout.is_zero() && *timeout <= TIMEOUT_MAX).ok_or_else(|| {
                        format!("[[command]] {program}: timeout = {text:?} is not between \"1s\" and \"10m\"")
                    })?
                }
            };
            Ok(Command { argv: self.argv, timeout })
        }
    }

    fn absolute(path: &str) -> Result<String, String> {
        normalise(path).ok_or_else(|| format!("{path:?} is not an absolute path without `..` and control characters"))
    }

    fn duration(text: &str) -> Option<Duration> {
        let (number, seconds) =
            if let Some(number) = text.strip_suffix('s') { (number, 1) } else { (text.strip_suffix('m')?, 60) };
        number.parse::<u64>().ok()?.checked_mul(seconds).map(Duration::from_secs)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::target::{Content, OnDrift, TargetFile, Version};

    const TEXT: &str = r#"
        [[dir]]
        path = "/etc/nginx/ssl"
        names = ["*.example.com", "example.com"]
        files = ["*.pem"]
        owners = ["root:root", "root:www-data"]
        key_mode_max = "0640"
        [[command]]
        argv = ["/usr/bin/systemctl", "reload", "nginx"]
        timeout = "45s"
        [http01]
        ports = [80]
        webroots = ["/var/www/html"]
        [key]
        custody = ["agent"]
    "#;

    fn target() -> Target {
        Target {
            id: "t1".into(),
            certificate_name: "web".into(),
            identifiers: vec!["www.example.com".into()],
            version: Some(Version { id: "v1".into(), fingerprint_sha256: [0; 32] }),
            key_slot_id: Some("k1".into()),
            dir: "/etc/nginx/ssl/www".into(),
            files: vec![TargetFile { content: Content::Key, name: "key.pem".into(), owner: None, mode: 0o600 }],
            validate: vec![],
            reload: vec![vec!["/usr/bin/systemctl".into(), "reload".into(), "nginx".into()]],
            verify: vec![],
            deploy_wish: 0,
            purge: false,
            rollback: false,
            hold: false,
            on_drift: OnDrift::Repair,
        }
    }

    fn check(change: impl Fn(&mut Target), expected: &str) {
        let policy = Policy::parse("/etc/certwright/policy.toml", TEXT).unwrap();
        let mut target = target();
        change(&mut target);
        let found = policy.permit(&target).map_or_else(|problem| problem.reason, |dir| dir.path.clone());
        assert_eq!(found, expected);
    }

    #[test]
    fn a_target_within_the_policy_is_permitted() {
        check(|_| {}, "/etc/nginx/ssl");
        check(|target| target.dir = "/etc/nginx/ssl".into(), "/etc/nginx/ssl");
        check(|target| target.identifiers = vec!["*.example.com".into(), "example.com".into()], "/etc/nginx/ssl");
    }

    #[test]
    fn everything_else_is_refused() {
        check(|target| target.dir = "/etc/nginx/sslx".into(), "POLICY_DIR");
        check(|target| target.dir = "/etc/nginx".into(), "POLICY_DIR");
        check(|target| target.identifiers.push("a.b.example.com".into()), "POLICY_NAME");
        check(|target| target.identifiers.push("example.org".into()), "POLICY_NAME");
        check(|target| target.files[0].name = "key.txt".into(), "POLICY_FILE");
        for content in [Content::Key, Content::Combined] {
            check(|target| (target.files[0].content, target.files[0].mode) = (content, 0o644), "POLICY_KEY_MODE");
        }
        check(|target| target.files[0].owner = Some(Owner { user: "x".into(), group: "x".into() }), "POLICY_OWNER");
        check(|target| target.reload[0].push("--now".into()), "POLICY_COMMAND");
        check(|target| target.validate.push(vec!["/usr/bin/env".into()]), "POLICY_COMMAND");
        check(|target| target.key_slot_id = None, "POLICY_CUSTODY");
    }

    #[test]
    fn a_leaf_may_not_say_more_than_the_policy_allows() {
        let of = |names: &[&str], text: &str| {
            let key = rcgen::KeyPair::generate().unwrap();
            let mut params =
                rcgen::CertificateParams::new(names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>()).unwrap();
            if names.is_empty() {
                let uri = "spiffe://bank.internal/x".try_into().unwrap();
                params.subject_alt_names = vec![rcgen::SanType::URI(uri)];
            }
            let leaf = LeafFacts::parse(params.self_signed(&key).unwrap().der()).unwrap();
            let policy = Policy::parse("/p.toml", text).unwrap();
            policy
                .permit_leaf(&policy.dirs[0], &target(), &leaf)
                .map_or_else(|problem| problem.message, |()| "ok".into())
        };
        assert_eq!(of(&["www.example.com", "example.com"], TEXT), "ok");
        assert!(of(&["www.example.com", "bank.internal"], TEXT).contains("bank.internal"));
        assert!(of(&["www.example.com", "*.corp"], TEXT).contains("*.corp"));
        assert!(of(&["www.example.com", "192.0.2.1"], TEXT).contains("192.0.2.1"));
        assert!(of(&[], TEXT).contains("spiffe://bank.internal/x"));
        let any = "[[dir]]\npath = \"/etc/nginx/ssl\"";
        assert_eq!((of(&["bank.internal"], any), of(&[], any)), ("ok".to_owned(), "ok".to_owned()));
    }

    #[test]
    fn without_owners_only_root_may_own() {
        let policy = Policy::parse("/p", "[[dir]]\npath = \"/etc/x\"").unwrap();
        let permits = |user: &str| policy.dirs[0].permits_owner(&Owner { user: user.into(), group: user.into() });
        assert!(permits("root") && !permits("www-data"));
    }

    #[test]
    fn a_refusal_names_the_line_to_add() {
        let policy = Policy::parse("/p.toml", TEXT).unwrap();
        let problem = policy.permit_command(&["/bin/true".to_owned()]).unwrap_err();
        assert!(
            problem.hint.contains("/p.toml") && problem.hint.contains(r#"argv = ["/bin/true"]"#),
            "{}",
            problem.hint
        );
        assert!(policy.permit_port(8080).unwrap_err().hint.contains("ports = [8080]"));
        assert!(policy.permit_webroot("/srv").unwrap_err().hint.contains("webroots = [\"/srv\"]"));
        assert_eq!(policy.permit_port(80), Ok(()));
    }

    #[test]
    fn unknown_keys_are_errors_that_name_key_and_line() {
        let problem = Policy::parse("/p.toml", "[http01]\nports = [80]\nhosts = []\n").unwrap_err();
        assert!(problem.cause.contains("hosts") && problem.cause.contains("line 3"), "{}", problem.cause);
    }

    #[test]
    fn bad_values_are_errors() {
        for text in [
            "[[dir]]\npath = \"etc\"",
            "[[dir]]\npath = \"/etc/../x\"",
            "[[dir]]\npath = \"/etc\"\nkey_mode_max = \"9\"",
            "[[dir]]\npath = \"/etc\"\nfiles = [\"a\\nb\"]",
            "[[dir]]\npath = \"/etc\"\nowners = [\"root\"]",
            "[[command]]\nargv = [\"nginx\"]",
            "[[command]]\nargv = []",
            "[[command]]\nargv = [\"/bin/true\"]\ntimeout = \"0s\"",
            "[http01]\nports = [0]",
            "[key]\ncustody = [\"cloud\"]",
        ] {
            assert_eq!(Policy::parse("/p", text).unwrap_err().reason, "POLICY_INVALID", "{text}");
        }
    }

    #[test]
    fn globs_match_whole_names() {
        for (pattern, name, expected) in [
            ("*.pem", "key.pem", true),
            ("*.pem", "key.pem.bak", false),
            ("*", "anything", true),
            ("k?y.*", "key.crt", true),
            ("k?y.*", "ky.crt", false),
            ("a*b*c", "axxbyyc", true),
            ("a*b*c", "axxbyy", false),
            ("", "", true),
        ] {
            assert_eq!(glob_matches(pattern, name), expected, "{pattern} {name}");
        }
    }
}
