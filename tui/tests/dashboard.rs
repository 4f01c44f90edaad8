//! The built dashboard on a real pseudo-terminal: what it shows of a controller that comes and goes, and how it leaves the
//! terminal on every kind of end. No sleeps: tests wait for what the screen or the window title says.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "a test ends by panicking")]

#[path = "support/controller.rs"]
mod controller;
#[path = "support/fixtures.rs"]
mod fixtures;

use std::collections::BTreeMap;
use std::io::{Read as _, Write};
use std::num::NonZeroU16;
use std::path::Path;
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use portable_pty::{Child, CommandBuilder, ExitStatus, MasterPty, PtySize, native_pty_system};

use controller::{FakeController, World};
use proto::audit::{BEGINNING, Line};
use proto::operator::v1::{Denied, ListAuditResponse};

/// Nothing on this machine takes longer, however busy it is.
const WAIT_MAX: Duration = Duration::from_secs(15);
/// Set in the process that shall panic.
const PANICS: &str = "CERTWRIGHT_TEST_PANICS";
const NOBODY: &str = "/nonexistent/certwright.sock";

/// What came out of the terminal so far.
struct Seen {
    parser: vt100::Parser,
    raw: String,
}

struct Desk {
    master: Box<dyn MasterPty + Send>,
    child: Box<dyn Child + Send + Sync>,
    keyboard: Box<dyn Write + Send>,
    seen: Arc<(Mutex<Seen>, Condvar)>,
    before: String,
    keys: u64,
}

fn dashboard(socket: &Path) -> CommandBuilder {
    let mut command = CommandBuilder::new(env!("CARGO_BIN_EXE_certwright"));
    command.args(["--socket", &socket.to_string_lossy()]);
    command
}

impl Desk {
    fn start(mut command: CommandBuilder) -> Self {
        for (name, value) in [("TERM", "xterm-256color"), ("LANG", "C.UTF-8"), ("CERTWRIGHT_TEST_TITLE", "1")] {
            command.env(name, value);
        }
        let size = PtySize { rows: 24, cols: 80, ..PtySize::default() };
        let pty = native_pty_system().openpty(size).unwrap();
        let before = format!("{:?}", pty.master.get_termios());
        let child = pty.slave.spawn_command(command).unwrap();
        drop(pty.slave);
        let (rows, columns) = (NonZeroU16::new(24).unwrap(), NonZeroU16::new(80).unwrap());
        let seen = Seen { parser: vt100::Parser::new(rows, columns, 0), raw: String::new() };
        let seen = Arc::new((Mutex::new(seen), Condvar::new()));
        let (mut output, shared) = (pty.master.try_clone_reader().unwrap(), Arc::clone(&seen));
        std::thread::spawn(move || {
            let mut bytes = [0; 4_096];
            while let Ok(count @ 1..) = output.read(&mut bytes) {
                let mut seen = shared.0.lock().unwrap();
                seen.parser.process(&bytes[..count]);
                seen.raw.push_str(&String::from_utf8_lossy(&bytes[..count]));
                shared.1.notify_all();
            }
        });
        let keyboard = pty.master.take_writer().unwrap();
        Self { master: pty.master, child, keyboard, seen, before, keys: 0 }
    }

    /// Waits until the terminal shows what `reached` looks for.
    fn wait(&self, what: &str, reached: impl Fn(&Seen) -> bool) {
        let (lock, changed) = &*self.seen;
        let seen = lock.lock().unwrap();
        let (seen, late) = changed.wait_timeout_while(seen, WAIT_MAX, |seen| !reached(seen)).unwrap();
        assert!(!late.timed_out(), "no {what} on the screen:\n{}", seen.parser.screen().contents());
    }

    fn wait_text(&self, text: &str) {
        self.wait(text, |seen| seen.parser.screen().contents().contains(text));
    }

    fn shows(&self, text: &str) -> bool {
        self.seen.0.lock().unwrap().parser.screen().contents().contains(text)
    }

    /// Presses one key and waits until everything it caused is read and painted.
    fn press(&mut self, key: &str) {
        self.keyboard.write_all(key.as_bytes()).unwrap();
        self.keys += 1;
        let idle = format!("\x1b]2;idle k={} ", self.keys);
        self.wait(&idle, |seen| seen.raw.contains(&idle));
    }

