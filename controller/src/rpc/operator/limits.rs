//! Limits of issuers: shown, and set where the CA publishes none or others are agreed.

use proto::clock::to_wire;
use proto::operator::v1 as wire;
use proto::text::one_line;

use crate::lifecycle::issuer::Issuer;
use crate::lifecycle::order::Phase;
use crate::lifecycle::rate_limit::{Ask, Kind, Limit, Line, exact_set, exemption, limits, spoken};
use crate::rpc::peer::OperatorCaller;
use crate::rpc::status::{Refusal, field_error};
use crate::store::certificate::Bundle;
use crate::store::records::{Changes, Versioned};
use crate::tasks::hub::Hub;
use crate::tasks::limits as ledger;

/// Largest count: no CA gives more, and it fits every reckoning.
const COUNT_MAX: u32 = 1_000_000;
/// Longest period, seconds: what is spent is remembered for so long.
const PERIOD_S_MAX: u32 = 31 * 24 * 3_600;
/// Most requests per second (issue 3: never above 200, and a burst comes on top).
const REQUESTS_MAX: u32 = 100;

/// Shows what is used of an issuer's limits.
pub(crate) async fn list(hub: &Hub, name: &str) -> Result<wire::ListLimitsResponse, Refusal> {
    let issuer = find(hub, name).await?.value;
    view(hub, &issuer).await
}

/// Sets limits, or goes back to what the CA publishes.
pub(crate) async fn set(
    hub: &Hub,
    caller: &OperatorCaller,
    request: wire::SetLimitsRequest,
) -> Result<wire::ListLimitsResponse, Refusal> {
    let mut issuer = find(hub, &request.issuer).await?;
    if issuer.value.private.is_some() {
        let message = format!("issuer {} is a private CA: it limits nothing", issuer.value.name);
        return Err(Refusal::field("set", message, "nothing is needed"));
    }
    let wanted = parse(&request.set).map_err(Refusal::fields)?;
    let mut said = Vec::new();
    if request.reset {
        issuer.value.limits.clear();
        said.push("as the CA publishes them".to_owned());
    }
    for (kind, limit) in wanted {
        issuer.value.limits.insert(kind, limit);
        said.push(match limit.count {
            0 => format!("{} without limit", kind.word()),
            count => format!("{} {count} in {}", kind.word(), spoken(i64::from(limit.period_s))),
        });
    }
    if said.is_empty() {
        return Err(Refusal::field("set", "nothing is set", "--set orders=300/3h, or --reset"));
    }
    let message = format!("limits of {}: {}", issuer.value.name, said.join(", "));
    let event = hub.event("issuer.limits", message).by(&caller.name);
    hub.store.commit(Changes::new().update(&issuer).event(&event)).await?;
    ledger::reset(hub).await;
    ledger::ask_again(hub, &issuer.value.id).await?;
    view(hub, &issuer.value).await
}

fn parse(settings: &[wire::LimitSetting]) -> Result<Vec<(Kind, Limit)>, Vec<proto::types::v1::FieldError>> {
    let mut errors = Vec::new();
    let mut wanted = Vec::new();
    for setting in settings.iter().take(Kind::ALL.len() * 2) {
        let kind = Kind::parse(&setting.kind);
        let in_range =
            setting.count == 0 || (setting.count <= COUNT_MAX && (1..=PERIOD_S_MAX).contains(&setting.period_seconds));
        let too_fast = kind == Some(Kind::Requests)
            && (setting.count == 0 || setting.count / setting.period_seconds.max(1) > REQUESTS_MAX);
        match kind {
            None => errors.push(field_error(
                "set",
                format!("\"{}\" is not a limit", one_line(&setting.kind, 60)),
                format!("use one of {}", Kind::ALL.map(Kind::word).join(", ")),
            )),
            Some(_) if !in_range => errors.push(field_error(
                "set",
                format!("{} may be 1 to {COUNT_MAX} in 1 s to 31 d", setting.kind),
                "for example orders=300/3h, or orders=none for no limit",
            )),
            Some(_) if too_fast => errors.push(field_error(
                "set",
                format!("requests may be at most {REQUESTS_MAX} in a second"),
                "a CA that is flooded closes for everyone; a certificate costs seven requests",
            )),
            Some(kind) => wanted.push((kind, Limit { count: setting.count, period_s: setting.period_seconds })),
        }
    }
    if errors.is_empty() { Ok(wanted) } else { Err(errors) }
}

