//! What is approved, and by whom.

use proptest::prelude::*;
use serde_json::{Value, json};

use super::{Wanted, request};
use crate::ids::Digest;
use crate::policy::ValidFor;
use crate::principal::{Attestation, Person, Run, SignIn};

fn run() -> impl Strategy<Value = Run> {
    let name = || prop::sample::select(vec!["a", "b"]);
    (name(), name(), name(), prop::option::of(0..2_u32), 1..3_u32, prop::option::of(name())).prop_map(
        |(dag, run, task, map_index, try_number, user)| Run {
            issuer: "prod".parse().unwrap(),
            dag_id: dag.parse().unwrap(),
            run_id: run.parse().unwrap(),
            task_id: task.parse().unwrap(),
            map_index,
            try_number,
            run_type: None,
            triggered_by: None,
            triggering_user: user.map(str::to_owned),
            team: None,
            bundle: None,
            tags: std::collections::BTreeSet::new(),
            attestation: Attestation::Issuer,
        },
    )
}

fn asked(run: &Run, valid_for: ValidFor, targets: &Value) -> Value {
    let policy = "p".parse().unwrap();
    let wanted = Wanted {
        policy: &policy,
        policy_digest: Digest::of(b"p"),
        targets,
        ttl_seconds: 60,
        valid_for,
        uses: None,
        break_glass: false,
    };
    request(run, &wanted)
}

proptest! {
    #[test]
    fn two_asks_are_one_request_exactly_where_everything_is_the_same_that_it_is_bound_to(
        one in run(), other in run(), same_scope: bool,
    ) {
        let (here, there) = (json!({"api": 1}), json!({"api": if same_scope { 1 } else { 2 }}));
        let dag = one.dag_id == other.dag_id && one.triggering_user == other.triggering_user && same_scope;
        let run = dag && one.run_id == other.run_id;
        let task = run && one.task_id == other.task_id && one.map_index == other.map_index;
        let window = ValidFor::Window { seconds: 60 };
        for (valid_for, same) in [(window, dag), (ValidFor::Run, run), (ValidFor::Task, task)] {
            let (one, other) = (asked(&one, valid_for, &here), asked(&other, valid_for, &there));
            prop_assert_eq!(one == other, same, "{:?}: {} {}", valid_for, one, other);
        }
    }
}

fn person(issuer: &str, subject: &str, email: Option<&str>, username: Option<&str>) -> Person {
    Person {
        issuer: issuer.parse().unwrap(),
        subject: subject.into(),
        email: email.map(str::to_owned),
        username: username.map(str::to_owned),
        groups: std::collections::BTreeSet::new(),
        sign_in: SignIn::default(),
    }
}

#[test]
fn two_accounts_are_one_human_where_anything_says_so() {
    let bob = person("staff", "u1", Some("bob@acme.example"), Some("bob"));
    for (other, same) in [
        (person("staff", "u1", None, None), true),
        (person("staff", "u2", Some("BOB@acme.example"), None), true),
        (person("staff", "u2", None, Some("Bob")), true),
        (person("contractors", "u1", None, None), false),
        (person("contractors", "u9", Some("bob@acme.example"), None), true),
        (person("contractors", "u9", None, Some("bob")), false),
        (person("staff", "u2", Some("bob@other.example"), None), false),
        (person("staff", "u2", None, None), false),
    ] {
        assert_eq!(bob.may_be(&other), same, "{other:?}");
        assert_eq!(other.may_be(&bob), same, "{other:?}");
    }
}

#[test]
fn who_applied_a_policy_is_known_under_each_of_their_names() {
    let erin = person("staff", "u7", Some("erin@acme.example"), Some("e.rin"));
    for (author, same) in [
        ("person:staff:u7", true),
        ("person:staff:erin", true),
        ("person:staff:e.rin", true),
        ("person:staff:erin%40acme.example", true),
        ("person:contractors:u7", false),
        ("person:staff:u8", false),
        ("operator:u7", false),
        ("operator:erin", false),
    ] {
        assert_eq!(erin.may_be_principal(author), same, "{author}");
    }
}
