//! Certificates with their versions, keys, orders and targets: what is read together is read from one snapshot.
//! Called by `tasks` and `rpc`.

use std::ops::Bound;

use jiff::Timestamp;
use jiff::tz::TimeZone;

use super::Store;
use super::StoreError;
use super::engine::{EngineError, Order as ScanOrder, Snapshot};
use super::pause::pause_all;
use super::records::{Changes, Record, Versioned};
use super::tables::Table;
use crate::lifecycle::certificate::{Certificate, KeySlot, Version};
use crate::lifecycle::desired::Name;
use crate::lifecycle::order::Order;
use crate::lifecycle::pause::Pause;
use crate::lifecycle::renewal_info::RenewalInfo;
use crate::lifecycle::rollout::{self, Plan};
use crate::lifecycle::target::{TARGETS_MAX, Target, TargetState};
use crate::lifecycle::window::{self, WindowIs};

/// Certificates read together, at most.
const PART: usize = 100;
/// Most versions listed of one certificate.
pub const VERSIONS_LISTED_MAX: usize = 100;

impl Record for Certificate {
    const TABLE: Table = Table::Certificate;

    fn key(&self) -> String {
        self.id.clone()
    }
}

impl Record for Version {
    const TABLE: Table = Table::Version;

    fn key(&self) -> String {
        format!("{}/{}", self.certificate_id, self.id)
    }
}

impl Record for KeySlot {
    const TABLE: Table = Table::KeySlot;

    fn key(&self) -> String {
        format!("{}/{}", self.certificate_id, self.id)
    }
}

impl Record for Order {
    const TABLE: Table = Table::Order;

    fn key(&self) -> String {
        self.certificate_id.clone()
    }
}

impl Record for RenewalInfo {
    const TABLE: Table = Table::RenewalInfo;

    fn key(&self) -> String {
        format!("{}/{}", self.certificate_id, self.version_id)
    }
}

impl Record for Target {
    const TABLE: Table = Table::Target;

    fn key(&self) -> String {
        format!("{}/{}", self.certificate_id, self.id)
    }
}

impl Record for TargetState {
    const TABLE: Table = Table::TargetState;

    fn key(&self) -> String {
        format!("{}/{}", self.certificate_id, self.target_id)
    }
}

/// The name of an agent's desired state, the certificates it has to do with, and the kill switch.
pub(crate) type DesiredFacts = (Option<Versioned<Name>>, Vec<Bundle>, Option<Pause>);

/// A certificate with everything that decisions about it need.
#[derive(Clone, Debug)]
pub struct Bundle {
    /// The certificate.
    pub certificate: Versioned<Certificate>,
    /// What the CA says about renewing its current version.
    pub renewal_info: Option<Versioned<RenewalInfo>>,
    /// Its latest order.
    pub order: Option<Versioned<Order>>,
    /// The slots of the order, of the current version and of the deployed one.
    pub slots: Vec<Versioned<KeySlot>>,
    /// Its targets, with what was last observed there.
    pub targets: Vec<(Versioned<Target>, Option<Versioned<TargetState>>)>,
}

impl Bundle {
    /// The slot of the running order.
    #[must_use]
    pub fn order_slot(&self) -> Option<&Versioned<KeySlot>> {
        let id = self.order.as_ref()?.value.key_slot_id.as_ref()?;
        self.slots.iter().find(|slot| slot.value.id == *id)
    }

    /// What the CA says about renewing its current version.
    #[must_use]
    pub fn renewal_info(&self) -> Option<&RenewalInfo> {
        self.renewal_info.as_ref().map(|info| &info.value)
    }

    /// The ids of the agents that answer its challenges, each once.
    #[must_use]
    pub fn responder_ids(&self) -> Vec<String> {
        let wanted = &self.certificate.value.specification.responders;
        let mut ids: Vec<String> = if wanted.is_empty() { self.target_agent_ids() } else { wanted.clone() };
        ids.sort_unstable();
        ids.dedup();
        ids
    }

