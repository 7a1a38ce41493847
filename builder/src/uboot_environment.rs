//! `uboot.env`: what U-Boot on a Raspberry Pi finds in the boot partition instead of its built-in
//! settings. Debian's build reads it from the first partition of the first card (ENV_IS_IN_FAT).
//!
//! ```text
//! 0  4  CRC-32 of all that follows, little-endian
//! 4  …  name=value, each ended by a zero byte; one more zero byte; zeros up to 16 KiB
//! ```
//!
//! U-Boot takes a file with another length or checksum for none and falls back to its built-in
//! settings, which wait for a key and look at every bus: slower, but not stuck.

use std::collections::BTreeMap;

use crate::error::{Error, Result};

/// Name of the file.
pub const FILE: &str = "uboot.env";
/// Its length: CONFIG_ENV_SIZE of Debian's build.
pub const LENGTH: usize = 0x4000;
/// Bytes in front of the settings.
const CHECKSUM_BYTES: usize = 4;

/// Settings of U-Boot. Holding one proves: names and values are printable ASCII, no name has a
/// `=`, no value is empty, and all of them fit.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Environment(BTreeMap<String, String>);

impl Environment {
    /// Checks settings; they are written in the order of their names.
    ///
    /// Errors: a name or value that U-Boot would read as something else; too many.
    pub fn new(settings: BTreeMap<String, String>) -> Result<Self> {
        for (name, value) in &settings {
            let plain = |text: &str| text.bytes().all(|byte| matches!(byte, b' '..=b'~'));
            if name.is_empty() || !plain(name) || name.contains(['=', ' ']) {
                let name = name.escape_debug();
                return Err(Error::new(format!("`{name}` is not a name for U-Boot")));
            }
            if value.is_empty() || !plain(value) {
                let value = value.escape_debug();
                return Err(Error::new(format!("{name}: `{value}` is not one line of text"))
                    .hint("leave a setting out that shall not be there"));
            }
        }
        let environment = Self(settings);
        let length = environment.settings().len();
        let room = LENGTH - CHECKSUM_BYTES;
        if length > room {
            return Err(Error::new(format!("{length} bytes of settings, {room} fit")));
        }
        Ok(environment)
    }

    /// The settings as U-Boot reads them, with the zero byte that ends them.
    fn settings(&self) -> Vec<u8> {
        let lines = self.0.iter().map(|(name, value)| format!("{name}={value}\0"));
        let mut bytes = lines.collect::<String>().into_bytes();
        bytes.push(0);
        bytes
    }

    /// The file.
    pub fn encode(&self) -> Vec<u8> {
        let mut settings = self.settings();
        settings.resize(LENGTH - CHECKSUM_BYTES, 0);
        let checksum = crc32fast::hash(&settings).to_le_bytes();
        [&checksum[..], &settings].concat()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    }

    /// The bytes were taken from what `mkenvimage -s 0x4000 -p 0` of u-boot-tools 2025.01 makes of
    /// the same two lines.
    #[test]
    fn the_file_is_the_one_that_u_boots_own_tool_makes() {
        let environment =
            Environment::new(settings(&[("bootdelay", "-2"), ("bootcmd", "bootflow scan")]));
        let bytes = environment.unwrap().encode();
        assert_eq!(bytes.len(), LENGTH);
        assert_eq!(bytes[..4], [0x3e, 0x71, 0x5b, 0xa9]);
        let (settings, rest) = bytes[4..].split_at(35);
        assert_eq!(settings, b"bootcmd=bootflow scan\0bootdelay=-2\0");
        assert!(rest.iter().all(|byte| *byte == 0));
    }

    #[test]
    fn what_u_boot_would_read_as_something_else_is_refused() {
        for (name, value, expected) in [
            ("a=b", "1", "`a=b` is not a name for U-Boot"),
            ("", "1", "`` is not a name for U-Boot"),
            ("a", "", "a: `` is not one line of text"),
            ("a", "1\n2", "a: `1\\n2` is not one line of text"),
        ] {
            let error = Environment::new(settings(&[(name, value)])).unwrap_err();
            assert_eq!(error.to_string(), expected);
        }
        let long = "x".repeat(LENGTH - CHECKSUM_BYTES - "a=\0\0".len());
        assert!(Environment::new(settings(&[("a", &long)])).is_ok());
        let error = Environment::new(settings(&[("a", &format!("{long}x"))])).unwrap_err();
        assert_eq!(error.to_string(), "16381 bytes of settings, 16380 fit");
    }
}
