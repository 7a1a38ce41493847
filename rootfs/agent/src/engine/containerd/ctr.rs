//! One call of `ctr`: containerd's client, which the root carries beside containerd.

use std::io::{self, Read};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use crate::client::{Error, Result};

/// containerd's client.
const PROGRAM: &str = "/usr/bin/ctr";

/// Containers and images of this system, apart from whatever else uses containerd.
pub(super) const NAMESPACE: &str = "iota";

/// For what needs no work. Long enough for a slow card under load.
pub(super) const SHORT: &str = "60s";

/// For work: unpacking a large image onto a slow card.
pub(super) const LONG: &str = "30m";

/// The words of an error are no longer than this.
const WORDS: usize = 300;

/// Where `ctr` finds containerd.
#[derive(Clone, Debug)]
pub(super) struct Ctr {
    program: PathBuf,
    socket: PathBuf,
}

impl Ctr {
    pub(super) fn new(socket: &Path) -> Self {
        Self { program: PROGRAM.into(), socket: socket.to_owned() }
    }

    /// The program with these arguments; it gives up when the time is over, if there is one.
    pub(super) fn command<S: AsRef<str>>(&self, limit: Option<&str>, arguments: &[S]) -> Command {
        let mut command = Command::new(&self.program);
        command.arg("--address").arg(&self.socket);
        command.args(["--namespace", NAMESPACE, "--connect-timeout", "10s"]);
        command.args(limit.map(|limit| format!("--timeout={limit}")));
        command.args(arguments.iter().map(AsRef::as_ref));
        command
    }

    /// What it prints.
    ///
    /// Errors: nobody listens; it cannot be started; containerd's words if it says no.
    pub(super) fn run<S: AsRef<str>>(&self, limit: &str, arguments: &[S]) -> Result<String> {
        self.reach()?;
        let mut command = self.command(Some(limit), arguments);
        let output = command.stdin(Stdio::null()).output().map_err(|error| self.failed(&error))?;
        answer(output)
    }

    /// The same, with these bytes on its standard input.
    pub(super) fn feed(
        &self,
        limit: &str,
        arguments: &[&str],
        source: &mut dyn Read,
    ) -> Result<String> {
        self.reach()?;
        let mut command = self.command(Some(limit), arguments);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().map_err(|error| self.failed(&error))?;
        let copied = child.stdin.take().map(|mut input| io::copy(source, &mut input));
        // One that says no early stops reading: its words tell more than the broken pipe.
        let said = answer(child.wait_with_output()?)?;
        copied.transpose()?;
        Ok(said)
    }

    /// Before a whole program is started: whether anybody listens.
    fn reach(&self) -> Result<()> {
        let failed = |error| Error::NoConnection(self.socket.clone(), error);
        UnixStream::connect(&self.socket).map(drop).map_err(failed)
    }

    fn failed(&self, error: &io::Error) -> Error {
        io::Error::new(error.kind(), format!("{}: {error}", self.program.display())).into()
    }
}

fn answer(output: Output) -> Result<String> {
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let code = output.status.code().and_then(|code| u16::try_from(code).ok());
    Err(Error::Refused(code.unwrap_or(u16::MAX), words(&output.stderr)))
}

/// The last line that it wrote to standard error; those above are its log.
fn words(errors: &[u8]) -> String {
    let text = String::from_utf8_lossy(errors);
    let last = text.lines().map(str::trim).rfind(|line| !line.is_empty()).unwrap_or("no words");
    last.strip_prefix("ctr: ").unwrap_or(last).chars().take(WORDS).collect()
}

/// Whether the refusal is that there is no such thing.
pub(super) fn is_absent(error: &Error) -> bool {
    matches!(error, Error::Refused(_, said) if said.contains("not found"))
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt as _;
    use std::os::unix::net::UnixListener;

    use super::*;

    fn ctr(directory: &Path, script: &str) -> (Ctr, UnixListener) {
        let (program, socket) = (directory.join("ctr"), directory.join("sock"));
        fs::write(&program, format!("#!/bin/sh\n{script}\n")).unwrap();
        fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
        let listener = UnixListener::bind(&socket).unwrap();
        (Ctr { program, socket }, listener)
    }

    #[test]
    fn a_refusal_is_told_in_containerds_words_without_the_log_above() {
        let directory = tempfile::tempdir().unwrap();
        let script = "echo 'time=\"x\" level=error msg=\"failed\"' >&2\n\
            echo 'ctr: container \"x\" in namespace \"iota\": not found' >&2; exit 1";
        let (ctr, _listener) = ctr(directory.path(), script);
        let error = ctr.run(SHORT, &["containers", "info", "x"]).unwrap_err();
        assert!(is_absent(&error));
        let expected = "container \"x\" in namespace \"iota\": not found (status 1)";
        assert_eq!(error.to_string(), expected);
        assert_eq!(words(b"\n"), "no words");
        assert_eq!(words(&[b'x'; 999]).len(), WORDS);
    }

    #[test]
    fn every_call_says_where_for_whom_and_how_long() {
        let directory = tempfile::tempdir().unwrap();
        let (ctr, _listener) = ctr(directory.path(), "echo \"$@\"");
        let socket = directory.path().join("sock");
        let expected = format!(
            "--address {} --namespace iota --connect-timeout 10s --timeout=60s tasks list\n",
            socket.display()
        );
        assert_eq!(ctr.run(SHORT, &["tasks", "list"]).unwrap(), expected);
    }

    #[test]
    fn what_is_fed_is_read_and_who_does_not_read_it_is_heard() {
        let directory = tempfile::tempdir().unwrap();
        let (cat, _listener) = ctr(directory.path(), "cat");
        assert_eq!(cat.feed(LONG, &[], &mut &b"bytes"[..]).unwrap(), "bytes");
        fs::write(directory.path().join("ctr"), "#!/bin/sh\necho 'ctr: no space' >&2\nexit 1\n")
            .unwrap();
        let error = cat.feed(LONG, &[], &mut &vec![0; 1 << 20][..]).unwrap_err();
        assert_eq!(error.to_string(), "no space (status 1)");
    }

    #[test]
    fn nobody_is_asked_where_nobody_listens() {
        let directory = tempfile::tempdir().unwrap();
        let ctr = Ctr::new(&directory.path().join("none"));
        let error = ctr.run(SHORT, &["version"]).unwrap_err();
        assert!(matches!(error, Error::NoConnection(..)), "{error}");
    }
}
