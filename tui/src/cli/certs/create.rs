//! `certs create`: one certificate, its challenge and its first target, in one line.

use clap::{ArgGroup, Args};
use proto::operator::v1::{CreateCertificateRequest, TestTargetsRequest};
use proto::types::v1::{Custody, Http01, KeyType};

use crate::cli::session::{Session, WaitOptions, invalid};
use crate::cli::target_options::{self, TargetOptions};
use crate::cli::targets::show_test;
use crate::cli::wait;
use crate::client::ClientError;

#[derive(Args, Debug)]
#[command(group(ArgGroup::new("place").args(["dir", "preset"]).multiple(true)))]
pub(crate) struct Create {
    name: String,
    /// DNS name or IP address the certificate is for (repeats; the first is the main one)
    #[arg(long = "san", value_name = "NAME", required = true)]
    sans: Vec<String>,
    /// Issuer to order from
    #[arg(long, value_name = "ISSUER")]
    issuer: String,
    /// Issuer to ask when the first one fails and time is short (repeats, in this order)
    #[arg(long = "fallback", value_name = "ISSUER")]
    fallbacks: Vec<String>,
    /// Profile to order, as `issuers get` lists them; default: the issuer's
    #[arg(long, value_name = "PROFILE", default_value = "", hide_default_value = true)]
    profile: String,
    /// Key algorithm: p256, p384, rsa2048, rsa3072 or rsa4096
    #[arg(long, value_name = "TYPE", default_value = "p256", value_parser = key_type)]
    key: KeyType,
    /// Where the key is born and stays; default: the agent when there is one target
    #[arg(long, value_name = "agent|controller", value_parser = custody)]
    custody: Option<Custody>,
    /// Keep the key in later versions instead of a new one each time
    #[arg(long)]
    reuse_key: bool,
    /// How HTTP-01 is answered: standalone[:PORT] or webroot:DIR
    #[arg(long, value_name = "MODE", default_value = "standalone:80", value_parser = target_options::http01)]
    http01: Http01,
    /// Agent that answers HTTP-01 (repeats); default: the target's agent
    #[arg(long = "responder", value_name = "AGENT")]
    responders: Vec<String>,
    /// Agent that gets the certificate; more by `targets add`
    #[arg(long, value_name = "AGENT", requires = "place")]
    agent: Option<String>,
    /// Directory on the agent, absolute; default: the preset's
    #[arg(long, value_name = "DIR", requires = "agent", value_parser = target_options::dir)]
    dir: Option<String>,
    #[command(flatten)]
    target: TargetOptions,
    #[command(flatten)]
    wait: WaitOptions,
    /// Check everything and change nothing
    #[arg(long, conflicts_with = "wait")]
    dry_run: bool,
    /// Have the agent test the target, as `targets test` does, and create nothing
    #[arg(long, conflicts_with_all = ["wait", "dry_run"], requires = "agent")]
    test: bool,
}

pub(super) async fn run(create: Create, session: &mut Session<'_>) -> Result<(), ClientError> {
    if create.test {
        let request = TestTargetsRequest { create: Some(create.request()?), ..Default::default() };
        return Box::pin(show_test(request, session)).await;
    }
    let dry_run = create.dry_run;
    let wait = create.wait.clone();
    let accepted = session.client.create_certificate(create.request()?).await?;
    if dry_run {
        return wait::plan(session, &accepted);
    }
    wait::finish(session, accepted, &wait).await
}

impl Create {
    fn request(self) -> Result<CreateCertificateRequest, ClientError> {
        let target = self.agent.map(|agent| self.target.spec(&self.name, agent, self.dir)).transpose();
        let target = target.map_err(|message| no_such_file(&message))?;
        Ok(CreateCertificateRequest {
            request_id: proto::id::random_id(),
            name: self.name,
            identifiers: self.sans,
            issuer: self.issuer,
            key_type: self.key.into(),
            custody: self.custody.unwrap_or(Custody::Unspecified).into(),
            http01: Some(self.http01),
            responders: self.responders,
            target,
            dry_run: self.dry_run,
            fallbacks: self.fallbacks,
            profile: self.profile,
            reuse_key: self.reuse_key,
        })
    }
}

/// Returns why a target cannot be described so.
pub(in crate::cli) fn no_such_file(message: &str) -> ClientError {
    invalid(message, "name the file with --file, or drop --mode")
}

pub(in crate::cli) fn key_type(text: &str) -> Result<KeyType, String> {
    Ok(match text {
        "p256" => KeyType::P256,
        "p384" => KeyType::P384,
        "rsa2048" => KeyType::Rsa2048,
        "rsa3072" => KeyType::Rsa3072,
        "rsa4096" => KeyType::Rsa4096,
        _ => return Err("expected p256, p384, rsa2048, rsa3072 or rsa4096".to_owned()),
    })
}

pub(super) fn custody(text: &str) -> Result<Custody, String> {
    match text {
        "agent" => Ok(Custody::Agent),
        "controller" => Ok(Custody::Controller),
        _ => Err("expected agent or controller".to_owned()),
    }
}
