//! `certs`: what is managed, how it changes, and what happened to it.

mod create;
pub(super) mod many;
mod revoke;
mod set;

pub(super) use create::{key_type, no_such_file};

use clap::{Args, Subcommand};
use proto::operator::v1::{
    ActOnCertificatesRequest, Certificate, DeleteCertificateRequest, DeployCertificateRequest, Event,
    GetCertificateRequest, ListCertificatesRequest, ListEventsRequest, ListVersionsRequest, RenewCertificateRequest,
};

use self::many::{Consent, Selection};
use super::confirm::confirm;
use super::pause;
use super::session::{PAGE_SIZE, Session, WaitOptions};
use super::wait;
use crate::client::ClientError;
use crate::output::{Format, certificate, event, safe, version};

const FILTER_HELP: &str = "Words of a filter; a space means and:
  api             part of the name or of an identifier
  !api            not
  issuer:le,lab   any of; also key, status, deployment, custody, agent, name; != for none of
  expires<7d      also renews, > and the units d, h, m
  (a or b) !c     brackets";

#[derive(Debug, Subcommand)]
pub(crate) enum Verb {
    /// Lists certificates
    Ls(Ls),
    /// Shows one certificate
    Get { name: String },
    /// Adds a certificate, orders it and deploys it
    Create(Box<create::Create>),
    /// Changes a certificate; what is not named stays as it is
    Set(Box<set::Set>),
    /// Orders new versions now: of one certificate, or of many as one job
    Renew(Box<Renew>),
    /// Orders new versions with new keys now, also where the key is kept
    Rekey(Box<Rekey>),
    /// Holds a certificate still: no orders, no deployments
    Pause(pause::PauseOne),
    /// Lifts the pause of a certificate
    Resume { name: String },
    /// Revokes a version at its CA; what is revoked is replaced at once
    Revoke(Box<revoke::Revoke>),
    /// Lists the versions that were issued
    History { name: String },
    /// Puts an older stored version in place, until the next one is issued; `current` ends that
    Rollback {
        name: String,
        /// Its id or serial, as `certs history` lists them, or `current`
        version: String,
        #[command(flatten)]
        wait: WaitOptions,
    },
    /// Stops managing a certificate; its files stay where they are
    Delete(Delete),
    /// Says what a certificate is doing, why, and what to do
    Explain { name: String },
    /// Shows what happened to a certificate, newest first
    Activity {
        name: String,
        /// How many events at most
        #[arg(long, value_name = "N", default_value_t = 50)]
        limit: u32,
    },
}

#[derive(Args, Debug)]
pub(crate) struct Renew {
    #[command(flatten)]
    selection: Selection,
    /// Order although the issuance lock holds; says why, for the events
    #[arg(long, value_name = "REASON", default_value = "", hide_default_value = true)]
    override_lock: String,
    #[command(flatten)]
    consent: Consent,
    #[command(flatten)]
    wait: WaitOptions,
}

#[derive(Args, Debug)]
pub(crate) struct Rekey {
    #[command(flatten)]
    selection: Selection,
    #[command(flatten)]
    consent: Consent,
    #[command(flatten)]
    wait: WaitOptions,
}

#[derive(Args, Debug)]
#[command(after_help = FILTER_HELP)]
pub(crate) struct Ls {
    /// Only those that these words find
    #[arg(short, long, value_name = "WORDS", default_value = "", hide_default_value = true)]
    filter: String,
    /// Order of the list
    #[arg(long, value_name = "ORDER", default_value = "name", value_parser = ["name", "urgency", "expires"])]
    sort: String,
}

#[derive(Args, Debug)]
pub(crate) struct Delete {
    name: String,
    /// Remove our files from the targets, once they are no longer served
    #[arg(long)]
    purge: bool,
    /// Consent without a question: the certificate's name once more
    #[arg(long, value_name = "NAME", require_equals = true)]
    confirm: Option<String>,
}

pub(super) async fn run(verb: Verb, session: &mut Session<'_>) -> Result<(), ClientError> {
    match verb {
        Verb::Ls(ls) => list(ls, session).await,
        Verb::Get { name } => {
            let found = session.client.get_certificate(GetCertificateRequest { name }).await?;
            show(&found, session)
        }
        Verb::Create(create) => create::run(*create, session).await,
        Verb::Set(set) => set::run(*set, session).await,
        Verb::Renew(renew) => run_renew(*renew, session).await,
        Verb::Rekey(rekey) => {
            let request = rekey.selection.request("rekey")?;
            many::run(request, &rekey.consent, &rekey.wait, session).await
        }
        Verb::Pause(one) => pause::pause(one, session).await,
        Verb::Resume { name } => pause::resume(name, session).await,
        Verb::Revoke(revoke) => revoke::run(*revoke, session).await,
        Verb::History { name } => history(name, session).await,
        Verb::Rollback { name, version, wait } => {
            let request = DeployCertificateRequest {
                name,
                version,
                request_id: proto::id::random_id(),
                ..DeployCertificateRequest::default()
            };
            let accepted = session.client.deploy_certificate(request).await?;
            wait::finish(session, accepted, &wait).await
        }
        Verb::Delete(delete) => remove(delete, session).await,
        Verb::Explain { name } => {
            let found = session.client.get_certificate(GetCertificateRequest { name }).await?;
            session.record(&found.name, || certificate::json(&found), |now| certificate::explain(&found, now))
        }
        Verb::Activity { name, limit } => {
            activity(ListEventsRequest { certificate: name, ..Default::default() }, limit, session).await
        }
    }
}

