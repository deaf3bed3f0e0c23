//! Tests over every provider, and what the providers' own tests share.

pub(crate) mod fixtures;
