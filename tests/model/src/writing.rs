//! What the recorder does.

use crate::database::{Answer, Chain, Commit, Leaf, Record, Tail, What};
use crate::process::{Process, Task, Writer};
use crate::world::{Broken, Cortex, World};

/// What became of a row that was to be written.
enum Verdict {
    OnRecord,
    /// Another row took its place.
    Superseded,
    /// Nobody knows, or it is not there.
    Unavailable,
}

impl Cortex {
    /// Whether the task's row may go to the writer: what is released after its commit is not while the log is in doubt.
    pub(crate) fn may_write(self, process: &Process, task: Task) -> bool {
        match task {
            Task::Calling(_) => false,
            Task::Finishing(_, What::Issued) => !self.rules.heed_faults || process.fault().is_none(),
            // What is refused at once is refused in `write`.
            Task::Asked(_) | Task::Finishing(..) => true,
        }
    }

    /// Seals and sends a row, after looking where the chain ends if that is uncertain.
    pub(crate) fn write(self, world: &mut World, replica: usize, record: Record, again: bool) -> Option<()> {
        let process = world.process(replica)?;
        let admits = record.what == What::Intent && process.task == Some(Task::Asked(record.issuance));
        if admits && process.fault().is_some() {
            if self.rules.heed_faults {
                world.process_mut(replica)?.task = None;
                return Some(());
            }
            world.broke(Broken::AdmittedInFault);
        }
        let Some((chain, tail)) = stand(world, replica) else {
            return conclude(world, replica, record, &Verdict::Unavailable);
        };
        let leaf = Leaf { chain, batch: tail.head + 1, record, previous: tail.digest };
        let process = world.process_mut(replica)?;
        process.tail = (!self.rules.pen_looks).then_some(tail);
        process.writer = Writer::Sent(Commit { expected: tail.head, leaf }, again);
        Some(())
    }

    pub(crate) fn abandon(self, world: &mut World, replica: usize, issuance: u8) -> Option<()> {
        if world.replicas.iter().flatten().any(|p| p.task.is_some_and(|task| task.issuance() == issuance)) {
            world.budget.slow -= 1;
        }
        self.write(world, replica, Record { issuance, what: What::Indeterminate }, false)
    }

    pub(crate) fn hear(self, world: &mut World, replica: usize) -> Option<()> {
        let Writer::Answered(commit, answer, again) = world.process(replica)?.writer else { return None };
        let Commit { leaf, .. } = commit;
        if answer == Answer::Moved {
            if !self.rules.pen_looks {
                // It takes its own last try for what is there.
                let tail = Tail { head: leaf.batch, digest: leaf.digest() };
                world.process_mut(replica)?.tail = Some(tail);
            }
            if again {
                return conclude(world, replica, leaf.record, &Verdict::Unavailable);
            }
            return self.write(world, replica, leaf.record, true);
        }
        let verdict = match answer {
            Answer::Written => Verdict::OnRecord,
            _ if world.database.has(leaf.record) => Verdict::OnRecord,
            _ => Verdict::Superseded,
        };
        let process = world.process_mut(replica)?;
        let digest = if answer == Answer::Written { leaf.digest() } else { leaf.previous };
        process.tail = Some(Tail { head: leaf.batch, digest });
        process.known = leaf.batch;
        conclude(world, replica, leaf.record, &verdict)
    }
}

/// Where the chain ends; none if the database has forgotten what was written to it.
fn stand(world: &mut World, replica: usize) -> Option<(u8, Tail)> {
    let process = world.process(replica)?;
    if let (Some(chain), Some(tail)) = (process.chain, process.tail) {
        return Some((chain, tail));
    }
    let known = process.known;
    if let Some(id) = process.chain {
        let chain = world.database.chain(id);
        if chain.map_or(0, |chain| chain.head) < known {
            let process = world.process_mut(replica)?;
            process.rewound = true;
            process.chain = None;
            return None;
        }
        if let Some(chain) = chain.filter(|chain| !chain.closed) {
            return Some((id, chain.tail()));
        }
    }
    let id = world.next_chain;
    world.next_chain += 1;
    let chain = Chain { id, head: 0, closed: false, leaves: Vec::new(), sequenced: 0 };
    let tail = chain.tail();
    world.database.chains.push(chain);
    let process = world.process_mut(replica)?;
    process.chain = Some(id);
    process.known = 0;
    Some((id, tail))
}

pub(crate) fn carry_out(world: &mut World, replica: usize) -> Option<()> {
    let Writer::Sent(commit, again) = world.process(replica)?.writer else { return None };
    let answer = world.database.commit(commit);
    if answer == Answer::Written {
        world.history.durable.insert(commit.leaf.record);
    }
    world.process_mut(replica)?.writer = Writer::Answered(commit, answer, again);
    Some(())
}

/// A commit whose answer was lost may have happened: its row is looked up.
pub(crate) fn settle(world: &mut World, replica: usize) -> Option<()> {
    let Writer::Uncertain(record) = world.process(replica)?.writer else { return None };
    let there = world.database.has(record);
    // By now something may have been found that stops what is released after its commit.
    conclude(world, replica, record, if there { &Verdict::OnRecord } else { &Verdict::Unavailable })
}

pub(crate) fn lose(world: &mut World, replica: usize) -> Option<()> {
    let process = world.process_mut(replica)?;
    let (Writer::Sent(commit, _) | Writer::Answered(commit, ..)) = process.writer else { return None };
    process.writer = Writer::Uncertain(commit.leaf.record);
    world.budget.losses -= 1;
    Some(())
}

pub(crate) fn delay(world: &mut World, replica: usize) -> Option<()> {
    let Writer::Sent(commit, _) = world.process(replica)?.writer else { return None };
    world.late.push(commit);
    lose(world, replica)
}

/// Tells whoever waits for the row.
fn conclude(world: &mut World, replica: usize, record: Record, verdict: &Verdict) -> Option<()> {
    let process = world.process_mut(replica)?;
    process.writer = Writer::Idle;
    let waiting = process.task.filter(|task| task.record() == Some(record));
    match (waiting, verdict) {
        (Some(Task::Asked(issuance)), Verdict::OnRecord) => {
            process.task = Some(Task::Calling(issuance));
            world.call_cloud(issuance);
        }
        (Some(Task::Finishing(_, What::Issued)), Verdict::OnRecord) => {
            process.task = None;
            world.release(record.issuance);
        }
        // The same row again, until it is there.
        (Some(Task::Finishing(..)), Verdict::Unavailable) | (Some(Task::Calling(_)) | None, _) => {}
        (Some(Task::Finishing(_, what)), Verdict::Superseded) => {
            process.task = None;
            world.history.superseded |= what == What::Issued;
        }
        (Some(Task::Asked(_)), _) | (Some(Task::Finishing(..)), Verdict::OnRecord) => process.task = None,
    }
    if matches!(verdict, Verdict::OnRecord) {
        world.history.acknowledged.insert(record);
    }
    Some(())
}
