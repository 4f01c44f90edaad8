//! What is changed from the dashboard: versions revoked, issuers, limits and settings; and what cannot be changed, with why.

use proto::operator::v1::{Denied, Issue, PrivateCaSpec, SetIssuerRequest, WhoamiResponse};

use super::fixtures::{self, private_issuer};
use super::{Desk, TOOK};
use crate::app::Msg;
use crate::app::call::Call;
use crate::keys::Key;
use crate::screens::Place;

#[test]
fn an_issuer_is_tested_at_once_and_gets_another_key_only_when_asked() {
    let mut desk = Desk::connected(80, 24);
    desk.keys("0t").shows("issuer lab works: its account is valid");
    desk.keys("\nK").shows("new account key of lab");
    desk.keys("\n");
    assert!(matches!(desk.sent.as_slice(), [Call::TestIssuer(name)] if name == "lab"), "Enter is Cancel");
    desk.keys("Ky").shows("issuer lab works: its account is valid");
    desk.keys("M").shows("the account of lab gets another key; its orders wait meanwhile");
    assert!(matches!(desk.sent.as_slice(), [_, Call::Rollover(name)] if name == "lab"));
}

#[test]
fn a_new_issuer_needs_a_name_and_its_key_is_nowhere_to_be_seen() {
    let mut desk = Desk::connected(80, 24);
    desk.keys("0n").shows("https://acme-v02.api.letsencrypt.org/directory");
    desk.shows("Called        le ");
    // Another CA: its directory has to be written.
    desk.key(Key::Left).shows("Directory");
    desk.keys("\n").text("acme").keys(&"\n".repeat(8));
    desk.text("kid-1").keys("\n");
    desk.text("zWNDZM6eQGHWpSRTPal5eIUYFTu7EajVIoguysqZ9wG44nMEtx3MUAsUDkMTQ12W").keys("\n\n");
    desk.shows("an https URL is needed");
    desk.text("https://ca.example.test/dir");
    desk.keys(&"\n".repeat(10));
    let Some(Call::AddIssuer(wish)) = desk.sent.last().cloned() else { panic!("{:?}", desk.sent) };
    assert_eq!((wish.request.name.as_str(), wish.request.external_kid.as_str()), ("acme", "kid-1"));
    assert_eq!(wish.request.directory, "https://ca.example.test/dir");
    assert!(wish.key.expose().starts_with("zWNDZM") && wish.request.external_key.is_empty());
    assert!(!format!("{:?}{:?}", desk.model, desk.sent).contains("zWNDZM"));
    assert_eq!(desk.model.place, Place::Issuer("acme".into()));
    desk.shows("issuer acme was added; it is tried now");
}

#[test]
fn the_draft_of_an_issuer_is_kept_without_its_key() {
    let mut desk = Desk::connected(80, 24);
    desk.keys("0n\n").text("-two");
    desk.keys(&"\n".repeat(7));
    desk.text("SECRETSECRETSECRETSECRET").shows("(24 characters, not shown)");
    desk.key(Key::Esc).shows("without its key");
    desk.keys("n").shows("le-two");
    assert!(!desk.picture().contains("characters, not shown"));
}

#[test]
fn an_issuers_sheet_sends_only_what_was_changed() {
    let mut desk = Desk::connected(80, 24);
    desk.keys("0je").shows("Nothing is changed so far");
    desk.key(Key::BackTab).keys("\n").shows("nothing is changed yet");
    assert!(desk.sent.is_empty());
    desk.key(Key::Tab).key(Key::Tab).keys(" ").shows("You agree to the CA's terms");
    desk.shows("certwright issuers set le --accept-terms");
    desk.key(Key::BackTab).key(Key::BackTab).keys("\n");
    let Some(Call::SetIssuer(wish)) = desk.sent.last().cloned() else { panic!("{:?}", desk.sent) };
    let expected = SetIssuerRequest { name: "le".into(), accept_terms: true, ..Default::default() };
    assert_eq!(wish.request, expected);
    assert_eq!(desk.model.place, Place::Issuers);
}

#[test]
fn limits_are_set_where_they_are_read() {
    let mut desk = Desk::connected(80, 24);
    desk.keys("0\nlle").shows("300/3h");
    desk.key(Key::Ctrl('u')).text("100").key(Key::BackTab).keys("\n");
    desk.shows("not a number in a period");
    desk.text("/1d").shows("orders: 300/3h becomes 100/1d");
    desk.key(Key::BackTab).keys("\n");
    let Some(Call::SetLimits(request)) = desk.sent.last().cloned() else { panic!("{:?}", desk.sent) };
    let set: Vec<_> = request.set.iter().map(|one| (one.kind.as_str(), one.count, one.period_seconds)).collect();
    assert_eq!((set, request.reset), (vec![("orders", 100, 86_400)], false));
    desk.shows("[Limits]");
}

