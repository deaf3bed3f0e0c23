//! What identity promises, against an issuer that answers over HTTP.

#![expect(clippy::unwrap_used, reason = "a test that cannot be set up has failed")]

mod attacks;
mod claims;
mod forge;
mod genuine;
mod idp;
mod keys;
mod memory;
mod properties;
mod table;
mod world;
