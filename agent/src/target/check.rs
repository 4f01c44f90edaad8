//! PURE: what must hold of a target, a key slot and a name before any of it becomes a path, whoever says it: the controller
//! on the wire, or the half of the agent that talks with the controller.

use proto::text::one_line;

use super::{Content, KeySlot, Target, TargetFile, malformed, normalise};
use crate::problem::Problem;

/// Nobody but the owner may write a file, or they could swap what the service reads at its next reload.
const MODE_BITS: u32 = 0o644;
const FILES_MAX: usize = 16;
const COMMANDS_MAX: usize = 8;
const ENDPOINTS_MAX: usize = 16;
const KEY_AUTHORIZATION_BYTES_MAX: usize = 512;

impl Target {
    /// Refuses what could lead out of its directory, or is more than a target may hold.
    pub(crate) fn check(&self) -> Result<(), Problem> {
        check_item_id("a target", &self.id)?;
        self.key_slot_id.iter().try_for_each(|id| check_item_id("a key slot", id))?;
        limit("files", self.files.len(), FILES_MAX)?;
        limit("validate commands", self.validate.len(), COMMANDS_MAX)?;
        limit("reload commands", self.reload.len(), COMMANDS_MAX)?;
        limit("verify endpoints", self.verify.len(), ENDPOINTS_MAX)?;
        check_dir(&self.dir)?;
        self.files.iter().try_for_each(TargetFile::check)?;
        let count = |content| self.files.iter().filter(|file| file.content == content).count();
        let has_leaf = self.files.iter().any(|file| file.content.holds_leaf());
        match (count(Content::Pfx), count(Content::PfxPassword)) {
            (0, 0) => Ok(()),
            (1.., 1) if has_leaf => Ok(()),
            _ => Err(malformed("files (a PKCS #12 file needs one for its password and one with the leaf)", &self.dir)),
        }
    }
}

impl TargetFile {
    fn check(&self) -> Result<(), Problem> {
        check_file_name(&self.name)?;
        if let Some(owner) = self.owner.as_ref().filter(|owner| !is_account(&owner.user) || !is_account(&owner.group)) {
            return Err(malformed("an owner (expected user:group)", &owner.to_string()));
        }
        if self.mode & !MODE_BITS != 0 || self.mode & 0o400 == 0 {
            return Err(malformed("a file mode (expected 0400 to 0644)", &format!("{:04o}", self.mode)));
        }
        if self.content.holds_key() && self.mode & 0o007 != 0 {
            return Err(malformed("a mode for a private key (expected 0400 to 0640)", &format!("{:04o}", self.mode)));
        }
        Ok(())
    }
}

impl KeySlot {
    /// Refuses an id that could not be a directory's name, and names that no CSR may hold.
    pub(crate) fn check(&self) -> Result<(), Problem> {
        check_item_id("a key slot", &self.id)?;
        check_identifiers(&self.identifiers)
    }
}

/// Refuses a name that is more than one file's.
pub(crate) fn check_file_name(name: &str) -> Result<(), Problem> {
    let bare = !name.is_empty()
        && name.len() <= 200
        && !name.starts_with('.')
        && name.chars().all(|ch| ch != '/' && !ch.is_control());
    if bare {
        return Ok(());
    }
    Err(Problem::new(
        "FILE_NAME",
        format!("{:?} cannot be a file name", one_line(name, 255)),
        "a file name has 1 to 200 octets, no slash, no control character and no leading dot",
        "choose another name for this file of the target",
    ))
}

/// Refuses a directory that is not written in full.
pub(crate) fn check_dir(path: &str) -> Result<(), Problem> {
    if normalise(path).as_deref() == Some(path) {
        return Ok(());
    }
    Err(Problem::new(
        "DIR_INVALID",
        format!("{:?} cannot be a directory of a target", one_line(path, 200)),
        "a directory is an absolute path without `..`, `.certwright` or control characters",
        "write the directory in full, for example /etc/nginx/ssl/www.example.com",
    ))
}

/// Refuses an id that could not be a file's name.
pub(crate) fn check_item_id(what: &str, id: &str) -> Result<(), Problem> {
    if is_item_id(id) { Ok(()) } else { Err(malformed(&format!("the id of {what}"), id)) }
}

/// Refuses names that are neither DNS names nor addresses.
pub(crate) fn check_identifiers(names: &[String]) -> Result<(), Problem> {
    if names.is_empty() || names.len() > proto::x509::NAMES_MAX {
        return Err(malformed("a list of identifiers", &format!("{} names", names.len())));
    }
    for name in names {
        let bytes = name.strip_prefix("*.").unwrap_or(name);
        let good = !bytes.is_empty()
            && bytes.len() <= 253
            && bytes.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b':'));
        if !good {
            return Err(malformed("an identifier", name));
        }
    }
    Ok(())
}

/// Refuses what is no token, or no key authorization of it (RFC 8555 §8.1).
pub(crate) fn check_answer(token: &str, key_authorization: &str) -> Result<(), Problem> {
    if !is_token(token) {
        return Err(Problem::new(
            "TOKEN_INVALID",
            format!("a challenge token is not one: {:?}", one_line(token, 64)),
            "a token has 1 to 128 characters of A-Z a-z 0-9 _ - (RFC 8555 §8.1)",
            "the CA sent it: choose another CA, or ask its operator",
        ));
    }
    let rest = key_authorization.strip_prefix(token).and_then(|rest| rest.strip_prefix('.'));
    if rest.is_some_and(is_token) && key_authorization.len() <= KEY_AUTHORIZATION_BYTES_MAX {
        return Ok(());
    }
    Err(malformed("a key authorization (expected TOKEN.THUMBPRINT)", token))
}

/// Whether the text is an http-01 token (RFC 8555 §8.1), base64url.
pub(crate) fn is_token(text: &str) -> bool {
    (1..=128).contains(&text.len()) && is_base64url(text)
}

/// Whether the text is an id that may become a file name.
pub(crate) fn is_item_id(text: &str) -> bool {
    (1..=64).contains(&text.len()) && is_base64url(text)
}

fn is_base64url(text: &str) -> bool {
    text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-')
}

fn is_account(text: &str) -> bool {
    (1..=32).contains(&text.len())
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'.' | b'$'))
}

fn limit(what: &str, count: usize, max: usize) -> Result<(), Problem> {
    if count <= max {
        Ok(())
    } else {
        Err(malformed(&format!("a target with at most {max} {what}"), &count.to_string()))
    }
}
