//! What operators ask for, on a store in memory: what is refused, and what a change leaves behind.

use std::sync::Arc;

use proto::clock::SystemClock;
use proto::operator::v1 as wire;
use proto::types::v1 as types;

use super::{agents, certificates, create, issuers, lists, targets};
use crate::lifecycle::agent::{Agent, Hello, JoinToken, Policy, PolicyDir, Standing};
use crate::lifecycle::certificate::Custody;
use crate::lifecycle::holder::Holder;
use crate::lifecycle::order::Order;
use crate::lifecycle::problem::Problem;
use crate::lifecycle::renewal::Reason;
use crate::lifecycle::rotation::PeerCa;
use crate::rpc::peer::OperatorCaller;
use crate::rpc::status::Refusal;
use crate::store::Store;
use crate::store::engine::Backend;
use crate::store::master_key::MasterKey;
use crate::store::records::Changes;
use crate::store::tables::Table;
use crate::tasks::hub::Hub;

/// A controller with one issuer and some agents.
struct Scene {
    hub: Hub,
    caller: OperatorCaller,
}

impl Scene {
    async fn new() -> Self {
        let store = Store::open(Backend::memory(), true, MasterKey::random()).await.unwrap();
        let hub = Hub::open(store, Arc::new(SystemClock)).await.unwrap();
        let scene = Self { hub, caller: OperatorCaller::root() };
        let issuer = wire::AddIssuerRequest {
            name: "lab".into(),
            directory: "https://ca.example.test/dir".into(),
            ..Default::default()
        };
        issuers::add(&scene.hub, &scene.caller, issuer).await.unwrap();
        scene
    }

    /// An agent that said hello; it allows `*.pem` of `*.example.test` in /etc/ssl and answers on these ports.
    async fn agent(&self, name: &str, ports: &[u16]) {
        let dir = PolicyDir {
            path: "/etc/ssl".into(),
            names: vec!["*.example.test".into()],
            files: vec![],
            owners: vec![],
            key_mode_max: 0o640,
        };
        let policy = Policy {
            dirs: vec![dir],
            http01_ports: ports.to_vec(),
            custody: vec!["agent".into(), "controller".into()],
            ..Policy::default()
        };
        let agent = Agent {
            id: format!("id-{name}"),
            name: name.into(),
            standing: Standing::Enrolled,
            spki_sha256: "aa".into(),
            serial: "01".into(),
            identity_not_after: self.hub.now(),
            enrolled_at: self.hub.now(),
            seen_at: Some(self.hub.now()),
            hello: Hello { policy, ..Hello::default() },
            consent: None,
            holder: Holder::default(),
            ca: PeerCa::default(),
            labels: crate::lifecycle::label::Labels::new(),
        };
        let changes = Changes::new().insert(&agent).claim_name(Table::AgentName, &agent.name, &agent.id);
        self.hub.store.commit(changes).await.unwrap();
    }

    /// Creates `web` with a target on this agent.
    async fn web_on(&self, agent: &str) -> wire::Certificate {
        let request = wire::CreateCertificateRequest {
            name: "web".into(),
            identifiers: vec!["www.example.test".into()],
            issuer: "lab".into(),
            target: Some(spec(agent)),
            ..Default::default()
        };
        create::create(&self.hub, &self.caller, request).await.unwrap().certificate.unwrap()
    }

    async fn set(&self, change: wire::UpdateCertificateRequest) -> Result<wire::CertificateAccepted, Refusal> {
        let request = wire::UpdateCertificateRequest { name: "web".into(), ..change };
        certificates::update(&self.hub, &self.caller, request).await
    }

    async fn add(&self, target: wire::TargetSpec) -> Result<wire::CertificateAccepted, Refusal> {
        let request = wire::AddTargetRequest { certificate: "web".into(), target: Some(target), ..Default::default() };
        targets::add(&self.hub, &self.caller, request).await
    }

