//! Whether an agent's identity is held by one program alone (reliability.md T3). A cloned machine has the key too, so nothing
//! in a single message tells it from its original; what they do together does: a program that another one took over from
//! speaks again, or two show leaves that no single program can hold one after the other. A crash, a reconnection, a lost
//! answer or a restored disk does neither. Pure. Called by `rpc/greeting` and `rpc/enrollment`.

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

use super::agent::Agent;
use super::problem::Problem;
use super::rotation::Made;

/// Reason of an identity that two programs hold.
pub const HELD_TWICE: &str = "HELD_TWICE";
/// Programs remembered; every start of an agent is a new one.
const INSTANCES_MAX: usize = 8;
/// Leaves remembered that a program went back behind.
const LEFT_MAX: usize = 8;
/// A holder that runs shows itself within minutes: after this without a sign it is gone, and the issue with it.
const SHOWN_FOR: SignedDuration = SignedDuration::from_hours(3 * 24);
/// A sign is not written again within this: the second holder knocks every minute.
const SIGN_REST: SignedDuration = SignedDuration::from_mins(10);

/// What is known of who holds an identity. Kept in the agent's record.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Holder {
    /// The programs that held a stream, the present one last. Random, made at each start.
    pub instances: Vec<String>,
    /// Serial of the leaf with which the latest was asked for: an agent that lost the answer still shows it.
    pub before: Option<String>,
    /// Whether the latest leaf was shown.
    pub confirmed: bool,
    /// Serials that were shown, and then left behind by a program that showed an older one.
    pub left: Vec<String>,
    /// Where the present stream comes from, or the last one came from.
    pub address: String,
    /// The signs of a second holder.
    pub twin: Option<Twin>,
}

/// Signs of a second holder.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Twin {
    /// The first sign.
    pub first_at: Timestamp,
    /// The last sign.
    pub last_at: Timestamp,
    /// Where the two were seen.
    pub addresses: [String; 2],
}

/// What a program shows of itself.
#[derive(Clone, Copy, Debug)]
pub struct Shown<'a> {
    /// Serial of its leaf.
    pub serial: &'a str,
    /// End of that leaf.
    pub not_after: Timestamp,
    /// Its random id; empty when it told none.
    pub instance: &'a str,
    /// Where it connects from.
    pub address: &'a str,
}

/// A leaf that was made.
#[derive(Clone, Debug)]
pub struct Leafed {
    /// Its serial.
    pub serial: String,
    /// Its end.
    pub not_after: Timestamp,
    /// Who signed it, and the roots that go with it.
    pub made: Made,
}

/// Another program with an open stream.
#[derive(Clone, Copy, Debug)]
pub struct Rival {
    /// It was heard after this one had knocked before: both are alive.
    pub is_alive: bool,
}

/// What to do with a program that says hello, or asks for a new leaf.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Nothing is odd.
    Welcome,
    /// It shows an older leaf than was shown before: its disk was restored.
    SteppedBack,
    /// Whether the other one is alive has to be seen first.
    Wait,
    /// There are two. The one that has the stream keeps it; without one, whoever comes gets it.
    Twice {
        /// Whether this one goes on.
        admitted: bool,
    },
}

/// How a leaf stands to those that are known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Leaf {
    Latest,
    /// The latest was asked for with it, and was not shown since: an answer was lost.
    Before,
    /// Newer than the records: the controller was restored.
    Newer,
    Older,
    /// A program left it behind, so this is another one.
    Left,
}

