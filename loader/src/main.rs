//! The boot loader of every board: a UEFI program that chooses a slot, verifies it and starts its kernel.
#![cfg_attr(target_os = "uefi", no_main, no_std)]

#[cfg(not(target_os = "uefi"))]
fn main() {
    eprintln!("error: the loader runs under UEFI only");
    std::process::exit(2);
}
