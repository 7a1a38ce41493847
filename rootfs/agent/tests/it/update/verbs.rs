//! The verbs, on a disk image that a made-up kernel shows as `vda`.
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::path::Path;

use agent::online::session::Places;
use agent::own_disk::{Devices, Lock};
use agent::slots::Slots;
use agent::update::{self, Change, Facts, Lines, Outcome};
use gpt::partition_types::{OperatingSystem, Type};
use ondisk::boot_record::{Entry, Reason, State};
use ondisk::layout::{Extent, PerSlot, RECORD_TYPE, SLOT_TYPE, Slot};
use ondisk::manifest::Profile;
use ondisk::trial_log::{self, Note};
use ondisk::trust::Trust;
use serde_json::Value;

use super::make::*;

const DISK_ID: &str = "11111111-2222-3333-4444-555555555555";

/// A machine that runs slot A of a disk like [`disk`].
struct Machine {
    directory: tempfile::TempDir,
    facts: Facts,
}

impl Machine {
    fn new() -> Self {
        Self::of(disk())
    }

    fn of(disk: Vec<u8>) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path();
        let facts = Facts {
            devices: Devices { block: path.join("block"), nodes: path.join("dev") },
            command_line: path.join("cmdline"),
            trust: path.join("trust"),
            run: path.join("run"),
            groups: path.join("groups"),
            online: Places {
                config: path.join("config"),
                machine_id: path.join("machine-id"),
                seen: path.join("seen"),
                trust_roots: path.join("trust-roots"),
                signed_time: path.join("signed-time"),
                report: path.join("update.json"),
            },
        };
        fs::create_dir(&facts.groups).unwrap();
        fs::create_dir_all(facts.devices.block.join("vda/queue")).unwrap();
        fs::create_dir_all(facts.devices.block.join("vda/vda1")).unwrap();
        fs::write(facts.devices.block.join("vda/queue/logical_block_size"), "512\n").unwrap();
        fs::create_dir(&facts.devices.nodes).unwrap();
        let machine = Self { directory, facts };
        fs::write(machine.disk_path(), disk).unwrap();
        write_table(&machine.disk_path());
        machine.boot(Slot::A, 0);
        let trust = Trust {
            board: BOARD.to_owned(),
            profile: Profile::Development,
            root: trust(&[TRUSTED]),
        };
        fs::write(&machine.facts.trust, trust.encode()).unwrap();
        machine
    }

    fn disk_path(&self) -> std::path::PathBuf {
        self.facts.devices.nodes.join("vda")
    }

    fn disk(&self) -> Vec<u8> {
        fs::read(self.disk_path()).unwrap()
    }

    fn boot(&self, slot: Slot, attempt: u8) {
        let zeros = "00".repeat(32);
        let letter = slot.letter();
        let words = format!(
            "panic=5 iota.slot={letter} iota.attempt={attempt} iota.disk={DISK_ID} \
             iota.verity={zeros},{zeros},3,3 iota.version=1.0"
        );
        fs::write(&self.facts.command_line, words).unwrap();
    }

    fn file(&self, bytes: &[u8]) -> String {
        let path = self.directory.path().join("x.bundle");
        fs::write(&path, bytes).unwrap();
        path.to_str().unwrap().to_owned()
    }

    fn run(&self, change: &Change) -> Outcome {
        update::run(change, &self.facts, &mut Lines::plain(&mut Vec::new()))
    }

    fn install(&self, system: &System) -> Outcome {
        self.run(&Change::Install(self.file(&bundle(system))))
    }
}

fn write_table(path: &Path) {
    let file = File::options().read(true).write(true).open(path).unwrap();
    let mut table = gpt::GptConfig::new()
        .writable(true)
        .create_from_device(file, Some(DISK_ID.parse().unwrap()))
        .unwrap();
    let partitions = [
        ("record", RECORD_TYPE, PLACE.record),
        ("slot-a", SLOT_TYPE, PLACE.slots.a),
        ("slot-b", SLOT_TYPE, PLACE.slots.b),
    ];
    let entries = (1..).zip(partitions).map(|(number, (name, type_guid, extent))| {
        let Extent { offset, length } = extent;
        let guid = type_guid.to_string().parse().unwrap();
        let entry = gpt::partition::Partition {
            part_type_guid: Type { guid, os: OperatingSystem::None },
            part_guid: format!("00000000-0000-0000-0000-00000000000{number}").parse().unwrap(),
            first_lba: offset / 512,
            last_lba: (offset + length) / 512 - 1,
            flags: 0,
            name: name.to_owned(),
        };
        (number, entry)
    });
    table.update_partitions(entries.collect::<BTreeMap<_, _>>()).unwrap();
    table.write().unwrap();
}