    /// The ids of its targets' agents, in the targets' order.
    #[must_use]
    pub fn target_agent_ids(&self) -> Vec<String> {
        self.targets.iter().map(|(target, _)| target.value.agent_id.clone()).collect()
    }

    /// The id of the version that its targets are to hold.
    #[must_use]
    pub fn deployed_id(&self) -> Option<&str> {
        self.certificate.value.deployed().map(|deployed| deployed.version_id.as_str())
    }

    /// Which of its targets wait for others, or for a window.
    #[must_use]
    pub fn rollout(&self, now: Timestamp) -> Plan {
        let targets =
            self.targets.iter().map(|(target, state)| (&target.value, state.as_ref().map(|state| &state.value)));
        rollout::plan(&self.certificate.value, targets, self.window(now), now)
    }

    /// How its windows stand; `None` when it has none.
    #[must_use]
    pub fn window(&self, now: Timestamp) -> Option<WindowIs> {
        // The rules of the zones lie on the disk: they change more often than programs do. One that was removed since counts as
        // UTC, so that there still is a window.
        let zone = |name: &str| TimeZone::get(name).unwrap_or(TimeZone::UTC);
        window::look(&self.certificate.value.delivery.windows, zone, now)
    }

    /// Targets and observations without their revisions.
    #[must_use]
    pub fn target_values(&self) -> Vec<(Target, Option<TargetState>)> {
        self.targets
            .iter()
            .map(|(target, state)| (target.value.clone(), state.as_ref().map(|state| state.value.clone())))
            .collect()
    }
}

/// Reads one bundle.
pub(crate) fn bundle(snapshot: &Snapshot<'_>, certificate_id: &str) -> Result<Option<Bundle>, EngineError> {
    let Some(certificate) = snapshot.load::<Certificate>(certificate_id)? else { return Ok(None) };
    let renewal_info = match &certificate.value.current {
        Some(current) => snapshot.load::<RenewalInfo>(&format!("{certificate_id}/{}", current.version_id))?,
        None => None,
    };
    let order = snapshot.load::<Order>(certificate_id)?;
    let mut slot_ids: Vec<&str> = Vec::new();
    slot_ids.extend(order.as_ref().and_then(|order| order.value.key_slot_id.as_deref()));
    slot_ids.extend(certificate.value.current.as_ref().map(|current| current.key_slot_id.as_str()));
    slot_ids.extend(certificate.value.deployed().map(|deployed| deployed.key_slot_id.as_str()));
    slot_ids.sort_unstable();
    slot_ids.dedup();
    let mut slots = Vec::new();
    for id in slot_ids {
        slots.extend(snapshot.load::<KeySlot>(&format!("{certificate_id}/{id}"))?);
    }
    let prefix = format!("{certificate_id}/");
    let mut targets = Vec::new();
    for target in snapshot.list::<Target>(&prefix, Bound::Unbounded, ScanOrder::Ascending, TARGETS_MAX)? {
        let state = snapshot.load::<TargetState>(&target.value.key())?;
        targets.push((target, state));
    }
    Ok(Some(Bundle { certificate, renewal_info, order, slots, targets }))
}

fn agent_bundles(snapshot: &Snapshot<'_>, agent_id: &str) -> Result<Vec<Bundle>, EngineError> {
    let prefix = format!("{agent_id}/");
    let rows = snapshot.scan(Table::AgentCertificate, &prefix, Bound::Unbounded, ScanOrder::Ascending, usize::MAX)?;
    let mut bundles = Vec::with_capacity(rows.len());
    for (key, _) in rows {
        bundles.extend(bundle(snapshot, key.strip_prefix(&prefix).unwrap_or_default())?);
    }
    Ok(bundles)
}

