//! Sending spans to a collector, by OTLP over HTTP.
//!
//! A span that has ended goes into a bounded queue and is dropped, and counted, where that is full: nobody who waits for
//! a credential ever waits for a collector. What a collector does not take is lost, and counted too.

use std::path::Path;
use std::time::Duration;

use opentelemetry::trace::TracerProvider as _;
use opentelemetry::{Context, KeyValue};
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::transform::common::tonic::ResourceAttributesWithSchema;
use opentelemetry_proto::transform::trace::tonic::group_spans_by_resource_and_scope;
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::trace::{Sampler, SdkTracerProvider, Span, SpanData, SpanProcessor};
use prost::Message as _;
use reqwest::Url;
use reqwest::header::{CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tracing_subscriber::filter::filter_fn;
use tracing_subscriber::{Layer, Registry};
use zeroize::Zeroizing;

use super::{PATH, TelemetryConfig};
use crate::notify::webhook;

/// How many spans wait at the most.
const QUEUE: usize = 8_192;
/// How many are sent at once at the most.
const BATCH: usize = 512;
/// How long they are gathered.
const GATHERED: Duration = Duration::from_millis(500);

/// What makes spans of the steps of the path.
pub(super) type TracesLayer = Box<dyn Layer<Registry> + Send + Sync>;

/// Makes the layer and what sends its spans; none where no collector is configured. `replica` is this replica's name.
pub(super) fn traces(
    config: &TelemetryConfig,
    replica: &str,
) -> Result<Option<(TracesLayer, Exporter)>, reqwest::Error> {
    // What is wrong with it was refused with the configuration.
    let Ok(Some(endpoint)) = config.destination() else { return Ok(None) };
    let (queue, spans) = mpsc::channel(QUEUE);
    let resource = Resource::builder_empty()
        .with_attributes([
            KeyValue::new("service.name", "cortex"),
            KeyValue::new("service.version", env!("CARGO_PKG_VERSION")),
            KeyValue::new("service.instance.id", replica.to_owned()),
        ])
        .build();
    let provider = SdkTracerProvider::builder()
        .with_sampler(Sampler::ParentBased(Box::new(Sampler::TraceIdRatioBased(config.sample_ratio))))
        .with_span_processor(Queue(queue))
        .with_resource(resource.clone())
        .build();
    let layer = tracing_opentelemetry::layer()
        .with_tracer(provider.tracer("cortex"))
        .with_location(false)
        .with_threads(false)
        .with_target(false)
        .with_tracked_inactivity(false)
        .with_context_activation(false)
        // The steps of the path alone: what libraries say in their spans and events is not looked through for secrets.
        .with_filter(filter_fn(|metadata| metadata.is_span() && metadata.target() == PATH));
    let exporter = Exporter {
        spans,
        http: webhook::client()?,
        endpoint,
        headers_file: config.headers_file.clone(),
        timeout: Duration::from_secs(config.timeout_s.into()),
        resource: (&resource).into(),
        failing: false,
    };
    Ok(Some((layer.boxed(), exporter)))
}

/// The queue's entrance.
#[derive(Debug)]
struct Queue(mpsc::Sender<SpanData>);

impl SpanProcessor for Queue {
    fn on_start(&self, _span: &mut Span, _context: &Context) {}

    fn on_end(&self, span: SpanData) {
        if self.0.try_send(span).is_err() {
            count("dropped", 1);
        }
    }

    fn force_flush(&self) -> OTelSdkResult {
        Ok(())
    }

    fn shutdown_with_timeout(&self, _timeout: Duration) -> OTelSdkResult {
        Ok(())
    }
}

fn count(outcome: &'static str, spans: usize) {
    metrics::counter!("cortex_trace_spans_total", "outcome" => outcome)
        .increment(u64::try_from(spans).unwrap_or(u64::MAX));
}

/// Sends what is in the queue.
pub(super) struct Exporter {
    spans: mpsc::Receiver<SpanData>,
    http: reqwest::Client,
    endpoint: Url,
    headers_file: Option<std::path::PathBuf>,
    timeout: Duration,
    resource: ResourceAttributesWithSchema,
    failing: bool,
}

impl Exporter {
    /// Sends until `stop`, and then what is left, as long as the collector takes it.
    pub(super) async fn run(mut self, stop: CancellationToken) {
        let mut batch = Vec::with_capacity(BATCH);
        while !stop.is_cancelled() {
            tokio::select! {
                () = stop.cancelled() => {}
                _ = self.spans.recv_many(&mut batch, BATCH) => {}
            }
            self.send(&mut batch).await;
            if self.spans.len() < BATCH {
                tokio::select! {
                    () = stop.cancelled() => {}
                    () = tokio::time::sleep(GATHERED) => {}
                }
            }
        }
        while let Ok(span) = self.spans.try_recv() {
            batch.push(span);
            if batch.len() == BATCH || self.spans.is_empty() {
                self.send(&mut batch).await;
                if self.failing {
                    return;
                }
            }
        }
    }

    async fn send(&mut self, batch: &mut Vec<SpanData>) {
        if batch.is_empty() {
            return;
        }
        let spans = batch.len();
        match self.post(std::mem::take(batch)).await {
            Ok(()) => {
                count("exported", spans);
                self.failing = false;
            }
            Err(error) => {
                count("failed", spans);
                // Said once: a collector that is away for a night needs no more lines than one.
                if !std::mem::replace(&mut self.failing, true) {
                    tracing::warn!(error, "the collector does not take spans; they are lost until it does");
                }
            }
        }
    }

    async fn post(&self, batch: Vec<SpanData>) -> Result<(), String> {
        let resource_spans = group_spans_by_resource_and_scope(batch, &self.resource);
        let body = ExportTraceServiceRequest { resource_spans }.encode_to_vec();
        let mut headers = match &self.headers_file {
            Some(file) => read_headers(file).await?,
            None => HeaderMap::new(),
        };
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/x-protobuf"));
        let sending = self.http.post(self.endpoint.clone()).headers(headers).timeout(self.timeout).body(body);
        webhook::send(sending).await
    }
}

async fn read_headers(file: &Path) -> Result<HeaderMap, String> {
    let text = tokio::fs::read_to_string(file).await;
    let text = Zeroizing::new(text.map_err(|_| "telemetry.headers_file cannot be read".to_owned())?);
    let mut headers = HeaderMap::new();
    for line in text.lines().map(str::trim).filter(|line| !line.is_empty()) {
        let header = line.split_once(':').and_then(|(name, value)| {
            let name = name.trim().parse::<HeaderName>().ok()?;
            let mut value = HeaderValue::from_str(value.trim()).ok()?;
            value.set_sensitive(true);
            Some((name, value))
        });
        // The line is not repeated: it may be a key.
        let (name, value) = header.ok_or("telemetry.headers_file has a line that is no `name: value`")?;
        headers.insert(name, value);
    }
    Ok(headers)
}

#[cfg(test)]
mod tests {
    use opentelemetry::trace::{Span as _, Tracer as _};

    use super::*;

    #[test]
    fn a_queue_that_is_full_drops_and_does_not_wait() {
        let (queue, mut spans) = mpsc::channel(2);
        let provider = SdkTracerProvider::builder().with_span_processor(Queue(queue)).build();
        let tracer = provider.tracer("test");
        for _ in 0..5 {
            tracer.start("span").end();
        }
        assert_eq!(spans.len(), 2);
        assert_eq!(spans.try_recv().unwrap().name, "span");
    }

    #[tokio::test]
    async fn headers_are_read_from_a_file_and_not_repeated_in_an_error() {
        let file = std::env::temp_dir().join(format!("cortex-headers-{}", std::process::id()));
        std::fs::write(&file, "x-api-key: s3cret\n\nother:  value \n").unwrap();
        let headers = read_headers(&file).await.unwrap();
        assert_eq!(
            (&headers["x-api-key"], &headers["other"]),
            (&"s3cret".parse().unwrap(), &"value".parse().unwrap())
        );
        std::fs::write(&file, "s3cret\n").unwrap();
        assert!(!read_headers(&file).await.unwrap_err().contains("s3cret"));
        std::fs::remove_file(&file).unwrap();
        assert!(read_headers(&file).await.is_err());
    }
}
