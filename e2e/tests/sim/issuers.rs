//! What a CA wants of its customer (issue 3, AC15, AC16, AC27): new terms, an external account, a closed account. Each
//! halts the issuer with one alarm, its orders wait and ask nothing, and an operator's act sets them going.

use std::time::Duration;

use e2e::fake_ca::FakeCa;
use e2e::fake_ca::fault::RequestKind;
use e2e::world::{ISSUER, World};
use proto::operator::v1 as api;
use proto::types::v1::Custody;

use crate::{SOON, wish};

/// Long enough for every back-off to have tried again.
const LONG: Duration = Duration::from_secs(86_400);

async fn issuer(world: &World, name: &str) -> api::Issuer {
    let request = api::GetIssuerRequest { name: name.to_owned() };
    world.operator.client().get_issuer(request).await.unwrap().into_inner()
}

/// Waits until the controller has tried an issuer, and returns it.
async fn tried(world: &mut World, name: &str) -> api::Issuer {
    world.settle("the issuer was tried", SOON, async |world| !issuer(world, name).await.checking).await;
    issuer(world, name).await
}

async fn set(world: &mut World, request: api::SetIssuerRequest) -> api::Issuer {
    let name = request.name.clone();
    world.operator.client().set_issuer(request).await.unwrap();
    tried(world, &name).await
}

fn accept_terms(name: &str) -> api::SetIssuerRequest {
    api::SetIssuerRequest { name: name.to_owned(), accept_terms: true, ..Default::default() }
}

async fn halts(world: &World) -> usize {
    world.operator.events().await.iter().filter(|event| event.kind == "issuer.halted").count()
}

async fn held(world: &World, names: &[&str]) -> bool {
    for name in names {
        let order = world.operator.certificate(name).await.and_then(|certificate| certificate.order);
        if !order.is_some_and(|order| order.phase == "waiting" && order.error.unwrap().reason == "ISSUER_HALTED") {
            return false;
        }
    }
    true
}

/// Three certificates meet what the CA wants; nothing but one alarm happens until the operator acts.
async fn halt_and_go_on(status: &str, spoil: impl Fn(&World), act: api::SetIssuerRequest) {
    let mut world = World::new(1).await;
    tried(&mut world, ISSUER).await;
    spoil(&world);
    let names = ["a", "b", "c"];
    for name in names {
        world.operator.create(&wish(&world, name, Custody::Agent, 0)).await.unwrap();
    }
    world.settle("their orders wait", SOON, async |world| held(world, &names).await).await;
    let asked = world.ca.log().len();
    tokio::time::sleep(LONG).await;
    assert_eq!(world.ca.log().len(), asked, "a halted issuer is not asked");
    assert_eq!((halts(&world).await, issuer(&world, ISSUER).await.account_status.as_str()), (1, status));
    let attention = world.operator.client().get_overview(api::GetOverviewRequest {}).await.unwrap().into_inner();
    let lines: Vec<_> = attention.attention.iter().map(|line| line.what.as_str()).collect();
    assert_eq!(lines, ["HALTED"], "{:?}", attention.attention);
    assert!(attention.attention[0].action.contains(&format!("issuers set {ISSUER}")), "{:?}", attention.attention);
    let fixed = set(&mut world, act).await;
    assert_eq!((fixed.account_status.as_str(), fixed.problem), ("valid", None));
    for name in names {
        world.settle_live(name, SOON).await;
    }
    world.check().await;
}

#[tokio::test(start_paused = true)]
async fn changed_terms_halt_the_issuer_until_its_owner_agrees() {
    halt_and_go_on("terms", |world| world.ca.change_terms(), accept_terms(ISSUER)).await;
}

#[tokio::test(start_paused = true)]
async fn a_closed_account_is_one_alarm_and_a_new_one_goes_on() {
    let new_account = api::SetIssuerRequest { name: ISSUER.to_owned(), new_account: true, ..Default::default() };
    halt_and_go_on("closed", |world| world.ca.deactivate_accounts(), new_account).await;
}

