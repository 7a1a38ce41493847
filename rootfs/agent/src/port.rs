//! `iota command-port`: runs `iota` commands for the host of this virtual machine.
//!
//! The protocol is in [`ondisk::command_port`]. Only this program is run, with the arguments that
//! came; there is no shell here and none is needed. A host that goes away ends its command.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{self, BufReader, Read, Write};
use std::os::unix::ffi::OsStringExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use ondisk::command_port::{HEADER_BYTES, HELLO, Header, Kind, MAX_PAYLOAD_BYTES, NAME};
use ondisk::virtual_machine;
use rustix::termios::{self, ControlModes, OptionalActions, SpecialCodeIndex};

/// How long the driver of the port may take to appear; without a port there is nothing to do.
const PATIENCE: Duration = Duration::from_secs(60);
/// Pause while there is no port, or nobody at its other end.
const PAUSE: Duration = Duration::from_millis(200);
/// How long a port has to be without its other end before that counts.
const GAP: Duration = Duration::from_millis(200);

/// Serves the port until the machine ends; returns when there is none.
pub fn serve() -> Result<(), String> {
    let Some(node) = wait_for_port() else { return Ok(()) };
    let failed = |error: io::Error| format!("{}: {error}", node.display());
    let port = File::options().read(true).write(true).open(&node).map_err(failed)?;
    prepare_line(&port).map_err(failed)?;
    let program = std::env::current_exe().map_err(|error| format!("own program: {error}"))?;
    let mut input = BufReader::with_capacity(MAX_PAYLOAD_BYTES, patient(&port));
    loop {
        match attend(&mut input, &port, &program) {
            Ok(()) => {}
            // The other end was closed, in the middle of a frame or between two; on a serial line,
            // it has been silent for a while.
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => std::thread::sleep(PAUSE),
            // Somebody new begins while the last one had not ended.
            Err(error) if error.kind() == io::ErrorKind::InvalidData => {}
            Err(error) => return Err(failed(error)),
        }
    }
}

fn wait_for_port() -> Option<PathBuf> {
    let start = Instant::now();
    while start.elapsed() < PATIENCE {
        let found = find_port(Path::new("/sys/class/virtio-ports")).or_else(serial_port);
        if let Some(node) = found.map(|name| Path::new("/dev").join(name))
            && node.exists()
        {
            return Some(node);
        }
        std::thread::sleep(PAUSE);
    }
    None
}

/// The device whose name in sysfs is the port's.
fn find_port(class: &Path) -> Option<OsString> {
    let is_ours = |path: &Path| {
        fs::read_to_string(path.join("name")).is_ok_and(|name| name.trim_end() == NAME)
    };
    let mut entries = fs::read_dir(class).ok()?.flatten();
    entries.find(|entry| is_ours(&entry.path())).map(|entry| entry.file_name())
}

/// The serial device that an emulated machine says is the port.
fn serial_port() -> Option<OsString> {
    let name = fs::read_to_string(virtual_machine::PATH).ok()?;
    let name = name.trim_end_matches('\0');
    (name.starts_with("tty") && !name.contains('/')).then(|| name.into())
}

/// A serial line carries bytes as they are, waits while they are not read, and ends a read after
/// ten seconds of silence. Other ports are no lines and need none of that.
fn prepare_line(port: &File) -> io::Result<()> {
    if !termios::isatty(port) {
        return Ok(());
    }
    let mut line = termios::tcgetattr(port)?;
    line.make_raw();
    line.control_modes |= ControlModes::CRTSCTS | ControlModes::CLOCAL;
    line.special_codes[SpecialCodeIndex::VMIN] = 0;
    line.special_codes[SpecialCodeIndex::VTIME] = 100;
    termios::tcsetattr(port, OptionalActions::Flush, &line)?;
    Ok(())
}

/// A port whose end is believed only when it lasts.
///
/// The kernel hears that the last host has left, and that the next one has come, on another queue
/// than the bytes, and maybe behind the first of them: a read then ends once in the middle of a
/// command (`port_fops_read` in `drivers/char/virtio_console.c`). Where nothing has come since the
/// last end there is no command to be in the middle of, and nothing to wait for.
struct Patient<R> {
    port: R,
    is_silent: bool,
}

fn patient<R>(port: R) -> Patient<R> {
    Patient { port, is_silent: false }
}

impl<R: Read> Read for Patient<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let start = Instant::now();
        loop {
            match self.port.read(buffer)? {
                0 if !self.is_silent && start.elapsed() < GAP => std::thread::sleep(GAP / 20),
                length => {
                    self.is_silent = length == 0;
                    return Ok(length);
                }
            }
        }
    }
}

