//! What an operator names by its file: roots to trust, and secrets, which never stand among the words of a command. Called by
//! the command line, and by the dashboard's calls away from their event loop.

use std::io::Read as _;
use std::path::Path;

use super::{ClientError, ErrorKind};

/// A bundle of roots is smaller than this.
const ROOT_BYTES_MAX: u64 = 1 << 20;
/// Longest secret that is read.
const SECRET_BYTES_MAX: u64 = 4_096;

/// Reads roots, PEM.
///
/// # Errors
/// When the file cannot be read, or holds something else.
pub fn read_roots(path: &Path) -> Result<String, ClientError> {
    let unreadable = |cause: &str| {
        let message = format!("the roots in {} could not be read", path.display());
        let hint = "name a PEM file with the issuer's root certificates";
        ClientError::local(ErrorKind::Invalid, "ROOT_UNREADABLE", &message, cause, hint)
    };
    let size = std::fs::metadata(path).map_err(|error| unreadable(&error.to_string()))?.len();
    if size > ROOT_BYTES_MAX {
        return Err(unreadable("the file is larger than 1 MiB"));
    }
    let pem = std::fs::read_to_string(path).map_err(|error| unreadable(&error.to_string()))?;
    if pem.contains("PRIVATE KEY") {
        return Err(unreadable("the file holds a private key, which must not leave its place"));
    }
    if pem.contains("BEGIN CERTIFICATE") { Ok(pem) } else { Err(unreadable("the file holds no PEM certificate")) }
}

/// Reads a secret from where `place` says: `@FILE`, or `-` for standard input. Among the words of a command it would stand
/// in the process list.
///
/// # Errors
/// When it is a word, cannot be read, or is empty.
pub fn read_secret(option: &str, what: &str, place: &str) -> Result<String, ClientError> {
    let unreadable = |cause: &str| {
        let hint = format!("write --{option} @FILE, or --{option} - and give it on standard input");
        ClientError::local(ErrorKind::Invalid, "SECRET_UNREADABLE", &format!("{what} could not be read"), cause, &hint)
    };
    let mut text = String::new();
    let read = match (place, place.strip_prefix('@')) {
        ("-", _) => std::io::stdin().take(SECRET_BYTES_MAX).read_to_string(&mut text),
        (_, Some(path)) => {
            std::fs::File::open(path).and_then(|file| file.take(SECRET_BYTES_MAX).read_to_string(&mut text))
        }
        (_, None) => return Err(unreadable("it was given as a word, which everyone on this host can read")),
    };
    read.map_err(|error| unreadable(&error.to_string()))?;
    match text.trim() {
        "" => Err(unreadable("it is empty")),
        key => Ok(key.to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn roots_are_certificates_and_never_a_key() {
        let dir = tempfile::tempdir().unwrap();
        let check = |content: &str, cause: &str| {
            let path = dir.path().join("root.pem");
            std::fs::write(&path, content).unwrap();
            assert!(read_roots(&path).unwrap_err().problem.cause.contains(cause), "{content}");
        };
        check("hello", "no PEM");
        check("-----BEGIN PRIVATE KEY-----\n-----BEGIN CERTIFICATE-----", "private key");
        assert_eq!(read_roots(Path::new("/nonexistent")).unwrap_err().kind.exit_code(), 2);
    }
}
