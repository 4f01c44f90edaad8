//! Performs what `app` asks of the controller: one function from `Call` to `Reply`. Lists are read page by page up to the
//! rows that are wanted. Called by `run`, one task per call.

use std::path::Path;

use proto::audit::Line;
use proto::clock::to_wire;
use proto::operator::v1::create_backup_request::Recovery;
use proto::operator::v1::{
    AcceptRestoreRequest, AddIssuerRequest, CancelJobRequest, CheckChallengesRequest, ConsentAgentRequest,
    DetectAgentRequest, Detected, ForgetAgentRequest, GetAgentRequest, GetCertificateRequest, GetDetectedRequest,
    GetIdentityCaRequest, GetIssuerRequest, GetJobRequest, GetOverviewRequest, GetRestoreRequest, ListAgentsRequest,
    ListAuditRequest, ListCertificatesRequest, ListEventsRequest, ListIssuersRequest, ListJobsRequest,
    ListLimitsRequest, ListOperatorsRequest, ListVersionsRequest, PendingEnrollment, RemoveIssuerRequest,
    RemoveOperatorRequest, RevokeAgentRequest, RolloverAccountRequest, RotateIdentityCaRequest, SetIssuerRequest,
    TestIssuerRequest,
};

use crate::app::call::{AuditPage, BackupWish, Call, Invitation, IssuerWish, Page, Reply, Token, Trust};
use crate::app::list::PAGE_ROWS;
use crate::client::{AuditFilter, Client, ClientError, ErrorKind, fold_audit, read_roots, read_secret};
use crate::widgets::form::Secret;

/// Events shown of one record.
const EVENTS_MAX: u32 = 100;
/// Most lines of the audit asked for at once.
const AUDIT_LINES_MAX: u32 = 1_000;
/// A filter that fits nothing is given up after so many pages: at most 20,000 lines are looked at for each.
const AUDIT_PAGES_MAX: usize = 20;
/// Jobs shown.
const JOBS_MAX: u32 = 200;

/// Asks the controller. `told` hears how many bytes of a long answer there are so far.
///
/// # Errors
/// When it refuses, fails or cannot be reached.
pub(crate) async fn perform(
    client: &Client,
    call: Call,
    told: &(dyn Fn(u64) + Send + Sync),
) -> Result<Reply, ClientError> {
    Ok(match call {
        Call::Overview => Reply::Overview(Box::new(client.get_overview(GetOverviewRequest {}).await?)),
        Call::Certificates { filter, sort, rows } => certificates(client, &filter, sort, rows).await?,
        Call::Certificate(name) => {
            Reply::Certificate(Box::new(client.get_certificate(GetCertificateRequest { name }).await?))
        }
        Call::Versions(certificate) => {
            Reply::Versions(client.list_versions(ListVersionsRequest { certificate }).await?.items)
        }
        Call::Events { certificate, agent } => events(client, certificate, agent).await?,
        Call::Agents { filter, rows } => agents(client, &filter, rows).await?,
        Call::Agent(name) => Reply::Agent(Box::new(client.get_agent(GetAgentRequest { name }).await?)),
        call @ (Call::Detected(_) | Call::Detect(_)) => detected(client, call).await?,
        Call::Jobs => {
            let request = ListJobsRequest { page_size: JOBS_MAX, ..ListJobsRequest::default() };
            Reply::Jobs(client.list_jobs(request).await?.items)
        }
        Call::Job(id) => Reply::Job(Box::new(client.get_job(GetJobRequest { id }).await?)),
        Call::SubJobs(parent) => {
            let request = ListJobsRequest { parent, page_size: JOBS_MAX, ..ListJobsRequest::default() };
            Reply::SubJobs(client.list_jobs(request).await?.items)
        }
        Call::CancelJob(id) => Reply::Job(Box::new(client.cancel_job(CancelJobRequest { id }).await?)),
        Call::Act(request) => Reply::Acted(Box::new(client.act_on_certificates(*request).await?)),
        Call::Issuers => Reply::Issuers(client.list_issuers(ListIssuersRequest {}).await?.items),
        Call::Issuer(name) => Reply::Issuer(Box::new(client.get_issuer(GetIssuerRequest { name }).await?)),
        Call::Limits(issuer) => Reply::Limits(Box::new(client.list_limits(ListLimitsRequest { issuer }).await?)),
        Call::TestIssuer(name) => Reply::Issuer(Box::new(client.test_issuer(TestIssuerRequest { name }).await?)),
        Call::Rollover(name) => {
            Reply::Issuer(Box::new(client.rollover_account(RolloverAccountRequest { name }).await?))
        }
        Call::RemoveIssuer(name) => remove_issuer(client, name).await?,
        Call::AddIssuer(wish) => add_issuer(client, *wish).await?,
        Call::SetIssuer(wish) => set_issuer(client, *wish).await?,
        Call::SetLimits(request) => Reply::Limits(Box::new(client.set_limits(request).await?)),
        Call::CheckChallenges(certificate) => check_challenges(client, certificate).await?,
        Call::TestTargets(request) => Reply::Tested(client.test_targets(*request).await?.items),
        Call::AddTarget(request) => Reply::Accepted(Box::new(client.add_target(*request).await?)),
        Call::SetTarget(request) => Reply::Accepted(Box::new(client.set_target(*request).await?)),
        Call::Update(request) => Reply::Accepted(Box::new(client.update_certificate(*request).await?)),
        Call::Create(request) => Reply::Accepted(Box::new(client.create_certificate(*request).await?)),
        Call::Renew(request) => Reply::Accepted(Box::new(client.renew_certificate(request).await?)),
        Call::RevokeVersion(request) => Reply::Accepted(Box::new(client.revoke_certificate(request).await?)),
        Call::Deploy(request) => Reply::Accepted(Box::new(client.deploy_certificate(request).await?)),
        Call::Delete(request) => Reply::Deleted(client.delete_certificate(request).await?.certificate.is_some()),
        Call::Pause(request) => Reply::Paused(Box::new(client.set_pause(request).await?)),
        Call::Enroll(request) => Reply::Enrolled(Box::new(Token { response: client.enroll_agent(request).await? })),
        Call::Revoke(name) => Reply::Agent(Box::new(client.revoke_agent(RevokeAgentRequest { name }).await?)),
        Call::Consent(name) => Reply::Agent(Box::new(client.consent_agent(ConsentAgentRequest { name }).await?)),
        Call::Forget(name) => {
            client.forget_agent(ForgetAgentRequest { name }).await?;
            Reply::Forgotten
        }
        Call::Audit { filter, rows } => audit(client, filter, rows).await?,
        Call::Operators => Reply::Operators(Box::new(client.list_operators(ListOperatorsRequest {}).await?)),
        Call::AddOperator(request) => Reply::OperatorAdded(Box::new(client.add_operator(request).await?)),
        Call::Invite(request) => {
            Reply::Invited(Box::new(Invitation { response: client.invite_operator(request).await? }))
        }
        Call::SetRole(request) => Reply::Operator(Box::new(client.set_operator_role(request).await?)),
        Call::RemoveOperator(name) => {
            client.remove_operator(RemoveOperatorRequest { name }).await?;
            Reply::OperatorRemoved
        }
        Call::Trust(call) => trust(client, call).await?,
        Call::Backup(wish) => Reply::BackedUp(back_up(client, *wish, told).await?),
    })
}

