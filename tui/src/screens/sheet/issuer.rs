//! The sheets of an issuer: a new one, and the changes of one that is there.

use proto::operator::v1::{AddIssuerRequest, Issuer, SetIssuerRequest};

use super::{Wish, private_ca, words};
use crate::app::call::{Call, IssuerWish};
use crate::screens::issuers::host;
use crate::widgets::form::{Field, Form};

/// CAs whose directories are known: what they are called, the name that is proposed, directory, staging directory, terms.
const KNOWN: [(&str, &str, &str, &str, &str); 2] = [
    (
        "Let's Encrypt",
        "le",
        "https://acme-v02.api.letsencrypt.org/directory",
        "https://acme-staging-v02.api.letsencrypt.org/directory",
        "https://letsencrypt.org/repository/",
    ),
    (
        "its staging",
        "le-staging",
        "https://acme-staging-v02.api.letsencrypt.org/directory",
        "",
        "https://letsencrypt.org/repository/",
    ),
];
const OTHER: &str = "another CA";
/// Fields that only an ACME issuer has, whichever it is.
const OF_ACCOUNTS: [&str; 7] = ["contacts", "terms", "profile", "chain", "root", "eab_kid", "eab_key"];
const AGREE: &str = "agreed";
const NOT_YET: &str = "not yet";
const KEEP: &str = "keep it";
const NEW_ACCOUNT: &str = "a new one with a new key";

/// Returns the form of a new issuer.
pub(super) fn new_form() -> Form {
    let cas = KNOWN.iter().map(|known| known.0.to_owned()).chain([private_ca::OWN, OTHER].map(str::to_owned)).collect();
    let mut fields = vec![
        Field::choice(
            "ca",
            "CA",
            cas,
            "Its directory is known for the first two; for another CA you write it. A private CA is made here.",
        ),
        Field::text("name", "Called", "", "What you call the issuer."),
        Field::text("directory", "Directory", "", "The CA's ACME directory, https://. It cannot be changed later."),
        Field::text("contacts", "Contacts", "", "Mail addresses for the CA, separated by spaces; may stay empty."),
        Field::choice("terms", "Terms", vec![NOT_YET.to_owned(), AGREE.to_owned()], ""),
    ];
    fields.extend(more_fields(None));
    fields.extend(private_ca::new_fields());
    fields.push(Field::button("save", "Add"));
    Form::new(fields)
}

/// Returns the form with what holds now.
pub(super) fn form(record: &Issuer) -> Form {
    if let Some(ca) = &record.private_ca {
        return private_ca::form(ca);
    }
    let contacts: Vec<&str> = record.contacts.iter().map(|one| plain(one)).collect();
    let mut terms =
        Field::choice("terms", "Terms", vec![NOT_YET.to_owned(), AGREE.to_owned()], &terms_help(&record.terms_url));
    terms.choose(if record.terms_accepted && record.account_status != "terms" { AGREE } else { NOT_YET });
    let accounts = vec![KEEP.to_owned(), NEW_ACCOUNT.to_owned()];
    let mut fields = vec![
        Field::text("contacts", "Contacts", &contacts.join(" "), "Mail addresses for the CA, separated by spaces."),
        terms,
    ];
    fields.extend(more_fields(Some(record)));
    fields.push(Field::choice("account", "Account", accounts, "A new one where the old one is closed or lost."));
    fields.push(Field::button("save", "Save"));
    Form::new(fields)
}

fn terms_help(url: &str) -> String {
    match url {
        "" => "The CA's terms of service are shown after its first try; agree then with e.".to_owned(),
        url => format!("The CA's terms of service: {url}"),
    }
}

