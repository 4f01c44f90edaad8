//! A private CA as an issuer (features.md C1): the whole road without anything to prove, for dozens of lives; revoked leaves are on its
//! list and replaced; names outside its policy are refused; nothing is made twice, whatever dies.

use std::time::Duration;

use e2e::power::{KillPoint, PowerSwitch, Step};
use e2e::world::operator::{Operator, Wish};
use e2e::world::{ISSUER, World};
use prost::Message as _;
use proto::operator::v1 as api;
use proto::types::v1::{Custody, ErrorDetail};
use proto::x509::{Chain, LeafFacts, parse_certificates};
use tonic::{Code, Status};
use x509_parser::prelude::{CertificateRevocationList, FromDer as _};

use crate::{SOON, served};

const CORP: &str = "corp";
const DAY: Duration = Duration::from_secs(86_400);
/// Certificates of the scenario of many.
const MANY: u64 = 100;
/// A killed controller comes back after seconds.
const RECOVERY: Duration = Duration::from_secs(20 * 60);

fn spec(names: &[&str]) -> api::PrivateCaSpec {
    api::PrivateCaSpec {
        names: names.iter().map(|name| (*name).to_owned()).collect(),
        leaf_life_seconds: 2 * 86_400,
        root_life_seconds: 8 * 86_400,
        ..Default::default()
    }
}

fn adding(names: &[&str]) -> api::AddIssuerRequest {
    api::AddIssuerRequest { name: CORP.to_owned(), private_ca: Some(spec(names)), ..Default::default() }
}

async fn issuer(operator: &Operator) -> Option<api::Issuer> {
    let request = api::GetIssuerRequest { name: CORP.to_owned() };
    operator.client().get_issuer(request).await.ok().map(tonic::Response::into_inner)
}

async fn authority(world: &World) -> api::PrivateCa {
    issuer(&world.operator).await.and_then(|issuer| issuer.private_ca).expect("a private CA")
}

/// Waits until it has a root and a list.
async fn ready(world: &mut World) -> api::PrivateCa {
    let made = async |world: &World| {
        let found = issuer(&world.operator).await;
        found.is_some_and(|found| {
            !found.checking && found.private_ca.is_some_and(|ca| !ca.roots.is_empty() && ca.list_number > 0)
        })
    };
    world.settle("the private CA is ready", RECOVERY, made).await;
    authority(world).await
}

async fn world(agents: usize) -> World {
    let mut world = World::new(agents).await;
    world.operator.client().add_issuer(adding(&["*.example.test", "10.0.0.0/8"])).await.unwrap();
    ready(&mut world).await;
    world
}

/// A wish for a certificate of the private CA, with its first target. Nothing is in DNS.
fn wish(world: &World, name: &str, custody: Custody) -> api::CreateCertificateRequest {
    let mut wish = Wish::new(name, custody);
    wish.target = Some(world.agents[0].target(name, &wish.identifiers[0]));
    api::CreateCertificateRequest { issuer: CORP.to_owned(), ..wish.request() }
}

async fn create(world: &World, request: api::CreateCertificateRequest) -> Result<api::CertificateAccepted, Status> {
    world.operator.client().create_certificate(request).await.map(tonic::Response::into_inner)
}

fn fields(status: &Status) -> Vec<(String, String, String)> {
    let detail = ErrorDetail::decode(status.details()).unwrap();
    detail.fields.into_iter().map(|one| (one.field, one.message, one.hint)).collect()
}

/// Serials on the list that the controller gives now.
async fn listed(world: &World) -> (u64, Vec<String>) {
    let request = api::GetRevocationListRequest { issuer: CORP.to_owned() };
    let list = world.operator.client().get_revocation_list(request).await.unwrap().into_inner();
    let (_, parsed) = CertificateRevocationList::from_der(&list.der).unwrap();
    assert_eq!(parsed.crl_number().unwrap().to_string(), list.number.to_string());
    let next = parsed.next_update().unwrap().timestamp();
    assert!(next * 1_000 > world.now_ms(), "it never runs out");
    let serials = parsed.iter_revoked_certificates();
    (list.number, serials.map(|one| format!("{:032x}", one.user_certificate)).collect())
}

