//! Carries out the steps of a plan.

use std::ffi::CString;
use std::fs::{self, DirBuilder, Permissions};
use std::io::ErrorKind;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt, chown, symlink};
use std::path::Path;

use ondisk::system::Owner;
use rustix::fs::{IFlags, Mode, OFlags, ioctl_getflags, ioctl_setflags};
use rustix::io::Errno;
use rustix::mount::{MountPropagationFlags, mount, mount_bind, mount_change};

use crate::failure::{Context, Result};
use crate::log::{note, say};
use crate::netlink;
use crate::plan::{Mount, Step};

/// Carries out a plan; a step that fails is named on the console, and the next one follows.
///
/// What is done with the data partition is the caller's. Gives the sysctl steps whose setting does
/// not exist yet.
pub(crate) fn perform(
    plan: Vec<Step>,
    data: &mut dyn FnMut(Option<&str>) -> Result<()>,
) -> Vec<Step> {
    let mut later = Vec::new();
    for step in plan {
        note(&format!("plan: {step}"));
        match perform_step(&step, data) {
            Err(_) if is_missing_setting(&step) => later.push(step),
            Err(failure) => say(&format!("{step}: {failure}")),
            Ok(()) => {}
        }
    }
    later
}

fn is_missing_setting(step: &Step) -> bool {
    matches!(step, Step::Sysctl { path, .. } if !Path::new(path).exists())
}

/// Carries out one step.
pub(crate) fn perform_step(
    step: &Step,
    data: &mut dyn FnMut(Option<&str>) -> Result<()>,
) -> Result<()> {
    match step {
        Step::Mount(mount) => do_mount(mount),
        Step::Share(path) => {
            let shared = MountPropagationFlags::SHARED | MountPropagationFlags::REC;
            mount_change(*path, shared).context("share")
        }
        Step::Directory { path, mode, owner } => make_directory(path, *mode, *owner),
        Step::Journal(path) => journal_contents(path),
        Step::Link { path, target } => symlink(target, path).context("symlink"),
        Step::Controllers(group) => enable_controllers(group),
        Step::Sysctl { path, value } => fs::write(path, value).context("write"),
        Step::Hostname(name) => rustix::system::sethostname(name.as_bytes()).context("sethostname"),
        Step::Loopback => netlink::loopback_up(),
        Step::Data(device) => data(device.as_deref()),
        Step::Bind { source, target } => {
            mount_bind(source.as_str(), target.as_str()).context("bind mount")
        }
    }
}

/// Mounts a file system of the kernel or of memory.
pub(crate) fn do_mount(step: &Mount) -> Result<()> {
    let Mount { kind, path, flags, options } = step;
    // The mount point may be in a read-only root: then it is there, or mounting says what is wrong.
    let _ = fs::create_dir(path);
    let options = CString::new(options.as_str()).context("options")?;
    mount(*kind, path.as_str(), *kind, *flags, options.as_c_str()).context("mount")
}

fn make_directory(path: &str, mode: u32, owner: Owner) -> Result<()> {
    let made = DirBuilder::new().recursive(true).mode(0o755).create(path);
    match made {
        Err(error) if error.kind() != ErrorKind::AlreadyExists => {
            return Err(error).context("mkdir");
        }
        _ => {}
    }
    if path.starts_with("/sys/") {
        return Ok(()); // a control group: the kernel decides who may do what
    }
    fs::set_permissions(path, Permissions::from_mode(mode)).context("chmod")?;
    chown(path, Some(owner.user), Some(owner.group)).context("chown")
}

/// Files and directories that are made in a directory get this from it (`EXT4_FL_INHERITED` in
/// fs/ext4/ext4.h).
fn journal_contents(path: &str) -> Result<()> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let directory = rustix::fs::open(path, flags, Mode::empty()).context("open")?;
    let change = || {
        let flags = ioctl_getflags(&directory)?;
        if flags.contains(IFlags::JOURNALING) {
            return Ok(());
        }
        ioctl_setflags(&directory, flags | IFlags::JOURNALING)
    };
    match change() {
        // Memory has no journal.
        Err(Errno::NOTTY | Errno::OPNOTSUPP | Errno::INVAL) => Ok(()),
        done => done.context("set its flags"),
    }
}

/// Controllers are inherited by groups below only where each level above passes them on.
fn enable_controllers(group: &str) -> Result<()> {
    let available = fs::read_to_string(format!("{group}/cgroup.controllers")).context("read")?;
    for name in available.split_whitespace() {
        // One by one: a single controller that cannot be passed on would refuse them all.
        if let Err(error) = fs::write(format!("{group}/cgroup.subtree_control"), format!("+{name}"))
        {
            note(&format!("controller {name} of {group}: {error}"));
        }
    }
    Ok(())
}