impl Store {
    /// Returns a certificate with everything that decisions about it need.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub async fn bundle(&self, certificate_id: &str) -> Result<Option<Bundle>, StoreError> {
        let id = certificate_id.to_owned();
        self.read(move |snapshot| bundle(snapshot, &id)).await
    }

    /// Returns the certificate with this name, with everything that belongs to it.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub async fn bundle_by_name(&self, name: &str) -> Result<Option<Bundle>, StoreError> {
        let name = name.to_owned();
        self.read(move |snapshot| match id_by_name(snapshot, Table::CertificateName, &name)? {
            Some(id) => bundle(snapshot, &id),
            None => Ok(None),
        })
        .await
    }

    /// Returns every certificate that has a target on the agent or lets it answer challenges.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub async fn bundles_of_agent(&self, agent_id: &str) -> Result<Vec<Bundle>, StoreError> {
        let agent_id = agent_id.to_owned();
        self.read(move |snapshot| agent_bundles(snapshot, &agent_id)).await
    }

    /// Returns the name of the agent's desired state and what it is computed from, of one instant.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub(crate) async fn desired_of(&self, agent_id: &str) -> Result<DesiredFacts, StoreError> {
        let agent_id = agent_id.to_owned();
        self.read(move |snapshot| {
            Ok((snapshot.load(&agent_id)?, agent_bundles(snapshot, &agent_id)?, pause_all(snapshot)?))
        })
        .await
    }

    /// Shows every managed certificate of one instant to `see`, one after the other, and returns what it made of them.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub async fn fold_bundles<T: Send + 'static>(
        &self,
        mut seen: T,
        see: impl Fn(&mut T, Bundle) + Send + 'static,
    ) -> Result<T, StoreError> {
        self.read(move |snapshot| {
            let mut after: Option<String> = None;
            loop {
                let from = after.as_deref().map_or(Bound::Unbounded, Bound::Excluded);
                let rows = snapshot.scan(Table::Certificate, "", from, ScanOrder::Ascending, PART)?;
                let Some((last, _)) = rows.last() else { return Ok(seen) };
                after = Some(last.clone());
                for (id, _) in rows {
                    bundle(snapshot, &id)?.into_iter().for_each(|bundle| see(&mut seen, bundle));
                }
            }
        })
        .await
    }

    /// Returns the versions of a certificate, newest first, at most [`VERSIONS_LISTED_MAX`].
    ///
    /// # Errors
    /// When the store cannot be read.
    pub async fn versions(&self, certificate_id: &str) -> Result<Vec<Version>, StoreError> {
        let prefix = format!("{certificate_id}/");
        self.read(move |snapshot| {
            let rows =
                snapshot.list::<Version>(&prefix, Bound::Unbounded, ScanOrder::Descending, VERSIONS_LISTED_MAX)?;
            Ok(rows.into_iter().map(|row| row.value).collect())
        })
        .await
    }
}

/// Returns the id that a name index holds.
pub(crate) fn id_by_name(snapshot: &Snapshot<'_>, index: Table, name: &str) -> Result<Option<String>, EngineError> {
    Ok(snapshot.get(index, name)?.map(|stored| String::from_utf8_lossy(&stored.bytes).into_owned()))
}

impl Changes {
    /// Claims a name that must be free.
    pub fn claim_name(self, index: Table, name: &str, id: &str) -> Self {
        self.expect(index, name, 0).put_raw(index, name, id.as_bytes().to_vec())
    }

    /// Remembers that the agent has to do with the certificate.
    pub fn link_agent(self, agent_id: &str, certificate_id: &str) -> Self {
        self.put_raw(Table::AgentCertificate, &format!("{agent_id}/{certificate_id}"), Vec::new())
    }

    /// Forgets that the agent has to do with the certificate.
    pub fn unlink_agent(self, agent_id: &str, certificate_id: &str) -> Self {
        self.delete_raw(Table::AgentCertificate, &format!("{agent_id}/{certificate_id}"))
    }
}
