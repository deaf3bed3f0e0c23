//! A record on its way to a row: personal values are committed to in the transaction that writes it, and not before.

use std::borrow::Cow;

use cortex_core::record::{Entry, LeafError};
use sqlx::PgConnection;
use uuid::Uuid;

use super::log::corrupt;
use super::row::Row;
use super::{StoreError, personal};
use crate::notify::Notice;
use crate::random::Random;

/// A commitment that is as long as any other one, to measure what is not committed to yet.
const ANY_COMMITMENT: &str = "~AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA";

/// A record that is to be written.
#[derive(Debug, Clone)]
pub(super) enum Draft {
    /// It names nobody, or people by their commitments alone.
    Whole(Box<Row>),
    /// It has personal values.
    Personal(Box<Clear>),
}

/// A record with personal values in the clear, which no row may have.
#[derive(Debug, Clone)]
pub(super) struct Clear {
    entry: Entry,
    notices: Vec<Notice>,
}

impl Draft {
    pub(super) fn new(mut entry: Entry, notices: Vec<Notice>) -> Result<Self, LeafError> {
        if !entry.is_personal() {
            return Ok(Self::Whole(Box::new(Row::new(&entry)?.telling(notices))));
        }
        // One that is too large is refused here, where it concerns nobody else.
        let mut measured = entry.clone();
        measured.what.personal().iter_mut().for_each(|place| place.commit(ANY_COMMITMENT));
        measured.leaf()?;
        Ok(Self::Personal(Box::new(Clear { entry, notices })))
    }

    /// The record's id.
    pub(super) fn id(&self) -> Uuid {
        match self {
            Self::Whole(row) => row.id,
            Self::Personal(clear) => clear.entry.id.uuid(),
        }
    }

    /// Whether it has personal values.
    pub(super) fn is_personal(&self) -> bool {
        self.clear().is_some()
    }

    fn clear(&self) -> Option<&Clear> {
        match self {
            Self::Whole(_) => None,
            Self::Personal(clear) => Some(clear),
        }
    }
}

/// The rows of `drafts`, in their order, once what is personal in them is committed to in the caller's transaction.
pub(super) async fn close<'a>(
    connection: &mut PgConnection,
    drafts: Vec<&'a Draft>,
    random: &dyn Random,
) -> Result<Vec<Cow<'a, Row>>, StoreError> {
    let mut clear: Vec<Clear> = drafts.iter().filter_map(|draft| draft.clear().cloned()).collect();
    let places = clear.iter_mut().flat_map(|one| one.entry.what.personal()).collect();
    personal::commit(connection, places, random).await?;
    let mut closed = clear.into_iter();
    let row = |draft: &'a Draft| match draft {
        Draft::Whole(row) => Ok(Cow::Borrowed(&**row)),
        Draft::Personal(_) => {
            closed.next().map_or_else(|| Err(corrupt("a record without its data")), Clear::row)
        }
    };
    drafts.into_iter().map(row).collect()
}

impl Clear {
    /// The row, once everything is committed to.
    fn row<'a>(self) -> Result<Cow<'a, Row>, StoreError> {
        let Self { entry, notices } = self;
        Ok(Cow::Owned(Row::new(&entry).map_err(corrupt)?.telling(notices)))
    }
}