impl Agent {
    /// Judges who says hello, and keeps what follows from it.
    #[must_use]
    pub fn meet(&mut self, shown: &Shown<'_>, rival: Option<Rival>, now: Timestamp) -> Verdict {
        let leaf = self.leaf(shown);
        let at = self.holder.instances.iter().position(|known| known == shown.instance);
        let was_succeeded = at.is_some_and(|at| at + 1 < self.holder.instances.len());
        let verdict = match (was_succeeded || leaf == Leaf::Left, leaf == Leaf::Older, rival) {
            (true, _, rival) => Verdict::Twice { admitted: rival.is_none() },
            (false, true, None) => Verdict::SteppedBack,
            (false, true, Some(rival)) if rival.is_alive => Verdict::Twice { admitted: false },
            (false, true, Some(_)) => Verdict::Wait,
            (false, false, _) => Verdict::Welcome,
        };
        if let Verdict::Twice { .. } = verdict {
            self.holder.sign(shown.address, now);
        }
        if !matches!(verdict, Verdict::Wait | Verdict::Twice { admitted: false }) {
            self.follow(shown, leaf);
            self.holder.seen(shown);
        }
        verdict
    }

    /// Notes that a new leaf was made for whoever shows this one.
    #[must_use]
    pub fn renewed(&mut self, shown: &Shown<'_>, new: Leafed, now: Timestamp) -> Verdict {
        let leaf = self.leaf(shown);
        let verdict = match leaf {
            Leaf::Latest | Leaf::Before | Leaf::Newer => Verdict::Welcome,
            Leaf::Older => Verdict::SteppedBack,
            Leaf::Left => Verdict::Twice { admitted: true },
        };
        if leaf == Leaf::Left {
            self.holder.sign(shown.address, now);
        }
        self.follow(shown, leaf);
        self.holder.before = Some(shown.serial.to_owned());
        self.holder.confirmed = false;
        self.serial = new.serial;
        self.identity_not_after = new.not_after;
        self.ca.issued(new.made);
        verdict
    }

    /// Returns the problem while two programs hold the identity.
    #[must_use]
    pub fn held_twice(&self, now: Timestamp) -> Option<Problem> {
        let Twin { first_at, last_at, addresses: [one, other] } = self.holder.twin_at(now)?;
        let name = &self.name;
        Some(Problem::new(
            HELD_TWICE,
            format!("two programs use the identity of {name}: from {one} and from {other}"),
            format!("its state was copied, by cloning a machine most often; seen since {first_at}, last at {last_at}"),
            format!(
                "enroll the copy as an agent of its own (certwright agents enroll NEWNAME), or the right one anew: certwright agents enroll {name} --replace shuts the other out"
            ),
        ))
    }

    fn leaf(&self, shown: &Shown<'_>) -> Leaf {
        let Holder { before, confirmed, left, .. } = &self.holder;
        match shown.serial {
            serial if serial == self.serial => Leaf::Latest,
            serial if before.as_deref() == Some(serial) && !confirmed => Leaf::Before,
            _ if shown.not_after > self.identity_not_after => Leaf::Newer,
            serial if left.iter().any(|known| known == serial) => Leaf::Left,
            _ => Leaf::Older,
        }
    }

    /// The leaf that is shown is the one to go on from.
    fn follow(&mut self, shown: &Shown<'_>, leaf: Leaf) {
        match leaf {
            Leaf::Latest => {
                self.holder.confirmed = true;
                self.ca.shown();
            }
            Leaf::Before => {}
            Leaf::Newer | Leaf::Older | Leaf::Left => {
                let latest = std::mem::replace(&mut self.serial, shown.serial.to_owned());
                let was_shown = std::mem::replace(&mut self.holder.confirmed, true);
                self.identity_not_after = shown.not_after;
                self.holder.before = None;
                self.ca.forget();
                self.holder.left.retain(|known| known != shown.serial);
                if was_shown && leaf != Leaf::Newer {
                    push(&mut self.holder.left, latest, LEFT_MAX);
                }
            }
        }
    }
}

impl Holder {
    fn seen(&mut self, shown: &Shown<'_>) {
        shown.address.clone_into(&mut self.address);
        if !shown.instance.is_empty() {
            self.instances.retain(|known| known != shown.instance);
            push(&mut self.instances, shown.instance.to_owned(), INSTANCES_MAX);
        }
    }

