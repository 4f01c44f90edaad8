//! What one agent must hold: computed from records, never stored, named by {epoch, generation, digest} (design §3
//! *Protocol*). Holds no secret. Called by `tasks/publish`, which names it, and `rpc/agent_service`, which serves it.

use serde::{Deserialize, Serialize};

use super::certificate::{Certificate, Custody, Http01, KeySlot, KeyType};
use super::order::{AuthorizationState, Order, Phase};
use super::target::{Endpoint, File, OnDrift, Target};

/// The name of an agent's desired state. Key in the store: the agent's id.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Name {
    /// Whose.
    pub agent_id: String,
    /// Changes only when a controller is restored from a backup.
    pub epoch: u64,
    /// Grows with every change.
    pub generation: u64,
    /// SHA-256 over the content, lower-case hex.
    pub digest: String,
}

/// Everything an agent must hold.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Desired {
    /// Keys to make and keep.
    pub key_slots: Vec<DesiredSlot>,
    /// Versions to deploy.
    pub targets: Vec<DesiredTarget>,
    /// Tokens to serve.
    pub challenges: Vec<DesiredChallenge>,
}

/// A key to make and keep.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct DesiredSlot {
    /// The slot's id.
    pub id: String,
    /// Exact subject alternative names.
    pub identifiers: Vec<String>,
    /// Key algorithm.
    pub key_type: KeyType,
    /// Whether the CSR is still to be sent.
    pub csr_wanted: bool,
}

/// A version to deploy.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct DesiredTarget {
    /// The target's id.
    pub target_id: String,
    /// For people.
    pub certificate_name: String,
    /// What the leaf covers.
    pub identifiers: Vec<String>,
    /// The version.
    pub version_id: String,
    /// SHA-256 of the leaf, lower-case hex.
    pub fingerprint_sha256: String,
    /// Where its key is.
    pub custody: Custody,
    /// The slot of its key.
    pub key_slot_id: String,
    /// Where to write.
    pub dir: String,
    /// What to write.
    pub files: Vec<File>,
    /// What to run before anything is reloaded.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub validate: Vec<Vec<String>>,
    /// What to run.
    pub reload: Vec<Vec<String>>,
    /// Where to prove.
    pub verify: Vec<Endpoint>,
    /// "Deploy now" counter.
    pub deploy_wish: u64,
    /// Remove our files once they are no longer served.
    pub purge: bool,
    /// Paused: the agent keeps what it has and begins nothing.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub hold: bool,
    /// An older version is wanted in the place of a newer one.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub rollback: bool,
    /// What to do with files that are no longer as they were written.
    #[serde(skip_serializing_if = "OnDrift::is_repair")]
    pub on_drift: OnDrift,
}

/// A token to serve.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct DesiredChallenge {
    /// Checked characters.
    pub token: String,
    /// The answer.
    pub key_authorization: String,
    /// For requests to this host.
    pub identifier: String,
    /// How.
    pub http01: Http01,
}

impl Desired {
    /// Adds what `certificate` asks of `agent_id`; `hold` says which of its targets keep what they have.
    pub fn add(
        &mut self,
        agent_id: &str,
        hold: impl Fn(&Target) -> bool,
        certificate: &Certificate,
        order: Option<&Order>,
        slots: &[KeySlot],
        targets: &[Target],
    ) {
        let mine = || targets.iter().filter(|target| target.agent_id == agent_id);
        self.key_slots.extend(
            slots
                .iter()
                .filter(|slot| slot.agent_id.as_deref() == Some(agent_id) && wanted(slot, certificate, order))
                .map(|slot| DesiredSlot {
                    id: slot.id.clone(),
                    identifiers: slot.identifiers.clone(),
                    key_type: slot.key_type,
                    csr_wanted: slot.csr.is_none(),
                }),
        );
        if certificate.deployed().is_some_and(|current| !current.key_lost || certificate.purging) {
            self.targets.extend(
                mine().map(|target| DesiredTarget { hold: hold(target), ..DesiredTarget::of(certificate, target) }),
            );
        }
        let answers = answers(certificate, agent_id, mine().next().is_some());
        if let Some(order) = order.filter(|_| answers && !certificate.purging) {
            self.challenges.extend(open_tokens(order).map(|one| DesiredChallenge {
                token: one.token.clone(),
                key_authorization: one.key_authorization.clone(),
                identifier: one.identifier.clone(),
                http01: certificate.specification.http01.clone(),
            }));
        }
    }
}

impl DesiredTarget {
    /// What a target holds, or would hold: without a version the certificate's wishes stand in its place.
    #[must_use]
    pub fn of(certificate: &Certificate, target: &Target) -> Self {
        let wanted = &certificate.specification;
        let version = certificate.deployed();
        Self {
            target_id: target.id.clone(),
            certificate_name: certificate.name.clone(),
            identifiers: version.map_or(&wanted.identifiers, |version| &version.identifiers).clone(),
            version_id: version.map(|version| version.version_id.clone()).unwrap_or_default(),
            fingerprint_sha256: version.map(|version| version.fingerprint_sha256.clone()).unwrap_or_default(),
            custody: version.map_or(wanted.custody, |version| version.custody),
            key_slot_id: version.map(|version| version.key_slot_id.clone()).unwrap_or_default(),
            dir: target.dir.clone(),
            files: target.files.clone(),
            validate: target.validate.clone(),
            reload: target.reload.clone(),
            verify: target.verify.clone(),
            deploy_wish: target.deploy_wish,
            purge: certificate.purging,
            hold: false,
            rollback: certificate.rollback.is_some(),
            on_drift: target.on_drift,
        }
    }
}

/// Whether an agent answers the challenges of a certificate; `has_target` where it has one of its targets.
#[must_use]
pub fn answers(certificate: &Certificate, agent_id: &str, has_target: bool) -> bool {
    let responders = &certificate.specification.responders;
    if responders.is_empty() { has_target } else { responders.iter().any(|id| id == agent_id) }
}

/// Tokens stay desired until their authorization is final: also while an attempt waits after the CA was told to look,
/// and until the next one has read them again, because it may be looking at this moment, and a failed validation would
/// cost the order.
fn open_tokens(order: &Order) -> impl Iterator<Item = &super::order::Authorization> {
    let serving = |one: &super::order::Authorization| match order.phase {
        Phase::Publishing | Phase::Validating => one.state != AuthorizationState::Valid,
        Phase::Waiting | Phase::Starting | Phase::Checking | Phase::Ordering => {
            order.order_url.is_some() && one.state == AuthorizationState::Answered
        }
        Phase::Finalizing | Phase::Completed | Phase::Failed => false,
    };
    order.authorizations.iter().filter(move |one| serving(one))
}

/// A slot is desired while its order runs and while its version is current, or deployed instead.
fn wanted(slot: &KeySlot, certificate: &Certificate, order: Option<&Order>) -> bool {
    let ordered = order.is_some_and(|order| order.key_slot_id.as_deref() == Some(&slot.id));
    let current = certificate.current.as_ref().is_some_and(|current| current.key_slot_id == slot.id);
    let deployed = certificate.deployed().is_some_and(|deployed| deployed.key_slot_id == slot.id);
    !slot.lost && (ordered || current || deployed)
}