/// What a target's files hold is signed by each of these roots.
fn verifies(world: &World, agent: usize, name: &str, roots: &[api::PrivateRoot]) {
    let pem = std::fs::read(world.agents[agent].dir(name).join("fullchain.pem")).unwrap();
    let leaf = Chain::parse_pem(&pem).unwrap().certificates.remove(0);
    for root in roots {
        let chain = format!("{}{}", proto::x509::to_pem(&leaf), root.pem);
        Chain::parse_pem(chain.as_bytes()).expect("signed by it");
    }
}

#[tokio::test(start_paused = true)]
async fn it_takes_the_whole_road_to_two_agents_and_goes_on_for_many_lives() {
    let mut world = world(2).await;
    create(&world, wish(&world, "web", Custody::Controller)).await.unwrap();
    world.settle_live("web", SOON).await;
    let second = world.agents[1].target("web", "web.example.test");
    let request = api::AddTargetRequest { certificate: "web".to_owned(), target: Some(second), ..Default::default() };
    world.operator.client().add_target(request).await.unwrap();
    create(&world, wish(&world, "own", Custody::Agent)).await.unwrap();
    for name in ["web", "own"] {
        let live = world.settle_live(name, SOON).await;
        assert_eq!(live.kind(), api::CertificateKind::Private);
        assert!(live.issues.is_empty() && live.lock_opens_at == 0, "{live:#?}");
        let order = live.order.unwrap();
        let phases: Vec<_> = order.phases.iter().map(|step| (step.name.as_str(), step.state.as_str())).collect();
        let road = ["pending", "starting", "finalizing", "deploying", "verifying", "completed"];
        assert_eq!(phases, road.map(|name| (name, "done")));
    }
    let mut roots = std::collections::BTreeSet::new();
    let (mut serials, mut number) = (std::collections::BTreeSet::new(), 0);
    for _day in 0..14 {
        tokio::time::sleep(DAY).await;
        let ca = authority(&world).await;
        for (agent, name) in [(0, "web"), (1, "web"), (0, "own")] {
            verifies(&world, agent, name, &ca.roots);
            let current = world.operator.certificate(name).await.unwrap().current.unwrap();
            assert!(current.not_after > world.now_ms(), "{name} is served and valid");
            assert_eq!(served(&world, agent, &format!("{name}.example.test")), Some(current.fingerprint_sha256));
            serials.insert(current.serial);
        }
        roots.extend(ca.roots.iter().map(|root| root.fingerprint_sha256.clone()));
        let (now, revoked) = listed(&world).await;
        assert!(now >= number && revoked.is_empty());
        number = now;
    }
    // A root every four days, with the one before beside it; a leaf of two days every day.
    assert!((4..=5).contains(&roots.len()), "{}", roots.len());
    assert!((26..=36).contains(&serials.len()), "{}", serials.len());
    assert!(world.ca.orders().is_empty(), "no ACME server is asked for anything");
    let limits = api::ListLimitsRequest { issuer: CORP.to_owned() };
    assert!(world.operator.client().list_limits(limits).await.unwrap().into_inner().items.is_empty());
    world.check().await;
}

#[tokio::test(start_paused = true)]
async fn what_is_revoked_is_on_the_list_at_once_and_replaced() {
    for custody in [Custody::Agent, Custody::Controller] {
        let mut world = world(1).await;
        create(&world, wish(&world, "web", custody)).await.unwrap();
        let first = world.settle_live("web", SOON).await.current.unwrap();
        let (before, none) = listed(&world).await;
        assert!(none.is_empty());
        let request = api::RevokeCertificateRequest {
            name: "web".to_owned(),
            reason: "keyCompromise".to_owned(),
            ..Default::default()
        };
        world.operator.client().revoke_certificate(request).await.unwrap();
        let replaced = async |world: &World| {
            assert!(served(world, 0, "web.example.test").is_some(), "something is served at every instant");
            let current = world.operator.certificate("web").await.and_then(|certificate| certificate.current);
            current.is_some_and(|current| current.id != first.id) && world.is_live("web").await
        };
        world.settle("it is replaced", SOON, replaced).await;
        let (number, revoked) = listed(&world).await;
        assert!(number > before && revoked.len() == 1 && revoked[0] == first.serial, "{revoked:?}");
        assert_eq!(authority(&world).await.revoked, 1);
        // It leaves the list a week after it expired.
        world.agents[0].kill().await;
        tokio::time::sleep(DAY * 14).await;
        assert!(listed(&world).await.1.is_empty());
    }
}

