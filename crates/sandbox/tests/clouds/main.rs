//! The clouds over the wire: what they accept, and that each check refuses when it should.

mod aws;
mod faults;
mod google;
mod issuer;
mod s3;
mod snowflake;
mod world;
