//! What the sequencer does.

use crate::database::{Growth, Tree};
use crate::process::{Fault, Process, Round};
use crate::world::{Broken, Cortex, World};

/// What a look at database and anchor comes to.
enum Found {
    Fault(Fault),
    Round(Round),
}

/// Whether a round would do anything: a model without an end to its rounds has no end.
pub(crate) fn would_find_something(world: &World, replica: usize, process: &Process) -> bool {
    match find(world, replica) {
        Found::Fault(fault) => process.found != Some(fault),
        Found::Round(Round::Idle) => {
            process.found.is_some() || world.anchor(replica) != process.seen.as_ref()
        }
        Found::Round(_) => true,
    }
}

/// Compares what the database has with what was published, and gathers what is not in the tree.
pub(crate) fn look(world: &mut World, replica: usize) -> Option<()> {
    let found = find(world, replica);
    let anchored = world.anchor(replica).cloned();
    let process = world.process_mut(replica)?;
    match found {
        Found::Fault(fault) => {
            process.found = Some(fault);
            process.round = Round::Idle;
            if !world.history.failed_over {
                world.broke(Broken::FalseAlarm);
            }
        }
        Found::Round(round) => {
            process.found = None;
            process.seen = anchored;
            process.round = round;
        }
    }
    Some(())
}

impl Cortex {
    pub(crate) fn grow(self, world: &mut World, replica: usize) -> Option<()> {
        let Round::Gathered(growth) = world.process(replica)?.round.clone() else { return None };
        let grown = world.database.grow(&growth, self.rules.compare_tree);
        let next = match (grown, self.rules.anchor_first) {
            (false, _) => Round::Idle,
            (true, true) => Round::Grown(growth.to),
            (true, false) => Round::Anchored(growth.to),
        };
        world.process_mut(replica)?.round = next;
        Some(())
    }

    pub(crate) fn anchor(self, world: &mut World, replica: usize) -> Option<()> {
        let Round::Grown(tree) = world.process(replica)?.round.clone() else { return None };
        let seen = world.process(replica)?.seen.clone();
        let replaced = world.replace_anchor(replica, seen.as_ref(), &tree);
        let process = world.process_mut(replica)?;
        if replaced {
            process.seen = Some(tree.clone());
        }
        // Another replica was quicker: what it has anchored is looked at before anything is signed.
        let signed = replaced && self.rules.anchor_first;
        process.round = if signed { Round::Anchored(tree) } else { Round::Idle };
        Some(())
    }

    /// Signs, and shows it to everybody.
    pub(crate) fn publish(self, world: &mut World, replica: usize) -> Option<()> {
        let Round::Anchored(tree) = world.process(replica)?.round.clone() else { return None };
        if !world
            .anchors
            .iter()
            .flatten()
            .any(|anchored| anchored.number > tree.number || anchored.continues(&tree))
        {
            world.broke(Broken::SignedInFault);
        }
        world.history.published.insert(tree.clone());
        let published = &mut world.database.published;
        let newer = |old: &Tree| (old.number, old.leaves.len()) < (tree.number, tree.leaves.len());
        if world.database.tree.number == tree.number && published.as_ref().is_none_or(newer) {
            *published = Some(tree.clone());
        }
        let next = if self.rules.anchor_first { Round::Idle } else { Round::Grown(tree) };
        world.process_mut(replica)?.round = next;
        Some(())
    }
}

fn find(world: &World, replica: usize) -> Found {
    let database = &world.database;
    if !world.continues(world.anchor(replica)) {
        return Found::Fault(Fault::Behind);
    }
    let from = database.tree.clone();
    let mut to = from.clone();
    let mut upto = Vec::new();
    for chain in &database.chains {
        let Some(waiting) = chain.waiting() else { return Found::Fault(Fault::Chain) };
        if !waiting.is_empty() {
            to.leaves.extend(waiting);
            upto.push((chain.id, chain.leaves.len()));
        }
    }
    if to != from {
        return Found::Round(Round::Gathered(Growth { from, to, upto }));
    }
    let published = database.published.as_ref();
    let due = published.is_none_or(|published| published.leaves.len() < from.leaves.len());
    Found::Round(if due && !from.leaves.is_empty() { Round::Grown(from) } else { Round::Idle })
}
