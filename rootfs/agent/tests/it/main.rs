//! The agent against an engine that answers with what a real one once said.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod damage;
mod fake;
mod login;
mod registry;
mod services;
mod status;
mod tls;
mod update;