/// Asks about a restore and the identity CA, or acts on them.
async fn trust(client: &Client, call: Trust) -> Result<Reply, ClientError> {
    Ok(match call {
        Trust::Restore => Reply::Restore(Box::new(client.get_restore(GetRestoreRequest {}).await?)),
        Trust::Accept { keep_operators } => {
            Reply::Restore(Box::new(client.accept_restore(AcceptRestoreRequest { keep_operators }).await?))
        }
        Trust::IdentityCa => Reply::IdentityCa(Box::new(client.get_identity_ca(GetIdentityCaRequest {}).await?)),
        Trust::Rotate(step) => {
            let request = RotateIdentityCaRequest { step: step.word().to_owned(), anyway: 0 };
            Reply::IdentityCa(Box::new(client.rotate_identity_ca(request).await?))
        }
    })
}

async fn back_up(client: &Client, wish: BackupWish, told: &(dyn Fn(u64) + Send + Sync)) -> Result<u64, ClientError> {
    let BackupWish { to, key_file, passphrase } = wish;
    let recovery = if key_file.is_empty() {
        Recovery::Passphrase(passphrase.expose().to_owned())
    } else {
        let read = move || read_secret("key-file", "the recovery key", &format!("@{key_file}"));
        Recovery::Key(tokio::task::spawn_blocking(read).await.unwrap_or_else(|stopped| Err(unread(&stopped)))?)
    };
    client.save_backup(recovery, Path::new(&to), told).await
}

fn unread(stopped: &tokio::task::JoinError) -> ClientError {
    let cause = stopped.to_string();
    ClientError::local(ErrorKind::Failed, "READ_STOPPED", "the files could not be read", &cause, "try again")
}

