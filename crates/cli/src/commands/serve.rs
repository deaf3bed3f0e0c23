//! `cortex serve`.

use std::sync::Arc;

use cortex_core::clock::SystemClock;
use cortex_server::random::SystemRandom;
use cortex_server::{Config, Environment, store, telemetry};
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};

use crate::error::Error;
use crate::hardening;

pub(crate) async fn run(load: impl Fn() -> Result<Config, Error>) -> Result<(), Error> {
    let usable = || load().and_then(with_issuers);
    let config = load()?;
    let telling = telemetry::log_as_json(&config)?;
    hardening::server();
    let config = with_issuers(config)?;
    // From now on, so that none is lost and none ends the process.
    let mut hangup = signal(SignalKind::hangup())?;
    // Bound before anything else, so that a taken port is said at once.
    let listener = TcpListener::bind(config.server.listen).await?;
    store::migrate(&config.database).await?;
    let environment = Environment { clock: Arc::new(SystemClock), random: Arc::new(SystemRandom) };
    let running = cortex_server::start(config, listener, environment).await?;
    tracing::info!(address = %running.address, issuer = running.issuer_url, "serving");
    let reloads = async {
        while hangup.recv().await.is_some() {
            tracing::info!("told to read the configuration again");
            running.reload(usable().map_err(|error| error.to_string())).await;
        }
        std::future::pending::<()>().await;
    };
    tokio::select! {
        told = told_to_stop() => told?,
        () = reloads => {}
    }
    tracing::info!("stopping: draining what is under way");
    running.shut_down().await;
    telling.finish().await;
    Ok(())
}

fn with_issuers(config: Config) -> Result<Config, Error> {
    if config.issuers.is_empty() {
        let said = "no issuers are configured, so nobody could ask for anything: add [[issuers]]";
        return Err(Error::Said(said.into()));
    }
    Ok(config)
}

/// Waits for SIGTERM or SIGINT.
pub(crate) async fn told_to_stop() -> Result<(), Error> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    Ok(())
}
