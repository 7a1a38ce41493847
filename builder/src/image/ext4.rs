//! The data partition: an ext4 file system, empty but for declared directories.
//!
//! Crate `rsext4` makes and fills it; this module gives it what the crate does not take as input:
//! UUID, hash seed, label, times and the features that the kernel would otherwise lack for large
//! files and large cards. Guarantees: the same inputs give the same bytes; two block groups or
//! more, so that there is a backup superblock; journal of 16 MiB; the kernel can grow it while it
//! is mounted (64-bit descriptors, `meta_bg` added by the kernel when it needs it).
//!
//! Why this works without writing every checksum anew: see [`set_identity`].

use std::ops::Range;
use std::os::unix::fs::FileExt;

use rsext4::crc32c::crc32c_append;
use rsext4::{
    BlockIo, Clock, DeviceCapabilities, DeviceGeometry, Ext4, Ext4Error, Ext4Result, Ext4Timestamp,
    FileName, FilePermissions, MkfsOptions, MountOptions, MountServices, MountedServices,
    MutationContext, NoopObserver, SectorId,
};

use crate::error::{Context, Error, Result};
use crate::image::sparse::Sparse;
use crate::tree::TreePath;

const BLOCK: u64 = 4096;
/// Blocks that one block of bitmap describes.
const GROUP_BYTES: u64 = 8 * BLOCK * BLOCK;
/// A group's entry in the table behind each superblock.
const DESCRIPTOR: u64 = 64;
/// A second group so small that it holds little besides its own tables would not be worth it.
const SMALLEST: u64 = GROUP_BYTES + 16 * 1024 * 1024;
/// Group numbers are 32 bits; far above any disk this is for.
const LARGEST: u64 = 1 << 44;

/// What makes a file system this one: all of it inputs, so that builds are reproducible.
#[derive(Clone, Copy, Debug)]
pub struct Identity<'a> {
    /// The file system's UUID.
    pub uuid: [u8; 16],
    /// Secret of the directory hashes; differs from image to image.
    pub hash_seed: [u8; 16],
    /// At most 16 bytes.
    pub label: &'a str,
    /// Every time stamp, in seconds since 1970.
    pub time: u32,
}

/// A directory of the new file system.
#[derive(Clone, Debug)]
pub struct Directory {
    /// Where; what lies above it is declared before it.
    pub path: TreePath,
    /// Permission bits.
    pub mode: u16,
    /// Numeric owner.
    pub uid: u32,
    /// Numeric group.
    pub gid: u32,
}

/// Makes an ext4 file system of a range of the image that nothing was written to.
pub fn write(
    image: &mut Sparse,
    range: Range<u64>,
    identity: Identity<'_>,
    directories: &[Directory],
) -> Result<()> {
    check(&range, identity)?;
    let mut failure = None;
    let device = Partition { image, range: range.clone(), failure: &mut failure };
    let made = make(device, FixedClock(identity.time), directories);
    // What went wrong in the image below says more than what the crate made of it.
    failure.map_or(made, Err)?;
    set_identity(image, &range, identity)
}

fn make(device: Partition<'_>, clock: FixedClock, directories: &[Directory]) -> Result<()> {
    let failed = || "data partition: cannot make an ext4 file system".into();
    let device = rsext4::format(device, clock, MkfsOptions::default()).context(failed)?;
    if directories.is_empty() {
        return Ok(());
    }
    let services = MountServices::new(clock, (), NoopObserver);
    let mut ext4 = Ext4::mount(device, services, MountOptions::read_write()).context(failed)?;
    for directory in directories {
        add_directory(&mut ext4, directory)
            .context(|| format!("data partition: cannot make {}", directory.path.display()))?;
    }
    ext4.unmount().context(failed)
}

type Mounted<'a> = Ext4<Partition<'a>, MountedServices<(), NoopObserver>>;

