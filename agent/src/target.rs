//! PURE: a desired state as the agent understands it. The wire is parsed once, here, into types that cannot be wrong:
//! what does not parse, or requires what this agent cannot do, is refused item by item and the rest goes on.
//! Does no I/O and knows no policy.

use std::collections::BTreeSet;

use proto::agent::v1 as wire;
use proto::text::one_line;
use proto::types::v1 as types;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use crate::problem::Problem;

mod check;

pub(crate) use check::{check_answer, check_dir, check_file_name, check_item_id, is_item_id, is_token};

/// What a desired item may require of this agent.
pub(crate) const FEATURES: &[&str] = &[
    "http01-standalone",
    "http01-webroot",
    "verify-tls",
    "verify-starttls",
    "validate",
    "purge",
    "hold",
    "file-combined",
    "file-pfx",
    "rollback",
    "drift",
    "test-target",
    "rehearse-challenges",
    "detect",
];
/// The directory of ours inside a target's directory.
pub(crate) const BASE: &str = ".certwright";
const PATH_BYTES_MAX: usize = 1024;

/// Names a desired state.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct StateName {
    pub(crate) epoch: u64,
    pub(crate) generation: u64,
    pub(crate) digest: Vec<u8>,
}

impl From<wire::StateName> for StateName {
    fn from(name: wire::StateName) -> Self {
        Self { epoch: name.epoch, generation: name.generation, digest: name.digest }
    }
}

impl From<StateName> for wire::StateName {
    fn from(name: StateName) -> Self {
        Self { epoch: name.epoch, generation: name.generation, digest: name.digest }
    }
}

/// Where and how one certificate lives on this server.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Target {
    pub(crate) id: String,
    pub(crate) certificate_name: String,
    pub(crate) identifiers: Vec<String>,
    /// `None` while no version exists: nothing to do but to keep what is there.
    pub(crate) version: Option<Version>,
    /// The slot that holds the version's key; `None` when the controller sends the key.
    pub(crate) key_slot_id: Option<String>,
    /// Absolute and normalised.
    pub(crate) dir: String,
    pub(crate) files: Vec<TargetFile>,
    /// Run before anything is reloaded. Not in the digest of a target that has none: an upgrade is no new wish.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) validate: Vec<Vec<String>>,
    pub(crate) reload: Vec<Vec<String>>,
    pub(crate) verify: Vec<Endpoint>,
    pub(crate) deploy_wish: u64,
    pub(crate) purge: bool,
    /// An operator wants this version although a newer one is there.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(crate) rollback: bool,
    /// Paused: keep what is there and begin nothing. No part of the wish: a pause is no reason to deploy again.
    #[serde(skip)]
    pub(crate) hold: bool,
    /// No part of the wish either: it says what to do with files that are there.
    #[serde(skip)]
    pub(crate) on_drift: OnDrift,
}

/// What to do with files that are no longer as they were written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum OnDrift {
    #[default]
    Repair,
    Show,
}

/// One issued leaf, by name and fingerprint.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Version {
    pub(crate) id: String,
    pub(crate) fingerprint_sha256: [u8; 32],
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct TargetFile {
    pub(crate) content: Content,
    /// A bare name without a leading dot.
    pub(crate) name: String,
    /// User and group; `None` keeps the agent's own.
    pub(crate) owner: Option<Owner>,
    pub(crate) mode: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Content {
    Leaf,
    Key,
    Chain,
    Fullchain,
    /// Leaf, chain and key.
    Combined,
    /// The same as PKCS #12.
    Pfx,
    /// Its password.
    PfxPassword,
}

impl Content {
    /// Whether the private key is in it, or what opens it: every rule for keys counts.
    pub(crate) fn holds_key(self) -> bool {
        matches!(self, Self::Key | Self::Combined | Self::Pfx | Self::PfxPassword)
    }

    /// Whether it begins with the leaf.
    pub(crate) fn holds_leaf(self) -> bool {
        matches!(self, Self::Leaf | Self::Fullchain | Self::Combined)
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Owner {
    pub(crate) user: String,
    pub(crate) group: String,
}

impl std::fmt::Display for Owner {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}:{}", self.user, self.group)
    }
}

/// Where a TLS handshake must show the leaf.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Endpoint {
    pub(crate) address: String,
    pub(crate) server_name: String,
    /// Absent where it is TLS, so that an agent that learns of it does not take an old wish for a new one.
    #[serde(default, skip_serializing_if = "Protocol::is_tls")]
    pub(crate) protocol: Protocol,
}

