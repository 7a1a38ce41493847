//! HTTP/1.1 responses, as far as an engine's API needs them: heads and body framing (RFC 9112).
//!
//! Pure: bytes go in as they arrive, in pieces of any size; nothing here reads a socket.
//! Guarantees: never more than [`MAX_HEAD`] bytes of head are wanted, a body ends exactly where its
//! framing says, and whatever the two RFC framings leave ambiguous is refused.
//!
//! ```text
//! HTTP/1.1 200 OK CRLF            status line
//! Name: value CRLF                header lines
//! CRLF
//! body                            by Transfer-Encoding: chunked, Content-Length, or until close
//!   1a;extension CRLF             chunked: size in hex, the bytes, CRLF …
//!   0 CRLF trailer lines CRLF     … ended by an empty chunk
//! ```

use std::fmt;

/// Longest head, and longest trailer, that is read.
pub const MAX_HEAD: usize = 32 * 1024;

/// Longest line that gives a chunk's size, extensions included.
const MAX_CHUNK_LINE: usize = 256;

/// Why bytes are not a response.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Malformed {
    /// The first line is no HTTP/1 status line.
    StatusLine,
    /// A header line without a colon, folded, or with blanks or control characters in its name.
    Header,
    /// More than [`MAX_HEAD`] bytes without an end of the head or trailer.
    HeadTooLong,
    /// `Content-Length` is no number, or there are two that differ.
    Length,
    /// A transfer encoding other than `chunked`, or one together with a length.
    TransferEncoding,
    /// A chunk's size is no hexadecimal number, or its end is not where it must be.
    Chunk,
}

impl fmt::Display for Malformed {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::StatusLine => "the answer does not begin with an HTTP status line",
            Self::Header => "the answer has a malformed header line",
            Self::HeadTooLong => "the answer's head does not end",
            Self::Length => "the answer's Content-Length is not one number",
            Self::TransferEncoding => "the answer's transfer encoding is not understood",
            Self::Chunk => "the answer's body has a malformed chunk",
        })
    }
}

impl std::error::Error for Malformed {}

/// How a body ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Framing {
    /// After this many bytes.
    Length(u64),
    /// With an empty chunk.
    Chunked,
    /// With the connection.
    UntilClose,
}

/// The head of a response.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Head {
    /// Status code, 100 to 999.
    pub status: u16,
    /// How the body ends; `Length(0)` where the status allows none.
    pub framing: Framing,
}

impl Head {
    /// Reads a head from the beginning of `input`: the head and its length in bytes, or `None`
    /// while it is incomplete.
    pub fn parse(input: &[u8]) -> Result<Option<(Self, usize)>, Malformed> {
        let Some(length) = end_of_head(input)? else { return Ok(None) };
        let mut lines = input[..length - 2].split_inclusive(|byte| *byte == b'\n');
        let status = status_line(line(lines.next()).ok_or(Malformed::StatusLine)?)?;
        let mut fields = Fields::default();
        for raw in lines {
            fields.take(line(Some(raw)).ok_or(Malformed::Header)?)?;
        }
        let framing = match status {
            100..=199 | 204 | 304 => Framing::Length(0),
            _ => fields.framing()?,
        };
        Ok(Some((Self { status, framing }, length)))
    }
}

/// Length of the head up to and with its empty line.
fn end_of_head(input: &[u8]) -> Result<Option<usize>, Malformed> {
    match input.windows(4).position(|window| window == b"\r\n\r\n") {
        Some(at) if at < MAX_HEAD => Ok(Some(at + 4)),
        None if input.len() < MAX_HEAD => Ok(None),
        _ => Err(Malformed::HeadTooLong),
    }
}

/// A line without its CRLF; `None` when it has none or holds another control character.
fn line(raw: Option<&[u8]>) -> Option<&[u8]> {
    let line = raw?.strip_suffix(b"\r\n")?;
    let fine = line.iter().all(|byte| *byte == b'\t' || !byte.is_ascii_control());
    fine.then_some(line)
}

fn status_line(line: &[u8]) -> Result<u16, Malformed> {
    let rest = line
        .strip_prefix(b"HTTP/1.1 ")
        .or_else(|| line.strip_prefix(b"HTTP/1.0 "))
        .ok_or(Malformed::StatusLine)?;
    let (digits, reason) = rest.split_at_checked(3).ok_or(Malformed::StatusLine)?;
    let separated = reason.first().is_none_or(|byte| *byte == b' ');
    match decimal(digits) {
        Some(status @ 100..) if separated => {
            u16::try_from(status).map_err(|_| Malformed::StatusLine)
        }
        _ => Err(Malformed::StatusLine),
    }
}

