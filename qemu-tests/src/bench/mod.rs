//! What `cargo xtask bench` measures: speed, size and memory, ours beside others' in one run.
//!
//! Nothing here is a test: a figure holds for one machine at one time, and is worth something only
//! beside another of the same run. Reading order: [`table`] → [`process`] → [`builds`] →
//! [`writers`] → [`flash`] → [`peers`] → [`boot`] → [`host`] → [`engines`] →
//! [`install`] → [`delta`] → [`follow`].

pub mod boot;
pub mod builds;
pub mod delta;
pub mod delta_peers;
pub mod directory;
pub mod engines;
pub mod flash;
pub mod follow;
pub mod host;
pub mod idle;
pub mod install;
mod module_index;
pub mod peers;
pub mod process;
pub mod table;
pub mod writers;
