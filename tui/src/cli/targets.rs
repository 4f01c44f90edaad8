//! `targets`: where a certificate is deployed.

use clap::{Args, Subcommand};
use proto::operator::v1::{
    AddTargetRequest, Certificate, DeployCertificateRequest, GetCertificateRequest, RemoveTargetRequest,
    SetTargetRequest, Target,
};
use proto::presets::PRESETS;

use super::certs::{self, no_such_file};
use super::session::{Session, WaitOptions};
use super::target_options::{self, TargetOptions};
use super::wait;
use crate::client::{ClientError, ErrorKind, target_changes};
use crate::output::target::{self, place};
use crate::output::{preset, safe};

#[derive(Debug, Subcommand)]
pub(crate) enum Verb {
    /// Lists targets, of one certificate or of all
    Ls { certificate: Option<String> },
    /// Lists the services that --preset knows, and what it fills in for them
    Presets,
    /// Deploys a certificate to one more place
    Add(Box<Add>),
    /// Changes a target, and deploys what changed
    Set(Box<Set>),
    /// Applies the current version again now
    Deploy {
        certificate: String,
        /// Only the target on this agent
        #[arg(long, value_name = "AGENT")]
        agent: Option<String>,
        /// This stored version from now on, as `certs rollback` does: its id or serial, or `current`
        #[arg(long, value_name = "VERSION", conflicts_with = "agent")]
        version: Option<String>,
        /// Lets a rollout that waits or was stopped go on everywhere; what has the version is left alone
        #[arg(long = "continue", conflicts_with_all = ["agent", "version"])]
        continue_rollout: bool,
        #[command(flatten)]
        wait: WaitOptions,
    },
    /// Stops deploying to a place; its files stay
    Rm(Rm),
}

#[derive(Args, Debug)]
pub(crate) struct Add {
    certificate: String,
    /// Agent that gets the certificate
    #[arg(long, value_name = "AGENT")]
    agent: String,
    /// Directory on the agent, absolute; default: the preset's
    #[arg(long, value_name = "DIR", value_parser = target_options::dir, required_unless_present = "preset")]
    dir: Option<String>,
    #[command(flatten)]
    target: TargetOptions,
    #[command(flatten)]
    wait: WaitOptions,
    /// Check everything and change nothing
    #[arg(long, conflicts_with = "wait")]
    dry_run: bool,
}

#[derive(Args, Debug)]
pub(crate) struct Set {
    certificate: String,
    /// The target on this agent
    #[arg(long, value_name = "AGENT")]
    agent: String,
    /// The target in this directory, when the agent has several
    #[arg(long, value_name = "DIR")]
    dir: Option<String>,
    /// Write there from now on; what lies in the old directory stays
    #[arg(long, value_name = "DIR", value_parser = target_options::dir)]
    new_dir: Option<String>,
    #[command(flatten)]
    target: TargetOptions,
    /// Test nothing before a reload
    #[arg(long, conflicts_with = "validate")]
    no_validate: bool,
    /// Reload nothing
    #[arg(long, conflicts_with = "reload")]
    no_reload: bool,
    /// Prove nothing: the target is never shown as ok
    #[arg(long, conflicts_with = "verify")]
    no_verify: bool,
    #[command(flatten)]
    wait: WaitOptions,
    /// Show what would change, and change nothing
    #[arg(long, conflicts_with = "wait")]
    dry_run: bool,
}

#[derive(Args, Debug)]
pub(crate) struct Rm {
    certificate: String,
    /// The target on this agent
    #[arg(long, value_name = "AGENT")]
    agent: String,
    /// The target in this directory, when the agent has several
    #[arg(long, value_name = "DIR")]
    dir: Option<String>,
}

pub(super) async fn run(verb: Verb, session: &mut Session<'_>) -> Result<(), ClientError> {
    match verb {
        Verb::Ls { certificate } => ls(certificate, session).await,
        Verb::Presets => presets(session),
        Verb::Add(add) => self::add(*add, session).await,
        Verb::Set(set) => self::set(*set, session).await,
        Verb::Deploy { certificate, agent, version, continue_rollout, wait } => {
            let request = DeployCertificateRequest {
                name: certificate,
                agent: agent.unwrap_or_default(),
                request_id: proto::id::random_id(),
                version: version.unwrap_or_default(),
                continue_rollout,
            };
            let accepted = session.client.deploy_certificate(request).await?;
            wait::finish(session, accepted, &wait).await
        }
        Verb::Rm(rm) => remove(rm, session).await,
    }
}

