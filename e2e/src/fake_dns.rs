//! The domain name system of the simulation: a table that tests write. The controller's lookups and the CA's own read
//! the same one.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use controller::dns::lookup::{CaaRecord, Lookup, LookupError};

use crate::power::PowerSwitch;

/// How long a lookup takes.
const LATENCY: Duration = Duration::from_millis(5);

/// All names. Clones share them.
#[derive(Clone, Debug, Default)]
pub struct FakeDns(Arc<Mutex<BTreeMap<String, Records>>>);

#[derive(Clone, Debug)]
struct Records {
    addresses: Result<Vec<IpAddr>, LookupError>,
    caa: Vec<CaaRecord>,
}

impl FakeDns {
    fn with<T>(&self, act: impl FnOnce(&mut BTreeMap<String, Records>) -> T) -> T {
        act(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Gives a name these addresses; none means that it exists without any.
    pub fn set(&self, name: &str, addresses: &[IpAddr]) {
        let addresses = if addresses.is_empty() { Err(LookupError::NoRecords) } else { Ok(addresses.to_vec()) };
        self.with(|names| names.insert(name.to_owned(), Records { addresses, caa: Vec::new() }));
    }

    /// Makes the servers of a name unreachable.
    pub fn break_servers(&self, name: &str) {
        let addresses = Err(LookupError::Unreachable("SERVFAIL".to_owned()));
        self.with(|names| names.insert(name.to_owned(), Records { addresses, caa: Vec::new() }));
    }

    /// Removes a name.
    pub fn remove(&self, name: &str) {
        self.with(|names| names.remove(name));
    }

    /// Gives a name, which must be there, these CAA records.
    pub fn set_caa(&self, name: &str, records: &[CaaRecord]) {
        self.with(|names| names.get_mut(name).expect("set the name first").caa = records.to_vec());
    }

    /// Returns the addresses of a name.
    ///
    /// # Errors
    /// As the resolver says.
    pub fn resolve(&self, name: &str) -> Result<Vec<IpAddr>, LookupError> {
        if let Ok(address) = name.parse() {
            return Ok(vec![address]);
        }
        self.with(|names| names.get(name).cloned()).map_or(Err(LookupError::NoSuchName), |records| records.addresses)
    }

    /// Returns the resolver for one life of the controller.
    #[must_use]
    pub fn lookup(&self, switch: PowerSwitch) -> Arc<dyn Lookup> {
        Arc::new(SimLookup { dns: self.clone(), switch })
    }
}

#[derive(Debug)]
struct SimLookup {
    dns: FakeDns,
    switch: PowerSwitch,
}

#[async_trait]
impl Lookup for SimLookup {
    async fn addresses(&self, name: &str) -> Result<Vec<IpAddr>, LookupError> {
        self.switch.run(tokio::time::sleep(LATENCY)).await;
        self.dns.resolve(name)
    }

    async fn caa(&self, name: &str) -> Result<Vec<CaaRecord>, LookupError> {
        self.switch.run(tokio::time::sleep(LATENCY)).await;
        let records = self.dns.with(|names| names.get(name).cloned()).ok_or(LookupError::NoSuchName)?;
        if records.caa.is_empty() { Err(LookupError::NoRecords) } else { Ok(records.caa) }
    }
}
