//! The people whom a log names by commitments: each is known beside the log, or a record says that they were erased.

use std::collections::{HashMap, HashSet};

use cortex_core::record::personal::{PersonalKind, Place};
use cortex_core::record::{Entry, What};
use sqlx::PgConnection;

use super::verify::{Finding, VerifyError};
use crate::store::{StoreError, personal};

/// How many openings are checked at a time.
const PAGE: i64 = 4_096;

/// Commitments to people, each with the first leaf that has it.
#[derive(Default)]
pub(super) struct People(HashMap<String, (String, u64)>);

impl People {
    /// Takes note of whom these entries name.
    pub(super) fn note(&mut self, origin: &str, first: u64, entries: &mut [Entry]) {
        for (index, entry) in (first..).zip(entries) {
            for place in entry.what.personal() {
                // What belongs to somebody is erased with them, and no record says of what there was how much.
                let owned = |kind: &PersonalKind| *kind != PersonalKind::User;
                if matches!(&place, Place::Value { kind, .. } if owned(kind)) {
                    continue;
                }
                if let Some(commitment) = place.commitment().filter(|text| !self.0.contains_key(*text)) {
                    self.0.insert(commitment.to_owned(), (origin.to_owned(), index));
                }
            }
        }
    }

    /// Checks every opening, and that of those who cannot be opened each was erased.
    pub(super) async fn check(mut self, connection: &mut PgConnection) -> Result<(), VerifyError> {
        let mut after = String::new();
        loop {
            let openings = personal::page(&mut *connection, &after, PAGE).await?;
            let Some(last) = openings.last() else { break };
            after.clone_from(&last.commitment);
            for opening in openings {
                if !opening.fits() {
                    return Err(Finding::Opening(opening.commitment).into());
                }
                self.0.remove(&opening.commitment);
            }
        }
        // Read afterwards: whoever was erased in the meantime is among them.
        let erased = erased(connection).await?;
        let unknown = self.0.into_iter().filter(|(commitment, _)| !erased.contains(commitment));
        match unknown.min_by(|(_, one), (_, other)| one.cmp(other)) {
            Some((commitment, (origin, index))) => {
                Err(Finding::Unopened { origin, index, commitment }.into())
            }
            None => Ok(()),
        }
    }
}

/// Every commitment of which a record says that it was erased.
async fn erased(connection: &mut PgConnection) -> Result<HashSet<String>, StoreError> {
    let leaves: Vec<Vec<u8>> = sqlx::query_scalar("SELECT leaf FROM record WHERE kind = 'person.erased'")
        .fetch_all(connection)
        .await?;
    let mut erased = HashSet::new();
    for leaf in leaves {
        let Ok(Entry { what: What::PersonErased(mut erasure), .. }) = serde_json::from_slice(&leaf) else {
            continue;
        };
        erased.extend(Place::Principal(&mut erasure.person).commitment().map(str::to_owned));
        erased.extend(erasure.users);
    }
    Ok(erased)
}
