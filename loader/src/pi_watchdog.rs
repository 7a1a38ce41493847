//! The watchdog of Raspberry Pis: where it is, what to write to it, and whom not to.
//!
//! Pure: a device tree's bytes and register values in, addresses and register values out. The
//! program's `firmware` reads and writes them. Nothing here is for other machines: a device tree
//! without the node of the Pi's power management has no such watchdog.
//!
//! ```text
//! /soc  ranges: bus 0x7e000000 → processor 0x3f000000 (Pi 3) or 0xfe000000 (Pi 4)
//!   ├─ brcm,bcm2835-pm…   0x7e100000  +0x1c RSTC, +0x24 WDOG
//!   └─ brcm,bcm2835-mbox  0x7e00b880  questions to the vendor's firmware
//! ```
//!
//! QEMU's boards have the node, but no timer behind it: they reset at once. They are told apart by
//! the date of the firmware, which the mailbox knows.
use core::fmt;

use dtoolkit::fdt::{Fdt, FdtNode};
use dtoolkit::{Node as _, Property as _};

/// Every write needs it, so that a program gone wild does not reset the machine.
const PASSWORD: u32 = 0x5A00_0000;
const PASSWORD_MASK: u32 = 0xFF00_0000;
/// The longest time there is: 20 bits of ticks of 1/65536 s.
const LONGEST_TICKS: u32 = 0x000F_FFFF;
/// What happens at the end of the time: two bits of RSTC, of which this value resets it all.
const WHAT_MASK: u32 = 0x0000_0030;
const FULL_RESET: u32 = 0x0000_0020;
/// Offsets of the registers of the power management.
const RSTC: u64 = 0x1C;
const WDOG: u64 = 0x24;

/// Seconds until an armed watchdog resets the machine, rounded up.
pub const SECONDS: u32 = 16;

/// A 2012 before which there was no Raspberry Pi, in seconds since 1970. QEMU 10 answers 346337,
/// the fifth day of 1970.
const FIRST_FIRMWARE: u32 = 1_325_376_000;

/// Where things are in a Raspberry Pi, as addresses of the processor.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Board {
    /// Registers of the power management.
    pub power: u64,
    /// Registers of the mailbox.
    pub mailbox: u64,
    /// The memory that the vendor's firmware reaches.
    pub shared: Window,
}

/// Memory with two addresses.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Window {
    /// Where it starts for the processor.
    pub processor: u64,
    /// Where it starts for a device.
    pub bus: u64,
    /// Its length in bytes.
    pub length: u64,
}

/// Why a Raspberry Pi's watchdog is not used.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Unusable {
    /// The bytes are no device tree.
    Tree,
    /// The device tree has a power management, but not where.
    Place,
    /// There is no mailbox to ask, or it does not answer.
    NoAnswer,
    /// The firmware is of a day before the first Raspberry Pi: an emulator, which would reset the
    /// machine at once.
    Emulated,
}

impl fmt::Display for Unusable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Tree => "the device tree cannot be read",
            Self::Place => "the device tree does not say where it is",
            Self::NoAnswer => "the board's firmware does not answer",
            Self::Emulated => "this board is emulated",
        })
    }
}

impl Window {
    fn to_processor(self, bus: u64) -> Option<u64> {
        let offset = bus.checked_sub(self.bus).filter(|offset| *offset < self.length)?;
        self.processor.checked_add(offset)
    }

    /// A device's address of some bytes in memory, if all of them are in the window.
    pub fn to_bus(self, processor: u64, length: u64) -> Option<u64> {
        let offset = processor.checked_sub(self.processor)?;
        offset.checked_add(length).filter(|end| *end <= self.length)?;
        self.bus.checked_add(offset)
    }
}

impl Board {
    /// Finds the registers in a device tree; none if it is not that of a Raspberry Pi.
    ///
    /// Errors: it is one, but cannot be used.
    pub fn find(tree: &[u8]) -> Result<Option<Self>, Unusable> {
        let tree = Fdt::new(tree).map_err(|_| Unusable::Tree)?;
        let root = tree.root();
        let Some((bus, power)) = find(root, "brcm,bcm2835-pm") else { return Ok(None) };
        let power = Bus::of(root, bus)
            .and_then(|cells| cells.address(bus, power))
            .ok_or(Unusable::Place)?;
        let (bus, mailbox) = find(root, "brcm,bcm2835-mbox").ok_or(Unusable::NoAnswer)?;
        let cells = Bus::of(root, bus).ok_or(Unusable::NoAnswer)?;
        let mailbox = cells.address(bus, mailbox).ok_or(Unusable::NoAnswer)?;
        let shared = cells.windows(bus, "dma-ranges").next().ok_or(Unusable::NoAnswer)?;
        Ok(Some(Self { power, mailbox, shared }))
    }