/// The two header fields that decide where a body ends.
#[derive(Default)]
struct Fields {
    length: Option<u64>,
    chunked: bool,
}

impl Fields {
    fn take(&mut self, line: &[u8]) -> Result<(), Malformed> {
        let colon = line.iter().position(|byte| *byte == b':').ok_or(Malformed::Header)?;
        let (name, value) = (&line[..colon], line[colon + 1..].trim_ascii());
        if name.is_empty() || name.iter().any(|byte| byte.is_ascii_whitespace()) {
            return Err(Malformed::Header);
        }
        if name.eq_ignore_ascii_case(b"content-length") {
            let length = decimal(value).ok_or(Malformed::Length)?;
            if self.length.replace(length).is_some_and(|other| other != length) {
                return Err(Malformed::Length);
            }
        } else if name.eq_ignore_ascii_case(b"transfer-encoding") {
            if self.chunked || !value.eq_ignore_ascii_case(b"chunked") {
                return Err(Malformed::TransferEncoding);
            }
            self.chunked = true;
        }
        Ok(())
    }

    fn framing(&self) -> Result<Framing, Malformed> {
        match (self.chunked, self.length) {
            // Two framings in one answer are how requests get smuggled; no engine sends them.
            (true, Some(_)) => Err(Malformed::TransferEncoding),
            (true, None) => Ok(Framing::Chunked),
            (false, Some(length)) => Ok(Framing::Length(length)),
            (false, None) => Ok(Framing::UntilClose),
        }
    }
}

/// Digits only: Rust's own parser would take a sign.
fn decimal(text: &[u8]) -> Option<u64> {
    let digits = !text.is_empty() && text.iter().all(u8::is_ascii_digit);
    digits.then(|| std::str::from_utf8(text).ok()?.parse().ok())?
}

/// Takes the framing off a body that arrives in pieces.
#[derive(Clone, Debug)]
pub struct Body {
    state: State,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum State {
    /// Bytes of the body, this many of them.
    Counted(u64),
    /// Bytes of the body until the connection ends.
    UntilClose,
    /// In a chunk's size line; what was read of it.
    SizeLine(Vec<u8>),
    /// Bytes of a chunk.
    Chunk(u64),
    /// The CRLF after a chunk; true after its CR.
    ChunkEnd(bool),
    /// In the trailer; `total` bytes of it were read.
    Trailer { line: TrailerLine, total: usize },
    /// Nothing more belongs to this body.
    Done,
}

/// What was read of the trailer's current line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum TrailerLine {
    Nothing,
    OnlyCr,
    Text,
}

impl Body {
    /// A body that ends as its head says.
    pub fn new(framing: Framing) -> Self {
        let state = match framing {
            Framing::Length(0) => State::Done,
            Framing::Length(length) => State::Counted(length),
            Framing::Chunked => State::SizeLine(Vec::new()),
            Framing::UntilClose => State::UntilClose,
        };
        Self { state }
    }

    /// True when the whole body was seen.
    pub fn is_done(&self) -> bool {
        self.state == State::Done
    }

    /// True when the connection may end here without anything missing.
    pub fn may_end(&self) -> bool {
        matches!(self.state, State::Done | State::UntilClose)
    }

    /// Takes bytes from the beginning of `input`, appends those of the body to `output`, and says
    /// how many it took: all of them unless the body ended.
    pub fn take(&mut self, input: &[u8], output: &mut Vec<u8>) -> Result<usize, Malformed> {
        let mut taken = 0;
        while taken < input.len() && !self.is_done() {
            taken += self.step(&input[taken..], output)?;
        }
        Ok(taken)
    }

    /// One step on input that is not empty; takes at least one byte.
    fn step(&mut self, input: &[u8], output: &mut Vec<u8>) -> Result<usize, Malformed> {
        match &mut self.state {
            State::Done => Ok(0),
            State::UntilClose => {
                output.extend_from_slice(input);
                Ok(input.len())
            }
            State::Counted(left) | State::Chunk(left) => {
                let count = usize::try_from(*left).unwrap_or(usize::MAX).min(input.len());
                output.extend_from_slice(&input[..count]);
                *left -= count as u64;
                if *left == 0 {
                    self.state = match self.state {
                        State::Chunk(_) => State::ChunkEnd(false),
                        _ => State::Done,
                    };
                }
                Ok(count)
            }
            _ => self.framing_byte(input[0]).map(|()| 1),
        }
    }

