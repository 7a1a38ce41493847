//! host
pub mod mirror;
pub mod parallel;
pub mod progress;
pub mod store;
pub mod unpack;
