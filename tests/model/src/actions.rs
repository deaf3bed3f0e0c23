//! What can happen next.

use stateright::{Model, Property};

use crate::database::{Database, Tree, What};
use crate::process::{Process, Round, Task, Writer};
use crate::properties;
use crate::rounds::{look, would_find_something};
use crate::world::{Broken, Call, Cortex, REPLICAS, World};
use crate::writing::{carry_out, delay, lose, settle};

/// One step. Numbers are a replica, or an issuance where it says so.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// A caller asks a replica.
    Ask(usize),
    /// The recorder sends a commit of what its caller wants.
    Write(usize),
    /// The supervisor has an issuance ended that is open: the replica and the issuance.
    Abandon(usize, u8),
    /// The database carries a commit out.
    Commit(usize),
    /// The recorder hears the answer.
    Hear(usize),
    /// The recorder looks whether an uncertain commit has happened.
    Settle(usize),
    /// A commit that was given up arrives: its place among those.
    ArriveLate(usize),
    /// A cloud makes a credential, for this issuance.
    Mint(u8),
    /// A cloud's answer arrives.
    HearMint(usize),
    /// The outcome could not be written in time.
    GiveUp(usize),
    /// The sequencer compares and gathers.
    Look(usize),
    /// It commits the tree.
    Grow(usize),
    /// It replaces the anchor.
    Anchor(usize),
    /// It signs and publishes.
    Publish(usize),
    /// A replica is started.
    Start(usize),
    /// Operators start a process anew that has seen what is lost, and does not go on.
    Restart(usize),
    /// Operators stop everything and write off what is lost.
    Recover,
    /// Operators restore the older state once more: the database has another history than what was published.
    Restore,
    /// A commit, or its answer, is lost.
    Lose(usize),
    /// A commit is given up, and still on its way.
    Delay(usize),
    /// A cloud's answer, or the call, is lost.
    LoseMint(usize),
    /// kill -9.
    Kill(usize),
    /// An older state is kept.
    Replicate,
    /// The older state takes the database's place.
    Failover,
}

impl Action {
    /// Whether it is the world's doing: things go on without it.
    pub fn is_fault(self) -> bool {
        matches!(
            self,
            Self::Lose(_)
                | Self::Delay(_)
                | Self::LoseMint(_)
                | Self::Kill(_)
                | Self::Replicate
                | Self::Failover
                | Self::Ask(_)
        )
    }
}

impl Model for Cortex {
    type State = World;
    type Action = Action;

    fn init_states(&self) -> Vec<World> {
        vec![World::new(self)]
    }

    fn actions(&self, world: &World, actions: &mut Vec<Action>) {
        for replica in 0..REPLICAS {
            match world.replicas.get(replica).and_then(Option::as_ref) {
                Some(process) => {
                    of_task(world, replica, process, actions);
                    self.of_writer(world, replica, process, actions);
                    of_round(world, replica, process, actions);
                    if world.budget.kills > 0 {
                        actions.push(Action::Kill(replica));
                    }
                    if process.rewound {
                        actions.push(Action::Restart(replica));
                    }
                }
                None => actions.push(Action::Start(replica)),
            }
        }
        of_database(world, actions);
    }

    fn next_state(&self, world: &World, action: Action) -> Option<World> {
        let mut next = world.clone();
        self.act(&mut next, action)?;
        (next != *world).then_some(next)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        properties::of(self)
    }
}

fn of_task(world: &World, replica: usize, process: &Process, actions: &mut Vec<Action>) {
    match process.task {
        // Callers take turns: which replica is called the first makes no difference.
        None if world.budget.asks > 0 && world.next_issuance() % REPLICAS == replica => {
            actions.push(Action::Ask(replica));
        }
        Some(Task::Calling(issuance)) => {
            if world.call(issuance) == Some(Call::Minted) {
                actions.push(Action::HearMint(replica));
            }
            if world.budget.lost_mints > 0 {
                actions.push(Action::LoseMint(replica));
            }
        }
        Some(Task::Finishing(_, What::Issued))
            if process.fault().is_some() && process.writer == Writer::Idle =>
        {
            actions.push(Action::GiveUp(replica));
        }
        None | Some(Task::Asked(_) | Task::Finishing(..)) => {}
    }
}

fn of_round(world: &World, replica: usize, process: &Process, actions: &mut Vec<Action>) {
    match process.round {
        Round::Idle => {
            if would_find_something(world, replica, process) {
                actions.push(Action::Look(replica));
            }
        }
        Round::Gathered(_) => actions.push(Action::Grow(replica)),
        Round::Grown(_) => actions.push(Action::Anchor(replica)),
        Round::Anchored(_) => actions.push(Action::Publish(replica)),
    }
}

