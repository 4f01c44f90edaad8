//! What the audit is told of each call that changes something: who, from where, what, before the effect and after it
//! (features.md O3). A call whose line cannot be written is refused. Called by `rpc/operator_service`, `rpc/peer` and
//! `rpc/agent_service`.

use proto::clock::from_wire;
use proto::method::Method;
use proto::operator::v1 as wire;
use proto::types::v1 as types;
use proto::x509::hex;
use sha2::{Digest as _, Sha256};
use tonic::Code;

use super::peer::{AgentCaller, OperatorCaller, Peer};
use super::status::Refusal;
use crate::lifecycle::audit::{Draft, Result as How};
use crate::lifecycle::problem::Problem;
use crate::tasks::audit::AuditError;
use crate::tasks::hub::Hub;

/// Characters of a key's hash that tell it from others.
const KEY_CHARS: usize = 16;

/// A request that changes something, as the audit tells it.
pub(crate) trait Told {
    /// Returns what it is about, a name, and what is asked. Never a secret.
    fn told(&self) -> (String, String);
}

/// An act that was asked for and has not had its effect yet.
#[derive(Debug)]
pub(crate) struct Begun {
    asked: u64,
    draft: Draft,
}

/// Writes that `caller` asked for this.
pub(crate) async fn begin(
    hub: &Hub,
    caller: &OperatorCaller,
    method: Method,
    asked: &impl Told,
) -> Result<Begun, Refusal> {
    let (subject, detail) = asked.told();
    let draft = Draft {
        actor: caller.name.clone(),
        from: from(caller.peer()),
        act: method.name().to_owned(),
        subject,
        detail,
        result: How::Asked,
    };
    let asked = hub.audit.write(hub, draft.clone()).await?;
    Ok(Begun { asked, draft })
}

/// Writes what came of it. The effect stands whether or not that can be written: the line that asked is there.
pub(crate) async fn end<T>(hub: &Hub, begun: Begun, came: &Result<T, Refusal>) {
    let (result, detail) = match came {
        Ok(_) => (How::Done(begun.asked), String::new()),
        Err(refusal) => (How::Failed(begun.asked), refusal.words()),
    };
    // It was logged where it failed.
    drop(hub.audit.write(hub, Draft { result, detail, ..begun.draft }).await);
}

/// Writes that a role does not allow what was tried.
pub(crate) async fn refused(hub: &Hub, name: &str, peer: &Peer, method: Method, why: &Refusal) {
    let draft = Draft {
        actor: name.to_owned(),
        from: from(peer),
        act: method.name().to_owned(),
        subject: String::new(),
        detail: why.words(),
        result: How::Refused,
    };
    // It is refused whether or not that can be written; the log says why not.
    drop(hub.audit.write_new(hub, method.name(), draft).await);
}

/// Writes that an agent is given the key of a version.
pub(crate) async fn key_leaves(
    hub: &Hub,
    caller: &AgentCaller,
    certificate: &str,
    serial: &str,
) -> Result<(), Refusal> {
    let draft = Draft {
        actor: format!("agent:{}", caller.name),
        from: from(&Peer::Tls(Some(caller.leaf().clone()), caller.origin())),
        act: Method::AgentFetch.name().to_owned(),
        subject: certificate.to_owned(),
        detail: format!("key serial={serial}"),
        result: How::Asked,
    };
    // A delivery that is repeated at once, after a lost answer, is the same one.
    let what = draft.detail.clone();
    hub.audit.write_new(hub, &what, draft).await?;
    Ok(())
}

/// Writes that a one-time token is to make an identity: of an agent, or of an operator.
pub(crate) async fn enters(
    hub: &Hub,
    actor: &str,
    method: Method,
    spki_sha256: &str,
    by: &str,
) -> Result<Begun, Refusal> {
    let draft = Draft {
        actor: actor.to_owned(),
        from: format!("token of {by}, key {}", spki_sha256.get(..KEY_CHARS).unwrap_or(spki_sha256)),
        act: method.name().to_owned(),
        subject: actor.to_owned(),
        detail: String::new(),
        result: How::Asked,
    };
    let asked = hub.audit.write(hub, draft.clone()).await?;
    Ok(Begun { asked, draft })
}

/// Where a peer is, and how they proved who they are.
pub(crate) fn from(peer: &Peer) -> String {
    match peer {
        Peer::Local(user) => match user.login_uid {
            Some(login) => format!("uid {}, login uid {login}", user.uid),
            None => format!("uid {}", user.uid),
        },
        Peer::Tls(Some(leaf), origin) => {
            let key = hex(&Sha256::digest(&leaf.spki_der));
            format!("{}, key {}", origin.words(), key.get(..KEY_CHARS).unwrap_or(&key))
        }
        Peer::Tls(None, origin) => format!("{}, no identity", origin.words()),
    }
}

