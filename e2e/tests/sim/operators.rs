//! Who may do what (design §5, reliability.md SE17–SE19): every RPC called as every role, by people on the controller's host
//! and elsewhere; a change counts from the next message.

use std::sync::Arc;
use std::time::Duration;

use e2e::raw_agent::RawAgent;
use e2e::raw_operator::RawOperator;
use e2e::world::World;
use e2e::world::operator::Operator;
use e2e::world::program::LISTEN;
use jiff::SignedDuration;
use prost::Message as _;
use proto::agent::v1::GetDesiredRequest;
use proto::agent::v1::agent_service_client::AgentServiceClient;
use proto::clock::Clock;
use proto::method::Method;
use proto::operator::v1 as api;
use proto::types::v1::ErrorDetail;
use tonic::{Code, Status};

use crate::reason;

/// Whoever has any role may call these: they change nothing.
const SEE: [&str; 20] = [
    "GetDetected",
    "GetIdentityCa",
    "Whoami",
    "RenewLogin",
    "GetOverview",
    "Watch",
    "ListCertificates",
    "GetCertificate",
    "ListVersions",
    "ListAgents",
    "GetAgent",
    "ListIssuers",
    "GetIssuer",
    "GetRevocationList",
    "ListLimits",
    "ListOperators",
    "ListJobs",
    "GetJob",
    "ListEvents",
    "GetRestore",
];
/// Only an owner may call these.
const TRUST: [&str; 11] = [
    "RotateIdentityCa",
    "AddIssuer",
    "RemoveIssuer",
    "SetIssuer",
    "RolloverAccount",
    "AddOperator",
    "InviteOperator",
    "SetOperatorRole",
    "RemoveOperator",
    "CreateBackup",
    "AcceptRestore",
];
/// Only an auditor and an owner may call this.
const AUDIT: [&str; 1] = ["ListAudit"];
/// Anyone may: the request proves what it must.
const OPEN: [&str; 1] = ["Login"];

fn hint(status: &Status) -> String {
    ErrorDetail::decode(status.details()).unwrap().problem.unwrap_or_default().hint
}

/// The least role that may, of the four in their order: viewer and auditor differ only by the audit.
fn needs(method: &str) -> &'static str {
    match method {
        _ if SEE.contains(&method) => "viewer",
        _ if AUDIT.contains(&method) => "auditor",
        _ if TRUST.contains(&method) => "owner",
        _ => "maintainer",
    }
}

fn rpcs() -> Vec<&'static str> {
    let of_operators = Method::ALL.iter().filter(|method| format!("{method:?}").starts_with("Operator"));
    of_operators.map(|method| method.name()).filter(|name| !OPEN.contains(name)).collect()
}

async fn add(world: &World, user: &str, role: &str) -> api::AddOperatorResponse {
    let request = api::AddOperatorRequest { user: user.to_owned(), role: role.to_owned() };
    world.operator.client().add_operator(request).await.unwrap().into_inner()
}

async fn set_role(world: &World, name: &str, role: &str) {
    let request = api::SetOperatorRoleRequest { name: name.to_owned(), role: role.to_owned() };
    world.operator.client().set_operator_role(request).await.unwrap();
}

async fn invite(world: &World, name: &str, role: &str) -> String {
    let request = api::InviteOperatorRequest { name: name.to_owned(), role: role.to_owned() };
    world.operator.client().invite_operator(request).await.unwrap().into_inner().token
}

async fn remove(world: &World, name: &str) {
    let request = api::RemoveOperatorRequest { name: name.to_owned() };
    world.operator.client().remove_operator(request).await.unwrap();
}

/// Every machine was suspended for so many days.
async fn later(world: &World, days: i64) {
    world.clock.leap(SignedDuration::from_hours(24 * days));
    tokio::time::sleep(Duration::from_secs(120)).await;
}

fn clock(world: &World) -> Arc<dyn Clock> {
    world.clock.clone()
}

