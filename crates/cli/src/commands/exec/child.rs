//! The command: started, told what we are told, and waited for.

use std::ffi::OsString;
use std::io::{ErrorKind, IsTerminal as _};
use std::os::unix::process::ExitStatusExt as _;
use std::process::{ExitCode, ExitStatus};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::process::{Child, Command};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;

use super::given::Given;
use crate::error::{Error, Exit};

/// What is passed on.
const PASSED_ON: [Signal; 6] =
    [Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP, Signal::SIGQUIT, Signal::SIGUSR1, Signal::SIGUSR2];

/// The signals that arrive from now on, instead of ending us.
pub(super) struct Signals(mpsc::Receiver<Signal>);

impl Signals {
    /// Listens for those that are passed on.
    pub(super) fn listen() -> Result<Self, Error> {
        let (arrived, signals) = mpsc::channel(16);
        for one in PASSED_ON {
            let mut stream = signal(SignalKind::from_raw(one as i32))?;
            let arrived = arrived.clone();
            tokio::spawn(async move {
                while stream.recv().await.is_some() {
                    if arrived.send(one).await.is_err() {
                        return;
                    }
                }
            });
        }
        Ok(Self(signals))
    }
}

/// The command while it runs.
pub(super) struct Running {
    child: Child,
    at_terminal: bool,
}

impl Running {
    /// Starts it with our own standard streams.
    pub(super) fn start(command: &[OsString], given: &Given) -> Result<Self, Error> {
        let Some((program, arguments)) = command.split_first() else {
            return Err(Error::Of(Exit::Usage, "there is no command to run".to_owned()));
        };
        let mut command = Command::new(program);
        command.args(arguments);
        for name in &given.hidden {
            command.env_remove(name);
        }
        command.envs(&given.set);
        let child = command.spawn().map_err(|error| {
            let text = format!("{}: {error}", program.display());
            match error.kind() {
                ErrorKind::NotFound => Error::NotStarted(127, text),
                _ => Error::NotStarted(126, text),
            }
        })?;
        Ok(Self { child, at_terminal: std::io::stdin().is_terminal() })
    }

    /// Waits for its end, passing signals on, and answers with its exit code.
    pub(super) async fn wait(mut self, mut signals: Signals) -> Result<ExitCode, Error> {
        loop {
            tokio::select! {
                status = self.child.wait() => return Ok(code(status?)),
                Some(signal) = signals.0.recv() => self.pass_on(signal),
            }
        }
    }

    /// Ctrl-C and Ctrl-\ at a terminal have reached the command already: it is in the same group as we are.
    fn pass_on(&self, signal: Signal) {
        if self.at_terminal && matches!(signal, Signal::SIGINT | Signal::SIGQUIT) {
            return;
        }
        // Not waited for yet, so that the number is still the command's; it may have ended meanwhile.
        if let Some(pid) = self.child.id().and_then(|id| i32::try_from(id).ok()) {
            let _ = kill(Pid::from_raw(pid), signal);
        }
    }
}

/// The exit code, as shells count: 128 and the number of the signal that ended it.
fn code(status: ExitStatus) -> ExitCode {
    let signal = || status.signal().map(|signal| 128 + signal);
    let code = status.code().or_else(signal).unwrap_or(1);
    ExitCode::from(u8::try_from(code).unwrap_or(1))
}
