//! The room as a whole: what another process may ask, however hostile it is, and what happens when nobody asks any more.

use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::time::Duration;

use async_trait::async_trait;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::UnixStream;
use tokio::time::{sleep, timeout};

use super::files::tests::{Issued, Site, issue, visible};
use super::request::{Install, LookOver};
use super::socket::remote;
use super::*;
use crate::host::{CommandExit, CommandOutcome, Connection, Incoming};
use crate::plan::trial::Verdict;
use crate::target::{KeySlot, KeyType};

const RELOAD: [&str; 2] = ["/usr/sbin/nginx", "-s"];

/// Writes down what runs.
#[derive(Debug, Default)]
struct Recorder {
    ran: Mutex<Vec<Vec<String>>>,
    next_hangs: Mutex<bool>,
}

impl Recorder {
    /// The next command never ends.
    fn hang(&self) {
        *self.next_hangs.lock().unwrap() = true;
    }
}

#[async_trait]
impl Host for Recorder {
    async fn connect(&self, _address: &str) -> std::io::Result<Box<dyn Connection>> {
        unreachable!("this half has no network")
    }

    async fn bind(&self, _port: u16) -> std::io::Result<Box<dyn Incoming>> {
        unreachable!("this half has no network")
    }

    async fn run(&self, argv: &[String], _timeout: Duration) -> CommandOutcome {
        self.ran.lock().unwrap().push(argv.to_vec());
        if std::mem::take(&mut *self.next_hangs.lock().unwrap()) {
            std::future::pending::<()>().await;
        }
        CommandOutcome { exit: CommandExit::Status(0), output: String::new(), took: Duration::ZERO }
    }

    async fn listeners(&self, _port: u16) -> Vec<u64> {
        unreachable!("this half has no network")
    }

    async fn socket_holder(&self, _sockets: Vec<u64>) -> Option<String> {
        None
    }
}

/// A server with a policy for one directory, one command and one web root, and secrets beside.
struct Server {
    site: Site,
    host: Arc<Recorder>,
    tasks: JoinSet<()>,
}

impl Server {
    fn new() -> Self {
        let site = Site::new();
        let at = |path: &str| site.dir.path().join(path);
        for dir in ["www", "private", "state"] {
            std::fs::create_dir(at(dir)).unwrap();
        }
        std::fs::set_permissions(at("state"), std::os::unix::fs::PermissionsExt::from_mode(0o700)).unwrap();
        std::fs::write(at("private/secret"), "secret").unwrap();
        let policy = format!(
            "[[dir]]\npath = {:?}\nnames = [\"*.example.test\"]\nfiles = [\"*.pem\"]\n[[command]]\nargv = {RELOAD:?}\n\
             [http01]\nwebroots = [{:?}]\n[key]\ncustody = [\"agent\", \"controller\"]\n",
            site.path(),
            at("www"),
        );
        std::fs::write(at("policy.toml"), policy).unwrap();
        Self { site, host: Arc::default(), tasks: JoinSet::new() }
    }

    fn at(&self, path: &str) -> PathBuf {
        self.site.dir.path().join(path)
    }

    fn state(&self) -> StateDir {
        StateDir::open(&self.at("state")).unwrap()
    }

    /// Starts the half in this process.
    fn open(&mut self) -> Handle {
        let (handle, server) = open(self.state(), self.at("policy.toml"), Arc::<Recorder>::clone(&self.host));
        self.tasks.spawn(server.serve(CancellationToken::new()));
        handle
    }

    /// Starts the half behind its socket, for one uid.
    fn listen(&mut self, uid: u32) -> CancellationToken {
        let stop = CancellationToken::new();
        let door = Door::open(&self.at("apply.sock"), (uid, rustix::process::getegid().as_raw())).unwrap();
        let host = Arc::<Recorder>::clone(&self.host);
        self.tasks.spawn(serve_at(door, self.state(), self.at("policy.toml"), host, stop.clone()));
        stop
    }

    fn call(&mut self) -> Handle {
        let (handle, remote) = remote(self.at("apply.sock"));
        self.tasks.spawn(remote.serve(CancellationToken::new()));
        handle
    }