impl std::fmt::Display for Endpoint {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        proto::endpoint::write(f, self.protocol.wire(), &self.address, &self.server_name)
    }
}

/// What a server speaks first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Protocol {
    #[default]
    Tls,
    Smtp,
    Imap,
    Pop3,
    Xmpp,
    Ldap,
    Postgres,
}

impl Protocol {
    fn is_tls(&self) -> bool {
        *self == Self::Tls
    }

    fn wire(self) -> types::VerifyProtocol {
        match self {
            Self::Tls => types::VerifyProtocol::Tls,
            Self::Smtp => types::VerifyProtocol::Smtp,
            Self::Imap => types::VerifyProtocol::Imap,
            Self::Pop3 => types::VerifyProtocol::Pop3,
            Self::Xmpp => types::VerifyProtocol::Xmpp,
            Self::Ldap => types::VerifyProtocol::Ldap,
            Self::Postgres => types::VerifyProtocol::Postgres,
        }
    }
}

impl Target {
    /// Names everything that is wished for this target: another wish has another digest.
    pub(crate) fn digest(&self) -> String {
        let text = serde_json::to_vec(self).expect("a struct of strings and numbers has a JSON form");
        proto::x509::hex(&Sha256::digest(text))
    }

    pub(crate) fn has_key_file(&self) -> bool {
        self.files.iter().any(|file| file.content.holds_key())
    }

    /// Every command that this target may run.
    pub(crate) fn commands(&self) -> impl Iterator<Item = &Vec<String>> {
        self.validate.iter().chain(&self.reload)
    }

    pub(crate) fn names(&self) -> Vec<String> {
        self.files.iter().map(|file| file.name.clone()).collect()
    }
}

/// A key to make, to keep, and to offer a CSR for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct KeySlot {
    pub(crate) id: String,
    pub(crate) identifiers: Vec<String>,
    pub(crate) key_type: KeyType,
    pub(crate) csr_wanted: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum KeyType {
    P256,
    P384,
    Rsa2048,
    Rsa3072,
    Rsa4096,
}

/// A token to serve (RFC 8555 §8.3).
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Challenge {
    pub(crate) token: String,
    pub(crate) key_authorization: String,
    pub(crate) identifier: String,
    pub(crate) place: Place,
}

/// How a token is served.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Place {
    Standalone(u16),
    Webroot(String),
}

/// A whole desired state; refused items stand beside the accepted ones.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Desired {
    pub(crate) name: StateName,
    pub(crate) key_slots: Vec<KeySlot>,
    pub(crate) targets: Vec<Target>,
    pub(crate) challenges: Vec<Challenge>,
    pub(crate) refused: Refused,
    /// Every key slot that is named anywhere, in refused items too: their keys stay.
    pub(crate) slots_named: BTreeSet<String>,
}

/// Items of a desired state that this agent will not touch, by their ids.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Refused {
    pub(crate) key_slots: Vec<(String, Problem)>,
    /// With version id and deploy wish, as a report names them.
    pub(crate) targets: Vec<(String, String, u64, Problem)>,
    pub(crate) challenges: Vec<(String, Problem)>,
}

impl Desired {
    /// Parses what the controller sent.
    pub(crate) fn from_wire(response: &wire::GetDesiredResponse) -> Self {
        let mut desired = Self { name: response.name.clone().unwrap_or_default().into(), ..Self::default() };
        desired.slots_named.extend(response.key_slots.iter().map(|slot| slot.id.clone()));
        desired.slots_named.extend(response.targets.iter().map(|target| target.key_slot_id.clone()));
        for slot in &response.key_slots {
            match key_slot(slot) {
                Ok(slot) => desired.key_slots.push(slot),
                Err(problem) => desired.refused.key_slots.push((one_line(&slot.id, 64), problem)),
            }
        }
        let mut taken = BTreeSet::new();
        for item in &response.targets {
            match target(item).and_then(|target| claim(&mut taken, target)) {
                Ok(target) => desired.targets.push(target),
                Err(problem) => {
                    desired.refused.targets.push((
                        item.target_id.clone(),
                        item.version_id.clone(),
                        item.deploy_wish,
                        problem,
                    ));
                }
            }
        }
        for item in &response.challenges {
            match challenge(item) {
                Ok(challenge) => desired.challenges.push(challenge),
                Err(problem) => desired.refused.challenges.push((one_line(&item.token, 128), problem)),
            }
        }
        desired
    }
}

