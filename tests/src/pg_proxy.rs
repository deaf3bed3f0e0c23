//! A proxy in front of Postgres that loses what it is told to lose: a commit, or the answer to one.
//!
//! It speaks the frontend's side of the protocol (`PostgreSQL`'s documentation, "Frontend/Backend Protocol") far
//! enough to know which COMMIT ends a transaction that wrote something in particular, and which statement is one.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use tempfile::TempDir;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::watch;

/// What happens to a commit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Loss {
    /// It never arrives: the connection is cut before it, and the transaction is rolled back.
    Commit,
    /// It happens, and the connection is cut before the answer arrives.
    Answer,
}

struct Armed {
    loss: Loss,
    /// Bytes that the transaction has to have written.
    writing: &'static str,
    remaining: u32,
    /// Whether the database is away from then on.
    then_down: bool,
}

struct Shared {
    /// The socket of the database.
    upstream: Mutex<PathBuf>,
    armed: Mutex<Option<Armed>>,
    down: AtomicBool,
    /// Whether nothing gets through, though every connection stays.
    stalled: watch::Sender<bool>,
    /// Told when every connection is to be cut.
    cut: watch::Sender<()>,
}

impl Shared {
    fn new(upstream: PathBuf) -> Self {
        Self {
            upstream: Mutex::new(upstream),
            armed: Mutex::default(),
            down: AtomicBool::default(),
            stalled: watch::Sender::default(),
            cut: watch::Sender::default(),
        }
    }

    /// The fault for a transaction that wrote `wrote`, used up by that, and whether the database goes away with it.
    fn strike(&self, wrote: &[u8]) -> Option<(Loss, bool)> {
        let mut armed = self.armed.lock().unwrap_or_else(PoisonError::into_inner);
        let fault = armed.as_mut()?;
        let marker = fault.writing.as_bytes();
        if fault.remaining == 0 || !wrote.windows(marker.len()).any(|window| window == marker) {
            return None;
        }
        fault.remaining -= 1;
        Some((fault.loss, fault.then_down))
    }

    /// Waits while nothing gets through.
    async fn flows(&self) {
        let mut stalled = self.stalled.subscribe();
        // Its sender is here: it cannot end.
        let _ = stalled.wait_for(|stalled| !stalled).await;
    }

    fn go_down(&self) {
        self.down.store(true, Ordering::SeqCst);
        self.cut.send_replace(());
    }
}

/// The running proxy; it ends when this is dropped.
pub struct PgProxy {
    /// The URL of the same database, through the proxy.
    pub url: String,
    shared: Arc<Shared>,
    task: tokio::task::JoinHandle<()>,
    _folder: TempDir,
}

impl Drop for PgProxy {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl PgProxy {
    /// Within a runtime: listens on a socket of its own in front of the database of `url`, whose `host` parameter is a folder.
    pub fn start(url: &str) -> Self {
        let parsed = reqwest::Url::parse(url).expect("a URL");
        let folder = tempfile::Builder::new().prefix("cortex-proxy-").tempdir().expect("a folder");
        let here = folder.path().to_str().expect("a path of text").to_owned();
        let listener = UnixListener::bind(socket(folder.path())).expect("a socket");
        let mut through = parsed.clone();
        through.query_pairs_mut().clear().extend_pairs(parsed.query_pairs().map(|(key, value)| {
            let value = if key == "host" { here.clone() } else { value.into_owned() };
            (key.into_owned(), value)
        }));
        let shared = Arc::new(Shared::new(upstream(url)));
        let task = tokio::spawn(accept(listener, Arc::clone(&shared)));
        Self { url: through.to_string(), shared, task, _folder: folder }
    }

    /// Loses the next `times` commits of transactions that write `writing`.
    pub fn lose(&self, loss: Loss, writing: &'static str, times: u32) {
        self.arm(Armed { loss, writing, remaining: times, then_down: false });
    }

    /// Loses one such commit, and the database is away as soon as that has happened.
    pub fn lose_and_go_down(&self, loss: Loss, writing: &'static str) {
        self.arm(Armed { loss, writing, remaining: 1, then_down: true });
    }

    fn arm(&self, armed: Armed) {
        *self.shared.armed.lock().unwrap_or_else(PoisonError::into_inner) = Some(armed);
    }

    /// The database is another one from now on, of the same name: every connection is cut.
    pub fn point_at(&self, url: &str) {
        *self.shared.upstream.lock().unwrap_or_else(PoisonError::into_inner) = upstream(url);
        self.shared.cut.send_replace(());
    }

    /// The database is away: every connection is cut, and new ones are closed.
    pub fn down(&self) {
        self.shared.go_down();
    }

