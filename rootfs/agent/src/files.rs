//! Files that take the place of others in one step: whoever opens the name finds the old or the new
//! one, whole. Those in memory need no more; those on a disk also have to outlive a power cut.

use std::fs::{self, File};
use std::io::{self, ErrorKind, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

/// Ending of a file that is being written.
pub const UNFINISHED: &str = "new";

fn unfinished(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".");
    name.push(UNFINISHED);
    name.into()
}

fn write(path: &Path, bytes: &[u8], mode: u32) -> io::Result<()> {
    let mut options = File::options();
    let mut file = options.write(true).create(true).truncate(true).mode(mode).open(path)?;
    file.write_all(bytes)
}

/// Puts a file in memory in the place of another: no sync.
pub fn replace(path: &Path, bytes: &[u8], mode: u32) -> io::Result<()> {
    let unfinished = unfinished(path);
    write(&unfinished, bytes, mode)?;
    fs::rename(unfinished, path)
}

/// Puts a file on a disk in the place of another; it is there after a power cut when this returns.
pub fn keep(path: &Path, bytes: &[u8], mode: u32) -> io::Result<()> {
    let unfinished = unfinished(path);
    write(&unfinished, bytes, mode)?;
    settle(&unfinished, path)
}

/// Removes a file; false if there was none.
pub fn remove(path: &Path) -> io::Result<bool> {
    was_there(fs::remove_file(path))
}

/// Removes a directory with all that is in it; false if there was none.
pub fn remove_tree(path: &Path) -> io::Result<bool> {
    was_there(fs::remove_dir_all(path))
}

fn was_there(removed: io::Result<()>) -> io::Result<bool> {
    match removed {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(false),
        other => other.map(|()| true),
    }
}

/// Gives a finished file on a disk its name: it is there with all its bytes, or not at all.
pub fn settle(unfinished: &Path, name: &Path) -> io::Result<()> {
    File::open(unfinished)?.sync_all()?;
    fs::rename(unfinished, name)?;
    name.parent().map_or(Ok(()), |directory| File::open(directory)?.sync_all())
}

/// Names in a directory, sorted; none if it is not there.
pub fn names(directory: &Path) -> Vec<String> {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    let mut names: Vec<String> =
        entries.filter_map(|entry| entry.file_name().into_string().ok()).collect();
    names.sort();
    names
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn a_file_takes_the_place_of_another_and_nothing_is_left_behind() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("id");
        for put in [replace, keep] {
            for text in ["longer than the next", "short"] {
                put(&path, text.as_bytes(), 0o600).unwrap();
                assert_eq!(fs::read_to_string(&path).unwrap(), text);
            }
            assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
            assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1);
        }
    }

    #[test]
    fn an_unfinished_one_of_a_cut_is_in_nobodys_way() {
        let directory = tempfile::tempdir().unwrap();
        fs::write(directory.path().join("id.new"), "half of a longer one").unwrap();
        keep(&directory.path().join("id"), b"whole", 0o444).unwrap();
        assert_eq!(fs::read_to_string(directory.path().join("id")).unwrap(), "whole");
    }
}
