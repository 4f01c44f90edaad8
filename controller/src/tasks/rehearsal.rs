//! Looks at a certificate's names as a CA would, when an operator asks: the same look that comes before every order, with the whole
//! way told. Called by `rpc/operator/challenges`, which has agents serve the tokens meanwhile.

use std::net::IpAddr;
use std::sync::Arc;

use futures_util::stream::{StreamExt as _, iter};
use proto::id::random_id;
use tokio::time::{Instant, timeout_at};

use crate::dns::lookup::Lookup;
use crate::lifecycle::problem::Problem;
use crate::preflight::probe::Probe;
use crate::preflight::{Verdict, trail, trails};

/// Names that are looked at at the same time.
const AT_ONCE: usize = 16;
/// What says that a token is not where it should be: no fault of the way when nobody serves it.
const NOT_THERE: [&str; 3] = ["PREFLIGHT_WRONG_STATUS", "PREFLIGHT_WRONG_CONTENT", "PREFLIGHT_REDIRECT_ASTRAY"];

/// What the controller sees the world with.
#[derive(Clone, Debug)]
pub(crate) struct Eyes {
    pub(crate) lookup: Arc<dyn Lookup>,
    pub(crate) probe: Arc<dyn Probe>,
}

/// A token for one name, as a CA would give it. It is of no account: no CA takes it for an answer.
#[derive(Clone, Debug)]
pub(crate) struct Trial {
    pub(crate) identifier: String,
    pub(crate) token: String,
    pub(crate) key_authorization: String,
}

impl Trial {
    pub(crate) fn of(identifier: &str) -> Self {
        let token = random_id();
        let key_authorization = format!("{token}.{}", random_id());
        Self { identifier: identifier.to_owned(), token, key_authorization }
    }
}

/// What a CA would make of it, the best first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Sight {
    Clear,
    /// It cannot be seen from here; the CA may see it.
    Unknown,
    /// It would fail.
    Blocked,
}

/// What was seen of one name.
#[derive(Clone, Debug)]
pub(crate) struct Seen {
    pub(crate) identifier: String,
    pub(crate) sight: Sight,
    pub(crate) problem: Option<Problem>,
    pub(crate) ways: Vec<Way>,
}

/// What was met on the way from one address.
#[derive(Clone, Debug)]
pub(crate) struct Way {
    pub(crate) address: IpAddr,
    pub(crate) sight: Sight,
    pub(crate) problem: Option<Problem>,
    pub(crate) hops: Vec<Hop>,
}

/// One request and what came back.
#[derive(Clone, Debug)]
pub(crate) struct Hop {
    pub(crate) url: String,
    pub(crate) address: IpAddr,
    pub(crate) outcome: String,
}

/// Looks at every name, until then at most. `served` says whether any agent serves the tokens.
pub(crate) async fn look(eyes: &Eyes, trials: &[Trial], served: bool, until: Instant) -> Vec<Seen> {
    let one = |trial: Trial| async move {
        let Trial { identifier, token, key_authorization } = trial;
        let (lookup, probe) = (eyes.lookup.as_ref(), eyes.probe.as_ref());
        let came = timeout_at(until, trails(lookup, probe, &identifier, &token, &key_authorization)).await;
        let (whole, ways) = match came {
            Ok(Ok(trails)) => (None, trails.into_iter().map(|trail| way(trail, served)).collect()),
            Ok(Err(verdict)) => (Some(judged(verdict, served)), Vec::new()),
            Err(_elapsed) => (Some((Sight::Unknown, Some(late(&identifier)))), Vec::new()),
        };
        let worst = |ways: &[Way]| {
            let worst = ways.iter().max_by_key(|way| way.sight);
            worst.map_or((Sight::Clear, None), |way| (way.sight, way.problem.clone()))
        };
        let (sight, problem) = whole.unwrap_or_else(|| worst(&ways));
        Seen { identifier, sight, problem, ways }
    };
    iter(trials.to_vec()).map(one).buffered(AT_ONCE).collect().await
}

fn way(trail: trail::Trail, served: bool) -> Way {
    let (sight, problem) = judged(trail.verdict, served);
    let hop = |hop: trail::Hop| Hop { url: hop.url, address: hop.address, outcome: hop.outcome };
    Way { address: trail.address, sight, problem, hops: trail.hops.into_iter().map(hop).collect() }
}

fn judged(verdict: Verdict, served: bool) -> (Sight, Option<Problem>) {
    match verdict {
        Verdict::Ok => (Sight::Clear, None),
        Verdict::Contradicted(problem) if !served && NOT_THERE.contains(&problem.reason.as_str()) => {
            let message = "The way is open as far as can be seen without a token".to_owned();
            let hint = "see why no agent serves one, then check again";
            let cause = format!("no agent serves the token; {}", problem.cause);
            (Sight::Unknown, Some(Problem::new("CHALLENGE_NOT_SERVED", message, cause, hint)))
        }
        Verdict::Contradicted(problem) => (Sight::Blocked, Some(problem)),
        Verdict::Unknown(problem) => (Sight::Unknown, Some(problem)),
    }
}

fn late(identifier: &str) -> Problem {
    let message = format!("{identifier} did not answer as long as its challenge was served");
    Problem::new("PREFLIGHT_TIMEOUT", message, "", "check firewall and port 80 at its addresses, then check again")
}
