//! One request and its answer over a connection: the I/O around [`crate::http`].
//!
//! Every request has a connection of its own (`Connection: close`): on a unix socket a connection
//! costs microseconds, and no answer can be taken for another's.

use std::fmt;
use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::http::{Body, Head, Malformed};

/// How much of a document (not of a stream) is read. A full list of containers fits many times.
const MAX_DOCUMENT: usize = 16 * 1024 * 1024;

/// Why a request brought no answer.
#[derive(Debug)]
pub enum Error {
    /// Nobody listens on the socket.
    NoConnection(PathBuf, io::Error),
    /// The connection failed while in use.
    Io(io::Error),
    /// The other side ended the connection before the answer was whole.
    CutShort,
    /// The answer breaks the protocol.
    Malformed(Malformed),
    /// The answer is longer than any document should be.
    TooLong,
    /// The engine said no: HTTP status and its own words.
    Refused(u16, String),
    /// The engine said yes and something that makes no sense.
    Senseless(String),
    /// The engine has nothing of this kind.
    Unsupported(String),
}

impl fmt::Display for Error {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoConnection(path, error) => {
                write!(formatter, "cannot connect to {}: {error}", path.display())
            }
            Self::Io(error) => write!(formatter, "the connection failed: {error}"),
            Self::CutShort => formatter.write_str("the connection ended within an answer"),
            Self::Malformed(error) => error.fmt(formatter),
            Self::TooLong => write!(formatter, "the answer is longer than {MAX_DOCUMENT} bytes"),
            Self::Refused(status, message) => write!(formatter, "{message} (status {status})"),
            Self::Senseless(what) | Self::Unsupported(what) => formatter.write_str(what),
        }
    }
}

impl std::error::Error for Error {}

impl From<Malformed> for Error {
    fn from(error: Malformed) -> Self {
        Self::Malformed(error)
    }
}

impl From<io::Error> for Error {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::UnexpectedEof => Self::CutShort,
            // What a read with a time limit says when the limit has passed.
            io::ErrorKind::WouldBlock => Self::Io(io::ErrorKind::TimedOut.into()),
            _ => Self::Io(error),
        }
    }
}

/// Shorthand for results of requests.
pub type Result<T> = std::result::Result<T, Error>;

/// A request.
pub struct Request<'a, 'c> {
    /// `GET`, `POST`, `DELETE`.
    pub method: &'a str,
    /// Path and query, already escaped.
    pub target: &'a str,
    /// What is sent along.
    pub content: Content<'c>,
    /// How long the other side may be silent; `None` for ever.
    pub patience: Option<Duration>,
}

/// The body of a request.
pub enum Content<'a> {
    /// Nothing.
    None,
    /// A JSON document.
    Json(&'a str),
    /// A file of known length.
    Stream {
        /// Its media type.
        media_type: &'a str,
        /// Its length in bytes.
        length: u64,
        /// Its bytes.
        source: &'a mut dyn Read,
    },
}

/// Sends a request to the program that listens on a unix socket.
pub fn send(socket: &Path, request: Request<'_, '_>) -> Result<Response<UnixStream>> {
    let stream = UnixStream::connect(socket)
        .map_err(|error| Error::NoConnection(socket.to_owned(), error))?;
    stream.set_read_timeout(request.patience)?;
    stream.set_write_timeout(request.patience)?;
    exchange(stream, request)
}

/// Sends a request over a connection and reads the head of the answer.
pub fn exchange<S: Read + Write>(mut stream: S, request: Request<'_, '_>) -> Result<Response<S>> {
    let sent = write_request(&mut stream, request);
    // An engine that says no early stops reading: its answer tells more than the broken pipe.
    match (Response::read_head(stream), sent) {
        (Ok(response), _) => Ok(response),
        (Err(_), Err(error)) => Err(error.into()),
        (Err(error), Ok(())) => Err(error),
    }
}

fn write_request(stream: &mut impl Write, request: Request<'_, '_>) -> io::Result<()> {
    let (media_type, length) = match &request.content {
        Content::None => (None, 0),
        Content::Json(text) => (Some("application/json"), text.len() as u64),
        Content::Stream { media_type, length, .. } => (Some(*media_type), *length),
    };
    let Request { method, target, .. } = request;
    // `Host` is required, but a socket has none.
    let mut head = format!("{method} {target} HTTP/1.1\r\nHost: iota\r\nConnection: close\r\n");
    if let Some(media_type) = media_type {
        head.push_str(&format!("Content-Type: {media_type}\r\n"));
    }
    if method == "POST" || length > 0 {
        head.push_str(&format!("Content-Length: {length}\r\n"));
    }
    head.push_str("\r\n");
    stream.write_all(head.as_bytes())?;
    match request.content {
        Content::None => {}
        Content::Json(text) => stream.write_all(text.as_bytes())?,
        Content::Stream { length, source, .. } => {
            if io::copy(&mut source.take(length), stream)? != length {
                return Err(io::Error::other("the file to be sent became shorter"));
            }
        }
    }
    stream.flush()
}