fn add_directory(ext4: &mut Mounted<'_>, directory: &Directory) -> Ext4Result<()> {
    let mut parent = ext4.root_inode();
    let parts: Vec<&[u8]> = directory.path.as_bytes().split(|byte| *byte == b'/').collect();
    let (last, above) = parts.split_last().ok_or_else(Ext4Error::invalid_input)?;
    for part in above {
        let found = ext4.lookup_child(parent, FileName::new(part)?)?;
        parent = found.ok_or_else(Ext4Error::not_found)?.number;
    }
    let context = MutationContext::new(directory.uid, directory.gid, 0, 0);
    let permissions = FilePermissions::new(directory.mode)?;
    ext4.create_directory(context, parent, FileName::new(last)?, permissions)?;
    Ok(())
}

fn check(range: &Range<u64>, identity: Identity<'_>) -> Result<()> {
    let length = range.end.saturating_sub(range.start);
    let whole = length.is_multiple_of(BLOCK) && range.start.is_multiple_of(BLOCK);
    if !whole || !(SMALLEST..=LARGEST).contains(&length) {
        return Err(Error::new(format!(
            "data partition: {length} bytes at {} cannot be an ext4 file system of this program \
             (whole blocks of 4 KiB, 144 MiB to 16 TiB)",
            range.start
        ))
        .hint("set `layout.data` of the board to 256 MiB or more"));
    }
    if identity.label.len() > 16 {
        let label = identity.label;
        return Err(Error::new(format!("data partition: label `{label}` is longer than 16 bytes")));
    }
    Ok(())
}

/// Offsets in the superblock, as the kernel's `Documentation/filesystems/ext4/super.rst` has them.
mod field {
    pub(super) const WRITE_TIME: usize = 0x30;
    pub(super) const LARGEST_MOUNT_COUNT: usize = 0x36;
    pub(super) const MAGIC: usize = 0x38;
    pub(super) const CHECK_TIME: usize = 0x40;
    pub(super) const GROUP: usize = 0x5A;
    pub(super) const COMPATIBLE: usize = 0x5C;
    pub(super) const INCOMPATIBLE: usize = 0x60;
    pub(super) const READ_ONLY: usize = 0x64;
    pub(super) const UUID: usize = 0x68;
    pub(super) const LABEL: usize = 0x78;
    pub(super) const HASH_SEED: usize = 0xEC;
    pub(super) const MAKE_TIME: usize = 0x108;
    pub(super) const GROUPS_IN_FLEX: usize = 0x174;
    pub(super) const CHECKSUM_SEED: usize = 0x270;
    pub(super) const CHECKSUM: usize = 0x3FC;
    pub(super) const END: usize = 0x400;
}

/// Extended attributes: the engine's layers have some, and the first would set it anyway.
const EXTENDED_ATTRIBUTES: u32 = 0x8;
/// Groups share tables when the kernel grows the file system: it then does so in large steps.
const FLEXIBLE_GROUPS: u32 = 0x200;
/// The seed of all checksums is a field of its own instead of being made of the UUID.
const CHECKSUM_SEED: u32 = 0x2000;
/// Files of 2 GiB and more, files of 2 TiB and more, directories with more than 65,000 others.
const LARGE_FILES_AND_DIRECTORIES: u32 = 0x2 | 0x8 | 0x20;
/// 2^4 groups: what other formatters choose.
const GROUPS_IN_FLEX_LOG2: u8 = 4;

