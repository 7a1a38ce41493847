//! Data partitions that are damaged on purpose, and the hands of `ondisk::data_care` over an image:
//! the tools are the real ones, and mounting is stood in for by what the kernel refuses at once.

use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use builder::host::tools::Tool;
use builder::image::ext4::{self as writer, Identity};
use builder::image::sparse::{Sparse, is_zero};
use ondisk::data_care::{Brief, Checked, Mode, Partition};
use ondisk::ext4::{self, SUPERBLOCK_BYTES, SUPERBLOCK_OFFSET, Superblock};

use crate::simdisk::scramble;
use crate::tools;

/// Bytes of a file system under test: two block groups, so that there is one backup.
pub const BYTES: u64 = 160 << 20;
const BLOCK: u64 = 4096;
/// Blocks of a group with blocks of 4 KiB.
const GROUP_BLOCKS: u64 = 32_768;
/// Longer than any check of so small an image.
const LIMIT: Duration = Duration::from_secs(60);

/// What is damaged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A few bytes of the superblock.
    Superblock,
    /// All of it.
    NoSuperblock,
    /// Every superblock there is.
    NoSuperblocks,
    /// Bytes of the group descriptors.
    Descriptors,
    /// All of them.
    NoDescriptors,
    /// Bytes of the journal.
    Journal,
    /// Bytes of tables of inodes.
    Inodes,
    /// Blocks with contents, directories among them.
    Blocks,
    /// A long stretch of zeros.
    Zeros,
    /// A long stretch of noise from the start on.
    Garbage,
}

impl Kind {
    /// All of them.
    pub const ALL: [Self; 10] = [
        Self::Superblock,
        Self::NoSuperblock,
        Self::NoSuperblocks,
        Self::Descriptors,
        Self::NoDescriptors,
        Self::Journal,
        Self::Inodes,
        Self::Blocks,
        Self::Zeros,
        Self::Garbage,
    ];
}

/// A whole file system: its blocks that are not zeros.
pub struct Original {
    e2fsck: Tool,
    blocks: Vec<(u64, Vec<u8>)>,
    journal: u64,
    inodes: u64,
}

impl Original {
    /// As a new card has it, with files.
    pub fn of_the_builder(directory: &Path) -> Self {
        let path = directory.join("built");
        let mut image = Sparse::create(&path, BYTES).unwrap();
        let uuid = *b"0123456789abcdef";
        let identity = Identity { uuid, hash_seed: [7; 16], label: "data", time: 1_700_000_000 };
        writer::write(&mut image, 0..BYTES, identity, &[]).unwrap();
        image.finish().unwrap();
        Self::with_files(&path)
    }

    /// As it is after a reset, by the program and the arguments of PID 1, with files.
    pub fn of_a_reset(directory: &Path) -> Self {
        let path = directory.join("reset");
        File::create(&path).unwrap().set_len(BYTES).unwrap();
        let options = "-q -F -t ext4 -O ^resize_inode -b 4096 -J size=16 -e remount-ro -L data";
        let mut make = tools::tool("mke2fs").command();
        make.args(options.split(' ')).args(["-E", "nodiscard,lazy_itable_init=1"]);
        tools::run(make.arg(&path));
        Self::with_files(&path)
    }

    /// Fills it with directories and files, and reads it.
    fn with_files(path: &Path) -> Self {
        let content = path.with_extension("content");
        fs::write(&content, vec![0x5a; 20_000]).unwrap();
        let content = content.to_str().unwrap();
        let mut script = String::new();
        for directory in 0..30 {
            script.push_str(&format!("mkdir d{directory}\ncd d{directory}\n"));
            for file in 0..5 {
                script.push_str(&format!("write {content} f{file}\n"));
            }
            script.push_str("symlink link /nowhere\ncd /\n");
        }
        let commands = path.with_extension("commands");
        fs::write(&commands, script).unwrap();
        let mut fill = tools::tool("debugfs").command();
        tools::run(fill.arg("-w").arg("-f").arg(&commands).arg(path));
        tools::run(tools::tool("e2fsck").command().args(["-f", "-n"]).arg(path));
        Self::read(path)
    }

    fn read(path: &Path) -> Self {
        let file = File::open(path).unwrap();
        let mut blocks = Vec::new();
        for number in 0..BYTES / BLOCK {
            let mut block = vec![0; usize::try_from(BLOCK).unwrap()];
            file.read_exact_at(&mut block, number * BLOCK).unwrap();
            if !is_zero(&block) {
                blocks.push((number, block));
            }
        }
        // The magic of a journal (jbd2), most significant byte first, and the first group's table.
        let journal = blocks.iter().find(|(_, block)| block.starts_with(&[0xc0, 0x3b, 0x39, 0x98]));
        let journal = journal.map(|(number, _)| *number).unwrap();
        let descriptor = blocks.iter().find(|(number, _)| *number == 1).unwrap();
        let table = descriptor.1[8..12].first_chunk().copied().unwrap();
        let e2fsck = tools::tool("e2fsck");
        Self { e2fsck, blocks, journal, inodes: u64::from(u32::from_le_bytes(table)) }
    }

    /// A copy in a file, damaged by the rules of a kind and a seed.
    pub fn damaged(&self, path: &Path, kind: Kind, seed: u64) -> Image {
        let file = File::options().read(true).write(true).create(true).truncate(true).open(path);
        let file = file.unwrap();
        file.set_len(BYTES).unwrap();
        for (number, block) in &self.blocks {
            file.write_all_at(block, number * BLOCK).unwrap();
        }
        let mut random = Random(seed);
        for (offset, bytes) in self.damage(kind, &mut random) {
            file.write_all_at(&bytes, offset).unwrap();
        }
        Image { e2fsck: self.e2fsck.clone(), path: path.to_owned(), mounted: false }
    }