    fn sign(&mut self, address: &str, now: Timestamp) {
        let addresses = [self.address.clone(), address.to_owned()];
        match self.twin.as_mut().filter(|twin| now.duration_since(twin.last_at) < SHOWN_FOR) {
            Some(twin) => {
                twin.last_at = now;
                twin.addresses = addresses;
            }
            None => self.twin = Some(Twin { first_at: now, last_at: now, addresses }),
        }
    }

    fn twin_at(&self, now: Timestamp) -> Option<&Twin> {
        self.twin.as_ref().filter(|twin| now.duration_since(twin.last_at) < SHOWN_FOR)
    }

    /// Whether what was learned since `known` is worth a write.
    #[must_use]
    pub fn is_news(&self, known: &Self) -> bool {
        match (&self.twin, &known.twin) {
            (Some(now), Some(then)) if now.first_at == then.first_at => {
                now.last_at.duration_since(then.last_at) >= SIGN_REST
            }
            (now, then) => now != then,
        }
    }

    /// Whether a second holder showed itself for the first time since `known`.
    #[must_use]
    pub fn is_first_sign(&self, known: &Self) -> bool {
        let first = |holder: &Self| holder.twin.as_ref().map(|twin| twin.first_at);
        first(self).is_some() && first(self) != first(known)
    }
}

/// Appends, and lets go of the oldest.
fn push(list: &mut Vec<String>, item: String, max: usize) {
    list.push(item);
    let excess = list.len().saturating_sub(max);
    list.drain(..excess);
}

#[cfg(test)]
mod tests {
    use super::super::agent::{Hello, Standing};
    use super::super::rotation::PeerCa;
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    /// An agent as enrolled, and the instant that passes by a minute with everything that happens to it.
    struct Life {
        agent: Agent,
        now: Timestamp,
        stream: Option<&'static str>,
    }

    impl Life {
        fn new() -> Self {
            let agent = Agent {
                id: "a".into(),
                name: "h1".into(),
                standing: Standing::Enrolled,
                spki_sha256: "key".into(),
                serial: "L0".into(),
                identity_not_after: at(30 * 86_400),
                enrolled_at: at(0),
                seen_at: None,
                hello: Hello::default(),
                consent: None,
                holder: Holder::default(),
                ca: PeerCa::default(),
                labels: crate::lifecycle::label::Labels::new(),
            };
            Self { agent, now: at(0), stream: None }
        }

        fn shown(&self, instance: &'static str, serial: &'static str) -> Shown<'static> {
            // L7 was made on the seventh day.
            let day: i64 = serial.trim_start_matches('L').parse().unwrap();
            Shown { serial, not_after: at((30 + day) * 86_400), instance, address: instance }
        }

        fn attach(&mut self, instance: &'static str, serial: &'static str) -> Verdict {
            self.now += SignedDuration::from_mins(1);
            let rival = self.stream.filter(|other| *other != instance).map(|_| Rival { is_alive: true });
            let verdict = self.agent.meet(&self.shown(instance, serial), rival, self.now);
            if !matches!(verdict, Verdict::Wait | Verdict::Twice { admitted: false }) {
                self.stream = Some(instance);
            }
            verdict
        }

        fn renew(&mut self, with: &'static str, new: &'static str) -> Verdict {
            let (shown, made) = (self.shown("", with), self.shown("", new));
            let new = Leafed { serial: new.to_owned(), not_after: made.not_after, made: Made::default() };
            self.agent.renewed(&shown, new, self.now)
        }

