//! A server under test: a process of its own, so that its memory is its own.

use std::fs::File;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use cortex_server::Config;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::asks;
use crate::cpu::Cpu;
use crate::load::{self, Measured, Pace};

/// How long a server may take until it is ready.
const START_DEADLINE: Duration = Duration::from_mins(2);

/// The process; it ends when this is dropped.
pub(crate) struct Server {
    process: Child,
    address: SocketAddr,
}

impl Server {
    /// Starts one with `config`, whose file and log go to `folder`; answers when it is ready.
    pub(crate) async fn start(config: &Config, folder: &Path, name: &str) -> Self {
        let file = folder.join(format!("{name}.toml"));
        std::fs::write(&file, toml::to_string(config).expect("TOML")).expect("to write the configuration");
        let log: PathBuf = folder.join(format!("{name}.log"));
        let process = Command::new(std::env::current_exe().expect("this program"))
            .arg("serve")
            .arg("--config")
            .arg(&file)
            .env_remove("DATABASE_URL")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(File::create(&log).expect("a log"))
            .spawn()
            .expect("a server");
        let mut server = Self { process, address: config.server.listen };
        let ready = tokio::time::timeout(START_DEADLINE, server.is_ready()).await;
        assert_eq!(ready, Ok(true), "{}", std::fs::read_to_string(&log).unwrap_or_default());
        server
    }

    /// Waits until it is ready; false if it ended instead.
    async fn is_ready(&mut self) -> bool {
        let ready = |answer: &Vec<u8>| answer.starts_with(b"HTTP/1.1 200 ");
        while !load::ask(self.address, asks::READYZ).await.is_ok_and(|answer| ready(&answer)) {
            if self.process.try_wait().expect("its state").is_some() {
                return false;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        true
    }

    /// Where it listens.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// See [`load::run`].
    pub(crate) async fn load(&self, connections: usize, requests: Vec<Vec<u8>>) -> Measured {
        let total = requests.len();
        self.load_around(connections, &Arc::new(requests), total).await
    }

    /// The same, going around `requests` until there were `total`.
    pub(crate) async fn load_around(
        &self,
        connections: usize,
        requests: &Arc<Vec<Vec<u8>>>,
        total: usize,
    ) -> Measured {
        self.paced(connections, Pace::Closed, requests, total).await
    }

    /// The same at a pace.
    pub(crate) async fn paced(
        &self,
        connections: usize,
        pace: Pace,
        requests: &Arc<Vec<Vec<u8>>>,
        total: usize,
    ) -> Measured {
        let before = Cpu::used(self.process.id());
        let mut measured = load::run(self.address, connections, pace, Arc::clone(requests), total).await;
        measured.cpu = Cpu::used(self.process.id()) - before;
        measured
    }

    /// Its resident memory in MB (10^6 bytes): now, and at its highest.
    pub(crate) fn resident_mb(&self) -> (f64, f64) {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.process.id())).expect("/proc");
        let of = |key: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(key)).expect("a line");
            let kib: u32 = line.trim().trim_end_matches(" kB").parse().expect("a number");
            f64::from(kib) * 1_024.0 / 1e6
        };
        (of("VmRSS:"), of("VmHWM:"))
    }
}

impl Server {
    /// How many descriptors it has open.
    pub(crate) fn descriptors(&self) -> usize {
        std::fs::read_dir(format!("/proc/{}/fd", self.process.id())).expect("/proc").count()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Ok(pid) = i32::try_from(self.process.id()) {
            let _ = kill(Pid::from_raw(pid), Signal::SIGTERM);
        }
        let _ = self.process.wait();
    }
}
