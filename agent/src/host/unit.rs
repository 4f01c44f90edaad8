//! Runs one command as a transient unit of systemd: outside of the sandbox of the agent's unit, in which a service's own
//! test or reload could fail for reasons that are not the service's. Only `RealHost` calls this, where it is told to.

use std::time::Duration;

use super::{CommandExit, CommandOutcome, command};

const SYSTEMD_RUN: &str = "/usr/bin/systemd-run";
const SYSTEMCTL: &str = "/usr/bin/systemctl";
/// How long after its time limit systemd itself ends a unit that nobody ended: this process may have been killed.
const GRACE: Duration = Duration::from_secs(30);
/// How long systemd may take to kill what hangs.
const KILL: Duration = Duration::from_secs(10);

pub(super) async fn run(argv: &[String], limit: Duration) -> CommandOutcome {
    // It only talks with systemd, which then does the work outside, and waits for the result.
    if argv.first().is_some_and(|program| program == SYSTEMCTL) {
        return command::run(argv, limit).await;
    }
    let unit = format!("certwright-run-{}.service", proto::id::random_id());
    let outcome = command::run(&in_unit(argv, &unit, limit), limit).await;
    end(&outcome, &unit).await;
    outcome
}

/// The same for a program that prints its configuration.
pub(super) async fn dump(argv: &[String], limit: Duration) -> CommandOutcome {
    let unit = format!("certwright-run-{}.service", proto::id::random_id());
    let outcome = command::dump(&in_unit(argv, &unit, limit), limit).await;
    end(&outcome, &unit).await;
    outcome
}

/// Kills what took too long.
async fn end(outcome: &CommandOutcome, unit: &str) {
    if outcome.exit == CommandExit::TimedOut {
        let kill = [SYSTEMCTL, "kill", "--signal=KILL", unit].map(str::to_owned);
        command::run(&kill, KILL).await;
    }
}

fn in_unit(argv: &[String], unit: &str, limit: Duration) -> Vec<String> {
    let mut words =
        [SYSTEMD_RUN, "--quiet", "--pipe", "--wait", "--collect", "--service-type=exec"].map(str::to_owned).to_vec();
    words.push(format!("--unit={unit}"));
    words.push("--description=what the certwright agent was allowed to run".to_owned());
    // A daemon that it started may be meant to stay.
    words.push("--property=KillMode=process".to_owned());
    words.push(format!("--property=RuntimeMaxSec={}s", (limit + GRACE).as_secs()));
    words.push("--".to_owned());
    words.extend_from_slice(argv);
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_follows_our_options_as_it_is() {
        let argv = ["/usr/sbin/nginx", "-t", "--unit=other"].map(str::to_owned);
        let words = in_unit(&argv, "certwright-run-1.service", Duration::from_secs(20));
        let at = words.iter().position(|word| word == "--").unwrap();
        assert_eq!(words[at + 1..], argv);
        assert!(words[..at].contains(&"--unit=certwright-run-1.service".to_owned()));
        assert!(words[..at].contains(&"--property=RuntimeMaxSec=50s".to_owned()));
    }
}
