//! Updates in a virtual machine: tried, committed, refused, and taken back when they fail.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use builder::host::qemu::Options;
use qemu_tests::disk::Disk;
use qemu_tests::image::{self, variant, variant_of};
use qemu_tests::machine::Machine;
use qemu_tests::{slow_tests_wanted, stick};
use serde_json::Value;

const LONG: Duration = Duration::from_secs(400);

/// Seconds that everything has to run before a trial is committed, instead of a minute.
const WINDOW: &str = "window-s = 3";

/// Replaces a piece of a definition; a test that no longer does is worse than none.
pub(crate) fn edit(workspace: &Path, file: &str, from: &str, to: &str) {
    let path = workspace.join(file);
    let text = fs::read_to_string(&path).unwrap();
    assert!(text.contains(from), "{file} has no {from:?}");
    fs::write(path, text.replacen(from, to, 1)).unwrap();
}

pub(crate) fn short_window(workspace: &Path) {
    edit(workspace, "rootfs/host.toml", "window-s = 60", WINDOW);
}

/// A system that runs a script as root soon after its start; its window is the usual minute.
pub(crate) fn saboteur(name: &str, index: u32, script: &str) -> PathBuf {
    variant(name, index, |workspace| {
        let busybox = workspace.join("rootfs/overlay/usr/lib/iota/busybox");
        fs::create_dir_all(busybox.parent().unwrap()).unwrap();
        fs::write(&busybox, image::busybox()).unwrap();
        fs::set_permissions(&busybox, fs::Permissions::from_mode(0o755)).unwrap();
        let service = format!(
            "\n[[service]]\nname = \"saboteur\"\nreason = \"makes this system fail\"\n\
             command = [\"/usr/lib/iota/busybox\", \"sh\", \"-c\", '''{script}''']\n\
             environment = []\nready = \"started\"\nrestart = {{ when = \"never\" }}\n\
             stop-timeout-ms = 1000\nleftovers = \"keep\"\noutput = \"console\"\n\
             oom-score-adjust = 0\n"
        );
        let host = workspace.join("rootfs/host.toml");
        let text = fs::read_to_string(&host).unwrap();
        fs::write(host, text + &service).unwrap();
    })
}

pub(crate) fn bundle_of(outputs: &Path) -> PathBuf {
    outputs.join("update.bundle")
}

/// The same system for another board, signed by the same key.
fn twin() -> PathBuf {
    variant_of("aarch64-twin", "2.0-twin", 2, |workspace| {
        let boards = workspace.join("boards");
        fs::rename(boards.join(image::BOARD), boards.join("aarch64-twin")).unwrap();
        let name = |board: &str| format!("name = \"{board}\"");
        let file = "boards/aarch64-twin/board.toml";
        edit(workspace, file, &name(image::BOARD), &name("aarch64-twin"));
    })
}

/// Installs a bundle and restarts into it.
pub(crate) fn install(machine: &mut Machine, outputs: &Path) {
    let bundle = File::open(bundle_of(outputs)).unwrap();
    let (code, said) = machine.execute(&["update", "install", "-"], bundle);
    assert_eq!(code, 0, "{said}");
    machine.restart(LONG);
}

/// Installs a bundle that the device itself can reach, and restarts into it. The kernel kept the
/// memory below its limit: buffers, and what it holds of the files.
fn install_from(machine: &mut Machine, place: &str) {
    let (code, said) = machine.execute(&["update", "install", place, "--json"], io::empty());
    assert_eq!(code, 0, "{said}");
    let facts: Value = serde_json::from_str(said.lines().next().unwrap()).unwrap();
    let peak = facts["peak-memory-bytes"].as_u64().unwrap_or_else(|| panic!("{said}"));
    eprintln!("    peak of the control group: {:.1} MiB", peak as f64 / f64::from(1 << 20));
    assert!(peak <= 24 << 20, "{peak}");
    assert!(peak > 8 << 20, "{peak}: less than the decoder's window");
    machine.restart(LONG);
}

/// Waits until the system in a slot, on its n-th trial, has found itself fit.
pub(crate) fn is_committed(machine: &mut Machine, slot: &str, trial: u8) {
    machine.expect(&format!("slot {slot}: trial {trial}"), LONG);
    machine.expect("system ready", LONG);
    machine.expect(&format!("trial: slot {slot} is committed"), LONG);
}

/// An installation that is refused: the device says why, and its record stays as it was.
fn refused(machine: &mut Machine, bytes: &[u8], why: &str) {
    let before = machine.status()["slots"]["record"].clone();
    let (code, said) = machine.execute(&["update", "install", "-"], bytes);
    assert_eq!(code, 2, "{said}");
    assert!(said.contains(why), "not `{why}`, but: {said}");
    assert_eq!(machine.status()["slots"]["record"], before, "{why}");
}

