//! The dm-verity hash tree of a root: every 4 KiB block hashed, the hashes hashed, up to one root.
//!
//! Follows the kernel's `Documentation/admin-guide/device-mapper/verity.rst`: format version 1,
//! sha256, data and hash blocks of 4096 bytes, a salt of 32 bytes before each block, no superblock
//! (the signed manifest says what a superblock would say).
//!
//! ```text
//! data blocks │ top level: one block │ … │ lowest level: 128 hashes of data blocks in each block
//!             └ hash_start_block = number of data blocks
//! ```
//!
//! Guarantees: the same bytes as `veritysetup format --no-superblock`; all cores hash; memory is
//! the tree (0.8 % of the data) and one buffer of 512 KiB a core.

use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::Path;

use sha2::{Digest, Sha256};

use crate::error::{Context, Error, Result};
use crate::hex;
use crate::host::parallel;
use crate::image::sparse::is_zero;

/// Size of data and hash blocks.
pub const BLOCK: usize = 4096;
/// Size of a hash and of the root hash.
pub const HASH: usize = 32;
/// Size of the salt.
pub const SALT: usize = 32;

const HASHES_IN_BLOCK: usize = BLOCK / HASH;
/// Data under one block of hashes, read at once.
const STRIPE: usize = BLOCK * HASHES_IN_BLOCK;
/// Stripes a core takes at a time: 8 MiB, so that cores end together.
const JOB: usize = 16;

/// The hash that stands for all data; what a signature has to cover.
pub type RootHash = [u8; HASH];

/// A finished hash tree.
#[derive(Clone, PartialEq, Eq)]
pub struct HashTree {
    /// The hash over everything.
    pub root_hash: RootHash,
    /// Number of blocks the tree covers; also the block at which it starts on disk.
    pub data_blocks: u64,
    /// The tree as it is written behind the data, top level first.
    pub bytes: Vec<u8>,
}

/// Hashes the first `length` bytes of a file.
///
/// `name` is the file's name for messages. Fails unless `length` is a whole number of blocks.
pub fn build(file: &File, name: &Path, length: u64, salt: &[u8; SALT]) -> Result<HashTree> {
    let data_blocks = block_count(name, length)?;
    let hasher = Hasher::new(salt);
    let mut levels = Vec::new();
    let mut below = hash_file(file, name, length, &hasher)?;
    let mut count = data_blocks;
    while count > 1 {
        count = count.div_ceil(HASHES_IN_BLOCK as u64);
        let above = hash_level(&below, &hasher);
        levels.push(below);
        below = above;
    }
    let mut root_hash = [0; HASH];
    root_hash.copy_from_slice(&below[..HASH]);
    levels.reverse();
    Ok(HashTree { root_hash, data_blocks, bytes: levels.concat() })
}

/// Checks data and the tree behind it against a root hash; an error names the first bad block.
pub fn verify(
    file: &File,
    name: &Path,
    length: u64,
    salt: &[u8; SALT],
    root_hash: &RootHash,
) -> Result<()> {
    let wanted = build(file, name, length, salt)?;
    let mut stored = vec![0; wanted.bytes.len()];
    file.read_exact_at(&mut stored, length).context(|| {
        let count = stored.len();
        format!("{}: cannot read the hash tree, {count} bytes at {length}", name.display())
    })?;
    if wanted.root_hash == *root_hash && stored == wanted.bytes {
        return Ok(());
    }
    Err(Error::new(format!("{}: {}", name.display(), difference(&wanted, &stored, root_hash))))
}

/// Why data, tree and root hash do not belong together; the top of the tree is believed first.
fn difference(wanted: &HashTree, stored: &[u8], root_hash: &RootHash) -> String {
    let unlike = |(one, other): (&[u8], &[u8])| one != other;
    let lowest = wanted.data_blocks.div_ceil(HASHES_IN_BLOCK as u64);
    let lowest_start = wanted.bytes.len().saturating_sub(lowest as usize * BLOCK);
    let hashes = wanted.bytes[lowest_start..].chunks(HASH);
    if let Some(block) = hashes.zip(stored[lowest_start..].chunks(HASH)).position(unlike) {
        let offset = block * BLOCK;
        return format!("block {block} (offset {offset}) does not match its hash in the tree");
    }
    let blocks = wanted.bytes.chunks(BLOCK).zip(stored.chunks(BLOCK));
    if let Some(block) = blocks.into_iter().position(unlike) {
        return format!("block {block} of the hash tree does not match the blocks under it");
    }
    format!("the root hash is {}, not {}", hex::encode(wanted.root_hash), hex::encode(root_hash))
}

