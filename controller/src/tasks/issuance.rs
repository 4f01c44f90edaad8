//! Drives orders. Which certificate to look at when is the desk's (`tasks/desk`), what to do is decided by
//! `lifecycle/order`, done by `issuance/attempt`. Called by `tasks::run`.

mod attempt;
mod facts;
mod keys;

pub(crate) use self::keys::key_place;

use std::time::Duration;

use tokio_util::sync::CancellationToken;
use tracing::error;

use super::desk::{self, Errand, Looked};
use super::wake::{Bell, Wake};
use super::{Context, clock};
use crate::acme::order::AcmeOrder;
use crate::lifecycle::backoff::after;
use crate::lifecycle::problem::chain;
use crate::store::StoreError;
use crate::store::tables::Table;

/// After a failure of our own store.
const STORE_RETRY: Duration = Duration::from_secs(10);

/// Looks at certificates until `stop`.
pub(crate) async fn run(context: Context, stop: CancellationToken) {
    desk::run::<Orders>(context, stop).await;
}

/// The errand: the next step of an order.
struct Orders;

impl Errand for Orders {
    /// The conversation about its running order, kept so that the order need not be read again.
    type Kept = AcmeOrder;
    const INDEX: Table = Table::OrderDue;
    /// reliability.md: 7 requests each; a CA allows tens of orders a second.
    const PARALLEL_MAX: usize = 32;

    fn bell(wake: &Wake) -> &Bell {
        &wake.certificates
    }

    /// Nothing begins by a wrong clock, or while everything is paused. What is under way is looked at all the same.
    async fn rests(context: &Context) -> Result<bool, StoreError> {
        Ok(!clock::is_right(context) || context.hub.store.pause_all().await?.is_some())
    }

    async fn look(context: Context, id: String, kept: Option<AcmeOrder>) -> Looked<AcmeOrder> {
        steps(context, id, kept).await
    }
}

/// Does step after step until there is nothing to do at this moment.
async fn steps(context: Context, id: String, mut order: Option<AcmeOrder>) -> Looked<AcmeOrder> {
    loop {
        match attempt::step(&context, &id, &mut order).await {
            Ok(attempt::After::Again) => {}
            Ok(attempt::After::Sleep { until, place }) => return Looked { id, kept: order, place, next: until },
            Err(error) => {
                error!(
                    certificate_id = id,
                    error = %chain(&error),
                    "a step could not be recorded; it is repeated"
                );
                let next = Some(after(context.hub.now(), STORE_RETRY));
                return Looked { id, kept: order, place: None, next };
            }
        }
    }
}
