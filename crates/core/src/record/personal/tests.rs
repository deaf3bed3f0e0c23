//! What is committed to, and that it is opened to what it was.

use std::collections::BTreeMap;

use cortex_log::personal::commitment;
use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::record::{Erasure, SessionEnd, Source};

/// Commits to everything in `what`, as a store does; answers what was committed to.
fn close(what: &mut What) -> BTreeMap<String, Personal> {
    let mut openings = BTreeMap::new();
    for mut place in what.personal() {
        let Some(personal) = place.personal() else { continue };
        let mut salt = [0; 32];
        salt[0] = personal.kind as u8;
        let text = commitment(&salt, &format!("{}/{}", personal.owner, personal.value));
        place.commit(&text);
        openings.insert(text, personal);
    }
    openings
}

fn open(what: &mut What, openings: &BTreeMap<String, Personal>) {
    for mut place in what.personal() {
        let value = place.commitment().and_then(|text| openings.get(text)).map(|found| found.value.clone());
        place.open(value.as_deref());
    }
}

fn person(subject: &str, email: Option<&str>) -> Person {
    Person {
        issuer: "staff".parse().unwrap(),
        subject: subject.to_owned(),
        email: email.map(str::to_owned),
        username: Some(subject.to_owned()),
        groups: ["ops".to_owned()].into(),
        sign_in: crate::principal::SignIn::default(),
    }
}

fn decided(by: Person, comment: &str) -> What {
    What::GrantDecided {
        grant_id: uuid::Uuid::nil().into(),
        policy: "first-steps".parse().unwrap(),
        request_digest: crate::Digest::of(b"x"),
        dag_id: None,
        run_id: None,
        by: Principal::Person(by),
        approve: true,
        comment: Some(comment.to_owned()),
        status: "approved".to_owned(),
        break_glass: false,
    }
}

fn freeze(by: &str, reason: &str, principal: &str) -> What {
    let scope = serde_json::from_value(json!({"kind": "principal", "principal": principal})).unwrap();
    let (freeze_id, reason) = (uuid::Uuid::nil().into(), reason.to_owned());
    What::FreezeSet { freeze_id, scope, reason, by: by.to_owned(), until: None }
}

proptest! {
    #[test]
    fn what_is_committed_to_is_opened_as_it_was(subject in "[!-~]{1,38}", email in "[a-z.]{1,20}@[a-z]{1,9}", comment: String) {
        prop_assume!(!is_mistakable(&subject));
        let before = decided(person(&subject, Some(&email)), &comment);
        let mut what = before.clone();
        let openings = close(&mut what);
        let text = serde_json::to_string(&what).unwrap();
        prop_assert!(!text.contains(&email));
        prop_assert_eq!(openings.len(), 4);
        prop_assert!(close(&mut what.clone()).is_empty(), "a commitment is not committed to again");
        open(&mut what, &openings);
        prop_assert_eq!(what, before);
    }
}

#[test]
fn a_person_has_one_commitment_however_they_are_named() {
    let mut decided = decided(person("bob smith", None), "fine");
    let mut frozen = freeze("person:staff:bob%20smith", "looks bad", "person:staff:bob%20smith");
    let (first, second) = (close(&mut decided), close(&mut frozen));
    let of_person = |openings: &BTreeMap<String, Personal>| {
        let mut found = openings.iter().filter(|(_, found)| found.kind == PersonalKind::Person);
        found.next().map(|(text, found)| (text.clone(), found.clone()))
    };
    assert_eq!(of_person(&first), of_person(&second));
    let What::FreezeSet { by, scope: Scope::Principal { principal }, .. } = &frozen else { panic!() };
    assert_eq!(by, principal.as_str());
    let What::GrantDecided { by: whose, .. } = &decided else { panic!() };
    assert_eq!(*by, whose.subject(), "a committed person is the principal that strings name");
}

#[test]
fn what_was_erased_says_so_and_can_still_be_told_apart() {
    let mut what = freeze("person:staff:bob", "looks bad", "service:ci:deploy");
    close(&mut what);
    let logged = what.clone();
    open(&mut what, &BTreeMap::new());
    let What::FreezeSet { by, reason, scope: Scope::Principal { principal }, .. } = &what else { panic!() };
    assert_eq!((reason.as_str(), principal.as_str()), ("erased", "service:ci:deploy"));
    let What::FreezeSet { by: on_log, .. } = &logged else { panic!() };
    assert_eq!(*by, on_log.replace(":~", ":erased~"));
    assert_eq!(on_record(by), *on_log, "who is asked for as readers saw them is found as the log has them");
    assert_eq!(on_record("person:staff:bob"), "person:staff:bob");
}

#[test]
fn operators_are_people_and_runs_and_services_are_not() {
    let mut what = What::SessionEnded {
        session_id: uuid::Uuid::nil().into(),
        person: "operator:ann".to_owned(),
        why: SessionEnd::Revoked,
        by: Some("service:ci:deploy".to_owned()),
    };
    let openings = close(&mut what);
    assert_eq!(openings.values().map(|found| found.value.as_str()).collect::<Vec<_>>(), ["operator:ann"]);
    open(&mut what, &openings);
    let What::SessionEnded { person, by, .. } = what else { panic!() };
    assert_eq!((person.as_str(), by.as_deref()), ("operator:ann", Some("service:ci:deploy")));
    let mut run = GrantEnd {
        grant_id: uuid::Uuid::nil().into(),
        policy: "first-steps".parse().unwrap(),
        request_digest: crate::Digest::of(b"y"),
        dag_id: "d".to_owned(),
        run_id: None,
        was: "requested".to_owned(),
        status: "withdrawn".to_owned(),
        by: Some("run:prod:d:r:t:-:1".to_owned()),
        because: Some("said by a run".to_owned()),
    };
    assert!(of_end(&mut run).iter().all(|place| place.personal().is_none()));
}

#[test]
fn where_people_come_from_is_theirs() {
    let mut what = What::SessionRefused {
        reason: "disabled".to_owned(),
        person: "person:staff:bob".to_owned(),
        request_id: "q".to_owned(),
        source: Some(Source::from(std::net::IpAddr::from([192, 0, 2, 7]))),
    };
    let openings = close(&mut what);
    let address = openings.values().find(|found| found.kind == PersonalKind::Address).unwrap();
    assert_eq!((address.owner.as_str(), address.value.as_str()), ("person:staff:bob", "192.0.2.7"));
    assert!(!serde_json::to_string(&what).unwrap().contains("192.0.2.7"));
}

#[test]
fn an_erasure_names_nobody() {
    let person = format!("person:staff:{}", commitment(&[7; 32], "person:staff:bob"));
    let (reason, by) = ("ticket 17".to_owned(), "person:staff:ann".to_owned());
    let mut what = What::PersonErased(Erasure { person: person.clone(), users: Vec::new(), reason, by });
    let openings = close(&mut what);
    assert_eq!(openings.len(), 2, "the admin and their words");
    open(&mut what, &BTreeMap::new());
    let What::PersonErased(erasure) = what else { panic!() };
    assert_eq!(erasure.person, person);
}

#[test]
fn nobody_may_be_called_like_a_commitment() {
    let text = commitment(&[1; 32], "x");
    for name in [text.clone(), format!("erased{text}")] {
        assert!(is_mistakable(&name), "{name}");
    }
    for name in ["bob", "~bob", "erased", "~"] {
        assert!(!is_mistakable(name), "{name}");
    }
}
