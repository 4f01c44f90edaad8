//! Operators: the list with open invitations, the record, a fresh invitation.

use jiff::Timestamp;
use proto::clock::from_wire;
use proto::operator::v1::{InviteOperatorResponse, ListOperatorsResponse, Operator, PendingInvitation};
use serde::Serialize;

use super::block::Block;
use super::table::Table;
use super::{safe, some, time};

#[derive(Serialize)]
struct OperatorView {
    name: String,
    #[serde(rename = "type")]
    kind: String,
    role: String,
    uid: Option<u32>,
    created_at: Option<Timestamp>,
    created_by: Option<String>,
    last_seen_at: Option<Timestamp>,
    identity_not_after: Option<Timestamp>,
    id: Option<String>,
    revision: u64,
}

#[derive(Serialize)]
struct InvitationView {
    name: String,
    role: String,
    expires_at: Option<Timestamp>,
    created_by: String,
}

#[derive(Serialize)]
struct ListView {
    items: Vec<OperatorView>,
    total: usize,
    pending: Vec<InvitationView>,
}

#[derive(Serialize)]
struct InvitedView {
    name: String,
    token: String,
    command: String,
    expires_at: Option<Timestamp>,
    hint: Option<String>,
}

impl From<&Operator> for OperatorView {
    fn from(operator: &Operator) -> Self {
        Self {
            name: safe(&operator.name),
            kind: safe(&operator.kind),
            role: safe(&operator.role),
            uid: (operator.kind == "local").then_some(operator.uid),
            created_at: from_wire(operator.created_at),
            created_by: some(&operator.created_by),
            last_seen_at: from_wire(operator.seen_at),
            identity_not_after: from_wire(operator.identity_not_after),
            id: some(&operator.id),
            revision: operator.revision,
        }
    }
}

impl From<&PendingInvitation> for InvitationView {
    fn from(pending: &PendingInvitation) -> Self {
        Self {
            name: safe(&pending.name),
            role: safe(&pending.role),
            expires_at: from_wire(pending.expires_at),
            created_by: safe(&pending.created_by),
        }
    }
}

/// Returns one operator as a JSON document.
pub(crate) fn json(operator: &Operator) -> String {
    super::json(Some("Operator"), OperatorView::from(operator))
}

/// Returns operators and open invitations as a JSON document.
pub(crate) fn json_list(found: &ListOperatorsResponse) -> String {
    let items: Vec<OperatorView> = found.items.iter().map(OperatorView::from).collect();
    let pending = found.pending.iter().map(InvitationView::from).collect();
    super::json(Some("OperatorList"), ListView { total: items.len(), items, pending })
}

/// Returns a fresh invitation as a JSON document. It holds the token: that is what it is for.
pub(crate) fn invitation_json(name: &str, invitation: &InviteOperatorResponse) -> String {
    let view = InvitedView {
        name: safe(name),
        token: safe(&invitation.token),
        command: safe(&invitation.command),
        expires_at: from_wire(invitation.expires_at),
        hint: some(&invitation.hint),
    };
    super::json(Some("Invitation"), view)
}

/// Returns operators and open invitations as a table.
pub(crate) fn table(found: &ListOperatorsResponse, now: Timestamp, wide: bool) -> Table {
    let mut head = vec!["NAME", "ROLE", "TYPE", "LAST SEEN", "LOGIN EXPIRES"];
    if wide {
        head.extend(["ADDED", "BY", "ID"]);
    }
    let mut table = Table::new(&head);
    for operator in &found.items {
        let relative = |at: i64| from_wire(at).map(|at| time::relative(now, at)).unwrap_or_default();
        let mut row = vec![
            operator.name.clone(),
            operator.role.clone(),
            operator.kind.clone(),
            relative(operator.seen_at),
            relative(operator.identity_not_after),
        ];
        if wide {
            row.extend([relative(operator.created_at), operator.created_by.clone(), operator.id.clone()]);
        }
        table.row(row);
    }
    for pending in &found.pending {
        let until = from_wire(pending.expires_at).map(|at| time::relative(now, at)).unwrap_or_default();
        let mut row = vec![pending.name.clone(), pending.role.clone(), "invited".to_owned(), String::new(), until];
        if wide {
            row.extend([String::new(), pending.created_by.clone(), String::new()]);
        }
        table.row(row);
    }
    table
}

/// Returns one operator for people.
pub(crate) fn describe(operator: &Operator, now: Timestamp) -> String {
    let mut block = Block::titled(&format!("{}: {}", operator.name, operator.role));
    block.field("type", &operator.kind);
    if operator.kind == "local" {
        block.field("uid", &operator.uid.to_string());
    }
    let when = |at: i64| from_wire(at).map(|at| time::relative(now, at)).unwrap_or_default();
    block.field("last seen", &when(operator.seen_at));
    block.field("login expires", &when(operator.identity_not_after));
    block.field("added", format!("{} by {}", when(operator.created_at), operator.created_by).trim());
    block.field("id", &operator.id);
    block.render()
}
