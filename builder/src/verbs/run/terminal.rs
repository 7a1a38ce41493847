//! The user's terminal while a guest's console is on it.

use std::io::{self, IsTerminal as _, Read as _, Write as _};
use std::sync::mpsc::Sender;

use rustix::termios::{self, OptionalActions, Termios};

/// The key that ends the machine: Ctrl-], which no shell and no editor uses.
pub(super) const END_KEY: u8 = 0x1d;

/// Keys go to the guest as they are typed, Ctrl-C among them; dropping this gives the user's own
/// settings back.
pub(super) struct RawMode {
    before: Termios,
}

impl RawMode {
    /// `None` where standard input and output are not both a terminal.
    pub(super) fn enter() -> Option<Self> {
        let input = io::stdin();
        if !input.is_terminal() || !io::stdout().is_terminal() {
            return None;
        }
        let before = termios::tcgetattr(&input).ok()?;
        let mut raw = before.clone();
        raw.make_raw();
        termios::tcsetattr(&input, OptionalActions::Flush, &raw).ok()?;
        Some(Self { before })
    }
}

impl Drop for RawMode {
    fn drop(&mut self) {
        // Firmware may have left colours; a line of its own for whatever comes next.
        let _ = write!(io::stdout(), "\x1b[0m\r\n");
        let _ = io::stdout().flush();
        let _ = termios::tcsetattr(io::stdin(), OptionalActions::Flush, &self.before);
    }
}

/// Reads keys for as long as somebody wants them, in a thread that ends with the process.
pub(super) fn read_keys<T: Send + 'static>(
    sender: Sender<T>,
    event: impl Fn(Vec<u8>) -> T + Send + 'static,
) {
    std::thread::spawn(move || {
        let mut buffer = [0; 256];
        while let Ok(length @ 1..) = io::stdin().read(&mut buffer) {
            if sender.send(event(buffer[..length].to_vec())).is_err() {
                return;
            }
        }
    });
}
