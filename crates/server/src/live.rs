//! What of the configuration is taken over while a replica runs: whole, or not at all.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use cortex_core::Clock;
use cortex_identity::{Identity, OwnIssuer, SetupError};
use cortex_providers::{Registry, Revokers};
use serde::Serialize;

use crate::approval::{ApproverRules, GrantsConfig};
use crate::broker::Broker;
use crate::config::{Config, RolesConfig};
use crate::keyring::Keyring;
use crate::store::Committed;

/// What follows from the configuration and may be exchanged: who is believed, what is minted and how, who may do what.
pub struct Live {
    /// Proves who asks.
    pub identity: Arc<Identity>,
    /// Who can end a credential before it expires.
    pub revokers: Arc<Revokers>,
    /// How approvals work.
    pub grants: GrantsConfig,
    /// What holds for every approver.
    pub approvers: ApproverRules,
    /// Who may do what.
    pub roles: RolesConfig,
    pub(crate) providers: Registry<Committed>,
    /// What all of this was made of.
    config: Config,
}

/// What it takes to make them, besides the configuration.
pub(crate) struct Origin {
    pub(crate) issuer_url: String,
    pub(crate) clock: Arc<dyn Clock>,
}

impl Live {
    /// Everything that `config` says. What is as it was `before` is kept, with the keys and clients that it has.
    pub(crate) fn new(
        config: &Config,
        before: Option<&Self>,
        origin: &Origin,
        keyring: &Keyring,
    ) -> Result<Self, SetupError> {
        let before_trust = before.filter(|before| same_trust(&before.config, config));
        let identity = if let Some(before) = before_trust {
            Arc::clone(&before.identity)
        } else {
            let own = own_issuer(&origin.issuer_url, keyring);
            let clock = Arc::clone(&origin.clock);
            Arc::new(Identity::new(config.trust(), own, clock, reqwest::Client::builder)?)
        };
        let (providers, revokers) = match before.filter(|before| before.config.providers == config.providers)
        {
            Some(before) => (before.providers.clone(), Arc::clone(&before.revokers)),
            None => (
                cortex_providers::registry(&config.providers, keyring.issuer()),
                Arc::new(cortex_providers::revokers(&config.providers, keyring.issuer())),
            ),
        };
        Ok(Self {
            identity,
            revokers,
            grants: config.grants.clone(),
            approvers: ApproverRules::new(&config.grants, &config.issuers),
            roles: config.roles.clone(),
            providers,
            config: config.clone(),
        })
    }
}

/// How the last reload went, for operators.
#[derive(Default)]
pub(crate) struct Reloaded(Mutex<Vec<String>>);

impl Reloaded {
    /// What an operator should look at.
    pub(crate) fn warnings(&self) -> Vec<String> {
        self.said().clone()
    }

    fn said(&self) -> MutexGuard<'_, Vec<String>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Takes over what `loaded` says and can be taken over, all of it or nothing. What is only read at a start is named.
pub(crate) fn reload(broker: &Broker, loaded: Result<Config, String>) {
    let taken = loaded.and_then(|config| take_over(broker, &config));
    let (outcome, refused, warnings) = match taken {
        Ok(waiting) if waiting.is_empty() => {
            tracing::info!("the configuration was read again and is in force");
            ("taken", 0.0, Vec::new())
        }
        Ok(waiting) => {
            let waiting = format!("configuration: changed, and read at a start only: {}", waiting.join(", "));
            tracing::warn!(waiting, "the configuration was read again; a part of it waits for a restart");
            ("taken", 0.0, vec![waiting])
        }
        Err(error) => {
            tracing::error!(
                error,
                "the configuration cannot be taken over; the one before stays in force, whole"
            );
            (
                "refused",
                1.0,
                vec![format!("configuration: cannot be taken over, the one before is in force: {error}")],
            )
        }
    };
    metrics::counter!("cortex_config_reloads_total", "outcome" => outcome).increment(1);
    metrics::gauge!("cortex_config_refused").set(refused);
    *broker.reloaded.said() = warnings;
}

/// Answers what differs and waits for a restart.
fn take_over(broker: &Broker, config: &Config) -> Result<Vec<&'static str>, String> {
    let before = broker.live();
    let live = Live::new(config, Some(&before), &broker.origin, &broker.keyring);
    let live = live.map_err(|error| error.to_string())?;
    // From here on nothing fails.
    broker.admission.set(&config.admission);
    broker.exchange_live(live);
    Ok(waiting(&broker.started, config))
}

/// The sections that are read at a start only, and differ.
fn waiting(started: &Config, now: &Config) -> Vec<&'static str> {
    let sections = [
        ("server", same(&started.server, &now.server)),
        ("database", same(&started.database, &now.database)),
        ("keys", same(&started.keys, &now.keys)),
        ("kms", same(&started.kms, &now.kms)),
        ("log", same(&started.log, &now.log)),
        ("sign_in", same(&started.sign_in, &now.sign_in) && same_people(started, now)),
        ("leases", same(&started.leases, &now.leases)),
        ("revocation", same(&started.revocation, &now.revocation)),
        ("notifications", same(&started.notifications, &now.notifications)),
        ("streams", same(&started.streams, &now.streams)),
        ("telemetry", same(&started.telemetry, &now.telemetry)),
    ];
    sections.into_iter().filter(|(_, same)| !same).map(|(section, _)| section).collect()
}

fn same_trust(one: &Config, other: &Config) -> bool {
    same(&one.issuers, &other.issuers)
        && same(&one.airflows, &other.airflows)
        && same(&one.clusters, &other.clusters)
}

/// Whether people sign in at the same place.
fn same_people(one: &Config, other: &Config) -> bool {
    let place = |config: &Config| {
        let issuer =
            config.issuers.iter().find(|issuer| Some(&issuer.name) == config.sign_in.issuer.as_ref());
        serde_json::to_value(issuer).ok()
    };
    place(one) == place(other)
}

fn same<T: Serialize>(one: &T, other: &T) -> bool {
    let value = |section: &T| serde_json::to_value(section).ok();
    value(one) == value(other)
}

fn own_issuer(issuer_url: &str, keyring: &Keyring) -> Option<OwnIssuer> {
    let name = "cortex".parse().ok()?;
    let jwks = keyring.published();
    let jwks = move || jwks.load().to_string().into_bytes();
    Some(OwnIssuer { name, iss: issuer_url.to_owned(), jwks: Box::new(jwks) })
}