async fn add(world: &mut World, request: api::AddIssuerRequest) -> api::Issuer {
    let name = request.name.clone();
    world.operator.client().add_issuer(request).await.unwrap();
    tried(world, &name).await
}

fn another(world: &World) -> api::AddIssuerRequest {
    api::AddIssuerRequest {
        name: "other".to_owned(),
        directory: FakeCa::directory_url(),
        root_pem: world.ca.root_pem(),
        accept_terms: true,
        ..Default::default()
    }
}

#[tokio::test(start_paused = true)]
async fn an_issuer_without_agreement_says_so_at_once() {
    let mut world = World::new(0).await;
    tried(&mut world, ISSUER).await;
    let asked = world.ca.counts();
    let request = api::AddIssuerRequest { accept_terms: false, ..another(&world) };
    let added = add(&mut world, request).await;
    assert_eq!(added.account_status, "terms");
    assert!(added.terms_url.starts_with("https://ca.test/terms"));
    assert_eq!(added.problem.unwrap().hint.matches("certwright issuers set other --accept-terms").count(), 1);
    assert_eq!(world.ca.counts().get(&RequestKind::NewAccount), asked.get(&RequestKind::NewAccount));
    let fixed = set(&mut world, accept_terms("other")).await;
    assert_eq!(fixed.account_status, "valid");
}

#[tokio::test(start_paused = true)]
async fn an_external_account_is_asked_for_refused_and_taken() {
    let mut world = World::new(0).await;
    tried(&mut world, ISSUER).await;
    world.ca.require_customer("customer-1", &[7; 32]);
    let asked = world.ca.counts()[&RequestKind::NewAccount];
    let request = another(&world);
    let added = add(&mut world, request).await;
    assert_eq!((added.account_status.as_str(), added.external_account_required), ("external", true));
    assert_eq!(world.ca.counts()[&RequestKind::NewAccount], asked, "it is known before it is asked");
    let bound = |kid: &str, key: &[u8]| api::SetIssuerRequest {
        name: "other".to_owned(),
        external_kid: kid.to_owned(),
        external_key: base64::Engine::encode(&base64::engine::general_purpose::URL_SAFE_NO_PAD, key),
        ..Default::default()
    };
    let wrong = set(&mut world, bound("customer-1", &[8; 32])).await;
    assert_eq!(wrong.account_status, "external");
    let problem = wrong.problem.unwrap();
    assert_eq!(problem.reason, "ACME_EXTERNAL_REFUSED");
    assert!(problem.cause.contains("MAC") && problem.hint.contains("issuers set other --eab-kid"), "{problem:?}");
    let asked = world.ca.log().len();
    tokio::time::sleep(LONG).await;
    assert_eq!(world.ca.log().len(), asked, "permanent: it is not tried again");
    let right = set(&mut world, bound("customer-1", &[7; 32])).await;
    assert_eq!((right.account_status.as_str(), right.external_kid.as_str()), ("valid", "customer-1"));
}

#[tokio::test(start_paused = true)]
async fn contacts_are_changed_at_the_ca_and_the_account_stays() {
    let mut world = World::new(0).await;
    tried(&mut world, ISSUER).await;
    let contacts = vec!["a@example.test".to_owned(), "b@example.test".to_owned()];
    let request = api::SetIssuerRequest { name: ISSUER.to_owned(), contacts, set_contacts: true, ..Default::default() };
    set(&mut world, request).await;
    assert_eq!(world.ca.accounts(), [["mailto:a@example.test", "mailto:b@example.test"]]);
    world.operator.client().test_issuer(api::TestIssuerRequest { name: ISSUER.to_owned() }).await.unwrap();
    world.ca.forget_accounts();
    let again = tried(&mut world, ISSUER).await;
    assert_eq!((again.account_status.as_str(), world.ca.accounts().len()), ("valid", 2), "registered again");
}
