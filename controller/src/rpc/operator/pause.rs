//! Pause and resume: one certificate, or everything (the kill switch). Recorded here; `lifecycle/order` holds orders still,
//! and desired states tell agents to begin nothing.

use proto::operator::v1 as wire;
use proto::text::one_line;

use super::targets::concerned;
use super::wishes;
use crate::lifecycle::event::{Event, Severity};
use crate::lifecycle::pause::{Pause, REASON_CHARS_MAX};
use crate::rpc::convert;
use crate::rpc::peer::OperatorCaller;
use crate::rpc::status::Refusal;
use crate::rpc::views::{self, Names};
use crate::store::records::Changes;
use crate::tasks::hub::Hub;

/// Sets or lifts a pause; what is as wished already stays as it is.
pub(crate) async fn set(
    hub: &Hub,
    caller: &OperatorCaller,
    request: wire::SetPauseRequest,
) -> Result<wire::SetPauseResponse, Refusal> {
    let reason = one_line(request.reason.trim(), REASON_CHARS_MAX);
    let wanted = request.paused.then(|| Pause { at: hub.now(), by: caller.name.clone(), reason });
    if request.certificate.is_empty() {
        everything(hub, caller, wanted).await
    } else {
        one(hub, caller, &request.certificate, wanted).await
    }
}

async fn everything(
    hub: &Hub,
    caller: &OperatorCaller,
    wanted: Option<Pause>,
) -> Result<wire::SetPauseResponse, Refusal> {
    if wanted.as_ref().is_some_and(|pause| pause.reason.is_empty()) {
        let hint = "say why, for those who find nothing moving: --reason 'the CA is replaced'";
        return Err(Refusal::field("reason", "to pause everything needs a reason", hint));
    }
    let record = hub.store.pause_record().await?;
    let before = record.as_ref().and_then(|record| record.value.pause.clone());
    if before.is_some() == wanted.is_some() {
        return Ok(wire::SetPauseResponse { certificate: None, pause: shown(before.as_ref(), true) });
    }
    let event = event(hub, caller, ("controller", "everything is"), before.as_ref(), wanted.as_ref());
    hub.store.commit(Changes::new().set_pause(record.as_ref(), wanted.clone()).event(&event)).await?;
    hub.wake.ring_all();
    for agent in hub.store.agents().await? {
        hub.wake.agents.ring(&agent.value.id);
    }
    Ok(wire::SetPauseResponse { certificate: None, pause: shown(wanted.as_ref(), true) })
}

async fn one(
    hub: &Hub,
    caller: &OperatorCaller,
    name: &str,
    wanted: Option<Pause>,
) -> Result<wire::SetPauseResponse, Refusal> {
    let mut bundle = wishes::bundle(hub, name).await?;
    let before = bundle.certificate.value.paused.clone();
    if before.is_some() != wanted.is_some() {
        let event = event(hub, caller, ("certificate", "it is"), before.as_ref(), wanted.as_ref()).of_certificate(name);
        bundle.certificate.value.paused = wanted.clone();
        hub.store.commit(Changes::new().update(&bundle.certificate).event(&event)).await?;
        hub.wake.certificates.ring(&bundle.certificate.value.id);
        concerned(&bundle).iter().for_each(|id| hub.wake.agents.ring(id));
    }
    let bundle = wishes::bundle(hub, name).await?;
    let pause = shown(bundle.certificate.value.paused.as_ref(), false);
    let certificate = views::certificate(hub, &Names::read(hub).await?, &bundle);
    Ok(wire::SetPauseResponse { certificate: Some(certificate), pause })
}

fn shown(pause: Option<&Pause>, all: bool) -> Option<wire::Pause> {
    pause.map(|pause| convert::pause(pause, all))
}

/// Tells who paused or resumed what, and why.
fn event(
    hub: &Hub,
    caller: &OperatorCaller,
    (noun, what): (&str, &str),
    before: Option<&Pause>,
    wanted: Option<&Pause>,
) -> Event {
    let event = match (wanted, before) {
        (Some(pause), _) => {
            let why = if pause.reason.is_empty() { String::new() } else { format!(": {}", pause.reason) };
            let message = format!("{what} paused{why}; nothing is ordered and nothing is deployed");
            let mut event = hub.event(&format!("{noun}.paused"), message);
            event.severity = Severity::Warn;
            event
        }
        (None, before) => {
            let since = before.map(|pause| format!(", paused since {:.0} by {}", pause.at, pause.by));
            hub.event(&format!("{noun}.resumed"), format!("{what} resumed{}", since.unwrap_or_default()))
        }
    };
    event.by(&caller.name)
}
