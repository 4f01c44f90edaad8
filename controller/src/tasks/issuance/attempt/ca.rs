//! The steps that talk to the CA, one request each where RFC 8555 allows. Whatever was interrupted is read again from
//! the CA before anything is sent twice.

use super::{Attempt, StepError};
use crate::acme::account::Account;
use crate::acme::directory::DirectoryFacts;
use crate::acme::order::{AcmeOrder, AuthorizationFacts, AuthorizationStatus, OrderFacts, OrderStatus};
use crate::acme::problem::AcmeError;
use crate::lifecycle::backoff::poll_at;
use crate::lifecycle::certificate::CurrentVersion;
use crate::lifecycle::due::Urgency;
use crate::lifecycle::event::Severity;
use crate::lifecycle::fallback::is_of_names;
use crate::lifecycle::issuer::Issuer;
use crate::lifecycle::order::{Authorization, AuthorizationState, CaStatus, Order, Phase};
use crate::lifecycle::problem::Problem;
use crate::lifecycle::rate_limit::{Ask, Refusal, exemption, same_names};
use crate::store::records::{Changes, Versioned};
use crate::tasks::accounts::{self, AccountError};
use crate::tasks::limits::{self, Asked};
use crate::tasks::renewal_info;

/// The conversation about an order.
struct Resumed<'h> {
    order: &'h mut AcmeOrder,
    /// It was read from the CA just now: its facts are fresh.
    fresh: bool,
}

