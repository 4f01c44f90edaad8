//! Level-triggered tasks without input: each wakes by timer or by a "look again" signal, reads the store, does one thing
//! at a time and records it (design §1.2). A restart takes the same road as every other day.

pub(crate) mod audit;
pub mod clock;
pub mod hub;
pub mod limits;
pub mod presence;
pub mod questions;
pub(crate) mod rehearsal;
pub mod wake;

pub(crate) mod accounts;
pub(crate) mod batches;
pub(crate) mod deletion;
pub(crate) mod departures;
mod desk;
pub(crate) mod issuance;
pub(crate) mod jobs;
pub(crate) mod mail;
pub(crate) mod outcome;
pub(crate) mod private_ca;
pub(crate) mod proof;
pub(crate) mod publish;
pub(crate) mod renewal_info;
pub mod restore;
pub(crate) mod retention;
pub(crate) mod revocation;
pub(crate) mod rollback;
pub(crate) mod room;

use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tracing::error;

use self::hub::Hub;
use crate::acme::account::Acme;
use crate::config::Mail;
use crate::dns::lookup::Lookup;
use crate::preflight::probe::Probe;

/// A task that ended by a bug starts again after this.
const RESTART_AFTER: Duration = Duration::from_secs(5);

/// What the tasks may use: the hub, and the edges that `rpc` must not touch.
#[derive(Clone, Debug)]
pub(crate) struct Context {
    /// Store, clock and signals.
    pub(crate) hub: Hub,
    /// ACME servers.
    pub(crate) acme: Arc<Acme>,
    /// Names.
    pub(crate) lookup: Arc<dyn Lookup>,
    /// The token as a CA would see it.
    pub(crate) probe: Arc<dyn Probe>,
    /// The local mailer.
    pub(crate) mail: Mail,
    /// Host name of the controller.
    pub(crate) name: String,
}

/// Runs all tasks until `stop`. A task that panics is logged and starts again.
pub(crate) async fn run(context: Context, stop: CancellationToken) {
    let mut tasks = JoinSet::new();
    for name in Name::ALL {
        tasks.spawn(supervise(name, context.clone(), stop.clone()));
    }
    while tasks.join_next().await.is_some() {}
}

/// The tasks by name.
#[derive(Clone, Copy, Debug)]
enum Name {
    Clock,
    Accounts,
    Issuance,
    Jobs,
    Publish,
    Deletion,
    Departures,
    Retention,
    RenewalInfo,
    Mail,
    Revocation,
    Proof,
    Batches,
    PrivateCa,
    Room,
}

impl Name {
    const ALL: [Self; 15] = [
        Self::Clock,
        Self::Accounts,
        Self::Issuance,
        Self::Jobs,
        Self::Publish,
        Self::Deletion,
        Self::Departures,
        Self::Retention,
        Self::RenewalInfo,
        Self::Mail,
        Self::Revocation,
        Self::Proof,
        Self::Batches,
        Self::PrivateCa,
        Self::Room,
    ];
}

impl Name {
    /// Whether it stands still while a restored controller is not accepted. The others change nothing outside.
    fn is_held(self) -> bool {
        match self {
            Self::Clock | Self::Departures | Self::Mail | Self::Room => false,
            Self::Accounts
            | Self::Issuance
            | Self::Jobs
            | Self::Publish
            | Self::Deletion
            | Self::Retention
            | Self::RenewalInfo
            | Self::Revocation
            | Self::Proof
            | Self::Batches
            | Self::PrivateCa => true,
        }
    }
}

async fn supervise(name: Name, context: Context, stop: CancellationToken) {
    while !stop.is_cancelled() {
        let mut one = JoinSet::new();
        let gate = Arc::clone(&context.hub.gate);
        if name.is_held() {
            tokio::select! {
                () = stop.cancelled() => return,
                () = gate.opened() => {}
            }
        }
        let ended = stop.child_token();
        let (context, child) = (context.clone(), ended.clone());
        match name {
            Name::Clock => one.spawn(clock::run(context, child)),
            Name::Accounts => one.spawn(accounts::run(context, child)),
            Name::Issuance => one.spawn(issuance::run(context, child)),
            Name::Jobs => one.spawn(jobs::run(context.hub, child)),
            Name::Publish => one.spawn(publish::run(context.hub, child)),
            Name::Deletion => one.spawn(deletion::run(context.hub, child)),
            Name::Retention => one.spawn(retention::run(context.hub, child)),
            Name::Revocation => one.spawn(revocation::run(context, child)),
            Name::Mail => one.spawn(mail::run(context.hub, context.mail, context.name, child)),
            Name::RenewalInfo => one.spawn(renewal_info::run(context, child)),
            Name::Proof => one.spawn(proof::run(context.hub, child)),
            Name::Batches => one.spawn(batches::run(context.hub, child)),
            Name::PrivateCa => one.spawn(private_ca::run(context, child)),
            Name::Room => one.spawn(room::run(context.hub, child)),
            Name::Departures => one.spawn(departures::run(context.hub, child)),
        };
        let mut joined = tokio::select! {
            joined = one.join_next() => Some(joined),
            () = gate.closed(), if name.is_held() => None,
        };
        if joined.is_none() {
            // The step that it is in is done and written down; then it waits until the restore is accepted.
            ended.cancel();
            joined = Some(one.join_next().await);
        }
        if let Some(Some(Err(panic))) = joined {
            error!(task = ?name, %panic, "task ended by a bug; it starts again");
            tokio::select! {
                () = stop.cancelled() => {}
                () = tokio::time::sleep(RESTART_AFTER) => {}
            }
        }
    }
}
