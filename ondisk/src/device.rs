//! What a disk is to the code above it: a run of bytes that can be read and, by few, written.
//!
//! Implemented here for memory and, behind the feature `std`, for a file (an image on the host, a
//! block device on the target); the loader implements it for UEFI's Block I/O.
use alloc::vec::Vec;
use core::fmt;

/// A device that can be read at any byte.
pub trait ReadAt {
    /// Why a read failed, in the words of the device.
    type Error: fmt::Display + fmt::Debug;

    /// Number of bytes on the device.
    fn size(&self) -> u64;

    /// Fills `buffer` with the bytes from `offset` on; a short read is an error.
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> Result<(), Self::Error>;
}

/// A device that can also be written.
pub trait WriteAt: ReadAt {
    /// Writes all of `bytes` from `offset` on.
    fn write_at(&mut self, offset: u64, bytes: &[u8]) -> Result<(), Self::Error>;

    /// Returns when everything written before is on the medium, as far as the device can say.
    fn flush(&mut self) -> Result<(), Self::Error>;
}

impl<D: ReadAt + ?Sized> ReadAt for &D {
    type Error = D::Error;
    fn size(&self) -> u64 {
        (**self).size()
    }
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> Result<(), D::Error> {
        (**self).read_at(offset, buffer)
    }
}

/// Whether a block device of this name may be a machine's own disk: devices that the kernel makes
/// out of nothing or of other disks are none, and neither are drives for discs.
pub fn is_disk_name(name: &str) -> bool {
    let letters = name.trim_end_matches(|character: char| character.is_ascii_digit());
    !matches!(letters, "loop" | "ram" | "zram" | "dm-" | "md" | "nbd" | "sr" | "fd")
}

/// Reading or writing went beyond the end of a device in memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BeyondEnd;

impl fmt::Display for BeyondEnd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("beyond the end of the device")
    }
}

impl core::error::Error for BeyondEnd {}

impl ReadAt for [u8] {
    type Error = BeyondEnd;
    fn size(&self) -> u64 {
        u64::try_from(self.len()).unwrap_or(u64::MAX)
    }
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> Result<(), BeyondEnd> {
        let start = usize::try_from(offset).map_err(|_| BeyondEnd)?;
        let end = start.checked_add(buffer.len()).ok_or(BeyondEnd)?;
        buffer.copy_from_slice(self.get(start..end).ok_or(BeyondEnd)?);
        Ok(())
    }
}

impl ReadAt for Vec<u8> {
    type Error = BeyondEnd;
    fn size(&self) -> u64 {
        self.as_slice().size()
    }
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> Result<(), BeyondEnd> {
        self.as_slice().read_at(offset, buffer)
    }
}

impl WriteAt for Vec<u8> {
    fn write_at(&mut self, offset: u64, bytes: &[u8]) -> Result<(), BeyondEnd> {
        let start = usize::try_from(offset).map_err(|_| BeyondEnd)?;
        let end = start.checked_add(bytes.len()).ok_or(BeyondEnd)?;
        self.get_mut(start..end).ok_or(BeyondEnd)?.copy_from_slice(bytes);
        Ok(())
    }
    fn flush(&mut self) -> Result<(), BeyondEnd> {
        Ok(())
    }
}

#[cfg(feature = "std")]
pub use file::FileDevice;

#[cfg(feature = "std")]
mod file {
    use std::fs::File;
    use std::io::{self, Seek as _, SeekFrom};
    use std::os::unix::fs::FileExt as _;

    use super::{ReadAt, WriteAt};

    /// An open image file or block device.
    #[derive(Debug)]
    pub struct FileDevice {
        file: File,
        size: u64,
    }

    impl FileDevice {
        /// Takes an open file; its size is found by seeking, which works for block devices too.
        pub fn new(mut file: File) -> io::Result<Self> {
            let size = file.seek(SeekFrom::End(0))?;
            Ok(Self { file, size })
        }
    }

    impl ReadAt for FileDevice {
        type Error = io::Error;
        fn size(&self) -> u64 {
            self.size
        }
        fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
            self.file.read_exact_at(buffer, offset)
        }
    }

    impl WriteAt for FileDevice {
        fn write_at(&mut self, offset: u64, bytes: &[u8]) -> io::Result<()> {
            self.file.write_all_at(bytes, offset)
        }
        fn flush(&mut self) -> io::Result<()> {
            self.file.sync_data()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_read_and_written_inside_its_bounds_only() {
        let mut disk = alloc::vec![0_u8; 8];
        assert_eq!(disk.write_at(4, b"abcd"), Ok(()));
        assert_eq!(disk.write_at(5, b"abcd"), Err(BeyondEnd));
        let mut buffer = [0; 2];
        assert_eq!(disk.read_at(6, &mut buffer), Ok(()));
        assert_eq!(&buffer, b"cd");
        assert_eq!(disk.read_at(7, &mut buffer), Err(BeyondEnd));
        assert_eq!(disk.read_at(u64::MAX, &mut buffer), Err(BeyondEnd));
    }
    #[test]
    fn only_real_disks_are_opened() {
        let disks = ["vda", "sda", "mmcblk0", "nvme0n1", "sdaa", "vdb"];
        assert!(disks.into_iter().all(is_disk_name));
        let others = ["loop0", "ram15", "zram0", "dm-0", "md127", "sr0", "fd0", "nbd3"];
        assert!(!others.into_iter().any(is_disk_name));
    }
}
