//! Records by when to look at them next, in memory (decision 0001). Each is in it at most once. Called by tasks.

use std::collections::{BTreeSet, HashMap};
use std::time::Duration;

use jiff::Timestamp;

/// The wall clock may leap (suspend, NTP): look at it at least this often.
pub(super) const CLOCK_LOOK_EVERY: Duration = Duration::from_secs(60);

/// Ids by time.
#[derive(Debug, Default)]
pub(super) struct Schedule {
    times: BTreeSet<(Timestamp, String)>,
    by_id: HashMap<String, Timestamp>,
}

impl Schedule {
    /// Puts an id at a time, and nowhere else.
    pub(super) fn set(&mut self, id: String, at: Timestamp) {
        self.clear(&id);
        self.times.insert((at, id.clone()));
        self.by_id.insert(id, at);
    }

    /// Takes an id out.
    pub(super) fn clear(&mut self, id: &str) {
        if let Some(at) = self.by_id.remove(id) {
            self.times.remove(&(at, id.to_owned()));
        }
    }

    /// Whether the id is in it.
    pub(super) fn has(&self, id: &str) -> bool {
        self.by_id.contains_key(id)
    }

    /// When the id is due.
    pub(super) fn at(&self, id: &str) -> Option<Timestamp> {
        self.by_id.get(id).copied()
    }

    /// Takes out what is due.
    pub(super) fn take_due(&mut self, now: Timestamp) -> Vec<String> {
        let due: Vec<String> = self.times.iter().take_while(|(at, _)| *at <= now).map(|(_, id)| id.clone()).collect();
        due.iter().for_each(|id| self.clear(id));
        due
    }

    /// How long to wait for the next one, at most until the clock is looked at again.
    pub(super) fn pause(&self, now: Timestamp) -> Duration {
        let first = self.times.first().map(|(at, _)| at.duration_since(now));
        first.map_or(CLOCK_LOOK_EVERY, |wait| wait.try_into().unwrap_or(Duration::ZERO).min(CLOCK_LOOK_EVERY))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    #[test]
    fn a_record_is_in_the_schedule_once() {
        let mut schedule = Schedule::default();
        schedule.set("a".into(), at(10));
        schedule.set("a".into(), at(20));
        schedule.set("b".into(), at(15));
        assert_eq!(schedule.take_due(at(12)), Vec::<String>::new());
        assert_eq!(schedule.pause(at(10)), Duration::from_secs(5));
        assert_eq!(schedule.take_due(at(20)), ["b", "a"]);
        assert_eq!(schedule.pause(at(10)), CLOCK_LOOK_EVERY);
        assert!(!schedule.has("a"));
    }
}