/// Gives the file system its UUID, hash seed, label, times and features, in every superblock.
///
/// Each checksum in the file system starts from a seed that is made of the UUID, unless the feature
/// "checksum seed" names the seed itself. With it the UUID may change while all checksums but those
/// of the superblocks stay as they are: `tune2fs -U` does the same. The hash seed may change
/// because no directory is large enough yet to have an index.
fn set_identity(image: &mut Sparse, range: &Range<u64>, identity: Identity<'_>) -> Result<()> {
    let mut primary = [0; field::END];
    read(image, range.start + 1024, &mut primary)?;
    let old_uuid = &primary[field::UUID..field::UUID + 16];
    let seed = crc32c_append(!0, old_uuid);
    let time = identity.time.to_le_bytes();
    let mut put = |offset: usize, bytes: &[u8]| {
        primary[offset..offset + bytes.len()].copy_from_slice(bytes);
    };
    put(field::UUID, &identity.uuid);
    put(field::HASH_SEED, &identity.hash_seed);
    put(field::LABEL, identity.label.as_bytes());
    put(field::CHECKSUM_SEED, &seed.to_le_bytes());
    for field in [field::WRITE_TIME, field::CHECK_TIME, field::MAKE_TIME] {
        put(field, &time);
    }
    // Never checked because of the number of mounts.
    put(field::LARGEST_MOUNT_COUNT, &u16::MAX.to_le_bytes());
    put(field::GROUPS_IN_FLEX, &[GROUPS_IN_FLEX_LOG2]);
    for (field, more) in [
        (field::COMPATIBLE, EXTENDED_ATTRIBUTES),
        (field::INCOMPATIBLE, FLEXIBLE_GROUPS | CHECKSUM_SEED),
        (field::READ_ONLY, LARGE_FILES_AND_DIRECTORIES),
    ] {
        let features = u32_at(&primary, field) | more;
        primary[field..field + 4].copy_from_slice(&features.to_le_bytes());
    }
    write_superblocks(image, range, primary)
}

/// Writes the superblock to its place, and it and the group descriptors to each backup.
///
/// The crate's backups are as old as its first step: a check from one of them would have much to
/// repair.
fn write_superblocks(
    image: &mut Sparse,
    range: &Range<u64>,
    mut superblock: [u8; field::END],
) -> Result<()> {
    let magic = superblock[field::MAGIC..field::MAGIC + 2].to_vec();
    let groups = (range.end - range.start).div_ceil(GROUP_BYTES);
    let mut descriptors = vec![0; (groups * DESCRIPTOR).next_multiple_of(BLOCK) as usize];
    read(image, range.start + BLOCK, &mut descriptors)?;
    for group in 0..groups {
        // The first block of the first group leaves room for a boot sector.
        let offset = range.start + if group == 0 { 1024 } else { group * GROUP_BYTES };
        let mut present = [0; 2];
        read(image, offset + field::MAGIC as u64, &mut present)?;
        if present[..] != magic {
            continue;
        }
        // Groups that have a backup have numbers far below 2^16 on any disk; larger ones wrap, as
        // they do elsewhere.
        superblock[field::GROUP..field::GROUP + 2].copy_from_slice(&(group as u16).to_le_bytes());
        let checksum = crc32c_append(!0, &superblock[..field::CHECKSUM]);
        superblock[field::CHECKSUM..].copy_from_slice(&checksum.to_le_bytes());
        image.write_at(offset, &superblock)?;
        if group != 0 {
            image.write_at(offset + BLOCK, &descriptors)?;
        }
    }
    Ok(())
}

fn read(image: &Sparse, offset: u64, bytes: &mut [u8]) -> Result<()> {
    image.file().read_exact_at(bytes, offset).context(|| {
        format!("cannot read {} bytes at {offset} of {}", bytes.len(), image.target().display())
    })
}

fn u32_at(bytes: &[u8], offset: usize) -> u32 {
    let mut field = [0; 4];
    field.copy_from_slice(&bytes[offset..offset + 4]);
    u32::from_le_bytes(field)
}

/// The range of the image as the crate's block device.
struct Partition<'a> {
    image: &'a mut Sparse,
    range: Range<u64>,
    failure: &'a mut Option<Error>,
}

