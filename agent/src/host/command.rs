//! Runs one command: exact argv, no shell, empty environment, own process group, killed as a group at its time limit.
//! Only `RealHost` calls this; which argv may run is decided by the policy before.

use std::os::unix::process::ExitStatusExt as _;
use std::process::Stdio;
use std::time::Duration;

use rustix::fs::Access;
use rustix::process::{Pid, Signal, kill_process_group};
use tokio::io::{AsyncRead, AsyncReadExt as _};
use tokio::process::{Child, Command};
use tokio::time::{Instant, timeout};

use super::{CommandExit, CommandOutcome};

/// Output kept; the rest is read and dropped, so that the command never blocks on a full pipe.
const OUTPUT_BYTES_MAX: usize = 64 * 1024;
/// The same of a program that prints its configuration.
const DUMP_BYTES_MAX: usize = 1024 * 1024;
/// How long output may trickle in once the command has ended: a daemon it started may keep the pipe open for ever.
const DRAIN: Duration = Duration::from_millis(100);
/// How long a killed command may take to end before it is left to itself.
const REAP: Duration = Duration::from_secs(5);

/// The command's process group; killed when nobody waits for it any more.
struct Group(Option<Pid>);

impl Group {
    fn kill(&mut self) {
        // A group that has just ended by itself needs no signal.
        self.0.take().map(|group| kill_process_group(group, Signal::KILL).ok());
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        self.kill();
    }
}

pub(super) async fn run(argv: &[String], limit: Duration) -> CommandOutcome {
    run_keeping(argv, limit, OUTPUT_BYTES_MAX).await
}

/// Keeps more of the output.
pub(super) async fn dump(argv: &[String], limit: Duration) -> CommandOutcome {
    run_keeping(argv, limit, DUMP_BYTES_MAX).await
}

/// Keeps so many bytes of each pipe and of both together.
async fn run_keeping(argv: &[String], limit: Duration, keep: usize) -> CommandOutcome {
    let started = Instant::now();
    let outcome = |exit, output: &[u8]| CommandOutcome {
        exit,
        output: String::from_utf8_lossy(output).into_owned(),
        took: started.elapsed(),
    };
    let Some((program, arguments)) = argv.split_first() else {
        return outcome(CommandExit::NotStarted("the command is empty".to_owned()), b"");
    };
    let spawned = Command::new(program)
        .args(arguments)
        .env_clear()
        .current_dir("/")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .process_group(0)
        .kill_on_drop(true)
        .spawn();
    let mut child = match spawned {
        Ok(child) => child,
        Err(error) => return outcome(CommandExit::NotStarted(error.to_string()), b""),
    };
    let mut group = Group(child.id().and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw));
    let (mut out, mut err) = (Capture::new(child.stdout.take(), keep), Capture::new(child.stderr.take(), keep));
    let exit = match timeout(limit, wait(&mut child, &mut out, &mut err)).await {
        Ok(exit) => {
            // What it started may be a daemon that is meant to stay.
            group.0 = None;
            exit
        }
        Err(_elapsed) => {
            group.kill();
            // A process that hangs in the kernel (a dead NFS server) does not even end when killed.
            drop(timeout(REAP, child.wait()).await);
            CommandExit::TimedOut
        }
    };
    let drained = timeout(DRAIN, async { tokio::join!(out.drain(), err.drain()) }).await;
    drop(drained);
    // Errors first: whoever shows a part shows the beginning.
    let mut output = err.bytes;
    output.extend_from_slice(&out.bytes);
    output.truncate(keep);
    outcome(exit, &output)
}

/// Returns why a program cannot be started, without starting it.
pub(super) fn cannot_run(program: &str) -> Option<String> {
    let kind = std::fs::metadata(program).map(|found| found.is_file());
    match kind {
        Ok(true) => rustix::fs::access(program, Access::EXEC_OK).err().map(|error| error.to_string()),
        Ok(false) => Some("it is no file".to_owned()),
        Err(error) => Some(error.to_string()),
    }
}

/// Waits for the end while reading both pipes. Every arm is cancel-safe: `wait`, and `read` into a buffer of our own.
async fn wait<O, E>(child: &mut Child, out: &mut Capture<O>, err: &mut Capture<E>) -> CommandExit
where
    O: AsyncRead + Unpin,
    E: AsyncRead + Unpin,
{
    loop {
        tokio::select! {
            biased;
            () = out.read(), if out.open() => {}
            () = err.read(), if err.open() => {}
            status = child.wait() => return match status {
                Ok(status) => match (status.code(), status.signal()) {
                    (Some(code), _) => CommandExit::Status(code),
                    (None, signal) => CommandExit::Signal(signal.unwrap_or_default()),
                },
                Err(error) => CommandExit::NotStarted(error.to_string()),
            },
        }
    }
}

