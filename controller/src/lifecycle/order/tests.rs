//! What the next step of an order is, row by row of its road. Pure: no store, no CA, no clock.

#![allow(clippy::wildcard_enum_match_arm, reason = "a test names the one step it expects")]

use super::*;
use crate::lifecycle::certificate::{CurrentVersion, Http01, KeyType};
use crate::lifecycle::issuer::Halt;
use crate::lifecycle::issuer::tests::issuer;
use crate::lifecycle::private_ca::Root;
use crate::lifecycle::private_ca::tests::private_ca;

/// A certificate with one agent that is target, responder and key holder.
struct Scene {
    certificate: Certificate,
    order: Option<Order>,
    slot: Option<KeySlot>,
    agents: Vec<Responder>,
    issuers: Vec<Issuer>,
}

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(1_700_000_000 + second).unwrap()
}

fn agent(id: &str) -> Responder {
    Responder {
        agent_id: id.into(),
        name: format!("host-{id}"),
        connected: true,
        revoked: false,
        serving: vec![],
        problem: None,
    }
}

fn problem(reason: &str) -> Problem {
    Problem::new(reason, "m", "c", "h")
}

impl Scene {
    fn new() -> Self {
        let specification = Specification {
            identifiers: vec!["a.test".into(), "b.test".into()],
            issuer_id: "ca".into(),
            fallback_ids: vec![],
            profile: None,
            reuse_key: false,
            key_type: KeyType::P256,
            custody: Custody::Agent,
            http01: Http01::Standalone(80),
            responders: vec![],
        };
        let certificate = Certificate {
            id: "c".into(),
            name: "web".into(),
            specification,
            auto_renew: true,
            created_at: at(0),
            current: None,
            renew_asked_at: None,
            rekey_asked: false,
            purging: false,
            paused: None,
            rollback: None,
            delivery: crate::lifecycle::rollout::Delivery::default(),
        };
        Self { certificate, order: None, slot: None, agents: vec![agent("1")], issuers: vec![issuer("ca")] }
    }

    /// The same in a phase, with a key and its CSR.
    fn within(phase: Phase) -> Self {
        let mut scene = Self::new();
        scene.slot = Some(KeySlot {
            id: "k".into(),
            certificate_id: "c".into(),
            custody: Custody::Agent,
            agent_id: Some("1".into()),
            identifiers: scene.certificate.specification.identifiers.clone(),
            key_type: KeyType::P256,
            csr: Some("csr".into()),
            key: None,
            lost: false,
            problem: None,
        });
        let mut order = Order::begin(&scene.certificate, "ca", Reason::NoVersion, None, at(0));
        order.key_slot_id = Some("k".into());
        order.order_url = Some("https://ca.test/order/1".into());
        order.authorizations = ["a.test", "b.test"]
            .map(|name| Authorization {
                identifier: name.into(),
                token: format!("token-{name}"),
                key_authorization: "x".into(),
                state: AuthorizationState::Pending,
            })
            .into();
        order.enter(phase, at(10));
        scene.order = Some(order);
        scene
    }

    fn order(&mut self) -> &mut Order {
        self.order.as_mut().unwrap()
    }

    fn serve_all(&mut self, index: usize) {
        self.agents[index].serving = vec!["token-a.test".into(), "token-b.test".into()];
    }

    fn next(&self, now: Timestamp) -> Step {
        let facts = Facts {
            certificate: &self.certificate,
            renewal_info: None,
            order: self.order.as_ref(),
            slot: self.slot.as_ref(),
            key_agent: self.agents.iter().find(|agent| agent.agent_id == "1"),
            responders: &self.agents,
            issuers: &self.issuers,
            paused: self.certificate.paused.is_some(),
        };
        next_step(facts, now)
    }

    fn held(&self, now: Timestamp) -> Problem {
        match self.next(now) {
            Step::Hold(problem) => problem,
            step => panic!("expected to hold, not {step:?}"),
        }
    }

    fn failed(&self, now: Timestamp) -> Problem {
        match self.next(now) {
            Step::Fail(problem) => problem,
            step => panic!("expected to fail, not {step:?}"),
        }
    }
}