    /// One byte that belongs to the chunked framing and not to the body.
    fn framing_byte(&mut self, byte: u8) -> Result<(), Malformed> {
        match &mut self.state {
            State::SizeLine(text) if byte == b'\n' => {
                self.state = match chunk_size(text)? {
                    0 => State::Trailer { line: TrailerLine::Nothing, total: 0 },
                    size => State::Chunk(size),
                };
            }
            State::SizeLine(text) if text.len() < MAX_CHUNK_LINE => text.push(byte),
            State::ChunkEnd(after_cr @ false) if byte == b'\r' => *after_cr = true,
            State::ChunkEnd(true) if byte == b'\n' => self.state = State::SizeLine(Vec::new()),
            State::Trailer { total, .. } if *total >= MAX_HEAD => {
                return Err(Malformed::HeadTooLong);
            }
            State::Trailer { line: TrailerLine::OnlyCr, .. } if byte == b'\n' => {
                self.state = State::Done;
            }
            State::Trailer { line, total } => {
                *line = match (*line, byte) {
                    (_, b'\n') => TrailerLine::Nothing,
                    (TrailerLine::Nothing, b'\r') => TrailerLine::OnlyCr,
                    _ => TrailerLine::Text,
                };
                *total += 1;
            }
            _ => return Err(Malformed::Chunk),
        }
        Ok(())
    }
}

