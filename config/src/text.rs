//! Is it a text at all? What editors and damaged cards make of a file, told by name.

use alloc::format;

use crate::MOST_BYTES;
use crate::problem::{Problem, Problems};

/// What some editors put in front of UTF-8.
const UTF8_MARK: &[u8] = &[0xEF, 0xBB, 0xBF];
const UTF16_MARKS: [&[u8]; 2] = [&[0xFF, 0xFE], &[0xFE, 0xFF]];

/// The text of a file: UTF-8 without its mark, not empty, no NUL, at most [`MOST_BYTES`].
pub fn check(bytes: &[u8]) -> Result<&str, Problems> {
    let bytes = bytes.strip_prefix(UTF8_MARK).unwrap_or(bytes);
    let length = bytes.len();
    if length == 0 {
        // What a card keeps of a file whose writing was cut off. A comment says "on purpose".
        let hint = "write it again; for the defaults remove the file, or leave a comment in it";
        return Err(Problem::of_file("the file is empty", hint).into());
    }
    if length > MOST_BYTES {
        let hint = "a configuration is a short text; containers belong into the image";
        let message = format!("the file has more than {MOST_BYTES} bytes");
        return Err(Problem::of_file(message, hint).into());
    }
    if is_utf16(bytes) {
        return Err(Problem::of_file("the file is UTF-16", "save it as UTF-8").into());
    }
    let (text, bad) = match core::str::from_utf8(bytes) {
        Ok(text) => (text, None),
        Err(error) => {
            let good = bytes.get(..error.valid_up_to()).unwrap_or_default();
            (core::str::from_utf8(good).unwrap_or_default(), Some(good.len()))
        }
    };
    let problem = |byte: usize, message: &str, hint: &str| {
        Err(Problem::at(text, byte, message.into(), Some(hint.into())).into())
    };
    match (text.find('\0'), bad) {
        (Some(byte), _) => problem(byte, "a NUL byte", "the file is damaged: write it again"),
        (None, Some(byte)) => problem(byte, "not UTF-8 from here on", "save it as UTF-8"),
        (None, None) => Ok(text),
    }
}

/// With a mark, or ASCII with a zero in every second place.
fn is_utf16(bytes: &[u8]) -> bool {
    if UTF16_MARKS.iter().any(|mark| bytes.starts_with(mark)) {
        return true;
    }
    let mut pairs = bytes.chunks_exact(2);
    let wide = |pair: &[u8]| matches!(pair, [0, other] | [other, 0] if *other != 0);
    bytes.len() >= 4 && pairs.all(wide)
}
