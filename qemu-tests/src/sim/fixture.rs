//! The small disk that the simulator starts from, and the systems that go onto it. Everything is
//! made here, from fixed numbers: a disk is the same on every machine and in every run.
//!
//! ```text
//! 0        4 MiB             12 MiB       16 MiB       20 MiB       24 MiB
//! │ GPT    │ record (8 MiB)   │ slot A     │ slot B     │ (nothing)  │
//! ```
//! Every partition starts at its own 4 MiB, as on a real disk, so that a lost page of 4 MiB hits
//! one of them only. Slots are small, because simulated updates write all of them.
use std::rc::Rc;
use std::sync::LazyLock;

use builder::bundle::Settings;
use builder::sign::Key;
use builder::signer::Signer;
use ondisk::boot_record;
use ondisk::boot_record::{Copy, Entry, Record, Sequence, State, Version};
use ondisk::digest::Digest;
use ondisk::envelope::{self, Role, Signature};
use ondisk::guid::Guid;
use ondisk::keyring::KeyId;
use ondisk::layout::{Extent, MANIFEST_AREA_BYTES, PerSlot, RECORD_TYPE, SLOT_TYPE, Slot};
use ondisk::manifest::{Fields, Manifest, Part, Profile, Unpacked};
use ondisk::trust_root::TrustRoot;

use crate::simdisk::{Image, SECTOR, Store};

/// Where the record lies.
pub const RECORD: Extent = Extent { offset: 4 << 20, length: 8 << 20 };
/// Where the slots lie.
pub const SLOTS: PerSlot<Extent> = PerSlot {
    a: Extent { offset: 12 << 20, length: SLOT_BYTES },
    b: Extent { offset: 16 << 20, length: SLOT_BYTES },
};
/// Size of a slot.
pub const SLOT_BYTES: u64 = 96 * 1024;
/// The board that all systems are made for.
pub const BOARD: &str = "simulated";
/// The versions there are; their rollback indices are their places, from 1.
pub const VERSIONS: [&str; 4] = ["1.0", "2.0", "3.0", "4.0"];

const DISK_SECTORS: usize = 24 * 2048;
const KERNEL_OFFSET: u64 = 3 * 4096;
const INITRD_OFFSET: u64 = 4 * 4096;

/// The key that signs everything here.
pub fn key() -> Key {
    Key::from_seed([1; 32], builder::sign::Profile::Development)
}

/// What the simulated loader and agent trust.
pub fn trust() -> TrustRoot {
    TrustRoot::of_one_key(key().trusted().unwrap())
}

/// The rollback index of one of [`VERSIONS`].
pub fn rollback_index(version: &str) -> u64 {
    let place = VERSIONS.iter().position(|known| *known == version).unwrap();
    u64::try_from(place).unwrap() + 1
}

/// A system, as it lies in a slot.
pub struct System {
    /// Its version, one of [`VERSIONS`].
    pub version: &'static str,
    /// Its manifest.
    pub manifest: Manifest,
    /// The whole slot.
    pub slot: Vec<u8>,
    /// The bundle that brings it.
    pub bundle: Vec<u8>,
}

impl System {
    /// The system of this version.
    pub fn new(version: &'static str) -> Self {
        Self::made_for(BOARD, version, key())
    }

    /// The same for some board, signed by some key.
    fn made_for(board: &str, version: &'static str, key: Key) -> Self {
        let mut slot = vec![0; usize::try_from(SLOT_BYTES).unwrap()];
        let fields = Fields { board: board.to_owned(), ..Self::fields(version, &mut slot) };
        let manifest = Manifest::new(fields, SLOT_BYTES).unwrap();
        let envelope = signed(Role::SLOT_MANIFEST, manifest.encode().as_bytes(), &key);
        let start = slot.len() - usize::try_from(MANIFEST_AREA_BYTES).unwrap();
        slot[start..start + envelope.len()].copy_from_slice(&envelope);
        let bundle = bundle(&slot, &key.into());
        Self { version, manifest, slot, bundle }
    }

