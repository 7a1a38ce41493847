//! Programs that run on this machine and are not Rust: QEMU, and the checkers of file systems.
//!
//! The machine's own program is taken first, if it is new enough. Else the program comes from
//! Debian packages that `builder/tools/packages.lock` pins, unpacked below the cache: the tool
//! tree. Nothing is installed, no root is needed, and the tree's programs run as they are, through
//! its own dynamic linker. `IOTA_TOOLS=tree` leaves the machine's programs aside, so that tests
//! can prove the tree on a machine that has everything.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::debian::catalog::Trust;
use crate::debian::lock::{Lock, LockedPackage};
use crate::debian::manifest::Manifest;
use crate::debian::obtain::{self, Options};
use crate::error::{Error, Result};
use crate::hex;
use crate::host::mirror::Mirror;
use crate::host::progress::Progress;
use crate::host::store::Store;
use crate::suggest;

mod known;

use known::Known;

/// Which programs may be used: `tree` for those of the tool tree alone.
pub const VARIABLE: &str = "IOTA_TOOLS";

const MANIFEST: &str = include_str!("../../tools/packages.toml");
const LOCK: &str = include_str!("../../tools/packages.lock");

/// Where the firmware of a virtual machine lies in Debian's package, and where others put it.
const FIRMWARE: [&str; 4] = [
    "usr/share/qemu-efi-aarch64/QEMU_EFI.fd",
    "usr/share/edk2/aarch64/QEMU_EFI.fd",
    "usr/share/edk2/aarch64/QEMU_CODE.fd",
    "usr/share/qemu/edk2-aarch64-code.fd",
];

/// Finds tools, fetching them if this machine lacks them.
pub struct Tools<'a> {
    /// Where the tool tree is kept.
    pub store: &'a Store,
    /// `--mirror`, as the user gave it.
    pub mirror: Option<&'a str>,
    /// The cache alone, no network.
    pub offline: bool,
    /// Where to say what happens.
    pub progress: &'a Progress,
}

/// A program that can be run.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Tool {
    name: &'static str,
    program: PathBuf,
    arguments: Vec<OsString>,
    environment: Vec<(&'static str, OsString)>,
    tree: Option<PathBuf>,
}

impl Tool {
    /// A command without arguments yet.
    pub fn command(&self) -> Command {
        let mut command = Command::new(&self.program);
        command.args(&self.arguments);
        if !self.arguments.is_empty() {
            // Meant for the machine's programs; the tree has libraries of its own.
            command.env_remove("LD_LIBRARY_PATH").env_remove("LD_PRELOAD");
        }
        command.envs(self.environment.iter().map(|(name, value)| (name, value)));
        command
    }

    /// Where the tool tree lies that it is from; nowhere if it is the machine's own.
    pub fn tree(&self) -> Option<&Path> {
        self.tree.as_deref()
    }

    /// The name it was looked for by.
    pub fn name(&self) -> &str {
        self.name
    }
}

impl Tools<'_> {
    /// Finds one of the tools that the tree has, such as `fsck.erofs`.
    pub fn find(&self, name: &str) -> Result<Tool> {
        let known = known::find(name).ok_or_else(|| unknown(name))?;
        if may_use_host()
            && !known.makes_bytes_of_images()
            && let Some(program) = known.on_this_machine()
        {
            let (arguments, environment) = (vec![], vec![]);
            return Ok(Tool { name: known.name, program, arguments, environment, tree: None });
        }
        let tree = self.tree(known.group).map_err(|error| {
            Error::caused(
                format!("this machine has no fit {name}, and it cannot be fetched"),
                error,
            )
            .hint(format!("install it: {}", known.advice()))
        })?;
        if tree.root.join(known.path).is_file() {
            return Ok(tree.tool(known));
        }
        Err(Error::new(format!("{} holds no {name}", tree.root.display()))
            .hint("remove this directory: it will be made again"))
    }

    /// Makes the locks of `builder/tools` anew from what the suites have now.
    pub fn lock_again(&self, workspace: &Path) -> Result<()> {
        let mirror = Mirror::discover(self.mirror)?;
        for name in ["packages", "device"] {
            let base = workspace.join("builder/tools").join(name);
            let manifest = Manifest::read(&base.with_extension("toml"))?;
            let trust = Trust::default();
            let resolution =
                obtain::resolve_now(&manifest, self.store, Some(&mirror), &trust, self.progress)?;
            resolution.lock.write(&base.with_extension("lock"))?;
        }
        Ok(())
    }

    /// UEFI firmware for a virtual aarch64 machine.
    pub fn firmware(&self) -> Result<PathBuf> {
        let in_root =
            |root: &Path| FIRMWARE.iter().map(|path| root.join(path)).find(|path| path.is_file());
        if may_use_host()
            && let Some(path) = in_root(Path::new("/"))
        {
            return Ok(path);
        }
        let tree = self.tree("qemu")?;
        in_root(&tree.root).ok_or_else(|| {
            Error::new(format!("{} holds no firmware", tree.root.display()))
                .hint("remove this directory: it will be made again")
        })
    }

    /// The unpacked packages of a group.
    fn tree(&self, group: &str) -> Result<Tree> {
        if !cfg!(target_arch = "x86_64") {
            return Err(Error::new("the tool tree is for x86_64 machines"));
        }
        let manifest = Manifest::parse(MANIFEST)?;
        let lock = Lock::parse(LOCK)?;
        let pinned = self.tree_of(group, &lock.packages_of(&[group]));
        if pinned.root.is_dir() {
            return Ok(pinned);
        }
        let options = Options {
            mirror: self.mirror.map(str::to_owned),
            offline: self.offline,
            groups: vec![group.to_owned()],
            ..Options::default()
        };
        self.progress.line(format!("this machine lacks tools ({group}): taking Debian's"));
        let packages = obtain::obtain(&lock, &manifest, self.store, &options, self.progress)?;
        let tree = self.tree_of(group, &packages);
        self.store.unpack_to_directory(&packages, &tree.root, self.progress)?;
        Ok(tree)
    }

    /// Where a set of packages is unpacked: its name holds what is in it.
    fn tree_of(&self, group: &str, packages: &[LockedPackage]) -> Tree {
        use sha2::Digest as _;
        let mut hasher = sha2::Sha256::new();
        for package in packages {
            hasher.update(package.sha256.to_string());
        }
        let id = hex::encode(&hasher.finalize()[..8]);
        Tree { root: self.store.root().join("tools").join(format!("{group}-{id}")) }
    }
}

