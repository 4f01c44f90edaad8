//! Serves the tokens of HTTP-01 (RFC 8555 §8.3) where the desired state says: on ports of our own, or in web roots.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use tracing::warn;

use super::Done;
use crate::apply::request::{ApplyRequest, Handle};
use crate::net::http01::Listeners;
use crate::target::{Challenge, Place};

/// Opens and closes ports, writes and removes webroot files, so that exactly the wanted tokens are served.
pub(super) async fn serve_challenges(
    apply: Handle,
    listeners: Arc<tokio::sync::Mutex<Listeners>>,
    wanted: Vec<Challenge>,
) -> Done {
    let mut problems = BTreeMap::new();
    let mut permitted = Vec::new();
    for challenge in wanted {
        let allowed = apply.policy().await.and_then(|policy| match &challenge.place {
            Place::Standalone(port) => policy.permit_port(*port),
            Place::Webroot(webroot) => policy.permit_webroot(webroot),
        });
        match allowed {
            Ok(()) => permitted.push(challenge),
            Err(problem) => {
                problems.insert(challenge.token, problem);
            }
        }
    }
    let failed = listeners.lock().await.set(&permitted).await;
    let keep = permitted.iter().filter_map(|challenge| match &challenge.place {
        Place::Webroot(webroot) => Some((webroot.clone(), challenge.token.clone())),
        Place::Standalone(_) => None,
    });
    if let Err(problem) = apply.perform(ApplyRequest::WithdrawTokens { keep: keep.collect() }).await {
        warn!(reason = problem.reason, cause = problem.cause, "{}", problem.message);
    }
    let mut serving = BTreeSet::new();
    for Challenge { token, key_authorization, place, .. } in permitted {
        let served = match place {
            Place::Standalone(port) => failed.get(&port).cloned().map_or(Ok(()), Err),
            Place::Webroot(webroot) => {
                apply.perform(ApplyRequest::ServeToken { webroot, token: token.clone(), key_authorization }).await
            }
        };
        match served {
            Ok(()) => {
                serving.insert(token);
            }
            Err(problem) => {
                problems.insert(token, problem);
            }
        }
    }
    Done::Served { serving, problems }
}
