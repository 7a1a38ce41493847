//! The data partition at a start: the hands of [`ondisk::data_care`], which has the rules.

use std::ffi::CStr;
use std::fs::{self, File, OpenOptions};
use std::os::linux::fs::MetadataExt;
use std::os::unix::fs::FileExt;
use std::path::Path;

use ondisk::data_care::{self, Brief, Checked, IDENTITY, Mode, Outcome, Partition, Report, State};
use ondisk::device::{FileDevice, ReadAt};
use ondisk::ext4::{SUPERBLOCK_BYTES, SUPERBLOCK_OFFSET, Superblock};
use ondisk::reset::{self, Reset};
use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};

use crate::disk::RecordPlace;
use crate::failure::{Context, Failure, Result};
use crate::log::{now_ms, say};
use crate::module_loader::Loader;
use crate::plan::DATA_FILESYSTEM;
use crate::tool::{self, Patience};
use crate::watchdog::Watchdog;

/// Where the data partition is shown.
pub(crate) const DATA: &str = "/data";

/// Flags of the data partition: what is on it came from containers and the network.
const FLAGS: MountFlags = MountFlags::NOSUID.union(MountFlags::NODEV);

/// The kernel writes nothing more once it has met an error. One block in twenty is kept for the
/// host and the engine: ext4 would give them to every container's root as well, so they are a
/// user's of whom there is none, and of those who may use all (`CAP_SYS_RESOURCE`, which the engine
/// does not give to containers; `ext4_has_free_clusters` in fs/ext4/balloc.c). Blocks are allocated
/// when a file is written and not later, so that what was written first is on the disk first:
/// docs/decisions/delayed-allocation.md.
const OPTIONS: &CStr = c"errors=remount-ro,nodelalloc,resuid=4294967294";

const CHECK: &str = "/usr/sbin/e2fsck";
/// Makes what the builder makes: blocks of 4 KiB, a journal of 16 MiB, no inode for growing, which
/// the kernel does without and e2fsck does not mend in one round. Tables of inodes are left to the
/// kernel to write when it has time, and nothing is discarded: on a slow card both take minutes.
const MAKE: &str = "/usr/sbin/mke2fs -q -F -t ext4 -O ^resize_inode -b 4096 -J size=16 \
                    -e remount-ro -E nodiscard,lazy_itable_init=1 -L iota-data";
/// Making a file system takes seconds; removing files from a slow card may take minutes.
const RESET_LIMIT_MS: u64 = 300_000;

/// What a start has for the data partition.
pub(crate) struct Care<'a> {
    /// Where the file system's module is.
    pub(crate) modules: &'a Loader,
    /// Fed while programs run, if it is armed.
    pub(crate) watchdog: Option<&'a mut Watchdog>,
    /// Where a request for a reset is, if there is a record.
    pub(crate) record: Option<RecordPlace>,
}

impl Care<'_> {
    /// Puts the data partition on /data, or memory if there is none or it cannot be mounted; says
    /// so, and leaves a report for `iota status`.
    ///
    /// A machine whose data cannot be mounted still starts, reports and takes an update. Nothing is
    /// formatted unasked: what looks broken may be all the user has.
    pub(crate) fn bring_up(&mut self, device: Option<&str>) -> Result<()> {
        let outcome = device.map_or(State::Missing.into(), |device| self.partition(device));
        let mounted = outcome.state.is_mounted();
        told(&outcome).iter().for_each(|line| say(line));
        let report = Report { device: device.map(str::to_owned), outcome };
        if let Err(error) = fs::write(data_care::PATH, report.encode()) {
            say(&format!("{}: {error}", data_care::PATH));
        }
        if mounted {
            return Ok(());
        }
        let options = c"mode=0755,size=50%";
        mount("tmpfs", DATA, "tmpfs", FLAGS, options).context("memory for /data")
    }

    fn partition(&mut self, node: &str) -> Outcome {
        let bytes = match File::open(node).and_then(FileDevice::new) {
            Ok(device) => device.size(),
            Err(error) => return State::Quarantined { why: format!("{node}: {error}") }.into(),
        };
        let request = self.record.as_ref().and_then(request);
        if let Some(reset) = request {
            say(&format!("data is reset, as was asked for: {reset} goes; this may take minutes"));
        }
        let patience = Patience { watchdog: self.watchdog.as_deref_mut(), deadline_ms: u64::MAX };
        let record = self.record.as_ref();
        let limit_ms = data_care::check_limit_ms(bytes);
        let mut hands = Hands { node, bytes, modules: self.modules, record, patience, limit_ms };
        data_care::bring_up(&mut hands, request)
    }
}

