//! Compresses a sparse image for download; holes are not read.
//!
//! Follows RFC 8878: the file is a row of frames, which every zstd decoder unpacks as one.
//!
//! ```text
//! data, with the small holes in it     one frame of libzstd, compressed on all cores
//! a hole of 1 MiB or more              one frame written here: 128 KiB of zeros in each 4 bytes
//! ```
//!
//! Guarantees: unpacks to exactly the image; the same image and settings give the same bytes with
//! any number of cores (frames and the jobs inside them are cut by content, not by time); memory is
//! libzstd's and one buffer.

use std::fs::File;
use std::io::{self, Write};
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::Path;

use zstd::stream::write::Encoder;

use crate::error::{Context, Error, Result};
use crate::host::parallel;
use crate::image::sparse::SparseImage;
use crate::image::unfinished::{Unfinished, with_room_hint};

const READ_CHUNK: usize = 1 << 20;
/// Shorter holes are cheaper as zeros within a frame than as the end of one.
const SHORTEST_HOLE: u64 = 1 << 20;
/// Largest block of the format, and of the window that a frame of zeros asks for.
const LARGEST_BLOCK: u64 = 1 << 17;

/// How hard to compress.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Compression {
    /// libzstd's level. Its long distance mode is not for us: with several workers it gives other
    /// bytes now and then (libzstd 1.5.7, about one run in thirty on a busy machine).
    pub level: i32,
}

impl Compression {
    /// For images that stay on this machine.
    pub const FAST: Self = Self { level: 1 };
    /// For images that are downloaded many times.
    pub const SMALL: Self = Self { level: 19 };
}

/// Compresses the image to `target`, using all cores; returns the number of compressed bytes.
///
/// `progress` is told of more and more mapped bytes that are done, all of them in the end.
pub fn compress(
    image: &SparseImage,
    target: &Path,
    compression: Compression,
    progress: impl FnMut(u64),
) -> Result<u64> {
    let workers = u32::try_from(parallel::processors()).unwrap_or(1);
    compress_with(image, target, compression, workers, progress)
}

fn compress_with(
    image: &SparseImage,
    target: &Path,
    compression: Compression,
    workers: u32,
    mut progress: impl FnMut(u64),
) -> Result<u64> {
    let file =
        File::open(&image.path).context(|| format!("cannot read {}", image.path.display()))?;
    let mut source = Source { image, file, buffer: vec![0; READ_CHUNK] };
    let mut output = Unfinished::create(target)?;
    let failed =
        |error: io::Error| with_room_hint(format!("cannot write {}", target.display()), error);
    let mut position = 0;
    for data in pieces(image) {
        write_zeros(&mut output, data.start - position).map_err(failed)?;
        let mut encoder = encoder(&mut output, compression, workers, data.end - data.start)
            .context(|| format!("cannot compress at level {}", compression.level))?;
        position = data.start;
        while position < data.end {
            let bytes = source.read(position, data.end)?;
            encoder.write_all(bytes).map_err(failed)?;
            let count = bytes.len() as u64;
            if image.mapped.contains(position) {
                progress(count);
            }
            position += count;
        }
        encoder.finish().map_err(failed)?;
    }
    write_zeros(&mut output, image.length - position).map_err(failed)?;
    let length = output.file().metadata().map_err(failed)?.len();
    output.finish()?;
    Ok(length)
}

/// What the frames of data cover: mapped ranges, with the small holes between them.
fn pieces(image: &SparseImage) -> Vec<Range<u64>> {
    let mut pieces: Vec<Range<u64>> = Vec::new();
    for range in image.mapped.iter() {
        match pieces.last_mut() {
            Some(last) if range.start - last.end < SHORTEST_HOLE => last.end = range.end,
            _ => pieces.push(range),
        }
    }
    pieces
}

fn encoder(
    output: &mut Unfinished,
    compression: Compression,
    workers: u32,
    length: u64,
) -> io::Result<Encoder<'static, &mut Unfinished>> {
    let mut encoder = Encoder::new(output, compression.level)?;
    encoder.set_pledged_src_size(Some(length))?;
    encoder.include_checksum(true)?;
    // Never 0, which is another mode with other bytes.
    encoder.multithread(workers.max(1))?;
    Ok(encoder)
}

struct Source<'a> {
    image: &'a SparseImage,
    file: File,
    buffer: Vec<u8>,
}

impl Source<'_> {
    /// The next bytes before `end`: a piece of a mapped range or of a hole.
    fn read(&mut self, position: u64, end: u64) -> Result<&[u8]> {
        let edge = self.image.mapped.edge_after(position).unwrap_or(end).min(end);
        let count = usize::try_from(edge - position).map_or(READ_CHUNK, |n| n.min(READ_CHUNK));
        let bytes = &mut self.buffer[..count];
        if self.image.mapped.contains(position) {
            self.file.read_exact_at(bytes, position).context(|| {
                format!("cannot read {count} bytes at {position} of {}", self.image.path.display())
            })?;
        } else {
            bytes.fill(0);
        }
        Ok(bytes)
    }
}

/// A frame that unpacks to `length` zeros; nothing for 0.
fn write_zeros(output: &mut impl Write, length: u64) -> io::Result<()> {
    if length == 0 {
        return Ok(());
    }
    // Magic number, length given in 8 bytes, window of 2^(10 + 7) bytes.
    let mut frame = vec![0x28, 0xB5, 0x2F, 0xFD, 0b1100_0000, 7 << 3];
    frame.extend(length.to_le_bytes());
    let mut left = length;
    while left > 0 {
        let block = left.min(LARGEST_BLOCK);
        left -= block;
        // Last or not, "one byte repeated", how often; then the byte.
        let header = u64::from(left == 0) | 1 << 1 | block << 3;
        frame.extend(&header.to_le_bytes()[..3]);
        frame.push(0);
    }
    output.write_all(&frame)
}