/// Reads the audit from its end on, so many acts, but not longer than an operator waits.
async fn audit(client: &Client, filter: AuditFilter, rows: usize) -> Result<Reply, ClientError> {
    let (start_at, end_at) = (to_wire(filter.start), to_wire(filter.end));
    // An act has two lines.
    let page_size = u32::try_from(rows.saturating_mul(2)).unwrap_or(u32::MAX).min(AUDIT_LINES_MAX);
    let mut request =
        ListAuditRequest { start_at, end_at, name: filter.name, page_size, ..ListAuditRequest::default() };
    let mut page = AuditPage::default();
    let mut lines: Vec<Line> = Vec::new();
    for _ in 0..AUDIT_PAGES_MAX {
        let answer = client.list_audit(request.clone()).await?;
        page.head_seq = answer.head.map_or(page.head_seq, |head| head.seq);
        page.witnesses = answer.witnesses;
        let read = answer.lines.iter().filter_map(|line| serde_json::from_str(line).ok());
        let before = lines.len();
        lines.extend(read);
        page.unreadable += answer.lines.len() - (lines.len() - before);
        request.from_seq = answer.next_seq;
        let enough = lines.iter().filter(|line| line.answers.is_none()).count() >= rows;
        page.more = enough && answer.next_seq > 0;
        page.searched_to = if enough { 0 } else { answer.next_seq };
        if enough || answer.next_seq == 0 {
            break;
        }
    }
    page.acts = fold_audit(lines);
    Ok(Reply::Audit(Box::new(page)))
}

async fn events(client: &Client, certificate: String, agent: String) -> Result<Reply, ClientError> {
    let request = ListEventsRequest { certificate, agent, page_size: EVENTS_MAX, before_seq: 0 };
    Ok(Reply::Events(client.list_events(request).await?.items))
}

async fn detected(client: &Client, call: Call) -> Result<Reply, ClientError> {
    let found = match call {
        Call::Detect(name) => client.detect_agent(DetectAgentRequest { name }).await?,
        Call::Detected(name) => client.get_detected(GetDetectedRequest { name }).await?,
        // Nothing else comes here.
        _ => Detected::default(),
    };
    Ok(Reply::Detected(Box::new(found)))
}

async fn remove_issuer(client: &Client, name: String) -> Result<Reply, ClientError> {
    client.remove_issuer(RemoveIssuerRequest { name }).await?;
    Ok(Reply::IssuerRemoved)
}

async fn check_challenges(client: &Client, certificate: String) -> Result<Reply, ClientError> {
    let checked = client.check_challenges(CheckChallengesRequest { certificate }).await?;
    Ok(Reply::ChallengesChecked(Box::new(checked)))
}

async fn add_issuer(client: &Client, wish: IssuerWish<AddIssuerRequest>) -> Result<Reply, ClientError> {
    let (root_pem, external_key) = from_files(wish.root, wish.key).await?;
    let request = AddIssuerRequest { root_pem: root_pem.unwrap_or_default(), external_key, ..wish.request };
    Ok(Reply::Issuer(Box::new(client.add_issuer(request).await?)))
}

async fn set_issuer(client: &Client, wish: IssuerWish<SetIssuerRequest>) -> Result<Reply, ClientError> {
    let (root_pem, external_key) = from_files(wish.root, wish.key).await?;
    let request = SetIssuerRequest { root_pem, external_key, ..wish.request };
    Ok(Reply::Issuer(Box::new(client.set_issuer(request).await?)))
}

/// Reads roots and key from the files that were named, away from the event loop.
async fn from_files(root: String, key: Secret) -> Result<(Option<String>, String), ClientError> {
    let read = tokio::task::spawn_blocking(move || {
        let roots = if root.is_empty() { None } else { Some(read_roots(Path::new(&root))?) };
        let key =
            if key.is_file() { read_secret("eab-key", "the MAC key", key.expose())? } else { key.expose().to_owned() };
        Ok::<_, ClientError>((roots, key))
    });
    read.await.unwrap_or_else(|stopped| Err(unread(&stopped)))
}

fn page_size() -> u32 {
    u32::try_from(PAGE_ROWS).unwrap_or(u32::MAX)
}

async fn certificates(client: &Client, filter: &str, sort: &str, rows: usize) -> Result<Reply, ClientError> {
    let mut items = Vec::new();
    let mut page_token = String::new();
    loop {
        let request = ListCertificatesRequest {
            filter: filter.to_owned(),
            page_size: page_size(),
            page_token,
            sort: sort.to_owned(),
        };
        let page = client.list_certificates(request).await?;
        let empty = page.items.is_empty();
        items.extend(page.items);
        page_token = page.next_page_token;
        if page_token.is_empty() || empty || items.len() >= rows {
            let more = !page_token.is_empty();
            return Ok(Reply::Certificates(Page { items, total: page.total, more }));
        }
    }
}

async fn agents(client: &Client, filter: &str, rows: usize) -> Result<Reply, ClientError> {
    let mut items = Vec::new();
    let mut pending: Option<Vec<PendingEnrollment>> = None;
    let mut page_token = String::new();
    loop {
        let request = ListAgentsRequest { filter: filter.to_owned(), page_size: page_size(), page_token };
        let page = client.list_agents(request).await?;
        let empty = page.items.is_empty();
        items.extend(page.items);
        pending.get_or_insert(page.pending);
        page_token = page.next_page_token;
        if page_token.is_empty() || empty || items.len() >= rows {
            let more = !page_token.is_empty();
            return Ok(Reply::Agents(Page { items, total: page.total, more }, pending.unwrap_or_default()));
        }
    }
}
