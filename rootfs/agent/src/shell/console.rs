//! The console: a container in the host's namespaces, in which whoever logged in has a shell.
//!
//! It is made at the first login, from the owner's image or the one that the root carries, and
//! goes on with what was installed into it until either changes. Its home is a volume and stays.

use std::io::{self, IsTerminal as _, Read, Write};
use std::process::ExitCode;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use ondisk::system::{Container, System};
use rustix::termios::{OptionalActions, Termios, tcgetattr, tcgetwinsize, tcsetattr};

use super::pipe;
use crate::engine::{Engine, Exec, State};
use crate::own_config::{Report, time_zone};
use crate::services;

/// Which of the image's containers it is.
pub const NAME: &str = "console";

/// How often a window is asked for its size while it is open.
const LOOK: Duration = Duration::from_millis(300);

/// Opens it for a line or, without one, for a shell; the exit code is that of what ran in it.
pub fn open(
    engine: Arc<dyn Engine>,
    system: &System,
    wanted: Option<&str>,
    line: Option<&str>,
) -> Result<ExitCode, String> {
    let declared = system.containers.iter().find(|container| container.name == NAME);
    let declared = declared.ok_or("this image has no console container")?;
    engine.ping().map_err(|error| {
        format!("the engine does not answer: {error}\nhint: `iota …` needs no engine: iota status")
    })?;
    let image = image(&*engine, declared, wanted)?;
    come_up(&*engine, declared, &image)?;
    let terminal = io::stdin().is_terminal().then(window).flatten();
    let command = match line {
        Some(line) => vec!["sh".to_owned(), "-c".to_owned(), line.to_owned()],
        None => vec!["sh".to_owned(), "-l".to_owned()],
    };
    let name = std::env::var("TERM").unwrap_or_else(|_| "dumb".to_owned());
    let mut environment = vec![format!("TERM={name}")];
    environment.extend(time_zone(Report::path()));
    let exec = Exec { container: NAME, command, environment, terminal };
    attach(engine, &exec)
}

/// The id of the image to open: a mistake in iota.toml, or no network, must lock nobody out.
fn image(
    engine: &dyn Engine,
    declared: &Container,
    wanted: Option<&str>,
) -> Result<String, String> {
    let Some(name) = wanted else { return shipped(engine, declared) };
    let found = engine.image_id(name).map_err(|error| error.to_string())?;
    if let Some(id) = found {
        return Ok(id);
    }
    say(&format!("{name} is not here yet, fetching it"));
    let fetched = engine.pull(name).and_then(|()| engine.image_id(name));
    match fetched {
        Ok(Some(id)) => return Ok(id),
        Ok(None) => say(&format!("{name} was fetched and is not there; opening the image's own")),
        Err(error) => say(&format!("cannot fetch {name}: {error}; opening the image's own")),
    }
    shipped(engine, declared)
}

/// For who logged in, beside what runs.
fn say(text: &str) {
    let _ = writeln!(io::stderr(), "iota: {text}");
}

fn shipped(engine: &dyn Engine, declared: &Container) -> Result<String, String> {
    let path = &declared.image;
    let load = || -> Result<String, services::Failure> {
        let id = services::image_id(path)?;
        if !engine.has_image(&id)? {
            services::give(engine, path, &id)?;
        }
        Ok(id)
    };
    load().map_err(|failure| failure.to_string())
}

/// Makes it, makes it anew if it was made from something else, and starts it.
fn come_up(engine: &dyn Engine, declared: &Container, image: &str) -> Result<(), String> {
    let failed = |error: crate::client::Error| format!("the console container: {error}");
    let declaration = engine.console_declaration(image);
    let found = engine.find(NAME).map_err(failed)?;
    match found {
        Some(found) if found.declaration.is_none() => {
            return Err(format!(
                "the container `{}` was made by somebody else\nhint: rename or remove it with \
                 `docker -H ssh://HOST`",
                declared.name
            ));
        }
        Some(found) if found.declaration.as_deref() == Some(&declaration) => {
            if found.state == State::Running {
                return Ok(());
            }
        }
        found => {
            if found.is_some() {
                engine.remove(NAME).map_err(failed)?;
            }
            engine.create_console(NAME, image).map_err(failed)?;
        }
    }
    engine.start(NAME).map_err(failed)
}

