//! What went wrong, in the parts people and scripts need: a kind (the exit code), a problem (what, why, what to do) and
//! the fields at fault. Everything in it has passed `proto::text`. Made by `client`, read by `cli` and the dashboard.

use std::error::Error;
use std::io;
use std::time::Duration;

use prost::Message as _;
use proto::text;
use proto::types::v1::{ErrorDetail, FieldError, Problem};
use tonic::{Code, Status};

use super::place::Address;
use super::{remote, socket};

/// Longest part of a problem that is shown.
const PART_CHARS_MAX: usize = 2_000;

/// What class of failure it is. Each has one exit code (tui.md §5.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ErrorKind {
    /// It failed.
    Failed,
    /// What was asked for is not valid; nothing was done.
    Invalid,
    /// There is no such record.
    NotFound,
    /// The caller is not signed in or has no right to this.
    NotAllowed,
    /// Someone else changed the record meanwhile.
    Changed,
    /// Some of several parts failed.
    Partial,
    /// The controller cannot be reached.
    Unreachable,
    /// The controller's guard refused: a limit is used up.
    Guarded,
    /// It took longer than it may.
    TimedOut,
    /// The operator interrupted it.
    Interrupted,
}

impl ErrorKind {
    /// Returns the process' exit code.
    #[must_use]
    pub fn exit_code(self) -> u8 {
        match self {
            Self::Failed => 1,
            Self::Invalid => 2,
            Self::NotFound => 3,
            Self::NotAllowed => 4,
            Self::Changed => 5,
            Self::Partial => 6,
            Self::Unreachable => 7,
            Self::Guarded => 9,
            Self::TimedOut => 124,
            Self::Interrupted => 130,
        }
    }
}

/// A call that did not succeed.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{}", problem.message)]
pub struct ClientError {
    /// The class, and with it the exit code.
    pub kind: ErrorKind,
    /// What happened, why, and what to do.
    pub problem: Problem,
    /// The request's fields at fault, as forms and options name them.
    pub fields: Vec<FieldError>,
    /// The gRPC code the controller answered with; `Unknown` for an error made on this side.
    pub code: Code,
}

impl ClientError {
    /// Makes an error on this side of the wire.
    #[must_use]
    pub fn local(kind: ErrorKind, reason: &str, message: &str, cause: &str, hint: &str) -> Self {
        let problem =
            Problem { reason: reason.into(), message: message.into(), cause: cause.into(), hint: hint.into() };
        Self { kind, problem: clean(problem), fields: Vec::new(), code: Code::Unknown }
    }

    /// Reads the controller's answer, or the reason why there is none.
    pub(super) fn from_status(status: &Status, at: Address<'_>) -> Self {
        if let Some(error) = from_detail(status) {
            return error;
        }
        if let Some(error) = connect_error(status) {
            return match at {
                Address::Socket(path) => socket::unreachable(path, error),
                Address::Port(controller) => remote::unreachable(controller, error),
            };
        }
        // A status from the wire has no source: one with a source was made on this side, so the connection broke.
        if let Some(source) = status.source() {
            return Self::lost(at, &root(source).to_string());
        }
        let (kind, reason, message, hint) = match status.code() {
            Code::Unimplemented => (
                ErrorKind::Failed,
                "CONTROLLER_OLDER",
                "the controller does not know this request".to_owned(),
                "it is older than this program: compare with `certwright version` and upgrade it",
            ),
            code => (
                kind(code),
                "CONTROLLER_ERROR",
                format!("the controller at {at} answered with an error ({})", code.description()),
                "see the controller's log: journalctl -u certwright-controller",
            ),
        };
        Self { code: status.code(), ..Self::local(kind, reason, &message, status.message(), hint) }
    }

    /// The controller did not answer in time.
    pub(super) fn silent(at: Address<'_>, waited: Duration, cause: &dyn Error) -> Self {
        let message = format!("the controller at {} did not answer for {} s", at, waited.as_secs());
        let hint = "it may be overloaded or stopped: see journalctl -u certwright-controller, then try again";
        Self::local(ErrorKind::Unreachable, "CONTROLLER_SILENT", &message, &cause.to_string(), hint)
    }

    /// The connection ended in the middle of a call or of a stream that has no end.
    pub(super) fn lost(at: Address<'_>, cause: &str) -> Self {
        let message = format!("the connection to the controller at {} was lost", at);
        let hint = "the controller may be restarting: try again";
        Self::local(ErrorKind::Unreachable, "CONTROLLER_LOST", &message, cause, hint)
    }
}

fn from_detail(status: &Status) -> Option<ClientError> {
    if status.details().is_empty() {
        return None;
    }
    let detail = ErrorDetail::decode(status.details()).ok()?;
    let problem = detail.problem.unwrap_or_else(|| Problem { message: status.message().into(), ..Problem::default() });
    let fields = detail.fields.into_iter().map(|field| FieldError {
        field: text::one_line(&field.field, PART_CHARS_MAX),
        message: text::one_line(&field.message, PART_CHARS_MAX),
        hint: text::one_line(&field.hint, PART_CHARS_MAX),
    });
    Some(ClientError {
        kind: kind(status.code()),
        problem: clean(problem),
        fields: fields.collect(),
        code: status.code(),
    })
}

fn kind(code: Code) -> ErrorKind {
    match code {
        Code::NotFound => ErrorKind::NotFound,
        Code::PermissionDenied | Code::Unauthenticated => ErrorKind::NotAllowed,
        Code::Aborted => ErrorKind::Changed,
        Code::InvalidArgument => ErrorKind::Invalid,
        Code::Unavailable => ErrorKind::Unreachable,
        Code::ResourceExhausted => ErrorKind::Guarded,
        Code::DeadlineExceeded => ErrorKind::TimedOut,
        _ => ErrorKind::Failed,
    }
}