/// The lines for the console.
fn told(outcome: &Outcome) -> Vec<String> {
    let mut lines = Vec::new();
    let memory = "/data is memory and will be lost";
    match &outcome.state {
        State::Missing => {
            lines.push(format!("data NOT mounted: this disk has no data partition; {memory}"));
        }
        State::Quarantined { why } => {
            lines.push(format!("data NOT mounted: {why}; {memory}"));
            lines.push("data is left as it is; `iota status` says what to do".to_owned());
        }
        State::Good => {}
        State::Repaired { why, said } => lines.push(format!("data repaired: {why}; {said}")),
        State::New { kept_identity: false } => lines.push("data is new".to_owned()),
        State::New { kept_identity: true } => {
            lines.push("data is empty but for the identity".to_owned());
        }
    }
    lines.extend(outcome.problem.iter().map(|problem| format!("data: ERROR: {problem}")));
    if outcome.state.is_mounted() {
        lines.push("data mounted".to_owned());
    }
    lines
}

fn open_record(place: &RecordPlace, write: bool) -> Result<FileDevice> {
    let file = OpenOptions::new().read(true).write(write).open(&place.disk);
    file.and_then(FileDevice::new).context(place.disk.display())
}

fn request(place: &RecordPlace) -> Option<Reset> {
    let device = open_record(place, false).inspect_err(|failure| say(&failure.to_string())).ok()?;
    reset::read(&device, place.extent)
}

struct Hands<'a> {
    node: &'a str,
    bytes: u64,
    modules: &'a Loader,
    record: Option<&'a RecordPlace>,
    patience: Patience<'a>,
    /// Time for all checks; the first one starts it.
    limit_ms: u64,
}

impl Hands<'_> {
    /// Runs a program until the deadline; gives its exit status and what it said in brief.
    fn run(&mut self, arguments: &[&str]) -> Result<Checked> {
        let mut brief = Brief::default();
        let status = tool::run(arguments, &mut self.patience, &mut |line| brief.add(line))?;
        Ok(Checked { status: status.code(), said: brief.text() })
    }

    fn read_superblock(&self) -> Result<Superblock> {
        let mut superblock = [0; SUPERBLOCK_BYTES];
        let file = File::open(self.node).context(self.node)?;
        file.read_exact_at(&mut superblock, SUPERBLOCK_OFFSET).context(self.node)?;
        Ok(superblock)
    }

    fn mount_it(&self) -> Result<()> {
        self.modules.load(DATA_FILESYSTEM);
        let flags = FLAGS.union(MountFlags::NOATIME);
        mount(self.node, DATA, DATA_FILESYSTEM, flags, OPTIONS).context(self.node)
    }

    fn make(&mut self) -> Result<()> {
        self.patience.deadline_ms = now_ms().saturating_add(RESET_LIMIT_MS);
        let arguments: Vec<&str> = MAKE.split(' ').chain([self.node]).collect();
        let Checked { status, said } = self.run(&arguments)?;
        self.patience.deadline_ms = u64::MAX;
        if status != Some(0) {
            return Err(Failure::new(format!("mke2fs ended with status {status:?}: {said}")));
        }
        // It flushes by itself; the request must not go before the last of it is there.
        let file = OpenOptions::new().write(true).open(self.node).context(self.node)?;
        file.sync_all().context(self.node)
    }

    fn empty(&mut self) -> Result<()> {
        self.patience.deadline_ms = now_ms().saturating_add(RESET_LIMIT_MS);
        let device = fs::metadata(DATA).context(DATA)?.st_dev();
        let removed = remove_below(Path::new(DATA), device, &IDENTITY, &mut self.patience);
        // What was removed stays removed, however far it came.
        let synced = File::open(DATA).and_then(|top| Ok(rustix::fs::syncfs(top)?)).context(DATA);
        removed.and(synced)
    }

    fn forget_request(&self) -> Result<()> {
        let Some(place) = self.record else { return Ok(()) };
        let mut device = open_record(place, true)?;
        reset::take_back(&mut device, place.extent).context(place.disk.display())
    }
}