#[test]
fn updates_go_from_slot_to_slot_and_bad_bundles_change_nothing() {
    if !slow_tests_wanted() {
        return;
    }
    let first = variant("1.0", 1, short_window);
    let second = variant("2.0", 2, short_window);
    let third = variant("3.0", 3, short_window);
    let disk = Disk::copy_of(&first.join("disk.img"), "slots");
    let stick = disk.path().with_extension("stick");
    let on_fat = [("README.TXT", first.join("report.txt")), ("update.bundle", bundle_of(&second))];
    stick::write(&stick, &on_fat, &[("older.bundle", bundle_of(&third))]);
    let options = Options { persist: true, stick: Some(stick), ..Options::new(disk.path()) };
    // Nothing that decides about a slot looks at the clock.
    let options = Options { clock: Some("2099-12-31T23:58:00"), ..options };
    let mut machine = Machine::boot("slots-a-b-a", &options);
    machine.expect("system ready", LONG);

    let good = fs::read(second.join("update.bundle")).unwrap();
    let middle = good.len() / 2;
    let mut flipped = good.clone();
    flipped[100] ^= 1;
    refused(&mut machine, &flipped, "sign");
    refused(&mut machine, b"not a bundle at all", "bundle");
    refused(&mut machine, &fs::read(bundle_of(&twin())).unwrap(), "the bundle is for aarch64-twin");
    let (code, said) = machine.execute(&["update", "cancel"], io::empty());
    assert_eq!(code, 1, "nothing to cancel: {said}");
    // Cut short, it has been written in part: the other slot is empty, the running one is not.
    let (code, said) = machine.execute(&["update", "install", "-"], &good[..middle]);
    assert_eq!(code, 2, "{said}");
    assert_eq!(machine.status()["slots"]["record"]["b"]["state"], "empty");

    let (code, said) = machine.execute(&["update", "install", "usb:none.bundle"], io::empty());
    assert_eq!(code, 2, "{said}");
    assert!(said.contains("sda1 has none; sda2 has none"), "{said}");

    // The newest bundle of the first volume that has one: the FAT.
    install_from(&mut machine, "usb:");
    is_committed(&mut machine, "B", 1);
    let now = machine.status();
    assert_eq!(now["slots"]["running"], "b");
    assert_eq!(now["boot"]["version"], "2.0");
    assert_eq!(now["slots"]["record"]["b"]["state"], "proven");

    // Only the ext4 volume has a file of this name.
    install_from(&mut machine, "usb:older.bundle");
    is_committed(&mut machine, "A", 1);
    let now = machine.status();
    assert_eq!((&now["boot"]["version"], &now["slots"]["running"]), (&"3.0".into(), &"a".into()));
    // Slot B still holds 2.0, so that far back is allowed, and no further.
    refused(&mut machine, &fs::read(first.join("update.bundle")).unwrap(), "rollback index 1");

    let (code, said) = machine.execute(&["rollback"], io::empty());
    assert_eq!(code, 0, "{said}");
    machine.restart(LONG);
    machine.expect("slot B: proven", LONG);
    machine.expect("system ready", LONG);
    assert_eq!(machine.status()["boot"]["version"], "2.0");
    machine.power_off(LONG);
}

/// Installs a system that fails, sees it tried three times and the old one come back, and returns
/// what the device says about it.
fn fails_three_times(machine: &mut Machine, outputs: &Path) -> Value {
    let bundle = File::open(bundle_of(outputs)).unwrap();
    let (code, said) = machine.execute(&["update", "install", "-"], bundle);
    assert_eq!(code, 0, "{said}");
    machine.execute(&["reboot"], io::empty());
    for trial in 1..=3 {
        machine.expect(&format!("slot B: trial {trial}"), LONG);
    }
    machine.expect("slot A: proven", LONG);
    machine.expect("system ready", LONG);
    machine.status()
}

/// Its last words have outlived the restart in variables of the firmware.
fn says_why_the_kernel_crashed(machine: &mut Machine, status: &Value) {
    let cause = "Kernel panic - not syncing: sysrq triggered crash";
    assert_eq!(status["crash"]["cause"], cause, "{status}");
    let line = format!("the kernel crashed before this start: {cause}");
    assert!(machine.console.log().contains(&line), "no {line:?}");
    let (code, text) = machine.execute(&["logs", "crashes"], io::empty());
    assert_eq!(code, 0, "{text}");
    assert!(text.starts_with("== found 20") && text.contains("sysrq: Trigger a crash"), "{text}");
}

