//! The command `iota` as people run it: the real program, started by itself.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod interrupts;
mod loop_device;
#[allow(dead_code, reason = "shared with the library's own tests, which use all of it")]
#[path = "../../src/host/test_server.rs"]
mod test_server;
