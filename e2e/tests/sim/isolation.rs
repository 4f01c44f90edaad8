//! The isolation matrix (reliability.md SE3): every agent RPC, asked with another agent's ids, with deleted ids and with
//! ids that never existed, gives one and the same answer, and changes nothing. The match over `Method` has no default, so
//! an RPC without a row here does not compile.

use std::sync::Arc;
use std::time::Duration;

use e2e::raw_agent::{RawAgent, identity_csr, stranger};
use e2e::world::World;
use e2e::world::operator::Wish;
use e2e::world::program::LISTEN;
use proto::agent::v1 as api;
use proto::agent::v1::agent_service_client::AgentServiceClient;
use proto::clock::Clock;
use proto::id::random_id;
use proto::method::Method;
use proto::operator::v1::operator_service_client::OperatorServiceClient;
use proto::operator::v1::{self as operator, EnrollAgentRequest};
use proto::types::v1 as types;
use rcgen::{CertificateParams, DistinguishedName, KeyPair};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Channel;
use tonic::{Code, Status};

use crate::SOON;

/// What an agent may try to name.
#[derive(Clone, Debug)]
struct Names {
    what: &'static str,
    target_id: String,
    version_id: String,
    key_slot_id: String,
    token: String,
}

/// A victim with certificates, an attacker that shares one of them and may answer challenges for another, and the attacker's line to the controller.
struct Scene {
    world: World,
    clock: Arc<dyn Clock>,
    victim: AgentServiceClient<Channel>,
    attacker: RawAgent,
    foreign: Names,
    deleted: Names,
    /// The victim's part in a certificate that the attacker has as well.
    shared: Names,
    /// The attacker's own target of it.
    own_target_id: String,
    /// Keeps the victim attached.
    _line: mpsc::Sender<api::AttachRequest>,
}

impl Scene {
    /// What is stored of the victim's certificates: anything that an attacker could have changed.
    async fn of_victim(&self) -> String {
        let mut text = String::new();
        for certificate in self.world.operator.certificates().await {
            let order = certificate.order.map(|order| (order.phase, order.error));
            text += &format!("{} {} {order:?}\n", certificate.name, certificate.revision);
            for target in certificate.targets.iter().filter(|target| target.id != self.own_target_id) {
                text += &format!("  {:?} {:?} {}\n", target.status(), target.problem, target.version_id);
            }
        }
        text
    }
}

async fn raw(world: &World, clock: &Arc<dyn Clock>, name: &str) -> RawAgent {
    let request = EnrollAgentRequest { name: name.to_owned(), replace: false };
    let token = world.operator.client().enroll_agent(request).await.unwrap().into_inner().token;
    RawAgent::enroll(&world.net, LISTEN, clock, &token).await.unwrap()
}

/// Attaches an agent that says hello and allows everything; the stream ends when the sender is dropped.
async fn attach(
    client: &mut AgentServiceClient<Channel>,
) -> (mpsc::Sender<api::AttachRequest>, tonic::Streaming<api::AttachResponse>) {
    let (sender, receiver) = mpsc::channel(4);
    let policy = types::Policy {
        dirs: vec![types::PolicyDir { path: "/srv".to_owned(), key_mode_max: 0o640, ..Default::default() }],
        http01_ports: vec![80],
        custody: vec![types::Custody::Agent.into(), types::Custody::Controller.into()],
        ..Default::default()
    };
    let hello = api::Hello {
        agent_version: "0.1.0".to_owned(),
        features: vec!["http01-webroot".to_owned()],
        policy: Some(policy),
        hostname: "raw".to_owned(),
        os: "none".to_owned(),
        ..Default::default()
    };
    let message = api::AttachRequest { message: Some(api::attach_request::Message::Hello(hello)) };
    sender.send(message).await.unwrap();
    let stream = client.attach(ReceiverStream::new(receiver)).await.unwrap().into_inner();
    (sender, stream)
}

/// A certificate of the victim, answered by the honest agent h1.
fn wish(world: &World, name: &str, custody: types::Custody) -> Wish {
    let mut wish = Wish::new(name, custody);
    world.dns.set(&wish.identifiers[0], &[world.agents[0].machine.address()]);
    wish.responders = vec!["h1".to_owned()];
    wish.target =
        Some(operator::TargetSpec { agent: "victim".to_owned(), dir: format!("/srv/{name}"), ..Default::default() });
    wish
}

