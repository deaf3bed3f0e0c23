//! No token makes the verifier panic, be it nonsense or signed by a trusted issuer; and nothing that is accepted
//! has a subject longer than the clouds take.
#![no_main]

use std::io::{Read as _, Write as _};
use std::net::TcpListener;
use std::sync::{Arc, LazyLock};

use cortex_core::clock::ManualClock;
use cortex_core::jwt::SigningKey;
use cortex_fuzz::text;
use cortex_identity::{Identity, IssuerConfig, Kind, Trust};
use jiff::Timestamp;
use libfuzzer_sys::fuzz_target;
use serde_json::json;
use serde_json::value::RawValue;
use tokio::runtime::Runtime;

/// 2026-03-01T00:00:00Z, which is `iat` in the seeds.
const NOW: i64 = 1_772_323_200;
const RUN: &str = r#"{"iss": "https://airflow.example", "sub": "s", "aud": "cortex", "iat": 1772323200,
    "exp": 1772323500, "jti": "1", "airflow": {"dag_id": "d", "run_id": "r", "task_id": "t", "map_index": -1,
    "try_number": 1, "run_type": "manual", "triggering_user_name": "alice", "tags": ["a"]}}"#;
const PERSON: &str = r#"{"iss": "https://login.example", "sub": "alice", "aud": "cortex", "iat": 1772323200,
    "exp": 1772323500, "nbf": 1772323200, "groups": ["admins"], "email": "alice@login.example"}"#;
const RAW: &str = "eyJhbGciOiJSUzI1NiIsImtpZCI6ImsifQ.eyJpc3MiOiJodHRwczovL2FpcmZsb3cuZXhhbXBsZSJ9.c2ln";

struct World {
    runtime: Runtime,
    identity: Identity,
    key: SigningKey,
}

static WORLD: LazyLock<World> = LazyLock::new(|| {
    let key = SigningKey::generate().expect("a key");
    let jwks_uri = serve_keys(&key);
    let issuer = |name: &str, iss: &str, kind| IssuerConfig {
        jwks_uri: Some(jwks_uri.clone()),
        ..IssuerConfig::new(name.parse().expect("a name"), iss, kind, "cortex")
    };
    let issuers = [
        issuer("prod", "https://airflow.example", Kind::Run),
        issuer("staff", "https://login.example", Kind::Person),
    ];
    let clock = ManualClock::new(Timestamp::from_second(NOW).expect("a time"));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let identity = runtime.block_on(async {
        let trust = Trust { issuers: &issuers, ..Trust::default() };
        Identity::new(trust, None, Arc::new(clock), reqwest::Client::builder).expect("sound issuers")
    });
    let world = World { runtime, identity, key };
    for seed in [RUN, PERSON] {
        let payload: Box<RawValue> = serde_json::from_str(seed).expect("JSON");
        let token = world.key.sign("JWT", &payload).expect("a token");
        world.runtime.block_on(world.identity.verify(&token)).expect("the seeds are good");
    }
    world
});

/// Answers every request with the key set; gives its address.
fn serve_keys(key: &SigningKey) -> String {
    let (n, e) = key.public_components();
    let jwk = json!({"kty": "RSA", "use": "sig", "alg": "RS256", "kid": key.kid(), "n": n, "e": e});
    let body = json!({"keys": [jwk]}).to_string();
    let answer = format!(
        "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}",
        body.len()
    );
    let listener = TcpListener::bind("localhost:0").expect("a port");
    let port = listener.local_addr().expect("an address").port();
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let _ = stream.read(&mut [0; 4096]);
            let _ = stream.write_all(answer.as_bytes());
        }
    });
    format!("http://localhost:{port}/jwks")
}

fuzz_target!(|data: &[u8]| {
    let world = &*WORLD;
    let text = text(data, &[RUN, PERSON, RAW]);
    // JSON is signed, so that what comes after the signature is fuzzed as well.
    let token = match serde_json::from_str::<Box<RawValue>>(&text) {
        Ok(payload) => world.key.sign("JWT", &payload).expect("a token").to_string(),
        Err(_) => text,
    };
    if let Ok(verified) = world.runtime.block_on(world.identity.verify(&token)) {
        let subject = verified.principal().subject();
        assert!(subject.len() <= 127, "{subject}");
    }
});
