//! `cortex serve` killed with SIGKILL at each step of the path, and started again: the clouds' ledger and the record
//! agree, and nothing was minted that is not on record.

use std::time::Duration;

use cortex_sandbox::{Cloud, Fault, FaultMode};
use cortex_tests::promises::{check, leaves};
use cortex_tests::served::Served;
use cortex_tests::world::first_run;
use reqwest::StatusCode;
use sqlx::{Connection as _, PgConnection};
use tokio::time::Instant;

const PROGRAM: &str = env!("CARGO_BIN_EXE_cortex-under-test");
/// The advisory lock that a held statement waits for.
const HELD: i64 = 4_711;

/// Where the process is when it is killed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    /// The rows of this kind are about to be inserted, and the database gives that up with the connection.
    Writing(&'static str),
    /// The commit of such rows is under way; it happens, and nobody hears of it.
    Committing(&'static str),
    /// The cloud was asked and has not minted yet.
    InTheCloud,
    /// The cloud has minted and has not answered.
    Minted,
    /// The answer was given.
    Answered,
}

/// What is the case after the restart.
struct Then {
    intents: usize,
    minted: usize,
    /// How the intent ended; none where there is none.
    outcome: Option<&'static str>,
    /// Whether the same token may be tried again.
    again: bool,
}

#[tokio::test]
async fn killed_before_the_intent_is_committed_nothing_has_happened() {
    let then = Then { intents: 0, minted: 0, outcome: None, again: true };
    killed_at(Step::Writing("issuance.intent"), then).await;
}

#[tokio::test]
async fn killed_while_the_intent_is_committed_nothing_was_minted_and_the_intent_is_ended() {
    let then = Then { intents: 1, minted: 0, outcome: Some("indeterminate"), again: false };
    killed_at(Step::Committing("issuance.intent"), then).await;
}

#[tokio::test]
async fn killed_before_the_cloud_has_minted_the_intent_is_ended() {
    let then = Then { intents: 1, minted: 0, outcome: Some("indeterminate"), again: false };
    killed_at(Step::InTheCloud, then).await;
}

#[tokio::test]
async fn killed_after_the_cloud_has_minted_the_mint_is_on_record() {
    let then = Then { intents: 1, minted: 1, outcome: Some("indeterminate"), again: false };
    killed_at(Step::Minted, then).await;
}

#[tokio::test]
async fn killed_before_the_outcome_is_committed_the_mint_is_on_record() {
    let then = Then { intents: 1, minted: 1, outcome: Some("indeterminate"), again: false };
    killed_at(Step::Writing("issuance.outcome"), then).await;
}

#[tokio::test]
async fn killed_while_the_outcome_is_committed_the_outcome_stands() {
    let then = Then { intents: 1, minted: 1, outcome: Some("issued"), again: false };
    killed_at(Step::Committing("issuance.outcome"), then).await;
}

#[tokio::test]
async fn killed_after_the_answer_the_record_stands() {
    let then = Then { intents: 1, minted: 1, outcome: Some("issued"), again: false };
    killed_at(Step::Answered, then).await;
}

async fn killed_at(step: Step, then: Then) {
    let mut served = Served::new(PROGRAM, |config| {
        config.database.intent_deadline_s = 2;
        config.database.commit_timeout_ms = 30_000;
        config.providers.aws.calls.timeout = jiff::SignedDuration::from_mins(1);
        config.providers.aws.calls.attempt_timeout = jiff::SignedDuration::from_mins(1);
    })
    .await;
    served.start().await;
    let mut hold = hold(&served, step).await;
    let token = served.sandbox.run_token(&first_run("r")).unwrap();
    let asking = tokio::spawn(served.request(&token, &["aws"]).send());
    reached(&served, step).await;
    if step == Step::Answered {
        assert_eq!(asking.await.unwrap().unwrap().status(), StatusCode::OK);
    } else {
        assert!(!asking.is_finished(), "{step:?}: the answer came before the step was over");
        asking.abort();
    }
    served.kill().await;
    served.sandbox.clear_faults();
    release(&served, &mut hold, step).await;
    served.start().await;
    served.until("the end of what was open", "SELECT NOT EXISTS (SELECT FROM open_intent)").await;
    let mints = served.sandbox.mints();
    assert_eq!(mints.len(), then.minted, "{step:?}");
    assert_eq!(leaves(&served.pool, "issuance.intent").await.len(), then.intents, "{step:?}");
    let ended = check(&served.pool, &mints).await;
    assert_eq!(ended, then.outcome.into_iter().collect::<Vec<_>>(), "{step:?}");
    let again = served.ask(&token, &["aws"]).await;
    assert_eq!(again.status == StatusCode::OK, then.again, "{step:?}: {again:?}");
}

/// Sees to it that the process gets to the step and no further.
async fn hold(served: &Served, step: Step) -> PgConnection {
    let mut hold = served.pool.acquire().await.unwrap().detach();
    let fault = |mode| served.sandbox.fault(Cloud::Aws, Fault { operation: None, mode, remaining: None });
    let (moment, kind) = match step {
        Step::Writing(kind) => ("TRIGGER held BEFORE INSERT ON record", kind),
        Step::Committing(kind) => {
            ("CONSTRAINT TRIGGER held AFTER INSERT ON record DEFERRABLE INITIALLY DEFERRED", kind)
        }
        Step::InTheCloud | Step::Minted | Step::Answered => {
            match step {
                Step::InTheCloud => fault(FaultMode::Delay(600_000)),
                Step::Minted => fault(FaultMode::HangAfterMint),
                _ => {}
            }
            return hold;
        }
    };
    let wait = format!(
        "CREATE FUNCTION held() RETURNS trigger LANGUAGE plpgsql AS $$
         BEGIN PERFORM pg_advisory_xact_lock_shared({HELD}); RETURN NEW; END $$;
         CREATE {moment} FOR EACH ROW WHEN (NEW.kind = '{kind}') EXECUTE FUNCTION held();"
    );
    sqlx::raw_sql(sqlx::AssertSqlSafe(wait)).execute(&mut hold).await.unwrap();
    sqlx::query("SELECT pg_advisory_lock($1)").bind(HELD).execute(&mut hold).await.unwrap();
    hold
}

async fn reached(served: &Served, step: Step) {
    let held = "SELECT EXISTS (SELECT FROM pg_locks WHERE locktype = 'advisory' AND NOT granted
                               AND database = (SELECT oid FROM pg_database WHERE datname = current_database()))";
    let intent = "SELECT EXISTS (SELECT FROM record WHERE kind = 'issuance.intent')";
    let outcome = "SELECT EXISTS (SELECT FROM record WHERE kind = 'issuance.outcome')";
    match step {
        Step::Writing(_) | Step::Committing(_) => served.until("the held transaction", held).await,
        Step::InTheCloud => served.until("the intent", intent).await,
        Step::Minted => {
            let until = Instant::now() + Duration::from_mins(1);
            while served.sandbox.mints().is_empty() {
                assert!(Instant::now() < until, "nothing was minted: {}", served.log());
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        }
        Step::Answered => served.until("the outcome", outcome).await,
    }
}

/// Lets the held statement go on, and waits until the dead process's sessions are over.
async fn release(served: &Served, hold: &mut PgConnection, step: Step) {
    if matches!(step, Step::Writing(_)) {
        let dead = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity
                    WHERE datname = current_database() AND application_name = 'cortex'";
        sqlx::query(dead).execute(&mut *hold).await.unwrap();
    }
    sqlx::query("SELECT pg_advisory_unlock_all()").execute(&mut *hold).await.unwrap();
    let over = "SELECT NOT EXISTS (SELECT FROM pg_stat_activity
                                   WHERE datname = current_database() AND application_name = 'cortex')";
    served.until("the end of the dead sessions", over).await;
    sqlx::raw_sql("DROP FUNCTION IF EXISTS held() CASCADE").execute(&mut *hold).await.unwrap();
    hold.ping().await.unwrap();
}