/// What a new issuer and one that is there have in common.
fn more_fields(record: Option<&Issuer>) -> Vec<Field> {
    let known = record.cloned().unwrap_or_default();
    let unchanged = if record.is_some() { " Empty: as it is." } else { " Empty: the system's." };
    let root = format!("PEM file, on this machine, with the roots to trust for its directory.{unchanged}");
    let key = "Paste it, or write @FILE. It is sent once, kept sealed, and never shown.";
    let profile = match known.profiles.as_slice() {
        [] => "What certificates get that name none. Empty: the CA's choice.".to_owned(),
        listed => {
            let names: Vec<&str> = listed.iter().map(|profile| profile.name.as_str()).collect();
            format!("Its directory lists: {}. Empty: the CA's choice.", names.join(", "))
        }
    };
    vec![
        Field::text(
            "staging",
            "Staging",
            &known.staging_directory,
            "The CA's staging directory, where failures are rehearsed.",
        ),
        Field::text("profile", "Profile", &known.profile, &profile),
        Field::text(
            "chain",
            "Chain",
            &known.preferred_chain,
            "Take the chain under this common name. Empty: the CA's choice.",
        ),
        Field::text("root", "Root file", "", &root),
        Field::text(
            "eab_kid",
            "External id",
            "",
            "Key identifier of your account at the CA's customer pages, if it wants one.",
        ),
        Field::secret("eab_key", "External key", key),
    ]
}

/// Makes the fields follow the chosen CA. `proposed` is the name that was proposed last; one that was written stays.
pub(super) fn follow_new(form: &mut Form, proposed: &mut String) {
    let known = KNOWN.iter().find(|known| known.0 == form.chosen("ca"));
    let private = form.chosen("ca") == private_ca::OWN;
    for id in ["directory", "staging"] {
        form.show(id, known.is_none() && !private);
    }
    for id in OF_ACCOUNTS {
        form.show(id, !private);
    }
    for id in private_ca::FIELDS {
        form.show(id, private);
    }
    let name = known.map_or(if private { private_ca::PROPOSED } else { "" }, |known| known.1);
    if form.value("name") == proposed.as_str() {
        form.set("name", name);
        name.clone_into(proposed);
    }
    let help = terms_help(known.map_or("", |known| known.4));
    if let Some(field) = form.field_mut("terms") {
        field.help = help;
    }
}

fn plain(contact: &str) -> &str {
    contact.strip_prefix("mailto:").unwrap_or(contact)
}

/// Returns the field that the controller's name of a request field means.
pub(super) fn place_of(field: &str) -> &'static str {
    match field {
        "name" => "name",
        "directory" => "directory",
        "contact" | "contacts" | "email" => "contacts",
        "staging" | "staging_directory" => "staging",
        "root" | "root_pem" => "root",
        "eab-kid" | "external_kid" => "eab_kid",
        "eab-key" | "external_key" => "eab_key",
        "profile" => "profile",
        "preferred_chain" => "chain",
        other => private_ca::place_of(other),
    }
}

/// The options that both commands have.
fn options(form: &Form) -> Vec<String> {
    let mut said = Vec::new();
    for (id, option) in [("root", "root"), ("eab_kid", "eab-kid")] {
        if !form.value(id).is_empty() {
            said.push(format!("--{option} {}", form.value(id)));
        }
    }
    let key = form.secret("eab_key");
    if key.is_file() {
        said.push(format!("--eab-key {}", key.expose()));
    } else if !key.expose().is_empty() {
        said.push("--eab-key @FILE".to_owned());
    }
    said
}

fn check_external(wish: &mut Wish, form: &Form) {
    let (kid, key) = (form.value("eab_kid").is_empty(), form.secret("eab_key").expose().is_empty());
    if kid && !key {
        wish.complain("eab_kid", "its identifier is missing", "both come from the CA's customer pages");
    } else if key && !kid {
        wish.complain("eab_key", "its key is missing", "both come from the CA's customer pages");
    }
}

