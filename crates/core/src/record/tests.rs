//! The canonical bytes.

use proptest::prelude::*;

use cortex_log::Hash;
use cortex_log::opening::Head;

use super::*;
use crate::freeze::Scope;
use crate::revocation::Selector;

fn json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<i16>().prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        any::<String>().prop_map(Value::from),
        "[ -~\\x00-\\x1f\"\\\\/]{0,12}".prop_map(Value::from),
    ];
    leaf.prop_recursive(4, 48, 8, |inner| {
        let key = prop_oneof![4 => "[a-z_\"\\\\\\x00-\\x1f]{0,8}", 1 => any::<String>()];
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..6).prop_map(Value::from),
            prop::collection::vec((key, inner), 0..8)
                .prop_map(|pairs| Value::Object(pairs.into_iter().collect())),
        ]
    })
}

proptest! {
    #[test]
    fn the_quick_way_writes_what_the_general_way_writes(value in json()) {
        let general = serde_json_canonicalizer::to_vec(&value).unwrap();
        prop_assert_eq!(String::from_utf8(canonical(value).unwrap()), String::from_utf8(general));
    }
}

/// One of each kind whose data is not a whole request.
#[expect(clippy::too_many_lines, reason = "a list")]
fn examples() -> Vec<What> {
    let uuid = |n: u128| uuid::Uuid::from_u128(n);
    let at: Timestamp = "2026-11-23T02:00:00Z".parse().unwrap();
    let scope = Scope::Dag { issuer: None, dag_id: "finance_publish".parse().unwrap() };
    let by = || "person:staff:ann".to_owned();
    let change =
        || Change { name: "first-steps".into(), version: Some(1), digest: Some(Digest::of(b"x")), by: by() };
    let key = || KeyChange { kid: "k".into(), active_from: at, by: by() };
    let end = || GrantEnd {
        grant_id: uuid(1).into(),
        policy: "first-steps".parse().unwrap(),
        request_digest: Digest::of(b"y"),
        dag_id: "d".into(),
        run_id: Some("r".into()),
        was: "approved".into(),
        status: "withdrawn".into(),
        by: Some(by()),
        because: None,
    };
    let person = || PersonChange { issuer: "staff".parse().unwrap(), subject: "ann".into(), by: by() };
    let settled = |how| Settled {
        provider: "aws".into(),
        target: "arn".into(),
        how,
        issuances: vec![(uuid(2).into(), at)],
    };
    vec![
        What::Outcome {
            issuance_id: uuid(3).into(),
            outcome: Outcome::Failed { code: "c".into(), message: "m".into(), withheld_until: Some(at) },
        },
        What::Denials {
            reason: "signature".into(),
            network: "10.0.0.0/24".into(),
            dag: None,
            count: 3,
            since: at,
        },
        What::PolicyApplied(change()),
        What::PolicyRetired(Change { version: None, digest: None, ..change() }),
        What::GuardrailsApplied(change()),
        What::GrantWithdrawn(end()),
        What::GrantExpired(end()),
        What::GrantVoided(end()),
        What::PreapprovalEnded(GrantEnd { run_id: None, ..end() }),
        What::NotificationDead {
            notification_id: uuid(4).into(),
            endpoint: "chatops".into(),
            event: "freeze.set".into(),
            record_id: uuid(5).into(),
            attempts: 3,
            error: "e".into(),
        },
        What::FreezeSet {
            freeze_id: uuid(6).into(),
            scope: scope.clone(),
            reason: "why".into(),
            by: by(),
            until: Some(at),
        },
        What::FreezeLifted { freeze_id: uuid(6).into(), scope: scope.clone(), by: by() },
        What::HoldSet {
            hold_id: uuid(11).into(),
            scope: scope.clone(),
            from: None,
            until: Some(at),
            reason: "why".into(),
            by: by(),
        },
        What::HoldLifted { hold_id: uuid(11).into(), scope: scope.clone(), by: by() },
        What::Archived(Archived {
            place: "s3://acme-log/prod".into(),
            before: at,
            trees: vec![Head { origin: "acme/log/2026".into(), size: 3, root: Hash::ZERO }],
            by: by(),
        }),
        What::Dropped(Dropped {
            archive: "s3://acme-log/prod".into(),
            before: at,
            trees: vec![Extent { origin: "acme/log/2026".into(), size: 3 }],
            by: by(),
        }),
        What::RevocationRequested {
            revocation_id: uuid(7).into(),
            selector: Selector::Within { scope, since: Some(at) },
            up_to: uuid(8).into(),
            reason: "why".into(),
            by: by(),
        },
        What::RevocationRequested {
            revocation_id: uuid(7).into(),
            selector: Selector::Issuance { issuance_id: uuid(9).into() },
            up_to: uuid(8).into(),
            reason: "why".into(),
            by: by(),
        },
        What::RevocationFailing {
            provider: "aws".into(),
            target: "arn".into(),
            attempts: 3,
            pending: 1,
            error: "e".into(),
        },
        What::RevocationSettled(settled(SettledHow::Enforced { evidence: serde_json::json!({"by": "x"}) })),
        What::RevocationSettled(settled(SettledHow::ExpiresAt { why: "w".into() })),
        What::SessionEnded {
            session_id: uuid(10).into(),
            person: by(),
            why: SessionEnd::Revoked,
            by: Some(by()),
        },
        What::SessionRefused {
            reason: "disabled".into(),
            person: by(),
            request_id: "q".into(),
            source: Some(std::net::IpAddr::from([10, 0, 0, 1]).into()),
        },
        What::PersonDisabled(person()),
        What::PersonEnabled(person()),
        What::PersonErased(Erasure {
            person: format!("person:staff:~{}", "A".repeat(43)),
            users: Vec::new(),
            reason: "why".into(),
            by: by(),
        }),
        What::KeyCreated(key()),
        What::KeyRotated(key()),
        What::KeyRetired(key()),
    ]
}

#[test]
fn what_is_written_down_is_read_back_as_it_was() {
    let at: Timestamp = "2026-11-23T02:00:00.000001Z".parse().unwrap();
    for what in examples() {
        let id = uuid::Uuid::from_u128(99).into();
        let entry = Entry { v: 1, id, at, replica: "c1".into(), build: "0".into(), what };
        let leaf = entry.leaf().unwrap();
        let read: Entry = serde_json::from_slice(&leaf)
            .unwrap_or_else(|error| panic!("{error}: {}", String::from_utf8_lossy(&leaf)));
        assert_eq!(read, entry);
    }
}
