//! The revocation lists of private CAs over plain HTTP, at `/crl/NAME.crl` (RFC 5280 §4.2.1.13 wants it so: a list is signed, and
//! whoever fetches it over TLS would need a list for that). Off unless `[crl]` gives an address. It says nothing else. Called by
//! `app`.

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::Incoming;
use tokio::net::TcpListener;
use tokio_stream::wrappers::TcpListenerStream;
use tokio_util::sync::CancellationToken;

use super::operator::private_ca;
use super::web;
use crate::lifecycle::certificate::is_name;
use crate::tasks::hub::Hub;

/// RFC 2585 §4.2.
const LIST: &str = "application/pkix-crl";
const TEXT: &str = "text/plain; charset=utf-8";

/// Answers clients until `stop`; without a door at once.
pub(crate) async fn serve(hub: Hub, door: Option<TcpListener>, stop: CancellationToken) {
    let Some(listener) = door else { return };
    let answer = move |request: Request<Incoming>| {
        let hub = hub.clone();
        async move { answer(&hub, &request).await }
    };
    web::serve(TcpListenerStream::new(listener), answer, stop).await;
}

async fn answer<B: Sync>(hub: &Hub, request: &Request<B>) -> Response<Full<Bytes>> {
    if !matches!(*request.method(), Method::GET | Method::HEAD) {
        return response(StatusCode::METHOD_NOT_ALLOWED, TEXT, "GET only\n");
    }
    let name = request.uri().path().strip_prefix("/crl/").and_then(|name| name.strip_suffix(".crl"));
    let Some(name) = name.filter(|name| is_name(name)) else { return nothing() };
    match private_ca::list(hub, name).await {
        Ok(list) => response(StatusCode::OK, LIST, list.der),
        Err(_) => nothing(),
    }
}

/// The same for an issuer that does not exist and for one without a list: who asks need not know which there are.
fn nothing() -> Response<Full<Bytes>> {
    response(StatusCode::NOT_FOUND, TEXT, "there is /crl/NAME.crl for a private CA\n")
}

fn response(status: StatusCode, kind: &'static str, body: impl Into<Bytes>) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(body.into()));
    *response.status_mut() = status;
    response.headers_mut().insert(http::header::CONTENT_TYPE, http::HeaderValue::from_static(kind));
    response
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use http_body_util::BodyExt as _;
    use jiff::Timestamp;
    use proto::clock::SystemClock;

    use super::*;
    use crate::lifecycle::issuer::tests::issuer;
    use crate::lifecycle::private_ca::{LIST_LIFE, RevocationList, tests::private_ca};
    use crate::store::Store;
    use crate::store::engine::Backend;
    use crate::store::master_key::MasterKey;
    use crate::store::records::Changes;
    use crate::store::tables::Table;

    async fn asked(hub: &Hub, method: Method, path: &str) -> (StatusCode, Vec<u8>) {
        let request = Request::builder().method(method).uri(path).body(()).unwrap();
        let response = answer(hub, &request).await;
        let status = response.status();
        (status, response.into_body().collect().await.unwrap().to_bytes().to_vec())
    }

    #[tokio::test]
    async fn a_private_ca_s_list_is_all_there_is() {
        let store = Store::open(Backend::memory(), true, MasterKey::random()).await.unwrap();
        let hub = Hub::open(store, Arc::new(SystemClock)).await.unwrap();
        let mut corp = issuer("corp");
        corp.private = Some(private_ca(&["*.corp.example"]));
        let made = Timestamp::from_second(1_800_000_000).unwrap();
        let list = RevocationList {
            issuer_id: "corp".into(),
            number: 7,
            this_update: made,
            next_update: made + LIST_LIFE,
            count: 0,
            newest: 0,
            der: "AQID".into(),
        };
        let mut changes = Changes::new().insert(&list);
        for one in [corp, issuer("acme")] {
            changes = changes.insert(&one).claim_name(Table::IssuerName, &one.name, &one.id);
        }
        hub.store.commit(changes).await.unwrap();
        assert_eq!(asked(&hub, Method::GET, "/crl/corp.crl").await, (StatusCode::OK, vec![1, 2, 3]));
        let (status, none) = asked(&hub, Method::GET, "/crl/acme.crl").await;
        assert_eq!(status, StatusCode::NOT_FOUND);
        for path in ["/", "/crl/other.crl", "/crl/corp", "/crl/../x.crl", "/metrics"] {
            assert_eq!(asked(&hub, Method::GET, path).await, (StatusCode::NOT_FOUND, none.clone()), "{path}");
        }
        assert_eq!(asked(&hub, Method::POST, "/crl/corp.crl").await.0, StatusCode::METHOD_NOT_ALLOWED);
    }
}
