//! Targets: parsing what is asked, adding, removing and deploying again; changing stands in `set`, an older version in `rollback`.

mod rollback;
pub(super) mod rollout;
pub(crate) mod set;
pub(crate) mod trial;

use std::path::{Component, Path};

use proto::id::random_id;
use proto::operator::v1 as wire;
use proto::types::v1 as types;
use rustls::pki_types::ServerName;

use super::wishes::{self, Wish};
use crate::lifecycle::agent::{Agent, Standing, default_files};
use crate::lifecycle::certificate::{Custody, Http01};
use crate::lifecycle::job::Kind;
use crate::lifecycle::label;
use crate::lifecycle::policy::{self, refuse_target};
use crate::lifecycle::target::{
    COMMANDS_MAX, Content, Endpoint, File, OnDrift, Status, TARGET_ITEMS_MAX, TARGETS_MAX, Target,
};
use crate::rpc::convert;
use crate::rpc::peer::OperatorCaller;
use crate::rpc::report::deletion_refusal;
use crate::rpc::status::{Refusal, field_error};
use crate::rpc::views::{self, Names};
use crate::store::certificate::Bundle;
use crate::store::records::{Changes, Versioned};
use crate::store::tables::Table;
use crate::tasks::deletion;
use crate::tasks::hub::Hub;

// The agent refuses a path, a name or an owner that is longer.
const PATH_BYTES_MAX: usize = 1_024;
const PATH_PART_BYTES_MAX: usize = 255;
const FILE_NAME_BYTES_MAX: usize = 200;
const ACCOUNT_BYTES_MAX: usize = 32;
/// The directory that an agent keeps inside a target's directory.
const AGENTS_OWN: &str = ".certwright";
/// Longest argument of a command.
const ARGUMENT_BYTES_MAX: usize = 4_096;
/// Records written in one batch beside a job and its event (a batch holds at most 64 keys).
pub(super) const BATCH_RECORDS: usize = 40;
/// Most targets added at once: with their links they are one batch.
const AT_ONCE_MAX: usize = 20;
/// Bits that a mode may have; the agent refuses any other: who may write a file may swap what a service reads.
const MODE_BITS: u32 = 0o644;
/// A file that its owner cannot read serves nobody.
const MODE_MIN: u32 = 0o400;

/// What a target belongs to.
pub(super) struct Context<'a> {
    pub(super) certificate_id: &'a str,
    pub(super) identifiers: &'a [String],
    pub(super) custody: Custody,
}

/// Adds a target, or one on every agent with a label; each gets the current version at once.
pub(crate) async fn add(
    hub: &Hub,
    caller: &OperatorCaller,
    request: wire::AddTargetRequest,
) -> Result<wire::CertificateAccepted, Refusal> {
    if let Some(accepted) = wishes::answered(hub, &request.request_id).await? {
        return Ok(accepted);
    }
    let mut bundle = wishes::changeable(hub, &request.certificate).await?;
    let record = bundle.certificate.value.clone();
    let spec = request.target.unwrap_or_default();
    let agents = match request.agents_label.as_str() {
        "" => vec![spec.agent.clone()],
        label => labelled(hub, label).await?,
    };
    refuse_more(&bundle, agents.len())?;
    let fresh = new_targets(hub, &bundle, &spec, &agents).await?;
    let message = format!("{} on {}", spec.dir, agents.join(", "));
    let event = hub.event("target.added", message).of_certificate(&record.name).by(&caller.name);
    let event = if let [agent] = agents.as_slice() { event.of_agent(agent) } else { event };
    let link = |changes: Changes, target: &Target| changes.insert(target).link_agent(&target.agent_id, &record.id);
    let changes = fresh.iter().fold(Changes::new(), link);
    let ids: Vec<String> = fresh.iter().map(|target| target.agent_id.clone()).collect();
    bundle.targets.extend(fresh.into_iter().map(|value| (Versioned { revision: 0, value }, None)));
    if request.dry_run {
        let certificate = views::certificate(hub, &Names::read(hub).await?, &bundle);
        return Ok(wire::CertificateAccepted { certificate: Some(certificate), ..Default::default() });
    }
    let (kind, warnings) = begin(hub, &mut bundle, &ids);
    let agent_id = if let [id] = ids.as_slice() { Some(id.clone()).filter(|_| kind == Kind::Deploy) } else { None };
    let wish = Wish { kind, agent_id, request_id: &request.request_id };
    // The certificate is written too: a second target that races with a first one conflicts.
    let changes = changes.update(&bundle.certificate).event(&event);
    wishes::commit(hub, caller, &bundle, wish, changes, warnings).await
}

