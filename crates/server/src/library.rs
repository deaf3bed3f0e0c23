//! The policies and guardrails in force, in this replica's memory.
//!
//! Postgres holds the truth; a notification, with a poll behind it, brings every change here within a second.
//! A policy is compiled when it is first asked for, so that a start with a hundred thousand of them is quick.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, OnceLock};

use arc_swap::ArcSwap;
use cortex_core::policy::{Guardrails, Held, Policy};
use cortex_core::{Digest, PolicyName};
use cortex_providers::BuiltIns;
use moka::sync::Cache;
use sqlx::PgPool;
use tokio::sync::Mutex;

use crate::store::StoreError;
use crate::store::documents::{self, Changed};

/// How many policies' rules are kept at hand: those of the others are built again when they are asked.
const RECENT: u64 = 1_000;
/// How many changes are read at once.
const PAGE: i64 = 2_000;

/// A policy as it stands in the library.
pub struct Shelved {
    version: i32,
    source: String,
    compiled: OnceLock<Option<Arc<Policy>>>,
}

impl Shelved {
    /// The version that is in force.
    pub fn version(&self) -> i32 {
        self.version
    }

    /// The policy, compiled. None where this binary cannot read what an older or newer one stored: such a
    /// policy permits nothing.
    pub fn policy(&self) -> Option<&Arc<Policy>> {
        let compile = || match Policy::compile(&self.source, &BuiltIns) {
            Ok(policy) => Some(Arc::new(policy)),
            Err(problems) => {
                tracing::error!(?problems, "a stored policy does not compile: it permits nothing");
                None
            }
        };
        self.compiled.get_or_init(compile).as_ref()
    }
}

/// One consistent state of the library.
#[derive(Clone)]
pub struct Catalogue {
    policies: HashMap<PolicyName, Arc<Shelved>>,
    sources: BTreeMap<String, String>,
    guardrails: Arc<Guardrails>,
    guardrails_digest: Digest,
    readable: bool,
    revision: i64,
}

impl Catalogue {
    /// The policy of this name.
    pub fn policy(&self, name: &PolicyName) -> Option<&Arc<Shelved>> {
        self.policies.get(name)
    }

    /// The guardrails; none where this binary cannot read them, and then nothing may be issued.
    pub fn guardrails(&self) -> Option<&Guardrails> {
        self.readable.then_some(&self.guardrails)
    }

    /// The same, for those who hold on to them.
    pub(crate) fn shared_guardrails(&self) -> Option<Arc<Guardrails>> {
        self.readable.then(|| Arc::clone(&self.guardrails))
    }

    /// The digest of all guardrails together.
    pub fn guardrails_digest(&self) -> Digest {
        self.guardrails_digest
    }

    /// How many policies are in force.
    pub fn len(&self) -> usize {
        self.policies.len()
    }

    /// Whether no policy is in force.
    pub fn is_empty(&self) -> bool {
        self.policies.is_empty()
    }
}

/// The library of one replica.
pub struct Library {
    catalogue: ArcSwap<Catalogue>,
    refreshing: Mutex<()>,
    recent: Cache<Digest, Held>,
}

impl Library {
    /// Reads everything that is in force.
    pub async fn open(pool: &PgPool) -> Result<Self, StoreError> {
        let empty = Catalogue {
            policies: HashMap::new(),
            sources: BTreeMap::new(),
            guardrails: Arc::new(Guardrails::none()),
            guardrails_digest: Digest::of(b""),
            readable: true,
            revision: 0,
        };
        let library = Self {
            catalogue: ArcSwap::from_pointee(empty),
            refreshing: Mutex::new(()),
            recent: Cache::new(RECENT),
        };
        library.refresh(pool).await?;
        Ok(library)
    }

    /// What is in force now.
    pub fn catalogue(&self) -> Arc<Catalogue> {
        self.catalogue.load_full()
    }

    /// Keeps a policy's rules at hand, as one of those that were asked last.
    pub(crate) fn keep_at_hand(&self, policy: &Policy) {
        let recent = self.recent.get(&policy.digest());
        if let (None, Some(held)) = (recent, policy.hold()) {
            self.recent.insert(policy.digest(), held);
        }
    }

    /// Takes over what changed since the last time.
    pub async fn refresh(&self, pool: &PgPool) -> Result<(), StoreError> {
        let _one_at_a_time = self.refreshing.lock().await;
        let mut next: Option<Catalogue> = None;
        loop {
            let revision = next.as_ref().map_or_else(|| self.catalogue.load().revision, |next| next.revision);
            let changes = documents::changed_since(pool, revision, PAGE).await?;
            let Some(last) = changes.last() else { break };
            tracing::info!(changes = changes.len(), revision = last.revision, "policies changed");
            // Copied once, however many pages there are.
            next.get_or_insert_with(|| Catalogue::clone(&self.catalogue.load())).take_in(changes);
        }
        if let Some(next) = next {
            self.catalogue.store(Arc::new(next));
        }
        Ok(())
    }
}

impl Catalogue {
    fn take_in(&mut self, changes: Vec<Changed>) {
        let mut guardrails_changed = false;
        for change in changes {
            self.revision = change.revision;
            match change.kind.as_str() {
                "guardrail" => {
                    guardrails_changed = true;
                    self.put_guardrail(change);
                }
                _ => self.put_policy(change),
            }
        }
        if guardrails_changed {
            self.compile_guardrails();
        }
    }

    fn put_policy(&mut self, change: Changed) {
        let Ok(name) = change.name.parse::<PolicyName>() else {
            tracing::error!(name = change.name, "a stored policy has no readable name: it permits nothing");
            return;
        };
        if change.retired {
            self.policies.remove(&name);
        } else {
            let shelved =
                Shelved { version: change.version, source: change.source, compiled: OnceLock::new() };
            self.policies.insert(name, Arc::new(shelved));
        }
    }

    fn put_guardrail(&mut self, change: Changed) {
        if change.retired {
            self.sources.remove(&change.name);
        } else {
            self.sources.insert(change.name, change.source);
        }
    }

    fn compile_guardrails(&mut self) {
        let sources: Vec<_> =
            self.sources.iter().map(|(name, text)| (name.as_str(), text.as_str())).collect();
        match Guardrails::compile(&sources) {
            Ok(guardrails) => (self.guardrails, self.readable) = (Arc::new(guardrails), true),
            Err(problems) => {
                tracing::error!(?problems, "the stored guardrails do not compile: nothing is issued");
                self.readable = false;
            }
        }
        let mut text = String::new();
        for (name, source) in &self.sources {
            text.push_str(&Digest::of(name.as_bytes()).to_string());
            text.push_str(&Digest::of(source.as_bytes()).to_string());
        }
        self.guardrails_digest = Digest::of(text.as_bytes());
    }
}
