//! `targets`: where a certificate is deployed.

use clap::{Args, Subcommand};
use proto::operator::v1::{
    AddTargetRequest, Certificate, DeployCertificateRequest, GetCertificateRequest, RemoveTargetRequest,
    SetTargetRequest, Target, TestTargetsRequest,
};
use proto::presets::PRESETS;

use super::certs::{self, no_such_file};
use super::session::{Session, WaitOptions};
use super::target_options::{self, TargetOptions};
use super::wait;
use crate::client::{ClientError, ErrorKind, target_changes, test_verdict};
use crate::output::target::{self, place};
use crate::output::{Format, preset, safe, trial};

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
    /// Tries everything that a deployment would do, and changes nothing: also runs the commands that test a service's configuration
    Test(Test),
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
    #[arg(id = "one_agent", long = "agent", value_name = "AGENT", group = "agent", required_unless_present = "agents")]
    agent: Option<String>,
    /// Every agent that has this label now gets it, or none
    #[arg(long, value_name = "KEY=VALUE", group = "agent")]
    agents: Option<String>,
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
    /// Have the agent test it, as `targets test` does, and change nothing
    #[arg(long, conflicts_with_all = ["wait", "dry_run", "agents"])]
    test: bool,
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
    /// Have the agent test it, as `targets test` does, and change nothing
    #[arg(long, conflicts_with_all = ["wait", "dry_run"])]
    test: bool,
}

#[derive(Args, Debug)]
pub(crate) struct Test {
    certificate: String,
    /// Only the target on this agent; default: all of the certificate
    #[arg(long, value_name = "AGENT")]
    agent: Option<String>,
    /// The target in this directory, when the agent has several
    #[arg(long, value_name = "DIR", requires = "agent")]
    dir: Option<String>,
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
        Verb::Set(set) => Box::pin(self::set(*set, session)).await,
        Verb::Test(test) => self::test(test, session).await,
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
    let agent = add.agent.unwrap_or_default();
    let spec = add.target.spec(&add.certificate, agent, add.dir).map_err(|message| no_such_file(&message))?;
    if add.test {
        let request = TestTargetsRequest { certificate: add.certificate, target: Some(spec), ..Default::default() };
        return Box::pin(show_test(request, session)).await;
    }
    let request = AddTargetRequest {
        certificate: add.certificate,
        target: Some(spec),
        request_id: proto::id::random_id(),
        dry_run: add.dry_run,
        agents_label: add.agents.unwrap_or_default(),
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
    if set.test {
        let (certificate, target_id) = (set.certificate, present.id);
        let request = TestTargetsRequest { certificate, target_id, target: Some(spec), create: None };
        return Box::pin(show_test(request, session)).await;
    }
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

async fn test(test: Test, session: &mut Session<'_>) -> Result<(), ClientError> {
    let target_id = match &test.agent {
        Some(agent) => the_one(&test.certificate, agent, test.dir.as_deref(), session).await?.id,
        None => String::new(),
    };
    show_test(TestTargetsRequest { certificate: test.certificate, target_id, ..Default::default() }, session).await
}

/// Prints what agents found; fails when a target would not take a deployment, or was not tested.
pub(super) async fn show_test(request: TestTargetsRequest, session: &mut Session<'_>) -> Result<(), ClientError> {
    let certificate = request.create.as_ref().map_or(&request.certificate, |create| &create.name).clone();
    let tests = session.client.test_targets(request).await?.items;
    let text = match session.format {
        Format::Json => trial::json_list(&tests),
        Format::Name => trial::names(&tests),
        Format::Table | Format::Wide => trial::text(&tests),
    };
    session.console.print(&text)?;
    let bad = tests.iter().filter(|test| matches!(test_verdict(test), "failed" | "untested")).count();
    if bad == 0 {
        return Ok(());
    }
    let kind = if bad < tests.len() { ErrorKind::Partial } else { ErrorKind::Failed };
    let message = format!("{bad} of {} targets of {certificate} would not take a deployment now", tests.len());
    let hint = "the steps that failed say what to do; nothing was changed";
    Err(ClientError::local(kind, "TEST_FAILED", &message, "", hint))
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
