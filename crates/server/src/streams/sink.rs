//! Where events go: standard output, the end of a file, or a POST. Who returns without an error has seen them arrive.

use std::fs::{File, OpenOptions};
use std::io::{Error, Read as _, Seek as _, SeekFrom, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use jiff::Timestamp;
use reqwest::Url;
use reqwest::header::CONTENT_TYPE;
use tokio::io::AsyncWriteExt as _;
use tokio::task::spawn_blocking;

use super::config::StreamConfig;
use crate::notify::webhook;

/// How far from its end a file is looked at for a line that a crash left unfinished, in bytes: longer than any line.
const TAIL: u64 = 1 << 20;

/// What is sent in a POST.
pub(super) struct Body {
    pub(super) bytes: Vec<u8>,
    pub(super) content_type: &'static str,
}

/// Writes lines to standard output.
pub(super) async fn print(lines: &[u8]) -> Result<(), String> {
    let mut out = tokio::io::stdout();
    let written = async {
        out.write_all(lines).await?;
        out.flush().await
    };
    written.await.map_err(|error| format!("standard output: {error}"))
}

/// Puts lines at the end of a file, and waits until the disk has them.
pub(super) async fn append(path: PathBuf, lines: Vec<u8>) -> Result<(), String> {
    let written =
        spawn_blocking(move || append_now(&path, &lines).map_err(|error| format!("its file: {error}")));
    written.await.map_err(|_| "writing its file was broken off".to_owned())?
}

/// The file is opened anew each time, so that it may be moved away at any moment.
fn append_now(path: &Path, lines: &[u8]) -> Result<(), Error> {
    let mut file = OpenOptions::new().read(true).append(true).create(true).mode(0o640).open(path)?;
    drop_unfinished(&mut file)?;
    file.write_all(lines)?;
    file.sync_data()
}

/// Cuts off a line without an end, which a crash or a full disk left: it comes again, whole.
fn drop_unfinished(file: &mut File) -> Result<(), Error> {
    let length = file.metadata()?.len();
    let from = length.saturating_sub(TAIL);
    file.seek(SeekFrom::Start(from))?;
    let mut tail = Vec::new();
    file.take(TAIL).read_to_end(&mut tail)?;
    let whole = tail.iter().rposition(|byte| *byte == b'\n').map_or(0, |end| end + 1);
    if whole == 0 && from > 0 {
        return Err(Error::other("it ends in a line that is too long to be from here"));
    }
    let end = from + u64::try_from(whole).unwrap_or(u64::MAX);
    if end < length { file.set_len(end) } else { Ok(()) }
}

/// Posts a body, signed.
pub(super) async fn post(
    http: &reqwest::Client,
    stream: &StreamConfig,
    url: &Url,
    Body { bytes, content_type }: Body,
    now: Timestamp,
) -> Result<(), String> {
    let mut request = http
        .post(url.clone())
        .header(CONTENT_TYPE, content_type)
        .header("cortex-stream", &stream.name)
        .timeout(Duration::from_secs(stream.timeout_s.into()));
    if let Some(file) = &stream.secret_file {
        request = request.header(webhook::SIGNATURE, webhook::signature(file, now, &bytes).await?);
    }
    webhook::send(request.body(bytes)).await
}
