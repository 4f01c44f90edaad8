//! The rotation of the identity CA by two slots: prepare (the next CA is trusted), activate (it signs), retire (the old one
//! is gone), and abort, one step back. Who shows a leaf has the roots that came with it on the disk, because both are one
//! file there: that is how a peer acknowledges. Pure. Called by `ca`, `rpc` and views.
//!
//! ```text
//!            prepare               activate                 retire
//!   steady ───────────▶ prepared ─────────────▶ activated ──────────▶ steady, with the next CA
//!          ◀───────────          ◀─────────────
//!             abort                  abort
//! ```
//!
//! Until the old CA is retired, it is trusted, and the controller's own leaf is of it: who was away for all of it comes back.

use serde::{Deserialize, Serialize};

use super::problem::Problem;

/// Reason of an agent that does not trust the CA that is left.
pub const CA_UNKNOWN: &str = "CA_UNKNOWN";

/// Leaves asked for in a second when all agents come for one: few enough for everything else to go on.
const RENEWALS_PER_SECOND: usize = 20;
/// However many they are, it takes them no longer.
const RENEW_SECONDS_MAX: u32 = 60;

/// Returns how many seconds so many agents take together for their new leaves.
#[must_use]
pub fn renew_within_s(agents: usize) -> u32 {
    u32::try_from(agents / RENEWALS_PER_SECOND).unwrap_or(RENEW_SECONDS_MAX).clamp(1, RENEW_SECONDS_MAX)
}

/// How far a rotation is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Phase {
    /// One CA.
    #[default]
    Steady,
    /// The next one is trusted and does not sign.
    Prepared,
    /// The next one signs; the old one is trusted.
    Activated,
}

/// What an owner asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Make the next CA.
    Prepare,
    /// Let it sign.
    Activate,
    /// Drop the old one.
    Retire,
    /// Go one step back.
    Abort,
}

/// The CAs as they are now, by the hex SHA-256 of their certificates.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rotation {
    /// How far it is.
    pub phase: Phase,
    /// Signs the controller's own leaf, and is what join tokens pin. Empty before it was read.
    pub anchor: String,
    /// The next one, in a rotation.
    pub next: Option<String>,
}

/// A leaf, as far as CAs go: who signed it, and which roots came with it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Made {
    /// Who signed it.
    pub by: String,
    /// What its holder then trusts.
    pub roots: Vec<String>,
}

/// What is known of the CAs of one peer.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct PeerCa {
    /// Of the latest leaf made.
    pub issued: Option<Made>,
    /// Of the leaf that was shown last; unknown when it was made before a restore of either side.
    pub held: Option<Made>,
}

impl Phase {
    /// The word of the wire.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Steady => "steady",
            Self::Prepared => "prepared",
            Self::Activated => "activated",
        }
    }
}

impl Step {
    /// Reads the word of the wire.
    #[must_use]
    pub fn parse(word: &str) -> Option<Self> {
        [Self::Prepare, Self::Activate, Self::Retire, Self::Abort].into_iter().find(|step| step.word() == word)
    }

    /// The word of the wire.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Prepare => "prepare",
            Self::Activate => "activate",
            Self::Retire => "retire",
            Self::Abort => "abort",
        }
    }
}

impl Rotation {
    /// Whether a step can be taken in this phase.
    #[must_use]
    pub fn allows(&self, step: Step) -> bool {
        match step {
            Step::Prepare => self.phase == Phase::Steady,
            Step::Activate => self.phase == Phase::Prepared,
            Step::Retire => self.phase == Phase::Activated,
            Step::Abort => self.phase != Phase::Steady,
        }
    }

    /// Returns what a leaf that is made now carries.
    #[must_use]
    pub fn made(&self) -> Made {
        let roots: Vec<String> = std::iter::once(&self.anchor).chain(&self.next).cloned().collect();
        let signer = self.next.as_ref().filter(|_| self.phase == Phase::Activated);
        Made { by: signer.unwrap_or(&self.anchor).clone(), roots }
    }

    /// Returns the step that goes on from here; `None` in between rotations.
    #[must_use]
    pub fn forward(&self) -> Option<Step> {
        match self.phase {
            Phase::Steady => None,
            Phase::Prepared => Some(Step::Activate),
            Phase::Activated => Some(Step::Retire),
        }
    }
}

impl PeerCa {
    /// A leaf was made.
    pub fn issued(&mut self, made: Made) {
        self.issued = Some(made);
    }

    /// The latest leaf was shown, so it is on the peer's disk with its roots.
    pub fn shown(&mut self) {
        self.held = self.issued.clone();
    }

    /// A database of before this CA signed was restored: who followed is lost, and who did not shows it by coming back.
    pub fn followed(&mut self, unknown: &str) {
        self.held = Some(Made { by: unknown.to_owned(), roots: vec![unknown.to_owned()] });
    }

    /// Another leaf than the latest was shown: nothing is known of what came with it.
    pub fn forget(&mut self) {
        *self = Self::default();
    }

    /// Whether a new leaf would tell the peer something about the CAs.
    #[must_use]
    pub fn wants_renewal(&self, rotation: &Rotation) -> bool {
        self.held.as_ref() != Some(&rotation.made())
    }

