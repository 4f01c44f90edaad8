//! The key is made once, and refused in every doubtful case without a change.

use std::fs;

use super::*;

fn mode(path: &Path) -> u32 {
    path.metadata().unwrap().permissions().mode() & PERMISSION_BITS
}

fn write(path: &Path, bytes: &[u8], mode: u32) {
    fs::write(path, bytes).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

#[test]
fn the_first_start_makes_a_key_and_the_next_one_reads_it() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("state.key").join("master.key");
    let made = MasterKey::load_or_create(&path, false).unwrap();
    assert_eq!((mode(&path), mode(path.parent().unwrap())), (0o600, 0o700));
    assert_eq!(fs::read(&path).unwrap(), made.expose());
    assert_eq!(fs::read_dir(path.parent().unwrap()).unwrap().count(), 1, "nothing is left beside it");
    for database_exists in [false, true] {
        let read = MasterKey::load_or_create(&path, database_exists).unwrap();
        assert_eq!(read.expose(), made.expose());
    }
    let other = MasterKey::load_or_create(&directory.path().join("other.key"), false).unwrap();
    assert_ne!(other.expose(), made.expose());
}

#[test]
fn a_missing_key_of_an_existing_database_is_not_replaced() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("state.key").join("master.key");
    let refused = MasterKey::load_or_create(&path, true).unwrap_err();
    assert!(matches!(refused, MasterKeyError::Missing { .. }));
    assert!(!path.parent().unwrap().exists());
    let problem = refused.problem();
    assert_eq!(problem.reason, "MASTER_KEY_MISSING");
    assert!(problem.message.contains(path.to_str().unwrap()) && problem.hint.contains("backup"), "{problem:?}");
}

#[test]
fn a_file_of_another_length_is_refused_and_kept() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("master.key");
    for len in [0, 31, 33, 5000] {
        write(&path, &vec![7; len], 0o600);
        for database_exists in [false, true] {
            let refused = MasterKey::load_or_create(&path, database_exists).unwrap_err();
            assert!(matches!(refused, MasterKeyError::Length { .. }), "{len}: {refused:?}");
        }
        assert_eq!(fs::read(&path).unwrap(), vec![7; len]);
    }
}

#[test]
fn a_key_that_others_can_read_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("master.key");
    for (mode, accepted) in [(0o600, true), (0o400, true), (0o640, false), (0o604, false), (0o610, false)] {
        write(&path, &[7; KEY_LEN], mode);
        let read = MasterKey::load_or_create(&path, true);
        assert_eq!(read.is_ok(), accepted, "{mode:o}");
        if let Err(refused) = read {
            assert_eq!(refused.problem().hint, format!("chmod 0600 {}", path.display()));
        }
        fs::remove_file(&path).unwrap();
    }
}

#[test]
fn what_cannot_be_opened_is_reported_and_not_made_anew() {
    let directory = tempfile::tempdir().unwrap();
    let blocked = directory.path().join("file");
    write(&blocked, b"", 0o600);
    let refused = MasterKey::load_or_create(&blocked.join("master.key"), false).unwrap_err();
    assert!(matches!(refused, MasterKeyError::File { action: "open", .. }), "{refused:?}");
    assert!(MasterKey::load_or_create(directory.path(), false).is_err(), "a directory is no key");
}