/// Runs one command: reads its frames, answers with its output and its exit status.
fn attend(mut input: impl Read, output: impl Write + Send, program: &Path) -> io::Result<()> {
    let mut payload = Vec::new();
    let answer = Mutex::new(output);
    await_hello(&mut input)?;
    send(&answer, Kind::Hello, &[])?;
    // The host may have asked several times before it heard.
    while read_frame(&mut input, &mut payload)? == Kind::Hello {
        send(&answer, Kind::Hello, &[])?;
    }
    let arguments = payload.split(|&byte| byte == 0).map(|word| OsString::from_vec(word.to_vec()));
    let mut arguments: Vec<OsString> = arguments.collect();
    arguments.pop(); // behind the last zero byte is nothing
    let mut command = Command::new(program);
    command.args(arguments);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let code = match command.spawn() {
        Ok(child) => converse(child, &mut input, &answer)?,
        Err(error) => {
            let text = format!("error: cannot start {}: {error}\n", program.display());
            send(&answer, Kind::ErrorOutput, text.as_bytes())?;
            2
        }
    };
    send(&answer, Kind::ExitStatus, &[code])
}

/// Passes over whatever is left of a command that was broken off.
fn await_hello(input: &mut impl Read) -> io::Result<()> {
    let mut window = [0; HEADER_BYTES];
    input.read_exact(&mut window)?;
    while window != HELLO {
        window.rotate_left(1);
        let [.., last] = &mut window;
        input.read_exact(std::slice::from_mut(last))?;
    }
    Ok(())
}

/// Passes on what goes in and out of a command until both are through; its exit status.
fn converse<R: Read, W: Write + Send>(
    mut child: Child,
    input: &mut R,
    answer: &Mutex<W>,
) -> io::Result<u8> {
    let (output, errors) = (child.stdout.take(), child.stderr.take());
    let fed = std::thread::scope(|scope| {
        scope.spawn(|| pass_on(output, Kind::Output, answer));
        scope.spawn(|| pass_on(errors, Kind::ErrorOutput, answer));
        let fed = feed(&mut child, input);
        if fed.is_err() {
            // Nobody is there to hear the answer; the command shall not go on unseen.
            let _ = child.kill();
        }
        fed
    });
    let status = child.wait()?;
    fed?;
    // A command that a signal ended has failed.
    Ok(status.code().and_then(|code| u8::try_from(code).ok()).unwrap_or(2))
}

/// Hands frames of input to the command until their end. A command that does not read, or has
/// ended, is no error: the rest is passed over.
fn feed(child: &mut Child, input: &mut impl Read) -> io::Result<()> {
    let mut stdin = child.stdin.take();
    let mut payload = Vec::new();
    loop {
        match read_frame(input, &mut payload)? {
            Kind::Input => {
                if stdin.as_mut().is_some_and(|pipe| pipe.write_all(&payload).is_err()) {
                    stdin = None;
                }
            }
            Kind::EndOfInput => return Ok(()),
            _ => return Err(io::ErrorKind::InvalidData.into()),
        }
    }
}

fn pass_on<W: Write>(from: Option<impl Read>, kind: Kind, answer: &Mutex<W>) {
    let Some(mut from) = from else { return };
    let mut buffer = vec![0; 16 * 1024];
    while let Ok(length @ 1..) = from.read(&mut buffer) {
        // The pipe is read to its end even when nobody listens, or the command would stand still.
        let _ = send(answer, kind, buffer.get(..length).unwrap_or_default());
    }
}

fn read_frame(input: &mut impl Read, payload: &mut Vec<u8>) -> io::Result<Kind> {
    let mut header = [0; HEADER_BYTES];
    input.read_exact(&mut header)?;
    let header = Header::decode(header).ok_or(io::ErrorKind::InvalidData)?;
    payload.clear();
    payload.resize(header.length.min(MAX_PAYLOAD_BYTES), 0);
    input.read_exact(payload)?;
    Ok(header.kind)
}

