//! The image under test: built once for all tests, by the very code behind `iota build`.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, OnceLock, PoisonError};

use builder::board::Board;
use builder::cli::{Cli, Verb};
use builder::debian::lock::Lock;
use builder::emulation::Emulation;
use builder::host::mirror::Mirror;
use builder::host::progress::Progress;
use builder::host::store::Store;
use builder::tree::{Kind, TreePath};
use clap::Parser as _;

use crate::{scratch, workspace};

/// The board that virtual machines are.
pub const BOARD: &str = "generic-aarch64";

/// The directory with `disk.img`, `slot.img` and everything else that a build leaves.
pub fn outputs() -> &'static Path {
    static OUTPUTS: OnceLock<PathBuf> = OnceLock::new();
    OUTPUTS.get_or_init(|| build_into(&scratch().join("out")))
}

/// How the image of a board is run in QEMU.
pub fn emulation(board: &str) -> Emulation {
    let board = Board::load(&workspace(), board);
    board.unwrap_or_else(|error| panic!("{}", error.chain())).emulation
}

/// A system that differs from the one under test: its outputs, an update bundle among them.
///
/// `edit` changes the definitions of a copy of the workspace, whose path it is given; programs are
/// those of the real one.
pub fn variant(name: &str, index: u32, edit: impl FnOnce(&Path)) -> PathBuf {
    variant_of(BOARD, name, index, edit)
}

/// As [`variant`], of any board.
pub fn variant_of(board: &str, name: &str, index: u32, edit: impl FnOnce(&Path)) -> PathBuf {
    variant_with(board, name, index, &[], edit)
}

/// As [`variant_of`], with more options of `iota bundle`.
pub fn variant_with(
    board: &str,
    name: &str,
    index: u32,
    options: &[&str],
    edit: impl FnOnce(&Path),
) -> PathBuf {
    // Two tests may want the same one at the same time.
    static TURN: Mutex<()> = Mutex::new(());
    let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    // All are signed with one key, which the first build makes: an update has to be trusted.
    outputs();
    let workspace = copy_of_workspace(name);
    edit(&workspace);
    let out = scratch().join("variants").join(name).join("out");
    let index = index.to_string();
    let words = ["iota", "bundle", board, "--image-version", name, "--rollback-index", &index];
    let paths = ["--workspace".as_ref(), workspace.as_os_str(), "--out".as_ref(), out.as_os_str()];
    let options = options.iter().map(OsStr::new);
    let cli = Cli::parse_from(words.map(OsStr::new).into_iter().chain(paths).chain(options));
    let Verb::Bundle(arguments) = &cli.verb else { unreachable!("the verb is above") };
    if let Err(error) = builder::verbs::bundle::run(arguments, &cli.common) {
        panic!("{}", error.chain());
    }
    out.join(board)
}

/// Definitions copied, the rest linked: the programs of the real workspace are found built.
fn copy_of_workspace(name: &str) -> PathBuf {
    let copy = scratch().join("variants").join(name).join("workspace");
    if copy.exists() {
        std::fs::remove_dir_all(&copy).unwrap();
    }
    std::fs::create_dir_all(&copy).unwrap();
    // Linked even if it is still empty: systems of two copies must trust the same key.
    std::fs::create_dir_all(workspace().join("keys")).unwrap();
    for entry in std::fs::read_dir(workspace()).unwrap() {
        let entry = entry.unwrap();
        let to = copy.join(entry.file_name());
        match entry.file_name().to_str() {
            Some("boards" | "rootfs") => copy_directory(&entry.path(), &to),
            _ => std::os::unix::fs::symlink(entry.path(), to).unwrap(),
        }
    }
    copy
}

/// Copies a directory with all that is in it.
pub fn copy_directory(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let to = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy_directory(&entry.path(), &to);
        } else {
            std::fs::copy(entry.path(), to).unwrap();
        }
    }
}

/// The busybox of the lock, for systems that are made to fail: the real ones have no shell.
pub fn busybox() -> Vec<u8> {
    file_of("busybox-static", "usr/bin/busybox")
}

/// A file of a package of the lock, whether images have it or not.
pub fn file_of(package: &str, path: &str) -> Vec<u8> {
    let wanted = TreePath::new(path).unwrap();
    file_where(package, path, |path| *path == wanted)
}

/// The library of this name in a package of the lock, whatever is behind its name there.
pub fn library_of(package: &str, name: &str) -> Vec<u8> {
    file_where(package, name, |path| {
        let last = path.as_bytes().rsplit(|byte| *byte == b'/').next();
        last.is_some_and(|last| last.starts_with(name.as_bytes()))
    })
}

fn file_where(package: &str, what: &str, is_it: impl Fn(&TreePath) -> bool) -> Vec<u8> {
    let lock = Lock::read(&builder::definitions::lock_path(&workspace())).unwrap();
    let locked = lock.packages().iter().find(|other| other.name == package).unwrap();
    let unpacked = Store::open(None).and_then(|store| {
        if !store.has_deb(locked) {
            let (mirror, progress) = (Mirror::discover(None)?, Progress::quiet());
            let gone = store.fetch_all(std::slice::from_ref(locked), &mirror, &progress)?;
            assert!(gone.is_empty(), "the mirror no longer has the locked {package}");
        }
        store.unpack(locked)
    });
    let entries = unpacked.unwrap_or_else(|error| panic!("{}", error.chain())).entries;
    let files = entries.into_iter().filter(|(path, _)| is_it(path));
    let mut contents = files.filter_map(|(_, node)| match node.kind {
        Kind::File(content) => Some(content),
        _ => None,
    });
    let content = contents.next().unwrap_or_else(|| panic!("no {what} in {package}"));
    content.read().unwrap().to_vec()
}

/// Builds the image into a directory of its own.
pub fn build_into(out: &Path) -> PathBuf {
    let built = try_to_build(out, &[]);
    built.unwrap_or_else(|error| panic!("{}", error.chain()))
}

/// Builds the image with more options; an error is what the user would be told.
pub fn try_to_build(out: &Path, options: &[&OsStr]) -> builder::error::Result<PathBuf> {
    let workspace = workspace();
    let words = ["iota", "build", BOARD, "--workspace"].map(OsStr::new);
    let rest = [workspace.as_os_str(), "--out".as_ref(), out.as_os_str()];
    let cli = Cli::parse_from(words.into_iter().chain(rest).chain(options.iter().copied()));
    let Verb::Build(arguments) = &cli.verb else { unreachable!("the verb is above") };
    let config = arguments.config.as_deref();
    let summary = builder::verbs::build::run_with(&arguments.build, config, &cli.common)?;
    Ok(summary.directory)
}