impl Attempt<'_> {
    /// Returns the conversation about the recorded order, and takes it up again after a restart.
    async fn resume<'h>(&self, handle: &'h mut Option<AcmeOrder>) -> Result<Resumed<'h>, StepError> {
        let record = self.order()?.value;
        let url = record.order_url.as_deref().unwrap_or_default();
        match handle.take_if(|order| order.url() == url) {
            Some(order) => Ok(Resumed { order: handle.insert(order), fresh: false }),
            None => {
                let account = self.account(&record).await?;
                Ok(Resumed { order: handle.insert(account.resume(url).await?), fresh: true })
            }
        }
    }

    /// The account that the order is asked of: the issuer's, or the one at its staging directory.
    async fn account(&self, order: &Order) -> Result<Account, StepError> {
        if order.rehearsal {
            Ok(accounts::staging_account(self.context, &order.issuer_id).await?)
        } else {
            Ok(accounts::account(self.context, &order.issuer_id).await?)
        }
    }

    /// What the staging server refused. A verdict about our names is the failure of the attempt, and has cost nothing at
    /// the issuer; anything else must not hinder it: the attempt goes on there.
    pub(super) async fn refused_at_rehearsal(
        &self,
        mut record: Versioned<Order>,
        error: AcmeError,
    ) -> Result<(), StepError> {
        let mut problem = error.problem();
        if is_of_names(&problem.reason) {
            problem.message = format!("rehearsal at the staging server: {}", problem.message);
            return self.fail(problem, error.retry(), true).await;
        }
        if error.is_account_gone() {
            accounts::forget_staging(self.context, &record.value.issuer_id).await?;
        }
        record.value.end_rehearsal(self.context.hub.now());
        let message = "the staging server cannot rehearse it; the issuer is asked";
        let event = self.event("order.rehearsal", message).with_problem(Severity::Warn, problem);
        self.save(&record, Changes::new().event(&event)).await
    }

    /// The same for a caller that does not mind how fresh it is.
    pub(super) async fn resume_order<'h>(
        &self,
        handle: &'h mut Option<AcmeOrder>,
    ) -> Result<&'h mut AcmeOrder, StepError> {
        Ok(self.resume(handle).await?.order)
    }

    pub(super) async fn create_order(&self, handle: &mut Option<AcmeOrder>) -> Result<(), StepError> {
        let mut record = self.order()?;
        let account = self.account(&record.value).await?;
        if record.value.rehearsal {
            let order = account.new_order(&record.value.identifiers, None, None).await?;
            record.value.order_url = Some(order.url().to_owned());
            let event = self.event("order.rehearsal", format!("the staging server opened {}", order.url()));
            *handle = Some(order);
            return self.save(&record, Changes::new().event(&event)).await;
        }
        let profile = self.profile(&record.value, account.directory()).await?;
        let issuer = self.issuer(&record.value).await?;
        let replaces = self.replaces(&record.value, &account).await?;
        let ask = self.ask(&issuer, &record.value, replaces.is_some());
        let spent = match limits::ask(&self.context.hub, ask, &record).await? {
            Asked::Go(spent) => spent,
            Asked::Wait(wait) => {
                let problem = wait.problem(&self.certificate().name, &issuer);
                return self.wait_for_limit(problem, wait.until).await;
            }
        };
        let sent = account.new_order(&record.value.identifiers, profile.as_deref(), replaces.as_deref()).await;
        if let (Err(error), Some(entry)) = (&sent, &spent)
            && error.is_refusal()
        {
            limits::refused(&self.context.hub, &issuer, entry).await?;
        }
        let order = match sent {
            Ok(order) => order,
            Err(error) if replaces.is_some() && error.is_replaces_refused() => {
                // Kept before it is asked for without, so that a crash in between does not ask with it again.
                record.value.replaces_refused = true;
                let message = "the CA does not take the order as a replacement; it is asked for without";
                let event = self.event("order.created", message).with_problem(Severity::Info, error.problem());
                return self.save(&record, Changes::new().event(&event)).await;
            }
            Err(error) => return Err(error.into()),
        };
        record.value.profile = profile;
        record.value.order_url = Some(order.url().to_owned());
        record.value.spent = spent.map(|entry| entry.id);
        record.value.account_url = Some(account.url().to_owned());
        let serial = self.certificate().current.as_ref().filter(|_| replaces.is_some()).map(|current| &current.serial);
        let successor = serial.map(|serial| format!(", which replaces {serial}")).unwrap_or_default();
        let event = self.event("order.created", format!("the CA opened {}{successor}", order.url()));
        *handle = Some(order);
        self.save(&record, Changes::new().event(&event)).await
    }

    /// What the order says it replaces (RFC 9773 §5): the current version, where the same issuer made it and it shares a
    /// name with the order.
    async fn replaces(&self, order: &Order, account: &Account) -> Result<Option<String>, StepError> {
        let shares = |current: &CurrentVersion| {
            current.issuer_id == order.issuer_id
                && current.identifiers.iter().any(|one| order.identifiers.contains(one))
        };
        let replaceable = self.certificate().current.as_ref().is_some_and(shares);
        if !replaceable || order.replaces_refused || !account.offers_renewal_info() {
            return Ok(None);
        }
        Ok(renewal_info::renewal_id(self.context, self.certificate()).await?)
    }

    /// The issuer of an order.
    async fn issuer(&self, order: &Order) -> Result<Issuer, StepError> {
        Ok(self.issuer_record(order).await?.value)
    }

    /// The same, with its revision.
    pub(super) async fn issuer_record(&self, order: &Order) -> Result<Versioned<Issuer>, StepError> {
        let issuer = self.context.hub.store.load::<Issuer>(&order.issuer_id).await?;
        Ok(issuer.ok_or(AccountError::NoIssuer)?)
    }

    /// What the CA's limits need to know of an order.
    fn ask<'a>(&'a self, issuer: &'a Issuer, order: &'a Order, replaces: bool) -> Ask<'a> {
        let current = self.certificate().current.as_ref().filter(|current| current.issuer_id == issuer.id);
        let same_set = current.is_some_and(|current| same_names(&current.identifiers, &order.identifiers));
        Ask {
            certificate_id: &order.certificate_id,
            issuer,
            identifiers: &order.identifiers,
            exemption: exemption(issuer, replaces, same_set),
            urgency: Urgency::of(self.certificate()).at(self.now),
        }
    }

    /// Keeps in the ledger what a CA's refusal says about its limits.
    pub(super) async fn learn(&self, error: &AcmeError) -> Result<(), StepError> {
        let order = self.order()?.value;
        let hub = &self.context.hub;
        let Some(issuer) = hub.store.load::<Issuer>(&order.issuer_id).await? else { return Ok(()) };
        let issuer = issuer.value;
        if let Some((status, detail, retry_after)) = error.too_often() {
            limits::close(hub, self.ask(&issuer, &order, false), Refusal { status, detail, retry_after }).await?;
        }
        if let AcmeError::OrderInvalid { identifier: Some(identifier), .. } = error {
            limits::failed_authorization(hub, &issuer, identifier).await?;
        }
        if let (AcmeError::OrderInvalid { .. }, Some(entry_id)) = (error, &order.spent) {
            limits::not_issued(hub, &issuer, entry_id).await?;
        }
        Ok(())
    }

    /// The profile to order: the certificate's, else the issuer's default. A fallback that does not know the first one's
    /// profile is asked for its own default. What the directory did not list when it was read last is looked up there now.
    async fn profile(&self, order: &Order, known: &DirectoryFacts) -> Result<Option<String>, StepError> {
        let wanted = &self.certificate().specification;
        let of_issuer = self.gathered.issuers.iter().find(|issuer| issuer.id == order.issuer_id);
        let of_issuer = of_issuer.and_then(|issuer| issuer.profile.clone());
        let is_first = order.issuer_id == wanted.issuer_id;
        let named = wanted.profile.clone().filter(|profile| is_first || known.profiles.contains_key(profile));
        let Some(profile) = named.or(of_issuer) else { return Ok(None) };
        if !known.profiles.contains_key(&profile) {
            let facts = accounts::read_directory(self.context, &order.issuer_id).await?;
            if !facts.profiles.contains_key(&profile) {
                return Err(StepError::Refused(not_offered(&profile, &facts)));
            }
        }
        Ok(Some(profile))
    }

    pub(super) async fn read_authorizations(&self, handle: &mut Option<AcmeOrder>) -> Result<(), StepError> {
        let mut record = self.order()?;
        let read = match self.resume(handle).await {
            Ok(resumed) => resumed,
            Err(StepError::Acme(error)) if error.is_order_gone() => return self.start_over(record, handle).await,
            Err(error) => return Err(error),
        };
        let facts = read.order.facts();
        match facts.status {
            // Given up by the CA since an earlier attempt; a new order that is born invalid counts as a failure.
            OrderStatus::Invalid if read.fresh => return self.start_over(record, handle).await,
            OrderStatus::Invalid => return Err(StepError::Acme(read.order.invalid_cause().await)),
            OrderStatus::Pending => {}
            OrderStatus::Ready | OrderStatus::Processing | OrderStatus::Valid => {
                self.absorb(&mut record.value, &facts);
                return self.save(&record, Changes::new()).await;
            }
        }
        let authorizations = read.order.authorizations().await?;
        if authorizations
            .iter()
            .any(|one| matches!(one.status, AuthorizationStatus::Invalid | AuthorizationStatus::Gone))
        {
            return Err(StepError::Acme(read.order.invalid_cause().await));
        }
        let named: Vec<String> = authorizations.iter().map(|one| one.identifier.clone()).collect();
        if !same_names(&named, &record.value.identifiers) {
            return Err(StepError::Refused(not_our_names(&named)));
        }
        record.value.authorizations = authorizations.iter().map(authorization).collect::<Result<_, _>>()?;
        record.value.polls = 0;
        let open = record.value.authorizations.iter().any(|one| one.state == AuthorizationState::Pending);
        record.value.enter(if open { Phase::Publishing } else { Phase::Validating }, self.context.hub.now());
        self.save(&record, Changes::new()).await?;
        self.wake_agents();
        Ok(())
    }

    /// The CA no longer knows the order, or gave it up: forget it and make a new one.
    async fn start_over(&self, mut record: Versioned<Order>, handle: &mut Option<AcmeOrder>) -> Result<(), StepError> {
        *handle = None;
        let event = self.event("order.lost", "the earlier order is no longer open at the CA; a new one is made");
        record.value.order_url = None;
        record.value.authorizations.clear();
        self.save(&record, Changes::new().event(&event)).await
    }

    pub(super) async fn answer(&self, handle: &mut Option<AcmeOrder>, identifier: &str) -> Result<(), StepError> {
        let mut record = self.order()?;
        let resumed = self.resume(handle).await?;
        resumed.order.answer(identifier).await?;
        let now = self.context.hub.now();
        for one in record.value.authorizations.iter_mut().filter(|one| one.identifier == identifier) {
            one.state = AuthorizationState::Answered;
        }
        record.value.polls = 0;
        record.value.poll_at = Some(poll_at(now, 0, None));
        record.value.enter(Phase::Validating, now);
        self.save(&record, Changes::new()).await
    }

    pub(super) async fn poll(&self, handle: &mut Option<AcmeOrder>) -> Result<(), StepError> {
        let mut record = self.order()?;
        let resumed = self.resume(handle).await?;
        let facts = if resumed.fresh { resumed.order.facts() } else { resumed.order.refresh().await? };
        if facts.status == OrderStatus::Invalid {
            return Err(StepError::Acme(resumed.order.invalid_cause().await));
        }
        let validated = record.value.phase == Phase::Validating && facts.status != OrderStatus::Pending;
        let rehearsed = record.value.rehearsal;
        self.absorb(&mut record.value, &facts);
        let changes = if validated {
            let who = if rehearsed { "rehearsal passed: the staging server" } else { "the CA" };
            Changes::new().event(&self.event("order.validated", format!("{who} validated every name")))
        } else {
            Changes::new()
        };
        self.save(&record, changes).await?;
        if validated {
            // Tokens are withdrawn now.
            self.wake_agents();
        }
        Ok(())
    }

    pub(super) async fn finalize(&self, handle: &mut Option<AcmeOrder>) -> Result<(), StepError> {
        let mut record = self.order()?;
        let csr = self.csr()?;
        let resumed = self.resume(handle).await?;
        let before = resumed.order.facts();
        // After a restart the CA may be further than the record: it is not asked twice.
        let facts = if resumed.fresh && before.status != OrderStatus::Ready {
            before
        } else {
            resumed.order.finalize(&csr).await?
        };
        match facts.status {
            OrderStatus::Invalid => return Err(StepError::Acme(resumed.order.invalid_cause().await)),
            // It took the CSR and still waits for it: asked again and again, it would never end.
            OrderStatus::Ready | OrderStatus::Pending => return Err(StepError::Refused(not_finalized())),
            OrderStatus::Processing | OrderStatus::Valid => {}
        }
        record.value.polls = 0;
        self.absorb(&mut record.value, &facts);
        self.save(&record, Changes::new()).await
    }

    /// Takes over what the CA says about the order.
    fn absorb(&self, order: &mut Order, facts: &OrderFacts) {
        let now = self.context.hub.now();
        order.poll_at = Some(poll_at(now, order.polls, facts.retry_after));
        order.polls = order.polls.saturating_add(1);
        let status = match facts.status {
            OrderStatus::Pending | OrderStatus::Invalid => CaStatus::Pending,
            OrderStatus::Ready => CaStatus::Ready,
            OrderStatus::Processing => CaStatus::Processing,
            OrderStatus::Valid => CaStatus::Valid,
        };
        order.ca_status = status;
        if status != CaStatus::Pending {
            if order.rehearsal {
                // Nothing is finalized there: a rehearsal makes no certificate.
                order.end_rehearsal(now);
                return;
            }
            order.authorizations.iter_mut().for_each(|one| one.state = AuthorizationState::Valid);
            order.enter(Phase::Finalizing, now);
        }
    }

    pub(super) fn csr(&self) -> Result<Vec<u8>, StepError> {
        use base64::Engine as _;
        let csr = self.gathered.bundle.order_slot().and_then(|slot| slot.value.csr.as_deref());
        let der = csr.and_then(|csr| base64::engine::general_purpose::STANDARD.decode(csr).ok());
        der.ok_or_else(|| {
            let name = &self.certificate().name;
            StepError::Refused(Problem::new(
                "CSR_LOST",
                format!("the CSR for {name} is not readable"),
                "the record of its key is damaged",
                format!("certwright certs renew {name} makes a new key"),
            ))
        })
    }
}

