//! A folder that does not outlive us, however we end.

use std::fs::Permissions;
use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use crate::error::Error;

/// Waits for the end of its standard input, which is ours even after SIGKILL, and removes the folder.
const JANITOR: &str = "trap '' INT TERM HUP QUIT; cat >/dev/null; rm -rf -- \"$1\"";

/// A folder of files that only we and the command see.
pub(super) struct Folder {
    path: PathBuf,
    janitor: Child,
}

impl Folder {
    /// Makes one, in memory where there is such a place, and starts who removes it.
    pub(super) fn make() -> Result<Self, Error> {
        let base = base();
        let wrong =
            |error: std::io::Error| Error::Said(format!("no private folder in {}: {error}", base.display()));
        let folder = tempfile::Builder::new()
            .prefix("cortex-exec-")
            .permissions(Permissions::from_mode(0o700))
            .tempdir_in(&base)
            .map_err(wrong)?;
        // In a group of its own, so that Ctrl-C does not reach it.
        let janitor = Command::new("/bin/sh")
            .args(["-c", JANITOR, "cortex-exec-janitor"])
            .arg(folder.path())
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .process_group(0)
            .spawn()
            .map_err(wrong)?;
        Ok(Self { path: folder.keep(), janitor })
    }

    /// The path of a file in it.
    pub(super) fn file(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    /// The folder itself.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Writes a file whole: who reads it sees the old text or the new one. Only its owner can read it.
    pub(super) fn write(&self, name: &str, text: &str) -> Result<(), Error> {
        let mut file = tempfile::NamedTempFile::new_in(&self.path)?;
        file.write_all(text.as_bytes())?;
        file.persist(self.file(name)).map_err(|error| error.error)?;
        Ok(())
    }

    /// Takes a file back.
    pub(super) fn take_back(&self, name: &str) {
        // One that is gone already is what is wanted.
        let _ = std::fs::remove_file(self.file(name));
    }

    /// Removes it with everything in it.
    pub(super) fn remove(mut self) {
        drop(self.janitor.stdin.take());
        let _ = self.janitor.wait();
    }
}

/// Memory before disk; each is private to the user or made so by the folder itself.
fn base() -> PathBuf {
    let runtime = std::env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from).filter(|path| path.is_absolute());
    let candidates = [runtime, Some(PathBuf::from("/dev/shm"))];
    candidates.into_iter().flatten().find(|path| path.is_dir()).unwrap_or_else(std::env::temp_dir)
}
