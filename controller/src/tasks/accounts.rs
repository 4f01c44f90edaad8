//! Our accounts at ACME servers: the key is sealed before the account is made, so that a crash in between finds the same
//! account again (design §1.4). What a CA wants of its customer halts the issuer, once: its orders wait and ask nothing.
//! Called by `tasks::run` and by `tasks/issuance`.

use std::collections::BTreeSet;
use std::time::Duration;

use serde_json::json;
use tokio_util::sync::CancellationToken;
use tracing::{error, warn};

use super::Context;
use super::hub::Hub;
use crate::acme::account::{Account, AccountKey, AccountTerms, Standing};
use crate::acme::directory::{Directory, DirectoryFacts};
use crate::acme::http::TrustRoots;
use crate::acme::jws::ExternalAccount;
use crate::acme::problem::AcmeError;
use crate::lifecycle::backoff;
use crate::lifecycle::event::{Event, Severity};
use crate::lifecycle::issuer::{Facts, Issuer};
use crate::lifecycle::problem::chain;
use crate::lifecycle::rate_limit::{Kind, limit_of, pace};
use crate::lifecycle::sealed::Sealed;
use crate::store::StoreError;
use crate::store::batch::CommitError;
use crate::store::issuer::{account_key_place, external_key_place, staging_key_place};
use crate::store::records::{Changes, Versioned};
use crate::store::seal::SealError;

/// An issuer whose account could not be made is tried again this often, so that its problem does not outlive its cause.
const LOOK_AGAIN: Duration = Duration::from_secs(600);

