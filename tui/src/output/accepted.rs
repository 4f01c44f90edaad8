//! What the controller accepted, and how it ended when it was waited for.

use proto::operator::v1::CertificateAccepted;
use serde::Serialize;

use super::certificate::CertificateView;
use super::{each, safe, some};

#[derive(Serialize)]
struct AcceptedView {
    job_id: Option<String>,
    /// State of the job when the command ended; absent when it was not waited for.
    outcome: Option<String>,
    dry_run: bool,
    warnings: Vec<String>,
    certificate: Option<CertificateView>,
}

/// Returns the answer to a changing verb as a JSON document.
pub(crate) fn json(accepted: &CertificateAccepted, outcome: Option<&str>, dry_run: bool) -> String {
    let view = AcceptedView {
        job_id: some(&accepted.job_id),
        outcome: outcome.map(safe),
        dry_run,
        warnings: each(&accepted.warnings),
        certificate: accepted.certificate.as_ref().map(CertificateView::from),
    };
    super::json(Some("Accepted"), view)
}
