//! A witness: it is shown each checkpoint with a proof that it continues the last one, and cosigns what it has checked.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::extract::State;
use axum::http::StatusCode;
use axum::routing::post;
use cortex_log::Hash;
use cortex_log::checkpoint::Checkpoint;
use cortex_log::note::{Signer, Verifier};
use cortex_log::proof::verify_consistency;
use cortex_log::witness::{Cosigner, Request, cosign};
use cortex_server::log::WitnessConfig;
use cortex_tests::world::TestWorld;
use tokio::net::TcpListener;

use super::{issue, key, round};

/// What the witness remembers: the newest head of each tree, and how often it was lied to.
struct Witness {
    signer: Signer,
    log: Mutex<Option<Verifier>>,
    heads: Mutex<HashMap<String, (u64, Hash)>>,
    wrong: Mutex<usize>,
}

async fn add(State(witness): State<Arc<Witness>>, body: String) -> (StatusCode, String) {
    let request: Request = body.parse().unwrap();
    let Some(log) = witness.log.lock().unwrap().clone() else {
        return (StatusCode::NOT_FOUND, String::new());
    };
    let Ok(checkpoint) = Checkpoint::open_under(&request.checkpoint, &log) else {
        return (StatusCode::FORBIDDEN, String::new());
    };
    let mut heads = witness.heads.lock().unwrap();
    let empty = (0, Hash::of(&[]));
    let head = *heads.get(&checkpoint.origin).unwrap_or(&empty);
    if request.old != head.0 {
        return (StatusCode::CONFLICT, format!("{}\n", head.0));
    }
    if verify_consistency(head, (checkpoint.size, checkpoint.root), &request.proof).is_err() {
        *witness.wrong.lock().unwrap() += 1;
        return (StatusCode::UNPROCESSABLE_ENTITY, String::new());
    }
    heads.insert(checkpoint.origin.clone(), (checkpoint.size, checkpoint.root));
    (StatusCode::OK, cosign(&witness.signer, &request.checkpoint, 1_795_399_200).unwrap())
}

#[tokio::test]
async fn a_witness_cosigns_each_checkpoint_after_it_has_checked_that_it_continues_the_last() {
    let signer = Signer::from_seed("witness.example", &[7; 32]).unwrap();
    let cosigner = Cosigner::of(&signer.verifier()).unwrap();
    let witness =
        Arc::new(Witness { signer, log: Mutex::default(), heads: Mutex::default(), wrong: Mutex::default() });
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let service = Router::new().route("/add-checkpoint", post(add)).with_state(Arc::clone(&witness));
    tokio::spawn(async move { axum::serve(listener, service).await.unwrap() });
    let configured = WitnessConfig::new(url, cosigner.to_string());
    let world = TestWorld::start_with(move |config| config.log.witnesses = vec![configured]).await;
    let broker = &world.world.cortex.broker;
    // It does not know the log yet: nothing is held up.
    issue(&world, "r0").await;
    round(&world).await;
    broker.witnesses.round(&broker.pool).await.unwrap();
    *witness.log.lock().unwrap() = Some(key(&world));
    for n in 1..6 {
        for m in 0..n * 3 {
            issue(&world, &format!("r{n}-{m}")).await;
        }
        round(&world).await;
        broker.witnesses.round(&broker.pool).await.unwrap();
        if n == 3 {
            // One that another replica has shown more to, or that was restored, says what it has seen.
            witness.heads.lock().unwrap().clear();
        }
    }
    // The replica's own loops are at work too: what counts is the newest checkpoint once it is quiet.
    let mut seen = 0;
    for _ in 0..100 {
        round(&world).await;
        broker.witnesses.round(&broker.pool).await.unwrap();
        let note: String =
            sqlx::query_scalar("SELECT checkpoint FROM log_shard").fetch_one(world.pool()).await.unwrap();
        let size = Checkpoint::open_under(&note, &key(&world)).unwrap().size;
        if cosigner.open(&note).is_ok() {
            seen = size;
            break;
        }
    }
    let rows: i64 = sqlx::query_scalar("SELECT count(*) FROM record").fetch_one(world.pool()).await.unwrap();
    assert_eq!(seen, rows.unsigned_abs(), "the newest checkpoint was never cosigned");
    assert_eq!(*witness.wrong.lock().unwrap(), 0, "a proof was wrong");
}
