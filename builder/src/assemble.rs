//! Assembles the root tree: skeleton, overlay, the slices of packages, and what the builder makes.
//!
//! No script of a package runs. Paths under `/bin`, `/sbin` and `/lib` are moved below `/usr`
//! (merged /usr), two origins of one path are an error, and a directory of a package reaches the
//! root only with something in it.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::error::{Context, Error, Result};
use crate::skeleton::Skeleton;
use crate::slice::{Bundle, Decision, Slices};
use crate::tree::{Content, Kind, Node, Tree, TreePath};

/// A package as it lies unpacked in the store.
#[derive(Clone, Copy, Debug)]
pub struct Package<'a> {
    /// Name of the package.
    pub name: &'a str,
    /// Everything in it; a hard link names a file that is also here.
    pub entries: &'a [(TreePath, Node)],
}

/// What a root is made of.
#[derive(Clone, Copy, Debug)]
pub struct Parts<'a> {
    /// Directories, links and accounts.
    pub skeleton: &'a Skeleton,
    /// Files of `rootfs/overlay/`.
    pub overlay: &'a [(TreePath, Node)],
    /// Which files of the packages ship.
    pub slices: &'a Slices,
    /// The packages; their order does not matter.
    pub packages: &'a [Package<'a>],
    /// What the builder made: kernel modules, components, the system description…
    pub made: &'a [(TreePath, Node)],
}

/// A finished root.
#[derive(Clone, Debug)]
pub struct Root {
    /// The tree.
    pub tree: Tree,
    /// Files that no slice decides, as `package: /path`. They are left out; a slice that speaks of
    /// them is overdue.
    pub undecided: Vec<String>,
}

/// Puts the parts together.
///
/// Errors: two origins of one path; a pattern of a slice that decides nothing; a hard link without
/// its file.
pub fn assemble(parts: &Parts<'_>) -> Result<Root> {
    let mut root = Root { tree: Tree::new(), undecided: Vec::new() };
    for (path, node) in parts.skeleton.nodes()? {
        root.tree.insert(path, node)?;
    }
    let mut packages: Vec<&Package<'_>> = parts.packages.iter().collect();
    packages.sort_by_key(|package| package.name);
    for package in packages {
        root.add_package(parts.slices, package)?;
    }
    for (path, node) in parts.overlay.iter().chain(parts.made) {
        root.tree.insert(merged(path)?, node.clone())?;
    }
    Ok(root)
}

impl Root {
    fn add_package(&mut self, slices: &Slices, package: &Package<'_>) -> Result<()> {
        let entries = merge_entries(package)?;
        let mut decider = slices.decide(package.name);
        let (bundles, links) = decider.made();
        let mut bundled: Vec<Vec<&Content>> = vec![Vec::new(); bundles.len()];
        // Files before hard links, so that a link finds its file.
        let mut shipped = Vec::new();
        for (path, node) in entries.iter().filter(|(_, node)| !node.is_directory()) {
            let absolute = [b"/", path.as_bytes()].concat();
            match decider.file(&absolute) {
                Decision::Ship => shipped.push((path, node)),
                Decision::Drop => {}
                Decision::Bundle(index) => bundled[index].push(content(package, &entries, path)?),
                Decision::Undecided => {
                    self.undecided.push(format!("{}: {}", package.name, path.display()));
                }
            }
        }
        decider.finish()?;
        shipped.sort_by_key(|(_, node)| matches!(node.kind, Kind::HardLink(_)));
        for (path, node) in shipped {
            self.add_parents(&entries, path)?;
            let node = self.with_target(package, &entries, node)?;
            self.tree.insert(path.clone(), node)?;
        }
        for (bundle, parts) in bundles.iter().zip(bundled) {
            let node = join(bundle, &parts, package.name)?;
            self.tree.insert(merged(&TreePath::new(&bundle.into)?)?, node)?;
        }
        for link in links {
            let path = merged(&TreePath::new(&link.path)?)?;
            self.tree.insert(path, Node::symlink(link.target.as_str(), package.name))?;
        }
        Ok(())
    }

