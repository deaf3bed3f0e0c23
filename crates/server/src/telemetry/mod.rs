//! What operators see of a replica: measurements for Prometheus, and traces of requests for a collector.
//!
//! [`METRICS`] names every measurement there is. A test holds it, the code and `docs/metrics.md` together.

mod calls;
mod catalogue;
mod config;
mod gauges;
mod labels;
mod logs;
mod process;
mod recorder;
mod steps;
mod traces;

pub(crate) use calls::{Call, UnderWay};
pub use catalogue::{Kind, METRICS, Metric};
pub use config::TelemetryConfig;
pub(crate) use gauges::{at_scrape, from_database};
pub(crate) use labels::{NO_POLICY, method, policy};
pub use logs::{Telling, log_as_json};
pub(crate) use process::started;
pub use recorder::recorder;
pub(crate) use steps::{PATH, answered, request, step};

#[cfg(test)]
mod tests;
