//! What the log was, kept where the database's administrator cannot change it.

mod file;
mod object;

use cortex_log::checkpoint::Checkpoint;

use self::file::FileAnchor;
use self::object::ObjectAnchor;
use super::LogConfig;
use super::objects::{Address, ObjectError, Place};

/// Holds the newest state of the log that was seen. It is only ever replaced by one that continues it, by comparing
/// what it held: of two histories that go on from one state, one is signed.
#[derive(Debug)]
pub struct Anchor(Kept);

#[derive(Debug)]
enum Kept {
    File(FileAnchor),
    Object(ObjectAnchor),
}

/// The anchor could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum AnchorError {
    /// A file.
    #[error(transparent)]
    File(#[from] std::io::Error),
    /// An object.
    #[error(transparent)]
    Object(#[from] ObjectError),
}

impl Anchor {
    /// The anchor that is configured, which need not be there yet: `anchor_url` where that is set, `anchor_file`
    /// otherwise.
    pub fn open(config: &LogConfig) -> Result<Self, ObjectError> {
        let kept = match &config.anchor_url {
            None => Kept::File(FileAnchor::new(&config.anchor_file)),
            Some(url) => match Address::parse(url)? {
                Address::File(path) => Kept::File(FileAnchor::new(&path)),
                Address::S3 { .. } | Address::Gs { .. } => {
                    Kept::Object(ObjectAnchor::new(Place::open(url, &config.object_store)?))
                }
            },
        };
        Ok(Self(kept))
    }

    /// What it holds.
    pub async fn read(&self) -> Result<Option<Checkpoint>, AnchorError> {
        match &self.0 {
            Kept::File(file) => Ok(file.read()?),
            Kept::Object(object) => Ok(object.read().await?),
        }
    }

    /// Replaces what it holds, if that is still `seen`; answers whether it was. Whoever was not the one has to look again.
    /// Durable when this returns.
    pub async fn replace(&self, seen: Option<&Checkpoint>, next: &Checkpoint) -> Result<bool, AnchorError> {
        match &self.0 {
            Kept::File(file) => Ok(file.replace(seen, next)?),
            Kept::Object(object) => Ok(object.replace(seen, next).await?),
        }
    }
}
