//! Tokens that must bring nothing (the attack table, rows about tokens): through HTTP, on record, and without a
//! call to any cloud.

use cortex_identity::{Algorithm, IssuerConfig, Kind};
use cortex_tests::attack::Audit::{Counted, Denial};
use cortex_tests::attack::{attack, nothing_was_issued, refused};
use cortex_tests::forge::{Attacker, Tripwire, encode, near_miss, part};
use cortex_tests::world::{TestWorld, first_run};
use reqwest::StatusCode;
use serde_json::{Value, json};

fn with(value: &Value, more: &Value) -> Value {
    let mut value = value.clone();
    value.as_object_mut().expect("an object").extend(more.as_object().expect("an object").clone());
    value
}

#[tokio::test]
async fn a_forged_signature_is_counted_and_brings_nothing() {
    let world = TestWorld::start().await;
    let attacker = Attacker::default();
    let good = world.token(&first_run("r"));
    let (header, claims) = (part(&good, 0), part(&good, 1));
    let (message, signature) = good.rsplit_once('.').unwrap();
    let other =
        near_miss(&world, &first_run("r"), |claims| claims["airflow"]["dag_id"] = json!("finance_publish"));
    let swapped = format!("{}.{signature}", other.rsplit_once('.').unwrap().0);
    let mut rows = vec![
        attack(
            "A4",
            "an attacker's key under the known id",
            attacker.sign(&header, &claims.to_string()),
            Counted("sig"),
        ),
        attack("A9", "a signature of zeros", format!("{message}.{}", encode([0; 256])), Counted("sig")),
        attack("A9", "no signature", format!("{message}."), Counted("sig")),
        attack("A9", "another token's signature", swapped, Counted("sig")),
    ];
    for alg in ["none", "nOnE", "HS256", "RS512", "rs256", ""] {
        let unsigned = format!(
            "{}.{}.",
            encode(with(&header, &json!({"alg": alg})).to_string()),
            encode(claims.to_string())
        );
        rows.push(attack("A1", format!("alg {alg:?}"), unsigned, Counted("alg")));
    }
    let kid = header["kid"].as_str().unwrap();
    for extra in [
        json!({"jwk": attacker.jwk(kid)}),
        json!({"jku": "http://127.0.0.1:9/jwks"}),
        json!({"x5u": "http://127.0.0.1:9/cert"}),
        json!({"x5c": ["MIIB"]}),
    ] {
        let token = attacker.sign(&with(&header, &extra), &claims.to_string());
        rows.push(attack("A4", extra.to_string(), token, Counted("header")));
    }
    let crit = attacker.sign(&with(&header, &json!({"crit": ["exp"]})), &claims.to_string());
    rows.push(attack("crit", "an extension", crit, Counted("crit")));
    refused(&world, rows).await;
}

#[tokio::test]
async fn hostile_key_ids_are_counted() {
    let world = TestWorld::start().await;
    let attacker = Attacker::default();
    let claims = part(&world.token(&first_run("r")), 1).to_string();
    let mut rows = Vec::new();
    for kid in [
        json!("../../x"),
        json!("' OR 1=1"),
        json!("a\u{0}b"),
        json!("k".repeat(9_000)),
        json!(null),
        json!(7),
    ] {
        let token = attacker.sign(&json!({"alg": "RS256", "typ": "JWT", "kid": kid}), &claims);
        rows.push(attack("A6", kid.to_string().chars().take(20).collect::<String>(), token, Counted("kid")));
    }
    refused(&world, rows).await;
}

#[tokio::test]
async fn an_issuer_is_pinned_to_its_algorithm_and_its_types() {
    let pinned = TestWorld::start_with(|config| config.issuers[0].algorithms = vec![Algorithm::ES256]).await;
    let token = pinned.token(&first_run("r"));
    refused(&pinned, vec![attack("A3", "RS256 where ES256 is pinned", token, Counted("alg"))]).await;
    let typed = TestWorld::start_with(|config| {
        config.issuers[0].types = vec!["at+jwt".into()];
        config.issuers[0].allow_missing_type = false;
    })
    .await;
    let token = typed.token(&first_run("r"));
    refused(&typed, vec![attack("A8", "a type that is not this issuer's", token, Denial("typ"))]).await;
}

