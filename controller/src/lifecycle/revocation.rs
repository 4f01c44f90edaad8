//! Revoking a version at its CA (RFC 8555 §7.6): why, and how far the wish is. Called by `lifecycle/job`, `tasks` and `rpc`.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::problem::Problem;

/// Why a version is revoked: the reasons of RFC 5280 §5.3.1 that an operator of a server may give.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum RevocationReason {
    /// None is given.
    Unspecified,
    /// Someone else may have the key.
    KeyCompromise,
    /// The names belong to someone else now.
    AffiliationChanged,
    /// Another certificate took its place.
    Superseded,
    /// The service ended.
    CessationOfOperation,
}

/// A wish to revoke one version.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Revocation {
    /// Which version.
    pub version_id: String,
    /// Its serial, for people.
    pub serial: String,
    /// Why.
    pub reason: RevocationReason,
    /// The CA was asked, or is about to be.
    #[serde(default)]
    pub begun: bool,
    /// How often the CA could not be asked, or did not do it.
    pub failures: u32,
    /// When it is asked again.
    pub retry_at: Option<Timestamp>,
    /// What went wrong last.
    pub problem: Option<Problem>,
}

impl RevocationReason {
    /// Every reason.
    pub const ALL: [Self; 5] = [
        Self::Unspecified,
        Self::KeyCompromise,
        Self::AffiliationChanged,
        Self::Superseded,
        Self::CessationOfOperation,
    ];

    /// The word of RFC 5280, which is also the wire's.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Unspecified => "unspecified",
            Self::KeyCompromise => "keyCompromise",
            Self::AffiliationChanged => "affiliationChanged",
            Self::Superseded => "superseded",
            Self::CessationOfOperation => "cessationOfOperation",
        }
    }

    /// Reads the word.
    #[must_use]
    pub fn parse(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|reason| reason.word() == word)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reasons_have_the_words_of_the_standard() {
        for reason in RevocationReason::ALL {
            assert_eq!(RevocationReason::parse(reason.word()), Some(reason));
            assert_eq!(serde_json::to_value(reason).unwrap(), reason.word());
        }
        assert_eq!(RevocationReason::parse("cACompromise"), None, "only a CA may say that");
    }
}