#[test]
fn the_settings_of_a_certificate_say_what_a_change_costs_before_it_is_saved() {
    let mut desk = Desk::connected(80, 24);
    desk.keys("2jj\ne").shows("Nothing is changed so far");
    for _ in 0..5 {
        desk.key(Key::BackTab);
    }
    desk.keys(" ").shows("Nothing is ordered now").shows("It EXPIRES unless someone renews it by hand");
    desk.keys(" ").shows("Nothing is changed so far");
    desk.key(Key::BackTab).text("le").shows("--fallback le");
    desk.key(Key::BackTab).key(Key::BackTab).key(Key::BackTab).keys(" ");
    desk.shows("A new version with a new key is ordered at lab at once: one order.");
    desk.shows("--key p384");
    desk.keys(&"\n".repeat(8));
    let Some(Call::Update(request)) = desk.sent.last().cloned() else { panic!("{:?}", desk.sent) };
    assert!(request.key_type == Some(2) && request.custody.is_none() && request.issuer.is_none(), "{request:?}");
    assert!(request.set_fallbacks && request.fallbacks == ["le"] && request.expected_revision == 7, "{request:?}");
    desk.shows("is changed; a new version is ordered");
}

#[test]
fn a_profile_is_chosen_where_the_directory_lists_some_and_written_elsewhere() {
    let mut desk = Desk::connected(80, 24);
    desk.keys("2jj\ne\n").text("odd").shows("--profile odd");
    desk.key(Key::Ctrl('u')).key(Key::BackTab).keys(" ").shows("(*) le");
    desk.key(Key::Tab).keys(" ").shows("(*) classic");
    desk.shows("--issuer le --profile classic");
}

#[test]
fn only_an_issuer_that_nothing_uses_is_removed_and_only_by_its_name() {
    let mut desk = Desk::connected(80, 24);
    desk.keys("0D").shows("remove: not now, 1 certificate(s) use it");
    desk.keys("jK").shows("new key: not now, the account is terms");
    desk.keys("D").shows("remove issuer le");
    desk.keys("\n");
    assert!(desk.sent.is_empty());
    desk.keys("le\n").shows("Enter counts in 3s");
    assert!(desk.sent.is_empty(), "not before it could be read");
    desk.later(3).keys("\n").shows("issuer le is removed");
    assert!(matches!(desk.sent.as_slice(), [Call::RemoveIssuer(name)] if name == "le"));
}

#[test]
fn a_closed_limit_is_told_in_the_words_of_the_ca() {
    let mut desk = Desk::connected(80, 24);
    desk.keys("0\nll").shows("[Limits]");
    desk.shows("1 order(s) wait for a place");
    desk.keys("j").shows("Closed by the CA until 2026-11-21 23:00Z: too many certificates");
    desk.keys("q:issuer le\n").shows("Issuers > le");
    desk.shows("HALTED: the CA wants its terms agreed to");
}

#[test]
fn revoking_chooses_a_reason_wants_the_name_and_says_what_follows() {
    let mut desk = Desk::connected(80, 24);
    desk.keys("2jjV");
    let name = desk.model.certificates.current().unwrap().name.clone();
    desk.shows(&format!("revoke {name}"));
    desk.shows("a replacement with a new key is ordered at once");
    desk.shows("(*) superseded");
    desk.keys("\n");
    assert!(desk.sent.is_empty(), "not without the name");
    desk.key(Key::Tab).keys(&name).later(3).keys("\n");
    assert!(
        matches!(desk.sent.as_slice(), [Call::RevokeVersion(request)] if request.name == name
            && request.reason == "keyCompromise" && request.serial == "04ab12cd" && !request.request_id.is_empty()),
        "{:?}",
        desk.sent
    );
}

#[test]
fn an_earlier_version_is_revoked_from_the_history() {
    let mut desk = Desk::connected(80, 24);
    desk.keys("2jj\nlllj");
    desk.shows("03ffee00");
    desk.keys("V").shows("serial 03ffee00");
    desk.shows("what is served now is not touched");
    desk.later(3).keys("host-00.example.test\n");
    assert!(matches!(desk.sent.as_slice(), [Call::RevokeVersion(_)]));
    desk.keys("j").shows("REVOKED keyCompromise");
    desk.keys("V").shows("revoke: not now, it is revoked already");
    assert!(matches!(desk.sent.as_slice(), [Call::RevokeVersion(request)] if request.serial == "03ffee00"));
}

