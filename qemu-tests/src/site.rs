//! Small releases, published by the builder's own code, and a small disk that the agent's own code
//! updates from them: no virtual machine, so that a server can misbehave in hundreds of ways.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Cursor, Read};
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::Duration;

use agent::apply::{Error, Place, Rules, Until};
use agent::online::offer;
use agent::online::transfer::{self, Transfer, Transferred};
use agent::online::web::{Answer, Trouble, Web};
use builder::host::progress::Progress;
use builder::image::erofs;
use builder::publish::{self, Offer};
use builder::sign::{Key, Profile};
use builder::signer::Signer;
use builder::slot::{self, Compressed, Contents};
use builder::tree::{Content, Node, Tree, TreePath};
use builder::{bundle, error};
use ondisk::boot_record::{self, Copies, Copy, Entry, Record, Sequence, State, Version};
use ondisk::channel::{ALL, Channel, Conditions, Fields};
use ondisk::device::{BeyondEnd, FileDevice, ReadAt as _};
use ondisk::digest::Digest;
use ondisk::layout::{self, Extent, PerSlot, RECORD_PARTITION_BYTES, Slot};
use ondisk::manifest::{self, Unpacked};
use ondisk::trust_root::TrustRoot;

/// The board of all releases here.
pub const BOARD: &str = "test-board";
const MIB: u64 = 1 << 20;
const SLOT_BYTES: u64 = 4 * MIB;
/// Where record and slots are.
pub const PLACE: Place = Place {
    record: Extent { offset: MIB, length: RECORD_PARTITION_BYTES },
    slots: PerSlot {
        a: Extent { offset: 16 * MIB, length: SLOT_BYTES },
        b: Extent { offset: 20 * MIB, length: SLOT_BYTES },
    },
    running: Slot::A,
};
const DISK_BYTES: usize = 24 << 20;

/// What the publisher does.
pub struct Site {
    directory: tempfile::TempDir,
    /// Signs what is made from now on.
    pub signer: Signer,
}

/// Bytes that do not compress well.
pub fn noise(seed: u32, length: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(2_654_435_761) | 1;
    let next = || {
        state ^= state << 13;
        state ^= state >> 17;
        state ^= state << 5;
        state.to_le_bytes()[2]
    };
    std::iter::repeat_with(next).take(length).collect()
}

/// A program of this version, which can be packed: its code has moved, and calls go elsewhere.
fn program(version: u8) -> Vec<u8> {
    let mut bytes: Vec<u8> = noise(7, 300_000).iter().map(|byte| byte & 0x0F).collect();
    bytes.splice(1000..1000, vec![version; usize::from(version) * 4]);
    bytes.iter_mut().skip(2000).step_by(64).for_each(|byte| *byte = byte.wrapping_add(version));
    bytes
}

impl Site {
    /// Nothing is published yet.
    pub fn new() -> io::Result<Self> {
        Ok(Self { directory: tempfile::tempdir()?, signer: key().into() })
    }

    /// What the web server hands out.
    pub fn path(&self) -> PathBuf {
        self.directory.path().join("site")
    }

    /// The slot of a release, whose version and rollback index are this number.
    pub fn slot(&self, number: u8) -> error::Result<PathBuf> {
        let mut root = Tree::new();
        let mut file = |name: &str, bytes: Vec<u8>| {
            let path = TreePath::new(name)?;
            root.insert(path, Node::file(Content::bytes(bytes), 0o644, "test"))
        };
        file("a", noise(1, 900_000))?;
        file("b", program(number))?;
        file("c", noise(3, 900_000))?;
        let contents = Contents {
            board: BOARD,
            version: &format!("{number}.0"),
            rollback_index: number.into(),
            command_line: "panic=5",
            root: &root,
            erofs: erofs::Options {
                compression: erofs::Compression::Zstd { level: 3, cluster_bytes: 65536 },
                uuid: [1; 16],
                build_time_s: 0,
                volume_label: "test".to_owned(),
            },
            salt: [2; 32],
            initrd: &noise(5, 5000),
            signer: &self.signer,
        };
        let path = self.directory.path().join(format!("slot-{number}.img"));
        let unpacked = Unpacked { length: 3, sha256: Digest::of(b"abc") };
        let kernel = noise(4, 100_000);
        slot::write(&path, SLOT_BYTES, &contents, || Ok(Compressed { bytes: kernel, unpacked }))?;
        Ok(path)
    }

    /// The bundle of a release.
    pub fn bundle(&self, number: u8) -> error::Result<PathBuf> {
        let path = self.slot(number)?;
        let failed = |error| error::Error::caused("cannot read the slot", error);
        let slot = File::open(path).and_then(FileDevice::new).map_err(failed)?;
        let target = self.directory.path().join(format!("{number}.bundle"));
        let settings = bundle::Settings { level: 3, window_log: 17, chunk_bytes: 64 * 1024 };
        bundle::write(&target, &slot, &self.signer, settings, |_| {})?;
        Ok(target)
    }