impl Partition<'_> {
    fn offset(&self, sector: SectorId, length: usize) -> Ext4Result<u64> {
        let offset =
            sector.raw().checked_mul(BLOCK).and_then(|at| at.checked_add(self.range.start));
        let end = offset.and_then(|offset| offset.checked_add(length as u64));
        match (offset, end) {
            (Some(offset), Some(end)) if end <= self.range.end => Ok(offset),
            _ => Err(Ext4Error::invalid_input()),
        }
    }

    fn told<T>(&mut self, result: Result<T>) -> Ext4Result<T> {
        result.map_err(|error| {
            self.failure.get_or_insert(error);
            Ext4Error::io()
        })
    }
}

impl BlockIo for Partition<'_> {
    fn write(&mut self, buffer: &[u8], sector: SectorId, _count: u32) -> Ext4Result<()> {
        let offset = self.offset(sector, buffer.len())?;
        // The crate writes zeros where it wants zeros: a journal with remains of a former life, of
        // the same UUID even, would be replayed.
        let written = self.image.write_at(offset, buffer);
        let result =
            written.and_then(|()| self.image.keep_zeros(offset..offset + buffer.len() as u64));
        self.told(result)
    }

    fn read(&mut self, buffer: &mut [u8], sector: SectorId, _count: u32) -> Ext4Result<()> {
        let offset = self.offset(sector, buffer.len())?;
        let result = read(self.image, offset, buffer);
        self.told(result)
    }

    fn flush(&mut self) -> Ext4Result<()> {
        // The image is flushed once, when it is complete.
        Ok(())
    }

    fn geometry(&self) -> DeviceGeometry {
        DeviceGeometry::new(BLOCK as u32, (self.range.end - self.range.start) / BLOCK)
    }

    fn capabilities(&self) -> DeviceCapabilities {
        DeviceCapabilities { flush: true, ..DeviceCapabilities::default() }
    }
}

#[derive(Clone, Copy)]
struct FixedClock(u32);

impl Clock for FixedClock {
    fn now(&self) -> Ext4Result<Ext4Timestamp> {
        Ok(Ext4Timestamp::new(i64::from(self.0), 0))
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::PathBuf;

    use expect_test::expect;
    use sha2::{Digest, Sha256};

    use super::*;
    use crate::hex;
    use crate::image::foreign;

    const MIB: u64 = 1 << 20;
    const IDENTITY: Identity<'_> = Identity {
        uuid: *b"0123456789abcdef",
        hash_seed: [0x77; 16],
        label: "data",
        time: 1_700_000_000,
    };

    fn directories() -> Vec<Directory> {
        [("docker", 0o710, 0, 0), ("docker/volumes", 0o2755, 7, 8), ("lib", 0o755, 0, 0)]
            .map(|(path, mode, uid, gid)| Directory {
                path: TreePath::new(path).unwrap(),
                mode,
                uid,
                gid,
            })
            .to_vec()
    }

    /// The file system alone in an image, and how many bytes of it are not holes.
    fn on_disk(length: u64, directories: &[Directory]) -> (tempfile::TempDir, PathBuf, u64) {
        let directory = tempfile::tempdir().unwrap();
        let mut image = Sparse::create(&directory.path().join("data.img"), length).unwrap();
        write(&mut image, 0..length, IDENTITY, directories).unwrap();
        let image = image.finish().unwrap();
        (directory, image.path.clone(), image.mapped.bytes())
    }

    #[test]
    fn the_same_inputs_give_the_same_bytes() {
        let (_directory, path, _) = on_disk(192 * MIB, &directories());
        expect!["5d89fe3e5baf2cb1874dba18db0e9760fc26838746fe25a1180fc4439d63122d"]
            .assert_eq(&hex::encode(Sha256::digest(fs::read(path).unwrap())));
    }

