//! Acts on certificates picked by names or by words: what would happen is said first (a rehearsal), then asked, then done as
//! one job with a result for each. Called by `certs renew`, `certs rekey`, `certs revoke` and `jobs retry`.

use clap::Args;
use proto::operator::v1::{ActOnCertificatesRequest, ActOnCertificatesResponse};

use crate::cli::confirm::confirm;
use crate::cli::session::{Session, WaitOptions, invalid};
use crate::cli::wait;
use crate::client::ClientError;
use crate::output::{Format, batch, safe};

/// Which certificates.
#[derive(Args, Clone, Debug, Default)]
pub(crate) struct Selection {
    /// Names of certificates
    #[arg(value_name = "NAME", conflicts_with_all = ["filter", "issuer", "key_type", "all"])]
    names: Vec<String>,
    /// Those that these words find: `api !shop status:failed expires<7d`, as in `certs ls`
    #[arg(short, long, value_name = "WORDS")]
    filter: Option<String>,
    /// Those that this issuer issued
    #[arg(long, value_name = "ISSUER")]
    issuer: Option<String>,
    /// Those with this key type
    #[arg(long, value_name = "TYPE")]
    key_type: Option<String>,
    /// All of them
    #[arg(long, conflicts_with_all = ["filter", "issuer", "key_type"])]
    all: bool,
}

/// How it is agreed to and followed.
#[derive(Args, Clone, Debug)]
pub(crate) struct Consent {
    /// Only say what would be done, what is passed over and why
    #[arg(long)]
    rehearse: bool,
    /// Consent without a question: how many certificates
    #[arg(long, value_name = "COUNT", require_equals = true)]
    confirm: Option<String>,
    /// Consent without a question, however many
    #[arg(long)]
    yes: bool,
}

impl Consent {
    /// Whether only a rehearsal is wanted.
    pub(super) fn is_rehearsal(&self) -> bool {
        self.rehearse
    }

    /// For an act that cannot be undone: only the count consents.
    pub(super) fn by_count(rehearse: bool, confirm: Option<String>) -> Self {
        Self { rehearse, confirm, yes: false }
    }
}

impl Selection {
    /// Returns the certificate that is named, when it is one.
    pub(super) fn one(&self) -> Option<&str> {
        if let [name] = self.names.as_slice() { Some(name) } else { None }
    }

    /// Returns those that the words of a filter find.
    pub(super) fn of(filter: Option<String>) -> Self {
        Self { filter, ..Self::default() }
    }

    /// Returns a request for them.
    ///
    /// # Errors
    /// When nothing is picked.
    pub(super) fn request(self, act: &str) -> Result<ActOnCertificatesRequest, ClientError> {
        let picked = !self.names.is_empty() || self.all;
        let words = [
            self.filter.map(|filter| format!("({filter})")),
            self.issuer.map(|issuer| format!("issuer:{issuer}")),
            self.key_type.map(|key_type| format!("key:{key_type}")),
        ];
        let filter = words.into_iter().flatten().collect::<Vec<_>>().join(" ");
        if !picked && filter.is_empty() {
            let hint = "name certificates, or pick them with --filter, --issuer, --key-type or --all";
            return Err(invalid("there is no certificate to act on", hint));
        }
        Ok(ActOnCertificatesRequest {
            act: act.to_owned(),
            names: self.names,
            filter,
            all: self.all,
            request_id: proto::id::random_id(),
            ..Default::default()
        })
    }
}

/// Says what would be done, asks, and does it.
pub(in crate::cli) async fn run(
    request: ActOnCertificatesRequest,
    consent: &Consent,
    wait: &WaitOptions,
    session: &mut Session<'_>,
) -> Result<(), ClientError> {
    let rehearsal = ActOnCertificatesRequest { rehearse: true, ..request.clone() };
    let plan = session.client.act_on_certificates(rehearsal).await?;
    if consent.rehearse {
        return session.record("", || batch::json(&plan, None), |now| batch::describe(&plan, now));
    }
    // With nothing to do the controller says why, in its own words.
    if plan.total > 0 {
        agree(&plan, consent, session).await?;
    }
    let accepted =
        session.client.act_on_certificates(ActOnCertificatesRequest { expected: plan.total, ..request }).await?;
    follow(accepted, wait, session).await
}

/// What would be done stands above the question; what was agreed to already is told in one line.
async fn agree(
    plan: &ActOnCertificatesResponse,
    consent: &Consent,
    session: &mut Session<'_>,
) -> Result<(), ClientError> {
    let now = session.now();
    session.console.note(batch::describe(plan, now).trim_end());
    if consent.yes {
        return Ok(());
    }
    let count = plan.total.to_string();
    let what = match plan.act.as_str() {
        "revoke" => format!("Revoking these {count} cannot be undone; each is replaced at once, with a new key."),
        _ => format!("One order each for these {count}."),
    };
    confirm(session.console, &what, &count, consent.confirm.as_deref()).await
}

async fn follow(
    accepted: ActOnCertificatesResponse,
    wait: &WaitOptions,
    session: &mut Session<'_>,
) -> Result<(), ClientError> {
    let job = safe(&accepted.job_id);
    session.console.note(&format!("accepted as job {job}; certwright jobs get {job} shows each certificate"));
    let ended = match wait.wait {
        Some(limit) => Some(wait::follow(session, &accepted.job_id, limit).await?),
        None => None,
    };
    let outcome = ended.as_ref().map(|end| end.job.state.as_str());
    match session.format {
        Format::Json => session.console.print(&batch::json(&accepted, outcome))?,
        Format::Name | Format::Table | Format::Wide => session.console.print(&format!("{job}\n"))?,
    }
    ended.map_or(Ok(()), |end| end.result())
}
