//! Spans: one for each request, and one for each step of the path within it.
//!
//! A request's span is in the log, so that every line that is written meanwhile carries the request's id. The steps are
//! there for traces; without an exporter nobody wants them, and they cost nothing. What a span says is in the calls
//! below and nowhere else: names and ids, never a token, a credential or what a person wrote.

use axum::http::{HeaderMap, Method};
use opentelemetry::propagation::{Extractor, TextMapPropagator as _};
use opentelemetry_sdk::propagation::TraceContextPropagator;
use tracing::Span;
use tracing_opentelemetry::OpenTelemetrySpanExt as _;

/// The target of all spans of the path: what the exporter of traces takes.
pub(crate) const PATH: &str = "cortex::path";

/// Where a caller says which trace a request belongs to (W3C Trace Context).
const TRACEPARENT: &str = "traceparent";

/// The one header that is read of a caller's trace. `tracestate` is other systems' own words, which go no further.
struct Traceparent<'a>(&'a str);

impl Extractor for Traceparent<'_> {
    fn get(&self, key: &str) -> Option<&str> {
        (key == TRACEPARENT).then_some(self.0)
    }

    fn keys(&self) -> Vec<&str> {
        vec![TRACEPARENT]
    }
}

/// The span of one request: of the caller's trace, where `headers` name one. No cloud is told of it.
pub(crate) fn request(method: &Method, route: &str, request_id: &str, headers: &HeaderMap) -> Span {
    let span = tracing::info_span!(
        target: PATH,
        "request",
        otel.name = format_args!("{} {route}", super::method(method)),
        otel.kind = "server",
        method = super::method(method),
        route,
        request_id,
        status = tracing::field::Empty,
        otel.status_code = tracing::field::Empty,
    );
    if let Some(parent) = headers.get(TRACEPARENT).and_then(|value| value.to_str().ok()) {
        // Without an exporter there is nothing that could have a parent.
        let _ = span.set_parent(TraceContextPropagator::new().extract(&Traceparent(parent)));
    }
    span
}

/// Says how a request was answered.
pub(crate) fn answered(span: &Span, status: u16) {
    span.record("status", status);
    if status >= 500 {
        span.record("otel.status_code", "ERROR");
    }
}

/// The span of one step of the path, by its name, with further fields.
macro_rules! step {
    ($name:literal $(, $($field:tt)*)?) => {
        tracing::debug_span!(target: $crate::telemetry::PATH, $name $(, $($field)*)?)
    };
}
pub(crate) use step;
