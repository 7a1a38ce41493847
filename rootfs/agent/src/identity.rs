//! What makes a device this one: made once, at the first start, and kept over updates.
//!
//! `machine-id` is that of machine-id(5): 32 hexadecimal digits, which programs and containers find
//! in /etc/machine-id. The SSH server's key ([`crate::ssh`]) lies beside it.

use std::fs::{self, DirBuilder, File};
use std::io::{self, Read as _};
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};

use crate::files;

/// Where things lie.
#[derive(Clone, Debug)]
pub struct Places {
    /// On the data partition.
    pub kept: PathBuf,
    /// What /etc/machine-id leads to, for this start.
    pub runtime: PathBuf,
    /// Where random bytes come from.
    pub random: PathBuf,
}

impl Default for Places {
    fn default() -> Self {
        Self {
            kept: "/data/iota/identity".into(),
            runtime: "/run/iota/machine-id".into(),
            random: "/dev/urandom".into(),
        }
    }
}

/// Gives the device its machine id; says what is wrong with the one that was kept.
///
/// Errors: there is one for this start, but it could not be kept, so the next has another.
pub fn machine_id(places: &Places, say: &dyn Fn(&str)) -> Result<(), String> {
    let file = places.kept.join("machine-id");
    let failed = |path: &Path, error: io::Error| format!("{}: {error}", path.display());
    let kept = match fs::read_to_string(&file) {
        Ok(text) if is_machine_id(&text) => Some(text),
        Ok(_) => {
            say(&format!("ERROR: {} is damaged; this device gets another id", file.display()));
            None
        }
        Err(_) => None,
    };
    let (text, is_new) = match kept {
        Some(text) => (text, false),
        None => (make(&places.random).map_err(|error| failed(&places.random, error))?, true),
    };
    files::replace(&places.runtime, text.as_bytes(), 0o644)
        .map_err(|error| failed(&places.runtime, error))?;
    if is_new { keep(&file, &text).map_err(|error| failed(&file, error)) } else { Ok(()) }
}

/// A version 4 UUID without its dashes, as machine-id(5) wants it.
fn make(random: &Path) -> io::Result<String> {
    let mut bytes = [0; 16];
    File::open(random)?.read_exact(&mut bytes)?;
    bytes[6] = bytes[6] & 0x0f | 0x40;
    bytes[8] = bytes[8] & 0x3f | 0x80;
    Ok(format!("{:032x}\n", u128::from_be_bytes(bytes)))
}

fn is_machine_id(text: &str) -> bool {
    let digits = text.strip_suffix('\n').unwrap_or(text);
    let plain = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
    digits.len() == 32 && digits.bytes().all(plain) && digits.bytes().any(|byte| byte != b'0')
}

fn keep(file: &Path, text: &str) -> io::Result<()> {
    if let Some(directory) = file.parent() {
        DirBuilder::new().recursive(true).mode(0o700).create(directory)?;
    }
    files::keep(file, text.as_bytes(), 0o444)
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use super::*;

    fn places(directory: &Path) -> Places {
        let random = directory.join("random");
        fs::write(&random, [0xff; 16]).unwrap();
        Places { kept: directory.join("data/identity"), runtime: directory.join("id"), random }
    }

    const FIRST: &str = "ffffffffffff4fffbfffffffffffffff\n";

    #[test]
    fn a_device_keeps_the_id_of_its_first_start() {
        let directory = tempfile::tempdir().unwrap();
        let places = places(directory.path());
        let silent = |line: &str| panic!("{line}");
        machine_id(&places, &silent).unwrap();
        assert_eq!(fs::read_to_string(&places.runtime).unwrap(), FIRST);
        fs::write(&places.random, [1; 16]).unwrap();
        fs::remove_file(&places.runtime).unwrap();
        machine_id(&places, &silent).unwrap();
        assert_eq!(fs::read_to_string(&places.runtime).unwrap(), FIRST);
    }

    #[test]
    fn a_damaged_id_is_replaced_and_that_is_said() {
        for damage in ["", "0123", "00000000000000000000000000000000\n", "\0\0\0", "FFFF"] {
            let directory = tempfile::tempdir().unwrap();
            let places = places(directory.path());
            fs::create_dir_all(&places.kept).unwrap();
            fs::write(places.kept.join("machine-id"), damage).unwrap();
            let said = RefCell::new(Vec::new());
            machine_id(&places, &|line: &str| said.borrow_mut().push(line.to_owned())).unwrap();
            assert_eq!(said.borrow().len(), 1, "{damage:?}");
            assert_eq!(fs::read_to_string(places.kept.join("machine-id")).unwrap(), FIRST);
        }
    }

    #[test]
    fn without_a_place_to_keep_it_there_is_one_for_this_start() {
        let directory = tempfile::tempdir().unwrap();
        let mut places = places(directory.path());
        fs::write(directory.path().join("file"), "").unwrap();
        places.kept = directory.path().join("file/identity");
        assert!(machine_id(&places, &|_| {}).is_err());
        assert_eq!(fs::read_to_string(&places.runtime).unwrap(), FIRST);
    }
}
