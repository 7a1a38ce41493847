//! `iota ssh-server`: dropbear, for those whose keys `iota.toml` has; without any, nobody listens.
//!
//! The device's own key is made once and stays on the data partition, over updates: whoever has
//! seen it once would be warned of another one.

use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::fs::DirBuilderExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use config::Config;

use crate::files;

/// Makes keys and prints them (dropbearkey(1)).
const KEY_PROGRAM: &str = "/usr/bin/dropbearkey";

/// The server (dropbear(8)).
const SERVER: &str = "/usr/sbin/dropbear";

/// Where it waits for connections.
pub const PORT: u16 = 22;

/// Where things lie.
#[derive(Clone, Debug)]
pub struct Places {
    /// What makes a device this one, over updates.
    pub identity: PathBuf,
    /// For this start alone.
    pub runtime: PathBuf,
    /// The program that makes keys.
    pub key_program: PathBuf,
}

impl Default for Places {
    fn default() -> Self {
        Self {
            identity: "/data/iota/identity".into(),
            runtime: "/run/iota/ssh".into(),
            key_program: KEY_PROGRAM.into(),
        }
    }
}

impl Places {
    fn host_key(&self) -> PathBuf {
        self.identity.join("ssh_host_ed25519_key")
    }
}

/// Becomes the server; returns only if that fails, or if there is nobody who may log in.
/// What is worth knowing goes to `say`.
pub fn serve(places: &Places, config: &Config, say: &dyn Fn(&str)) -> Result<(), String> {
    if config.ssh_keys().is_empty() {
        return Ok(());
    }
    let failed = |what: &Path, error: &io::Error| format!("{}: {error}", what.display());
    authorize(places, config).map_err(|error| failed(&places.runtime, &error))?;
    let fingerprint = host_key(places, say)?;
    let people = config.ssh_keys().len();
    say(&format!("ssh on port {PORT}; keys: {people}; host key {fingerprint}"));
    let error = Command::new(SERVER)
        .args(["-F", "-E", "-m"]) // stay in the foreground, log to PID 1, no message of the day
        .arg("-s") // no passwords
        .args(["-K", "60"]) // a connection that died is noticed
        .arg("-p")
        .arg(PORT.to_string())
        .arg("-P")
        .arg(places.runtime.join("pid"))
        .arg("-D")
        .arg(&places.runtime)
        .arg("-r")
        .arg(places.host_key())
        .exec();
    Err(format!("{SERVER}: {error}"))
}

/// Writes who may log in, where only root can. A server that runs reads it for each login.
pub fn authorize(places: &Places, config: &Config) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(&places.runtime)?;
    let lines: String = config.ssh_keys().iter().map(|key| format!("{key}\n")).collect();
    let file = places.runtime.join("authorized_keys");
    files::replace(&file, lines.as_bytes(), 0o600)
}

/// The device's own key, made now if there is none; its fingerprint.
fn host_key(places: &Places, say: &dyn Fn(&str)) -> Result<String, String> {
    let key = places.host_key();
    let failed = |error: io::Error| format!("{}: {error}", key.display());
    if key.exists() {
        match fingerprint(places, &key) {
            Ok(fingerprint) => return Ok(fingerprint),
            // A key that a dying card garbled must not keep its owner out.
            Err(error) => say(&format!("ERROR: the host key is damaged, making another: {error}")),
        }
    }
    DirBuilder::new().recursive(true).mode(0o700).create(&places.identity).map_err(failed)?;
    let unfinished = places.identity.join("ssh_host_ed25519_key.new");
    let _ = fs::remove_file(&unfinished);
    keys(places, &["-t", "ed25519", "-f"], &unfinished)?;
    files::settle(&unfinished, &key).map_err(failed)?;
    fingerprint(places, &key)
}