    async fn remove_only_target(&self) {
        let target_id = lists::certificate(&self.hub, "web").await.unwrap().targets[0].id.clone();
        let request = wire::RemoveTargetRequest { certificate: "web".into(), target_id };
        targets::remove(&self.hub, &self.caller, request).await.unwrap();
    }

    async fn change_record(&self, change: impl FnOnce(&mut crate::lifecycle::certificate::Certificate)) {
        let mut record = self.hub.store.bundle_by_name("web").await.unwrap().unwrap().certificate;
        change(&mut record.value);
        self.hub.store.commit(Changes::new().update(&record)).await.unwrap();
    }
}

fn spec(agent: &str) -> wire::TargetSpec {
    wire::TargetSpec { agent: agent.into(), dir: "/etc/ssl/web".into(), ..Default::default() }
}

fn responders(names: &[&str]) -> wire::UpdateCertificateRequest {
    wire::UpdateCertificateRequest {
        responders: names.iter().map(|name| (*name).to_owned()).collect(),
        set_responders: true,
        ..Default::default()
    }
}

/// The fields that a request was refused for.
fn fields<T: std::fmt::Debug>(result: Result<T, Refusal>) -> Vec<String> {
    result.unwrap_err().field_names()
}

#[tokio::test]
async fn an_agent_that_no_certificate_concerns_any_more_can_be_forgotten() {
    let scene = Scene::new().await;
    for name in ["h1", "h2", "h3"] {
        scene.agent(name, &[80]).await;
    }
    scene.web_on("h1").await;
    scene.set(responders(&["h1", "h2"])).await.unwrap();
    assert!(agents::forget(&scene.hub, &scene.caller, "h2").await.is_err(), "it answers challenges");
    // Responders and names change at once: a new version, and h2 has nothing to do with it.
    let change = wire::UpdateCertificateRequest { identifiers: vec!["api.example.test".into()], ..responders(&[]) };
    scene.set(change).await.unwrap();
    assert_eq!(scene.hub.store.bundles_of_agent("id-h2").await.unwrap().len(), 0, "the link is gone");
    agents::forget(&scene.hub, &scene.caller, "h2").await.unwrap();
    // A link that stayed behind does not hold an agent back, and goes with it.
    let web = scene.hub.store.bundle_by_name("web").await.unwrap().unwrap().certificate.value.id;
    scene.hub.store.commit(Changes::new().link_agent("id-h3", &web)).await.unwrap();
    agents::forget(&scene.hub, &scene.caller, "h3").await.unwrap();
    assert_eq!(scene.hub.store.bundles_of_agent("id-h3").await.unwrap().len(), 0);
    assert_eq!(scene.hub.store.bundles_of_agent("id-h1").await.unwrap().len(), 1, "what is needed stays linked");
}

#[tokio::test]
async fn a_change_is_not_refused_for_what_it_does_not_touch() {
    let scene = Scene::new().await;
    scene.agent("h1", &[80]).await;
    scene.web_on("h1").await;
    scene.remove_only_target().await;
    // Its custody is agent and it has no target: that is no reason to refuse another change.
    let auto_renew = wire::UpdateCertificateRequest { auto_renew: Some(false), ..Default::default() };
    assert!(!scene.set(auto_renew).await.unwrap().certificate.unwrap().auto_renew);
    scene.change_record(|record| record.specification.custody = Custody::Controller).await;
    let custody = wire::UpdateCertificateRequest { custody: Some(types::Custody::Agent.into()), ..Default::default() };
    assert_eq!(fields(scene.set(custody).await), ["custody"]);
}