/// A server without profiles would silently ignore the wish.
fn not_offered(profile: &str, facts: &DirectoryFacts) -> Problem {
    let offered: Vec<&str> = facts.profiles.keys().map(String::as_str).collect();
    let cause = match offered.as_slice() {
        [] => "its directory lists no profiles".to_owned(),
        offered => format!("its directory lists {}", offered.join(", ")),
    };
    let hint = "choose another profile: certwright certs set NAME --profile PROFILE (or --profile default), or certwright issuers set NAME --profile PROFILE";
    Problem::new(
        "PROFILE_NOT_OFFERED",
        format!("the issuer offers no profile {profile}; nothing was ordered"),
        cause,
        hint,
    )
}

fn authorization(facts: &AuthorizationFacts) -> Result<Authorization, StepError> {
    let valid = facts.status == AuthorizationStatus::Valid;
    let (token, key_authorization) = match &facts.http01 {
        Some(challenge) => (challenge.token.clone(), challenge.key_authorization.clone()),
        None if valid => (String::new(), String::new()),
        None => {
            return Err(StepError::Refused(Problem::new(
                "NO_HTTP01",
                format!("the CA offers no HTTP-01 challenge for {}", facts.identifier),
                "its authorization lists other challenge types only",
                "use a CA that offers HTTP-01 for this name",
            )));
        }
    };
    let state = if valid { AuthorizationState::Valid } else { AuthorizationState::Pending };
    Ok(Authorization { identifier: facts.identifier.clone(), token, key_authorization, state })
}

fn not_our_names(named: &[String]) -> Problem {
    let cause = format!("it wants proof for {}", named.join(", "));
    let hint = "nothing to do now: a new order is made at the next try; if it happens again, tell the CA";
    Problem::new("ORDER_WRONG", "the CA's order names other identifiers than were ordered", cause, hint)
}

fn not_finalized() -> Problem {
    let hint = "nothing to do now: a new order is made at the next try; if it happens again, tell the CA";
    Problem::new("ORDER_WRONG", "the CA took the CSR and did nothing with it", "its order still waits for a CSR", hint)
}