/// What clouds, operators and the database's own faults do.
fn of_database(world: &World, actions: &mut Vec<Action>) {
    actions.extend((0..world.late.len()).map(Action::ArriveLate));
    let asked = world.calls.iter().zip(0_u8..).filter(|(call, _)| **call == Some(Call::Asked));
    actions.extend(asked.map(|(_, issuance)| Action::Mint(issuance)));
    if world.is_recoverable() {
        actions.push(Action::Recover);
    } else if world.is_behind() && world.standby.is_some() {
        actions.push(Action::Restore);
    }
    if world.budget.failovers > 0 {
        match &world.standby {
            None => actions.push(Action::Replicate),
            Some(standby) if *standby != world.database => actions.push(Action::Failover),
            Some(_) => {}
        }
    }
}

impl Cortex {
    fn of_writer(self, world: &World, replica: usize, process: &Process, actions: &mut Vec<Action>) {
        match process.writer {
            Writer::Idle => {
                if process.task.is_some_and(|task| self.may_write(process, task)) {
                    actions.push(Action::Write(replica));
                }
                let issuances = (0_u8..).take(world.calls.len());
                let open = issuances.filter(|issuance| world.may_be_abandoned(replica, *issuance));
                actions.extend(open.map(|issuance| Action::Abandon(replica, issuance)));
            }
            Writer::Sent(..) => {
                actions.push(Action::Commit(replica));
                if world.budget.losses > 0 {
                    actions.extend([Action::Lose(replica), Action::Delay(replica)]);
                }
            }
            Writer::Answered(..) => {
                actions.push(Action::Hear(replica));
                if world.budget.losses > 0 {
                    actions.push(Action::Lose(replica));
                }
            }
            Writer::Uncertain(_) => actions.push(Action::Settle(replica)),
        }
    }

    fn act(self, world: &mut World, action: Action) -> Option<()> {
        match action {
            Action::Ask(replica) => self.ask(world, replica),
            Action::Write(replica) => {
                let record = world.process(replica)?.task?.record()?;
                self.write(world, replica, record, false)?;
                self.whole_commit(world, replica)
            }
            Action::Abandon(replica, issuance) => {
                self.abandon(world, replica, issuance)?;
                self.whole_commit(world, replica)
            }
            Action::Commit(replica) => carry_out(world, replica),
            Action::Hear(replica) => self.hear(world, replica),
            Action::Settle(replica) => settle(world, replica),
            Action::ArriveLate(place) => arrive_late(world, place),
            Action::Mint(issuance) => mint(world, issuance),
            Action::HearMint(replica) => self.called(world, replica, What::Issued),
            Action::LoseMint(replica) => {
                world.budget.lost_mints -= 1;
                self.called(world, replica, What::Indeterminate)
            }
            Action::GiveUp(replica) => world.process_mut(replica)?.task.take().map(drop),
            Action::Look(replica) => {
                look(world, replica)?;
                self.whole_round(world, replica)
            }
            Action::Grow(replica) => self.grow(world, replica),
            Action::Anchor(replica) => self.anchor(world, replica),
            Action::Publish(replica) => self.publish(world, replica),
            Action::Restart(replica) => {
                kill(world, replica)?;
                self.start(world, replica)
            }
            Action::Start(replica) => self.start(world, replica),
            Action::Restore => {
                stop_all(world);
                older_state(world)
            }
            Action::Recover => {
                recover(world);
                Some(())
            }
            Action::Lose(replica) => lose(world, replica),
            Action::Delay(replica) => delay(world, replica),
            Action::Kill(replica) => {
                world.budget.kills -= 1;
                kill(world, replica)
            }
            Action::Replicate => {
                world.standby = Some(world.database.clone());
                Some(())
            }
            Action::Failover => failover(world),
        }
    }

    fn start(self, world: &mut World, replica: usize) -> Option<()> {
        *world.replicas.get_mut(replica)? = Some(Process::new());
        // What the database says is compared with the anchor before anything else.
        look(world, replica)?;
        self.whole_round(world, replica)
    }

    /// Where commits are not looked at closely, one is a single step.
    fn whole_commit(self, world: &mut World, replica: usize) -> Option<()> {
        if self.closely.commits {
            return Some(());
        }
        loop {
            match world.process(replica)?.writer {
                Writer::Idle => return Some(()),
                Writer::Sent(..) => carry_out(world, replica)?,
                Writer::Answered(..) => self.hear(world, replica)?,
                Writer::Uncertain(_) => settle(world, replica)?,
            }
        }
    }

    /// Where rounds are not looked at closely, one is a single step.
    fn whole_round(self, world: &mut World, replica: usize) -> Option<()> {
        if self.closely.rounds {
            return Some(());
        }
        loop {
            match world.process(replica)?.round {
                Round::Idle => return Some(()),
                Round::Gathered(_) => self.grow(world, replica)?,
                Round::Grown(_) => self.anchor(world, replica)?,
                Round::Anchored(_) => self.publish(world, replica)?,
            }
        }
    }

    fn ask(self, world: &mut World, replica: usize) -> Option<()> {
        let issuance = u8::try_from(world.next_issuance()).ok()?;
        world.budget.asks -= 1;
        let task = if self.rules.intent_first {
            Task::Asked(issuance)
        } else {
            world.call_cloud(issuance);
            Task::Calling(issuance)
        };
        world.process_mut(replica)?.task = Some(task);
        Some(())
    }

