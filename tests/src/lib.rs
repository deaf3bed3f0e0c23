//! tests
pub mod counterparts;
