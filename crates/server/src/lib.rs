//! The Cortex server: the path identity → policy → grant → mint → issuance over HTTP and Postgres.
//!
//! Read [`exchange`] first: it holds the path, top to bottom.

mod admission;
pub mod approval;
pub mod barrier;
pub mod broker;
pub mod config;
mod console;
mod denial;
pub mod exchange;
pub mod http;
mod introspection;
pub mod key_file;
pub mod keyring;
pub mod leases;
pub mod library;
pub mod live;
pub mod log;
mod mint;
mod noise;
pub mod notify;
mod questions;
pub mod random;
mod recall;
pub mod replay;
mod reports;
pub mod revoking;
mod serve;
pub mod sign_in;
pub mod start;
pub mod store;
pub mod streams;
pub mod supervisor;
pub mod telemetry;

pub use config::Config;
pub use denial::Refused;
pub use serve::TlsError;
pub use start::{Environment, Running, StartError, stamp, start};