    #[test]
    fn e2fsck_finds_nothing_to_say_whatever_the_size() {
        let Some(e2fsck) = foreign::tool("e2fsck") else { return };
        // The last group whole, almost empty, almost full; many groups.
        for mib in [144, 256, 260, 380, 896, 1156, 5000] {
            for directories in [vec![], directories()] {
                let (_directory, path, _) = on_disk(mib * MIB, &directories);
                let text = e2fsck.run(&["-fn", path.to_str().unwrap()]);
                let files = 11 + directories.len();
                assert!(text.contains(&format!(": {files}/")), "{mib} MiB: {text}");
            }
        }
    }

    #[test]
    fn the_superblock_says_what_it_was_told() {
        let Some(dumpe2fs) = foreign::tool("dumpe2fs") else { return };
        let (_directory, path, _) = on_disk(896 * MIB, &directories());
        let text = dumpe2fs.run(&["-h", path.to_str().unwrap()]);
        let wanted = [
            "Filesystem volume name:   data",
            "Filesystem UUID:          30313233-3435-3637-3839-616263646566",
            "Filesystem state:         clean",
            "Errors behavior:          Remount read-only",
            "Directory Hash Seed:      77777777-7777-7777-7777-777777777777",
            "Filesystem created:       Tue Nov 14 22:13:20 2023",
            "Total journal size:       16M",
        ];
        for line in wanted {
            assert!(text.contains(line), "{line} is not in\n{text}");
        }
        let features = text.lines().find_map(|line| line.strip_prefix("Filesystem features:"));
        let features: Vec<&str> = features.unwrap().split_whitespace().collect();
        expect![[r#"
            has_journal
            ext_attr
            dir_index
            filetype
            extent
            64bit
            flex_bg
            metadata_csum_seed
            sparse_super
            large_file
            huge_file
            dir_nlink
            extra_isize
            metadata_csum"#]]
        .assert_eq(&features.join(
            "
",
        ));
    }

    #[test]
    fn directories_have_their_owners_modes_and_times() {
        let Some(debugfs) = foreign::tool("debugfs") else { return };
        let (_directory, path, _) = on_disk(256 * MIB, &directories());
        let name = path.to_str().unwrap();
        let text = debugfs.run(&["-R", "stat docker/volumes", name]);
        assert!(text.contains("Type: directory    Mode:  02755"), "{text}");
        assert!(text.contains("User:     7   Group:     8"), "{text}");
        assert!(text.contains("mtime: 0x6553f100"), "{text}");
    }

    #[test]
    fn the_backup_superblock_is_as_good_as_the_first() {
        let Some(e2fsck) = foreign::tool("e2fsck") else { return };
        for mib in [256, 896] {
            let (_directory, path, _) = on_disk(mib * MIB, &directories());
            let text = e2fsck.run(&["-fn", "-b", "32768", path.to_str().unwrap()]);
            assert!(text.contains(": 14/"), "{mib} MiB: {text}");
        }
    }

    #[test]
    fn an_empty_file_system_is_mostly_holes() {
        let (_directory, _, mapped) = on_disk(896 * MIB, &[]);
        // The journal, and the first group's table of inodes.
        assert!((16 * MIB..20 * MIB).contains(&mapped), "{mapped}");
    }

    #[test]
    fn sizes_that_leave_no_backup_superblock_are_refused() {
        for length in [0, 64 * MIB, 128 * MIB, 192 * MIB + 1, 1 << 45] {
            let error = check(&(0..length), IDENTITY).unwrap_err();
            assert!(error.to_string().starts_with(&format!("data partition: {length} bytes")));
        }
        assert!(
            check(&(0..256 * MIB), Identity { label: "seventeen letters", ..IDENTITY }).is_err()
        );
    }

    #[test]
    fn a_directory_without_its_parent_is_an_error_that_names_it() {
        let directory = tempfile::tempdir().unwrap();
        let mut image = Sparse::create(&directory.path().join("i"), 192 * MIB).unwrap();
        let error = write(&mut image, 0..192 * MIB, IDENTITY, &directories()[1..]).unwrap_err();
        assert_eq!(error.to_string(), "data partition: cannot make /docker/volumes");
    }
}