    fn fields(version: &str, slot: &mut [u8]) -> Fields {
        let mut part = |offset: u64, contents: &[u8]| {
            let start = usize::try_from(offset).unwrap();
            slot[start..start + contents.len()].copy_from_slice(contents);
            let length = u64::try_from(contents.len()).unwrap();
            Part { extent: Extent { offset, length }, sha256: Digest::of(contents) }
        };
        let kernel = contents(version, "kernel", 3000);
        let packed = zstd::bulk::compress(&kernel, 3).unwrap();
        Fields {
            board: BOARD.to_owned(),
            version: version.to_owned(),
            rollback_index: rollback_index(version),
            profile: Profile::Development,
            root: part(0, &contents(version, "root", 2 * 4096)),
            verity: part(2 * 4096, &contents(version, "verity", 4096)),
            kernel: part(KERNEL_OFFSET, &packed),
            kernel_unpacked: Unpacked {
                length: u64::try_from(kernel.len()).unwrap(),
                sha256: Digest::of(&kernel),
            },
            initrd: part(INITRD_OFFSET, &contents(version, "initrd", 2000)),
            verity_salt: [3; 32],
            verity_root_hash: Digest::of(version.as_bytes()),
            command_line: format!("panic=5 of={version}"),
        }
    }
}

/// Bytes that say whose they are and differ from sector to sector.
pub fn contents(version: &str, part: &str, length: usize) -> Vec<u8> {
    let lines = (0..).flat_map(|line| format!("{part} of {version}, line {line}\n").into_bytes());
    lines.take(length).collect()
}

/// The builder's bundle of a slot.
fn bundle(slot: &Vec<u8>, signer: &Signer) -> Vec<u8> {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("bundle");
    let settings = Settings { level: 3, window_log: 17, chunk_bytes: 4096 };
    builder::bundle::write(&path, slot, signer, settings, |_| ()).unwrap();
    std::fs::read(path).unwrap()
}

/// Bundles that a device that runs 2.0 with a floor of 2 must refuse, by what is wrong with them.
pub fn wrong_bundles() -> Vec<(&'static str, Vec<u8>)> {
    let good = System::new("3.0").bundle;
    let changed = |change: fn(&mut Vec<u8>)| {
        let mut bundle = good.clone();
        change(&mut bundle);
        bundle
    };
    let stranger = Key::from_seed([7; 32], builder::sign::Profile::Development);
    vec![
        ("a byte short", changed(|bundle| bundle.truncate(bundle.len() - 1))),
        ("ends in its header", changed(|bundle| bundle.truncate(2000))),
        ("empty", Vec::new()),
        ("a byte too long", changed(|bundle| bundle.push(0))),
        ("wrong magic", changed(|bundle| bundle[0] ^= 1)),
        ("changed header", changed(|bundle| bundle[40] ^= 1)),
        ("changed slot manifest", changed(|bundle| bundle[4096 + 40] ^= 1)),
        ("unknown key", System::made_for(BOARD, "3.0", stranger).bundle),
        ("another board", System::made_for("another", "3.0", key()).bundle),
        ("downgrade", System::new("1.0").bundle),
    ]
}

/// An envelope around any payload, by [`key`]; `None` if it is too long for one.
pub fn signed_here(role: Role, payload: &[u8]) -> Option<Vec<u8>> {
    static KEY: LazyLock<(Key, KeyId)> = LazyLock::new(|| (key(), key().id().unwrap()));
    let (key, id) = &*KEY;
    let message = envelope::signed_message(role, payload).ok()?;
    let signature = Signature { key: *id, bytes: key.sign(&message) };
    envelope::encode(role, payload, &[signature]).ok()
}

/// An envelope around `payload` with the signature of a key.
fn signed(role: Role, payload: &[u8], key: &Key) -> Vec<u8> {
    let message = envelope::signed_message(role, payload).unwrap();
    let signature = Signature { key: key.id().unwrap(), bytes: key.sign(&message) };
    envelope::encode(role, payload, &[signature]).unwrap()
}

/// What the record of a disk says at first about a slot.
pub fn entry(version: &str, state: State, priority: u8) -> Entry {
    let rollback_index = rollback_index(version);
    Entry { state, priority, rollback_index, version: Version::new(version) }
}

/// A disk under construction.
pub struct Disk {
    bytes: Vec<u8>,
}

impl Disk {
    /// A disk with a table and nothing else.
    pub fn new() -> Self {
        let mut bytes = vec![0; DISK_SECTORS * SECTOR];
        write_table(&mut bytes);
        Self { bytes }
    }