fn root<'a>(mut error: &'a (dyn Error + 'static)) -> &'a (dyn Error + 'static) {
    while let Some(source) = error.source() {
        error = source;
    }
    error
}

/// Finds the system's error below a status that was made on this side, unless it only says that a connection broke.
fn connect_error(status: &Status) -> Option<&io::Error> {
    let mut source = status.source();
    while let Some(error) = source {
        if let Some(error) = error.downcast_ref::<io::Error>() {
            use io::ErrorKind::{BrokenPipe, ConnectionAborted, ConnectionReset, UnexpectedEof};
            let broke = matches!(error.kind(), BrokenPipe | ConnectionAborted | ConnectionReset | UnexpectedEof);
            return (!broke).then_some(error);
        }
        source = error.source();
    }
    None
}

fn clean(problem: Problem) -> Problem {
    Problem {
        reason: text::one_line(&problem.reason, PART_CHARS_MAX),
        message: text::one_line(&problem.message, PART_CHARS_MAX),
        cause: text::many_lines(&problem.cause, PART_CHARS_MAX),
        hint: text::one_line(&problem.hint, PART_CHARS_MAX),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;
    use std::path::Path;

    use proto::operator::v1::WhoamiRequest;

    use super::*;
    use crate::client::Client;

    fn answered(code: Code, detail: &ErrorDetail) -> ClientError {
        let status = Status::with_details(code, "text", detail.encode_to_vec().into());
        ClientError::from_status(&status, Address::Socket(Path::new("/run/x.sock")))
    }

    #[test]
    fn each_answer_has_its_exit_code() {
        let codes = [
            (Code::NotFound, 3),
            (Code::PermissionDenied, 4),
            (Code::Unauthenticated, 4),
            (Code::Aborted, 5),
            (Code::InvalidArgument, 2),
            (Code::Unavailable, 7),
            (Code::ResourceExhausted, 9),
            (Code::DeadlineExceeded, 124),
            (Code::AlreadyExists, 1),
            (Code::FailedPrecondition, 1),
            (Code::Internal, 1),
        ];
        for (code, exit) in codes {
            let detail = ErrorDetail { problem: Some(Problem::default()), fields: Vec::new() };
            assert_eq!(answered(code, &detail).kind.exit_code(), exit, "{code:?} with details");
        }
    }

    #[test]
    fn the_controllers_words_arrive_whole_and_harmless() {
        let detail = ErrorDetail {
            problem: Some(Problem {
                reason: "NAME_INVALID".into(),
                message: "bad \u{1b}[31mname".into(),
                cause: "two\nlines".into(),
                hint: "use another".into(),
            }),
            fields: vec![FieldError { field: "--san".into(), message: "a\u{7}".into(), hint: String::new() }],
        };
        let error = answered(Code::InvalidArgument, &detail);
        assert_eq!(error.problem.message, "bad <U+001B>[31mname");
        assert_eq!(error.problem.cause, "two\nlines");
        assert_eq!(error.fields[0].message, "a<U+0007>");
        assert_eq!(error.to_string(), error.problem.message);
    }

    #[test]
    fn an_answer_without_details_still_says_what_to_do() {
        for code in [Code::Internal, Code::Unimplemented, Code::Unavailable, Code::Unknown] {
            let error = ClientError::from_status(
                &Status::new(code, "h2 protocol error"),
                Address::Socket(Path::new("/run/x.sock")),
            );
            assert!(!error.problem.hint.is_empty() && !error.problem.reason.is_empty(), "{code:?}");
            assert_eq!(error.problem.cause, "h2 protocol error");
        }
    }

    async fn whoami(socket: &Path) -> ClientError {
        Client::new(socket).whoami(WhoamiRequest {}).await.unwrap_err()
    }

    #[tokio::test]
    async fn each_socket_that_cannot_be_opened_has_its_own_advice() {
        let dir = tempfile::tempdir().unwrap();
        let missing = whoami(&dir.path().join("none.sock")).await;
        assert_eq!((missing.kind, &*missing.problem.reason), (ErrorKind::Unreachable, "SOCKET_MISSING"));
        assert!(missing.problem.message.contains("none.sock"));

        let left = dir.path().join("left.sock");
        drop(std::os::unix::net::UnixListener::bind(&left).unwrap());
        assert_eq!(whoami(&left).await.problem.reason, "SOCKET_REFUSED");

        let long = dir.path().join("x".repeat(200));
        assert_eq!(whoami(&long).await.problem.reason, "SOCKET_FAILED");

        let private = dir.path().join("private.sock");
        let _listener = std::os::unix::net::UnixListener::bind(&private).unwrap();
        std::fs::set_permissions(&private, std::fs::Permissions::from_mode(0o000)).unwrap();
        if !nix::unistd::geteuid().is_root() {
            assert_eq!(whoami(&private).await.problem.reason, "SOCKET_FORBIDDEN");
        }
        let denied = socket::unreachable(&private, &io::Error::from(io::ErrorKind::PermissionDenied));
        assert_eq!((denied.kind.exit_code(), &*denied.problem.reason), (4, "SOCKET_FORBIDDEN"));
    }

    #[tokio::test]
    async fn a_peer_that_hangs_up_is_a_lost_connection() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("up.sock");
        let listener = tokio::net::UnixListener::bind(&path).unwrap();
        let (answer, _) = tokio::join!(whoami(&path), async { drop(listener.accept().await) });
        assert_eq!((answer.kind, &*answer.problem.reason), (ErrorKind::Unreachable, "CONTROLLER_LOST"), "{answer:?}");
    }
}
