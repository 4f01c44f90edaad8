//! Issued versions: the `current` of a certificate and its history.

use jiff::Timestamp;
use proto::clock::from_wire;
use proto::operator::v1::{Rollback, Version};
use serde::Serialize;

use super::table::Table;
use super::{each, safe, some, time};
use crate::client::custody;

/// A version in JSON.
#[derive(Debug, Serialize)]
pub(crate) struct VersionView {
    version: String,
    serial: String,
    fingerprint_sha256: String,
    not_before: Option<Timestamp>,
    not_after: Option<Timestamp>,
    issuer: Option<String>,
    profile: Option<String>,
    issuer_cn: Option<String>,
    identifiers: Vec<String>,
    custody: Option<String>,
    issued_at: Option<Timestamp>,
    deployable: bool,
    reason: Option<String>,
    revoked_at: Option<Timestamp>,
    revoked_reason: Option<String>,
}

impl From<&Version> for VersionView {
    fn from(version: &Version) -> Self {
        Self {
            version: safe(&version.id),
            serial: safe(&version.serial),
            fingerprint_sha256: safe(&version.fingerprint_sha256),
            not_before: from_wire(version.not_before),
            not_after: from_wire(version.not_after),
            issuer: some(&version.issuer),
            profile: some(&version.profile),
            issuer_cn: some(&version.issuer_cn),
            identifiers: each(&version.identifiers),
            custody: some(custody(version.custody)),
            issued_at: from_wire(version.issued_at),
            deployable: version.deployable,
            reason: some(&version.reason),
            revoked_at: from_wire(version.revoked_at),
            revoked_reason: some(&version.revoked_reason),
        }
    }
}

#[derive(Serialize)]
struct HistoryView {
    #[serde(flatten)]
    version: VersionView,
    current: bool,
    /// The targets are to hold it.
    deployed: bool,
}

/// The older version that targets hold, in JSON.
#[derive(Debug, Serialize)]
pub(crate) struct RollbackView {
    version: Option<VersionView>,
    since_at: Option<Timestamp>,
    by: String,
    until_at: Option<Timestamp>,
}

impl From<&Rollback> for RollbackView {
    fn from(rollback: &Rollback) -> Self {
        Self {
            version: rollback.version.as_ref().map(VersionView::from),
            since_at: from_wire(rollback.since_at),
            by: safe(&rollback.by),
            until_at: from_wire(rollback.until_at),
        }
    }
}

/// Returns the versions as a JSON list.
pub(crate) fn json_list(versions: &[Version]) -> String {
    let view = |version: &Version| HistoryView {
        version: version.into(),
        current: version.current,
        deployed: version.deployed,
    };
    super::json_list("VersionList", versions.iter().map(view).collect())
}

/// Returns the versions as a table.
pub(crate) fn table(versions: &[Version], now: Timestamp) -> Table {
    let mut table = Table::new(&[
        "VERSION",
        "CURRENT",
        "ISSUED",
        "EXPIRES",
        "SERIAL",
        "ISSUER",
        "CUSTODY",
        "DEPLOYABLE",
        "REASON",
        "REVOKED",
    ]);
    let word = |yes: bool| if yes { "yes" } else { "no" }.to_owned();
    for version in versions {
        table.row([
            version.id.clone(),
            if version.deployed && !version.current { "no, on targets".to_owned() } else { word(version.current) },
            time::short(now, version.issued_at),
            time::short(now, version.not_after),
            version.serial.clone(),
            version.issuer.clone(),
            custody(version.custody).to_owned(),
            word(version.deployable),
            version.reason.clone(),
            match from_wire(version.revoked_at) {
                None => "-".to_owned(),
                Some(at) => format!("{} {}", time::relative(now, at), version.revoked_reason).trim_end().to_owned(),
            },
        ]);
    }
    table
}
