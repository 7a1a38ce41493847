//! GUIDs as GPT and UEFI store them: the first three fields little-endian, the rest as written.
//!
//! Text is always the lower-case form, because the kernel command line and `blkid` use it.
use core::fmt;
use core::str::FromStr;

/// A GUID in its on-disk byte order.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Guid([u8; 16]);

impl Guid {
    /// All zero: the type of an unused GPT entry.
    pub const NIL: Self = Self([0; 16]);

    /// A GUID from its fields, in the order in which they are printed.
    pub const fn new(a: u32, b: u16, c: u16, rest: [u8; 8]) -> Self {
        let [a0, a1, a2, a3] = a.to_le_bytes();
        let [b0, b1] = b.to_le_bytes();
        let [c0, c1] = c.to_le_bytes();
        let [d0, d1, d2, d3, d4, d5, d6, d7] = rest;
        Self([a0, a1, a2, a3, b0, b1, c0, c1, d0, d1, d2, d3, d4, d5, d6, d7])
    }

    /// A GUID from the 16 bytes found on a disk.
    pub const fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(bytes)
    }

    /// The 16 bytes to put on a disk.
    pub const fn to_bytes(self) -> [u8; 16] {
        self.0
    }

    /// A GUID of version 8 (own scheme, RFC 9562) made of the first bytes of a hash, so that the
    /// same image has the same GUIDs wherever and whenever it is built.
    pub const fn from_hash(hash: &[u8; 32]) -> Self {
        let mut bytes = [0; 16];
        let (start, _) = hash.split_at(16);
        bytes.copy_from_slice(start);
        // Byte 7 is the high byte of the third field, byte 8 the first of the rest.
        bytes[7] = (bytes[7] & 0x0f) | 0x80;
        bytes[8] = (bytes[8] & 0x3f) | 0x80;
        Self(bytes)
    }
}

impl fmt::Display for Guid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Printed order of the bytes; a dash goes before positions 4, 6, 8 and 10.
        const ORDER: [usize; 16] = [3, 2, 1, 0, 5, 4, 7, 6, 8, 9, 10, 11, 12, 13, 14, 15];
        for (position, index) in ORDER.into_iter().enumerate() {
            if matches!(position, 4 | 6 | 8 | 10) {
                f.write_str("-")?;
            }
            write!(f, "{:02x}", self.0[index])?;
        }
        Ok(())
    }
}

impl fmt::Debug for Guid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// The text is not a GUID in its lower-case form.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NotAGuid;

impl fmt::Display for NotAGuid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("not a GUID of 36 lower-case characters")
    }
}

impl core::error::Error for NotAGuid {}

impl FromStr for Guid {
    type Err = NotAGuid;

    fn from_str(text: &str) -> Result<Self, NotAGuid> {
        let mut fields = text.split('-');
        let mut field = |digits: usize| {
            let text = fields.next().filter(|text| text.len() == digits)?;
            // from_str_radix takes a sign and upper case; a GUID has neither.
            let plain = text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
            if plain { u64::from_str_radix(text, 16).ok() } else { None }
        };
        let mut numbers = || {
            let a = u32::try_from(field(8)?).ok()?;
            let b = u16::try_from(field(4)?).ok()?;
            let c = u16::try_from(field(4)?).ok()?;
            let [d0, d1] = u16::try_from(field(4)?).ok()?.to_be_bytes();
            let [_, _, e0, e1, e2, e3, e4, e5] = field(12)?.to_be_bytes();
            Some(Self::new(a, b, c, [d0, d1, e0, e1, e2, e3, e4, e5]))
        };
        let guid = numbers().ok_or(NotAGuid)?;
        if fields.next().is_some() { Err(NotAGuid) } else { Ok(guid) }
    }
}

#[cfg(test)]
mod tests {
    use alloc::string::ToString;

    use super::*;
    use crate::layout::ESP_TYPE;

    #[test]
    fn the_esp_type_has_the_bytes_of_the_specification() {
        assert_eq!(ESP_TYPE.to_string(), "c12a7328-f81f-11d2-ba4b-00a0c93ec93b");
        assert_eq!(ESP_TYPE.to_bytes()[..6], [0x28, 0x73, 0x2a, 0xc1, 0x1f, 0xf8]);
        assert_eq!("c12a7328-f81f-11d2-ba4b-00a0c93ec93b".parse(), Ok(ESP_TYPE));
    }

    #[test]
    fn text_that_is_almost_a_guid_is_refused() {
        for wrong in [
            "",
            "c12a7328-f81f-11d2-ba4b-00a0c93ec93",
            "c12a7328-f81f-11d2-ba4b-00a0c93ec93bb",
            "C12a7328-f81f-11d2-ba4b-00a0c93ec93b",
            "+12a7328-f81f-11d2-ba4b-00a0c93ec93b",
            "c12a7328f81f-11d2-ba4b-00a0c93ec93b",
            "c12a7328-f81f-11d2-ba4b-00a0c93ec93b-",
            "c12a7328-f81f-11d2-ba4b-00a0c93ec93g",
        ] {
            assert_eq!(wrong.parse::<Guid>(), Err(NotAGuid), "{wrong:?}");
        }
    }

    #[test]
    fn a_guid_from_a_hash_carries_version_8_and_the_variant() {
        let text = Guid::from_hash(&[0xff; 32]).to_string();
        assert_eq!(text, "ffffffff-ffff-8fff-bfff-ffffffffffff");
    }
}