#[test]
fn a_new_certificate_begins_with_a_key_and_asks_the_ca_only_with_the_csr_on_record() {
    let mut scene = Scene::new();
    assert_eq!(scene.next(at(0)), Step::Begin(Reason::NoVersion));
    scene.order = Some(Order::begin(&scene.certificate, "ca", Reason::NoVersion, None, at(0)));
    assert_eq!(scene.next(at(0)), Step::MakeKey);
    let mut with_key = Scene::within(Phase::Starting);
    with_key.slot.as_mut().unwrap().csr = None;
    assert_eq!(with_key.next(at(5)), Step::Sleep(Some(after(at(0), KEY_WAIT))), "the agent makes the key");
    with_key.slot.as_mut().unwrap().csr = Some("csr".into());
    assert_eq!(with_key.next(at(5)), Step::CheckNames);
}

#[test]
fn a_pause_lets_go_of_what_is_under_way_and_only_what_was_spent_is_fetched() {
    let pause = super::super::pause::Pause { at: at(0), by: "local:root".into(), reason: String::new() };
    let paused = |mut scene: Scene| {
        scene.certificate.paused = Some(pause.clone());
        scene.next(at(100_000))
    };
    assert_eq!(paused(Scene::new()), Step::Sleep(None), "nothing is begun");
    for phase in [Phase::Starting, Phase::Checking, Phase::Ordering, Phase::Publishing, Phase::Validating] {
        assert_eq!(paused(Scene::within(phase)), Step::Pause, "{phase:?}");
    }
    for phase in [Phase::Waiting, Phase::Failed, Phase::Completed] {
        assert_eq!(paused(Scene::within(phase)), Step::Sleep(None), "{phase:?}");
    }
    for (status, step) in
        [(CaStatus::Ready, Step::Pause), (CaStatus::Processing, Step::Poll), (CaStatus::Valid, Step::Download)]
    {
        let mut scene = Scene::within(Phase::Finalizing);
        scene.order().ca_status = status;
        assert_eq!(paused(scene), step, "{status:?}");
    }
}

#[test]
fn what_the_ca_was_told_to_look_at_is_served_until_the_next_attempt_has_read_it_again() {
    use crate::lifecycle::desired::Desired;
    let mut scene = Scene::within(Phase::Validating);
    scene.certificate.specification.responders = vec!["1".into()];
    scene.order().authorizations[0].state = AuthorizationState::Answered;
    let served = |certificate: &Certificate, order: &Order| -> Vec<String> {
        let mut desired = Desired::default();
        desired.add("1", |_| false, certificate, Some(order), &[], &[]);
        desired.challenges.into_iter().map(|one| one.token).collect()
    };
    let mut failed = scene.order.clone().unwrap();
    failed.fail(problem("CA_TIMEOUT"), Some(at(60)), at(20));
    assert_eq!(served(&scene.certificate, &failed), ["token-a.test"], "while it waits");
    let again = |issuer: &str, earlier: &Order| {
        let mut order = Order::begin(&scene.certificate, issuer, Reason::NoVersion, Some(earlier), at(60));
        order.adopt(&Issuer { key_epoch: earlier.key_epoch, account_url: None, ..self::issuer(issuer) });
        order
    };
    let mut next = again("ca", &failed);
    for phase in [Phase::Starting, Phase::Checking, Phase::Ordering] {
        next.enter(phase, at(61));
        assert_eq!(served(&scene.certificate, &next), ["token-a.test"], "{phase:?}");
    }
    assert!(served(&scene.certificate, &again("other", &failed)).is_empty(), "another CA does not look there");
    let given_up = Order { order_url: None, ..failed.clone() };
    assert!(served(&scene.certificate, &again("ca", &given_up)).is_empty(), "nobody looks at an order given up");
    next.adopt(&Issuer { key_epoch: 1, account_url: None, ..issuer("ca") });
    assert!(next.authorizations.is_empty(), "an answer computed with another key is none");
}

#[test]
fn nothing_is_spent_while_no_responder_is_connected() {
    for phase in [Phase::Starting, Phase::Publishing] {
        let mut scene = Scene::within(phase);
        scene.agents[0].connected = false;
        let problem = scene.held(at(11));
        assert_eq!(problem.reason, "AGENT_OFFLINE");
        assert!(problem.message.contains("host-1"), "{problem:?}");
    }
    let mut scene = Scene::within(Phase::Starting);
    scene.agents.clear();
    assert_eq!(scene.held(at(0)).reason, "NO_RESPONDER");
}

#[test]
fn an_agent_that_cannot_make_the_key_ends_the_attempt() {
    let mut scene = Scene::within(Phase::Starting);
    let slot = scene.slot.as_mut().unwrap();
    slot.csr = None;
    slot.problem = Some(problem("DISK_FULL"));
    assert_eq!(scene.failed(at(1)).reason, "DISK_FULL");
    scene.slot.as_mut().unwrap().problem = None;
    assert_eq!(scene.failed(after(at(0), KEY_WAIT)).reason, "KEY_NOT_MADE");
}

