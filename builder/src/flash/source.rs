//! The image as it is read: a plain or a compressed file, and what in it has to be written.
//!
//! With a block map beside it, what the map leaves out may be anything on the card. Without one,
//! holes and blocks of zeros are part of the image: they are left out only on a target that reads
//! as zeros where nothing was written.

use std::fs::File;
use std::io::{self, BufReader, Read as _};
use std::ops::Range;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

use ondisk::device::{FileDevice, ReadAt};
use zstd::stream::read::Decoder;

use super::block_map::BlockMap;
use crate::error::{Context, Error, Result};
use crate::image::sparse::{BLOCK, Ranges, SparseImage, is_zero};

/// A run of bytes that holds data.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stretch {
    /// Its bytes in the image.
    pub range: Range<u64>,
    /// What they hash to, if a block map says so.
    pub sha256: Option<[u8; 32]>,
}

/// What the bytes outside of all stretches are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Rest {
    /// Nobody reads them.
    Anything,
    /// Zeros, for all we know on purpose.
    Zeros,
}

/// An image file that was found readable.
#[derive(Clone, Debug)]
pub struct Image {
    path: PathBuf,
    packed: bool,
    length: u64,
    stretches: Vec<Stretch>,
    rest: Rest,
    map: Option<PathBuf>,
}

/// Without a map, pieces are cut at multiples of this, so that each is hashed by itself.
const LONGEST_PIECE: u64 = 16 << 20;
const CHUNK: usize = 1 << 20;
/// RFC 8878, section 3.1.1.
const ZSTD_MAGIC: [u8; 4] = [0x28, 0xB5, 0x2F, 0xFD];

