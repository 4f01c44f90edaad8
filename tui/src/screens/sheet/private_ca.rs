//! The fields of a private CA: a new one, and the changes of one that is there.

use proto::operator::v1::{AddIssuerRequest, Issuer, PrivateCa, PrivateCaSpec, SetIssuerRequest};

use super::{Wish, words};
use crate::app::call::{Call, IssuerWish};
use crate::client::{parse_period, period};
use crate::widgets::form::{Field, Form};

/// The choice among the CAs of a new issuer.
pub(super) const OWN: &str = "a private CA";
/// The name that is proposed for it.
pub(super) const PROPOSED: &str = "corp";
/// The fields that only it has.
pub(super) const FIELDS: [&str; 4] = ["names", "life", "cn", "crl"];
const LIFE: &str = "90d";

/// Returns the fields of a new one.
pub(super) fn new_fields() -> Vec<Field> {
    let mut fields = common_fields(None);
    let cn = "Common name of its root, as clients show it. Empty: the issuer's name.";
    fields.insert(2, Field::text("cn", "Common name", "", cn));
    fields
}

/// Returns the form with what holds now.
pub(super) fn form(ca: &PrivateCa) -> Form {
    let mut fields = common_fields(Some(ca));
    fields.push(Field::button("save", "Save"));
    Form::new(fields)
}

fn common_fields(ca: Option<&PrivateCa>) -> Vec<Field> {
    let names = ca.map(|ca| ca.names.join(" ")).unwrap_or_default();
    let life = ca.map_or_else(|| LIFE.to_owned(), life);
    let url = ca.map(|ca| ca.list_url.as_str()).unwrap_or_default();
    let may = "What it may sign for: *.corp.example, db.example, 10.0.0.0/8, separated by spaces.";
    let crl = "Where clients fetch the revocation list; written into certificates. May stay empty.";
    vec![
        Field::text("names", "May certify", &names, may),
        Field::text("life", "Lifetime", &life, "How long its certificates live, for example 90d or 12h."),
        Field::text("crl", "List at", url, crl),
    ]
}

fn life(ca: &PrivateCa) -> String {
    period(u32::try_from(ca.leaf_life_seconds).unwrap_or(u32::MAX))
}

/// Returns the field that the controller's name of a request field means.
pub(super) fn place_of(field: &str) -> &'static str {
    match field {
        "names" => "names",
        "lifetime" => "life",
        "common-name" => "cn",
        "crl-url" => "crl",
        _ => "",
    }
}

/// Reads the lifetime, or complains.
fn seconds(form: &Form, wish: &mut Wish) -> u64 {
    let read = parse_period(form.value("life"));
    if read.is_err() {
        wish.complain("life", "not a lifetime", "a number and d, h or min, such as 90d");
    }
    read.map_or(0, u64::from)
}

/// Returns what the form of a new one asks for.
pub(super) fn new_wish(form: &Form) -> Wish {
    let mut wish = Wish::default();
    let (name, names) = (form.value("name"), words(form.value("names")));
    if name.is_empty() {
        wish.complain("name", "a name is needed", "for example corp");
    }
    if names.is_empty() {
        wish.complain("names", "it certifies nothing unless you say what", "for example *.corp.example");
    }
    let leaf_life_seconds = seconds(form, &mut wish);
    let mut said = vec![format!("certwright issuers add {name} --private")];
    said.extend(names.iter().map(|name| format!("--names {}", super::quoted(name))));
    for (id, option, usual) in [("life", "lifetime", LIFE), ("cn", "common-name", ""), ("crl", "crl-url", "")] {
        let value = form.value(id);
        said.extend((value != usual).then(|| format!("--{option} {}", super::quoted(value))));
    }
    wish.command = said.join(" ");
    wish.effects.push("A key and a root certificate are made here; the key is sealed and never leaves.".to_owned());
    wish.effects.push(format!("Clients trust it once they have the root: certwright issuers root {name}"));
    let private_ca = PrivateCaSpec {
        common_name: form.value("cn").to_owned(),
        names,
        leaf_life_seconds,
        list_url: Some(form.value("crl").to_owned()).filter(|url| !url.is_empty()),
        ..Default::default()
    };
    let request = AddIssuerRequest { name: name.to_owned(), private_ca: Some(private_ca), ..Default::default() };
    wish.call = Some(Call::AddIssuer(Box::new(IssuerWish { request, root: String::new(), key: Default::default() })));
    wish
}

/// Returns what the form of one that is there asks for.
pub(super) fn wish(record: &Issuer, ca: &PrivateCa, form: &Form) -> Wish {
    let mut wish = Wish::default();
    let mut spec = PrivateCaSpec::default();
    let mut said: Vec<String> = Vec::new();
    let names = words(form.value("names"));
    if names.is_empty() {
        wish.complain("names", "it certifies nothing unless you say what", "for example *.corp.example");
    } else if names != ca.names {
        said.extend(names.iter().map(|name| format!("--names {}", super::quoted(name))));
        wish.effects.push("A new root certificate of the same key is made, constrained to these names.".to_owned());
        wish.effects.push("Clients need it for names that were not allowed before.".to_owned());
        spec.names = names;
    }
    let value = form.value("life");
    if value != life(ca) {
        spec.leaf_life_seconds = seconds(form, &mut wish);
        said.push(format!("--lifetime {}", super::quoted(value)));
        wish.effects.push(format!("Certificates live {value}, from the next one on."));
    }
    let url = form.value("crl");
    if url != ca.list_url {
        said.push(format!("--crl-url {}", if url.is_empty() { "none".to_owned() } else { super::quoted(url) }));
        wish.effects.push("Certificates say so from the next one on.".to_owned());
        spec.list_url = Some(url.to_owned());
    }
    if said.is_empty() {
        return wish;
    }
    wish.command = format!("certwright issuers set {} {}", record.name, said.join(" "));
    let request = SetIssuerRequest { name: record.name.clone(), private_ca: Some(spec), ..Default::default() };
    wish.call = Some(Call::SetIssuer(Box::new(IssuerWish { request, root: String::new(), key: Default::default() })));
    wish
}