/// Two targets may share a directory, but never a file.
fn claim(taken: &mut BTreeSet<(String, String)>, target: Target) -> Result<Target, Problem> {
    for file in &target.files {
        if !taken.insert((target.dir.clone(), file.name.clone())) {
            return Err(Problem::new(
                "FILE_TAKEN",
                format!("two targets write the file {}/{}", target.dir, file.name),
                "",
                "give each target a directory of its own, or other file names",
            ));
        }
    }
    Ok(target)
}

fn key_slot(slot: &wire::KeySlot) -> Result<KeySlot, Problem> {
    let key_type = match slot.key_type() {
        types::KeyType::P256 => KeyType::P256,
        types::KeyType::P384 => KeyType::P384,
        types::KeyType::Rsa2048 => KeyType::Rsa2048,
        types::KeyType::Rsa3072 => KeyType::Rsa3072,
        types::KeyType::Rsa4096 => KeyType::Rsa4096,
        types::KeyType::Unspecified => return Err(upgrade("a key of an unknown type")),
    };
    let identifiers = lower_case(&slot.identifiers);
    let slot = KeySlot { id: slot.id.clone(), identifiers, key_type, csr_wanted: slot.csr_wanted };
    slot.check().map(|()| slot)
}

/// Parses one item of a desired state, or what could become one.
pub(crate) fn target(item: &wire::DesiredTarget) -> Result<Target, Problem> {
    requires(&item.requires)?;
    let version = if item.version_id.is_empty() {
        None
    } else {
        let fingerprint = item.fingerprint_sha256.as_slice().try_into();
        let fingerprint_sha256 = fingerprint.ok().ok_or_else(|| malformed("a fingerprint", &item.version_id))?;
        Some(Version { id: item.version_id.clone(), fingerprint_sha256 })
    };
    let identifiers = identifiers(&item.identifiers)?;
    let key_slot_id = match item.custody() {
        types::Custody::Agent if version.is_none() && item.key_slot_id.is_empty() => None,
        types::Custody::Agent => Some(item.key_slot_id.clone()),
        types::Custody::Controller => None,
        types::Custody::Unspecified if version.is_none() => None,
        types::Custody::Unspecified => return Err(upgrade("a key custody that is unknown here")),
    };
    let first = identifiers.first().map_or("", String::as_str).to_owned();
    let target = Target {
        id: item.target_id.clone(),
        certificate_name: one_line(&item.certificate_name, 128),
        version,
        key_slot_id,
        dir: directory(&item.dir),
        files: item.files.iter().map(file).collect::<Result<_, _>>()?,
        validate: item.validate.iter().map(|command| command.argv.clone()).collect(),
        reload: item.reload.iter().map(|command| command.argv.clone()).collect(),
        verify: item.verify.iter().map(|endpoint| self::endpoint(endpoint, &first)).collect::<Result<_, _>>()?,
        deploy_wish: item.deploy_wish,
        purge: item.purge,
        rollback: item.rollback,
        hold: item.hold,
        on_drift: on_drift(item.on_drift),
        identifiers,
    };
    target.check().map(|()| target)
}

/// What is unknown here changes nothing on this server.
fn on_drift(number: i32) -> OnDrift {
    match types::OnDrift::try_from(number) {
        Ok(types::OnDrift::Unspecified | types::OnDrift::Repair) => OnDrift::Repair,
        Ok(types::OnDrift::Show) | Err(_) => OnDrift::Show,
    }
}

fn file(spec: &types::FileSpec) -> Result<TargetFile, Problem> {
    let content = match spec.content() {
        types::FileContent::Cert => Content::Leaf,
        types::FileContent::Key => Content::Key,
        types::FileContent::Chain => Content::Chain,
        types::FileContent::Fullchain => Content::Fullchain,
        types::FileContent::Combined => Content::Combined,
        types::FileContent::Pfx => Content::Pfx,
        types::FileContent::PfxPassword => Content::PfxPassword,
        types::FileContent::Unspecified => return Err(upgrade("a file of an unknown form")),
    };
    let owner = match spec.owner.split_once(':') {
        _ if spec.owner.is_empty() => None,
        Some((user, group)) => Some(Owner { user: user.to_owned(), group: group.to_owned() }),
        None => return Err(malformed("an owner (expected user:group)", &spec.owner)),
    };
    Ok(TargetFile { content, name: spec.name.clone(), owner, mode: spec.mode })
}

