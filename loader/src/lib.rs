//! The boot loader's steps, over any machine: what the UEFI program of this crate runs on the
//! device is what the disk simulator of `qemu-tests` runs on the host.
//!
//! What is decided and checked is in `ondisk`; [`boot`] is the order of the steps, [`record`] the
//! boot record, [`slot`] one slot on the way and [`kernel`] unpacks; [`pi_watchdog`] is what a
//! Raspberry Pi needs besides. Nothing here knows UEFI: that is `firmware`, in the program.
#![cfg_attr(not(test), no_std)]
#![forbid(unsafe_code)]
#![cfg_attr(not(test), warn(clippy::arithmetic_side_effects, clippy::as_conversions))]
extern crate alloc;

pub mod boot;
pub mod kernel;
pub mod pi_watchdog;
mod record;
mod slot;
