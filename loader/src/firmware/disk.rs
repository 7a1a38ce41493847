//! The disk the loader was started from, as a device of bytes. No other disk is ever looked at.
use core::cell::RefCell;
use core::fmt;
use core::ptr::NonNull;

use ondisk::device::{ReadAt, WriteAt};
use uefi::boot::{self, AllocateType, OpenProtocolAttributes, OpenProtocolParams, ScopedProtocol};
use uefi::mem::memory_map::MemoryType;
use uefi::proto::ProtocolPointer;
use uefi::proto::device_path::DevicePath;
use uefi::proto::loaded_image::LoadedImage;
use uefi::proto::media::block::BlockIO;
use uefi::{Handle, Status};

const PAGE_BYTES: usize = 4096;
/// Size of the buffer between the firmware and us; a request of this size keeps a card busy.
const BUFFER_PAGES: usize = 256;

/// A whole disk.
pub(super) struct Disk {
    inner: RefCell<Inner>,
    block_bytes: u64,
    size: u64,
}

struct Inner {
    block_io: ScopedProtocol<BlockIO>,
    media_id: u32,
    /// Page aligned and used for every request: firmware differs in what alignment it needs
    /// (U-Boot 512, most none) and in how it tells.
    buffer: &'static mut [u8],
}

impl Disk {
    /// Opens the disk that has the partition from which this program was loaded.
    pub(super) fn own() -> Result<Self, Error> {
        let image = boot::open_protocol_exclusive::<LoadedImage>(boot::image_handle())?;
        let device = image.device().ok_or(Error::NoDevice)?;
        let own = open::<DevicePath>(device)?;
        let disks = boot::find_handles::<BlockIO>()?.into_iter().filter_map(|handle| {
            let path = open::<DevicePath>(handle).ok()?;
            let block_io = open::<BlockIO>(handle).ok()?;
            let whole = !block_io.media().is_logical_partition();
            (whole && is_prefix(&path, &own)).then(|| (path.as_bytes().len(), block_io))
        });
        // A controller that can be read itself also fits; the longest path is the disk.
        let (_, disk) = disks.max_by_key(|(length, _)| *length).ok_or(Error::NoDisk)?;
        Self::new(disk)
    }

    fn new(block_io: ScopedProtocol<BlockIO>) -> Result<Self, Error> {
        let media = block_io.media();
        let (media_id, block_bytes) = (media.media_id(), u64::from(media.block_size()));
        let blocks = media.last_block().checked_add(1);
        let size = blocks.and_then(|blocks| blocks.checked_mul(block_bytes));
        let size = size.ok_or(Error::Size)?;
        if !(512..=65536).contains(&block_bytes) || !block_bytes.is_power_of_two() {
            return Err(Error::Size);
        }
        let inner = RefCell::new(Inner { block_io, media_id, buffer: allocate_buffer()? });
        Ok(Self { inner, block_bytes, size })
    }

    /// Size of a logical block.
    pub(super) fn block_bytes(&self) -> u64 {
        self.block_bytes
    }

    /// The part of a request that goes through the buffer at once.
    fn window(&self, offset: u64, length: usize, capacity: usize) -> Result<Window, Error> {
        let first = offset.checked_div(self.block_bytes).ok_or(Error::Size)?;
        let start = offset.checked_rem(self.block_bytes).ok_or(Error::Size)?;
        let start = usize::try_from(start).map_err(|_| Error::Size)?;
        let length = length.min(capacity.saturating_sub(start));
        let end = start.checked_add(length).ok_or(Error::Size)?;
        let block = usize::try_from(self.block_bytes).map_err(|_| Error::Size)?;
        let whole = end.checked_next_multiple_of(block).ok_or(Error::Size)?;
        Ok(Window { first, start, end, whole })
    }

    fn check_bounds(&self, offset: u64, length: usize) -> Result<(), Error> {
        let length = u64::try_from(length).map_err(|_| Error::Beyond)?;
        match offset.checked_add(length) {
            Some(end) if end <= self.size => Ok(()),
            _ => Err(Error::Beyond),
        }
    }
}

/// Some bytes, and the blocks around them that are moved.
struct Window {
    /// The first block.
    first: u64,
    /// Where the bytes start and end in the blocks.
    start: usize,
    end: usize,
    /// Number of bytes of the blocks.
    whole: usize,
}

impl ReadAt for Disk {
    type Error = Error;

