//! The client: HTTP/1.1 over kept connections, requests that are bytes already, and nothing else; it shares the
//! cores with what it measures.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::Semaphore;

use crate::cpu::Cpu;

/// What ends an answer's headers.
const END: &[u8] = b"\r\n\r\n";
/// The longest answer that is read, in bytes.
const ANSWER_MAX: usize = 64 * 1024;

/// What one or more turns of a load measured.
#[derive(Debug, Default, Clone)]
pub(crate) struct Measured {
    latencies: Vec<Duration>,
    elapsed: Duration,
    /// What it cost.
    pub(crate) cpu: Cpu,
}

impl Measured {
    /// Adds another turn of the same load.
    pub(crate) fn add(&mut self, turn: Self) {
        self.latencies.extend(turn.latencies);
        self.elapsed += turn.elapsed;
        self.cpu = self.cpu + turn.cpu;
    }

    /// Of loads that ran at the same time on one machine: the client is one and counted once, Postgres too.
    pub(crate) fn together(loads: Vec<Self>) -> Self {
        let elapsed = loads.iter().map(|load| load.elapsed).max().unwrap_or_default();
        let most =
            |of: fn(&Cpu) -> Duration| loads.iter().map(|load| of(&load.cpu)).max().unwrap_or_default();
        let cpu = Cpu {
            server: loads.iter().map(|load| load.cpu.server).sum(),
            postgres: most(|cpu| cpu.postgres),
            client: most(|cpu| cpu.client),
        };
        Self { latencies: loads.into_iter().flat_map(|load| load.latencies).collect(), elapsed, cpu }
    }

    /// Processor time for each answer, in microseconds: of the server, of Postgres, of the client.
    pub(crate) fn cpu_us(&self) -> [f64; 3] {
        let answers = f64::from(u32::try_from(self.latencies.len()).expect("a count"));
        [self.cpu.server, self.cpu.postgres, self.cpu.client].map(|time| time.as_secs_f64() * 1e6 / answers)
    }

    /// Answers each second.
    pub(crate) fn rate(&self) -> f64 {
        f64::from(u32::try_from(self.latencies.len()).expect("a count")) / self.elapsed.as_secs_f64()
    }

    /// The latency that `percent` of the answers stay within, in milliseconds.
    pub(crate) fn percentile(&self, percent: usize) -> f64 {
        self.per_mille(percent * 10)
    }

    /// The latency that `per_mille` of a thousand answers stay within, in milliseconds.
    pub(crate) fn per_mille(&self, per_mille: usize) -> f64 {
        per_mille_of(&self.latencies, per_mille).as_secs_f64() * 1_000.0
    }
}

/// What `per_mille` of a thousand of `times` stay within; there is at least one.
pub(crate) fn per_mille_of(times: &[Duration], per_mille: usize) -> Duration {
    let mut sorted = times.to_vec();
    sorted.sort_unstable();
    let rank = (sorted.len() * per_mille).div_ceil(1_000).max(1);
    *sorted.get(rank - 1).expect("a time")
}

/// When requests are sent.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Pace {
    /// A connection sends its next when it has its answer.
    Closed,
    /// So many each second, whether answers come or not. Latency counts from when a request was due, so that the
    /// wait for a connection that is free is in it.
    Open { per_second: u32 },
}

/// Sends `total` of `requests`, from the first and around again, over `connections`. Connecting is not measured. An
/// answer other than 200 ends the benchmark.
pub(crate) async fn run(
    address: SocketAddr,
    connections: usize,
    pace: Pace,
    requests: Arc<Vec<Vec<u8>>>,
    total: usize,
) -> Measured {
    on_one_thread(drive(address, connections, pace, requests, total)).await
}

/// Runs a client on a thread of its own, and on one alone: what the client takes is taken from the server.
pub(crate) async fn on_one_thread<T: Send + 'static>(client: impl Future<Output = T> + Send + 'static) -> T {
    let client = move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        runtime.block_on(client)
    };
    tokio::task::spawn_blocking(client).await.expect("the client")
}

async fn drive(
    address: SocketAddr,
    connections: usize,
    pace: Pace,
    requests: Arc<Vec<Vec<u8>>>,
    total: usize,
) -> Measured {
    let mut open = Vec::with_capacity(connections);
    for _ in 0..connections {
        let stream = TcpStream::connect(address).await.expect("a connection");
        stream.set_nodelay(true).expect("no delay");
        open.push(stream);
    }
    let started = Instant::now();
    let turns = Turns::start(pace, started, total);
    let tasks: Vec<_> = open
        .into_iter()
        .map(|stream| tokio::spawn(connection(stream, Arc::clone(&requests), Arc::clone(&turns))))
        .collect();
    let mut measured = Measured::default();
    for task in tasks {
        measured.latencies.extend(task.await.expect("a connection's task"));
    }
    measured.elapsed = started.elapsed();
    measured
}

