//! The edge to this machine: files, network, programs, terminals. Everything else is pure.

pub mod block_devices;
pub mod cargo;
pub mod fetch;
pub mod mirror;
pub mod output;
pub mod parallel;
pub mod progress;
pub mod qemu;
pub mod signals;
pub mod store;
#[cfg(test)]
pub(crate) mod test_server;
pub mod tools;
pub mod unpack;

use std::time::{SystemTime, UNIX_EPOCH};

/// Seconds since 1970 by this machine's clock, which may be wrong: never part of an image.
pub fn now_s() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |passed| passed.as_secs())
}
