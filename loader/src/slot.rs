//! One slot: its manifest and parts, read and checked, each byte once.
use alloc::vec::Vec;
use core::fmt;

use ondisk::boot_record::Reason;
use ondisk::device::ReadAt;
use ondisk::envelope::Signers;
use ondisk::layout::{self, Extent};
use ondisk::manifest::{self, Manifest, PartName, Unverified};
use ondisk::spans;
use ondisk::trust_root::TrustRoot;
use ondisk::verify::{Check, Mismatch, PartError, read_part};

use crate::kernel;

/// Bytes per read: large enough for the transfer to cost more than the request, small enough to
/// be hashed while it is still in the processor's cache.
const PIECE_BYTES: usize = 1024 * 1024;

/// Reads the manifest of the slot at `slot`; with the keys that signed it.
pub(crate) fn read_manifest<D: ReadAt>(
    disk: &D,
    slot: Extent,
    trust: &TrustRoot,
) -> Result<(Manifest, Signers), Refused<D::Error>> {
    let area = layout::manifest_area(slot.length).and_then(|area| slot.slice(area));
    let area = area.ok_or(manifest::Error::SlotTooSmall(slot.length)).map_err(Refused::Manifest)?;
    let mut bytes = buffer(area.length)?;
    disk.read_at(area.offset, &mut bytes).map_err(Refused::ManifestRead)?;
    let manifest = Unverified::parse(&bytes).and_then(|found| found.verify(trust, slot.length));
    manifest.map_err(Refused::Manifest)
}

/// Reads a part and checks it against the manifest.
pub(crate) fn load_part<D: ReadAt>(
    disk: &D,
    slot: Extent,
    manifest: &Manifest,
    name: PartName,
) -> Result<Vec<u8>, Refused<D::Error>> {
    let part = manifest.part(name);
    let mut bytes = buffer(part.extent.length)?;
    let read = read_part(disk, slot, part, &mut bytes, PIECE_BYTES);
    read.map_err(|error| Refused::Part { name, error })?;
    Ok(bytes)
}

/// Unpacks the kernel into memory of the size the manifest lists. The packed bytes have been
/// checked before, so a decoder never sees bytes nobody signed.
pub(crate) fn unpack_kernel<E>(packed: &[u8], manifest: &Manifest) -> Result<Vec<u8>, Refused<E>> {
    let unpacked = &manifest.kernel_unpacked;
    let mut kernel = buffer(unpacked.length)?;
    let length = kernel::unpack(packed, &mut kernel).ok_or(Refused::Packed(PartName::Kernel))?;
    let mut check = Check::unpacked(unpacked);
    check.update(kernel.get(..length).unwrap_or_default());
    check.finish().map_err(Refused::Unpacked)?;
    Ok(kernel)
}

/// Unpacks the initrd, which is verified like the kernel: of spans here, of anything else by Linux.
pub(crate) fn unpack_initrd<E>(packed: Vec<u8>) -> Result<Vec<u8>, Refused<E>> {
    if !spans::is_packed(&packed) {
        return Ok(packed);
    }
    let refused = || Refused::Packed(PartName::Initrd);
    let length = spans::content_bytes(&packed).and_then(|length| u64::try_from(length).ok());
    let mut initrd = buffer(length.ok_or_else(refused)?)?;
    kernel::unpack(&packed, &mut initrd).ok_or_else(refused)?;
    Ok(initrd)
}

/// Memory that may be refused: a slot too large for the machine is no reason to crash.
fn buffer<E>(length: u64) -> Result<Vec<u8>, Refused<E>> {
    let mut bytes = Vec::new();
    let size = usize::try_from(length).map_err(|_| Refused::Memory(length))?;
    bytes.try_reserve_exact(size).map_err(|_| Refused::Memory(length))?;
    bytes.resize(size, 0);
    Ok(bytes)
}

/// Why a slot is not started.
#[derive(Debug)]
pub(crate) enum Refused<E> {
    /// There is no such partition, or two.
    Partition(ondisk::partition_table::FindError),
    /// The manifest could not be read.
    ManifestRead(E),
    /// The manifest is wrong.
    Manifest(manifest::Error),
    /// A part is wrong or could not be read.
    Part {
        /// Which part.
        name: PartName,
        /// What happened.
        error: PartError<E>,
    },
    /// What was signed cannot be unpacked, a kernel into its size.
    Packed(PartName),
    /// The kernel unpacks to something else.
    Unpacked(Mismatch),
    /// The machine has no room for this many bytes.
    Memory(u64),
    /// Its rollback index is below the floor of the record.
    BelowFloor {
        /// Rollback index of the manifest.
        index: u64,
        /// Lowest one that may be started.
        floor: u64,
    },
    /// The firmware did not take the kernel, or the kernel came back.
    Start(&'static str),
}

impl<E> Refused<E> {
    /// What to remember about the slot. Nothing, if the trouble is the machine's: a card that
    /// fails to answer once must not cost a good slot its standing.
    pub(crate) fn reason(&self) -> Option<Reason> {
        match self {
            Self::Partition(_) | Self::ManifestRead(_) | Self::Memory(_) => None,
            // Nothing is wrong with the slot: it is what safe mode falls back to.
            Self::BelowFloor { .. } => None,
            Self::Part { error: PartError::Device(_), .. } => None,
            Self::Manifest(_) => Some(Reason::MANIFEST),
            Self::Part { name: PartName::Initrd, .. } => Some(Reason::INITRD),
            Self::Part { .. } => Some(Reason::KERNEL),
            // The bytes are the ones that were signed, and are no kernel.
            Self::Packed(_) | Self::Unpacked(_) | Self::Start(_) => Some(Reason::START),
        }
    }
}

impl<E: fmt::Display> fmt::Display for Refused<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Partition(error) => fmt::Display::fmt(error, f),
            Self::ManifestRead(error) => write!(f, "manifest: cannot read: {error}"),
            Self::Manifest(error) => write!(f, "manifest: {error}"),
            Self::Part { name, error } => write!(f, "{name}: {error}"),
            Self::Packed(name) => write!(f, "{name}: cannot unpack"),
            Self::Unpacked(error) => write!(f, "kernel, unpacked: {error}"),
            Self::Memory(length) => write!(f, "no memory for {length} bytes"),
            Self::BelowFloor { index, floor } => {
                write!(f, "rollback index {index} is below the floor {floor}")
            }
            Self::Start(what) => write!(f, "kernel: {what}"),
        }
    }
}