async fn issued(world: &mut World, name: &str) -> operator::Certificate {
    let active = async |world: &World| {
        world.operator.certificate(name).await.is_some_and(|certificate| certificate.status == "active")
    };
    world.settle("a version exists", SOON, active).await;
    world.operator.certificate(name).await.unwrap()
}

async fn scene() -> Scene {
    let mut world = World::new(1).await;
    let clock: Arc<dyn Clock> = world.clock.clone();
    let victim = raw(&world, &clock, "victim").await.client(&world.net, LISTEN, &clock);
    let attacker = raw(&world, &clock, "attacker").await;
    let (hold, _hints) = attach(&mut victim.clone()).await;
    let (hold_too, _hints) = attach(&mut attacker.client(&world.net, LISTEN, &clock)).await;
    for name in ["held", "deleted", "shared"] {
        world.operator.create(&wish(&world, name, types::Custody::Controller)).await.unwrap();
    }
    let mut in_slot = wish(&world, "slot", types::Custody::Agent);
    in_slot.responders.push("attacker".to_owned());
    world.operator.create(&in_slot).await.unwrap();
    let held = issued(&mut world, "held").await;
    let shared = share(&mut world).await;
    let deleted = issued(&mut world, "deleted").await;
    let mut slots = victim.clone();
    let slot = loop {
        let desired = slots.get_desired(api::GetDesiredRequest::default()).await.unwrap().into_inner();
        match desired.key_slots.first() {
            Some(slot) => break slot.id.clone(),
            None => tokio::time::sleep(Duration::from_millis(50)).await,
        }
    };
    world.operator.delete("deleted", false).await.unwrap();
    let names = |what, certificate: &operator::Certificate| Names {
        what,
        target_id: certificate.targets[0].id.clone(),
        version_id: certificate.current.as_ref().unwrap().id.clone(),
        key_slot_id: slot.clone(),
        token: "token-0000-held_example_test".to_owned(),
    };
    let (foreign, deleted) = (names("another agent's", &held), names("deleted", &deleted));
    let own_target_id = shared.targets[1].id.clone();
    let shared = names("a shared certificate's", &shared);
    drop(hold_too);
    Scene { world, clock, victim, attacker, foreign, deleted, shared, own_target_id, _line: hold }
}

/// Gives the certificate "shared" a second target, on the attacker.
async fn share(world: &mut World) -> operator::Certificate {
    issued(world, "shared").await;
    let target =
        operator::TargetSpec { agent: "attacker".to_owned(), dir: "/srv/shared".to_owned(), ..Default::default() };
    let request = operator::AddTargetRequest {
        certificate: "shared".to_owned(),
        target: Some(target),
        request_id: "share".to_owned(),
        dry_run: false,
        agents_label: String::new(),
    };
    world.operator.client().add_target(request).await.unwrap();
    let mut certificate = world.operator.certificate("shared").await.unwrap();
    certificate.targets.sort_by_key(|target| target.spec.as_ref().map(|spec| spec.agent == "attacker"));
    certificate
}

fn never_existed() -> Names {
    Names {
        what: "never existed",
        target_id: random_id(),
        version_id: random_id(),
        key_slot_id: random_id(),
        token: "never".to_owned(),
    }
}

/// All that an attacker can see of an answer.
fn seen<T: std::fmt::Debug>(answer: Result<tonic::Response<T>, Status>) -> String {
    match answer {
        Ok(answer) => format!("ok {:?}", answer.into_inner()),
        Err(status) => format!("{:?} {} {:?}", status.code(), status.message(), status.details()),
    }
}

fn csr_for(name: &str) -> Vec<u8> {
    let mut params = CertificateParams::new([name.to_owned()]).unwrap();
    params.distinguished_name = DistinguishedName::new();
    params.serialize_request(&KeyPair::generate().unwrap()).unwrap().der().to_vec()
}

