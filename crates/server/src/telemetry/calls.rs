//! Measures of what is under way.

use metrics::{Gauge, SharedString};
use tokio::time::Instant;

/// Counts as under way for as long as it lives.
pub(crate) struct UnderWay(Gauge);

impl UnderWay {
    /// One more of what `gauge` counts.
    pub(crate) fn new(gauge: Gauge) -> Self {
        gauge.increment(1.0);
        Self(gauge)
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.0.decrement(1.0);
    }
}

/// A mint at a provider.
pub(crate) struct Call {
    provider: SharedString,
    begun: Instant,
    _under_way: UnderWay,
}

impl Call {
    /// It begins now.
    pub(crate) fn begin(provider: &str) -> Self {
        let provider = SharedString::from(provider.to_owned());
        let gauge = metrics::gauge!("cortex_provider_calls_in_flight", "provider" => provider.clone());
        Self { provider, begun: Instant::now(), _under_way: UnderWay::new(gauge) }
    }

    /// It ended as `outcome` says, in a word.
    pub(crate) fn end(self, outcome: &'static str) {
        let labels = [("provider", self.provider.clone()), ("outcome", SharedString::const_str(outcome))];
        metrics::histogram!("cortex_provider_call_seconds", &labels)
            .record(self.begun.elapsed().as_secs_f64());
    }
}
