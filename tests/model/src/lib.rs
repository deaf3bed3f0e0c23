//! A model of what Cortex promises, small enough to be looked at in every state that it can reach: intent, mint, outcome,
//! sequencing, anchoring, publishing, and a failover that loses commits. [`stateright`](https://www.stateright.rs) does the
//! looking. It is for tests alone.
//!
//! What stands for what:
//!
//! | here | in `crates/server/src` |
//! |---|---|
//! | [`process::Task`], what one caller waits for | `mint.rs`: `issue` and `mint_remote`; a task's place says whether it has a `Ticket` or a `Committed` |
//! | [`process::Writer`], one commit at a time | `store/recorder.rs`: `write` and `finish`; `store/commit.rs`: `commit` and `settle` |
//! | [`process::Process::tail`] and `known` | `store/pen.rs`: where the recorder is in its chain, or that it has to look |
//! | [`process::Process::fault`] | `log/fault.rs`: `Health`; nothing is admitted or released while it is set |
//! | [`process::Round`] | `log/sequencer.rs`: `compare`, `gather`, `grow`, then `publish`: anchor first, then sign |
//! | [`database::Database::commit`] | the statement in `store/commit.rs` and the function `advance_chain` of the migrations |
//! | [`database::Database::grow`] | `store/log/sequence.rs`: `grow`, by comparing what the tree was |
//! | [`world::World::standby`], `Replicate` and `Failover` | an asynchronous standby that is promoted, or a backup that is restored |
//! | [`world::World::anchors`] | `log/anchor.rs`: one file for all replicas, or one each |
//! | `Recover` | `log/recovery.rs`: `recover` |
//! | `Abandon` | `supervisor.rs`: `sweep` |
//!
//! A commit is whole or not at all; it may be lost on its way, arrive late, or its answer may be lost. A replica may be
//! slow at any point (that is what stopping and continuing one looks like), be killed, and be started again. A checkpoint is
//! here the list of the leaves that it stands for, and the digest that a seal carries is a fingerprint of the leaf before.
//!
//! [`world::Closely`] and [`world::Budget`] keep it finite: what is not looked at closely is one step, and so much of each
//! fault happens and no more. The tests go through every state of several of those.
//!
//! Not in it: batches of more than one row, chains of the desk, years, the row lock on the tree (it saves work; the model does
//! without it, so that the comparison alone has to hold), and what a database's administrator may do (the tests of
//! `cortex-log` and `tests/e2e/log` are about that).
//!
//! [`world::Rules`] are what holds it together. Each can be taken out, and the tests show what breaks then.
//!
//! What it says beside that:
//!
//! - With an anchor for each replica instead of one for all, a failover can make two replicas sign different histories: the
//!   one that did not see the first checkpoint has nothing to compare with. Each notices by itself only what it has seen.
//! - A replica may be between committing a tree and anchoring it when a failover takes the tree away, while another one lets
//!   it grow otherwise. What is anchored and signed then is not what the database has: `cortex log recover` has nothing
//!   to write off, and the way on is to restore a state of before once more (`Restore`).

mod actions;
pub mod database;
pub mod process;
mod properties;
mod rounds;
pub mod world;
mod writing;

pub use actions::Action;
pub use world::{Anchors, Broken, Budget, Closely, Cortex, Rules, World};