/// Removes what is on this file system below a directory, but for the one that the names lead to.
fn remove_below(
    directory: &Path,
    device: u64,
    keep: &[&str],
    patience: &mut Patience<'_>,
) -> Result<()> {
    for entry in fs::read_dir(directory).context(directory.display())? {
        if !patience.look() {
            return Err(Failure::new("removing files took too long"));
        }
        let path = entry.context(directory.display())?.path();
        let on_the_way = keep.split_first().filter(|(name, _)| path.ends_with(name));
        // Not following links: one may point anywhere.
        let metadata = fs::symlink_metadata(&path).context(path.display())?;
        match (metadata.is_dir() && metadata.st_dev() == device, on_the_way) {
            (true, Some((_, []))) => {}
            (true, Some((_, rest))) => remove_below(&path, device, rest, patience)?,
            (true, None) => {
                remove_below(&path, device, &[], patience)?;
                fs::remove_dir(&path).context(path.display())?;
            }
            (false, _) => fs::remove_file(&path).context(path.display())?,
        }
    }
    Ok(())
}

fn text<T>(result: Result<T>) -> std::result::Result<T, String> {
    result.map_err(|failure| failure.to_string())
}

impl Partition for Hands<'_> {
    fn bytes(&self) -> u64 {
        self.bytes
    }

    fn superblock(&mut self) -> std::result::Result<Superblock, String> {
        text(self.read_superblock())
    }

    fn check(&mut self, mode: Mode) -> std::result::Result<Checked, String> {
        let deadline_ms = now_ms().saturating_add(self.limit_ms);
        self.patience.deadline_ms = self.patience.deadline_ms.min(deadline_ms);
        let [full, how] = mode.arguments();
        say(&format!(
            "data is checked: e2fsck {full} {how}, for {} s at most",
            self.limit_ms / 1000
        ));
        text(self.run(&[CHECK, full, how, self.node]))
    }

    fn mount(&mut self) -> std::result::Result<(), String> {
        text(self.mount_it())
    }

    fn unmount(&mut self) -> std::result::Result<(), String> {
        unmount(DATA, UnmountFlags::empty()).map_err(|error| error.to_string())
    }

    fn make_new(&mut self) -> std::result::Result<(), String> {
        text(self.make())
    }

    fn remove_all_but_identity(&mut self) -> std::result::Result<(), String> {
        text(self.empty())
    }

    fn take_back(&mut self) -> std::result::Result<(), String> {
        text(self.forget_request())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everything_but_the_identity_is_removed_and_links_are_not_followed() {
        let top = std::env::temp_dir().join(format!("iota-empty-{}", std::process::id()));
        let outside = top.with_extension("outside");
        for directory in ["iota/identity/ssh", "docker/overlay2/a", "identity", "iota/other"] {
            fs::create_dir_all(top.join(directory)).unwrap();
            fs::write(top.join(directory).join("file"), "x").unwrap();
        }
        fs::create_dir_all(&outside).unwrap();
        fs::write(outside.join("file"), "x").unwrap();
        std::os::unix::fs::symlink(&outside, top.join("docker/link")).unwrap();
        let device = fs::metadata(&top).unwrap().st_dev();
        let mut patience = Patience { watchdog: None, deadline_ms: u64::MAX };
        remove_below(&top, device, &IDENTITY, &mut patience).unwrap();
        let names = |path: &Path| -> Vec<_> {
            fs::read_dir(path).unwrap().map(|entry| entry.unwrap().file_name()).collect()
        };
        assert_eq!(names(&top), ["iota"]);
        assert_eq!(names(&top.join("iota")), ["identity"]);
        assert!(top.join("iota/identity/ssh/file").exists());
        assert!(outside.join("file").exists());
        remove_below(&top, device, &[], &mut patience).unwrap();
        assert!(names(&top).is_empty());
        fs::remove_dir_all(&top).unwrap();
        fs::remove_dir_all(&outside).unwrap();
    }

    #[test]
    fn the_console_says_loudly_what_is_not_mounted() {
        let lines = told(&State::Quarantined { why: "why".to_owned() }.into());
        assert_eq!(lines[0], "data NOT mounted: why; /data is memory and will be lost");
        assert_eq!(told(&State::Good.into()), ["data mounted"]);
        let outcome = Outcome { problem: Some("no".to_owned()), ..State::Good.into() };
        assert_eq!(told(&outcome), ["data: ERROR: no", "data mounted"]);
    }
}
