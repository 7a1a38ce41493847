//! Interrupts from the user, and children that must not outlive this process.

use std::io;
use std::os::unix::process::CommandExt as _;
use std::process::Command;
use std::sync::mpsc::{self, Receiver, Sender};
use std::sync::{Mutex, Once, PoisonError};

use crate::image::sparse;

/// Who wants to hear of an interrupt; the latest one does, the others wait.
static LISTENERS: Mutex<Vec<Sender<()>>> = Mutex::new(Vec::new());

/// What a shell makes of a program that SIGINT ended.
pub const INTERRUPTED: u8 = 130;

/// Every Ctrl-C, SIGTERM and SIGHUP as a message, for as long as the receiver is kept; without any
/// receiver an interrupt removes unfinished outputs and ends the process.
pub fn interrupts() -> Receiver<()> {
    static HANDLER: Once = Once::new();
    let (sender, receiver) = mpsc::channel();
    listeners().push(sender);
    HANDLER.call_once(|| {
        // It fails only where somebody else has a handler, who then decides.
        let _ = ctrlc::set_handler(|| {
            let mut listeners = listeners();
            while let Some(latest) = listeners.last() {
                if latest.send(()).is_ok() {
                    return;
                }
                listeners.pop();
            }
            sparse::discard_unfinished();
            std::process::exit(INTERRUPTED.into());
        });
    });
    receiver
}

fn listeners() -> std::sync::MutexGuard<'static, Vec<Sender<()>>> {
    LISTENERS.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The child is killed when the thread that starts it ends, however that happens.
pub fn die_with_parent(command: &mut Command) {
    let parent = rustix::process::getpid();
    let ask = move || {
        let signal = Some(rustix::process::Signal::KILL);
        rustix::process::set_parent_process_death_signal(signal)?;
        // The parent may have died before it was asked for.
        if rustix::process::getppid() == Some(parent) {
            return Ok(());
        }
        Err(io::Error::other("the parent has ended"))
    };
    // SAFETY: between fork and exec only async-signal-safe work is allowed: the closure makes two
    // system calls and, on the one path that ends the child anyway, allocates a message.
    unsafe { command.pre_exec(ask) };
}

/// The child gets a process group of its own: a Ctrl-C on the terminal is for us, and we decide
/// what it means for the child.
pub fn shield_from_terminal(command: &mut Command) {
    command.process_group(0);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_child_that_dies_with_its_parent_still_runs_to_its_own_end() {
        let mut command = Command::new("true");
        die_with_parent(&mut command);
        shield_from_terminal(&mut command);
        assert!(command.status().unwrap().success());
    }

    #[test]
    fn a_child_dies_with_the_thread_that_started_it() {
        let child = std::thread::spawn(|| {
            let mut command = Command::new("sleep");
            die_with_parent(&mut command);
            command.arg("60").spawn().unwrap()
        });
        let mut child = child.join().unwrap();
        assert!(!child.wait().unwrap().success());
    }
}