    /// Publishes a release in channel `stable`.
    pub fn publish(&self, number: u8) -> error::Result<Channel> {
        self.publish_in("stable", number, &Conditions::default())
    }

    /// Publishes a release in a channel, on conditions.
    pub fn publish_in(
        &self,
        channel: &str,
        number: u8,
        conditions: &Conditions,
    ) -> error::Result<Channel> {
        let site = self.path();
        let offer = Offer { site: &site, channel, share: ALL, bases: 3, now_s: 1, conditions };
        publish::publish(&self.bundle(number)?, &offer, &self.signer, &Progress::quiet())
    }

    /// Changes the channel.
    pub fn change(&self, change: impl FnOnce(&mut Fields)) -> error::Result<Channel> {
        publish::change(&self.path(), "stable", BOARD, change, &self.signer)
    }

    /// A disk that runs this release from slot A, with something else in slot B.
    pub fn disk(&self, number: u8) -> io::Result<Vec<u8>> {
        let failed = |error: error::Error| io::Error::other(error.chain());
        let slot = fs::read(self.slot(number).map_err(failed)?)?;
        let mut disk = vec![0; DISK_BYTES];
        let at = |extent: Extent| usize::try_from(extent.offset).unwrap_or_default();
        disk[at(PLACE.slots.a)..][..slot.len()].copy_from_slice(&slot);
        let old = noise(9, 4 << 20);
        disk[at(PLACE.slots.b)..][..old.len()].copy_from_slice(&old);
        write_record(&mut disk, PLACE.record, &format!("{number}.0"), number.into())?;
        Ok(disk)
    }

    /// All files of the site in memory.
    pub fn files(&self) -> io::Result<BTreeMap<String, Vec<u8>>> {
        files_of(&self.path())
    }
}

/// Says on a disk that slot A runs this version, and that there is none in slot B.
pub(crate) fn write_record(
    disk: &mut Vec<u8>,
    place: Extent,
    version: &str,
    rollback_index: u64,
) -> io::Result<()> {
    let version = Version::new(version);
    let a = Entry { state: State::Proven, priority: 1, rollback_index, version };
    let slots = PerSlot { a, b: Entry::default() };
    for (copy, sequence) in [(Copy::First, 1), (Copy::Second, 2)] {
        let record = Record { sequence: Sequence(sequence), rollback_floor: 1, slots };
        boot_record::write(disk, place, copy, &record)
            .map_err(|_| io::Error::other("the record cannot be written"))?;
    }
    Ok(())
}

/// All files of a directory that a web server would hand out.
pub(crate) fn files_of(site: &Path) -> io::Result<BTreeMap<String, Vec<u8>>> {
    let mut files = BTreeMap::new();
    let mut open = vec![site.to_path_buf()];
    while let Some(directory) = open.pop() {
        for entry in fs::read_dir(directory)? {
            let path = entry?.path();
            if path.is_dir() {
                open.push(path);
            } else if let Ok(name) = path.strip_prefix(site) {
                files.insert(name.to_string_lossy().into_owned(), fs::read(&path)?);
            }
        }
    }
    Ok(files)
}

/// The key that devices trust for everything at first.
fn key() -> Key {
    Key::from_seed([1; 32], Profile::Development)
}

/// The trust root of devices at first.
pub fn trust() -> TrustRoot {
    Signer::from(key()).trust().clone()
}

/// What a server does with a request: the file's bytes from the first wanted one on go in, what is
/// sent of them comes out, and whether the connection breaks then.
pub type Rule = dyn FnMut(&str, Option<(u64, u64)>, Vec<u8>) -> Result<(Vec<u8>, bool), Trouble>;

/// A server with these files.
pub struct Server {
    files: BTreeMap<String, Vec<u8>>,
    rule: Mutex<Box<Rule>>,
    /// Whether it knows ranges.
    pub ranges: bool,
}

impl Server {
    /// One that does as it should.
    pub fn good(files: BTreeMap<String, Vec<u8>>) -> Self {
        Self::with(files, |_, _, bytes| Ok((bytes, false)))
    }

    /// One with a rule.
    pub fn with(
        files: BTreeMap<String, Vec<u8>>,
        rule: impl FnMut(&str, Option<(u64, u64)>, Vec<u8>) -> Result<(Vec<u8>, bool), Trouble>
        + 'static,
    ) -> Self {
        Self { files, rule: Mutex::new(Box::new(rule)), ranges: true }
    }
}

