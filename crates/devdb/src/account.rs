//! The account that the server runs as.

use std::os::unix::fs::{MetadataExt as _, chown};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use nix::unistd::{User, geteuid};

use crate::DevDbError;

/// Postgres refuses to run as root. So when we are root the cluster, and only the cluster, belongs to another
/// account: `postgres`, which its packages make, else `nobody`. Otherwise it is ours.
pub(crate) enum Account {
    Ours,
    Other(User),
}

impl Account {
    pub(crate) fn choose() -> Result<Self, DevDbError> {
        if !geteuid().is_root() {
            return Ok(Self::Ours);
        }
        ["postgres", "nobody"]
            .iter()
            .find_map(|name| User::from_name(name).ok().flatten())
            .map(Self::Other)
            .ok_or(DevDbError::NoAccount)
    }

    /// A command that runs as this account, in no folder that it might not be allowed to see, and without the
    /// settings that would send a Postgres program elsewhere.
    pub(crate) fn command(&self, program: &Path) -> Command {
        let mut command = Command::new(program);
        command.current_dir("/").env("LC_ALL", "C");
        for name in ["PGDATA", "PGHOST", "PGPORT", "PGUSER", "PGDATABASE", "PGOPTIONS"] {
            command.env_remove(name);
        }
        if let Self::Other(user) = self {
            // The standard library drops root's supplementary groups along with the user id.
            command.uid(user.uid.as_raw()).gid(user.gid.as_raw());
        }
        command
    }

    /// Makes `dir` this account's own.
    pub(crate) fn take(&self, dir: &Path) -> std::io::Result<()> {
        match self {
            Self::Ours => Ok(()),
            Self::Other(user) => chown(dir, Some(user.uid.as_raw()), Some(user.gid.as_raw())),
        }
    }

    /// The folder for temporary files, or `/tmp` where that is out of this account's reach or its name is too
    /// long for a unix socket (`sun_path` holds 103 bytes on macOS, 107 on Linux).
    pub(crate) fn temp_dir(&self) -> PathBuf {
        const LONGEST: usize = 60;
        let dir = std::env::temp_dir();
        let open_to_all = |dir: &Path| dir.metadata().is_ok_and(|meta| meta.mode() & 0o001 != 0);
        let reachable = matches!(self, Self::Ours) || dir.ancestors().all(open_to_all);
        if reachable && dir.is_absolute() && dir.as_os_str().len() <= LONGEST { dir } else { "/tmp".into() }
    }
}
