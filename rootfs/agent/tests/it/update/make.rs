//! A small disk, small systems, and bundles of them.
use std::io::Write as _;

use ed25519_dalek::{Signer as _, SigningKey};

use agent::apply::{self, Cause, Error, Installed, Left, Place, Progress, Rules, Source};
use ondisk::boot_record::{self, Copies, Copy, Entry, Record, Sequence, State, Version};
use ondisk::bundle::{self, Blob, Group, HEADER_BYTES, Header, Index};
use ondisk::device::{BeyondEnd, ReadAt as _};
use ondisk::digest::Digest;
use ondisk::envelope::{self, Role, Signature};
use ondisk::keyring::{Keyring, PublicKey};
use ondisk::layout::{self, Extent, PerSlot, RECORD_PARTITION_BYTES, Slot};
use ondisk::manifest::{self, Fields, Manifest, Part, PartName, Profile, Unpacked};
use ondisk::trust_root::TrustRoot;
use ondisk::verify::{Check, read_part};

pub(crate) const MIB: u64 = 1024 * 1024;
pub(crate) const SLOT_BYTES: u64 = 2 * MIB;
pub(crate) const BOARD: &str = "test-board";
/// Seed of the key that the device trusts.
pub(crate) const TRUSTED: u8 = 1;

/// Behind the partition table.
pub(crate) const RECORD_OFFSET: u64 = 64 * 1024;

pub(crate) const PLACE: Place = Place {
    record: Extent { offset: RECORD_OFFSET, length: RECORD_PARTITION_BYTES },
    slots: PerSlot {
        a: Extent { offset: 9 * MIB, length: SLOT_BYTES },
        b: Extent { offset: 11 * MIB, length: SLOT_BYTES },
    },
    running: Slot::A,
};

fn secret(seed: u8) -> SigningKey {
    SigningKey::from_bytes(&[seed; 32])
}

pub(crate) fn trust(seeds: &[u8]) -> TrustRoot {
    let key = |&seed| PublicKey::from_bytes(secret(seed).verifying_key().as_bytes());
    let keys = seeds.iter().map(key).collect::<Result<_, _>>().unwrap();
    TrustRoot { number: 1, ..TrustRoot::fixed(Keyring::new(keys).unwrap()) }
}

fn sign(seed: u8, role: Role, payload: &[u8]) -> Vec<u8> {
    let message = envelope::signed_message(role, payload).unwrap();
    let bytes = secret(seed).sign(&message).to_bytes();
    let key = trust(&[seed]).release.keys()[0].id();
    envelope::encode(role, payload, &[Signature { key, bytes }]).unwrap()
}

/// A system: what is in the slot and what its manifest says.
#[derive(Clone)]
pub(crate) struct System {
    pub(crate) image: Vec<u8>,
    pub(crate) fields: Fields,
}

impl System {
    /// 1 MiB and a bit of bytes that compress to about half, different for each seed.
    pub(crate) fn new(version: &str, rollback_index: u64, seed: u32) -> Self {
        Self::with_root(version, rollback_index, noise(seed, 256 * 4096))
    }

    pub(crate) fn with_root(version: &str, rollback_index: u64, root: Vec<u8>) -> Self {
        let blocks = u64::try_from(root.len()).unwrap() / 4096;
        let tree = usize::try_from(manifest::verity_tree_blocks(blocks).unwrap()).unwrap() * 4096;
        let mut image = root;
        let mut parts = Vec::new();
        let mut place = |image: &mut Vec<u8>, start: usize| {
            let length = u64::try_from(image.len() - start).unwrap();
            let offset = u64::try_from(start).unwrap();
            let part =
                Part { extent: Extent { offset, length }, sha256: Digest::of(&image[start..]) };
            image.resize(image.len().next_multiple_of(4096), 0);
            parts.push(part);
        };
        place(&mut image, 0);
        for (seed, length) in [(11, tree), (12, 5000), (13, 3)] {
            let start = image.len();
            image.extend(noise(seed, length));
            place(&mut image, start);
        }
        let [root, verity, kernel, initrd] = parts.try_into().unwrap();
        let fields = Fields {
            board: BOARD.to_owned(),
            version: version.to_owned(),
            rollback_index,
            profile: Profile::Development,
            root,
            verity,
            kernel,
            kernel_unpacked: Unpacked { length: 1, sha256: Digest::of(b"unpacked") },
            initrd,
            verity_salt: [0; 32],
            verity_root_hash: Digest::of(b"tree"),
            command_line: "panic=5".to_owned(),
        };
        Self { image, fields }
    }

