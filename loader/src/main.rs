//! The boot loader of every board: a UEFI program that chooses a slot, verifies it and starts its
//! kernel. It writes nothing but the boot record, asks nobody anything, and ends every path in a
//! started kernel or a reset, with a line on the console before it.
//!
//! What is decided and checked is in `ondisk`; [`boot`] is the order of the steps, over any
//! machine; `firmware` is the machine that UEFI gives us and the only place with `unsafe`.
#![cfg_attr(target_os = "uefi", no_main, no_std)]
#![cfg_attr(not(target_os = "uefi"), forbid(unsafe_code))]
#![cfg_attr(not(test), warn(clippy::arithmetic_side_effects, clippy::as_conversions))]
extern crate alloc;

#[cfg(any(target_os = "uefi", test))]
mod boot;
#[cfg(target_os = "uefi")]
mod firmware;
#[cfg(any(target_os = "uefi", test))]
mod record;
#[cfg(any(target_os = "uefi", test))]
mod slot;

#[cfg(not(target_os = "uefi"))]
fn main() {
    eprintln!("error: the loader runs under UEFI only");
    std::process::exit(2);
}
