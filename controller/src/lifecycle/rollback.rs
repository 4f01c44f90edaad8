//! Going back (features.md D9): an operator lets the targets hold an older stored version instead of the current one. The
//! current version stays what it is, so that renewal goes by its dates and its CA's window; the version that a renewal brings
//! ends the rollback. It also ends by itself before the older version runs out. Called by `rpc` and `tasks`.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::certificate::{Certificate, CurrentVersion, Custody, KeySlot};

/// A rollback ends when such a share of the older version's life is left, and there is none to a version that has less: room
/// to deploy the current one, and to find out why it was not wanted. Renewal itself trusts no window beyond the same share.
const LEFT_LAST: i32 = 8;

/// What targets hold instead of the current version.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rollback {
    /// The older version.
    pub version: CurrentVersion,
    /// Since when.
    pub at: Timestamp,
    /// Who asked.
    pub by: String,
}

impl Rollback {
    /// Returns when it ends by itself.
    #[must_use]
    pub fn until(&self) -> Timestamp {
        until(&self.version)
    }
}

impl Certificate {
    /// Returns the version that its targets are to hold: the current one, unless they went back to an older one.
    #[must_use]
    pub fn deployed(&self) -> Option<&CurrentVersion> {
        self.rollback.as_ref().map(|rollback| &rollback.version).or(self.current.as_ref())
    }

    /// Ends a rollback: the targets hold the current version again, and do not wait for a window to begin with it.
    pub fn back_to_current(&mut self) -> Option<Rollback> {
        let ended = self.rollback.take()?;
        self.delivery.hurried = self.current.as_ref().map(|current| current.version_id.clone());
        Some(ended)
    }
}

/// Where the key of a stored version is, as far as it is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyIs {
    /// In the store, or on the one agent that all targets are on.
    Here,
    /// Nowhere any more.
    Gone,
    /// On one agent, and there are targets on others.
    Elsewhere,
    /// On an agent that is not connected: nobody can say whether it still has it.
    Unknown,
}

/// Returns where the key in `slot` is for targets on `agents`; `held` says what a connected agent told of its keys.
#[must_use]
pub fn key_is(slot: Option<&KeySlot>, agents: &[String], held: impl Fn(&str, &str) -> Option<bool>) -> KeyIs {
    let Some(slot) = slot.filter(|slot| !slot.lost) else { return KeyIs::Gone };
    match (slot.custody, slot.agent_id.as_deref()) {
        (Custody::Controller, _) if slot.key.is_some() => KeyIs::Here,
        (Custody::Controller, _) | (Custody::Agent, None) => KeyIs::Gone,
        (Custody::Agent, Some(agent)) if agents.iter().any(|other| other != agent) => KeyIs::Elsewhere,
        (Custody::Agent, Some(agent)) => match held(agent, &slot.id) {
            Some(true) => KeyIs::Here,
            Some(false) => KeyIs::Gone,
            None => KeyIs::Unknown,
        },
    }
}

/// Returns why targets cannot hold `version`, and what to do instead; `None` when they can.
#[must_use]
pub fn refusal(name: &str, version: &CurrentVersion, key: KeyIs, now: Timestamp) -> Option<(String, String)> {
    let other = format!("certwright certs history {name} shows which can be deployed");
    let serial = &version.serial;
    if version.revoked_at.is_some() {
        return Some((format!("serial {serial} was revoked"), other));
    }
    if version.not_after <= now {
        return Some((format!("serial {serial} expired at {:.0}", version.not_after), other));
    }
    if until(version) <= now {
        let message = format!("serial {serial} expires at {:.0}: too little of its life is left", version.not_after);
        return Some((message, other));
    }
    match key {
        KeyIs::Here => None,
        KeyIs::Gone => Some((format!("the key of serial {serial} is gone"), other)),
        KeyIs::Elsewhere => {
            let message =
                format!("the key of serial {serial} never leaves its one agent, and other agents have targets");
            Some((message, other))
        }
        KeyIs::Unknown => {
            let message = format!("the key of serial {serial} is on an agent that is not connected");
            Some((message, "start certwright-agent there, then repeat".to_owned()))
        }
    }
}

