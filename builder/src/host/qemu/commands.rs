//! The host's end of the command port (`ondisk::command_port`): runs `iota` commands in the guest.

use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

use ondisk::command_port::{HEADER_BYTES, HELLO, Header, Kind, MAX_PAYLOAD_BYTES};

use crate::error::{Context, Error, Result};

/// What a command in the guest left behind.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// Its exit status.
    pub status: u8,
    /// Its standard output.
    pub output: Vec<u8>,
    /// Its standard error.
    pub errors: Vec<u8>,
}

impl Answer {
    /// Standard output as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.output).into_owned()
    }
}

/// How long a guest that listens takes to say so, many times over.
const ASK_AGAIN: Duration = Duration::from_millis(250);

/// Runs one command in the guest behind `socket`, as soon as the guest listens, and waits for its
/// answer.
///
/// `input` becomes the command's standard input. Errors: no answer within `limit`; a machine that
/// ended; an input that cannot be read.
pub(super) fn execute(
    socket: &Path,
    arguments: &[&str],
    input: &mut (impl Read + Send),
    limit: Duration,
) -> Result<Answer> {
    let what = || format!("`iota {}` in the guest", arguments.join(" "));
    let stream = UnixStream::connect(socket).context(what)?;
    let words: String = arguments.iter().flat_map(|word| [word, "\0"]).collect();
    let deadline = Instant::now() + limit;
    match greet(&stream, deadline) {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::TimedOut => return Err(late(what(), limit)),
        Err(error) => return Err(Error::caused(what(), error)),
    }
    std::thread::scope(|scope| {
        let to_guest = || {
            let sent = send_request(&stream, words.as_bytes(), input);
            if sent.is_err() {
                // The answer that would be waited for cannot come.
                let _ = stream.shutdown(std::net::Shutdown::Both);
            }
            sent
        };
        let sender = scope.spawn(to_guest);
        let answer = read_answer(&stream, deadline);
        // The sender may wait for a guest that does not listen.
        let _ = stream.shutdown(std::net::Shutdown::Both);
        let sent = sender.join().unwrap_or_else(|_| Err(io::ErrorKind::Other.into()));
        match (answer, sent) {
            (Err(error), _) if error.kind() == io::ErrorKind::TimedOut => Err(late(what(), limit)),
            (Err(_), Err(error)) | (Err(error), Ok(())) => Err(Error::caused(what(), error)),
            (Ok(answer), _) => Ok(answer),
        }
    })
}

fn late(what: String, limit: Duration) -> Error {
    Error::new(format!("{what}: no answer within {limit:?}"))
}

/// Asks until the guest answers. What comes before that is what others said on a serial line.
fn greet(mut stream: &UnixStream, deadline: Instant) -> io::Result<()> {
    let mut heard = Vec::new();
    loop {
        stream.write_all(&HELLO)?;
        let again = deadline.min(Instant::now() + ASK_AGAIN);
        loop {
            let mut byte = [0];
            match read_exact(stream, &mut byte, again) {
                Ok(()) => heard.extend(byte),
                Err(error) if error.kind() == io::ErrorKind::TimedOut => break,
                Err(error) => return Err(error),
            }
            if heard.ends_with(&HELLO) {
                return Ok(());
            }
        }
        if Instant::now() >= deadline {
            return Err(io::ErrorKind::TimedOut.into());
        }
    }
}

fn send_request(mut to: impl Write, arguments: &[u8], input: &mut impl Read) -> io::Result<()> {
    send(&mut to, Kind::Arguments, arguments)?;
    let mut buffer = vec![0; MAX_PAYLOAD_BYTES];
    loop {
        let length = input.read(&mut buffer)?;
        if length == 0 {
            return send(&mut to, Kind::EndOfInput, &[]);
        }
        send(&mut to, Kind::Input, &buffer[..length])?;
    }
}

fn send(to: &mut impl Write, kind: Kind, payload: &[u8]) -> io::Result<()> {
    let header = Header::encode(kind, payload).ok_or(io::ErrorKind::InvalidInput)?;
    to.write_all(&header)?;
    to.write_all(payload)
}

