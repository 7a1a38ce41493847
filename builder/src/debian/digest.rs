//! SHA-256 over streams; the value itself is [`ondisk::digest::Digest`].

use std::io::{self, Read};

use sha2::{Digest as _, Sha256};

pub use ondisk::digest::Digest;

use crate::error::{Error, Result};

/// Reads 64 lower case digits: one value has one spelling, so that locks can be compared as text.
pub fn parse(text: &str) -> Result<Digest> {
    Digest::from_hex(text)
        .ok_or_else(|| Error::new(format!("`{}` is not a SHA-256 value", text.escape_debug())))
}

/// The digest and the length of everything a reader yields.
pub fn of_reader(reader: &mut impl Read) -> io::Result<(Digest, u64)> {
    let mut hasher = Hasher::default();
    let mut buffer = vec![0; 256 * 1024];
    loop {
        match reader.read(&mut buffer) {
            Ok(0) => return Ok((hasher.finish(), hasher.length)),
            Ok(count) => hasher.update(&buffer[..count]),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

/// A digest in the making.
#[derive(Clone, Default)]
pub struct Hasher {
    state: Sha256,
    /// Bytes seen so far.
    pub length: u64,
}

impl Hasher {
    /// Adds bytes.
    pub fn update(&mut self, bytes: &[u8]) {
        self.state.update(bytes);
        self.length += bytes.len() as u64;
    }

    /// The digest of everything added.
    pub fn finish(&self) -> Digest {
        Digest::from_bytes(self.state.clone().finalize().into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_digest_is_read_back_as_written_and_the_same_for_bytes_and_streams() {
        let digest = Digest::of(b"abc");
        assert_eq!(of_reader(&mut &b"abc"[..]).unwrap(), (digest, 3));
        let text = digest.to_string();
        assert_eq!(parse(&text).unwrap(), digest);
        for bad in [&text[1..], &text.to_uppercase(), &text.replace('b', "x")] {
            assert!(parse(bad).is_err());
        }
    }
}
