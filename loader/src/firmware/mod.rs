//! The machine as UEFI gives it to us: entry, console, clock, reset.
mod disk;
mod initrd;
mod start;
mod watchdog;

use core::convert::Infallible;
use core::fmt::{self, Write as _};
use core::time::Duration;

use ondisk::key_block::{self, BLOCK_BYTES, EMPTY_BLOCK};
use uefi::runtime::{self, ResetType};
use uefi::{Status, boot, system};

use loader::boot::{Machine, PAUSE_SECONDS, System};

/// Longest time from here to a kernel that has taken over; the firmware resets the machine after
/// it. Slow cards need half a minute.
const WATCHDOG_SECONDS: usize = 300;
/// Codes up to 0xffff are the firmware's own.
const WATCHDOG_CODE: u64 = 0x1_0000;

/// The trust root of this loader; filled in the finished program by the builder.
#[used]
static KEYS: [u8; BLOCK_BYTES] = EMPTY_BLOCK;

#[uefi::entry]
fn main() -> Status {
    // A firmware without a watchdog says so, and there is nothing to do about it.
    let _ = boot::set_watchdog_timer(WATCHDOG_SECONDS, WATCHDOG_CODE, None);
    say(format_args!("version {}", env!("CARGO_PKG_VERSION")));
    match run() {
        Ok(never) => match never {},
        Err(()) => give_up(),
    }
}

/// Comes back only if nothing can be started; the reasons are on the console.
fn run() -> Result<Infallible, ()> {
    // SAFETY: the pointer comes from a reference to a static. Volatile, because the builder
    // changes the value behind the compiler's back.
    let block = unsafe { (&raw const KEYS).read_volatile() };
    let trust = key_block::decode(&block).map_err(|error| say(format_args!("keys: {error}")))?;
    let disk = disk::Disk::own().map_err(|error| say(format_args!("disk: {error}")))?;
    let block_bytes = disk.block_bytes();
    loader::boot::boot(&Firmware, disk, block_bytes, &trust).map_err(|_| ())
}

struct Firmware;

impl Machine for Firmware {
    type Started = Infallible;

    fn say(&self, line: fmt::Arguments<'_>) {
        say(line);
    }

    fn start(&self, system: System) -> Result<Infallible, &'static str> {
        start::start(system)
    }

    fn wait_seconds(&self, seconds: u64) {
        boot::stall(Duration::from_secs(seconds));
    }
}

fn say(line: fmt::Arguments<'_>) {
    // A console that does not work must not keep a system from starting.
    let _ = system::with_stdout(|out| writeln!(out, "iota loader: {line}"));
}

fn give_up() -> ! {
    say(format_args!("nothing starts, reset in {PAUSE_SECONDS} s"));
    boot::stall(Duration::from_secs(PAUSE_SECONDS));
    runtime::reset(ResetType::COLD, Status::LOAD_ERROR, None)
}

#[panic_handler]
fn panic(info: &core::panic::PanicInfo<'_>) -> ! {
    say(format_args!("{info}"));
    give_up()
}
