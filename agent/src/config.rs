//! The command line of `certwright-agent` (design §7), and what the agent tells of its machine. No environment
//! variables, no configuration file but the policy.

use std::io::{BufRead as _, IsTerminal as _, Read as _, Write as _};
use std::path::PathBuf;

use clap::{Parser, Subcommand, ValueEnum};
use proto::text::one_line;
use secrecy::SecretString;

use crate::problem::Problem;

/// Largest join token read from a file or stdin.
const TOKEN_BYTES_MAX: u64 = 4096;

/// Holds certificates on this server, answers HTTP-01, reloads services and proves what is served.
#[derive(Debug, Parser)]
#[command(name = "certwright-agent", version, arg_required_else_help = true)]
pub struct Args {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// The subcommands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Joins this server to a controller, with the join token that `certwright agents enroll NAME` printed.
    Enroll {
        /// The agent's own directory; made with mode 0700.
        #[arg(long, value_name = "DIR")]
        state: PathBuf,
        /// The policy file; a default one is written when it does not exist.
        #[arg(long, value_name = "FILE")]
        policy: PathBuf,
        /// Where the controller listens for agents.
        #[arg(long, value_name = "HOST:PORT")]
        controller: String,
        /// The join token, `-` to read it from stdin, or @FILE. A token given here itself can be seen in the process list.
        #[arg(long, value_name = "T|-|@FILE")]
        token: TokenSource,
    },
    /// Runs the whole agent in one process until SIGTERM or SIGINT.
    Run {
        /// The agent's own directory.
        #[arg(long, value_name = "DIR")]
        state: PathBuf,
        /// The policy file.
        #[arg(long, value_name = "FILE")]
        policy: PathBuf,
    },
    /// Runs the half that writes files and runs commands, as root and without a network. A service manager runs both halves.
    Apply {
        /// This half's own directory, with the private keys; made with mode 0700.
        #[arg(long, value_name = "DIR")]
        state: PathBuf,
        /// The policy file.
        #[arg(long, value_name = "FILE")]
        policy: PathBuf,
        /// The private socket between the halves.
        #[arg(long, value_name = "PATH")]
        socket: PathBuf,
        /// The one user that may ask this half; without it only its own.
        #[arg(long, value_name = "USER")]
        net_user: Option<String>,
        /// Runs commands as transient units of systemd, outside of this process's sandbox.
        #[arg(long)]
        units: bool,
    },
    /// Runs the half that talks with the controller, answers HTTP-01 and looks at services, without privileges.
    Net {
        /// The directory that was enrolled.
        #[arg(long, value_name = "DIR")]
        state: PathBuf,
        /// The private socket between the halves.
        #[arg(long, value_name = "PATH")]
        socket: PathBuf,
    },
    /// Shows, from the disk, who this agent is and what it holds.
    Status {
        /// The agent's own directory.
        #[arg(long, value_name = "DIR", default_value = "/var/lib/certwright-agent")]
        state: PathBuf,
        /// The own directory of the half that holds the keys; the same as --state where that half is no process of its own.
        #[arg(long, value_name = "DIR", default_value = "/var/lib/certwright-agent-apply")]
        apply_state: PathBuf,
        /// The policy file.
        #[arg(long, value_name = "FILE", default_value = "/etc/certwright/policy.toml")]
        policy: PathBuf,
        /// Output for people or for scripts.
        #[arg(short, long, value_enum, default_value_t = Output::Text)]
        output: Output,
    },
    /// Checks, explains or writes the policy: what may be written, run and served on this server.
    #[command(subcommand)]
    Policy(PolicyCommand),
}

/// What to do with the policy file.
#[derive(Debug, Subcommand)]
pub enum PolicyCommand {
    /// Says whether the file can be used, and why not.
    Check(PolicyArgs),
    /// Says in sentences what the file allows.
    Explain(PolicyArgs),
    /// Writes the default policy for the services found on this server, and for systemd what the policy opens; never
    /// replaces a policy.
    Install(PolicyArgs),
}