#[tokio::test(start_paused = true)]
async fn names_outside_the_policy_are_refused_with_the_field_and_what_to_do() {
    let mut world = world(1).await;
    let asking = |names: &[&str]| api::CreateCertificateRequest {
        identifiers: names.iter().map(|name| (*name).to_owned()).collect(),
        ..wish(&world, "web", Custody::Agent)
    };
    let refused = create(&world, asking(&["web.example.test", "bank.example", "192.0.2.1"])).await.unwrap_err();
    assert_eq!(refused.code(), Code::InvalidArgument);
    let said = fields(&refused);
    assert_eq!(said.len(), 2, "{said:?}");
    for ((field, message, hint), name) in said.iter().zip(["bank.example", "192.0.2.1"]) {
        assert_eq!(field, "san");
        assert!(message.contains(name) && message.contains("*.example.test, 10.0.0.0/8"), "{message}");
        assert!(hint.contains("certwright issuers set corp --names"), "{hint}");
    }
    let profiled = api::CreateCertificateRequest { profile: "short".to_owned(), ..asking(&["web.example.test"]) };
    assert_eq!(fields(&create(&world, profiled).await.unwrap_err())[0].0, "profile");
    let falls = api::CreateCertificateRequest { fallbacks: vec!["lab".to_owned()], ..asking(&["web.example.test"]) };
    assert_eq!(fields(&create(&world, falls).await.unwrap_err())[0].0, "fallback");
    let accepted = create(&world, asking(&["web.example.test", "*.example.test", "10.1.2.3"])).await.unwrap();
    assert_eq!(accepted.warnings, [""; 0], "nobody has to answer");
    let first = world.settle_live("web", SOON).await.current.unwrap();
    let before = authority(&world).await;

    let set = |names: &[&str]| api::SetIssuerRequest {
        name: CORP.to_owned(),
        private_ca: Some(api::PrivateCaSpec {
            names: names.iter().map(|name| (*name).to_owned()).collect(),
            ..Default::default()
        }),
        ..Default::default()
    };
    world.operator.client().set_issuer(set(&["other.example"])).await.unwrap();
    let after = ready(&mut world).await;
    assert_eq!((after.roots.len(), &after.roots[1]), (2, &before.roots[0]), "a new root with the constraints");
    // A renewal may not carry the old names any more: it says so and goes on once they are allowed.
    let renew = api::RenewCertificateRequest { name: "web".to_owned(), ..Default::default() };
    world.operator.client().renew_certificate(renew).await.expect("nothing is locked");
    let failing = async |world: &World| {
        let order = world.operator.certificate("web").await.and_then(|certificate| certificate.order);
        order.and_then(|order| order.error).is_some_and(|error| error.reason == "NAME_NOT_ALLOWED")
    };
    world.settle("it says why", SOON, failing).await;
    world.operator.client().set_issuer(set(&["*.example.test", "10.0.0.0/8"])).await.unwrap();
    let renewed = async |world: &World| {
        let current = world.operator.certificate("web").await.and_then(|certificate| certificate.current);
        current.is_some_and(|current| current.id != first.id) && world.is_live("web").await
    };
    world.settle("it goes on", DAY, renewed).await;
    world.check().await;
}

