//! `certs set`: changes the fields that are named and leaves the rest.

use clap::Args;
use proto::operator::v1::UpdateCertificateRequest;
use proto::types::v1::{Custody, Http01, KeyType};

use super::create::{custody, key_type};
use crate::cli::session::{Session, WaitOptions, invalid};
use crate::cli::target_options;
use crate::cli::wait;
use crate::client::ClientError;

#[derive(Args, Debug)]
pub(crate) struct Set {
    name: String,
    /// Replaces all names of the certificate (repeats)
    #[arg(long = "san", value_name = "NAME")]
    sans: Vec<String>,
    /// Issuer to order from
    #[arg(long, value_name = "ISSUER")]
    issuer: Option<String>,
    /// Replaces the issuers to ask when the first one fails and time is short (repeats, in this order)
    #[arg(long = "fallback", value_name = "ISSUER", conflicts_with = "no_fallbacks")]
    fallbacks: Vec<String>,
    /// Asks no other issuer
    #[arg(long)]
    no_fallbacks: bool,
    /// Profile to order; `default` is the issuer's: a change is a new version
    #[arg(long, value_name = "PROFILE")]
    profile: Option<String>,
    /// Key algorithm of the next version
    #[arg(long, value_name = "TYPE", value_parser = key_type)]
    key: Option<KeyType>,
    /// Where the key is born and stays: a change is a new key and a new version
    #[arg(long, value_name = "agent|controller", value_parser = custody)]
    custody: Option<Custody>,
    /// Whether later versions keep the key
    #[arg(long, value_name = "on|off", value_parser = on_off)]
    reuse_key: Option<bool>,
    /// How HTTP-01 is answered: standalone[:PORT] or webroot:DIR
    #[arg(long, value_name = "MODE", value_parser = target_options::http01)]
    http01: Option<Http01>,
    /// Replaces the agents that answer HTTP-01 (repeats)
    #[arg(long = "responder", value_name = "AGENT", conflicts_with = "no_responders")]
    responders: Vec<String>,
    /// Lets the targets' agents answer HTTP-01
    #[arg(long)]
    no_responders: bool,
    /// How new versions reach the targets: 'canary=AGENT,… wave=N|N% failures=N rest=5m', each word optional; `off` is all
    /// at once
    #[arg(long, value_name = "WORDS")]
    rollout: Option<String>,
    /// Replaces the hours in which new versions may reach the targets: 'Sat,Sun 02:00-05:00 Europe/Berlin' (repeats); `off` is
    /// at any time
    #[arg(long = "window", value_name = "HOURS")]
    windows: Vec<String>,
    /// Whether it renews by itself
    #[arg(long, value_name = "on|off", value_parser = on_off)]
    auto_renew: Option<bool>,
    /// Refuse if the certificate has another revision by now
    #[arg(long, value_name = "REVISION", default_value_t = 0, hide_default_value = true)]
    expected_revision: u64,
    #[command(flatten)]
    wait: WaitOptions,
}

pub(super) async fn run(set: Set, session: &mut Session<'_>) -> Result<(), ClientError> {
    let wait = set.wait.clone();
    if !set.changes_something() {
        return Err(invalid("there is nothing to change", "name what to change: certwright certs set --help"));
    }
    let accepted = session.client.update_certificate(set.request()).await?;
    wait::finish(session, accepted, &wait).await
}

impl Set {
    fn changes_something(&self) -> bool {
        let lists = !self.sans.is_empty() || !self.responders.is_empty() || self.no_responders;
        let words = self.issuer.is_some() || self.key.is_some() || self.custody.is_some();
        let issuers = !self.fallbacks.is_empty() || self.no_fallbacks || self.profile.is_some();
        lists
            || words
            || issuers
            || self.reuse_key.is_some()
            || self.http01.is_some()
            || self.auto_renew.is_some()
            || self.rollout.is_some()
            || !self.windows.is_empty()
    }

    fn request(self) -> UpdateCertificateRequest {
        UpdateCertificateRequest {
            name: self.name,
            expected_revision: self.expected_revision,
            identifiers: self.sans,
            issuer: self.issuer,
            key_type: self.key.map(i32::from),
            custody: self.custody.map(i32::from),
            http01: self.http01,
            set_responders: self.no_responders || !self.responders.is_empty(),
            responders: self.responders,
            auto_renew: self.auto_renew,
            set_fallbacks: self.no_fallbacks || !self.fallbacks.is_empty(),
            fallbacks: self.fallbacks,
            profile: self.profile,
            reuse_key: self.reuse_key,
            rollout: self.rollout,
            set_windows: !self.windows.is_empty(),
            windows: self.windows,
        }
    }
}

fn on_off(text: &str) -> Result<bool, String> {
    match text {
        "on" => Ok(true),
        "off" => Ok(false),
        _ => Err("expected on or off".to_owned()),
    }
}
