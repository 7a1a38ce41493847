//! Bytes as lowercase hexadecimal text and back, on top of [`ondisk::digest`].

use ondisk::digest::{Hex, from_hex};

/// `[0xab, 0x01]` → `"ab01"`.
pub fn encode(bytes: impl AsRef<[u8]>) -> String {
    Hex(bytes.as_ref()).to_string()
}

/// Exactly `N` bytes from `2 N` digits of either case; `None` for anything else.
pub fn decode<const N: usize>(text: &str) -> Option<[u8; N]> {
    from_hex(&text.to_ascii_lowercase())?.try_into().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_encoded_decodes_and_wrong_text_does_not() {
        assert_eq!(encode([0, 0xab, 0xff]), "00abff");
        assert_eq!(decode("00ABff"), Some([0, 0xab, 0xff]));
        assert_eq!(decode::<3>("00abf"), None);
        assert_eq!(decode::<3>("00abfg"), None);
    }
}
