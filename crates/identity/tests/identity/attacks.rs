//! Tokens that anyone could have made up: refused without a word about anyone, and without a request to anyone.

use cortex_identity::{Identity, IssuerConfig, Kind, MAX_TOKEN, Reason, SetupError, Trust};
use serde_json::json;

use crate::forge::{self, EVIL_RSA, P256, RSA, b64, token, token_of};
use crate::table::Audit::{Denial, Unverified};
use crate::table::{attack, header, run};
use crate::world::{AUDIENCE, OWN_ISS, World, name};

#[tokio::test]
async fn algorithms_are_pinned() {
    let world = World::new().await;
    let payload = world.run_claims("prod").to_string();
    let mut attacks = Vec::new();
    for alg in ["none", "nOnE", "NONE", "", "rs256", "HS256", "RS512", "ES512", "RSA1_5"] {
        let unsigned = format!("{}.{}.", b64(header(&json!({"alg": alg}))), b64(&payload));
        attacks.push(attack("A1", format!("alg {alg:?}"), unsigned, Reason::Alg, Unverified));
    }
    for alg in [json!(null), json!(7), json!(["RS256"])] {
        let odd = token_of(&header(&json!({"alg": alg})), &payload, &RSA);
        attacks.push(attack("A1", format!("alg {alg}"), odd, Reason::Alg, Unverified));
    }
    let es = world.run_claims("es");
    attacks.push(attack(
        "A3",
        "RS256, pinned to ES256",
        token("RS256", "es", &es, &RSA),
        Reason::Alg,
        Unverified,
    ));
    attacks.push(attack(
        "A3",
        "PS256, pinned to RS256",
        token("PS256", "main", &world.run_claims("prod"), &RSA),
        Reason::Alg,
        Unverified,
    ));
    run(&world, attacks).await;
    assert_eq!(world.idp.requests(), 0, "no key was even looked for");
}

#[tokio::test]
async fn keys_and_extensions_in_the_header_are_refused() {
    let world = World::new().await;
    let payload = world.run_claims("prod").to_string();
    let evil = EVIL_RSA.jwk("main");
    let mut attacks = Vec::new();
    for extra in [
        json!({"jwk": evil}),
        json!({"jku": "https://evil.example/jwks"}),
        json!({"x5u": "https://evil.example/cert"}),
        json!({"x5c": ["MIIB"]}),
        json!({"b64": false}),
        json!({"zip": "DEF"}),
        json!({"enc": "A256GCM"}),
    ] {
        for signer in [&*EVIL_RSA, &*RSA] {
            let bad = token_of(&header(&extra), &payload, signer);
            attacks.push(attack("A4", extra.to_string(), bad, Reason::Header, Unverified));
        }
    }
    for crit in [json!(["bork"]), json!([]), json!(null)] {
        let bad = token_of(&header(&json!({"crit": crit})), &payload, &RSA);
        attacks.push(attack("crit", crit.to_string(), bad, Reason::Crit, Unverified));
    }
    run(&world, attacks).await;
    assert_eq!(world.idp.requests(), 0);
}

#[tokio::test]
async fn hostile_key_ids_fetch_nothing() {
    let world = World::new().await;
    world.verify(&world.good()).await.unwrap();
    let before = world.idp.requests();
    world.pass(31);
    let payload = world.run_claims("prod").to_string();
    let mut attacks = Vec::new();
    for kid in [
        json!("../../x"),
        json!("' OR 1=1"),
        json!("a\u{0}b"),
        json!("k".repeat(10_000)),
        json!(""),
        json!("schlüssel"),
        json!(7),
        json!(null),
    ] {
        let bad = token_of(&header(&json!({"kid": kid})), &payload, &RSA);
        attacks.push(attack("A6", kid.to_string(), bad, Reason::Kid, Unverified));
    }
    run(&world, attacks).await;
    assert_eq!(world.idp.requests(), before);
}

