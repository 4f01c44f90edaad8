//! The audit's lines, their chain and its signed heads: what the controller writes, agents keep as witnesses and
//! `certwright audit verify` checks must be the same bytes everywhere.
//!
//! A line is one JSON object on one line. It names the SHA-256 of the line before it, so that no line can be changed, taken
//! out or put in without every later one changing. A head names the last line and is signed; whoever holds one can tell
//! whether the line is still the same.

use rcgen::SigningKey;
use rustls::SignatureScheme;
use rustls::crypto::aws_lc_rs;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use crate::types::v1::AuditHead;
use crate::x509::{hex, unhex};

/// What the first line of all names as the one before it.
pub const BEGINNING: &str = "0000000000000000000000000000000000000000000000000000000000000000";

/// The act of a line that a restore added: the lines before it are the backup's, and those that followed them once are lost.
pub const RESTORE: &str = "RestoreBackup";

/// One line. Its JSON has the fields in this order and nothing else.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Line {
    /// Grows by one from 1.
    pub seq: u64,
    /// RFC 3339, UTC.
    pub at: jiff::Timestamp,
    /// `local:alice`, `bob`, `agent:web1`.
    pub actor: String,
    /// How the actor proved who they are: `uid 1000, login uid 1000`, `key 3fa9…`.
    pub from: String,
    /// The RPC: `RenewCertificate`.
    pub act: String,
    /// What it was about: a name.
    pub subject: String,
    /// What was asked; never a secret.
    pub detail: String,
    /// `asked` before the effect, then `done` or `failed`; `refused` when there was no effect to come.
    pub result: String,
    /// Of `done` and `failed`: the line that asked.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub answers: Option<u64>,
    /// SHA-256 of the line before, lower-case hex; [`BEGINNING`] in the first.
    pub previous: String,
}

/// The end of the chain, signed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Head {
    /// Of the controller that wrote it: a restored one begins another epoch. 0 and 1 are the first.
    #[serde(default, skip_serializing_if = "is_first")]
    pub epoch: u64,
    /// The last line.
    pub seq: u64,
    /// Its SHA-256, lower-case hex.
    pub hash: String,
    /// ECDSA P-256 with SHA-256 over [`Head::signed_bytes`], DER, lower-case hex.
    pub signature: String,
}

impl From<AuditHead> for Head {
    fn from(head: AuditHead) -> Self {
        Self { epoch: head.epoch, seq: head.seq, hash: head.hash, signature: head.signature }
    }
}

impl From<Head> for AuditHead {
    fn from(head: Head) -> Self {
        Self { seq: head.seq, hash: head.hash, signature: head.signature, epoch: head.epoch }
    }
}

/// What a chain is broken by.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Broken {
    /// Not JSON, or other fields than a line's.
    #[error("line {after} is followed by something that is no line")]
    Unreadable {
        /// The last good one.
        after: u64,
    },
    /// The number does not follow.
    #[error("line {after} is followed by line {found}")]
    Gap {
        /// The last good one.
        after: u64,
        /// The number found.
        found: u64,
    },
    /// The line before is not the one it was written after.
    #[error("line {seq} does not follow from the one before it: one of them was changed")]
    Changed {
        /// The line.
        seq: u64,
    },
}

/// Whether this is the epoch of a database that was never restored.
#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde calls it by reference")]
fn is_first(epoch: &u64) -> bool {
    *epoch <= 1
}

/// Returns the SHA-256 of a line as it is written, lower-case hex.
#[must_use]
pub fn hash(line: &str) -> String {
    hex(&Sha256::digest(line.as_bytes()))
}

impl Head {
    /// Returns what is signed.
    #[must_use]
    pub fn signed_bytes(epoch: u64, seq: u64, hash: &str) -> Vec<u8> {
        // As it was before there were epochs.
        let epoch = if is_first(&epoch) { String::new() } else { format!("epoch {epoch}\n") };
        format!("certwright audit head\n{epoch}{seq}\n{hash}\n").into_bytes()
    }

    /// Signs the end of a chain.
    ///
    /// # Errors
    /// When the key does not sign.
    pub fn sign(epoch: u64, seq: u64, hash: &str, key: &impl SigningKey) -> Result<Self, rcgen::Error> {
        let signature = key.sign(&Self::signed_bytes(epoch, seq, hash))?;
        Ok(Self { epoch, seq, hash: hash.to_owned(), signature: hex(&signature) })
    }