/// The names of the agents that have a label now, and may still act.
async fn labelled(hub: &Hub, wanted: &str) -> Result<Vec<String>, Refusal> {
    let shown = proto::text::one_line(wanted, label::SHOWN_CHARS_MAX);
    label::parse(&shown).map_err(|message| Refusal::field("agents", message, "write for example role=web"))?;
    let agents = hub.store.agents().await?.into_iter().map(|agent| agent.value);
    let agents = agents.filter(|agent| label::has(&agent.labels, wanted) && agent.standing == Standing::Enrolled);
    let names: Vec<String> = agents.map(|agent| agent.name).collect();
    match names.len() {
        0 => {
            let hint = format!("certwright agents set NAME --label {shown}; certwright agents ls shows what each has");
            Err(Refusal::field("agents", format!("no agent has the label {shown}"), hint))
        }
        1..=AT_ONCE_MAX => Ok(names),
        count => {
            let message = format!("{count} agents have the label {shown}; at most {AT_ONCE_MAX} get a target at once");
            Err(Refusal::field("agents", message, "add them in parts, by a narrower label"))
        }
    }
}

/// Refuses more targets than the certificate may have.
fn refuse_more(bundle: &Bundle, more: usize) -> Result<(), Refusal> {
    let record = &bundle.certificate.value;
    let count = bundle.targets.len() + more;
    if record.specification.custody == Custody::Agent && count > 1 {
        return Err(Refusal::field(
            "agent",
            format!("the key of {} never leaves its one agent, so it cannot serve a second target", record.name),
            format!(
                "let the controller hold the key: certwright certs set {} --custody controller (a new key and a new version), then add the target",
                record.name
            ),
        ));
    }
    if count > TARGETS_MAX {
        return Err(Refusal::field(
            "agent",
            format!("{} may have {TARGETS_MAX} targets, and has {}", record.name, bundle.targets.len()),
            "use a second certificate",
        ));
    }
    Ok(())
}

/// The same target on each of these agents; one that is refused refuses all.
async fn new_targets(
    hub: &Hub,
    bundle: &Bundle,
    spec: &wire::TargetSpec,
    agents: &[String],
) -> Result<Vec<Target>, Refusal> {
    let record = &bundle.certificate.value;
    let mut errors = Vec::new();
    let context = Context {
        certificate_id: &record.id,
        identifiers: &record.specification.identifiers,
        custody: record.specification.custody,
    };
    let mut fresh: Vec<Target> = Vec::new();
    for agent in agents {
        let spec = wire::TargetSpec { agent: agent.clone(), ..spec.clone() };
        let Some(target) = parse(hub, &spec, &context, &mut errors).await? else { continue };
        if record.specification.responders.is_empty() {
            check_responder(hub, &target.agent_id, &record.specification.http01, &mut errors).await?;
        }
        let mut others = bundle.targets.iter().map(|(other, _)| &other.value);
        if others.any(|other| other.agent_id == target.agent_id && other.dir == target.dir) {
            errors.push(field_error(
                "dir",
                format!("{} already has a target at {} on {agent}", record.name, spec.dir),
                "remove it first: certwright targets rm",
            ));
        }
        fresh.push(target);
    }
    if errors.is_empty() { Ok(fresh) } else { Err(Refusal::fields(errors)) }
}

