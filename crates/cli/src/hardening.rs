//! What a process that holds secrets takes from itself, before it holds any.

use nix::sys::resource::{Resource, setrlimit};
use nix::sys::stat::{Mode, umask};
use nix::unistd::geteuid;

/// For a server: its memory is written nowhere and read by nobody, and what it makes is its own.
pub(crate) fn server() {
    if let Err(error) = setrlimit(Resource::RLIMIT_CORE, 0, 0) {
        tracing::warn!(%error, "a crash may leave a core dump with secrets");
    }
    if let Err(error) = not_dumpable() {
        tracing::warn!(%error, "other processes of this user may read the memory of this one");
    }
    umask(Mode::S_IRWXG | Mode::S_IRWXO);
    if geteuid().is_root() {
        tracing::warn!("running as root, which Cortex does not need: give it a user of its own");
    }
}

/// For a command that holds credentials for another one: no core dump, and no process of the same user attaches to it.
/// What it starts is not bound by this.
pub(crate) fn holder() {
    // A credential that is handed on to a process of the same user is no safer for a command that refuses to run.
    let _ = not_dumpable();
}

#[cfg(target_os = "linux")]
fn not_dumpable() -> nix::Result<()> {
    nix::sys::prctl::set_dumpable(false)
}

#[cfg(not(target_os = "linux"))]
fn not_dumpable() -> nix::Result<()> {
    Ok(())
}
