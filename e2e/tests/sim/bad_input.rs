//! What the CA, the names, the host and the operator can get wrong (issue 2, "bad input"): each is told with what happened,
//! why and what to do, nothing is lost, the next try is at a stated time, and it heals by itself when the cause ends.

use std::time::Duration;

use e2e::fake_ca::fault::{Fault, Mischief, RequestKind, When};
use e2e::world::World;
use e2e::world::operator::Wish;
use prost::Message as _;
use proto::agent::v1 as agent;
use proto::operator::v1 as api;
use proto::types::v1::{Custody, ErrorDetail, http01};
use secrecy::ExposeSecret as _;
use tonic::Code;

use crate::{SOON, wish};

/// The back-off is 1, 10 and 100 minutes and then a day, with jitter; a refusal of the CA is tried again after a day.
const HEALING: Duration = Duration::from_secs(30 * 3600);

/// Waits until the order waits, and checks that it says all it must.
async fn settle_waiting(world: &mut World, what: &str) -> api::Order {
    let waiting = async |world: &World| {
        let order = world.operator.certificate("web").await.and_then(|certificate| certificate.order);
        order.is_some_and(|order| order.phase == "waiting" && order.error.is_some())
    };
    world.settle(&format!("{what}: the order waits"), Duration::from_secs(600), waiting).await;
    let order = world.operator.certificate("web").await.unwrap().order.unwrap();
    let error = order.error.clone().unwrap();
    for (part, text) in
        [("reason", &error.reason), ("message", &error.message), ("cause", &error.cause), ("hint", &error.hint)]
    {
        assert!(!text.is_empty(), "{what}: no {part} in {error:?}");
        assert!(!text.contains('\u{1b}'), "{what}: an escape sequence in {error:?}");
    }
    assert!(order.retry_at > world.now_ms(), "{what}: the next try is at a stated time");
    order
}

async fn fails_and_heals(what: &str, reason: &str, spoil: impl Fn(&World), heal: impl Fn(&World)) -> api::Order {
    let mut world = World::new(1).await;
    let wish = wish(&world, "web", Custody::Agent, 0);
    spoil(&world);
    world.operator.create(&wish).await.unwrap();
    let order = settle_waiting(&mut world, what).await;
    assert_eq!(order.error.as_ref().unwrap().reason, reason, "{what}: {:?}", order.error);
    world.check().await;
    heal(&world);
    world.settle_live("web", HEALING).await;
    world.check().await;
    order
}

async fn ca_fault(kind: RequestKind, fault: Fault, reason: &str) -> api::Order {
    let what = format!("{kind:?} {fault:?}");
    let spoil = |world: &World| world.ca.fail(kind, When::Always, fault.clone());
    fails_and_heals(&what, reason, spoil, |world| world.ca.heal()).await
}

async fn ca_mischief(mischief: Mischief, reason: &str) -> api::Order {
    let what = format!("{mischief:?}");
    let spoil = |world: &World| world.ca.misbehave(mischief.clone());
    fails_and_heals(&what, reason, spoil, |world| world.ca.heal()).await
}

fn problem(status: u16, kind: &'static str, retry_after: Option<u64>) -> Fault {
    Fault::Problem { status, kind, detail: "so says \u{1b}[31mthe CA", retry_after }
}

#[tokio::test(start_paused = true)]
async fn an_unreachable_or_silent_ca() {
    ca_fault(RequestKind::NewOrder, Fault::Refused, "CA_UNREACHABLE").await;
    ca_fault(RequestKind::NewOrder, Fault::Hang, "CA_TIMEOUT").await;
    ca_fault(RequestKind::Finalize, Fault::Hang, "CA_TIMEOUT").await;
    ca_fault(RequestKind::Certificate, Fault::Refused, "CA_UNREACHABLE").await;
}

