//! `iota command-port`: runs `iota` commands for the host of this virtual machine.
//!
//! The protocol is in [`ondisk::command_port`]. Only this program is run, with the arguments that
//! came; there is no shell here and none is needed. A host that goes away ends its command.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::unix::ffi::OsStringExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use ondisk::command_port::{HEADER_BYTES, Header, Kind, MAX_PAYLOAD_BYTES, NAME};

/// How long the driver of the port may take to appear; without a port there is nothing to do.
const PATIENCE: Duration = Duration::from_secs(60);
/// Pause while there is no port, or nobody at its other end.
const PAUSE: Duration = Duration::from_millis(200);

/// Serves the port until the machine ends; returns when there is none.
pub fn serve() -> Result<(), String> {
    let Some(node) = wait_for_port() else { return Ok(()) };
    let failed = |error: io::Error| format!("{}: {error}", node.display());
    let port = File::options().read(true).write(true).open(&node).map_err(failed)?;
    let program = std::env::current_exe().map_err(|error| format!("own program: {error}"))?;
    loop {
        match attend(&port, &port, &program) {
            Ok(()) => {}
            // The other end was closed, in the middle of a frame or between two.
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => std::thread::sleep(PAUSE),
            Err(error) => return Err(failed(error)),
        }
    }
}

fn wait_for_port() -> Option<PathBuf> {
    let start = Instant::now();
    while start.elapsed() < PATIENCE {
        let found = find_port(Path::new("/sys/class/virtio-ports"));
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

/// Runs one command: reads its frames, answers with its output and its exit status.
fn attend(mut input: impl Read, output: impl Write + Send, program: &Path) -> io::Result<()> {
    let mut payload = Vec::new();
    // Whatever is left of a command that was broken off is passed over.
    while read_frame(&mut input, &mut payload)? != Kind::Arguments {}
    let arguments = payload.split(|&byte| byte == 0).map(|word| OsString::from_vec(word.to_vec()));
    let mut arguments: Vec<OsString> = arguments.collect();
    arguments.pop(); // behind the last zero byte is nothing
    let answer = Mutex::new(output);
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
        let mut bytes = frame(Kind::Arguments, words.as_bytes());
        bytes.extend(input.chunks(3).flat_map(|piece| frame(Kind::Input, piece)));
        bytes.extend(frame(Kind::EndOfInput, b""));
        bytes
    }

    /// Standard output, standard error and exit status of an answer.
    fn read(mut answer: &[u8]) -> (String, String, u8) {
        let (mut output, mut errors, mut payload) = (Vec::new(), Vec::new(), Vec::new());
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

    #[test]
    fn a_host_that_goes_away_ends_its_command() {
        let request = request(&["1000"], b"");
        let broken_off = &request[..request.len() - HEADER_BYTES];
        let error = attend(broken_off, Vec::new(), Path::new("/bin/sleep")).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
    }

    #[test]
    fn leftovers_of_an_older_command_are_passed_over() {
        let mut bytes = frame(Kind::Input, b"old");
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
