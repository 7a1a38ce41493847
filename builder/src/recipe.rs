//! From packages and components to the trees of an image: the root and the initrd. Pure but for
//! reading contents of the store.

use ondisk::system::System;
use ondisk::trust::Trust;

use crate::assemble::{self, Package};
use crate::board::Board;
use crate::container::{self, Image};
use crate::definitions::Definitions;
use crate::elf::{self, Providers};
use crate::error::{Context, Error, Result};
use crate::host::unpack::Unpacked;
use crate::image::cpio;
use crate::modules::{Closure, Kernel};
use crate::tree::{Content, Kind, Node, Tree, TreePath};

/// Programs of ours that go into an image.
#[derive(Clone, Debug)]
pub struct Programs {
    /// The UEFI program.
    pub loader: Content,
    /// PID 1.
    pub init: Content,
    /// The device's `iota`.
    pub agent: Content,
}

/// The trees of an image.
pub struct Trees {
    /// The root file system.
    pub root: Tree,
    /// The initial RAM disk.
    pub initrd: Tree,
    /// The kernel as its package has it.
    pub kernel: Content,
    /// What somebody should look at, one sentence each.
    pub notes: Vec<String>,
}

/// Files of a tree.
pub type Files = [(TreePath, Node)];

/// What an image is made of besides its definition.
#[derive(Clone, Copy, Debug)]
pub struct Parts<'a> {
    /// What it is called.
    pub version: &'a str,
    /// The packages, unpacked.
    pub packages: &'a [Unpacked],
    /// Programs of ours.
    pub programs: &'a Programs,
    /// Goes into the root: what the running system takes for an update.
    pub trust: &'a Trust,
    /// Apps and their images.
    pub carried: &'a Files,
}

/// Puts the trees of an image together.
///
/// Errors: a package, module or program that is not there, files that collide, libraries that are
/// missing.
pub fn trees(definitions: &Definitions, parts: &Parts<'_>) -> Result<Trees> {
    let Parts { version, packages, programs, trust, carried } = *parts;
    let board = &definitions.board;
    let (kernel_files, kernel) = find_kernel(packages)?;
    let modules = Kernel::find(&kernel_files.name, &kernel_files.entries)?;
    let for_initrd = modules.closure(board.modules.initrd_names())?;
    let mut names = board.modules.root_names();
    names.extend(board.modules.initrd_names());
    names.extend(definitions.engine.modules.iter().map(String::as_str));
    let for_root = modules.closure(names)?;
    let mut notes: Vec<String> =
        for_root.unmet.iter().map(|unmet| format!("soft dependency not met: {unmet}")).collect();

    let mut made = for_root.root_nodes()?;
    made.extend(identity(board, version)?);
    made.extend([
        program("usr/lib/iota/init", &programs.init, "init")?,
        program("usr/bin/iota", &programs.agent, "agent")?,
    ]);
    made.extend(system(definitions, packages)?);
    made.extend(carried.iter().cloned());
    let trusted = Node::file(Content::bytes(trust.encode().into_bytes()), 0o644, "trust");
    made.push((TreePath::new(ondisk::trust::PATH)?, trusted));

    let shipped: Vec<Package<'_>> = packages
        .iter()
        .map(|package| Package { name: &package.name, entries: &package.entries })
        .collect();
    let root = assemble::assemble(&assemble::Parts {
        skeleton: &definitions.skeleton,
        overlay: &definitions.overlay,
        slices: &definitions.slices,
        packages: &shipped,
        made: &made,
    })?;
    elf::check(&root.tree, board.architecture, &Providers::of(&shipped))?;
    notes.extend(root.undecided.iter().map(|file| format!("no slice decides {file}")));
    Ok(Trees {
        root: root.tree,
        initrd: initrd(&for_initrd, &board.modules.always_names(), &programs.init)?,
        kernel,
        notes,
    })
}

fn program(path: &str, content: &Content, origin: &str) -> Result<(TreePath, Node)> {
    Ok((TreePath::new(path)?, Node::file(content.clone(), 0o755, origin)))
}

/// The package that has the kernel, and the kernel.
fn find_kernel(packages: &[Unpacked]) -> Result<(&Unpacked, Content)> {
    for package in packages {
        for (path, node) in &package.entries {
            if let Kind::File(content) = &node.kind
                && path.as_bytes().starts_with(b"boot/vmlinuz-")
            {
                return Ok((package, content.clone()));
            }
        }
    }
    Err(Error::new("no package of the lock has a kernel (/boot/vmlinuz-*)")
        .hint("rootfs/packages.toml names it: linux-image-arm64"))
}

/// Who this system is (os-release(5)).
fn identity(board: &Board, version: &str) -> Result<Vec<(TreePath, Node)>> {
    let text = format!(
        "NAME=\"Iota\"\nID=iota\nPRETTY_NAME=\"Iota {version} ({board})\"\n\
         VERSION_ID=\"{version}\"\nVARIANT_ID={board}\n",
        board = board.name
    );
    let content = Content::bytes(text.into_bytes());
    Ok(vec![(TreePath::new("usr/lib/os-release")?, Node::file(content, 0o644, "identity"))])
}

/// The containers' archives and the system description that names them.
fn system(definitions: &Definitions, packages: &[Unpacked]) -> Result<Vec<(TreePath, Node)>> {
    let mut nodes = Vec::new();
    for definition in &definitions.containers {
        if let Image::Own(image) = &definition.image {
            let found = packages.iter().find(|package| *package.name == *image.package);
            let files: &Files = found.map_or(&[], |package| &package.entries);
            nodes.push(image.make(&definition.name, files, definitions.board.architecture)?);
        }
    }
    let containers = container::entries(&definitions.containers)?;
    let (led, engine) = (definitions.board.led.as_ref(), Some(&definitions.engine));
    let system: System = definitions.host.describe(led, engine, &containers)?;
    let text = system.encode().context(|| "the system description is not valid".to_owned())?;
    let content = Content::bytes(text.into_bytes());
    let path = TreePath::new(ondisk::system::PATH)?;
    nodes.push((path, Node::file(content, 0o644, "system description")));
    Ok(nodes)
}

fn initrd(modules: &Closure, always: &[&str], init: &Content) -> Result<Tree> {
    let mut tree = Tree::new();
    for (path, node) in modules.initrd_nodes(always)? {
        tree.insert(path, node)?;
    }
    let (path, node) = program("init", init, "init")?;
    tree.insert(path, node)?;
    for name in ["dev", "proc", "sys", "root"] {
        tree.insert(TreePath::new(name)?, Node::directory("init"))?;
    }
    // The kernel opens it for PID 1 before anything is mounted; without it early messages are lost.
    let console = Node::new(Kind::CharDevice { major: 5, minor: 1 }, 0o600, "init");
    tree.insert(TreePath::new("dev/console")?, console)?;
    Ok(tree)
}

/// The initrd as one cpio archive.
pub fn pack_initrd(tree: &Tree) -> Result<Vec<u8>> {
    let mut archive = Vec::new();
    cpio::write(tree, 0, &mut archive)?;
    Ok(archive)
}
