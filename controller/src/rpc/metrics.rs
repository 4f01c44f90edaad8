//! Metrics and health for a monitor on this host (features.md M8): Prometheus text at `/metrics`, one word at `/healthz`, over a
//! loopback port or a Unix socket, off unless configured. It reads, and names no certificate: who may look need not be an
//! operator. Called by `app`.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::Incoming;
use proto::clock::from_wire;
use proto::operator::v1 as wire;
use tokio::net::{TcpListener, UnixListener};
use tokio::sync::Mutex;
use tokio::time::Instant;
use tokio_stream::wrappers::{TcpListenerStream, UnixListenerStream};
use tokio_util::sync::CancellationToken;

use super::operator::{limits, overview};
use super::status::Refusal;
use super::web;
use crate::lifecycle::clock_skew::Verdict;
use crate::lifecycle::private_ca::REVOKED_MAX;
use crate::tasks::hub::Hub;

/// What was counted is told again within this: counting reads every certificate.
const FRESH: Duration = Duration::from_secs(10);
/// Prometheus text exposition format.
const TEXT: &str = "text/plain; version=0.0.4; charset=utf-8";

/// What was counted last, and when.
type Counted = Mutex<Option<(Instant, Bytes)>>;

/// Where monitors come in.
#[derive(Debug)]
pub enum Door {
    /// Nowhere.
    Closed,
    /// A loopback port.
    Port(TcpListener),
    /// A Unix socket: its mode says who may look.
    Socket(UnixListener),
}

/// Answers monitors at their door until `stop`.
pub(crate) async fn serve(hub: Hub, door: Door, stop: CancellationToken) {
    let counted: Arc<Counted> = Arc::default();
    let answer = move |request: Request<Incoming>| {
        let (hub, counted) = (hub.clone(), counted.clone());
        async move { answer(&hub, &counted, &request).await }
    };
    match door {
        Door::Closed => {}
        Door::Port(listener) => web::serve(TcpListenerStream::new(listener), answer, stop).await,
        Door::Socket(listener) => web::serve(UnixListenerStream::new(listener), answer, stop).await,
    }
}

async fn answer<B: Sync>(hub: &Hub, counted: &Counted, request: &Request<B>) -> Response<Full<Bytes>> {
    let told = match (request.method(), request.uri().path()) {
        (&Method::GET, "/metrics") => metrics(hub, counted).await,
        (&Method::GET, "/healthz") => healthy(hub).await,
        (&Method::GET, _) => {
            return text(StatusCode::NOT_FOUND, Bytes::from_static(b"there is /metrics and /healthz\n"));
        }
        _ => return text(StatusCode::METHOD_NOT_ALLOWED, Bytes::from_static(b"GET only\n")),
    };
    match told {
        Ok(body) => text(StatusCode::OK, body),
        Err(refusal) => text(StatusCode::SERVICE_UNAVAILABLE, format!("{}\n", refusal.words()).into()),
    }
}

fn text(status: StatusCode, body: Bytes) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(body));
    *response.status_mut() = status;
    response.headers_mut().insert(http::header::CONTENT_TYPE, http::HeaderValue::from_static(TEXT));
    response
}

/// The store answers; whether certificates are well is for `/metrics`.
async fn healthy(hub: &Hub) -> Result<Bytes, Refusal> {
    hub.store.pause_all().await?;
    Ok(Bytes::from_static(b"ok\n"))
}

async fn metrics(hub: &Hub, counted: &Counted) -> Result<Bytes, Refusal> {
    // Who comes while it is counted waits for that count.
    let mut last = counted.lock().await;
    if let Some((_, body)) = last.as_ref().filter(|(at, _)| at.elapsed() < FRESH) {
        return Ok(body.clone());
    }
    let body = Bytes::from(count(hub).await?);
    *last = Some((Instant::now(), body.clone()));
    Ok(body)
}

