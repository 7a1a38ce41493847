//! A limit on the memory of this process, kept by the kernel (cgroup-v2.rst, "Memory").
//!
//! What the kernel holds of files that the process reads and writes counts as well. It is given
//! back when the limit is near, so that what remains is what the process needs for itself. One
//! that needs more than the limit is ended by the kernel.

use std::fs;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};

/// The control group that this process has moved into, alone.
#[derive(Debug)]
pub struct Limited(PathBuf);

impl Limited {
    /// Makes the group, which must lie in one that passes the memory controller on, and moves this
    /// process into it.
    ///
    /// An error leaves the process where it was.
    pub fn enter(group: &Path, bytes: u64) -> Result<Self, String> {
        let failed = |file: &str| {
            let path = group.join(file);
            move |error: io::Error| format!("{}: {error}", path.display())
        };
        // The last one's: a new group counts its peak from zero.
        match fs::remove_dir(group) {
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            removed => removed.map_err(failed(""))?,
        }
        fs::create_dir(group).map_err(failed(""))?;
        // Swapped out is not gone. A kernel without swap has no such file.
        let _ = fs::write(group.join("memory.swap.max"), "0");
        for (file, value) in [("memory.max", bytes.to_string()), ("cgroup.procs", "0".to_owned())] {
            fs::write(group.join(file), value).map_err(failed(file))?;
        }
        Ok(Self(group.to_owned()))
    }

    /// The most memory that the group has held so far; `None` if the kernel does not say.
    pub fn peak_bytes(&self) -> Option<u64> {
        fs::read_to_string(self.0.join("memory.peak")).ok()?.trim().parse().ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_group_is_limited_before_it_is_entered() {
        let directory = tempfile::tempdir().unwrap();
        let group = directory.path().join("update");
        let limited = Limited::enter(&group, 24 << 20).unwrap();
        let read = |file: &str| fs::read_to_string(group.join(file)).unwrap();
        assert_eq!(read("memory.max"), "25165824");
        assert_eq!(read("memory.swap.max"), "0");
        // 0 is the process that writes.
        assert_eq!(read("cgroup.procs"), "0");
        assert_eq!(limited.peak_bytes(), None);
        fs::write(group.join("memory.peak"), "12345\n").unwrap();
        assert_eq!(limited.peak_bytes(), Some(12345));
    }

    #[test]
    fn a_group_that_cannot_be_made_or_is_in_use_is_named() {
        let directory = tempfile::tempdir().unwrap();
        let group = directory.path().join("none/update");
        let error = Limited::enter(&group, 1).unwrap_err();
        assert!(error.starts_with(&format!("{}/: ", group.display())), "{error}");
        // A directory with something in it is not removed, as a group with a process in it is not.
        let group = directory.path().join("update");
        fs::create_dir(&group).unwrap();
        fs::write(group.join("other"), "").unwrap();
        assert!(Limited::enter(&group, 1).is_err());
        assert!(!group.join("memory.max").exists());
    }
}