/// What a new target sets going: the first version, the current one, or a new one because the key cannot come here.
fn begin(hub: &Hub, bundle: &mut Bundle, agent_ids: &[String]) -> (Kind, Vec<String>) {
    if wishes::is_stuck(bundle) {
        bundle.certificate.value.renew_asked_at = Some(hub.now());
    }
    let elsewhere = agent_ids.iter().any(|id| key_is_elsewhere(bundle, id));
    match bundle.certificate.value.current.as_mut() {
        None => (Kind::Issue, Vec::new()),
        Some(current) if elsewhere => {
            current.key_lost = true;
            let warning =
                "the key of the current version stays where it was made; a new version is ordered for this agent";
            (Kind::Renew, vec![warning.to_owned()])
        }
        Some(_) => (Kind::Deploy, Vec::new()),
    }
}

/// Whether the current version's key was made on another agent and cannot come here.
fn key_is_elsewhere(bundle: &Bundle, agent_id: &str) -> bool {
    let current = bundle.certificate.value.current.as_ref().map(|current| current.key_slot_id.as_str());
    let slot = bundle.slots.iter().find(|slot| Some(slot.value.id.as_str()) == current);
    slot.is_some_and(|slot| slot.value.custody == Custody::Agent && slot.value.agent_id.as_deref() != Some(agent_id))
}

/// Stops deploying to a target; files there stay.
pub(crate) async fn remove(
    hub: &Hub,
    caller: &OperatorCaller,
    request: wire::RemoveTargetRequest,
) -> Result<wire::CertificateAccepted, Refusal> {
    let mut bundle = wishes::bundle(hub, &request.certificate).await?;
    let record = bundle.certificate.value.clone();
    let found = bundle.targets.iter().position(|(target, _)| target.value.id == request.target_id);
    let Some(found) = found else {
        return Err(Refusal::not_found("target", &proto::text::one_line(&request.target_id, 64)));
    };
    let (target, state) = bundle.targets.remove(found);
    let names = Names::read(hub).await?;
    let agent = names.agent(&target.value.agent_id);
    let event = hub
        .event("target.removed", format!("{} on {agent}; its files stay", target.value.dir))
        .of_certificate(&record.name)
        .of_agent(&agent)
        .by(&caller.name);
    // Whether the agent is still needed was read from the certificate: it may not change in between.
    let mut changes = Changes::new()
        .remove(&target)
        .expect(Table::Certificate, &record.id, bundle.certificate.revision)
        .event(&event);
    if let Some(state) = &state {
        changes = changes.remove(state);
    }
    let needed = bundle.target_agent_ids().contains(&target.value.agent_id)
        || bundle.responder_ids().contains(&target.value.agent_id);
    if !needed {
        changes = changes.unlink_agent(&target.value.agent_id, &record.id);
    }
    hub.store.commit(changes).await?;
    if record.purging {
        deletion::finish_purge(hub, &record.id).await.map_err(deletion_refusal)?;
    }
    hub.wake.agents.ring(&target.value.agent_id);
    hub.wake.certificates.ring(&record.id);
    hub.wake.jobs.ring(&record.id);
    Ok(wire::CertificateAccepted { certificate: Some(views::certificate(hub, &names, &bundle)), ..Default::default() })
}