/// The size from a chunk's line, which may carry extensions that nobody needs.
fn chunk_size(line: &[u8]) -> Result<u64, Malformed> {
    let line = line.strip_suffix(b"\r").ok_or(Malformed::Chunk)?;
    let digits = line.split(|byte| *byte == b';').next().unwrap_or_default().trim_ascii_end();
    let hex = (1..=16).contains(&digits.len()) && digits.iter().all(u8::is_ascii_hexdigit);
    let text = std::str::from_utf8(digits).map_err(|_| Malformed::Chunk)?;
    if !hex {
        return Err(Malformed::Chunk);
    }
    u64::from_str_radix(text, 16).map_err(|_| Malformed::Chunk)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn head(text: &str) -> Result<Head, Malformed> {
        let (head, length) = Head::parse(text.as_bytes())?.expect("a whole head");
        assert_eq!(length, text.len());
        for end in 0..text.len() {
            let part = Head::parse(&text.as_bytes()[..end]);
            assert_eq!(part, Ok(None), "the first {end} bytes are incomplete");
        }
        Ok(head)
    }

    /// Decodes `bytes` in pieces of every size; all must agree. The result and what was left.
    fn body(framing: Framing, bytes: &[u8]) -> Result<(Vec<u8>, usize, bool), Malformed> {
        let decode = |piece: usize| {
            let (mut body, mut output, mut taken) = (Body::new(framing), Vec::new(), 0);
            for part in bytes.chunks(piece) {
                taken += body.take(part, &mut output)?;
                if body.is_done() {
                    break;
                }
            }
            Ok((output, bytes.len() - taken, body.may_end()))
        };
        let whole = decode(bytes.len().max(1));
        for piece in 1..bytes.len() {
            assert_eq!(decode(piece), whole, "in pieces of {piece}");
        }
        whole
    }

    #[test]
    fn heads_say_how_their_body_ends() {
        for (text, status, framing) in [
            ("HTTP/1.1 200 OK\r\nContent-Length: 12\r\n\r\n", 200, Framing::Length(12)),
            ("HTTP/1.1 404 Not Found\r\ncontent-length:0\r\n\r\n", 404, Framing::Length(0)),
            ("HTTP/1.0 200 OK\r\nServer: x\r\n\r\n", 200, Framing::UntilClose),
            ("HTTP/1.1 200\r\n\r\n", 200, Framing::UntilClose),
            ("HTTP/1.1 201 Created\r\nTransfer-Encoding: chunked\r\n\r\n", 201, Framing::Chunked),
            ("HTTP/1.1 204 No Content\r\nX: \r\n\r\n", 204, Framing::Length(0)),
            ("HTTP/1.1 100 Continue\r\n\r\n", 100, Framing::Length(0)),
        ] {
            assert_eq!(head(text), Ok(Head { status, framing }), "{text}");
        }
    }

    #[test]
    fn each_fault_in_a_head_has_its_own_answer() {
        for (text, error) in [
            ("SSH-2.0-x\r\n\r\n", Malformed::StatusLine),
            ("HTTP/2 200\r\n\r\n", Malformed::StatusLine),
            ("HTTP/1.1 20 OK\r\n\r\n", Malformed::StatusLine),
            ("HTTP/1.1 2000 OK\r\n\r\n", Malformed::StatusLine),
            ("HTTP/1.1 +20 OK\r\n\r\n", Malformed::StatusLine),
            ("HTTP/1.1 099 OK\r\n\r\n", Malformed::StatusLine),
            ("\r\n\r\n", Malformed::StatusLine),
            ("HTTP/1.1 200 OK\r\nno colon\r\n\r\n", Malformed::Header),
            ("HTTP/1.1 200 OK\r\nA : b\r\n\r\n", Malformed::Header),
            ("HTTP/1.1 200 OK\r\n: b\r\n\r\n", Malformed::Header),
            ("HTTP/1.1 200 OK\r\nA: b\nC: d\r\n\r\n", Malformed::Header),
            ("HTTP/1.1 200 OK\r\nA: b\r\n folded: c\r\n\r\n", Malformed::Header),
            ("HTTP/1.1 200 OK\r\nA: \x07\r\n\r\n", Malformed::Header),
            ("HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n", Malformed::Length),
            ("HTTP/1.1 200 OK\r\nContent-Length: +1\r\n\r\n", Malformed::Length),
            ("HTTP/1.1 200 OK\r\nContent-Length: \r\n\r\n", Malformed::Length),
            ("HTTP/1.1 200 OK\r\nContent-Length: 18446744073709551616\r\n\r\n", Malformed::Length),
            (
                "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
                Malformed::Length,
            ),
            ("HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\n", Malformed::TransferEncoding),
            (
                "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nContent-Length: 1\r\n\r\n",
                Malformed::TransferEncoding,
            ),
        ] {
            assert_eq!(Head::parse(text.as_bytes()), Err(error), "{text:?}");
        }
    }

    #[test]
    fn a_head_without_an_end_is_given_up() {
        let long = b"HTTP/1.1 200 OK\r\nA: b\r\n".repeat(MAX_HEAD);
        assert_eq!(Head::parse(&long), Err(Malformed::HeadTooLong));
        assert_eq!(Head::parse(&long[..MAX_HEAD]), Err(Malformed::HeadTooLong));
        assert_eq!(Head::parse(&long[..MAX_HEAD - 1]), Ok(None));
    }

    #[test]
    fn bodies_end_where_their_framing_says() {
        for (framing, bytes, expected, left) in [
            (Framing::Length(3), "abcNEXT", "abc", 4),
            (Framing::Length(0), "NEXT", "", 4),
            (Framing::UntilClose, "abc", "abc", 0),
            (Framing::Chunked, "3\r\nabc\r\n0\r\n\r\nNEXT", "abc", 4),
            (
                Framing::Chunked,
                "0003;a=\"b\"\r\nabc\r\nA \r\n0123456789\r\n0\r\n\r\n",
                "abc0123456789",
                0,
            ),
            (Framing::Chunked, "0\r\n\r\n", "", 0),
            (Framing::Chunked, "1\r\n\n\r\n0\r\nTrailer: x\r\nB: y\r\n\r\nN", "\n", 1),
        ] {
            let output = body(framing, bytes.as_bytes()).unwrap();
            assert_eq!(output, (expected.into(), left, true), "{bytes:?}");
        }
    }

    #[test]
    fn a_body_that_is_cut_may_not_end() {
        let whole = "3\r\nabc\r\n0\r\nT: x\r\n\r\n";
        for end in 0..whole.len() {
            let (_, _, may_end) = body(Framing::Chunked, &whole.as_bytes()[..end]).unwrap();
            assert!(!may_end, "after {end} bytes");
        }
        assert!(!body(Framing::Length(4), b"abc").unwrap().2);
    }

    #[test]
    fn faulty_chunks_are_refused() {
        for bytes in [
            "\r\n",
            "x\r\n",
            "-1\r\n",
            "+1\r\n",
            "0x1\r\n",
            "3\nabc\r\n",
            "3\r\nabcd\r\n",
            "3\r\nabc\n\r",
            "3\r\nabc\r\r",
            "11111111111111111\r\n",
            ";a\r\n",
            " 3\r\n",
        ] {
            assert_eq!(
                body(Framing::Chunked, bytes.as_bytes()),
                Err(Malformed::Chunk),
                "{bytes:?}"
            );
        }
        let long = format!("3;{}", "x".repeat(MAX_CHUNK_LINE));
        let refused = Body::new(Framing::Chunked).take(long.as_bytes(), &mut Vec::new());
        assert_eq!(refused, Err(Malformed::Chunk));
        let long = format!("0\r\n{}", "T: x\r\n".repeat(MAX_HEAD));
        let refused = Body::new(Framing::Chunked).take(long.as_bytes(), &mut Vec::new());
        assert_eq!(refused, Err(Malformed::HeadTooLong));
    }

    #[test]
    fn a_huge_chunk_needs_no_memory_before_its_bytes_come() {
        let (output, left, may_end) = body(Framing::Chunked, b"ffffffffffffffff\r\nabc").unwrap();
        assert_eq!((output.as_slice(), left, may_end), (&b"abc"[..], 0, false));
    }
}
