//! What must hold in every state, and what must be reached in some.

use stateright::{Model, Property};

use crate::actions::Action;
use crate::database::{Tree, What};
use crate::process::{Fault, Writer};
use crate::world::{Broken, Cortex, World};

/// The properties, those that are reached only with faults where the budget has them.
pub(crate) fn of(cortex: &Cortex) -> Vec<Property<Cortex>> {
    let mut all = vec![
        Property::always("every mint has an earlier durable intent", |_, world: &World| {
            world.history.broken != Some(Broken::MintedWithoutIntent)
        }),
        Property::always("a credential leaves only after its outcome is durable", |_, world: &World| {
            !matches!(
                world.history.broken,
                Some(Broken::ReleasedBeforeOutcome | Broken::ReleasedAgainstOutcome)
            )
        }),
        Property::always("an intent has one outcome at the most", |_, world: &World| one_outcome(world)),
        Property::always("what was acknowledged and not lost is on record", |_, world: &World| {
            let mut kept = world.history.acknowledged.difference(&world.history.lost);
            kept.all(|record| world.database.has(*record))
        }),
        Property::always("checkpoints continue each other", |_, world: &World| continue_each_other(world)),
        Property::always(
            "at rest, everything on record is in the last checkpoint",
            |cortex, world: &World| !at_rest(cortex, world) || sealed(world),
        ),
        Property::always("whatever happened, there is a way on", |cortex, world: &World| {
            !at_rest(cortex, world) || world.is_finished()
        }),
        Property::always("nothing is admitted or signed in fault", |_, world: &World| {
            !matches!(world.history.broken, Some(Broken::AdmittedInFault | Broken::SignedInFault))
        }),
        Property::always("where nothing was lost no fault is found", |_, world: &World| {
            world.history.broken != Some(Broken::FalseAlarm)
        }),
        Property::sometimes("at rest, everything that was asked for has left", |cortex, world: &World| {
            at_rest(cortex, world) && world.history.released.len() == world.calls.len()
        }),
    ];
    if cortex.budget.losses > 0 {
        all.push(Property::sometimes("a commit arrives late", |_, world: &World| world.history.late));
        all.push(Property::sometimes("an intent ends as indeterminate", |_, world: &World| {
            world.database.records().any(|record| record.what == What::Indeterminate)
        }));
    }
    if cortex.budget.failovers > 0 {
        all.push(Property::sometimes("a database behind its anchor is noticed", |_, world: &World| {
            noticed(world, Fault::Behind)
        }));
        all.push(Property::sometimes("a process notices that it is forgotten", |_, world: &World| {
            noticed(world, Fault::Rewound)
        }));
    }
    if cortex.budget.failovers > 0 && cortex.budget.asks > 1 {
        all.push(Property::sometimes("something leaves after a recovery", |_, world: &World| {
            world.history.released_after_recovery
        }));
    }
    if cortex.budget.slow > 0 {
        all.push(Property::sometimes("an answer comes too late and is withheld", |_, world: &World| {
            world.history.superseded
        }));
    }
    all
}

fn noticed(world: &World, fault: Fault) -> bool {
    world.replicas.iter().flatten().any(|process| process.fault() == Some(fault))
}

/// Whether nothing more happens but what the world does to it.
fn at_rest(cortex: &Cortex, world: &World) -> bool {
    // Cheaper than asking what may happen.
    if world.replicas.iter().flatten().any(|process| process.writer != Writer::Idle) {
        return false;
    }
    let mut actions = Vec::new();
    cortex.actions(world, &mut actions);
    actions.into_iter().all(Action::is_fault)
}

fn one_outcome(world: &World) -> bool {
    (0_u8..).take(world.calls.len()).all(|issuance| {
        let of =
            |record: &crate::database::Record| record.issuance == issuance && record.what != What::Intent;
        world.database.records().filter(of).count() <= 1
    })
}

fn continue_each_other(world: &World) -> bool {
    // In order: of one tree, those that continue each other are one after the other.
    let published: Vec<&Tree> = world.history.published.iter().collect();
    published.windows(2).all(|two| match two {
        [one, next] => one.number != next.number || next.continues(one),
        _ => true,
    })
}

fn sealed(world: &World) -> bool {
    let database = &world.database;
    let trees: Vec<&Tree> = database.closed.iter().chain(&database.published).collect();
    database
        .chains
        .iter()
        .flat_map(|chain| &chain.leaves)
        .all(|leaf| trees.iter().any(|tree| tree.leaves.contains(leaf)))
}
