//! A look at challenges before a CA is asked (features.md A17): agents serve tokens for it, and what is in the way is told from
//! what cannot be seen.

use proto::operator::v1 as api;
use proto::types::v1::Custody;
use tonic::Status;

use e2e::world::World;

use crate::{SOON, reason, wish};

async fn check(world: &World, certificate: &str) -> Result<api::CheckChallengesResponse, Status> {
    let request = api::CheckChallengesRequest { certificate: certificate.to_owned() };
    world.operator.client().check_challenges(request).await.map(tonic::Response::into_inner)
}

fn why(problem: Option<&proto::types::v1::Problem>) -> &str {
    problem.map_or("", |problem| problem.reason.as_str())
}

#[tokio::test(start_paused = true)]
async fn a_check_says_what_a_ca_would_see_and_nothing_is_ordered() {
    let mut world = World::new(1).await;
    world.operator.create(&wish(&world, "web", Custody::Agent, 0)).await.unwrap();
    world.settle_live("web", SOON).await;
    let seen = check(&world, "web").await.unwrap();
    assert_eq!((seen.responders.len(), why(seen.responders[0].problem.as_ref())), (1, ""));
    let name = &seen.names[0];
    assert_eq!((name.identifier.as_str(), name.seen(), name.trails.len()), ("web.example.test", api::Seen::Ok, 1));
    let hop = &name.trails[0].hops[0];
    assert!(hop.url.starts_with("http://web.example.test/.well-known/acme-challenge/"), "{hop:?}");
    assert_eq!((name.trails[0].hops.len(), hop.outcome.as_str()), (1, "200"));
    assert_eq!(world.ca.orders().len(), 1, "no CA was asked");

    // Its agent away, the port is closed: nobody can tell from here what a CA would see.
    world.agents[0].kill().await;
    let gone = async |world: &World| world.operator.agents().await.iter().any(|agent| agent.status == "offline");
    world.settle("h1 is away", SOON, gone).await;
    let seen = check(&world, "web").await.unwrap();
    assert_eq!(why(seen.responders[0].problem.as_ref()), "AGENT_AWAY");
    assert_eq!(
        (seen.names[0].seen(), why(seen.names[0].problem.as_ref())),
        (api::Seen::Unknown, "PREFLIGHT_UNREACHABLE")
    );
    world.dns.remove("web.example.test");
    let seen = check(&world, "web").await.unwrap();
    assert_eq!((seen.names[0].seen(), why(seen.names[0].problem.as_ref())), (api::Seen::Blocked, "DNS_NO_SUCH_NAME"));
    assert_eq!(reason(&check(&world, "nothing").await.unwrap_err()), "NOT_FOUND");
    world.agents[0].start();
    world.check().await;
}
