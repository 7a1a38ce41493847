//! PID 1 of an Iota system: one static program for three roles.
//!
//! - In the initramfs it finds and mounts the verified root ([`early`]).
//! - In the root it prepares the system and watches the services ([`late`]).
//! - Under the name `modprobe` it loads modules for the kernel and for engines ([`modprobe`]).
//!
//! It guarantees: nothing it reads makes it panic on purpose; engine trouble never stops it; every
//! failure of the early stage ends in a restart with a line on the console, never in a shell.

mod early;
mod late;
mod modprobe;

mod plan;
mod services;
mod supervisor;
mod trial;

mod clock;
mod data;
mod disk;
mod led;
mod linux;
mod log;
mod module_loader;
mod netlink;
mod power;
mod process;
mod sys;
mod tool;
mod watchdog;

mod device_mapper;
mod failure;
mod modules;
mod ring;
mod uevent;

use std::path::Path;
use std::process::ExitCode;

fn main() -> ExitCode {
    let mut arguments = std::env::args_os().map(|argument| argument.to_string_lossy().into_owned());
    let program = arguments.next().unwrap_or_default();
    if program.rsplit('/').next() == Some("modprobe") {
        return modprobe::main(arguments);
    }
    if !rustix::process::getpid().is_init() {
        eprintln!("iota-init is PID 1 of an Iota system and does nothing elsewhere");
        return ExitCode::from(2);
    }
    if Path::new(ondisk::system::PATH).exists() { late::run(arguments) } else { early::run() }
}
