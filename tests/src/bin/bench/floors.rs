//! What no broker can go below: the signature that every mint of Cortex's own needs.

use std::time::{Duration, Instant};

use cortex_core::jwt::SigningKey;
use serde_json::json;

/// Signatures each second on all cores, with a key and claims such as a mint's.
pub(crate) fn signing_rate(key: &SigningKey, time: Duration) -> f64 {
    let claims = json!({
        "iss": "http://127.0.0.1:8080", "sub": "run:prod:bench_dag:scheduled__0:publish_mart:-:1",
        "aud": "https://ledger.acme.example", "client_id": "prod:bench_dag", "iat": 1_800_000_000,
        "exp": 1_800_000_900, "jti": "0198b9a4-5c1e-7a44-9b8e-0123456789ab", "scope": "postings:read",
        "dag_id": "bench_dag", "run_id": "scheduled__0", "task_id": "publish_mart", "policy": "bench-0",
    });
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let started = Instant::now();
    let sign = || {
        let mut signed = 0_u32;
        while started.elapsed() < time {
            std::hint::black_box(key.sign("at+jwt", &claims).expect("a signature"));
            signed += 1;
        }
        signed
    };
    let signed: u32 = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..threads).map(|_| scope.spawn(sign)).collect();
        threads.into_iter().map(|thread| thread.join().expect("a signer")).sum()
    });
    f64::from(signed) / started.elapsed().as_secs_f64()
}
