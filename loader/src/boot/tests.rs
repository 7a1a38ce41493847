//! Whole boots on disks in memory: what is started, what is said, what is written.
use std::cell::{Cell, RefCell};
use std::rc::Rc;

use ed25519_dalek::{Signer as _, SigningKey};
use ondisk::boot_record::{self, Copies, Copy, Entry, Reason, Sequence, Version};
use ondisk::device::{BeyondEnd, ReadAt};
use ondisk::digest::Digest;
use ondisk::envelope::{self, Role, Signature};
use ondisk::guid::Guid;
use ondisk::keyring::PublicKey;
use ondisk::layout::{self, MANIFEST_AREA_BYTES, RECORD_TYPE, SLOT_TYPE};
use ondisk::manifest::{Fields, Manifest, Part, Profile, Unpacked};

use super::*;

const SAFE_B: &str = "slot B: safe mode: started without an engine";
const SECTOR: u64 = 512;
const RECORD: Extent = Extent { offset: 1 << 20, length: 8 << 20 };
const SLOTS: PerSlot<Extent> = PerSlot {
    a: Extent { offset: 9 << 20, length: 1 << 20 },
    b: Extent { offset: 10 << 20, length: 1 << 20 },
};
const DISK_BYTES: usize = 12 << 20;
const KERNEL: u64 = 4 * 4096;
const INITRD: u64 = 6 * 4096;

/// The kernel of a slot, unpacked.
fn kernel(slot: Slot) -> Vec<u8> {
    format!("kernel of slot {slot} ").repeat(500).into_bytes()
}

fn initrd(slot: Slot) -> Vec<u8> {
    format!("initrd of slot {slot}").into_bytes()
}

fn version(slot: Slot) -> &'static str {
    match slot {
        Slot::A => "1.0",
        Slot::B => "2.0",
    }
}

fn secret() -> SigningKey {
    SigningKey::from_bytes(&[1; 32])
}

fn trust() -> TrustRoot {
    let key = PublicKey::from_bytes(secret().verifying_key().as_bytes()).expect("a key");
    TrustRoot::of_one_key(key)
}

/// The manifest of a slot and the bytes of all its parts.
fn slot_contents(slot: Slot) -> (Fields, Vec<u8>) {
    slot_with(slot, &spans(&kernel(slot)))
}

/// Content packed as the builder packs a kernel, in two spans.
fn spans(content: &[u8]) -> Vec<u8> {
    let (first, second) = content.split_at(content.len() / 2);
    let span = |content: &[u8]| {
        let frame = zstd::bulk::compress(content, 3).expect("zstd");
        let mut blocks = vec![0; frame.len().next_multiple_of(4096)];
        ondisk::spans::place(&frame, &mut blocks).expect("whole blocks");
        blocks
    };
    [span(first), span(second)].concat()
}

/// The same with a kernel that is packed in this way.
fn slot_with(slot: Slot, packed: &[u8]) -> (Fields, Vec<u8>) {
    slot_of(slot, packed, &initrd(slot))
}

/// The same with an initrd that is packed in this way too.
fn slot_of(slot: Slot, packed: &[u8], packed_initrd: &[u8]) -> (Fields, Vec<u8>) {
    let mut bytes = vec![0; 1 << 20];
    let mut part = |offset: u64, contents: &[u8]| {
        let start = usize::try_from(offset).expect("small");
        bytes[start..start + contents.len()].copy_from_slice(contents);
        let length = u64::try_from(contents.len()).expect("small");
        Part { extent: Extent { offset, length }, sha256: Digest::of(contents) }
    };
    let unpacked = kernel(slot);
    let fields = Fields {
        board: "test".to_owned(),
        version: version(slot).to_owned(),
        rollback_index: if slot == Slot::A { 1 } else { 2 },
        profile: Profile::Development,
        root: part(0, &[1; 3 * 4096]),
        verity: part(3 * 4096, &[2; 4096]),
        kernel: part(KERNEL, packed),
        kernel_unpacked: Unpacked {
            length: u64::try_from(unpacked.len()).expect("small"),
            sha256: Digest::of(&unpacked),
        },
        initrd: part(INITRD, packed_initrd),
        verity_salt: [3; 32],
        verity_root_hash: Digest::of(b"tree"),
        command_line: "panic=5".to_owned(),
    };
    (fields, bytes)
}