impl Image {
    /// Looks at an image file and at the block map beside it. A compressed image without a map is
    /// unpacked once to find out how long it is and what it holds; `progress` is told of the bytes.
    ///
    /// `warn` hears why a map that is there is not used.
    pub fn open(
        path: &Path,
        mut warn: impl FnMut(String),
        progress: impl FnMut(u64),
    ) -> Result<Self> {
        let failed = || format!("cannot read {}", path.display());
        let file = File::open(path).context(failed)?;
        if file.metadata().context(failed)?.is_dir() {
            return Err(Error::new(format!("{} is a directory", path.display()))
                .hint("name the image in it, such as disk.img"));
        }
        let mut magic = [0; 4];
        let packed = file.read_exact_at(&mut magic, 0).is_ok() && magic == ZSTD_MAGIC;
        let length = FileDevice::new(file).context(failed)?.size();
        let map_path = map_beside(path);
        let map = read_map(&map_path).unwrap_or_else(|error| {
            warn(format!("{} is not used: {}", map_path.display(), error.chain()));
            None
        });
        let map = map.filter(|map| {
            let fits = packed || map.image_bytes == length;
            if !fits {
                let of = map.image_bytes;
                warn(format!("{} is of an image of {of} bytes: not used", map_path.display()));
            }
            fits
        });
        let image = Self {
            path: path.to_owned(),
            packed,
            length,
            stretches: Vec::new(),
            rest: Rest::Zeros,
            map: None,
        };
        match map {
            Some(BlockMap { image_bytes, stretches }) => Ok(Self {
                length: image_bytes,
                stretches,
                rest: Rest::Anything,
                map: Some(map_path),
                ..image
            }),
            None if packed => image.scanned(progress),
            None => {
                let mapped = SparseImage::open(path)?.mapped;
                Ok(Self { stretches: pieces(&mapped), ..image })
            }
        }
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Length of the image, unpacked.
    pub fn length(&self) -> u64 {
        self.length
    }

    /// The block map that is used.
    pub fn map(&self) -> Option<&Path> {
        self.map.as_deref()
    }

    /// What has to be written to a target, in ascending order.
    pub fn stretches(&self, target_reads_zeros: bool) -> Vec<Stretch> {
        if self.rest == Rest::Zeros && !target_reads_zeros {
            let mut all = Ranges::default();
            all.insert(0..self.length);
            return pieces(&all);
        }
        self.stretches.clone()
    }

    /// The start of the image, to be read at any place; what lies behind `bytes` may read as zeros.
    pub fn front(&self, bytes: u64) -> Result<FileDevice> {
        let failed = || format!("cannot read {}", self.path.display());
        if !self.packed {
            return FileDevice::new(File::open(&self.path).context(failed)?).context(failed);
        }
        let unpacked = tempfile::tempfile().context(|| "cannot make a temporary file".into())?;
        let mut reader = self.reader()?;
        let mut buffer = vec![0; CHUNK];
        let end = bytes.min(self.length);
        let mut position = 0;
        while position < end {
            let count = usize::try_from(end - position).map_or(CHUNK, |left| left.min(CHUNK));
            reader.read(position, &mut buffer[..count])?;
            if !is_zero(&buffer[..count]) {
                let written = unpacked.write_all_at(&buffer[..count], position);
                written.context(|| "cannot write a temporary file".into())?;
            }
            position += count as u64;
        }
        unpacked.set_len(self.length).context(|| "cannot write a temporary file".into())?;
        FileDevice::new(unpacked).context(failed)
    }

    /// Reads the image from its start on.
    pub fn reader(&self) -> Result<Reader> {
        let failed = || format!("cannot read {}", self.path.display());
        let file = File::open(&self.path).context(failed)?;
        let way = if self.packed {
            Way::Packed { decoder: Box::new(Decoder::new(file).context(failed)?), position: 0 }
        } else {
            Way::Plain(file)
        };
        Ok(Reader { path: self.path.clone(), way })
    }

    /// Finds length and contents by unpacking everything.
    fn scanned(mut self, mut progress: impl FnMut(u64)) -> Result<Self> {
        let failed = || format!("cannot unpack {}", self.path.display());
        let file = File::open(&self.path).context(failed)?;
        let mut decoder = Decoder::new(file).context(failed)?;
        let (mut mapped, mut position, mut buffer) = (Ranges::default(), 0, vec![0; CHUNK]);
        loop {
            let count = fill(&mut decoder, &mut buffer)
                .map_err(|error| Error::caused(failed(), error).hint(DAMAGED))?;
            let mut start = position;
            for block in buffer[..count].chunks(BLOCK as usize) {
                let end = start + block.len() as u64;
                if !is_zero(block) {
                    mapped.insert(start..end);
                }
                start = end;
            }
            position += count as u64;
            progress(count as u64);
            if count < buffer.len() {
                break;
            }
        }
        self.length = position;
        self.stretches = pieces(&mapped);
        Ok(self)
    }
}

const DAMAGED: &str = "the file is damaged or was cut short: fetch or build it again";

/// `disk.img.bmap` for `disk.img` and for `disk.img.zst`.
fn map_beside(path: &Path) -> PathBuf {
    let packed = path.extension().is_some_and(|extension| extension == "zst");
    let plain = if packed { path.with_extension("") } else { path.to_owned() };
    let mut name = plain.into_os_string();
    name.push(".bmap");
    PathBuf::from(name)
}

fn read_map(path: &Path) -> Result<Option<BlockMap>> {
    match std::fs::read_to_string(path) {
        Ok(text) => BlockMap::parse(&text).map(Some),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(Error::caused("cannot be read", error)),
    }
}

fn pieces(mapped: &Ranges) -> Vec<Stretch> {
    let mut pieces = Vec::new();
    for range in mapped.iter() {
        let mut start = range.start;
        while start < range.end {
            let next = ((start / LONGEST_PIECE + 1) * LONGEST_PIECE).min(range.end);
            pieces.push(Stretch { range: start..next, sha256: None });
            start = next;
        }
    }
    pieces
}

/// Reads until the buffer is full or nothing is left.
fn fill(from: &mut impl io::Read, buffer: &mut [u8]) -> io::Result<usize> {
    let mut count = 0;
    while count < buffer.len() {
        match from.read(&mut buffer[count..]) {
            Ok(0) => break,
            Ok(more) => count += more,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(count)
}

/// Reads an image once, from its start to its end.
pub struct Reader {
    path: PathBuf,
    way: Way,
}

enum Way {
    Plain(File),
    Packed { decoder: Box<Decoder<'static, BufReader<File>>>, position: u64 },
}

impl Reader {
    /// Fills `buffer` with the bytes of the image from `offset` on, which never goes back.
    pub fn read(&mut self, offset: u64, buffer: &mut [u8]) -> Result<()> {
        let shown = self.path.display();
        let failed = || format!("cannot read {} bytes at {offset} of {shown}", buffer.len());
        match &mut self.way {
            Way::Plain(file) => {
                let message = failed();
                file.read_exact_at(buffer, offset)
                    .map_err(|error| Error::caused(message, error).hint(DAMAGED))
            }
            Way::Packed { decoder, position } => {
                let message = failed();
                unpack(decoder, position, offset, buffer)
                    .map_err(|error| Error::caused(message, error).hint(DAMAGED))
            }
        }
    }

    /// Reads what is left; the image has to end where it was said to end.
    pub fn finish(&mut self, length: u64) -> Result<()> {
        let Way::Packed { decoder, position } = &mut self.way else { return Ok(()) };
        let failed = || format!("cannot unpack {}", self.path.display());
        let rest = io::copy(decoder, &mut io::sink())
            .map_err(|error| Error::caused(failed(), error).hint(DAMAGED))?;
        if *position + rest == length {
            return Ok(());
        }
        let found = *position + rest;
        let message = format!("{} holds {found} bytes, not {length}", self.path.display());
        Err(Error::new(message).hint(DAMAGED))
    }
}

fn unpack(
    decoder: &mut impl io::Read,
    position: &mut u64,
    offset: u64,
    buffer: &mut [u8],
) -> io::Result<()> {
    let skip = offset.checked_sub(*position).ok_or(io::ErrorKind::InvalidInput)?;
    if io::copy(&mut decoder.take(skip), &mut io::sink())? < skip {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    decoder.read_exact(buffer)?;
    *position = offset + buffer.len() as u64;
    Ok(())
}
