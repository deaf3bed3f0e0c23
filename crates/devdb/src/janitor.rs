//! The process that cleans up after us even when we are killed.

use std::io::Write as _;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Child, ChildStdin, Stdio};

use crate::DevDbError;
use crate::account::Account;

/// A shell that waits for our end of its pipe to close, then stops the server and removes the folder.
///
/// `PR_SET_PDEATHSIG` would not do: it follows the thread that spawned the server, not the process.
pub(crate) struct Janitor {
    child: Child,
    pipe: Option<ChildStdin>,
}

impl Janitor {
    /// Starts it, as the account that owns `dir`, in a process group of its own so that Ctrl-C does not reach it.
    pub(crate) fn start(account: &Account, dir: &Path) -> Result<Self, DevDbError> {
        let mut child = account
            .command(Path::new("/bin/sh"))
            .args(["-c", include_str!("janitor.sh"), "cortex-devdb-janitor"])
            .arg(dir)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .process_group(0)
            .spawn()
            .map_err(DevDbError::io("starting the database's janitor"))?;
        let pipe = child.stdin.take();
        Ok(Self { child, pipe })
    }

    /// From now on this server is to be stopped when we are gone.
    pub(crate) fn watch(&mut self, server: &Child) -> Result<(), DevDbError> {
        self.say(&server.id().to_string()).map_err(DevDbError::io("talking to the database's janitor"))
    }

    /// The server was stopped: its process id may belong to somebody else from now on.
    pub(crate) fn forget_server(&mut self) {
        // A janitor that is gone cannot mistake the process id either.
        let _ = self.say("");
    }

    fn say(&mut self, line: &str) -> std::io::Result<()> {
        match &mut self.pipe {
            Some(pipe) => writeln!(pipe, "{line}"),
            None => Err(std::io::ErrorKind::BrokenPipe.into()),
        }
    }
}

impl Drop for Janitor {
    fn drop(&mut self) {
        drop(self.pipe.take());
        let _ = self.child.wait();
    }
}