async fn ls(certificate: Option<String>, session: &mut Session<'_>) -> Result<(), ClientError> {
    let certificates = match certificate {
        Some(name) => vec![session.client.get_certificate(GetCertificateRequest { name }).await?],
        None => certs::all("", "name", session).await?,
    };
    let owned = |certificate: Certificate| {
        let name = certificate.name;
        certificate.targets.into_iter().map(move |target| (name.clone(), target))
    };
    let targets: Vec<(String, Target)> = certificates.into_iter().flat_map(owned).collect();
    session.list(
        || targets.iter().map(|(_, target)| target.id.clone()).collect(),
        || target::json_list(&targets),
        |now, wide| target::table(&targets, now, wide),
    )
}

/// Needs no controller: the list is the same in every program of a version.
fn presets(session: &mut Session<'_>) -> Result<(), ClientError> {
    session.list(
        || PRESETS.iter().map(|preset| preset.name.to_owned()).collect(),
        preset::json_list,
        |_, wide| preset::table(wide),
    )
}

async fn add(add: Add, session: &mut Session<'_>) -> Result<(), ClientError> {
    let spec = add.target.spec(&add.certificate, add.agent, add.dir).map_err(|message| no_such_file(&message))?;
    let request = AddTargetRequest {
        certificate: add.certificate,
        target: Some(spec),
        request_id: proto::id::random_id(),
        dry_run: add.dry_run,
    };
    let accepted = session.client.add_target(request).await?;
    if add.dry_run {
        return wait::plan(session, &accepted);
    }
    wait::finish(session, accepted, &add.wait).await
}

async fn set(set: Set, session: &mut Session<'_>) -> Result<(), ClientError> {
    let present = the_one(&set.certificate, &set.agent, set.dir.as_deref(), session).await?;
    let before = present.spec.unwrap_or_default();
    let mut spec = set.target.change(&before, &set.certificate).map_err(|message| no_such_file(&message))?;
    spec.dir = set.new_dir.unwrap_or(spec.dir);
    for (none, list) in [(set.no_validate, &mut spec.validate), (set.no_reload, &mut spec.reload)] {
        list.retain(|_| !none);
    }
    spec.verify.retain(|_| !set.no_verify);
    let request = SetTargetRequest {
        certificate: set.certificate,
        target_id: present.id,
        expected_revision: present.revision,
        target: Some(spec.clone()),
        request_id: proto::id::random_id(),
        dry_run: set.dry_run,
    };
    let accepted = session.client.set_target(request).await?;
    let changes = target_changes(&before, &spec);
    for line in &changes {
        session.console.note(&safe(line));
    }
    if changes.is_empty() {
        session.console.note("nothing changes");
    }
    if set.dry_run {
        return wait::plan(session, &accepted);
    }
    wait::finish(session, accepted, &set.wait).await
}

async fn remove(rm: Rm, session: &mut Session<'_>) -> Result<(), ClientError> {
    let target_id = the_one(&rm.certificate, &rm.agent, rm.dir.as_deref(), session).await?.id;
    let accepted = session.client.remove_target(RemoveTargetRequest { certificate: rm.certificate, target_id }).await?;
    wait::finish(session, accepted, &WaitOptions { wait: None }).await
}

/// Returns the target that is meant; there must be exactly one.
async fn the_one(
    certificate: &str,
    agent: &str,
    dir: Option<&str>,
    session: &Session<'_>,
) -> Result<Target, ClientError> {
    let found = session.client.get_certificate(GetCertificateRequest { name: certificate.to_owned() }).await?;
    let fits = |target: &Target| {
        let (on, at) = place(target);
        on == agent && dir.is_none_or(|wanted| wanted == at)
    };
    let mut matching = found.targets.into_iter().filter(fits);
    let (kind, what) = match (matching.next(), matching.next()) {
        (Some(target), None) => return Ok(target),
        (None, _) => (ErrorKind::NotFound, "has no such target"),
        (Some(_), Some(_)) => (ErrorKind::Invalid, "has several targets there"),
    };
    let dir = dir.map(|dir| format!(" in {dir}")).unwrap_or_default();
    let message = format!("certificate {certificate} {what}: agent {agent}{dir}");
    let hint = format!("see `certwright targets ls {certificate}`, and name the directory with --dir");
    Err(ClientError::local(kind, "TARGET_NOT_UNIQUE", &message, "", &hint))
}