#[tokio::test(start_paused = true)]
async fn what_is_wrong_with_a_private_ca_is_said_field_by_field() {
    let world = World::new(0).await;
    let add = async |request: api::AddIssuerRequest| {
        world.operator.client().add_issuer(request).await.map(|_| ()).map_err(|status| fields(&status))
    };
    let with = |change: fn(&mut api::PrivateCaSpec)| {
        let mut request = adding(&["*.example.test"]);
        change(request.private_ca.as_mut().unwrap());
        request
    };
    for (field, request) in [
        ("names", adding(&[])),
        ("names", adding(&["*"])),
        ("names", adding(&["10.0.0.0/40"])),
        ("lifetime", with(|ca| ca.leaf_life_seconds = 60)),
        ("lifetime", with(|ca| ca.leaf_life_seconds = 3 * 86_400)),
        ("root-lifetime", with(|ca| ca.root_life_seconds = u64::MAX)),
        ("common-name", with(|ca| ca.common_name = "x\u{1b}[2J".to_owned())),
        ("key", with(|ca| ca.key_type = proto::types::v1::KeyType::Rsa2048.into())),
        ("crl-url", with(|ca| ca.list_url = Some("ldap://x".to_owned()))),
        ("private", api::AddIssuerRequest { directory: "https://ca.test".to_owned(), ..adding(&["*.example.test"]) }),
    ] {
        let said = add(request).await.unwrap_err();
        assert!(
            said.iter().any(|(name, message, hint)| name == field && !message.is_empty() && !hint.is_empty()),
            "{field}: {said:?}"
        );
    }
    let rollover = api::RolloverAccountRequest { name: CORP.to_owned() };
    add(adding(&["*.example.test"])).await.unwrap();
    let refused = world.operator.client().rollover_account(rollover).await.unwrap_err();
    assert_eq!(refused.code(), Code::FailedPrecondition);
    let foreign = api::GetRevocationListRequest { issuer: "lab".to_owned() };
    let refused = world.operator.client().get_revocation_list(foreign).await.unwrap_err();
    assert_eq!(refused.code(), Code::FailedPrecondition);
    let mixed = api::SetIssuerRequest { name: CORP.to_owned(), new_account: true, ..Default::default() };
    let refused = world.operator.client().set_issuer(mixed).await.unwrap_err();
    assert_eq!(fields(&refused)[0].0, "private");
}

/// Adds the CA, issues, and revokes, with one kill; returns whether the kill struck.
async fn survive(step: Step, nth: u64) -> bool {
    let mut world = World::new(1).await;
    let count = world.controller.switch().count(step);
    world.controller.plan(Some(KillPoint { step, nth: count + nth }));
    let added = async |world: &World| {
        // A name that is taken was ours.
        drop(world.operator.client().add_issuer(adding(&["*.example.test"])).await);
        issuer(&world.operator).await.is_some()
    };
    world.settle("the issuer is added", RECOVERY, added).await;
    let request = wish(&world, "web", Custody::Agent);
    let accepted = async |world: &World| create(world, request.clone()).await.is_ok();
    world.settle("the wish is accepted, once", RECOVERY, accepted).await;
    let first = world.settle_live("web", RECOVERY).await.current.unwrap();
    let revoke = api::RevokeCertificateRequest {
        name: "web".to_owned(),
        request_id: "once".to_owned(),
        serial: first.serial.clone(),
        reason: "superseded".to_owned(),
    };
    let asked = async |world: &World| world.operator.client().revoke_certificate(revoke.clone()).await.is_ok();
    world.settle("the revocation is accepted, once", RECOVERY, asked).await;
    let replaced = async |world: &World| {
        let current = world.operator.certificate("web").await.and_then(|certificate| certificate.current);
        current.is_some_and(|current| current.id != first.id) && world.is_live("web").await
    };
    world.settle("it is replaced", RECOVERY, replaced).await;
    let on_list =
        async |world: &World| issuer(&world.operator).await.is_some_and(|one| one.private_ca.unwrap().revoked == 1);
    world.settle("it is on the list", RECOVERY, on_list).await;
    world.revive().await;
    world.controller.plan(None);
    let on_list = listed(&world).await.1;
    assert!(on_list.len() == 1 && on_list[0] == first.serial, "{on_list:?}");
    let ca = authority(&world).await;
    assert_eq!(ca.roots.len(), 1, "one key, one root");
    let request = api::ListVersionsRequest { certificate: "web".to_owned() };
    let versions = world.operator.client().list_versions(request).await.unwrap().into_inner().items;
    assert_eq!(versions.len(), 2, "{step:?} {nth}: {versions:#?}");
    verifies(&world, 0, "web", &ca.roots);
    world.check().await;
    world.controller.deaths() > 0
}

#[tokio::test(start_paused = true)]
async fn nothing_is_made_twice_whatever_commit_the_controller_dies_at() {
    for (step, stride) in [(Step::BeforeSync, 3), (Step::AfterSync, 4)] {
        let mut nth = 1;
        while survive(step, nth).await {
            nth += stride;
            assert!(nth < 400, "{step:?} has no end");
        }
        assert!(nth > 1, "{step:?} never struck");
    }
}