/// One certificate needs no question: it is what was typed.
async fn run_renew(renew: Renew, session: &mut Session<'_>) -> Result<(), ClientError> {
    let Renew { selection, override_lock, consent, wait } = renew;
    if let Some(name) = selection.one().filter(|_| !consent.is_rehearsal()) {
        let request =
            RenewCertificateRequest { name: name.to_owned(), request_id: proto::id::random_id(), override_lock };
        let accepted = session.client.renew_certificate(request).await?;
        return wait::finish(session, accepted, &wait).await;
    }
    let request = ActOnCertificatesRequest { override_lock, ..selection.request("renew")? };
    many::run(request, &consent, &wait, session).await
}

pub(super) fn show(found: &Certificate, session: &mut Session<'_>) -> Result<(), ClientError> {
    session.record(&found.name, || certificate::json(found), |now| certificate::describe(found, now))
}

/// Returns every certificate that matches, page by page.
pub(super) async fn all(filter: &str, sort: &str, session: &Session<'_>) -> Result<Vec<Certificate>, ClientError> {
    let mut certificates = Vec::new();
    let mut page_token = String::new();
    loop {
        let request = ListCertificatesRequest {
            filter: filter.to_owned(),
            page_size: PAGE_SIZE,
            page_token,
            sort: sort.to_owned(),
        };
        let page = session.client.list_certificates(request).await?;
        certificates.extend(page.items);
        page_token = page.next_page_token;
        if page_token.is_empty() {
            return Ok(certificates);
        }
    }
}

async fn list(ls: Ls, session: &mut Session<'_>) -> Result<(), ClientError> {
    let certificates = all(&ls.filter, &ls.sort, session).await?;
    session.list(
        || certificates.iter().map(|certificate| certificate.name.clone()).collect(),
        || certificate::json_list(&certificates),
        |now, wide| certificate::table(&certificates, now, wide),
    )
}

async fn history(name: String, session: &mut Session<'_>) -> Result<(), ClientError> {
    let versions = session.client.list_versions(ListVersionsRequest { certificate: name }).await?.items;
    session.list(
        || versions.iter().map(|version| version.id.clone()).collect(),
        || version::json_list(&versions),
        |now, _| version::table(&versions, now),
    )
}

async fn remove(delete: Delete, session: &mut Session<'_>) -> Result<(), ClientError> {
    let Delete { name, purge, confirm: given } = delete;
    let files = if purge { "are removed once no longer served" } else { "stay" };
    let what = format!("Deleting {} stops its renewal; its files on the servers {files}.", safe(&name));
    confirm(session.console, &what, &name, given.as_deref()).await?;
    let request = DeleteCertificateRequest { name: name.clone(), expected_revision: 0, purge };
    let answer = session.client.delete_certificate(request).await?;
    match &answer.certificate {
        Some(waiting) => {
            session.console.note(&format!("certificate {} goes once its targets have been purged", safe(&name)));
            if session.format == Format::Json { show(waiting, session) } else { Ok(()) }
        }
        None => {
            session.console.note(&format!("certificate {} deleted; its files {files}", safe(&name)));
            Ok(())
        }
    }
}

/// Prints the newest events of a certificate or an agent.
pub(super) async fn activity(
    mut request: ListEventsRequest,
    limit: u32,
    session: &mut Session<'_>,
) -> Result<(), ClientError> {
    let limit = usize::try_from(limit).unwrap_or(usize::MAX);
    let mut events: Vec<Event> = Vec::new();
    while events.len() < limit {
        request.page_size = u32::try_from(limit.saturating_sub(events.len())).unwrap_or(PAGE_SIZE).min(PAGE_SIZE);
        let page = session.client.list_events(request.clone()).await?.items;
        // A page that does not go further back would be asked for again for ever.
        let Some(oldest) = page.last().map(|event| event.seq).filter(|seq| *seq != request.before_seq) else { break };
        request.before_seq = oldest;
        events.extend(page);
        if oldest <= 1 {
            break;
        }
    }
    events.truncate(limit);
    session.list(
        || events.iter().map(|event| event.seq.to_string()).collect(),
        || event::json_list(&events),
        |_, _| event::table(&events),
    )
}