#[tokio::test]
async fn a_corrected_wish_does_not_wait_for_the_next_try_of_the_old_one() {
    let scene = Scene::new().await;
    scene.agent("h1", &[80, 8080]).await;
    let id = scene.web_on("h1").await.id;
    let record = async || scene.hub.store.bundle(&id).await.unwrap().unwrap();
    let port = |port| types::Http01 { mode: Some(types::http01::Mode::StandalonePort(port)) };
    let ask = |port_wanted| wire::UpdateCertificateRequest { http01: Some(port(port_wanted)), ..Default::default() };
    scene.set(ask(8080)).await.unwrap();
    assert_eq!(record().await.certificate.value.renew_asked_at, None, "nothing waits");
    let now = scene.hub.now();
    let mut order = Order::begin(&record().await.certificate.value, "lab", Reason::NoVersion, None, now);
    order.fail(Problem::new("X", "m", "c", "h"), None, now);
    scene.hub.store.commit(Changes::new().insert(&order)).await.unwrap();
    scene.set(ask(80)).await.unwrap();
    assert!(record().await.certificate.value.renew_asked_at.is_some(), "a failed order begins again");
}

#[tokio::test]
async fn two_certificates_do_not_write_the_same_files() {
    let scene = Scene::new().await;
    scene.agent("h1", &[80]).await;
    scene.web_on("h1").await;
    let other = |target| wire::CreateCertificateRequest {
        name: "other".into(),
        identifiers: vec!["other.example.test".into()],
        issuer: "lab".into(),
        target: Some(target),
        ..Default::default()
    };
    let create = async |target| create::create(&scene.hub, &scene.caller, other(target)).await;
    assert_eq!(fields(create(spec("h1")).await), ["dir"]);
    let elsewhere = wire::TargetSpec { dir: "/etc/ssl/other".into(), ..spec("h1") };
    create(elsewhere).await.unwrap();
}

#[tokio::test]
async fn a_join_token_can_be_cancelled_and_a_revocation_voids_it() {
    let scene = Scene::new().await;
    let token = |name: &str| JoinToken {
        hash: format!("hash-{name}"),
        agent_name: name.into(),
        replace: true,
        expires_at: scene.hub.now(),
        actor: "local:root".into(),
        used: None,
    };
    let left = async || scene.hub.store.list::<JoinToken>("", 100).await.unwrap().len();
    scene.agent("h1", &[80]).await;
    scene.hub.store.commit(Changes::new().insert(&token("h1")).insert(&token("new"))).await.unwrap();
    agents::revoke(&scene.hub, &scene.caller, "h1").await.unwrap();
    assert_eq!(left().await, 1);
    agents::forget(&scene.hub, &scene.caller, "new").await.unwrap();
    assert_eq!(left().await, 0);
    assert!(agents::forget(&scene.hub, &scene.caller, "new").await.is_err());
}

#[tokio::test]
async fn changed_names_are_ordered_at_once() {
    let scene = Scene::new().await;
    scene.agent("h1", &[80]).await;
    let id = scene.web_on("h1").await.id;
    let names = vec!["www.example.test".to_owned(), "api.example.test".to_owned()];
    let accepted =
        scene.set(wire::UpdateCertificateRequest { identifiers: names, ..Default::default() }).await.unwrap();
    assert!(!accepted.job_id.is_empty());
    assert!(scene.hub.store.bundle(&id).await.unwrap().unwrap().certificate.value.renew_asked_at.is_some());
}

#[tokio::test]
async fn a_certificate_that_is_being_purged_takes_no_wish() {
    let scene = Scene::new().await;
    scene.agent("h1", &[80]).await;
    scene.web_on("h1").await;
    scene.change_record(|record| record.purging = true).await;
    let auto_renew = wire::UpdateCertificateRequest { auto_renew: Some(false), ..Default::default() };
    assert_eq!(fields(scene.set(auto_renew).await), ["name"]);
    assert_eq!(fields(scene.add(spec("h1")).await), ["name"]);
    let deploy = wire::DeployCertificateRequest { name: "web".into(), ..Default::default() };
    assert_eq!(fields(targets::deploy(&scene.hub, &scene.caller, deploy).await), ["name"]);
    let renew = wire::RenewCertificateRequest { name: "web".into(), ..Default::default() };
    assert_eq!(fields(certificates::renew(&scene.hub, &scene.caller, renew).await), ["name"]);
}

