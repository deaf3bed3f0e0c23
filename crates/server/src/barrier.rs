//! What stands in the way of a release: freezes and revocations, in this replica's memory.
//!
//! A notification, with a poll behind it, brings each change here within a second. That is for speed. What makes it
//! certain is the epoch: whatever is released is committed under the epoch in which it was decided, and the commit
//! fails once a freeze or a revocation has begun another one (see `store/commit.rs`).

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use arc_swap::ArcSwap;
use cortex_core::revocation::Selector;
use cortex_core::{Clock, Freeze, Holder, IssuanceId, RevocationId, Scope};
use jiff::Timestamp;
use sqlx::PgPool;
use tokio::sync::MutexGuard;
use tokio::time::Instant;

use crate::store::barrier::{self, Barring, Recent};
use crate::store::revocations::{opened_at, since_longest_life};
use crate::store::{StoreError, freezes};

/// What bars a credential.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Bar {
    /// A freeze: for as long as it holds.
    Frozen(Freeze),
    /// A revocation: for good.
    Revoked(RevocationId),
}

/// Everything that bars releases in one epoch.
#[derive(Default)]
pub struct Barrier {
    epoch: i64,
    freezes: HashMap<Scope, Vec<Freeze>>,
    revoked: HashMap<Scope, Vec<Recent>>,
    issuances: HashMap<IssuanceId, RevocationId>,
}

impl Barrier {
    fn new(barring: Barring) -> Self {
        let mut next = Self { epoch: barring.epoch, ..Self::default() };
        for freeze in barring.freezes {
            next.freezes.entry(freeze.scope.clone()).or_default().push(freeze);
        }
        for recent in barring.revocations {
            match &recent.selector {
                Selector::Issuance { issuance_id } => drop(next.issuances.insert(*issuance_id, recent.id)),
                Selector::Within { scope, .. } => {
                    next.revoked.entry(scope.clone()).or_default().push(recent);
                }
            }
        }
        next
    }

    /// The epoch that what is decided with this is decided in.
    pub fn epoch(&self) -> i64 {
        self.epoch
    }

    /// How many freezes are in force.
    pub(crate) fn freezes(&self, now: Timestamp) -> usize {
        self.freezes.values().flatten().filter(|freeze| freeze.holds_at(now)).count()
    }

    /// The freeze that bars `holder` from anything new.
    pub fn bars_new(&self, holder: &Holder<'_>, now: Timestamp) -> Option<&Freeze> {
        if self.freezes.is_empty() {
            return None;
        }
        let scopes = Scope::holding(holder);
        let mut freezes = scopes.iter().filter_map(|scope| self.freezes.get(scope)).flatten();
        freezes.find(|freeze| freeze.holds_at(now))
    }

    /// What bars the credential of `issuance_id`, which `holder` has or is about to get.
    pub fn bars(&self, holder: &Holder<'_>, issuance_id: IssuanceId, now: Timestamp) -> Option<Bar> {
        if let Some(revocation) = self.issuances.get(&issuance_id) {
            return Some(Bar::Revoked(*revocation));
        }
        if !self.revoked.is_empty() {
            let scopes = Scope::holding(holder);
            let mut revoked = scopes.iter().filter_map(|scope| self.revoked.get(scope)).flatten();
            if let Some(recent) = revoked.find(|recent| means(recent, issuance_id)) {
                return Some(Bar::Revoked(recent.id));
            }
        }
        self.bars_new(holder, now).cloned().map(Bar::Frozen)
    }
}

/// Whether a revocation of a scope means an issuance within that scope: it was opened before the revocation, and not
/// too long before.
fn means(recent: &Recent, issuance_id: IssuanceId) -> bool {
    let since = match &recent.selector {
        Selector::Within { since, .. } => *since,
        Selector::Issuance { .. } => None,
    };
    issuance_id <= recent.up_to && since.is_none_or(|since| issuance_id >= opened_at(since))
}

/// The barrier of one replica. What was once known to be barred is never forgotten because the database is away.
pub struct Barriers {
    current: ArcSwap<Barrier>,
    /// When the database last said that `current` is the latest.
    confirmed: Mutex<Instant>,
    refreshing: tokio::sync::Mutex<()>,
    clock: Arc<dyn Clock>,
}

impl Barriers {
    /// Reads what bars releases now.
    pub async fn open(pool: &PgPool, clock: Arc<dyn Clock>) -> Result<Self, StoreError> {
        let barriers = Self {
            current: ArcSwap::from_pointee(Barrier::default()),
            confirmed: Mutex::new(Instant::now()),
            refreshing: tokio::sync::Mutex::default(),
            clock,
        };
        barriers.refresh(pool).await?;
        Ok(barriers)
    }

    /// What this replica knows: enough for what a commit stands behind.
    pub fn known(&self) -> Arc<Barrier> {
        self.current.load_full()
    }

    /// What the database says now: for what is handed out without a commit. Where the database is away, nothing is.
    /// Those who ask at once share one answer.
    pub async fn asked_now(&self, pool: &PgPool) -> Result<Arc<Barrier>, StoreError> {
        let since = Instant::now();
        let one_at_a_time = self.refreshing.lock().await;
        if *self.confirmed.lock().unwrap_or_else(PoisonError::into_inner) < since {
            self.take_over(pool, &one_at_a_time).await?;
        }
        Ok(self.known())
    }

    /// Takes over what changed.
    pub async fn refresh(&self, pool: &PgPool) -> Result<(), StoreError> {
        self.asked_now(pool).await.map(drop)
    }

    async fn take_over(&self, pool: &PgPool, _one_at_a_time: &MutexGuard<'_, ()>) -> Result<(), StoreError> {
        let asked = Instant::now();
        if freezes::epoch(pool).await? != self.current.load().epoch {
            let now = self.clock.now();
            let barring = barrier::read(pool, since_longest_life(now), now).await?;
            tracing::info!(
                epoch = barring.epoch,
                freezes = barring.freezes.len(),
                revocations = barring.revocations.len(),
                "freezes or revocations changed"
            );
            self.current.store(Arc::new(Barrier::new(barring)));
        }
        // What is said to be the latest was so when it was asked for.
        *self.confirmed.lock().unwrap_or_else(PoisonError::into_inner) = asked;
        Ok(())
    }
}
