//! The identity CA: its slots, how far its rotation is, and who is ready for the next step. The steps are acts of this screen.
//! `Enter` opens the agent under the cursor.
//!
//! ```text
//!  Agents > Identity CA                                   ! prepared
//! ┌ CA 0a1b2c3d ─────────────────┐┌ CA 4e5f6a7b ─────────────────┐
//! └──────────────────────────────┘└──────────────────────────────┘
//!  Ready 4, not ready 1: what can be done now
//!
//!   S NAME      KIND      LAST SEEN LACKS
//! ```

use jiff::Timestamp;
use proto::operator::v1::{Agent, IdentityCa, IdentityCaPeer, IdentityCaSlot};
use ratatui::buffer::Buffer;
use ratatui::layout::{Position, Rect};
use ratatui::text::Line;

use crate::app::Model;
use crate::app::call::Page;
use crate::app::list::{List, Record};
use crate::client::slot_does;
use crate::screens::Place;
use crate::screens::words::{badge, pair};
use crate::theme::State;
use crate::view;
use crate::widgets::panel::{panel, put_all, rows as part, split_right};
use crate::widgets::table::{Column, Row, fixed, growing, names, table};
use crate::widgets::text::{ago, count, instant, safe, short_fingerprint, until, wrap};

const SLOTS_HEIGHT: u16 = 6;
/// What can be done now, and a gap.
const NEXT_HEIGHT: u16 = 4;
const COLUMNS: [Column; 4] = [names("NAME", 16), fixed("KIND", 8, 1), fixed("LAST SEEN", 10, 2), growing("READY", 30)];
const COLUMNS_COMPACT: [Column; 2] = [names("NAME", 14), growing("READY", 20)];
/// No rotation is on its way.
const STEADY: &str = "steady";
/// The word of an agent's record that is ready.
const READY: &str = "ready";

/// One agent, or one operator elsewhere, in a rotation.
#[derive(Clone, Debug)]
pub(crate) struct Peer {
    id: String,
    known: IdentityCaPeer,
}

/// When someone was seen last is no news of the rotation: it does not mark a row.
impl PartialEq for Peer {
    fn eq(&self, other: &Self) -> bool {
        (&self.id, &self.known.lacks) == (&other.id, &other.known.lacks)
    }
}

impl From<IdentityCaPeer> for Peer {
    fn from(known: IdentityCaPeer) -> Self {
        Self { id: format!("{} {}", known.kind, known.name), known }
    }
}

impl Record for Peer {
    fn id(&self) -> &str {
        &self.id
    }

    fn state(&self) -> State {
        if self.known.lacks.is_empty() { State::Ok } else { State::Warn }
    }
}

/// What is known of the identity CA.
#[derive(Debug, Default)]
pub(crate) struct IdentityCaScreen {
    /// The last answer.
    pub(crate) record: Option<IdentityCa>,
    /// Who takes part: first those who are not ready.
    pub(crate) peers: List<Peer>,
    agents: Vec<Agent>,
}

impl IdentityCaScreen {
    /// Takes how it stands.
    pub(crate) fn take(&mut self, found: IdentityCa, now: Timestamp) {
        self.record = Some(found);
        self.list(now);
    }

    /// Takes agents: which of them are ready, each record says.
    pub(crate) fn take_agents(&mut self, agents: Vec<Agent>, now: Timestamp) {
        self.agents = agents;
        self.list(now);
    }

    fn list(&mut self, now: Timestamp) {
        let Some(found) = &self.record else { return };
        if found.phase == STEADY {
            // Nobody has to be ready for anything.
            self.peers = List::default();
            return;
        }
        let mut items: Vec<Peer> = found.waiting.iter().cloned().map(Peer::from).collect();
        for agent in self.agents.iter().filter(|agent| agent.identity_ca == READY) {
            let last_seen_at = agent.last_seen_at;
            let known = IdentityCaPeer {
                kind: "agent".to_owned(),
                name: agent.name.clone(),
                lacks: String::new(),
                last_seen_at,
            };
            let ready = Peer::from(known);
            if items.iter().all(|peer| peer.id != ready.id) {
                items.push(ready);
            }
        }
        let total = found.ready.saturating_add(found.waiting_total);
        self.peers.take(Page { items, total, more: false }, now);
    }

    /// Returns what `Enter` opens.
    pub(crate) fn target(&self) -> Option<Place> {
        let known = &self.peers.current()?.known;
        Some(if known.kind == "agent" { Place::Agent(known.name.clone()) } else { Place::Team })
    }
}

fn slots_height(model: &Model) -> u16 {
    if view::is_compact(model) { 0 } else { SLOTS_HEIGHT }
}

/// Returns how many rows show.
pub(crate) fn rows(model: &Model) -> usize {
    let above = 1 + slots_height(model) + NEXT_HEIGHT + 1;
    usize::from(view::body_height(model).saturating_sub(above))
}