#[tokio::test]
async fn an_agent_becomes_responder_only_if_its_policy_lets_it_answer() {
    let scene = Scene::new().await;
    scene.agent("h1", &[80]).await;
    scene.agent("mute", &[]).await;
    scene.web_on("h1").await;
    scene.remove_only_target().await;
    assert_eq!(fields(scene.add(spec("mute")).await), ["http01"]);
    scene.set(responders(&["h1"])).await.unwrap();
    scene.add(spec("mute")).await.unwrap();
    assert_eq!(fields(scene.set(responders(&[])).await), ["http01"], "its targets' agents would answer");
    let http01 = types::Http01 { mode: Some(types::http01::Mode::StandalonePort(8080)) };
    let port = wire::UpdateCertificateRequest { http01: Some(http01), ..Default::default() };
    assert_eq!(fields(scene.set(port).await), ["http01"], "its responders stay, and must be able to");
}

#[tokio::test]
async fn new_names_are_checked_against_the_targets_policies() {
    let scene = Scene::new().await;
    scene.agent("h1", &[80]).await;
    scene.web_on("h1").await;
    let names = |name: &str| wire::UpdateCertificateRequest { identifiers: vec![name.into()], ..Default::default() };
    assert_eq!(fields(scene.set(names("www.example.org")).await), ["san"]);
    scene.set(names("api.example.test")).await.unwrap();
}

#[tokio::test]
async fn what_every_agent_refuses_is_refused_here() {
    let scene = Scene::new().await;
    scene.agent("h1", &[80]).await;
    scene.web_on("h1").await;
    let file = |name: &str, mode| types::FileSpec {
        content: types::FileContent::Fullchain.into(),
        name: name.into(),
        owner: String::new(),
        mode,
    };
    let endpoint =
        |name: &str| types::Endpoint { address: "127.0.0.1:443".into(), server_name: name.into(), protocol: 0 };
    let command = types::Command { argv: vec!["/usr/bin/true".into()] };
    let base = || wire::TargetSpec { dir: "/etc/ssl/other".into(), ..spec("h1") };
    let check = async |target: wire::TargetSpec, expected: &[&str]| {
        let context = targets::Context { certificate_id: "c", identifiers: &[], custody: Custody::Controller };
        let mut errors = Vec::new();
        targets::parse(&scene.hub, &target, &context, &mut errors).await.unwrap();
        let fields: Vec<&str> = errors.iter().map(|error| error.field.as_str()).collect();
        assert_eq!(fields, expected, "{errors:?}");
    };
    check(base(), &[]).await;
    check(wire::TargetSpec { dir: "/".into(), ..base() }, &["dir"]).await;
    check(wire::TargetSpec { dir: "/etc/ssl/.certwright/x".into(), ..base() }, &["dir"]).await;
    check(wire::TargetSpec { dir: format!("/etc/ssl{}", "/abcdefgh".repeat(120)), ..base() }, &["dir"]).await;
    check(wire::TargetSpec { files: vec![file(&"a".repeat(200), 0o644)], ..base() }, &[]).await;
    check(wire::TargetSpec { files: vec![file(&"a".repeat(201), 0o644)], ..base() }, &["file"]).await;
    check(wire::TargetSpec { files: vec![file("a.pem", 0)], ..base() }, &["mode"]).await;
    check(wire::TargetSpec { files: vec![file("a.pem", 0o244)], ..base() }, &["mode"]).await;
    check(wire::TargetSpec { files: vec![file("a.pem", 0o664)], ..base() }, &["mode"]).await;
    check(wire::TargetSpec { files: vec![file("a.pem", 0o646)], ..base() }, &["mode"]).await;
    let combined = |mode| types::FileSpec { content: types::FileContent::Combined.into(), ..file("a.pem", mode) };
    check(wire::TargetSpec { files: vec![combined(0o640)], ..base() }, &[]).await;
    check(wire::TargetSpec { files: vec![combined(0o644)], ..base() }, &["mode"]).await;
    check(wire::TargetSpec { verify: vec![endpoint("www.example.test"), endpoint("")], ..base() }, &[]).await;
    check(wire::TargetSpec { verify: vec![endpoint("*.example.test")], ..base() }, &[]).await;
    check(wire::TargetSpec { verify: vec![endpoint("www example")], ..base() }, &["verify"]).await;
    let speaks = |protocol: i32| vec![types::Endpoint { protocol, ..endpoint("") }];
    check(wire::TargetSpec { verify: speaks(types::VerifyProtocol::Smtp.into()), ..base() }, &[]).await;
    check(wire::TargetSpec { verify: speaks(99), ..base() }, &["verify"]).await;
    // Eight commands are parsed and only the policy refuses them; nine are too many.
    check(wire::TargetSpec { reload: vec![command.clone(); 8], ..base() }, &["reload"; 8]).await;
    check(wire::TargetSpec { reload: vec![command; 9], ..base() }, &["reload"]).await;
}

