//! Which number of each channel this device has seen: an older one is a server that lags behind,
//! or somebody who wants to hold this device back. Kept on the data partition.
//!
//! Numbers belong to the keys that sign channels: whoever steals these can use up all numbers, and
//! with other keys they begin anew.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use ondisk::digest::Digest;
use ondisk::trust_root::Quorum;

use crate::files;

/// Channels and their highest numbers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Seen {
    /// Tells the keys that signed them from others.
    keys: Option<Digest>,
    numbers: BTreeMap<String, u64>,
}

impl Seen {
    /// Where it is kept.
    pub fn path() -> PathBuf {
        "/data/iota/update/seen".into()
    }

    /// Reads it; what is damaged, or was signed by others, has not been seen.
    pub fn read(path: &Path, signers: &Quorum) -> Self {
        let text = fs::read_to_string(path).unwrap_or_default();
        let keys = Some(signers.digest());
        let (first, text) = text.split_once('\n').unwrap_or_default();
        if first.strip_prefix("keys ").and_then(Digest::from_hex) != keys {
            return Self { keys, numbers: BTreeMap::new() };
        }
        let entry = |line: &str| {
            let (channel, number) = line.split_once(' ')?;
            Some((channel.to_owned(), number.parse().ok()?))
        };
        Self { keys, numbers: text.lines().filter_map(entry).collect() }
    }

    /// The highest number of a channel, 0 before the first.
    pub fn number(&self, channel: &str) -> u64 {
        self.numbers.get(channel).copied().unwrap_or_default()
    }

    /// Keeps a higher number.
    pub fn rise(&mut self, path: &Path, channel: &str, number: u64) -> io::Result<()> {
        if self.number(channel) >= number {
            return Ok(());
        }
        self.numbers.insert(channel.to_owned(), number);
        let first = self.keys.iter().map(|keys| format!("keys {keys}\n"));
        let lines = self.numbers.iter().map(|(channel, number)| format!("{channel} {number}\n"));
        let lines = first.chain(lines);
        if let Some(directory) = path.parent() {
            fs::create_dir_all(directory)?;
        }
        files::keep(path, lines.collect::<String>().as_bytes(), 0o600)
    }
}

#[cfg(test)]
mod tests {
    use ed25519_dalek::SigningKey;
    use ondisk::keyring::PublicKey;
    use ondisk::trust_root::TrustRoot;

    use super::*;

    fn key(seed: u8) -> PublicKey {
        let secret = SigningKey::from_bytes(&[seed; 32]);
        PublicKey::from_bytes(secret.verifying_key().as_bytes()).unwrap()
    }

    #[test]
    fn numbers_rise_are_kept_and_a_damaged_file_is_none() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("update/seen");
        let quorum = |seed: u8| TrustRoot::of_one_key(key(seed)).channel;
        let mut seen = Seen::read(&path, &quorum(1));
        assert_eq!(seen.number("stable"), 0);
        seen.rise(&path, "stable", 7).unwrap();
        seen.rise(&path, "stable", 3).unwrap();
        seen.rise(&path, "beta", 1).unwrap();
        assert_eq!(Seen::read(&path, &quorum(1)), seen);
        assert_eq!((seen.number("stable"), seen.number("beta")), (7, 1));
        let mut others = Seen::read(&path, &quorum(2));
        assert_eq!((others.number("stable"), others.number("beta")), (0, 0));
        others.rise(&path, "stable", 1).unwrap();
        assert_eq!(Seen::read(&path, &quorum(1)).number("beta"), 0);
        fs::write(&path, [0; 50]).unwrap();
        assert_eq!(Seen::read(&path, &quorum(1)).number("stable"), 0);
    }
}