#[test]
fn the_order_is_created_once_and_then_only_read() {
    let mut scene = Scene::within(Phase::Ordering);
    assert_eq!(scene.next(at(10)), Step::ReadAuthorizations);
    scene.order().order_url = None;
    assert_eq!(scene.next(at(10)), Step::CreateOrder);
}

#[test]
fn every_connected_responder_serves_before_the_ca_is_told_to_look() {
    let mut scene = Scene::within(Phase::Publishing);
    scene.agents.push(agent("2"));
    scene.serve_all(0);
    let until = after(at(10), RESPONDERS_WAIT);
    assert_eq!(scene.next(at(11)), Step::Sleep(Some(until)), "the second one is waited for");
    assert_eq!(scene.next(until), Step::CheckVisible, "but not for ever");
    scene.serve_all(1);
    assert_eq!(scene.next(at(11)), Step::CheckVisible);
    scene.order().visible = true;
    assert_eq!(scene.next(at(11)), Step::Answer("a.test".into()));
}

#[test]
fn an_offline_responder_does_not_hold_up_the_others() {
    let mut scene = Scene::within(Phase::Publishing);
    scene.agents.push(agent("2"));
    scene.agents[1].connected = false;
    scene.serve_all(0);
    assert_eq!(scene.next(at(11)), Step::CheckVisible);
}

#[test]
fn when_no_responder_can_serve_the_attempt_fails_with_its_reason() {
    let mut scene = Scene::within(Phase::Publishing);
    scene.agents[0].problem = Some(problem("PORT_TAKEN"));
    assert_eq!(scene.failed(at(11)).reason, "PORT_TAKEN", "at once");
    scene.agents[0].problem = None;
    assert_eq!(scene.failed(after(at(10), RESPONDERS_WAIT)).reason, "CHALLENGE_NOT_SERVED");
}

#[test]
fn each_name_is_answered_once_and_then_the_order_is_polled_when_its_time_has_come() {
    let mut scene = Scene::within(Phase::Validating);
    scene.order().authorizations[0].state = AuthorizationState::Answered;
    assert_eq!(scene.next(at(20)), Step::Answer("b.test".into()));
    scene.order().authorizations[1].state = AuthorizationState::Valid;
    assert_eq!(scene.next(at(20)), Step::Poll);
    scene.order().poll_at = Some(at(25));
    assert_eq!(scene.next(at(20)), Step::Sleep(Some(at(25))));
    assert_eq!(scene.next(at(25)), Step::Poll);
}

#[test]
fn finalizing_follows_the_ca() {
    let mut scene = Scene::within(Phase::Finalizing);
    scene.order().poll_at = Some(at(25));
    for (status, step) in [
        (CaStatus::Ready, Step::Finalize),
        (CaStatus::Processing, Step::Sleep(Some(at(25)))),
        (CaStatus::Valid, Step::Download),
    ] {
        scene.order().ca_status = status;
        assert_eq!(scene.next(at(20)), step);
    }
}

#[test]
fn a_waiting_order_goes_on_at_its_time_or_when_asked_or_when_its_agent_is_back() {
    let mut scene = Scene::within(Phase::Waiting);
    scene.order().retry_at = Some(at(100));
    assert_eq!(scene.next(at(99)), Step::Sleep(Some(at(100))));
    assert_eq!(scene.next(at(100)), Step::Begin(Reason::NoVersion));
    scene.certificate.renew_asked_at = Some(at(50));
    assert_eq!(scene.next(at(50)), Step::Begin(Reason::NoVersion));
    scene.certificate.renew_asked_at = None;
    scene.order().waits_for_agent = true;
    assert_eq!(scene.next(at(50)), Step::Begin(Reason::NoVersion), "its agent is connected");
    scene.agents[0].connected = false;
    assert_eq!(scene.next(at(50)), Step::Sleep(Some(at(100))));
}

#[test]
fn a_corrected_wish_begins_at_once_in_every_unfinished_phase_and_without_the_old_failures() {
    for phase in [Phase::Starting, Phase::Ordering, Phase::Publishing, Phase::Finalizing, Phase::Waiting, Phase::Failed]
    {
        let mut scene = Scene::within(phase);
        scene.order().failures = 4;
        scene.certificate.specification.issuer_id = "other".into();
        scene.certificate.renew_asked_at = Some(at(50));
        assert_eq!(scene.next(at(50)), Step::Begin(Reason::SpecificationChanged), "{phase:?}");
        let order =
            Order::begin(&scene.certificate, "other", Reason::SpecificationChanged, scene.order.as_ref(), at(50));
        assert_eq!((order.issuer_id.as_str(), order.order_url, order.failures), ("other", None, 0));
    }
}

