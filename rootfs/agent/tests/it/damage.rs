//! Damaged answers: every byte of a recording changed, every cut. Nothing may panic, and what is
//! understood may not depend on the pieces in which the bytes come.

use agent::http::{Body, Head};
use agent::stream::Output;

use crate::fake::recording;

/// Everything that the agent makes of an answer's bytes, as text.
fn read(bytes: &[u8], piece: usize) -> String {
    let (head, length) = match Head::parse(bytes) {
        Ok(Some(found)) => found,
        other => return format!("{other:?}"),
    };
    let (mut body, mut content, mut output) = (Body::new(head.framing), vec![], Output::default());
    let mut lines = Vec::new();
    for part in bytes[length..].chunks(piece) {
        content.clear();
        let taken = body.take(part, &mut content);
        if let Err(error) = output.take(&content, &mut |line| lines.push(line.to_owned())) {
            return format!("{head:?} {error:?} {lines:?}");
        }
        if let Err(error) = taken {
            return format!("{head:?} {error:?} {lines:?}");
        }
    }
    output.finish(&mut |line| lines.push(line.to_owned()));
    format!("{head:?} {} {lines:?}", body.may_end())
}

#[test]
fn no_damage_is_worse_than_an_error() {
    for name in ["output-ended", "output-broken-off", "load", "load-error", "start", "remove"] {
        let bytes = recording(name);
        for at in 0..bytes.len() {
            for value in [0, b'\n', b'\r', b' ', b'0', b'f', 0x80, 0xff, bytes[at] ^ 1] {
                let mut damaged = bytes.clone();
                damaged[at] = value;
                let whole = read(&damaged, 1);
                for piece in [2, 7] {
                    assert_eq!(read(&damaged, piece), whole, "{name}: {value:#x} at {at}");
                }
            }
            let cut = read(&bytes[..at], 1);
            assert_eq!(read(&bytes[..at], 64), cut, "{name}: cut at {at}");
        }
    }
}
