//! Everything that a person writes to say what an image is: boards, packages, slices, engines,
//! containers, overlay. Loaded and checked before any work starts.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use sha2::{Digest, Sha256};

use crate::board::Board;
use crate::container::Definition;
use crate::debian::lock::Lock;
use crate::debian::manifest::Manifest;
use crate::engine::{Engine, Host};
use crate::error::{Context, Error, Result};
use crate::skeleton::Skeleton;
use crate::slice::Slices;
use crate::suggest;
use crate::tree::{Content, Node, TreePath};

/// Where a file of the overlay comes from, in messages and reports.
const OVERLAY: &str = "overlay";

/// The definition of an image.
pub struct Definitions {
    /// The machine.
    pub board: Board,
    /// Packages asked for, those of every engine among them.
    pub packages: Manifest,
    /// Package versions.
    pub lock: Lock,
    /// Which files of packages ship.
    pub slices: Slices,
    /// Directories, links, accounts.
    pub skeleton: Skeleton,
    /// What runs besides the engine.
    pub host: Host,
    /// The container engine.
    pub engine: Engine,
    /// Containers carried in the image.
    pub containers: Vec<Definition>,
    /// Files that ship as they are.
    pub overlay: Vec<(TreePath, Node)>,
}

impl Definitions {
    /// The groups of packages of this image besides the base: its board's, its engine's, its
    /// containers'.
    pub fn groups(&self) -> Vec<String> {
        let containers = self.containers.iter().map(|container| container.name.clone());
        let engine = [self.engine.name.clone()];
        self.board.groups.iter().cloned().chain(engine).chain(containers).collect()
    }

    /// Loads the definition of `board` with `engine` from the workspace.
    ///
    /// Errors: any file missing or wrong, named with its path; a name that does not exist, with the
    /// nearest one.
    pub fn load(workspace: &Path, board: &str, engine: &str) -> Result<Self> {
        let rootfs = workspace.join("rootfs");
        let text = |name: &str| read(&rootfs.join(name));
        let engine = load_engine(&rootfs, engine)?;
        let mut slices = Vec::new();
        for (name, path) in toml_files(&rootfs.join("slices"))? {
            slices.push((format!("rootfs/slices/{name}.toml"), read(&path)?));
        }
        let mut containers = Vec::new();
        for (name, path) in toml_files(&rootfs.join("containers"))? {
            containers.push(Definition::parse(&read(&path)?, &name)?);
        }
        let packages = packages(workspace)?;
        let lock = Lock::read(&lock_path(workspace))?;
        lock.check_made_from(&packages)?;
        let board = Board::load(workspace, board)?;
        check_groups(&board, &packages)?;
        let slices =
            Slices::parse(slices.iter().map(|(name, text)| (name.as_str(), text.as_str())))?;
        let mut definitions = Self {
            board,
            packages,
            lock,
            slices,
            skeleton: Skeleton::parse(&text("skeleton.toml")?)?,
            host: Host::parse(&text("host.toml")?)?,
            engine,
            containers,
            overlay: overlay(&rootfs.join("overlay"))?,
        };
        definitions.slices = definitions.slices.clone().of_groups(&definitions.groups());
        Ok(definitions)
    }
}

/// A group without packages is a slip of the pen: the image would lack what the board needs.
fn check_groups(board: &Board, packages: &Manifest) -> Result<()> {
    let known = || packages.packages().iter().map(|package| package.group.as_str());
    let Some(unknown) = board.groups.iter().find(|group| !known().any(|name| name == *group))
    else {
        return Ok(());
    };
    let place = format!("boards/{}/board.toml", board.name);
    let error = Error::new(format!("{place}: no package is in the group {unknown}"));
    Err(match suggest::nearest(unknown, known()) {
        Some(nearest) => error.hint(format!("did you mean `{nearest}`?")),
        None => error.hint("groups are named in rootfs/packages.toml"),
    })
}

/// The packages of `rootfs/packages.toml` and of every engine: one lock serves all images.
pub fn packages(workspace: &Path) -> Result<Manifest> {
    let rootfs = workspace.join("rootfs");
    let mut manifest = Manifest::read(&rootfs.join("packages.toml"))?;
    for (name, path) in toml_files(&rootfs.join("engines"))? {
        let engine = Engine::parse(&read(&path)?, &name)?;
        manifest = manifest.with_group(&name, engine.packages.iter().map(String::as_str))?;
    }
    Ok(manifest)
}

/// The place of the lock in a workspace.
pub fn lock_path(workspace: &Path) -> PathBuf {
    workspace.join("rootfs/packages.lock")
}

/// One of `rootfs/engines/`.
pub fn load_engine(rootfs: &Path, name: &str) -> Result<Engine> {
    let files = toml_files(&rootfs.join("engines"))?;
    let names = || files.iter().map(|(name, _)| name.as_str());
    match files.iter().find(|(known, _)| known == name) {
        Some((_, path)) => Engine::parse(&read(path)?, name),
        None => {
            let hint = match suggest::nearest(name, names()) {
                Some(nearest) => format!("did you mean `{nearest}`?"),
                None => format!("engines: {}", names().collect::<Vec<_>>().join(", ")),
            };
            Err(Error::new(format!("no engine is named `{name}`")).hint(hint))
        }
    }
}

/// Stem and path of every `.toml` in a directory, sorted.
fn toml_files(directory: &Path) -> Result<Vec<(String, PathBuf)>> {
    let failed = || format!("cannot read {}", directory.display());
    let mut files = Vec::new();
    for entry in fs::read_dir(directory).context(failed)? {
        let path = entry.context(failed)?.path();
        if path.extension().is_some_and(|extension| extension == "toml") {
            let stem = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
            files.push((stem, path));
        }
    }
    files.sort();
    Ok(files)
}

