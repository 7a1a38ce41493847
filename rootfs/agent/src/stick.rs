//! A bundle on a USB stick or another disk that is not this system's own: its volumes are mounted
//! read-only, one after the other, until one has a bundle.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};

use crate::own_disk::Devices;

/// File systems that sticks have, in the order in which they are tried.
const FILE_SYSTEMS: [&str; 2] = ["vfat", "ext4"];
const ENDING: &str = "bundle";

/// A mounted volume; unmounted when it goes away.
#[derive(Debug)]
pub struct Stick {
    directory: PathBuf,
    /// The bundle on it.
    pub bundle: PathBuf,
}

impl Stick {
    /// Looks for `wanted` (a path on the stick), or for the newest `*.bundle` in the top directory
    /// of one, on all disks but `own`.
    pub fn find(
        devices: &Devices,
        own: &str,
        directory: &Path,
        wanted: &str,
    ) -> Result<Self, String> {
        fs::create_dir_all(directory)
            .map_err(|error| format!("cannot make {}: {error}", directory.display()))?;
        let disks = devices.disks().into_iter().filter(|disk| disk != own);
        let mut seen = Vec::new();
        for volume in disks.flat_map(|disk| devices.volumes(&disk)) {
            match Self::mount(&devices.nodes.join(&volume), directory, wanted) {
                Ok(Some(stick)) => return Ok(stick),
                Ok(None) => seen.push(format!("{volume} has none")),
                Err(error) => seen.push(format!("{volume}: {error}")),
            }
        }
        let wanted = if wanted.is_empty() { "*.bundle" } else { wanted };
        let seen =
            if seen.is_empty() { "there is no other disk".to_owned() } else { seen.join("; ") };
        Err(format!("no {wanted} on a stick ({seen})"))
    }

    fn mount(node: &Path, directory: &Path, wanted: &str) -> io::Result<Option<Self>> {
        let flags =
            MountFlags::RDONLY | MountFlags::NODEV | MountFlags::NOSUID | MountFlags::NOEXEC;
        let mut last = io::Error::from(io::ErrorKind::InvalidInput);
        for file_system in FILE_SYSTEMS {
            match mount(node, directory, file_system, flags, None) {
                Ok(()) => {
                    let mut stick =
                        Self { directory: directory.to_owned(), bundle: PathBuf::new() };
                    // Dropped, and so unmounted, when there is nothing on it.
                    let Some(bundle) = choose(directory, wanted) else { return Ok(None) };
                    stick.bundle = bundle;
                    return Ok(Some(stick));
                }
                Err(error) => last = error.into(),
            }
        }
        Err(last)
    }
}

impl Drop for Stick {
    fn drop(&mut self) {
        // Read-only: a volume that stays mounted costs nothing but the name.
        let _ = unmount(&self.directory, UnmountFlags::DETACH);
    }
}

/// The named file in a directory, or the newest bundle in it; the last name of those of one time.
fn choose(directory: &Path, wanted: &str) -> Option<PathBuf> {
    if !wanted.is_empty() {
        let path = directory.join(wanted.trim_start_matches('/'));
        // A link on a stick must not lead into this system.
        let real = path.canonicalize().ok()?;
        return (real.starts_with(directory.canonicalize().ok()?) && real.is_file())
            .then_some(real);
    }
    let entries = fs::read_dir(directory).ok()?.flatten();
    let bundles = entries.filter_map(|entry| {
        let path = entry.path();
        let fits = path.extension().is_some_and(|ending| ending.eq_ignore_ascii_case(ENDING));
        let data = entry.metadata().ok().filter(|data| fits && data.is_file())?;
        Some((data.modified().unwrap_or(SystemTime::UNIX_EPOCH), path))
    });
    bundles.max().map(|(_, path)| path)
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::time::Duration;

    use super::*;

    fn put(directory: &Path, name: &str, seconds: u64) {
        let file = File::create(directory.join(name)).unwrap();
        file.set_modified(SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)).unwrap();
    }

    #[test]
    fn the_newest_bundle_is_chosen_unless_one_is_named() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path();
        assert_eq!(choose(path, ""), None);
        put(path, "old.bundle", 1000);
        put(path, "NEW.BUNDLE", 2000);
        put(path, "newer.txt", 3000);
        fs::create_dir(path.join("newest.bundle")).unwrap();
        let name = |wanted: &str| {
            let chosen = choose(path, wanted)?;
            chosen.file_name().map(|name| name.to_string_lossy().into_owned())
        };
        assert_eq!(name("").as_deref(), Some("NEW.BUNDLE"));
        assert_eq!(name("old.bundle").as_deref(), Some("old.bundle"));
        assert_eq!(name("/old.bundle").as_deref(), Some("old.bundle"));
        assert_eq!(name("gone.bundle"), None);
    }

    #[test]
    fn a_path_or_link_that_leaves_the_stick_is_not_followed() {
        let directory = tempfile::tempdir().unwrap();
        let stick = directory.path().join("stick");
        fs::create_dir(&stick).unwrap();
        put(directory.path(), "outside.bundle", 1);
        std::os::unix::fs::symlink("../outside.bundle", stick.join("link.bundle")).unwrap();
        assert_eq!(choose(&stick, "../outside.bundle"), None);
        assert_eq!(choose(&stick, "link.bundle"), None);
    }
}
