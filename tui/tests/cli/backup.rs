//! Backups: what is written, and what is never written.

use crate::controller::{Code, FakeController, World};
use crate::{run, world};

#[tokio::test]
async fn a_backup_is_written_whole_or_not_at_all_and_never_over_another() {
    let fake = FakeController::start(World { backup: vec![b"one ".to_vec(), b"two".to_vec()], ..world() });
    let (key, to) = (fake.folder().join("recovery.key"), fake.folder().join("a.backup"));
    let (key, to) = (key.to_str().unwrap(), to.to_str().unwrap());
    assert_eq!(run(&fake, &["backup", "keygen", key]).await.code, 0);
    let digits = std::fs::read_to_string(key).unwrap();
    assert!(digits.trim().len() == 64 && digits.trim().bytes().all(|byte| byte.is_ascii_hexdigit()), "{digits}");
    assert_eq!(run(&fake, &["backup", "keygen", key]).await.code, 1, "not over a key");
    let create = ["backup", "create", "--to", to, "--key-file", key];
    let done = run(&fake, &create).await;
    assert!(done.code == 0 && done.err.contains("backup verify"), "{}", done.err);
    assert_eq!(std::fs::read(to).unwrap(), b"one two");
    let taken = run(&fake, &create).await;
    assert!(taken.code == 2 && taken.err.contains("is there already"), "{}", taken.err);
    let whole = run(&fake, &["backup", "create", "--to", "-", "--key-file", key]).await;
    assert_eq!((whole.code, whole.out.as_str()), (0, "one two"));

    fake.change(|world| world.backup_breaks = Some(tonic::Status::new(Code::Unavailable, "the database failed")));
    let other = fake.folder().join("b.backup");
    let broken = run(&fake, &["backup", "create", "--to", other.to_str().unwrap(), "--key-file", key]).await;
    assert!(broken.code != 0 && !other.exists(), "{}", broken.err);
    assert!(std::fs::read_dir(fake.folder()).unwrap().all(|file| !file.unwrap().path().ends_with("b.backup.part")));
}

#[tokio::test]
async fn a_backup_without_anything_that_opens_it_is_not_made() {
    let fake = FakeController::start(world());
    let none = run(&fake, &["backup", "create", "--to", "x"]).await;
    assert_eq!(none.code, 2, "{}", none.err);
    let word = run(&fake, &["backup", "create", "--to", "x", "--passphrase", "hunter2hunter2"]).await;
    assert!(word.code == 2 && word.err.contains("everyone on this host can read"), "{}", word.err);
    assert!(fake.requests().is_empty());
}