fn fingerprint(places: &Places, key: &Path) -> Result<String, String> {
    let text = keys(places, &["-y", "-f"], key)?;
    let found = text.lines().find_map(|line| line.strip_prefix("Fingerprint: "));
    found.map(str::to_owned).ok_or_else(|| format!("{KEY_PROGRAM} told no fingerprint"))
}

fn keys(places: &Places, arguments: &[&str], file: &Path) -> Result<String, String> {
    let program = &places.key_program;
    let output = Command::new(program).args(arguments).arg(file).output();
    let output = output.map_err(|error| format!("{}: {error}", program.display()))?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        let said = said.lines().last().unwrap_or("no reason given").to_owned();
        return Err(format!("{}: {}: {said}", program.display(), output.status));
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

#[cfg(test)]
mod tests {
    use std::fs::Permissions;
    use std::os::unix::fs::PermissionsExt as _;
    use std::sync::Mutex;

    use super::*;

    /// In the place of dropbearkey: a key is good if it begins with `key`.
    const PROGRAM: &str = "#!/bin/sh\n\
        if [ \"$1\" = -t ]; then echo \"key $$\" >\"$4\"; exit; fi\n\
        grep -q ^key \"$3\" || { echo 'Failed reading key' >&2; exit 1; }\n\
        echo \"Fingerprint: SHA256:$(tail -c 5 \"$3\")\"\n";

    fn places(directory: &Path) -> Places {
        let key_program = directory.join("dropbearkey");
        fs::write(&key_program, PROGRAM).unwrap();
        fs::set_permissions(&key_program, Permissions::from_mode(0o755)).unwrap();
        let (identity, runtime) = (directory.join("data/identity"), directory.join("run/ssh"));
        Places { identity, runtime, key_program }
    }

    #[test]
    fn the_host_key_is_made_once_and_again_only_if_it_is_damaged() {
        let directory = tempfile::tempdir().unwrap();
        let places = places(directory.path());
        let said = Mutex::new(Vec::new());
        let say = |line: &str| said.lock().unwrap().push(line.to_owned());
        let first = host_key(&places, &say).unwrap();
        assert!(first.starts_with("SHA256:"), "{first}");
        assert_eq!(host_key(&places, &say).unwrap(), first);
        assert!(said.lock().unwrap().is_empty());
        let mode = fs::metadata(&places.identity).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o700);

        fs::write(places.host_key(), "\0\0\0").unwrap();
        host_key(&places, &say).unwrap();
        assert!(said.lock().unwrap()[0].starts_with("ERROR: the host key is damaged"));
        assert!(fs::read_to_string(places.host_key()).unwrap().starts_with("key"));
        // What a cut left behind is in nobody's way.
        fs::remove_file(places.host_key()).unwrap();
        fs::write(places.identity.join("ssh_host_ed25519_key.new"), "k").unwrap();
        host_key(&places, &say).unwrap();
    }

    #[test]
    fn those_who_may_log_in_are_written_where_nobody_else_can() {
        let directory = tempfile::tempdir().unwrap();
        let places = places(directory.path());
        let key =
            "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIAkFG14uhMzsA/P6XR4xFVZ7v5HlZmbImE7M3BxGSxtE a";
        let config = Config::parse(format!("[ssh]\nkeys = [\"{key}\"]\n").as_bytes()).unwrap();
        authorize(&places, &config).unwrap();
        let file = places.runtime.join("authorized_keys");
        assert_eq!(fs::read_to_string(&file).unwrap(), format!("{key}\n"));
        for (path, expected) in [(&file, 0o600), (&places.runtime, 0o700)] {
            assert_eq!(fs::metadata(path).unwrap().permissions().mode() & 0o777, expected);
        }
    }

    #[test]
    fn without_a_key_nobody_listens() {
        let nowhere = Places {
            identity: "/nowhere".into(),
            runtime: "/nowhere".into(),
            key_program: "/nowhere".into(),
        };
        serve(&nowhere, &Config::default(), &|line| panic!("{line}")).unwrap();
    }
}