    pub(crate) fn manifest(&self, seed: u8) -> Vec<u8> {
        sign(seed, Role::SLOT_MANIFEST, self.fields.encode().as_bytes())
    }
}

/// Bytes of a small generator, each twice.
pub(crate) fn noise(seed: u32, length: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(2_654_435_761) | 1;
    let mut bytes = Vec::with_capacity(length + 1);
    while bytes.len() < length {
        state ^= state << 13;
        state ^= state >> 17;
        state ^= state << 5;
        bytes.extend([state.to_le_bytes()[1]; 2]);
    }
    bytes.truncate(length);
    bytes
}

/// One zstd frame with a window of this many bits.
pub(crate) fn pack(image: &[u8], window_log: u32) -> Vec<u8> {
    let mut encoder = zstd::stream::Encoder::new(Vec::new(), 3).unwrap();
    encoder.window_log(window_log).unwrap();
    encoder.write_all(image).unwrap();
    encoder.finish().unwrap()
}

/// The pieces of a bundle before they are put together: a test changes one of them.
pub(crate) struct Pieces {
    pub(crate) header_seed: u8,
    pub(crate) manifest: Vec<u8>,
    pub(crate) index: Index,
    pub(crate) image_bytes: u64,
    pub(crate) stream: Vec<u8>,
    pub(crate) chunk_bytes: usize,
}

impl Pieces {
    pub(crate) fn of(system: &System) -> Self {
        let groups = system.image.chunks(7 * 4096).map(|group| Group {
            blocks: u32::try_from(group.len() / 4096).unwrap(),
            sha256: Digest::of(group),
        });
        let index = Index { chunks: Vec::new(), groups: groups.collect() };
        Self {
            header_seed: TRUSTED,
            manifest: system.manifest(TRUSTED),
            index,
            image_bytes: u64::try_from(system.image.len()).unwrap(),
            stream: pack(&system.image, 17),
            chunk_bytes: 100_000,
        }
    }

    pub(crate) fn build(&self) -> Vec<u8> {
        let chunks = self.stream.chunks(self.chunk_bytes).map(Digest::of).collect();
        let index = Index { chunks, groups: self.index.groups.clone() }.encode();
        let header = Header::new(bundle::Fields {
            slot_manifest: Blob::of(&self.manifest),
            image_bytes: self.image_bytes,
            index: Blob::of(&index),
            stream_bytes: u64::try_from(self.stream.len()).unwrap(),
            chunk_bytes: u64::try_from(self.chunk_bytes).unwrap(),
            window_bytes: 8 * MIB,
        });
        let text = header.unwrap().fields().encode();
        let mut bytes = sign(self.header_seed, Role::BUNDLE, text.as_bytes());
        bytes.resize(HEADER_BYTES, 0);
        [bytes, self.manifest.clone(), index, self.stream.clone()].concat()
    }
}

pub(crate) fn bundle(system: &System) -> Vec<u8> {
    Pieces::of(system).build()
}

/// A disk that runs version 1.0 (index 5) from slot A; slot B is full of something.
pub(crate) fn disk() -> Vec<u8> {
    let mut disk = vec![0; usize::try_from(13 * MIB).unwrap()];
    put_system(&mut disk, Slot::A, &System::new("1.0", 5, 100));
    let start = offset(PLACE.slots.b);
    let end = start + usize::try_from(SLOT_BYTES).unwrap();
    disk[start..end].copy_from_slice(&noise(200, end - start));
    let a = entry(State::Proven, 1, 5, "1.0");
    set_record(&mut disk, PerSlot { a, b: Entry::default() });
    disk
}

pub(crate) fn put_system(disk: &mut [u8], slot: Slot, system: &System) {
    let extent = PLACE.slots[slot];
    let start = offset(extent);
    disk[start..start + system.image.len()].copy_from_slice(&system.image);
    let area = extent.slice(layout::manifest_area(extent.length).unwrap()).unwrap();
    let manifest = system.manifest(TRUSTED);
    let (start, end) = (offset(area), offset(extent) + usize::try_from(SLOT_BYTES).unwrap());
    disk[start..end].fill(0);
    disk[start..start + manifest.len()].copy_from_slice(&manifest);
}

pub(crate) fn entry(state: State, priority: u8, rollback_index: u64, version: &str) -> Entry {
    Entry { state, priority, rollback_index, version: Version::new(version) }
}

pub(crate) fn set_record(disk: &mut Vec<u8>, slots: PerSlot<Entry>) {
    for (copy, sequence) in [(Copy::First, 1), (Copy::Second, 2)] {
        let record = Record { sequence: Sequence(sequence), rollback_floor: 5, slots };
        boot_record::write(disk, PLACE.record, copy, &record).unwrap();
    }
}

