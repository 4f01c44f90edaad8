//! Private keys that are born and stay here (agent custody). A key and its CSR are on the disk before anybody hears of
//! them; a key is never deleted because its slot is no longer desired (`plan::slots` tells which may go), and never
//! leaves this room but into a target's file.

use std::collections::BTreeSet;
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
/// Ends the name of a slot that is being removed.
const GONE: &str = ".gone";
/// Most key slots on one server.
const SLOTS_MAX: usize = 1_000;

/// Returns the ids of every slot whose key is here.
pub(crate) fn held(state: &StateDir) -> Result<Vec<String>, Problem> {
    let dir = state.path().join(DIR);
    let entries = match fs::read_dir(&dir) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(problem(&dir, "list", &error)),
    };
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
            format!("this agent already holds {SLOTS_MAX} keys and makes no more"),
            "kept are the keys of running orders, of what is deployed and of the three before it, also of targets that \
             were removed; and every key whose certificate was never deployed",
            format!(
                "`certwright-agent status -o json` lists the keys that nothing desired names; remove those whose \
                 certificates are not needed any more with `rm -r {}/SLOT`",
                state.path().join(DIR).display()
            ),
        ));
    }
    let key = generate(slot.key_type)?;
    let csr = request(&key, &slot.identifiers)?;
    store(state, &dir, &slot.id, &key.serialize_pem().into(), &csr).map_err(|error| problem(&dir, "write", &error))?;
    Ok(csr)
}

/// Deletes the keys of these slots, and what a crash left of earlier ones.
pub(super) fn remove(state: &StateDir, ids: &BTreeSet<String>) -> Result<(), Problem> {
    let dir = state.path().join(DIR);
    for id in ids.iter().filter(|id| is_item_id(id)) {
        discard(&dir, id).map_err(|error| problem(&dir.join(id), "remove", &error))?;
    }
    clear(&dir).map_err(|error| problem(&dir, "clear", &error))
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
    let fits = |csr: &Vec<u8>| {
        CsrFacts::parse(csr).is_ok_and(|facts| facts.has_exactly(&slot.identifiers) && facts.others == 0)
    };
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
    remove_dir(&staged)?;
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

/// The slot disappears whole, by one rename; `clear` removes what it held.
fn discard(dir: &Path, id: &str) -> io::Result<()> {
    let gone = dir.join(format!(".{id}{GONE}"));
    remove_dir(&gone)?;
    match fs::rename(dir.join(id), gone) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        Ok(()) | Err(_) => Ok(()),
    }
}

fn clear(dir: &Path) -> io::Result<()> {
    let entries = match fs::read_dir(dir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        entries => entries?,
    };
    // Nothing is lost before it is certain that the slot's name is gone.
    sync_dir(dir)?;
    for entry in entries {
        let entry = entry?;
        let name = entry.file_name();
        if name.to_str().is_some_and(|name| name.starts_with('.') && name.ends_with(GONE)) {
            remove_dir(&entry.path())?;
        }
    }
    Ok(())
}

