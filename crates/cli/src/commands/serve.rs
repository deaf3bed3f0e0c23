//! `cortex serve`.

use std::sync::Arc;

use cortex_core::clock::SystemClock;
use cortex_server::random::SystemRandom;
use cortex_server::{Config, Environment, store, telemetry};
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};

use crate::error::Error;
use crate::hardening;

pub(crate) async fn run(config: Config) -> Result<(), Error> {
    let telling = telemetry::log_as_json(&config)?;
    hardening::server();
    if config.issuers.is_empty() {
        return Err(Error::Said(
            "no issuers are configured, so nobody could ask for anything: add [[issuers]]".into(),
        ));
    }
    // Bound before anything else, so that a taken port is said at once.
    let listener = TcpListener::bind(config.server.listen).await?;
    store::migrate(&config.database).await?;
    let environment = Environment { clock: Arc::new(SystemClock), random: Arc::new(SystemRandom) };
    let running = cortex_server::start(config, listener, environment).await?;
    tracing::info!(address = %running.address, issuer = running.issuer_url, "serving");
    told_to_stop().await?;
    tracing::info!("stopping: draining what is under way");
    running.shut_down().await;
    telling.finish().await;
    Ok(())
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