#[test]
fn a_system_that_panics_hangs_loses_its_init_or_has_no_engine_is_taken_back() {
    if !slow_tests_wanted() {
        return;
    }
    let first = variant("1.0", 1, short_window);
    // Not before the firmware can keep what the kernel says then.
    let panics = saboteur(
        "2.0-panic",
        2,
        "until /usr/lib/iota/busybox grep -q ^pstore /proc/mounts; do \
         /usr/lib/iota/busybox sleep 1; done; echo c > /proc/sysrq-trigger",
    );
    // PID 1 stands still and everything else goes on: only the watchdog can tell, and does so
    // well within the window of a minute.
    let hangs = saboteur(
        "2.0-hang",
        2,
        "/usr/lib/iota/busybox mkdir /sys/fs/cgroup/frozen; \
         echo 1 > /sys/fs/cgroup/frozen/cgroup.procs; \
         echo 1 > /sys/fs/cgroup/frozen/cgroup.freeze",
    );
    // PID 1's stack is filled with zeros: the next return leads nowhere.
    let loses_init = saboteur(
        "2.0-init",
        2,
        "b=/usr/lib/iota/busybox; set -- $($b grep '\\[stack\\]' /proc/1/maps | $b tr - ' '); \
         $b dd if=/dev/zero of=/proc/1/mem bs=4096 seek=$((0x$1 / 4096)) \
         count=$(((0x$2 - 0x$1) / 4096)) conv=notrunc",
    );
    let no_engine = variant("2.0-engine", 2, |workspace| {
        short_window(workspace);
        edit(workspace, "rootfs/host.toml", "limit-s = 600", "limit-s = 15");
        edit(workspace, "rootfs/engines/docker.toml", "--data-root=", "--no-such-option=");
    });
    let disk = Disk::copy_of(&first.join("disk.img"), "trials");
    let options = Options { persist: true, ..Options::new(disk.path()) };
    let mut machine = Machine::boot("slots-trials", &options).expecting_trouble();
    machine.expect("system ready", LONG);
    for (outputs, version) in
        [(&panics, "2.0-panic"), (&hangs, "2.0-hang"), (&loses_init, "2.0-init")]
    {
        let after = fails_three_times(&mut machine, outputs);
        assert_eq!(after["boot"]["version"], "1.0", "{version}");
        let failure = &after["slots"]["last-failure"];
        assert_eq!(failure["version"], version, "{after}");
        assert_eq!(failure["attempt"], 3, "{after}");
        assert!(!failure["stage"].as_str().unwrap_or_default().is_empty(), "{after}");
        if version == "2.0-panic" {
            says_why_the_kernel_crashed(&mut machine, &after);
        }
    }
    let after = fails_three_times(&mut machine, &no_engine);
    let failure = &after["slots"]["last-failure"];
    assert_eq!(failure["version"], "2.0-engine", "{after}");
    let cause = failure["cause"].as_str().unwrap_or_default();
    assert!(cause.contains("not found healthy"), "{after}");
    let kernel = failure["kernel"].as_array().map_or(0, Vec::len);
    assert!(kernel > 0, "no lines of the kernel: {after}");
    machine.power_off(LONG);
}

#[test]
fn a_disk_with_two_bad_slots_starts_in_safe_mode_and_one_that_cannot_be_written_still_starts() {
    if !slow_tests_wanted() {
        return;
    }
    let disk = Disk::copy_of(&image::outputs().join("disk.img"), "safe-mode");
    disk.mirror_slot_a_into_b();
    disk.mark_both_slots_bad();
    let mut machine = Machine::boot("slots-safe-mode", &Options::new(disk.path()));
    machine.expect("safe mode", LONG);
    machine.expect("iota init: [", LONG);
    machine.expect("network eth0", LONG);
    let now = machine.status();
    assert_eq!(now["boot"]["safe"], true, "{now}");
    assert_eq!(now["engine"]["ready"], false, "{now}");
    machine.power_off(LONG);
    let said = machine.console.log();
    assert!(!said.contains("engine docker starting"), "{said}");
    drop(machine);

    let disk = Disk::copy_of(&image::outputs().join("disk.img"), "no-records");
    disk.destroy_both_records();
    let options = Options { persist: true, ..Options::new(disk.path()) };
    let mut machine = Machine::boot("slots-no-records", &options);
    machine.expect("record: rebuilt from the manifests", LONG);
    machine.expect("slot A: proven", LONG);
    machine.expect("system ready", LONG);
    assert_eq!(machine.status()["slots"]["record"]["a"]["state"], "proven");
    machine.power_off(LONG);
    drop(machine);

    let options = Options { read_only: true, ..Options::new(disk.path()) };
    let mut machine = Machine::boot("slots-read-only", &options);
    machine.expect("slot A: proven", LONG);
    machine.expect("data NOT mounted", LONG);
    machine.expect("system ready", LONG);
    assert_eq!(machine.status()["slots"]["record"]["a"]["state"], "proven");
    let bundle = File::open(bundle_of(&variant("2.0", 2, short_window))).unwrap();
    let (code, said) = machine.execute(&["update", "install", "-"], bundle);
    assert_eq!(code, 2, "{said}");
    assert!(said.contains("the disk vda is read-only, so nothing was changed"), "{said}");
    machine.power_off(LONG);
}
