//! The product's promises, through HTTP and a real Postgres.

mod path;