/// "Deploy now": the current version once more.
pub(crate) async fn deploy(
    hub: &Hub,
    caller: &OperatorCaller,
    request: wire::DeployCertificateRequest,
) -> Result<wire::CertificateAccepted, Refusal> {
    if let Some(accepted) = wishes::answered(hub, &request.request_id).await? {
        return Ok(accepted);
    }
    let mut bundle = wishes::changeable(hub, &request.name).await?;
    let record = bundle.certificate.value.clone();
    if record.current.is_none() {
        return Err(Refusal::field(
            "name",
            format!("{} has no version to deploy yet", record.name),
            format!("certwright certs get {} says how far its order is", record.name),
        ));
    }
    if !request.version.is_empty() {
        return Box::pin(rollback::deploy(hub, caller, bundle, &request)).await;
    }
    let agent_id = agent_id(hub, &request.agent).await?;
    let version = record.deployed().map(|deployed| deployed.version_id.clone());
    let mut wished = Vec::new();
    for (target, state) in
        bundle.targets.iter_mut().filter(|(target, _)| agent_id.as_ref().is_none_or(|id| *id == target.value.agent_id))
    {
        let status = target.value.status(state.as_ref().map(|state| &state.value), version.as_deref());
        if request.continue_rollout && matches!(status, Status::Applied | Status::Unproven) {
            continue;
        }
        target.value.deploy_wish += 1;
        if agent_id.is_some() {
            target.value.released.clone_from(&version);
        }
        wished.push(target.clone());
    }
    let wanted = wished.len();
    let delivery = &mut bundle.certificate.value.delivery;
    let hurries = agent_id.is_none() && !delivery.windows.is_empty();
    if hurries {
        delivery.hurried.clone_from(&version);
    }
    if request.continue_rollout {
        delivery.released = version;
    } else if wanted == 0 {
        return Err(Refusal::field(
            "agent",
            format!("{} has no target there", record.name),
            format!("certwright targets ls {} shows its targets", record.name),
        ));
    }
    // The job comes with the last batch: a crash before it leaves targets that deploy once more, which does no harm.
    let mut changes = Changes::new();
    for (index, target) in wished.iter().enumerate() {
        if index > 0 && index % BATCH_RECORDS == 0 {
            hub.store.commit(std::mem::take(&mut changes)).await?;
        }
        changes = changes.update(target);
    }
    if request.continue_rollout || hurries {
        changes = changes.update(&bundle.certificate);
    }
    let what = if request.continue_rollout { "the rollout goes on everywhere" } else { "deploy now" };
    let event = hub
        .event("certificate.deploy_asked", format!("{what}: {wanted} targets"))
        .of_certificate(&record.name)
        .by(&caller.name);
    let wish = Wish { kind: Kind::Deploy, agent_id, request_id: &request.request_id };
    wishes::commit(hub, caller, &bundle, wish, changes.event(&event), Vec::new()).await
}

/// The id of the agent of this name; none is named by an empty one.
async fn agent_id(hub: &Hub, name: &str) -> Result<Option<String>, Refusal> {
    if name.is_empty() {
        return Ok(None);
    }
    let agent = hub.store.agent_by_name(name).await?;
    Ok(Some(agent.ok_or_else(|| Refusal::fields(vec![no_agent("agent", name)]))?.value.id))
}

/// Parses what is asked of a target; every refusal becomes a field error.
pub(super) async fn parse(
    hub: &Hub,
    spec: &wire::TargetSpec,
    context: &Context<'_>,
    errors: &mut Vec<types::FieldError>,
) -> Result<Option<Target>, Refusal> {
    let before = errors.len();
    let agent = match hub.store.agent_by_name(&spec.agent).await? {
        Some(agent) => Some(agent.value),
        None => {
            errors.push(no_agent("agent", &spec.agent));
            None
        }
    };
    let dir = absolute(&spec.dir).unwrap_or_else(|message| {
        errors.push(field_error(
            "dir",
            message,
            "write an absolute directory without .. or a final slash, for example /etc/nginx/ssl/www.example.com",
        ));
        String::new()
    });
    let files = files(&spec.files, errors);
    let validate = commands("validate", &spec.validate, errors);
    let reload = commands("reload", &spec.reload, errors);
    let verify = verify(&spec.verify, errors);
    let on_drift = on_drift(spec, errors);
    let Some(agent) = agent.filter(|_| errors.len() == before) else { return Ok(None) };
    let target = Target {
        id: random_id(),
        certificate_id: context.certificate_id.to_owned(),
        agent_id: agent.id.clone(),
        dir,
        files,
        validate,
        reload,
        verify,
        deploy_wish: 0,
        released: None,
        on_drift,
    };
    if agent.standing == Standing::Revoked {
        errors.push(field_error(
            "agent",
            format!("{} is revoked", agent.name),
            format!("enroll it again: certwright agents enroll {} --replace", agent.name),
        ));
    }
    if agent.seen_at.is_some() {
        let refusals = refuse_target(&agent.hello.policy, &target, context.identifiers, context.custody);
        errors.extend(refusals.iter().map(|refusal| policy_error(&agent.name, refusal)));
    }
    errors.extend(taken(hub, &agent.name, &target).await?);
    Ok(Some(target).filter(|_| errors.len() == before))
}