/// Acts on all certificates of the CA, and returns the parent job once it ended.
async fn act_on_all(world: &mut World, act: &str) -> api::Job {
    let request = api::ActOnCertificatesRequest {
        act: act.to_owned(),
        filter: format!("issuer:{CORP}"),
        request_id: act.to_owned(),
        reason: "superseded".to_owned(),
        ..Default::default()
    };
    let accepted = world.operator.act(request).await.unwrap();
    assert_eq!((accepted.total, accepted.skipped_total), (MANY, 0), "{act}: nothing is locked");
    let ended = async |world: &World| {
        let request = api::GetJobRequest { id: accepted.job_id.clone() };
        world.operator.client().get_job(request).await.is_ok_and(|job| job.into_inner().finished_at > 0)
    };
    world.settle("the act has ended", RECOVERY, ended).await;
    world.operator.job(&accepted.job_id).await
}

#[tokio::test(start_paused = true)]
async fn a_hundred_are_renewed_rekeyed_and_revoked_by_a_filter_without_waiting_for_anyone() {
    let mut world = world(1).await;
    let names: Vec<String> = (0..MANY).map(|number| format!("w{number:03}")).collect();
    for (number, name) in names.iter().enumerate() {
        let custody = if number % 2 == 0 { Custody::Agent } else { Custody::Controller };
        create(&world, wish(&world, name, custody)).await.unwrap();
    }
    let all_live = async |world: &World| {
        let all = world.operator.certificates().await;
        let is_idle = |one: &api::Certificate| one.order.as_ref().is_none_or(|order| order.phase == "completed");
        let is_live = |one: &api::Certificate| one.status == "active" && one.deployment == "ok" && is_idle(one);
        all.len() == names.len() && all.iter().all(is_live)
    };
    world.settle("all are live", RECOVERY, all_live).await;
    let mut seen = std::collections::BTreeSet::new();
    for act in ["renew", "rekey", "revoke"] {
        let began = world.now_ms();
        let job = act_on_all(&mut world, act).await;
        let batch = job.batch.unwrap();
        assert_eq!((job.state.as_str(), batch.succeeded), ("succeeded", MANY), "{act}");
        world.settle("all are live again", RECOVERY, all_live).await;
        let took = Duration::from_millis((world.now_ms() - began).unsigned_abs());
        assert!(took < SOON, "{act} took {took:?}: nothing waits for limits");
        for name in &names {
            let current = current(&world, name).await.unwrap();
            assert!(seen.insert(current.serial), "{act}: {name} has another version");
            assert_eq!(served(&world, 0, &format!("{name}.example.test")), Some(current.fingerprint_sha256));
        }
    }
    let listed = listed(&world).await.1;
    assert!(listed.len() == names.len() && listed.iter().all(|serial| seen.contains(serial)));
    world.check().await;
}

#[tokio::test(start_paused = true)]
async fn an_agent_that_makes_the_key_is_waited_for_and_the_controllers_own_needs_nobody() {
    let mut world = world(1).await;
    world.agents[0].kill().await;
    create(&world, wish(&world, "own", Custody::Agent)).await.unwrap();
    create(&world, wish(&world, "web", Custody::Controller)).await.unwrap();
    let issued = async |world: &World| {
        world.operator.certificate("web").await.is_some_and(|certificate| certificate.current.is_some())
    };
    world.settle("it is issued without anyone", SOON, issued).await;
    let own = world.operator.certificate("own").await.unwrap();
    let error = own.order.unwrap().error.unwrap();
    assert!(error.reason == "AGENT_OFFLINE" && error.message.contains("makes and keeps its key"), "{error:?}");
    world.agents[0].start();
    for name in ["own", "web"] {
        world.settle_live(name, SOON).await;
    }
    let facts = LeafFacts::parse(
        &parse_certificates(&std::fs::read(world.agents[0].dir("web").join("chain.pem")).unwrap()).unwrap()[0],
    );
    assert!(facts.unwrap().is_ca, "the chain file holds the root");
    world.check().await;
}

/// The key of the backups here.
const KEY: &str = "00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff";