#[test]
fn a_certificate_in_agent_custody_without_a_target_waits_for_one() {
    let mut scene = Scene::within(Phase::Starting);
    scene.slot = None;
    scene.agents[0].agent_id = "responder".into();
    assert_eq!(scene.held(at(1)).reason, "NO_KEY_AGENT");
    scene.order().enter(Phase::Waiting, at(1));
    scene.order().waits_for_agent = true;
    scene.order().retry_at = Some(at(900));
    assert_eq!(scene.next(at(2)), Step::Sleep(Some(at(900))), "it does not spin");
}

#[test]
fn a_revoked_agent_is_not_told_to_start() {
    let mut scene = Scene::within(Phase::Starting);
    scene.agents[0].connected = false;
    scene.agents[0].revoked = true;
    let problem = scene.held(at(1));
    assert!(problem.hint.contains("--replace"), "{problem:?}");
}

#[test]
fn only_an_operator_revives_a_failed_order() {
    let mut scene = Scene::within(Phase::Failed);
    assert_eq!(scene.next(at(1_000_000)), Step::Sleep(None));
    scene.certificate.renew_asked_at = Some(at(50));
    assert_eq!(scene.next(at(50)), Step::Begin(Reason::NoVersion));
}

#[test]
fn a_changed_specification_begins_again_with_a_new_key_and_a_new_order() {
    let mut scene = Scene::within(Phase::Validating);
    scene.certificate.specification.identifiers = vec!["c.test".into()];
    assert_eq!(scene.next(at(20)), Step::Begin(Reason::SpecificationChanged));
    let earlier = scene.order.clone().unwrap();
    let order = Order::begin(&scene.certificate, "other", Reason::SpecificationChanged, Some(&earlier), at(20));
    assert_eq!(order.order_url, None, "the old order names other identifiers");
    scene.order = Some(order);
    assert_eq!(scene.next(at(20)), Step::MakeKey, "the old CSR too");
}

#[test]
fn a_new_attempt_keeps_the_key_and_the_open_order_but_a_new_wish_does_not() {
    let mut scene = Scene::within(Phase::Validating);
    scene.order().fail(problem("X"), Some(at(60)), at(20));
    assert_eq!((scene.order().phase, scene.order().failures), (Phase::Waiting, 1));
    let earlier = scene.order.clone().unwrap();
    let again = Order::begin(&scene.certificate, "ca", Reason::NoVersion, Some(&earlier), at(60));
    assert_eq!(again.key_slot_id.as_deref(), Some("k"));
    assert_eq!(again.order_url, earlier.order_url);
    assert_eq!(again.failures, 1);
    let mut done = earlier;
    done.enter(Phase::Completed, at(70));
    let renewal = Order::begin(&scene.certificate, "ca", Reason::LifetimeFraction, Some(&done), at(99));
    assert_eq!((renewal.key_slot_id, renewal.order_url, renewal.failures), (None, None, 0));
}

#[test]
fn a_completed_order_sleeps_until_renewal_and_a_purge_for_ever() {
    let mut scene = Scene::within(Phase::Completed);
    let hours = |hours| at(0) + SignedDuration::from_hours(hours);
    scene.certificate.current = Some(CurrentVersion {
        version_id: "v".into(),
        serial: "1".into(),
        fingerprint_sha256: "f".into(),
        not_before: at(0),
        not_after: hours(90 * 24),
        issuer_cn: "CA".into(),
        custody: Custody::Agent,
        key_slot_id: "k".into(),
        identifiers: scene.certificate.specification.identifiers.clone(),
        key_type: KeyType::P256,
        issuer_id: "ca".into(),
        profile: None,
        wanted: None,
        key_lost: false,
        revoked_at: None,
        revoked_reason: None,
    });
    let planned = super::super::renewal::planned(&scene.certificate, None).unwrap().at;
    assert_eq!(scene.next(hours(1)), Step::Sleep(Some(planned)));
    assert_eq!(scene.next(hours(60 * 24)), Step::Begin(Reason::LifetimeFraction));
    scene.certificate.purging = true;
    assert_eq!(scene.next(hours(60 * 24)), Step::Sleep(None));
}