#[tokio::test]
async fn signatures_are_the_issuers_own() {
    let world = World::new().await;
    let good = world.good();
    let (message, _) = good.rsplit_once('.').unwrap();
    let es = token("ES256", "es", &world.run_claims("es"), &P256);
    let (es_message, _) = es.rsplit_once('.').unwrap();
    let swapped = world.prod(|claims| claims["airflow"]["dag_id"] = json!("other"));
    let swapped = format!("{message}.{}", swapped.rsplit('.').next().unwrap());
    let mut attacks = vec![
        attack(
            "sig",
            "an attacker's key under the known id",
            world.signed("main", &EVIL_RSA),
            Reason::Sig,
            Unverified,
        ),
        attack("sig", "empty", format!("{message}."), Reason::Sig, Unverified),
        attack("sig", "zeros", format!("{message}.{}", b64([0; 256])), Reason::Sig, Unverified),
        attack("sig", "of another token", swapped, Reason::Sig, Unverified),
        // `people` has a key of the same id: keys are the issuer's own, never found by id alone.
        attack(
            "sig",
            "another issuer's key",
            world.signed("main", &forge::NEXT_RSA),
            Reason::Sig,
            Unverified,
        ),
    ];
    let order = "ffffffff00000000ffffffffffffffffbce6faada7179e84f3b9cac2fc632551";
    let order: Vec<u8> = (0..32).map(|i| u8::from_str_radix(&order[2 * i..2 * i + 2], 16).unwrap()).collect();
    for (what, signature) in [
        ("r = s = 0", vec![0; 64]),
        ("r = s = n", [order.clone(), order].concat()),
        ("r = s = 1", [[&[0; 31][..], &[1]].concat(), [&[0; 31][..], &[1]].concat()].concat()),
        ("DER", vec![0x30, 0x06, 0x02, 0x01, 0x01, 0x02, 0x01, 0x01]),
        ("too short", vec![1; 63]),
        ("too long", vec![1; 65]),
    ] {
        attacks.push(attack("A9", what, format!("{es_message}.{}", b64(signature)), Reason::Sig, Unverified));
    }
    run(&world, attacks).await;
}

#[tokio::test]
async fn size_and_shape_are_bounded() {
    let world = World::new().await;
    let good = world.good();
    let large = |what: &str, token: String| attack("A13", what, token, Reason::Size, Unverified);
    let odd = |what: &str, token: String| attack("shape", what, token, Reason::Shape, Unverified);
    let attacks = vec![
        large("1 MiB", "a".repeat(1 << 20)),
        large("a million dots", ".".repeat(1_000_000)),
        large("one byte too many", ".".repeat(MAX_TOKEN + 1)),
        odd("as many dots as fit", ".".repeat(MAX_TOKEN)),
        odd("empty", String::new()),
        odd("two parts", "a.b".into()),
        odd("four parts", format!("{good}.e30")),
        odd("a JWE", "e30.a.b.c.d".into()),
        odd("padding", format!("{good}=")),
        odd("a line feed", format!("{good}\n")),
        odd("Bearer", format!("Bearer {good}")),
    ];
    run(&world, attacks).await;
}

