//! The only file of the agent with unsafe code: calls to the kernel that no safe wrapper offers.

use std::ffi::{CStr, c_int, c_longlong, c_short, c_void};
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, FromRawFd as _, OwnedFd, RawFd};
use std::ptr;

use ondisk::layout::Extent;
use rustix::io::Errno;
use rustix::ioctl::{Setter, ioctl};
use rustix::process::Signal;

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

/// `SIOCSIFVLAN` (`include/uapi/linux/sockios.h`) and what it is asked for (`vlan_ioctl_cmds`).
const SIOCSIFVLAN: u32 = 0x8983;
const ADD_VLAN: c_int = 0;
const REMOVE_VLAN: c_int = 1;

/// `struct vlan_ioctl_args` (`include/uapi/linux/if_vlan.h`): of its union the number alone.
#[repr(C)]
struct VlanRequest {
    operation: c_int,
    device: [u8; 24],
    id: c_int,
    rest_of_union: [u8; 20],
    quality: c_short,
}

/// Makes `DEVICE.ID`, an interface to a virtual network on the cable of a device.
pub fn add_vlan(socket: impl AsFd, device: &str, id: u16) -> Result<(), Errno> {
    vlan(socket, ADD_VLAN, device, id)
}

/// Removes such an interface, by its own name.
pub fn remove_vlan(socket: impl AsFd, name: &str) -> Result<(), Errno> {
    vlan(socket, REMOVE_VLAN, name, 0)
}

fn vlan(socket: impl AsFd, operation: c_int, name: &str, id: u16) -> Result<(), Errno> {
    let mut device = [0; 24];
    // One byte is left: the kernel reads to the first zero.
    let place = device.get_mut(..name.len()).filter(|place| place.len() < 24);
    place.ok_or(Errno::NAMETOOLONG)?.copy_from_slice(name.as_bytes());
    let (id, rest_of_union, quality) = (id.into(), [0; 20], 0);
    let request = VlanRequest { operation, device, id, rest_of_union, quality };
    // SAFETY: SIOCSIFVLAN reads a `struct vlan_ioctl_args`, which `VlanRequest` is laid out as.
    unsafe { ioctl(socket, Setter::<SIOCSIFVLAN, VlanRequest>::new(request)) }
}

/// Uses a device as swap space, before others (`swapon(2)`).
///
/// rustix has no swapon.
pub fn swap_on(device: &CStr) -> io::Result<()> {
    /// `SWAP_FLAG_PREFER` and a priority above those the kernel gives (`include/linux/swap.h`).
    const FLAGS: c_int = 0x8000 | 100;
    // SAFETY: `device` ends with a zero byte and lives until the call has returned.
    match unsafe { libc::swapon(device.as_ptr(), FLAGS) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// A descriptor that this process was started with, as whoever started it has promised. To be taken
/// over once.
pub fn inherited(number: RawFd) -> OwnedFd {
    // SAFETY: nobody else in this process knows the number; a descriptor that is not there fails
    // at its first use.
    unsafe { OwnedFd::from_raw_fd(number) }
}

/// Blocks these signals in this thread and gives the file that delivers them.
///
/// rustix has no signalfd; PID 1 does the same for the same reason.
pub fn signals(wanted: &[Signal]) -> io::Result<OwnedFd> {
    let mut set = MaybeUninit::uninit();
    // SAFETY: sigemptyset initializes the whole set, sigaddset then works on that initialized set
    // and refuses numbers that are no signals.
    let set = unsafe {
        libc::sigemptyset(set.as_mut_ptr());
        for signal in wanted {
            libc::sigaddset(set.as_mut_ptr(), signal.as_raw());
        }
        set.assume_init()
    };
    // SAFETY: `set` is an initialized signal set; no previous set is asked for.
    let result = unsafe { libc::pthread_sigmask(libc::SIG_BLOCK, &set, ptr::null_mut()) };
    if result != 0 {
        return Err(io::Error::from_raw_os_error(result));
    }
    // SAFETY: -1 asks for a new descriptor, `set` is an initialized signal set.
    let fd = unsafe { libc::signalfd(-1, &set, libc::SFD_CLOEXEC | libc::SFD_NONBLOCK) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel just made this descriptor for us and nobody else knows it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// The signals that have come, from the file of [`signals`].
pub fn take_signals(signals: &OwnedFd) -> Vec<Signal> {
    /// Bytes of `struct signalfd_siginfo`; the signal's number comes first.
    const SIGNAL_BYTES: usize = 128;
    let mut bytes = [0; SIGNAL_BYTES * 8];
    let length = rustix::io::read(signals, &mut bytes[..]).unwrap_or(0);
    let messages = bytes.get(..length).unwrap_or_default().chunks_exact(SIGNAL_BYTES);
    let numbers = messages.filter_map(|message| message.first_chunk());
    numbers.filter_map(|number| Signal::from_named_raw(i32::from_ne_bytes(*number))).collect()
}
