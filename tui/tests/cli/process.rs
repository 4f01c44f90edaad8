//! The built program as a process: what only a process has.

use std::io::{Read as _, Write as _};
use std::process::{Command, Output, Stdio};

use portable_pty::{CommandBuilder, PtySize, native_pty_system};

use crate::controller::FakeController;
use crate::{accepted, world};

fn certwright(words: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_certwright"));
    command.args(words).stdin(Stdio::null());
    command
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).unwrap()
}

fn ran(words: &[&str]) -> Output {
    certwright(words).output().unwrap()
}

#[test]
fn without_a_terminal_and_a_verb_usage_goes_to_stderr_with_2() {
    let output = ran(&[]);
    assert_eq!((output.status.code(), text(&output.stdout)), (Some(2), ""));
    assert!(text(&output.stderr).contains("Usage: certwright"), "{}", text(&output.stderr));
    let unknown = ran(&["certs", "frobnicate"]);
    assert_eq!((unknown.status.code(), text(&unknown.stdout)), (Some(2), ""));
}

#[test]
fn help_version_completions_and_manual_need_no_controller() {
    for words in [["--help"].as_slice(), &["--version"], &["certs", "create", "--help"], &["man"]] {
        let output = ran(words);
        assert_eq!((output.status.code(), text(&output.stderr)), (Some(0), ""), "{words:?}");
        assert!(!output.stdout.is_empty(), "{words:?}");
    }
    for shell in ["bash", "zsh", "fish"] {
        let output = ran(&["completion", shell]);
        assert!(text(&output.stdout).contains("certwright"), "{shell}");
    }
    let dir = tempfile::tempdir().unwrap();
    let output = ran(&["man", "--out", &dir.path().to_string_lossy()]);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    assert!(dir.path().join("certwright.1").exists());
    assert!(dir.path().join("certwright-certs-create.1").exists());
}

#[test]
fn a_missing_socket_is_7_and_says_what_to_do() {
    let output = ran(&["--socket", "/nonexistent/c.sock", "status"]);
    assert_eq!((output.status.code(), text(&output.stdout)), (Some(7), ""));
    let err = text(&output.stderr);
    assert!(err.starts_with("error: ") && err.contains("\ntry: "), "{err}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_program_speaks_to_a_socket_and_a_closed_pipe_is_no_error() {
    let fake = FakeController::start(world());
    let socket = fake.socket().to_string_lossy().into_owned();
    let output = certwright(&["--socket", &socket, "certs", "ls", "-o", "name"]).output().unwrap();
    assert_eq!((output.status.code(), text(&output.stdout)), (Some(0), "web\nshop\nnew\n"));

    let mut child = certwright(&["--socket", &socket, "certs", "ls"]);
    let mut child = child.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    drop(child.stdout.take());
    let output = child.wait_with_output().unwrap();
    assert_eq!((output.status.code(), text(&output.stderr)), (Some(0), ""));
}

#[tokio::test(flavor = "multi_thread")]
async fn ctrl_c_is_130_and_says_that_the_job_goes_on() {
    let fake = FakeController::start(accepted(Vec::new()));
    let socket = fake.socket().to_string_lossy().into_owned();
    let mut command = certwright(&["--socket", &socket, "jobs", "wait", "J1"]);
    let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    while fake.reads() == 0 {
        tokio::task::yield_now().await;
    }
    let pid = nix::unistd::Pid::from_raw(i32::try_from(child.id()).unwrap());
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGINT).unwrap();
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(130), "{}", text(&output.stderr));
    assert!(text(&output.stderr).contains("goes on"), "{}", text(&output.stderr));
}

/// Runs a command on a terminal, types `answer` once `prompt` stands there, and returns all it showed and its code.
fn typed(words: &[&str], prompt: &str, answer: &str) -> (String, u32) {
    let pty = native_pty_system().openpty(PtySize::default()).unwrap();
    let mut command = CommandBuilder::new(env!("CARGO_BIN_EXE_certwright"));
    command.args(words);
    let mut child = pty.slave.spawn_command(command).unwrap();
    drop(pty.slave);
    let (mut screen, mut keyboard) = (pty.master.try_clone_reader().unwrap(), pty.master.take_writer().unwrap());
    let (mut shown, mut bytes) = (String::new(), [0; 1024]);
    while !shown.contains(prompt) {
        let count = screen.read(&mut bytes).unwrap();
        shown.push_str(text(&bytes[..count]));
    }
    keyboard.write_all(answer.as_bytes()).unwrap();
    // The end of a terminal is an error on Linux.
    while let Ok(count @ 1..) = screen.read(&mut bytes) {
        shown.push_str(text(&bytes[..count]));
    }
    (shown, child.wait().unwrap().exit_code())
}

#[test]
fn on_a_terminal_the_name_is_asked_for_and_ctrl_c_is_a_no() {
    let fake = FakeController::start(world());
    let socket = fake.socket().to_string_lossy().into_owned();
    let delete = ["--socket", &socket, "certs", "delete", "web"];
    let (shown, code) = typed(&delete, "to go on: ", "\u{3}");
    assert_eq!((code, fake.requests().len()), (130, 0), "{shown}");
    let (shown, code) = typed(&delete, "to go on: ", "web\n");
    assert_eq!((code, fake.requests().len()), (0, 1), "{shown}");
    assert!(shown.contains("certificate web deleted"), "{shown}");
}