/// Paints how it stands.
pub(crate) fn paint(model: &Model, area: Rect, buf: &mut Buffer) -> Option<Position> {
    let (theme, screen) = (model.theme, &model.identity_ca);
    let right = screen.record.as_ref().map_or_else(Line::default, |found| {
        let state = if found.phase == STEADY { State::Ok } else { State::Busy };
        badge(state, &format!("{} ", found.phase), theme)
    });
    view::record_heading(model, "Agents", "Identity CA", &right, area, buf);
    let Some(found) = &screen.record else {
        put_all(buf, part(area, 2, u16::MAX), view::nothing_yet(model));
        return None;
    };
    let height = slots_height(model);
    slots(model, found, part(area, 1, height), buf);
    let next = next_lines(model, found);
    put_all(buf, part(area, 1 + height, NEXT_HEIGHT), next);
    let body = part(area, 1 + height + NEXT_HEIGHT, u16::MAX);
    if screen.peers.rows.is_empty() {
        return None;
    }
    let columns: &[Column] = if view::is_compact(model) { &COLUMNS_COMPACT } else { &COLUMNS };
    let shown: Vec<Row> = screen.peers.window(rows(model)).map(|peer| row(model, peer)).collect();
    table(buf, body, theme, columns, &shown, screen.peers.cursor_in_window())
}

fn slots(model: &Model, found: &IdentityCa, area: Rect, buf: &mut Buffer) {
    if area.height == 0 {
        return;
    }
    let (left, right) = match found.slots.len() {
        0 | 1 => (area, Rect { width: 0, ..area }),
        _ => split_right(area, area.width / 2),
    };
    for (slot, area) in found.slots.iter().zip([left, right]) {
        let inner = panel(buf, area, model.theme, &format!("CA {}", short_fingerprint(&slot.fingerprint_sha256)), "");
        put_all(buf, inner, slot_lines(model, slot, usize::from(inner.width)));
    }
}

fn slot_lines(model: &Model, slot: &IdentityCaSlot, width: usize) -> Vec<Line<'static>> {
    let theme = model.theme;
    let mut lines: Vec<Line<'static>> =
        wrap(slot_does(slot.signs, slot.shown), width).into_iter().map(Line::from).collect();
    lines.push(pair("made", &instant(slot.not_before), theme));
    lines.push(pair("ends", &format!("{} ({})", instant(slot.not_after), until(model.now, slot.not_after)), theme));
    lines
}

/// Who is ready, and what can be done now; the step that someone is not ready for, knowing that.
fn next_lines(model: &Model, found: &IdentityCa) -> Vec<Line<'static>> {
    let theme = model.theme;
    let width = usize::from(model.size.0).saturating_sub(2).max(1);
    let mut lines = Vec::new();
    if found.phase != STEADY {
        let text = format!(" Ready {}, not ready {}", count(found.ready), count(found.waiting_total));
        lines.push(Line::styled(text, theme.strong()));
    }
    let forward = if found.phase == "prepared" { "activate" } else { "retire" };
    let text = match (found.phase.as_str(), found.waiting_total) {
        (STEADY, _) => {
            "No rotation is on its way. n prepares the next CA: it is trusted, and does not sign yet.".to_owned()
        }
        ("prepared", 0) => "All trust the next CA: A lets it sign.".to_owned(),
        (_, 0) => "All have a leaf of the next CA: D drops the old one for good.".to_owned(),
        (_, waits) => format!(
            "They become ready by themselves once they connect; c goes one step back. Knowing that some are not: certwright identity-ca {forward} --anyway={waits}"
        ),
    };
    lines.extend(wrap(&text, width).into_iter().map(|part| Line::from(format!(" {part}"))));
    lines
}

fn row(model: &Model, peer: &Peer) -> Row {
    let known = &peer.known;
    let lacks = if known.lacks.is_empty() { READY.to_owned() } else { known.lacks.clone() };
    let cells = if view::is_compact(model) {
        vec![known.name.clone(), lacks]
    } else {
        vec![known.name.clone(), known.kind.clone(), ago(model.now, known.last_seen_at), lacks]
    };
    let peers = &model.identity_ca.peers;
    Row {
        changed: peers.is_changed(peer.id(), model.now),
        gone: peers.is_gone(peer.id()),
        ..Row::new(peer.state(), cells)
    }
}

/// Returns the status line.
pub(crate) fn status(model: &Model) -> (String, String) {
    let peers = &model.identity_ca.peers;
    let left = peers.current().map_or_else(String::new, |peer| match peer.known.lacks.as_str() {
        "" => format!("{} is ready", safe(&peer.known.name)),
        lacks => format!("{} {}", safe(&peer.known.name), safe(lacks)),
    });
    let shown = u64::try_from(peers.rows.len()).unwrap_or(u64::MAX);
    let hidden = peers.total.saturating_sub(shown);
    let hidden = if hidden == 0 { String::new() } else { format!(", {} not listed", count(hidden)) };
    let right = if peers.total == 0 { String::new() } else { format!("{}{hidden}", peers.position()) };
    (left, right)
}
