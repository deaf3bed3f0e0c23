//! A key that is kept in a file: 32 bytes as 64 hexadecimal digits, readable by its owner alone.

use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use zeroize::Zeroizing;

use crate::random::Random;

/// A key's bytes.
pub(crate) type KeyBytes = Zeroizing<[u8; 32]>;

/// Reads the file, or makes it where it is missing and `may_create`. The error says what is wrong and what to do;
/// `guards` is what needs the very same key.
pub(crate) fn load(
    path: &Path,
    may_create: bool,
    random: &dyn Random,
    guards: &str,
) -> Result<KeyBytes, String> {
    let hex = match std::fs::read_to_string(path) {
        Ok(text) => Zeroizing::new(text),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound && may_create => {
            create(path, random).map_err(|e| format!("cannot be made: {e}"))?
        }
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => {
            return Err(format!("is missing, and the database holds {guards}: put it back from its backup"));
        }
        Err(e) => return Err(format!("cannot be read: {e}")),
    };
    let mut bytes = Zeroizing::new([0_u8; 32]);
    hex::decode_to_slice(hex.trim(), bytes.as_mut_slice())
        .map_err(|_| "does not hold 64 hexadecimal digits".to_owned())?;
    Ok(bytes)
}

fn create(path: &Path, random: &dyn Random) -> std::io::Result<Zeroizing<String>> {
    let mut bytes = Zeroizing::new([0_u8; 32]);
    random.fill(bytes.as_mut_slice());
    let hex = Zeroizing::new(hex::encode(bytes.as_slice()));
    let mut file = std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    file.write_all(hex.as_bytes())?;
    file.sync_all()?;
    tracing::warn!(path = %path.display(), "made a key that nothing can replace: back it up");
    Ok(hex)
}
