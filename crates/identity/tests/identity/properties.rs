//! What holds for every token.

use std::sync::LazyLock;

use proptest::prelude::*;
use serde_json::{Value, json};
use tokio::runtime::Runtime;

use crate::forge::{self, ED25519, RSA, b64};
use crate::world::{AUDIENCE, World};

static RUNTIME: LazyLock<Runtime> = LazyLock::new(|| Runtime::new().unwrap());
static WORLD: LazyLock<World> = LazyLock::new(|| {
    RUNTIME.block_on(async {
        let world = World::new().await;
        world.verify(&world.good()).await.unwrap();
        world
    })
});

fn accepted(token: &str) -> bool {
    RUNTIME.block_on(WORLD.verify(token)).is_ok()
}

/// JSON of any shape.
fn any_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        ".{0,12}".prop_map(Value::from),
    ];
    leaf.prop_recursive(4, 24, 6, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..6).prop_map(Value::from),
            prop::collection::btree_map("[a-z]{1,4}", inner, 0..6).prop_map(|map| json!(map)),
        ]
    })
}

/// A claim's value that is good, with `true`, or bad, with `false`.
fn either(good: Vec<Value>, bad: Vec<Value>) -> impl Strategy<Value = (Value, bool)> {
    prop_oneof![
        3 => prop::sample::select(good).prop_map(|value| (value, true)),
        1 => prop::sample::select(bad).prop_map(|value| (value, false)),
    ]
}

proptest! {
    #[test]
    fn no_text_verifies(text in any::<String>()) {
        prop_assert!(!accepted(&text));
    }

    #[test]
    fn no_three_parts_verify(parts in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..200), 3)) {
        let token: Vec<_> = parts.iter().map(b64).collect();
        prop_assert!(!accepted(&token.join(".")));
    }

    #[test]
    fn no_json_with_a_made_up_signature_verifies(header in any_json(), payload in any_json(), good in any::<bool>()) {
        let header = if good { json!({"alg": "RS256", "kid": "main"}) } else { header };
        let payload = if good { WORLD.run_claims("prod") } else { payload };
        let token = format!("{}.{}.{}", b64(header.to_string()), b64(payload.to_string()), b64([1; 256]));
        prop_assert!(!accepted(&token));
    }

    /// A genuine token is accepted exactly when everything that it says is in order.
    #[test]
    fn a_genuine_token_is_accepted_exactly_when_all_its_claims_are_good(
        aud in either(vec![json!(AUDIENCE), json!([AUDIENCE])], vec![json!("x"), json!([]), json!([AUDIENCE, "x"])]),
        age in -120_i64..3600,
        life in 1_i64..4000,
        nbf in prop::option::of(-120_i64..120),
        dag in either(vec![json!("a"), json!("A-b_c.d~e:f+g")], vec![json!(".."), json!("a b"), json!(1), json!(null)]),
        index in either(vec![json!(-1), json!(0), json!(null)], vec![json!(-2), json!("0"), json!(0.5)]),
        jti in either(vec![json!("j")], vec![json!(null), json!(1)]),
        extra in any_json(),
    ) {
        let now = WORLD.now().as_second();
        let mut claims = WORLD.run_claims("prod");
        claims["iat"] = json!(now - age);
        claims["exp"] = json!(now - age + life);
        claims["nbf"] = json!(now + nbf.unwrap_or(0));
        claims["aud"] = aud.0;
        claims["airflow"]["dag_id"] = dag.0;
        claims["airflow"]["map_index"] = index.0;
        claims["jti"] = jti.0;
        claims["extra"] = extra;
        let in_time = age >= -30 && life <= 3600 && life - age > -30 && nbf.unwrap_or(0) <= 30;
        let good = in_time && aud.1 && dag.1 && index.1 && jti.1;
        let token = forge::token("RS256", "main", &claims, &RSA);
        prop_assert_eq!(accepted(&token), good, "{}", claims);
    }
}

/// Every other spelling of a genuine token is refused, whichever bit of it is turned.
#[test]
fn a_token_has_one_spelling() {
    let tokens = [WORLD.good(), forge::token("EdDSA", "ed", &WORLD.run_claims("ed"), &ED25519)];
    for token in tokens {
        assert!(accepted(&token));
        for position in 0..token.len() {
            for bit in 0..7 {
                let mut bytes = token.clone().into_bytes();
                bytes[position] ^= 1 << bit;
                let turned = String::from_utf8(bytes).unwrap();
                assert!(!accepted(&turned), "bit {bit} of byte {position}");
            }
        }
    }
}

/// Another implementation agrees on what is signed: what is accepted here, it accepts too.
#[test]
fn another_verifier_agrees_on_good_tokens() {
    use jsonwebtoken::{Algorithm, DecodingKey, Validation, decode};
    for (alg, algorithm, kid, tenant, signer) in [
        ("RS256", Algorithm::RS256, "main", "prod", &*RSA),
        ("PS256", Algorithm::PS256, "pss", "pss", &*RSA),
        ("ES256", Algorithm::ES256, "es", "es", &*forge::P256),
        ("EdDSA", Algorithm::EdDSA, "ed", "ed", &*ED25519),
    ] {
        let token = forge::token(alg, kid, &WORLD.run_claims(tenant), signer);
        assert!(accepted(&token));
        let jwk = serde_json::from_value(signer.jwk(kid)).unwrap();
        let mut validation = Validation::new(algorithm);
        validation.set_audience(&[AUDIENCE]);
        validation.set_issuer(&[WORLD.idp.iss(tenant)]);
        validation.validate_exp = false; // its clock is the machine's
        let read = decode::<Value>(&token, &DecodingKey::from_jwk(&jwk).unwrap(), &validation).unwrap();
        assert_eq!(read.claims, WORLD.run_claims(tenant));
    }
}