/// The table's backup lies behind the slots.
fn disk() -> Vec<u8> {
    let mut disk = super::make::disk();
    disk.resize(disk.len() + 64 * 1024, 0);
    disk
}

fn facts_of(outcome: &Outcome) -> Value {
    serde_json::from_str(&outcome.json()).unwrap()
}

#[test]
fn an_update_goes_from_install_to_commit() {
    let machine = Machine::new();
    let two = System::new("2.0", 6, 1);
    let outcome = machine.install(&two);
    assert_eq!(outcome.text(), "2.0 is installed in slot B and is started next, on trial\n");
    assert_eq!(outcome.code(), 0);
    let facts = facts_of(&outcome);
    assert_eq!((&facts["result"], &facts["slot"]), (&"done".into(), &"b".into()));
    let limit = machine.facts.groups.join("update/memory.max");
    assert_eq!(fs::read_to_string(limit).unwrap(), (24 << 20).to_string());
    assert_eq!(facts["peak-memory-bytes"], Value::Null, "no kernel counts here");
    assert_holds(&machine.disk(), &two);

    machine.boot(Slot::B, 1);
    let outcome = machine.run(&Change::Commit);
    assert_eq!((outcome.text().as_str(), outcome.code()), ("slot B is committed\n", 0));
    let outcome = machine.run(&Change::Commit);
    let expected = "nothing to do: slot B is committed already\n";
    assert_eq!((outcome.text().as_str(), outcome.code()), (expected, 1));
    assert_eq!(facts_of(&outcome)["result"], "nothing");
    assert_eq!(record(&machine.disk()).slots.b.state, State::Proven);
}

#[test]
fn a_trial_is_rolled_back_and_remembered() {
    let machine = Machine::new();
    machine.install(&System::new("2.0", 6, 1));
    machine.boot(Slot::B, 1);
    let outcome = machine.run(&Change::RollBack);
    assert_eq!((outcome.text().as_str(), outcome.code()), ("slot A is started next\n", 0));
    let record = record(&machine.disk());
    assert_eq!(record.slots.b.state, State::Bad(Reason::REJECTED));
    assert_eq!(machine.run(&Change::RollBack).code(), 1);
    machine.boot(Slot::A, 0);
    let outcome = machine.run(&Change::RollBack);
    let expected = "error: slot B is bad (rolled back by request), never found healthy\n";
    assert_eq!((outcome.text().as_str(), outcome.code()), (expected, 2));
}

#[test]
fn an_update_that_waits_is_given_up_once() {
    let machine = Machine::new();
    machine.install(&System::new("2.0", 6, 1));
    let outcome = machine.run(&Change::Cancel);
    assert_eq!(outcome.text(), "the update in slot B is given up\n");
    assert_eq!(record(&machine.disk()).slots.b.state, State::Empty);
    let outcome = machine.run(&Change::Cancel);
    let expected = "nothing to do: no update waits in slot B\n";
    assert_eq!((outcome.text().as_str(), outcome.code()), (expected, 1));
}

#[test]
fn what_cannot_be_installed_is_told_with_what_is_left_and_what_to_do() {
    let machine = Machine::new();
    let before = machine.disk();
    let mut other = System::new("2.0", 6, 1);
    other.fields.board = "other-board".to_owned();
    let outcome = machine.install(&other);
    let expected = "error: the bundle is for other-board, this device is test-board\n\
        nothing was changed\n";
    assert_eq!((outcome.text().as_str(), outcome.code()), (expected, 2));
    let good = bundle(&System::new("2.0", 6, 1));
    let cut = machine.file(&good[..good.len() - 1]);
    let facts = facts_of(&machine.run(&Change::Install(cut)));
    assert_eq!(facts["result"], "failed");
    assert_eq!(facts["error"], "the bundle is cut short: 1 bytes missing");
    assert_eq!(facts["left"], "nothing was changed");
    assert!(facts["hint"].as_str().unwrap().starts_with("copy the bundle again"));
    let gone = machine.run(&Change::Install("/nowhere".to_owned()));
    assert!(gone.text().starts_with("error: cannot read /nowhere: "));
    let stick = machine.run(&Change::Install("usb:".to_owned()));
    let expected = "error: no *.bundle on a stick (there is no other disk)\n";
    assert_eq!(stick.text(), expected);
    assert!(machine.disk() == before);
}