/// Returns what the form of a new issuer asks for.
pub(super) fn new_wish(form: &Form) -> Wish {
    if form.chosen("ca") == private_ca::OWN {
        return private_ca::new_wish(form);
    }
    let mut wish = Wish::default();
    let known = KNOWN.iter().find(|known| known.0 == form.chosen("ca"));
    let (directory, staging) =
        known.map_or_else(|| (form.value("directory"), form.value("staging")), |known| (known.2, known.3));
    let name = form.value("name");
    if name.is_empty() {
        wish.complain("name", "a name is needed", "for example le");
    }
    if !directory.starts_with("https://") {
        wish.complain("directory", "an https URL is needed", "the CA's documentation names its ACME directory");
    }
    check_external(&mut wish, form);
    let contacts = words(form.value("contacts"));
    let agreed = form.chosen("terms") == AGREE;
    let mut said = vec![format!("certwright issuers add {name} --directory {directory}")];
    said.extend(contacts.iter().map(|contact| format!("--contact {contact}")));
    said.extend(agreed.then(|| "--accept-terms".to_owned()));
    for (value, option) in
        [(staging, "staging"), (form.value("profile"), "profile"), (form.value("chain"), "preferred-chain")]
    {
        if !value.is_empty() {
            said.push(format!("--{option} {}", super::quoted(value)));
        }
    }
    said.extend(options(form));
    wish.command = said.join(" ");
    wish.effects.push(format!("An account with a new key is made at {} and tried at once.", host(directory)));
    if !agreed {
        wish.effects.push("Terms not agreed to: if the CA wants that, it is halted until you do.".to_owned());
    }
    let request = AddIssuerRequest {
        name: name.to_owned(),
        directory: directory.to_owned(),
        accept_terms: agreed,
        contacts,
        external_kid: form.value("eab_kid").to_owned(),
        profile: form.value("profile").to_owned(),
        preferred_chain: form.value("chain").to_owned(),
        staging_directory: staging.to_owned(),
        ..Default::default()
    };
    let root = form.value("root").to_owned();
    wish.call = Some(Call::AddIssuer(Box::new(IssuerWish { request, root, key: form.secret("eab_key") })));
    wish
}

/// Returns what the form of an issuer that is there asks for.
pub(super) fn wish(record: &Issuer, form: &Form) -> Wish {
    if let Some(ca) = &record.private_ca {
        return private_ca::wish(record, ca, form);
    }
    let mut wish = Wish::default();
    let mut request = SetIssuerRequest { name: record.name.clone(), ..Default::default() };
    let mut said: Vec<String> = Vec::new();
    let contacts = words(form.value("contacts"));
    if !contacts.iter().map(String::as_str).eq(record.contacts.iter().map(|one| plain(one))) {
        said.extend(contacts.iter().map(|contact| format!("--contact {contact}")));
        said.extend(contacts.is_empty().then(|| "--no-contacts".to_owned()));
        wish.effects.push("The CA is told the contacts.".to_owned());
        (request.contacts, request.set_contacts) = (contacts, true);
    }
    let open = !record.terms_accepted || record.account_status == "terms";
    if open && form.chosen("terms") == AGREE {
        said.push("--accept-terms".to_owned());
        wish.effects.push("You agree to the CA's terms; orders that wait for that go on.".to_owned());
        request.accept_terms = true;
    }
    let mut text = |id: &str, option: &str, before: &str, what: &str| {
        let value = form.value(id);
        (value != before).then(|| {
            let word = if value.is_empty() { "default" } else { value };
            said.push(format!("--{option} {}", super::quoted(word)));
            wish.effects.push(format!("{what}: {word}, from the next order on."));
            value.to_owned()
        })
    };
    request.profile = text("profile", "profile", &record.profile, "Profile");
    request.preferred_chain = text("chain", "preferred-chain", &record.preferred_chain, "Chain");
    request.staging_directory = text("staging", "staging", &record.staging_directory, "Rehearsals");
    check_external(&mut wish, form);
    let more = options(form);
    if !form.value("eab_kid").is_empty() {
        form.value("eab_kid").clone_into(&mut request.external_kid);
        wish.effects.push("The CA is given the external account.".to_owned());
    }
    if !form.value("root").is_empty() {
        wish.effects.push(format!("Its directory is trusted by the roots in {}.", form.value("root")));
    }
    said.extend(more);
    if form.chosen("account") == NEW_ACCOUNT {
        said.push("--new-account".to_owned());
        wish.effects.push("The account and its key are forgotten; a new account is made.".to_owned());
        request.new_account = true;
    }
    if said.is_empty() {
        return wish;
    }
    wish.effects.push("It is tried right after.".to_owned());
    wish.command = format!("certwright issuers set {} {}", record.name, said.join(" "));
    let root = form.value("root").to_owned();
    wish.call = Some(Call::SetIssuer(Box::new(IssuerWish { request, root, key: form.secret("eab_key") })));
    wish
}
