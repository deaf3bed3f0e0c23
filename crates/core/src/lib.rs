//! The nouns of Cortex and its pure decisions: who asks ([`principal`]), what a policy says
//! ([`policy`], [`decision`]), what leaves ([`credential`]) and what is written down ([`record`]).
//!
//! Nothing here waits, reads a clock or opens a socket: time and randomness are arguments, so that every
//! decision can be repeated.

pub mod clock;
pub mod credential;
pub mod decision;
pub mod freeze;
pub mod grant;
pub mod ids;
pub mod jwt;
pub mod policy;
pub mod principal;
pub mod rate;
pub mod record;
pub mod revocation;
pub mod template;

pub use clock::Clock;
pub use credential::{Body, Lease, Minted, Secret};
pub use decision::{Clause, Decision, Reason};
pub use freeze::{Freeze, Holder, Scope};
pub use ids::{
    DecisionId, Digest, FreezeId, GrantId, HoldId, IssuanceId, IssuerName, NotificationId, PolicyName,
    RecordId, RevocationId, SessionId,
};
pub use principal::{Attestation, ClaimedRun, Person, Principal, Run, Service, SignIn};