    /// What is written where.
    fn damage(&self, kind: Kind, random: &mut Random) -> Vec<(u64, Vec<u8>)> {
        let backup = GROUP_BLOCKS * BLOCK;
        let zeros = |length: u64| vec![0; usize::try_from(length).unwrap()];
        let superblock = (SUPERBLOCK_OFFSET, zeros(1024));
        match kind {
            Kind::Superblock => random.bytes(SUPERBLOCK_OFFSET, 1024, 6),
            Kind::NoSuperblock => vec![superblock],
            Kind::NoSuperblocks => vec![superblock, (backup, zeros(1024))],
            Kind::Descriptors => random.bytes(BLOCK, 128, 4),
            Kind::NoDescriptors => vec![(BLOCK, zeros(BLOCK))],
            Kind::Journal if random.below(2) == 0 => vec![(self.journal * BLOCK, zeros(BLOCK))],
            Kind::Journal => random.bytes(self.journal * BLOCK, 96, 8),
            Kind::Inodes => random.bytes(self.inodes * BLOCK, 48 * BLOCK, 40),
            Kind::Blocks => {
                let one = |random: &mut Random| {
                    let index = random.below(u64::try_from(self.blocks.len()).unwrap());
                    let (number, _) = self.blocks[usize::try_from(index).unwrap()];
                    (number.max(2) * BLOCK, random.noise(BLOCK))
                };
                (0..20).map(|_| one(random)).collect()
            }
            Kind::Zeros => {
                let length = BLOCK * (1 + random.below(1024));
                vec![(random.below(40 << 20) / BLOCK * BLOCK, zeros(length))]
            }
            Kind::Garbage => vec![(0, random.noise(1 << 20)), (backup, random.noise(1 << 16))],
        }
    }
}

/// The same numbers for the same seed.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(1);
        scramble(self.0)
    }

    fn below(&mut self, end: u64) -> u64 {
        self.next() % end
    }

    /// Single bytes somewhere in a stretch.
    fn bytes(&mut self, start: u64, length: u64, count: u64) -> Vec<(u64, Vec<u8>)> {
        let count = 1 + self.below(count);
        (0..count)
            .map(|_| (start + self.below(length), vec![self.next().to_le_bytes()[0]]))
            .collect()
    }

    fn noise(&mut self, length: u64) -> Vec<u8> {
        (0..length / 8).flat_map(|_| self.next().to_le_bytes()).collect()
    }
}

/// A file system in a file.
pub struct Image {
    e2fsck: Tool,
    path: PathBuf,
    mounted: bool,
}

impl Image {
    /// Notes errors, as the kernel does when it meets some on what it has mounted.
    pub fn note_errors(&self) {
        let mut superblock = self.read().unwrap();
        if ext4::needs_check(&superblock, BYTES).is_none() {
            superblock[0x3A] |= 2;
            ext4::seal(&mut superblock);
            let file = OpenOptions::new().write(true).open(&self.path).unwrap();
            file.write_all_at(&superblock, SUPERBLOCK_OFFSET).unwrap();
        }
    }

    fn read(&self) -> std::io::Result<Superblock> {
        let mut superblock = [0; SUPERBLOCK_BYTES];
        File::open(&self.path)?.read_exact_at(&mut superblock, SUPERBLOCK_OFFSET)?;
        Ok(superblock)
    }

    fn run(&self, command: &mut Command) -> std::io::Result<Checked> {
        let said = self.path.with_extension("said");
        let file = File::create(&said)?;
        command.stdin(Stdio::null()).stdout(file.try_clone()?).stderr(file).env("LC_ALL", "C");
        let mut child = command.spawn()?;
        let start = Instant::now();
        let status = loop {
            match child.try_wait()? {
                Some(status) => break status,
                None if start.elapsed() > LIMIT => child.kill()?,
                None => std::thread::sleep(Duration::from_millis(2)),
            }
        };
        let mut brief = Brief::default();
        String::from_utf8_lossy(&fs::read(said)?).lines().for_each(|line| brief.add(line));
        Ok(Checked { status: status.code(), said: brief.text() })
    }
}

impl Partition for Image {
    fn bytes(&self) -> u64 {
        BYTES
    }

    fn superblock(&mut self) -> Result<Superblock, String> {
        self.read().map_err(|error| error.to_string())
    }

    fn check(&mut self, mode: Mode) -> Result<Checked, String> {
        let mut command = self.e2fsck.command();
        command.args(mode.arguments()).arg(&self.path);
        self.run(&mut command).map_err(|error| error.to_string())
    }

    fn mount(&mut self) -> Result<(), String> {
        assert!(!self.mounted, "twice");
        let superblock = self.superblock()?;
        self.mounted = ext4::held_bytes(&superblock).is_some_and(|bytes| bytes <= BYTES);
        if self.mounted { Ok(()) } else { Err("bad superblock".to_owned()) }
    }

    fn unmount(&mut self) -> Result<(), String> {
        assert!(self.mounted, "it is not mounted");
        self.mounted = false;
        Ok(())
    }

    fn make_new(&mut self) -> Result<(), String> {
        unreachable!("nobody asked for a reset")
    }

    fn remove_all_but_identity(&mut self) -> Result<(), String> {
        unreachable!("nobody asked for a reset")
    }

    fn take_back(&mut self) -> Result<(), String> {
        unreachable!("nobody asked for a reset")
    }
}

impl Image {
    /// Switched off and on again.
    pub fn restart(&mut self) {
        self.mounted = false;
    }

    /// Whether a full check finds nothing to say.
    pub fn is_whole(&self) -> bool {
        let mut command = self.e2fsck.command();
        tools::output(command.args(["-f", "-n"]).arg(&self.path)).status.success()
    }
}
