//! Builds the programs of the device (components) with nothing but the user's own cargo.
//!
//! A component is built for a target whose standard library the toolchain may not have; the module
//! [`standard_library`] finds or makes one. What this module guarantees:
//!
//! - The bytes of a component depend on its sources, `Cargo.lock` and the compilers, never on the
//!   directory, the environment or the time: paths are remapped, variables of outer cargo runs are
//!   taken away, flags are ours alone.
//! - An unchanged component costs the hashing of its sources: cargo is not even started.
//! - A failed build leaves the component of the last good one in place, under its own fingerprint.
//!
//! Everything lies in `target/device` of the workspace: cargo's own files, the finished components
//! and, where it was needed, a sysroot.

use std::fs::{self, File};
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

use crate::board::Architecture;
use crate::error::{Context, Error, Result};
use crate::hex;
use crate::host::progress::{Mode, Progress, Task, Unit};
use crate::host::store::{Store, write_atomically};

mod c_compiler;
mod debian;
mod fingerprint;
mod rustup;
mod standard_library;
mod toolchain;

use c_compiler::CCompiler;
use standard_library::StandardLibrary;
pub use standard_library::Way;
use toolchain::Toolchain;

/// A program that goes into an image.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Component {
    /// The UEFI program that chooses and verifies a slot.
    Loader,
    /// PID 1.
    Init,
    /// The device's own `iota` command.
    Agent,
}

impl Component {
    /// All components, in the order in which an image takes them.
    pub const ALL: [Self; 3] = [Self::Loader, Self::Init, Self::Agent];

    /// The word for it in messages.
    pub fn name(self) -> &'static str {
        match self {
            Self::Loader => "loader",
            Self::Init => "init",
            Self::Agent => "agent",
        }
    }

    fn package(self) -> &'static str {
        match self {
            Self::Loader => "loader",
            Self::Init => "initramfs",
            Self::Agent => "agent",
        }
    }

    fn file_name(self) -> &'static str {
        match self {
            Self::Loader => "loader.efi",
            Self::Init => "iota-init",
            Self::Agent => "iota-agent",
        }
    }

    /// Directories of the workspace whose files decide what is built.
    fn sources(self) -> &'static [&'static str] {
        match self {
            Self::Loader => &["loader", "ondisk"],
            Self::Init => &["initramfs", "ondisk"],
            Self::Agent => &["rootfs/agent", "ondisk", "config"],
        }
    }

    /// Whether a crate of its is made of C: the one with the cryptography of TLS.
    fn has_c(self) -> bool {
        self == Self::Agent
    }

    fn target(self, architecture: Architecture) -> Target {
        let triple = match (self, architecture) {
            (Self::Loader, Architecture::Aarch64) => "aarch64-unknown-uefi",
            (Self::Init | Self::Agent, Architecture::Aarch64) => "aarch64-unknown-linux-musl",
        };
        Target { triple, has_std: self != Self::Loader }
    }
}

/// What rustc calls the machine a component runs on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Target {
    triple: &'static str,
    /// With `std` and a C library, or `core` and `alloc` alone.
    has_std: bool,
}

/// All that compiles a component.
struct Compilers {
    toolchain: Toolchain,
    library: StandardLibrary,
    c: Option<CCompiler>,
}

/// A finished component.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Built {
    /// The program.
    pub path: PathBuf,
    /// Its SHA-256 in lowercase hex.
    pub sha256: String,
}

/// What building components needs to know.
pub struct Components<'a> {
    /// The root of this workspace: the directory that holds `Cargo.lock` and `boards/`.
    pub workspace: &'a Path,
    /// Where downloads go, should the compiler lack a target.
    pub store: &'a Store,
    /// `--mirror`, as the user gave it.
    pub mirror: Option<&'a str>,
    /// Nothing may be fetched, neither by cargo nor from a mirror.
    pub offline: bool,
    /// Where to say what happens.
    pub progress: &'a Progress,
}

