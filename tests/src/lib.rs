//! What the end-to-end tests share: a world on loopback for each test, and the real counterparts.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on has failed")]
#![allow(clippy::missing_panics_doc, reason = "a test that cannot go on has failed")]

pub mod airflow;
pub mod attack;
pub mod cluster;
pub mod counterparts;
pub mod forge;
pub mod objects;
pub mod pg_proxy;
pub mod pki;
pub mod promises;
pub mod s3;
pub mod served;
pub mod tls;
pub mod world;
