//! Certificates in hand by when to look at them next. Each is in it at most once. Called by `tasks/desk`.

use std::collections::{BTreeSet, HashMap};

use jiff::Timestamp;

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

    /// All that are in it.
    pub(super) fn ids(&self) -> impl Iterator<Item = &String> {
        self.by_id.keys()
    }

    /// Takes out what is due.
    pub(super) fn take_due(&mut self, now: Timestamp) -> Vec<String> {
        let due: Vec<String> = self.times.iter().take_while(|(at, _)| *at <= now).map(|(_, id)| id.clone()).collect();
        due.iter().for_each(|id| self.clear(id));
        due
    }

    /// When the first is due.
    pub(super) fn first(&self) -> Option<Timestamp> {
        self.times.first().map(|(at, _)| *at)
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
        assert_eq!(schedule.first(), Some(at(15)));
        assert_eq!(schedule.take_due(at(20)), ["b", "a"]);
        assert_eq!(schedule.first(), None);
        assert!(!schedule.has("a") && schedule.ids().next().is_none());
    }
}
