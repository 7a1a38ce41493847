//! Arms the watchdog of a Raspberry Pi; does nothing on other machines.
//!
//! UEFI's own watchdog ends when the kernel takes over, and under U-Boot it is a program that a
//! machine which stands still does not run. Where things are and what is written is decided in
//! `loader::pi_watchdog`. When in doubt the watchdog stays off, and the console says so.
use core::ptr::NonNull;
use core::time::Duration;

use loader::pi_watchdog::{Board, MESSAGE_WORDS, Message, SECONDS, Unusable};
use uefi::boot::{self, AllocateType};
use uefi::mem::memory_map::MemoryType;
use uefi::{Guid, guid, system};

/// The table of the firmware that is a device tree (UEFI: EFI_DTB_TABLE_GUID of the EBBR).
const DEVICE_TREE: Guid = guid!("b1b621d5-f19c-41a5-830b-d9152c69aae0");
/// More than any device tree has; U-Boot gives it less.
const LONGEST_TREE: usize = 4 << 20;
/// The firmware reaches the first GiB of every board.
const LAST_SHARED_BYTE: u64 = (1 << 30) - 1;
/// Most machines answer within microseconds.
const MOST_POLLS: u32 = 100;

/// An armed watchdog; dropping it disarms it, for a kernel that came back.
pub(super) struct Armed(Board);

/// Arms the watchdog, if this is a Raspberry Pi.
pub(super) fn arm() -> Option<Armed> {
    let found = device_tree().map_or(Ok(None), Board::find);
    let armed = found.and_then(|board| board.map(arm_board).transpose());
    match &armed {
        Ok(None) => {}
        Ok(Some(_)) => super::say(format_args!("watchdog: armed, {SECONDS} s")),
        Err(reason) => super::say(format_args!("watchdog: not armed: {reason}")),
    }
    armed.ok().flatten()
}

fn arm_board(board: Board) -> Result<Armed, Unusable> {
    check_firmware(&board)?;
    let control = Register::at(board.control()).ok_or(Unusable::Place)?;
    let writes = board.arm(control.read()).ok_or(Unusable::Place)?;
    for (address, value) in writes {
        Register::at(Some(address)).ok_or(Unusable::Place)?.write(value);
    }
    Ok(Armed(board))
}

impl Drop for Armed {
    fn drop(&mut self) {
        let Some(control) = Register::at(self.0.control()) else { return };
        let write = self.0.disarm(control.read());
        if let Some((address, value)) = write
            && let Some(register) = Register::at(Some(address))
        {
            register.write(value);
        }
    }
}

/// The device tree that the firmware hands to the system it starts.
fn device_tree() -> Option<&'static [u8]> {
    let address = system::with_config_table(|tables| {
        tables.iter().find(|table| table.guid == DEVICE_TREE).map(|table| table.address)
    })?;
    let header = NonNull::new(address.cast_mut())?.cast::<[u8; 8]>();
    // SAFETY: the firmware says that a device tree is there, which has a header of 40 bytes; bytes
    // need no alignment.
    let [magic @ .., a, b, c, d] = unsafe { header.read() };
    let length = usize::try_from(u32::from_be_bytes([a, b, c, d])).ok()?;
    if magic != [0xD0, 0x0D, 0xFE, 0xED] || length > LONGEST_TREE {
        return None;
    }
    // SAFETY: as above, and as long as its header says. The firmware changes it only while an
    // image is started, by when it is no longer looked at.
    Some(unsafe { core::slice::from_raw_parts(header.cast::<u8>().as_ptr(), length) })
}

/// Offsets of the mailbox: from the firmware to us, its state, to the firmware, its state.
const READ: u64 = 0x00;
const READ_STATE: u64 = 0x18;
const WRITE: u64 = 0x20;
const WRITE_STATE: u64 = 0x38;
const EMPTY: u32 = 0x4000_0000;
const FULL: u32 = 0x8000_0000;
/// The lowest four bits of a letter: properties, from the processor to the firmware.
const CHANNEL: u32 = 8;
const CHANNEL_MASK: u32 = 0xF;