/// Puts a controller that was restored from the backup in place of this one, and accepts it once these agents showed what they
/// hold. Until then there is no list: the one of the backup may lack what was revoked since.
async fn restored(world: &mut World, backup: &[u8], agents: &[&str]) {
    world.controller.kill().await;
    world.controller.restore(backup, KEY, &PowerSwitch::new()).unwrap();
    world.controller.start();
    let shown = async |world: &World| {
        let Ok(status) = world.operator.restore().await else { return false };
        agents.iter().all(|name| status.agents.iter().any(|agent| agent.name == *name && agent.shown))
    };
    world.settle("the agents show what they hold", SOON, shown).await;
    let request = api::GetRevocationListRequest { issuer: CORP.to_owned() };
    let none = world.operator.client().get_revocation_list(request.clone()).await.unwrap_err();
    assert_eq!(none.code(), Code::FailedPrecondition, "{none:?}");
    world.operator.accept(true).await.unwrap();
    let made = async |world: &World| world.operator.client().get_revocation_list(request.clone()).await.is_ok();
    world.settle("there is a list", SOON, made).await;
}

async fn revoke(world: &World, name: &str, serial: &str) {
    let request = api::RevokeCertificateRequest {
        name: name.to_owned(),
        serial: serial.to_owned(),
        reason: "keyCompromise".to_owned(),
        ..Default::default()
    };
    world.operator.client().revoke_certificate(request).await.unwrap();
}

async fn current(world: &World, name: &str) -> Option<api::Version> {
    world.operator.certificate(name).await.and_then(|certificate| certificate.current)
}

#[tokio::test(start_paused = true)]
async fn what_was_revoked_since_the_backup_stays_on_the_list_and_is_replaced() {
    let mut world = world(2).await;
    create(&world, wish(&world, "web", Custody::Agent)).await.unwrap();
    let mut away = wish(&world, "away", Custody::Agent);
    away.target = Some(world.agents[1].target("away", "away.example.test"));
    create(&world, away).await.unwrap();
    let web = world.settle_live("web", SOON).await.current.unwrap();
    let away = world.settle_live("away", SOON).await.current.unwrap();
    let backup = world.operator.backup(KEY).await.unwrap();
    tokio::time::sleep(RECOVERY).await;
    world.agents[1].kill().await;
    for (name, first) in [("web", &web), ("away", &away)] {
        revoke(&world, name, &first.serial).await;
    }
    let both = async |world: &World| authority(world).await.revoked == 2;
    world.settle("both are on the list", SOON, both).await;
    let replaced = async |world: &World| {
        current(world, "web").await.is_some_and(|now| now.id != web.id) && world.is_live("web").await
    };
    world.settle("web is replaced", SOON, replaced).await;
    let second = current(&world, "web").await.unwrap();
    let (number, mut before) = listed(&world).await;

    restored(&mut world, &backup, &["h1"]).await;
    let (later, mut after) = listed(&world).await;
    before.sort();
    after.sort();
    assert_eq!((before.len(), &before), (2, &after), "both are on the list that follows");
    assert!(later > number, "numbers of lists never go back: {later} after {number}");
    let now = current(&world, "web").await.unwrap();
    assert_eq!((&now.serial, now.revoked_at), (&second.serial, 0), "what replaced it is taken over");
    // Nobody holds another one: it is known as revoked, and replaced once its agent is back.
    assert!(current(&world, "away").await.unwrap().revoked_at > 0);
    world.agents[1].start();
    let replaced = async |world: &World| {
        current(world, "away").await.is_some_and(|now| now.id != away.id && now.revoked_at == 0)
            && world.is_live("away").await
    };
    world.settle("away is replaced", RECOVERY, replaced).await;
    world.check().await;

    // Without what was written down beside the database nobody knows; numbers grow all the same.
    let number = listed(&world).await.0;
    world.controller.lose_folder();
    restored(&mut world, &backup, &["h1", "h2"]).await;
    let (later, none) = listed(&world).await;
    assert!(later > number && none.is_empty(), "{none:?}");
}

