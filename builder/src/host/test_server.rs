//! A web server for tests: files in memory, one thread a connection, and the faults of real ones.

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;

/// What goes wrong with a response.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Fault {
    /// Nothing.
    None,
    /// The connection breaks after this many bytes of each body.
    BreakAfter(usize),
    /// Ranges are ignored, as simple servers and some caches do.
    NoRanges,
    /// As both together: breaks, and starts from the beginning each time.
    BreakWithoutRanges(usize),
    /// Status 500 for this many requests.
    Busy(usize),
    /// The body has its last byte flipped.
    Flip,
}

#[derive(Default)]
struct State {
    files: BTreeMap<String, Vec<u8>>,
    fault: Option<Fault>,
    requests: Vec<String>,
}

/// A running server; its threads end with the test process.
pub(crate) struct TestServer {
    address: String,
    state: Arc<Mutex<State>>,
}

impl TestServer {
    pub(crate) fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = format!("http://{}", listener.local_addr().unwrap());
        let state = Arc::new(Mutex::new(State::default()));
        let shared = state.clone();
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let state = shared.clone();
                thread::spawn(move || serve(stream, &state));
            }
        });
        Self { address, state }
    }

    /// Serves `bytes` at `/debian/<path>`.
    pub(crate) fn put(&self, path: &str, bytes: impl Into<Vec<u8>>) {
        self.state.lock().unwrap().files.insert(format!("/debian/{path}"), bytes.into());
    }

    pub(crate) fn remove(&self, path: &str) {
        self.state.lock().unwrap().files.remove(&format!("/debian/{path}")).unwrap();
    }

    pub(crate) fn fault(&self, fault: Fault) {
        self.state.lock().unwrap().fault = Some(fault);
    }

    /// `path range` of every request since the last call.
    pub(crate) fn requests(&self) -> Vec<String> {
        std::mem::take(&mut self.state.lock().unwrap().requests)
    }

    pub(crate) fn address(&self) -> String {
        format!("{}/debian", self.address)
    }
}

fn serve(stream: TcpStream, state: &Mutex<State>) {
    let mut reader = BufReader::new(stream);
    while let Some((path, range)) = read_request(&mut reader) {
        let (body, fault) = {
            let mut state = state.lock().unwrap();
            let range = range.map_or(String::new(), |start| format!(" {start}-"));
            let name = path.trim_start_matches("/debian/");
            state.requests.push(format!("{name}{range}"));
            let fault = state.fault.unwrap_or(Fault::None);
            if let Fault::Busy(left @ 1..) = fault {
                state.fault = Some(Fault::Busy(left - 1));
            }
            (state.files.get(&path).cloned(), fault)
        };
        if !respond(reader.get_mut(), body, range, fault) {
            return;
        }
    }
}

/// Path and start of the range.
fn read_request(reader: &mut BufReader<TcpStream>) -> Option<(String, Option<usize>)> {
    let mut line = String::new();
    reader.read_line(&mut line).ok()?;
    let path = line.split(' ').nth(1)?.to_owned();
    let mut range = None;
    loop {
        line.clear();
        reader.read_line(&mut line).ok()?;
        let header = line.trim().to_ascii_lowercase();
        if header.is_empty() {
            return Some((path, range));
        }
        if let Some(value) = header.strip_prefix("range: bytes=") {
            range = value.trim_end_matches('-').parse().ok();
        }
    }
}

/// False if the connection is to be closed.
fn respond(
    stream: &mut TcpStream,
    body: Option<Vec<u8>>,
    range: Option<usize>,
    fault: Fault,
) -> bool {
    let ranges = !matches!(fault, Fault::NoRanges | Fault::BreakWithoutRanges(_));
    let start = range.filter(|_| ranges).unwrap_or(0);
    let (status, extra, mut body) = match body {
        _ if matches!(fault, Fault::Busy(1..)) => ("500 Busy", String::new(), vec![]),
        None => ("404 Not Found", String::new(), b"not here".to_vec()),
        Some(body) if start > body.len() => ("416 Range", String::new(), vec![]),
        Some(body) if start > 0 => {
            let range = format!("bytes {start}-{}/{}", body.len() - 1, body.len());
            ("206 Partial", format!("Content-Range: {range}\r\n"), body[start..].to_vec())
        }
        Some(body) => ("200 OK", String::new(), body),
    };
    if fault == Fault::Flip
        && let Some(last) = body.last_mut()
    {
        *last ^= 1;
    }
    let length = body.len();
    let head = format!("HTTP/1.1 {status}\r\nContent-Length: {length}\r\n{extra}\r\n");
    let sent = match fault {
        Fault::BreakAfter(most) | Fault::BreakWithoutRanges(most) => most.min(length),
        _ => length,
    };
    let written = stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(&body[..sent]));
    written.is_ok() && sent == length
}