/// Where the policy is.
#[derive(Debug, clap::Args)]
pub struct PolicyArgs {
    /// The policy file.
    #[arg(long, value_name = "FILE", default_value = "/etc/certwright/policy.toml")]
    pub policy: PathBuf,
}

/// The form of an output.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Output {
    /// For people.
    Text,
    /// For scripts.
    Json,
}

/// Where the join token comes from. A token is a secret: it has no `Display` and a redacted `Debug`.
#[derive(Clone, Debug)]
pub enum TokenSource {
    /// Given on the command line.
    Given(SecretString),
    /// To be read from stdin.
    Stdin,
    /// To be read from a file.
    File(PathBuf),
}

impl std::str::FromStr for TokenSource {
    type Err = std::convert::Infallible;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Ok(match (text, text.strip_prefix('@')) {
            ("-", _) => Self::Stdin,
            (_, Some(path)) => Self::File(path.into()),
            (_, None) => Self::Given(text.to_owned().into()),
        })
    }
}

impl TokenSource {
    /// Reads the token.
    ///
    /// # Errors
    /// When stdin or the file cannot be read.
    pub fn read(self) -> Result<SecretString, Problem> {
        let mut text = String::new();
        let (place, read) = match self {
            Self::Given(token) => return Ok(token),
            Self::Stdin => ("stdin".to_owned(), from_stdin(&mut text)),
            Self::File(path) => {
                let read =
                    std::fs::File::open(&path).and_then(|file| file.take(TOKEN_BYTES_MAX).read_to_string(&mut text));
                (path.display().to_string(), read)
            }
        };
        match read {
            Ok(_) => Ok(text.into()),
            Err(error) => Err(Problem::new(
                "TOKEN_UNREADABLE",
                format!("cannot read the join token from {place}"),
                error.to_string(),
                "give the file's path after `@`, or `-` for stdin",
            )),
        }
    }
}

/// Reads all of stdin; from a terminal one line, and asks for it: a person does not think of ending the file.
fn from_stdin(text: &mut String) -> std::io::Result<usize> {
    let stdin = std::io::stdin();
    if !stdin.is_terminal() {
        return stdin.take(TOKEN_BYTES_MAX).read_to_string(text);
    }
    std::io::stderr().write_all(b"Paste the join token that `certwright agents enroll` printed, then Enter: ")?;
    stdin.lock().take(TOKEN_BYTES_MAX).read_line(text)
}

/// Returns this machine's name, sanitised.
#[must_use]
pub fn hostname() -> String {
    let name = nix::unistd::gethostname().ok().and_then(|name| name.into_string().ok());
    one_line(&name.unwrap_or_default(), 253)
}

/// Returns this machine's operating system by its own words, for example "Debian GNU/Linux 12 (bookworm)".
#[must_use]
pub fn os_name() -> String {
    let text = std::fs::read_to_string("/etc/os-release").unwrap_or_default();
    let name = text.lines().find_map(|line| line.strip_prefix("PRETTY_NAME="));
    one_line(name.unwrap_or("Linux").trim_matches('"'), 100)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_the_one_of_the_design() {
        use clap::CommandFactory as _;
        Args::command().debug_assert();
        let line = "certwright-agent enroll --state /s --policy /p --controller c:1 --token -";
        assert!(matches!(Args::parse_from(line.split(' ')).command, Command::Enroll { token: TokenSource::Stdin, .. }));
        let line = "certwright-agent status -o json --state /s";
        assert!(matches!(Args::parse_from(line.split(' ')).command, Command::Status { output: Output::Json, .. }));
    }

    #[test]
    fn a_token_stays_out_of_debug_output() {
        let source: TokenSource = "very-secret".parse().unwrap();
        assert!(!format!("{source:?}").contains("very-secret"));
        let source: TokenSource = "@/no/such/file".parse().unwrap();
        assert_eq!(source.read().unwrap_err().reason, "TOKEN_UNREADABLE");
    }
}