    fn type_keys(&mut self, keys: &str) {
        for key in keys.chars() {
            self.press(&key.to_string());
        }
    }

    fn signal(&self, signal: Signal) {
        let pid = i32::try_from(self.child.process_id().unwrap()).unwrap();
        kill(Pid::from_raw(pid), signal).unwrap();
    }

    /// Waits for the end and checks that the terminal is as it was.
    fn ends_restored(mut self) -> (ExitStatus, String) {
        let status = self.child.wait().unwrap();
        self.wait("main screen", |seen| seen.raw.contains("\x1b[?1049l"));
        let seen = self.seen.0.lock().unwrap();
        let screen = seen.parser.screen();
        assert!(!screen.alternate_screen() && !screen.bracketed_paste() && !screen.hide_cursor());
        assert!(seen.raw.rfind("\x1b[?1004l") > seen.raw.rfind("\x1b[?1004h"), "focus reports are off");
        assert_eq!(format!("{:?}", self.master.get_termios()), self.before, "the line settings are as before");
        (status, screen.contents())
    }
}

fn world() -> World {
    World {
        whoami: fixtures::whoami(),
        overview: fixtures::overview(),
        certificates: vec![fixtures::certificate("web"), fixtures::troubled_certificate("shop")],
        agents: vec![fixtures::agent("h1")],
        issuers: vec![fixtures::issuer("lab")],
        jobs: vec![fixtures::job("running", "ordering")],
        job_id: "J1".into(),
        ..World::default()
    }
}

#[test]
fn without_a_controller_it_says_so_stays_and_leaves_cleanly() {
    let mut desk = Desk::start(dashboard(Path::new(NOBODY)));
    desk.wait_text("OFFLINE");
    desk.wait_text("does not exist");
    desk.press("2");
    desk.wait_text("[2Certs]");
    desk.keyboard.write_all(b"Q").unwrap();
    let (status, _) = desk.ends_restored();
    assert!(status.success(), "{status:?}");
}

#[test]
fn every_signal_that_ends_it_leaves_the_terminal_as_it_was() {
    for signal in [Signal::SIGTERM, Signal::SIGHUP, Signal::SIGINT] {
        let desk = Desk::start(dashboard(Path::new(NOBODY)));
        desk.wait_text("OFFLINE");
        desk.signal(signal);
        let (status, _) = desk.ends_restored();
        assert!(status.signal().is_some(), "{signal} shows in the status: {status:?}");
    }
}

#[test]
fn a_terminal_that_goes_away_ends_it() {
    let Desk { master, mut child, keyboard, .. } = {
        let pty = native_pty_system().openpty(PtySize { rows: 24, cols: 80, ..PtySize::default() }).unwrap();
        let mut command = dashboard(Path::new(NOBODY));
        command.env("TERM", "xterm");
        let child = pty.slave.spawn_command(command).unwrap();
        let mut output = pty.master.try_clone_reader().unwrap();
        let mut bytes = [0; 64];
        assert!(output.read(&mut bytes).unwrap() > 0, "it has begun");
        let rows = NonZeroU16::new(24).unwrap();
        let seen = Seen { parser: vt100::Parser::new(rows, rows, 0), raw: String::new() };
        let keyboard = pty.master.take_writer().unwrap();
        Desk {
            master: pty.master,
            child,
            keyboard,
            seen: Arc::new((Mutex::new(seen), Condvar::new())),
            before: String::new(),
            keys: 0,
        }
    };
    drop((master, keyboard));
    let (done, ended) = std::sync::mpsc::channel();
    std::thread::spawn(move || done.send(child.wait().unwrap()));
    ended.recv_timeout(WAIT_MAX).expect("the dashboard ends with its terminal");
}

