//! Lets the fuzzer behind the locks of a backup: random bytes never have the right digest, nor a seal. Built for `e2e/fuzz` only.

use std::sync::OnceLock;

use jiff::Timestamp;
use sha2::{Digest as _, Sha256};

use super::super::seal::recovery::{Lock, Recovery};
use super::super::seal::stream::{CHUNK, Chunks};
use super::write::framed;
use super::{About, FORM, LAST, MAGIC, Opened, SCHEMA_VERSION, open};

/// The first three lines with the digest that belongs to them.
fn header(about: &[u8], lock: &[u8]) -> Vec<u8> {
    let mut lines = format!("{MAGIC}{FORM}\n").into_bytes();
    for line in [about, lock] {
        lines.extend_from_slice(line);
        lines.push(b'\n');
    }
    let sum = proto::x509::hex(&Sha256::digest(&lines));
    lines.extend_from_slice(format!("{sum}\n").as_bytes());
    lines
}

/// The bytes as a file, as a header that was made to fit, and as rows that somebody sealed.
///
/// # Panics
/// When what was sealed here does not open: a bug.
pub fn fuzz(bytes: &[u8]) {
    static KEY: OnceLock<Recovery> = OnceLock::new();
    let recovery = KEY.get_or_init(|| Recovery::key_file(&"0".repeat(64).into()).expect("64 digits are a key"));
    drop(open(bytes, recovery).and_then(Opened::verify));
    if let Some(at) = bytes.iter().position(|byte| *byte == b'\n') {
        let (about, lock) = bytes.split_at(at);
        drop(open(header(about, lock.get(1..).unwrap_or_default()).as_slice(), recovery));
    }
    let about = About {
        made_at: Timestamp::UNIX_EPOCH,
        controller: String::new(),
        version: String::new(),
        schema: SCHEMA_VERSION,
        revision: 0,
    };
    let about = serde_json::to_string(&about).expect("it is plain data");
    let (lock, keys) = Lock::make(recovery, format!("{MAGIC}{FORM}\n{about}\n").as_bytes());
    let lock = serde_json::to_string(&lock).expect("it is plain data");
    let mut file = header(about.as_bytes(), lock.as_bytes());
    let sum = file.get(file.len() - 65..file.len() - 1).unwrap_or_default().to_vec();
    let mut chunks = Chunks::new(&keys.stream, &sum);
    let mut rest = bytes;
    while let Some((chunk, more)) = rest.split_at_checked(CHUNK).filter(|(_, more)| !more.is_empty()) {
        file.extend(framed(&chunks.seal(chunk, false), 0));
        rest = more;
    }
    file.extend(framed(&chunks.seal(rest, true), LAST));
    drop(open(file.as_slice(), recovery).expect("this lock is ours").verify());
}
