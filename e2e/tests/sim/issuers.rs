//! What issuers can do, and what they want of their customer (issue 3, AC8, AC15, AC16, AC27): new terms, an external account, a closed account. Each
//! halts the issuer with one alarm, its orders wait and ask nothing, and an operator's act sets them going.

use std::time::Duration;

use e2e::fake_ca::fault::{Fault, Mischief, RequestKind, When};
use e2e::fake_ca::{FakeCa, Options};
use e2e::power::{KillPoint, Step};
use e2e::world::{ISSUER, Plan, World};
use proto::operator::v1 as api;
use proto::types::v1::Custody;

use crate::{SOON, wish};

/// Long enough for every back-off to have tried again.
const LONG: Duration = Duration::from_secs(86_400);

/// A killed controller comes back after seconds and tries an open issuer at once.
const RECOVERY: Duration = Duration::from_secs(20 * 60);
/// A directory is read anew after half a day.
const DIRECTORY_AGE: Duration = Duration::from_secs(13 * 3_600);

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
    halt_and_go_on("closed", |world| world.ca.deactivate_account(0), new_account).await;
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
async fn a_ca_that_makes_no_account_for_two_hours_is_not_asked_for_one_meanwhile() {
    const REST: u64 = 7_200;
    let mut world = World::new(1).await;
    tried(&mut world, ISSUER).await;
    let detail = "too many new accounts from your address";
    let fault = Fault::Problem { status: 429, kind: "rateLimited", detail, retry_after: Some(REST) };
    world.ca.fail(RequestKind::NewAccount, When::First(1), fault);
    let request = another(&world);
    assert_eq!(add(&mut world, request).await.problem.unwrap().reason, "ACME_RATE_LIMITED");
    let asked = |world: &World| world.ca.counts()[&RequestKind::NewAccount];
    let before = asked(&world);
    create(&world, |request| request.issuer = "other".to_owned()).await;
    tokio::time::sleep(Duration::from_secs(REST - 600)).await;
    assert_eq!(asked(&world), before, "neither by the order nor for the issuer's sake");
    let order = world.operator.certificate("web").await.unwrap().order.unwrap();
    let error = order.error.unwrap();
    assert_eq!((order.phase.as_str(), error.reason.as_str()), ("waiting", "RATE_LIMIT_PREDICTED"));
    assert!(error.cause.contains("left alone") && error.hint.contains("by itself"), "{error:?}");
    world.settle_live("web", Duration::from_secs(3_600)).await;
    assert_eq!((asked(&world), issuer(&world, "other").await.problem), (before + 1, None));
    world.check().await;
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

/// Asks for `web`, with a target on the first agent, and returns what was accepted.
async fn create(world: &World, change: impl Fn(&mut api::CreateCertificateRequest)) {
    let mut request = wish(world, "web", Custody::Agent, 0).request();
    change(&mut request);
    world.operator.client().create_certificate(request).await.unwrap();
}

fn accounts_asked(world: &World) -> Vec<usize> {
    world.ca.orders().iter().map(|order| order.account).collect()
}

async fn versions(world: &World) -> Vec<api::Version> {
    let request = api::ListVersionsRequest { certificate: "web".to_owned() };
    world.operator.client().list_versions(request).await.unwrap().into_inner().items
}

#[tokio::test(start_paused = true)]
async fn without_a_version_the_third_failure_asks_the_fallback() {
    let mut world = World::new(1).await;
    let request = another(&world);
    add(&mut world, request).await;
    let fault = Fault::Problem { status: 500, kind: "serverInternal", detail: "down", retry_after: None };
    world.ca.fail(RequestKind::NewOrder, When::First(3), fault);
    create(&world, |request| request.fallbacks = vec!["other".to_owned()]).await;
    let live = world.settle_live("web", LONG).await;
    assert_eq!((accounts_asked(&world), live.issuer.as_str()), (vec![1], ISSUER));
    assert_eq!(live.current.unwrap().issuer, "other");
    let told = world.operator.events().await;
    assert_eq!(told.iter().filter(|event| event.kind == "order.fallback").count(), 1);
    tokio::time::sleep(LONG).await;
    assert_eq!(accounts_asked(&world), [1], "it is what was wanted: nothing is ordered again");
    world.operator.renew("web", "again").await.unwrap();
    world.settle_live("web", SOON).await;
    assert_eq!(accounts_asked(&world), [1, 0], "the next one is asked of the first issuer again");
    world.check().await;
}

#[tokio::test(start_paused = true)]
async fn a_renewal_waits_for_its_issuer_until_an_eighth_of_the_life_is_left() {
    let ca = Options { lifetime_seconds: 86_400, backdate_seconds: 0, ..Options::default() };
    let mut world = World::begin(Plan { ca, ..Plan::default() }).await;
    let request = another(&world);
    add(&mut world, request).await;
    create(&world, |request| request.fallbacks = vec!["other".to_owned()]).await;
    let first = world.settle_live("web", SOON).await.current.unwrap();
    world.ca.deactivate_account(0);
    let renewed = async |world: &World| {
        let current = world.operator.certificate("web").await.and_then(|certificate| certificate.current);
        current.is_some_and(|current| current.id != first.id)
    };
    world.settle("the fallback renews it", LONG, renewed).await;
    let left = first.not_after - world.now_ms();
    let life = first.not_after - first.not_before;
    assert!(left > 0 && left <= life / 8, "{left} of {life} ms are left");
    assert_eq!((accounts_asked(&world), halts(&world).await), (vec![0, 1], 1));
    let told = world.operator.certificate("web").await.unwrap();
    assert_eq!((told.order.unwrap().issuer.as_str(), told.current.unwrap().issuer.as_str()), ("other", "other"));
    world.settle_live("web", SOON).await;
    world.check().await;
}

#[tokio::test(start_paused = true)]
async fn a_profile_is_ordered_only_where_the_directory_lists_it() {
    let mut world = World::new(1).await;
    tried(&mut world, ISSUER).await;
    let mut request = wish(&world, "web", Custody::Agent, 0).request();
    request.profile = "shortlived".to_owned();
    let refused = world.operator.client().create_certificate(request.clone()).await.unwrap_err();
    assert!(refused.message().contains("--profile"), "{refused:?}");
    world.ca.offer_profiles(&["classic", "shortlived"]);
    world.operator.client().test_issuer(api::TestIssuerRequest { name: ISSUER.to_owned() }).await.unwrap();
    let listed = tried(&mut world, ISSUER).await;
    assert_eq!(listed.profiles.iter().map(|one| one.name.as_str()).collect::<Vec<_>>(), ["classic", "shortlived"]);
    world.operator.client().create_certificate(request).await.unwrap();
    let live = world.settle_live("web", SOON).await;
    assert_eq!(world.ca.orders()[0].profile.as_deref(), Some("shortlived"));
    assert_eq!(live.current.unwrap().profile, "shortlived");
    // The CA drops its profiles: that is seen before the next order, which would otherwise silently get another one.
    world.ca.offer_profiles(&[]);
    tokio::time::sleep(DIRECTORY_AGE).await;
    let change = api::UpdateCertificateRequest {
        name: "web".to_owned(),
        profile: Some("classic".to_owned()),
        ..Default::default()
    };
    world.operator.client().update_certificate(change.clone()).await.unwrap();
    let waits = async |world: &World| {
        let order = world.operator.certificate("web").await.and_then(|certificate| certificate.order);
        order.and_then(|order| order.error).is_some_and(|error| error.reason == "PROFILE_NOT_OFFERED")
    };
    world.settle("the order waits", LONG, waits).await;
    assert_eq!(world.ca.orders().len(), 1, "nothing was ordered");
    let change = api::UpdateCertificateRequest { profile: Some("default".to_owned()), ..change };
    world.operator.client().update_certificate(change).await.unwrap();
    world.settle_live("web", LONG).await;
    assert_eq!(world.ca.orders()[1].profile, None);
    world.check().await;
}

#[tokio::test(start_paused = true)]
async fn a_pinned_key_stays_and_another_is_new_each_time() {
    let mut world = World::new(1).await;
    create(&world, |request| request.reuse_key = true).await;
    let key = |world: &World| std::fs::read(world.agents[0].dir("web").join("key.pem")).unwrap();
    world.settle_live("web", SOON).await;
    let first = key(&world);
    for request_id in ["one", "two"] {
        world.operator.renew("web", request_id).await.unwrap();
        world.settle_live("web", SOON).await;
        assert_eq!(key(&world), first, "{request_id}");
    }
    let change = api::UpdateCertificateRequest { name: "web".to_owned(), reuse_key: Some(false), ..Default::default() };
    world.operator.client().update_certificate(change).await.unwrap();
    world.operator.renew("web", "three").await.unwrap();
    world.settle_live("web", SOON).await;
    assert_ne!(key(&world), first);
    assert_eq!(versions(&world).await.len(), 4);
    world.check().await;
}

#[tokio::test(start_paused = true)]
async fn the_preferred_chain_is_taken_where_it_is_offered() {
    let mut world = World::new(1).await;
    create(&world, |_| {}).await;
    for (preferred, request_id, missed) in [("other root", "one", 0), ("No Such Root", "two", 1)] {
        let request = api::SetIssuerRequest {
            name: ISSUER.to_owned(),
            preferred_chain: Some(preferred.to_owned()),
            ..Default::default()
        };
        set(&mut world, request).await;
        world.operator.renew("web", request_id).await.unwrap();
        world.settle_live("web", SOON).await;
        let chain = std::fs::read(world.agents[0].dir("web").join("fullchain.pem")).unwrap();
        let chain = proto::x509::Chain::parse_pem(&chain).unwrap();
        let top = proto::x509::LeafFacts::parse(chain.certificates.last().unwrap()).unwrap().issuer_cn;
        assert_eq!(top == "Other Root", missed == 0, "{preferred}: {top}");
        let events = world.operator.events().await;
        assert_eq!(events.iter().filter(|event| event.kind == "version.chain").count(), missed);
    }
    world.check().await;
}

#[tokio::test(start_paused = true)]
async fn an_address_gets_a_certificate() {
    let mut world = World::new(1).await;
    for (custody, request_id) in [(Custody::Agent, "a"), (Custody::Controller, "b")] {
        let mut request = wish(&world, &format!("ip{request_id}"), custody, 0).request();
        let address = world.agents[0].machine.address().to_string();
        request.identifiers.push(address.clone());
        let name = request.name.clone();
        world.operator.client().create_certificate(request).await.unwrap();
        let live = world.settle_live(&name, SOON).await;
        assert!(live.current.unwrap().identifiers.contains(&address));
    }
    world.check().await;
}

async fn roll_over(world: &mut World) {
    let asked = async |world: &World| {
        let request = api::RolloverAccountRequest { name: ISSUER.to_owned() };
        world.operator.client().rollover_account(request).await.is_ok()
    };
    world.settle("the key change is accepted", RECOVERY, asked).await;
    let settled = async |world: &World| {
        let request = api::GetIssuerRequest { name: ISSUER.to_owned() };
        let found = world.operator.client().get_issuer(request).await;
        found.is_ok_and(|issuer| !issuer.get_ref().checking && issuer.get_ref().account_status == "valid")
    };
    world.settle("the account is valid", RECOVERY, settled).await;
}

/// The account gets another key with one kill of the controller; returns whether it struck.
async fn survive_rollover(step: Step, nth: u64) -> bool {
    let mut world = World::new(1).await;
    tried(&mut world, ISSUER).await;
    let before = world.ca.account_keys();
    world.controller.plan(Some(KillPoint { step, nth: world.controller.switch().count(step) + nth }));
    roll_over(&mut world).await;
    let struck = world.controller.deaths() > 0;
    world.controller.plan(None);
    let after = world.ca.account_keys();
    assert_eq!((before.len(), after.len()), (1, 1), "{step:?} {nth}: it is the same account");
    assert_ne!(before, after, "{step:?} {nth}: with another key");
    create(&world, |_| {}).await;
    world.settle_live("web", SOON).await;
    world.check().await;
    struck
}

#[tokio::test(start_paused = true)]
async fn a_key_change_survives_the_death_of_the_controller_at_every_commit_and_request() {
    for step in [Step::BeforeSync, Step::AfterSync, Step::CaRequest, Step::CaReply] {
        let mut nth = 1;
        while survive_rollover(step, nth).await {
            nth += 1;
            assert!(nth < 60, "{step:?} has no end");
        }
        assert!(nth > 2, "{step:?}: a key change has several");
    }
}

#[tokio::test(start_paused = true)]
async fn a_key_change_in_the_midst_of_orders_costs_none_of_them() {
    let mut world = World::new(1).await;
    tried(&mut world, ISSUER).await;
    let names = ["a", "b", "c", "d"];
    for (index, name) in names.into_iter().enumerate() {
        world.operator.create(&wish(&world, name, Custody::Agent, 0)).await.unwrap();
        // Each is somewhere else on its road.
        tokio::time::sleep(Duration::from_millis(40 * u64::try_from(index).unwrap())).await;
    }
    roll_over(&mut world).await;
    for name in names {
        world.settle_live(name, Duration::from_secs(600)).await;
    }
    assert_eq!(world.ca.accounts().len(), 1);
    world.check().await;
}

#[tokio::test(start_paused = true)]
async fn a_refused_key_change_leaves_the_old_key_in_use() {
    let mut world = World::new(1).await;
    tried(&mut world, ISSUER).await;
    let before = world.ca.account_keys();
    let fault = Fault::Problem { status: 403, kind: "malformed", detail: "not today", retry_after: None };
    world.ca.fail(RequestKind::KeyChange, When::Always, fault);
    let request = api::RolloverAccountRequest { name: ISSUER.to_owned() };
    world.operator.client().rollover_account(request).await.unwrap();
    let told = tried(&mut world, ISSUER).await;
    assert_eq!((told.account_status.as_str(), told.problem.unwrap().reason.as_str()), ("valid", "ACME_MALFORMED"));
    create(&world, |_| {}).await;
    world.settle_live("web", SOON).await;
    assert_eq!(world.ca.account_keys(), before);
    world.ca.heal();
    roll_over(&mut world).await;
    assert_ne!(world.ca.account_keys(), before);
    world.check().await;
}

/// The fake CA once more, under the URL of a staging directory: an account there is another one.
fn staging(name: &str) -> api::SetIssuerRequest {
    let staging_directory = Some(format!("{}?staging", FakeCa::directory_url()));
    api::SetIssuerRequest { name: name.to_owned(), staging_directory, ..Default::default() }
}

/// A certificate whose validation the CA refuses, at an issuer with a staging directory.
async fn refused_with_staging() -> World {
    let mut world = World::new(1).await;
    tried(&mut world, ISSUER).await;
    set(&mut world, staging(ISSUER)).await;
    let refuse_validation = Some(("connection", "Timeout during connect"));
    world.ca.misbehave(Mischief { refuse_validation, ..Mischief::default() });
    create(&world, |_| {}).await;
    world
}

#[tokio::test(start_paused = true)]
async fn after_a_failed_validation_the_next_tries_cost_the_issuer_nothing() {
    let mut world = refused_with_staging().await;
    let failures = async |world: &World, count: usize| {
        world.operator.events().await.iter().filter(|event| event.kind == "order.failed").count() >= count
    };
    world.settle("three tries failed", LONG, async |world| failures(world, 3).await).await;
    assert_eq!(accounts_asked(&world), [0, 1, 1], "only the first was made at the issuer");
    world.ca.heal();
    let live = world.settle_live("web", LONG * 2).await;
    assert_eq!(accounts_asked(&world), [0, 1, 1, 1, 0], "the rehearsal passed, and the issuer was asked");
    assert_eq!(world.ca.orders()[3].status, "ready", "a rehearsal makes no certificate");
    assert!(!live.order.unwrap().rehearsal);
    assert_eq!(versions(&world).await.len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_staging_server_that_is_down_is_passed_over() {
    let mut world = refused_with_staging().await;
    let failed = async |world: &World| world.operator.events().await.iter().any(|event| event.kind == "order.failed");
    world.settle("the first try failed", SOON, failed).await;
    world.ca.heal();
    // The next account that is made is the one at the staging server.
    world.ca.fail(RequestKind::NewAccount, When::Always, Fault::Html(502));
    world.settle_live("web", LONG).await;
    assert_eq!(accounts_asked(&world), [0, 0]);
    assert_eq!(issuer(&world, ISSUER).await.problem, None, "it is not the issuer's problem");
    world.check().await;
}
