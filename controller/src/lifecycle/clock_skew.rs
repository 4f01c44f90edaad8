//! Whether this host's clock is right, by what others say (issue 3, rule 24): the Date of the CAs' answers, else the
//! connected agents. While it is wrong nothing is ordered and nothing fails: a leap of a year does no harm. Pure;
//! `tasks/clock` asks and remembers.

use std::collections::BTreeMap;

use jiff::SignedDuration;

use super::problem::Problem;

/// Reason of the problem while the clock is wrong.
pub const CLOCK_SKEW: &str = "CLOCK_SKEW";
/// More than this is wrong (rule 24); a request may take a minute, and an honest clock is off by seconds.
pub const SKEW_MAX: SignedDuration = SignedDuration::from_mins(5);
/// Agents that must agree before they are believed without a CA.
const AGENTS_MIN: usize = 2;
/// Most CAs remembered.
const CAS_MAX: usize = 64;

/// What is thought of our clock.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Verdict {
    /// Nobody of weight says otherwise.
    #[default]
    Right,
    /// It is off by so much: positive means that ours is behind.
    Wrong {
        /// Theirs minus ours.
        by: SignedDuration,
        /// Who says so.
        witness: String,
    },
}

/// What others said of the time, each as theirs minus ours.
#[derive(Clone, Debug, Default)]
pub struct Witnesses {
    cas: BTreeMap<String, SignedDuration>,
}

impl Witnesses {
    /// A CA answered with this Date.
    pub fn ca_said(&mut self, host: &str, skew: SignedDuration) {
        if self.cas.len() < CAS_MAX || self.cas.contains_key(host) {
            self.cas.insert(host.to_owned(), skew);
        }
    }

    /// Our clock leapt by so much against the time that passed: what was said is that much older. A suspended host's clock
    /// leaps too, rightly; the next answer of a CA says so.
    pub fn leapt(&mut self, by: SignedDuration) {
        for skew in self.cas.values_mut() {
            *skew = skew.saturating_sub(by);
        }
    }

    /// Judges our clock. Where a CA has spoken the CAs decide, by more than half of them; otherwise more than half of the
    /// agents, when there are at least two.
    #[must_use]
    pub fn judge(&self, agents: &[SignedDuration]) -> Verdict {
        let is_off = |skew: &SignedDuration| skew.abs() > SKEW_MAX;
        if !self.cas.is_empty() {
            let off: Vec<(&String, &SignedDuration)> = self.cas.iter().filter(|(_, skew)| is_off(skew)).collect();
            let witness = off.first().filter(|_| off.len() * 2 > self.cas.len());
            return witness.map_or(Verdict::Right, |(host, by)| Verdict::Wrong { by: **by, witness: (*host).clone() });
        }
        let mut off: Vec<SignedDuration> = agents.iter().copied().filter(is_off).collect();
        off.sort_unstable();
        let agree = agents.len() >= AGENTS_MIN && off.len() * 2 > agents.len();
        let same_side =
            off.first().zip(off.last()).is_some_and(|(least, most)| least.is_positive() == most.is_positive());
        match off.get(off.len() / 2) {
            Some(by) if agree && same_side => {
                Verdict::Wrong { by: *by, witness: format!("{} of {} connected agents", off.len(), agents.len()) }
            }
            _ => Verdict::Right,
        }
    }
}

impl Verdict {
    /// Returns the problem while the clock is wrong.
    #[must_use]
    pub fn problem(&self) -> Option<Problem> {
        let Self::Wrong { by, witness } = self else { return None };
        let side = if by.is_positive() { "behind" } else { "ahead" };
        Some(Problem::new(
            CLOCK_SKEW,
            format!("this host's clock is {} {side}; nothing is ordered until it is right", spoken(*by)),
            format!("that is what {witness} says"),
            "set the clock (timedatectl; chronyc makestep); everything goes on by itself within a minute",
        ))
    }
}

fn spoken(by: SignedDuration) -> String {
    let minutes = by.abs().as_mins();
    // Rounded: a leap of 400 days is not one of 399.
    match ((minutes + 720) / 1_440, (minutes + 30) / 60, minutes) {
        (days @ 2.., _, _) => format!("{days} days"),
        (_, hours @ 2.., _) => format!("{hours} hours"),
        (_, _, minutes) => format!("{minutes} minutes"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn minutes(minutes: i64) -> SignedDuration {
        SignedDuration::from_mins(minutes)
    }

    fn wrong_by(cas: &[i64], agents: &[i64]) -> Option<i64> {
        let mut witnesses = Witnesses::default();
        for (number, skew) in cas.iter().enumerate() {
            witnesses.ca_said(&format!("ca{number}.test"), minutes(*skew));
        }
        let agents: Vec<_> = agents.iter().map(|skew| minutes(*skew)).collect();
        match witnesses.judge(&agents) {
            Verdict::Right => None,
            Verdict::Wrong { by, .. } => Some(by.as_mins()),
        }
    }

    #[test]
    fn the_cas_decide_and_without_them_two_agents() {
        assert_eq!(wrong_by(&[], &[]), None);
        assert_eq!(wrong_by(&[5], &[]), None, "five minutes pass");
        assert_eq!(wrong_by(&[6], &[]), Some(6));
        assert_eq!(wrong_by(&[-6], &[]), Some(-6));
        assert_eq!(wrong_by(&[0, 60], &[]), None, "one of two CAs may be wrong itself");
        assert_eq!(wrong_by(&[0, 60, 61], &[]), Some(60));
        assert_eq!(wrong_by(&[0], &[60, 60, 60]), None, "a CA weighs more than agents");
        assert_eq!(wrong_by(&[], &[60]), None, "one agent is not enough");
        assert_eq!(wrong_by(&[], &[60, 61]), Some(61));
        assert_eq!(wrong_by(&[], &[60, 0]), None);
        assert_eq!(wrong_by(&[], &[60, -60, 60]), None, "they do not agree");
    }

    #[test]
    fn a_leap_is_seen_in_what_was_said_before_and_undone_by_leaping_back() {
        let mut witnesses = Witnesses::default();
        witnesses.ca_said("ca.test", minutes(0));
        let year = SignedDuration::from_hours(400 * 24);
        for (leap, side) in [(year, "400 days ahead"), (-year, "400 days behind")] {
            witnesses.leapt(leap);
            let problem = witnesses.judge(&[]).problem().unwrap();
            assert_eq!(problem.reason, CLOCK_SKEW);
            assert!(problem.message.contains(side) && problem.cause.contains("ca.test"), "{problem:?}");
            witnesses.leapt(-leap);
            assert_eq!(witnesses.judge(&[]), Verdict::Right);
        }
        witnesses.leapt(minutes(480));
        witnesses.ca_said("ca.test", minutes(0));
        assert_eq!(witnesses.judge(&[]), Verdict::Right, "the host only slept");
    }
}