#[tokio::test]
async fn every_preset_is_a_target_that_nothing_but_a_policy_refuses() {
    let scene = Scene::new().await;
    scene.agent("h1", &[80]).await;
    for preset in proto::presets::PRESETS {
        let files = preset.files_of("www.example.test").map(|(content, name)| types::FileSpec {
            content: content.into(),
            name,
            owner: preset.owner.into(),
            mode: if content == types::FileContent::Fullchain { 0o644 } else { preset.key_mode },
        });
        let command = |argv: &[&str]| types::Command { argv: argv.iter().map(|word| (*word).to_owned()).collect() };
        let target = wire::TargetSpec {
            agent: "h1".into(),
            dir: preset.dir_of("www.example.test"),
            files: files.collect(),
            reload: preset.commands().map(command).collect(),
            ..Default::default()
        };
        let context = targets::Context { certificate_id: "c", identifiers: &[], custody: Custody::Controller };
        let mut errors = Vec::new();
        targets::parse(&scene.hub, &target, &context, &mut errors).await.unwrap();
        let wrong = errors.iter().find(|error| !error.message.starts_with("the policy of agent h1"));
        assert_eq!(wrong, None, "{}", preset.name);
    }
}

async fn label(scene: &Scene, agent: &str, labels: &[&str], gone: &[&str]) -> Result<wire::Agent, Refusal> {
    let words = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect();
    let request = wire::SetAgentRequest { name: agent.into(), labels: words(labels), remove_labels: words(gone) };
    agents::set(&scene.hub, &scene.caller, request).await
}

#[tokio::test]
async fn a_label_adds_a_target_on_every_agent_that_has_it_or_on_none() {
    let scene = Scene::new().await;
    for name in ["h1", "h2", "h3", "h4"] {
        scene.agent(name, &[80]).await;
    }
    scene.web_on("h1").await;
    label(&scene, "h2", &["role=web", "tier=1"], &[]).await.unwrap();
    assert_eq!(label(&scene, "h2", &["tier=2"], &["none"]).await.unwrap().labels, ["role=web", "tier=2"]);
    label(&scene, "h3", &["role=web"], &[]).await.unwrap();
    let listed = wire::ListAgentsRequest { filter: "label:role=web".into(), ..Default::default() };
    assert_eq!(agents::list(&scene.hub, listed).await.unwrap().total, 2);

    let add = async |label: &str, dry_run| {
        let target = Some(wire::TargetSpec { agent: String::new(), ..spec("") });
        let agents_label = label.to_owned();
        let request =
            wire::AddTargetRequest { certificate: "web".into(), target, dry_run, agents_label, ..Default::default() };
        targets::add(&scene.hub, &scene.caller, request).await
    };
    assert_eq!(fields(add("role=web", false).await), ["agent"], "the key stays with its one agent");
    scene
        .set(wire::UpdateCertificateRequest { custody: Some(types::Custody::Controller.into()), ..Default::default() })
        .await
        .unwrap();
    for wrong in ["role=db", "role", "Role=web"] {
        assert_eq!(fields(add(wrong, false).await), ["agents"], "{wrong}");
    }
    let count = async || lists::certificate(&scene.hub, "web").await.unwrap().targets.len();
    assert_eq!(add("role=web", true).await.unwrap().certificate.unwrap().targets.len(), 3);
    assert_eq!(count().await, 1, "a dry run");
    label(&scene, "h1", &["role=web"], &[]).await.unwrap();
    assert_eq!(fields(add("role=web", false).await), ["dir"], "h1 has it already, so nobody gets it");
    assert_eq!(count().await, 1);
    label(&scene, "h1", &[], &["role"]).await.unwrap();
    let added = add("role=web", false).await.unwrap();
    assert!(!added.job_id.is_empty() && count().await == 3);

    label(&scene, "h4", &["role=web"], &[]).await.unwrap();
    let canary = |words: &str| wire::UpdateCertificateRequest { rollout: Some(words.into()), ..Default::default() };
    scene.set(canary("canary=role=web,h1")).await.unwrap();
    let rollout = lists::certificate(&scene.hub, "web").await.unwrap().rollout;
    assert!(rollout.starts_with("canary=h1,h2,h3 "), "{rollout}: h4 has no target");
    assert_eq!(fields(scene.set(canary("canary=role=db")).await), ["rollout"]);
    let found = wire::ListCertificatesRequest { filter: "label:tier=2".into(), ..Default::default() };
    assert_eq!(lists::certificates(&scene.hub, found).await.unwrap().total, 1);
}

