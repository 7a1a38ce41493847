//! The parsers, one target each, with the invariants that every input must keep.
use std::sync::LazyLock;

use ondisk::boot_args::{BootArgs, DiskId};
use ondisk::boot_record::{Entry, RECORD_BYTES, Reason, Record, Sequence, State};
use ondisk::bundle::{self, Blob, HEADER_BYTES, Index};
use ondisk::envelope::Role;
use ondisk::gpt;
use ondisk::guid::Guid;
use ondisk::layout::{Extent, MANIFEST_AREA_BYTES, PerSlot, Slot};
use ondisk::manifest::{self, PartName};
use ondisk::mbr;

use ::config::Config;
use builder::flash::block_map::BlockMap;
use builder::image::bmap;
use builder::image::sparse::Sparse;
use ondisk::digest::Digest;
use ondisk::trust_root::TrustRoot;

use super::Target;
use super::import_target::{import, import_seeds, mend_import};
use super::kernel_target::{kernel, kernel_seeds, spans, spans_seeds};
use super::network_target::{mend_network, network, network_seeds};
use super::online_targets::{
    channel, channel_seeds, pack, pack_seeds, patch, patch_seeds, recipe, recipe_seeds, trust_root,
    trust_root_seeds,
};
use crate::sim::fixture::{self, SLOT_BYTES, System, crc32, entry, signed_here};

pub(super) static KEYS: LazyLock<TrustRoot> = LazyLock::new(fixture::trust);

/// All of them.
pub const TARGETS: [Target; 18] = [
    // A record that is read is written back bit by bit: no field is passed over.
    Target { name: "record", seeds: record_seeds, mend: mend_record, run: record },
    // Whoever signed it, a manifest keeps its parts in order and within its slot.
    Target { name: "manifest", seeds: manifest_seeds, mend: |_| (), run: manifest },
    // Nothing unsigned gets through, whatever the area holds.
    Target { name: "envelope", seeds: envelope_seeds, mend: |_| (), run: envelope },
    // An index describes exactly the image, and there is no second way to write it.
    Target { name: "bundle", seeds: bundle_seeds, mend: mend_bundle, run: bundle },
    // Partitions lie on the disk and apart from each other.
    Target { name: "gpt", seeds: gpt_seeds, mend: mend_gpt, run: gpt },
    Target { name: "mbr", seeds: mbr_seeds, mend: mend_mbr, run: mbr },
    // What is to be written ascends and lies in the image.
    Target { name: "block-map", seeds: map_seeds, mend: |map| mend_map(map), run: block_map },
    // What is accepted can be written in one way, and is read as the same again.
    Target { name: "config", seeds: config_seeds, mend: |_| (), run: config },
    // Whatever comes of the files that others write is a config, and says where it is from.
    Target { name: "import", seeds: import_seeds, mend: mend_import, run: import },
    Target { name: "channel", seeds: channel_seeds, mend: |_| (), run: channel },
    Target { name: "trust-root", seeds: trust_root_seeds, mend: |_| (), run: trust_root },
    Target { name: "pack", seeds: pack_seeds, mend: |_| (), run: pack },
    Target { name: "patch", seeds: patch_seeds, mend: |_| (), run: patch },
    Target { name: "recipe", seeds: recipe_seeds, mend: |_| (), run: recipe },
    Target { name: "spans", seeds: spans_seeds, mend: |_| (), run: spans },
    // What the loader unpacks is what was packed.
    Target { name: "kernel", seeds: kernel_seeds, mend: |_| (), run: kernel },
    // Nothing that a network says gets into a file or onto the console as something else.
    Target { name: "network", seeds: network_seeds, mend: mend_network, run: network },
    // What is understood of a command line is what would be written there.
    Target { name: "command-line", seeds: line_seeds, mend: |_| (), run: line },
];

fn record_seeds() -> Vec<Vec<u8>> {
    let states =
        [State::Proven, State::Unproven { tries: 2 }, State::Bad(Reason::UNHEALTHY), State::Empty];
    let record = |state| Record {
        sequence: Sequence(7),
        rollback_floor: 3,
        slots: PerSlot { a: entry("1.0", state, 1), b: Entry::default() },
    };
    states.map(|state| record(state).encode().to_vec()).to_vec()
}

fn mend_record(input: &mut Vec<u8>) {
    input.resize(RECORD_BYTES, 0);
    let crc = crc32(&input[..RECORD_BYTES - 4]);
    input[RECORD_BYTES - 4..].copy_from_slice(&crc.to_le_bytes());
}

fn record(input: &[u8]) -> String {
    let mut sector = [0; RECORD_BYTES];
    sector.iter_mut().zip(input).for_each(|(target, byte)| *target = *byte);
    match Record::decode(&sector) {
        Ok(record) => {
            assert_eq!(record.encode(), sector, "reads back as something else");
            format!("good {:?} {:?}", record.slots.a.state, record.slots.b.state)
        }
        Err(error) => error.to_string(),
    }
}

