//! What a deployment says about commands and endpoints.

use super::*;
use crate::target::Protocol;

fn run(exit: CommandExit) -> CommandOutcome {
    CommandOutcome { exit, output: "nginx: \u{1b}[31mbroken".to_owned(), took: Duration::from_secs(30) }
}

#[test]
fn a_failed_reload_quotes_the_command_without_its_escapes() {
    let problem = command_failed(Stage::Reload, "/usr/sbin/nginx -s reload", &run(CommandExit::Status(1)));
    assert!(problem.message.contains("/usr/sbin/nginx -s reload") && problem.message.contains("status 1"));
    assert!(problem.cause.contains("nginx: <U+001B>[31mbroken"), "{}", problem.cause);
    let problem = command_failed(Stage::Reload, "/bin/x", &run(CommandExit::TimedOut));
    assert!(problem.message.contains("30 s"), "{}", problem.message);
}

#[test]
fn a_command_that_says_nothing_leaves_an_operator_with_the_place_to_look() {
    let silent = CommandOutcome { output: "\n".to_owned(), ..run(CommandExit::Status(1)) };
    let problem = command_failed(Stage::Validate, "/usr/sbin/postfix check", &silent);
    assert!(problem.cause.contains("printed nothing") && problem.cause.contains("journalctl"), "{}", problem.cause);
}

#[test]
fn an_endpoint_is_live_only_with_the_wanted_leaf() {
    let endpoint = Endpoint { address: "127.0.0.1:443".into(), server_name: "a.test".into(), protocol: Protocol::Tls };
    assert!(not_live(&endpoint, &Ok([1; 32]), [1; 32], false).is_none());
    assert!(not_live(&endpoint, &Ok([2; 32]), [1; 32], false).unwrap().cause.contains("0202"));
    let refused = VerifyError::Connect("127.0.0.1:443".into(), std::io::ErrorKind::ConnectionRefused.into());
    assert!(not_live(&endpoint, &Err(refused), [1; 32], false).unwrap().cause.contains("connection refused"));
}

#[test]
fn output_is_cut_to_its_limit() {
    assert_eq!(clip("ok\n", 8), "ok\n");
    for bytes_max in [OUTPUT_OK_BYTES_MAX, OUTPUT_BYTES_MAX] {
        assert!(clip(&"\u{7}".repeat(9_000), bytes_max).len() <= bytes_max);
    }
}

#[test]
fn a_problem_says_when_the_agent_stops_to_reload() {
    let endpoint = Endpoint { address: "127.0.0.1:443".into(), server_name: "a.test".into(), protocol: Protocol::Tls };
    let hint = |stopped| not_live(&endpoint, &Ok([2; 32]), [1; 32], stopped).unwrap().hint;
    assert!(!hint(false).contains("also reloads"));
    assert!(hint(true).contains("targets deploy NAME also reloads"), "{}", hint(true));
}
