//! `issuers`: the certificate authorities that certificates are ordered from.

mod private;

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Subcommand};
use proto::operator::v1::{
    AddIssuerRequest, GetIssuerRequest, Issuer, LimitSetting, ListIssuersRequest, ListLimitsRequest,
    RemoveIssuerRequest, RolloverAccountRequest, SetIssuerRequest, SetLimitsRequest, TestIssuerRequest,
};

use self::private::{NewPrivate, Out, Private};
use super::confirm::confirm;
use super::session::{Session, invalid};
use crate::client::{ClientError, ErrorKind, parse_limit, read_roots, read_secret};
use crate::output::{issuer, limit};

/// How long to wait for the controller's try: a CA has a minute for each answer.
const TRY_TIME_MAX: Duration = Duration::from_secs(90);
/// How often to look meanwhile.
const LOOK_EVERY: Duration = Duration::from_millis(200);

#[derive(Debug, Subcommand)]
pub(crate) enum Verb {
    /// Lists issuers
    Ls,
    /// Shows one issuer
    Get { name: String },
    /// Adds an ACME issuer, or a private CA, and tries it
    Add(Box<Add>),
    /// Changes an issuer and tries it; what is not named stays as it is
    Set(Box<Set>),
    /// Reads the directory anew and proves the account
    Test { name: String },
    /// Gives the account another key; orders wait meanwhile
    Rollover { name: String },
    /// Removes an issuer that no certificate uses; the key of a private CA is gone for good
    Rm {
        name: String,
        /// Consent to the loss of a private CA without a question: its name
        #[arg(long, value_name = "NAME", require_equals = true)]
        confirm: Option<String>,
    },
    /// Prints the root of a private CA for trust stores
    Root(Out),
    /// Prints the revocation list of a private CA
    Crl(Out),
    /// Shows the CA's limits: used, left, when they refill
    Limits(Limits),
}

#[derive(Args, Debug)]
pub(crate) struct Add {
    name: String,
    /// The ACME directory; it cannot be changed later: another CA is another issuer
    #[arg(long, value_name = "URL", required_unless_present = "private", conflicts_with = "private")]
    directory: Option<String>,
    /// PEM file with the roots to trust for this directory instead of the system's
    #[arg(long, value_name = "FILE")]
    root: Option<PathBuf>,
    /// Mail address of the account's contact (repeats)
    #[arg(long = "contact", visible_alias = "email", value_name = "ADDRESS")]
    contacts: Vec<String>,
    /// Accept the issuer's terms of service
    #[arg(long)]
    accept_terms: bool,
    /// Profile to order where a certificate names none; default: the CA's choice
    #[arg(long, value_name = "PROFILE", default_value = "", hide_default_value = true)]
    profile: String,
    /// Take the chain whose topmost certificate was issued by this common name, where the CA offers several
    #[arg(long, value_name = "CN", default_value = "", hide_default_value = true)]
    preferred_chain: String,
    /// The CA's staging directory: after a failed validation the next try is rehearsed there
    #[arg(long, value_name = "URL", default_value = "", hide_default_value = true)]
    staging: String,
    #[command(flatten)]
    external: External,
    #[command(flatten)]
    new_private: NewPrivate,
    #[command(flatten)]
    private: Private,
}

#[derive(Args, Debug)]
pub(crate) struct Set {
    name: String,
    /// PEM file with the roots to trust for this directory instead of the system's
    #[arg(long, value_name = "FILE", conflicts_with = "system_roots")]
    root: Option<PathBuf>,
    /// Trust the system's roots again
    #[arg(long)]
    system_roots: bool,
    /// Replaces the mail addresses of the account's contacts (repeats)
    #[arg(long = "contact", visible_alias = "email", value_name = "ADDRESS", conflicts_with = "no_contacts")]
    contacts: Vec<String>,
    /// Removes the account's contacts
    #[arg(long)]
    no_contacts: bool,
    /// Accept the issuer's terms of service as they are now
    #[arg(long)]
    accept_terms: bool,
    /// Profile to order where a certificate names none; `default` is the CA's choice
    #[arg(long, value_name = "PROFILE")]
    profile: Option<String>,
    /// Take the chain whose topmost certificate was issued by this common name; `default` is the CA's choice
    #[arg(long, value_name = "CN")]
    preferred_chain: Option<String>,
    /// The CA's staging directory: after a failed validation the next try is rehearsed there; `default` is nowhere
    #[arg(long, value_name = "URL")]
    staging: Option<String>,
    #[command(flatten)]
    external: External,
    /// Forget the account and make another one with a new key
    #[arg(long)]
    new_account: bool,
    #[command(flatten)]
    private: Private,
}

/// What a CA gives its customers.
#[derive(Args, Debug)]
pub(crate) struct External {
    /// Key identifier of your account at the CA's customer pages (external account binding)
    #[arg(long, value_name = "KID", requires = "eab_key")]
    eab_kid: Option<String>,
    /// Where its MAC key is: @FILE, or - for standard input; never the key itself
    #[arg(long, value_name = "@FILE|-", requires = "eab_kid")]
    eab_key: Option<String>,
}

#[derive(Args, Debug)]
pub(crate) struct Limits {
    name: String,
    /// Set a limit: orders, registered-domain, exact-set, failed-authorizations, requests
    #[arg(long, value_name = "KIND=N/PERIOD|KIND=none", value_parser = parse_limit)]
    set: Vec<LimitSetting>,
    /// Go back to what the CA publishes
    #[arg(long)]
    reset: bool,
}