fn send<W: Write>(answer: &Mutex<W>, kind: Kind, payload: &[u8]) -> io::Result<()> {
    let header = Header::encode(kind, payload).ok_or(io::ErrorKind::InvalidInput)?;
    let mut writer = answer.lock().map_err(|_| io::ErrorKind::Other)?;
    writer.write_all(&header)?;
    writer.write_all(payload)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(kind: Kind, payload: &[u8]) -> Vec<u8> {
        [&Header::encode(kind, payload).unwrap()[..], payload].concat()
    }

    fn request(arguments: &[&str], input: &[u8]) -> Vec<u8> {
        let words: String = arguments.iter().flat_map(|word| [word, "\0"]).collect();
        let mut bytes = HELLO.to_vec();
        bytes.extend(frame(Kind::Arguments, words.as_bytes()));
        bytes.extend(input.chunks(3).flat_map(|piece| frame(Kind::Input, piece)));
        bytes.extend(frame(Kind::EndOfInput, b""));
        bytes
    }

    /// Standard output, standard error and exit status of an answer.
    fn read(mut answer: &[u8]) -> (String, String, u8) {
        let (mut output, mut errors, mut payload) = (Vec::new(), Vec::new(), Vec::new());
        await_hello(&mut answer).unwrap();
        loop {
            match read_frame(&mut answer, &mut payload).unwrap() {
                Kind::Output => output.extend(&payload),
                Kind::ErrorOutput => errors.extend(&payload),
                Kind::ExitStatus => break,
                other => panic!("{other:?}"),
            }
        }
        assert!(answer.is_empty());
        let text = |bytes| String::from_utf8(bytes).unwrap();
        (text(output), text(errors), payload[0])
    }

    fn answer(program: &str, request: &[u8]) -> (String, String, u8) {
        let mut bytes = Vec::new();
        attend(request, &mut bytes, Path::new(program)).unwrap();
        read(&bytes)
    }

    #[test]
    fn a_command_gets_its_arguments_and_input_and_its_output_and_status_come_back() {
        let script = "cat; echo $1 >&2; exit 7";
        let request = request(&["-c", script, "x", "two words"], b"some input");
        let expected = ("some input".to_owned(), "two words\n".to_owned(), 7);
        assert_eq!(answer("/bin/sh", &request), expected);
    }

    #[test]
    fn input_that_nobody_reads_is_passed_over() {
        let request = request(&[], &vec![b'x'; 300_000]);
        assert_eq!(answer("/bin/true", &request), (String::new(), String::new(), 0));
    }

    #[test]
    fn a_program_that_cannot_be_started_is_an_answer() {
        let (_, errors, code) = answer("/nowhere", &request(&[], b""));
        assert!(errors.starts_with("error: cannot start /nowhere: "), "{errors}");
        assert_eq!(code, 2);
    }

    /// Pieces that come one by one; an empty one is a read that ends.
    struct Pieces(std::vec::IntoIter<Vec<u8>>);

    impl Read for Pieces {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            let piece = self.0.next().unwrap_or_default();
            buffer[..piece.len()].copy_from_slice(&piece);
            Ok(piece.len())
        }
    }

    #[test]
    fn a_read_that_ends_once_within_a_command_does_not_end_the_command() {
        let request = request(&["-c", "cat"], b"some input");
        for cut in 0..request.len() {
            let (front, back) = request.split_at(cut);
            let pieces = vec![front.to_vec(), Vec::new(), back.to_vec()];
            let input = BufReader::new(patient(Pieces(pieces.into_iter())));
            let mut bytes = Vec::new();
            attend(input, &mut bytes, Path::new("/bin/sh")).unwrap();
            assert_eq!(read(&bytes), ("some input".to_owned(), String::new(), 0), "{cut}");
        }
    }

    #[test]
    fn a_port_without_its_other_end_ends_after_a_while() {
        let mut port = patient(io::empty());
        assert_eq!(port.read(&mut [0; 8]).unwrap(), 0);
        assert!(port.is_silent, "the next read need not wait");
    }

    #[test]
    fn a_host_that_goes_away_ends_its_command() {
        let request = request(&["1000"], b"");
        let broken_off = &request[..request.len() - HEADER_BYTES];
        let error = attend(broken_off, Vec::new(), Path::new("/bin/sleep")).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
    }

    #[test]
    fn each_hello_is_answered_and_one_within_a_command_ends_it() {
        let asked_twice = [&HELLO[..], &request(&["x"], b"")].concat();
        let mut bytes = Vec::new();
        attend(&asked_twice[..], &mut bytes, Path::new("/bin/echo")).unwrap();
        assert!(bytes.starts_with(&[HELLO, HELLO].concat()));
        let request = request(&["1000"], b"");
        let broken_off = [&request[..request.len() - HEADER_BYTES], &HELLO[..]].concat();
        let error = attend(&broken_off[..], Vec::new(), Path::new("/bin/sleep")).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidData);
    }

    #[test]
    fn leftovers_of_an_older_command_are_passed_over() {
        let mut bytes = b"U-Boot 2025.01\r\n".to_vec();
        bytes.extend(frame(Kind::Input, b"old"));
        bytes.extend(frame(Kind::EndOfInput, b""));
        bytes.extend(request(&["new"], b""));
        assert_eq!(answer("/bin/echo", &bytes).0, "new\n");
    }

    #[test]
    fn the_port_is_found_by_its_name() {
        let class = tempfile::tempdir().unwrap();
        assert_eq!(find_port(class.path()), None);
        for (device, name) in [("vport1p1", "org.other\n"), ("vport1p2", "iota.commands\n")] {
            fs::create_dir(class.path().join(device)).unwrap();
            fs::write(class.path().join(device).join("name"), name).unwrap();
        }
        assert_eq!(find_port(class.path()), Some("vport1p2".into()));
    }
}