fn manifest_seeds() -> Vec<Vec<u8>> {
    let text = |version| System::new(version).manifest.encode().into_bytes();
    vec![text("1.0"), text("2.0")]
}

fn manifest(input: &[u8]) -> String {
    let Some(envelope) = signed_here(Role::SLOT_MANIFEST, input) else {
        return "too long to sign".to_owned();
    };
    verify_manifest(&envelope, Some(input))
}

fn verify_manifest(area: &[u8], signed: Option<&[u8]>) -> String {
    let found = manifest::Unverified::parse(area).and_then(|found| found.verify(&KEYS, SLOT_BYTES));
    let manifest = match found {
        Ok((manifest, _)) => manifest,
        Err(error) => return error.to_string(),
    };
    if let Some(text) = signed {
        assert_eq!(manifest.encode().as_bytes(), text, "there is a second way to write it");
    }
    let mut end = 0;
    for name in PartName::ALL {
        let part = manifest.part(name).extent;
        assert!(part.length > 0 && part.offset >= end, "parts overlap");
        end = part.end().expect("a part ends");
    }
    assert!(end <= SLOT_BYTES - MANIFEST_AREA_BYTES, "a part lies over the manifest");
    format!("good {}", manifest.profile)
}

fn envelope_seeds() -> Vec<Vec<u8>> {
    let area = usize::try_from(SLOT_BYTES - MANIFEST_AREA_BYTES).unwrap();
    let short = |version| System::new(version).slot[area..area + 2048].to_vec();
    vec![short("1.0"), short("2.0")]
}

/// Only the seeds are signed: whatever gets through says what one of them says.
fn envelope(input: &[u8]) -> String {
    static SIGNED: LazyLock<Vec<Vec<u8>>> = LazyLock::new(manifest_seeds);
    let answer = verify_manifest(input, None);
    if answer.starts_with("good") {
        let found = manifest::Unverified::parse(input).unwrap().fields_unverified().unwrap();
        let signed = SIGNED.contains(&found.encode().into_bytes());
        assert!(signed, "something that nobody signed was accepted");
    }
    answer
}

/// Header text, a zero, index.
fn bundle_seeds() -> Vec<Vec<u8>> {
    let seed = |version| {
        let file = System::new(version).bundle;
        let area: &[u8; HEADER_BYTES] = file.first_chunk().unwrap();
        let header = bundle::Unverified::parse(area).unwrap().header_unverified().unwrap();
        let start = HEADER_BYTES + usize::try_from(header.fields().slot_manifest.length).unwrap();
        let length = usize::try_from(header.fields().index.length).unwrap();
        [header.fields().encode().as_bytes(), &[0], &file[start..start + length]].concat()
    };
    vec![seed("1.0"), seed("2.0")]
}

/// The header's line about the index says what is true of it.
fn mend_bundle(input: &mut Vec<u8>) {
    let Some(zero) = input.iter().position(|byte| *byte == 0) else { return };
    let Ok(text) = std::str::from_utf8(&input[..zero]) else { return };
    let index = input[zero + 1..].to_vec();
    let mended: String = text
        .split_inclusive('\n')
        .map(|line| match line.starts_with("index ") {
            true => format!("index {}\n", Blob::of(&index)),
            false => line.to_owned(),
        })
        .collect();
    *input = [mended.as_bytes(), &[0], &index].concat();
}

fn bundle(input: &[u8]) -> String {
    let zero = input.iter().position(|byte| *byte == 0).unwrap_or(input.len());
    let (text, index) = (&input[..zero], input.get(zero + 1..).unwrap_or_default());
    let mut area = [0; HEADER_BYTES];
    match signed_here(Role::BUNDLE, text) {
        Some(envelope) if envelope.len() <= HEADER_BYTES => {
            area[..envelope.len()].copy_from_slice(&envelope);
        }
        _ => return "header too long".to_owned(),
    }
    let verified = bundle::Unverified::parse(&area).and_then(|found| found.verify(&KEYS));
    let header = match verified {
        Ok((header, _)) => header,
        Err(error) => return error.to_string(),
    };
    assert_eq!(header.fields().encode().as_bytes(), text, "there is a second way to write it");
    match Index::decode(&header, index) {
        Ok(found) => {
            assert_eq!(found.encode(), index, "there is a second way to write the index");
            let bytes = found.groups.iter().map(|group| u128::from(group.bytes())).sum::<u128>();
            assert_eq!(bytes, u128::from(header.fields().image_bytes), "not the image");
            "good index".to_owned()
        }
        Err(error) => format!("index: {error}"),
    }
}

