//! `iota flash` beside `bmaptool copy`: the same image with the same block map onto the same file.
//!
//! Ours writes as much, and then reads all of it back from the medium, which `bmaptool` does not.
//! The image is made here: 2 GiB, of which 300 MB hold bytes that no file system below can make
//! smaller, in runs of uneven length.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use builder::error::{Context, Result};
use builder::host::tools::Tools;
use builder::image::bmap;
use builder::image::sparse::{BLOCK, Sparse, SparseImage};

use super::process::{Cost, least, measure};
use super::table::{Goal, Row, Value};

const IMAGE_BYTES: u64 = 2 << 30;
const MAPPED_BYTES: u64 = 300_000_000;
/// Ours and theirs in turn, this often.
const ROUNDS: usize = 5;

/// Measures both with the program `iota`; files go to `scratch`.
pub fn run(program: &Path, scratch: &Path, tools: &Tools<'_>) -> Result<Vec<Row>> {
    fs::create_dir_all(scratch).context(|| format!("cannot make {}", scratch.display()))?;
    let image = make_image(&scratch.join("disk.img"))?;
    bmap::write(&image, &scratch.join("disk.img.bmap"))?;
    let bench = Bench { program, image: &image, target: scratch.join("card"), tools };
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        ours.push(bench.measure(&mut bench.ours())?);
        theirs.push(bench.measure(&mut bench.theirs()?)?);
    }
    let (ours, theirs) = (least(&ours), least(&theirs));
    let what =
        |of: &str| format!("flash 2 GiB, {} MB mapped: {of}", image.mapped.bytes() / 1_000_000);
    let (seconds, cpu) = (
        |cost: Cost| Value::Seconds(cost.seconds),
        |cost: Cost| Value::CpuSeconds(cost.cpu_seconds),
    );
    let peer = "bmaptool copy, not read back";
    Ok(vec![
        Row::new(what("time, read back"), seconds(ours))
            .beside(peer, seconds(theirs))
            .goal(Goal::Times(1.1)),
        Row::new(what("processor"), cpu(ours)).beside(peer, cpu(theirs)),
        Row::new(what("peak memory"), Value::Mebibytes(ours.peak_bytes))
            .beside(peer, Value::Mebibytes(theirs.peak_bytes)),
    ])
}

struct Bench<'a> {
    program: &'a Path,
    image: &'a SparseImage,
    target: PathBuf,
    tools: &'a Tools<'a>,
}

impl Bench<'_> {
    /// Each starts without a target, and ends when all is on the disk.
    fn measure(&self, command: &mut Command) -> Result<Cost> {
        let _ = fs::remove_file(&self.target);
        measure(command)
    }

    fn ours(&self) -> Command {
        let mut command = Command::new(self.program);
        command.arg("--quiet").arg("flash").arg(&self.image.path);
        command.arg("--device").arg(&self.target);
        command
    }

    fn theirs(&self) -> Result<Command> {
        let mut command = self.tools.find("bmaptool")?.command();
        command.args(["--quiet", "copy"]).arg(&self.image.path).arg(&self.target);
        Ok(command)
    }
}

/// Runs of 64 KiB to 16 MiB with holes of up to six times their length between them.
fn make_image(path: &Path) -> Result<SparseImage> {
    let mut image = Sparse::create(path, IMAGE_BYTES)?;
    let mut random = Random(0x1234_5678_9abc_def1);
    let (mut written, mut position) = (0, 0);
    while written < MAPPED_BYTES && position < IMAGE_BYTES {
        let wanted = (64 << 10) + random.below(16 << 20);
        let length = wanted.min(MAPPED_BYTES - written).min(IMAGE_BYTES - position);
        let length = length.next_multiple_of(BLOCK).min(IMAGE_BYTES - position);
        let mut bytes = random.bytes(length);
        if position == 0 {
            // The end of every first sector that is a partition table's.
            bytes[510..512].copy_from_slice(&[0x55, 0xAA]);
        }
        image.write_at(position, &bytes)?;
        written += length;
        position += length + random.below(6 * length).next_multiple_of(BLOCK);
    }
    image.finish()
}

/// Marsaglia's xorshift of 64 bits: the same image in every run.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn below(&mut self, limit: u64) -> u64 {
        self.next() % limit.max(1)
    }

    fn bytes(&mut self, length: u64) -> Vec<u8> {
        (0..length.div_ceil(8)).flat_map(|_| self.next().to_le_bytes()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_image_has_as_much_data_as_it_says_and_is_the_same_every_time() {
        let directory = tempfile::tempdir().unwrap();
        let image = make_image(&directory.path().join("disk.img")).unwrap();
        let mapped = image.mapped.bytes();
        assert!((MAPPED_BYTES..MAPPED_BYTES + BLOCK).contains(&mapped), "{mapped}");
        assert!(image.mapped.len() > 20, "{}", image.mapped.len());
        let again = make_image(&directory.path().join("again.img")).unwrap();
        assert_eq!(image.mapped, again.mapped);
    }
}