#[tokio::test(start_paused = true)]
async fn answers_that_are_not_acme() {
    ca_fault(RequestKind::NewOrder, Fault::Html(502), "CA_SERVER_ERROR").await;
    ca_fault(RequestKind::Order, Fault::Html(503), "CA_SERVER_ERROR").await;
    ca_fault(RequestKind::NewOrder, Fault::Garbage, "CA_NOT_ACME").await;
    ca_fault(RequestKind::Authorization, Fault::EndlessBody, "CA_ANSWER_TOO_LARGE").await;
}

#[tokio::test(start_paused = true)]
async fn refusals_of_the_ca() {
    ca_fault(RequestKind::NewOrder, problem(400, "badNonce", None), "ACME_BAD_NONCE").await;
    ca_fault(RequestKind::NewOrder, problem(500, "serverInternal", None), "ACME_SERVER_INTERNAL").await;
    ca_fault(RequestKind::Finalize, problem(400, "badCSR", None), "ACME_BAD_CSR").await;
    let order = ca_fault(RequestKind::NewOrder, problem(429, "rateLimited", Some(7200)), "ACME_RATE_LIMITED").await;
    let wait_ms = order.retry_at - order.started_at;
    assert!(wait_ms >= 7_200_000, "Retry-After is obeyed: {wait_ms} ms");
}

#[tokio::test(start_paused = true)]
async fn an_order_that_becomes_invalid() {
    let refuse_validation = Some(("connection", "10.0.1.1: Timeout during connect \u{1b}[31m"));
    let order = ca_mischief(Mischief { refuse_validation, ..Mischief::default() }, "ACME_CONNECTION").await;
    assert!(order.error.unwrap().cause.contains("Timeout during connect"), "the CA's words are shown");
    let fail_issuance = Some(("serverInternal", "the signer is away"));
    ca_mischief(Mischief { fail_issuance, ..Mischief::default() }, "ACME_SERVER_INTERNAL").await;
}

#[tokio::test(start_paused = true)]
async fn certificates_that_are_not_what_was_ordered() {
    ca_mischief(Mischief { other_key: true, ..Mischief::default() }, "CERTIFICATE_WRONG").await;
    let extra_name = Some("bank.example".to_owned());
    ca_mischief(Mischief { extra_name, ..Mischief::default() }, "CERTIFICATE_WRONG").await;
    ca_mischief(Mischief { already_expired: true, ..Mischief::default() }, "CERTIFICATE_WRONG").await;
    ca_fault(RequestKind::Certificate, Fault::Garbage, "CERTIFICATE_WRONG").await;
}

#[tokio::test(start_paused = true)]
async fn a_token_that_would_be_a_path() {
    for token in ["../../etc/x", "", "a b", "\u{1b}[31m"] {
        let mischief = Mischief { token: Some(token.to_owned()), ..Mischief::default() };
        ca_mischief(mischief, "ACME_TOKEN_INVALID").await;
    }
}

#[tokio::test(start_paused = true)]
async fn an_account_that_the_ca_has_forgotten_is_made_again_at_once() {
    let mut world = World::new(1).await;
    world.operator.create(&wish(&world, "one", Custody::Agent, 0)).await.unwrap();
    world.settle_live("one", SOON).await;
    world.ca.forget_accounts();
    world.operator.create(&wish(&world, "web", Custody::Agent, 0)).await.unwrap();
    let certificate = world.settle_live("web", SOON).await;
    assert!(certificate.order.unwrap().attempt <= 1);
    assert_eq!(world.ca.accounts().len(), 2);
    world.check().await;
}

