//! `targets`: where a certificate is deployed.

use clap::{Args, Subcommand};
use proto::operator::v1::{
    AddTargetRequest, Certificate, DeployCertificateRequest, GetCertificateRequest, RemoveTargetRequest, Target,
};
use proto::presets::PRESETS;

use super::certs::{self, no_such_file};
use super::session::{Session, WaitOptions};
use super::target_options::{self, TargetOptions};
use super::wait;
use crate::client::{ClientError, ErrorKind};
use crate::output::preset;
use crate::output::target::{self, place};

#[derive(Debug, Subcommand)]
pub(crate) enum Verb {
    /// Lists targets, of one certificate or of all
    Ls { certificate: Option<String> },
    /// Lists the services that --preset knows, and what it fills in for them
    Presets,
    /// Deploys a certificate to one more place
    Add(Box<Add>),
    /// Applies the current version again now
    Deploy {
        certificate: String,
        /// Only the target on this agent
        #[arg(long, value_name = "AGENT")]
        agent: Option<String>,
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
        Verb::Deploy { certificate, agent, wait } => {
            let request = DeployCertificateRequest {
                name: certificate,
                agent: agent.unwrap_or_default(),
                request_id: proto::id::random_id(),
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

async fn remove(rm: Rm, session: &mut Session<'_>) -> Result<(), ClientError> {
    let found = session.client.get_certificate(GetCertificateRequest { name: rm.certificate.clone() }).await?;
    let fits = |target: &&Target| {
        let (agent, dir) = place(target);
        agent == rm.agent && rm.dir.as_ref().is_none_or(|wanted| *wanted == dir)
    };
    let mut matching = found.targets.iter().filter(fits);
    let target_id = match (matching.next(), matching.next()) {
        (Some(target), None) => target.id.clone(),
        (None, _) => return Err(ambiguous(&rm, ErrorKind::NotFound, "has no such target")),
        (Some(_), Some(_)) => return Err(ambiguous(&rm, ErrorKind::Invalid, "has several targets there")),
    };
    let accepted = session.client.remove_target(RemoveTargetRequest { certificate: rm.certificate, target_id }).await?;
    wait::finish(session, accepted, &WaitOptions { wait: None }).await
}

fn ambiguous(rm: &Rm, kind: ErrorKind, what: &str) -> ClientError {
    let dir = rm.dir.as_ref().map(|dir| format!(" in {dir}")).unwrap_or_default();
    let message = format!("certificate {} {what}: agent {}{dir}", rm.certificate, rm.agent);
    let hint = format!("see `certwright targets ls {}`, and name the directory with --dir", rm.certificate);
    ClientError::local(kind, "TARGET_NOT_UNIQUE", &message, "", &hint)
}