/// Asks one RPC with these names as the attacker; `None` when the RPC names nothing.
async fn ask(scene: &Scene, method: Method, names: &Names) -> Option<String> {
    let mut client = scene.attacker.client(&scene.world.net, LISTEN, &scene.clock);
    let names = names.clone();
    match method {
        Method::AgentFetch => {
            let request = api::FetchRequest { target_id: names.target_id, version_id: names.version_id };
            Some(seen(client.fetch(request).await))
        }
        Method::AgentSubmitCsr => {
            let csr_der = csr_for("slot.example.test");
            Some(seen(client.submit_csr(api::SubmitCsrRequest { key_slot_id: names.key_slot_id, csr_der }).await))
        }
        Method::AgentReport => Some(seen(client.report(report(&names)).await)),
        Method::AgentShowHeld => {
            let held = api::HeldVersion {
                target_id: names.target_id,
                version_id: names.version_id,
                key_slot_id: names.key_slot_id,
                certificate_name: "evil was here".to_owned(),
                ..Default::default()
            };
            let message = Some(api::show_held_request::Message::Held(held));
            Some(seen(client.show_held(api::ShowHeldRequest { message }).await))
        }
        // What was asked of another agent is looked at in `trial`: here no question is open.
        Method::AgentAnswer => {
            let request = api::AnswerRequest { question_id: names.target_id, kind: None };
            Some(seen(client.answer(request).await))
        }
        Method::AgentGetDesired => {
            let desired = client.get_desired(api::GetDesiredRequest::default()).await.unwrap().into_inner();
            assert!(desired.targets.iter().all(|target| target.target_id == scene.own_target_id));
            assert!(desired.key_slots.is_empty() && desired.challenges.is_empty());
            None
        }
        Method::AgentAttach => {
            let (hold, mut hints) = attach(&mut client).await;
            let hint = tokio::time::timeout(Duration::from_secs(5), hints.message()).await;
            let of_victim =
                scene.victim.clone().get_desired(api::GetDesiredRequest::default()).await.unwrap().into_inner().name;
            if let Ok(Ok(Some(hint))) = hint {
                assert_ne!(hint.desired, of_victim, "a hint of the attacker's own state only");
            }
            drop(hold);
            None
        }
        Method::AgentRenewIdentity => {
            let (_key, csr_der) = identity_csr();
            let answer = client.renew_identity(api::RenewIdentityRequest { csr_der }).await;
            if let Ok(answer) = answer {
                let peer = proto::tls::Peer::from_leaf(&answer.into_inner().leaf_der).unwrap();
                assert_eq!(peer.identity.id, scene.attacker.id, "an agent renews only itself");
            }
            None
        }
        Method::AgentEnroll => {
            let (_key, csr_der) = identity_csr();
            let token = names.token;
            let request = api::EnrollRequest { token, csr_der, agent_version: String::new(), hostname: String::new() };
            Some(seen(client.enroll(request).await))
        }
        operator => panic!("{operator:?} is no RPC of agents"),
    }
}

fn report(names: &Names) -> api::ReportRequest {
    let problem = types::Problem {
        reason: "EVIL".to_owned(),
        message: "evil was here".to_owned(),
        cause: "evil".to_owned(),
        hint: "evil".to_owned(),
    };
    api::ReportRequest {
        name: Some(api::StateName { epoch: 1, generation: 1, digest: Vec::new() }),
        targets: vec![api::TargetReport {
            target_id: names.target_id.clone(),
            version_id: names.version_id.clone(),
            status: types::TargetStatus::Failed.into(),
            problem: Some(problem.clone()),
            ..Default::default()
        }],
        challenges: vec![api::ChallengeReport { token: names.token.clone(), serving: true, problem: None }],
        key_slots_held: vec![names.key_slot_id.clone()],
        key_problems: vec![api::KeyProblem { key_slot_id: names.key_slot_id.clone(), problem: Some(problem) }],
        ignored: None,
    }
}

fn is_of_agents(method: Method) -> bool {
    format!("{method:?}").starts_with("Agent")
}