#[test]
fn two_programs_do_not_change_the_system_at_once() {
    let machine = Machine::new();
    let lock = Lock::take(&machine.facts.run.join("update.lock")).unwrap();
    let outcome = machine.install(&System::new("2.0", 6, 1));
    let expected = "error: another `iota` is changing this system\nhint: wait until it has ended\n";
    assert_eq!((outcome.text().as_str(), outcome.code()), (expected, 2));
    drop(lock);
    assert_eq!(machine.install(&System::new("2.0", 6, 1)).code(), 0);
}

#[test]
fn a_disk_with_another_id_is_never_written() {
    let machine = Machine::new();
    let before = machine.disk();
    let words = fs::read_to_string(&machine.facts.command_line).unwrap();
    fs::write(&machine.facts.command_line, words.replace("iota.disk=1", "iota.disk=2")).unwrap();
    let outcome = machine.install(&System::new("2.0", 6, 1));
    let id = DISK_ID.replacen('1', "2", 1);
    let expected = format!("error: the disk {id} that this system was started from is gone\n");
    assert_eq!(outcome.text(), expected);
    assert!(machine.disk() == before);
}

#[test]
fn a_read_only_disk_is_named_and_left_alone() {
    let machine = Machine::new();
    let before = machine.disk();
    let told = machine.facts.devices.block.join("vda/ro");
    fs::write(&told, "1\n").unwrap();
    for change in [Change::Install("usb:".to_owned()), Change::RollBack, Change::Commit] {
        let outcome = machine.run(&change);
        let expected = "error: the disk vda is read-only, so nothing was changed\n\
            hint: unlock or replace it; the system that runs goes on as it is\n";
        assert_eq!((outcome.text().as_str(), outcome.code()), (expected, 2));
    }
    assert!(Slots::find(&machine.facts).is_ok(), "the state can still be told");
    assert!(machine.disk() == before);
    fs::write(told, "0\n").unwrap();
    assert_eq!(machine.install(&System::new("2.0", 6, 1)).code(), 0);
}

#[test]
fn progress_is_a_line_for_every_tenth_at_most() {
    let machine = Machine::new();
    let change = Change::Install(machine.file(&bundle(&System::new("2.0", 6, 1))));
    let mut lines = Vec::new();
    assert_eq!(update::run(&change, &machine.facts, &mut Lines::plain(&mut lines)).code(), 0);
    let lines = String::from_utf8(lines).unwrap();
    assert!((4..=22).contains(&lines.lines().count()), "{lines}");
    assert!(lines.contains("writing 100 % (1 of 1 MB)\n"), "{lines}");
    assert!(lines.ends_with("reading back 100 % (1 of 1 MB)\n"), "{lines}");
}

#[test]
fn status_shows_slots_keys_tries_and_why_the_last_trial_ended() {
    let machine = Machine::new();
    machine.install(&System::new("2.0", 6, 1));
    let key = trust(&[TRUSTED]).release.keys()[0].id();
    let slots = Slots::find(&machine.facts).unwrap();
    let expected = format!(
        "slot a     1.0, proven, index 5, key {key}, runs\n\
         slot b     2.0, unproven with 3 tries, index 6, key {key}\n\
         next       b (trial 1)\n"
    );
    assert_eq!(slots.text(), expected);
    assert_eq!(slots.json()["record"]["b"]["tries"], 3);
    assert_eq!(slots.json()["last-failure"], Value::Null);

    let mut disk = machine.disk();
    let b = Entry { state: State::Unproven { tries: 0 }, ..record(&disk).slots.b };
    let a = record(&disk).slots.a;
    set_record(&mut disk, PerSlot { a, b });
    let note = Note {
        slot: Slot::B,
        attempt: 3,
        version: "2.0".to_owned(),
        stage: "engine started".to_owned(),
        cause: None,
        kernel: "first\nlast\n".to_owned(),
    };
    trial_log::write(&mut disk, PLACE.record, &note).unwrap();
    disk[65536 + 8] ^= 1;
    let slots = Slots::find(&Machine::of(disk).facts).unwrap();
    let text = slots.text();
    let expected = "next       a (proven)\n\
        last trial 2.0 in slot b, trial 3: it hung, lost power, or its kernel or PID 1 died; \
        last stage: engine started\n           first\n           last\n";
    assert!(text.ends_with(expected), "{text}");
    assert!(text.contains("\nrecord     first copy: checksum is "), "{text}");
    assert_eq!(slots.json()["last-failure"]["kernel"][1], "last");
}
