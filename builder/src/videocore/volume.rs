//! A FAT volume as a boot program reads it: geometry, chains, directories, files.
//!
//! A reader of its own, and not the crate that the FAT writer's tests use: what matters here is
//! what those hide, such as cluster counts, chains and the last cluster. Follows Microsoft's
//! "FAT32 File System Specification" (2000). Trusts nothing: a chain that leaves the volume or
//! comes back to itself is an error with its place.

use std::ops::Range;

use ondisk::device::ReadAt;

/// Clusters of a FAT are numbered from here.
const FIRST_CLUSTER: u32 = 2;
/// Fewer clusters than this make a volume FAT12 or FAT16, whatever else it says.
const FAT16_CLUSTERS: u64 = 4085;
const FAT32_CLUSTERS: u64 = 65525;
/// A marker of this value or more ends a chain.
const END_OF_CHAIN: u32 = 0x0FFF_FFF8;
/// The four highest bits of an entry are not part of it.
const ENTRY_MASK: u32 = 0x0FFF_FFFF;
const DIRECTORY_ENTRY: usize = 32;
const DEEPEST: usize = 8;

/// Width of a table entry, which follows from the number of clusters alone.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Kind {
    /// 12 bits.
    Fat12,
    /// 16 bits.
    Fat16,
    /// 28 bits in 32.
    Fat32,
}

/// A file of the volume.
#[derive(Clone, Debug)]
pub(super) struct VolumeFile {
    /// Path with `/`, as it is spelt on the volume.
    pub path: String,
    /// Its bytes.
    pub bytes: Vec<u8>,
}

/// What a boot program can find in a volume.
#[derive(Clone, Debug)]
pub(super) struct Volume {
    /// FAT12, FAT16 or FAT32.
    pub kind: Kind,
    /// Bytes of a sector as the volume has it.
    pub sector_bytes: u64,
    /// Bytes of a cluster.
    pub cluster_bytes: u64,
    /// Number of clusters.
    pub clusters: u64,
    /// True if the last cluster belongs to a file or directory.
    pub last_cluster_used: bool,
    /// All files, of FAT32 only.
    pub files: Vec<VolumeFile>,
}

impl Volume {
    /// Reads a volume and, if it is FAT32, all its files.
    ///
    /// Errors: in words, where the volume contradicts itself or cannot be read.
    pub(super) fn read<D: ReadAt>(device: &D, range: &Range<u64>) -> Result<Self, String> {
        let geometry = Geometry::read(device, range)?;
        let mut volume = geometry.describe();
        if volume.kind == Kind::Fat32 {
            let mut reader = Reader::new(device, geometry)?;
            reader.directory(geometry.root_cluster, "", 0)?;
            volume.last_cluster_used = reader.last_cluster_used;
            volume.files = reader.files;
        }
        Ok(volume)
    }

    /// A file by its path; FAT does not tell capital letters apart.
    pub(super) fn file(&self, path: &str) -> Option<&VolumeFile> {
        self.files.iter().find(|file| file.path.eq_ignore_ascii_case(path))
    }
}

/// The boot sector's numbers, checked so far that no later arithmetic can overflow.
#[derive(Clone, Copy, Debug)]
struct Geometry {
    start: u64,
    sector_bytes: u64,
    cluster_sectors: u64,
    table_start: u64,
    data_start: u64,
    clusters: u64,
    root_cluster: u32,
}