fn block_count(name: &Path, length: u64) -> Result<u64> {
    let block = BLOCK as u64;
    if length == 0 || !length.is_multiple_of(block) {
        return Err(Error::new(format!(
            "{}: {length} bytes are not a whole number of blocks of {block} bytes",
            name.display()
        )));
    }
    Ok(length / block)
}

struct Hasher {
    salted: Sha256,
    /// Roots have long stretches of zeros: their hash is known.
    zero: [u8; HASH],
}

impl Hasher {
    fn new(salt: &[u8; SALT]) -> Self {
        let salted = Sha256::new_with_prefix(salt);
        let zero = salted.clone().chain_update([0; BLOCK]).finalize().into();
        Self { salted, zero }
    }

    fn hash(&self, block: &[u8]) -> [u8; HASH] {
        if is_zero(block) {
            return self.zero;
        }
        self.salted.clone().chain_update(block).finalize().into()
    }

    /// Fills one block of hashes from the blocks under it.
    fn fill(&self, blocks: &[u8], hashes: &mut [u8]) {
        for (block, hash) in blocks.chunks(BLOCK).zip(hashes.chunks_mut(HASH)) {
            hash.copy_from_slice(&self.hash(block));
        }
    }
}

fn hash_level(below: &[u8], hasher: &Hasher) -> Vec<u8> {
    let mut level = vec![0; below.len().div_ceil(STRIPE) * BLOCK];
    for (blocks, hashes) in below.chunks(STRIPE).zip(level.chunks_mut(BLOCK)) {
        hasher.fill(blocks, hashes);
    }
    level
}

/// The lowest level, on all cores.
fn hash_file(file: &File, name: &Path, length: u64, hasher: &Hasher) -> Result<Vec<u8>> {
    let starts: Vec<u64> = (0..length).step_by(JOB * STRIPE).collect();
    let parts = parallel::map(&starts, parallel::processors(), |start| {
        let end = length.min(start + (JOB * STRIPE) as u64);
        hash_part(file, *start..end, hasher).context(|| {
            let count = end - start;
            format!("{}: cannot read {count} bytes at {start}", name.display())
        })
    })?;
    Ok(parts.concat())
}