impl From<AuditError> for Refusal {
    fn from(error: AuditError) -> Self {
        if let AuditError::Full(full) = &error {
            return Self::new(Code::Unavailable, full.problem());
        }
        let cause = crate::lifecycle::problem::causes(&error);
        let hint = "nothing was done: what is not audited does not happen; check the disk of the controller";
        Self::new(Code::Unavailable, Problem::new("AUDIT_FAILED", "the audit could not be written", cause, hint))
    }
}

/// `name=value`, where there is one.
fn part(name: &str, value: impl AsRef<str>) -> Option<String> {
    let value = value.as_ref();
    (!value.is_empty()).then(|| format!("{name}={value}"))
}

fn flag(name: &str, set: bool) -> Option<String> {
    set.then(|| name.to_owned())
}

fn words<const N: usize>(parts: [Option<String>; N]) -> String {
    parts.into_iter().flatten().collect::<Vec<_>>().join(" ")
}

fn target(spec: Option<&wire::TargetSpec>) -> Option<String> {
    let spec = spec?;
    let words_of = |commands: &[types::Command]| {
        commands.iter().map(|command| command.argv.join(" ")).collect::<Vec<_>>().join("; ")
    };
    let target = format!("target={}:{}", spec.agent, spec.dir);
    let (validate, reload) = (words_of(&spec.validate), words_of(&spec.reload));
    let drift = (spec.on_drift() == types::OnDrift::Show).then(|| "drift=show".to_owned());
    Some(words([Some(target), part("validate", validate), part("reload", reload), drift]))
}

fn private_ca(spec: Option<&wire::PrivateCaSpec>) -> Option<String> {
    let spec = spec?;
    let seconds = |name, seconds: u64| (seconds > 0).then(|| format!("{name}={seconds}s"));
    Some(words([
        Some("private".to_owned()),
        part("names", spec.names.join(",")),
        part("common-name", &spec.common_name),
        seconds("lifetime", spec.leaf_life_seconds),
        seconds("root-lifetime", spec.root_life_seconds),
        spec.list_url.as_ref().map(|url| format!("crl-url={url}")),
    ]))
}

/// Each request by its subject and its parts.
macro_rules! told {
    ($($request:ident($asked:ident) => $subject:expr, $detail:expr;)*) => {
        $(impl Told for wire::$request {
            fn told(&self) -> (String, String) {
                let $asked = self;
                ($subject.to_owned(), $detail)
            }
        })*
    };
}