fn on_drift(spec: &wire::TargetSpec, errors: &mut Vec<types::FieldError>) -> OnDrift {
    match types::OnDrift::try_from(spec.on_drift) {
        Ok(types::OnDrift::Unspecified | types::OnDrift::Repair) => OnDrift::Repair,
        Ok(types::OnDrift::Show) => OnDrift::Show,
        Err(_) => {
            let message = "this controller does not know what is asked for files that drift".to_owned();
            errors.push(field_error("drift", message, "repair or show; or upgrade the controller"));
            OnDrift::Show
        }
    }
}

/// Two certificates that write the same file would take turns in taking each other's service down.
async fn taken(hub: &Hub, agent: &str, target: &Target) -> Result<Option<types::FieldError>, Refusal> {
    for bundle in hub.store.bundles_of_agent(&target.agent_id).await? {
        let other = &bundle.certificate.value;
        if other.id == target.certificate_id {
            continue;
        }
        let mut same = bundle.targets.iter().map(|(other, _)| &other.value);
        let same = same.find(|other| {
            other.id != target.id
                && other.agent_id == target.agent_id
                && other.dir == target.dir
                && other.files.iter().any(|file| target.files.iter().any(|mine| mine.name == file.name))
        });
        if same.is_some() {
            let message =
                format!("certificate {} already writes files of these names to {} on {agent}", other.name, target.dir);
            let hint = format!(
                "choose another --dir, or other file names with --file; certwright targets ls {} shows them",
                other.name
            );
            return Ok(Some(field_error("dir", message, hint)));
        }
    }
    Ok(None)
}

/// Refuses a responder whose policy does not let it answer.
pub(super) async fn check_responder(
    hub: &Hub,
    agent_id: &str,
    http01: &Http01,
    errors: &mut Vec<types::FieldError>,
) -> Result<(), Refusal> {
    let agent = hub.store.load::<Agent>(agent_id).await?;
    errors.extend(agent.and_then(|agent| super::create::responder_errors(&agent.value, http01)));
    Ok(())
}

pub(super) fn policy_error(agent: &str, refusal: &policy::Refusal) -> types::FieldError {
    let hint = format!(
        "on {agent}, let the agent's policy file (/etc/certwright/policy.toml) allow it: {} — the agent notices within half a minute",
        refusal.line
    );
    field_error(refusal.field, format!("the policy of agent {agent}: {}", refusal.message), hint)
}

pub(super) fn no_agent(field: &str, name: &str) -> types::FieldError {
    let shown = proto::text::one_line(name, 80);
    field_error(
        field,
        format!("there is no agent named \"{shown}\""),
        "certwright agents ls shows them; certwright agents enroll NAME prints the command that adds one",
    )
}