fn hash_part(file: &File, range: Range<u64>, hasher: &Hasher) -> io::Result<Vec<u8>> {
    let mut buffer = vec![0; STRIPE];
    let mut level = Vec::with_capacity(JOB * BLOCK);
    for start in range.clone().step_by(STRIPE) {
        let count = (range.end - start).min(STRIPE as u64) as usize;
        file.read_exact_at(&mut buffer[..count], start)?;
        let mut hashes = [0; BLOCK];
        hasher.fill(&buffer[..count], &mut hashes);
        level.extend(hashes);
    }
    Ok(level)
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use expect_test::expect;

    use super::*;
    use crate::image::foreign;

    const SALT_BYTES: [u8; SALT] = [0x5a; SALT];

    /// Blocks that differ from one another, every seventh one zero.
    fn sample(blocks: u64) -> tempfile::NamedTempFile {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        let mut state = 1_u64;
        for block in 0..blocks {
            let mut bytes = vec![0; BLOCK];
            if block % 7 != 6 {
                for word in bytes.chunks_mut(8) {
                    state = state.wrapping_mul(6364136223846793005).wrapping_add(block | 1);
                    word.copy_from_slice(&state.to_le_bytes());
                }
            }
            file.write_all(&bytes).unwrap();
        }
        file
    }

    /// The sample with its tree behind it.
    fn sealed(blocks: u64) -> (tempfile::NamedTempFile, u64, HashTree) {
        let mut file = sample(blocks);
        let length = blocks * BLOCK as u64;
        let tree = build(file.as_file(), file.path(), length, &SALT_BYTES).unwrap();
        file.write_all(&tree.bytes).unwrap();
        (file, length, tree)
    }

    fn flip(file: &File, offset: u64) {
        let mut byte = [0];
        file.read_exact_at(&mut byte, offset).unwrap();
        file.write_all_at(&[byte[0] ^ 1], offset).unwrap();
    }

    #[test]
    fn the_root_hash_does_not_change_between_builds_of_this_program() {
        let (_, _, tree) = sealed(300);
        assert_eq!((tree.data_blocks, tree.bytes.len()), (300, 4 * BLOCK));
        expect!["ee327fd5a21c8675a4484a20dad26cde382c615c2be35bbb4ae341d7dafcfe4e"]
            .assert_eq(&hex::encode(tree.root_hash));
    }

    #[test]
    fn veritysetup_makes_the_same_tree_and_accepts_ours() {
        let Some(veritysetup) = foreign::tool("veritysetup") else { return };
        // One block (no tree at all), one level, its last hash, two levels, three.
        for blocks in [1, 2, 127, 128, 129, 300, 128 * 128, 128 * 128 + 1] {
            let (file, length, tree) = sealed(blocks);
            let data = file.path().to_str().unwrap();
            let theirs = tempfile::NamedTempFile::new().unwrap();
            let salt = format!("--salt={}", hex::encode(SALT_BYTES));
            let count = format!("--data-blocks={blocks}");
            let theirs_name = theirs.path().to_str().unwrap();
            let common = ["--no-superblock", "--hash=sha256", &salt, &count];
            let text =
                veritysetup.run(&[&["format", data, theirs_name], common.as_slice()].concat());
            let root = hex::encode(tree.root_hash);
            assert!(text.contains(&root), "{blocks} blocks: {root} is not in\n{text}");
            assert!(std::fs::read(theirs.path()).unwrap() == tree.bytes, "{blocks} blocks");

            let offset = format!("--hash-offset={length}");
            let verify = ["verify", data, data, root.as_str(), offset.as_str()];
            veritysetup.run(&[&verify, common.as_slice()].concat());
        }
    }

    #[test]
    fn every_flipped_byte_is_found_and_its_block_named() {
        let (file, length, tree) = sealed(300);
        let check = || verify(file.as_file(), file.path(), length, &SALT_BYTES, &tree.root_hash);
        check().unwrap();
        let block = BLOCK as u64;
        let cases = [
            (0, "block 0 (offset 0) does not match its hash in the tree"),
            (299 * block + 4095, "block 299 (offset 1224704) does not match its hash in the tree"),
            (length, "block 0 of the hash tree does not match the blocks under it"),
            (length + block + 32 * 5, "block 5 (offset 20480) does not match its hash in the tree"),
            // Behind the last hash of the last block there are zeros, and they are checked too.
            (length + 4 * block - 1, "block 383 (offset 1568768) does not match its hash"),
        ];
        for (offset, message) in cases {
            flip(file.as_file(), offset);
            let error = check().unwrap_err().to_string();
            assert!(error.contains(message), "offset {offset}: {error}");
            flip(file.as_file(), offset);
        }
        check().unwrap();
        let wrong = verify(file.as_file(), file.path(), length, &SALT_BYTES, &[0; HASH]);
        let error = wrong.unwrap_err().to_string();
        assert!(error.contains("the root hash is"), "{error}");
    }

    #[test]
    fn a_length_that_is_no_whole_number_of_blocks_is_refused() {
        let file = sample(2);
        for length in [0, 1, 4097] {
            let error =
                build(file.as_file(), Path::new("root"), length, &SALT_BYTES).err().unwrap();
            assert!(error.to_string().starts_with(&format!("root: {length} bytes are not")));
        }
        let error = build(file.as_file(), Path::new("root"), 3 * 4096, &SALT_BYTES).err().unwrap();
        assert!(error.to_string().starts_with("root: cannot read"), "{error}");
    }
}
