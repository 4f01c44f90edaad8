//! Our accounts at ACME servers: the key is sealed before the account is made, so that a crash in between finds the same
//! account again (design §1.4). Called by `tasks::run` and by `tasks/issuance`.

use std::collections::BTreeSet;
use std::time::Duration;

use tokio_util::sync::CancellationToken;
use tracing::{error, warn};

use super::Context;
use super::hub::Hub;
use crate::acme::account::{Account, AccountKey, AccountTerms};
use crate::acme::directory::Directory;
use crate::acme::http::TrustRoots;
use crate::acme::problem::AcmeError;
use crate::lifecycle::event::Severity;
use crate::lifecycle::issuer::Issuer;
use crate::lifecycle::problem::{Problem, chain};
use crate::store::StoreError;
use crate::store::batch::CommitError;
use crate::store::issuer::account_key_place;
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

/// Makes the accounts of new issuers until `stop`, so that an operator learns at once whether a directory works.
pub(crate) async fn run(context: Context, stop: CancellationToken) {
    without_account(&context.hub).await.iter().for_each(|id| context.hub.wake.issuers.ring(id));
    loop {
        let ids = tokio::select! {
            biased;
            () = stop.cancelled() => return,
            ids = context.hub.wake.issuers.wait() => ids,
            () = tokio::time::sleep(LOOK_AGAIN) => without_account(&context.hub).await,
        };
        for id in ids {
            let made = tokio::select! {
                biased;
                () = stop.cancelled() => return,
                made = account(&context, &id) => made,
            };
            if let Err(error) = made {
                warn!(issuer_id = id, error = %chain(&error), "no account yet");
            }
        }
    }
}

/// The ids of the issuers that have no account yet.
async fn without_account(hub: &Hub) -> BTreeSet<String> {
    match hub.store.issuers().await {
        Ok(issuers) => {
            let open = issuers.into_iter().filter(|issuer| issuer.value.account_url.is_none());
            open.map(|issuer| issuer.value.id).collect()
        }
        Err(error) => {
            error!(error = %chain(&error), "cannot list issuers");
            BTreeSet::new()
        }
    }
}

/// Returns the account to order with, and makes it when it does not exist yet. What went wrong stays on the issuer.
///
/// # Errors
/// When the CA refuses, or the store fails.
pub(crate) async fn account(context: &Context, issuer_id: &str) -> Result<Account, AccountError> {
    loop {
        let mut issuer = context.hub.store.load::<Issuer>(issuer_id).await?.ok_or(AccountError::NoIssuer)?;
        let Some(sealed) = issuer.value.account_key.clone() else {
            match seal_new_key(&context.hub, issuer).await {
                Ok(()) | Err(AccountError::Commit(CommitError::Conflict { .. })) => continue,
                Err(error) => return Err(error),
            }
        };
        let key = AccountKey(context.hub.store.keyring.open(account_key_place(issuer_id), &sealed)?);
        let terms = if issuer.value.terms_accepted { AccountTerms::Accepted } else { AccountTerms::NotAccepted };
        let contacts: Vec<String> = issuer.value.email.iter().map(|email| format!("mailto:{email}")).collect();
        let made = context
            .acme
            .account(&directory(&issuer.value), &key, &contacts, terms, issuer.value.account_url.as_deref())
            .await;
        match &made {
            Ok(account)
                if issuer.value.account_url.as_deref() == Some(account.url()) && issuer.value.problem.is_none() => {}
            Ok(account) => {
                issuer.value.account_url = Some(account.url().to_owned());
                issuer.value.problem = None;
                let event = context
                    .hub
                    .event("issuer.account", format!("account at {} is ready: {}", issuer.value.name, account.url()));
                write(&context.hub, &issuer, Some(event)).await?;
            }
            Err(error) => {
                note(context, issuer, error.problem()).await;
            }
        }
        return Ok(made?);
    }
}

/// Forgets an account that the CA does not know any more; the same key registers again.
///
/// # Errors
/// When the store fails.
pub(crate) async fn forget(context: &Context, issuer_id: &str) -> Result<(), AccountError> {
    let Some(mut issuer) = context.hub.store.load::<Issuer>(issuer_id).await? else { return Ok(()) };
    context.acme.forget(&directory(&issuer.value));
    if issuer.value.account_url.take().is_some() {
        let message = format!(
            "{} does not know our account any more; it is registered again with the same key",
            issuer.value.name
        );
        let mut event = context.hub.event("issuer.account", message);
        event.severity = Severity::Warn;
        write(&context.hub, &issuer, Some(event)).await?;
    }
    Ok(())
}

fn directory(issuer: &Issuer) -> Directory {
    let roots = issuer.root_pem.clone().map_or(TrustRoots::System, TrustRoots::Pem);
    Directory { url: issuer.directory.clone(), roots }
}

async fn seal_new_key(hub: &Hub, mut issuer: Versioned<Issuer>) -> Result<(), AccountError> {
    let key = AccountKey::generate()?;
    issuer.value.account_key = Some(hub.store.keyring.seal(account_key_place(&issuer.value.id), &key.0));
    write(hub, &issuer, None).await
}

/// Keeps what went wrong on the issuer, once per cause.
async fn note(context: &Context, mut issuer: Versioned<Issuer>, problem: Problem) {
    if issuer.value.problem.as_ref() == Some(&problem) {
        return;
    }
    let event = context.hub.event("issuer.failed", format!("{}: {}", issuer.value.name, problem.message));
    let event = event.with_problem(Severity::Error, problem.clone());
    issuer.value.problem = Some(problem);
    if let Err(error) = write(&context.hub, &issuer, Some(event)).await {
        error!(error = %chain(&error), "cannot keep an issuer's problem");
    }
}

async fn write(
    hub: &Hub,
    issuer: &Versioned<Issuer>,
    event: Option<crate::lifecycle::event::Event>,
) -> Result<(), AccountError> {
    let changes = Changes::new().update(issuer);
    let changes = match &event {
        Some(event) => changes.event(event),
        None => changes,
    };
    hub.store.commit(changes).await?;
    Ok(())
}
