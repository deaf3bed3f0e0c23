//! Genuine tokens that prove nothing here: refused, and recorded against their issuer.

use cortex_core::Principal;
use cortex_identity::Reason;
use serde_json::json;

use crate::forge::{RSA, token_of};
use crate::table::Audit::Denial;
use crate::table::{attack, header, run};
use crate::world::{AUDIENCE, World};

#[tokio::test]
async fn types_are_checked() {
    let world = World::new().await;
    let payload = world.run_claims("prod").to_string();
    let mut attacks = Vec::new();
    for typ in ["logout+jwt", "at+jwt", "application/at+jwt", "secevent+jwt", "dpop+jwt", "", "JWTX"] {
        let bad = token_of(&header(&json!({"typ": typ})), &payload, &RSA);
        attacks.push(attack("A8", typ, bad, Reason::Typ, Denial));
    }
    run(&world, attacks).await;
    for typ in ["JWT", "jwt", "application/jwt"] {
        assert!(
            world.verify(&token_of(&header(&json!({"typ": typ})), &payload, &RSA)).await.is_ok(),
            "{typ}"
        );
    }
    let untyped = token_of(r#"{"alg":"RS256","kid":"main"}"#, &payload, &RSA);
    assert!(world.verify(&untyped).await.is_ok());

    let strict = World::with(|config| {
        config.types = vec!["at+jwt".into()];
        config.allow_missing_type = false;
    })
    .await;
    let payload = strict.run_claims("prod").to_string();
    let untyped = token_of(r#"{"alg":"RS256","kid":"main"}"#, &payload, &RSA);
    run(
        &strict,
        vec![
            attack("A8", "absent", untyped, Reason::Typ, Denial),
            attack("A8", "JWT, at+jwt wanted", strict.good(), Reason::Typ, Denial),
        ],
    )
    .await;
    let access = token_of(&header(&json!({"typ": "at+jwt"})), &payload, &RSA);
    assert!(strict.verify(&access).await.is_ok());
}

#[tokio::test]
async fn there_is_one_audience() {
    let world = World::new().await;
    let mut attacks = Vec::new();
    for (id, aud) in [
        ("A27", json!(null)),
        ("A27", json!(7)),
        ("A27", json!([])),
        ("A27", json!("https://cortex.example/")),
        ("A27", json!("https://cortex.exampl")),
        ("A27", json!("https://cortex.example.evil.example")),
        ("A27", json!("HTTPS://cortex.example")),
        ("A27", json!(["other", AUDIENCE])),
        ("A27", json!([AUDIENCE, AUDIENCE])),
        ("A27", json!([[AUDIENCE]])),
        ("A27", json!({"aud": AUDIENCE})),
        ("A28", json!("sts.amazonaws.com")),
    ] {
        let bad = world.prod(|claims| claims["aud"] = aud.clone());
        attacks.push(attack(id, aud.to_string(), bad, Reason::Aud, Denial));
    }
    let absent = world.prod(|claims| drop(claims.as_object_mut().unwrap().remove("aud")));
    attacks.push(attack("A27", "absent", absent, Reason::Aud, Denial));
    run(&world, attacks).await;
    let listed = world.prod(|claims| claims["aud"] = json!([AUDIENCE]));
    assert!(world.verify(&listed).await.is_ok(), "a list of exactly one is one");
}

#[tokio::test]
async fn times_are_plain_and_bounded() {
    let world = World::new().await;
    let now = world.now().as_second();
    let mut attacks = Vec::new();
    for (id, claim, value, reason) in [
        ("A18", "exp", json!((now + 300).to_string()), Reason::Exp),
        ("A18", "exp", json!(true), Reason::Exp),
        ("A18", "exp", json!(null), Reason::Exp),
        ("A18", "nbf", json!(now.to_string()), Reason::Nbf),
        ("A18", "nbf", json!(null), Reason::Nbf),
        ("A18", "iat", json!(now.to_string()), Reason::Lifetime),
        ("A19", "nbf", json!(now + 31), Reason::Nbf),
        ("A19", "iat", json!(now + 31), Reason::Nbf),
        ("A20", "exp", json!(-1), Reason::Lifetime),
        ("A20", "exp", json!(1e18), Reason::Lifetime),
        ("A20", "exp", json!(1_000_000_000_000_000_000_u64), Reason::Lifetime),
        ("A20", "exp", json!(u64::MAX), Reason::Lifetime),
        ("A20", "exp", json!(300.5), Reason::Lifetime),
        ("A20", "exp", json!(now + 3601), Reason::Lifetime),
        ("A20", "iat", json!(now - 3301), Reason::Lifetime),
        ("A20", "iat", json!(-1), Reason::Lifetime),
        ("A20", "iat", json!(now + 300), Reason::Lifetime),
        ("A20", "nbf", json!(0.5), Reason::Lifetime),
    ] {
        let bad = world.prod(|claims| claims[claim] = value.clone());
        attacks.push(attack(id, format!("{claim} {value}"), bad, reason, Denial));
    }
    for claim in ["exp", "iat"] {
        let absent = world.prod(|claims| drop(claims.as_object_mut().unwrap().remove(claim)));
        attacks.push(attack("A20", format!("no {claim}"), absent, Reason::Lifetime, Denial));
    }
    run(&world, attacks).await;
}

#[tokio::test]
async fn clocks_may_differ_by_the_leeway_and_no_more() {
    let world = World::new().await;
    let now = world.now().as_second();
    let token = |iat: i64, nbf: i64, exp: i64| {
        world.prod(|claims| {
            (claims["iat"], claims["nbf"], claims["exp"]) = (json!(iat), json!(nbf), json!(exp));
        })
    };
    for (iat, nbf, exp) in [
        (now - 300, now - 300, now - 29),
        (now + 30, now + 30, now + 330),
        (now, now + 30, now + 300),
        (now, now, now + 3600),
    ] {
        assert!(world.verify(&token(iat, nbf, exp)).await.is_ok(), "{iat} {nbf} {exp}");
    }
    run(
        &world,
        vec![
            attack("exp", "30 s ago", token(now - 300, now - 300, now - 30), Reason::Exp, Denial),
            attack("A19", "in 31 s", token(now + 31, now, now + 331), Reason::Nbf, Denial),
        ],
    )
    .await;
}

#[tokio::test]
async fn names_of_claims_are_exact() {
    let world = World::new().await;
    let mut attacks = Vec::new();
    for (from, to) in [
        ("sub", "Sub"),
        ("dag_id", "DAG_ID"),
        ("dag_id", "dagId"),
        ("try_number", "Try_Number"),
        ("airflow", "Airflow"),
    ] {
        let claims = world.run_claims("prod").to_string();
        let claims = claims.replacen(&format!(r#""{from}":"#), &format!(r#""{to}":"#), 1);
        let renamed = token_of(&header(&json!({})), &claims, &RSA);
        attacks.push(attack("A16", to, renamed, Reason::Claim, Denial));
    }
    run(&world, attacks).await;
}

#[tokio::test]
async fn a_runs_claims_are_strict() {
    let world = World::new().await;
    let mut attacks = Vec::new();
    for (claim, value, reason) in [
        ("dag_id", json!("a b"), Reason::Claim),
        ("dag_id", json!(".."), Reason::Claim),
        ("dag_id", json!(""), Reason::Claim),
        ("dag_id", json!("d\u{430}g"), Reason::Claim),
        ("dag_id", json!("finance/../evil"), Reason::Claim),
        ("dag_id", json!("d".repeat(251)), Reason::Claim),
        ("dag_id", json!(7), Reason::ClaimType),
        ("dag_id", json!(["finance"]), Reason::ClaimType),
        ("run_id", json!(null), Reason::Claim),
        ("task_id", json!("a*"), Reason::Claim),
        ("map_index", json!("3"), Reason::ClaimType),
        ("map_index", json!(-2), Reason::Claim),
        ("map_index", json!(1.0), Reason::ClaimType),
        ("map_index", json!(4_294_967_296_u64), Reason::Claim),
        ("try_number", json!(0), Reason::Claim),
        ("try_number", json!("1"), Reason::ClaimType),
        ("team_name", json!("a,b"), Reason::Claim),
        ("triggering_user_name", json!("ana\u{202e}nimda"), Reason::Claim),
        ("tags", json!("mart"), Reason::ClaimType),
        ("tags", json!(["mart", 7]), Reason::ClaimType),
        ("tags", json!([""]), Reason::Claim),
    ] {
        let bad = world.prod(|claims| claims["airflow"][claim] = value.clone());
        attacks.push(attack("claim", format!("{claim} {value}"), bad, reason, Denial));
    }
    let flat = world.prod(|claims| claims["airflow"] = json!("finance"));
    attacks.push(attack("claim", "airflow is text", flat, Reason::ClaimType, Denial));
    run(&world, attacks).await;
}

#[tokio::test]
async fn subjects_and_token_ids_are_strict() {
    let world = World::new().await;
    let mut attacks = Vec::new();
    for sub in [json!(""), json!(" ana"), json!("an\u{e4}"), json!("a\nb"), json!("s".repeat(256))] {
        let bad = world.person(|claims| claims["sub"] = sub.clone());
        attacks.push(attack("sub", sub.to_string(), bad, Reason::Claim, Denial));
    }
    let numeric = world.person(|claims| claims["sub"] = json!(7));
    attacks.push(attack("sub", "7", numeric, Reason::ClaimType, Denial));
    for jti in [json!(null), json!(7), json!(""), json!("a b"), json!("j".repeat(257))] {
        let bad = world.prod(|claims| claims["jti"] = jti.clone());
        attacks.push(attack("jti", jti.to_string(), bad, Reason::Jti, Denial));
    }
    run(&world, attacks).await;
}

#[tokio::test]
async fn groups_are_an_array_of_strings() {
    let world = World::new().await;
    let mut attacks = Vec::new();
    for groups in
        [json!("admins"), json!("a,admins"), json!({"admins": true}), json!(["a", ["admins"]]), json!(7)]
    {
        let bad = world.person(|claims| claims["groups"] = groups.clone());
        attacks.push(attack("A34", groups.to_string(), bad, Reason::ClaimType, Denial));
    }
    run(&world, attacks).await;
    let odd = world.person(|claims| claims["groups"] = json!(["a,admins", "Admins"]));
    let verified = world.verify(&odd).await.unwrap();
    let Principal::Person(person) = verified.principal() else { panic!("not a person") };
    assert!(!person.groups.contains("admins"), "neither split nor folded");
}

#[tokio::test]
async fn an_address_that_two_share_makes_them_no_one_person() {
    let world = World::new().await;
    let as_person = |sub: &str| {
        world.person(|claims| {
            claims["sub"] = json!(sub);
            claims["email"] = json!("ana@example.com");
        })
    };
    let first = world.verify(&as_person("idp|1")).await.unwrap();
    let second = world.verify(&as_person("idp|2")).await.unwrap();
    assert_ne!(first.principal(), second.principal(), "A49");
    assert_ne!(first.principal().subject(), second.principal().subject(), "A49");
}