/// A slot whose manifest says this, signed.
fn slot_image(fields: Fields, mut bytes: Vec<u8>) -> Vec<u8> {
    let manifest = Manifest::new(fields, 1 << 20).expect("a good manifest").encode();
    let message = envelope::signed_message(Role::SLOT_MANIFEST, manifest.as_bytes());
    let signature = Signature {
        key: trust().release.keys()[0].id(),
        bytes: secret().sign(&message.expect("short")).to_bytes(),
    };
    let envelope = envelope::encode(Role::SLOT_MANIFEST, manifest.as_bytes(), &[signature]);
    let envelope = envelope.expect("one signature");
    let start = bytes.len() - usize::try_from(MANIFEST_AREA_BYTES).expect("64 KiB");
    bytes[start..start + envelope.len()].copy_from_slice(&envelope);
    bytes
}

/// A disk with both slots filled and no record.
fn blank_disk() -> Vec<u8> {
    let mut disk = vec![0; DISK_BYTES];
    write_table(&mut disk);
    for slot in Slot::BOTH {
        let (fields, bytes) = slot_contents(slot);
        put(&mut disk, SLOTS[slot].offset, &slot_image(fields, bytes));
    }
    disk
}

fn disk(record: Record) -> Vec<u8> {
    let mut disk = blank_disk();
    let older = Record { sequence: Sequence(record.sequence.0 - 1), ..record };
    boot_record::write(&mut disk, RECORD, Copy::First, &record).expect("room");
    boot_record::write(&mut disk, RECORD, Copy::Second, &older).expect("room");
    disk
}

fn put(disk: &mut [u8], offset: u64, bytes: &[u8]) {
    let offset = usize::try_from(offset).expect("small");
    disk[offset..offset + bytes.len()].copy_from_slice(bytes);
}

/// Changes one byte, counted from the start of a slot.
fn flip(disk: &mut [u8], slot: Slot, offset: u64) {
    disk[usize::try_from(SLOTS[slot].offset + offset).expect("small")] ^= 1;
}

fn write_table(disk: &mut [u8]) {
    let partitions = [
        (RECORD_TYPE, "record", RECORD),
        (SLOT_TYPE, "slot-a", SLOTS.a),
        (SLOT_TYPE, "slot-b", SLOTS.b),
    ];
    let mut entries = [0; 4 * 128];
    for (entry, (type_guid, name, extent)) in entries.chunks_mut(128).zip(partitions) {
        let last = extent.end().expect("small") / SECTOR - 1;
        entry[..16].copy_from_slice(&type_guid.to_bytes());
        entry[32..40].copy_from_slice(&(extent.offset / SECTOR).to_le_bytes());
        entry[40..48].copy_from_slice(&last.to_le_bytes());
        for (unit, target) in name.encode_utf16().zip(entry[56..].chunks_mut(2)) {
            target.copy_from_slice(&unit.to_le_bytes());
        }
    }
    let mut header = [0; 92];
    header[..16].copy_from_slice(b"EFI PART\0\0\x01\0\x5c\0\0\0");
    let last = u64::try_from(DISK_BYTES).expect("small") / SECTOR - 1;
    for (offset, value) in [(24, 1), (32, last), (40, 3), (48, last - 1), (72, 2)] {
        header[offset..offset + 8].copy_from_slice(&u64::to_le_bytes(value));
    }
    header[56..72].copy_from_slice(&Guid::new(1, 2, 3, [4; 8]).to_bytes());
    for (offset, value) in [(80, 4), (84, 128), (88, crc32(&entries))] {
        header[offset..offset + 4].copy_from_slice(&u32::to_le_bytes(value));
    }
    let crc = crc32(&header);
    header[16..20].copy_from_slice(&crc.to_le_bytes());
    put(disk, SECTOR, &header);
    put(disk, 2 * SECTOR, &entries);
}

/// Bit by bit, so that the table of this test owes nothing to the code that reads it.
fn crc32(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(!0_u32, |crc, &byte| {
        (0..8).fold(crc ^ u32::from(byte), |crc, _| {
            if crc & 1 == 1 { (crc >> 1) ^ 0xedb8_8320 } else { crc >> 1 }
        })
    })
}

fn record(a: State, b: State) -> Record {
    let entry = |slot, state, priority| Entry {
        state,
        priority,
        rollback_index: 1,
        version: Version::new(version(slot)),
    };
    let slots = PerSlot { a: entry(Slot::A, a, 1), b: entry(Slot::B, b, 2) };
    Record { sequence: Sequence(5), rollback_floor: 0, slots }
}

