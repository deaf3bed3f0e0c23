//! What the log was, kept where the database's administrator cannot change it.

use std::fs::{File, TryLockError};
use std::io::Write as _;
use std::path::{Path, PathBuf};

use cortex_log::checkpoint::Checkpoint;

/// A file that holds the newest state of the log that this replica has seen. It is only ever replaced by one that
/// continues it.
#[derive(Debug)]
pub struct Anchor {
    path: PathBuf,
}

impl Anchor {
    /// The anchor in this file, which need not be there yet.
    pub fn new(path: &Path) -> Self {
        Self { path: path.to_owned() }
    }

    /// What it holds.
    pub fn read(&self) -> std::io::Result<Option<Checkpoint>> {
        match std::fs::read_to_string(&self.path) {
            Ok(text) => Checkpoint::parse(&text).map(Some).map_err(|e| self.wrong(&e.to_string())),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Replaces what it holds, if that is still `seen`; answers whether it was. Whoever was not the one has to look again.
    /// Durable when this returns.
    pub fn replace(&self, seen: Option<&Checkpoint>, next: &Checkpoint) -> std::io::Result<bool> {
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
