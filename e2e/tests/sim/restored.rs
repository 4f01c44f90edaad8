//! What a backup does not know in two harder cases: the identity CA was rotated after it (reliability.md UP6, UP7, DB6), and two
//! servers hold different versions of one certificate, both newer than it.

use std::time::Duration;

use e2e::power::PowerSwitch;
use e2e::world::World;
use proto::operator::v1 as api;
use proto::types::v1::Custody;

use crate::{SOON, served, wish};

const KEY: &str = "00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff";
/// All are told of a CA at once, and each waits up to a minute; one that just renewed waits ten.
const LEARNED: Duration = Duration::from_secs(1_200);

async fn restore(world: &mut World, file: &[u8]) {
    world.controller.kill().await;
    world.controller.restore(file, KEY, &PowerSwitch::new()).unwrap();
    world.controller.start();
}

/// Takes a step of a rotation once all are ready for it, and waits until all have followed.
async fn rotate(world: &mut World, step: &str) {
    let request = api::RotateIdentityCaRequest { step: step.to_owned(), anyway: 0 };
    world.operator.client().rotate_identity_ca(request).await.unwrap();
    let ready = async |world: &World| {
        let seen = world.operator.client().get_identity_ca(api::GetIdentityCaRequest {}).await;
        seen.is_ok_and(|seen| seen.into_inner().waiting_total == 0)
    };
    world.settle("all are ready for the next step", LEARNED, ready).await;
}

async fn all_connected(world: &World) -> bool {
    let agents = world.operator.agents().await;
    agents.len() == 2 && agents.iter().all(|agent| agent.status == "connected" && agent.problems.is_empty())
}

#[tokio::test(start_paused = true)]
async fn a_backup_from_before_a_rotation_of_the_identity_ca_loses_nobody_silently() {
    for steps in [&["prepare"][..], &["prepare", "activate"], &["prepare", "activate", "retire"]] {
        let mut world = World::new(2).await;
        world.operator.create(&wish(&world, "web", Custody::Agent, 0)).await.unwrap();
        world.settle_live("web", SOON).await;
        let was_served = served(&world, 0, "web.example.test");
        let backup = world.operator.backup(KEY).await.unwrap();
        for step in steps {
            rotate(&mut world, step).await;
        }
        restore(&mut world, &backup).await;
        tokio::time::sleep(LEARNED).await;
        let status = world.operator.restore().await.unwrap();
        let followed = steps.len() > 1;
        assert_eq!((status.removals_known, status.removals), (followed, 0), "{status:?}");
        assert!(status.agents.iter().all(|agent| agent.shown != followed), "{steps:?}: {:?}", status.agents);
        for agent in world.operator.agents().await {
            let told: Vec<_> =
                agent.problems.iter().map(|one| (one.reason.as_str(), one.hint.contains("--replace"))).collect();
            assert_eq!(told, if followed { vec![("CA_UNKNOWN", true)] } else { Vec::new() }, "{steps:?}: {agent:?}");
        }
        world.operator.accept(true).await.unwrap();
        if followed {
            for (index, name) in ["h1", "h2"].into_iter().enumerate() {
                let request = api::EnrollAgentRequest { name: name.to_owned(), replace: true };
                let token = world.operator.client().enroll_agent(request).await.unwrap().into_inner().token;
                world.agents[index].stop_if_running().await;
                std::fs::remove_dir_all(world.agents[index].state_dir()).unwrap();
                world.agents[index].enroll(&token.into()).await.unwrap();
                world.agents[index].start();
            }
        }
        world.settle("all are connected", SOON, all_connected).await;
        assert_eq!(served(&world, 0, "web.example.test"), was_served, "servers serve what they have all the time");
        world.settle_live("web", LEARNED).await;
    }
}

#[tokio::test(start_paused = true)]
async fn of_two_servers_with_different_newer_versions_the_newest_is_taken_over() {
    for newest in [0, 1] {
        let mut world = World::new(2).await;
        world.operator.create(&wish(&world, "web", Custody::Controller, 0)).await.unwrap();
        world.settle_live("web", SOON).await;
        let request = api::AddTargetRequest {
            certificate: "web".to_owned(),
            target: Some(world.agents[1].target("web", "web.example.test")),
            request_id: "second".to_owned(),
            dry_run: false,
            agents_label: String::new(),
        };
        world.operator.client().add_target(request).await.unwrap();
        let both = async |world: &World| {
            let certificate = world.operator.certificate("web").await.unwrap_or_default();
            certificate.targets.len() == 2 && world.is_live("web").await
        };
        world.settle("both have it", SOON, both).await;
        let backup = world.operator.backup(KEY).await.unwrap();
        let old = served(&world, 0, "web.example.test");
        tokio::time::sleep(LEARNED).await;
        world.operator.renew("web", "one").await.unwrap();
        world
            .settle("both are renewed", SOON, async |world| {
                world.is_live("web").await && served(world, 0, "web.example.test") != old
            })
            .await;
        let middle = served(&world, newest, "web.example.test");
        assert_eq!(served(&world, 1 - newest, "web.example.test"), middle);
        // One of them misses the next.
        world.agents[1 - newest].stop().await;
        tokio::time::sleep(LEARNED).await;
        world.dns.set("web.example.test", &[world.agents[newest].machine.address()]);
        world.operator.renew("web", "two").await.unwrap();
        world
            .settle("the one that is there is renewed", LEARNED, async |world| {
                served(world, newest, "web.example.test") != middle
            })
            .await;
        let latest = served(&world, newest, "web.example.test").unwrap();
        let serial = world.operator.certificate("web").await.unwrap().current.unwrap().serial;

        restore(&mut world, &backup).await;
        world.agents[1 - newest].start();
        let shown = async |world: &World| {
            let status = world.operator.restore().await;
            status.is_ok_and(|status| status.agents.len() == 2 && status.agents.iter().all(|agent| agent.shown))
        };
        world.settle("both show what they hold", LEARNED, shown).await;
        let findings = world.operator.restore().await.unwrap().findings;
        assert_eq!(findings.len(), 2, "{findings:?}");
        assert!(findings.iter().all(|one| one.outcome == "import_without_key"), "{findings:?}");
        world.operator.accept(false).await.unwrap();
        let events = world.operator.events().await;
        let imported: Vec<_> = events.iter().filter(|event| event.kind == "version.imported").collect();
        assert!(imported[0].message.contains(&serial), "the newest is what counts in the end: {imported:?}");
        // Its key was lost with the database: both get a new one, and never the older of the two.
        world
            .settle("both serve the same again", LEARNED, async |world| {
                let (one, other) = (served(world, 0, "web.example.test"), served(world, 1, "web.example.test"));
                world.is_live("web").await && one == other && one.as_ref() != Some(&latest)
            })
            .await;
        assert_ne!(served(&world, 0, "web.example.test"), middle);
        assert_ne!(served(&world, 0, "web.example.test"), old);
        world.check().await;
    }
}