/// A disk that several boots share, with faults.
#[derive(Clone)]
struct TestDisk {
    bytes: Rc<RefCell<Vec<u8>>>,
    /// Reads that touch these bytes fail.
    unreadable: Option<Extent>,
    /// Writes fail.
    read_only: bool,
    writes: Rc<RefCell<Vec<u64>>>,
}

impl TestDisk {
    fn new(bytes: Vec<u8>) -> Self {
        let bytes = Rc::new(RefCell::new(bytes));
        Self { bytes, unreadable: None, read_only: false, writes: Rc::default() }
    }

    fn record(&self) -> Option<Record> {
        Copies::read(&*self.bytes.borrow(), RECORD).newest().copied()
    }
}

impl ReadAt for TestDisk {
    type Error = BeyondEnd;
    fn size(&self) -> u64 {
        self.bytes.borrow().size()
    }
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> Result<(), BeyondEnd> {
        let end = offset + u64::try_from(buffer.len()).expect("small");
        let hit = |bad: Extent| offset < bad.offset + bad.length && end > bad.offset;
        if self.unreadable.is_some_and(hit) {
            return Err(BeyondEnd);
        }
        self.bytes.borrow().read_at(offset, buffer)
    }
}

impl WriteAt for TestDisk {
    fn write_at(&mut self, offset: u64, bytes: &[u8]) -> Result<(), BeyondEnd> {
        if self.read_only {
            return Err(BeyondEnd);
        }
        self.writes.borrow_mut().push(offset);
        self.bytes.borrow_mut().write_at(offset, bytes)
    }
    fn flush(&mut self) -> Result<(), BeyondEnd> {
        Ok(())
    }
}

/// A machine that remembers what it was told, and takes kernels unless told not to.
#[derive(Default)]
struct TestMachine {
    said: RefCell<Vec<String>>,
    waited: RefCell<u64>,
    /// Whether the last system was started in safe mode.
    safe: Cell<bool>,
    refuses_kernel_of: Option<Slot>,
}

impl Machine for TestMachine {
    type Started = System;
    fn say(&self, line: fmt::Arguments<'_>) {
        self.said.borrow_mut().push(line.to_string());
    }
    fn start(&self, system: System) -> Result<System, &'static str> {
        match self.refuses_kernel_of {
            Some(slot) if system.kernel == kernel(slot) => Err("it came back"),
            _ => Ok(system),
        }
    }
    fn wait_seconds(&self, seconds: u64) {
        *self.waited.borrow_mut() += seconds;
    }
}

/// One boot; gives the slot that was started, after checking that all of it is that slot's.
fn boot_once(machine: &TestMachine, disk: &TestDisk) -> Option<(Slot, u8)> {
    let system = boot(machine, disk.clone(), SECTOR, &trust()).ok()?;
    let args = BootArgs::parse(&system.command_line).expect("our own words");
    machine.safe.set(args.safe);
    assert_eq!(system.kernel, kernel(args.slot));
    assert_eq!(system.initrd, initrd(args.slot));
    assert!(system.command_line.starts_with("panic=5 iota.slot="));
    Some((args.slot, args.attempt))
}

/// Boots a disk once and gives what was said, with the outcome as the last line.
fn transcript(disk: &TestDisk) -> String {
    let machine = TestMachine::default();
    let outcome = match boot_once(&machine, disk) {
        Some((slot, attempt)) => {
            let safe = if machine.safe.get() { ", safe" } else { "" };
            format!("=> slot {slot}, attempt {attempt}{safe}")
        }
        None => "=> nothing".to_owned(),
    };
    let waited = match machine.waited.into_inner() {
        0 => String::new(),
        seconds => format!(", waited {seconds} s"),
    };
    machine.said.into_inner().join("\n") + "\n" + &outcome + &waited
}

/// The said lines that tell of a failure, and the outcome.
fn failures(disk: &TestDisk) -> Vec<String> {
    let stages =
        ["trusted key ", "disk 0", ": version ", " verified", "kernel unpacked", "starting kernel"];
    let lines = transcript(disk);
    let lines = lines.lines().filter(|line| !stages.iter().any(|stage| line.contains(stage)));
    lines.filter(|line| !line.ends_with(": proven")).map(str::to_owned).collect()
}

