//! Requests, made before the clock starts: distinct runs, distinct single-use tokens, RS256 like Airflow's.

use cortex_core::Clock as _;
use cortex_core::clock::SystemClock;
use cortex_sandbox::{RunClaims, Sandbox};
use serde_json::json;
use uuid::Uuid;

use crate::ground::AUDIENCE;

/// How long a token lives, in seconds: longer than a part of the benchmark, within what the issuer may say.
const TOKEN_TTL: i64 = 3_300;
/// How long one lives whose end is to be seen, in seconds.
const BRIEF_TTL: i64 = 120;

/// Asks whether a server is ready.
pub(crate) const READYZ: &[u8] = b"GET /readyz HTTP/1.1\r\nhost: cortex\r\nconnection: close\r\n\r\n";

/// The path that is measured as bare HTTP.
pub(crate) fn healthz() -> Vec<Vec<u8>> {
    vec![b"GET /healthz HTTP/1.1\r\nhost: cortex\r\n\r\n".to_vec()]
}

/// Exchanges that the issuer `iss` vouches for, `count` of them, each of a run and with a token of its own; the
/// nth goes to the policy that `policy` says, for `provider`.
pub(crate) fn exchanges(
    sandbox: &Sandbox,
    iss: &str,
    provider: &str,
    count: usize,
    policy: impl Fn(usize) -> String + Sync,
) -> Vec<Vec<u8>> {
    on_all_cores(count, |n| {
        let run = format!("scheduled__{}", Uuid::from_u128(rand::random()).simple());
        exchange(&token(sandbox, iss, "bench_dag", &run), &policy(n), provider)
    })
}

/// The same by one thread, each with a token that soon ends.
pub(crate) fn brief(sandbox: &Sandbox, policy: &str, count: usize) -> Vec<Vec<u8>> {
    let ask = |_| {
        let run = format!("scheduled__{}", Uuid::from_u128(rand::random()).simple());
        exchange(&signed(sandbox, sandbox.issuer_url(), "bench_dag", &run, BRIEF_TTL), policy, "api")
    };
    (0..count).map(ask).collect()
}

/// What `make` makes of the numbers below `count`, in their order.
pub(crate) fn on_all_cores<T: Send>(count: usize, make: impl Fn(usize) -> T + Sync) -> Vec<T> {
    let numbers: Vec<usize> = (0..count).collect();
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let make = &make;
    std::thread::scope(|scope| {
        let parts = numbers.chunks(count.div_ceil(threads).max(1));
        let parts: Vec<_> = parts
            .map(|part| scope.spawn(move || part.iter().map(|n| make(*n)).collect::<Vec<_>>()))
            .collect();
        parts.into_iter().flat_map(|part| part.join().expect("a thread")).collect()
    })
}

/// A token of the run `run_id` of `dag_id`.
pub(crate) fn token(sandbox: &Sandbox, iss: &str, dag_id: &str, run_id: &str) -> String {
    signed(sandbox, iss, dag_id, run_id, TOKEN_TTL)
}

fn signed(sandbox: &Sandbox, iss: &str, dag_id: &str, run_id: &str, ttl: i64) -> String {
    let run = RunClaims::scheduled(dag_id, run_id, "publish_mart");
    let now = SystemClock.now().as_second();
    let claims = json!({
        "iss": iss, "aud": AUDIENCE, "sub": format!("airflow:dag:{dag_id}:task:publish_mart"),
        "jti": Uuid::from_u128(rand::random()).to_string(),
        "iat": now, "nbf": now, "exp": now + ttl, "airflow": run,
    });
    sandbox.forge(&claims).expect("a token")
}

/// Asks for all targets of `policy`.
pub(crate) fn bundle(token: &str, policy: &str) -> Vec<u8> {
    let body = json!({ "policy": policy }).to_string();
    let length = body.len();
    format!(
        "POST /v1/credentials HTTP/1.1\r\nhost: cortex\r\nconnection: close\r\nauthorization: Bearer {token}\r\n\
         content-type: application/json\r\ncontent-length: {length}\r\n\r\n{body}"
    )
    .into_bytes()
}

fn exchange(token: &str, policy: &str, provider: &str) -> Vec<u8> {
    let body = format!(
        "grant_type=urn%3Aietf%3Aparams%3Aoauth%3Agrant-type%3Atoken-exchange\
         &subject_token_type=urn%3Aietf%3Aparams%3Aoauth%3Atoken-type%3Ajwt\
         &audience=urn%3Acortex%3A{policy}%3A{provider}&subject_token={token}"
    );
    let length = body.len();
    format!(
        "POST /v1/token HTTP/1.1\r\nhost: cortex\r\ncontent-type: application/x-www-form-urlencoded\r\n\
         content-length: {length}\r\n\r\n{body}"
    )
    .into_bytes()
}