/// Checks that a directory is absolute and normal.
pub(super) fn absolute(dir: &str) -> Result<String, String> {
    let shown = proto::text::one_line(dir, 200);
    if dir.len() > PATH_BYTES_MAX || dir.chars().any(char::is_control) {
        return Err(format!("\"{shown}\" is not a usable path"));
    }
    let path = Path::new(dir);
    if !path.is_absolute() {
        return Err(format!("\"{shown}\" is not an absolute path"));
    }
    let usable = |component| match component {
        Component::RootDir => true,
        Component::Normal(part) => part.len() <= PATH_PART_BYTES_MAX && part != AGENTS_OWN,
        Component::Prefix(_) | Component::CurDir | Component::ParentDir => false,
    };
    let normal = dir != "/" && path.components().all(usable);
    if !normal || dir.contains("/./") || dir.contains("//") || (dir.len() > 1 && dir.ends_with('/')) {
        return Err(format!("\"{shown}\" is not written plainly"));
    }
    Ok(dir.to_owned())
}

/// What a PKCS #12 file needs beside it.
fn pfx_error(files: &[File]) -> Option<types::FieldError> {
    let count = |content| files.iter().filter(|file| file.content == content).count();
    let (stores, passwords) = (count(Content::Pfx), count(Content::PfxPassword));
    let (message, hint) = match (stores, passwords) {
        (0, 0) => return None,
        (0, _) => ("there is a file for a password, and no PKCS #12 file", "add one: --file pfx=site.pfx"),
        (_, 0) => {
            ("a PKCS #12 file needs a password", "say where the agent writes it: --file pfx-password=site.password")
        }
        (_, 2..) => ("there are several files for the password", "one is enough for all PKCS #12 files of a target"),
        (_, _) if !files.iter().any(|file| file.content.holds_leaf()) => (
            "a PKCS #12 file alone does not show the agent which version lies there",
            "write the certificate beside it, which is no secret: --file fullchain=fullchain.pem",
        ),
        (_, _) => return None,
    };
    Some(field_error("file", message, hint))
}

fn files(specs: &[types::FileSpec], errors: &mut Vec<types::FieldError>) -> Vec<File> {
    if specs.is_empty() {
        let default = default_files().into_iter();
        return default
            .map(|(content, name, mode)| File { content, name: name.to_owned(), owner: String::new(), mode })
            .collect();
    }
    too_many("file", specs.len(), TARGET_ITEMS_MAX, errors);
    let mut files: Vec<File> = Vec::new();
    for spec in specs.iter().take(TARGET_ITEMS_MAX) {
        let shown = proto::text::one_line(&spec.name, 80);
        let bare = !spec.name.is_empty()
            && spec.name.len() <= FILE_NAME_BYTES_MAX
            && !spec.name.starts_with('.')
            && !spec.name.contains('/')
            && !spec.name.chars().any(char::is_control);
        if !bare {
            errors.push(field_error(
                "file",
                format!("\"{shown}\" is not a bare file name"),
                "name a file inside --dir, for example fullchain=server.crt",
            ));
        } else if files.iter().any(|file| file.name == spec.name) {
            errors.push(field_error("file", format!("\"{shown}\" is named twice"), "give each file its own name"));
        }
        let Some(content) = convert::content_in(spec.content()) else {
            errors.push(field_error(
                "file",
                format!("it is not said what \"{shown}\" holds"),
                "use cert=, key=, chain=, fullchain=, combined=, pfx= or pfx-password=",
            ));
            continue;
        };
        let permitted = spec.mode & !MODE_BITS == 0 && spec.mode & MODE_MIN != 0;
        if !permitted || (content.holds_key() && spec.mode & 0o007 != 0) {
            let hint = if content.holds_key() {
                "a key is for owner and group at most: 0600 or 0640"
            } else {
                "others may read at most, and nobody may execute it: 0644, 0640 or 0600"
            };
            errors.push(field_error("mode", format!("{:04o} is not a mode for \"{shown}\"", spec.mode), hint));
        }
        if !spec.owner.is_empty() && !is_owner(&spec.owner) {
            errors.push(field_error(
                "owner",
                format!("\"{}\" is not user:group", proto::text::one_line(&spec.owner, 80)),
                "write for example root:www-data",
            ));
        }
        files.push(File { content, name: spec.name.clone(), owner: spec.owner.clone(), mode: spec.mode });
    }
    errors.extend(pfx_error(&files));
    files
}