#[tokio::test]
async fn size_and_shape_are_bounded() {
    let world = TestWorld::start().await;
    let attacker = Attacker::default();
    let good = world.token(&first_run("r"));
    let (header, iss) = (part(&good, 0), part(&good, 1)["iss"].clone());
    let deep = format!(r#"{{"iss": {iss}, "x": {}{}}}"#, "[".repeat(5_000), "]".repeat(5_000));
    let members: Vec<_> = (0..1_100).map(|i| format!(r#""{i}":0"#)).collect();
    let many = format!(r#"{{"iss": {iss}, {}}}"#, members.join(","));
    let twice = part(&good, 1).to_string().replacen(r#""dag_id":"#, r#""dag_id":"evil","dag_id":"#, 1);
    let rows = vec![
        attack("A13", "20,000 bytes", "a".repeat(20_000), Counted("size")),
        attack("A13", "50,000 dots", ".".repeat(50_000), Counted("size")),
        attack("A13", "two parts", "a.b", Counted("shape")),
        attack("A13", "five parts, as a JWE has", "e30.a.b.c.d", Counted("shape")),
        attack("A13", "a fourth part", format!("{good}.e30"), Counted("shape")),
        attack("A14", "5,000 arrays in each other", attacker.sign(&header, &deep), Counted("json")),
        attack("A14", "1,100 members", attacker.sign(&header, &many), Counted("json")),
        attack("A14", "no object", attacker.sign(&header, "[]"), Counted("json")),
        attack("A14", "a member twice", attacker.sign(&header, &twice), Counted("json")),
    ];
    refused(&world, rows).await;
}

#[tokio::test]
async fn an_unknown_issuer_is_never_contacted() {
    let world = TestWorld::start().await;
    let tripwire = Tripwire::start().await;
    let attacker = Attacker::default();
    let iss = world.world.sandbox.issuer_url().to_owned();
    let header = json!({"alg": "RS256", "typ": "JWT", "kid": "k", });
    let claims = part(&world.token(&first_run("r")), 1);
    let mut rows = Vec::new();
    for (id, named) in [
        ("A21", json!(tripwire.url)),
        ("A21", json!(format!("{}/.well-known/openid-configuration", tripwire.url))),
        ("A24", json!(7)),
        ("A24", json!(null)),
        ("A24", json!([tripwire.url, iss])),
        ("A24", json!([iss])),
        ("A25", json!(format!("{iss}/"))),
        ("A25", json!(iss.to_uppercase())),
        ("A25", json!(format!("{iss}.evil.example"))),
        ("A25", json!(iss.replace("127.0.0.1", "localhost"))),
        ("A25", json!(iss.replace("127.0.0.1", "127.1"))),
        ("A25", json!(iss.replace("http", "https"))),
        ("A25", json!(format!("{iss}/people/"))),
        ("A25", json!("http://xn--127-0-0-1.example")),
    ] {
        let token = attacker.sign(&header, &with(&claims, &json!({"iss": named})).to_string());
        rows.push(attack(id, named.to_string(), token, Counted("iss")));
    }
    let mut absent = claims;
    absent.as_object_mut().unwrap().remove("iss");
    rows.push(attack("A24", "absent", attacker.sign(&header, &absent.to_string()), Counted("iss")));
    refused(&world, rows).await;
    assert_eq!(tripwire.hits(), 0, "a request went to where a token said");
}

#[tokio::test]
async fn a_genuine_token_with_a_claim_that_is_wrong_is_denied_on_record() {
    let world = TestWorld::start().await;
    let now = world.now().as_second();
    let mut rows = Vec::new();
    for (id, claim, value, code) in [
        ("A18", "exp", json!((now + 300).to_string()), "exp"),
        ("A18", "nbf", json!(now.to_string()), "nbf"),
        ("A18", "exp", json!(now - 3_600), "lifetime"),
        ("A19", "nbf", json!(now + 600), "nbf"),
        ("A19", "iat", json!(now + 120), "nbf"),
        ("A20", "exp", json!(null), "lifetime"),
        ("A20", "exp", json!(-1), "lifetime"),
        ("A20", "exp", json!(1e18), "lifetime"),
        ("A20", "exp", json!(now + 100_000), "lifetime"),
        ("A20", "iat", json!(null), "lifetime"),
        ("A27", "aud", json!(null), "aud"),
        ("A27", "aud", json!(7), "aud"),
        ("A27", "aud", json!("cortex.example"), "aud"),
        ("A27", "aud", json!("corte"), "aud"),
        ("A27", "aud", json!(["other", "cortex"]), "aud"),
        ("A27", "aud", json!([]), "aud"),
        ("A28", "aud", json!("sts.amazonaws.com"), "aud"),
        ("jti", "jti", json!(null), "jti"),
        ("jti", "jti", json!(""), "jti"),
        ("jti", "jti", json!(7), "jti"),
        ("A34", "sub", json!(["a"]), "claim_type"),
    ] {
        let token = near_miss(&world, &first_run("r"), |claims| {
            let claims = claims.as_object_mut().unwrap();
            if value.is_null() {
                claims.remove(claim);
            } else {
                claims.insert(claim.to_owned(), value.clone());
            }
        });
        rows.push(attack(id, format!("{claim} {value}"), token, Denial(code)));
    }
    let sub = near_miss(&world, &first_run("r"), |claims| {
        let sub = claims.as_object_mut().unwrap().remove("sub").unwrap();
        claims["Sub"] = sub;
    });
    rows.push(attack("A16", "Sub instead of sub", sub, Denial("claim")));
    refused(&world, rows).await;
}

#[tokio::test]
async fn a_runs_own_claims_are_refused_and_never_normalised() {
    let world = TestWorld::start().await;
    let mut rows = Vec::new();
    let cased = near_miss(&world, &first_run("r"), |claims| {
        let dag = claims["airflow"].as_object_mut().unwrap().remove("dag_id").unwrap();
        claims["airflow"]["DAG_ID"] = dag;
    });
    rows.push(attack("A16", "DAG_ID instead of dag_id", cased, Denial("claim")));
    for value in [
        json!(".."),
        json!("."),
        json!("a/../b"),
        json!("a*"),
        json!("a?"),
        json!("a,b"),
        json!("${aws:username}"),
        json!("a\"b"),
        json!("a\\b"),
        json!("a b"),
        json!(" a"),
        json!("a\n"),
        json!(""),
        json!("x".repeat(251)),
        json!("d\u{430}g"),
        json!("a%2Fb"),
        json!("a\u{0}"),
    ] {
        let token = near_miss(&world, &first_run("r"), |claims| claims["airflow"]["run_id"] = value.clone());
        rows.push(attack(
            "A38",
            value.to_string().chars().take(30).collect::<String>(),
            token,
            Denial("claim"),
        ));
    }
    for (claim, value) in [
        ("run_id", json!(["r"])),
        ("dag_id", json!({"x": 1})),
        ("try_number", json!("1")),
        ("map_index", json!("0")),
        ("tags", json!("a,admins")),
        ("tags", json!([1])),
    ] {
        let token = near_miss(&world, &first_run("r"), |claims| claims["airflow"][claim] = value.clone());
        rows.push(attack("A34", format!("{claim} {value}"), token, Denial("claim_type")));
    }
    refused(&world, rows).await;
}

#[tokio::test]
async fn what_cortex_issued_is_no_proof_for_more() {
    let world = TestWorld::start().await;
    let issued = world.exchange_token(&world.token(&first_run("r1")), "urn:cortex:first-steps:api").await;
    let credential = issued.body["access_token"].as_str().unwrap();
    for door in [
        world.exchange_token(credential, "urn:cortex:first-steps:api").await,
        world.ask(credential, json!({"policy": "first-steps"})).await,
    ] {
        assert_eq!(door.status, StatusCode::BAD_REQUEST, "A29 {door:?}");
        assert_eq!(door.body["error"], "invalid_request", "A29 {door:?}");
    }
    let denials = world.record(&["denial"]).await;
    let codes: Vec<_> = denials.iter().map(|denial| denial["code"].as_str().unwrap()).collect();
    assert_eq!(codes, ["self_issuer", "self_issuer"], "A29");
    assert_eq!(world.world.sandbox.mints(), []);
}

#[tokio::test]
async fn a_persons_token_brings_no_credential_and_a_runs_token_no_rights() {
    let world = TestWorld::start().await;
    let person = world.person("alice", &["cortex-admins", "finance-admins"]);
    let asked = world.ask(&person, json!({"policy": "first-steps"})).await;
    assert_eq!(
        (asked.status, asked.body["error"].as_str()),
        (StatusCode::BAD_REQUEST, Some("invalid_target"))
    );
    let run = world.token(&first_run("r"));
    let listed = world.as_person(reqwest::Method::GET, "/v1/policies", &run, None).await;
    assert_eq!(listed.status, StatusCode::FORBIDDEN);
    nothing_was_issued(&world).await;
}

#[test]
fn an_issuer_that_is_not_exact_is_refused_when_it_is_configured() {
    for iss in [
        "http://airflow.example.com",
        "https://10.1.2.3",
        "https://user:pass@airflow.example.com",
        "https://airflow.example.com?x=1",
        "https://airflow.example.com#x",
        "airflow.example.com",
    ] {
        let issuer = IssuerConfig::new("prod".parse().unwrap(), iss, Kind::Run, "cortex");
        let faults: Vec<_> = issuer.validate().into_iter().map(|fault| fault.option).collect();
        assert_eq!(faults, ["iss"], "A22 {iss}");
    }
}