#[tokio::test(start_paused = true)]
async fn every_rpc_asks_for_the_role_of_its_row() {
    let world = World::new(0).await;
    for (user, role) in [("daemon", "viewer"), ("bin", "auditor"), ("sys", "maintainer"), ("nobody", "owner")] {
        add(&world, user, role).await;
        let operator = Operator::local(&world.net, user);
        let who = operator.client().whoami(api::WhoamiRequest {}).await.unwrap().into_inner();
        assert_eq!((who.operator.as_str(), who.role.as_str()), (format!("local:{user}").as_str(), role));
        for rpc in rpcs() {
            let allowed = match needs(rpc) {
                "viewer" => true,
                "auditor" => matches!(role, "auditor" | "owner"),
                "maintainer" => matches!(role, "maintainer" | "owner"),
                _ => role == "owner",
            };
            let told = who.denied.iter().find(|denied| denied.rpc == rpc).map(|denied| denied.needs.as_str());
            assert_eq!(told, (!allowed).then(|| needs(rpc)), "{rpc} as {role}: what the dashboard is told");
            let answer = operator.call_by_name(rpc).await;
            let refused = answer.err().filter(|status| status.code() == Code::PermissionDenied);
            match refused {
                None => assert!(allowed, "{rpc} must be refused to a {role}"),
                Some(status) => {
                    assert!(!allowed, "{rpc} must be open to a {role}: {status:?}");
                    assert_eq!(reason(&status), "ROLE_TOO_LOW");
                    let command = format!("certwright operators role local:{user} {}", needs(rpc));
                    assert!(hint(&status).contains(&command), "{status:?}");
                }
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn whoever_has_no_role_is_told_what_to_ask_for_and_a_role_counts_from_the_next_message() {
    let world = World::new(0).await;
    let daemon = Operator::local(&world.net, "daemon");
    let refusal = daemon.call_by_name("Whoami").await.unwrap_err();
    assert_eq!(reason(&refusal), "NOT_AN_OPERATOR");
    assert!(hint(&refusal).contains("certwright operators add --local daemon --role viewer"), "{refusal:?}");
    assert!(add(&world, "daemon", "viewer").await.hint.contains("usermod -aG certwright-admin daemon"));
    let mut watch = daemon.client().watch(api::WatchRequest {}).await.unwrap().into_inner();
    watch.message().await.unwrap().unwrap();
    assert_eq!(reason(&daemon.call_by_name("EnrollAgent").await.unwrap_err()), "ROLE_TOO_LOW");
    set_role(&world, "local:daemon", "maintainer").await;
    assert_eq!(daemon.call_by_name("EnrollAgent").await.unwrap_err().code(), Code::InvalidArgument);
    set_role(&world, "local:daemon", "viewer").await;
    assert_eq!(reason(&daemon.call_by_name("EnrollAgent").await.unwrap_err()), "ROLE_TOO_LOW");
    remove(&world, "local:daemon").await;
    assert_eq!(reason(&daemon.call_by_name("Whoami").await.unwrap_err()), "NOT_AN_OPERATOR");
    let cut = async {
        loop {
            if let Err(status) = watch.message().await {
                return status;
            }
        }
    };
    let cut = tokio::time::timeout(Duration::from_secs(1), cut).await.expect("the open dashboard is cut at once");
    assert_eq!(reason(&cut), "NOT_AN_OPERATOR");
}

#[tokio::test(start_paused = true)]
async fn someone_elsewhere_logs_in_once_and_stays_while_they_come_back() {
    let world = World::new(0).await;
    let (net, clock) = (&world.net, clock(&world));
    let invitation = invite(&world, "alice", "maintainer").await;
    let lost = RawOperator::login(net, LISTEN, &clock, &invitation, None).await.unwrap();
    let mut alice = RawOperator::login(net, LISTEN, &clock, &invitation, Some(lost.into_key())).await.unwrap();
    assert_eq!((alice.answer.name.as_str(), alice.answer.role.as_str()), ("alice", "maintainer"));
    let thief = RawOperator::login(net, LISTEN, &clock, &invitation, None).await.unwrap_err();
    assert_eq!(reason(&thief), "INVITATION_USED");
    let seen = world.operator.events().await;
    assert!(seen.iter().any(|event| event.kind == "operator.login_refused"), "owners see a second use");

    let operator = |alice: &RawOperator| Operator::remote(alice.channel(net, LISTEN, &clock));
    let who = operator(&alice).client().whoami(api::WhoamiRequest {}).await.unwrap().into_inner();
    assert_eq!(who.operator, "alice");
    assert!(who.identity_not_after > world.now_ms());
    assert_eq!(reason(&operator(&alice).call_by_name("AddIssuer").await.unwrap_err()), "ROLE_TOO_LOW");

    // Used within its fourteen days it never ends; unused it does.
    for _ in 0..3 {
        later(&world, 10).await;
        alice.renew(net, LISTEN, &clock).await.unwrap();
    }
    later(&world, 14).await;
    let expired = operator(&alice).call_by_name("Whoami").await.unwrap_err();
    assert_eq!(reason(&expired), "LOGIN_EXPIRED");
    assert!(alice.renew(net, LISTEN, &clock).await.is_err());

    remove(&world, "alice").await;
    assert_eq!(reason(&operator(&alice).call_by_name("Whoami").await.unwrap_err()), "NOT_AN_OPERATOR");
    let again = RawOperator::login(net, LISTEN, &clock, &invitation, None).await.unwrap_err();
    assert_eq!(reason(&again), "INVITATION_UNKNOWN");
}

#[tokio::test(start_paused = true)]
async fn an_agent_is_no_operator_and_an_operator_no_agent() {
    let world = World::new(0).await;
    let (net, clock) = (&world.net, clock(&world));
    let request = api::EnrollAgentRequest { name: "h9".to_owned(), replace: false };
    let token = world.operator.client().enroll_agent(request).await.unwrap().into_inner().token;
    let agent = RawAgent::enroll(net, LISTEN, &clock, &token).await.unwrap();
    for rpc in rpcs() {
        let refusal = Operator::remote(agent.channel(net, LISTEN, &clock)).call_by_name(rpc).await.unwrap_err();
        assert_eq!(reason(&refusal), "NOT_AN_OPERATOR", "{rpc}");
    }
    let invitation = invite(&world, "alice", "owner").await;
    let alice = RawOperator::login(net, LISTEN, &clock, &invitation, None).await.unwrap();
    let mut as_agent = AgentServiceClient::new(alice.channel(net, LISTEN, &clock));
    let refusal = as_agent.get_desired(GetDesiredRequest::default()).await.unwrap_err();
    assert_eq!(reason(&refusal), "IDENTITY_REFUSED");
    // Nor is a join token an invitation, or an invitation a join token.
    let invitation = invite(&world, "bob", "owner").await;
    assert!(RawAgent::enroll(net, LISTEN, &clock, &invitation).await.is_err());
    assert!(RawOperator::login(net, LISTEN, &clock, &token, None).await.is_err());
}

#[tokio::test(start_paused = true)]
async fn an_invitation_ends_by_time_and_by_withdrawal() {
    let world = World::new(0).await;
    let (net, clock) = (&world.net, clock(&world));
    let late = invite(&world, "late", "viewer").await;
    let withdrawn = invite(&world, "gone", "viewer").await;
    remove(&world, "gone").await;
    let refusal = RawOperator::login(net, LISTEN, &clock, &withdrawn, None).await.unwrap_err();
    assert_eq!(reason(&refusal), "INVITATION_UNKNOWN");
    tokio::time::sleep(Duration::from_secs(24 * 3_600)).await;
    let refusal = RawOperator::login(net, LISTEN, &clock, &late, None).await.unwrap_err();
    assert_eq!(reason(&refusal), "INVITATION_EXPIRED");
    let listed = world.operator.client().list_operators(api::ListOperatorsRequest {}).await.unwrap().into_inner();
    assert!(listed.pending.is_empty(), "{listed:?}");
    assert_eq!(listed.items.len(), 1, "root alone: {listed:?}");
}
