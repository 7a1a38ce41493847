//! The user's Rust toolchain: which cargo, which compiler, and what they are called with.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::UNIX_EPOCH;

use crate::error::{Context, Error, Result};
use crate::host::store::write_atomically;

/// A toolchain, and what its compiler says of itself.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Toolchain {
    /// The program `cargo`.
    pub(super) cargo: PathBuf,
    /// The program `rustc`.
    pub(super) rustc: PathBuf,
    /// Where the compiler keeps its libraries.
    pub(super) sysroot: PathBuf,
    /// Everything `rustc -vV` prints: release, commit, host.
    pub(super) identity: String,
}

impl Toolchain {
    /// The toolchain that runs this program, else the one in `PATH`.
    pub(super) fn discover(cache: &Path) -> Result<Self> {
        let cargo = std::env::var_os("CARGO").map(PathBuf::from).filter(|path| path.is_absolute());
        // Beside cargo lies the compiler of the same toolchain; asking it directly saves the
        // tenth of a second that a proxy takes to find out which one is meant.
        let beside = cargo.as_ref().map(|cargo| cargo.with_file_name("rustc"));
        let direct = beside.filter(|rustc| is_compiler(rustc));
        let rustc = direct.clone().unwrap_or_else(|| "rustc".into());
        let cargo = cargo.unwrap_or_else(|| "cargo".into());
        let Some(direct) = direct else { return Self::ask(cargo, rustc) };
        let record = cache.join("rustc");
        let key = stamp(&direct).context(|| format!("cannot look at {}", direct.display()))?;
        if let Some(known) = Self::recall(&record, &key, &cargo, &direct) {
            return Ok(known);
        }
        let asked = Self::ask(cargo, rustc)?;
        let text = format!("{key}\n{}\n{}", asked.sysroot.display(), asked.identity);
        write_atomically(&record, text.as_bytes())?;
        Ok(asked)
    }

    fn ask(cargo: PathBuf, rustc: PathBuf) -> Result<Self> {
        let sysroot = output(&rustc, &["--print", "sysroot"])?;
        let identity = output(&rustc, &["-vV"])?;
        let sysroot = PathBuf::from(sysroot.trim_end());
        Ok(Self { cargo: own_cargo(&sysroot, cargo), rustc, sysroot, identity })
    }

    fn recall(record: &Path, key: &str, cargo: &Path, rustc: &Path) -> Option<Self> {
        let text = fs::read_to_string(record).ok()?;
        let rest = text.strip_prefix(key)?.strip_prefix('\n')?;
        let (sysroot, identity) = rest.split_once('\n')?;
        Some(Self {
            cargo: own_cargo(Path::new(sysroot), cargo.to_owned()),
            rustc: rustc.to_owned(),
            sysroot: sysroot.into(),
            identity: identity.to_owned(),
        })
    }

    /// The release, such as `1.95.0`; a nightly one has a suffix.
    pub(super) fn release(&self) -> &str {
        self.field("release: ")
    }

    /// What the compiler itself runs on.
    pub(super) fn host(&self) -> &str {
        self.field("host: ")
    }

    fn field(&self, name: &str) -> &str {
        self.identity.lines().find_map(|line| line.strip_prefix(name)).unwrap_or("unknown")
    }

    /// Where the compiler keeps what it has for `target`.
    pub(super) fn target_directory(&self, target: &str) -> PathBuf {
        self.sysroot.join("lib/rustlib").join(target)
    }
}

/// The toolchain's own cargo rather than a proxy that prepares an environment for it.
fn own_cargo(sysroot: &Path, found: PathBuf) -> PathBuf {
    let own = sysroot.join("bin/cargo");
    if own.is_file() { own } else { found }
}

/// The real compiler rather than a proxy in front of several.
fn is_compiler(rustc: &Path) -> bool {
    rustc.is_file()
        && rustc
            .parent()
            .and_then(Path::parent)
            .is_some_and(|root| root.join("lib/rustlib").is_dir())
}

/// Changes whenever another compiler is installed at the same place.
fn stamp(rustc: &Path) -> io::Result<String> {
    let metadata = fs::metadata(rustc)?;
    let modified = metadata.modified()?.duration_since(UNIX_EPOCH).map_err(io::Error::other)?;
    Ok(format!("{} {} {}", rustc.display(), metadata.len(), modified.as_nanos()))
}

fn output(program: &Path, arguments: &[&str]) -> Result<String> {
    let what = || format!("{} {}", program.display(), arguments.join(" "));
    let output = Command::new(program).args(arguments).output().map_err(|cause| {
        Error::caused(what(), cause)
            .hint("the device's programs are built here: install a Rust toolchain")
    })?;
    if !output.status.success() {
        let message = String::from_utf8_lossy(&output.stderr);
        return Err(Error::new(format!("{}: {}", what(), message.trim())));
    }
    String::from_utf8(output.stdout).context(what)
}

/// Takes away what an outer cargo, or a user for their own programs, set in the environment; what
/// says how to reach a registry stays.
pub(super) fn without_outer_cargo(command: &mut Command, sysroot: &Path) {
    // Cargo and rustup point the dynamic linker at the toolchain, which would load the compiler
    // from there whatever directory it is started from.
    let search = std::env::var_os("LD_LIBRARY_PATH").unwrap_or_default();
    let foreign = std::env::split_paths(&search).filter(|path| !path.starts_with(sysroot));
    match std::env::join_paths(foreign) {
        Ok(rest) if !rest.is_empty() => command.env("LD_LIBRARY_PATH", rest),
        _ => command.env_remove("LD_LIBRARY_PATH"),
    };
    for (name, _) in std::env::vars_os() {
        let text = name.to_string_lossy();
        let ours = text.starts_with("CARGO") || text.starts_with("RUST");
        let stays = ["CARGO_HOME", "CARGO_NET_", "CARGO_HTTP_", "CARGO_REGISTR", "CARGO_SOURCE_"];
        if ours
            && !text.starts_with("RUSTUP_")
            && !stays.iter().any(|start| text.starts_with(start))
        {
            command.env_remove(&name);
        }
    }
}

/// Where cargo unpacks crates: a directory for each registry it knows.
pub(super) fn registry_directories() -> Vec<PathBuf> {
    let home = std::env::var_os("CARGO_HOME").map(PathBuf::from);
    let home = home.or_else(|| Some(PathBuf::from(std::env::var_os("HOME")?).join(".cargo")));
    let Some(home) = home else { return Vec::new() };
    let entries = fs::read_dir(home.join("registry/src")).into_iter().flatten();
    let mut found: Vec<_> = entries.flatten().map(|entry| entry.path()).collect();
    found.sort();
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn release_and_host_are_read_from_what_the_compiler_prints() {
        let toolchain = Toolchain {
            cargo: "cargo".into(),
            rustc: "rustc".into(),
            sysroot: "/opt/rust".into(),
            identity: "rustc 1.95.0\nhost: x86_64-unknown-linux-gnu\nrelease: 1.95.0\n".to_owned(),
        };
        assert_eq!(toolchain.release(), "1.95.0");
        assert_eq!(toolchain.host(), "x86_64-unknown-linux-gnu");
    }

    #[test]
    fn the_compiler_is_asked_once_and_remembered() {
        let cache = tempfile::tempdir().unwrap();
        let first = Toolchain::discover(cache.path()).unwrap();
        assert_eq!(Toolchain::discover(cache.path()).unwrap(), first);
        assert!(first.sysroot.join("lib").is_dir());
    }
}
