//! Backup and restore (features.md O7, design §3, reliability.md DB5, DB6, SE9, SE15): a controller that was restored from
//! yesterday loses no certificate that an agent holds, brings back nobody and nothing that was taken away, and does nothing
//! before an owner accepts it.

use std::time::Duration;

use e2e::power::{KillPoint, PowerSwitch, Step};
use e2e::world::World;
use e2e::world::operator::Operator;
use proto::operator::v1 as api;
use proto::types::v1::Custody;
use tonic::Code;

use crate::{SOON, served, wish};

/// What opens the backups here.
const KEY: &str = "00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff";
/// Long enough for an agent to pull, and to keep the head of the audit of that moment.
const LATER: Duration = Duration::from_secs(2 * 3_600);

/// Takes the controller down, and puts one that was restored from the backup in its place.
async fn restore(world: &mut World, file: &[u8]) {
    world.controller.kill().await;
    world.controller.restore(file, KEY, &PowerSwitch::new()).unwrap();
    world.controller.start();
}

/// Waits until these agents have shown what they hold.
async fn shown(world: &mut World, agents: &[&str]) -> api::GetRestoreResponse {
    let all = async |world: &World| {
        let Ok(status) = world.operator.restore().await else { return false };
        agents.iter().all(|name| status.agents.iter().any(|agent| agent.name == *name && agent.shown))
    };
    world.settle("the agents show what they hold", SOON, all).await;
    world.operator.restore().await.unwrap()
}

fn serial(certificate: &api::Certificate) -> String {
    certificate.current.as_ref().unwrap().serial.clone()
}

#[tokio::test(start_paused = true)]
async fn a_restore_from_yesterday_loses_no_certificate_and_orders_only_what_lost_its_key() {
    let mut world = World::new(2).await;
    for (name, custody, agent) in
        [("old", Custody::Agent, 0), ("mine", Custody::Agent, 0), ("theirs", Custody::Controller, 1)]
    {
        world.operator.create(&wish(&world, name, custody, agent)).await.unwrap();
        world.settle_live(name, SOON).await;
    }
    let backup = world.operator.backup(KEY).await.unwrap();
    tokio::time::sleep(LATER).await;
    for name in ["mine", "theirs"] {
        world.operator.renew(name, name).await.unwrap();
        world.settle_live(name, SOON).await;
    }
    world.operator.create(&wish(&world, "after", Custody::Agent, 1)).await.unwrap();
    world.settle_live("after", SOON).await;
    let mut before = Vec::new();
    for name in ["old", "mine", "theirs"] {
        before.push((name, serial(&world.operator.certificate(name).await.unwrap())));
    }
    let serving = |world: &World| {
        [(0, "old"), (0, "mine"), (1, "theirs"), (1, "after")]
            .map(|(agent, name)| served(world, agent, &format!("{name}.example.test")))
    };
    let was_served = serving(&world);
    let orders = |world: &World| world.ca.log().iter().filter(|line| line.path.contains("new-order")).count();
    let orders_before = orders(&world);

    restore(&mut world, &backup).await;
    let status = shown(&mut world, &["h1", "h2"]).await;
    assert_eq!(status.state, "waiting");
    let found: Vec<_> = status.findings.iter().map(|one| (one.certificate.as_str(), one.outcome.as_str())).collect();
    let expected = [("mine", "import"), ("after", "unknown"), ("theirs", "import_without_key")];
    assert!(found.len() == 3 && expected.iter().all(|one| found.contains(one)), "{found:?}");
    // Nothing moves before it is accepted, however long that takes.
    tokio::time::sleep(LATER).await;
    assert_eq!((orders(&world), serving(&world)), (orders_before, was_served.clone()));
    let refused = world.operator.renew("old", "x").await.unwrap_err();
    assert_eq!(refused.code(), Code::PermissionDenied, "{refused:?}");
    assert!(world.operator.pause("", false).await.is_ok(), "and lifting a pause lifts nothing");
    assert!(world.operator.restore().await.unwrap().state == "waiting");

    let accepted = world.operator.accept(false).await.unwrap();
    assert_eq!(accepted.state, "accepted");
    assert!(accepted.lines_lost() > 0 && accepted.witnessed_by.starts_with('h'), "{accepted:?}");
    for name in ["old", "mine", "theirs"] {
        world.settle_live(name, SOON).await;
    }
    for (name, serial_before) in before {
        let now = serial(&world.operator.certificate(name).await.unwrap());
        assert_eq!(now == serial_before, name != "theirs", "{name}");
    }
    assert_eq!(orders(&world), orders_before + 1, "only the one whose key was lost");
    let now_served = serving(&world);
    assert_eq!((&now_served[0], &now_served[1], &now_served[3]), (&was_served[0], &was_served[1], &was_served[3]));
    assert!(world.operator.events().await.iter().all(|event| event.kind != "audit.rewritten"));
    // What was imported is renewed as everything else.
    world.operator.renew("mine", "again").await.unwrap();
    world.settle_live("mine", SOON).await;
    world.check().await;
}