    /// Whether it was signed by the key whose public part this is: the uncompressed point.
    #[must_use]
    pub fn is_signed_by(&self, public_key: &[u8]) -> bool {
        let Some(signature) = unhex(&self.signature) else { return false };
        let known = aws_lc_rs::default_provider().signature_verification_algorithms.mapping;
        let p256 = known.iter().find(|(scheme, _)| *scheme == SignatureScheme::ECDSA_NISTP256_SHA256);
        let message = Self::signed_bytes(self.epoch, self.seq, &self.hash);
        p256.is_some_and(|(_, algorithms)| {
            algorithms.iter().any(|one| one.verify_signature(public_key, &message, &signature).is_ok())
        })
    }
}

/// Follows a chain line by line.
#[derive(Clone, Debug, Default)]
pub struct Chain {
    last: Option<(u64, String)>,
}

impl Chain {
    /// Takes the next line. The first one may be any: older ones may have been removed when their time was over.
    ///
    /// # Errors
    /// What the chain is broken by.
    pub fn follow(&mut self, text: &str) -> Result<Line, Broken> {
        let after = self.last.as_ref().map_or(0, |(seq, _)| *seq);
        let line: Line = serde_json::from_str(text).map_err(|_no_line| Broken::Unreadable { after })?;
        match &self.last {
            Some((seq, _)) if line.seq != seq + 1 => return Err(Broken::Gap { after: *seq, found: line.seq }),
            Some((_, hash)) if line.previous != *hash => return Err(Broken::Changed { seq: line.seq }),
            None if line.seq == 1 && line.previous != BEGINNING => return Err(Broken::Changed { seq: 1 }),
            Some(_) | None => {}
        }
        self.last = Some((line.seq, hash(text)));
        Ok(line)
    }

    /// Returns number and hash of the last line.
    #[must_use]
    pub fn end(&self) -> Option<(u64, &str)> {
        self.last.as_ref().map(|(seq, hash)| (*seq, hash.as_str()))
    }
}

#[cfg(test)]
mod tests {
    use rcgen::{KeyPair, PublicKeyData as _};

    use super::*;

    fn chain(count: u64) -> Vec<String> {
        let mut previous = BEGINNING.to_owned();
        (1..=count)
            .map(|seq| {
                let line = Line {
                    seq,
                    at: jiff::Timestamp::UNIX_EPOCH,
                    actor: "local:root".into(),
                    from: "uid 0".into(),
                    act: "RenewCertificate".into(),
                    subject: format!("web{seq}"),
                    detail: String::new(),
                    result: "asked".into(),
                    answers: None,
                    previous: previous.clone(),
                };
                let text = serde_json::to_string(&line).unwrap();
                previous = hash(&text);
                text
            })
            .collect()
    }

    fn check(lines: &[String]) -> Result<(), Broken> {
        let mut chain = Chain::default();
        lines.iter().try_for_each(|line| chain.follow(line).map(drop))
    }

    #[test]
    fn a_chain_holds_from_wherever_it_begins_and_breaks_at_every_change() {
        let lines = chain(5);
        assert_eq!(check(&lines), Ok(()));
        assert_eq!(check(&lines[2..]), Ok(()), "the older ones were removed");
        let mut changed = lines.clone();
        changed[2] = changed[2].replace("web3", "web9");
        assert_eq!(check(&changed), Err(Broken::Changed { seq: 4 }));
        let mut shorter = lines.clone();
        shorter.remove(2);
        assert_eq!(check(&shorter), Err(Broken::Gap { after: 2, found: 4 }));
        let mut noise = lines.clone();
        noise[1] = "{}".into();
        assert_eq!(check(&noise), Err(Broken::Unreadable { after: 1 }));
        let mut restamped = lines;
        restamped[0] = restamped[0].replace(BEGINNING, &"1".repeat(64));
        assert_eq!(check(&restamped), Err(Broken::Changed { seq: 1 }));
    }

    #[test]
    fn a_head_is_of_one_key_and_one_end() {
        let key = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).unwrap();
        let other = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).unwrap();
        let head = Head::sign(1, 7, &"ab".repeat(32), &key).unwrap();
        assert!(head.is_signed_by(key.der_bytes()));
        assert!(!head.is_signed_by(other.der_bytes()));
        assert!(!Head { epoch: 2, ..head.clone() }.is_signed_by(key.der_bytes()));
        assert!(!Head { seq: 8, ..head.clone() }.is_signed_by(key.der_bytes()));
        assert!(!Head { hash: "cd".repeat(32), ..head.clone() }.is_signed_by(key.der_bytes()));
        assert!(!Head { signature: "zz".into(), ..head }.is_signed_by(key.der_bytes()));
    }
}
