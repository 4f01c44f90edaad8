//! The sheet of a certificate's settings: who signs, with which profile and key. Also the fields that it has in common
//! with the wizard.

use proto::operator::v1::{Certificate, Issuer, UpdateCertificateRequest};
use proto::types::v1::{Custody, KeyType};

use super::{Wish, words};
use crate::app::call::Call;
use crate::client::{custody, key_type};
use crate::widgets::form::{Field, Form};

/// The issuer's default profile, as the choice says it.
pub(crate) const DEFAULT: &str = "the issuer's default";
pub(crate) const NEW_KEY: &str = "a new key each time";
pub(crate) const SAME_KEY: &str = "keep the key";
/// The key types, as the wire's words.
pub(crate) const KEY_TYPES: [&str; 5] = ["p256", "p384", "rsa2048", "rsa3072", "rsa4096"];
const ROLLOUT: &str =
    "Empty: all targets at once. canary=AGENT,… wave=N or N% failures=N rest=5m: what fails holds the rest.";
const WINDOWS: &str =
    "Empty: at any time. When new versions may go out: Sat,Sun 02:00-05:00 Europe/Berlin; several with ;";
const BY_ITSELF: &str = "by itself";
const WHEN_ASKED: &str = "only when asked";

/// Returns a key type by its word.
pub(crate) fn key_type_of(word: &str) -> KeyType {
    match word {
        "p384" => KeyType::P384,
        "rsa2048" => KeyType::Rsa2048,
        "rsa3072" => KeyType::Rsa3072,
        "rsa4096" => KeyType::Rsa4096,
        _ => KeyType::P256,
    }
}

/// Returns the two fields for a profile: one to choose where the directory lists some, one to write where it does not.
pub(crate) fn profile_fields(profile: &str) -> [Field; 2] {
    let options = vec![DEFAULT.to_owned(), profile.to_owned()].into_iter().filter(|word| !word.is_empty()).collect();
    let mut choice = Field::choice("profile", "Profile", options, "What the issuer's directory lists.");
    choice.hidden = true;
    let help = "Empty: the issuer's default. Its directory is asked before each order whether it knows the profile.";
    [choice, Field::text("profile_text", "Profile", profile, help)]
}

/// Offers the profiles that the chosen issuer's directory lists.
pub(crate) fn offer_profiles(form: &mut Form, issuers: &[Issuer]) {
    let chosen = form.chosen("issuer").to_owned();
    let profiles = issuers.iter().find(|issuer| issuer.name == chosen).map_or(&[][..], |issuer| &issuer.profiles);
    let names = profiles.iter().map(|profile| profile.name.clone());
    let known = !profiles.is_empty();
    if known {
        form.offer("profile", std::iter::once(DEFAULT.to_owned()).chain(names).collect());
    }
    form.show("profile", known);
    form.show("profile_text", !known);
    let means = profiles.iter().find(|profile| profile.name == form.chosen("profile"));
    let help = means.map_or_else(|| "What the issuer's directory lists.".to_owned(), |one| one.description.clone());
    if let Some(field) = form.field_mut("profile") {
        field.help = help;
    }
}

/// Returns the profile that the form names; empty means the issuer's default.
pub(crate) fn profile(form: &Form) -> String {
    let shown = form.fields.iter().any(|field| field.id == "profile" && !field.hidden);
    if !shown {
        return form.value("profile_text").to_owned();
    }
    Some(form.chosen("profile")).filter(|word| *word != DEFAULT).unwrap_or_default().to_owned()
}

/// Returns the field for the issuers that are asked when the first one fails.
pub(crate) fn fallbacks_field(names: &[String]) -> Field {
    let help = "Issuers asked in this order when the first one fails and time is short, separated by spaces.";
    Field::text("fallbacks", "Fallbacks", &names.join(" "), help)
}

/// Returns the field for whether later versions keep the key.
pub(crate) fn reuse_field(reuse: bool) -> Field {
    let help = "A lost or revoked key is never kept.";
    let mut field = Field::choice("reuse_key", "Renewals", vec![NEW_KEY.to_owned(), SAME_KEY.to_owned()], help);
    field.choose(if reuse { SAME_KEY } else { NEW_KEY });
    field
}

/// Returns the form with what holds now.
pub(super) fn form(record: &Certificate) -> Form {
    let mut issuer = Field::choice("issuer", "Issuer", vec![record.issuer.clone()], "Who signs.");
    issuer.choose(&record.issuer);
    let mut key = Field::choice("key_type", "Key", KEY_TYPES.map(str::to_owned).to_vec(), "Of the next version.");
    key.choose(key_type(record.key_type));
    let keepers = ["agent", "controller"].map(str::to_owned).to_vec();
    let mut kept = Field::choice("custody", "Key kept by", keepers, "The agent can keep it where there is one target.");
    kept.choose(custody(record.custody));
    let ways = vec![BY_ITSELF.to_owned(), WHEN_ASKED.to_owned()];
    let mut renews =
        Field::choice("auto_renew", "It renews", ways, "Before it expires, when its CA or its age says so.");
    renews.choose(if record.auto_renew { BY_ITSELF } else { WHEN_ASKED });
    let [choice, written] = profile_fields(&record.profile);
    let mut fields = vec![
        Field::text(
            "identifiers",
            "Names",
            &record.identifiers.join(" "),
            "DNS names and addresses, separated by spaces.",
        ),
        issuer,
        choice,
        written,
        key,
        reuse_field(record.reuse_key),
        kept,
        fallbacks_field(&record.fallbacks),
        renews,
        Field::text("rollout", "Rollout", &record.rollout, ROLLOUT),
        Field::text("windows", "Windows", &record.windows.join("; "), WINDOWS),
    ];
    fields.push(Field::button("save", "Save"));
    let mut form = Form::new(fields);
    form.focus("issuer");
    form
}

