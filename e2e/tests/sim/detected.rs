//! What an agent finds on its server: asked for by an operator, kept with its time, and another thing than what is managed.

use e2e::world::World;
use proto::operator::v1 as api;
use tonic::Code;

use crate::{SOON, reason};

const SITE: &str = "http { server { listen 443 ssl; server_name www.example.test; root /var/www/html;\n\
                    ssl_certificate /etc/nginx/tls/www.pem; ssl_certificate_key /etc/nginx/tls/www.key; } }\n";

fn nginx(world: &World, agent: usize) {
    let machine = &world.agents[agent].machine;
    let key = rcgen::KeyPair::generate().unwrap();
    let leaf = rcgen::CertificateParams::new(vec!["www.example.test".to_owned()]).unwrap().self_signed(&key).unwrap();
    for (path, text) in [
        ("etc/nginx/nginx.conf", SITE),
        ("etc/nginx/tls/www.pem", &leaf.pem()),
        ("etc/nginx/tls/www.key", &key.serialize_pem()),
        ("etc/os-release", "PRETTY_NAME=\"Debian\u{1b}[2J GNU/Linux 12\"\n"),
    ] {
        let path = machine.path(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }
}

async fn detect(world: &World, name: &str) -> Result<api::Detected, tonic::Status> {
    let request = api::DetectAgentRequest { name: name.to_owned() };
    world.operator.client().detect_agent(request).await.map(tonic::Response::into_inner)
}

async fn stored(world: &World, name: &str) -> Result<api::Detected, tonic::Status> {
    let request = api::GetDetectedRequest { name: name.to_owned() };
    world.operator.client().get_detected(request).await.map(tonic::Response::into_inner)
}

async fn names(world: &World) -> Vec<String> {
    world.operator.agents().await.into_iter().map(|agent| agent.name).collect()
}

#[tokio::test(start_paused = true)]
async fn a_picture_is_asked_for_and_kept_and_each_agent_has_its_own() {
    let mut world = World::new(2).await;
    let names = names(&world).await;
    assert_eq!(stored(&world, &names[0]).await.unwrap().seen_at, 0, "nobody looked yet");
    nginx(&world, 0);
    let found = detect(&world, &names[0]).await.unwrap();
    assert!(found.seen_at > 0 && !found.agent_version.is_empty());
    let picture = found.picture.clone().unwrap();
    assert_eq!(picture.os, "Debian<U+001B>[2J GNU/Linux 12");
    assert_eq!(picture.sites[0].names, ["www.example.test"]);
    assert!(picture.notes[0].contains("[detect] commands = true"), "{:?}", picture.notes);
    let one = &found.suggestions[0];
    assert_eq!((one.kind.as_str(), one.certificate.as_str(), one.adopts), ("certificate", "www.example.test", true));
    assert!(one.policy.contains(&"path = \"/etc/nginx/tls\"".to_owned()), "{:?}", one.policy);
    let other = detect(&world, &names[1]).await.unwrap();
    assert!(other.picture.unwrap().sites.is_empty() && other.suggestions.is_empty());

    world.controller.kill().await;
    world.controller.start();
    world.settle("the controller answers", SOON, async |world| world.operator.whoami().await).await;
    assert_eq!(stored(&world, &names[0]).await.unwrap(), found, "kept over a restart");
    world.check().await;
}

#[tokio::test(start_paused = true)]
async fn an_agent_that_is_away_is_not_waited_for_and_one_that_is_forgotten_leaves_no_picture() {
    let mut world = World::new(1).await;
    let name = names(&world).await.remove(0);
    nginx(&world, 0);
    let found = detect(&world, &name).await.unwrap();
    world.agents[0].stop().await;
    let away = async |world: &World| world.operator.agents().await[0].status == "offline";
    world.settle("it is away", SOON, away).await;
    let refused = detect(&world, &name).await.unwrap_err();
    assert_eq!(reason(&refused), "AGENT_AWAY");
    assert_eq!(stored(&world, &name).await.unwrap(), found, "what was found stays");
    world.operator.client().revoke_agent(api::RevokeAgentRequest { name: name.clone() }).await.unwrap();
    world.operator.client().forget_agent(api::ForgetAgentRequest { name: name.clone() }).await.unwrap();
    for refused in [detect(&world, &name).await, stored(&world, &name).await] {
        assert_eq!(refused.unwrap_err().code(), Code::NotFound);
    }
}