impl Geometry {
    fn read<D: ReadAt>(device: &D, range: &Range<u64>) -> Result<Self, String> {
        let length = range.end.saturating_sub(range.start);
        let mut boot = [0; 512];
        read(device, range.start, &mut boot)?;
        if boot[510..] != [0x55, 0xAA] || !matches!(boot[0], 0xEB | 0xE9) {
            return Err("it has no FAT boot sector".into());
        }
        let sector_bytes = word(&boot, 11);
        let cluster_sectors = u64::from(boot[13]);
        if !matches!(sector_bytes, 512 | 1024 | 2048 | 4096) || !cluster_sectors.is_power_of_two() {
            return Err(format!(
                "its boot sector has sectors of {sector_bytes} bytes \
                 and clusters of {cluster_sectors} sectors"
            ));
        }
        let either = |small: u64, large: u64| if small != 0 { small } else { large };
        let sectors = either(word(&boot, 19), long(&boot, 32));
        let table_sectors = either(word(&boot, 22), long(&boot, 36));
        let root_sectors = (word(&boot, 17) * DIRECTORY_ENTRY as u64).div_ceil(sector_bytes);
        let table_start = word(&boot, 14);
        let data_start = table_start + u64::from(boot[16]) * table_sectors + root_sectors;
        if sectors * sector_bytes > length {
            return Err(format!("it has {sectors} sectors, more than its partition"));
        }
        let clusters = sectors.saturating_sub(data_start) / cluster_sectors;
        let entries = table_sectors * sector_bytes / 4;
        if clusters >= FAT32_CLUSTERS && entries < clusters + u64::from(FIRST_CLUSTER) {
            return Err(format!("its table is too short for {clusters} clusters"));
        }
        Ok(Self {
            start: range.start,
            sector_bytes,
            cluster_sectors,
            table_start,
            data_start,
            clusters,
            root_cluster: u32::from_le_bytes([boot[44], boot[45], boot[46], boot[47]]),
        })
    }

    fn describe(&self) -> Volume {
        Volume {
            kind: match self.clusters {
                ..FAT16_CLUSTERS => Kind::Fat12,
                FAT16_CLUSTERS..FAT32_CLUSTERS => Kind::Fat16,
                _ => Kind::Fat32,
            },
            sector_bytes: self.sector_bytes,
            cluster_bytes: self.cluster_bytes(),
            clusters: self.clusters,
            last_cluster_used: false,
            files: Vec::new(),
        }
    }

    fn cluster_bytes(&self) -> u64 {
        self.cluster_sectors * self.sector_bytes
    }

    fn last_cluster(&self) -> u64 {
        self.clusters + u64::from(FIRST_CLUSTER) - 1
    }

    fn offset(&self, cluster: u32) -> u64 {
        let before = u64::from(cluster.saturating_sub(FIRST_CLUSTER)) * self.cluster_sectors;
        self.start + (self.data_start + before) * self.sector_bytes
    }
}

struct Reader<'d, D> {
    device: &'d D,
    geometry: Geometry,
    table: Vec<u32>,
    /// Clusters already read, so that no two things share one and no directory holds itself.
    seen: Vec<bool>,
    last_cluster_used: bool,
    files: Vec<VolumeFile>,
}

impl<'d, D: ReadAt> Reader<'d, D> {
    fn new(device: &'d D, geometry: Geometry) -> Result<Self, String> {
        let count = index(geometry.last_cluster() + 1)?;
        let mut bytes = vec![0; count * 4];
        read(device, geometry.start + geometry.table_start * geometry.sector_bytes, &mut bytes)?;
        let entry = |bytes: &[u8]| bytes.try_into().map_or(0, u32::from_le_bytes) & ENTRY_MASK;
        let table = bytes.chunks_exact(4).map(entry).collect();
        let (seen, files) = (vec![false; count], Vec::new());
        Ok(Self { device, geometry, table, seen, last_cluster_used: false, files })
    }

    /// The bytes of a chain of clusters.
    fn chain(&mut self, first: u32, path: &str) -> Result<Vec<u8>, String> {
        let cluster_bytes = index(self.geometry.cluster_bytes())?;
        let mut bytes = Vec::new();
        let mut cluster = first;
        while cluster < END_OF_CHAIN {
            let at = cluster as usize;
            let fresh = self.seen.get_mut(at).filter(|seen| cluster >= FIRST_CLUSTER && !**seen);
            let Some(seen) = fresh else {
                return Err(format!("{path}: its chain leads to cluster {cluster}"));
            };
            *seen = true;
            self.last_cluster_used |= u64::from(cluster) == self.geometry.last_cluster();
            let start = bytes.len();
            bytes.resize(start + cluster_bytes, 0);
            read(self.device, self.geometry.offset(cluster), &mut bytes[start..])?;
            cluster = self.table[at];
        }
        Ok(bytes)
    }

