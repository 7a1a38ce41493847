//! The bytes and rules that loader, init, agent and builder agree on.
//!
//! No clock, no randomness, no unsafe, no I/O (but a `File` adapter behind the feature `std`).
#![cfg_attr(not(feature = "std"), no_std)]
#![forbid(unsafe_code)]
extern crate alloc;

pub mod system;