fn remove_dir(path: &Path) -> io::Result<()> {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        Ok(()) | Err(_) => Ok(()),
    }
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
    use std::collections::BTreeMap;
    use std::os::unix::fs::MetadataExt as _;

    use super::*;
    use crate::plan::Status;
    use crate::plan::slots::tests::left;
    use crate::plan::slots::{KeyUse, expendable};

    fn state() -> (tempfile::TempDir, StateDir) {
        let dir = tempfile::tempdir().unwrap();
        let state = StateDir::create(&dir.path().join("state")).unwrap();
        (dir, state)
    }

    fn slot(key_type: KeyType) -> KeySlot {
        let identifiers = vec!["h1.example.test".to_owned(), "*.h1.example.test".to_owned()];
        KeySlot { id: "slot-1".into(), identifiers, key_type, csr_wanted: true }
    }

    /// One DER value of less than 128 bytes.
    fn der(tag: u8, parts: &[&[u8]]) -> Vec<u8> {
        let content = parts.concat();
        [&[tag, u8::try_from(content.len()).unwrap()], content.as_slice()].concat()
    }

    /// Checks a CSR byte by byte (RFC 2986 §4.1): version 0, an empty subject, the key, and one attribute: the extension
    /// request with one extension, the names, critical because the subject is empty (RFC 5280 §4.2.1.6). No CN, no extended
    /// key usage, no TLS feature has a place in it.
    fn names_and_nothing_else(csr: &[u8], spki: &[u8]) {
        let names = der(
            0x30,
            &[
                &der(0x82, &[b"h1.example.test"]),
                &der(0x82, &[b"*.h1.example.test"]),
                &der(0x87, &[&[192, 0, 2, 1]]),
                &der(0x87, &[&[0x20, 0x01, 0x0D, 0xB8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1]]),
            ],
        );
        let critical = [1, 1, 0xFF];
        let extension = der(0x30, &[&[6, 3, 0x55, 0x1D, 0x11], &critical, &der(0x04, &[&names])]);
        let extension_request = [6, 9, 0x2A, 0x86, 0x48, 0x86, 0xF7, 0x0D, 1, 9, 14];
        let attribute = der(0x30, &[&extension_request, &der(0x31, &[&der(0x30, &[&extension])])]);
        let whole = [&[2, 1, 0, 0x30, 0], spki, &der(0xA0, &[&attribute])].concat();
        let begins = csr.windows(whole.len()).position(|part| part == whole);
        assert!(begins.is_some_and(|at| at <= 8), "behind two lengths of at most four bytes: {csr:02x?}");
    }

    #[test]
    fn the_csr_holds_the_identifiers_and_nothing_else() {
        let types = [KeyType::P256, KeyType::P384, KeyType::Rsa2048, KeyType::Rsa3072, KeyType::Rsa4096];
        for (key_type, spki_bytes) in types.into_iter().zip([91, 120, 294, 422, 550]) {
            let (_dir, state) = state();
            let identifiers = ["h1.example.test", "*.h1.example.test", "192.0.2.1", "2001:db8::1"].map(str::to_owned);
            let slot = KeySlot { identifiers: identifiers.to_vec(), ..slot(key_type) };
            let csr = make(&state, &slot).unwrap();
            let spki = proto::x509::spki_of_key(&read(&state, "slot-1").unwrap()).unwrap();
            assert_eq!(spki.len(), spki_bytes, "{key_type:?}");
            names_and_nothing_else(&csr, &spki);
            let facts = CsrFacts::parse(&csr).unwrap();
            assert!(facts.has_exactly(&identifiers) && facts.others == 0 && facts.spki_der == spki);
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

    fn named(id: &str) -> KeySlot {
        KeySlot { id: id.into(), ..slot(KeyType::P256) }
    }

    #[test]
    fn a_key_is_removed_whole_and_only_when_it_is_listed() {
        let (_dir, state) = state();
        let none = BTreeSet::new();
        remove(&state, &none).unwrap();
        assert!(!state.path().join("keys").exists());
        let csr = make(&state, &named("a")).unwrap();
        make(&state, &named("b")).unwrap();
        let listed = ["a", "absent", "../lock", ".", "..", ""].map(str::to_owned);
        state.lock().unwrap();
        remove(&state, &listed.into()).unwrap();
        assert_eq!(held(&state).unwrap(), ["b"]);
        assert!(state.path().join("lock").exists());
        assert_eq!(fs::read_dir(state.path().join("keys")).unwrap().count(), 1);
        assert_ne!(make(&state, &named("a")).unwrap(), csr, "a slot that is wished for again gets a new key");
    }

    #[test]
    fn a_crash_while_a_key_is_removed_leaves_it_whole_or_gone() {
        let (_dir, state) = state();
        let keys = state.path().join("keys");
        let a = BTreeSet::from(["a".to_owned()]);
        make(&state, &named("b")).unwrap();
        // Cut before the rename: whole. After it, and with half of it removed: gone, and cleared by the next look.
        for half in [false, true] {
            make(&state, &named("a")).unwrap();
            fs::rename(keys.join("a"), keys.join(".a.gone")).unwrap();
            if half {
                fs::remove_file(keys.join(".a.gone/csr.der")).unwrap();
            }
            assert_eq!(held(&state).unwrap(), ["b"]);
            assert_eq!(read(&state, "a").unwrap_err().reason, "KEY_LOST");
            make(&state, &named("a")).unwrap();
            remove(&state, if half { &a } else { const { &BTreeSet::new() } }).unwrap();
            assert_eq!(held(&state).unwrap().contains(&"a".to_owned()), !half);
            assert!(!keys.join(".a.gone").exists());
            remove(&state, &a).unwrap();
        }
        assert_eq!(held(&state).unwrap(), ["b"]);
    }

    #[test]
    fn a_busy_server_renews_on_and_on_and_keeps_its_pending_keys() {
        // Thousands of fsyncs: in memory, where there is one.
        let dir = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap();
        let state = StateDir::create(&dir.path().join("state")).unwrap();
        make(&state, &named("pending")).unwrap();
        let mut uses = BTreeMap::<String, KeyUse>::new();
        for number in 0..SLOTS_MAX + 100 {
            let id = format!("slot-{number}");
            make(&state, &named(&id)).unwrap();
            uses.entry("t".to_owned()).or_default().record(&left(Some(&id), Status::Applied));
            let held = held(&state).unwrap();
            let ids = expendable(&held, &uses, &BTreeSet::from([id]));
            remove(&state, &ids).unwrap();
            assert!(held.len() <= 6, "{held:?}");
            uses.values_mut().for_each(|uses| uses.forget(&held));
        }
        assert_eq!(held(&state).unwrap(), ["pending", "slot-1096", "slot-1097", "slot-1098", "slot-1099"]);
    }

    #[test]
    fn a_full_server_says_what_it_keeps_and_how_to_clear_it() {
        let (_dir, state) = state();
        for number in 0..SLOTS_MAX {
            let dir = state.make_dir("keys").unwrap().join(format!("slot-{number}"));
            fs::create_dir(&dir).unwrap();
            fs::write(dir.join(KEY), "").unwrap();
        }
        let problem = make(&state, &named("one-more")).unwrap_err();
        assert_eq!(problem.reason, "KEY_SLOTS_FULL");
        assert!(problem.hint.contains("certwright-agent status") && problem.hint.contains("/keys/SLOT"), "{problem:?}");
    }
}
