//! Shards, recoveries and the time.

use cortex_log::Hash;
use cortex_log::audit::{Auditor, Fault, Recovery, Summary, What};
use cortex_log::checkpoint::Checkpoint;
use cortex_log::opening::Standing;
use serde_json::json;

use crate::case::*;
use crate::made::{self, BASE, Log};

#[test]
fn a_whole_log_is_whole_over_shards_restarts_and_older_checkpoints() {
    let mut log = Log::of_two(20);
    let older = log.checkpoint(0);
    log.write(0, 100);
    let third = log.open_chain(Some(1));
    log.write(third, 7);
    log.open_shard("2027", third, None);
    log.write(0, 300);
    let between = log.checkpoint(1);
    let fourth = log.open_chain(Some(0));
    log.write(fourth, 1);
    log.open_shard("2028", fourth, None);
    log.write(third, 2);
    let mut case = Case::of(log);
    case.older = vec![between, older.clone(), older];
    let leaves: usize = case.log.shards.iter().map(|shard| shard.leaves.len()).sum();
    let whole = Summary {
        leaves: leaves.try_into().unwrap(),
        skipped: 0,
        chains: 4,
        follows: None,
        recoveries: Vec::new(),
    };
    assert_eq!(case.audit(), Ok(whole.clone()));
    assert_eq!(case.without_tiles().audit(), Ok(whole));
}

#[test]
fn a_shard_is_verified_by_itself() {
    let mut log = Log::of_two(3);
    log.write(0, 4);
    log.open_shard("2027", 0, None);
    log.write(1, 4);
    log.shards.remove(0);
    let summary = Case::of(log).audit().unwrap();
    let follows = summary.follows.unwrap();
    assert_eq!((summary.leaves, summary.chains), (5, 2));
    assert_eq!((follows.origin.as_str(), follows.size), ("cortex.acme.example/log/2026", 24));
}

/// Audits a log whose leaves from the second up to `upto` are known by their hashes alone; `bad` changes one of these.
fn audit_without(log: &Log, upto: usize, chains: &[Standing], bad: Option<usize>) -> Result<Summary, Fault> {
    let mut auditor = Auditor::new(log.signer.verifier(), vec![log.checkpoint(0)]);
    for (number, shard) in log.shards.iter().enumerate() {
        let mut hashes = made::hashes(&shard.leaves);
        let mut audit = auditor.begin(&format!("{BASE}/{}", shard.name));
        let mut from = 0;
        if number == 0 {
            if let Some(bad) = bad {
                hashes[bad] = Hash([7; 32]);
            }
            audit.feed(&shard.leaves[..1], &hashes[..1])?;
            audit.skip(&hashes[1..upto])?;
            audit.resume(chains)?;
            from = upto;
        }
        audit.feed(&shard.leaves[from..], &hashes[from..])?;
        audit.end(&log.checkpoint(number))?;
    }
    auditor.finish()
}

#[test]
fn leaves_that_are_kept_elsewhere_are_verified_by_their_hashes() {
    let mut log = Log::of_two(6);
    let upto = log.shards[0].leaves.len();
    let standing = log.shard_opened("2027", None).chains;
    log.write(0, 40);
    log.write(1, 40);
    log.open_shard("2027", 0, None);
    log.write(1, 4);
    let summary = audit_without(&log, upto, &standing, None).unwrap();
    let all: usize = log.shards.iter().map(|shard| shard.leaves.len()).sum();
    assert_eq!((summary.leaves, summary.skipped), ((all - upto + 1) as u64, (upto - 1) as u64));
    // A hash that is not the tree's is noticed, and so is a chain that stands elsewhere.
    assert!(matches!(
        audit_without(&log, upto, &standing, Some(5)).unwrap_err().what,
        What::Root(_) | What::Older(_)
    ));
    let mut moved = standing.clone();
    moved[0].digest = Hash([7; 32]);
    assert!(matches!(audit_without(&log, upto, &moved, None).unwrap_err().what, What::Previous { .. }));
    let nobody = audit_without(&log, upto, &standing[..1], None).unwrap_err().what;
    assert!(matches!(nobody, What::Unenrolled(_)), "{nobody}");
}

#[test]
fn a_time_that_goes_back_between_checkpoints_is_named() {
    let mut log = Log::of_two(2);
    let older = Checkpoint { time_ms: i64::MAX, ..log.checkpoint(0) };
    log.write(0, 1);
    let mut case = Case::of(log);
    case.older = vec![older];
    assert_eq!(case.audit(), fault(14, 15, What::Time));
    let mut log = Log::of_two(2);
    log.open_shard("2027", 0, None);
    let mut case = Case::of(log);
    case.signed[0].time_ms = i64::MAX;
    let origin = format!("{BASE}/2027");
    assert_eq!(case.audit(), Err(Fault { origin, index: 0, until: 1, what: What::Time }));
}