struct Capture<R> {
    source: Option<R>,
    bytes: Vec<u8>,
    chunk: Vec<u8>,
    keep: usize,
}

impl<R: AsyncRead + Unpin> Capture<R> {
    fn new(source: Option<R>, keep: usize) -> Self {
        Self { source, bytes: Vec::new(), chunk: vec![0; 4096], keep }
    }

    fn open(&self) -> bool {
        self.source.is_some()
    }

    async fn read(&mut self) {
        let Some(source) = &mut self.source else { return };
        match source.read(&mut self.chunk).await {
            Ok(count @ 1..) => {
                let room = self.keep.saturating_sub(self.bytes.len()).min(count);
                self.bytes.extend_from_slice(self.chunk.get(..room).unwrap_or_default());
            }
            Ok(0) | Err(_) => self.source = None,
        }
    }

    async fn drain(&mut self) {
        while self.open() {
            self.read().await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn check(argv: &[&str], limit_ms: u64) -> CommandOutcome {
        let argv: Vec<String> = argv.iter().map(|word| (*word).to_owned()).collect();
        run(&argv, Duration::from_millis(limit_ms)).await
    }

    #[tokio::test]
    async fn tells_status_and_output_of_both_pipes() {
        let outcome = check(&["/bin/ls", "/", "/no/such/path"], 5_000).await;
        assert_eq!(outcome.exit, CommandExit::Status(2));
        assert!(outcome.output.contains("etc") && outcome.output.contains("/no/such/path"), "{}", outcome.output);
    }

    #[tokio::test]
    async fn the_environment_is_empty() {
        let outcome = check(&["/usr/bin/env"], 5_000).await;
        assert_eq!((outcome.exit, outcome.output.as_str()), (CommandExit::Status(0), ""));
    }

    #[tokio::test]
    async fn a_hanging_command_is_killed_at_its_time_limit() {
        let outcome = check(&["/bin/sleep", "60"], 50).await;
        assert_eq!(outcome.exit, CommandExit::TimedOut);
        assert!(outcome.took < Duration::from_secs(5));
    }

    #[tokio::test]
    async fn a_run_that_is_dropped_takes_its_whole_group_along() {
        let mark = format!("{}.25", 900 + std::process::id() % 100);
        let script = format!("/bin/sleep {mark} & wait");
        let running = || {
            let listed =
                std::process::Command::new("/usr/bin/pgrep").args(["-f", &format!("^/bin/sleep {mark}")]).output();
            !listed.unwrap().stdout.is_empty()
        };
        drop(timeout(Duration::from_millis(300), check(&["/bin/bash", "-c", &script], 60_000)).await);
        let until = Instant::now() + Duration::from_secs(5);
        while running() && Instant::now() < until {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        assert!(!running(), "what the command started is gone too");
    }

    #[tokio::test]
    async fn errors_come_before_the_rest_of_the_output() {
        let outcome = check(&["/bin/bash", "-c", "yes chatter | head -c 60000; echo broken >&2; exit 3"], 5_000).await;
        assert!(outcome.output.starts_with("broken\n"), "{}", outcome.output.len());
    }

    #[tokio::test]
    async fn endless_output_is_capped() {
        let outcome = check(&["/usr/bin/yes"], 300).await;
        assert_eq!(outcome.exit, CommandExit::TimedOut);
        assert_eq!(outcome.output.len(), OUTPUT_BYTES_MAX);
    }

    #[test]
    fn a_program_that_could_not_be_started_is_told_without_a_start() {
        assert_eq!(cannot_run("/bin/ls"), None);
        for (program, why) in [("/no/such/program", "No such file"), ("/bin", "no file"), ("/etc/passwd", "denied")] {
            assert!(cannot_run(program).unwrap().contains(why), "{program}: {:?}", cannot_run(program));
        }
    }

    #[tokio::test]
    async fn a_missing_program_says_so() {
        assert!(matches!(check(&["/no/such/program"], 50).await.exit, CommandExit::NotStarted(_)));
    }
}
