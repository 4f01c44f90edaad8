//! One authenticated connection to the controller: TCP or a pipe through `Host`, TLS 1.3 under the pinned identity CA,
//! gRPC on top. Opens one connection and never reconnects; `session` decides when to try again.

use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use hyper_util::rt::TokioIo;
use prost::Message as _;
use proto::agent::v1::agent_service_client::AgentServiceClient;
use proto::clock::Clock;
use proto::text::one_line;
use proto::tls::{Credentials, SERVER_NAME, Trust};
use proto::types::v1::ErrorDetail;
use rustls::pki_types::ServerName;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tonic::transport::{Channel, Endpoint, Uri};
use tonic::{Code, Status};

use crate::host::Host;
use crate::problem::Problem;

/// The controller's agent service over one connection.
pub(crate) type Client = AgentServiceClient<Channel>;

const CONNECT: Duration = Duration::from_secs(10);
/// Limit of every unary call.
pub(crate) const CALL: Duration = Duration::from_secs(30);
/// Largest message accepted from the controller (reliability.md NT10).
const MESSAGE_BYTES_MAX: usize = 1024 * 1024;
/// Notices a dead connection. The heartbeat, twice as often, keeps it through NAT; a ping costs the controller a wake-up for
/// each of ten thousand agents.
const KEEP_ALIVE: Duration = Duration::from_secs(60);
const KEEP_ALIVE_TIMEOUT: Duration = Duration::from_secs(20);

/// Why the controller cannot be talked to.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ConnectError {
    #[error("cannot reach the controller at {0}")]
    Unreachable(String, #[source] io::Error),
    #[error("the TLS handshake with {0} failed")]
    Tls(String, #[source] io::Error),
    #[error("the identity cannot be used for TLS")]
    Identity(#[source] rustls::Error),
    #[error("the controller at {0} does not speak gRPC")]
    Grpc(String, #[source] tonic::transport::Error),
}

/// Connects to `HOST:PORT`.
pub(crate) async fn open(
    host: &dyn Host,
    address: &str,
    trust: Trust,
    credentials: Option<Credentials>,
    clock: Arc<dyn Clock>,
) -> Result<Client, ConnectError> {
    let config = proto::tls::client_config(trust, credentials, clock).map_err(ConnectError::Identity)?;
    let stream = timeout(CONNECT, host.connect(address)).await.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()));
    let stream = stream.map_err(|error| ConnectError::Unreachable(address.to_owned(), error))?;
    let name = ServerName::try_from(SERVER_NAME).expect("a constant host name");
    let tls = timeout(CONNECT, TlsConnector::from(Arc::new(config)).connect(name, stream)).await;
    let tls = tls.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()));
    let tls = tls.map_err(|error| ConnectError::Tls(address.to_owned(), error))?;

    // The connector gives its one stream away; when that connection ends, the channel is dead for good.
    let once = Mutex::new(Some(TokioIo::new(tls)));
    let connector = tower::service_fn(move |_: Uri| {
        let stream = once.lock().unwrap_or_else(PoisonError::into_inner).take();
        std::future::ready(stream.ok_or_else(|| io::Error::from(io::ErrorKind::ConnectionAborted)))
    });
    let endpoint = Endpoint::from_static("http://controller.certwright.invalid")
        .http2_keep_alive_interval(KEEP_ALIVE)
        .keep_alive_timeout(KEEP_ALIVE_TIMEOUT)
        .keep_alive_while_idle(true);
    let channel = timeout(CONNECT, endpoint.connect_with_connector(connector)).await;
    let channel = match channel {
        Ok(channel) => channel.map_err(|error| ConnectError::Grpc(address.to_owned(), error))?,
        Err(_elapsed) => return Err(ConnectError::Unreachable(address.to_owned(), io::ErrorKind::TimedOut.into())),
    };
    Ok(AgentServiceClient::new(channel).max_decoding_message_size(MESSAGE_BYTES_MAX))
}

impl ConnectError {
    /// Says it to people.
    pub(crate) fn problem(&self) -> Problem {
        let cause = std::error::Error::source(self).map(ToString::to_string).unwrap_or_default();
        match self {
            Self::Unreachable(..) => {
                let hint =
                    "check that the controller runs, that the address is right, and that the port is open from here";
                Problem::new("CONTROLLER_UNREACHABLE", self.to_string(), cause, hint)
            }
            Self::Tls(_, error) if is_connection(error) => {
                let hint = "the connection broke off before anything was said: check the network, and that the controller runs";
                Problem::new("CONTROLLER_UNREACHABLE", self.to_string(), cause, hint)
            }
            Self::Tls(..) => {
                let hint = "the address may belong to another service, something may intercept the connection, or the \
                            join token may be of another controller";
                Problem::new("CONTROLLER_NOT_TRUSTED", self.to_string(), cause, hint)
            }
            Self::Identity(_) => {
                Problem::new("IDENTITY_BROKEN", self.to_string(), cause, "enrol again with a new join token")
            }
            Self::Grpc(..) => {
                Problem::new("CONTROLLER_UNREACHABLE", self.to_string(), cause, "check the address of --controller")
            }
        }
    }
}

/// Makes a call with a time limit.
pub(crate) async fn call<T>(call: impl Future<Output = Result<tonic::Response<T>, Status>>) -> Result<T, Status> {
    match timeout(CALL, call).await {
        Ok(answer) => answer.map(tonic::Response::into_inner),
        Err(_elapsed) => Err(Status::deadline_exceeded("the controller did not answer in time")),
    }
}

/// Whether the connection or the moment is at fault, so that the same call may succeed a little later: it says nothing
/// about what was asked. A controller that cannot write, or that someone else was faster at, says so with a detail.
pub(crate) fn is_transient(status: &Status) -> bool {
    let moment = matches!(status.code(), Code::Unavailable | Code::Aborted);
    let connection = matches!(status.code(), Code::Unknown | Code::Cancelled | Code::DeadlineExceeded | Code::Internal);
    moment || (connection && detail(status).is_none())
}

/// Returns the four parts of a refusal, or makes them for a status that carries none.
pub(crate) fn refusal(status: &Status) -> Problem {
    detail(status).or_else(|| refused_by_tls(status)).unwrap_or_else(|| {
        let message = format!("the controller refused: {:?}", status.code());
        let hint = "look at this agent in the controller's dashboard";
        Problem::new("CONTROLLER_REFUSED", message, one_line(status.message(), 400), hint)
    })
}

/// In TLS 1.3 a server's refusal of our certificate comes only with the first call, below tonic's "transport error".
fn refused_by_tls(status: &Status) -> Option<Problem> {
    let below = std::iter::successors(std::error::Error::source(status), |error| error.source());
    let alert = below.map(ToString::to_string).find(|text| text.contains("fatal alert"))?;
    let hint = "its identity may have expired long ago, or be of another controller: enrol again with `certwright agents enroll NAME --replace`";
    Some(Problem::new("IDENTITY_REFUSED", "the controller refused this agent's identity", one_line(&alert, 400), hint))
}

fn is_connection(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::TimedOut | io::ErrorKind::ConnectionReset | io::ErrorKind::UnexpectedEof)
}

fn detail(status: &Status) -> Option<Problem> {
    let detail = ErrorDetail::decode(status.details()).ok()?;
    detail.problem.filter(|problem| !problem.reason.is_empty()).map(Problem::from)
}