/// Asks the board's firmware which day it is of; an emulator is told by its answer.
fn check_firmware(board: &Board) -> Result<(), Unusable> {
    let register = |offset| Register::at(board.mailbox.checked_add(offset));
    let registers = [READ, READ_STATE, WRITE, WRITE_STATE].map(register);
    let [Some(read), Some(read_state), Some(write), Some(write_state)] = registers else {
        return Err(Unusable::NoAnswer);
    };
    let mut page = Page::new().ok_or(Unusable::NoAnswer)?;
    let length = u64::try_from(size_of::<[u32; MESSAGE_WORDS]>()).unwrap_or(u64::MAX);
    let letter = board.shared.to_bus(page.address(), length);
    let letter = letter.and_then(|address| u32::try_from(address).ok());
    let letter = letter.ok_or(Unusable::NoAnswer)? | CHANNEL;
    page.write(Message::QUESTION);
    poll(|| (write_state.read() & FULL == 0).then_some(()))?;
    write.write(letter);
    poll(|| {
        // A letter of someone else before ours is read and dropped.
        let arrived = read_state.read() & EMPTY == 0;
        (arrived && read.read() | CHANNEL_MASK == letter | CHANNEL_MASK).then_some(())
    })?;
    let answer = page.read();
    page.free();
    Message::check(&answer)
}

fn poll<T>(mut step: impl FnMut() -> Option<T>) -> Result<T, Unusable> {
    for _ in 0..MOST_POLLS {
        if let Some(value) = step() {
            return Ok(value);
        }
        boot::stall(Duration::from_millis(1));
    }
    Err(Unusable::NoAnswer)
}

/// A 32-bit register.
struct Register(NonNull<u32>);

impl Register {
    fn at(address: Option<u64>) -> Option<Self> {
        let address = usize::try_from(address?).ok().filter(|at| at.is_multiple_of(4))?;
        NonNull::new(core::ptr::with_exposed_provenance_mut(address)).map(Self)
    }

    fn read(&self) -> u32 {
        // SAFETY: the device tree of this machine says that a device has its registers there; the
        // firmware maps them for its own drivers.
        unsafe { self.0.read_volatile() }
    }

    fn write(&self, value: u32) {
        barrier();
        // SAFETY: as for reading; no memory of this program is there.
        unsafe { self.0.write_volatile(value) }
        barrier();
    }
}

/// A page that the board's firmware can read and write, and nothing else lies in. One whose letter
/// is never answered is never freed: the answer may still come.
struct Page(NonNull<[u32; MESSAGE_WORDS]>);

impl Page {
    fn new() -> Option<Self> {
        let place = AllocateType::MaxAddress(LAST_SHARED_BYTE);
        let page = boot::allocate_pages(place, MemoryType::LOADER_DATA, 1).ok()?;
        Some(Self(page.cast()))
    }

    fn address(&self) -> u64 {
        u64::try_from(self.0.as_ptr().expose_provenance()).unwrap_or(u64::MAX)
    }

    fn write(&mut self, words: [u32; MESSAGE_WORDS]) {
        // SAFETY: the page is ours, and aligned.
        unsafe { self.0.write_volatile(words) }
        self.push_out();
    }

    fn read(&self) -> [u32; MESSAGE_WORDS] {
        self.push_out();
        // SAFETY: the page is ours, and aligned; every pattern of bits is a word.
        unsafe { self.0.read_volatile() }
    }

    fn free(self) {
        // SAFETY: allocated by `new`, one page, and used by nobody any more. What cannot be freed
        // is left behind.
        let _ = unsafe { boot::free_pages(self.0.cast(), 1) };
    }

    /// The firmware does not see the processor's caches: what is in them goes to memory, and what
    /// is read next comes from there.
    fn push_out(&self) {
        const LINE_BYTES: usize = 64;
        const { assert!(size_of::<[u32; MESSAGE_WORDS]>() <= LINE_BYTES) };
        barrier();
        #[cfg(target_arch = "aarch64")]
        // SAFETY: cleans and invalidates the one line that holds the words; changes no memory.
        unsafe {
            core::arch::asm!("dc civac, {}", in(reg) self.0.as_ptr(), options(nostack));
        }
        barrier();
    }
}

/// Everything before is done before anything after.
fn barrier() {
    #[cfg(target_arch = "aarch64")]
    // SAFETY: orders accesses, and does nothing else.
    unsafe {
        core::arch::asm!("dsb sy", options(nostack, preserves_flags));
    }
}
