//! host
pub mod fetch;
pub mod mirror;
pub mod parallel;
pub mod progress;
pub mod store;
#[cfg(test)]
pub(crate) mod test_server;
pub mod unpack;