fn read_answer(from: &UnixStream, deadline: Instant) -> io::Result<Answer> {
    let mut answer = Answer { status: 0, output: Vec::new(), errors: Vec::new() };
    loop {
        let mut header = [0; HEADER_BYTES];
        read_exact(from, &mut header, deadline)?;
        let header = Header::decode(header).ok_or(io::ErrorKind::InvalidData)?;
        let mut payload = vec![0; header.length];
        read_exact(from, &mut payload, deadline)?;
        match header.kind {
            Kind::Output => answer.output.extend(payload),
            Kind::ErrorOutput => answer.errors.extend(payload),
            Kind::ExitStatus => {
                answer.status = *payload.first().ok_or(io::ErrorKind::InvalidData)?;
                return Ok(answer);
            }
            // We may have asked several times before we heard.
            Kind::Hello => {}
            Kind::Arguments | Kind::Input | Kind::EndOfInput => {
                return Err(io::ErrorKind::InvalidData.into());
            }
        }
    }
}

/// Fills the buffer, or fails with `TimedOut` at the deadline.
fn read_exact(mut from: &UnixStream, mut buffer: &mut [u8], deadline: Instant) -> io::Result<()> {
    while !buffer.is_empty() {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(io::ErrorKind::TimedOut.into());
        }
        from.set_read_timeout(Some(left))?;
        match from.read(buffer) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(length) => buffer = &mut buffer[length..],
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::net::UnixListener;

    const LIMIT: Duration = Duration::from_secs(20);

    /// A guest that answers one request; what it was sent comes back.
    fn guest(listener: UnixListener, answer: Vec<u8>) -> std::thread::JoinHandle<Vec<u8>> {
        std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut request = Vec::new();
            let mut buffer = [0; 4096];
            stream.write_all(b"U-Boot\r\n").unwrap();
            stream.write_all(&[HELLO, HELLO].concat()).unwrap();
            let end = Header::encode(Kind::EndOfInput, &[]).unwrap();
            while !request.ends_with(&end) {
                let length = stream.read(&mut buffer).unwrap();
                request.extend(&buffer[..length]);
            }
            stream.write_all(&answer).unwrap();
            request
        })
    }

    fn frames(frames: &[(Kind, &[u8])]) -> Vec<u8> {
        let mut bytes = Vec::new();
        frames.iter().for_each(|(kind, payload)| send(&mut bytes, *kind, payload).unwrap());
        bytes
    }

    #[test]
    fn a_command_is_sent_and_its_answer_read() {
        let directory = tempfile::tempdir().unwrap();
        let socket = directory.path().join("port");
        let answer = frames(&[
            (Kind::Output, b"one "),
            (Kind::ErrorOutput, b"trouble"),
            (Kind::Output, b"two"),
            (Kind::ExitStatus, &[1]),
        ]);
        let guest = guest(UnixListener::bind(&socket).unwrap(), answer);
        let answer = execute(&socket, &["status", "--json"], &mut &b"in"[..], LIMIT).unwrap();
        assert_eq!((answer.status, answer.text()), (1, "one two".to_owned()));
        assert_eq!(answer.errors, b"trouble");
        let expected = frames(&[
            (Kind::Hello, b""),
            (Kind::Arguments, b"status\0--json\0"),
            (Kind::Input, b"in"),
            (Kind::EndOfInput, b""),
        ]);
        assert_eq!(guest.join().unwrap(), expected);
    }

    #[test]
    fn a_guest_that_goes_away_or_never_answers_is_an_error() {
        let directory = tempfile::tempdir().unwrap();
        let socket = directory.path().join("port");
        let listener = UnixListener::bind(&socket).unwrap();
        let error = execute(&socket, &["status"], &mut io::empty(), Duration::from_millis(50));
        let text = error.unwrap_err().to_string();
        assert_eq!(text, "`iota status` in the guest: no answer within 50ms");
        drop(listener.accept());
        let guest = guest(listener, frames(&[(Kind::Output, b"half")]));
        assert!(execute(&socket, &["status"], &mut io::empty(), LIMIT).is_err());
        guest.join().unwrap();
    }
}
