//! Bytes from standard input to a socket and back, until the socket's side has ended.

use std::io::{self, Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::thread;

/// Connects standard input and output to whoever listens on a socket.
pub fn dial(socket: &Path) -> Result<(), String> {
    let failed = |error: io::Error| format!("cannot reach {}: {error}", socket.display());
    let stream = UnixStream::connect(socket).map_err(failed)?;
    let input = stream.try_clone().map_err(failed)?;
    send_input(input);
    let mut output = stream;
    copy(&mut output, &mut io::stdout()).map_err(failed)
}

/// Standard input goes to the socket beside whatever else happens; its end is the socket's, in this
/// direction. The process does not wait for it: who has stopped listening need not stop typing.
pub fn send_input(mut socket: UnixStream) {
    thread::spawn(move || {
        let _ = copy(&mut io::stdin(), &mut socket);
        let _ = socket.shutdown(Shutdown::Write);
    });
}

/// Every piece is passed on when it comes: a terminal shows it at once.
pub fn copy(from: &mut impl Read, to: &mut impl Write) -> io::Result<()> {
    let mut piece = [0; 16 * 1024];
    loop {
        match from.read(&mut piece) {
            Ok(0) => return Ok(()),
            Ok(count) => {
                to.write_all(piece.get(..count).unwrap_or_default())?;
                to.flush()?;
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}
