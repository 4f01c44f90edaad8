//! The sheet of an issuer's limits: one field per kind, and the way back to what the CA publishes.

use proto::operator::v1::{LimitLine, ListLimitsResponse, SetLimitsRequest};

use super::Wish;
use crate::app::call::Call;
use crate::client::{parse_limit, period};
use crate::widgets::form::{Field, Form};

const KINDS: [(&str, &str, &str); 5] = [
    ("orders", "Orders", "New orders of this account, for example 300/3h; `none` is no limit."),
    ("registered-domain", "Domain", "Certificates per registered domain, for example 50/7d; `none` is no limit."),
    ("exact-set", "Same names", "Certificates of exactly the same names, for example 5/7d; `none` is no limit."),
    ("failed-authorizations", "Failures", "Failed authorizations of one name, for example 5/1h; `none` is no limit."),
    ("requests", "Requests", "Requests of this controller to the CA, for example 20/s; at most 100 in a second."),
];
const RESET: &str = "back to what the CA publishes";

/// Returns the form with what holds now.
pub(super) fn form(limits: &ListLimitsResponse) -> Form {
    let mut fields: Vec<Field> =
        KINDS.iter().map(|(kind, label, help)| Field::text(kind, label, &now(limits, kind), help)).collect();
    let ways = vec!["as written above".to_owned(), RESET.to_owned()];
    let help = "Going back forgets every number that an operator set, then takes those changed above.";
    fields.push(Field::choice("reset", "Numbers", ways, help));
    fields.push(Field::button("save", "Save"));
    Form::new(fields)
}

fn now(limits: &ListLimitsResponse, kind: &str) -> String {
    let line = limits.items.iter().find(|line| line.kind == kind);
    line.map_or_else(|| "none".to_owned(), written)
}

fn written(line: &LimitLine) -> String {
    match (line.count, line.period_seconds) {
        (0, _) => "none".to_owned(),
        // Reads better than `100/1s`.
        (count, 1) => format!("{count}/s"),
        (count, seconds) => format!("{count}/{}", period(seconds)),
    }
}

/// Returns the kinds that were changed, with what is written there.
fn changed<'a>(limits: &ListLimitsResponse, form: &'a Form) -> Vec<(&'static str, &'a str)> {
    KINDS
        .iter()
        .map(|(kind, _, _)| (*kind, form.value(kind)))
        .filter(|(kind, value)| *value != now(limits, kind))
        .collect()
}

/// Returns what the form asks for.
pub(super) fn wish(limits: &ListLimitsResponse, form: &Form) -> Wish {
    let reset = form.chosen("reset") == RESET;
    let mut wish = Wish::default();
    let mut set = Vec::new();
    let mut command = format!("certwright issuers limits {}", limits.issuer);
    if reset {
        wish.effects.push(format!("every number goes back to what {} publishes", limits.host));
        command.push_str(" --reset");
    }
    for (kind, value) in changed(limits, form) {
        match parse_limit(&format!("{kind}={value}")) {
            Ok(setting) => set.push(setting),
            Err(_expected) => {
                wish.complain(kind, "not a number in a period", "for example 300/3h, 20/s, or none");
                continue;
            }
        }
        wish.effects.push(format!("{}: {} becomes {value}", kind.replace('-', " "), now(limits, kind)));
        command.push_str(&format!(" --set {kind}={value}"));
    }
    if reset || !set.is_empty() {
        wish.effects.push("orders that wait for a limit ask again at once".to_owned());
        wish.command = command;
        wish.call = Some(Call::SetLimits(SetLimitsRequest { issuer: limits.issuer.clone(), set, reset }));
    }
    wish
}