told! {
    CreateCertificateRequest(asked) => asked.name, words([
        part("san", asked.identifiers.join(",")),
        part("issuer", &asked.issuer),
        part("key", asked.key_type().as_str_name()),
        part("custody", asked.custody().as_str_name()),
        target(asked.target.as_ref()),
        flag("dry-run", asked.dry_run),
    ]);
    UpdateCertificateRequest(asked) => asked.name, words([
        part("san", asked.identifiers.join(",")),
        part("issuer", asked.issuer.as_deref().unwrap_or_default()),
        asked.key_type.and_then(|_| part("key", asked.key_type().as_str_name())),
        asked.custody.and_then(|_| part("custody", asked.custody().as_str_name())),
        flag("http01", asked.http01.is_some()),
        asked.set_responders.then(|| format!("responders={}", asked.responders.join(","))),
        asked.auto_renew.map(|auto| format!("auto-renew={auto}")),
        asked.set_fallbacks.then(|| format!("fallbacks={}", asked.fallbacks.join(","))),
        asked.profile.as_ref().map(|profile| format!("profile={profile}")),
        asked.reuse_key.map(|reuse| format!("reuse-key={reuse}")),
        asked.rollout.as_ref().map(|rollout| format!("rollout={rollout}")),
        asked.set_windows.then(|| format!("windows={}", asked.windows.join(";"))),
    ]);
    RenewCertificateRequest(asked) => asked.name, words([part("override-lock", &asked.override_lock)]);
    RevokeCertificateRequest(asked) => asked.name, words([part("reason", &asked.reason), part("serial", &asked.serial)]);
    DeployCertificateRequest(asked) => asked.name, words([part("agent", &asked.agent), part("version", &asked.version), flag("continue", asked.continue_rollout)]);
    DeleteCertificateRequest(asked) => asked.name, words([flag("purge", asked.purge)]);
    CancelJobRequest(asked) => asked.id, String::new();
    ActOnCertificatesRequest(asked) => if asked.all { "all" } else { &asked.filter }, words([
        part("act", &asked.act),
        part("names", asked.names.join(",")),
        part("failed-of", &asked.failed_of),
        part("override-lock", &asked.override_lock),
        part("reason", &asked.reason),
        flag("rehearse", asked.rehearse),
    ]);
    SetPauseRequest(asked) => if asked.certificate.is_empty() { "everything" } else { &asked.certificate }, words([
        Some(if asked.paused { "pause" } else { "resume" }.to_owned()),
        part("reason", &asked.reason),
    ]);
    AddTargetRequest(asked) => asked.certificate, words([target(asked.target.as_ref()), flag("dry-run", asked.dry_run),
        part("agents", &asked.agents_label),
    ]);
    SetTargetRequest(asked) => asked.certificate, words([
        part("id", &asked.target_id),
        target(asked.target.as_ref()),
        flag("dry-run", asked.dry_run),
    ]);
    TestTargetsRequest(asked) => asked.create.as_ref().map_or(&asked.certificate, |create| &create.name), words([
        part("id", &asked.target_id),
        target(asked.target.as_ref().or_else(|| asked.create.as_ref()?.target.as_ref())),
    ]);
    CheckChallengesRequest(asked) => asked.certificate, String::new();
    RemoveTargetRequest(asked) => asked.certificate, words([part("target", &asked.target_id)]);
    EnrollAgentRequest(asked) => asked.name, words([flag("replace", asked.replace)]);
    RotateIdentityCaRequest(asked) => "identity-ca", words([
        part("step", &asked.step),
        (asked.anyway > 0).then(|| format!("anyway={}", asked.anyway)),
    ]);
    ConsentAgentRequest(asked) => asked.name, String::new();
    SetAgentRequest(asked) => asked.name, words([
        part("labels", asked.labels.join(",")),
        part("remove-labels", asked.remove_labels.join(",")),
    ]);
    DetectAgentRequest(asked) => asked.name, String::new();
    RevokeAgentRequest(asked) => asked.name, String::new();
    ForgetAgentRequest(asked) => asked.name, String::new();
    AddIssuerRequest(asked) => asked.name, words([
        part("directory", &asked.directory),
        flag("own-root", !asked.root_pem.is_empty()),
        part("contacts", asked.contacts.join(",")),
        flag("accept-terms", asked.accept_terms),
        part("eab-kid", &asked.external_kid),
        part("staging", &asked.staging_directory),
        private_ca(asked.private_ca.as_ref()),
    ]);
    SetIssuerRequest(asked) => asked.name, words([
        asked.set_contacts.then(|| format!("contacts={}", asked.contacts.join(","))),
        asked.root_pem.as_ref().map(|root| if root.is_empty() { "system-roots" } else { "own-root" }.to_owned()),
        flag("accept-terms", asked.accept_terms),
        part("eab-kid", &asked.external_kid),
        flag("new-account", asked.new_account),
        asked.profile.as_ref().map(|profile| format!("profile={profile}")),
        asked.preferred_chain.as_ref().map(|chain| format!("preferred-chain={chain}")),
        asked.staging_directory.as_ref().map(|url| format!("staging={url}")),
        private_ca(asked.private_ca.as_ref()),
    ]);
    TestIssuerRequest(asked) => asked.name, String::new();
    RemoveIssuerRequest(asked) => asked.name, String::new();
    RolloverAccountRequest(asked) => asked.name, String::new();
    SetLimitsRequest(asked) => asked.issuer, words([
        flag("reset", asked.reset),
        part("set", asked.set.iter().map(|one| format!("{}:{}/{}s", one.kind, one.count, one.period_seconds)).collect::<Vec<_>>().join(",")),
    ]);
    AddOperatorRequest(asked) => asked.user, words([part("role", &asked.role)]);
    InviteOperatorRequest(asked) => asked.name, words([part("role", &asked.role)]);
    SetOperatorRoleRequest(asked) => asked.name, words([part("role", &asked.role)]);
    RemoveOperatorRequest(asked) => asked.name, String::new();
    CreateBackupRequest(asked) => "backup", words([asked.recovery.as_ref().map(|recovery| {
        match recovery {
            wire::create_backup_request::Recovery::Passphrase(_) => "passphrase",
            wire::create_backup_request::Recovery::Key(_) => "key-file",
        }
        .to_owned()
    })]);
    AcceptRestoreRequest(asked) => "restore", words([flag("keep-operators", asked.keep_operators)]);
    ListAuditRequest(asked) => "audit", words([
        Some("export".to_owned()),
        part("name", &asked.name),
        from_wire(asked.start_at).map(|at| format!("start={at}")),
        from_wire(asked.end_at).map(|at| format!("end={at}")),
    ]);
}