    fn target(&self, issued: &Issued) -> Target {
        Target { reload: vec![RELOAD.map(str::to_owned).to_vec()], ..self.site.target(issued) }
    }

    fn install(&self, issued: &Issued) -> Install {
        Install {
            target: self.target(issued),
            leaf_pem: issued.leaf_pem.clone(),
            chain_pem: String::new(),
            key_pem: Some(issued.key_pem.clone().into()),
            dropped: vec![],
            was_proven: true,
        }
    }

    /// Everything but what the policy allows: each path with its inode, mode and content.
    fn outside(&self) -> BTreeMap<PathBuf, (u64, u32, Vec<u8>)> {
        let mut found = BTreeMap::new();
        let mut left = vec![self.site.dir.path().to_owned()];
        while let Some(path) = left.pop() {
            for entry in std::fs::read_dir(&path).unwrap().flatten() {
                let (path, metadata) = (entry.path(), entry.metadata().unwrap());
                if path == self.site.path() || path == self.at("state") || path == self.at("www") {
                    continue;
                }
                if metadata.is_dir() {
                    left.push(path.clone());
                }
                let content = if metadata.is_file() { std::fs::read(&path).unwrap() } else { Vec::new() };
                found.insert(path, (metadata.ino(), metadata.mode(), content));
            }
        }
        found
    }

    fn ran(&self) -> Vec<Vec<String>> {
        self.host.ran.lock().unwrap().clone()
    }
}

fn own_uid() -> u32 {
    rustix::process::geteuid().as_raw()
}

fn slot(id: &str) -> KeySlot {
    KeySlot { id: id.into(), identifiers: vec!["h1.example.test".into()], key_type: KeyType::P256, csr_wanted: true }
}

#[tokio::test]
async fn the_other_half_gets_over_the_socket_what_it_gets_in_one_process() {
    let mut server = Server::new();
    server.listen(own_uid());
    let apply = server.call();
    assert_eq!(apply.policy().await.unwrap(), server.open().policy().await.unwrap());
    let csr = apply.make_key(slot("slot-1")).await.unwrap();
    assert!(proto::x509::CsrFacts::parse(&csr).is_ok());
    assert_eq!(apply.keys_held().await.unwrap(), ["slot-1"]);
    let issued = issue(0);
    assert!(apply.install(server.install(&issued)).await.unwrap());
    assert_eq!(visible(&server.site.path()), Some(issued.fingerprint_sha256));
    assert!(apply.is_in_place(&server.target(&issued)).await.unwrap());
    let held = apply.read_held(&server.target(&issued)).await.unwrap().unwrap();
    assert_eq!(held.fingerprint_sha256, issued.fingerprint_sha256);
    let ran = apply.run(RELOAD.map(str::to_owned).to_vec()).await.unwrap();
    assert_eq!((ran.exit, server.ran().len()), (CommandExit::Status(0), 1));
    // Many at once, each with its own answer.
    let mut asked = JoinSet::new();
    for number in 0..200 {
        let apply = apply.clone();
        asked.spawn(async move { (number, apply.make_key(slot(&format!("many-{}", number % 5))).await) });
    }
    while let Some(answered) = asked.join_next().await {
        assert!(answered.unwrap().1.is_ok());
    }
}

#[tokio::test]
async fn a_process_of_another_user_is_sent_away() {
    let mut server = Server::new();
    server.listen(own_uid() + 1);
    let problem = server.call().policy().await.unwrap_err();
    assert_eq!(problem.reason, "APPLY_AWAY");
    let mode = std::fs::metadata(server.at("apply.sock")).unwrap();
    assert_eq!((mode.mode() & 0o777, mode.uid()), (0o600, own_uid() + 1));
}

