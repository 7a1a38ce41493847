//! The newest time that a channel was signed at: a floor of the clock at the next start, which only
//! rises. It is the time of modification of a file ([`ondisk::system::SIGNED_TIME`]), which PID 1
//! reads, and which no clock of this device can lower or raise.

use std::fs::{self, File};
use std::io;
use std::path::Path;
use std::time::{Duration, UNIX_EPOCH};

/// Raises it to this many seconds since 1970, if it is less; gives whether it was.
pub fn rise(path: &Path, signed_s: u64) -> io::Result<bool> {
    let signed = UNIX_EPOCH
        .checked_add(Duration::from_secs(signed_s))
        .ok_or_else(|| io::Error::other("a time beyond all clocks"))?;
    if fs::metadata(path).and_then(|file| file.modified()).is_ok_and(|known| known >= signed) {
        return Ok(false);
    }
    if let Some(directory) = path.parent() {
        fs::create_dir_all(directory)?;
    }
    let file = File::options().write(true).create(true).truncate(false).open(path)?;
    file.set_modified(signed)?;
    file.sync_all().map(|()| true)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_floor_only_rises_whatever_the_clock_says() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("update/signed-time");
        let known = || {
            let time = fs::metadata(&path).unwrap().modified().unwrap();
            time.duration_since(UNIX_EPOCH).unwrap().as_secs()
        };
        assert!(rise(&path, 1_000).unwrap());
        assert_eq!(known(), 1_000);
        assert!(!rise(&path, 999).unwrap() && !rise(&path, 1_000).unwrap());
        assert_eq!(known(), 1_000);
        assert!(rise(&path, 4_070_908_800).unwrap());
        assert_eq!(known(), 4_070_908_800);
        assert!(rise(&path, u64::MAX).is_err());
        assert_eq!(known(), 4_070_908_800);
    }
}
