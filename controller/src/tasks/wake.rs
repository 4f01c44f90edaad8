//! "Look again": names of records whose task should look, merged while it is busy. A lost signal does no harm, because
//! every task also sweeps the store when it starts and now and then. Called by `rpc` and by tasks.

use std::collections::BTreeSet;
use std::sync::{Mutex, PoisonError};

use tokio::sync::{Notify, watch};

/// Signals to the tasks.
#[derive(Debug, Default)]
pub struct Wake {
    /// Certificates for `tasks/issuance`.
    pub certificates: Bell,
    /// Agents for `tasks/publish`.
    pub agents: Bell,
    /// Certificates for `tasks/jobs`.
    pub jobs: Bell,
    /// Agents whose stream ended, for `tasks/departures`.
    pub gone: Bell,
    /// Certificates for `tasks/renewal_info`.
    pub renewals: Bell,
    /// Certificates for `tasks/revocation`.
    pub revocations: Bell,
    /// Certificates whose attempt ended, for `tasks/mail`.
    pub mail: Bell,
    /// Issuers for `tasks/accounts`.
    pub issuers: Bell,
    /// Issuers for `tasks/private_ca`.
    pub private_cas: Bell,
    /// Acts on many certificates, for `tasks/batches`.
    pub batches: Bell,
    /// Grows when everything that is due or held should be looked at.
    again: watch::Sender<u64>,
}

impl Wake {
    /// Asks for a look at all certificates that are due or held: the clock leapt, a pause was lifted, an issuer works again.
    pub fn ring_all(&self) {
        self.again.send_modify(|count| *count = count.wrapping_add(1));
    }

    /// Grows with every [`Self::ring_all`].
    #[must_use]
    pub fn again(&self) -> watch::Receiver<u64> {
        self.again.subscribe()
    }
}

/// A set of ids that someone should look at; at most one entry per record.
#[derive(Debug, Default)]
pub struct Bell {
    ids: Mutex<BTreeSet<String>>,
    notify: Notify,
}

impl Bell {
    /// Asks for a look at one record.
    pub fn ring(&self, id: &str) {
        self.ids.lock().unwrap_or_else(PoisonError::into_inner).insert(id.to_owned());
        self.notify.notify_one();
    }

    /// Waits until something rang, and takes all ids. Cancel-safe: ids are taken only when the wait is over.
    pub async fn wait(&self) -> BTreeSet<String> {
        loop {
            let notified = self.notify.notified();
            let ids = self.take();
            if !ids.is_empty() {
                return ids;
            }
            notified.await;
        }
    }

    fn take(&self) -> BTreeSet<String> {
        std::mem::take(&mut *self.ids.lock().unwrap_or_else(PoisonError::into_inner))
    }
}