impl Web for Server {
    fn get(&self, path: &str, range: Option<(u64, u64)>) -> Result<Answer, Trouble> {
        let missing = || Trouble::Missing("the server answers 404".to_owned());
        let file = self.files.get(path).ok_or_else(missing)?;
        let total = file.len() as u64;
        let (from, to) = range.filter(|_| self.ranges).unwrap_or((0, total));
        let part = |at: u64| usize::try_from(at.min(total)).unwrap_or_default();
        let bytes = file[part(from)..part(to)].to_vec();
        let mut rule = self.rule.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let (bytes, breaks) = rule(path, range, bytes)?;
        let bytes = Cursor::new(bytes);
        let body: Box<dyn Read + Send> =
            if breaks { Box::new(bytes.chain(Broken)) } else { Box::new(bytes) };
        Ok(Answer { from, total: Some(total), body })
    }
}

struct Broken;

impl Read for Broken {
    fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
        Err(io::ErrorKind::ConnectionReset.into())
    }
}

/// Asks a server for the channel, as a device does.
pub fn fetch_channel(web: &dyn Web) -> Result<Channel, String> {
    offer::fetch(web, "stable", BOARD, &trust(), &mut |_| {})
}

/// Brings what a channel offers into the slot of a disk, and has it started next if that is wanted.
pub fn transfer(
    web: &dyn Web,
    channel: &Channel,
    disk: &mut Vec<u8>,
) -> Result<Transferred, Error<BeyondEnd>> {
    transfer_telling(web, channel, disk, &mut |_| {})
}

/// The same for who wants to know what it says of its progress.
pub fn transfer_telling(
    web: &dyn Web,
    channel: &Channel,
    disk: &mut Vec<u8>,
    tell: &mut dyn FnMut(&str),
) -> Result<Transferred, Error<BeyondEnd>> {
    transfer_until(Until::Staged, &trust(), (web, channel), disk, tell)
}

/// Brings it and leaves it there.
pub fn download(
    web: &dyn Web,
    channel: &Channel,
    disk: &mut Vec<u8>,
) -> Result<Transferred, Error<BeyondEnd>> {
    transfer_until(Until::Written, &trust(), (web, channel), disk, &mut |_| {})
}

/// The same for a device with another trust root.
pub fn transfer_trusting(
    trust: &TrustRoot,
    web: &dyn Web,
    channel: &Channel,
    disk: &mut Vec<u8>,
) -> Result<Transferred, Error<BeyondEnd>> {
    transfer_until(Until::Staged, trust, (web, channel), disk, &mut |_| {})
}

fn transfer_until(
    until: Until,
    trust: &TrustRoot,
    (web, channel): (&dyn Web, &Channel),
    disk: &mut Vec<u8>,
    tell: &mut dyn FnMut(&str),
) -> Result<Transferred, Error<BeyondEnd>> {
    let rules = Rules { board: BOARD, profile: manifest::Profile::Development, trust };
    transfer_to((&rules, &PLACE), until, (web, channel), disk, tell)
}

/// The same for any board and any disk in memory.
pub(crate) fn transfer_to(
    (rules, place): (&Rules<'_>, &Place),
    until: Until,
    (web, channel): (&dyn Web, &Channel),
    disk: &mut Vec<u8>,
    tell: &mut dyn FnMut(&str),
) -> Result<Transferred, Error<BeyondEnd>> {
    let mut transfer = Transfer {
        web,
        channel,
        rate: None,
        until,
        rules,
        say: &mut |line| {
            eprintln!("    {line}");
            tell(line);
        },
        progress: &mut |_| {},
        sleep: &mut |_: Duration| {},
    };
    transfer::run(&mut transfer, disk, place)
}

/// What the disk's record says.
pub fn record(disk: &Vec<u8>) -> Option<Record> {
    Copies::read(disk, PLACE.record).newest().copied()
}

/// What counts of a slot: its image and its manifest area. What lies between is nobody's.
pub fn contents(slot: &[u8]) -> Option<(Vec<u8>, Vec<u8>)> {
    let area = layout::manifest_area(SLOT_BYTES)?;
    let area = slot.get(usize::try_from(area.offset).ok()?..)?;
    let fields = manifest::Unverified::parse(area).ok()?.fields_unverified().ok()?;
    let manifest = manifest::Manifest::new(fields, SLOT_BYTES).ok()?;
    let length = usize::try_from(ondisk::bundle::image_bytes(&manifest)?).ok()?;
    Some((slot.get(..length)?.to_vec(), area.to_vec()))
}

/// The bytes of a slot.
pub fn slot_of(disk: &Vec<u8>, slot: Slot) -> Vec<u8> {
    let Extent { offset, length } = PLACE.slots[slot];
    let mut bytes = vec![0; usize::try_from(length).unwrap_or_default()];
    // OK to ignore: all slots are on the disk.
    let _ = disk.read_at(offset, &mut bytes);
    bytes
}