fn may_use_host() -> bool {
    std::env::var_os(VARIABLE).is_none_or(|value| value != "tree")
}

fn unknown(name: &str) -> Error {
    let error = Error::new(format!("there is no tool {name}"));
    match suggest::nearest(name, known::names()) {
        Some(near) => error.hint(format!("did you mean {near}?")),
        None => error,
    }
}

/// An unpacked set of packages.
struct Tree {
    root: PathBuf,
}

impl Tree {
    /// The command that runs a program of the tree with the tree's libraries.
    fn tool(&self, known: &'static Known) -> Tool {
        let at = |path: &str| self.root.join(path);
        let libraries = [at("usr/lib/x86_64-linux-gnu"), at("usr/lib")];
        let libraries = libraries.map(|path| path.into_os_string()).join(":".as_ref());
        let mut arguments: Vec<OsString> = vec!["--library-path".into(), libraries];
        let mut environment =
            vec![("GCONV_PATH", at("usr/lib/x86_64-linux-gnu/gconv").into_os_string())];
        if known.is_python {
            environment.push(("PYTHONHOME", at("usr").into_os_string()));
            environment.push(("PYTHONDONTWRITEBYTECODE", "1".into()));
            arguments.push(at("usr/bin/python3").into_os_string());
        } else {
            arguments.extend(["--argv0".into(), known.name.into()]);
        }
        arguments.push(at(known.path).into_os_string());
        if known.name.starts_with("qemu-system-") {
            let modules = at("usr/lib/x86_64-linux-gnu/qemu");
            environment.push(("QEMU_MODULE_DIR", modules.into_os_string()));
            arguments.extend(["-L".into(), at("usr/share/qemu").into_os_string()]);
        }
        let program = at("usr/lib64/ld-linux-x86-64.so.2");
        let tree = Some(self.root.clone());
        Tool { name: known.name, program, arguments, environment, tree }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lock_belongs_to_the_list_and_has_every_group() {
        let (manifest, lock) = (Manifest::parse(MANIFEST).unwrap(), Lock::parse(LOCK).unwrap());
        lock.check_made_from(&manifest).unwrap();
        for name in known::names() {
            let group = known::find(name).unwrap().group;
            assert!(!lock.packages_of(&[group]).is_empty(), "{name}: {group}");
        }
    }

    #[test]
    fn a_name_with_a_slip_gets_a_suggestion() {
        assert_eq!(unknown("fsck.erof").next_step(), Some("did you mean fsck.erofs?"));
    }

    #[test]
    fn programs_of_the_tree_run_with_its_libraries_and_its_python() {
        let tree = Tree { root: "/cache/tools/x".into() };
        let words = |name| {
            let command = tree.tool(known::find(name).unwrap()).command();
            let words = command.get_args().map(|word| word.to_string_lossy().into_owned());
            words.collect::<Vec<_>>().join(" ")
        };
        let libraries = "/cache/tools/x/usr/lib/x86_64-linux-gnu:/cache/tools/x/usr/lib";
        assert_eq!(
            words("e2fsck"),
            format!("--library-path {libraries} --argv0 e2fsck /cache/tools/x/usr/sbin/e2fsck")
        );
        assert!(words("bmaptool").ends_with("/usr/bin/python3 /cache/tools/x/usr/bin/bmaptool"));
        assert!(words("qemu-system-aarch64").ends_with("-L /cache/tools/x/usr/share/qemu"));
    }
}