#[tokio::test]
async fn json_is_one_plain_object_of_bounded_depth_and_size() {
    let world = World::new().await;
    let iss = world.idp.iss("prod");
    let deep = |levels: usize| {
        world.prod(|claims| claims["x"] = (1..levels).fold(json!(1), |inner, _| json!([inner])))
    };
    let nested = format!(r#"{{"iss": "{iss}", "x": {}{}}}"#, "[".repeat(5_000), "]".repeat(5_000));
    let keys: Vec<_> = (0..1_100).map(|i| format!(r#""{i}":0"#)).collect();
    let many = format!(r#"{{"iss": "{iss}", {}}}"#, keys.join(","));
    let mut attacks = vec![attack("A14", "nine levels", deep(9), Reason::Json, Unverified)];
    for (what, payload) in [
        ("5,000 arrays in each other", nested.as_str()),
        ("1,100 members", many.as_str()),
        ("an array", "[]"),
        ("no JSON", "x"),
        ("two objects", "{}{}"),
        ("nothing", ""),
    ] {
        let bad = token_of(&header(&json!({})), payload, &RSA);
        attacks.push(attack("A14", what, bad, Reason::Json, Unverified));
    }
    run(&world, attacks).await;
    assert!(world.verify(&deep(8)).await.is_ok(), "eight levels are fine");
}

#[tokio::test]
async fn members_that_appear_twice_are_refused() {
    let world = World::new().await;
    let claims = world.run_claims("prod");
    let text = claims.to_string();
    let evil = text.replacen(r#""dag_id":"#, r#""dag_id":"evil","dag_id":"#, 1);
    let escaped = text.replacen(r#""dag_id":"#, r#""dag\u005fid":"evil","dag_id":"#, 1);
    let twice_iss = text.replacen('{', r#"{"iss":"https://evil.example","#, 1);
    let twice_alg = r#"{"alg":"none","alg":"RS256","kid":"main"}"#;
    let mut attacks =
        vec![attack("dup", "header", token_of(twice_alg, &text, &RSA), Reason::Json, Unverified)];
    for payload in [evil, escaped, twice_iss] {
        assert_ne!(payload, text);
        let bad = token_of(&header(&json!({})), &payload, &RSA);
        attacks.push(attack("dup", payload, bad, Reason::Json, Unverified));
    }
    run(&world, attacks).await;
}

#[tokio::test]
async fn unknown_issuers_cause_no_request() {
    let world = World::new().await;
    let iss = world.idp.iss("prod");
    let mut attacks = Vec::new();
    for (id, other) in [
        ("A21", json!(world.idp.iss("unknown"))),
        ("A21", json!("https://evil.example")),
        ("A24", json!(7)),
        ("A24", json!(null)),
        ("A24", json!([iss])),
        ("A24", json!(["https://evil.example", iss])),
        ("A24", json!({"url": iss})),
        ("A25", json!(format!("{iss}/"))),
        ("A25", json!(iss.to_uppercase())),
        ("A25", json!(format!(" {iss}"))),
        ("A25", json!(format!("{iss}\n"))),
        ("A25", json!(format!("{iss}.evil.example"))),
        ("A25", json!(iss.strip_suffix('d').unwrap())),
        ("A25", json!(iss.replace("127.0.0.1", "localhost"))),
        ("A25", json!(iss.replace("127.0.0.1", "127.1"))),
        ("A25", json!(iss.replace("prod", "%70rod"))),
        ("A25", json!(iss.replace("prod", "./prod"))),
        ("A25", json!(iss.replace("http", "https"))),
        ("A25", json!(iss.replace("prod", "pr\u{43e}d"))),
    ] {
        let bad = world.prod(|claims| claims["iss"] = other.clone());
        attacks.push(attack(id, other.to_string(), bad, Reason::Iss, Unverified));
    }
    let absent = world.prod(|claims| drop(claims.as_object_mut().unwrap().remove("iss")));
    attacks.push(attack("A24", "absent", absent, Reason::Iss, Unverified));
    run(&world, attacks).await;
    assert_eq!(world.idp.requests(), 0);
}

#[tokio::test]
async fn cortex_does_not_trust_its_own_tokens() {
    let world = World::new().await;
    let mut claims = world.run_claims("prod");
    claims["iss"] = json!(OWN_ISS);
    let genuine = world.own.sign("JWT", &claims).unwrap();
    let credential = world.own.sign("at+jwt", &claims).unwrap();
    let forged = token("RS256", world.own.kid(), &claims, &EVIL_RSA);
    let stranger = token("RS256", "other", &claims, &EVIL_RSA);
    run(
        &world,
        vec![
            attack("A29", "genuine", genuine.as_str(), Reason::SelfIssuer, Denial),
            attack("A29", "a credential", credential.as_str(), Reason::SelfIssuer, Denial),
            attack("A29", "forged", forged, Reason::Sig, Unverified),
            attack("A29", "unknown key", stranger, Reason::Kid, Unverified),
        ],
    )
    .await;
    let known = world.verify(&genuine).await.unwrap_err().verified.unwrap();
    assert_eq!((known.issuer, known.subject.as_deref()), (name("cortex"), claims["sub"].as_str()));
    assert_eq!(world.idp.requests(), 0);
}

#[tokio::test]
async fn cortex_cannot_be_configured_to_trust_itself_or_the_network() {
    let clock = std::sync::Arc::new(cortex_core::clock::SystemClock);
    for iss in [
        "http://airflow.example.com",
        "https://10.0.0.1",
        "https://u:p@a.example",
        "https://a.example?x",
        OWN_ISS,
    ] {
        let own = cortex_identity::OwnIssuer {
            name: name("cortex"),
            iss: OWN_ISS.into(),
            jwks: Box::new(|| b"{}".to_vec()),
        };
        let config = IssuerConfig::new(name("prod"), iss, Kind::Run, AUDIENCE);
        let trust = Trust { issuers: &[config], ..Trust::default() };
        let made = Identity::new(trust, Some(own), clock.clone(), reqwest::Client::builder);
        let Err(SetupError::Config(faults)) = made else { panic!("A22 {iss}: accepted") };
        assert_eq!(faults.iter().map(|fault| fault.option).collect::<Vec<_>>(), ["iss"], "{iss}");
    }
}

#[test]
fn codes_are_stable_and_distinct() {
    let codes: Vec<_> = Reason::ALL.iter().map(|reason| reason.code()).collect();
    let distinct: std::collections::BTreeSet<_> = codes.iter().collect();
    assert_eq!(distinct.len(), codes.len());
    assert_eq!(
        codes.join(" "),
        "size shape json alg kid crit header iss sig jwks_unavailable review cluster_unavailable workload \
         pod self_issuer typ aud nonce exp nbf lifetime jti claim claim_type"
    );
}
