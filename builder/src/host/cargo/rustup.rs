//! Asks rustup for a target, with an eye on the clock: its own time-outs add up to minutes.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use super::toolchain::Toolchain;
use super::{Components, Target};
use crate::error::{Context, Error, Result};

/// As long as nothing at all has arrived, the server is given this long.
const PATIENCE_AT_FIRST: Duration = Duration::from_secs(15);

/// Once something has: a slow line, or a slow disk that unpacks.
const PATIENCE_LATER: Duration = Duration::from_secs(120);

/// `rustup target add`, for the toolchain in use.
pub(super) fn add(
    components: &Components<'_>,
    toolchain: &Toolchain,
    target: Target,
) -> Result<()> {
    let home = home().ok_or_else(|| Error::new("its home directory is not known"))?;
    let name = toolchain_name(&home, &toolchain.sysroot)
        .ok_or_else(|| Error::new("the compiler in use is not one of its own"))?;
    components.progress.line(format!("asking rustup for {}", target.triple));
    let mut command = Command::new("rustup");
    command
        .args(["target", "add", "--toolchain", &name, target.triple])
        .env("RUSTUP_MAX_RETRIES", "0")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped());
    let mut child = command.spawn().context(|| "cannot be started".to_owned())?;
    let status = wait(&mut child, &home.join("downloads"));
    let status = status.context(|| "cannot be waited for".to_owned())?;
    match status {
        Some(status) if status.success() => Ok(()),
        Some(_) => Err(Error::new(last_words(&mut child))),
        None => Err(Error::new("nothing arrived, given up")),
    }
}

fn home() -> Option<PathBuf> {
    let set = |name| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    set("RUSTUP_HOME").or_else(|| Some(set("HOME")?.join(".rustup")))
}

/// The name under which rustup knows the toolchain whose files these are.
fn toolchain_name(home: &Path, sysroot: &Path) -> Option<String> {
    let toolchains = home.join("toolchains").canonicalize().ok()?;
    let name = sysroot.canonicalize().ok()?.strip_prefix(&toolchains).ok()?.to_owned();
    name.to_str().filter(|name| !name.contains('/')).map(str::to_owned)
}

/// Waits for rustup as long as something happens; `None` if it had to be ended.
fn wait(child: &mut Child, downloads: &Path) -> std::io::Result<Option<ExitStatus>> {
    let (mut arrived, mut anything) = (bytes_in(downloads), false);
    let mut last_change = Instant::now();
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(Some(status));
        }
        let now = bytes_in(downloads);
        if now != arrived {
            (arrived, anything, last_change) = (now, true, Instant::now());
        }
        let patience = if anything { PATIENCE_LATER } else { PATIENCE_AT_FIRST };
        if last_change.elapsed() > patience {
            child.kill()?;
            child.wait()?;
            return Ok(None);
        }
        std::thread::sleep(Duration::from_millis(50));
    }
}

fn bytes_in(directory: &Path) -> u64 {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.metadata().ok()).map(|metadata| metadata.len()).sum()
}

/// The last error that rustup printed, as one clause.
fn last_words(child: &mut Child) -> String {
    let text = child.stderr.take().and_then(|pipe| std::io::read_to_string(pipe).ok());
    let text = text.unwrap_or_default();
    let error = text.lines().rev().find_map(|line| line.strip_prefix("error: "));
    error.or(text.lines().next_back()).unwrap_or("it failed without a word").to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_toolchain_of_rustup_has_a_name() {
        let home = tempfile::tempdir().unwrap();
        let stable = home.path().join("toolchains/stable-x86_64-unknown-linux-gnu");
        fs::create_dir_all(stable.join("lib")).unwrap();
        let name = |path: &Path| toolchain_name(home.path(), path);
        assert_eq!(name(&stable).as_deref(), Some("stable-x86_64-unknown-linux-gnu"));
        assert_eq!(name(&stable.join("lib")), None);
        assert_eq!(name(Path::new("/usr")), None);
    }

    #[test]
    fn a_program_that_ends_by_itself_is_waited_for_and_its_error_is_kept() {
        let mut command = Command::new("sh");
        command.args(["-c", "echo 'info: x' >&2; echo 'error: no such target' >&2; exit 1"]);
        let mut child = command.stderr(Stdio::piped()).spawn().unwrap();
        let status = wait(&mut child, Path::new("/nonexistent")).unwrap().unwrap();
        assert!(!status.success());
        assert_eq!(last_words(&mut child), "no such target");
    }
}