/// In the process that the test below starts, the dashboard runs and another thread panics; otherwise this does nothing.
#[test]
fn a_dashboard_that_panics() {
    if std::env::var_os(PANICS).is_none() {
        return;
    }
    let names = ["TERM", "LANG"].map(str::to_owned);
    let variables: BTreeMap<String, String> =
        names.into_iter().zip(["xterm".to_owned(), "C.UTF-8".to_owned()]).collect();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let client = tui::client::Client::new(NOBODY.as_ref());
        let options = tui::run::Options { client, contexts: None, variables };
        // The dashboard is polled first: it has the terminal and waits when the thread panics.
        let panics = async { std::thread::spawn(|| panic!("a bug in a thread")).join() };
        tokio::select! {
            biased;
            ended = tui::run::run(options) => drop(ended),
            joined = panics => drop(joined),
        }
    });
    unreachable!("the panic ends the process");
}

#[test]
fn a_panic_in_any_thread_leaves_the_terminal_as_it_was() {
    let mut command = CommandBuilder::new(std::env::current_exe().unwrap());
    command.args(["--exact", "a_dashboard_that_panics", "--nocapture"]);
    command.env(PANICS, "1");
    let desk = Desk::start(command);
    let (status, screen) = desk.ends_restored();
    assert_eq!(status.exit_code(), 101);
    assert!(
        screen.contains("Please report") || !screen.trim().is_empty(),
        "the reason is on the main screen:\n{screen}"
    );
}

#[test]
fn it_follows_the_controller_and_survives_its_absence() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let mut fake = FakeController::start(world());
    let mut desk = Desk::start(dashboard(&fake.socket()));
    desk.wait_text("live");
    desk.wait_text("AGENT DOWN");
    desk.press("2");
    desk.wait_text("shop");
    fake.change(|world| world.certificates.push(fixtures::certificate("fresh-one")));
    desk.wait_text("fresh-one");
    runtime.block_on(fake.stop());
    desk.wait_text("OFFLINE");
    assert!(desk.shows("fresh-one"), "what was read stays readable");
    desk.press("r");
    desk.wait_text("not now");
    assert!(fake.requests().is_empty());
    fake.resume();
    desk.press("R");
    desk.wait_text("live");
    desk.type_keys("ry");
    desk.wait_text("started");
    assert_eq!(fake.requests().len(), 1, "{:?}", fake.requests());
    desk.press("Q");
}

#[test]
fn another_role_reaches_an_open_dashboard() {
    let fake = FakeController::start(world());
    let mut desk = Desk::start(dashboard(&fake.socket()));
    desk.wait_text("live");
    desk.press("2");
    desk.wait_text("shop");
    fake.change(|world| {
        world.whoami.role = "viewer".into();
        world.whoami.denied = vec![Denied { rpc: "RenewCertificate".into(), needs: "maintainer".into() }];
    });
    desk.wait_text("(viewer)");
    desk.press("r");
    desk.wait_text("role viewer may only read");
    assert!(fake.requests().is_empty());
    desk.press("Q");
}

#[test]
fn the_audit_is_read_in_parts_and_its_command_goes_to_the_clipboard() {
    let line = |seq: u64, result: &str, answers: Option<u64>| Line {
        seq,
        at: fixtures::NOW.parse().unwrap(),
        actor: "local:root".into(),
        from: "uid 0".into(),
        act: "RenewCertificate".into(),
        subject: format!("web{}", seq.div_ceil(2)),
        detail: String::new(),
        result: result.into(),
        answers,
        previous: BEGINNING.into(),
    };
    // More than one answer holds; and one that is no line.
    let acts = (1..=600).flat_map(|n| [line(2 * n - 1, "asked", None), line(2 * n, "done", Some(2 * n - 1))]);
    let mut lines: Vec<String> = acts.map(|line| serde_json::to_string(&line).unwrap()).collect();
    lines.push("{}".to_owned());
    let fake = FakeController::start(World { audit: ListAuditResponse { lines, ..Default::default() }, ..world() });
    let mut desk = Desk::start(dashboard(&fake.socket()));
    desk.wait_text("live");
    desk.press("8");
    desk.wait_text("web600");
    desk.wait_text("1 line(s) cannot be read");
    // The more rows are wanted the more is asked for, in the end in two parts.
    desk.type_keys("GGGG");
    desk.wait_text("600 of 600");
    desk.press("y");
    // `certwright audit export --out audit.jsonl` in base64.
    desk.wait("OSC 52", |seen| seen.raw.contains("]52;c;Y2VydHdyaWdodCBhdWRpdCBleHBvcnQgLS1vdXQgYXVkaXQuanNvbmw="));
    desk.press("Q");
}