pub(super) async fn run(verb: Verb, session: &mut Session<'_>) -> Result<(), ClientError> {
    match verb {
        Verb::Ls => {
            let issuers = session.client.list_issuers(ListIssuersRequest {}).await?.items;
            session.list(
                || issuers.iter().map(|issuer| issuer.name.clone()).collect(),
                || issuer::json_list(&issuers),
                |_, wide| issuer::table(&issuers, wide),
            )
        }
        Verb::Get { name } => {
            let found = session.client.get_issuer(GetIssuerRequest { name }).await?;
            show(&found, session)
        }
        Verb::Add(add) => {
            let request = AddIssuerRequest {
                name: add.name,
                directory: add.directory.unwrap_or_default(),
                root_pem: add.root.as_deref().map(read_roots).transpose()?.unwrap_or_default(),
                email: String::new(),
                accept_terms: add.accept_terms,
                contacts: add.contacts,
                profile: add.profile,
                preferred_chain: add.preferred_chain,
                staging_directory: add.staging,
                external_key: add.external.key()?,
                external_kid: add.external.eab_kid.unwrap_or_default(),
                private_ca: add.new_private.spec(add.private)?,
            };
            let added = session.client.add_issuer(request).await?;
            tried(added, session).await
        }
        Verb::Set(set) => {
            let request = set.request()?;
            let changed = session.client.set_issuer(request).await?;
            tried(changed, session).await
        }
        Verb::Test { name } => {
            let asked = session.client.test_issuer(TestIssuerRequest { name }).await?;
            tried(asked, session).await
        }
        Verb::Root(out) => private::root(out, session).await,
        Verb::Crl(out) => private::list(out, session).await,
        Verb::Limits(Limits { name: issuer, set, reset }) => {
            let found = if set.is_empty() && !reset {
                session.client.list_limits(ListLimitsRequest { issuer }).await?
            } else {
                session.client.set_limits(SetLimitsRequest { issuer, set, reset }).await?
            };
            session.list(
                || found.items.iter().map(|line| line.kind.clone()).collect(),
                || limit::json_list(&found),
                |now, wide| limit::table(&found, now, wide),
            )?;
            limit::notes(&found).iter().for_each(|note| session.console.note(note));
            Ok(())
        }
        Verb::Rollover { name } => {
            let asked = session.client.rollover_account(RolloverAccountRequest { name }).await?;
            tried(asked, session).await
        }
        Verb::Rm { name, confirm } => remove(&name, confirm.as_deref(), session).await,
    }
}

/// Removes an issuer; one that nobody can make again only with consent.
async fn remove(name: &str, given: Option<&str>, session: &mut Session<'_>) -> Result<(), ClientError> {
    let shown = crate::output::safe(name);
    let issuer = session.client.get_issuer(GetIssuerRequest { name: name.to_owned() }).await?;
    if issuer.private_ca.is_some() {
        let what =
            format!("Removing {shown} destroys its key: what trusts its root will never see another leaf of it.");
        confirm(session.console, &what, name, given).await?;
    }
    session.client.remove_issuer(RemoveIssuerRequest { name: name.to_owned() }).await?;
    session.console.note(&format!("issuer {shown} removed"));
    Ok(())
}

/// Waits until the controller has tried the issuer; one that does not work is kept, shown, and an error.
async fn tried(mut issuer: Issuer, session: &mut Session<'_>) -> Result<(), ClientError> {
    let name = issuer.name.clone();
    let outcome = tokio::time::timeout(TRY_TIME_MAX, async {
        while issuer.checking {
            tokio::time::sleep(LOOK_EVERY).await;
            issuer = session.client.get_issuer(GetIssuerRequest { name: name.clone() }).await?;
        }
        Ok::<_, ClientError>(())
    });
    match outcome.await {
        Ok(looked) => looked?,
        Err(_elapsed) => {
            session.console.note(&format!("issuer {} is kept, and still being tried", crate::output::safe(&name)));
        }
    }
    show(&issuer, session)?;
    let Some(problem) = &issuer.problem else { return Ok(()) };
    let message = format!("issuer {name} is kept, but does not work: {}", problem.message);
    Err(ClientError::local(ErrorKind::Failed, &problem.reason, &message, &problem.cause, &problem.hint))
}

impl Set {
    fn request(self) -> Result<SetIssuerRequest, ClientError> {
        let root = self.root.as_deref().map(read_roots).transpose()?;
        let request = SetIssuerRequest {
            root_pem: root.or_else(|| self.system_roots.then(String::new)),
            set_contacts: self.no_contacts || !self.contacts.is_empty(),
            contacts: self.contacts,
            accept_terms: self.accept_terms,
            external_key: self.external.key()?,
            external_kid: self.external.eab_kid.unwrap_or_default(),
            new_account: self.new_account,
            profile: self.profile,
            preferred_chain: self.preferred_chain,
            staging_directory: self.staging,
            private_ca: self.private.spec(),
            name: self.name,
        };
        let nothing = SetIssuerRequest { name: request.name.clone(), ..Default::default() };
        if request == nothing {
            let hint = "name what to change: certwright issuers set --help; to try it again: certwright issuers test";
            return Err(invalid("there is nothing to change", hint));
        }
        Ok(request)
    }
}

impl External {
    fn key(&self) -> Result<String, ClientError> {
        self.eab_key.as_deref().map_or(Ok(String::new()), |place| read_secret("eab-key", "the MAC key", place))
    }
}

fn show(found: &Issuer, session: &mut Session<'_>) -> Result<(), ClientError> {
    session.record(&found.name, || issuer::json(found), |now| issuer::describe(found, now))
}