#[tokio::test(start_paused = true)]
async fn another_agents_ids_deleted_ids_and_ids_that_never_were_are_all_the_same() {
    let scene = scene().await;
    let before = scene.of_victim().await;
    for method in Method::ALL.iter().copied().filter(|method| is_of_agents(*method)) {
        let expected = ask(&scene, method, &never_existed()).await;
        for names in [&scene.foreign, &scene.deleted, &scene.shared] {
            let answer = ask(&scene, method, names).await;
            assert_eq!(answer, expected, "{method:?} with {} ids", names.what);
        }
        if let Some(answer) = expected.filter(|_| method == Method::AgentFetch || method == Method::AgentSubmitCsr) {
            assert!(answer.starts_with("NotFound"), "{method:?}: {answer}");
        }
    }
    assert_eq!(before, scene.of_victim().await, "nothing of the victim's changed");
    assert!(!format!("{:?}", scene.world.operator.events().await).contains("evil was here"));
    let held =
        api::FetchRequest { target_id: scene.foreign.target_id.clone(), version_id: scene.foreign.version_id.clone() };
    let fetched = scene.victim.clone().fetch(held).await.unwrap().into_inner();
    assert!(fetched.key_pem.contains("PRIVATE KEY"), "the victim itself may fetch it");
    let own = api::FetchRequest { target_id: scene.own_target_id, version_id: scene.shared.version_id };
    let mut attacker = scene.attacker.client(&scene.world.net, LISTEN, &scene.clock);
    let fetched = attacker.fetch(own).await.unwrap().into_inner();
    assert!(fetched.key_pem.contains("PRIVATE KEY"), "and who shares it may fetch it under its own target");
}

