//! What is on a server, asked by a controller: answered once, whoever asks how often, and nothing changes.

use proto::agent::v1 as wire;
use proto::agent::v1::answer_request::Kind as Answer;
use proto::agent::v1::question::Kind;

use super::controller::Controller;
use super::evil::tree;
use super::site::Site;

async fn ask(controller: &Controller, id: &str) -> Answer {
    controller.ask(id, Some(Kind::Detect(wire::DetectServer {}))).await;
    controller.answer_to(id).await
}

#[tokio::test]
async fn a_server_is_looked_at_when_it_is_asked_for_and_stays_as_it_is() {
    let controller = Controller::new();
    let site = Site::new(&controller);
    let path = site.root().join("etc/nginx/nginx.conf");
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(&path, "http { server { listen 80; server_name www.example.test; root /srv; } }").unwrap();
    site.enroll().await.unwrap();
    let _agent = site.start();
    controller.wait(|seen| (seen.attached > 0).then_some(())).await;
    let etc = site.root().join("etc");
    let before = tree(&etc, &[]);
    for id in ["first", "second"] {
        let Answer::Detect(picture) = ask(&controller, id).await else { panic!("it can be looked at") };
        assert_eq!(picture.sites[0].names, ["www.example.test"]);
        assert_eq!(picture.services[0].preset, "nginx");
        assert!(picture.certificates.is_empty());
    }
    assert_eq!(tree(&etc, &[]), before);
}
