//! The command port: how the host of a virtual machine runs the guest's `iota` commands.
//!
//! A virtio serial port named [`NAME`] connects the two, or, on machines that have no virtio, the
//! serial line that [`crate::virtual_machine`] names. A machine without either has no such way in;
//! whoever can add one runs the machine anyway. Both directions are frames:
//!
//! ```text
//! 0  1  kind
//! 1  4  length of the payload, little-endian, at most MAX_PAYLOAD_BYTES
//! 5  …  payload
//!
//! both             h  hello (no payload): asks whether somebody listens, and answers
//! host to guest    a  arguments, each ended by a zero byte; begins a command
//!                  i  bytes of its standard input
//!                  e  end of its standard input (no payload)
//! guest to host    o  bytes of its standard output
//!                  r  bytes of its standard error
//!                  x  exit status, one byte; ends the answer
//! ```
//! One command at a time: the host sends `h` again and again until it is answered, then `a`, any
//! `i`, `e`, and reads until `x`. Either side passes over what is in front of a hello: a serial
//! line has no beginning, and whatever was broken off is still in it.

/// Name of the port, as the machine's maker gives it and the guest finds it in sysfs.
pub const NAME: &str = "iota.commands";
/// Longest payload of a frame.
pub const MAX_PAYLOAD_BYTES: usize = 64 * 1024;
/// Bytes before a payload.
pub const HEADER_BYTES: usize = 5;

/// A whole frame: is anybody there?
pub const HELLO: [u8; HEADER_BYTES] = *b"h\0\0\0\0";

/// What a frame carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Nothing: asks for the same frame, or answers it.
    Hello,
    /// Arguments of a command, each ended by a zero byte.
    Arguments,
    /// A piece of standard input.
    Input,
    /// Standard input ends.
    EndOfInput,
    /// A piece of standard output.
    Output,
    /// A piece of standard error.
    ErrorOutput,
    /// How the command ended.
    ExitStatus,
}

/// What stands before a payload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// What the payload is.
    pub kind: Kind,
    /// Bytes of the payload.
    pub length: usize,
}

impl Kind {
    const ALL: [(Self, u8); 7] = [
        (Self::Hello, b'h'),
        (Self::Arguments, b'a'),
        (Self::Input, b'i'),
        (Self::EndOfInput, b'e'),
        (Self::Output, b'o'),
        (Self::ErrorOutput, b'r'),
        (Self::ExitStatus, b'x'),
    ];

    fn letter(self) -> u8 {
        Self::ALL.iter().find(|(kind, _)| *kind == self).map_or(0, |(_, letter)| *letter)
    }
}

impl Header {
    /// The bytes before `payload`; `None` if it is too long for one frame.
    pub fn encode(kind: Kind, payload: &[u8]) -> Option<[u8; HEADER_BYTES]> {
        if payload.len() > MAX_PAYLOAD_BYTES {
            return None;
        }
        let [a, b, c, d] = u32::try_from(payload.len()).ok()?.to_le_bytes();
        Some([kind.letter(), a, b, c, d])
    }

    /// Reads what stands before a payload; `None` if it is no frame of this protocol.
    pub fn decode(bytes: [u8; HEADER_BYTES]) -> Option<Self> {
        let [letter, a, b, c, d] = bytes;
        let (kind, _) = *Kind::ALL.iter().find(|(_, known)| *known == letter)?;
        let length = usize::try_from(u32::from_le_bytes([a, b, c, d])).ok()?;
        (length <= MAX_PAYLOAD_BYTES).then_some(Self { kind, length })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_is_read_as_it_was_written() {
        for (kind, letter) in Kind::ALL {
            let bytes = Header::encode(kind, &[0; 258]).unwrap();
            assert_eq!(bytes, [letter, 2, 1, 0, 0]);
            assert_eq!(Header::decode(bytes), Some(Header { kind, length: 258 }));
        }
    }

    #[test]
    fn a_hello_is_a_frame_without_payload() {
        assert_eq!(Header::encode(Kind::Hello, &[]), Some(HELLO));
    }

    #[test]
    fn what_is_no_frame_is_refused() {
        assert_eq!(Header::encode(Kind::Input, &[0; MAX_PAYLOAD_BYTES + 1]), None);
        assert_eq!(Header::decode(*b"z\0\0\0\0"), None);
        assert_eq!(Header::decode(*b"i\x01\x00\x01\x00"), None);
        assert!(Header::decode(*b"i\x00\x00\x01\x00").is_some());
    }
}
