//! Boot partitions as no tool writes them: chains that go in circles, directories without end.
//!
//! FAT32 as in Microsoft's "FAT32 File System Specification" (2000): the boot sector's fields are
//! those of its section "Boot Sector and BPB", a directory entry has 32 bytes.

use ondisk::layout::Extent;

use crate::disk::Disk;

const ENTRY_BYTES: usize = 32;
/// First byte of an entry whose file was removed.
const REMOVED: u8 = 0xe5;
/// What marks the last cluster of a chain.
const LAST: u32 = 0x0fff_ffff;

/// The boot partition of a disk that nothing has mounted.
pub struct Volume<'a> {
    disk: &'a Disk,
    /// Where it starts on the disk.
    start: u64,
    cluster_bytes: usize,
    /// Where each of the tables starts, counted from the start.
    tables: Vec<u64>,
    /// The first one's entries.
    entries: Vec<u32>,
    /// Where cluster 2 starts, counted from the start.
    clusters_at: u64,
    root: u32,
}

impl<'a> Volume<'a> {
    /// Reads what is needed of it.
    pub fn of(disk: &'a Disk) -> Self {
        let start = disk.table().boot().unwrap().extent.offset;
        let boot = disk.bytes(Extent { offset: start, length: 512 });
        let word = |at: usize| u64::from(u16::from_le_bytes([boot[at], boot[at + 1]]));
        let long = |at: usize| u32::from_le_bytes(boot[at..at + 4].try_into().unwrap());
        assert_eq!(word(17), 0, "no FAT32: its root directory is not a chain");
        let sector = word(11);
        let table_bytes = u64::from(long(36)) * sector;
        let tables: Vec<u64> = (0..u64::from(boot[16]))
            .map(|number| word(14) * sector + number * table_bytes)
            .collect();
        let table = disk.bytes(Extent { offset: start + tables[0], length: table_bytes });
        let (words, _) = table.as_chunks::<4>();
        Self {
            disk,
            start,
            cluster_bytes: usize::from(boot[13]) * usize::try_from(sector).unwrap(),
            clusters_at: tables[0] + table_bytes * u64::try_from(tables.len()).unwrap(),
            tables,
            entries: words.iter().map(|word| u32::from_le_bytes(*word) & LAST).collect(),
            root: long(44),
        }
    }

    fn offset_of(&self, cluster: u32) -> u64 {
        let index = u64::from(cluster - 2);
        self.start + self.clusters_at + index * u64::try_from(self.cluster_bytes).unwrap()
    }

    fn write_tables(&self) {
        let bytes: Vec<u8> = self.entries.iter().flat_map(|entry| entry.to_le_bytes()).collect();
        for table in &self.tables {
            self.disk.overwrite(self.start + table, &bytes);
        }
    }

    /// The first cluster of the file that begins with these bytes is followed by itself.
    pub fn lead_in_a_circle(&mut self, beginning: &[u8]) {
        let length = self.cluster_bytes * (self.entries.len() - 2);
        let extent = self.disk.table().boot().unwrap().extent;
        let length = u64::try_from(length).unwrap().min(extent.length - self.clusters_at);
        let bytes = self.disk.bytes(Extent { offset: self.start + self.clusters_at, length });
        let at = bytes.windows(beginning.len()).position(|window| window == beginning).unwrap();
        let number = at / self.cluster_bytes + 2;
        self.entries[number] = u32::try_from(number).unwrap();
        self.write_tables();
    }

    /// Puts so many empty files into the top directory, behind what is there.
    pub fn crowd_the_top_directory(&mut self, count: usize) {
        let mut last = self.root;
        while self.entries[last as usize] < 0x0fff_fff8 {
            last = self.entries[last as usize];
        }
        self.close(last);
        let free = self.entries.iter().enumerate().skip(2).filter(|(_, entry)| **entry == 0);
        let free: Vec<u32> = free.map(|(number, _)| u32::try_from(number).unwrap()).collect();
        let in_a_cluster = self.cluster_bytes / ENTRY_BYTES;
        let names: Vec<String> = (0..count).map(|number| format!("N{number:07}   ")).collect();
        let groups: Vec<&[String]> = names.chunks(in_a_cluster).collect();
        assert!(groups.len() < free.len(), "no room for {count} files");
        for (group, cluster) in groups.iter().zip(free) {
            let mut bytes = Vec::with_capacity(self.cluster_bytes);
            for name in *group {
                bytes.extend_from_slice(name.as_bytes());
                // An ordinary file, of no length, at no time.
                bytes.push(0x20);
                bytes.resize(bytes.len() + ENTRY_BYTES - 12, 0);
            }
            bytes.resize(self.cluster_bytes, 0);
            self.disk.overwrite(self.offset_of(cluster), &bytes);
            self.entries[last as usize] = cluster;
            last = cluster;
        }
        self.entries[last as usize] = LAST;
        self.write_tables();
    }

    /// Nothing in this cluster of a directory says that the directory ends here.
    fn close(&self, cluster: u32) {
        let length = u64::try_from(self.cluster_bytes).unwrap();
        let mut bytes = self.disk.bytes(Extent { offset: self.offset_of(cluster), length });
        for entry in bytes.chunks_mut(ENTRY_BYTES).filter(|entry| entry[0] == 0) {
            entry[0] = REMOVED;
        }
        self.disk.overwrite(self.offset_of(cluster), &bytes);
    }
}