#[test]
fn a_proven_slot_starts_and_nothing_is_written() {
    let disk = TestDisk::new(disk(record(State::Proven, State::Proven)));
    expect_test::expect![[r#"
        trusted key 34750f98bd59fcfc
        disk 00000001-0002-0003-0404-040404040404, primary table
        slot B: proven
        slot B: version 2.0, signed by 34750f98bd59fcfc
        slot B: kernel verified
        slot B: initrd verified
        slot B: kernel unpacked
        slot B: starting kernel
        => slot B, attempt 0"#]]
    .assert_eq(&transcript(&disk));
    assert!(disk.writes.borrow().is_empty());
}

#[test]
fn a_new_slot_is_tried_three_times_and_then_the_old_one_is_back() {
    let disk = TestDisk::new(disk(record(State::Proven, State::Unproven { tries: 3 })));
    let boots: Vec<_> = (0..5).map(|_| boot_once(&TestMachine::default(), &disk)).collect();
    let (a, b) = (Slot::A, Slot::B);
    assert_eq!(boots, [(b, 1), (b, 2), (b, 3), (a, 0), (a, 0)].map(Some));
    // Older copy first: the second, then alternating, and none once the old slot is back.
    let second = RECORD.offset + (4 << 20);
    assert_eq!(*disk.writes.borrow(), [second, RECORD.offset, second]);
}

#[test]
fn a_changed_byte_is_refused_by_the_name_of_its_part_and_the_other_slot_starts() {
    let manifest = (1 << 20) - MANIFEST_AREA_BYTES;
    let text = u64::try_from(slot_contents(Slot::B).0.encode().len()).expect("short");
    let check = |offset: u64, expected: &str, reason: Reason| {
        let mut bytes = disk(record(State::Proven, State::Proven));
        flip(&mut bytes, Slot::B, offset);
        let disk = TestDisk::new(bytes);
        let failures = failures(&disk);
        assert_eq!(failures.len(), 2, "{failures:?}");
        assert!(failures[0].starts_with(expected), "{failures:?}");
        assert_eq!(failures[1], "=> slot A, attempt 0");
        let state = disk.record().map(|record| record.slots.b.state);
        assert_eq!(state, Some(State::Bad(reason)));
        // From now on it is passed over without another write.
        let writes = disk.writes.borrow().len();
        assert_eq!(boot_once(&TestMachine::default(), &disk), Some((Slot::A, 0)));
        assert_eq!(disk.writes.borrow().len(), writes);
    };
    check(KERNEL + 20, "slot B: kernel: sha256 mismatch (", Reason::KERNEL);
    check(INITRD, "slot B: initrd: sha256 mismatch (", Reason::INITRD);
    check(manifest, "slot B: manifest: no envelope (wrong magic)", Reason::MANIFEST);
    check(manifest + 30, "slot B: manifest: wrong signature in the name of", Reason::MANIFEST);
    let signature = manifest + 24 + text + 8;
    check(signature, "slot B: manifest: wrong signature in the name of", Reason::MANIFEST);
    check(signature - 1, "slot B: manifest: signed by no trusted key, but by", Reason::MANIFEST);
    check(manifest + 60_000, "slot B: manifest: bytes after the last signature", Reason::MANIFEST);
}

#[test]
fn a_kernel_that_does_not_unpack_to_what_was_signed_is_refused() {
    let check = |change: fn(&mut Fields), expected: &str| {
        let (mut fields, contents) = slot_contents(Slot::B);
        change(&mut fields);
        let mut bytes = disk(record(State::Proven, State::Proven));
        put(&mut bytes, SLOTS.b.offset, &slot_image(fields, contents));
        let failures = failures(&TestDisk::new(bytes));
        assert!(failures[0].starts_with(expected), "{failures:?}");
        assert_eq!(failures[1], "=> slot A, attempt 0");
    };
    check(|f| f.kernel_unpacked.length += 1, "slot B: kernel, unpacked: length mismatch (");
    check(|f| f.kernel_unpacked.length -= 1, "slot B: kernel: cannot unpack");
    check(
        |f| f.kernel_unpacked.sha256 = Digest::of(b""),
        "slot B: kernel, unpacked: sha256 mismatch (",
    );
    check(
        |f| f.kernel_unpacked.length = 1 << 62,
        "slot B: no memory for 4611686018427387904 bytes",
    );
    check(
        |f| {
            f.kernel.extent.length = 5;
            f.kernel.sha256 = Digest::of(&spans(&kernel(Slot::B))[..5]);
        },
        "slot B: kernel: cannot unpack",
    );
}

/// A frame whose one block holds this and nothing packed: its length, then the bytes themselves
/// (LZ4's block format: 15 in the token's upper half, 255 and so on until less than 255 is left).
fn lz4_frame(bytes: &[u8]) -> Vec<u8> {
    let mut block = vec![0xF0];
    let rest = bytes.len() - 15;
    block.extend(std::iter::repeat_n(255, rest / 255));
    block.push(u8::try_from(rest % 255).expect("a remainder"));
    block.extend_from_slice(bytes);
    let length = u32::try_from(block.len()).expect("short").to_le_bytes();
    [&ondisk::lz4::MAGIC[..], &length, &block].concat()
}

/// What is said of a slot B with this kernel, beside a good slot A.
fn failures_of_kernel(packed: &[u8], change: fn(&mut Fields)) -> Vec<String> {
    let (mut fields, contents) = slot_with(Slot::B, packed);
    change(&mut fields);
    let mut bytes = disk(record(State::Proven, State::Proven));
    put(&mut bytes, SLOTS.b.offset, &slot_image(fields, contents));
    failures(&TestDisk::new(bytes))
}

#[test]
fn a_kernel_packed_with_lz4_starts_like_one_packed_with_zstd() {
    // There are 4 KiB for it: most of it is one match of what comes before.
    let whole = kernel(Slot::B);
    let period = "kernel of slot B ".len();
    let mut block = lz4_frame(&whole[..1000])[8..].to_vec();
    // The token's lower half and what follows it: a match of all but the last 5 bytes.
    let matched = whole.len() - 1000 - 5;
    block[0] |= 0x0F;
    block.extend(u16::try_from(period).expect("short").to_le_bytes());
    block.extend(std::iter::repeat_n(255, (matched - 4 - 15) / 255));
    block.push(u8::try_from((matched - 4 - 15) % 255).expect("a remainder"));
    block.push(0x50);
    block.extend_from_slice(&whole[whole.len() - 5..]);
    let length = u32::try_from(block.len()).expect("short").to_le_bytes();
    let frame = [&ondisk::lz4::MAGIC[..], &length, &block].concat();
    assert_eq!(failures_of_kernel(&frame, |_| ()), ["=> slot B, attempt 0"]);
}

#[test]
fn a_kernel_packed_with_lz4_that_is_another_one_is_refused() {
    let short = b"kernel of slot B".repeat(20);
    let check = |packed: &[u8], change: fn(&mut Fields), expected: &str| {
        let failures = failures_of_kernel(packed, change);
        assert!(failures[0].starts_with(expected), "{failures:?}");
        assert_eq!(failures[1], "=> slot A, attempt 0");
    };
    let length = "slot B: kernel, unpacked: length mismatch (";
    check(&lz4_frame(&short), |_| (), length);
    check(&ondisk::lz4::MAGIC, |_| (), length);
    check(
        &lz4_frame(&short),
        |f| f.kernel_unpacked.length = 320,
        "slot B: kernel, unpacked: sha256",
    );
    check(&lz4_frame(&short), |f| f.kernel_unpacked.length = 319, "slot B: kernel: cannot unpack");
    check(&lz4_frame(&short)[..100], |_| (), "slot B: kernel: cannot unpack");
}

#[test]
fn an_initrd_is_unpacked_for_linux_unless_linux_does_it() {
    let long = b"an initrd, unpacked: ".repeat(900);
    let frame = lz4_frame(b"an initrd for Linux to unpack");
    let disk_with = |packed: &[u8]| {
        let (fields, contents) = slot_of(Slot::B, &spans(&kernel(Slot::B)), packed);
        let mut bytes = disk(record(State::Proven, State::Proven));
        put(&mut bytes, SLOTS.b.offset, &slot_image(fields, contents));
        TestDisk::new(bytes)
    };
    for (packed, expected) in [(spans(&long), &long), (frame.clone(), &frame)] {
        let machine = TestMachine::default();
        let system = boot(&machine, disk_with(&packed), SECTOR, &trust()).expect("starts");
        assert!(system.initrd == *expected);
    }
    // Its frame says one byte less than there is in it, in the first of two bytes.
    let mut less = spans(&long);
    let start = less.iter().position(|byte| *byte != 0).expect("a frame");
    assert_eq!(less[start + 4] >> 5, 0b011);
    less[start + 5] -= 1;
    let failures = failures(&disk_with(&less));
    assert!(failures[0].starts_with("slot B: initrd: cannot unpack"), "{failures:?}");
    assert_eq!(failures[1], "=> slot A, attempt 0");
}

#[test]
fn a_bad_slot_with_no_other_is_said_and_nothing_starts() {
    let mut bytes = disk(record(State::Proven, State::Empty));
    flip(&mut bytes, Slot::A, INITRD);
    let disk = TestDisk::new(bytes);
    let first = failures(&disk);
    assert!(first[0].starts_with("slot A: initrd: sha256 mismatch ("), "{first:?}");
    assert_eq!(first[1..], ["=> nothing"]);
    // The next boot tries it again: the card may have had a bad day.
    let second = failures(&disk);
    assert_eq!(second[0], "slot A: safe mode: started without an engine");
    assert_eq!(second[2..], ["=> nothing"]);
}

#[test]
fn a_slot_without_tries_and_without_another_starts_after_a_wait() {
    let disk = TestDisk::new(disk(record(State::Empty, State::Unproven { tries: 0 })));
    let expected = [SAFE_B, "slot B: starting in 30 s", "=> slot B, attempt 4, safe, waited 30 s"];
    assert_eq!(failures(&disk), expected);
    assert!(disk.writes.borrow().is_empty());
}

#[test]
fn a_slot_that_was_only_not_readable_keeps_its_standing() {
    let mut disk = TestDisk::new(disk(record(State::Proven, State::Proven)));
    disk.unreadable = SLOTS.b.slice(Extent { offset: KERNEL, length: 1 });
    let failures = failures(&disk);
    let expected = "slot B: kernel: cannot read: beyond the end of the device";
    assert_eq!(failures, [expected, "=> slot A, attempt 0"]);
    assert!(disk.writes.borrow().is_empty());
}

#[test]
fn a_disk_that_cannot_be_written_starts_the_proven_slot() {
    let mut disk = TestDisk::new(disk(record(State::Proven, State::Unproven { tries: 3 })));
    disk.read_only = true;
    let failures = failures(&disk);
    let expected = "record: cannot write: beyond the end of the device";
    assert_eq!(failures, [expected, "=> slot A, attempt 0"]);
}

#[test]
fn a_disk_that_cannot_be_written_starts_a_new_slot_if_there_is_no_other() {
    let mut disk = TestDisk::new(disk(record(State::Empty, State::Unproven { tries: 3 })));
    disk.read_only = true;
    let failures = failures(&disk);
    let expected = [
        "slot B: trial, not counted",
        "slot B: starting in 30 s",
        "=> slot B, attempt 4, waited 30 s",
    ];
    assert_eq!(failures[1..], expected);
}

#[test]
fn lost_records_are_rebuilt_and_written() {
    let disk = TestDisk::new(blank_disk());
    let expected = [
        "record: first copy: nothing there (all zero)",
        "record: second copy: nothing there (all zero)",
        "record: rebuilt from the manifests",
        "slot B: trial 1",
        "=> slot B, attempt 1",
    ];
    assert_eq!(failures(&disk), expected);
    let record = disk.record().expect("written");
    assert_eq!(record.slots.a.state, State::Proven);
    assert_eq!(record.slots.b.state, State::Unproven { tries: 2 });
    assert_eq!(boot_once(&TestMachine::default(), &disk), Some((Slot::B, 2)));
}

#[test]
fn one_broken_copy_of_the_record_costs_nothing() {
    let mut bytes = disk(record(State::Proven, State::Unproven { tries: 2 }));
    let mut newer = record(State::Proven, State::Unproven { tries: 1 });
    newer.sequence = Sequence(6);
    boot_record::write(&mut bytes, RECORD, Copy::Second, &newer).expect("room");
    put(&mut bytes, RECORD.offset + 100, &[0xff; 8]);
    let disk = TestDisk::new(bytes);
    assert_eq!(boot_once(&TestMachine::default(), &disk), Some((Slot::B, 3)));
    assert_eq!(*disk.writes.borrow(), [RECORD.offset], "the broken copy is the one to write");
}

#[test]
fn a_disk_without_a_record_partition_still_boots() {
    let mut bytes = blank_disk();
    // Another name; checksums made anew.
    let name = usize::try_from(2 * SECTOR).expect("small") + 56;
    bytes[name] = b'R';
    let entries = bytes[1024..1024 + 512].to_vec();
    bytes[512 + 88..512 + 92].copy_from_slice(&crc32(&entries).to_le_bytes());
    bytes[512 + 16..512 + 20].fill(0);
    let crc = crc32(&bytes[512..512 + 92]);
    bytes[512 + 16..512 + 20].copy_from_slice(&crc.to_le_bytes());
    let disk = TestDisk::new(bytes);
    let failures = failures(&disk);
    assert_eq!(failures[0], "record: no partition \"record\" of our type");
    assert_eq!(failures.last().map(String::as_str), Some("=> slot A, attempt 0"));
    assert!(disk.writes.borrow().is_empty());
}

#[test]
fn a_kernel_that_comes_back_costs_its_slot_the_standing() {
    let disk = TestDisk::new(disk(record(State::Proven, State::Proven)));
    let machine = TestMachine { refuses_kernel_of: Some(Slot::B), ..TestMachine::default() };
    assert_eq!(boot_once(&machine, &disk), Some((Slot::A, 0)));
    assert!(machine.said.borrow().contains(&"slot B: kernel: it came back".to_owned()));
    let state = disk.record().map(|record| record.slots.b.state);
    assert_eq!(state, Some(State::Bad(Reason::START)));
}

#[test]
fn a_slot_below_the_floor_is_refused_by_name_and_the_other_one_starts_unmarked() {
    // The record does not know how old the system in B is; its manifest says it: 2.
    let mut record = record(State::Proven, State::Proven);
    record.rollback_floor = 3;
    record.slots.a.rollback_index = 3;
    record.slots.b.rollback_index = 3;
    let (mut fields, contents) = slot_contents(Slot::A);
    fields.rollback_index = 3;
    let mut bytes = disk(record);
    put(&mut bytes, SLOTS.a.offset, &slot_image(fields, contents));
    let disk = TestDisk::new(bytes);
    let expected = ["slot B: rollback index 2 is below the floor 3", "=> slot A, attempt 0"];
    assert_eq!(failures(&disk), expected);
    assert!(disk.writes.borrow().is_empty());
}

#[test]
fn the_only_system_is_not_locked_out_by_the_floor() {
    let mut record = record(State::Empty, State::Proven);
    record.rollback_floor = 3;
    record.slots.b.rollback_index = 3;
    let disk = TestDisk::new(disk(record));
    let expected = [
        "slot B: rollback index 2 is below the floor 3",
        SAFE_B,
        "slot B: starting in 30 s",
        "=> slot B, attempt 4, safe, waited 30 s",
    ];
    assert_eq!(failures(&disk), expected);
    assert!(disk.writes.borrow().is_empty());
}

#[test]
fn a_slot_that_could_not_be_read_once_is_not_written_off_when_the_record_is_lost() {
    let mut disk = TestDisk::new(blank_disk());
    disk.unreadable = SLOTS.b.slice(layout::manifest_area(SLOTS.b.length).expect("room"));
    let failures = failures(&disk);
    assert!(failures[2].starts_with("slot B: manifest: cannot read"), "{failures:?}");
    assert_eq!(failures.last().map(String::as_str), Some("=> slot A, attempt 0"));
    assert!(disk.writes.borrow().is_empty());
    disk.unreadable = None;
    assert_eq!(boot_once(&TestMachine::default(), &disk), Some((Slot::B, 1)));
}

#[test]
fn a_loader_without_keys_starts_nothing() {
    let machine = TestMachine::default();
    let disk = TestDisk::new(disk(record(State::Proven, State::Proven)));
    let started = boot(&machine, disk, SECTOR, &TrustRoot::default());
    assert_eq!(started, Err(NothingStarts));
    let expected = "slot A: manifest: no key is trusted here".to_owned();
    assert!(machine.said.borrow().contains(&expected));
}

#[test]
fn a_disk_without_a_table_starts_nothing() {
    let failures = failures(&TestDisk::new(vec![0; DISK_BYTES]));
    let expected = "disk: no partition table: primary: no GPT header; backup: no GPT header; \
                    MBR: no MBR";
    assert_eq!(failures, [expected, "=> nothing"]);
}
