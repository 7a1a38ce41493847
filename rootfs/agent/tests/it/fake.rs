//! An engine in this process: a unix socket that answers with recordings.
//!
//! `recorded/*.txt` are whole answers of Docker 26.1.5 (Debian 13, classic image store), taken from
//! the wire while this agent ran `iota/hello`, an image of the builder. Each line of a file is a
//! piece of the bytes with `\r`, `\n`, `\\` and `\xNN` written out; the file's own line ends are
//! not part of it. Only the kernel's version was made neutral. `start-port`, `list-none`
//! and `list-port` are put together: the words of a device that refused a port after a reset, no
//! container, and one that has the port.

use std::collections::HashMap;
use std::fs;
use std::io::{Read, Write};
use std::net::Shutdown;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::thread;

/// Id of the image of the recordings.
pub(crate) const IMAGE: &str = "949a782c7d745cb451dcfb0f2e163650b587372b4d393163f352de0e20f99441";

/// What the fake does when asked.
#[derive(Clone)]
pub(crate) enum Answer {
    /// Sends a recording and closes the connection.
    Recorded(&'static str),
    /// Sends a recording without its last bytes and closes the connection.
    CutBy(usize, &'static str),
    /// Sends a recording and keeps the connection open.
    Held(&'static str),
}

/// A request as it came in.
#[derive(Clone, Debug)]
pub(crate) struct Asked {
    /// Method and target.
    pub(crate) line: String,
    /// Its body.
    pub(crate) body: Vec<u8>,
}

/// Answers by request line; the last answer of a list is given again and again.
type Answers = HashMap<String, Vec<Answer>>;

pub(crate) struct Fake {
    pub(crate) socket: PathBuf,
    answers: Arc<Mutex<Answers>>,
    asked: Arc<Mutex<Vec<Asked>>>,
    /// Connections that are kept open.
    held: Arc<Mutex<Vec<UnixStream>>>,
    open: Arc<Mutex<bool>>,
}

impl Fake {
    /// An engine that is not up yet; answers to what it will be asked.
    pub(crate) fn new(directory: &Path, answers: &[(&str, &[Answer])]) -> Self {
        let ping = ("GET /_ping".to_owned(), vec![Answer::Recorded("ping")]);
        let answers = answers.iter().map(|(line, list)| ((*line).to_owned(), list.to_vec()));
        Self {
            socket: directory.join("engine.sock"),
            answers: Arc::new(Mutex::new(answers.chain([ping]).collect())),
            asked: Arc::default(),
            held: Arc::default(),
            open: Arc::default(),
        }
    }

    /// Listens.
    pub(crate) fn start(&self) {
        let _ = fs::remove_file(&self.socket);
        let listener = UnixListener::bind(&self.socket).unwrap();
        *self.open.lock().unwrap() = true;
        let (answers, asked) = (self.answers.clone(), self.asked.clone());
        let (held, open) = (self.held.clone(), self.open.clone());
        thread::spawn(move || {
            for stream in listener.incoming() {
                if !*open.lock().unwrap() {
                    return;
                }
                serve(stream.unwrap(), &answers, &asked, &held);
            }
        });
    }

    /// Dies: nobody listens any more, open connections end.
    pub(crate) fn stop(&self) {
        *self.open.lock().unwrap() = false;
        let _ = UnixStream::connect(&self.socket); // wakes the listener
        fs::remove_file(&self.socket).unwrap();
        for stream in self.held.lock().unwrap().drain(..) {
            let _ = stream.shutdown(Shutdown::Both);
        }
    }

    /// Everything it was asked so far, but for pings.
    pub(crate) fn asked(&self) -> Vec<Asked> {
        let mut asked = self.asked.lock().unwrap().clone();
        asked.retain(|asked| asked.line != "GET /_ping");
        asked
    }

    /// The lines of [`Fake::asked`].
    pub(crate) fn lines(&self) -> Vec<String> {
        self.asked().into_iter().map(|asked| asked.line).collect()
    }
}

fn serve(
    mut stream: UnixStream,
    answers: &Mutex<Answers>,
    asked: &Mutex<Vec<Asked>>,
    held: &Mutex<Vec<UnixStream>>,
) {
    let request = read_request(&mut stream);
    let line = request.line.clone();
    asked.lock().unwrap().push(request);
    let answer = {
        let mut answers = answers.lock().unwrap();
        match answers.get_mut(&line) {
            Some(list) if list.len() > 1 => list.remove(0),
            Some(list) => list[0].clone(),
            // "No such container"; tests compare what was asked with what they expect.
            None => Answer::Recorded("find-absent"),
        }
    };
    match answer {
        Answer::Recorded(name) => stream.write_all(&recording(name)).unwrap(),
        Answer::CutBy(count, name) => {
            let bytes = recording(name);
            stream.write_all(&bytes[..bytes.len() - count]).unwrap();
        }
        Answer::Held(name) => {
            // Held first: whoever reads the last byte may stop the engine at once.
            held.lock().unwrap().push(stream.try_clone().unwrap());
            // All but the chunk that would end the body.
            stream.write_all(recording(name).strip_suffix(b"0\r\n\r\n").unwrap()).unwrap();
        }
    }
}

fn read_request(stream: &mut UnixStream) -> Asked {
    let mut bytes = Vec::new();
    let end = loop {
        if let Some(at) = bytes.windows(4).position(|window| window == b"\r\n\r\n") {
            break at + 4;
        }
        let mut piece = [0; 4096];
        let count = stream.read(&mut piece).unwrap();
        if count == 0 {
            // The connection that wakes the listener.
            return Asked { line: "GET /_ping".to_owned(), body: Vec::new() };
        }
        bytes.extend_from_slice(&piece[..count]);
    };
    let mut body = bytes.split_off(end);
    let head = String::from_utf8(bytes).unwrap();
    let length = head.lines().find_map(|line| line.strip_prefix("Content-Length: "));
    let length = length.map_or(0, |length| length.parse().unwrap());
    let known = body.len();
    body.resize(length, 0);
    stream.read_exact(&mut body[known..]).unwrap();
    let line = head.lines().next().unwrap().strip_suffix(" HTTP/1.1").unwrap().to_owned();
    Asked { line, body }
}

/// The bytes of a recording.
pub(crate) fn recording(name: &str) -> Vec<u8> {
    let path = format!("{}/tests/it/recorded/{name}.txt", env!("CARGO_MANIFEST_DIR"));
    let text = fs::read_to_string(&path).unwrap_or_else(|error| panic!("{path}: {error}"));
    let mut bytes = Vec::new();
    let mut rest = text.bytes().filter(|byte| *byte != b'\n');
    while let Some(byte) = rest.next() {
        bytes.push(match byte {
            b'\\' => match rest.next().unwrap() {
                b'n' => b'\n',
                b'r' => b'\r',
                b'x' => {
                    let digits = [rest.next().unwrap(), rest.next().unwrap()];
                    u8::from_str_radix(std::str::from_utf8(&digits).unwrap(), 16).unwrap()
                }
                other => other,
            },
            other => other,
        });
    }
    bytes
}
