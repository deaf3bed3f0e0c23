//! The product's promises, through HTTP and a real Postgres.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test that cannot go on has failed"
)]

mod airflow;
mod algorithms;
mod asking;
mod attacks;
mod attestation;
mod bench;
mod clock;
mod command_line;
mod console;
mod counterparts;
mod crashes;
mod database;
mod deploy;
mod doctor;
mod exec;
mod faults;
mod freeze;
mod grants;
mod hardening;
mod http_attacks;
mod invariants;
mod kms;
mod log;
mod login;
mod notifications;
mod overload;
mod path;
mod policy_attacks;
mod replay;
mod replicas;
mod revocation;
mod secrets;
mod streams;
mod telemetry;
mod terminal;
mod transport;
mod upgrade;
