//! Where a published log is read from: a folder, or a web server. What is read is not trusted.

use std::fmt;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use cortex_log::tile::{MAX_BUNDLE_BYTES, MAX_TILE_BYTES, TilePath};

/// How many files are fetched at once.
const AT_ONCE: usize = 8;
/// How long one file may take.
const DEADLINE: Duration = Duration::from_mins(1);
/// The variable with the bearer token that a live log may ask for; an argument would be seen by everybody.
const TOKEN: &str = "CORTEX_TOKEN";
/// The width of a finished tile.
const FULL: u16 = 256;
/// The longest note or list of shards, in bytes.
const MAX_TEXT_BYTES: usize = 64 * 1024;
/// The longest list of openings, in bytes.
const MAX_OPENINGS_BYTES: usize = 1 << 30;

/// A published log.
#[derive(Clone)]
pub(crate) struct Source {
    place: Place,
    /// A folder with an archive: old leaves that the log itself has no longer.
    archive: Option<PathBuf>,
}

#[derive(Clone)]
enum Place {
    /// A folder with the log's files.
    Folder(PathBuf),
    /// A server with the same files below an address.
    Web(ureq::Agent, String),
}

/// Why a file could not be read. That it is not there is no error.
#[derive(Debug, thiserror::Error)]
#[error("{place}: {why}")]
pub(crate) struct SourceError {
    place: String,
    why: String,
}

impl FromStr for Source {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let place = if text.starts_with("https://") || text.starts_with("http://") {
            Place::Web(agent(), text.trim_end_matches('/').to_owned())
        } else if Path::new(text).is_dir() {
            Place::Folder(text.into())
        } else {
            return Err("no folder, and no http address".into());
        };
        Ok(Self { place, archive: None })
    }
}

fn agent() -> ureq::Agent {
    let roots = ureq::tls::RootCerts::PlatformVerifier;
    let tls = ureq::tls::TlsConfig::builder().root_certs(roots).build();
    let config = ureq::Agent::config_builder()
        .tls_config(tls)
        .timeout_global(Some(DEADLINE))
        .max_redirects(0)
        .max_idle_connections_per_host(AT_ONCE)
        .http_status_as_error(false)
        .user_agent(concat!("cortex-verify/", env!("CARGO_PKG_VERSION")));
    config.build().into()
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.place {
            Place::Folder(folder) => folder.display().fmt(f),
            Place::Web(_, base) => f.write_str(base),
        }
    }
}

impl Source {
    /// The same, with old leaves from an archive.
    pub(crate) fn with_archive(self, archive: Option<&Path>) -> Self {
        Self { archive: archive.map(Path::to_owned), ..self }
    }

    /// A text file; nothing if it is not there.
    pub(crate) fn text(&self, path: &str) -> Result<Option<String>, SourceError> {
        let bytes = self.get(path, MAX_TEXT_BYTES)?;
        let text = bytes.map(String::from_utf8).transpose();
        text.map_err(|_| self.error(path, &"not a text"))
    }

    /// Tiles or bundles of a shard, in order; nothing for each that is not there. One that is unfinished may have
    /// been finished since.
    pub(crate) fn tiles(&self, shard: &str, paths: &[TilePath]) -> Result<Vec<Option<Vec<u8>>>, SourceError> {
        let part = paths.len().div_ceil(AT_ONCE).max(1);
        std::thread::scope(|scope| {
            let fetch =
                |part: &[TilePath]| part.iter().map(|path| self.tile(shard, *path)).collect::<Vec<_>>();
            let threads: Vec<_> = paths.chunks(part).map(|part| scope.spawn(move || fetch(part))).collect();
            let joined = threads
                .into_iter()
                .flat_map(|thread| thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)));
            joined.collect()
        })
    }

    /// What opens the leaves' commitments; nothing where it did not come along. A live log does not give it out.
    pub(crate) fn openings(&self) -> Result<Option<Vec<u8>>, SourceError> {
        match &self.place {
            Place::Folder(_) => self.get("personal.jsonl", MAX_OPENINGS_BYTES),
            Place::Web(..) => Ok(None),
        }
    }

    fn tile(&self, shard: &str, path: TilePath) -> Result<Option<Vec<u8>>, SourceError> {
        let (whole, limit) = match path {
            TilePath::Hashes { level, index, .. } => {
                (TilePath::Hashes { level, index, width: FULL }, MAX_TILE_BYTES)
            }
            TilePath::Entries { index, .. } => (TilePath::Entries { index, width: FULL }, MAX_BUNDLE_BYTES),
        };
        if let (TilePath::Entries { .. }, Some(archive)) = (path, &self.archive) {
            let name = format!("{shard}/{path}");
            if let Some(bytes) = self.read_file(archive, &name, limit)? {
                return Ok(Some(bytes));
            }
        }
        match self.get(&format!("{shard}/{path}"), limit)? {
            None if whole != path => self.get(&format!("{shard}/{whole}"), limit),
            found => Ok(found),
        }
    }

    fn get(&self, path: &str, limit: usize) -> Result<Option<Vec<u8>>, SourceError> {
        match &self.place {
            Place::Folder(folder) => self.read_file(folder, path, limit),
            Place::Web(agent, base) => {
                let mut request = agent.get(format!("{base}/{path}"));
                if let Ok(token) = std::env::var(TOKEN) {
                    request = request.header("authorization", format!("Bearer {}", token.trim()));
                }
                let answer = request.call().map_err(|error| self.error(path, &error))?;
                match answer.status().as_u16() {
                    200 => self.whole(path, answer.into_body().into_reader(), limit).map(Some),
                    404 => Ok(None),
                    410 => {
                        let why = "it is in an archive, and no longer in the log: name a copy of that with --archive";
                        Err(self.error(path, &why))
                    }
                    401 | 403 => {
                        let why = format!("the server wants the token of an auditor: set {TOKEN}");
                        Err(self.error(path, &why))
                    }
                    other => Err(self.error(path, &format!("the server answered with status {other}"))),
                }
            }
        }
    }

    fn read_file(&self, folder: &Path, path: &str, limit: usize) -> Result<Option<Vec<u8>>, SourceError> {
        match File::open(folder.join(path)) {
            Ok(file) => self.whole(path, file, limit).map(Some),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(self.error(path, &error)),
        }
    }

    fn whole(&self, path: &str, from: impl Read, limit: usize) -> Result<Vec<u8>, SourceError> {
        let bytes = bounded(from, limit).map_err(|error| self.error(path, &error))?;
        bytes.ok_or_else(|| self.error(path, &format!("longer than {limit} bytes")))
    }

    fn error(&self, path: &str, why: &impl ToString) -> SourceError {
        SourceError { place: format!("{self}/{path}"), why: why.to_string() }
    }
}

/// All bytes, if they are no more than the limit.
pub(crate) fn bounded(from: impl Read, limit: usize) -> io::Result<Option<Vec<u8>>> {
    let mut bytes = Vec::new();
    let more = u64::try_from(limit).unwrap_or(u64::MAX).saturating_add(1);
    from.take(more).read_to_end(&mut bytes)?;
    Ok((bytes.len() <= limit).then_some(bytes))
}