    /// Returns what the peer lacks before a step; `None` when the step costs it nothing.
    #[must_use]
    pub fn lacks(&self, step: Step, rotation: &Rotation) -> Option<&'static str> {
        let next = rotation.next.as_deref()?;
        let trusts = self.held.as_ref().is_some_and(|held| held.roots.iter().any(|root| root == next));
        let shows = self.held.as_ref().is_some_and(|held| held.by == next);
        let has = [&self.issued, &self.held].into_iter().flatten().any(|made| made.by == next);
        match step {
            Step::Activate | Step::Retire if !trusts => Some("does not trust the next CA yet"),
            Step::Retire if !shows => Some("still has a leaf of the old CA"),
            Step::Abort if has && rotation.phase == Phase::Prepared => Some("still has a leaf of the next CA"),
            Step::Prepare | Step::Activate | Step::Retire | Step::Abort => None,
        }
    }

    /// Whether what the peer holds and what there is have nothing in common that would let it connect.
    #[must_use]
    pub fn is_lost(&self, rotation: &Rotation) -> bool {
        let there = rotation.made().roots;
        let Some(held) = self.held.as_ref().filter(|_| !rotation.anchor.is_empty()) else { return false };
        !held.roots.contains(&rotation.anchor) || !there.contains(&held.by)
    }

    /// Returns the problem of the agent `name` when it is lost.
    #[must_use]
    pub fn problem(&self, name: &str, rotation: &Rotation) -> Option<Problem> {
        self.is_lost(rotation).then(|| {
            Problem::new(
                CA_UNKNOWN,
                format!("{name} cannot come back: the identity CA was changed while it was away, or after the backup that was restored"),
                "what it trusts, or what it shows, is of a CA that is no longer there",
                format!("certwright agents enroll {name} --replace, and run its command on that server"),
            )
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rotation(phase: Phase) -> Rotation {
        Rotation { phase, anchor: "old".into(), next: (phase != Phase::Steady).then(|| "new".into()) }
    }

    fn holding(by: &str, roots: &[&str]) -> PeerCa {
        let made = Made { by: by.into(), roots: roots.iter().map(|root| (*root).to_owned()).collect() };
        PeerCa { issued: Some(made.clone()), held: Some(made) }
    }

    #[test]
    fn few_agents_come_at_once_and_many_within_a_minute() {
        assert_eq!([0, 3, 200, 1_200, 10_000, usize::MAX].map(renew_within_s), [1, 1, 10, 60, 60, 60]);
    }

    #[test]
    fn each_phase_has_one_step_forward_and_one_back() {
        let steps = [Step::Prepare, Step::Activate, Step::Retire, Step::Abort];
        let allowed = |phase| steps.map(|step| rotation(phase).allows(step));
        assert_eq!(allowed(Phase::Steady), [true, false, false, false]);
        assert_eq!(allowed(Phase::Prepared), [false, true, false, true]);
        assert_eq!(allowed(Phase::Activated), [false, false, true, true]);
        assert!(steps.iter().all(|step| Step::parse(step.word()) == Some(*step)));
        assert_eq!(Step::parse(""), None);
    }

    #[test]
    fn a_peer_acknowledges_by_showing_the_leaf_that_came_with_the_roots() {
        let prepared = rotation(Phase::Prepared);
        let mut peer = holding("old", &["old"]);
        assert!(peer.wants_renewal(&prepared));
        assert!(!peer.wants_renewal(&rotation(Phase::Steady)));
        peer.issued(prepared.made());
        assert!(peer.lacks(Step::Activate, &prepared).is_some(), "the answer may be lost");
        peer.shown();
        assert_eq!(peer.lacks(Step::Activate, &prepared), None);
        assert!(!peer.wants_renewal(&prepared));
        let activated = rotation(Phase::Activated);
        assert_eq!(peer.lacks(Step::Retire, &activated), Some("still has a leaf of the old CA"));
        peer.issued(activated.made());
        peer.shown();
        assert_eq!(peer.lacks(Step::Retire, &activated), None);
        assert_eq!(peer.lacks(Step::Abort, &activated), None, "one step back keeps both");
        assert!(peer.lacks(Step::Abort, &prepared).is_some(), "dropping the next one would cut it off");
        peer.forget();
        assert!(peer.lacks(Step::Activate, &prepared).is_some() && peer.wants_renewal(&prepared));
    }

    #[test]
    fn who_knows_only_the_ca_that_is_gone_is_lost() {
        let steady = rotation(Phase::Steady);
        for (by, roots, lost) in [
            ("old", &["old"][..], false),
            ("old", &["old", "new"], false),
            ("new", &["new"], true),
            ("new", &["old", "new"], true),
            ("gone", &["gone", "old"], true),
        ] {
            assert_eq!(holding(by, roots).is_lost(&steady), lost, "{by} {roots:?}");
        }
        assert!(!holding("old", &["old"]).is_lost(&rotation(Phase::Activated)), "both are there until one is retired");
        assert!(!PeerCa::default().is_lost(&steady) && !holding("x", &["x"]).is_lost(&Rotation::default()));
        assert!(holding("gone", &["gone"]).problem("h1", &steady).unwrap().hint.contains("enroll h1 --replace"));
    }
}