/// Returns the field that the controller's name of a request field means.
pub(super) fn place_of(field: &str) -> &'static str {
    match field.trim_start_matches("--").split(['.', '[']).next().unwrap_or_default().replace('-', "_").as_str() {
        "identifiers" | "identifier" | "san" | "sans" => "identifiers",
        "issuer" => "issuer",
        "fallbacks" | "fallback" => "fallbacks",
        "profile" => "profile",
        "key_type" | "key" => "key_type",
        "custody" => "custody",
        "rollout" => "rollout",
        "windows" | "window" => "windows",
        _ => "",
    }
}

/// Returns what the form asks for.
pub(super) fn wish(record: &Certificate, form: &Form) -> Wish {
    let mut wish = Wish::default();
    let mut request = UpdateCertificateRequest {
        name: record.name.clone(),
        expected_revision: record.revision,
        ..Default::default()
    };
    let mut options: Vec<String> = Vec::new();
    let names = words(form.value("identifiers"));
    if names.is_empty() {
        wish.complain("identifiers", "at least one name is needed", "for example www.example.com");
    } else if names != record.identifiers {
        options.extend(names.iter().map(|name| format!("--san {name}")));
        request.identifiers = names;
    }
    if form.chosen("issuer") != record.issuer && !form.chosen("issuer").is_empty() {
        options.push(format!("--issuer {}", form.chosen("issuer")));
        request.issuer = Some(form.chosen("issuer").to_owned());
    }
    let profile = profile(form);
    if profile != record.profile {
        options.push(format!("--profile {}", if profile.is_empty() { "default" } else { profile.as_str() }));
        request.profile = Some(profile);
    }
    if form.chosen("key_type") != key_type(record.key_type) {
        options.push(format!("--key {}", form.chosen("key_type")));
        request.key_type = Some(key_type_of(form.chosen("key_type")).into());
    }
    if form.chosen("custody") != custody(record.custody) {
        options.push(format!("--custody {}", form.chosen("custody")));
        let kept = if form.chosen("custody") == "agent" { Custody::Agent } else { Custody::Controller };
        request.custody = Some(kept.into());
    }
    // Whatever stands above is a new version; the rest only holds for later ones.
    let new_version = !options.is_empty();
    let reuse = form.chosen("reuse_key") == SAME_KEY;
    if reuse != record.reuse_key {
        options.push(format!("--reuse-key {}", if reuse { "on" } else { "off" }));
        request.reuse_key = Some(reuse);
    }
    let fallbacks = words(form.value("fallbacks"));
    if fallbacks != record.fallbacks {
        options.extend(fallbacks.iter().map(|name| format!("--fallback {name}")));
        options.extend(fallbacks.is_empty().then(|| "--no-fallbacks".to_owned()));
        (request.fallbacks, request.set_fallbacks) = (fallbacks, true);
    }
    let auto = form.chosen("auto_renew") == BY_ITSELF;
    if auto != record.auto_renew {
        options.push(format!("--auto-renew {}", if auto { "on" } else { "off" }));
        request.auto_renew = Some(auto);
    }
    let rollout = form.value("rollout").trim();
    if rollout != record.rollout {
        let words = if rollout.is_empty() { "off" } else { rollout };
        options.push(format!("--rollout {}", super::quoted(words)));
        request.rollout = Some(words.to_owned());
    }
    let windows = windows(form.value("windows"));
    if windows != record.windows {
        options.extend(windows.iter().map(|window| format!("--window {}", super::quoted(window))));
        options.extend(windows.is_empty().then(|| "--window off".to_owned()));
        (request.windows, request.set_windows) = (windows, true);
    }
    if options.is_empty() {
        return wish;
    }
    wish.effects = effects(record, &request, new_version, reuse);
    wish.command = format!("certwright certs set {} {}", record.name, options.join(" "));
    wish.call = Some(Call::Update(Box::new(request)));
    wish
}

fn windows(text: &str) -> Vec<String> {
    text.split(';').map(|one| one.trim().to_owned()).filter(|one| !one.is_empty()).collect()
}

fn effects(record: &Certificate, request: &UpdateCertificateRequest, new_version: bool, reuse: bool) -> Vec<String> {
    let mut said = Vec::new();
    if new_version {
        let issuer = request.issuer.as_deref().unwrap_or(&record.issuer);
        let other_key = request.key_type.is_some() || request.custody.is_some() || !reuse;
        let key = if other_key { "a new key" } else { "the same key" };
        said.push(format!("A new version with {key} is ordered at {issuer} at once: one order."));
        said.push(match record.targets.len() {
            0 => "The current version stays valid.".to_owned(),
            count => format!("Then it goes to {count} target(s); until then the current version is served."),
        });
    } else {
        said.push("Nothing is ordered now: it holds from the next version on.".to_owned());
    }
    if request.custody == Some(i32::from(Custody::Controller)) {
        said.push("The key is made by the controller, sealed there, and handed to the targets.".to_owned());
    }
    if request.auto_renew == Some(false) {
        said.push("It EXPIRES unless someone renews it by hand.".to_owned());
    }
    if record.pause.is_some() && new_version {
        said.push("It is paused: the order waits until that is lifted.".to_owned());
    }
    said
}