#[test]
fn what_a_role_may_not_do_is_dim_with_the_role_that_may() {
    let mut desk = Desk::new(80, 24);
    let denied = ["AddIssuer", "RemoveIssuer", "SetIssuer", "RolloverAccount"];
    let denied = denied.map(|rpc| Denied { rpc: rpc.into(), needs: "owner".into() }).to_vec();
    let who = WhoamiResponse { role: "maintainer".into(), denied, ..WhoamiResponse::default() };
    desk.send(Msg::Connected { who: Box::new(who), took: TOOK });
    for key in ["n", "e", "K", "D"] {
        desk.keys("0").keys(key).shows("not now, needs owner");
    }
    assert!(desk.sent.is_empty() && desk.model.layers.is_empty());
    desk.keys("t\nlle").shows("lab > limits");
    assert!(matches!(desk.sent.as_slice(), [Call::TestIssuer(_)]), "{:?}", desk.sent);
}

#[test]
fn a_key_that_cannot_work_says_why_everywhere() {
    let mut desk = Desk::connected(80, 24);
    desk.certificates.retain(|record| record.current.is_none());
    desk.keys("2V");
    assert!(desk.model.layers.is_empty());
    desk.shows("revoke: not now, there is no version yet");
    desk.keys("?").shows("revoke at the CA  (there is no version yet)");
    desk.keys("q:revoke at").shows("(there is no version yet)");
}

#[test]
fn a_private_ca_is_made_with_the_names_that_it_may_certify() {
    let mut desk = Desk::connected(140, 40);
    desk.keys("0n").key(Key::Left).key(Key::Left).shows("May certify").shows("Called        corp ");
    assert!(!desk.picture().contains("Terms") && !desk.picture().contains("Directory"));
    desk.keys(&"\n".repeat(7)).shows("it certifies nothing unless you say what");
    desk.text("*.corp.example 10.0.0.0/8").shows("Clients trust it once they have the root");
    desk.shows("certwright issuers add corp --private --names '*.corp.example' --names 10.0.0.0/8");
    desk.keys("\n").key(Key::Ctrl('u')).text("soon").keys(&"\n".repeat(4)).shows("not a lifetime");
    desk.key(Key::Ctrl('u')).text("30d").shows("--lifetime 30d");
    desk.keys(&"\n".repeat(4));
    let Some(Call::AddIssuer(wish)) = desk.sent.last().cloned() else { panic!("{:?}", desk.sent) };
    let ca = wish.request.private_ca.unwrap();
    assert_eq!((ca.names, ca.leaf_life_seconds), (vec!["*.corp.example".into(), "10.0.0.0/8".into()], 2_592_000));
    assert!(wish.request.directory.is_empty() && !wish.request.accept_terms);
}

#[test]
fn a_private_ca_shows_its_roots_and_list_and_is_changed_where_it_can_be() {
    let mut desk = Desk::connected(80, 24);
    desk.issuers = vec![private_issuer()];
    desk.keys("r0").shows("private").shows("here");
    desk.keys("\n").shows("[Authority]").shows("*.corp.example, 10.0.0.0/8").shows("2 revoked").shows("90d");
    desk.keys("l").shows("[Roots]").shows("earlier, of the same key").shows("certwright issuers root corp");
    desk.keys("he").shows("Nothing is changed so far");
    desk.text(" db.example").shows("A new root certificate of the same key").shows("--names db.example");
    desk.keys(&"\n".repeat(4));
    let Some(Call::SetIssuer(wish)) = desk.sent.last().cloned() else { panic!("{:?}", desk.sent) };
    let private_ca = PrivateCaSpec {
        names: ["*.corp.example", "10.0.0.0/8", "db.example"].map(str::to_owned).into(),
        ..Default::default()
    };
    let expected = SetIssuerRequest { name: "corp".into(), private_ca: Some(private_ca), ..Default::default() };
    assert_eq!(wish.request, expected);
}

#[test]
fn a_join_token_is_forgotten_wherever_one_goes() {
    let mut desk = Desk::connected(80, 24);
    desk.keys("3n").text("h9").keys("\n\n\n");
    assert!(desk.model.enroll.as_ref().is_some_and(|enroll| enroll.awaits().is_some()));
    desk.keys("2");
    assert!(desk.model.place == Place::Certificates && desk.model.enroll.is_none());
    desk.keys("-");
    assert_eq!(desk.model.place, Place::Agents, "it is not brought back");
}