async fn count(hub: &Hub) -> Result<String, Refusal> {
    let overview = overview::overview(hub).await?;
    let mut page = Page::default();
    page.family("certwright_info", "gauge", "Version of the controller.");
    page.sample("certwright_info", &[("version", env!("CARGO_PKG_VERSION"))], 1);
    for (name, help, counts) in [
        ("certwright_certificates", "Certificates by status.", &overview.certificates),
        ("certwright_deployments", "Certificates by deployment.", &overview.deployments),
        ("certwright_agents", "Agents by status.", &overview.agents),
    ] {
        page.family(name, "gauge", help);
        counts.iter().for_each(|count| page.sample(name, &[("state", &count.state)], count.count));
    }
    page.family(
        "certwright_certificates_expiring",
        "gauge",
        "Certificates whose version expires in this week from now; 0 is this one.",
    );
    for (week, count) in overview.expiring_by_week.iter().enumerate() {
        page.sample("certwright_certificates_expiring", &[("week", &week.to_string())], u64::from(*count));
    }
    page.gauge("certwright_attention", "Things that need an operator.", overview.attention_total);
    page.gauge("certwright_jobs_open", "Jobs not yet finished, at most 20 are counted.", count_of(&overview.jobs));
    page.gauge("certwright_issuers", "Issuers.", overview.issuers);
    page.gauge("certwright_paused", "1 while everything is paused.", u64::from(overview.pause.is_some()));
    let next = from_wire(overview.next_renewal_at).and_then(|at| u64::try_from(at.as_second()).ok());
    page.gauge(
        "certwright_next_renewal_timestamp_seconds",
        "When the next renewal is due; 0 is none.",
        next.unwrap_or(0),
    );
    let clock_right = hub.clock_watch.verdict() == Verdict::Right;
    page.gauge("certwright_clock_right", "0 while the clock is wrong and nothing is issued.", u64::from(clock_right));
    page.counter("certwright_store_revision", "Changes of the store.", *hub.store.revision().borrow());
    let head = hub.audit.head(hub).await?.map_or(0, |(head, _)| head.seq);
    page.counter("certwright_audit_lines", "Lines of the audit ever written.", head);
    let disagree = hub.audit.witnesses().values().filter(|witness| !witness.agrees).count();
    page.gauge(
        "certwright_audit_witnesses_disagreeing",
        "Agents that kept another audit.",
        u64::try_from(disagree).unwrap_or(u64::MAX),
    );
    page.limits(hub).await?;
    page.lists(hub).await?;
    Ok(page.text)
}

fn count_of<T>(items: &[T]) -> u64 {
    u64::try_from(items.len()).unwrap_or(u64::MAX)
}

/// A page in the making.
#[derive(Debug, Default)]
struct Page {
    text: String,
}

impl Page {
    fn family(&mut self, name: &str, kind: &str, help: &str) {
        self.text.push_str(&format!("# HELP {name} {help}\n# TYPE {name} {kind}\n"));
    }

    fn sample(&mut self, name: &str, labels: &[(&str, &str)], value: u64) {
        let labels: Vec<String> =
            labels.iter().map(|(label, value)| format!("{label}=\"{}\"", escaped(value))).collect();
        let labels = if labels.is_empty() { String::new() } else { format!("{{{}}}", labels.join(",")) };
        self.text.push_str(&format!("{name}{labels} {value}\n"));
    }

    fn gauge(&mut self, name: &str, help: &str, value: u64) {
        self.family(name, "gauge", help);
        self.sample(name, &[], value);
    }

    fn counter(&mut self, name: &str, help: &str, value: u64) {
        self.family(name, "counter", help);
        self.sample(name, &[], value);
    }