fn until(version: &CurrentVersion) -> Timestamp {
    let life = version.not_after.duration_since(version.not_before);
    version.not_after.checked_sub(life / LEFT_LAST).unwrap_or(version.not_before)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lifecycle::certificate::KeyType;
    use crate::lifecycle::renewal::{self, tests::certificate};
    use jiff::SignedDuration;

    fn slot(custody: Custody, agent: Option<&str>) -> KeySlot {
        KeySlot {
            id: "k".into(),
            certificate_id: "c".into(),
            custody,
            agent_id: agent.map(str::to_owned),
            identifiers: vec![],
            key_type: KeyType::P256,
            csr: None,
            key: None,
            lost: false,
            problem: None,
        }
    }

    #[test]
    fn targets_hold_the_older_version_and_renewal_goes_by_the_current_one() {
        let mut one = certificate(80 * 24);
        let (current, planned) = (one.current.clone().unwrap(), renewal::planned(&one, None));
        let mut older = current.clone();
        older.version_id = "older".into();
        older.not_before -= SignedDuration::from_hours(400);
        older.not_after -= SignedDuration::from_hours(400);
        one.rollback = Some(Rollback { version: older.clone(), at: one.created_at, by: "local:root".into() });
        assert_eq!(one.deployed().unwrap().version_id, "older");
        assert_eq!(renewal::planned(&one, None), planned);
        let until = one.rollback.as_ref().unwrap().until();
        assert_eq!(older.not_after.duration_since(until), SignedDuration::from_hours(10 * 24));
        assert_eq!(refusal("web", &older, KeyIs::Here, until - SignedDuration::from_secs(1)), None);
        assert!(refusal("web", &older, KeyIs::Here, until).unwrap().0.contains("too little of its life"));
        one.rollback = None;
        assert_eq!(one.deployed(), Some(&current));
    }

    #[test]
    fn a_version_that_cannot_be_served_is_refused_with_why() {
        let version = certificate(90 * 24).current.unwrap();
        let at = version.not_before;
        let check = |version: &CurrentVersion, key, at, word: &str| {
            let (message, hint) = refusal("web", version, key, at).unwrap();
            assert!(message.contains(word) && !hint.is_empty(), "{message}");
        };
        check(&version, KeyIs::Gone, at, "is gone");
        check(&version, KeyIs::Elsewhere, at, "never leaves its one agent");
        check(&version, KeyIs::Unknown, at, "not connected");
        check(&version, KeyIs::Here, version.not_after, "expired");
        check(&CurrentVersion { revoked_at: Some(at), ..version.clone() }, KeyIs::Here, at, "revoked");
    }

    #[test]
    fn a_key_is_where_its_slot_says_and_its_agent_confirms() {
        let (h1, both) = (vec!["h1".to_owned()], vec!["h1".to_owned(), "h2".to_owned()]);
        let says = |answer: Option<bool>| move |_: &str, _: &str| answer;
        let mine = slot(Custody::Agent, Some("h1"));
        assert_eq!(key_is(Some(&mine), &h1, says(Some(true))), KeyIs::Here);
        assert_eq!(key_is(Some(&mine), &h1, says(Some(false))), KeyIs::Gone);
        assert_eq!(key_is(Some(&mine), &h1, says(None)), KeyIs::Unknown);
        assert_eq!(key_is(Some(&mine), &both, says(Some(true))), KeyIs::Elsewhere);
        assert_eq!(key_is(Some(&KeySlot { lost: true, ..mine }), &h1, says(Some(true))), KeyIs::Gone);
        assert_eq!(key_is(Some(&slot(Custody::Controller, None)), &both, says(None)), KeyIs::Gone);
        assert_eq!(key_is(None, &h1, says(Some(true))), KeyIs::Gone);
    }
}
