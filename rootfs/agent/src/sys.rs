//! The only file of the agent with unsafe code: a call to the kernel that no safe wrapper offers.

use std::ffi::{c_int, c_longlong, c_void};
use std::os::fd::AsFd;
use std::ptr;

use ondisk::layout::Extent;
use rustix::io::Errno;
use rustix::ioctl::{Setter, ioctl};

/// `BLKPG` and `BLKPG_RESIZE_PARTITION` (`include/uapi/linux/blkpg.h`).
const BLKPG: u32 = 0x1269;
const RESIZE_PARTITION: c_int = 3;

/// `struct blkpg_ioctl_arg`.
#[repr(C)]
struct Request {
    operation: c_int,
    flags: c_int,
    data_length: c_int,
    data: *mut c_void,
}

/// `struct blkpg_partition`; the names are not read.
#[repr(C)]
struct Partition {
    start: c_longlong,
    length: c_longlong,
    number: c_int,
    names: [u8; 128],
}

/// Tells the kernel how long a partition of an open disk is now; it may be mounted.
pub fn resize_partition(disk: impl AsFd, number: u32, extent: Extent) -> Result<(), Errno> {
    let signed = |bytes: u64| c_longlong::try_from(bytes).map_err(|_| Errno::OVERFLOW);
    let mut partition = Partition {
        start: signed(extent.offset)?,
        length: signed(extent.length)?,
        number: c_int::try_from(number).map_err(|_| Errno::OVERFLOW)?,
        names: [0; 128],
    };
    let request = Request {
        operation: RESIZE_PARTITION,
        flags: 0,
        // OK to convert: 152 bytes.
        data_length: c_int::try_from(size_of::<Partition>()).map_err(|_| Errno::OVERFLOW)?,
        data: ptr::from_mut(&mut partition).cast(),
    };
    // SAFETY: BLKPG reads a `struct blkpg_ioctl_arg`, which `Request` is laid out as, and the
    // `struct blkpg_partition` it points to, which lives until the call has returned.
    unsafe { ioctl(disk, Setter::<BLKPG, Request>::new(request)) }
}
