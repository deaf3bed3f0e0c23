//! An anchor in a file: of one replica, or of all that share it.

use std::fs::{File, TryLockError};
use std::io::Write as _;
use std::path::{Path, PathBuf};

use cortex_log::checkpoint::Checkpoint;

/// The file.
#[derive(Debug)]
pub(super) struct FileAnchor {
    path: PathBuf,
}

impl FileAnchor {
    pub(super) fn new(path: &Path) -> Self {
        Self { path: path.to_owned() }
    }

    pub(super) fn read(&self) -> std::io::Result<Option<Checkpoint>> {
        match std::fs::read_to_string(&self.path) {
            Ok(text) => Checkpoint::parse(&text).map(Some).map_err(|e| self.wrong(&e.to_string())),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// By a lock beside it, and a file that takes its place.
    pub(super) fn replace(&self, seen: Option<&Checkpoint>, next: &Checkpoint) -> std::io::Result<bool> {
        let lock = File::create(self.beside("lock"))?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Ok(false),
            Err(TryLockError::Error(error)) => return Err(error),
        }
        if self.read()?.as_ref() != seen {
            return Ok(false);
        }
        let new = self.beside("new");
        let mut file = File::create(&new)?;
        file.write_all(next.text().as_bytes())?;
        file.sync_all()?;
        std::fs::rename(&new, &self.path)?;
        let folder = self.path.parent().filter(|folder| !folder.as_os_str().is_empty());
        File::open(folder.unwrap_or(Path::new(".")))?.sync_all()?;
        Ok(true)
    }

    fn beside(&self, suffix: &str) -> PathBuf {
        let mut name = self.path.clone().into_os_string();
        name.push(".");
        name.push(suffix);
        name.into()
    }

    fn wrong(&self, why: &str) -> std::io::Error {
        std::io::Error::other(format!("{}: {why}", self.path.display()))
    }
}