#[tokio::test(start_paused = true)]
async fn used_stays_used_and_revoked_stays_revoked_where_it_was_written_down() {
    let mut world = World::new(2).await;
    let token = api::EnrollAgentRequest { name: "later".to_owned(), replace: false };
    let token = world.operator.client().enroll_agent(token).await.unwrap().into_inner().token;
    let invite = api::InviteOperatorRequest { name: "alice".to_owned(), role: "owner".to_owned() };
    world.operator.client().invite_operator(invite).await.unwrap();
    let add = api::AddOperatorRequest { user: "daemon".to_owned(), role: "owner".to_owned() };
    world.operator.client().add_operator(add).await.unwrap();
    let add = api::AddOperatorRequest { user: "bin".to_owned(), role: "viewer".to_owned() };
    world.operator.client().add_operator(add).await.unwrap();
    let backup = world.operator.backup(KEY).await.unwrap();
    tokio::time::sleep(Duration::from_secs(1_200)).await;
    let revoke = api::RevokeAgentRequest { name: "h2".to_owned() };
    world.operator.client().revoke_agent(revoke).await.unwrap();
    let remove = api::RemoveOperatorRequest { name: "local:daemon".to_owned() };
    world.operator.client().remove_operator(remove).await.unwrap();

    restore(&mut world, &backup).await;
    let status = shown(&mut world, &["h1"]).await;
    assert_eq!((status.removals_known, status.removals), (true, 2));
    assert_eq!(status.agents.iter().map(|agent| agent.name.as_str()).collect::<Vec<_>>(), ["h1"], "h2 is revoked");
    assert_eq!(status.operators, ["local:bin"], "daemon is removed");
    // Until an owner has looked, root alone is let in.
    for user in ["daemon", "bin"] {
        let refused = Operator::local(&world.net, user).call_by_name("GetOverview").await.unwrap_err();
        assert_eq!(refused.code(), Code::PermissionDenied, "{user}");
    }
    let agents = world.operator.client().list_agents(api::ListAgentsRequest::default()).await.unwrap().into_inner();
    assert!(agents.pending.is_empty(), "no token of before the backup is worth anything");
    let team = world.operator.client().list_operators(api::ListOperatorsRequest {}).await.unwrap().into_inner();
    assert!(team.pending.is_empty(), "nor an invitation");
    world.operator.accept(true).await.unwrap();
    Operator::local(&world.net, "bin").call_by_name("GetOverview").await.unwrap();
    Operator::local(&world.net, "daemon").call_by_name("GetOverview").await.unwrap_err();
    let state = world.agents[1].machine.path("var/lib/certwright-agent");
    world.agents[1].stop_if_running().await;
    std::fs::remove_dir_all(state).unwrap();
    world.agents[1].enroll(&token.into()).await.unwrap_err();

    // With the machine all that is lost: then nobody but root is an operator unless the owner says so, and agents are listed.
    world.controller.kill().await;
    world.controller.lose_folder();
    world.controller.restore(&backup, KEY, &PowerSwitch::new()).unwrap();
    world.controller.start();
    let status = shown(&mut world, &["h1"]).await;
    assert!(!status.removals_known && status.operators.len() == 2 && status.agents.len() == 2, "{status:?}");
    world.operator.accept(false).await.unwrap();
    for user in ["daemon", "bin"] {
        Operator::local(&world.net, user).call_by_name("GetOverview").await.unwrap_err();
    }
}

#[tokio::test(start_paused = true)]
async fn two_restores_of_one_backup_differ_and_an_agent_that_was_away_is_asked_before_it_is_told() {
    let mut world = World::new(2).await;
    for (name, agent) in [("here", 0), ("away", 1)] {
        world.operator.create(&wish(&world, name, Custody::Agent, agent)).await.unwrap();
        world.settle_live(name, SOON).await;
    }
    let backup = world.operator.backup(KEY).await.unwrap();
    tokio::time::sleep(LATER).await;
    for name in ["here", "away"] {
        world.operator.renew(name, name).await.unwrap();
        world.settle_live(name, SOON).await;
    }
    let held = serial(&world.operator.certificate("away").await.unwrap());
    let was_served = served(&world, 1, "away.example.test");
    world.agents[1].kill().await;
    restore(&mut world, &backup).await;
    let first = shown(&mut world, &["h1"]).await.epoch;
    restore(&mut world, &backup).await;
    let second = shown(&mut world, &["h1"]).await.epoch;
    assert!(second > first && first > 1, "{first} {second}");
    world.operator.accept(false).await.unwrap();
    world.settle_live("here", SOON).await;
    assert_ne!(serial(&world.operator.certificate("away").await.unwrap()), held, "nobody told the controller yet");
    tokio::time::sleep(LATER).await;
    world.agents[1].start();
    let imported = async |world: &World| {
        world.operator.certificate("away").await.is_some_and(|certificate| serial(&certificate) == held)
    };
    world.settle("what it holds is taken over", SOON, imported).await;
    world.settle_live("away", SOON).await;
    assert_eq!(served(&world, 1, "away.example.test"), was_served, "and nothing else was ever deployed there");
    world.check().await;
}

