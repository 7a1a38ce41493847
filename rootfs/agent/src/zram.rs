//! Compressed memory as swap space (zram): when memory is short, pages that nobody has looked at
//! for long are compressed in place of a container being ended.
//!
//! The device is a block device of the kernel that keeps what is written to it compressed, in
//! memory (`Documentation/admin-guide/blockdev/zram.rst`); nothing of it reaches the card.

use std::ffi::CString;
use std::fs::{self, File};
use std::io;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::FileExt as _;
use std::path::PathBuf;

use rustix::param::page_size;

use crate::{modprobe, sys};

/// Where things are.
#[derive(Clone, Debug)]
pub struct Places {
    /// What loads a module.
    pub modprobe: PathBuf,
    /// The device's directory.
    pub settings: PathBuf,
    /// The device.
    pub device: PathBuf,
    /// What is used as swap space.
    pub used: PathBuf,
}

impl Default for Places {
    fn default() -> Self {
        Self {
            modprobe: modprobe::PROGRAM.into(),
            settings: "/sys/block/zram0".into(),
            device: "/dev/zram0".into(),
            used: "/proc/swaps".into(),
        }
    }
}

/// Lets so many hundredths of all memory be compressed; the bytes that may be, or `None` if there
/// was nothing to do. An error is one clause.
pub fn start(
    places: &Places,
    percent: u32,
    memory_bytes: u64,
    swap_on: impl FnOnce(&CString) -> io::Result<()>,
) -> Result<Option<u64>, String> {
    let page = u64::try_from(page_size()).unwrap_or(4096);
    let bytes = memory_bytes / 100 * u64::from(percent) / page * page;
    let used = fs::read_to_string(&places.used).unwrap_or_default();
    let is_used = used.lines().any(|line| line.starts_with(&*places.device.to_string_lossy()));
    // A header and a page are the least that the kernel takes.
    if is_used || bytes < 2 * page {
        return Ok(None);
    }
    if !places.settings.exists() {
        let program = &places.modprobe;
        modprobe::load(program, "zram")
            .map_err(|why| format!("{} zram: {why}", program.display()))?;
    }
    let failed = |what: PathBuf| move |error: io::Error| format!("{}: {error}", what.display());
    let size = places.settings.join("disksize");
    fs::write(&size, bytes.to_string()).map_err(failed(size))?;
    let header = header(page, bytes).ok_or("too large for the kernel's swap space")?;
    let device = || failed(places.device.clone());
    let open = File::options().write(true).open(&places.device).map_err(device())?;
    open.write_all_at(&header, 0).map_err(device())?;
    drop(open);
    let name = CString::new(places.device.as_os_str().as_bytes()).map_err(|it| it.to_string())?;
    swap_on(&name).map_err(device())?;
    Ok(Some(bytes))
}

/// [`start`]'s last step on a device.
pub fn swap_on(device: &CString) -> io::Result<()> {
    sys::swap_on(device)
}

/// The first page of a swap space (`union swap_header` of `include/linux/swap.h`): version 1, the
/// number of the last page, no bad ones, and a word at the page's end.
fn header(page: u64, bytes: u64) -> Option<Vec<u8>> {
    const MAGIC: &[u8] = b"SWAPSPACE2";
    let last = u32::try_from((bytes / page).checked_sub(1)?).ok()?;
    let mut header = vec![0; usize::try_from(page).ok()?];
    let magic_at = header.len().checked_sub(MAGIC.len())?;
    for (place, field) in
        [(1024, &1_u32.to_le_bytes()[..]), (1028, &last.to_le_bytes()), (magic_at, MAGIC)]
    {
        header.get_mut(place..)?.get_mut(..field.len())?.copy_from_slice(field);
    }
    Some(header)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn places(directory: &std::path::Path) -> Places {
        let places = Places {
            modprobe: "/bin/false".into(),
            settings: directory.join("zram0"),
            device: directory.join("device"),
            used: directory.join("swaps"),
        };
        fs::create_dir(&places.settings).unwrap();
        fs::write(&places.device, "").unwrap();
        fs::write(&places.used, "Filename Type Size Used Priority\n").unwrap();
        places
    }

    #[test]
    fn a_share_of_the_memory_becomes_swap_space_once() {
        let directory = tempfile::tempdir().unwrap();
        let places = places(directory.path());
        let mut on = None;
        let bytes = start(&places, 25, 1_000_000_000, |device| {
            on = Some(device.clone());
            Ok(())
        });
        let page = page_size() as u64;
        let expected = 250_000_000 / page * page;
        assert_eq!(bytes, Ok(Some(expected)));
        let size = fs::read_to_string(places.settings.join("disksize")).unwrap();
        assert_eq!(size, expected.to_string());
        assert_eq!(on.unwrap().as_bytes(), places.device.as_os_str().as_bytes());
        let header = fs::read(&places.device).unwrap();
        assert_eq!(header.len(), page_size());
        assert!(header.ends_with(b"SWAPSPACE2"));
        let pages = u32::from_le_bytes(header[1028..1032].try_into().unwrap());
        assert_eq!(u64::from(pages) + 1, expected / page);

        let line = format!("{} partition 1 0 100\n", places.device.display());
        fs::write(&places.used, line).unwrap();
        let never = |_: &CString| panic!("again");
        assert_eq!(start(&places, 25, 1_000_000_000, never), Ok(None));
    }

    #[test]
    fn none_is_none_and_trouble_names_the_file() {
        let directory = tempfile::tempdir().unwrap();
        let places = places(directory.path());
        assert_eq!(start(&places, 0, 1 << 30, |_| panic!("no")), Ok(None));
        let denied = |_: &CString| Err(io::Error::from_raw_os_error(1));
        let error = start(&places, 25, 1 << 30, denied).unwrap_err();
        assert!(error.starts_with(&places.device.display().to_string()), "{error}");
        fs::remove_dir_all(&places.settings).unwrap();
        let error = start(&places, 25, 1 << 30, |_| Ok(())).unwrap_err();
        assert!(error.starts_with("/bin/false zram: "), "{error}");
    }
}
