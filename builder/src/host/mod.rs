//! host
pub mod mirror;
pub mod progress;
pub mod store;
