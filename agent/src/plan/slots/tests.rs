//! Tests of which keys may go: a table of histories at one target and at several.

use super::*;
use crate::plan::tests::{outcome, target};
use Status::{Applied, Failed, NotLive, Pending, Unproven};

/// What an attempt left behind: the slot of a version that was written, or nothing.
pub(crate) fn left(slot: Option<&str>, status: Status) -> Outcome {
    Outcome { key_slot_id: slot.map(str::to_owned), ..outcome(&target(), status, 1, None) }
}

fn history(steps: &[(&str, Status)]) -> KeyUse {
    let mut uses = KeyUse::default();
    for (slot, status) in steps {
        let outcome = left(Some(*slot).filter(|slot| !slot.is_empty()), *status);
        uses.record(&outcome);
        let once = uses.clone();
        uses.record(&outcome);
        if !slot.is_empty() {
            assert_eq!(uses, once, "taking a note twice changes nothing");
        }
    }
    uses
}

fn check(targets: &[&[(&str, Status)]], named: &[&str], expected: &[&str]) {
    let uses = targets.iter().enumerate().map(|(number, steps)| (format!("t{number}"), history(steps))).collect();
    // k0 is pending: made, and never written.
    let held: Vec<String> = (0..8).map(|number| format!("k{number}")).collect();
    let named = named.iter().map(|id| (*id).to_owned()).collect();
    let found = expendable(&held, &uses, &named);
    assert_eq!(found.iter().collect::<Vec<_>>(), expected, "{targets:?}, named {named:?}");
}

const FIVE: [(&str, Status); 5] = [("k1", Applied), ("k2", Applied), ("k3", Applied), ("k4", Applied), ("k5", Applied)];

#[test]
fn a_key_goes_when_four_applied_versions_stand_after_it_and_nothing_names_it() {
    check(&[], &[], &[]);
    check(&[&FIVE[..4]], &["k4"], &[]);
    check(&[&FIVE], &["k5"], &["k1"]);
    // A pending key and the live one stay, named or not.
    check(&[&FIVE], &["k0", "k5"], &["k1"]);
    check(&[&FIVE], &[], &["k1"]);
    // The controller went back to it, or shows it in an item that is refused here.
    check(&[&FIVE], &["k1"], &[]);
}

#[test]
fn only_a_version_that_was_applied_retires_the_ones_before() {
    for status in [NotLive, Failed, Pending] {
        let steps = [("k1", Applied), ("k2", status), ("k3", status), ("k4", status), ("k5", status), ("k6", status)];
        check(&[&steps], &[], &[]);
        let settled = [steps.as_slice(), &[("k6", Applied)]].concat();
        check(&[&settled], &[], &["k1", "k2"]);
    }
    let unproven = FIVE.map(|(slot, _)| (slot, Unproven));
    check(&[&unproven], &[], &["k1"]);
    // An attempt that wrote nothing says nothing.
    check(&[&[&FIVE[..4], &[("", Failed)]].concat()], &[], &[]);
}

#[test]
fn a_purge_and_a_version_with_the_controllers_key_retire_too() {
    check(&[&[&FIVE[..4], &[("", Applied)]].concat()], &[], &["k1"]);
}

#[test]
fn a_slot_that_comes_back_is_live_again() {
    check(&[&[FIVE.as_slice(), &[("k1", Applied)]].concat()], &[], &["k2"]);
    check(&[&FIVE.map(|_| ("k1", Applied))], &[], &[]);
}

#[test]
fn a_key_stays_while_any_target_needs_it() {
    check(&[&FIVE, &[("k1", Applied)]], &[], &[]);
    check(&[&FIVE, &[("k1", Applied), ("k2", Applied)]], &[], &[]);
    check(&[&FIVE, &FIVE], &[], &["k1"]);
    check(&[&FIVE, &[("k6", Applied), ("k7", Applied)]], &[], &["k1"]);
}

#[test]
fn what_is_gone_is_forgotten() {
    let mut uses = history(&FIVE);
    uses.forget(&["k4".to_owned(), "k5".to_owned()]);
    assert_eq!(uses, history(&FIVE[3..]));
    uses.forget(&[]);
    assert!(uses.is_empty());
}

#[test]
fn a_key_is_made_only_while_no_csr_of_its_slot_is_on_record() {
    for (csr_wanted, held, csr_known, expected) in [
        (true, false, false, KeyStep::Make),
        (true, true, false, KeyStep::Make),
        (true, true, true, KeyStep::Offer),
        (true, false, true, KeyStep::Keep),
        (false, true, true, KeyStep::Keep),
        (false, true, false, KeyStep::Keep),
        (false, false, false, KeyStep::Keep),
        (false, false, true, KeyStep::Keep),
    ] {
        let case = format!("wanted {csr_wanted}, held {held}, known {csr_known}");
        assert_eq!(key_step(csr_wanted, held, csr_known), expected, "{case}");
    }
}