    /// The limits of each account: those of single names would be without number.
    async fn limits(&mut self, hub: &Hub) -> Result<(), Refusal> {
        let mut lines: Vec<(String, wire::LimitLine)> = Vec::new();
        for issuer in hub.store.issuers().await? {
            let of_issuer = limits::list(hub, &issuer.value.name).await?.items.into_iter();
            lines.extend(of_issuer.filter(|line| line.name.is_empty()).map(|line| (issuer.value.name.clone(), line)));
        }
        let left: fn(&wire::LimitLine) -> u32 = |line| line.left;
        let waiting: fn(&wire::LimitLine) -> u32 = |line| line.waiting;
        for (name, help, value) in [
            ("certwright_limit_left", "What is left of a CA's limit.", left),
            ("certwright_limit_waiting", "Orders that wait for a place.", waiting),
        ] {
            self.family(name, "gauge", help);
            for (issuer, line) in &lines {
                self.sample(name, &[("issuer", issuer), ("kind", &line.kind)], u64::from(value(line)));
            }
        }
        Ok(())
    }

    /// The revocation lists of private CAs.
    async fn lists(&mut self, hub: &Hub) -> Result<(), Refusal> {
        let name = "certwright_revocation_list_left";
        self.family(name, "gauge", "Leaves for which the revocation list of a private CA has room.");
        for issuer in hub.store.issuers().await? {
            if issuer.value.private.is_some() {
                let revoked = hub.store.revoked_leaves_count(&issuer.value.id).await?;
                self.sample(name, &[("issuer", &issuer.value.name)], REVOKED_MAX.saturating_sub(revoked));
            }
        }
        Ok(())
    }
}

/// Prometheus escapes backslash, quote and line feed in a label.
fn escaped(value: &str) -> String {
    value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt as _;
    use proto::clock::SystemClock;

    use super::*;
    use crate::lifecycle::issuer::tests::issuer;
    use crate::lifecycle::private_ca::tests::private_ca;
    use crate::store::Store;
    use crate::store::engine::Backend;
    use crate::store::master_key::MasterKey;
    use crate::store::records::Changes;
    use crate::store::tables::Table;

    async fn asked(path: &str) -> (StatusCode, String) {
        let store = Store::open(Backend::memory(), true, MasterKey::random()).await.unwrap();
        let hub = Hub::open(store, Arc::new(SystemClock)).await.unwrap();
        let mut corp = issuer("corp");
        corp.private = Some(private_ca(&["*.corp.example"]));
        let named = Changes::new().insert(&corp).claim_name(Table::IssuerName, &corp.name, &corp.id);
        hub.store.commit(named).await.unwrap();
        let request = Request::get(path).body(()).unwrap();
        let response = answer(&hub, &Counted::default(), &request).await;
        let status = response.status();
        let body = response.into_body().collect().await.unwrap().to_bytes();
        (status, String::from_utf8(body.to_vec()).unwrap())
    }

    #[tokio::test]
    async fn every_sample_has_its_family_and_a_number() {
        let (status, page) = asked("/metrics").await;
        assert_eq!(status, StatusCode::OK);
        let mut family = "";
        for line in page.lines() {
            if let Some(rest) = line.strip_prefix("# TYPE ") {
                family = rest.split(' ').next().unwrap();
            } else if !line.starts_with('#') {
                let (name, value) = line.rsplit_once(' ').unwrap();
                assert_eq!(name.split('{').next().unwrap(), family, "{line}");
                value.parse::<u64>().unwrap();
            }
        }
        assert!(page.contains("certwright_clock_right 1\n") && page.contains("certwright_paused 0\n"), "{page}");
        assert!(page.contains("certwright_revocation_list_left{issuer=\"corp\"} 15000\n"), "{page}");
    }

    #[tokio::test]
    async fn health_is_one_word_and_all_else_is_refused() {
        assert_eq!(asked("/healthz").await, (StatusCode::OK, "ok\n".to_owned()));
        assert_eq!(asked("/").await.0, StatusCode::NOT_FOUND);
        assert_eq!(escaped("a\"b\\c\nd"), "a\\\"b\\\\c\\nd");
    }
}
