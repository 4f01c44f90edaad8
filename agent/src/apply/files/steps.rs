//! PURE: the list of small steps that takes a target's directory from what is there to the new generation. A crash
//! after any step leaves every visible file as it was or all of them new; `tree` performs the steps.
//!
//! ```text
//!  DIR/key.pem ──▶ .certwright/current/key.pem     (a link per file, made once)
//!  DIR/.certwright/current ──▶ 7                   (the one switch)
//!  DIR/.certwright/{5,6,7}/key.pem                 (generations, three are kept)
//! ```

use std::collections::{BTreeMap, BTreeSet};

use crate::problem::Problem;

/// Generations kept, the current one included.
const GENERATIONS_KEPT: usize = 3;

/// What is at the place of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Live {
    Missing,
    /// Our link into the current generation.
    Ours,
    /// A regular file of somebody else.
    Regular,
    /// Something that must not be touched, in words.
    Foreign(String),
}

/// What is in a target's directory.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Observed {
    pub(super) has_base: bool,
    pub(super) generations: BTreeSet<u64>,
    pub(super) current: Option<u64>,
    pub(super) current_files: Vec<String>,
    /// Left by a crash.
    pub(super) leftovers: Vec<String>,
    /// Of every name to write and every current file.
    pub(super) live: BTreeMap<String, Live>,
}

impl Observed {
    /// The current files that somebody can see. What no link leads to is a purged target's, maybe its key: it must not
    /// live on in the next generation.
    fn linked(&self) -> impl Iterator<Item = &String> {
        self.current_files.iter().filter(|name| self.live.get(*name) == Some(&Live::Ours))
    }
}

/// One step; each is atomic to whoever reads the visible files.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Step {
    MakeBase,
    /// Removes a stage that a crash left.
    Clear(String),
    MakeStage(String),
    /// Copies a visible file into a stage.
    CopyLive {
        stage: String,
        name: String,
    },
    /// Copies a file of a generation into a stage.
    CopyKept {
        stage: String,
        generation: u64,
        name: String,
    },
    /// Writes the n-th new file into a stage.
    Write {
        stage: String,
        index: usize,
    },
    /// Makes a stage durable and names it.
    Commit {
        stage: String,
        generation: u64,
    },
    Link(String),
    Switch(u64),
    Unlink(String),
    Prune(u64),
}

/// What to do, and the generation that holds what is visible before the switch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Plan {
    pub(super) steps: Vec<Step>,
    pub(super) before: Option<u64>,
}

/// Returns the steps for writing `names`, in order; `dropped` are names of this target that it no longer lists, `pinned`
/// generations may be needed again.
pub(super) fn steps(
    observed: &Observed,
    dir: &str,
    names: &[String],
    dropped: &[String],
    pinned: &BTreeSet<u64>,
) -> Result<Plan, Problem> {
    for name in names {
        if let Some(Live::Foreign(what)) = observed.live.get(name) {
            return Err(foreign(dir, name, what));
        }
    }
    let mut steps = Vec::new();
    if !observed.has_base {
        steps.push(Step::MakeBase);
    }
    steps.extend(observed.leftovers.iter().cloned().map(Step::Clear));
    let mut generations = observed.generations.clone();
    let mut base = observed.current;
    let mut kept: BTreeSet<String> = observed.linked().cloned().collect();

    let regular: Vec<&String> = names.iter().filter(|name| observed.live.get(*name) == Some(&Live::Regular)).collect();
    if !regular.is_empty() {
        let generation = generations.last().map_or(0, |last| last + 1);
        absorb(&mut steps, observed, generation, &regular);
        generations.insert(generation);
        kept.extend(regular.into_iter().cloned());
        base = Some(generation);
    }

    let generation = generations.last().map_or(1, |last| last + 1);
    let stage = stage_name(generation);
    steps.push(Step::MakeStage(stage.clone()));
    steps.extend((0..names.len()).map(|index| Step::Write { stage: stage.clone(), index }));
    if let Some(base) = base {
        for name in kept.iter().filter(|name| !names.contains(name) && !dropped.contains(name)) {
            steps.push(Step::CopyKept { stage: stage.clone(), generation: base, name: name.clone() });
        }
    }
    steps.push(Step::Commit { stage, generation });
    generations.insert(generation);
    let missing = |name: &&String| observed.live.get(*name).is_none_or(|live| *live == Live::Missing);
    steps.extend(names.iter().filter(missing).cloned().map(Step::Link));
    steps.push(Step::Switch(generation));
    steps.extend(dropped.iter().filter(|name| !names.contains(name)).cloned().map(Step::Unlink));
    // The one before the switch may be needed as well.
    let stays = |generation: &&u64| pinned.contains(generation) || base == Some(**generation);
    let old = generations.iter().rev().skip(GENERATIONS_KEPT).filter(|generation| !stays(generation));
    steps.extend(old.copied().map(Step::Prune));
    Ok(Plan { steps, before: base })
}