/// An answer: its status, and its body through [`Read`].
#[derive(Debug)]
pub struct Response<S> {
    /// HTTP status.
    pub status: u16,
    stream: S,
    body: Body,
    /// Bytes that came in and are not decoded yet.
    raw: Vec<u8>,
    /// Decoded bytes that nobody has read yet, from `read` on.
    decoded: Vec<u8>,
    read: usize,
}

impl<S: Read> Response<S> {
    fn read_head(mut stream: S) -> Result<Self> {
        let mut raw = Vec::new();
        loop {
            match Head::parse(&raw)? {
                // Interim answers (100 Continue) precede the real one.
                Some((Head { status: 100..=199, .. }, length)) => drop(raw.drain(..length)),
                Some((head, length)) => {
                    raw.drain(..length);
                    let (status, body) = (head.status, Body::new(head.framing));
                    return Ok(Self { status, stream, body, raw, decoded: Vec::new(), read: 0 });
                }
                None if fill(&mut stream, &mut raw)? == 0 => return Err(Error::CutShort),
                None => {}
            }
        }
    }

    /// The connection itself.
    pub fn stream(&self) -> &S {
        &self.stream
    }

    /// The whole body, if it is no longer than a document.
    pub fn document(mut self) -> Result<Vec<u8>> {
        let mut bytes = Vec::new();
        (&mut self).take(MAX_DOCUMENT as u64 + 1).read_to_end(&mut bytes)?;
        if bytes.len() > MAX_DOCUMENT { Err(Error::TooLong) } else { Ok(bytes) }
    }
}

impl<S: Read> Read for Response<S> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.read == self.decoded.len() {
            self.decoded.clear();
            self.read = 0;
            if self.body.is_done() {
                return Ok(0);
            }
            if self.raw.is_empty() && fill(&mut self.stream, &mut self.raw)? == 0 {
                return match self.body.may_end() {
                    true => Ok(0),
                    false => Err(io::ErrorKind::UnexpectedEof.into()),
                };
            }
            let taken = self.body.take(&self.raw, &mut self.decoded);
            self.raw.drain(..taken.map_err(io::Error::other)?);
        }
        let ready = &self.decoded[self.read..];
        let count = ready.len().min(buffer.len());
        buffer[..count].copy_from_slice(&ready[..count]);
        self.read += count;
        Ok(count)
    }
}