    fn called(self, world: &mut World, replica: usize, what: What) -> Option<()> {
        let process = world.process_mut(replica)?;
        let issuance = process.task?.issuance();
        process.task = Some(Task::Finishing(issuance, what));
        if what == What::Issued && !self.rules.outcome_first {
            world.release(issuance);
        }
        Some(())
    }
}

fn mint(world: &mut World, issuance: u8) -> Option<()> {
    *world.calls.get_mut(usize::from(issuance))? = Some(Call::Minted);
    let intent = crate::database::Record { issuance, what: What::Intent };
    if !world.history.durable.contains(&intent) {
        world.broke(Broken::MintedWithoutIntent);
    }
    Some(())
}

fn arrive_late(world: &mut World, place: usize) -> Option<()> {
    let commit = (place < world.late.len()).then(|| world.late.remove(place))?;
    if world.database.commit(commit) == crate::database::Answer::Written {
        world.history.late = true;
        world.history.durable.insert(commit.leaf.record);
    }
    Some(())
}

fn kill(world: &mut World, replica: usize) -> Option<()> {
    let process = world.replicas.get_mut(replica)?.take()?;
    if let Writer::Sent(commit, _) = process.writer {
        world.late.push(commit);
    }
    Some(())
}

/// Every connection ends; what is under way in the database does not happen.
fn failover(world: &mut World) -> Option<()> {
    older_state(world)?;
    world.budget.failovers -= 1;
    for process in world.replicas.iter_mut().flatten() {
        if let Writer::Sent(commit, _) = process.writer {
            process.writer = Writer::Uncertain(commit.leaf.record);
        }
        if let Round::Gathered(_) = process.round {
            process.round = Round::Idle;
        }
    }
    Some(())
}

fn older_state(world: &mut World) -> Option<()> {
    let before = std::mem::replace(&mut world.database, world.standby.clone()?);
    let lost: Vec<_> = before.records().filter(|record| !world.database.has(*record)).collect();
    world.history.lost.extend(lost);
    world.history.failed_over = true;
    world.late.clear();
    Some(())
}

fn stop_all(world: &mut World) {
    for replica in &mut world.replicas {
        *replica = None;
    }
    world.late.clear();
}

fn recover(world: &mut World) {
    stop_all(world);
    let anchored: Vec<Tree> = world.anchors.iter().flatten().cloned().collect();
    let Database { tree, chains, closed, published, written_off } = &mut world.database;
    let next = Tree { number: tree.number + 1, leaves: Vec::new() };
    for chain in chains {
        chain.closed = true;
    }
    written_off.extend(anchored);
    *published = Some(next.clone());
    world.history.published.extend([tree.clone(), next.clone()]);
    closed.push(std::mem::replace(tree, next.clone()));
    for anchor in &mut world.anchors {
        *anchor = Some(next.clone());
    }
    world.history.recovered = true;
}

impl World {
    /// A replica that runs.
    pub(crate) fn process(&self, replica: usize) -> Option<&Process> {
        self.replicas.get(replica)?.as_ref()
    }

    /// The same, to change it.
    pub(crate) fn process_mut(&mut self, replica: usize) -> Option<&mut Process> {
        self.replicas.get_mut(replica)?.as_mut()
    }

    /// What a cloud knows of an issuance.
    pub(crate) fn call(&self, issuance: u8) -> Option<Call> {
        self.calls.get(usize::from(issuance)).copied().flatten()
    }

    /// Asks a cloud.
    pub(crate) fn call_cloud(&mut self, issuance: u8) {
        if let Some(call) = self.calls.get_mut(usize::from(issuance)) {
            *call = Some(Call::Asked);
        }
    }

    /// The next caller's.
    fn next_issuance(&self) -> usize {
        self.calls.len() - usize::from(self.budget.asks)
    }

    /// Whether a supervisor ends it: nobody works on it, or somebody else does, too slowly.
    fn may_be_abandoned(&self, replica: usize, issuance: u8) -> bool {
        let works_on = |process: &Process| process.task.is_some_and(|task| task.issuance() == issuance);
        let own = self.process(replica).is_some_and(works_on);
        let alive = self.replicas.iter().flatten().any(works_on);
        self.database.is_open(issuance) && !own && (!alive || self.budget.slow > 0)
    }

    /// Whether a recovery does something: the tree ends before what was published.
    fn is_recoverable(&self) -> bool {
        let tree = &self.database.tree;
        let lost =
            |anchored: &Tree| anchored.number != tree.number || anchored.leaves.len() > tree.leaves.len();
        self.is_behind() && self.anchors.iter().flatten().any(lost)
    }

    /// Whether nothing more is going to happen by itself.
    pub fn is_finished(&self) -> bool {
        let idle = |process: &Process| {
            process.task.is_none() && process.writer == Writer::Idle && process.round == Round::Idle
        };
        self.replicas.iter().all(|replica| replica.as_ref().is_some_and(|p| idle(p) && p.fault().is_none()))
            && self.late.is_empty()
    }
}