    fn directory(&mut self, cluster: u32, path: &str, depth: usize) -> Result<(), String> {
        if depth > DEEPEST {
            return Err(format!("{path}: more than {DEEPEST} directories deep"));
        }
        let bytes = self.chain(cluster, if path.is_empty() { "/" } else { path })?;
        let mut long_name = LongName::default();
        for entry in bytes.chunks_exact(DIRECTORY_ENTRY) {
            match (entry[0], entry[11]) {
                (0, _) => break,
                (0xE5, _) => long_name = LongName::default(),
                (_, attributes) if attributes & 0x3F == 0x0F => long_name.add(entry),
                (b'.', _) => {}
                (_, attributes) if attributes & 0x08 != 0 => {}
                (_, attributes) => {
                    let name = long_name.take(entry).unwrap_or_else(|| short_name(entry));
                    let inner = if path.is_empty() { name } else { format!("{path}/{name}") };
                    let first = first_cluster(entry);
                    if attributes & 0x10 != 0 {
                        self.directory(first, &inner, depth + 1)?;
                    } else {
                        self.file(first, inner, long(entry, 28))?;
                    }
                }
            }
        }
        Ok(())
    }

    fn file(&mut self, first: u32, path: String, size: u64) -> Result<(), String> {
        let mut bytes = if size == 0 { Vec::new() } else { self.chain(first, &path)? };
        let found = bytes.len() as u64;
        if found.div_ceil(self.geometry.cluster_bytes())
            != size.div_ceil(self.geometry.cluster_bytes())
        {
            return Err(format!("{path}: {size} bytes long, its clusters hold {found}"));
        }
        bytes.truncate(index(size)?);
        self.files.push(VolumeFile { path, bytes });
        Ok(())
    }
}

/// The pieces of a long name, which stand before the entry they name, last piece first.
#[derive(Default)]
struct LongName {
    units: Vec<u16>,
    checksum: u8,
}

impl LongName {
    /// Where an entry has the 13 units of its piece.
    const UNITS: [usize; 13] = [1, 3, 5, 7, 9, 14, 16, 18, 20, 22, 24, 28, 30];

    fn add(&mut self, entry: &[u8]) {
        if entry[0] & 0x40 != 0 {
            *self = Self { units: Vec::new(), checksum: entry[13] };
        }
        let unit = |at: &usize| u16::from_le_bytes([entry[*at], entry[*at + 1]]);
        let piece = Self::UNITS.iter().map(unit);
        self.units.splice(..0, piece);
    }

    /// The name, if it belongs to this entry; a boot program ignores one that does not.
    fn take(&mut self, entry: &[u8]) -> Option<String> {
        let Self { units, checksum } = std::mem::take(self);
        let sum =
            entry[..11].iter().fold(0_u8, |sum, byte| sum.rotate_right(1).wrapping_add(*byte));
        let end = units.iter().position(|unit| *unit == 0).unwrap_or(units.len());
        let named = !units.is_empty() && sum == checksum;
        named.then(|| String::from_utf16_lossy(&units[..end]))
    }
}

fn short_name(entry: &[u8]) -> String {
    let part = |bytes: &[u8], lower: bool| {
        let text = String::from_utf8_lossy(bytes).trim_end().to_owned();
        if lower { text.to_lowercase() } else { text }
    };
    // Bits by which Windows says that a short name is meant in small letters.
    let name = part(&entry[..8], entry[12] & 0x08 != 0);
    let extension = part(&entry[8..11], entry[12] & 0x10 != 0);
    if extension.is_empty() { name } else { format!("{name}.{extension}") }
}

fn first_cluster(entry: &[u8]) -> u32 {
    u32::from_le_bytes([entry[26], entry[27], entry[20], entry[21]])
}

fn read<D: ReadAt>(device: &D, offset: u64, buffer: &mut [u8]) -> Result<(), String> {
    let length = buffer.len();
    device
        .read_at(offset, buffer)
        .map_err(|error| format!("cannot read {length} bytes at {offset}: {error}"))
}

fn word(bytes: &[u8], at: usize) -> u64 {
    u64::from(u16::from_le_bytes([bytes[at], bytes[at + 1]]))
}

fn long(bytes: &[u8], at: usize) -> u64 {
    word(bytes, at) | word(bytes, at + 2) << 16
}

fn index(value: u64) -> Result<usize, String> {
    usize::try_from(value).map_err(|_| format!("{value} is more than this machine can hold"))
}