    /// The network takes everything and delivers nothing: no connection ends, and none answers.
    pub fn stall(&self) {
        self.shared.stalled.send_replace(true);
    }

    /// The database is back, and nothing is lost or held any more.
    pub fn up(&self) {
        self.shared.stalled.send_replace(false);
        *self.shared.armed.lock().unwrap_or_else(PoisonError::into_inner) = None;
        self.shared.down.store(false, Ordering::SeqCst);
    }
}

/// The socket of the database of `url`, whose `host` parameter is a folder.
fn upstream(url: &str) -> PathBuf {
    let url = reqwest::Url::parse(url).expect("a URL");
    let host = url.query_pairs().find(|(key, _)| key == "host").expect("a socket's folder").1.into_owned();
    socket(Path::new(&host))
}

fn socket(folder: &Path) -> PathBuf {
    folder.join(".s.PGSQL.5432")
}

async fn accept(listener: UnixListener, shared: Arc<Shared>) {
    while let Ok((client, _)) = listener.accept().await {
        // Before the database is known to be there: a cut from here on is not missed.
        let mut cut = shared.cut.subscribe();
        if shared.down.load(Ordering::SeqCst) {
            continue;
        }
        let upstream = shared.upstream.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let Ok(server) = UnixStream::connect(upstream).await else { continue };
        let shared = Arc::clone(&shared);
        tokio::spawn(async move {
            let struck = Struck::default();
            tokio::select! {
                _ = cut.changed() => {}
                _ = carry(client, server, &shared, &struck) => {}
            }
            if struck.then_down.load(Ordering::SeqCst) {
                shared.go_down();
            }
        });
    }
}

/// What a fault did to one connection.
#[derive(Default)]
struct Struck {
    /// The next answer is not handed on.
    swallow: AtomicBool,
    /// The database goes away with the connection.
    then_down: AtomicBool,
}

/// Carries bytes until one side closes or a fault strikes.
async fn carry(
    client: UnixStream,
    server: UnixStream,
    shared: &Shared,
    struck: &Struck,
) -> std::io::Result<()> {
    let (from_client, to_client) = client.into_split();
    let (from_server, to_server) = server.into_split();
    tokio::select! {
        done = requests(from_client, to_server, shared, struck) => done,
        done = answers(from_server, to_client, shared, struck) => done,
    }
}

async fn requests(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    shared: &Shared,
    struck: &Struck,
) -> std::io::Result<()> {
    // The first message has no type: a length that counts itself, and the rest.
    let length = from.read_u32().await?;
    let start = body(&mut from, length).await?;
    to.write_all(&[&length.to_be_bytes()[..], &start].concat()).await?;
    let mut wrote = Vec::new();
    let mut in_transaction = false;
    loop {
        let kind = from.read_u8().await?;
        let length = from.read_u32().await?;
        let body = body(&mut from, length).await?;
        if kind == b'Q' && body.starts_with(b"BEGIN") {
            in_transaction = true;
            wrote.clear();
        }
        if kind == b'Q' && body.starts_with(b"ROLLBACK") {
            in_transaction = false;
            wrote.clear();
        }
        // A statement outside a transaction is committed by the Sync after it.
        let commits = (kind == b'Q' && body.starts_with(b"COMMIT")) || (kind == b'S' && !in_transaction);
        if commits {
            if let Some((loss, then_down)) = shared.strike(&wrote) {
                struck.then_down.store(then_down, Ordering::SeqCst);
                match loss {
                    Loss::Commit => return Ok(()),
                    Loss::Answer => struck.swallow.store(true, Ordering::SeqCst),
                }
            }
            in_transaction = false;
            wrote.clear();
        }
        // What is written is in the parameters; a statement's text names everything that it may write.
        if kind == b'B' {
            wrote.extend_from_slice(&body);
        }
        shared.flows().await;
        to.write_all(&[&[kind][..], &length.to_be_bytes(), &body].concat()).await?;
    }
}

async fn body(from: &mut OwnedReadHalf, length: u32) -> std::io::Result<Vec<u8>> {
    let mut body = vec![0; usize::try_from(length.saturating_sub(4)).expect("a length")];
    from.read_exact(&mut body).await?;
    Ok(body)
}

async fn answers(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    shared: &Shared,
    struck: &Struck,
) -> std::io::Result<()> {
    let mut buffer = vec![0; 16_384];
    loop {
        let read = from.read(&mut buffer).await?;
        let bytes = buffer.get(..read).unwrap_or_default();
        // The server has answered, so the commit has happened.
        if bytes.is_empty() || struck.swallow.load(Ordering::SeqCst) {
            return Ok(());
        }
        shared.flows().await;
        to.write_all(bytes).await?;
    }
}