fn attach(engine: Arc<dyn Engine>, exec: &Exec<'_>) -> Result<ExitCode, String> {
    let failed = |error: crate::client::Error| format!("the console container: {error}");
    if let Some(mut client) = engine.client(exec) {
        let ended = client.status().map_err(|error| failed(error.into()))?;
        return Ok(ExitCode::from(ended.code().and_then(|it| u8::try_from(it).ok()).unwrap_or(2)));
    }
    let attached = engine.execute(exec).map_err(failed)?;
    let id = attached.id;
    let terminal = exec.terminal.and_then(|size| {
        watch_window(Arc::clone(&engine), id.clone(), size);
        Raw::enter()
    });
    pipe::send_input(attached.input);
    let mut output = attached.output;
    let copied = match exec.terminal {
        Some(_) => pipe::copy(&mut output, &mut io::stdout()),
        None => unpack(&mut output, &mut io::stdout(), &mut io::stderr()),
    };
    drop(terminal);
    // A reader that went away is no failure of the command.
    if let Err(error) = copied
        && error.kind() != io::ErrorKind::BrokenPipe
    {
        return Err(format!("the console container: {error}"));
    }
    let code = engine.exit_code(&id).map_err(failed)?;
    Ok(ExitCode::from(u8::try_from(code).unwrap_or(2)))
}

/// Rows and columns of the terminal, if there is one that knows.
fn window() -> Option<(u16, u16)> {
    let size = tcgetwinsize(io::stdin()).ok()?;
    Some((size.ws_row, size.ws_col))
}

/// Tells the engine when the window gets another size.
fn watch_window(engine: Arc<dyn Engine>, id: String, mut known: (u16, u16)) {
    thread::spawn(move || {
        loop {
            thread::sleep(LOOK);
            match window() {
                Some(size) if size != known => {
                    known = size;
                    let _ = engine.resize(&id, size);
                }
                Some(_) => {}
                None => return,
            }
        }
    });
}

/// A terminal that passes every key on, until this is dropped.
struct Raw(Termios);

impl Raw {
    fn enter() -> Option<Self> {
        let before = tcgetattr(io::stdin()).ok()?;
        let mut raw = before.clone();
        raw.make_raw();
        tcsetattr(io::stdin(), OptionalActions::Now, &raw).ok()?;
        Some(Self(before))
    }
}

impl Drop for Raw {
    fn drop(&mut self) {
        let _ = tcsetattr(io::stdin(), OptionalActions::Drain, &self.0);
    }
}

/// Output and errors come in frames: 1 or 2, three zeros, length (big endian), bytes.
fn unpack(
    from: &mut impl Read,
    output: &mut impl Write,
    errors: &mut impl Write,
) -> io::Result<()> {
    let mut header = [0; 8];
    while from.read(&mut header[..1])? == 1 {
        from.read_exact(&mut header[1..])?;
        let [stream, 0, 0, 0, length @ ..] = header else {
            return Err(io::Error::other(format!("a malformed frame: {header:02x?}")));
        };
        let mut frame = from.by_ref().take(u32::from_be_bytes(length).into());
        match stream {
            1 => pipe::copy(&mut frame, output)?,
            2 => pipe::copy(&mut frame, errors)?,
            _ => return Err(io::Error::other(format!("a frame of stream {stream}"))),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(stream: u8, text: &str) -> Vec<u8> {
        let length = u32::try_from(text.len()).unwrap().to_be_bytes();
        [&[stream, 0, 0, 0][..], &length, text.as_bytes()].concat()
    }

    fn unpacked(bytes: &[u8]) -> io::Result<(String, String)> {
        let (mut output, mut errors) = (Vec::new(), Vec::new());
        unpack(&mut &*bytes, &mut output, &mut errors)?;
        let text = |bytes| String::from_utf8(bytes).unwrap();
        Ok((text(output), text(errors)))
    }

    #[test]
    fn output_and_errors_are_told_apart() {
        let bytes = [frame(1, "a"), frame(2, "no"), frame(1, ""), frame(1, "bc")].concat();
        assert_eq!(unpacked(&bytes).unwrap(), ("abc".to_owned(), "no".to_owned()));
        assert_eq!(unpacked(&[]).unwrap(), Default::default());
    }

    #[test]
    fn what_is_no_frame_is_an_error() {
        assert!(unpacked(b"bash: no job control\n").is_err());
        assert!(unpacked(&frame(3, "x")).is_err());
        assert!(unpacked(&[1, 0, 0]).is_err());
    }
}
