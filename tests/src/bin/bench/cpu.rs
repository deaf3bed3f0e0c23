//! Where the processor's time goes: server, Postgres, client.

use std::ops::{Add, Sub};
use std::path::Path;
use std::time::Duration;

/// Processor time, of all cores together.
#[derive(Debug, Default, Clone, Copy)]
pub(crate) struct Cpu {
    /// The server's.
    pub(crate) server: Duration,
    /// That of every Postgres process on the machine.
    pub(crate) postgres: Duration,
    /// The client's, which is this process.
    pub(crate) client: Duration,
}

impl Cpu {
    /// What was used up to now.
    pub(crate) fn used(server: u32) -> Self {
        let all = std::fs::read_dir("/proc").expect("/proc").filter_map(Result::ok);
        let postgres = all.filter_map(|entry| used(&entry.path(), Some("postgres"))).sum();
        let of = |pid: u32| used(Path::new(&format!("/proc/{pid}")), None).expect("a process");
        Self { server: of(server), postgres, client: of(std::process::id()) }
    }
}

/// The time of a process, if it is called `name`.
fn used(process: &Path, name: Option<&str>) -> Option<Duration> {
    let stat = std::fs::read_to_string(process.join("stat")).ok()?;
    let (head, rest) = stat.rsplit_once(')')?;
    if name.is_some_and(|name| !head.ends_with(&format!("({name}"))) {
        return None;
    }
    // proc(5): utime and stime are fields 14 and 15, in hundredths of a second; the state is field 3.
    let mut fields = rest.split_whitespace().skip(11);
    let ticks: u64 = fields.next()?.parse::<u64>().ok()? + fields.next()?.parse::<u64>().ok()?;
    Some(Duration::from_millis(ticks * 10))
}

impl Add for Cpu {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self {
            server: self.server + other.server,
            postgres: self.postgres + other.postgres,
            client: self.client + other.client,
        }
    }
}

impl Sub for Cpu {
    type Output = Self;

    fn sub(self, other: Self) -> Self {
        Self {
            server: self.server.saturating_sub(other.server),
            postgres: self.postgres.saturating_sub(other.postgres),
            client: self.client.saturating_sub(other.client),
        }
    }
}
