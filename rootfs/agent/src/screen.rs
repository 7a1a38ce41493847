//! What the serial console shows besides the log: how it stands, when everything runs and whenever
//! somebody presses Enter. It lets nobody in unless `iota.toml` says so (`console.serial`).
//!
//! The program sleeps in a read of the console and costs nothing until somebody types.

use std::io::{self, BufRead, Write};

use crate::health;
use crate::status::Status;

/// The word that opens a shell, where that is allowed.
pub const SHELL: &str = "shell";

/// What a device shows: its address, version, slot and health, and how to get in.
pub fn text(status: &Status) -> String {
    let mut lines = vec![format!("---- {} ----", status.hostname)];
    match status.network.is_empty() {
        true => lines.push("network    no address yet".to_owned()),
        false => lines.extend(status.network.iter().map(|line| format!("network    {line}"))),
    }
    lines.push(match &status.boot {
        Ok(boot) => {
            let slot = boot.slot.letter();
            let state = match boot.attempt {
                _ if boot.safe => "safe mode, without an engine".to_owned(),
                0 => "proven".to_owned(),
                attempt => format!("on trial, start {attempt}"),
            };
            format!("system     {} in slot {slot}: {state}", boot.version)
        }
        Err(error) => format!("system     unknown: {error}"),
    });
    lines.push(match health::amiss(status) {
        Some(amiss) => format!("health     not well: {amiss}"),
        None if !status.is_well() => "health     not well: iota status says why".to_owned(),
        None => "health     everything runs".to_owned(),
    });
    let config = status.config.as_ref().ok().map(|report| &report.config);
    lines.push(match config.is_some_and(|config| !config.ssh_keys().is_empty()) {
        true => format!("login      ssh root@{}.local, with a key", status.hostname),
        false => "login      none: iota.toml has no key for SSH".to_owned(),
    });
    let shell = config.is_some_and(config::Config::serial_shell);
    lines.push(match shell {
        true => format!("---- Enter shows this again, `{SHELL}` opens a shell ----"),
        false => "---- Enter shows this again ----".to_owned(),
    });
    lines.iter().flat_map(|line| [line, "\r\n"]).collect()
}

/// Answers whoever types, until the console ends.
pub fn serve(
    keys: impl BufRead,
    screen: &mut impl Write,
    show: impl Fn() -> String,
    shell: impl Fn() -> Option<io::Result<()>>,
) -> io::Result<()> {
    for line in keys.split(b'\n') {
        let line = line?;
        let is_word = String::from_utf8_lossy(&line).trim() == SHELL;
        match is_word.then(&shell).flatten() {
            Some(Err(error)) => write!(screen, "cannot open a shell: {error}\r\n")?,
            // Whoever left a shell sees that it is over.
            Some(Ok(())) | None => screen.write_all(show().as_bytes())?,
        }
        screen.flush()?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn enter_shows_how_it_stands_and_a_shell_opens_only_where_it_may() {
        let typed = |text: &str, may: bool| {
            let mut screen = Vec::new();
            let shell = || may.then(|| Err(io::Error::other("no engine")));
            serve(text.as_bytes(), &mut screen, || "state;".to_owned(), shell).unwrap();
            String::from_utf8(screen).unwrap()
        };
        assert_eq!(typed("\n", false), "state;");
        assert_eq!(typed("shell\r\nx\n\n", false), "state;state;state;");
        assert_eq!(typed("\nshell\n", true), "state;cannot open a shell: no engine\r\n");
        assert_eq!(typed("", true), "");
        let (mut screen, shell) = (Vec::new(), || Some(Ok(())));
        serve(&b"shell\n"[..], &mut screen, || "state;".to_owned(), shell).unwrap();
        assert_eq!(screen, b"state;");
    }
}