/// Why there is no account to order with.
#[derive(Debug, thiserror::Error)]
pub(crate) enum AccountError {
    /// The CA said so.
    #[error(transparent)]
    Acme(#[from] AcmeError),
    /// The issuer was removed.
    #[error("the issuer was removed")]
    NoIssuer,
    /// It waits for an operator.
    #[error("the issuer waits for an operator")]
    Halted,
    /// Reading.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Writing.
    #[error(transparent)]
    Commit(#[from] CommitError),
    /// The stored key does not open.
    #[error("the account's key does not open")]
    Seal(#[from] SealError),
}

/// Makes the accounts of new issuers and tells CAs what operators changed, until `stop`, so that an operator learns at
/// once whether an issuer works.
pub(crate) async fn run(context: Context, stop: CancellationToken) {
    open(&context.hub).await.iter().for_each(|id| context.hub.wake.issuers.ring(id));
    loop {
        let ids = tokio::select! {
            biased;
            () = stop.cancelled() => return,
            ids = context.hub.wake.issuers.wait() => ids,
            () = tokio::time::sleep(LOOK_AGAIN) => open(&context.hub).await,
        };
        for id in ids {
            let looked = tokio::select! {
                biased;
                () = stop.cancelled() => return,
                looked = look(&context, &id) => looked,
            };
            if let Err(error) = looked {
                let issuer = name(&context.hub, &id).await;
                warn!(issuer, issuer_id = id, error = %chain(&error), "the issuer does not work yet");
            }
        }
    }
}

/// The name of an issuer, for the journal; empty when it is gone.
async fn name(hub: &Hub, id: &str) -> String {
    let issuer = hub.store.load::<Issuer>(id).await;
    issuer.ok().flatten().map(|issuer| issuer.value.name).unwrap_or_default()
}

/// The ids of the issuers that should be looked at without being asked.
async fn open(hub: &Hub) -> BTreeSet<String> {
    match hub.store.issuers().await {
        Ok(issuers) => {
            let now = hub.now();
            let open = issuers.into_iter().filter(|issuer| issuer.value.is_tried_at(now));
            open.map(|issuer| issuer.value.id).collect()
        }
        Err(error) => {
            error!(error = %chain(&error), "cannot list issuers");
            BTreeSet::new()
        }
    }
}

/// Tries everything that an issuer needs: its directory, its account, what the CA has not been told. The outcome stays
/// on the issuer, and its waiting orders go on.
async fn look(context: &Context, issuer_id: &str) -> Result<(), AccountError> {
    let Some(issuer) = context.hub.store.load::<Issuer>(issuer_id).await? else { return Ok(()) };
    let halted = issuer.value.halt.is_some() || issuer.value.rolling;
    if !issuer.value.is_tried_at(context.hub.now()) {
        return Ok(());
    }
    let issuer = match rolled(context, issuer).await {
        Ok(issuer) => issuer,
        Err(AccountError::Acme(error)) => {
            fail(context, issuer_id, &error).await?;
            return Err(error.into());
        }
        Err(error) => return Err(error),
    };
    match tried(context, &issuer.value).await {
        Ok(()) => {}
        Err(AccountError::Acme(error)) => {
            fail(context, issuer_id, &error).await?;
            return Err(error.into());
        }
        Err(error) => return Err(error),
    }
    let checked = issuer.value;
    let event = context.hub.event("issuer.checked", format!("{} works", checked.name));
    let event = if checked.checking || checked.problem.is_some() { Some(event) } else { None };
    edit(&context.hub, issuer_id, event, |issuer| {
        // A change that came meanwhile rang again and is tried next.
        let same = issuer.contacts == checked.contacts
            && issuer.terms_accepted == checked.terms_accepted
            && issuer.root_pem == checked.root_pem
            && issuer.profile == checked.profile
            && issuer.external == checked.external;
        if same {
            issuer.unsent = false;
            issuer.works();
        }
    })
    .await?;
    if halted {
        // Their orders wait for it.
        context.hub.wake.ring_all();
    }
    Ok(())
}

/// Gives the account another key, if one was asked for (RFC 8555 §7.3.5). The new key is sealed before the CA is told;
/// after a crash or a lost answer the CA is asked which key it knows. Returns the issuer as it is then.
async fn rolled(context: &Context, issuer: Versioned<Issuer>) -> Result<Versioned<Issuer>, AccountError> {
    let hub = &context.hub;
    let id = issuer.value.id.clone();
    if !issuer.value.rolling {
        return Ok(issuer);
    }
    if issuer.value.next_key.is_none() {
        let key = AccountKey::generate()?;
        let sealed = hub.store.keyring.seal(account_key_place(&id), &key.0);
        edit(hub, &id, None, |issuer| issuer.next_key = issuer.next_key.clone().or_else(|| Some(sealed.clone())))
            .await?;
    }
    let issuer = hub.store.load::<Issuer>(&id).await?.ok_or(AccountError::NoIssuer)?.value;
    let next = open_key(hub, &issuer, issuer.next_key.as_ref())?;
    let old = open_key(hub, &issuer, issuer.account_key.as_ref())?;
    let (Some(next), Some(old), Some(url)) = (next, old, &issuer.account_url) else {
        // Made anew meanwhile: there is no account whose key could change.
        edit(hub, &id, None, |issuer| issuer.rolling = false).await?;
        return hub.store.load::<Issuer>(&id).await?.ok_or(AccountError::NoIssuer);
    };
    let place = directory(&issuer);
    if !matches!(context.acme.standing(&place, &next).await?, Standing::Valid(_)) {
        let changed = context.acme.change_key(&place, url, &old, &next).await;
        // A refusal may be about an earlier try whose answer was lost: the CA says which key it knows.
        if let Err(error) = changed
            && !matches!(context.acme.standing(&place, &next).await?, Standing::Valid(_))
        {
            // The old key is the account's key; the new one is kept for the next wish.
            edit(hub, &id, None, |issuer| issuer.rolling = false).await?;
            return Err(error.into());
        }
    }
    let event = hub.event("issuer.rolled_over", format!("the account at {} has another key", issuer.name));
    edit(hub, &id, Some(event), Issuer::roll_over).await?;
    hub.store.load::<Issuer>(&id).await?.ok_or(AccountError::NoIssuer)
}

async fn tried(context: &Context, issuer: &Issuer) -> Result<(), AccountError> {
    let facts = context.acme.probe_directory(&directory(issuer)).await?;
    let facts = self::facts(facts);
    if issuer.facts.as_ref() != Some(&facts) {
        edit(&context.hub, &issuer.id, None, |issuer| issuer.facts = Some(facts.clone())).await?;
    }
    if issuer.checking && issuer.account_url.is_some() {
        match standing(context, issuer).await? {
            Standing::Valid(url) => {
                edit(&context.hub, &issuer.id, None, |issuer| issuer.account_url = Some(url.clone())).await?;
            }
            Standing::Unknown => forget(context, &issuer.id).await?,
            Standing::Closed => return Err(closed(issuer).into()),
        }
    }
    if let Some(profile) = issuer.profile.as_ref().filter(|profile| !facts.profiles.contains_key(*profile)) {
        return Err(AcmeError::ProfileNotOffered { ca: issuer.name.clone(), profile: profile.clone() }.into());
    }
    let account = obtain(context, &issuer.id).await?;
    if issuer.unsent {
        let contacts = contacts(issuer);
        let update = if issuer.terms_accepted {
            json!({"contact": contacts, "termsOfServiceAgreed": true})
        } else {
            json!({"contact": contacts})
        };
        account.update(&update).await?;
    }
    Ok(())
}

/// Returns the account to order with, and makes it when it does not exist yet. What went wrong stays on the issuer.
///
/// # Errors
/// When the CA refuses, the issuer is halted, or the store fails.
pub(crate) async fn account(context: &Context, issuer_id: &str) -> Result<Account, AccountError> {
    let issuer = context.hub.store.load::<Issuer>(issuer_id).await?.ok_or(AccountError::NoIssuer)?;
    if issuer.value.halt.is_some() || issuer.value.rolling {
        return Err(AccountError::Halted);
    }
    let now = context.hub.now();
    if let Some(until) = issuer.value.rest_until(now) {
        let wait = Duration::try_from(until.duration_since(now)).unwrap_or_default();
        return Err(AcmeError::left_alone(issuer.value.ca_host(), wait).into());
    }
    match obtain(context, issuer_id).await {
        Err(AccountError::Acme(error)) => {
            fail(context, issuer_id, &error).await?;
            Err(error.into())
        }
        Ok(account) => {
            if issuer.value.problem.is_some() {
                edit(&context.hub, issuer_id, None, |issuer| {
                    issuer.problem = None;
                    issuer.retry_at = None;
                })
                .await?;
            }
            Ok(account)
        }
        Err(error) => Err(error),
    }
}

async fn obtain(context: &Context, issuer_id: &str) -> Result<Account, AccountError> {
    loop {
        let issuer = context.hub.store.load::<Issuer>(issuer_id).await?.ok_or(AccountError::NoIssuer)?;
        let Some(key) = account_key(&context.hub, &issuer.value)? else {
            match seal_new_key(&context.hub, issuer).await {
                Ok(()) | Err(AccountError::Commit(CommitError::Conflict { .. })) => continue,
                Err(error) => return Err(error),
            }
        };
        let issuer = issuer.value;
        if let Some(limit) = limit_of(&issuer, Kind::Requests) {
            context.acme.set_pace(&directory(&issuer), pace(limit));
        }
        let terms = if issuer.terms_accepted { AccountTerms::Accepted } else { AccountTerms::NotAccepted };
        let external = match &issuer.external {
            Some(external) => Some(ExternalAccount {
                kid: external.kid.clone(),
                key: context.hub.store.keyring.open(external_key_place(issuer_id), &external.key)?,
            }),
            None => None,
        };
        let known = issuer.account_url.as_deref();
        let account = context
            .acme
            .account(&directory(&issuer), &key, &contacts(&issuer), terms, external.as_ref(), known)
            .await?;
        if known != Some(account.url()) {
            let message = format!("account at {} is ready: {}", issuer.name, account.url());
            let event = context.hub.event("issuer.account", message);
            let url = account.url().to_owned();
            // Another key was asked for meanwhile: this account is not its account.
            let same = issuer.account_key.clone();
            edit(&context.hub, issuer_id, Some(event), |issuer| {
                if issuer.account_key == same {
                    issuer.account_url = Some(url.clone());
                }
            })
            .await?;
        }
        return Ok(account);
    }
}

/// Returns our account at the issuer's staging directory. What goes wrong there is not the issuer's problem.
///
/// # Errors
/// When the staging server refuses, or the store fails.
pub(crate) async fn staging_account(context: &Context, issuer_id: &str) -> Result<Account, AccountError> {
    let hub = &context.hub;
    let load = async || hub.store.load::<Issuer>(issuer_id).await?.ok_or(AccountError::NoIssuer);
    let mut issuer = load().await?.value;
    if issuer.staging_key.is_none() {
        let sealed = hub.store.keyring.seal(staging_key_place(issuer_id), &AccountKey::generate()?.0);
        edit(hub, issuer_id, None, |one| one.staging_key = one.staging_key.clone().or_else(|| Some(sealed.clone())))
            .await?;
        issuer = load().await?.value;
    }
    let sealed = issuer.staging_key.as_ref().ok_or(AccountError::NoIssuer)?;
    let key = AccountKey(hub.store.keyring.open(staging_key_place(issuer_id), sealed)?);
    let place = Directory { url: issuer.staging_directory.clone().unwrap_or_default(), ..directory(&issuer) };
    let terms = if issuer.terms_accepted { AccountTerms::Accepted } else { AccountTerms::NotAccepted };
    let known = issuer.staging_account_url.as_deref();
    let account = context.acme.account(&place, &key, &contacts(&issuer), terms, None, known).await?;
    if known != Some(account.url()) {
        edit(hub, issuer_id, None, |issuer| issuer.staging_account_url = Some(account.url().to_owned())).await?;
    }
    Ok(account)
}

/// Forgets our account at the staging directory: the same key registers again.
///
/// # Errors
/// When the store fails.
pub(crate) async fn forget_staging(context: &Context, issuer_id: &str) -> Result<(), AccountError> {
    edit(&context.hub, issuer_id, None, |issuer| issuer.staging_account_url = None).await
}

/// Reads an issuer's directory anew, for what it may offer since.
///
/// # Errors
/// When it cannot be read.
pub(crate) async fn read_directory(context: &Context, issuer_id: &str) -> Result<DirectoryFacts, AccountError> {
    let issuer = context.hub.store.load::<Issuer>(issuer_id).await?.ok_or(AccountError::NoIssuer)?;
    let read = context.acme.probe_directory(&directory(&issuer.value)).await?;
    let facts = facts(read.clone());
    edit(&context.hub, issuer_id, None, |issuer| issuer.facts = Some(facts.clone())).await?;
    Ok(read)
}

/// Keeps what a CA said on the issuer: a new problem is one event, however many orders meet it. Returns whether the
/// issuer is halted.
///
/// # Errors
/// When the store fails.
pub(crate) async fn fail(context: &Context, issuer_id: &str, error: &AcmeError) -> Result<bool, AccountError> {
    let (problem, halt) = (error.problem(), error.halt());
    let Some(issuer) = context.hub.store.load::<Issuer>(issuer_id).await? else { return Ok(false) };
    let known = issuer.value.problem.as_ref().is_some_and(|known| known.reason == problem.reason);
    let event = if known && issuer.value.halt == halt {
        None
    } else {
        let what = if halt.is_some() { "issuer.halted" } else { "issuer.failed" };
        let event = context.hub.event(what, format!("{}: {}", issuer.value.name, problem.message));
        Some(event.with_problem(Severity::Error, problem.clone()))
    };
    let asked = error.retry_after().map(|wait| backoff::after(context.hub.now(), wait));
    edit(&context.hub, issuer_id, event, |issuer| {
        issuer.fail(problem.clone(), halt);
        issuer.retry_at = asked;
    })
    .await?;
    Ok(halt.is_some())
}

/// Looks whether a refusal means that the account itself is closed; then the issuer is halted.
///
/// # Errors
/// When the store fails.
pub(crate) async fn halt_if_closed(context: &Context, issuer_id: &str) -> Result<bool, AccountError> {
    let Some(issuer) = context.hub.store.load::<Issuer>(issuer_id).await? else { return Ok(false) };
    if let Some(next) = open_key(&context.hub, &issuer.value, issuer.value.next_key.as_ref())?
        && let Ok(Standing::Valid(_)) = context.acme.standing(&directory(&issuer.value), &next).await
    {
        // A key change that seemed to have failed was done after all.
        let message = format!("the account at {} has the key that it was to get", issuer.value.name);
        edit(&context.hub, issuer_id, Some(context.hub.event("issuer.rolled_over", message)), Issuer::roll_over)
            .await?;
        return Ok(true);
    }
    match standing(context, &issuer.value).await {
        Ok(Standing::Closed) => fail(context, issuer_id, &closed(&issuer.value)).await,
        // Not known: the refusal itself is what is shown.
        Ok(Standing::Valid(_) | Standing::Unknown) | Err(AccountError::Acme(_)) => Ok(false),
        Err(error) => Err(error),
    }
}

async fn standing(context: &Context, issuer: &Issuer) -> Result<Standing, AccountError> {
    match account_key(&context.hub, issuer)? {
        Some(key) => Ok(context.acme.standing(&directory(issuer), &key).await?),
        None => Ok(Standing::Unknown),
    }
}

fn closed(issuer: &Issuer) -> AcmeError {
    AcmeError::AccountClosed { ca: issuer.name.clone(), status: "deactivated or revoked".to_owned() }
}

/// Forgets an account that the CA does not know any more; the same key registers again.
///
/// # Errors
/// When the store fails.
pub(crate) async fn forget(context: &Context, issuer_id: &str) -> Result<(), AccountError> {
    let Some(issuer) = context.hub.store.load::<Issuer>(issuer_id).await? else { return Ok(()) };
    context.acme.forget(&directory(&issuer.value));
    if issuer.value.account_url.is_some() {
        let message = format!(
            "{} does not know our account any more; it is registered again with the same key",
            issuer.value.name
        );
        let mut event = context.hub.event("issuer.account", message);
        event.severity = Severity::Warn;
        edit(&context.hub, issuer_id, Some(event), |issuer| issuer.account_url = None).await?;
    }
    Ok(())
}

/// Where an issuer's CA is, and whom to believe that it is the one.
pub(super) fn directory(issuer: &Issuer) -> Directory {
    let roots = issuer.root_pem.clone().map_or(TrustRoots::System, TrustRoots::Pem);
    Directory { url: issuer.directory.clone(), roots }
}

fn contacts(issuer: &Issuer) -> Vec<String> {
    issuer.contacts.iter().map(|address| format!("mailto:{address}")).collect()
}

fn facts(read: DirectoryFacts) -> Facts {
    Facts {
        terms_of_service: read.terms_of_service,
        external_account_required: read.external_account_required,
        caa_identities: read.caa_identities,
        profiles: read.profiles,
        renewal_info: read.renewal_info,
    }
}

fn account_key(hub: &Hub, issuer: &Issuer) -> Result<Option<AccountKey>, AccountError> {
    open_key(hub, issuer, issuer.account_key.as_ref())
}

/// Both keys are sealed for the same place: the next one moves into it.
fn open_key(hub: &Hub, issuer: &Issuer, sealed: Option<&Sealed>) -> Result<Option<AccountKey>, AccountError> {
    let open = |sealed| hub.store.keyring.open(account_key_place(&issuer.id), sealed);
    Ok(sealed.map(open).transpose()?.map(AccountKey))
}

async fn seal_new_key(hub: &Hub, mut issuer: Versioned<Issuer>) -> Result<(), AccountError> {
    let key = AccountKey::generate()?;
    issuer.value.account_key = Some(hub.store.keyring.seal(account_key_place(&issuer.value.id), &key.0));
    hub.store.commit(Changes::new().update(&issuer)).await?;
    Ok(())
}

/// Changes an issuer, again if someone else changed it in between; one that was removed stays removed.
async fn edit(hub: &Hub, id: &str, event: Option<Event>, change: impl Fn(&mut Issuer)) -> Result<(), AccountError> {
    loop {
        let Some(mut issuer) = hub.store.load::<Issuer>(id).await? else { return Ok(()) };
        let before = issuer.value.clone();
        change(&mut issuer.value);
        if before == issuer.value && event.is_none() {
            return Ok(());
        }
        let changes = Changes::new().update(&issuer);
        let changes = event.iter().fold(changes, |changes, event| changes.event(event));
        match hub.store.commit(changes).await {
            Err(CommitError::Conflict { .. }) => {}
            done => return Ok(done.map(drop)?),
        }
    }
}