/// Whose turn it is to send.
struct Turns {
    next: AtomicUsize,
    total: usize,
    started: Instant,
    pace: Pace,
    /// One for each request that is due.
    due: Semaphore,
}

impl Turns {
    fn start(pace: Pace, started: Instant, total: usize) -> Arc<Self> {
        let due = match pace {
            Pace::Closed => Semaphore::MAX_PERMITS,
            Pace::Open { .. } => 0,
        };
        let turns =
            Arc::new(Self { next: AtomicUsize::new(0), total, started, pace, due: Semaphore::new(due) });
        if let Pace::Open { .. } = pace {
            // A thread of its own: the runtime's timer knows milliseconds only.
            let turns = Arc::clone(&turns);
            std::thread::spawn(move || {
                for number in 0..total {
                    std::thread::sleep(turns.due_at(number).saturating_duration_since(Instant::now()));
                    turns.due.add_permits(1);
                }
                // Nobody waits for what does not come.
                turns.due.close();
            });
        }
        turns
    }

    /// When the request of this number is due.
    fn due_at(&self, number: usize) -> Instant {
        match self.pace {
            Pace::Closed => Instant::now(),
            Pace::Open { per_second } => {
                let after = f64::from(u32::try_from(number).expect("a count")) / f64::from(per_second);
                self.started + Duration::from_secs_f64(after)
            }
        }
    }

    /// The next request's number, and when its time began; none when all are taken.
    async fn next(&self) -> Option<(usize, Instant)> {
        // Once it is closed all are due, and some may still be there to be taken.
        if let Ok(permit) = self.due.acquire().await {
            permit.forget();
        }
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        (number < self.total).then(|| (number, self.due_at(number)))
    }
}

async fn connection(mut stream: TcpStream, requests: Arc<Vec<Vec<u8>>>, turns: Arc<Turns>) -> Vec<Duration> {
    let mut latencies = Vec::new();
    let mut answer = Vec::with_capacity(4 * 1024);
    loop {
        let Some((number, started)) = turns.next().await else { return latencies };
        let request = &requests[number % requests.len()];
        stream.write_all(request).await.expect("to send");
        read(&mut stream, &mut answer).await.expect("an answer");
        latencies.push(started.elapsed());
        assert!(answer.starts_with(b"HTTP/1.1 200 "), "{}", String::from_utf8_lossy(&answer));
    }
}

/// Sends one request over a connection of its own, and reads its answer.
pub(crate) async fn ask(address: SocketAddr, request: &[u8]) -> io::Result<Vec<u8>> {
    let mut stream = TcpStream::connect(address).await?;
    stream.set_nodelay(true)?;
    stream.write_all(request).await?;
    let mut answer = Vec::with_capacity(4 * 1024);
    read(&mut stream, &mut answer).await?;
    Ok(answer)
}

/// The body of an answer that was read whole.
pub(crate) fn body(answer: &[u8]) -> &[u8] {
    answer.windows(END.len()).position(|window| window == END).map_or(&[], |end| &answer[end + END.len()..])
}

/// A header of an answer that was read whole; `name` is in small letters, with its colon.
pub(crate) fn header<'a>(answer: &'a [u8], name: &str) -> Option<&'a str> {
    let text = std::str::from_utf8(answer).ok()?;
    text.lines().take_while(|line| !line.is_empty()).find_map(|line| line.strip_prefix(name)).map(str::trim)
}

/// Reads one answer; it has to say its length.
async fn read(stream: &mut TcpStream, answer: &mut Vec<u8>) -> io::Result<()> {
    answer.clear();
    let mut end = None;
    while end.is_none_or(|end| answer.len() < end) {
        if stream.read_buf(answer).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        assert!(answer.len() <= ANSWER_MAX, "an answer that does not end");
        end = end.or_else(|| whole(answer));
    }
    Ok(())
}

/// How long the answer is, once its headers are there.
fn whole(answer: &[u8]) -> Option<usize> {
    let headers = answer.windows(END.len()).position(|window| window == END)?;
    let text = std::str::from_utf8(&answer[..headers]).expect("headers");
    let length = text.lines().find_map(|line| line.strip_prefix("content-length: ")).expect("a length");
    Some(headers + END.len() + length.parse::<usize>().expect("a length"))
}