/// Unpacks a file of frames and hands its bytes on; for reading back what was written.
pub fn decompress(source: &Path, output: &mut impl Write) -> Result<u64> {
    let failed = || format!("cannot unpack {}", source.display());
    let file = File::open(source).context(failed)?;
    let mut decoder = zstd::stream::read::Decoder::new(file).context(failed)?;
    io::copy(&mut decoder, output).map_err(|error| {
        let hint = "the file is damaged or was cut short; build or download it again";
        Error::caused(failed(), error).hint(hint)
    })
}

#[cfg(test)]
mod tests {
    use std::fs;

    use expect_test::expect;
    use sha2::{Digest, Sha256};

    use super::*;
    use crate::hex;
    use crate::image::sparse::Sparse;

    const MIB: u64 = 1 << 20;

    /// Text-like data, so that levels differ; 40 MiB of it, more than one job of any level.
    fn sample(directory: &Path) -> SparseImage {
        let mut image = Sparse::create(&directory.join("disk.img"), 300 * MIB + 77).unwrap();
        let mut state = 1_u64;
        let words: Vec<u8> = (0..40 * MIB)
            .map(|_| {
                state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
                b"aaaabbbcddeeefgh"[(state >> 60) as usize]
            })
            .collect();
        image.write_at(3 * MIB, &words).unwrap();
        image.write_at(100 * MIB, b"alone").unwrap();
        image.write_at(100 * MIB + 300_000, b"near by").unwrap();
        image.write_at(300 * MIB + 70, b"the end").unwrap();
        image.finish().unwrap()
    }

    #[test]
    fn unpacks_to_the_image_and_reports_how_far_it_is() {
        let directory = tempfile::tempdir().unwrap();
        let image = sample(directory.path());
        let target = directory.path().join("disk.img.zst");
        let mut done = 0;
        let length = compress(&image, &target, Compression::FAST, |more| done += more).unwrap();
        assert_eq!(length, fs::metadata(&target).unwrap().len());
        assert_eq!(done, image.mapped.bytes());
        let mut bytes = Vec::new();
        assert_eq!(decompress(&target, &mut bytes).unwrap(), image.length);
        assert!(bytes == fs::read(&image.path).unwrap());
    }

    #[test]
    fn any_number_of_cores_gives_the_same_bytes() {
        let directory = tempfile::tempdir().unwrap();
        let image = sample(directory.path());
        let target = directory.path().join("disk.img.zst");
        let packed = |compression, workers| {
            compress_with(&image, &target, compression, workers, |_| {}).unwrap();
            hex::encode(Sha256::digest(fs::read(&target).unwrap()))
        };
        for compression in [Compression::FAST, Compression { level: 4 }] {
            let one = packed(compression, 1);
            assert_eq!(packed(compression, 2), one);
            assert_eq!(packed(compression, 5), one);
        }
        expect!["db1504e02d22da8151db101830d80e847dd0efff545c61082d09c9e7bbe532dd"]
            .assert_eq(&packed(Compression::FAST, 3));
    }

    #[test]
    fn holes_cost_next_to_nothing() {
        let directory = tempfile::tempdir().unwrap();
        let length = 8 << 30;
        let image = Sparse::create(&directory.path().join("i"), length).unwrap().finish().unwrap();
        let target = directory.path().join("i.zst");
        let packed = compress(&image, &target, Compression::SMALL, |_| {}).unwrap();
        assert!(packed < length / 30_000, "{packed}");
        let mut bytes = Vec::new();
        write_zeros(&mut bytes, 3 * LARGEST_BLOCK + 1).unwrap();
        let unpacked = zstd::stream::decode_all(bytes.as_slice()).unwrap();
        assert!(unpacked == vec![0; 3 * LARGEST_BLOCK as usize + 1]);
    }

    #[test]
    fn every_frame_says_how_much_it_holds() {
        let directory = tempfile::tempdir().unwrap();
        let image = sample(directory.path());
        let target = directory.path().join("disk.img.zst");
        compress(&image, &target, Compression::FAST, |_| {}).unwrap();
        let bytes = fs::read(&target).unwrap();
        let (mut rest, mut length, mut frames) = (bytes.as_slice(), 0, 0);
        while !rest.is_empty() {
            length += zstd::zstd_safe::get_frame_content_size(rest).unwrap().unwrap();
            rest = &rest[zstd::zstd_safe::find_frame_compressed_size(rest).unwrap()..];
            frames += 1;
        }
        // A hole, the words, a hole, two small pieces, a hole, the end.
        assert_eq!((length, frames), (image.length, 6));
    }

    #[test]
    fn a_file_that_was_cut_short_is_an_error_with_a_hint() {
        let directory = tempfile::tempdir().unwrap();
        let image = sample(directory.path());
        let target = directory.path().join("disk.img.zst");
        let length = compress(&image, &target, Compression::FAST, |_| {}).unwrap();
        fs::OpenOptions::new().write(true).open(&target).unwrap().set_len(length - 3).unwrap();
        let error = decompress(&target, &mut io::sink()).unwrap_err();
        assert!(error.to_string().starts_with("cannot unpack ") && error.next_step().is_some());
    }
}
