//! Private keys that are born and stay here (agent custody). A key and its CSR are on the disk before anybody hears of
//! them; a key is never deleted because its slot is no longer desired, and never leaves this room but into a target's file.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use proto::x509::CsrFacts;
use rcgen::{CertificateParams, DistinguishedName, KeyPair, RsaKeySize};
use secrecy::{ExposeSecret as _, SecretString};

use crate::problem::Problem;
use crate::state::{StateDir, problem, sync_dir, write_new};
use crate::target::{KeySlot, KeyType, is_item_id};

const DIR: &str = "keys";
const KEY: &str = "key.pem";
const CSR: &str = "csr.der";
/// Most key slots on one server.
const SLOTS_MAX: usize = 1_000;

/// Returns the ids of every slot whose key is here.
pub(super) fn held(state: &StateDir) -> Result<Vec<String>, Problem> {
    let dir = state.make_dir(DIR)?;
    let entries = fs::read_dir(&dir).map_err(|error| problem(&dir, "list", &error))?;
    let mut slots: Vec<String> = entries
        .flatten()
        .filter(|entry| entry.path().join(KEY).is_file())
        .filter_map(|entry| entry.file_name().into_string().ok())
        .filter(|name| is_item_id(name))
        .collect();
    slots.sort_unstable();
    Ok(slots)
}

/// Returns the CSR of a slot; makes key and CSR first if they are not there yet.
pub(super) fn make(state: &StateDir, slot: &KeySlot) -> Result<Vec<u8>, Problem> {
    let dir = state.make_dir(DIR)?.join(&slot.id);
    if dir.join(KEY).is_file() {
        return existing_csr(&dir, slot);
    }
    if held(state)?.len() >= SLOTS_MAX {
        return Err(Problem::new(
            "KEY_SLOTS_FULL",
            format!("this agent already holds {SLOTS_MAX} keys"),
            "keys are kept until their certificate is purged",
            "purge certificates that are no longer needed on this server",
        ));
    }
    let key = generate(slot.key_type)?;
    let csr = request(&key, &slot.identifiers)?;
    store(state, &dir, &slot.id, &key.serialize_pem().into(), &csr).map_err(|error| problem(&dir, "write", &error))?;
    Ok(csr)
}

/// Reads the key of a slot, PKCS #8 PEM.
pub(super) fn read(state: &StateDir, slot_id: &str) -> Result<SecretString, Problem> {
    let pem = state.read(&format!("{DIR}/{slot_id}/{KEY}"))?.and_then(|bytes| String::from_utf8(bytes).ok());
    pem.map(SecretString::from).ok_or_else(|| {
        Problem::new(
            "KEY_LOST",
            "the private key of this version is no longer on this server",
            format!("key slot {slot_id}"),
            "renew the certificate: the next version gets a new key",
        )
    })
}

fn existing_csr(dir: &Path, slot: &KeySlot) -> Result<Vec<u8>, Problem> {
    let stored = fs::read(dir.join(CSR)).ok();
    let fits = |csr: &Vec<u8>| CsrFacts::parse(csr).is_ok_and(|facts| facts.has_exactly(&slot.identifiers));
    if let Some(csr) = stored.filter(fits) {
        return Ok(csr);
    }
    let pem = fs::read_to_string(dir.join(KEY)).map_err(|error| problem(dir, "read", &error))?;
    let key = KeyPair::from_pem(&pem).map_err(|error| crypto("read the key", &error))?;
    let csr = request(&key, &slot.identifiers)?;
    let replace = || -> io::Result<()> {
        let temporary = dir.join("csr.new");
        drop(fs::remove_file(&temporary));
        write_new(&temporary, &csr)?;
        fs::rename(&temporary, dir.join(CSR))?;
        sync_dir(dir)
    };
    replace().map_err(|error| problem(dir, "write", &error))?;
    Ok(csr)
}

fn generate(key_type: KeyType) -> Result<KeyPair, Problem> {
    let rsa = |size| KeyPair::generate_rsa_for(&rcgen::PKCS_RSA_SHA256, size);
    let made = match key_type {
        KeyType::P256 => KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256),
        KeyType::P384 => KeyPair::generate_for(&rcgen::PKCS_ECDSA_P384_SHA384),
        KeyType::Rsa2048 => rsa(RsaKeySize::_2048),
        KeyType::Rsa3072 => rsa(RsaKeySize::_3072),
        KeyType::Rsa4096 => rsa(RsaKeySize::_4096),
    };
    made.map_err(|error| crypto("make the key", &error))
}