    /// Puts a system into a slot.
    #[must_use]
    pub fn with(mut self, slot: Slot, system: &System) -> Self {
        self.put(SLOTS[slot].offset, &system.slot);
        self
    }

    /// Writes a record into both copies, the newer one into the first.
    #[must_use]
    pub fn with_record(mut self, rollback_floor: u64, a: Entry, b: Entry) -> Self {
        let slots = PerSlot { a, b };
        for (copy, sequence) in [(Copy::First, 9), (Copy::Second, 8)] {
            let record = Record { sequence: Sequence(sequence), rollback_floor, slots };
            boot_record::write(&mut self.bytes, RECORD, copy, &record).unwrap();
        }
        self
    }

    /// Overwrites some bytes.
    #[must_use]
    pub fn damaged(mut self, offset: u64, bytes: &[u8]) -> Self {
        self.put(offset, bytes);
        self
    }

    /// The disk as bytes.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// The disk as an image.
    pub fn image(&self, store: &Rc<Store>) -> Image {
        let zero = store.id(&[0; SECTOR]);
        let mut image = Image::filled(DISK_SECTORS, zero);
        for (sector, contents) in self.bytes.as_chunks::<SECTOR>().0.iter().enumerate() {
            image.set(sector, store.id(contents));
        }
        image
    }

    fn put(&mut self, offset: u64, bytes: &[u8]) {
        let offset = usize::try_from(offset).unwrap();
        self.bytes[offset..offset + bytes.len()].copy_from_slice(bytes);
    }
}

impl Default for Disk {
    fn default() -> Self {
        Self::new()
    }
}

/// The sectors of a run of bytes.
pub fn sectors(extent: Extent) -> std::ops::Range<usize> {
    let sector = |bytes: u64| usize::try_from(bytes).unwrap() / SECTOR;
    sector(extent.offset)..sector(extent.offset + extent.length)
}

/// A primary GPT with four entries of our types.
fn write_table(disk: &mut [u8]) {
    let partitions = [
        (RECORD_TYPE, "record", RECORD),
        (SLOT_TYPE, "slot-a", SLOTS.a),
        (SLOT_TYPE, "slot-b", SLOTS.b),
    ];
    let mut entries = [0; 4 * 128];
    let places = (10..).zip(entries.chunks_mut(128));
    for ((number, entry), (type_guid, name, extent)) in places.zip(partitions) {
        let range = sectors(extent);
        entry[..16].copy_from_slice(&type_guid.to_bytes());
        entry[16..32].copy_from_slice(&Guid::new(number, 2, 3, [4; 8]).to_bytes());
        entry[32..40].copy_from_slice(&u64::try_from(range.start).unwrap().to_le_bytes());
        entry[40..48].copy_from_slice(&u64::try_from(range.end - 1).unwrap().to_le_bytes());
        for (unit, target) in name.encode_utf16().zip(entry[56..].chunks_mut(2)) {
            target.copy_from_slice(&unit.to_le_bytes());
        }
    }
    let mut header = [0; 92];
    header[..16].copy_from_slice(b"EFI PART\0\0\x01\0\x5c\0\0\0");
    let last = u64::try_from(DISK_SECTORS).unwrap() - 1;
    for (offset, value) in [(24, 1), (32, last), (40, 3), (48, last - 1), (72, 2)] {
        header[offset..offset + 8].copy_from_slice(&u64::to_le_bytes(value));
    }
    header[56..72].copy_from_slice(&Guid::new(1, 2, 3, [4; 8]).to_bytes());
    for (offset, value) in [(80, 4), (84, 128), (88, crc32(&entries))] {
        header[offset..offset + 4].copy_from_slice(&u32::to_le_bytes(value));
    }
    let crc = crc32(&header);
    header[16..20].copy_from_slice(&crc.to_le_bytes());
    disk[SECTOR..SECTOR + header.len()].copy_from_slice(&header);
    disk[2 * SECTOR..2 * SECTOR + entries.len()].copy_from_slice(&entries);
}

/// Bit by bit, so that the table owes nothing to the code that reads it.
pub fn crc32(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(!0_u32, |crc, &byte| {
        (0..8).fold(crc ^ u32::from(byte), |crc, _| {
            if crc & 1 == 1 { (crc >> 1) ^ 0xedb8_8320 } else { crc >> 1 }
        })
    })
}
