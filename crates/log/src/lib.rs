//! The tamper-evident issuance log: its tree, its notes and its proofs, and how all of it is verified.
//!
//! A *leaf* is a record's exact bytes with the [`seal`] of the process that wrote it. Leaves stand in an RFC 6962
//! [`tree`], published as C2SP [`tile`]s; a [`checkpoint`] is a signed [`note`] of its size and root.
//!
//! Nothing here reads a clock, a file or a socket, so that the server, the command line and an auditor's offline
//! tool run the same code.

pub mod audit;
pub mod checkpoint;
mod hash;
pub mod note;
pub mod opening;
pub mod personal;
pub mod proof;
pub mod receipt;
pub mod seal;
mod text;
pub mod tile;
pub mod tree;
pub mod witness;

pub use hash::{Hash, InvalidHash};
