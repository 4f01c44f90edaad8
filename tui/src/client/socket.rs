//! The transport: one HTTP/2 connection over the controller's Unix socket. Says in words why a socket cannot be opened.
//! Called by `client` only.

use std::io;
use std::path::Path;
use std::time::Duration;

use hyper_util::rt::TokioIo;
use tokio::net::UnixStream;
use tonic::transport::{Channel, Endpoint, Uri};
use tower::service_fn;

use super::error::{ClientError, ErrorKind};

/// A local socket answers at once or not at all; the rest is for a controller that is starting up.
const CONNECT_MAX: Duration = Duration::from_secs(5);

/// Returns a channel that connects with the first call and reconnects by itself.
pub(super) fn channel(socket: &Path) -> Channel {
    let path = socket.to_owned();
    // HTTP/2 wants an authority; a socket has none, so a fixed name stands there and nothing resolves it.
    Endpoint::from_static("http://controller.invalid").connect_timeout(CONNECT_MAX).connect_with_connector_lazy(
        service_fn(move |_: Uri| {
            let path = path.clone();
            async move { UnixStream::connect(path).await.map(TokioIo::new) }
        }),
    )
}

/// Returns what to tell people when `socket` could not be opened.
pub(super) fn unreachable(socket: &Path, error: &io::Error) -> ClientError {
    let at = socket.display();
    let (kind, reason, message, hint) = match error.kind() {
        io::ErrorKind::NotFound => (
            ErrorKind::Unreachable,
            "SOCKET_MISSING",
            format!("the controller's socket {at} does not exist"),
            "start the controller (systemctl start certwright-controller), or name its socket with --socket PATH",
        ),
        io::ErrorKind::PermissionDenied => (
            ErrorKind::NotAllowed,
            "SOCKET_FORBIDDEN",
            format!("this user may not open the controller's socket {at}"),
            "run as root, or ask an administrator for the group that owns the socket (usermod -aG certwright-admin USER) and log in again",
        ),
        io::ErrorKind::ConnectionRefused => (
            ErrorKind::Unreachable,
            "SOCKET_REFUSED",
            format!("nothing listens on the controller's socket {at}"),
            "the controller has stopped: see journalctl -u certwright-controller, then start it",
        ),
        _ => (
            ErrorKind::Unreachable,
            "SOCKET_FAILED",
            format!("the controller's socket {at} cannot be used"),
            "check the path given with --socket and that the controller runs",
        ),
    };
    ClientError::local(kind, reason, &message, &error.to_string(), hint)
}
