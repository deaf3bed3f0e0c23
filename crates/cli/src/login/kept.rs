//! Where a sign-in is kept: the operating system's keyring where there is one, else a file that only its owner can
//! read.

use std::fmt;
use std::fs::{self, File, Permissions};
use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use cortex_core::Digest;

use super::Login;
use crate::api::ServerUrl;
use crate::error::Error;

/// What the entries are called in the keyring.
#[cfg(target_os = "linux")]
const SERVICE: &str = "cortex";

/// Where a sign-in is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Place {
    /// The operating system's keyring.
    Keyring,
    /// A file.
    File(PathBuf),
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Keyring => f.write_str("the kernel's keyring"),
            Self::File(path) => write!(f, "{}", path.display()),
        }
    }
}

/// Keeps `login` in one place, takes it from the other, and remembers its server as the last one.
pub(super) fn keep(login: &Login, keyring: bool) -> Result<Place, Error> {
    let text = serde_json::to_string(login)?;
    let file = file(&login.server)?;
    let place = if keyring && keyring_set(&login.server, &text) {
        remove(&file)?;
        Place::Keyring
    } else {
        keyring_remove(&login.server);
        write(&file, &text)?;
        Place::File(file)
    };
    write(&folder()?.join("server"), &login.server.to_string())?;
    Ok(place)
}

/// The sign-in to `server`, and where it is.
pub(super) fn find(server: &ServerUrl) -> Result<Option<(Login, Place)>, Error> {
    let path = file(server)?;
    let (text, place) = match keyring_get(server) {
        Some(text) => (text, Place::Keyring),
        None => match fs::read_to_string(&path) {
            Ok(text) => (text, Place::File(path)),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(wrong(&path, &error)),
        },
    };
    // What another version kept is as good as nothing: the person signs in again.
    Ok(serde_json::from_str(&text).ok().map(|login| (login, place)))
}

/// Forgets the sign-in to `server`, and says whether there was one.
pub(crate) fn forget(server: &ServerUrl) -> Result<bool, Error> {
    let was_in_keyring = keyring_remove(server);
    Ok(remove(&file(server)?)? || was_in_keyring)
}

/// The server that was signed in to last.
pub(crate) fn last_server() -> Result<Option<ServerUrl>, Error> {
    let text = fs::read_to_string(folder()?.join("server")).unwrap_or_default();
    Ok(text.trim().parse().ok())
}

/// Holds the sign-in to `server` for this process until it is dropped.
pub(super) fn lock(server: &ServerUrl) -> Result<File, Error> {
    let path = file(server)?.with_extension("lock");
    let lock = File::options().create(true).truncate(false).write(true).open(&path);
    let lock = lock.map_err(|error| wrong(&path, &error))?;
    lock.lock().map_err(|error| wrong(&path, &error))?;
    Ok(lock)
}

fn file(server: &ServerUrl) -> Result<PathBuf, Error> {
    let digest = Digest::of(server.to_string().as_bytes()).to_string();
    let name: String = digest.chars().skip_while(|c| *c != ':').skip(1).take(24).collect();
    Ok(folder()?.join(format!("login-{name}.json")))
}

/// The folder of our state, made where it is missing; only its owner looks into it.
fn folder() -> Result<PathBuf, Error> {
    let set = |name: &str| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    let state = set("XDG_STATE_HOME").or_else(|| set("HOME").map(|home| home.join(".local/state")));
    let state = state.ok_or_else(|| Error::Said("neither XDG_STATE_HOME nor HOME is set".to_owned()))?;
    let folder = state.join("cortex");
    fs::create_dir_all(&folder).map_err(|error| wrong(&folder, &error))?;
    fs::set_permissions(&folder, Permissions::from_mode(0o700)).map_err(|error| wrong(&folder, &error))?;
    Ok(folder)
}

/// Writes a file that is whole or as it was, and that only its owner can read from its first byte on.
fn write(path: &Path, text: &str) -> Result<(), Error> {
    let folder = path.parent().unwrap_or(Path::new("/"));
    let written = tempfile::NamedTempFile::new_in(folder).and_then(|mut file| {
        file.write_all(text.as_bytes())?;
        file.as_file().sync_all()?;
        file.persist(path).map_err(|error| error.error)?;
        Ok(())
    });
    written.map_err(|error| wrong(path, &error))
}

fn remove(path: &Path) -> Result<bool, Error> {
    match fs::remove_file(path) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(wrong(path, &error)),
    }
}

fn wrong(path: &Path, error: &std::io::Error) -> Error {
    Error::Said(format!("{}: {error}", path.display()))
}

/// The entry of `server`; none where there is no keyring that works, as in many containers.
#[cfg(target_os = "linux")]
fn entry(server: &ServerUrl) -> Option<keyring_core::Entry> {
    use keyring_core::api::CredentialStoreApi as _;

    let store = linux_keyutils_keyring_store::Store::new().ok()?;
    store.build(SERVICE, &server.to_string(), None).ok()
}

#[cfg(target_os = "linux")]
fn keyring_set(server: &ServerUrl, text: &str) -> bool {
    // Read back: some kernels take a key that they then do not let us see.
    entry(server).is_some_and(|entry| {
        entry.set_password(text).is_ok() && entry.get_password().is_ok_and(|kept| kept == text)
    })
}

#[cfg(target_os = "linux")]
fn keyring_get(server: &ServerUrl) -> Option<String> {
    entry(server)?.get_password().ok()
}

#[cfg(target_os = "linux")]
fn keyring_remove(server: &ServerUrl) -> bool {
    entry(server).is_some_and(|entry| entry.delete_credential().is_ok())
}

#[cfg(not(target_os = "linux"))]
fn keyring_set(_: &ServerUrl, _: &str) -> bool {
    false
}

#[cfg(not(target_os = "linux"))]
fn keyring_get(_: &ServerUrl) -> Option<String> {
    None
}

#[cfg(not(target_os = "linux"))]
fn keyring_remove(_: &ServerUrl) -> bool {
    false
}