/// Sectors 1 and 2 of a disk of 24 MiB: header and four entries.
fn gpt_seeds() -> Vec<Vec<u8>> {
    vec![fixture::Disk::new().bytes()[512..3 * 512].to_vec()]
}

fn mend_gpt(input: &mut Vec<u8>) {
    input.resize(1024, 0);
    let size = u32::from_le_bytes(*input[12..].first_chunk().unwrap());
    let size = usize::try_from(size).unwrap().clamp(92, 512);
    let entries = crc32(&input[512..]);
    input[88..92].copy_from_slice(&entries.to_le_bytes());
    input[16..20].fill(0);
    let crc = crc32(&input[..size]);
    input[16..20].copy_from_slice(&crc.to_le_bytes());
}

fn gpt(input: &[u8]) -> String {
    let mut disk = vec![0_u8; 64 * 512];
    disk[512..].iter_mut().zip(input).for_each(|(target, byte)| *target = *byte);
    // As large as the seed says; the rest of it is never read.
    let disk = Large(disk);
    let table = match gpt::Table::read(&disk, 512) {
        Ok(table) => table,
        Err(error) => return error.primary.to_string(),
    };
    let partitions: Vec<_> = table.partitions.iter().map(|found| found.extent).collect();
    lie_apart(&partitions);
    format!("good, {} partitions", ["no", "one", "two", "three", "four"][partitions.len().min(4)])
}

/// Partitions, in any order, do not overlap and lie on the disk.
fn lie_apart(partitions: &[Extent]) {
    let mut partitions = partitions.to_vec();
    partitions.sort();
    let mut end = 0;
    for extent in &partitions {
        assert!(extent.offset >= end && extent.length > 0, "partitions overlap");
        end = extent.end().expect("a partition ends");
    }
    assert!(end <= Large::BYTES, "a partition lies behind the disk");
}

/// What an MBR has behind its program: signature, entries, magic. Two MiB for each partition.
fn mbr_seeds() -> Vec<Vec<u8>> {
    let mut sector = [0; 512];
    sector[440..444].copy_from_slice(&[1, 2, 3, 4]);
    sector[510..].copy_from_slice(&[0x55, 0xaa]);
    for ((start, kind), entry) in
        (0_u32..).zip(mbr::TYPES).zip(sector[446..510].chunks_exact_mut(16))
    {
        entry[4] = kind;
        entry[8..12].copy_from_slice(&((16 + 2 * start) * 2048).to_le_bytes());
        entry[12..].copy_from_slice(&(2 * 2048_u32).to_le_bytes());
    }
    vec![sector[440..].to_vec()]
}

fn mend_mbr(input: &mut Vec<u8>) {
    input.resize(72, 0);
    input[70..].copy_from_slice(&[0x55, 0xaa]);
}

fn mbr(input: &[u8]) -> String {
    let mut disk = vec![0_u8; 512];
    disk[440..].iter_mut().zip(input).for_each(|(target, byte)| *target = *byte);
    match mbr::Table::read(&Large(disk), 512) {
        Ok(table) => {
            lie_apart(&table.partitions);
            let first = table.partitions[0].offset;
            assert!(first >= 12 << 20, "a partition lies over the record");
            "good table".to_owned()
        }
        Err(error) => error.to_string(),
    }
}

/// A disk of 24 MiB with zeros after its first sectors.
struct Large(Vec<u8>);

impl Large {
    const BYTES: u64 = 24 << 20;
}

impl ondisk::device::ReadAt for Large {
    type Error = ondisk::device::BeyondEnd;

