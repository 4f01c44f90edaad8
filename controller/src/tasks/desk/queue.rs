//! Certificates that wait for a look, most urgent first: after an outage thousands may be due at once, and those that
//! have least of their life left must not stand behind the others. Called by `tasks/desk`.

use std::collections::{BTreeSet, HashMap};

/// Ids by urgency; each is in it once.
#[derive(Debug, Default)]
pub(super) struct Queue {
    order: BTreeSet<(u32, String)>,
    by_id: HashMap<String, u32>,
}

impl Queue {
    /// Adds an id; 0 is most urgent. One that waits already keeps the more urgent place.
    pub(super) fn push(&mut self, id: String, urgency: u32) {
        if let Some(known) = self.by_id.get(&id).copied() {
            if known <= urgency {
                return;
            }
            self.order.remove(&(known, id.clone()));
        }
        self.order.insert((urgency, id.clone()));
        self.by_id.insert(id, urgency);
    }

    /// Takes out up to `room` ids for which `free` holds.
    pub(super) fn take(&mut self, room: usize, free: impl Fn(&str) -> bool) -> Vec<String> {
        let taken: Vec<_> = self.order.iter().filter(|(_, id)| free(id)).take(room).cloned().collect();
        for one in &taken {
            self.order.remove(one);
            self.by_id.remove(&one.1);
        }
        taken.into_iter().map(|(_, id)| id).collect()
    }

    pub(super) fn len(&self) -> usize {
        self.by_id.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_most_urgent_come_first_and_each_once() {
        let mut queue = Queue::default();
        for (id, urgency) in [("half", 500), ("expired", 0), ("late", 90), ("half", 400), ("half", 900), ("busy", 1)] {
            queue.push(id.to_owned(), urgency);
        }
        assert_eq!(queue.len(), 4);
        assert_eq!(queue.take(2, |id| id != "busy"), ["expired", "late"]);
        assert_eq!(queue.take(9, |id| id != "busy"), ["half"]);
        assert_eq!(queue.len(), 1, "it waits on");
    }
}