#[test]
fn a_shard_that_does_not_continue_the_last_ones_head_is_named() {
    let mut log = Log::of_two(2);
    log.open_shard("2027", 0, None);
    // The last batch of the first shard is taken away, and its checkpoint signed anew.
    let cut = log.shards[0].leaves.split_off(11);
    assert_eq!(cut.len(), 3);
    let origin = format!("{BASE}/2027");
    assert_eq!(Case::of(log).audit(), Err(Fault { origin, index: 0, until: 1, what: What::Head }));
}

#[test]
fn a_shard_that_forgets_a_batch_of_a_chain_is_named() {
    let mut log = Log::of_two(2);
    let chain = log.chains[1].uuid;
    let mut opened = log.shard_opened("2027", None);
    opened.chains[1].batch -= 1;
    log.open_shard("2027", 0, None);
    log.chains[0].batch -= 1;
    log.chains[0].digest = opened.chains[0].digest;
    log.shard().leaves.clear();
    log.commit(0, &[made::record("log.shard_opened", &opened)]);
    let origin = format!("{BASE}/2027");
    assert_eq!(Case::of(log).audit(), Err(Fault { origin, index: 0, until: 1, what: What::Standing(chain) }));
}

#[test]
fn what_a_recovery_gave_up_is_named() {
    let mut log = Log::of_two(2);
    let lost = log.shard().leaves.split_off(11);
    log.open_shard("2026-2", 0, Some(json!({"approved_by": ["ann", "bob"]})));
    log.shards[0].leaves.extend(lost);
    let what = What::GivenUp { origin: format!("{BASE}/2026"), from: 11, last: 13 };
    let origin = format!("{BASE}/2026-2");
    assert_eq!(Case::of(log).audit(), Err(Fault { origin, index: 0, until: 1, what }));
}

#[test]
fn a_recovery_that_gave_nothing_up_is_told() {
    let mut log = Log::of_two(2);
    let record = json!({"by": ["ann", "bob"]});
    log.open_shard("2026-2", 0, Some(record.clone()));
    let summary = Case::of(log).audit().unwrap();
    assert_eq!(summary.recoveries, [Recovery { origin: format!("{BASE}/2026-2"), record }]);
}

#[test]
fn batches_of_which_nothing_was_written_leave_no_trace_but_their_numbers() {
    let mut log = Log::of_two(2);
    log.chains[1].batch += 3;
    log.open_shard("2027", 0, None);
    log.write(1, 2);
    log.chains[1].batch += 1;
    log.write(1, 2);
    let successor = log.open_chain(Some(1));
    log.write(successor, 1);
    let case = Case::of(log);
    assert!(case.audit().is_ok(), "{:?}", case.audit());
}

#[test]
fn a_batch_below_what_its_shard_says_is_named() {
    let mut log = Log::of_two(2);
    log.chains[1].batch += 3;
    log.open_shard("2027", 0, None);
    log.chains[1].batch -= 2;
    log.write(1, 2);
    let (chain, batch) = (log.chains[1].uuid, log.chains[1].batch);
    let origin = format!("{BASE}/2027");
    let what = What::Order { chain, batch, place: 0 };
    assert_eq!(Case::of(log).audit(), Err(Fault { origin, index: 1, until: 2, what }));
}

#[test]
fn a_missing_shard_is_named_by_an_older_checkpoint() {
    let mut log = Log::of_two(2);
    log.open_shard("2027", 0, None);
    let older = log.checkpoint(1);
    log.shards.pop();
    let mut case = Case::of(log);
    case.older = vec![older];
    let origin = format!("{BASE}/2027");
    assert_eq!(case.audit(), Err(Fault { origin, index: 0, until: 1, what: What::NoShard }));
}

#[test]
fn a_shard_begins_with_its_own_opening_and_with_no_other() {
    let mut first = case();
    first.leaves().remove(0);
    assert_eq!(first.audit(), at(0, What::Opening("the shard does not begin with its own opening")));
    let mut renamed = case();
    renamed.log.shards[0].name = "2025".into();
    let origin = format!("{BASE}/2025");
    let what = What::Opening("the shard's opening names another shard");
    assert_eq!(renamed.audit(), Err(Fault { origin, index: 0, until: 1, what }));
    let mut log = Log::of_two(1);
    let opened = log.shard_opened("2026", None);
    log.commit(0, &[made::record("log.shard_opened", &opened)]);
    assert_eq!(Case::of(log).audit(), at(8, What::Opening("a shard is opened in the middle of another")));
}