fn endpoint(endpoint: &types::Endpoint, first: &str) -> Result<Endpoint, Problem> {
    let port = endpoint.address.rsplit_once(':').and_then(|(_, port)| port.parse::<u16>().ok());
    let plain = endpoint.address.bytes().all(|byte| byte.is_ascii_graphic());
    if port.is_none_or(|port| port == 0) || endpoint.address.len() > 300 || !plain {
        return Err(malformed("a verify endpoint (expected HOST:PORT)", &endpoint.address));
    }
    let name = if endpoint.server_name.is_empty() { first } else { &endpoint.server_name };
    if name.len() > 253 || !name.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err(malformed("the server name of a verify endpoint", name));
    }
    // A wildcard cannot stand in SNI; any label in its place selects the same certificate.
    let server_name = name.strip_prefix("*.").map_or_else(|| name.to_owned(), |rest| format!("certwright.{rest}"));
    Ok(Endpoint { address: endpoint.address.clone(), server_name, protocol: protocol(endpoint.protocol)? })
}

fn protocol(number: i32) -> Result<Protocol, Problem> {
    Ok(match types::VerifyProtocol::try_from(number) {
        Ok(types::VerifyProtocol::Tls) => Protocol::Tls,
        Ok(types::VerifyProtocol::Smtp) => Protocol::Smtp,
        Ok(types::VerifyProtocol::Imap) => Protocol::Imap,
        Ok(types::VerifyProtocol::Pop3) => Protocol::Pop3,
        Ok(types::VerifyProtocol::Xmpp) => Protocol::Xmpp,
        Ok(types::VerifyProtocol::Ldap) => Protocol::Ldap,
        Ok(types::VerifyProtocol::Postgres) => Protocol::Postgres,
        Err(_) => return Err(upgrade(&format!("the protocol {number} of a verify endpoint"))),
    })
}

/// Parses a challenge.
pub(crate) fn challenge(item: &wire::DesiredChallenge) -> Result<Challenge, Problem> {
    requires(&item.requires)?;
    check_answer(&item.token, &item.key_authorization)?;
    let place = place(item.http01.as_ref())?;
    let identifier = identifiers(std::slice::from_ref(&item.identifier))?.remove(0);
    Ok(Challenge { token: item.token.clone(), key_authorization: item.key_authorization.clone(), identifier, place })
}

/// Parses how challenges are answered.
pub(crate) fn place(http01: Option<&types::Http01>) -> Result<Place, Problem> {
    match http01.and_then(|http01| http01.mode.as_ref()) {
        Some(types::http01::Mode::StandalonePort(port)) => match u16::try_from(*port) {
            Ok(port @ 1..) => Ok(Place::Standalone(port)),
            Ok(0) | Err(_) => Err(malformed("a port", &port.to_string())),
        },
        Some(types::http01::Mode::Webroot(path)) => {
            let path = directory(path);
            check_dir(&path).map(|()| Place::Webroot(path))
        }
        None => Err(upgrade("an http-01 mode that is unknown here")),
    }
}

/// Returns the directory without repeated or trailing slashes, where it can be one.
fn directory(path: &str) -> String {
    normalise(path).unwrap_or_else(|| path.to_owned())
}

/// Returns an absolute path with single slashes and no `.`; `None` when it is relative, climbs, or is not printable.
pub(crate) fn normalise(path: &str) -> Option<String> {
    if !path.starts_with('/') || path.len() > PATH_BYTES_MAX || path.chars().any(char::is_control) {
        return None;
    }
    let parts: Vec<&str> = path.split('/').filter(|part| !part.is_empty() && *part != ".").collect();
    if parts.is_empty() || parts.iter().any(|part| *part == ".." || *part == BASE || part.len() > 255) {
        return None;
    }
    Some(format!("/{}", parts.join("/")))
}

fn identifiers(names: &[String]) -> Result<Vec<String>, Problem> {
    check::check_identifiers(names).map(|()| lower_case(names))
}

fn lower_case(names: &[String]) -> Vec<String> {
    names.iter().map(|name| name.to_ascii_lowercase()).collect()
}