#[tokio::test(start_paused = true)]
async fn one_that_was_removed_since_the_backup_comes_back_without_its_key() {
    let mut world = world(1).await;
    create(&world, wish(&world, "web", Custody::Controller)).await.unwrap();
    world.settle_live("web", SOON).await;
    let backup = world.operator.backup(KEY).await.unwrap();
    tokio::time::sleep(RECOVERY).await;
    let move_to_lab =
        api::UpdateCertificateRequest { name: "web".to_owned(), issuer: Some(ISSUER.to_owned()), ..Default::default() };
    world.operator.client().update_certificate(move_to_lab.clone()).await.unwrap();
    let remove = api::RemoveIssuerRequest { name: CORP.to_owned() };
    world.operator.client().remove_issuer(remove.clone()).await.unwrap();

    world.controller.kill().await;
    assert_eq!(world.controller.restore(&backup, KEY, &PowerSwitch::new()).unwrap().removals, Some(1));
    world.controller.start();
    let shown = async |world: &World| {
        world.operator.restore().await.is_ok_and(|status| status.agents.iter().any(|agent| agent.shown))
    };
    world.settle("the agent shows what it holds", SOON, shown).await;
    world.operator.accept(true).await.unwrap();
    let test = api::TestIssuerRequest { name: CORP.to_owned() };
    let set = api::SetIssuerRequest {
        name: CORP.to_owned(),
        private_ca: Some(api::PrivateCaSpec { names: vec!["*.example.test".to_owned()], ..Default::default() }),
        ..Default::default()
    };
    let refused = [
        world.operator.client().test_issuer(test).await.unwrap_err(),
        world.operator.client().set_issuer(set).await.unwrap_err(),
    ];
    assert!(refused.iter().all(|status| crate::reason(status) == "ISSUER_REMOVED"), "{refused:?}");
    // Its leaves run out, and nothing is signed with it.
    tokio::time::sleep(3 * DAY).await;
    let corp = issuer(&world.operator).await.unwrap();
    let problem = corp.problem.unwrap();
    assert_eq!((corp.account_status.as_str(), problem.reason.as_str()), ("removed", "ISSUER_REMOVED"));
    assert!(problem.hint.contains("issuers rm corp"), "{}", problem.hint);
    let waits = world.operator.certificate("web").await.unwrap().order.unwrap();
    assert_eq!(waits.error.unwrap().reason, "ISSUER_HALTED");
    let request = api::GetRevocationListRequest { issuer: CORP.to_owned() };
    world.operator.client().get_revocation_list(request).await.unwrap_err();
    // What it says to do helps.
    world.dns.set("web.example.test", &[world.agents[0].machine.address()]);
    world.operator.client().update_certificate(move_to_lab).await.unwrap();
    world.settle_live("web", SOON).await;
    world.operator.client().remove_issuer(remove).await.unwrap();
    assert!(issuer(&world.operator).await.is_none());
}

#[tokio::test(start_paused = true)]
async fn what_was_issued_since_the_backup_is_taken_over_and_can_be_revoked() {
    let mut world = world(1).await;
    for (name, custody) in [("own", Custody::Agent), ("web", Custody::Controller)] {
        create(&world, wish(&world, name, custody)).await.unwrap();
        world.settle_live(name, SOON).await;
    }
    let backup = world.operator.backup(KEY).await.unwrap();
    // Leaves of two days: all of them are others now.
    tokio::time::sleep(3 * DAY).await;
    let own = world.settle_live("own", SOON).await.current.unwrap();
    let web = world.settle_live("web", SOON).await.current.unwrap();
    restored(&mut world, &backup, &["h1"]).await;
    assert_eq!(current(&world, "own").await.unwrap().serial, own.serial);
    assert_eq!(served(&world, 0, "own.example.test"), Some(own.fingerprint_sha256), "it is not issued again");
    let again = async |world: &World| {
        current(world, "web").await.is_some_and(|now| now.serial != web.serial) && world.is_live("web").await
    };
    world.settle("what lost its key is issued again", SOON, again).await;
    revoke(&world, "own", &own.serial).await;
    let on_list = async |world: &World| authority(world).await.revoked == 1;
    world.settle("a leaf that was taken over is on the list", SOON, on_list).await;
    let on_list = listed(&world).await.1;
    assert!(on_list.len() == 1 && on_list[0] == own.serial, "{on_list:?}");
    let replaced = async |world: &World| {
        current(world, "own").await.is_some_and(|now| now.id != own.id) && world.is_live("own").await
    };
    world.settle("and is replaced", SOON, replaced).await;
    world.check().await;
}