/// Reads once; the number of bytes, 0 at the end.
fn fill(stream: &mut impl Read, raw: &mut Vec<u8>) -> io::Result<usize> {
    let mut piece = [0; 8192];
    loop {
        match stream.read(&mut piece) {
            Ok(count) => {
                raw.extend_from_slice(&piece[..count]);
                return Ok(count);
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

/// A name or value as it may stand in a target.
pub fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            escaped.push(char::from(byte));
        } else {
            escaped.push_str(&format!("%{byte:02X}"));
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The other side of a connection: answers in pieces, keeps what was sent.
    #[derive(Debug)]
    struct Peer {
        answer: Vec<Vec<u8>>,
        sent: Vec<u8>,
        /// Bytes after which the peer stops reading.
        appetite: usize,
    }

    impl Peer {
        fn new(answer: &str, piece: usize) -> Self {
            let mut answer: Vec<_> = answer.as_bytes().chunks(piece).map(<[u8]>::to_vec).collect();
            answer.reverse();
            Self { answer, sent: Vec::new(), appetite: usize::MAX }
        }
    }

    impl Read for Peer {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            let piece = self.answer.pop().unwrap_or_default();
            buffer[..piece.len()].copy_from_slice(&piece);
            Ok(piece.len())
        }
    }

    impl Write for Peer {
        fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
            let count = buffer.len().min(self.appetite - self.sent.len());
            self.sent.extend_from_slice(&buffer[..count]);
            if count == 0 { Err(io::ErrorKind::BrokenPipe.into()) } else { Ok(count) }
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn get(target: &str) -> Request<'_, '_> {
        Request { method: "GET", target, content: Content::None, patience: None }
    }

    fn document(answer: &str) -> Result<(u16, String)> {
        let read = |piece| -> Result<(u16, String)> {
            let response = exchange(Peer::new(answer, piece), get("/"))?;
            let status = response.status;
            Ok((status, String::from_utf8(response.document()?).unwrap()))
        };
        for piece in 1..answer.len() {
            assert_eq!(
                format!("{:?}", read(piece)),
                format!("{:?}", read(8000)),
                "pieces of {piece}"
            );
        }
        read(8000)
    }

    #[test]
    fn answers_are_read_whatever_the_pieces_they_come_in() {
        for (answer, expected) in [
            ("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nOKleft over", (200, "OK")),
            (
                "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n\
                 1\r\nO\r\n1\r\nK\r\n0\r\n\r\n",
                (200, "OK"),
            ),
            ("HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 404 No\r\n\r\n{}", (404, "{}")),
            ("HTTP/1.1 204 No Content\r\n\r\n", (204, "")),
        ] {
            let (status, text) = document(answer).unwrap();
            assert_eq!((status, text.as_str()), expected);
        }
    }

    #[test]
    fn answers_that_end_too_early_are_cut_short() {
        for answer in [
            "",
            "HTTP/1.1 200 OK\r\n",
            "HTTP/1.1 100 Continue\r\n\r\n",
            "HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nOK",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nOK\r\n",
        ] {
            assert!(matches!(document(answer), Err(Error::CutShort)), "{answer:?}");
        }
    }

    #[test]
    fn a_malformed_chunk_is_reported_while_reading() {
        let error =
            document("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nx\r\n").unwrap_err();
        assert_eq!(
            error.to_string(),
            "the connection failed: the answer's body has a malformed chunk"
        );
    }

    #[test]
    fn a_request_is_written_as_the_protocol_has_it() {
        let sent = |request| {
            let response = exchange(Peer::new("HTTP/1.1 204 x\r\n\r\n", 99), request).unwrap();
            String::from_utf8(response.stream.sent).unwrap()
        };
        assert_eq!(
            sent(get("/_ping")),
            "GET /_ping HTTP/1.1\r\nHost: iota\r\nConnection: close\r\n\r\n"
        );
        let post = Request { method: "POST", content: Content::Json("{}"), ..get("/x?a=b") };
        assert_eq!(
            sent(post),
            "POST /x?a=b HTTP/1.1\r\nHost: iota\r\nConnection: close\r\n\
             Content-Type: application/json\r\nContent-Length: 2\r\n\r\n{}"
        );
        let mut file = &b"tar and more"[..];
        let content =
            Content::Stream { media_type: "application/x-tar", length: 3, source: &mut file };
        let upload = Request { method: "POST", content, ..get("/l") };
        assert_eq!(
            sent(upload),
            "POST /l HTTP/1.1\r\nHost: iota\r\nConnection: close\r\n\
             Content-Type: application/x-tar\r\nContent-Length: 3\r\n\r\ntar"
        );
    }

    #[test]
    fn an_early_no_tells_more_than_the_broken_pipe() {
        let upload = |peer: Peer| {
            let mut file = io::repeat(7);
            let content =
                Content::Stream { media_type: "application/x-tar", length: 100, source: &mut file };
            exchange(peer, Request { method: "POST", content, ..get("/l") })
        };
        let peer = Peer::new("HTTP/1.1 500 No\r\nContent-Length: 0\r\n\r\n", 99);
        assert_eq!(upload(Peer { appetite: 120, ..peer }).unwrap().status, 500);
        let silent = upload(Peer { appetite: 120, ..Peer::new("", 99) });
        assert!(
            matches!(silent, Err(Error::Io(error)) if error.kind() == io::ErrorKind::BrokenPipe)
        );
    }

    #[test]
    fn a_file_that_shrinks_is_an_error() {
        let mut file = &b"12"[..];
        let content =
            Content::Stream { media_type: "application/x-tar", length: 3, source: &mut file };
        let request = Request { method: "POST", content, ..get("/l") };
        let error = exchange(Peer::new("", 9), request).unwrap_err();
        assert_eq!(error.to_string(), "the connection failed: the file to be sent became shorter");
    }

    #[test]
    fn nobody_listening_names_the_socket() {
        let error = send(Path::new("/nowhere/engine.sock"), get("/")).unwrap_err();
        assert!(error.to_string().starts_with("cannot connect to /nowhere/engine.sock: "));
    }

    #[test]
    fn odd_characters_are_escaped() {
        assert_eq!(escape("sha256:ab/c d"), "sha256%3Aab%2Fc%20d");
    }
}