    /// Address of the register that says what happens; read it before [`Self::arm`].
    pub fn control(&self) -> Option<u64> {
        self.power.checked_add(RSTC)
    }

    /// What to write where, in this order, to have the machine reset after [`SECONDS`].
    /// `control` is the value of [`Self::control`], whose other bits are kept.
    pub fn arm(&self, control: u32) -> Option<[(u64, u32); 2]> {
        let timer = (self.power.checked_add(WDOG)?, PASSWORD | LONGEST_TICKS);
        let kept = control & !PASSWORD_MASK & !WHAT_MASK;
        Some([timer, (self.control()?, PASSWORD | kept | FULL_RESET)])
    }

    /// What to write where so that nothing happens after all.
    pub fn disarm(&self, control: u32) -> Option<(u64, u32)> {
        Some((self.control()?, PASSWORD | (control & !PASSWORD_MASK & !WHAT_MASK)))
    }
}

/// A node below a bus of the root with a `compatible` that starts so, and its bus.
fn find<'t>(root: FdtNode<'t>, compatible: &str) -> Option<(FdtNode<'t>, FdtNode<'t>)> {
    root.children().find_map(|bus| {
        let fits = |node: &FdtNode<'t>| {
            let list = node.property("compatible")?;
            Some(list.as_str_list().any(|one| one.starts_with(compatible)))
        };
        let node = bus.children().find(|node| fits(node) == Some(true))?;
        Some((bus, node))
    })
}

/// How many 32-bit cells the numbers of a bus have.
#[derive(Clone, Copy)]
struct Bus {
    parent_address: usize,
    address: usize,
    size: usize,
}

impl Bus {
    fn of(root: FdtNode<'_>, bus: FdtNode<'_>) -> Option<Self> {
        // Absent, there are two of an address and one of a size.
        let cells = |node: FdtNode<'_>, name, default| match node.property(name) {
            Some(property) => property.as_u32().ok().and_then(|count| usize::try_from(count).ok()),
            None => Some(default),
        };
        let parent_address = cells(root, "#address-cells", 2)?;
        let address = cells(bus, "#address-cells", 2)?;
        let size = cells(bus, "#size-cells", 1)?;
        let usual = 1..=2;
        let all_usual = [parent_address, address, size].iter().all(|count| usual.contains(count));
        all_usual.then_some(Self { parent_address, address, size })
    }

    /// Where the first registers of a node are for the processor.
    fn address(self, bus: FdtNode<'_>, node: FdtNode<'_>) -> Option<u64> {
        let (address, _) = number(node.property("reg")?.value(), self.address)?;
        self.windows(bus, "ranges").find_map(|window| window.to_processor(address))
    }

    /// The entries of `ranges` or `dma-ranges`: bus address, processor address, length.
    fn windows<'t>(self, bus: FdtNode<'t>, name: &str) -> impl Iterator<Item = Window> + use<'t> {
        let mut rest = bus.property(name).map_or(&[][..], |property| property.value());
        core::iter::from_fn(move || {
            let bus;
            let processor;
            let length;
            (bus, rest) = number(rest, self.address)?;
            (processor, rest) = number(rest, self.parent_address)?;
            (length, rest) = number(rest, self.size)?;
            Some(Window { processor, bus, length })
        })
    }
}

/// A big-endian number of one or two cells, and what follows it.
fn number(bytes: &[u8], cells: usize) -> Option<(u64, &[u8])> {
    let (number, rest) = bytes.split_at_checked(cells.checked_mul(4)?)?;
    Some((number.iter().fold(0, |value, byte| value << 8 | u64::from(*byte)), rest))
}

/// Words of a question to the vendor's firmware, in memory that both sides see.
pub const MESSAGE_WORDS: usize = 8;

/// The question which day the firmware is of, and its answer.
///
/// Follows the vendor's "Mailbox property interface": length, request, tag, room for the answer,
/// length of what is asked, the answer, no further tag, padding.
#[derive(Debug)]
pub struct Message;

impl Message {
    const LENGTH: u32 = 32;
    const FIRMWARE_REVISION: u32 = 1;
    const ANSWERED: u32 = 0x8000_0000;

    /// The words to write.
    pub const QUESTION: [u32; MESSAGE_WORDS] =
        [Self::LENGTH, 0, Self::FIRMWARE_REVISION, 4, 0, 0, 0, 0];

    /// Whether the words that stand there afterwards are of real firmware.
    pub fn check(words: &[u32; MESSAGE_WORDS]) -> Result<(), Unusable> {
        let answered = words[1] == Self::ANSWERED
            && words[2] == Self::FIRMWARE_REVISION
            && words[4] == Self::ANSWERED | 4;
        match words[5] {
            _ if !answered => Err(Unusable::NoAnswer),
            day if day < FIRST_FIRMWARE => Err(Unusable::Emulated),
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests;