    /// The directories above a shipped file, as the package has them.
    fn add_parents(&mut self, entries: &Entries<'_>, path: &TreePath) -> Result<()> {
        let mut above = Vec::new();
        let mut parent = path.parent();
        while let Some(directory) = parent {
            parent = directory.parent();
            above.push(directory);
        }
        for directory in above.into_iter().rev().filter(|directory| !directory.is_root()) {
            if let Some(node) = entries.get(&directory) {
                self.tree.insert(directory, Node::clone(node))?;
            }
        }
        Ok(())
    }

    /// A hard link whose file stays out becomes that file.
    fn with_target(
        &self,
        package: &Package<'_>,
        entries: &Entries<'_>,
        node: &Node,
    ) -> Result<Node> {
        let Kind::HardLink(target) = &node.kind else { return Ok(node.clone()) };
        let target = merged(target)?;
        let mut node = node.clone();
        node.kind = match self.tree.get(&target) {
            Some(_) => Kind::HardLink(target),
            None => Kind::File(content(package, entries, &target)?.clone()),
        };
        Ok(node)
    }
}

type Entries<'a> = BTreeMap<TreePath, &'a Node>;

fn merge_entries<'a>(package: &Package<'a>) -> Result<Entries<'a>> {
    let mut entries = Entries::new();
    for (path, node) in package.entries {
        let path = merged(path)?;
        match entries.get(&path) {
            Some(present) if !(present.is_directory() && node.is_directory()) => {
                return Err(Error::new(format!(
                    "package {}: {} is there twice, also below /usr",
                    package.name,
                    path.display()
                )));
            }
            Some(_) => {}
            None => {
                entries.insert(path, node);
            }
        }
    }
    Ok(entries)
}

/// The bytes of a regular file, hard links followed.
fn content<'a>(
    package: &Package<'_>,
    entries: &Entries<'a>,
    path: &TreePath,
) -> Result<&'a Content> {
    let missing = || {
        Error::new(format!("package {}: {} is not a regular file", package.name, path.display()))
    };
    match &entries.get(path).ok_or_else(missing)?.kind {
        Kind::File(content) => Ok(content),
        Kind::HardLink(target) => match &entries.get(&merged(target)?).ok_or_else(missing)?.kind {
            Kind::File(content) => Ok(content),
            _ => Err(missing()),
        },
        _ => Err(missing()),
    }
}

/// The parts one after another, each ending its last line.
fn join(bundle: &Bundle, parts: &[&Content], origin: &str) -> Result<Node> {
    let mut bytes = Vec::new();
    for part in parts {
        bytes.extend_from_slice(&part.read().context(|| format!("cannot make {}", bundle.into))?);
        if bytes.last().is_some_and(|byte| *byte != b'\n') {
            bytes.push(b'\n');
        }
    }
    Ok(Node::file(Content::bytes(bytes), 0o644, Arc::from(origin)))
}

/// Where a path of a package lies with merged /usr. The four names themselves are left as they
/// are: a package that has them as links agrees with the skeleton or is refused by the tree.
fn merged(path: &TreePath) -> Result<TreePath> {
    let bytes = path.as_bytes();
    for top in ["bin/", "sbin/", "lib/", "lib64/"] {
        if bytes.starts_with(top.as_bytes()) {
            return TreePath::new([b"usr/", bytes].concat());
        }
    }
    Ok(path.clone())
}

#[cfg(test)]
mod tests {
    use expect_test::expect;

    use super::*;

    const SLICES: &str = r#"
        [[package]]
        name = "tool"
        [[package.ship]]
        files = ["/usr/bin/tool", "/usr/bin/twin", "/usr/lib/tool/data"]
        reason = "needed"
        [[package.drop]]
        files = ["/usr/bin/original"]
        reason = "another name of twin"
        [[package.bundle]]
        into = "/etc/all"
        files = ["/usr/share/parts/*"]
        reason = "one file is read"
        [[package.link]]
        path = "/usr/bin/alias"
        target = "tool"
        reason = "alternatives"
    "#;