#[test]
fn a_certificate_of_a_private_ca_needs_nobody_to_answer() {
    let mut desk = Desk::new(140, 40);
    desk.issuers = vec![private_issuer()];
    desk.connect();
    desk.keys("2n").text("a.corp.example").keys(&"\n".repeat(7));
    desk.shows("A private CA of this controller signs at once");
    desk.keys(&"\n".repeat(7)).keys(&"\n".repeat(12)).shows("HTTP-01    not needed");
    let Some(Call::Create(request)) = desk.sent.last().cloned() else { panic!("{:?}", desk.sent) };
    assert!(request.issuer == "corp" && request.http01.is_none() && request.responders.is_empty(), "{request:?}");
}

#[test]
fn a_service_fills_in_its_target_and_every_field_stays_editable() {
    let mut desk = Desk::connected(80, 24);
    desk.keys("2n").text("www.example.test").keys(&"\n".repeat(15));
    let choose = |desk: &mut Desk, label: &str| {
        for _ in 0..proto::presets::PRESETS.len() + 1 {
            if desk.picture().contains(&format!("< {label} >")) {
                return;
            }
            desk.key(Key::Right);
        }
        panic!("{label} is not offered: {}", desk.picture());
    };
    choose(&mut desk, "PostgreSQL");
    desk.shows("Directory     /etc/postgresql-common/ssl/www.example.test");
    desk.shows("Owner         root:postgres");
    desk.shows("Key mode      0640");
    desk.shows("/usr/bin/systemctl reload postgresql");
    choose(&mut desk, "HAProxy");
    desk.shows("Directory     /etc/haproxy/certs");
    desk.shows("combined=www.example.test.pem");
    desk.keys("\n").key(Key::Ctrl('u')).text("/srv/tls");
    desk.keys(&"\n".repeat(10));
    desk.shows("[5 Review]");
    desk.shows("on h1 in /srv/tls/");
    desk.shows("www.example.test.pem  0600  the agent's user  leaf, chain and private key");
    desk.shows("HAProxy says bind :443 ssl crt /srv/tls");
    desk.keys("\n");
    let Some(Call::Create(request)) = desk.sent.last().cloned() else { panic!("nothing was created") };
    let target = request.target.unwrap();
    let file = target.files.first().unwrap();
    assert_eq!((file.name.as_str(), file.mode), ("www.example.test.pem", 0o600));
    let test = ["/usr/sbin/haproxy", "-c", "-f", "/etc/haproxy/haproxy.cfg"];
    assert_eq!(target.validate.first().unwrap().argv, test);
    assert_eq!(target.reload.first().unwrap().argv, ["/usr/bin/systemctl", "reload", "haproxy"]);
}

#[test]
fn a_target_is_changed_where_it_stands_with_the_difference_shown_before() {
    let mut desk = Desk::connected(80, 24);
    desk.keys("2jj\n").key(Key::Tab).keys("e").shows("change a target").shows("Nothing is changed so far");
    desk.key(Key::Tab).key(Key::Tab).key(Key::Tab).key(Key::Tab).key(Key::Ctrl('u')).text("0640");
    desk.shows("- file key=key.pem 0600").shows("+ file key=key.pem 0640").shows("--mode 'key=0640'");
    desk.key(Key::Tab).text("/usr/sbin/nginx -t ; relative");
    desk.key(Key::Tab).key(Key::Tab).key(Key::Tab).key(Key::Tab).keys("\n");
    desk.shows("not an absolute program");
    desk.key(Key::Ctrl('u')).text("/usr/sbin/nginx -t").shows("--validate '/usr/sbin/nginx -t'");
    desk.keys("\n\n\n\n\n");
    let Some(Call::SetTarget(request)) = desk.sent.last().cloned() else { panic!("{:?}", desk.sent) };
    let spec = request.target.unwrap();
    assert_eq!(spec.validate[0].argv, ["/usr/sbin/nginx", "-t"]);
    assert!(spec.files.iter().any(|file| file.mode == 0o640 && file.name == "key.pem"), "{spec:?}");
    assert!(spec.files.iter().any(|file| file.owner == "root:www-data"), "what was not touched stays: {spec:?}");
    assert!(!request.request_id.is_empty());
    desk.shows("is changed; it is deployed now");
}

