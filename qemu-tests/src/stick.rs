//! A USB stick as people have them: a FAT and an ext4 partition, each with files.
//!
//! The table and the ext4 file system come from foreign tools, since what plugs into a device was
//! not made by us. The FAT is our own writer's, which foreign tools check elsewhere.

use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use builder::image::fat::{self, FatFile, Volume};
use builder::image::sparse::{Sparse, SparseImage};
use builder::tree::Content;

use crate::tools;

const MIB: u64 = 1 << 20;
/// Room for a bundle and more in each.
const FAT: Range<u64> = MIB..193 * MIB;
const EXT4: Range<u64> = 193 * MIB..385 * MIB;
/// The second table takes the last MiB.
const LENGTH: u64 = 386 * MIB;

/// Makes the image of a stick with files, each a name and what becomes its content.
pub fn write(target: &Path, on_fat: &[(&str, PathBuf)], on_ext4: &[(&str, PathBuf)]) {
    let mut image = Sparse::create(target, LENGTH).unwrap();
    let files: Vec<FatFile> = on_fat.iter().map(|(name, path)| fat_file(name, path)).collect();
    fat::write(&mut image, FAT, Volume { id: 0x5711_c4ed, label: "STICK" }, &files).unwrap();
    let ext4 = target.with_extension("ext4");
    make_ext4(&ext4, on_ext4);
    image.copy_image(&SparseImage::open(&ext4).unwrap(), EXT4.start).unwrap();
    image.finish().unwrap();
    std::fs::remove_file(ext4).unwrap();

    let mut table = tools::tool("sgdisk").command();
    for (number, range, kind) in [(1, FAT, "0700"), (2, EXT4, "8300")] {
        let (first, last) = (range.start / 512, range.end / 512 - 1);
        table.arg(format!("--new={number}:{first}:{last}"));
        table.arg(format!("--typecode={number}:{kind}"));
    }
    tools::run(table.arg(target));
}

fn fat_file(name: &str, path: &Path) -> FatFile {
    let length = path.metadata().unwrap().len();
    let content = Content::Range { path: Arc::new(path.to_owned()), offset: 0, length };
    FatFile { path: name.to_owned(), content }
}

/// An ext4 file system with the files in its top directory.
fn make_ext4(target: &Path, files: &[(&str, PathBuf)]) {
    let directory = tempfile::tempdir().unwrap();
    for (name, path) in files {
        std::fs::copy(path, directory.path().join(name)).unwrap();
    }
    let mut command = tools::tool("mke2fs").command();
    command.args(["-q", "-F", "-t", "ext4", "-d"]).arg(directory.path()).arg(target);
    tools::run(command.arg(format!("{}M", (EXT4.end - EXT4.start) / MIB)));
}
