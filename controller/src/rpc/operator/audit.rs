//! The audit, as it was written. Called by `rpc/operator_service`.

use proto::audit::Line;
use proto::clock::from_wire;
use proto::operator::v1 as wire;

use crate::rpc::status::Refusal;
use crate::store::audit::AUDIT_PAGE_MAX;
use crate::store::engine::Order;
use crate::tasks::hub::Hub;

/// Lines looked at for one page: a filter that fits nothing must not hold up the controller.
const LOOKED_AT_MAX: usize = 20_000;

/// Lists lines, newest or oldest first.
pub(crate) async fn list(hub: &Hub, request: wire::ListAuditRequest) -> Result<wire::ListAuditResponse, Refusal> {
    let size = usize::try_from(request.page_size).unwrap_or(AUDIT_PAGE_MAX).clamp(1, AUDIT_PAGE_MAX);
    let order = if request.ascending { Order::Ascending } else { Order::Descending };
    let mut from = (request.from_seq > 0).then_some(request.from_seq);
    let mut answer = wire::ListAuditResponse::default();
    let mut looked_at = 0;
    let more = loop {
        let page = hub.store.audit_lines(from, order, AUDIT_PAGE_MAX).await?;
        looked_at += page.len();
        let full = page.len() == AUDIT_PAGE_MAX;
        let mut enough = false;
        for (seq, line) in page {
            from = Some(seq);
            if fits(&line, &request) {
                answer.lines.push(line);
            }
            enough = answer.lines.len() == size;
            if enough {
                break;
            }
        }
        if enough || !full || looked_at >= LOOKED_AT_MAX {
            break enough || full;
        }
    };
    answer.next_seq = from.filter(|_| more).unwrap_or_default();
    if let Some((head, public_key)) = hub.audit.head(hub).await? {
        answer.head = Some(head.into());
        answer.public_key = public_key;
    }
    let witnesses = hub.audit.witnesses().into_iter();
    answer.witnesses = witnesses
        .map(|(agent, witness)| wire::AuditWitness { agent, seq: witness.seq, agrees: witness.agrees })
        .collect();
    Ok(answer)
}

/// Whether a line is asked for. One that does not read is: whoever looks must see it.
fn fits(text: &str, request: &wire::ListAuditRequest) -> bool {
    let Ok(line) = serde_json::from_str::<Line>(text) else { return true };
    let from = from_wire(request.start_at).is_none_or(|start| line.at >= start);
    let until = from_wire(request.end_at).is_none_or(|end| line.at < end);
    from && until && (line.actor.contains(&request.name) || line.subject.contains(&request.name))
}
