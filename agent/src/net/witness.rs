//! Keeps signed heads of the controller's audit: whoever changes the audit there cannot change what is kept here. `certwright
//! audit verify --witness` compares. Called by `net/reconcile` at every pull.

use std::sync::{Mutex, PoisonError};

use proto::agent::v1 as wire;
use proto::audit::Head;
use proto::types::v1::AuditHead;
use proto::x509::hex;
use serde::{Deserialize, Serialize};
use tracing::{error, warn};

use crate::problem::Problem;
use crate::state::StateDir;

const FILE: &str = "witness.json";
/// Heads kept; when they are more, every second one of the older half goes, so that the far past stays witnessed too.
const HEADS_MAX: usize = 256;

/// What is kept.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Kept {
    /// The key that signs heads, as it was first told: the uncompressed point, lower-case hex.
    pub(crate) key: String,
    /// In the order of their numbers.
    pub(crate) heads: Vec<Head>,
    /// A head that contradicts the kept ones: the audit was rewritten, or an older database was restored.
    pub(crate) contradiction: Option<Head>,
}

/// The witness of one agent.
#[derive(Debug)]
pub(crate) struct Witness {
    state: StateDir,
    kept: Mutex<Kept>,
}

impl Kept {
    /// Reads what the disk holds.
    pub(crate) fn load(state: &StateDir) -> Result<Self, Problem> {
        let Some(bytes) = state.read(FILE)? else { return Ok(Self::default()) };
        Ok(serde_json::from_slice(&bytes).unwrap_or_else(|error| {
            warn!(%error, "what was kept of the audit does not read; it begins anew");
            Self::default()
        }))
    }

    /// Takes a head that the controller told, and says whether that is news.
    fn take(&mut self, head: Head, key: &[u8]) -> bool {
        if self.key.is_empty() {
            self.key = hex(key);
        }
        let last = self.heads.last();
        if last == Some(&head) {
            return false;
        }
        let signed = self.key == hex(key) && head.is_signed_by(key);
        // A restored controller has lost lines, and says so by its epoch.
        let follows = last.is_none_or(|last| {
            let same = head.seq == last.seq && head.hash == last.hash;
            head.epoch > last.epoch.max(1) || (head.epoch.max(1) == last.epoch.max(1) && (head.seq > last.seq || same))
        });
        if !signed || !follows {
            let news = self.contradiction.as_ref() != Some(&head);
            self.contradiction = Some(head);
            return news;
        }
        if last.is_some_and(|last| last.seq == head.seq && last.epoch.max(1) == head.epoch.max(1)) {
            // Another signature of the same end.
            return false;
        }
        self.heads.push(head);
        if self.heads.len() > HEADS_MAX {
            let half = HEADS_MAX / 2;
            let mut number = 0;
            self.heads.retain(|_| {
                number += 1;
                number > half || number % 2 == 0
            });
        }
        true
    }
}

impl Witness {
    /// Opens what the disk holds.
    pub(crate) fn open(state: StateDir) -> Result<Self, Problem> {
        let kept = Mutex::new(Kept::load(&state)?);
        Ok(Self { state, kept })
    }

    /// Returns the request for the desired state, which says what is kept.
    pub(crate) fn request(&self) -> wire::GetDesiredRequest {
        let kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        let witnessed = kept.heads.last().cloned().map(AuditHead::from);
        wire::GetDesiredRequest { witnessed }
    }

    /// Keeps what the answer says. A disk that fails is told, and hinders nothing else.
    pub(crate) async fn keep(&self, answer: &wire::GetDesiredResponse) {
        let Some(told) = &answer.audit_head else { return };
        let head = Head::from(told.clone());
        let fresh = {
            let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
            let contradicted = kept.contradiction.is_some();
            let news = kept.take(head, &answer.audit_key);
            if news && kept.contradiction.is_some() && !contradicted {
                error!(
                    seq = told.seq,
                    "the controller's audit contradicts what this agent saw: certwright audit verify --witness compares"
                );
            }
            news.then(|| kept.clone())
        };
        let Some(fresh) = fresh else { return };
        let state = self.state.clone();
        let written = tokio::task::spawn_blocking(move || match serde_json::to_vec(&fresh) {
            Ok(bytes) => state.write(FILE, &bytes),
            Err(error) => Err(Problem::internal(&error.to_string())),
        });
        match written.await {
            Ok(Ok(())) => {}
            Ok(Err(problem)) => warn!(reason = problem.reason, cause = problem.cause, "{}", problem.message),
            Err(error) => warn!(%error, "what was told of the audit is not kept"),
        }
    }
}

#[cfg(test)]
mod tests {
    use rcgen::{KeyPair, PublicKeyData as _};

    use super::*;

    fn head(key: &KeyPair, seq: u64, hash: char) -> Head {
        Head::sign(1, seq, &hash.to_string().repeat(64), key).unwrap()
    }

    #[test]
    fn a_restored_controller_begins_anew_and_the_old_one_contradicts_from_then_on() {
        let key = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).unwrap();
        let of = |epoch, seq, hash: char| Head::sign(epoch, seq, &hash.to_string().repeat(64), &key).unwrap();
        let mut kept = Kept::default();
        assert!(kept.take(of(1, 9, 'a'), key.der_bytes()));
        assert!(kept.take(of(77, 5, 'b'), key.der_bytes()), "fewer lines, another epoch");
        assert!(kept.contradiction.is_none() && kept.heads.len() == 2);
        assert!(kept.take(of(1, 12, 'c'), key.der_bytes()), "the old machine again");
        assert_eq!(kept.contradiction.as_ref().map(|head| head.seq), Some(12));
        assert_eq!(kept.heads.last().unwrap().epoch, 77);
    }

    #[test]
    fn later_heads_are_kept_and_contradictions_stand() {
        let key = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).unwrap();
        let thief = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).unwrap();
        let mut kept = Kept::default();
        assert!(kept.take(head(&key, 1, 'a'), key.der_bytes()));
        assert!(kept.take(head(&key, 4, 'b'), key.der_bytes()));
        assert!(!kept.take(head(&key, 4, 'b'), key.der_bytes()), "nothing new");
        assert!(kept.contradiction.is_none());
        for (wrong, by) in [
            (head(&key, 4, 'c'), &key),
            (head(&key, 3, 'a'), &key),
            (head(&thief, 5, 'd'), &key),
            (head(&thief, 5, 'd'), &thief),
        ] {
            let mut one = kept.clone();
            assert!(one.take(wrong.clone(), by.der_bytes()));
            assert_eq!((one.contradiction, one.heads.len()), (Some(wrong), 2));
        }
    }

    #[test]
    fn the_far_past_stays_witnessed_within_bounds() {
        let key = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).unwrap();
        let mut kept = Kept::default();
        let one = head(&key, 1, 'a');
        kept.key = hex(key.der_bytes());
        kept.heads = (1..=256).map(|seq| Head { seq, ..one.clone() }).collect();
        assert!(kept.take(head(&key, 1_000, 'b'), key.der_bytes()));
        assert!(kept.heads.len() < 256 && kept.heads.first().unwrap().seq == 2, "{}", kept.heads.len());
        assert_eq!(kept.heads.last().unwrap().seq, 1_000);
    }
}
