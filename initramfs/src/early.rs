//! The early stage: from the initramfs to the verified root.
//!
//! Kernel file systems, modules, own disk, dm-verity, mount, switch. There is one way through and
//! no choice in it: every failure is printed and the machine restarts after a pause, for the
//! loader knows another slot and nobody is there to type into a shell.

use std::fs;
use std::os::linux::fs::MetadataExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use ondisk::boot_args::{BootArgs, Verity};
use rustix::mount::{MountFlags, mount, mount_move};

use crate::disk::{self, OwnDisk};
use crate::failure::{Context, Failure, Result};
use crate::log::{self, say};
use crate::module_loader::insert;
use crate::trial::Trial;
use crate::watchdog::Watchdog;
use crate::{device_mapper, linux, netlink, plan, power, sys};

/// The late stage's program in the root.
const LATE: &str = "/usr/lib/iota/init";
/// What hands the data partition's device to the late stage.
pub(crate) const DATA_ARGUMENT: &str = "data=";
/// What tells the late stage where the record is.
pub(crate) const RECORD_ARGUMENT: &str = "record=";
/// What tells the late stage which descriptor the open watchdog is.
pub(crate) const WATCHDOG_ARGUMENT: &str = "watchdog=";

const MODULES: &str = "/lib/modules";
const ROOT: &str = "/sysroot";
/// Name of the verified device.
const ROOT_NAME: &str = "root";

/// Pause before a restart: long enough to read the line, as the kernel's own `panic=5`.
const PAUSE: Duration = Duration::from_secs(5);

/// Runs the early stage; comes back from it only to restart.
pub(crate) fn run() -> ! {
    let mut trial = None;
    let failure = match start(&mut trial) {
        Ok(never) => match never {},
        Err(failure) => failure,
    };
    say(&format!("cannot start: {failure}"));
    if let Some(trial) = &mut trial {
        trial.failed(&failure.to_string());
    }
    say(&format!("restarting in {} seconds", PAUSE.as_secs()));
    std::thread::sleep(PAUSE);
    power::restart_now()
}

enum Never {}

/// `trial` is set as soon as it is known whether this start is one, and where that can be noted.
fn start(trial: &mut Option<Trial>) -> Result<Never> {
    for mount in &plan::kernel_mounts() {
        linux::do_mount(mount).context(&mount.path)?;
    }
    log::open_console();
    let args = boot_args()?;
    say(&format!("early stage of {} in slot {}", args.version, args.slot));
    let events = netlink::open_events()?;
    let count = load_modules(&|| disk::is_there(args.disk))?;
    say(&format!("{count} modules loaded"));
    // As early as there is one: from here on a hang ends in a restart.
    let watchdog = Watchdog::open(log::now_ms());
    let disk = disk::wait_for(args.disk, args.slot, &events)?;
    drop(events);
    *trial = Trial::of(&args, disk.record.clone(), None, log::now_ms());
    let root = open_verity(&disk.slot, &args.verity)?;
    mount_root(&root)?;
    say("root mounted");
    switch_root(&disk, watchdog)
}

fn boot_args() -> Result<BootArgs> {
    let line = fs::read_to_string("/proc/cmdline").context("/proc/cmdline")?;
    BootArgs::parse(&line).context("kernel command line")
}

/// Loads the modules of the initramfs in the order of its list, those behind its empty line only
/// until the disk is there: what has none of those devices spares itself a second. One that does
/// not load is named and passed over: what matters is whether the disk appears.
fn load_modules(disk_is_there: &dyn Fn() -> bool) -> Result<usize> {
    let order = fs::read_to_string(Path::new(MODULES).join("order")).context("module list")?;
    let (always, until_disk) = order.split_once("\n\n").unwrap_or((&order, ""));
    let load = |name: &&str| match insert(&Path::new(MODULES).join(name)) {
        Ok(()) => true,
        Err(failure) => {
            say(&failure.to_string());
            false
        }
    };
    let always = always.lines().filter(load).count();
    let later = until_disk.lines().take_while(|_| !disk_is_there()).filter(load).count();
    Ok(always.saturating_add(later))
}

fn open_verity(slot: &Path, verity: &Verity) -> Result<PathBuf> {
    let control = "/dev/mapper/control";
    let file = fs::OpenOptions::new().read(true).write(true).open(control).context(control)?;
    let requests = device_mapper::open_verity(ROOT_NAME, slot, verity)
        .ok_or_else(|| Failure::new("the root is too large for device-mapper"))?;
    for request in requests {
        let command = request.command;
        sys::device_mapper(&file, request)
            .context(format!("verity on {}: {command:?}", slot.display()))?;
    }
    mapped_node()
}

/// The device that device-mapper made; nothing else made one before. The kernel makes the node
/// itself, a moment after the request is done.
fn mapped_node() -> Result<PathBuf> {
    let start = Instant::now();
    loop {
        for number in 0..4 {
            let name = fs::read_to_string(format!("/sys/block/dm-{number}/dm/name"));
            let node = PathBuf::from(format!("/dev/dm-{number}"));
            if name.is_ok_and(|name| name.trim() == ROOT_NAME) && node.exists() {
                return Ok(node);
            }
        }
        if start.elapsed() > PAUSE {
            return Err(Failure::new("the verified device does not appear"));
        }
        std::thread::sleep(Duration::from_millis(2));
    }
}

fn mount_root(device: &Path) -> Result<()> {
    fs::create_dir_all(ROOT).context(ROOT)?;
    let flags = MountFlags::RDONLY | MountFlags::NODEV;
    mount(device, ROOT, "erofs", flags, None).context("mounting the root")
}

fn switch_root(disk: &OwnDisk, watchdog: Option<Watchdog>) -> Result<Never> {
    for mount in &plan::kernel_mounts() {
        let target = format!("{ROOT}{}", mount.path);
        mount_move(mount.path.as_str(), target.as_str()).context(target)?;
    }
    // The initramfs stays in memory for ever unless its files are deleted.
    if let Ok(device) = fs::metadata("/").map(|metadata| metadata.st_dev()) {
        delete_below(Path::new("/"), device);
    }
    rustix::process::chdir(ROOT).context(ROOT)?;
    mount_move(".", "/").context("moving the root")?;
    rustix::process::chroot(".").context("chroot")?;
    rustix::process::chdir("/").context("chdir")?;
    let mut late = Command::new(LATE);
    late.env_clear();
    if let Some(data) = &disk.data {
        late.arg(format!("{DATA_ARGUMENT}{}", data.display()));
    }
    if let Some(number) = watchdog.and_then(Watchdog::hand_over) {
        late.arg(format!("{WATCHDOG_ARGUMENT}{number}"));
    }
    if let Some(record) = &disk.record {
        late.arg(format!("{RECORD_ARGUMENT}{record}"));
    }
    log::drain();
    Err(late.exec()).context(LATE)
}

/// Deletes everything on this file system below a directory, and nothing that is mounted there.
fn delete_below(directory: &Path, device: u64) {
    let Ok(entries) = fs::read_dir(directory) else { return };
    for entry in entries.flatten() {
        let path = entry.path();
        // Not following links: one may point into the new root.
        let Ok(metadata) = fs::symlink_metadata(&path) else { continue };
        if metadata.st_dev() != device {
            continue;
        }
        // What cannot be deleted costs a little memory and nothing else.
        if metadata.is_dir() {
            delete_below(&path, device);
            let _ = fs::remove_dir(&path);
        } else {
            let _ = fs::remove_file(&path);
        }
    }
}
