//! The boot loader of every board: a UEFI program that chooses a slot, verifies it and starts its
//! kernel. It writes nothing but the boot record, asks nobody anything, and ends every path in a
//! started kernel or a reset, with a line on the console before it.
//!
//! What is decided and checked is in `ondisk`; `loader::boot` is the order of the steps, over any
//! machine; `firmware` is the machine that UEFI gives us and the only place with `unsafe`.
#![cfg_attr(target_os = "uefi", no_main, no_std)]
#![cfg_attr(not(target_os = "uefi"), forbid(unsafe_code))]
#![warn(clippy::arithmetic_side_effects, clippy::as_conversions)]
#[cfg(target_os = "uefi")]
extern crate alloc;

#[cfg(target_os = "uefi")]
mod firmware;

#[cfg(not(target_os = "uefi"))]
fn main() {
    eprintln!("error: the loader runs under UEFI only");
    std::process::exit(2);
}
