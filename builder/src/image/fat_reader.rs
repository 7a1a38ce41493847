//! Reads files of a FAT volume inside of a disk image, with crate `fatfs`: a second opinion on what
//! our own writer wrote.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::FileExt as _;
use std::path::Path;

use ondisk::layout::Extent;

use crate::error::{Context, Error, Result};
use crate::suggest;

/// The bytes of the file at the path `name`, such as `EFI/BOOT/BOOTAA64.EFI`, of the volume at
/// `extent` of a disk image.
///
/// Errors: no FAT volume; no such file, with the nearest name.
pub fn read_file(disk: &Path, extent: Extent, name: &str) -> Result<Vec<u8>> {
    let what = || format!("{name} in the boot partition of {}", disk.display());
    let file = File::open(disk).context(what)?;
    let volume = Volume { file, extent, position: 0 };
    let options = fatfs::FsOptions::new().update_accessed_date(false);
    let volume = fatfs::FileSystem::new(volume, options).context(what)?;
    let (directory, file) = name.rsplit_once('/').unwrap_or(("", name));
    let directory = match directory {
        "" => volume.root_dir(),
        path => volume.root_dir().open_dir(path).context(what)?,
    };
    let names = directory.iter().map(|entry| entry.map(|entry| entry.file_name()));
    let names = names.collect::<io::Result<Vec<_>>>().context(what)?;
    if !names.iter().any(|known| known == file) {
        let error = Error::new(format!("there is no {}", what()));
        return Err(match suggest::nearest(file, names.iter().map(String::as_str)) {
            Some(near) => error.hint(format!("did you mean {near}?")),
            None => error,
        });
    }
    let mut bytes = Vec::new();
    let read = directory.open_file(file).and_then(|mut file| file.read_to_end(&mut bytes));
    read.context(what)?;
    Ok(bytes)
}

/// A part of a disk image as the reader wants it; it writes nothing.
struct Volume {
    file: File,
    extent: Extent,
    position: u64,
}

impl Read for Volume {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let left = self.extent.length.saturating_sub(self.position);
        let length = usize::try_from(left).unwrap_or(usize::MAX).min(buffer.len());
        let read = self.file.read_at(&mut buffer[..length], self.extent.offset + self.position)?;
        self.position += read as u64;
        Ok(read)
    }
}

impl Write for Volume {
    fn write(&mut self, _: &[u8]) -> io::Result<usize> {
        Err(io::ErrorKind::ReadOnlyFilesystem.into())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Seek for Volume {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        let position = match to {
            SeekFrom::Start(offset) => Some(offset),
            SeekFrom::Current(offset) => self.position.checked_add_signed(offset),
            SeekFrom::End(offset) => self.extent.length.checked_add_signed(offset),
        };
        self.position = position.ok_or(io::ErrorKind::InvalidInput)?;
        Ok(self.position)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::image::fat::{self, FatFile};
    use crate::image::sparse::Sparse;
    use crate::tree::Content;

    #[test]
    fn a_file_is_read_from_the_middle_of_a_disk_and_a_slip_gets_the_nearest_name() {
        let directory = tempfile::tempdir().unwrap();
        let disk = directory.path().join("disk.img");
        let extent = Extent { offset: 4 << 20, length: 64 << 20 };
        let bytes: Vec<u8> = (0..5000_u32).map(|number| (number % 251) as u8).collect();
        let file =
            |path: &str| FatFile { path: path.to_owned(), content: Content::bytes(bytes.clone()) };
        let files = [file("u-boot.bin"), file("EFI/BOOT/BOOTAA64.EFI")];
        let mut image = Sparse::create(&disk, 80 << 20).unwrap();
        let volume = fat::Volume { id: 1, label: "BOOT" };
        fat::write(&mut image, 4 << 20..68 << 20, volume, &files).unwrap();
        image.finish().unwrap();
        for file in files {
            assert_eq!(read_file(&disk, extent, &file.path).unwrap(), bytes);
        }
        let error = read_file(&disk, extent, "uboot.bin").unwrap_err();
        assert_eq!(error.next_step(), Some("did you mean u-boot.bin?"));
        assert!(read_file(&disk, Extent { offset: 0, ..extent }, "u-boot.bin").is_err());
    }
}