#[tokio::test]
async fn a_half_that_was_restarted_is_found_again() {
    let mut server = Server::new();
    let stop = server.listen(own_uid());
    let apply = server.call();
    apply.policy().await.unwrap();
    // Nobody reads what is asked now.
    server.host.hang();
    let mut asked = JoinSet::new();
    asked.spawn({
        let apply = apply.clone();
        async move { apply.run(RELOAD.map(str::to_owned).to_vec()).await }
    });
    while server.ran().is_empty() {
        sleep(Duration::from_millis(5)).await;
    }
    stop.cancel();
    // The one whose connection was cut, and the other end, which stays.
    drop(timeout(Duration::from_secs(5), server.tasks.join_next()).await.unwrap());
    server.listen(own_uid());
    let ran = timeout(Duration::from_secs(5), asked.join_next()).await.unwrap().unwrap().unwrap();
    assert_eq!(ran.unwrap().exit, CommandExit::Status(0), "asked again");
    assert_eq!(server.ran().len(), 2);
    apply.policy().await.unwrap();
}

#[tokio::test]
async fn bytes_that_are_no_message_end_only_their_own_connection() {
    let mut server = Server::new();
    server.listen(own_uid());
    let apply = server.call();
    let frame = |text: &str| [u32::try_from(text.len()).unwrap().to_be_bytes().as_slice(), text.as_bytes()].concat();
    for bytes in [
        vec![0xff; 64],
        u32::MAX.to_be_bytes().to_vec(),
        frame("{}"),
        frame("\u{0}\u{1b}[2J"),
        frame(r#"{"id": 1, "request": "shell"}"#),
        frame(r#"{"id": 1, "request": {"run": "/bin/sh -c id"}}"#),
        frame(&format!("{}1{}", "[".repeat(100_000), "]".repeat(100_000))),
    ] {
        let mut stream = UnixStream::connect(server.at("apply.sock")).await.unwrap();
        // It may be sent away before it has said everything.
        drop(stream.write_all(&bytes).await);
        let mut answer = Vec::new();
        drop(timeout(Duration::from_secs(5), stream.read_to_end(&mut answer)).await.unwrap());
        assert!(answer.is_empty());
        assert!(apply.policy().await.is_ok());
    }
    assert!(server.ran().is_empty());
}

/// What an attacker who took over the half with the network would ask of targets.
fn hostile_targets(server: &Server, issued: &Issued) -> Vec<Target> {
    let mut targets = Vec::new();
    let mut with = |change: &dyn Fn(&mut Target)| {
        let mut target = server.target(issued);
        change(&mut target);
        targets.push(target);
    };
    let private = server.at("private").to_str().unwrap().to_owned();
    for dir in ["/etc", "/", "", "etc", "/root/.ssh", "/etc/cron.d", "/proc/self/root/etc", &private, "/etc\u{0}"] {
        with(&|target| target.dir = dir.to_owned());
        with(&|target| target.dir = format!("{}/../{dir}", target.dir));
        with(&|target| target.dir = format!("{}/.certwright/{dir}", target.dir));
    }
    for name in HOSTILE_NAMES.into_iter().chain(["x.sh"]) {
        with(&|target| target.files[0].name = name.to_owned());
    }
    for mode in [0o4755, 0o666, 0o777, 0o644, 0o100] {
        with(&|target| target.files[1].mode = mode);
    }
    for argv in hostile_commands() {
        with(&|target| target.reload = vec![argv.clone()]);
        with(&|target| target.validate = vec![argv.clone()]);
    }
    for id in HOSTILE_IDS {
        with(&|target| target.key_slot_id = Some(id.to_owned()));
    }
    with(&|target| target.identifiers = vec!["www.other.test".to_owned()]);
    targets
}

const HOSTILE_NAMES: [&str; 7] = ["../private/x.pem", "/etc/x.pem", "..", ".bashrc", "a\u{0}.pem", "x\n.pem", ""];
const HOSTILE_IDS: [&str; 6] = ["../../private", "/", "..", "", "a/b", "slot\u{0}"];

fn hostile_commands() -> Vec<Vec<String>> {
    let words = ["/bin/sh", "/usr/bin/systemctl", "/usr/sbin/nginx", "/usr/sbin/nginx;id", "$(id)", "../nginx", ""];
    let argvs = words.iter().flat_map(|word| {
        [vec![*word], vec![*word, "-s", "reload"], vec![*word, "-s\u{0}"], vec![*word, "-c", "id"], vec![]]
    });
    argvs.map(|argv| argv.into_iter().map(str::to_owned).collect()).collect()
}

/// What such an attacker would ask, of targets and beside them.
fn hostile(server: &Server, issued: &Issued) -> Vec<ApplyRequest> {
    let mut asked: Vec<ApplyRequest> = hostile_commands().into_iter().map(ApplyRequest::Run).collect();
    for target in hostile_targets(server, issued) {
        asked.push(ApplyRequest::Inspect(Box::new(target.clone())));
        asked.push(ApplyRequest::ReadHeld(Box::new(target.clone())));
        asked.push(ApplyRequest::RollBack(Box::new(target.clone())));
        asked.push(ApplyRequest::Install(Box::new(Install { target, ..server.install(issued) })));
    }
    for name in HOSTILE_NAMES {
        let (target, names) = (Box::new(server.target(issued)), vec![name.to_owned()]);
        asked.push(ApplyRequest::Purge { target: target.clone(), names: names.clone() });
        asked.push(ApplyRequest::Leaves { target, names: names.clone() });
        asked.push(ApplyRequest::Install(Box::new(Install { dropped: names, ..server.install(issued) })));
    }
    for id in HOSTILE_IDS {
        asked.push(ApplyRequest::MakeKey(slot(id)));
        asked.push(ApplyRequest::RemoveKeys(BTreeSet::from([id.to_owned()])));
    }
    let text = |path: PathBuf| path.to_str().unwrap().to_owned();
    let (www, private) = (text(server.at("www")), text(server.at("private")));
    let mut serve = |webroot: &str, token: &str, key_authorization: &str| {
        let [webroot, token, key_authorization] = [webroot, token, key_authorization].map(str::to_owned);
        asked.push(ApplyRequest::ServeToken { webroot, token, key_authorization });
    };
    for webroot in ["/etc", &private, &format!("{www}/../private"), "www", ""] {
        serve(webroot, "token", "token.thumb");
    }
    for token in ["../x", "index.php", "", &"x".repeat(129)] {
        serve(&www, token, &format!("{token}.thumb"));
    }
    for answer in ["<?php system($_GET[0]);", "token", "token.a b", "other.thumb", &"x".repeat(100_000)] {
        serve(&www, "token", answer);
    }
    // A key that is not the leaf's, a leaf that was not named, no leaf at all.
    let foreign = issue(9);
    let key_pem = Some(foreign.key_pem.into());
    asked.push(ApplyRequest::Install(Box::new(Install { key_pem, ..server.install(issued) })));
    for leaf_pem in [foreign.leaf_pem, String::new(), "-----BEGIN CERTIFICATE-----\nAAAA".to_owned()] {
        asked.push(ApplyRequest::Install(Box::new(Install { leaf_pem, ..server.install(issued) })));
    }
    asked
}

#[tokio::test]
async fn a_hostile_other_half_changes_nothing_outside_of_the_policy() {
    let mut server = Server::new();
    server.listen(own_uid());
    let apply = server.call();
    let (issued, planned) = (issue(0), [issue(1)]);
    apply.install(server.install(&issued)).await.unwrap();
    let before = server.outside();
    let asked = hostile(&server, &planned[0]);
    assert!(asked.len() > 200, "{}", asked.len());
    for request in asked {
        let said = format!("{request:?}");
        let answer = apply.ask(request).await;
        assert!(matches!(&answer, Err(problem) if problem.reason != "INTERNAL"), "{said}: {answer:?}");
    }
    assert_eq!(server.outside(), before);
    assert_eq!(visible(&server.site.path()), Some(issued.fingerprint_sha256));
    assert!(server.ran().is_empty());
    assert_eq!(std::fs::read_dir(server.at("www")).unwrap().count(), 0);
    assert!(!Path::new(&server.at("state/keys")).exists());
}

#[tokio::test(start_paused = true)]
async fn a_switch_that_nobody_confirms_is_taken_back() {
    let mut server = Server::new();
    let (old, new) = (issue(0), issue(1));
    let apply = server.open();
    apply.install(server.install(&old)).await.unwrap();
    apply.install(server.install(&new)).await.unwrap();
    sleep(Duration::from_secs(629)).await;
    assert_eq!(visible(&server.site.path()), Some(new.fingerprint_sha256), "there is time for a slow command");
    sleep(Duration::from_secs(2)).await;
    assert_eq!(visible(&server.site.path()), Some(old.fingerprint_sha256));
    assert_eq!(server.ran(), [RELOAD.map(str::to_owned).to_vec()]);
    let late = apply.perform(ApplyRequest::Confirm(Box::new(server.target(&new)))).await;
    assert_eq!(late.unwrap_err().reason, "SWITCH_TAKEN_BACK");
    // Once more, with nothing worth coming back to by now, and confirmed.
    apply.install(Install { was_proven: false, ..server.install(&new) }).await.unwrap();
    apply.perform(ApplyRequest::Confirm(Box::new(server.target(&new)))).await.unwrap();
    sleep(Duration::from_secs(10_000)).await;
    assert_eq!(visible(&server.site.path()), Some(new.fingerprint_sha256));
    assert_eq!(server.ran().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_switch_that_was_open_at_a_crash_is_taken_back_too() {
    let mut server = Server::new();
    let (old, new) = (issue(0), issue(1));
    let apply = server.open();
    apply.install(server.install(&old)).await.unwrap();
    apply.install(server.install(&new)).await.unwrap();
    server.tasks.shutdown().await;
    sleep(Duration::from_secs(10_000)).await;
    assert_eq!(visible(&server.site.path()), Some(new.fingerprint_sha256), "nobody is there");
    let _apply = server.open();
    sleep(Duration::from_secs(629)).await;
    assert_eq!(visible(&server.site.path()), Some(new.fingerprint_sha256), "the other half may come back and prove it");
    sleep(Duration::from_secs(2)).await;
    assert_eq!(visible(&server.site.path()), Some(old.fingerprint_sha256));
}

#[tokio::test]
async fn a_look_over_tells_nothing_of_what_the_policy_does_not_allow_and_changes_nothing() {
    let mut server = Server::new();
    server.listen(own_uid());
    let apply = server.call();
    let issued = issue(0);
    assert!(apply.install(server.install(&issued)).await.unwrap());
    let (outside, inside) = (server.outside(), tree_of(&server.site.path()));
    let private = server.at("private").to_str().unwrap().to_owned();
    let mut refused = 0;
    for target in hostile_targets(&server, &issued) {
        let secret = target.dir.clone();
        for webroot in [None, Some(private.clone()), Some(format!("{private}/../www")), Some("/etc".to_owned())] {
            let Ok(found) = apply.look_over(LookOver { target: target.clone(), not_before: None, webroot }).await
            else {
                refused += 1;
                continue;
            };
            let bad =
                |name: &str| found.checks.iter().any(|check| check.name == name && check.verdict == Verdict::Failed);
            assert!(bad("policy") || bad("key"), "{found:#?}");
            assert!(found.checks.iter().all(|check| check.name != "http01" || check.verdict == Verdict::Failed));
            let is_allowed = secret == server.site.path().to_str().unwrap();
            assert!(
                is_allowed
                    || (found.leaf.is_none()
                        && found.checks.iter().all(|check| {
                            !["directory", "file", "owner"].contains(&check.name.as_str())
                                || check.verdict == Verdict::Skipped
                        }))
            );
        }
    }
    assert!(refused > 0);
    assert_eq!((server.outside(), tree_of(&server.site.path())), (outside, inside));
    assert!(server.ran().is_empty());
}

/// What lies in a directory: names and inodes.
fn tree_of(path: &Path) -> BTreeMap<PathBuf, u64> {
    let (mut found, mut left) = (BTreeMap::new(), vec![path.to_owned()]);
    while let Some(path) = left.pop() {
        for entry in std::fs::read_dir(&path).unwrap().flatten() {
            let metadata = entry.metadata().unwrap();
            left.extend(metadata.is_dir().then(|| entry.path()));
            found.insert(entry.path(), metadata.ino());
        }
    }
    found
}
