//! Finds or makes a standard library for a target, on machines that have only a host toolchain.
//!
//! In this order, the first that works:
//!
//! 1. *installed*: the toolchain has the target (`rustup target add`, a distribution's package).
//! 2. *made before*: a sysroot of way 4, complete and of this very compiler.
//! 3. *rustup*: it can fetch the target. A machine without a way to it loses seconds, not minutes.
//! 4. *debian*: the library's sources from the package `rust-src` of the same release, compiled by
//!    cargo itself, and the C library's start files from `musl-dev`.
//!
//! Way 4 makes a sysroot of links: everything in it is the toolchain's own but the sources and the
//! target's start files. The compiler itself is a hard link (a copy across file systems), since it
//! takes the directory it lies in for its sysroot and follows symbolic links first. Cargo hashes
//! the library's paths relative to that sysroot, which keeps them out of the bytes it makes; the
//! variable that overrides the place of the sources would put them in.

use std::fs;
use std::io;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use super::toolchain::Toolchain;
use super::{Components, Target, debian, rustup};
use crate::error::{Context, Error, Result};

/// Forces one way: `installed`, `rustup` or `debian`.
const VARIABLE: &str = "IOTA_STANDARD_LIBRARY";

/// Where a target's standard library comes from.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Way {
    /// The toolchain has it.
    Installed,
    /// Fetched by rustup into the toolchain.
    Rustup,
    /// Compiled from the sources in a Debian package.
    Debian,
}

impl Way {
    fn forced() -> Result<Option<Self>> {
        let Ok(word) = std::env::var(VARIABLE) else { return Ok(None) };
        match word.as_str() {
            "" => Ok(None),
            "installed" => Ok(Some(Self::Installed)),
            "rustup" => Ok(Some(Self::Rustup)),
            "debian" => Ok(Some(Self::Debian)),
            other => Err(Error::new(format!("{VARIABLE} is `{other}`"))
                .hint("use installed, rustup or debian, or leave it unset")),
        }
    }
}

/// A standard library that cargo can use for one target.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct StandardLibrary {
    /// The compiler to build with.
    pub(super) rustc: PathBuf,
    /// Where its sources are, or would be: their paths are hidden from what is built.
    pub(super) sources: PathBuf,
    /// Cargo has to build it first.
    pub(super) built_from_source: bool,
    /// What it is, for the fingerprint.
    pub(super) id: String,
}

impl StandardLibrary {
    /// Finds or makes the library for `target`.
    pub(super) fn provide(
        components: &Components<'_>,
        toolchain: &Toolchain,
        target: Target,
    ) -> Result<Self> {
        let forced = Way::forced()?;
        let allowed = |way| forced.is_none_or(|forced| forced == way);
        if forced != Some(Way::Debian) && has_target(toolchain, target) {
            return Ok(Self::installed(toolchain));
        }
        let sysroot = Sysroot::of(components, toolchain);
        if allowed(Way::Debian)
            && let Some(library) = sysroot.finished(target)
        {
            return Ok(library);
        }
        let mut refusals = vec![format!("the toolchain has no {}", target.triple)];
        if allowed(Way::Rustup) && !components.offline {
            match rustup::add(components, toolchain, target) {
                Ok(()) if has_target(toolchain, target) => {
                    return Ok(Self::installed(toolchain));
                }
                Ok(()) => refusals.push("rustup did not bring it".to_owned()),
                Err(error) => refusals.push(format!("rustup: {}", error.chain())),
            }
        }
        if allowed(Way::Debian) {
            let reason = refusals.join("; ");
            return sysroot.make(components, toolchain, target).context(|| reason);
        }
        let hint = format!("add it: rustup target add {}", target.triple);
        Err(Error::new(refusals.join("; ")).hint(hint))
    }

    fn installed(toolchain: &Toolchain) -> Self {
        Self {
            rustc: toolchain.rustc.clone(),
            sources: toolchain.sysroot.join("lib/rustlib/src/rust"),
            built_from_source: false,
            id: "installed".to_owned(),
        }
    }
}

fn has_target(toolchain: &Toolchain, target: Target) -> bool {
    let libraries = toolchain.target_directory(target.triple).join("lib");
    let is_core = |name: &str| name.starts_with("libcore-") && name.ends_with(".rlib");
    let entries = fs::read_dir(libraries).into_iter().flatten().flatten();
    entries.into_iter().any(|entry| entry.file_name().to_str().is_some_and(is_core))
}

/// The directory of links that way 4 makes, one for a workspace and compiler.
struct Sysroot {
    root: PathBuf,
    identity: String,
}

