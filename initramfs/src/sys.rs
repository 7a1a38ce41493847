//! The only file of PID 1 with unsafe code: the calls to the kernel that no safe wrapper offers.

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command};
use std::ptr;

use ondisk::system::Owner;
use rustix::io::Errno;
use rustix::ioctl::{Ioctl, IoctlOutput, Opcode, opcode};
use rustix::process::{Gid, Uid};

use crate::device_mapper::{HEADER_BYTES, Request};

/// Blocks these signals in this process and gives the file that delivers them.
///
/// rustix has no signalfd; the alternative, a handler that writes to a pipe, is more unsafe code.
pub(crate) fn signals(numbers: &[i32]) -> io::Result<OwnedFd> {
    let set = signal_set(numbers);
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

fn signal_set(numbers: &[i32]) -> libc::sigset_t {
    let mut set = MaybeUninit::uninit();
    // SAFETY: sigemptyset initializes the whole set, sigaddset then works on that initialized set
    // and refuses numbers that are no signals.
    unsafe {
        libc::sigemptyset(set.as_mut_ptr());
        for number in numbers {
            libc::sigaddset(set.as_mut_ptr(), *number);
        }
        set.assume_init()
    }
}

/// What a child does to itself between fork and exec.
pub(crate) struct ChildSetup<'a> {
    /// Open `cgroup.procs` of the group it belongs to.
    pub(crate) group: Option<BorrowedFd<'a>>,
    /// Value for its `oom_score_adj`.
    pub(crate) oom_score_adjust: String,
    /// Whom it runs as.
    pub(crate) user: Owner,
}

/// Starts a program in its own session and with all signals unblocked.
pub(crate) fn spawn(mut command: Command, setup: &ChildSetup<'_>) -> io::Result<Child> {
    let group = setup.group.map(|fd| fd.try_clone_to_owned()).transpose()?;
    let score = setup.oom_score_adjust.clone();
    let Owner { user, group: group_id } = setup.user;
    let unblocked = signal_set(&[]);
    let in_child = move || {
        if let Some(group) = &group {
            rustix::io::write(group, b"0")?; // 0 is the writer itself
        }
        write_oom_score(&score)?;
        rustix::process::setsid()?;
        rustix::thread::set_thread_groups(&[])?;
        rustix::thread::set_thread_gid(Gid::from_raw(group_id))?;
        rustix::thread::set_thread_uid(Uid::from_raw(user))?;
        // SAFETY: `unblocked` is an initialized signal set; no previous set is asked for.
        unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, &unblocked, ptr::null_mut()) };
        Ok(())
    };
    // SAFETY: the closure runs in a forked child of a process with threads. It only makes system
    // calls on values made before the fork; it allocates nothing and takes no lock.
    unsafe { command.pre_exec(in_child) };
    command.spawn()
}

fn write_oom_score(score: &str) -> io::Result<()> {
    use rustix::fs::{Mode, OFlags};
    let path = c"/proc/self/oom_score_adj";
    let file = rustix::fs::open(path, OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty())?;
    rustix::io::write(&file, score.as_bytes())?;
    Ok(())
}

/// Takes a descriptor that the program before this one, in the same process, left open for it.
pub(crate) fn inherited(number: RawFd) -> Option<OwnedFd> {
    // SAFETY: the flags are only read; a number that is not open is an error.
    let flags = unsafe { libc::fcntl(number, libc::F_GETFD) };
    // What this program opened itself closes on exec, and standard streams are not handed over.
    if number <= 2 || flags != 0 {
        return None;
    }
    // SAFETY: it is open, was not opened by this program, and is asked for once, at its start.
    Some(unsafe { OwnedFd::from_raw_fd(number) })
}

/// Sends a signal to every process but this one.
pub(crate) fn signal_all(signal: i32) {
    // SAFETY: kill takes no pointers. -1 spares PID 1 itself.
    unsafe { libc::kill(-1, signal) };
}

/// Hands a request to device-mapper.
pub(crate) fn device_mapper(control: impl AsFd, request: Request) -> Result<(), Errno> {
    if request.bytes.len() < HEADER_BYTES {
        return Err(Errno::INVAL);
    }
    // SAFETY: the command numbers are device-mapper's and this file is its control device by the
    // caller's word; on any other the numbers are unknown and refused. `DeviceMapper` says why the
    // kernel stays inside the bytes.
    unsafe { rustix::ioctl::ioctl(control, DeviceMapper(request)) }
}

struct DeviceMapper(Request);

// SAFETY: the kernel reads and writes at most the number of bytes that the header names at offset
// 12, and `device_mapper::request` puts the length of the whole buffer there; `bytes` has at least
// a header and lives as long as the call.
unsafe impl Ioctl for DeviceMapper {
    type Output = ();
    const IS_MUTATING: bool = true;

    fn opcode(&self) -> Opcode {
        opcode::read_write::<[u8; HEADER_BYTES]>(0xfd, self.0.command as u8)
    }

    fn as_ptr(&mut self) -> *mut core::ffi::c_void {
        self.0.bytes.as_mut_ptr().cast()
    }

    unsafe fn output_from_ptr(_: IoctlOutput, _: *mut core::ffi::c_void) -> Result<(), Errno> {
        Ok(())
    }
}
