//! The clouds over the wire: what they accept, and that each check refuses when it should.

#![expect(clippy::unwrap_used, reason = "a test helper that fails has failed its test")]

mod aws;
mod faults;
mod google;
mod issuer;
mod kms;
mod s3;
mod snowflake;
mod world;