#[tokio::test]
async fn what_is_no_label_is_refused_and_there_are_few() {
    let scene = Scene::new().await;
    scene.agent("h1", &[80]).await;
    for wrong in ["role", "Role=web", "role=", "a=b c"] {
        assert_eq!(fields(label(&scene, "h1", &[wrong], &[]).await), ["label"], "{wrong}");
    }
    let many: Vec<String> = (0..20).map(|index| format!("k{index}=v")).collect();
    let many: Vec<&str> = many.iter().map(String::as_str).collect();
    assert_eq!(label(&scene, "h1", &many, &[]).await.unwrap().labels.len(), 20);
    assert_eq!(fields(label(&scene, "h1", &["one=more"], &[]).await), ["label"]);
    assert_eq!(label(&scene, "h1", &["one=more"], &["k0"]).await.unwrap().labels.len(), 20);
}

#[tokio::test]
async fn a_pkcs12_file_needs_its_password_and_a_leaf_beside_it() {
    let scene = Scene::new().await;
    scene.agent("h1", &[80]).await;
    scene.agent("h2", &[80]).await;
    scene.web_on("h1").await;
    scene
        .set(wire::UpdateCertificateRequest { custody: Some(types::Custody::Controller.into()), ..Default::default() })
        .await
        .unwrap();
    let file = |content: types::FileContent, name: &str, mode| types::FileSpec {
        content: content.into(),
        name: name.into(),
        mode,
        ..Default::default()
    };
    let store = file(types::FileContent::Pfx, "a.pfx", 0o640);
    let password = file(types::FileContent::PfxPassword, "a.password", 0o600);
    let leaf = file(types::FileContent::Fullchain, "a.pem", 0o644);
    let add = async |files: Vec<types::FileSpec>| scene.add(wire::TargetSpec { files, ..spec("h2") }).await;
    for wrong in [
        vec![store.clone(), leaf.clone()],
        vec![password.clone(), leaf.clone()],
        vec![store.clone(), password.clone()],
        vec![store.clone(), password.clone(), types::FileSpec { name: "b".into(), ..password.clone() }, leaf.clone()],
    ] {
        assert_eq!(fields(add(wrong.clone()).await), ["file"], "{wrong:?}");
    }
    let open = types::FileSpec { mode: 0o644, ..password.clone() };
    assert_eq!(fields(add(vec![store.clone(), open, leaf.clone()]).await), ["mode"], "it opens the key");
    add(vec![store, password, leaf]).await.unwrap();
}