fn is_owner(owner: &str) -> bool {
    let word = |word: &str| {
        !word.is_empty()
            && word.len() <= ACCOUNT_BYTES_MAX
            && word.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-$".contains(&byte))
    };
    owner.split_once(':').is_some_and(|(user, group)| word(user) && word(group))
}

fn commands(field: &'static str, commands: &[types::Command], errors: &mut Vec<types::FieldError>) -> Vec<Vec<String>> {
    too_many(field, commands.len(), COMMANDS_MAX, errors);
    for command in commands {
        let first = command.argv.first().map_or("", String::as_str);
        if !first.starts_with('/')
            || command.argv.len() > TARGET_ITEMS_MAX
            || command.argv.iter().any(|word| word.len() > ARGUMENT_BYTES_MAX || word.contains('\0'))
        {
            let shown = proto::text::one_line(&command.argv.join(" "), 120);
            errors.push(field_error(
                field,
                format!("\"{shown}\" does not start with an absolute program"),
                "write the whole path, for example '/usr/bin/systemctl reload nginx'; no shell runs it",
            ));
        }
    }
    commands.iter().take(COMMANDS_MAX).map(|command| command.argv.clone()).collect()
}

fn verify(endpoints: &[types::Endpoint], errors: &mut Vec<types::FieldError>) -> Vec<Endpoint> {
    too_many("verify", endpoints.len(), TARGET_ITEMS_MAX, errors);
    for endpoint in endpoints {
        let port = endpoint
            .address
            .rsplit_once(':')
            .and_then(|(host, port)| port.parse::<u16>().ok().filter(|port| *port > 0 && !host.is_empty()));
        if port.is_none()
            || endpoint.address.len() > 300
            || endpoint.address.chars().any(|ch| ch.is_control() || ch.is_whitespace())
            || !is_server_name(&endpoint.server_name)
        {
            let shown = proto::text::one_line(&endpoint.to_string(), 120);
            errors.push(field_error(
                "verify",
                format!("\"{shown}\" is not HOST:PORT or HOST:PORT/NAME"),
                "write for example 127.0.0.1:443/www.example.com",
            ));
        }
    }
    let mut parsed = Vec::new();
    for one in endpoints.iter().take(TARGET_ITEMS_MAX) {
        let Some(protocol) = convert::protocol(one.protocol) else {
            errors.push(field_error(
                "verify",
                format!(
                    "this controller does not know protocol {} of {}",
                    one.protocol,
                    proto::text::one_line(&one.address, 120)
                ),
                format!("upgrade the controller, or use one of {}", proto::endpoint::words()),
            ));
            continue;
        };
        parsed.push(Endpoint { address: one.address.clone(), server_name: one.server_name.clone(), protocol });
    }
    parsed
}

/// Whether a handshake can ask for the name; empty means the certificate's first one. A wildcard stands for a name below it.
fn is_server_name(name: &str) -> bool {
    name.is_empty() || ServerName::try_from(name.strip_prefix("*.").unwrap_or(name)).is_ok()
}

fn too_many(field: &str, count: usize, max: usize, errors: &mut Vec<types::FieldError>) {
    if count > max {
        errors.push(field_error(field, format!("{count} of them; at most {max}"), "use fewer"));
    }
}

/// The agents that a change of `bundle` concerns.
pub(super) fn concerned(bundle: &Bundle) -> Vec<String> {
    let mut ids = bundle.responder_ids();
    ids.extend(bundle.target_agent_ids());
    ids
}