    fn size(&self) -> u64 {
        self.size
    }

    fn read_at(&self, mut offset: u64, mut target: &mut [u8]) -> Result<(), Error> {
        self.check_bounds(offset, target.len())?;
        let Inner { block_io, media_id, buffer } = &mut *self.inner.borrow_mut();
        while !target.is_empty() {
            let Window { first, start, end, whole } =
                self.window(offset, target.len(), buffer.len())?;
            let blocks = buffer.get_mut(..whole).ok_or(Error::Size)?;
            block_io.read_blocks(*media_id, first, blocks)?;
            let bytes = blocks.get(start..end).ok_or(Error::Size)?;
            let (now, later) = target.split_at_mut_checked(bytes.len()).ok_or(Error::Size)?;
            now.copy_from_slice(bytes);
            offset = offset.saturating_add(u64::try_from(bytes.len()).unwrap_or(u64::MAX));
            target = later;
        }
        Ok(())
    }
}

impl WriteAt for Disk {
    /// Writes less than a buffer, which is all the loader ever does; bytes around it in the same
    /// blocks are kept.
    fn write_at(&mut self, offset: u64, bytes: &[u8]) -> Result<(), Error> {
        self.check_bounds(offset, bytes.len())?;
        let Inner { block_io, media_id, buffer } = &mut *self.inner.borrow_mut();
        let Window { first, start, end, whole } = self.window(offset, bytes.len(), buffer.len())?;
        let blocks = buffer.get_mut(..whole).ok_or(Error::Size)?;
        if whole != bytes.len() {
            block_io.read_blocks(*media_id, first, blocks)?;
        }
        let target = blocks.get_mut(start..end).filter(|target| target.len() == bytes.len());
        target.ok_or(Error::Size)?.copy_from_slice(bytes);
        block_io.write_blocks(*media_id, first, blocks)?;
        Ok(())
    }

    fn flush(&mut self) -> Result<(), Error> {
        Ok(self.inner.borrow_mut().block_io.flush_blocks()?)
    }
}

/// Opens a protocol beside the firmware's own drivers. Exclusively would disconnect them, and
/// with them the file system we were loaded from.
fn open<P: ProtocolPointer + ?Sized>(handle: Handle) -> uefi::Result<ScopedProtocol<P>> {
    let params = OpenProtocolParams { handle, agent: boot::image_handle(), controller: None };
    // SAFETY: nothing runs beside us before the kernel starts, and the disk we came from is not
    // removed by the firmware while we run.
    unsafe { boot::open_protocol::<P>(params, OpenProtocolAttributes::GetProtocol) }
}

/// Whether `path` leads to a device that `own` goes through.
fn is_prefix(path: &DevicePath, own: &DevicePath) -> bool {
    let mut own = own.node_iter();
    path.node_iter().all(|node| own.next() == Some(node))
}

fn allocate_buffer() -> Result<&'static mut [u8], Error> {
    let pages = boot::allocate_pages(AllocateType::AnyPages, MemoryType::LOADER_DATA, BUFFER_PAGES);
    let start: NonNull<u8> = pages?;
    let length = BUFFER_PAGES.saturating_mul(PAGE_BYTES);
    // SAFETY: the firmware has just given us this memory for our own use, nobody else refers to
    // it, it is never freed, and it is filled before it is seen as bytes.
    unsafe {
        start.write_bytes(0, length);
        Ok(NonNull::slice_from_raw_parts(start, length).as_mut())
    }
}

/// Why the disk cannot be used.
#[derive(Debug)]
pub(super) enum Error {
    /// The loader was not loaded from a device.
    NoDevice,
    /// The device we were loaded from is on no disk.
    NoDisk,
    /// The disk's sizes make no sense.
    Size,
    /// A request goes beyond the end of the disk.
    Beyond,
    /// The firmware says no.
    Firmware(Status),
}

impl From<uefi::Error> for Error {
    fn from(error: uefi::Error) -> Self {
        Self::Firmware(error.status())
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoDevice => f.write_str("the loader was not loaded from a device"),
            Self::NoDisk => f.write_str("no disk has the partition the loader was loaded from"),
            Self::Size => f.write_str("the disk's sizes make no sense"),
            Self::Beyond => f.write_str("beyond the end of the disk"),
            Self::Firmware(status) => fmt::Display::fmt(status, f),
        }
    }
}
