//! `certwright-agent`: reads the command line, calls the library, prints, and turns a problem into an exit code
//! (tui.md §5.2). Nothing else lives here.

use std::io::{self, Write as _};
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;

use agent::app::{self, Parts};
use agent::config::{Args, Command, Output, PolicyCommand};
use agent::host::RealHost;
use agent::policy::{default, explain, file};
use agent::problem::Problem;
use agent::status;
use clap::Parser as _;
use proto::clock::SystemClock;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

/// The packages' unit, and where they put it.
const UNIT: &str = "certwright-agent.service";
const UNIT_PLACES: [&str; 2] = ["/usr/lib/systemd/system", "/lib/systemd/system"];

fn main() -> ExitCode {
    let args = Args::parse();
    // Fails only when a provider is installed already, and this is the first line that could.
    drop(rustls::crypto::aws_lc_rs::default_provider().install_default());
    match act(args.command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => fail(&error),
    }
}

fn act(command: Command) -> anyhow::Result<()> {
    match command {
        Command::Enroll { state, policy, controller, token } => {
            let token = token.read()?;
            let enrolled = runtime()?.block_on(app::enroll(&parts(&state, &policy), &controller, &token))?;
            let mut lines = vec![format!("enrolled as {} ({})", enrolled.agent_name, enrolled.agent_id)];
            if enrolled.policy_written {
                lines.push(format!("wrote the default policy to {}", policy.display()));
            }
            lines.push("the policy allows the agent to:".to_owned());
            lines.extend(enrolled.policy_allows.iter().map(|line| format!("  {line}")));
            lines.push(match UNIT_PLACES.iter().any(|place| Path::new(place).join(UNIT).exists()) {
                true => format!("next: systemctl start {UNIT}"),
                false => {
                    format!("next: certwright-agent run --state {} --policy {}", state.display(), policy.display())
                }
            });
            print(&lines)
        }
        Command::Run { state, policy } => {
            tracing_subscriber::fmt()
                .with_writer(io::stderr)
                .with_max_level(tracing::Level::INFO)
                .with_ansi(false)
                .init();
            runtime()?.block_on(run(parts(&state, &policy)))
        }
        Command::Status { state, policy, output } => {
            let status = status::read(&state, &policy)?;
            match output {
                Output::Text => print(&status.lines()),
                Output::Json => print(&[serde_json::to_string_pretty(&status)?]),
            }
        }
        Command::Policy(PolicyCommand::Check(args)) => {
            file::read(&args.policy)?;
            print(&[format!("{} can be used", args.policy.display())])
        }
        Command::Policy(PolicyCommand::Explain(args)) => print(&explain::lines(&file::read(&args.policy)?)),
        Command::Policy(PolicyCommand::Install(args)) => {
            default::install(&args.policy)?;
            let mut lines = vec![format!("wrote {}; it allows the agent to:", args.policy.display())];
            lines.extend(explain::lines(&file::read(&args.policy)?).iter().map(|line| format!("  {line}")));
            print(&lines)
        }
    }
}

fn parts(state: &Path, policy: &Path) -> Parts {
    Parts {
        clock: Arc::new(SystemClock),
        host: Arc::new(RealHost),
        state_dir: state.to_owned(),
        policy_path: policy.to_owned(),
    }
}

/// One thread is enough for an agent, and small.
fn runtime() -> io::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_current_thread().enable_all().build()
}

/// Runs until SIGTERM or SIGINT.
async fn run(parts: Parts) -> anyhow::Result<()> {
    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    let stop = CancellationToken::new();
    let daemon = app::run(parts, stop.clone());
    tokio::pin!(daemon);
    // Cancel-safe: signals are not lost, and the daemon goes on being polled below.
    tokio::select! {
        ended = &mut daemon => return ended,
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    stop.cancel();
    daemon.await
}

fn print(lines: &[String]) -> anyhow::Result<()> {
    let mut out = io::stdout().lock();
    for line in lines {
        writeln!(out, "{line}")?;
    }
    Ok(out.flush()?)
}

fn fail(error: &anyhow::Error) -> ExitCode {
    let mut out = io::stderr().lock();
    let problem = error.downcast_ref::<Problem>();
    let mut lines = vec![format!("error: {error}")];
    if let Some(problem) = problem {
        for (name, text) in [("cause", &problem.cause), ("hint", &problem.hint), ("reason", &problem.reason)] {
            if !text.is_empty() {
                lines.push(format!("  {name}: {text}"));
            }
        }
    }
    for line in lines {
        // A closed stderr must not hide the exit code.
        drop(writeln!(out, "{line}"));
    }
    ExitCode::from(problem.map_or(1, |problem| exit_code(&problem.reason)))
}

fn exit_code(reason: &str) -> u8 {
    match reason {
        "NOT_ENROLLED" => 3,
        "CONTROLLER_NOT_TRUSTED" | "TOKEN_INVALID" | "TOKEN_UNKNOWN" | "TOKEN_USED" | "TOKEN_EXPIRED" => 4,
        "CONTROLLER_UNREACHABLE" => 7,
        _ => 1,
    }
}