#[tokio::test(start_paused = true)]
async fn the_victims_own_ids_of_other_things_do_not_open_anything_either() {
    let scene = scene().await;
    let crossed = [
        (scene.foreign.target_id.clone(), random_id()),
        (random_id(), scene.foreign.version_id.clone()),
        (scene.foreign.target_id.clone(), scene.deleted.version_id.clone()),
        (scene.deleted.target_id.clone(), scene.deleted.version_id.clone()),
        (String::new(), String::new()),
        ("../".to_owned(), "x".repeat(10_000)),
    ];
    for (target_id, version_id) in crossed {
        let refusal = scene.victim.clone().fetch(api::FetchRequest { target_id, version_id }).await.unwrap_err();
        assert_eq!(refusal.code(), Code::NotFound, "{refusal:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_csr_must_carry_exactly_the_slots_names_and_nothing_else() {
    let scene = scene().await;
    let wish = |change: &dyn Fn(&mut CertificateParams)| {
        let mut params = CertificateParams::new(["slot.example.test".to_owned()]).unwrap();
        params.distinguished_name = DistinguishedName::new();
        change(&mut params);
        params.serialize_request(&KeyPair::generate().unwrap()).unwrap().der().to_vec()
    };
    let bank = || rcgen::SanType::DnsName("bank.example".try_into().unwrap());
    let refused = [
        wish(&|csr| csr.subject_alt_names.push(bank())),
        wish(&|csr| csr.key_usages = vec![rcgen::KeyUsagePurpose::KeyCertSign]),
        wish(&|csr| csr.distinguished_name.push(rcgen::DnType::CommonName, "bank.example")),
        csr_for("other.example.test"),
        b"not a CSR".to_vec(),
        vec![0x30; 200_000],
    ];
    let submit = async |csr_der| {
        let request = api::SubmitCsrRequest { key_slot_id: scene.foreign.key_slot_id.clone(), csr_der };
        scene.victim.clone().submit_csr(request).await
    };
    for csr_der in refused {
        let refusal = submit(csr_der).await.unwrap_err();
        assert_eq!(refusal.code(), Code::InvalidArgument, "{refusal:?}");
    }
    let orders = scene.world.ca.orders();
    assert!(orders.iter().all(|order| order.identifiers != ["slot.example.test"]), "the CA hears of none: {orders:?}");
    submit(wish(&|_| {})).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn without_an_identity_only_enroll_can_be_called_and_agents_are_no_operators() {
    let scene = scene().await;
    let request = EnrollAgentRequest { name: "pin".to_owned(), replace: false };
    let token = scene.world.operator.client().enroll_agent(request).await.unwrap().into_inner().token;
    let pin = proto::id::JoinToken::parse(&token).unwrap().pin;
    let mut nobody = stranger(&scene.world.net, LISTEN, &scene.clock, pin);
    let names = scene.foreign.clone();
    let fetch = api::FetchRequest { target_id: names.target_id, version_id: names.version_id };
    let refused = [
        nobody.fetch(fetch).await.err(),
        nobody.get_desired(api::GetDesiredRequest::default()).await.err(),
        nobody.report(report(&scene.foreign)).await.err(),
        nobody.submit_csr(api::SubmitCsrRequest::default()).await.err(),
        nobody.renew_identity(api::RenewIdentityRequest::default()).await.err(),
        nobody.attach(tokio_stream::empty::<api::AttachRequest>()).await.err(),
    ];
    for refusal in refused {
        let refusal = refusal.expect("refused");
        assert!(matches!(refusal.code(), Code::PermissionDenied | Code::Unauthenticated), "{refusal:?}");
    }
    let mut operator = OperatorServiceClient::new(scene.attacker.channel(&scene.world.net, LISTEN, &scene.clock));
    let refusal = operator.list_certificates(operator::ListCertificatesRequest::default()).await.unwrap_err();
    assert!(matches!(refusal.code(), Code::PermissionDenied | Code::Unimplemented), "{refusal:?}");
    let refusal = operator.create_certificate(operator::CreateCertificateRequest::default()).await.unwrap_err();
    assert!(matches!(refusal.code(), Code::PermissionDenied | Code::Unimplemented), "{refusal:?}");
}

#[tokio::test(start_paused = true)]
async fn a_revoked_agent_is_cut_and_refused_everywhere_at_once() {
    let scene = scene().await;
    let mut client = scene.attacker.client(&scene.world.net, LISTEN, &scene.clock);
    let (_hold, mut hints) = attach(&mut client).await;
    client.get_desired(api::GetDesiredRequest::default()).await.unwrap();
    let request = operator::RevokeAgentRequest { name: "attacker".to_owned() };
    scene.world.operator.client().revoke_agent(request).await.unwrap();
    let ended =
        tokio::time::timeout(Duration::from_secs(1), async { while let Ok(Some(_)) = hints.message().await {} });
    ended.await.expect("the stream is cut within a second");
    for method in Method::ALL.iter().copied().filter(|method| is_of_agents(*method)) {
        let refusal = match method {
            Method::AgentFetch => client.fetch(api::FetchRequest::default()).await.err(),
            Method::AgentGetDesired => client.get_desired(api::GetDesiredRequest::default()).await.err(),
            Method::AgentReport => client.report(api::ReportRequest::default()).await.err(),
            Method::AgentSubmitCsr => client.submit_csr(api::SubmitCsrRequest::default()).await.err(),
            Method::AgentAnswer => client.answer(api::AnswerRequest::default()).await.err(),
            Method::AgentShowHeld => client.show_held(api::ShowHeldRequest::default()).await.err(),
            Method::AgentRenewIdentity => {
                let (_key, csr_der) = identity_csr();
                client.renew_identity(api::RenewIdentityRequest { csr_der }).await.err()
            }
            Method::AgentAttach => client.attach(tokio_stream::empty::<api::AttachRequest>()).await.err(),
            _ => continue,
        };
        let refusal = refusal.unwrap_or_else(|| panic!("{method:?} was answered"));
        assert!(matches!(refusal.code(), Code::PermissionDenied | Code::Unauthenticated), "{method:?}: {refusal:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn the_identity_that_a_replacement_took_over_from_is_refused() {
    let scene = scene().await;
    let mut old = scene.attacker.client(&scene.world.net, LISTEN, &scene.clock);
    old.get_desired(api::GetDesiredRequest::default()).await.unwrap();
    let request = EnrollAgentRequest { name: "attacker".to_owned(), replace: true };
    let token = scene.world.operator.client().enroll_agent(request).await.unwrap().into_inner().token;
    old.get_desired(api::GetDesiredRequest::default()).await.expect("until the token is used");
    let new = RawAgent::enroll(&scene.world.net, LISTEN, &scene.clock, &token).await.unwrap();
    let refusal = old.get_desired(api::GetDesiredRequest::default()).await.unwrap_err();
    assert!(matches!(refusal.code(), Code::PermissionDenied | Code::Unauthenticated), "{refusal:?}");
    let mut new = new.client(&scene.world.net, LISTEN, &scene.clock);
    new.get_desired(api::GetDesiredRequest::default()).await.unwrap();
}
