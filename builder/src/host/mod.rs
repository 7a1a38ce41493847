//! The edge to this machine: files, network, programs, terminals. Everything else is pure.

pub mod block_devices;
pub mod cargo;
pub mod fetch;
pub mod mirror;
pub mod parallel;
pub mod progress;
pub mod qemu;
pub mod signals;
pub mod store;
#[cfg(test)]
pub(crate) mod test_server;
pub mod tools;
pub mod unpack;