/// A CSR with exactly the identifiers, an empty subject and nothing else (RFC 8555 §7.4).
fn request(key: &KeyPair, identifiers: &[String]) -> Result<Vec<u8>, Problem> {
    let mut params =
        CertificateParams::new(identifiers.to_vec()).map_err(|error| crypto("put the names into the CSR", &error))?;
    params.distinguished_name = DistinguishedName::new();
    let csr = params.serialize_request(key).map_err(|error| crypto("sign the CSR", &error))?;
    Ok(csr.der().to_vec())
}

/// The slot appears whole, by one rename, or not at all.
fn store(state: &StateDir, dir: &Path, id: &str, key: &SecretString, csr: &[u8]) -> io::Result<()> {
    let staged: PathBuf = state.path().join(DIR).join(format!(".{id}.new"));
    match fs::remove_dir_all(&staged) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        Ok(()) | Err(_) => {}
    }
    std::os::unix::fs::DirBuilderExt::mode(&mut fs::DirBuilder::new(), 0o700).create(&staged)?;
    let written = write_new(&staged.join(KEY), key.expose_secret().as_bytes())
        .and_then(|()| write_new(&staged.join(CSR), csr))
        .and_then(|()| sync_dir(&staged))
        .and_then(|()| fs::rename(&staged, dir));
    if written.is_err() {
        drop(fs::remove_dir_all(&staged));
    }
    written?;
    sync_dir(&state.path().join(DIR))
}

fn crypto(what: &str, error: &rcgen::Error) -> Problem {
    Problem::new(
        "KEY_FAILED",
        format!("cannot {what}"),
        error.to_string(),
        "check the certificate's names and key type",
    )
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt as _;

    use super::*;

    fn state() -> (tempfile::TempDir, StateDir) {
        let dir = tempfile::tempdir().unwrap();
        let state = StateDir::create(&dir.path().join("state")).unwrap();
        (dir, state)
    }

    fn slot(key_type: KeyType) -> KeySlot {
        let identifiers = vec!["h1.example.test".to_owned(), "*.h1.example.test".to_owned()];
        KeySlot { id: "slot-1".into(), identifiers, key_type, csr_wanted: true }
    }

    #[test]
    fn the_csr_holds_the_identifiers_and_nothing_else() {
        for key_type in [KeyType::P256, KeyType::P384, KeyType::Rsa2048] {
            let (_dir, state) = state();
            let facts = CsrFacts::parse(&make(&state, &slot(key_type)).unwrap()).unwrap();
            assert!(facts.has_exactly(&slot(key_type).identifiers));
            assert_eq!(facts.others, 0);
            let key = read(&state, "slot-1").unwrap();
            assert_eq!(proto::x509::spki_of_key(&key).unwrap(), facts.spki_der);
        }
    }

    #[test]
    fn asking_twice_gives_the_same_key() {
        let (_dir, state) = state();
        let one = make(&state, &slot(KeyType::P256)).unwrap();
        assert_eq!(make(&state, &slot(KeyType::P256)).unwrap(), one);
        fs::remove_file(state.path().join("keys/slot-1/csr.der")).unwrap();
        let again = CsrFacts::parse(&make(&state, &slot(KeyType::P256)).unwrap()).unwrap();
        assert_eq!(again.spki_der, CsrFacts::parse(&one).unwrap().spki_der);
        assert_eq!(held(&state).unwrap(), ["slot-1"]);
    }

    #[test]
    fn keys_are_private_and_a_half_made_slot_counts_as_none() {
        let (_dir, state) = state();
        state.make_dir("keys").unwrap();
        fs::create_dir(state.path().join("keys/.slot-1.new")).unwrap();
        assert!(held(&state).unwrap().is_empty());
        make(&state, &slot(KeyType::P256)).unwrap();
        assert_eq!(fs::metadata(state.path().join("keys/slot-1/key.pem")).unwrap().mode() & 0o777, 0o600);
        assert_eq!(fs::metadata(state.path().join("keys/slot-1")).unwrap().mode() & 0o777, 0o700);
        assert_eq!(read(&state, "slot-2").unwrap_err().reason, "KEY_LOST");
    }
}