/// Objects that a linked program starts and ends with, from the C library.
const START_FILES: [&str; 6] = ["crt1.o", "rcrt1.o", "Scrt1.o", "crti.o", "crtn.o", "libc.a"];

/// What the compiler asks for and nothing needs, since panics abort: empty archives, which the
/// linker takes under any name.
const EMPTY_FILES: [&str; 5] =
    ["libunwind.a", "crtbegin.o", "crtend.o", "crtbeginS.o", "crtendS.o"];

impl Sysroot {
    fn of(components: &Components<'_>, toolchain: &Toolchain) -> Self {
        let root = components.device_directory().join("sysroot");
        Self { root, identity: toolchain.identity.clone() }
    }

    /// The library, if an earlier run made all of it with this compiler.
    fn finished(&self, target: Target) -> Option<StandardLibrary> {
        let mark = fs::read_to_string(self.mark(target)).ok()?;
        let id = mark.strip_prefix(&self.identity)?.trim();
        let sources = self.sources();
        let whole = sources.join("library/Cargo.lock").is_file() && self.rustc().is_file();
        whole.then(|| StandardLibrary {
            rustc: self.rustc(),
            sources,
            built_from_source: true,
            id: id.to_owned(),
        })
    }

    fn make(
        &self,
        components: &Components<'_>,
        toolchain: &Toolchain,
        target: Target,
    ) -> Result<StandardLibrary> {
        let sources = debian::library_sources(components, toolchain.release(), target.triple)?;
        self.link_toolchain(toolchain, &sources.directory)
            .context(|| format!("cannot make {}", self.root.display()))?;
        let mut id = format!("rust-src {}", sources.version);
        if target.has_std {
            let musl = debian::start_files(components)?;
            self.put_start_files(target, &musl.directory)
                .context(|| format!("cannot make {}", self.root.display()))?;
            id += &format!(", musl-dev {}", musl.version);
        }
        fs::write(self.mark(target), format!("{}\n{id}\n", self.identity))
            .context(|| format!("cannot write {}", self.mark(target).display()))?;
        self.finished(target)
            .ok_or_else(|| Error::new(format!("{} is not complete", self.root.display())))
    }

    fn rustc(&self) -> PathBuf {
        self.root.join("bin/rustc")
    }

    fn sources(&self) -> PathBuf {
        self.root.join("lib/rustlib/src/rust")
    }

    fn mark(&self, target: Target) -> PathBuf {
        self.root.join(format!("{}.made", target.triple))
    }

    /// Makes everything but what belongs to one target, unless it is there.
    fn link_toolchain(&self, toolchain: &Toolchain, sources: &Path) -> io::Result<()> {
        let linked = self.root.join("linked");
        let wanted = format!("{}\n{}", self.identity, sources.display());
        if fs::read_to_string(&linked).is_ok_and(|text| text == wanted) {
            return Ok(());
        }
        if self.root.exists() {
            fs::remove_dir_all(&self.root)?;
        }
        for directory in ["bin", "lib/rustlib/src"] {
            fs::create_dir_all(self.root.join(directory))?;
        }
        let real = &toolchain.sysroot;
        link_or_copy(&real.join("bin/rustc"), &self.rustc())?;
        for entry in fs::read_dir(real.join("lib"))? {
            let entry = entry?;
            let link = self.root.join("lib").join(entry.file_name());
            let name = entry.file_name().to_string_lossy().into_owned();
            if name.starts_with("librustc_driver") {
                link_or_copy(&entry.path(), &link)?;
            } else if name.starts_with("lib") {
                symlink(entry.path(), link)?;
            }
        }
        let host = Path::new("lib/rustlib").join(toolchain.host());
        symlink(real.join(&host), self.root.join(&host))?;
        symlink(sources, self.sources())?;
        fs::write(linked, wanted)
    }

    fn put_start_files(&self, target: Target, musl: &Path) -> io::Result<()> {
        let place = self.root.join("lib/rustlib").join(target.triple).join("lib/self-contained");
        fs::create_dir_all(&place)?;
        for name in START_FILES {
            fs::copy(musl.join(name), place.join(name))?;
        }
        EMPTY_FILES.iter().try_for_each(|name| fs::write(place.join(name), "!<arch>\n"))
    }
}

fn link_or_copy(source: &Path, target: &Path) -> io::Result<()> {
    // Of the file itself, were it a link: what counts is where the compiler finds itself.
    let source = source.canonicalize()?;
    fs::hard_link(&source, target).or_else(|_| fs::copy(&source, target).map(|_| ()))
}