pub(crate) fn copies(disk: &Vec<u8>) -> Copies<BeyondEnd> {
    Copies::read(disk, PLACE.record)
}

pub(crate) fn record(disk: &Vec<u8>) -> Record {
    *copies(disk).newest().unwrap()
}

pub(crate) fn offset(extent: Extent) -> usize {
    usize::try_from(extent.offset).unwrap()
}

pub(crate) fn install(disk: &mut Vec<u8>, bundle: &[u8]) -> Result<Installed, Error<BeyondEnd>> {
    let length = u64::try_from(bundle.len()).ok();
    install_from(disk, Source { bytes: bundle, length }, &trust(&[TRUSTED]))
}

/// As from a pipe, whose length nobody knows.
pub(crate) fn install_piped(
    disk: &mut Vec<u8>,
    bundle: &[u8],
) -> Result<Installed, Error<BeyondEnd>> {
    install_from(disk, Source { bytes: bundle, length: None }, &trust(&[TRUSTED]))
}

pub(crate) fn install_from(
    disk: &mut Vec<u8>,
    source: Source<&[u8]>,
    trust: &TrustRoot,
) -> Result<Installed, Error<BeyondEnd>> {
    let rules = Rules { board: BOARD, profile: Profile::Development, trust };
    let mut steps = Vec::new();
    let result = apply::install(disk, &PLACE, &rules, source, &mut |step| steps.push(step));
    check_progress(&steps);
    result
}

/// Progress only grows and first writes, then reads.
fn check_progress(steps: &[Progress]) {
    let rank = |step: &Progress| match *step {
        Progress::Writing { done, total, kept } => {
            assert!(done <= total && kept <= done);
            (0, done)
        }
        Progress::ReadingBack { done, total } => {
            assert!(done <= total);
            (1, done)
        }
    };
    assert!(steps.is_sorted_by_key(rank));
}

/// Checks that slot B holds all of a system, as the loader would.
pub(crate) fn assert_holds(disk: &Vec<u8>, system: &System) {
    let slot = PLACE.slots.b;
    let area = slot.slice(layout::manifest_area(slot.length).unwrap()).unwrap();
    let mut bytes = vec![0; usize::try_from(area.length).unwrap()];
    disk.read_at(area.offset, &mut bytes).unwrap();
    let manifest = manifest::Unverified::parse(&bytes).unwrap();
    let (manifest, _) = manifest.verify(&trust(&[TRUSTED]), slot.length).unwrap();
    assert_eq!(*manifest, system.fields);
    for name in PartName::ALL {
        let part = manifest.part(name);
        let mut buffer = vec![0; usize::try_from(part.extent.length).unwrap()];
        read_part(disk, slot, part, &mut buffer, 1 << 20).unwrap();
        let mut check = Check::part(part);
        check.update(&buffer);
        check.finish().unwrap();
    }
    assert!(Manifest::new(system.fields.clone(), slot.length).is_ok());
}

/// Checks that a bundle is refused with these words and not one byte of the disk changes.
pub(crate) fn assert_untouched(bundle: &[u8], expected: &str) {
    let mut disk = disk();
    let before = disk.clone();
    let error = install(&mut disk, bundle).unwrap_err();
    assert_eq!(error.to_string(), expected);
    assert_eq!(error.left, Left::Untouched, "{expected}");
    assert!(disk == before, "{expected}: the disk has changed");
}

/// Checks that a piped bundle fails with these words, that slot B is empty then in both copies of
/// the record and has no manifest, and that slot A is as it was.
pub(crate) fn assert_left_empty(bundle: &[u8], expected: &str) -> Cause<BeyondEnd> {
    let mut disk = disk();
    let before = disk.clone();
    let error = install_piped(&mut disk, bundle).unwrap_err();
    assert_eq!(error.to_string(), expected);
    assert_eq!(error.left, Left::Empty, "{expected}");
    let copies = copies(&disk);
    for copy in [&copies.first, &copies.second] {
        let record = copy.as_ref().unwrap();
        assert_eq!(record.slots.b.state, State::Empty, "{expected}");
        assert_eq!(record.slots.a, entry(State::Proven, 1, 5, "1.0"), "{expected}");
    }
    let area = offset(PLACE.slots.b) + usize::try_from(SLOT_BYTES - 64 * 1024).unwrap();
    assert!(disk[area..area + 4096].iter().all(|&byte| byte == 0), "{expected}: a manifest");
    let b = offset(PLACE.slots.b);
    let a = offset(PLACE.slots.a);
    assert!(disk[a..b] == before[a..b], "{expected}: slot A has changed");
    error.cause
}