fn read(path: &Path) -> Result<String> {
    fs::read_to_string(path).context(|| format!("cannot read {}", path.display()))
}

/// Files below a directory, sorted by path; nothing hidden, no link is followed.
fn walk(directory: &Path) -> Result<Vec<PathBuf>> {
    let failed = || format!("cannot read {}", directory.display());
    let mut files = Vec::new();
    for entry in fs::read_dir(directory).context(failed)? {
        let entry = entry.context(failed)?;
        if entry.file_name().as_encoded_bytes().starts_with(b".") {
            continue;
        }
        if entry.file_type().context(failed)?.is_dir() {
            files.extend(walk(&entry.path())?);
        } else {
            files.push(entry.path());
        }
    }
    files.sort();
    Ok(files)
}

fn overlay(directory: &Path) -> Result<Vec<(TreePath, Node)>> {
    let mut nodes = Vec::new();
    for path in walk(directory)? {
        let failed = || format!("cannot read {}", path.display());
        let inside = path.strip_prefix(directory).context(failed)?;
        let tree_path = TreePath::new(inside.as_os_str().as_encoded_bytes())?;
        let metadata = fs::symlink_metadata(&path).context(failed)?;
        let node = if metadata.is_symlink() {
            let target = fs::read_link(&path).context(failed)?;
            Node::symlink(target.as_os_str().as_encoded_bytes(), OVERLAY)
        } else {
            let mode = if is_executable(&metadata) { 0o755 } else { 0o644 };
            let bytes: Arc<[u8]> = fs::read(&path).context(failed)?.into();
            Node::file(Content::bytes(bytes), mode, OVERLAY)
        };
        nodes.push((tree_path, node));
    }
    Ok(nodes)
}

/// The one bit of a file's mode that git keeps; so do we, or two clones would differ.
fn is_executable(metadata: &fs::Metadata) -> bool {
    metadata.permissions().mode() & 0o100 != 0
}

/// Everything in the workspace that decides what an image holds, the builder's own source among it.
const INPUTS: [&str; 8] = [
    "rootfs",
    "ondisk",
    "config",
    "loader",
    "initramfs",
    "builder/src",
    "Cargo.lock",
    "Cargo.toml", // its profiles decide what the device's programs become
];

/// One digest over all inputs of a build of `board`: names, kinds, lengths and contents of files.
pub fn digest_of_inputs(workspace: &Path, board: &str) -> Result<[u8; 32]> {
    let board = format!("boards/{board}");
    let mut files = Vec::new();
    for input in INPUTS.into_iter().chain([board.as_str()]) {
        let path = workspace.join(input);
        if path.is_dir() { files.extend(walk(&path)?) } else { files.push(path) }
    }
    files.sort();
    let mut hasher = Sha256::new();
    for path in files {
        let failed = || format!("cannot read {}", path.display());
        let inside = path.strip_prefix(workspace).context(failed)?;
        let metadata = fs::symlink_metadata(&path).context(failed)?;
        let (kind, bytes) = if metadata.is_symlink() {
            let target = fs::read_link(&path).context(failed)?;
            ("link", target.as_os_str().as_encoded_bytes().to_vec())
        } else {
            let kind = if is_executable(&metadata) { "program" } else { "file" };
            (kind, fs::read(&path).context(failed)?)
        };
        for field in [kind.as_bytes(), inside.as_os_str().as_encoded_bytes(), &bytes] {
            hasher.update((field.len() as u64).to_le_bytes());
            hasher.update(field);
        }
    }
    Ok(hasher.finalize().into())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt as _, symlink};

    use super::*;

    fn workspace() -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        for input in
            ["rootfs", "ondisk", "config", "loader", "initramfs", "builder/src", "boards/b"]
        {
            fs::create_dir_all(root.path().join(input)).unwrap();
        }
        for file in ["Cargo.lock", "Cargo.toml", "rootfs/program", "boards/b/board.toml"] {
            fs::write(root.path().join(file), file).unwrap();
        }
        root
    }

    /// What was built before is up to date only while nothing that it came from is another.
    #[test]
    fn contents_profiles_modes_and_links_are_inputs_of_a_build() {
        let root = workspace();
        let file = |name: &str| root.path().join(name);
        let mut seen = vec![digest_of_inputs(root.path(), "b").unwrap()];
        let mut is_new = |what: &str| {
            let digest = digest_of_inputs(root.path(), "b").unwrap();
            assert!(!seen.contains(&digest), "{what}");
            seen.push(digest);
        };
        fs::write(file("Cargo.toml"), "[profile.dev]").unwrap();
        is_new("a profile");
        fs::set_permissions(file("rootfs/program"), fs::Permissions::from_mode(0o755)).unwrap();
        is_new("a file that became a program");
        fs::write(file("boards/b/board.toml"), "other").unwrap();
        is_new("a board");
        fs::rename(file("rootfs/program"), file("rootfs/renamed")).unwrap();
        is_new("a name");
        fs::write(file("rootfs/target"), "").unwrap();
        fs::write(file("rootfs/link"), "target").unwrap();
        is_new("two more files");
        fs::remove_file(file("rootfs/link")).unwrap();
        symlink("target", file("rootfs/link")).unwrap();
        is_new("a link in place of a file that holds its target");
    }

    #[test]
    fn what_git_does_not_keep_of_a_mode_is_no_input() {
        let root = workspace();
        let before = digest_of_inputs(root.path(), "b").unwrap();
        let program = root.path().join("rootfs/program");
        fs::set_permissions(program, fs::Permissions::from_mode(0o600)).unwrap();
        assert_eq!(digest_of_inputs(root.path(), "b").unwrap(), before);
    }
}
