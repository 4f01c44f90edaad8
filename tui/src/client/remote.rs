//! The transport to a controller elsewhere: TCP, TLS 1.3 under the identity CA, HTTP/2. Says in words why it cannot be had.
//! Called by `client` only.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use hyper_util::rt::TokioIo;
use proto::clock::SystemClock;
use proto::tls::{Credentials, SERVER_NAME, Trust, client_config};
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tonic::transport::{Channel, Endpoint, Uri};
use tower::service_fn;

use super::error::{ClientError, ErrorKind};

/// Name lookup, TCP and TLS together.
const CONNECT_MAX: Duration = Duration::from_secs(10);
/// Keeps the connection through NAT, and notices a dead one.
const KEEP_ALIVE: Duration = Duration::from_secs(30);
const KEEP_ALIVE_ANSWER: Duration = Duration::from_secs(20);

/// Returns a channel to `HOST:PORT` that connects with the first call and reconnects by itself.
///
/// # Errors
/// When the key does not fit the leaf.
pub(super) fn channel(
    controller: &str,
    trust: Trust,
    credentials: Option<Credentials>,
) -> Result<Channel, rustls::Error> {
    let config = Arc::new(client_config(trust, credentials, Arc::new(SystemClock))?);
    let controller = controller.to_owned();
    let connector = service_fn(move |_: Uri| {
        let (controller, config) = (controller.clone(), config.clone());
        async move {
            let connected = timeout(CONNECT_MAX, connect(&controller, config)).await;
            connected.unwrap_or_else(|_elapsed| Err(io::ErrorKind::TimedOut.into())).map(TokioIo::new)
        }
    });
    let endpoint = Endpoint::from_static("http://controller.certwright.invalid")
        .connect_timeout(CONNECT_MAX)
        .http2_keep_alive_interval(KEEP_ALIVE)
        .keep_alive_timeout(KEEP_ALIVE_ANSWER)
        .keep_alive_while_idle(true);
    Ok(endpoint.connect_with_connector_lazy(connector))
}

async fn connect(
    controller: &str,
    config: Arc<ClientConfig>,
) -> io::Result<tokio_rustls::client::TlsStream<TcpStream>> {
    let stream = TcpStream::connect(controller).await?;
    // Without it a small call waits for the acknowledgement of the one before.
    stream.set_nodelay(true)?;
    let name = ServerName::try_from(SERVER_NAME).expect("a constant host name");
    TlsConnector::from(config).connect(name, stream).await
}

/// Returns what to tell people when the connection could not be made.
pub(super) fn unreachable(controller: &str, error: &io::Error) -> ClientError {
    let (kind, reason, message, hint) = match error.kind() {
        // What rustls refuses.
        io::ErrorKind::InvalidData => (
            ErrorKind::Unreachable,
            "CONTROLLER_NOT_TRUSTED",
            format!("{controller} is not the controller of this login"),
            "the address may belong to another service, or something intercepts the connection; an invitation is of one controller only",
        ),
        io::ErrorKind::ConnectionRefused => (
            ErrorKind::Unreachable,
            "CONTROLLER_REFUSED",
            format!("nothing listens at {controller}"),
            "check the address, and that the controller runs there",
        ),
        io::ErrorKind::TimedOut => (
            ErrorKind::Unreachable,
            "CONTROLLER_UNREACHABLE",
            format!("{controller} does not answer"),
            "check the address, and that the controller's port is open from here",
        ),
        _ => (
            ErrorKind::Unreachable,
            "CONTROLLER_UNREACHABLE",
            format!("{controller} cannot be reached"),
            "check the address given at login (certwright context ls), and the network",
        ),
    };
    ClientError::local(kind, reason, &message, &error.to_string(), hint)
}