#[tokio::test(start_paused = true)]
async fn a_restore_and_its_acceptance_may_be_cut_anywhere() {
    let mut world = World::new(1).await;
    world.operator.create(&wish(&world, "web", Custody::Agent, 0)).await.unwrap();
    world.settle_live("web", SOON).await;
    let backup = world.operator.backup(KEY).await.unwrap();
    world.operator.renew("web", "r").await.unwrap();
    let held = serial(&world.settle_live("web", SOON).await);
    world.controller.kill().await;
    let mut cuts = 0;
    for (step, nth) in
        [Step::BeforeSync, Step::AfterSync].into_iter().flat_map(|step| (1..6).map(move |nth| (step, nth)))
    {
        let switch = PowerSwitch::new();
        switch.plan(Some(KillPoint { step, nth }));
        if world.controller.restore(&backup, KEY, &switch).is_ok() {
            continue;
        }
        cuts += 1;
        // What is there is a whole database or none: never one with half of its rows.
        let store = world.controller.open_copy().await;
        assert!(store.is_err() || step == Step::AfterSync, "{step:?} {nth}");
    }
    assert!(cuts > 2, "{cuts}");
    for nth in 1..6 {
        world.controller.restore(&backup, KEY, &PowerSwitch::new()).unwrap();
        world.controller.start();
        shown(&mut world, &["h1"]).await;
        world.controller.plan(Some(KillPoint {
            step: Step::AfterSync,
            nth: world.controller.switch().count(Step::AfterSync) + nth,
        }));
        drop(world.operator.accept(false).await);
        let accepted = async |world: &World| match world.operator.restore().await {
            Ok(status) if status.state == "accepted" => true,
            Ok(_) => world.operator.accept(false).await.is_ok(),
            Err(_) => false,
        };
        world.settle("it is accepted", SOON, accepted).await;
        let live = world.settle_live("web", SOON).await;
        assert_eq!(serial(&live), held, "cut at commit {nth}");
        world.controller.plan(None);
        world.controller.kill().await;
    }
    world.controller.start();
    world.settle_live("web", SOON).await;
    world.check().await;
}

#[tokio::test(start_paused = true)]
async fn a_database_that_comes_back_by_other_means_is_noticed_and_holds_still() {
    let mut world = World::new(1).await;
    world.operator.create(&wish(&world, "web", Custody::Agent, 0)).await.unwrap();
    world.settle_live("web", SOON).await;
    let backup = world.operator.backup(KEY).await.unwrap();
    let yesterday = world.controller.disk.copy();
    tokio::time::sleep(LATER).await;
    world.operator.renew("web", "r").await.unwrap();
    let held = serial(&world.settle_live("web", SOON).await);
    // The agent pulls now and then, and keeps the head of that moment.
    tokio::time::sleep(Duration::from_secs(1_800)).await;
    let noticed = async |world: &World| {
        world.operator.restore().await.is_ok_and(|status| status.state == "waiting" && status.restored_by == "an agent")
    };

    // A copy of yesterday's file.
    world.controller.kill().await;
    world.controller.disk = yesterday;
    world.controller.start();
    world.settle("an agent knows more", SOON, noticed).await;
    shown(&mut world, &["h1"]).await;
    world.operator.accept(false).await.unwrap();
    assert_eq!(serial(&world.settle_live("web", SOON).await), held);
    tokio::time::sleep(Duration::from_secs(1_800)).await;

    // The old machine, after another one took over.
    let old = world.controller.disk.copy();
    restore(&mut world, &backup).await;
    shown(&mut world, &["h1"]).await;
    world.operator.accept(false).await.unwrap();
    assert_eq!(serial(&world.settle_live("web", SOON).await), held);
    tokio::time::sleep(Duration::from_secs(1_800)).await;
    let was_served = served(&world, 0, "web.example.test");
    world.controller.kill().await;
    world.controller.disk = old;
    world.controller.start();
    world.settle("the agent follows the new one", SOON, noticed).await;
    tokio::time::sleep(LATER).await;
    assert_eq!(served(&world, 0, "web.example.test"), was_served);
    let refused = world.operator.renew("web", "x").await.unwrap_err();
    assert_eq!(refused.code(), Code::PermissionDenied);
}

trait Lost {
    fn lines_lost(&self) -> u64;
}

impl Lost for api::GetRestoreResponse {
    fn lines_lost(&self) -> u64 {
        self.witnessed_seq.saturating_sub(self.audit_seq)
    }
}