fn requires(features: &[String]) -> Result<(), Problem> {
    match features.iter().find(|feature| !FEATURES.contains(&feature.as_str())) {
        Some(feature) => Err(upgrade(&format!("the feature {:?}", one_line(feature, 64)))),
        None => Ok(()),
    }
}

fn upgrade(what: &str) -> Problem {
    Problem::new(
        "UPGRADE_AGENT",
        format!("this agent does not know {what}"),
        format!("agent version {}", env!("CARGO_PKG_VERSION")),
        "upgrade the agent on this server, then deploy again",
    )
}

fn malformed(what: &str, found: &str) -> Problem {
    Problem::new(
        "DESIRED_INVALID",
        format!("the controller sent something that is not {what}"),
        format!("{:?}", one_line(found, 200)),
        "correct it at the certificate or target; if it looks right there, report a bug",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    pub(super) fn wire_target() -> wire::DesiredTarget {
        let file = |content: types::FileContent, name: &str, mode| types::FileSpec {
            content: content.into(),
            name: name.to_owned(),
            owner: String::new(),
            mode,
        };
        wire::DesiredTarget {
            target_id: "t1".into(),
            certificate_name: "web".into(),
            identifiers: vec!["H1.example.test".into()],
            version_id: "v1".into(),
            fingerprint_sha256: vec![7; 32],
            custody: types::Custody::Controller.into(),
            dir: "/etc/nginx//ssl/".into(),
            files: vec![
                file(types::FileContent::Fullchain, "fullchain.pem", 0o644),
                file(types::FileContent::Key, "key.pem", 0o600),
            ],
            verify: vec![types::Endpoint { address: "127.0.0.1:443".into(), server_name: String::new(), protocol: 0 }],
            ..wire::DesiredTarget::default()
        }
    }

    fn refusal(change: impl Fn(&mut wire::DesiredTarget)) -> String {
        let mut item = wire_target();
        change(&mut item);
        target(&item).map_or_else(|problem| problem.reason, |_| "accepted".to_owned())
    }

    #[test]
    fn a_target_is_normalised() {
        let target = target(&wire_target()).unwrap();
        assert_eq!(target.dir, "/etc/nginx/ssl");
        assert_eq!(target.identifiers, ["h1.example.test"]);
        assert_eq!(target.verify[0].server_name, "h1.example.test");
    }

    #[test]
    fn another_wish_has_another_digest() {
        let one = target(&wire_target()).unwrap();
        let two = Target { deploy_wish: 1, ..one.clone() };
        assert_ne!(one.digest(), two.digest());
        assert_eq!(one.digest(), one.clone().digest());
    }

    #[test]
    fn an_endpoint_is_shown_as_the_operator_wrote_it_and_plain_tls_keeps_its_digest() {
        let shown = |protocol: types::VerifyProtocol| {
            let mut item = wire_target();
            item.verify[0].protocol = protocol.into();
            let target = target(&item).unwrap();
            (target.verify[0].to_string(), serde_json::to_string(&target.verify).unwrap())
        };
        let (plain, stored) = shown(types::VerifyProtocol::Tls);
        assert_eq!(plain, "127.0.0.1:443/h1.example.test");
        assert_eq!(stored, r#"[{"address":"127.0.0.1:443","server_name":"h1.example.test"}]"#);
        let (smtp, stored) = shown(types::VerifyProtocol::Smtp);
        assert_eq!(smtp, "smtp://127.0.0.1:443/h1.example.test");
        assert!(stored.contains(r#""protocol":"smtp""#));
    }

    #[test]
    fn refuses_directories_that_climb_or_are_relative() {
        for dir in ["etc", "/etc/../root", "", "/", "/etc/\u{1b}x", "/etc/.certwright/1"] {
            assert_eq!(refusal(|item| item.dir = dir.into()), "DIR_INVALID", "{dir:?}");
        }
    }

    #[test]
    fn refuses_file_names_that_are_no_bare_names() {
        for name in ["", "..", "a/b", ".hidden", "a\nb", "../../etc/cron.d/x"] {
            assert_eq!(refusal(|item| item.files[0].name = name.into()), "FILE_NAME", "{name:?}");
        }
    }

    #[test]
    fn refuses_what_it_does_not_know_with_upgrade() {
        assert_eq!(refusal(|item| item.requires = vec!["jks".into()]), "UPGRADE_AGENT");
        assert_eq!(refusal(|item| item.files[0].content = 99), "UPGRADE_AGENT");
        assert_eq!(refusal(|item| item.custody = 99), "UPGRADE_AGENT");
        assert_eq!(refusal(|item| item.verify[0].protocol = 99), "UPGRADE_AGENT");
    }

    #[test]
    fn refuses_hostile_modes_and_owners() {
        for mode in [0, 0o4644, 0o666, 0o664, 0o646, 0o744, 0o654, 0o645, 0o244] {
            assert_eq!(refusal(|item| item.files[0].mode = mode), "DESIRED_INVALID", "{mode:o}");
        }
        for mode in [0o400, 0o444, 0o600, 0o640, 0o644] {
            assert_eq!(refusal(|item| item.files[0].mode = mode), "accepted", "{mode:o}");
        }
        for content in [types::FileContent::Key, types::FileContent::Combined] {
            let with = |mode| refusal(|item| (item.files[0].content, item.files[0].mode) = (content.into(), mode));
            assert_eq!([with(0o600), with(0o640)], ["accepted", "accepted"]);
            assert_eq!([with(0o644), with(0o444)], ["DESIRED_INVALID", "DESIRED_INVALID"]);
        }
        assert_eq!(refusal(|item| item.files[0].owner = "root".into()), "DESIRED_INVALID");
        assert_eq!(refusal(|item| item.files[0].owner = "a b:c".into()), "DESIRED_INVALID");
        assert_eq!(refusal(|item| item.fingerprint_sha256 = vec![1]), "DESIRED_INVALID");
    }

    #[test]
    fn a_refused_item_does_not_stop_the_rest() {
        let mut bad = wire_target();
        bad.target_id = "t2".into();
        let response =
            wire::GetDesiredResponse { targets: vec![wire_target(), bad], ..wire::GetDesiredResponse::default() };
        let desired = Desired::from_wire(&response);
        assert_eq!(desired.targets.len(), 1);
        assert_eq!(desired.refused.targets[0].3.reason, "FILE_TAKEN");
    }

    #[test]
    fn a_refused_item_still_names_its_key_slot() {
        let mut target = wire_target();
        (target.key_slot_id, target.requires) = ("k1".into(), vec!["jks".into()]);
        let slot = wire::KeySlot { id: "k2".into(), key_type: 99, ..wire::KeySlot::default() };
        let response = wire::GetDesiredResponse {
            key_slots: vec![slot],
            targets: vec![target],
            ..wire::GetDesiredResponse::default()
        };
        let desired = Desired::from_wire(&response);
        assert!(desired.targets.is_empty() && desired.key_slots.is_empty());
        assert_eq!(desired.slots_named, BTreeSet::from(["k1".to_owned(), "k2".to_owned()]));
    }

    fn wire_challenge(token: &str, key_authorization: &str) -> wire::DesiredChallenge {
        wire::DesiredChallenge {
            token: token.into(),
            key_authorization: key_authorization.into(),
            identifier: "h1.example.test".into(),
            http01: Some(types::Http01 { mode: Some(types::http01::Mode::StandalonePort(80)) }),
            requires: vec![],
        }
    }

    #[test]
    fn a_token_is_checked_before_anything() {
        assert!(challenge(&wire_challenge("tok_-1", "tok_-1.thumb")).is_ok());
        for (token, authorization) in [
            ("../../etc/x", "../../etc/x.thumb"),
            ("", ".thumb"),
            ("tok", "other.thumb"),
            ("tok", "tok"),
            ("tok", "tok.<script>"),
        ] {
            assert!(challenge(&wire_challenge(token, authorization)).is_err(), "{token:?}");
        }
        assert!(challenge(&wire_challenge(&"a".repeat(129), &format!("{}.t", "a".repeat(129)))).is_err());
    }

    proptest::proptest! {
        /// A path from outside is refused or stays where it says: absolute, no climbing, the same when read again.
        #[test]
        fn a_normalised_path_cannot_climb(path in "[/.a-c]{0,20}|\\PC{0,40}") {
            if let Some(normal) = normalise(&path) {
                proptest::prop_assert!(normal.starts_with('/') && !normal.ends_with('/'));
                proptest::prop_assert!(normal.split('/').skip(1).all(|part| !part.is_empty() && part != ".." && part != "."));
                proptest::prop_assert_eq!(normalise(&normal), Some(normal));
            }
        }
    }
}