    const SKELETON: &str = r#"
        [[directory]]
        path = "/tmp"
        mode = "1777"
        reason = "mount point"
        [[link]]
        path = "/bin"
        target = "usr/bin"
        reason = "merged /usr"
        [[user]]
        name = "root"
        id = 0
        group = 0
        home = "/root"
        reason = "owner"
        [[group]]
        name = "root"
        id = 0
        reason = "owner"
    "#;

    fn path(text: &str) -> TreePath {
        TreePath::new(text).unwrap()
    }

    fn file(text: &str) -> Node {
        Node::file(Content::bytes(text.as_bytes().to_vec()), 0o755, "tool")
    }

    fn entries() -> Vec<(TreePath, Node)> {
        let link = Node::new(Kind::HardLink(path("usr/bin/original")), 0o755, "tool");
        let mut private = Node::directory("tool");
        private.mode = 0o700;
        vec![
            (path("bin"), Node::directory("tool")),
            (path("bin/tool"), file("program")),
            (path("usr/bin"), Node::directory("tool")),
            (path("usr/bin/original"), file("original")),
            (path("usr/bin/twin"), link),
            (path("usr/lib/tool"), private),
            (path("usr/lib/tool/data"), file("data")),
            (path("usr/share/empty"), Node::directory("tool")),
            (path("usr/share/parts/b"), file("second")),
            (path("usr/share/parts/a"), file("first\n")),
            (path("usr/libexec/new"), file("new")),
        ]
    }

    fn assembled(entries: &[(TreePath, Node)], made: &[(TreePath, Node)]) -> Result<Root> {
        assemble(&Parts {
            skeleton: &Skeleton::parse(SKELETON).unwrap(),
            overlay: &[],
            slices: &Slices::parse([("sample", SLICES)]).unwrap(),
            packages: &[Package { name: "tool", entries }],
            made,
        })
    }

    #[test]
    fn a_small_root_is_assembled_as_its_slices_say() {
        let root = assembled(&entries(), &[]).unwrap();
        assert_eq!(root.undecided, ["tool: /usr/libexec/new"]);
        let bundle = root.tree.get(&path("etc/all")).unwrap();
        let Kind::File(content) = &bundle.kind else { panic!("not a file") };
        assert_eq!(&content.read().unwrap()[..], b"first\nsecond\n");
        expect![[r#"
            d 0755 0:0 / [root]
            l 0777 0:0 /bin -> usr/bin [skeleton]
            d 0755 0:0 /etc [skeleton]
            f 0644 0:0 /etc/all 13 [tool]
            f 0644 0:0 /etc/group 10 [skeleton]
            f 0644 0:0 /etc/passwd 31 [skeleton]
            d 1777 0:0 /tmp [skeleton]
            d 0755 0:0 /usr [tool]
            d 0755 0:0 /usr/bin [tool]
            l 0777 0:0 /usr/bin/alias -> tool [tool]
            f 0755 0:0 /usr/bin/tool 7 [tool]
            f 0755 0:0 /usr/bin/twin 8 [tool]
            d 0755 0:0 /usr/lib [tool]
            d 0700 0:0 /usr/lib/tool [tool]
            f 0755 0:0 /usr/lib/tool/data 4 [tool]
        "#]]
        .assert_eq(&root.tree.dump());
    }

    #[test]
    fn two_origins_of_one_path_are_refused() {
        let error = assembled(&entries(), &[(path("bin/tool"), file("mine"))]).unwrap_err();
        assert_eq!(error.to_string(), "/usr/bin/tool comes from both tool and tool");
    }

    #[test]
    fn a_file_on_both_sides_of_merged_usr_is_refused() {
        let mut entries = entries();
        entries.push((path("usr/bin/tool"), file("other")));
        let error = assembled(&entries, &[]).unwrap_err();
        let expected = "package tool: /usr/bin/tool is there twice, also below /usr";
        assert_eq!(error.to_string(), expected);
    }
}