impl Components<'_> {
    /// Builds a component unless the last one is still right, and returns it.
    pub fn build(&self, component: Component, architecture: Architecture) -> Result<Built> {
        let name = component.name();
        self.try_build(component, architecture).context(|| format!("cannot build the {name}"))
    }

    fn try_build(&self, component: Component, architecture: Architecture) -> Result<Built> {
        let target = component.target(architecture);
        let place = self.device_directory();
        let finished = place.join("components").join(target.triple);
        fs::create_dir_all(&finished).context(|| format!("cannot make {}", finished.display()))?;
        // One at a time: a second build of the same workspace waits here, then finds it all done.
        let _lock = lock(&place)?;
        let toolchain = Toolchain::discover(&place)?;
        let sources = fingerprint::of_sources(self.workspace, component)?;
        let library = StandardLibrary::provide(self, &toolchain, target)?;
        let c = component.has_c().then(|| CCompiler::provide(self)).transpose()?;
        let made_with = Compilers { toolchain, library, c };
        let fingerprint = fingerprint::of_build(component, target, &made_with, &sources);
        let record = finished.join(format!("{}.fingerprint", component.file_name()));
        let path = finished.join(component.file_name());
        if let Some(built) = still_right(&record, &path, &fingerprint) {
            return Ok(built);
        }
        let program = self.run_cargo(component, target, &made_with)?;
        let bytes = fs::read(&program).context(|| format!("cannot read {}", program.display()))?;
        let sha256 = hex::encode(fingerprint::digest(&bytes));
        write_atomically(&path, &bytes)?;
        write_atomically(&record, format!("{fingerprint} {sha256}\n").as_bytes())?;
        Ok(Built { path, sha256 })
    }

    fn device_directory(&self) -> PathBuf {
        self.workspace.join("target/device")
    }

    /// Runs cargo until the paths it was told to hide are all that there are.
    fn run_cargo(
        &self,
        component: Component,
        target: Target,
        made_with: &Compilers,
    ) -> Result<PathBuf> {
        let mut registries = toolchain::registry_directories();
        loop {
            let mut command = self.cargo_command(component, target, made_with);
            let flags = rust_flags(self.workspace, target, &made_with.library, &registries);
            command.env("CARGO_ENCODED_RUSTFLAGS", flags.join("\x1f"));
            self.watch(component, target, &mut command)?;
            // A registry seen for the first time has a directory only now.
            let now = toolchain::registry_directories();
            if now == registries {
                break;
            }
            registries = now;
        }
        let directory = self.device_directory().join(target.triple).join("device");
        Ok(directory.join(component.file_name()))
    }

    fn cargo_command(
        &self,
        component: Component,
        target: Target,
        made_with: &Compilers,
    ) -> Command {
        let Compilers { toolchain, library, c } = made_with;
        let mut command = Command::new(&toolchain.cargo);
        toolchain::without_outer_cargo(&mut command, &toolchain.sysroot);
        command
            .current_dir(self.workspace)
            .args(["build", "--profile", "device", "--package", component.package()])
            .args(["--target", target.triple, "--target-dir"])
            .arg(self.device_directory())
            .env("RUSTC", &library.rustc);
        c_compiler::without_foreign_settings(&mut command);
        if let Some(c) = c {
            c.put_into(&mut command, target.triple);
        }
        if self.offline {
            command.arg("--offline");
        }
        if library.built_from_source {
            // The one way to build a standard library with a stable compiler; the compiler's own
            // build does the same. Only these programs are built so, never the host's.
            command.env("RUSTC_BOOTSTRAP", "1");
            let parts = if target.has_std { "std,panic_abort" } else { "core,alloc" };
            command.arg(format!("-Zbuild-std={parts}")).arg("-Zbuild-std-features=");
        }
        command
    }

    /// Runs cargo, shows which crate it is at, and on failure everything it had to say.
    fn watch(&self, component: Component, target: Target, command: &mut Command) -> Result<()> {
        let name = component.name();
        self.progress.line(format!("building the {name} for {}", target.triple));
        // Cargo does not say how many crates there will be, so without a bar there is nothing to
        // tell but that it began and ended.
        let shown =
            if self.progress.mode() == Mode::Bars { self.progress } else { &Progress::quiet() };
        let start = Instant::now();
        let task = shown.task(name, Unit::Items, 0);
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(|cause| missing_cargo(command, cause))?;
        let said = child.stderr.take().map(|pipe| listen(BufReader::new(pipe), &task));
        let status = child.wait().context(|| "cannot wait for cargo".to_owned())?;
        drop(task);
        if status.success() {
            let seconds = start.elapsed().as_secs_f64();
            self.progress.line(format!("built the {name} in {seconds:.1} s"));
            return Ok(());
        }
        for line in said.unwrap_or_default() {
            self.progress.line(line);
        }
        Err(Error::new(format!("cargo ended with {status}")))
    }
}

/// Reads cargo's messages to the end; returns those that are not mere progress.
fn listen(pipe: impl BufRead, task: &Task) -> Vec<String> {
    let mut kept = Vec::new();
    for line in pipe.lines().map_while(|line| line.ok()) {
        let mut words = line.split_whitespace();
        match (words.next(), words.next()) {
            (Some("Compiling" | "Downloaded" | "Downloading"), Some(what)) => {
                task.add(1);
                task.detail(what);
            }
            _ => kept.push(line),
        }
    }
    kept
}

