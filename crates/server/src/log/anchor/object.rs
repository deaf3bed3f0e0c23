//! An anchor in an object store: one for all replicas, replaced by compare-and-set.

use cortex_log::checkpoint::Checkpoint;
use object_store::UpdateVersion;

use crate::log::objects::{Condition, ObjectError, Place, Written};

/// The object's name. There is one for the log, not one for each tree: a database that has forgotten a whole tree would
/// not know which to ask for.
const NAME: &str = "anchor";
/// The longest anchor, in bytes.
const MAX_BYTES: u64 = 4 * 1024;

/// The object.
#[derive(Debug)]
pub(super) struct ObjectAnchor {
    place: Place,
}

impl ObjectAnchor {
    pub(super) fn new(place: Place) -> Self {
        Self { place }
    }

    pub(super) async fn read(&self) -> Result<Option<Checkpoint>, ObjectError> {
        Ok(self.held().await?.map(|(held, _)| held))
    }

    /// The store compares: the entity tag, or the generation, of what was read just before.
    pub(super) async fn replace(
        &self,
        seen: Option<&Checkpoint>,
        next: &Checkpoint,
    ) -> Result<bool, ObjectError> {
        let held = self.held().await?;
        if held.as_ref().map(|(held, _)| held) != seen {
            return Ok(false);
        }
        let condition = held.map_or(Condition::Nothing, |(_, version)| Condition::Exactly(version));
        let put = self.place.put(NAME, next.text().into_bytes(), condition).await;
        if put == Ok(Written::Done) {
            return Ok(true);
        }
        // It may have happened, even where a repetition was refused: the object itself says.
        if self.read().await?.as_ref() == Some(next) {
            return Ok(true);
        }
        put.map(|_| false)
    }

    async fn held(&self) -> Result<Option<(Checkpoint, UpdateVersion)>, ObjectError> {
        let Some(found) = self.place.get(NAME, MAX_BYTES).await? else { return Ok(None) };
        let wrong = |why: String| ObjectError::new(format!("{}/{NAME}", self.place.address()), &why);
        let text = String::from_utf8(found.bytes).map_err(|error| wrong(error.to_string()))?;
        let held = Checkpoint::parse(&text).map_err(|error| wrong(error.to_string()))?;
        Ok(Some((held, found.version)))
    }
}
