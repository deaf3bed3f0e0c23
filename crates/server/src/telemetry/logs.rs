//! The log of a process that serves, and its traces.

use std::time::Duration;

use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{EnvFilter, Layer as _};

use super::{recorder, traces};
use crate::config::Config;
use crate::start::{StartError, replica};

/// How long spans are sent after everything else has ended.
const LAST_WORDS: Duration = Duration::from_secs(5);

/// The task that sends traces, where there is a collector.
pub struct Telling {
    stop: CancellationToken,
    exporting: Option<JoinHandle<()>>,
}

/// From here on the process measures, writes its log to standard error as JSON lines, as `RUST_LOG` says, and sends
/// traces, where a collector is configured. To be called once, within the runtime.
pub fn log_as_json(config: &Config) -> Result<Telling, StartError> {
    let _ = recorder();
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    let lines = tracing_subscriber::fmt::layer().json().with_writer(std::io::stderr).with_filter(filter);
    let (layer, exporter) = traces::traces(&config.telemetry, &replica(config))?.unzip();
    tracing_subscriber::registry().with(layer.into_iter().chain([lines.boxed()]).collect::<Vec<_>>()).init();
    let stop = CancellationToken::new();
    let exporting = exporter.map(|exporter| tokio::spawn(exporter.run(stop.clone())));
    Ok(Telling { stop, exporting })
}

impl Telling {
    /// Sends what is left, for five seconds at the most.
    pub async fn finish(self) {
        self.stop.cancel();
        if let Some(exporting) = self.exporting {
            // What is not sent by then is lost, as what a collector does not take.
            let _ = tokio::time::timeout(LAST_WORDS, exporting).await;
        }
    }
}