        fn end(&mut self) {
            self.stream = None;
        }
    }

    #[test]
    fn a_plain_life_never_alarms() {
        use Verdict::Welcome;
        let mut life = Life::new();
        assert_eq!(life.attach("p1", "L0"), Welcome);
        assert_eq!(life.attach("p1", "L0"), Welcome, "a reconnection while the old stream looks open");
        assert_eq!(life.attach("p2", "L0"), Welcome, "a restart that the old stream outlives");
        assert_eq!(life.renew("L0", "L1"), Welcome);
        assert_eq!(life.attach("p2", "L0"), Welcome, "the answer was lost");
        assert_eq!(life.renew("L0", "L2"), Welcome);
        assert_eq!(life.attach("p3", "L2"), Welcome, "killed before it connected with the new one");
        assert_eq!(life.renew("L2", "L3"), Welcome);
        assert_eq!(life.attach("p4", "L2"), Welcome, "killed before it was saved");
        assert_eq!(life.renew("L2", "L4"), Welcome);
        assert_eq!(life.attach("p4", "L4"), Welcome);
        for start in ["q1", "q2", "q3", "q4", "q5", "q6", "q7", "q8", "q9"] {
            assert_eq!(life.attach(start, "L4"), Welcome);
        }
        assert_eq!((life.agent.holder.instances.len(), life.agent.held_twice(life.now)), (INSTANCES_MAX, None));
    }

    #[test]
    fn a_restored_disk_is_told_and_is_no_second_holder() {
        let mut life = Life::new();
        life.attach("p1", "L0");
        assert_eq!(life.renew("L0", "L1"), Verdict::Welcome);
        life.attach("p1", "L1");
        assert_eq!(life.attach("p2", "L0"), Verdict::Twice { admitted: false }, "while the other is heard");
        let mut life = Life::new();
        life.attach("p1", "L0");
        assert_eq!(life.renew("L0", "L1"), Verdict::Welcome);
        life.attach("p1", "L1");
        life.end();
        assert_eq!(life.attach("p2", "L0"), Verdict::SteppedBack);
        assert_eq!(life.attach("p2", "L0"), Verdict::Welcome, "told once");
        assert_eq!(life.renew("L0", "L2"), Verdict::Welcome);
        assert_eq!(life.attach("p2", "L2"), Verdict::Welcome);
        assert_eq!(life.agent.held_twice(life.now), None);
        life.end();
        assert_eq!(life.attach("p1", "L1"), Verdict::Twice { admitted: true }, "the one it was restored from");
    }

    #[test]
    fn whether_the_old_stream_is_alive_is_seen_before_anything_is_said() {
        let mut life = Life::new();
        life.attach("p1", "L0");
        assert_eq!(life.renew("L0", "L1"), Verdict::Welcome);
        life.attach("p1", "L1");
        let shown = life.shown("p2", "L0");
        assert_eq!(life.agent.meet(&shown, Some(Rival { is_alive: false }), life.now), Verdict::Wait);
        assert_eq!(life.agent.held_twice(life.now), None);
        assert_eq!(
            life.agent.meet(&shown, Some(Rival { is_alive: true }), life.now),
            Verdict::Twice { admitted: false }
        );
    }

    #[test]
    fn a_program_that_another_took_over_from_speaks_again_only_when_there_are_two() {
        let mut life = Life::new();
        life.attach("p1", "L0");
        assert_eq!(life.attach("p2", "L0"), Verdict::Welcome, "a restart, as far as anyone can see");
        assert_eq!(life.attach("p1", "L0"), Verdict::Twice { admitted: false });
        let problem = life.agent.held_twice(life.now).unwrap();
        assert!(problem.message.contains("from p2 and from p1"), "{problem:?}");
        let known = life.agent.holder.clone();
        life.attach("p1", "L0");
        assert!(!life.agent.holder.is_news(&known) && !life.agent.holder.is_first_sign(&known));
        assert!(known.is_news(&Holder::default()) && known.is_first_sign(&Holder::default()));
        life.end();
        assert_eq!(life.attach("p1", "L0"), Verdict::Twice { admitted: true }, "the other one is away");
        assert_eq!(life.agent.held_twice(life.now + SHOWN_FOR), None, "long after the last sign");
    }

    #[test]
    fn leaves_that_the_records_do_not_know_are_believed_when_they_are_newer() {
        let mut life = Life::new();
        assert_eq!(life.attach("p1", "L5"), Verdict::Welcome, "the controller was restored");
        assert_eq!(life.agent.serial, "L5");
        assert_eq!(life.renew("L5", "L6"), Verdict::Welcome);
        assert_eq!(life.attach("p1", "L6"), Verdict::Welcome);
        assert!(life.agent.holder.left.is_empty());
    }
}