    fn size(&self) -> u64 {
        Self::BYTES
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> Result<(), Self::Error> {
        let length = u64::try_from(buffer.len()).map_err(|_| ondisk::device::BeyondEnd)?;
        if offset.checked_add(length).is_none_or(|end| end > Self::BYTES) {
            return Err(ondisk::device::BeyondEnd);
        }
        let start = usize::try_from(offset).map_err(|_| ondisk::device::BeyondEnd)?;
        buffer.fill(0);
        let known = self.0.get(start..).unwrap_or_default();
        buffer.iter_mut().zip(known).for_each(|(target, byte)| *target = *byte);
        Ok(())
    }
}

fn map_seeds() -> Vec<Vec<u8>> {
    let directory = tempfile::tempdir().unwrap();
    let map = |length, places: &[u64]| {
        let mut image = Sparse::create(&directory.path().join("image"), length).unwrap();
        places.iter().for_each(|place| image.write_at(*place, b"data").unwrap());
        bmap::text(&image.finish().unwrap()).unwrap().into_bytes()
    };
    vec![map(1 << 20, &[0, 8192, 500_000]), map(70_001, &[70_000 - 4])]
}

/// Without a checksum that fits, nothing behind it would ever be read.
fn mend_map(input: &mut [u8]) {
    const OPEN: &[u8] = b"<BmapFileChecksum> ";
    let Some(start) = input.windows(OPEN.len()).position(|window| window == OPEN) else { return };
    let place = start + OPEN.len()..start + OPEN.len() + 64;
    let Some(checksum) = input.get_mut(place.clone()) else { return };
    checksum.fill(b'0');
    let digest = Digest::of(input).to_string();
    input[place].copy_from_slice(digest.as_bytes());
}

fn block_map(input: &[u8]) -> String {
    let map = match BlockMap::parse(&String::from_utf8_lossy(input)) {
        Ok(map) => map,
        // Numbers and places differ from input to input; the first word tells the check.
        Err(error) => return error.to_string().split(' ').take(2).collect::<Vec<_>>().join(" "),
    };
    let mut end = 0;
    for stretch in &map.stretches {
        assert!(stretch.range.start >= end, "stretches overlap");
        assert!(stretch.range.start < stretch.range.end, "an empty stretch");
        assert!(stretch.sha256.is_some(), "a stretch without a hash");
        end = stretch.range.end;
    }
    assert!(end <= map.image_bytes, "a stretch behind the end of the image");
    format!("good {}", map.stretches.len())
}

fn config_seeds() -> Vec<Vec<u8>> {
    let example = |key: &::config::keys::Key| match key.path.rsplit_once('.') {
        None => format!("{}\n", key.example),
        Some((table, _)) => format!("[{table}]\n{}\n", key.example),
    };
    let alone = ::config::keys::KEYS.iter().map(|key| example(key).into_bytes());
    let whole = "\u{feff}hostname = 'box'\r\n[network]\ndns = [\"1.1.1.1\", \"2620:fe::fe\"]\n\
        [[network.interface]]\nname = \"eth0\"\naddress = [\"10.0.0.5/8\", \"fd00::5/64\"]\n\
        router = \"10.0.0.1\"\n[sysctl]\nvm.swappiness = 0x1F\n\"vm.dirty_ratio\" = 5\n";
    alone.chain([whole.as_bytes().to_vec()]).collect()
}

fn config(input: &[u8]) -> String {
    match Config::parse(input) {
        Ok(found) => {
            let text = found.to_string();
            assert_eq!(Config::parse(text.as_bytes()), Ok(found.clone()), "is read differently");
            let network = found.interfaces().len() + found.name_servers().len() > 0;
            let changed = changes(input, &found);
            format!("good {} {changed}", if network { "network" } else { "rest" })
        }
        Err(problems) => {
            for problem in problems.iter() {
                let shown = problem.render("iota.toml");
                let control = |character: char| character.is_control() && character != '\n';
                assert!(!shown.contains(control), "{shown:?} controls a terminal");
            }
            problems.first().message.clone()
        }
    }
}

/// Every key of a good file takes another value, and nothing else becomes another one. How many
/// find a place is what the file says.
fn changes(input: &[u8], found: &Config) -> usize {
    let text = ::config::text::check(input).unwrap_or_default();
    let wanted = [
        ("hostname", "other"),
        ("network.dns", "9.9.9.9"),
        ("network.interface.eth9.address", "172.16.0.2/16"),
        ("time.servers", "172.16.0.1"),
        ("health.window-s", "99"),
        ("sysctl.vm.swappiness", "99"),
    ];
    let placed = wanted.into_iter().filter(|(path, value)| {
        let key = ::config::values::Key::parse(path).unwrap();
        let Ok(changed) = ::config::edit::set(text, &key, &[value]) else { return false };
        let changed = Config::parse(changed.as_bytes()).unwrap();
        assert_eq!(changed.value(path), [*value], "in {text:?}");
        let differences = found.differences(&changed);
        assert!(differences.iter().all(|other| other == path), "{differences:?} in {text:?}");
        true
    });
    placed.count()
}

fn line_seeds() -> Vec<Vec<u8>> {
    let manifest = System::new("1.0").manifest;
    let disks = [DiskId::Gpt(Guid::new(1, 2, 3, [4; 8])), DiskId::Mbr(0x0123_abcd)];
    let line = |(disk, safe)| {
        let args = BootArgs { safe, ..BootArgs::new(Slot::B, 2, disk, &manifest) };
        format!("panic=5 quiet {args} console=ttyAMA0\n").into_bytes()
    };
    disks.into_iter().zip([false, true]).map(line).collect()
}

fn line(input: &[u8]) -> String {
    let text = String::from_utf8_lossy(input);
    match BootArgs::parse(&text) {
        Ok(args) => {
            assert_eq!(BootArgs::parse(&args.to_string()), Ok(args.clone()), "is read differently");
            format!("good {}", if args.safe { "safe" } else { "usual" })
        }
        Err(error) => error.to_string(),
    }
}