#[test]
fn an_older_version_is_deployed_from_the_history() {
    let mut desk = Desk::connected(80, 24);
    desk.keys("2jj\n").key(Key::BackTab).key(Key::BackTab).shows("[History]");
    desk.keys("jd").shows("deploy: not now, its key is gone");
    desk.model.certificate.versions.as_mut().unwrap()[1].deployable = true;
    desk.keys("d").shows("deploy a version of").shows("until the next one is issued");
    desk.keys("y");
    let Some(Call::Deploy(request)) = desk.sent.last().cloned() else { panic!("{:?}", desk.sent) };
    assert!(!request.version.is_empty() && request.agent.is_empty() && !request.request_id.is_empty(), "{request:?}");
}

#[test]
fn a_stopped_rollout_goes_on_when_asked_and_is_set_in_the_settings() {
    let mut desk = Desk::connected(80, 24);
    desk.keys("2jj\ne")
        .key(Key::BackTab)
        .key(Key::BackTab)
        .key(Key::BackTab)
        .text("Sat 02:00-05:00;daily 12:00-13:00 UTC")
        .shows("--window 'Sat 02:00-05:00'");
    desk.key(Key::BackTab).text("canary=h1").shows("--rollout 'canary=h1'");
    desk.key(Key::Esc);
    let record = desk.model.certificate.record.as_mut().unwrap();
    record.issues.push(Issue { kind: "rollout_stopped".into(), ..Default::default() });
    desk.keys("d").shows("The rollout is stopped").shows("whatever comes of it");
    desk.keys("y");
    let Some(Call::Deploy(request)) = desk.sent.last().cloned() else { panic!("{:?}", desk.sent) };
    assert!(request.continue_rollout && request.agent.is_empty(), "{request:?}");
}

#[test]
fn a_target_says_that_it_waits_for_its_window_and_deploy_now_does_not() {
    let mut desk = Desk::connected(140, 40);
    let mut held = fixtures::drifted_target();
    held.status = proto::types::v1::TargetStatus::Pending.into();
    (held.waits, held.waits_until, held.problem) = ("for its window".to_owned(), fixtures::at(3_600), None);
    desk.certificates[0] = proto::operator::v1::Certificate {
        targets: vec![held],
        windows: vec!["Sat 02:00-05:00 UTC".to_owned()],
        ..fixtures::certificate("shop.example.test")
    };
    desk.keys("2\n").key(Key::Tab);
    desk.shows("held").shows("waits for its window, at most until");
    desk.keys("d").shows("whatever its window says");
}

#[test]
fn a_drift_stands_with_its_cause_at_its_target() {
    let mut desk = Desk::connected(140, 40);
    desk.certificates[0] = proto::operator::v1::Certificate {
        targets: vec![fixtures::drifted_target(), fixtures::repaired_target()],
        ..fixtures::certificate("shop.example.test")
    };
    desk.keys("2\n").key(Key::Tab);
    for text in ["drifted", "key.pem is missing; fullchain.pem was changed", "targets deploy NAME"] {
        desk.shows(text);
    }
    desk.keys("j").shows("drifted 1h ago and right again: key.pem is missing");
}

#[test]
fn a_test_of_a_target_is_read_where_it_was_asked_and_changes_nothing() {
    let mut desk = Desk::connected(100, 30);
    desk.keys("2\n").key(Key::Tab).shows("[Targets");
    desk.keys("t");
    let Some(Call::TestTargets(request)) = desk.sent.last().cloned() else { panic!("{:?}", desk.sent) };
    assert!(!request.target_id.is_empty() && request.target.is_none(), "{request:?}");
    desk.shows("nothing was changed").shows("unknown directive").shows("agent h2 is away");
    insta::assert_snapshot!("tests_of_targets", desk.picture());
    desk.key(Key::Esc).key(Key::BackTab).keys("t");
    let Some(Call::TestTargets(request)) = desk.sent.last().cloned() else { panic!("{:?}", desk.sent) };
    assert_eq!(request.target_id, "", "elsewhere all of them");
}

#[test]
fn a_look_at_challenges_shows_the_whole_way_where_it_was_asked() {
    let mut desk = Desk::connected(100, 30);
    desk.keys("2\n").keys("C");
    let Some(Call::CheckChallenges(name)) = desk.sent.last().cloned() else { panic!("{:?}", desk.sent) };
    assert_eq!(name, "shop.example.test");
    desk.shows("as a CA would see them").shows("301, to").shows("keeps the CA from the challenge");
    insta::assert_snapshot!("look_at_challenges", desk.picture());
}
