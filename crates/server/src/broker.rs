//! What a replica holds: the parts that every request shares.

use std::sync::Arc;

use arc_swap::ArcSwap;
use cortex_core::Clock;
use cortex_providers::{Ask, Plan, Refusal};
use sqlx::PgPool;
use tokio::sync::Notify;

use crate::admission::{Admission, Turns};
use crate::barrier::Barriers;
use crate::config::Config;
use crate::keyring::Keyring;
use crate::leases::Leases;
use crate::library::Library;
use crate::live::{Live, Origin, Reloaded};
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
    /// The policies in force.
    pub library: Library,
    /// What bars a release.
    pub barriers: Barriers,
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
    /// Tells people what happens.
    pub notifier: Notifier,
    /// Sends every record to other systems.
    pub streams: Streams,
    /// Where people sign in, if they can.
    pub sign_in: Option<SignIn>,
    /// Counts callers that proved nothing.
    pub noise: Noise,
    /// Brings the log up to date.
    pub log: Sequencer,
    /// Shows it to others.
    pub witnesses: Witnesses,
    /// The configuration that it was started with.
    pub(crate) started: Config,
    /// What is taken over while it runs is made with this.
    pub(crate) origin: Origin,
    /// How that went the last time.
    pub(crate) reloaded: Reloaded,
    pub(crate) live: ArcSwap<Live>,
    /// Something else is live now.
    pub(crate) exchanged: Notify,
}

impl Broker {
    /// What of the configuration is in force.
    pub fn live(&self) -> Arc<Live> {
        self.live.load_full()
    }

    pub(crate) fn exchange_live(&self, live: Live) {
        self.live.store(Arc::new(live));
        self.exchanged.notify_one();
    }

    /// Plans a credential; nothing is minted.
    pub(crate) fn plan(&self, provider: &str, ask: &Ask<'_>) -> Result<Plan<Committed>, Refusal> {
        match self.live().providers.get(provider) {
            Some(known) => known.plan(ask),
            None => Err(Refusal {
                message: format!("This Cortex has no provider named {provider}."),
                remedy: "Ask an admin to upgrade Cortex or to change the policy.".to_owned(),
            }),
        }
    }
}
