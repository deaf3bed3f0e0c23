//! What a replica holds: the parts that every request shares.

use std::sync::Arc;

use cortex_core::Clock;
use cortex_identity::Identity;
use cortex_providers::{Ask, Plan, Refusal, Registry, Revokers};
use sqlx::PgPool;

use crate::admission::{Admission, Turns};
use crate::approval::{ApproverRules, GrantsConfig};
use crate::barrier::Barriers;
use crate::config::RolesConfig;
use crate::keyring::Keyring;
use crate::leases::Leases;
use crate::library::Library;
use crate::log::Witnesses;
use crate::log::sequencer::Sequencer;
use crate::noise::Noise;
use crate::notify::Notifier;
use crate::random::Random;
use crate::revoking::RevocationConfig;
use crate::sign_in::SignIn;
use crate::store::{Committed, Recorder};
use crate::streams::Streams;

/// A replica's parts.
pub struct Broker {
    /// Proves who asks.
    pub identity: Identity,
    /// The policies in force.
    pub library: Library,
    /// What bars a release.
    pub barriers: Barriers,
    /// Who can end a credential before it expires.
    pub revokers: Revokers,
    /// How revocations are carried out.
    pub revocation: RevocationConfig,
    /// Who is let in.
    pub(crate) admission: Admission,
    /// Identical asks under way.
    pub(crate) turns: Arc<Turns>,
    /// The way to the record.
    pub recorder: Recorder,
    /// Credentials that live.
    pub leases: Leases,
    /// Cortex's own keys.
    pub keyring: Keyring,
    /// Postgres, for what is not group-committed.
    pub pool: PgPool,
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// Randomness.
    pub random: Arc<dyn Random>,
    /// How approvals work.
    pub grants: GrantsConfig,
    /// What holds for every approver.
    pub approvers: ApproverRules,
    /// Tells people what happens.
    pub notifier: Notifier,
    /// Sends every record to other systems.
    pub streams: Streams,
    /// Who may do what.
    pub roles: RolesConfig,
    /// Where people sign in, if they can.
    pub sign_in: Option<SignIn>,
    /// Counts callers that proved nothing.
    pub noise: Noise,
    /// Brings the log up to date.
    pub log: Sequencer,
    /// Shows it to others.
    pub witnesses: Witnesses,
    pub(crate) providers: Registry<Committed>,
}

impl Broker {
    /// Plans a credential; nothing is minted.
    pub(crate) fn plan(&self, provider: &str, ask: &Ask<'_>) -> Result<Plan<Committed>, Refusal> {
        match self.providers.get(provider) {
            Some(known) => known.plan(ask),
            None => Err(Refusal {
                message: format!("This Cortex has no provider named {provider}."),
                remedy: "Ask an admin to upgrade Cortex or to change the policy.".to_owned(),
            }),
        }
    }
}