#[test]
fn an_order_of_a_halted_issuer_waits_without_a_word_to_the_ca() {
    let halt = |scene: &mut Scene| scene.issuers[0].fail(problem("ACME_USER_ACTION"), Some(Halt::Terms));
    for phase in [Phase::Starting, Phase::Checking, Phase::Ordering, Phase::Publishing, Phase::Validating] {
        let mut scene = Scene::within(phase);
        halt(&mut scene);
        let Step::HoldForIssuer(problem) = scene.next(at(20)) else { panic!("{phase:?} goes on") };
        assert_eq!(problem.message, "web waits for issuer ca");
    }
    let mut scene = Scene::within(Phase::Waiting);
    scene.order().waits_for_issuer = true;
    halt(&mut scene);
    assert_eq!(scene.next(at(1_000_000)), Step::Sleep(None), "whatever the time");
    scene.issuers[0].works();
    assert_eq!(scene.next(at(1_000_001)), Step::Begin(Reason::NoVersion));
}

#[test]
fn times_that_a_clock_far_ahead_wrote_hold_nothing_up() {
    let far = 34_560_000;
    for phase in [Phase::Starting, Phase::Publishing, Phase::Validating, Phase::Waiting] {
        let mut scene = Scene::within(phase);
        if phase == Phase::Waiting {
            scene.order().retry_at = Some(at(60));
        }
        assert_eq!(scene.next(at(-far)), Step::Begin(Reason::NoVersion), "{phase:?}");
        assert!(!matches!(scene.next(at(11)), Step::Begin(_)), "{phase:?}");
    }
    assert_eq!(Scene::within(Phase::Failed).next(at(-far)), Step::Sleep(None), "an operator must act all the same");
    let mut scene = Scene::within(Phase::Validating);
    scene.order().authorizations.iter_mut().for_each(|one| one.state = AuthorizationState::Answered);
    scene.order().poll_at = Some(at(far));
    assert_eq!(scene.next(at(11)), Step::Poll);
    scene.order().poll_at = Some(at(300));
    assert_eq!(scene.next(at(11)), Step::Sleep(Some(at(300))));
}

#[test]
fn what_waits_for_a_limit_has_not_failed_and_goes_on_at_its_time() {
    let mut scene = Scene::within(Phase::Ordering);
    scene.order().wait(problem(PREDICTED), at(500), at(20));
    assert!(scene.order().waits_for_limit());
    assert_eq!((scene.order().failures, scene.next(at(499))), (0, Step::Sleep(Some(at(500)))));
    assert_eq!(scene.next(at(500)), Step::Begin(Reason::NoVersion));
    scene.order().fail(problem("X"), Some(at(900)), at(600));
    assert!(!scene.order().waits_for_limit());
}

#[test]
fn a_private_ca_signs_as_soon_as_there_is_a_csr_and_wants_nobody_to_answer() {
    let mut scene = Scene::within(Phase::Starting);
    scene.order().private = true;
    scene.order().order_url = None;
    scene.issuers[0].private = Some(private_ca(&["*.test"]));
    let Step::HoldForIssuer(problem) = scene.next(at(20)) else { panic!("it has no root yet") };
    assert_eq!(problem.reason, "PRIVATE_CA_NO_ROOT");
    let ca = scene.issuers[0].private.as_mut().unwrap();
    let names = ca.names.clone();
    let (pem, fingerprint_sha256) = (String::new(), String::new());
    ca.take_root(Root { pem, fingerprint_sha256, not_before: at(0), not_after: at(99), names }, at(0));
    assert_eq!(scene.next(at(20)), Step::Sign);
    scene.agents[0].connected = false;
    assert_eq!(scene.next(at(20)), Step::Sign, "its key is made already");
    scene.slot = None;
    assert_eq!(scene.next(at(20)), Step::MakeKey);
    scene.agents.push(agent("2"));
    scene.agents[1].connected = false;
    let mut slot = Scene::within(Phase::Starting).slot.unwrap();
    slot.csr = None;
    scene.slot = Some(slot);
    let held = scene.held(at(20));
    assert!(held.message.contains("host-1") && !held.message.contains("host-2"), "{held:?}");
    scene.order().enter(Phase::Waiting, at(20));
    scene.order().waits_for_agent = true;
    scene.order().retry_at = Some(at(900));
    assert_eq!(scene.next(at(30)), Step::Sleep(Some(at(900))));
    scene.agents[0].connected = true;
    assert_eq!(scene.next(at(30)), Step::Begin(Reason::NoVersion));
}
