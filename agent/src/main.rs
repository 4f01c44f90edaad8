//! `certwright-agent`: reads the command line, calls the library, prints, and turns a problem into an exit code
//! (tui.md §5.2). Nothing else lives here.

use std::io::{self, Write as _};
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;

use agent::app::{self, ApplyParts, NetParts, Parts};
use agent::config::{Args, Command, Output, PolicyCommand};
use agent::host::{Host, RealHost};
use agent::policy::{default, explain, file};
use agent::problem::Problem;
use agent::{status, unit};
use clap::Parser as _;
use proto::clock::{Clock, SystemClock};
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

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
            let parts =
                Parts { clock: clock(), host: host(false), state_dir: state.clone(), policy_path: policy.clone() };
            let enrolled = runtime()?.block_on(app::enroll(&parts, &controller, &token))?;
            let mut lines = vec![format!("enrolled as {} ({})", enrolled.agent_name, enrolled.agent_id)];
            if enrolled.policy_written {
                lines.push(format!("wrote the default policy to {}", policy.display()));
            }
            lines.push("the policy allows the agent to:".to_owned());
            lines.extend(enrolled.policy_allows.iter().map(|line| format!("  {line}")));
            lines.push(match unit::is_for(&policy) {
                true => "next: systemctl daemon-reload && systemctl start certwright-agent".to_owned(),
                false => {
                    format!("next: certwright-agent run --state {} --policy {}", state.display(), policy.display())
                }
            });
            print(&lines)
        }
        Command::Run { state, policy } => {
            let parts = Parts { clock: clock(), host: host(false), state_dir: state, policy_path: policy };
            daemon(|stop| app::run(parts, stop))
        }
        Command::Apply { state, policy, socket, net_user, units } => {
            let parts = ApplyParts { host: host(units), state_dir: state, policy_path: policy, socket, net_user };
            daemon(|stop| app::run_apply(parts, stop))
        }
        Command::Net { state, socket } => {
            let parts = NetParts { clock: clock(), host: host(false), state_dir: state, socket };
            daemon(|stop| app::run_net(parts, stop))
        }
        Command::Status { state, apply_state, policy, output } => {
            let status = status::read(&state, &apply_state, &policy)?;
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
        Command::Policy(PolicyCommand::Install(args)) => install(&args.policy),
    }
}

fn install(path: &Path) -> anyhow::Result<()> {
    // Where there are units, an edited policy has to reach the sandbox too.
    let kept = unit::is_for(path) && path.exists();
    if !kept {
        default::install(path)?;
    }
    let policy = file::read(path)?;
    let verb = if kept { "kept" } else { "wrote" };
    let mut lines = vec![format!("{verb} {}; it allows the agent to:", path.display())];
    lines.extend(explain::lines(&policy).iter().map(|line| format!("  {line}")));
    if let Some(drop_in) = unit::install(&policy)? {
        lines.push(format!("wrote {drop_in}"));
        lines.push("next: systemctl daemon-reload && systemctl restart certwright-agent-apply".to_owned());
    }
    print(&lines)
}

fn clock() -> Arc<dyn Clock> {
    Arc::new(SystemClock)
}

fn host(units: bool) -> Arc<dyn Host> {
    Arc::new(RealHost { units })
}

/// One thread is enough for an agent, and small.
fn runtime() -> io::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_current_thread().enable_all().build()
}

/// Runs a daemon, which logs to stderr, until SIGTERM or SIGINT.
fn daemon<D: Future<Output = anyhow::Result<()>>>(start: impl FnOnce(CancellationToken) -> D) -> anyhow::Result<()> {
    tracing_subscriber::fmt().with_writer(io::stderr).with_max_level(tracing::Level::INFO).with_ansi(false).init();
    runtime()?.block_on(async {
        let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
        let stop = CancellationToken::new();
        let daemon = start(stop.clone());
        tokio::pin!(daemon);
        // Cancel-safe: signals are not lost, and the daemon goes on being polled below.
        tokio::select! {
            ended = &mut daemon => return ended,
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        stop.cancel();
        daemon.await
    })
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
