//! Renews the credentials of a command while it runs.

use std::convert::Infallible;
use std::time::Duration;

use cortex_core::Clock as _;
use cortex_core::clock::SystemClock;
use jiff::SignedDuration;
use tokio::time::sleep;

use super::folder::Folder;
use super::given;
use super::held::Held;
use crate::ask::{Ask, Refusal, Subject};

/// How often the clock is looked at: a machine that slept wakes up with credentials that have ended.
const TICK: Duration = Duration::from_secs(15);
/// The first and the longest pause after a renewal that did not work.
const PAUSES: [Duration; 2] = [Duration::from_secs(1), Duration::from_secs(30)];

/// What became of one renewal.
enum Renewed {
    /// There are new credentials, or the same ones are still good.
    Done,
    /// Not now.
    NotYet(String),
    /// Never again.
    Over(String),
}

/// Renews until it is dropped. Where the policy says no, it takes back what it can and waits.
pub(super) async fn renew(ask: &Ask, subject: &mut Subject, held: &Held, folder: &Folder) -> Infallible {
    let mut teller = Teller::default();
    let mut pause = PAUSES[0];
    loop {
        wait_until_due(held, folder).await;
        match once(ask, subject, held).await {
            Renewed::Done => {
                teller.renewed();
                pause = PAUSES[0];
                given::refresh(folder, held, &mut teller);
            }
            Renewed::NotYet(why) => {
                teller.tell(&format!("not renewed, trying again: {why}"));
                given::refresh(folder, held, &mut teller);
                sleep(pause).await;
                pause = (pause * 2).min(PAUSES[1]);
            }
            Renewed::Over(why) => {
                teller.tell(&format!("credentials are no longer renewed: {why}"));
                held.end(&why);
                given::refresh(folder, held, &mut teller);
                return std::future::pending().await;
            }
        }
    }
}

async fn once(ask: &Ask, subject: &mut Subject, held: &Held) -> Renewed {
    match ask.send(subject).await {
        Ok(Ok(bundle)) => {
            held.take(bundle);
            Renewed::Done
        }
        Ok(Err(Refusal::Denied(why))) => Renewed::Over(why),
        Ok(Err(refusal)) => Renewed::NotYet(refusal.sentence()),
        Err(error) => Renewed::NotYet(error.to_string()),
    }
}

/// Sleeps until a renewal is due by the machine's clock, or somebody wants what has ended.
async fn wait_until_due(held: &Held, folder: &Folder) {
    loop {
        let Some(due) = held.due() else { return std::future::pending().await };
        let left = due.duration_since(SystemClock.now());
        if left <= SignedDuration::ZERO {
            return;
        }
        tokio::select! {
            () = sleep(left.unsigned_abs().min(TICK)) => given::remove_ended(folder, held),
            () = held.wanted() => return,
        }
    }
}

/// Says each thing once, on standard error: it is the command's terminal.
#[derive(Default)]
pub(super) struct Teller {
    last: Option<String>,
}

impl Teller {
    pub(super) fn tell(&mut self, text: &str) {
        if self.last.as_deref() != Some(text) {
            eprintln!("cortex: {text}");
            self.last = Some(text.to_owned());
        }
    }

    fn renewed(&mut self) {
        if self.last.take().is_some() {
            eprintln!("cortex: renewed again");
        }
    }
}