fn missing_cargo(command: &Command, cause: std::io::Error) -> Error {
    let program = command.get_program().to_string_lossy().into_owned();
    Error::caused(format!("cannot start {program}"), cause)
        .hint("the device's programs are built here: install a Rust toolchain")
}

fn lock(place: &Path) -> Result<File> {
    let path = place.join("lock");
    let open = || {
        let file = File::options().create(true).append(true).open(&path)?;
        file.lock().map(|()| file)
    };
    open().context(|| format!("cannot lock {}", path.display()))
}

fn still_right(record: &Path, path: &Path, fingerprint: &str) -> Option<Built> {
    let record = fs::read_to_string(record).ok()?;
    let (recorded, sha256) = record.trim_end().split_once(' ')?;
    let bytes = fs::read(path).ok()?;
    let same = recorded == fingerprint && hex::encode(fingerprint::digest(&bytes)) == sha256;
    same.then(|| Built { path: path.to_owned(), sha256: sha256.to_owned() })
}

/// All flags for rustc. Those that name directories of this machine only hide them: cargo leaves
/// `--remap-path-prefix` out of its own hashes, so they do not reach the bytes. A later mapping
/// wins, so the outer directory stands first.
fn rust_flags(
    workspace: &Path,
    target: Target,
    library: &StandardLibrary,
    registries: &[PathBuf],
) -> Vec<String> {
    let hide = |path: &Path, name: &str| format!("--remap-path-prefix={}={name}", path.display());
    let mut flags = vec![hide(workspace, "/iota")];
    flags.extend(registries.iter().map(|path| hide(path, "/crates")));
    flags.push(hide(&library.sources, "/rust"));
    flags.extend(link_flags(target).iter().map(|&flag| flag.to_owned()));
    flags
}

/// Flags that are the same on every machine.
fn link_flags(target: Target) -> &'static [&'static str] {
    if target.has_std {
        // No C compiler is asked to link: start files and libc lie in the target's own directory.
        &[
            "-Clinker=rust-lld",
            "-Clinker-flavor=ld.lld",
            "-Clink-self-contained=yes",
            "-Ctarget-feature=+crt-static",
        ]
    } else {
        // A PE file carries a time and the name of a debug file unless told not to.
        &["-Clinker=rust-lld", "-Clink-arg=/Brepro", "-Clink-arg=/debug:none"]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TARGET: Target = Target { triple: "aarch64-unknown-linux-musl", has_std: true };

    #[test]
    fn inner_directories_are_hidden_after_outer_ones_so_that_theirs_win() {
        let library = StandardLibrary {
            rustc: "rustc".into(),
            sources: "/work/target/device/sysroot/lib/rustlib/src/rust".into(),
            built_from_source: true,
            id: String::new(),
        };
        let registries = [PathBuf::from("/work/.cargo/registry/src/a")];
        let flags = rust_flags(Path::new("/work"), TARGET, &library, &registries);
        assert_eq!(
            flags[..3],
            [
                "--remap-path-prefix=/work=/iota",
                "--remap-path-prefix=/work/.cargo/registry/src/a=/crates",
                "--remap-path-prefix=/work/target/device/sysroot/lib/rustlib/src/rust=/rust",
            ]
        );
    }

    #[test]
    fn a_finished_component_is_right_while_its_fingerprint_and_its_bytes_are() {
        let directory = tempfile::tempdir().unwrap();
        let (record, path) = (directory.path().join("record"), directory.path().join("init"));
        fs::write(&path, "program").unwrap();
        let sha256 = hex::encode(fingerprint::digest(b"program"));
        fs::write(&record, format!("abc {sha256}\n")).unwrap();
        assert_eq!(still_right(&record, &path, "abc").unwrap().sha256, sha256);
        assert_eq!(still_right(&record, &path, "abd"), None);
        fs::write(&path, "progra").unwrap();
        assert_eq!(still_right(&record, &path, "abc"), None);
    }

    #[test]
    fn what_cargo_says_is_kept_but_for_its_progress() {
        let task = Progress::quiet().task("init", Unit::Items, 0);
        let said =
            "   Compiling ondisk v0.1.0\nerror[E0308]: mismatched types\n  --> src/main.rs\n";
        assert_eq!(
            listen(said.as_bytes(), &task),
            ["error[E0308]: mismatched types", "  --> src/main.rs"]
        );
    }
}