#[test]
fn the_wizard_asks_the_controller_before_it_creates() {
    let accepted = fixtures::fresh_certificate("ab.example.test");
    let fake = FakeController::start(World { certificates: vec![accepted], ..world() });
    let mut desk = Desk::start(dashboard(&fake.socket()));
    desk.wait_text("live");
    desk.type_keys("2n");
    desk.type_keys("ab.example.test");
    desk.type_keys("\r\r\r");
    desk.type_keys("\r\r\r\r");
    desk.type_keys("\r\r\r\r\r\r\r");
    desk.wait_text("/etc/nginx/ssl/ab.example.test");
    desk.type_keys("\r\r\r\r\r\r\r\r\r\r\r\r");
    desk.wait_text("finds nothing wrong");
    assert!(fake.requests().iter().all(|request| request.contains("dry_run: true")), "{:?}", fake.requests());
    desk.press("\r");
    desk.wait_text("ab.example.test was added");
    let last = fake.requests().pop().unwrap();
    assert!(last.contains("dry_run: false") && last.contains("ab.example.test"), "{last}");
}

#[test]
fn a_restore_is_accepted_by_its_name_after_it_stood_for_a_moment() {
    let restore = fixtures::restore();
    let fake = FakeController::start(World { restore, ..world() });
    let mut desk = Desk::start(dashboard(&fake.socket()));
    desk.wait_text("live");
    desk.type_keys("grA");
    desk.wait_text("accept the restore");
    desk.type_keys("ctl\r");
    desk.wait_text("type the exact name first");
    assert!(fake.requests().is_empty(), "{:?}", fake.requests());
    desk.type_keys("-1");
    // The question counts down by itself.
    desk.wait_text("Enter: accept");
    desk.press("\r");
    desk.wait_text("accepted");
    assert_eq!(fake.requests().len(), 1, "{:?}", fake.requests());
    assert!(fake.requests()[0].contains("keep_operators: false"), "{:?}", fake.requests());
    desk.press("Q");
}

#[test]
fn a_rotation_takes_its_step_once_and_only_when_everyone_is_ready() {
    let fake = FakeController::start(World { identity_ca: fixtures::identity_ca(), ..world() });
    let mut desk = Desk::start(dashboard(&fake.socket()));
    desk.wait_text("live");
    desk.type_keys("gkD");
    desk.wait_text("not ready: h2");
    fake.change(|world| {
        world.identity_ca.waiting.clear();
        world.identity_ca.waiting_total = 0;
    });
    desk.wait_text("All have a leaf of the next CA");
    desk.type_keys("D0a1b2c3e");
    assert!(fake.requests().is_empty());
    desk.type_keys("\x7fd");
    desk.wait_text("Enter: retire");
    desk.press("\r");
    desk.wait_text("the old CA is dropped");
    assert_eq!(fake.requests().len(), 1, "{:?}", fake.requests());
    assert!(fake.requests()[0].contains("retire"), "{:?}", fake.requests());
    desk.press("Q");
}

#[test]
fn a_backup_is_written_here_and_says_why_when_it_is_not() {
    let fake = FakeController::start(World { backup: vec![b"one ".to_vec(), b"two".to_vec()], ..world() });
    let mut command = dashboard(&fake.socket());
    command.cwd(fake.folder());
    let mut desk = Desk::start(command);
    desk.wait_text("live");
    desk.type_keys("B");
    desk.press("\x15");
    desk.type_keys("mine.backup\r\rcorrect horse battery\rcorrect horse battery\r\r");
    desk.wait_text("7 bytes written to mine.backup");
    assert_eq!(std::fs::read(fake.folder().join("mine.backup")).unwrap(), b"one two");
    assert!(!desk.seen.0.lock().unwrap().raw.contains("orrec"), "the passphrase is never painted");
    assert_eq!(fake.requests().len(), 1);
    desk.type_keys("qB");
    desk.press("\x15");
    desk.type_keys("mine.backup\r\rcorrect horse battery\rcorrect horse battery\r\r");
    desk.wait_text("mine.backup is there already");
    assert_eq!(fake.requests().len(), 1, "an old backup is not written over");
    desk.press("\x1b");
    desk.press("Q");
}
