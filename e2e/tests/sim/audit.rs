//! The audit (features.md O3, reliability.md rule 21): every act is written before its effect, the chain holds through
//! crashes, no secret is in it, and agents are its witnesses.

use std::time::Duration;

use e2e::power::{KillPoint, Step};
use e2e::world::World;
use e2e::world::operator::Operator;
use proto::audit::{Chain, Head, Line, hash};
use proto::operator::v1 as api;
use proto::types::v1::Custody;

use crate::{SOON, wish};

async fn page(world: &World) -> api::ListAuditResponse {
    let request = api::ListAuditRequest { ascending: true, page_size: 1_000, ..Default::default() };
    world.operator.client().list_audit(request).await.unwrap().into_inner()
}

/// The lines, after the whole chain was followed up to its signed head.
async fn lines(world: &World) -> Vec<Line> {
    let page = page(world).await;
    let mut chain = Chain::default();
    let lines: Vec<Line> = page.lines.iter().map(|line| chain.follow(line).unwrap()).collect();
    let told = page.head.unwrap();
    let head = Head::from(told);
    assert_eq!(chain.end(), Some((head.seq, head.hash.as_str())));
    assert!(head.is_signed_by(&page.public_key));
    lines
}

fn told(lines: &[Line], act: &str) -> Vec<(String, String, String)> {
    let of_act = lines.iter().filter(|line| line.act == act);
    of_act.map(|line| (line.actor.clone(), line.subject.clone(), line.result.clone())).collect()
}

#[tokio::test(start_paused = true)]
async fn every_act_is_there_with_who_and_what_and_no_secret() {
    let mut world = World::new(1).await;
    let external_key = "c2VjcmV0LW1hYy1rZXktb2YtdGhlLWNh";
    let issuer = api::AddIssuerRequest {
        name: "other".to_owned(),
        directory: "https://other.test/dir".to_owned(),
        external_kid: "kid-1".to_owned(),
        external_key: external_key.to_owned(),
        ..Default::default()
    };
    world.operator.client().add_issuer(issuer).await.unwrap();
    let add = api::AddOperatorRequest { user: "daemon".to_owned(), role: "viewer".to_owned() };
    world.operator.client().add_operator(add).await.unwrap();
    let invite = api::InviteOperatorRequest { name: "alice".to_owned(), role: "owner".to_owned() };
    let invitation = world.operator.client().invite_operator(invite).await.unwrap().into_inner().token;
    let daemon = Operator::local(&world.net, "daemon");
    for _ in 0..100 {
        daemon.call_by_name("EnrollAgent").await.unwrap_err();
    }
    world.operator.create(&wish(&world, "web", Custody::Controller, 0)).await.unwrap();
    world.settle_live("web", SOON).await;
    world.operator.call_by_name("DeleteCertificate").await.unwrap_err();

    let lines = lines(&world).await;
    let root = |subject: &str, result: &str| ("local:root".to_owned(), subject.to_owned(), result.to_owned());
    assert_eq!(told(&lines, "AddIssuer").last_chunk(), Some(&[root("other", "asked"), root("other", "done")]));
    assert_eq!(told(&lines, "CreateCertificate"), [root("web", "asked"), root("web", "done")]);
    assert_eq!(told(&lines, "DeleteCertificate"), [root("", "asked"), root("", "failed")]);
    let refused = told(&lines, "EnrollAgent");
    let refused: Vec<_> = refused.iter().filter(|(actor, ..)| actor == "local:daemon").collect();
    assert_eq!(
        refused,
        [&("local:daemon".to_owned(), String::new(), "refused".to_owned())],
        "once, not a hundred times"
    );
    let agent = |result: &str| ("agent:h1".to_owned(), "agent:h1".to_owned(), result.to_owned());
    assert_eq!(told(&lines, "Enroll"), [agent("asked"), agent("done")]);
    let fetched = told(&lines, "Fetch");
    assert_eq!(fetched.first(), Some(&("agent:h1".to_owned(), "web".to_owned(), "asked".to_owned())), "a key left");
    let create = lines.iter().find(|line| line.act == "CreateCertificate").unwrap();
    assert_eq!(create.from, "uid 0");
    for word in ["san=web.example.test", "custody=CUSTODY_CONTROLLER", "target=h1:", "reload=/usr/sbin/nginx -s reload"]
    {
        assert!(create.detail.contains(word), "{word}: {}", create.detail);
    }
    let whole = serde_json::to_string(&lines).unwrap();
    let secret = invitation.split('.').next().unwrap();
    assert!(!whole.contains(external_key) && !whole.contains(secret) && !whole.contains("PRIVATE KEY"));
    assert!(
        lines.iter().all(|line| line.act != "ListCertificates" && line.act != "Whoami"),
        "who only looks is no act"
    );
}

#[tokio::test(start_paused = true)]
async fn an_act_is_written_before_its_effect_and_the_chain_survives_crashes() {
    let mut world = World::new(0).await;
    for (name, at) in [("e1", 1), ("e2", 2), ("e3", 3)] {
        world.controller.plan(Some(KillPoint { step: Step::AfterSync, nth: at }));
        let request = api::EnrollAgentRequest { name: name.to_owned(), replace: false };
        let died = world.operator.client().enroll_agent(request).await.is_err();
        world.revive().await;
        let lines = lines(&world).await;
        let asked = told(&lines, "EnrollAgent").iter().any(|(_, subject, result)| subject == name && result == "asked");
        let request = api::ListAgentsRequest::default();
        let pending = world.operator.client().list_agents(request).await.unwrap().into_inner().pending;
        let effect = pending.iter().any(|pending| pending.agent == name);
        assert!(asked || !effect, "{name}: an effect that nobody asked for");
        assert!(died || effect);
    }
}

#[tokio::test(start_paused = true)]
async fn agents_keep_signed_heads_and_tell_a_rewritten_audit() {
    let mut world = World::new(1).await;
    let witnessed = async |world: &World| {
        let page = page(world).await;
        let last = page.head.map_or(0, |head| head.seq);
        page.witnesses.iter().any(|witness| witness.agent == "h1" && witness.agrees && witness.seq == last)
    };
    world.settle("the agent keeps the head", Duration::from_secs(2 * 3_600), witnessed).await;
    let path = world.agents[0].machine.path("var/lib/certwright-agent/witness.json");
    let kept: serde_json::Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    let last: Head = serde_json::from_value(kept["heads"].as_array().unwrap().last().unwrap().clone()).unwrap();
    let text = page(&world).await.lines;
    assert_eq!(last.hash, hash(&text[usize::try_from(last.seq).unwrap() - 1]));

    // Whoever has the agent's memory changed in place of the controller's gets the same answer: they differ.
    let changed = std::fs::read_to_string(&path).unwrap().replace(&last.hash, &"ab".repeat(32));
    world.agents[0].kill().await;
    std::fs::write(&path, changed).unwrap();
    world.agents[0].start();
    let rewritten =
        async |world: &World| world.operator.events().await.iter().any(|event| event.kind == "audit.rewritten");
    world.settle("the controller tells", Duration::from_secs(3_600), rewritten).await;
    assert!(page(&world).await.witnesses.iter().any(|witness| !witness.agrees));
}