#[tokio::test(start_paused = true)]
async fn one_bad_nonce_or_lost_answer_here_and_there_is_survived() {
    for kind in [
        RequestKind::NewOrder,
        RequestKind::Authorization,
        RequestKind::Challenge,
        RequestKind::Order,
        RequestKind::Finalize,
        RequestKind::Certificate,
    ] {
        let mut world = World::new(1).await;
        world.ca.fail(kind, When::First(1), Fault::LostReply);
        world.ca.fail(kind, When::Nth(2), problem(400, "badNonce", None));
        world.operator.create(&wish(&world, "web", Custody::Agent, 0)).await.unwrap();
        world.settle_live("web", HEALING).await;
        // A CA that was told to look, and could not say that it heard, may look when the token is withdrawn already.
        let extra = usize::from(kind == RequestKind::Challenge);
        assert!(world.ca.orders().len() <= 1 + extra, "{kind:?}: the order is resumed");
        world.check().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_ca_under_another_root() {
    let mut world = World::new(1).await;
    let other = World::dark(e2e::world::Plan { agents: 0, ..Default::default() }).ca.root_pem();
    let request = api::AddIssuerRequest {
        name: "other".to_owned(),
        directory: e2e::fake_ca::FakeCa::directory_url(),
        root_pem: other,
        email: String::new(),
        accept_terms: true,
        ..Default::default()
    };
    world.operator.client().add_issuer(request).await.unwrap();
    let wish = wish(&world, "web", Custody::Agent, 0);
    let request = api::CreateCertificateRequest { issuer: "other".to_owned(), ..wish.request() };
    world.operator.client().create_certificate(request).await.unwrap();
    let order = settle_waiting(&mut world, "a wrong root").await;
    assert_eq!(order.error.unwrap().reason, "CA_UNTRUSTED");
    world.check().await;
}

#[tokio::test(start_paused = true)]
async fn names_without_addresses_cost_the_ca_nothing() {
    let address = "10.0.1.1".parse().unwrap();
    let order = fails_and_heals(
        "no such name",
        "DNS_NO_SUCH_NAME",
        |world| world.dns.remove("web.example.test"),
        |world| world.dns.set("web.example.test", &[address]),
    )
    .await;
    assert_eq!(order.order_url, "", "no order is made for it");
}

#[tokio::test(start_paused = true)]
async fn a_name_that_leads_elsewhere_is_seen_before_the_ca_is_told_to_look() {
    let mut world = World::new(2).await;
    world.agents[1].machine.start_web("var/www/html").unwrap();
    let wish = wish(&world, "web", Custody::Agent, 0);
    world.dns.set("web.example.test", &[world.agents[1].machine.address()]);
    world.operator.create(&wish).await.unwrap();
    settle_waiting(&mut world, "another server answers").await;
    assert_eq!(world.ca.counts().get(&RequestKind::Challenge), None, "no challenge is spent");
    world.dns.set("web.example.test", &[world.agents[0].machine.address()]);
    world.settle_live("web", HEALING).await;
    assert_eq!(world.ca.orders().len(), 1, "the order is kept for the next try");
    world.check().await;
}

#[tokio::test(start_paused = true)]
async fn a_taken_port_names_its_holder() {
    let mut world = World::new(1).await;
    let holder = world.agents[0].machine.occupy(80, "apache2 (pid 77)").unwrap();
    world.operator.create(&wish(&world, "web", Custody::Agent, 0)).await.unwrap();
    let order = settle_waiting(&mut world, "port 80 is taken").await;
    let error = order.error.unwrap();
    assert!(format!("{error:?}").contains("apache2 (pid 77)"), "{error:?}");
    drop(holder);
    world.settle_live("web", HEALING).await;
    world.check().await;
}

#[tokio::test(start_paused = true)]
async fn a_full_disk_of_the_controller_refuses_and_loses_nothing() {
    let mut world = World::new(1).await;
    let wish = wish(&world, "web", Custody::Agent, 0);
    world.controller.disk.set_full(true);
    let refusal = world.operator.create(&wish).await.unwrap_err();
    assert_ne!(refusal.code(), Code::Ok);
    assert!(!detail(&refusal).problem.unwrap().hint.is_empty(), "{refusal:?}");
    world.controller.disk.set_full(false);
    let accepted = async |world: &World| world.operator.create(&wish).await.is_ok();
    world.settle("it is accepted when there is space again", SOON, accepted).await;
    world.settle_live("web", SOON).await;
    world.check().await;
}

fn detail(status: &tonic::Status) -> ErrorDetail {
    ErrorDetail::decode(status.details()).expect("every status of ours carries its detail")
}

#[tokio::test(start_paused = true)]
async fn wishes_that_cannot_be_met_are_refused_field_by_field() {
    let world = World::new(1).await;
    let label = "a".repeat(64);
    let many: Vec<_> = (0..101).map(|number| format!("n{number}.example.test")).collect();
    let names = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
    for (what, identifiers) in [
        ("none", names(&[])),
        ("empty", names(&[""])),
        ("wildcard", names(&["*.example.test"])),
        ("long label", names(&[&format!("{label}.example.test")])),
        ("space", names(&["a b.example.test"])),
        ("address", names(&["127.0.0.1"])),
        ("final dot", names(&["web.example.test."])),
        ("twice", names(&["web.example.test", "WEB.example.test"])),
        ("too many", many),
    ] {
        let good = wish(&world, "web", Custody::Agent, 0);
        let refusal = world.operator.create(&Wish { identifiers, ..good }).await.unwrap_err();
        assert_eq!(refusal.code(), Code::InvalidArgument, "{what}: {refusal:?}");
        let fields = detail(&refusal).fields;
        assert!(fields.iter().any(|field| !field.message.is_empty() && !field.hint.is_empty()), "{what}: {fields:?}");
    }
    let good = wish(&world, "web", Custody::Agent, 0);
    for dir in ["", "relative/dir", "/etc/../root"] {
        let mut wish = good.clone();
        wish.target.as_mut().unwrap().dir = dir.to_owned();
        let refusal = world.operator.create(&wish).await.unwrap_err();
        assert_eq!(refusal.code(), Code::InvalidArgument, "{dir}: {refusal:?}");
    }
    let unknown = Wish { http01: http01::Mode::StandalonePort(0), ..good.clone() };
    assert_eq!(world.operator.create(&unknown).await.unwrap_err().code(), Code::InvalidArgument);
    assert!(world.operator.certificates_told().await.is_some_and(|all| all.is_empty()), "nothing was stored");
    assert!(world.ca.orders().is_empty());
}

#[tokio::test(start_paused = true)]
async fn unusual_spellings_of_a_name_are_one_name() {
    let mut world = World::new(1).await;
    let mut wish = wish(&world, "web", Custody::Agent, 0);
    wish.identifiers = vec!["WEB.Example.test".to_owned()];
    world.operator.create(&wish).await.unwrap();
    let certificate = world.settle_live("web", SOON).await;
    assert_eq!(certificate.identifiers, ["web.example.test"]);
    world.check().await;
}

#[tokio::test(start_paused = true)]
async fn a_directory_outside_the_policy_is_refused_with_the_line_to_add() {
    let world = World::new(1).await;
    let mut wish = wish(&world, "web", Custody::Agent, 0);
    wish.target.as_mut().unwrap().dir = "/root/.ssh".to_owned();
    let refusal = world.operator.create(&wish).await.unwrap_err();
    let detail = detail(&refusal);
    assert!(format!("{detail:?}").contains("/root/.ssh"), "{detail:?}");
    assert!(world.operator.certificates_told().await.is_some_and(|all| all.is_empty()));
}

#[tokio::test(start_paused = true)]
async fn a_join_token_is_good_once_and_for_an_hour() {
    let world = World::new(1).await;
    let request = |name: &str| api::EnrollAgentRequest { name: name.to_owned(), replace: false };
    let token = world.operator.client().enroll_agent(request("late")).await.unwrap().into_inner().token;
    let refusal = world.agents[0].enroll(&token.clone().into()).await;
    assert!(refusal.is_err(), "this machine is enrolled already");
    tokio::time::sleep(Duration::from_secs(3600 + 60)).await;
    let clock: std::sync::Arc<dyn proto::clock::Clock> = world.clock.clone();
    let at = e2e::world::program::LISTEN;
    let late = e2e::raw_agent::RawAgent::enroll(&world.net, at, &clock, &token).await.unwrap_err();
    let token = world.operator.client().enroll_agent(request("once")).await.unwrap().into_inner().token;
    e2e::raw_agent::RawAgent::enroll(&world.net, at, &clock, &token).await.unwrap();
    let again = e2e::raw_agent::RawAgent::enroll(&world.net, at, &clock, &token).await.unwrap_err();
    for (what, refusal) in [("expired", late), ("used", again)] {
        let problem = detail(&refusal).problem.unwrap();
        assert!(problem.hint.contains("agents enroll"), "{what}: {problem:?}");
    }
    world.check().await;
}

/// Who reads a token on its way redeems it at the same moment as its owner, many times over: one key wins, and only one.
#[tokio::test(start_paused = true)]
async fn of_a_thousand_redemptions_of_one_token_one_wins() {
    const LINES: usize = 20;
    let world = World::new(1).await;
    let request = api::EnrollAgentRequest { name: "coveted".to_owned(), replace: false };
    let token = world.operator.client().enroll_agent(request).await.unwrap().into_inner().token;
    let token = proto::id::JoinToken::parse(&token).unwrap();
    let clock: std::sync::Arc<dyn proto::clock::Clock> = world.clock.clone();
    let at = e2e::world::program::LISTEN;
    let mut redemptions = tokio::task::JoinSet::new();
    for _ in 0..LINES {
        let line = e2e::raw_agent::stranger(&world.net, at, &clock, token.pin);
        for _ in 0..1_000 / LINES {
            let (mut line, csr_der) = (line.clone(), e2e::raw_agent::identity_csr().1);
            let request = agent::EnrollRequest {
                token: token.secret.expose_secret().to_owned(),
                csr_der,
                agent_version: "0.1.0".to_owned(),
                hostname: "thief".to_owned(),
            };
            redemptions.spawn(async move {
                let answer = line.enroll(request.clone()).await.map(drop);
                // A lost answer is asked for again, with the same key.
                (answer.is_ok(), line.enroll(request).await)
            });
        }
    }
    let mut winners = 0;
    while let Some(redeemed) = redemptions.join_next().await {
        let (won, again) = redeemed.unwrap();
        winners += usize::from(won);
        match again {
            Ok(_) => assert!(won, "who lost does not win later"),
            Err(refusal) => {
                assert!(!won, "the winner may ask again: {refusal:?}");
                assert!(detail(&refusal).problem.unwrap().hint.contains("agents enroll"), "{refusal:?}");
            }
        }
    }
    assert_eq!(winners, 1);
    let agents = world.operator.client().list_agents(api::ListAgentsRequest::default()).await.unwrap().into_inner();
    assert_eq!(agents.items.iter().filter(|agent| agent.name == "coveted").count(), 1);
    world.check().await;
}

#[tokio::test(start_paused = true)]
async fn a_directory_that_is_a_link_out_of_the_policy_is_not_followed() {
    let mut world = World::new(1).await;
    let outside = world.agents[0].machine.path("root-secrets");
    std::fs::create_dir(&outside).unwrap();
    std::os::unix::fs::symlink(&outside, world.agents[0].dir("web")).unwrap();
    world.operator.create(&wish(&world, "web", Custody::Agent, 0)).await.unwrap();
    let failed = async |world: &World| {
        let certificate = world.operator.certificate("web").await.unwrap_or_default();
        certificate.targets.first().is_some_and(|target| target.problem.is_some())
    };
    world.settle("the target fails", SOON, failed).await;
    let target = world.operator.certificate("web").await.unwrap().targets[0].clone();
    assert!(!target.problem.clone().unwrap().hint.is_empty(), "{target:?}");
    assert_eq!(std::fs::read_dir(&outside).unwrap().count(), 0, "nothing is written there");
    std::fs::remove_file(world.agents[0].dir("web")).unwrap();
    world.settle_live("web", HEALING).await;
    world.check().await;
}
