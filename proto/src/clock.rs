//! The one clock. Nothing else may ask the system for the wall time; who needs time takes a `Timestamp` or a `Clock`.
//! The simulation has the second implementation.

use std::fmt::Debug;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use rustls::pki_types::UnixTime;
use rustls::time_provider::TimeProvider;

/// Tells the wall time, UTC.
pub trait Clock: Send + Sync + Debug {
    /// Returns the current instant.
    fn now(&self) -> Timestamp;
}

/// The system's wall clock.
#[derive(Debug, Default, Clone, Copy)]
pub struct SystemClock;

impl Clock for SystemClock {
    #[allow(clippy::disallowed_methods, reason = "this is the clock")]
    fn now(&self) -> Timestamp {
        Timestamp::now()
    }
}

/// Gives rustls the same time as everything else.
#[derive(Debug, Clone)]
pub struct TlsTime(pub Arc<dyn Clock>);

impl TimeProvider for TlsTime {
    fn current_time(&self) -> Option<UnixTime> {
        Some(unix_time(self.0.now()))
    }
}

/// Returns `at` as rustls wants it; instants before 1970 become 1970.
#[must_use]
pub fn unix_time(at: Timestamp) -> UnixTime {
    UnixTime::since_unix_epoch(Duration::from_secs(u64::try_from(at.as_second()).unwrap_or(0)))
}

/// Returns `at` as the wire's Unix milliseconds; `None` is 0.
#[must_use]
pub fn to_wire(at: Option<Timestamp>) -> i64 {
    at.map_or(0, |at| at.as_millisecond())
}

/// Reads the wire's Unix milliseconds; 0 and instants out of range are `None`.
#[must_use]
pub fn from_wire(at: i64) -> Option<Timestamp> {
    if at == 0 { None } else { Timestamp::from_millisecond(at).ok() }
}
