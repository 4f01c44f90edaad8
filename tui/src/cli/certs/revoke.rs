//! `certs revoke`: one certificate by name, or all that a filter finds, as one job with a result for each.

use clap::Args;
use proto::operator::v1::{ActOnCertificatesRequest, RevokeCertificateRequest};

use super::many::{self, Consent, Selection};
use crate::cli::confirm::confirm;
use crate::cli::session::{Session, WaitOptions};
use crate::cli::wait;
use crate::client::ClientError;
use crate::output::safe;

/// Why: the words of RFC 5280.
const REASONS: [&str; 5] = ["unspecified", "keyCompromise", "affiliationChanged", "superseded", "cessationOfOperation"];

#[derive(Args, Debug)]
pub(crate) struct Revoke {
    #[arg(required_unless_present = "filter", conflicts_with = "filter")]
    name: Option<String>,
    /// Every certificate that these words find: see `certs ls --help`
    #[arg(short, long, value_name = "WORDS", conflicts_with = "serial")]
    filter: Option<String>,
    /// Only say what would be done, what is passed over and why
    #[arg(long, requires = "filter")]
    rehearse: bool,
    /// Why
    #[arg(long, value_parser = REASONS)]
    reason: String,
    /// An earlier version instead of the current one
    #[arg(long, value_name = "SERIAL", default_value = "", hide_default_value = true)]
    serial: String,
    /// Consent without a question: the certificate's name once more, or how many the filter finds
    #[arg(long, value_name = "NAME|COUNT", require_equals = true)]
    confirm: Option<String>,
    #[command(flatten)]
    wait: WaitOptions,
}

pub(super) async fn run(revoke: Revoke, session: &mut Session<'_>) -> Result<(), ClientError> {
    let Revoke { name, filter, rehearse, reason, serial, confirm: given, wait } = revoke;
    if filter.is_some() {
        let request = ActOnCertificatesRequest { reason, ..Selection::of(filter).request("revoke")? };
        return many::run(request, &Consent::by_count(rehearse, given), &wait, session).await;
    }
    let name = name.unwrap_or_default();
    let what = if serial.is_empty() {
        format!("Revoking {} cannot be undone; it is replaced at once, with a new key.", safe(&name))
    } else {
        format!("Revoking serial {} of {} cannot be undone.", safe(&serial), safe(&name))
    };
    confirm(session.console, &what, &name, given.as_deref()).await?;
    let request = RevokeCertificateRequest { name, request_id: proto::id::random_id(), serial, reason };
    let accepted = session.client.revoke_certificate(request).await?;
    wait::finish(session, accepted, &wait).await
}
