//! The identity CA: its slots, how far its rotation is, and who is not ready.

use jiff::Timestamp;
use proto::clock::from_wire;
use proto::operator::v1::{IdentityCa, IdentityCaSlot};
use serde::Serialize;

use super::block::Block;
use super::{safe, time};
use crate::client::slot_does;

#[derive(Serialize)]
struct View {
    phase: String,
    slots: Vec<SlotView>,
    ready: u64,
    waiting_total: u64,
    waiting: Vec<PeerView>,
    next: String,
}

#[derive(Serialize)]
struct SlotView {
    fingerprint_sha256: String,
    not_before: Option<Timestamp>,
    not_after: Option<Timestamp>,
    signs: bool,
    shown: bool,
}

#[derive(Serialize)]
struct PeerView {
    kind: String,
    name: String,
    lacks: String,
    last_seen_at: Option<Timestamp>,
}

/// Returns it as a JSON document.
pub(crate) fn json(found: &IdentityCa) -> String {
    let slot = |slot: &IdentityCaSlot| SlotView {
        fingerprint_sha256: safe(&slot.fingerprint_sha256),
        not_before: from_wire(slot.not_before),
        not_after: from_wire(slot.not_after),
        signs: slot.signs,
        shown: slot.shown,
    };
    let waiting = found.waiting.iter().map(|peer| PeerView {
        kind: safe(&peer.kind),
        name: safe(&peer.name),
        lacks: safe(&peer.lacks),
        last_seen_at: from_wire(peer.last_seen_at),
    });
    let view = View {
        phase: safe(&found.phase),
        slots: found.slots.iter().map(slot).collect(),
        ready: found.ready,
        waiting_total: found.waiting_total,
        waiting: waiting.collect(),
        next: safe(&found.next),
    };
    super::json(Some("IdentityCa"), view)
}

/// Returns it for people.
pub(crate) fn describe(found: &IdentityCa, now: Timestamp) -> String {
    let mut block = Block::titled(&format!("identity CA: {}", found.phase));
    block.field("next", &found.next);
    for slot in &found.slots {
        block.section(&format!("CA {}", slot.fingerprint_sha256.chars().take(8).collect::<String>()));
        block.field("does", slot_does(slot.signs, slot.shown));
        block.field("sha256", &slot.fingerprint_sha256);
        block.field("made", &time::both(now, slot.not_before));
        block.field("ends", &time::both(now, slot.not_after));
    }
    if found.phase != "steady" {
        block.section(&format!("ready {}, not ready {}", found.ready, found.waiting_total));
        for peer in &found.waiting {
            let seen = time::short(now, peer.last_seen_at);
            block.line(&format!("{} {}: {}; last seen {seen}", peer.kind, peer.name, peer.lacks));
        }
    }
    block.render()
}
