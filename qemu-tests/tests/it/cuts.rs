//! Power cuts in the middle of a real update: a kernel's, a file system's and the agent's own
//! writes, recorded once, then lost in many ways.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use builder::host::qemu::Options;
use ondisk::device::{FileDevice, ReadAt as _};
use ondisk::layout::Slot;
use qemu_tests::cuts::{self, Checker, Cut, Started};
use qemu_tests::disk::Disk;
use qemu_tests::image::variant;
use qemu_tests::machine::Machine;
use qemu_tests::write_log::{self, Entry, WriteLog, Written};
use qemu_tests::{slow_tests_wanted, workspace};

use crate::slots::{install, is_committed, short_window};

const LONG: Duration = Duration::from_secs(400);
const OLD: &str = "1.0-cuts";
const NEW: &str = "2.0-cuts";

/// Cuts after which a virtual machine starts, and after which the loader runs on the host.
const BOOTS: usize = 25;
const STATES: usize = 5000;
/// Of the machines that start, those that finish the update.
const FINISHED: usize = 2;
const SEED: u64 = 1;

/// A disk on which a whole update has been made, and the log of it.
struct Recording {
    disk: Disk,
    log: WriteLog,
    /// Entries before the installation.
    start: usize,
}

fn record(first: &Path, second: &Path) -> Recording {
    let disk = Disk::copy_of(&first.join("disk.img"), "cuts-recorded");
    // Beside the disk, so that it goes and stays with it.
    let path: PathBuf = disk.path().with_extension("log");
    let options =
        Options { persist: true, write_log: Some(path.clone()), ..Options::new(disk.path()) };
    let mut machine = Machine::boot("cuts-recorded", &options);
    machine.expect("system ready", LONG);
    let start = write_log::entries_at_last_flush(&path).unwrap();
    install(&mut machine, second);
    is_committed(&mut machine, "B", 1);
    machine.power_off(LONG);
    drop(machine);
    Recording { disk, log: WriteLog::open(&path).unwrap(), start }
}

/// All of the log, nothing lost, is the disk as QEMU left it: else nothing below means anything.
fn replays_to_the_recorded_disk(recording: &Recording, base: &File) -> Written {
    let mut all = WriteLog::nothing_written(base).unwrap();
    for (at, entry) in recording.log.entries.iter().enumerate() {
        all.write(entry.sectors(), at);
    }
    let replayed = recording.log.disk(base, &all);
    let real = FileDevice::new(File::open(recording.disk.path()).unwrap()).unwrap();
    let (mut left, mut right) = (vec![0; 1 << 20], vec![0; 1 << 20]);
    assert_eq!(real.size() % (1 << 20), 0);
    for offset in (0..real.size()).step_by(1 << 20) {
        real.read_at(offset, &mut left).unwrap();
        replayed.read_at(offset, &mut right).unwrap();
        assert!(left == right, "the log and the disk differ in the MiB at {offset}");
    }
    all
}

/// The check would see a system that is not whole: one write of the new slot's root is taken away.
fn sees_a_lost_write(recording: &Recording, checker: &mut Checker<'_>) {
    let slot = recording.disk.slot(Slot::B);
    let root = slot.slice(recording.disk.manifest(Slot::B).root.extent).unwrap();
    let middle = (root.offset + root.length / 2) / write_log::SECTOR;
    let base_sectors = |log: &WriteLog, lost: Option<usize>, written: &mut Written| {
        for (at, entry) in log.entries.iter().enumerate().filter(|(at, _)| Some(*at) != lost) {
            written.write(entry.sectors(), at);
        }
    };
    let holds =
        |entry: &Entry| matches!(entry, Entry::Write(sectors, _) if sectors.contains(&middle));
    let lost = recording.log.entries.iter().rposition(holds).unwrap();
    let mut written =
        WriteLog::nothing_written(&File::open(recording.disk.path()).unwrap()).unwrap();
    base_sectors(&recording.log, Some(lost), &mut written);
    let found = checker.check(&written);
    assert!(matches!(&found, Err(why) if why.contains("root")), "{found:?}");
}

fn words(started: &Started) -> String {
    match started.attempt {
        0 => format!("{} proven", started.version),
        attempt => format!("{} trial {attempt}", started.version),
    }
}

/// One cut in words that find it again.
fn name(number: usize, cut: Cut) -> String {
    format!("cut {number} of seed {SEED} ({cut})")
}

/// Checks what every cut leaves; returns, sorted, how many requests were unflushed at each.
fn check_all(
    recording: &Recording,
    base: &File,
    checker: &mut Checker<'_>,
    cuts: &[Cut],
    mut visit: impl FnMut(usize, Started, &Written),
) -> Vec<usize> {
    let (mut number, mut unflushed) = (0, Vec::new());
    cuts::replay(&recording.log, base, cuts, |cut, written, pending| {
        unflushed.push(pending);
        match checker.check(written) {
            Ok(started) => {
                assert!([OLD, NEW].contains(&started.version.as_str()), "{started:?}");
                visit(number, started, written);
            }
            Err(why) => {
                let disk = recording.log.disk(base, written);
                let kept =
                    Disk::with_contents_of(&disk, &format!("cuts-{number}-of-{}", cuts.len()));
                panic!("{}: {why}\ndisk: {}", name(number, cut), kept.path().display());
            }
        }
        number += 1;
    });
    unflushed.sort_unstable();
    unflushed
}