async fn find(hub: &Hub, name: &str) -> Result<Versioned<Issuer>, Refusal> {
    hub.store.issuer_by_name(name).await?.ok_or_else(|| Refusal::not_found("issuer", &one_line(name, 80)))
}

async fn view(hub: &Hub, issuer: &Issuer) -> Result<wire::ListLimitsResponse, Refusal> {
    let lines = ledger::lines(hub, issuer).await?;
    Ok(wire::ListLimitsResponse {
        issuer: issuer.name.clone(),
        host: issuer.ca_host(),
        published: limits(&issuer.ca_host()).len() > 1,
        items: lines.iter().map(|line| row(issuer, line)).collect(),
    })
}

/// Returns what limits the next order of a certificate: the one that is open, else the one that a renewal would make.
/// `None` when its issuer is gone.
pub(super) async fn of_next_order(hub: &Hub, bundle: &Bundle) -> Result<Option<wire::OrderLimits>, Refusal> {
    let record = &bundle.certificate.value;
    let open = bundle.order.as_ref().map(|order| &order.value).filter(|order| order.phase != Phase::Completed);
    let issuer_id = open.map_or(&record.specification.issuer_id, |order| &order.issuer_id);
    let Some(issuer) = hub.store.load::<Issuer>(issuer_id).await? else { return Ok(None) };
    let issuer = &issuer.value;
    let identifiers = open.map_or(&record.specification.identifiers, |order| &order.identifiers);
    let current = record.current.as_ref().filter(|current| current.issuer_id == issuer.id);
    let same_set = current.is_some_and(|current| exact_set(&current.identifiers) == exact_set(identifiers));
    // An order says what it replaces where the CA speaks of renewals, shares a name, and did not refuse that before.
    let shares = current.is_some_and(|current| current.identifiers.iter().any(|one| identifiers.contains(one)));
    let speaks = issuer.facts.as_ref().is_some_and(|facts| facts.renewal_info);
    let replaces = shares && speaks && !open.is_some_and(|order| order.replaces_refused);
    let exemption = exemption(issuer, replaces, same_set);
    let lines =
        ledger::lines_of(hub, Ask { certificate_id: &record.id, issuer, identifiers, exemption, urgency: 0 }).await?;
    Ok(Some(wire::OrderLimits {
        issuer: issuer.name.clone(),
        exemption: exemption.word().to_owned(),
        items: lines.iter().map(|line| row(issuer, line)).collect(),
    }))
}

fn row(issuer: &Issuer, line: &Line) -> wire::LimitLine {
    let source = if issuer.limits.contains_key(&line.key.kind) {
        "set"
    } else if line.limit.is_none() || line.key.kind == Kind::Requests {
        "default"
    } else {
        "published"
    };
    wire::LimitLine {
        kind: line.key.kind.word().to_owned(),
        name: line.key.name.clone(),
        count: line.limit.map_or(0, |limit| limit.count),
        period_seconds: line.limit.map_or(0, |limit| limit.period_s),
        used: line.used,
        left: line.left().unwrap_or(0),
        refills_at: to_wire(line.refills_at),
        waiting: line.waiting,
        closed_until: to_wire(line.closed.as_ref().map(|closed| closed.until)),
        cause: line.closed.as_ref().map(|closed| closed.cause.clone()).unwrap_or_default(),
        source: source.to_owned(),
    }
}
