//! Key files on disk: read within a limit, made once, replaced whole.

use std::fs::{File, OpenOptions};
use std::io::{Error, ErrorKind, Read as _, Seek as _, Write as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _, fchown};
use std::path::Path;

use zeroize::Zeroizing;

use crate::random::Random;

/// The largest file that is read, in bytes: a document with the largest wrapped key.
const MAX_FILE: usize = 16 * 1024;

/// The content of the file; none where there is none.
pub(super) fn read(path: &Path) -> std::io::Result<Option<Zeroizing<Vec<u8>>>> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    // All at once: a vector that grows would leave copies behind.
    let mut text = Zeroizing::new(vec![0_u8; MAX_FILE + 1]);
    let mut length = 0;
    loop {
        let Some(rest) = text.get_mut(length..).filter(|rest| !rest.is_empty()) else {
            return Err(Error::other(format!("it has more than {MAX_FILE} bytes")));
        };
        match (&file).read(rest)? {
            0 => break,
            more => length += more,
        }
    }
    text.truncate(length);
    Ok(Some(text))
}

/// Makes the file, which must not be there.
pub(super) fn create(path: &Path, text: &[u8]) -> std::io::Result<()> {
    written(path, text).map(drop)
}

fn written(path: &Path, text: &[u8]) -> std::io::Result<File> {
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    file.write_all(text)?;
    file.sync_all()?;
    Ok(file)
}

/// Puts `text` in the place of the file's content, whole or not at all, for the same owner. What was there is overwritten
/// afterwards: a file system that copies what it writes, its snapshots and backups keep it all the same.
pub(super) fn replace(path: &Path, text: &[u8], random: &dyn Random) -> std::io::Result<()> {
    // A link stays one.
    let path = path.canonicalize()?;
    let folder = path.parent().ok_or_else(|| Error::other("it is in no folder"))?;
    let old = OpenOptions::new().write(true).open(&path)?;
    let owner = old.metadata()?;
    let beside = folder.join(format!(".cortex-key-{}", hex::encode(random.id_bits())));
    let placed = written(&beside, text).and_then(|new| {
        let made = new.metadata()?;
        if (made.uid(), made.gid()) != (owner.uid(), owner.gid()) {
            fchown(&new, Some(owner.uid()), Some(owner.gid()))?;
        }
        std::fs::rename(&beside, &path)
    });
    if let Err(error) = placed {
        // It is of no use to anybody; that it stays is no reason to say something else.
        let _ = std::fs::remove_file(&beside);
        return Err(error);
    }
    File::open(folder)?.sync_all()?;
    overwrite(old)
}

/// Overwrites a file that has no name any more. One that has another name is somebody's copy, and is left alone.
fn overwrite(mut file: File) -> std::io::Result<()> {
    let metadata = file.metadata()?;
    if metadata.nlink() > 0 {
        return Ok(());
    }
    file.rewind()?;
    let length = usize::try_from(metadata.len()).unwrap_or(MAX_FILE).min(MAX_FILE);
    file.write_all(&vec![0; length])?;
    file.sync_all()
}
