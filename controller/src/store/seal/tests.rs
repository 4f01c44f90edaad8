//! A sealed secret opens at its place, unchanged, with its key; and in no other case.

use super::*;

const PLACE: Place<'static> = Place { table: Table::Version, key: "v1", field: "key" };

fn secret() -> SecretString {
    "-----BEGIN PRIVATE KEY-----\nÄ\n".to_owned().into()
}

#[test]
fn a_sealed_secret_opens_where_it_was_sealed() {
    let keyring = Keyring::random();
    for text in ["", "x", secret().expose_secret(), &"long".repeat(50_000)] {
        let sealed = keyring.seal(PLACE, &text.to_owned().into());
        assert_eq!(keyring.open(PLACE, &sealed).unwrap().expose_secret(), text);
    }
}

#[test]
fn no_two_seals_are_alike() {
    let keyring = Keyring::random();
    let seals: std::collections::HashSet<_> =
        (0..100).map(|_| keyring.seal(PLACE, &secret())).flat_map(|sealed| [sealed.nonce, sealed.ciphertext]).collect();
    assert_eq!(seals.len(), 200);
}

#[test]
fn a_sealed_secret_moved_anywhere_else_does_not_open() {
    let keyring = Keyring::random();
    let sealed = keyring.seal(PLACE, &secret());
    let elsewhere = [
        Place { table: Table::KeySlot, ..PLACE },
        Place { key: "v2", ..PLACE },
        Place { field: "chain", ..PLACE },
        // The same letters, cut in another place.
        Place { key: "v1k", field: "ey", ..PLACE },
        Place { key: "v", field: "1key", ..PLACE },
        Place { key: "", field: "v1key", ..PLACE },
    ];
    for place in elsewhere {
        assert!(matches!(keyring.open(place, &sealed), Err(SealError::Damaged { .. })), "{place:?}");
    }
}

#[test]
fn a_flip_of_any_bit_is_noticed() {
    let keyring = Keyring::random();
    let sealed = keyring.seal(PLACE, &secret());
    let flips = |text: &str| {
        let bytes = STANDARD.decode(text).unwrap();
        (0..bytes.len() * 8).map(move |bit| {
            let mut flipped = bytes.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            STANDARD.encode(flipped)
        })
    };
    let nonces = flips(&sealed.nonce).map(|nonce| Sealed { nonce, ..sealed.clone() });
    let ciphertexts = flips(&sealed.ciphertext).map(|ciphertext| Sealed { ciphertext, ..sealed.clone() });
    for changed in nonces.chain(ciphertexts) {
        assert!(matches!(keyring.open(PLACE, &changed), Err(SealError::Damaged { .. })));
    }
}

#[test]
fn what_is_cut_or_no_base64_is_an_error_not_a_panic() {
    let keyring = Keyring::random();
    let sealed = keyring.seal(PLACE, &secret());
    for broken in ["", "A", "AAAA", "not base64!", "AAAAAAAAAAAA"] {
        let nonce = Sealed { nonce: broken.to_owned(), ..sealed.clone() };
        let ciphertext = Sealed { ciphertext: broken.to_owned(), ..sealed.clone() };
        assert!(keyring.open(PLACE, &nonce).is_err() && keyring.open(PLACE, &ciphertext).is_err());
    }
}

#[test]
fn another_keyring_does_not_open_it() {
    let (ours, theirs) = (Keyring::random(), Keyring::random());
    let sealed = ours.seal(PLACE, &secret());
    assert!(matches!(theirs.open(PLACE, &sealed), Err(SealError::UnknownKey { .. })));
    let renamed = Sealed { key_id: theirs.active.id.clone(), ..sealed };
    assert!(matches!(theirs.open(PLACE, &renamed), Err(SealError::Damaged { .. })));
}

#[test]
fn a_rewrapped_keyring_opens_with_the_new_key_only_and_still_opens_what_was_sealed() {
    let (old, new) = (MasterKey::random(), MasterKey::random());
    let keyring = Keyring::random();
    let sealed = keyring.seal(PLACE, &secret());
    let stored = keyring.rewrap(&old);
    let reopened = Keyring::unwrap(&stored, &old).unwrap().unwrap();
    let rewrapped = reopened.rewrap(&new);
    assert!(Keyring::unwrap(&rewrapped, &old).unwrap().is_none());
    let reopened = Keyring::unwrap(&rewrapped, &new).unwrap().unwrap();
    assert_eq!(reopened.open(PLACE, &sealed).unwrap().expose_secret(), secret().expose_secret());
}

#[test]
fn an_older_data_key_still_opens_and_the_active_one_seals() {
    let master = MasterKey::random();
    let Keyring { active: first, .. } = Keyring::random();
    let sealed = Keyring { active: DataKey { id: first.id.clone(), key: copy(&first) }, older: Vec::new() }
        .seal(PLACE, &secret());
    let second = Keyring { active: Keyring::random().active, older: vec![first] };
    let reopened = Keyring::unwrap(&second.rewrap(&master), &master).unwrap().unwrap();
    assert!(reopened.open(PLACE, &sealed).is_ok());
    assert_eq!(reopened.seal(PLACE, &secret()).key_id, second.active.id);
}

#[test]
fn a_damaged_keyring_is_told_from_a_wrong_master_key() {
    let master = MasterKey::random();
    let keyring = Keyring::random();
    let mut record = keyring.rewrap(&master);
    record.active.key = Keyring::random().rewrap(&master).active.key;
    assert!(matches!(Keyring::unwrap(&record, &master), Err(SealError::Damaged { .. })));
}

#[test]
fn neither_debug_nor_json_shows_a_secret() {
    let master = MasterKey::random();
    let keyring = Keyring::random();
    let sealed = keyring.seal(PLACE, &secret());
    let record = keyring.rewrap(&master);
    let shown = format!("{keyring:?} {master:?} {sealed:?} {record:?}");
    let json = serde_json::to_string(&(&sealed, &record)).unwrap();
    let keys = [master.expose(), keyring.active.key.expose_secret()];
    for key in keys {
        for text in [STANDARD.encode(key), proto::x509::hex(key), format!("{key:?}")] {
            assert!(!shown.contains(&text) && !json.contains(&text));
        }
    }
    assert!(!shown.contains(&sealed.ciphertext) && !json.contains("PRIVATE"));
}

fn copy(key: &DataKey) -> SecretBox<[u8; KEY_LEN]> {
    SecretBox::new(Box::new(*key.key.expose_secret()))
}
