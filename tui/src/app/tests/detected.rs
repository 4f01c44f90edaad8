//! What an agent found on its server, on the screen.

use super::{Call, Desk, Key, Place};

fn detected() -> Desk {
    let mut desk = Desk::connected(120, 40);
    desk.keys("3\n").key(Key::Tab);
    desk
}

#[test]
fn what_was_found_shows_with_the_difference_that_a_suggestion_makes() {
    let mut desk = detected();
    desk.shows("www.example.test").shows("takes over").shows("+ certificate www.example.test for");
    desk.shows("path = \"/etc/nginx/tls\"").shows("certbot renews it too").shows("runs as nginx.service");
    desk.keys("jj").shows("✓ shop");
    insta::assert_snapshot!(detected().picture());
}

#[test]
fn t_lets_the_agent_look_anew() {
    let mut desk = Desk::connected(80, 24);
    desk.keys("3\nt");
    assert!(matches!(desk.sent.as_slice(), [Call::Detect(name)] if name == "h1"), "{:?}", desk.sent);
    desk.shows("2 suggestion(s)").shows("SUGGESTION");
}

#[test]
fn enter_makes_a_draft_of_a_certificate_that_asks_for_exactly_what_was_suggested() {
    let mut desk = detected();
    desk.key(Key::Enter);
    assert_eq!(desk.model.place, Place::AddCertificate);
    for _ in 0..60 {
        if desk.sent.iter().any(|call| matches!(call, Call::Create(request) if request.dry_run)) {
            break;
        }
        desk.key(Key::Enter);
    }
    let request = |call: &Call| if let Call::Create(request) = call { Some(request.clone()) } else { None };
    let asked = desk.sent.iter().find_map(request);
    let (asked, one) = (asked.unwrap(), super::fixtures::detected().suggestions.remove(0));
    assert_eq!((asked.name.as_str(), &asked.identifiers), ("www.example.test", &one.identifiers));
    assert_eq!(asked.http01, one.http01);
    assert_eq!(asked.target, one.target);
}

#[test]
fn a_target_more_is_asked_about_and_what_is_there_is_opened() {
    let mut desk = detected();
    desk.keys("j\n").shows("add a target to web");
    desk.keys("y");
    assert!(
        matches!(desk.sent.as_slice(), [Call::AddTarget(request)] if request.certificate == "web" && !request.request_id.is_empty()),
        "{:?}",
        desk.sent
    );
    let mut desk = detected();
    desk.keys("jj\n");
    assert_eq!(desk.model.place, Place::Certificate("shop".into()));
}