/// Returns the steps that make `names` visible again as generation `from` has them, and take `added` away. What other
/// targets of the directory have written since stays.
pub(super) fn steps_back(
    observed: &Observed,
    dir: &str,
    names: &[String],
    added: &[String],
    from: u64,
) -> Result<Vec<Step>, Problem> {
    for name in names {
        match observed.live.get(name) {
            Some(Live::Foreign(what)) => return Err(foreign(dir, name, what)),
            Some(Live::Regular) => return Err(foreign(dir, name, "a file of somebody else")),
            Some(Live::Missing | Live::Ours) | None => {}
        }
    }
    let mut steps: Vec<Step> = observed.leftovers.iter().cloned().map(Step::Clear).collect();
    let generation = observed.generations.last().map_or(1, |last| last + 1);
    let stage = stage_name(generation);
    let copy = |generation, name: &String| Step::CopyKept { stage: stage.clone(), generation, name: name.clone() };
    steps.push(Step::MakeStage(stage.clone()));
    steps.extend(names.iter().map(|name| copy(from, name)));
    if let Some(current) = observed.current {
        let others = observed.linked().filter(|name| !names.contains(name) && !added.contains(name));
        steps.extend(others.map(|name| copy(current, name)));
    }
    steps.push(Step::Commit { stage: stage.clone(), generation });
    let missing = |name: &&String| observed.live.get(*name).is_none_or(|live| *live == Live::Missing);
    steps.extend(names.iter().filter(missing).cloned().map(Step::Link));
    steps.push(Step::Switch(generation));
    steps.extend(added.iter().cloned().map(Step::Unlink));
    Ok(steps)
}

/// Takes regular files into a generation of identical content and puts links in their place, so that the new
/// generation can appear by one switch as well.
fn absorb(steps: &mut Vec<Step>, observed: &Observed, generation: u64, regular: &[&String]) {
    let stage = stage_name(generation);
    steps.push(Step::MakeStage(stage.clone()));
    for name in regular {
        steps.push(Step::CopyLive { stage: stage.clone(), name: (*name).clone() });
    }
    if let Some(current) = observed.current {
        for name in observed.linked().filter(|name| !regular.contains(name)) {
            steps.push(Step::CopyKept { stage: stage.clone(), generation: current, name: name.clone() });
        }
    }
    steps.push(Step::Commit { stage, generation });
    steps.push(Step::Switch(generation));
    steps.extend(regular.iter().map(|name| Step::Link((*name).clone())));
}

pub(super) fn stage_name(generation: u64) -> String {
    format!(".{generation}.new")
}

pub(super) fn foreign(dir: &str, name: &str, what: &str) -> Problem {
    Problem::new(
        "NOT_A_FILE",
        format!("{dir}/{name} is {what}; nothing was changed"),
        "the agent replaces only regular files and its own links",
        "remove it, or choose another file name or directory for the target",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(names: &[&str]) -> Vec<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    #[test]
    fn an_empty_directory_gets_one_generation_and_one_switch() {
        let steps =
            steps(&Observed::default(), "/d", &names(&["cert.pem", "key.pem"]), &[], &BTreeSet::new()).unwrap().steps;
        assert_eq!(steps.first(), Some(&Step::MakeBase));
        assert_eq!(steps.iter().filter(|step| matches!(step, Step::Switch(_))).count(), 1);
        assert_eq!(steps.last(), Some(&Step::Switch(1)));
    }

    #[test]
    fn existing_files_become_generation_zero_first() {
        let live = BTreeMap::from([("cert.pem".to_owned(), Live::Regular), ("key.pem".to_owned(), Live::Regular)]);
        let observed = Observed { live, ..Observed::default() };
        let steps = steps(&observed, "/d", &names(&["cert.pem", "key.pem"]), &[], &BTreeSet::new()).unwrap().steps;
        let switches: Vec<&Step> = steps.iter().filter(|step| matches!(step, Step::Switch(_))).collect();
        assert_eq!(switches, [&Step::Switch(0), &Step::Switch(1)]);
    }

    #[test]
    fn three_generations_are_kept_and_other_files_carried_over() {
        let observed = Observed {
            has_base: true,
            generations: BTreeSet::from([4, 5, 6]),
            current: Some(6),
            current_files: names(&["cert.pem", "other.pem", "old.pem", "purged.pem"]),
            live: ["cert.pem", "other.pem", "old.pem"].map(|name| (name.to_owned(), Live::Ours)).into(),
            ..Observed::default()
        };
        let steps =
            steps(&observed, "/d", &names(&["cert.pem"]), &names(&["old.pem"]), &BTreeSet::new()).unwrap().steps;
        let carried = Step::CopyKept { stage: ".7.new".into(), generation: 6, name: "other.pem".into() };
        assert!(steps.contains(&carried) && steps.contains(&Step::Switch(7)));
        assert!(steps.contains(&Step::Unlink("old.pem".into())));
        let copies = steps.iter().filter(|step| matches!(step, Step::CopyKept { .. })).count();
        assert_eq!(copies, 1, "only what a link leads to is carried over");
        let pruned: Vec<&Step> = steps.iter().filter(|step| matches!(step, Step::Prune(_))).collect();
        assert_eq!(pruned, [&Step::Prune(4)]);
    }

    #[test]
    fn what_is_no_file_is_refused() {
        let live = BTreeMap::from([("cert.pem".to_owned(), Live::Foreign("a symbolic link".into()))]);
        let observed = Observed { live, ..Observed::default() };
        assert_eq!(
            steps(&observed, "/d", &names(&["cert.pem"]), &[], &BTreeSet::new()).unwrap_err().reason,
            "NOT_A_FILE"
        );
    }
}