#[test]
fn after_any_power_cut_during_an_update_the_old_or_the_new_system_starts_whole() {
    if !slow_tests_wanted() {
        return;
    }
    let first = variant(OLD, 1, short_window);
    let second = variant(NEW, 2, short_window);
    let recording = record(&first, &second);
    let base = File::open(first.join("disk.img")).unwrap();
    let mut checker =
        Checker::new(&recording.log, &base, &workspace().join("keys/development.secret"));
    let all = replays_to_the_recorded_disk(&recording, &base);
    assert_eq!(checker.check(&all).map(|started| started.version), Ok(NEW.to_owned()));
    sees_a_lost_write(&recording, &mut checker);

    let start = Instant::now();
    let hot = [recording.disk.table().record().unwrap(), recording.disk.slot(Slot::B)];
    let draw = |count, seed| cuts::draw(&recording.log, recording.start, &hot, count, seed);
    let mut started: BTreeMap<String, usize> = BTreeMap::new();
    let states = draw(STATES, SEED + 1);
    let unflushed = check_all(&recording, &base, &mut checker, &states, |_, found, _| {
        *started.entry(words(&found)).or_default() += 1;
    });
    let flushes = recording.log.entries.iter().filter(|entry| **entry == Entry::Flush).count();
    eprintln!(
        "{} requests, {flushes} of them flushes, {} before the installation; {STATES} cuts start, \
         always whole, {started:?}; unflushed requests at a cut: {} in the middle, at most {}; \
         {} different disks for the loader; {:.1} s",
        recording.log.entries.len(),
        recording.start,
        unflushed[STATES / 2],
        unflushed[STATES - 1],
        checker.distinct(),
        start.elapsed().as_secs_f64()
    );
    // Before it is staged, before it is counted, on trial, committed: cuts fell on all of it.
    for (version, attempt) in [(OLD, 0), (NEW, 1), (NEW, 2), (NEW, 0)] {
        let wanted = words(&Started { slot: Slot::A, version: version.to_owned(), attempt });
        assert!(started.contains_key(&wanted), "no cut starts {wanted}: {started:?}");
    }
    assert!(unflushed[STATES * 3 / 4] > 0, "there was nothing to lose: {unflushed:?}");

    let cuts = draw(BOOTS, SEED);
    let mut expected = Vec::new();
    check_all(&recording, &base, &mut checker, &cuts, |number, started, written| {
        let disk =
            Disk::with_contents_of(&recording.log.disk(&base, written), &format!("cuts-{number}"));
        expected.push((disk, started));
    });
    boot_all(&cuts, expected, &second);
}

/// Starts every disk in a virtual machine, which has to agree with the host about what starts.
fn boot_all(cuts: &[Cut], disks: Vec<(Disk, Started)>, update: &Path) {
    let unfinished = |(at, (_, started)): (usize, &(Disk, Started))| {
        (started.version == OLD && started.attempt == 0).then_some(at)
    };
    let unfinished: Vec<usize> = disks.iter().enumerate().filter_map(unfinished).collect();
    assert!(unfinished.len() >= FINISHED, "too few cuts hit the installation itself");
    let step = unfinished.len() / FINISHED;
    let finish: Vec<usize> = unfinished.into_iter().step_by(step).take(FINISHED).collect();
    for (number, (disk, started)) in disks.into_iter().enumerate() {
        eprintln!("{}: {started:?}", name(number, cuts[number]));
        let mut machine = Machine::boot(&format!("cuts-{number}"), &Options::new(disk.path()));
        machine.expect(&format!("slot {}: starting kernel", started.slot), LONG);
        machine.expect("root mounted", LONG);
        if finish.contains(&number) {
            machine.expect("system ready", LONG);
            install(&mut machine, update);
            is_committed(&mut machine, "B", 1);
            eprintln!("{}: the update is finished", name(number, cuts[number]));
        }
        // Dropped, the machine loses its power.
    }
}

#[test]
fn cuts_are_drawn_over_all_of_a_log_and_more_often_where_they_matter() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("log");
    let mut log = vec![[0x006a_7366_7773_6872, 1, 101, 512]];
    log.extend((0..100).map(|sector| [sector + 8, 1, 1 << 2, 0]));
    log.push([0, 0, 1, 0]);
    let bytes: Vec<u8> = log
        .iter()
        .flat_map(|words| {
            let mut bytes = words.map(u64::to_le_bytes).concat();
            bytes.resize(512, 0);
            bytes
        })
        .collect();
    fs::write(&path, bytes).unwrap();
    let log = WriteLog::open(&path).unwrap();
    let hot = ondisk::layout::Extent { offset: 58 * 512, length: 512 };
    let cuts = cuts::draw(&log, 10, &[hot], 1000, 7);
    assert_eq!(cuts.first().unwrap().after, 10);
    assert_eq!(cuts.last().unwrap().after, 101);
    let near = cuts.iter().filter(|cut| (49..=53).contains(&cut.after)).count();
    assert!(near >= 500, "{near}");

    // The sectors that are lost and kept: none after the flush, some before it.
    let base = File::create(directory.path().join("base")).unwrap();
    base.set_len(200 * 512).unwrap();
    let mut lost = Vec::new();
    cuts::replay(&log, &base, &cuts, |cut, written, _| {
        let kept = written.of(&(0..200)).iter().filter(|number| **number != 0).count();
        assert!(kept <= cut.after);
        if cut.after == 101 {
            assert_eq!(kept, 100, "{cut}");
        }
        lost.push(cut.after - kept);
    });
    assert!(lost.contains(&0) && lost.iter().any(|lost| *lost > 20));
}
