//! The "newc" cpio archive: what the kernel unpacks as its initial root file system.
//!
//! Follows the kernel's `Documentation/driver-api/early-userspace/buffer-format.rst`.
//! Guarantees: the same tree gives the same bytes (inode numbers count up in tree order, all times
//! are the one given), a directory comes before what it holds, and what the format cannot carry
//! (extended attributes, files of 4 GiB) is refused by name instead of dropped.
//!
//! ```text
//! header: "070701" + 13 fields of 8 hexadecimal digits · name NUL · pad to 4 · data · pad to 4
//! … one such record a name …
//! a record named TRAILER!!! · zeros up to a multiple of 512
//! ```

use std::collections::BTreeMap;
use std::io::Write;

use crate::error::{Context, Error, Result};
use crate::tree::{Content, Kind, Node, Tree, TreePath};

const MAGIC: &str = "070701";
const TRAILER: &[u8] = b"TRAILER!!!";
/// Archives end on a multiple of this, as other cpio writers do it.
const ARCHIVE_ALIGNMENT: u64 = 512;

const TYPE_FIFO: u32 = 0o010000;
const TYPE_CHAR_DEVICE: u32 = 0o020000;
const TYPE_DIRECTORY: u32 = 0o040000;
const TYPE_BLOCK_DEVICE: u32 = 0o060000;
const TYPE_FILE: u32 = 0o100000;
const TYPE_SYMLINK: u32 = 0o120000;

/// Writes the tree as one archive; every time stamp is `time` (seconds since 1970).
///
/// The root directory itself is left out: the kernel has one before it unpacks anything.
pub fn write(tree: &Tree, time: u32, output: impl Write) -> Result<()> {
    let links = hard_links(tree);
    let mut archive = Archive { output, position: 0, time };
    let mut inodes: BTreeMap<&TreePath, u32> = BTreeMap::new();
    for (path, node) in tree.iter().filter(|(path, _)| !path.is_root()) {
        let file = inode_path(path, node);
        let next = u32::try_from(inodes.len() + 1).unwrap_or(u32::MAX);
        let inode = *inodes.entry(file).or_insert(next);
        archive.write_node(tree, path, inode, links.get(file))?;
    }
    archive.write_record(&Header { link_count: 1, ..Header::default() }, TRAILER, &[])?;
    archive.pad(ARCHIVE_ALIGNMENT)
}

/// The names of a file that has several.
struct Links<'a> {
    count: u32,
    last: &'a TreePath,
}

fn hard_links(tree: &Tree) -> BTreeMap<&TreePath, Links<'_>> {
    let mut links: BTreeMap<&TreePath, Links<'_>> = BTreeMap::new();
    for (path, node) in tree.iter() {
        if matches!(node.kind, Kind::File(_) | Kind::HardLink(_)) {
            let names =
                links.entry(inode_path(path, node)).or_insert(Links { count: 0, last: path });
            names.count += 1;
            names.last = path;
        }
    }
    links
}

/// The path under which the tree keeps a name's inode.
fn inode_path<'a>(path: &'a TreePath, node: &'a Node) -> &'a TreePath {
    match &node.kind {
        Kind::HardLink(target) => target,
        _ => path,
    }
}

#[derive(Default)]
struct Header {
    inode: u32,
    mode: u32,
    uid: u32,
    gid: u32,
    link_count: u32,
    time: u32,
    device: (u32, u32),
}

struct Archive<W> {
    output: W,
    position: u64,
    time: u32,
}

impl<W: Write> Archive<W> {
    fn write_node(
        &mut self,
        tree: &Tree,
        path: &TreePath,
        inode: u32,
        links: Option<&Links<'_>>,
    ) -> Result<()> {
        let Some(node) = tree.get(path).and_then(|node| tree.get(inode_path(path, node))) else {
            return Err(cannot_hold(path, "its hard link leads nowhere"));
        };
        if let Some((name, _)) = node.xattrs.first_key_value() {
            let why = format!("cpio has no extended attributes ({})", name.escape_ascii());
            return Err(cannot_hold(path, &why));
        }
        let (file_type, device, data) = parts(node, path, links)?;
        let header = Header {
            inode,
            mode: file_type | u32::from(node.mode),
            uid: node.uid,
            gid: node.gid,
            link_count: match node.kind {
                Kind::Directory => 2,
                _ => links.map_or(1, |links| links.count),
            },
            time: self.time,
            device,
        };
        let bytes = data.read()?;
        self.write_record(&header, path.as_bytes(), &bytes)
    }

    fn write_record(&mut self, header: &Header, name: &[u8], data: &[u8]) -> Result<()> {
        let size = u32::try_from(data.len()).context(|| {
            format!("/{} is too large for a cpio archive (4 GiB)", name.escape_ascii())
        })?;
        let name_size = u32::try_from(name.len() + 1).context(|| "a name is too long".into())?;
        // The archive's own device number is 0:0 and the checksum is not used by this variant.
        let fields = [
            header.inode,
            header.mode,
            header.uid,
            header.gid,
            header.link_count,
            header.time,
            size,
            0,
            0,
            header.device.0,
            header.device.1,
            name_size,
            0,
        ];
        let mut record = String::from(MAGIC);
        for field in fields {
            record.push_str(&format!("{field:08X}"));
        }
        self.put(record.as_bytes())?;
        self.put(name)?;
        self.put(&[0])?;
        self.pad(4)?;
        self.put(data)?;
        self.pad(4)
    }

    fn put(&mut self, bytes: &[u8]) -> Result<()> {
        self.position += bytes.len() as u64;
        self.output.write_all(bytes).context(|| "cannot write the cpio archive".into())
    }

    fn pad(&mut self, alignment: u64) -> Result<()> {
        let missing = self.position.next_multiple_of(alignment) - self.position;
        for _ in 0..missing {
            self.put(&[0])?;
        }
        Ok(())
    }
}

/// File type bits, device number and data of an inode as seen under one of its names.
fn parts(
    node: &Node,
    path: &TreePath,
    links: Option<&Links<'_>>,
) -> Result<(u32, (u32, u32), Content)> {
    let none = || Content::bytes([]);
    Ok(match &node.kind {
        Kind::Directory => (TYPE_DIRECTORY, (0, 0), none()),
        // Data stands with the last name: the custom of other writers, so every reader knows it.
        Kind::File(content) if links.is_none_or(|links| links.last == path) => {
            (TYPE_FILE, (0, 0), content.clone())
        }
        Kind::File(_) => (TYPE_FILE, (0, 0), none()),
        Kind::Symlink(target) => (TYPE_SYMLINK, (0, 0), Content::bytes(target.as_slice())),
        Kind::CharDevice { major, minor } => (TYPE_CHAR_DEVICE, (*major, *minor), none()),
        Kind::BlockDevice { major, minor } => (TYPE_BLOCK_DEVICE, (*major, *minor), none()),
        Kind::Fifo => (TYPE_FIFO, (0, 0), none()),
        Kind::HardLink(_) => return Err(cannot_hold(path, "it is a hard link to a hard link")),
    })
}

fn cannot_hold(path: &TreePath, why: &str) -> Error {
    Error::new(format!("{} cannot go into a cpio archive: {why}", path.display()))
}

#[cfg(test)]
mod tests {
    use std::fmt::Write as _;
    use std::fs;

    use expect_test::expect;
    use sha2::{Digest, Sha256};

    use super::*;
    use crate::hex;
    use crate::image::foreign;

    fn path(text: &str) -> TreePath {
        TreePath::new(text).unwrap()
    }

    fn sample() -> Tree {
        let mut tree = Tree::new();
        let mut add = |name: &str, node: Node| tree.insert(path(name), node).unwrap();
        add("init", Node::file(Content::bytes(*b"#!/bin/true\n"), 0o755, "t"));
        add("lib/modules/order", Node::file(Content::bytes(*b"a.ko\n"), 0o644, "t"));
        add("lib/empty", Node::file(Content::bytes([]), 0o600, "t"));
        add("dev/console", Node::new(Kind::CharDevice { major: 5, minor: 1 }, 0o600, "t"));
        add("dev/vda", Node::new(Kind::BlockDevice { major: 254, minor: 300 }, 0o660, "t"));
        add("dev/pipe", Node::new(Kind::Fifo, 0o644, "t"));
        add("bin", Node::symlink("usr/bin", "t"));
        add(
            "usr/bin/su",
            Node { uid: 1, gid: 42, ..Node::file(Content::bytes(*b"x"), 0o4755, "t") },
        );
        add("usr/bin/doas", Node::new(Kind::HardLink(path("usr/bin/su")), 0o4755, "t"));
        add("usr/bin/sudo", Node::new(Kind::HardLink(path("usr/bin/su")), 0o4755, "t"));
        tree
    }

    fn archive(tree: &Tree) -> Vec<u8> {
        let mut bytes = Vec::new();
        write(tree, 1_700_000_000, &mut bytes).unwrap();
        bytes
    }

    /// One line a record, read as the format's description says, all checks on.
    fn dump(mut rest: &[u8]) -> String {
        let mut text = String::new();
        loop {
            let field = |number: usize| {
                let digits = std::str::from_utf8(&rest[6 + 8 * number..][..8]).unwrap();
                u32::from_str_radix(digits, 16).unwrap() as usize
            };
            assert_eq!(&rest[..6], b"070701");
            assert!(field(7) == 0 && field(8) == 0 && field(12) == 0);
            let (size, name_size) = (field(6), field(11));
            let name = &rest[110..110 + name_size - 1];
            assert_eq!(rest[110 + name_size - 1], 0);
            let data = (110 + name_size).next_multiple_of(4);
            if name == TRAILER {
                assert!(rest[data..].len() < 512 && rest[data..].iter().all(|byte| *byte == 0));
                return text;
            }
            writeln!(
                text,
                "{} {:06o} {}:{} links={} time={} {}:{} {} {:?}",
                field(0),
                field(1),
                field(2),
                field(3),
                field(4),
                field(5),
                field(9),
                field(10),
                name.escape_ascii(),
                String::from_utf8_lossy(&rest[data..data + size]),
            )
            .unwrap();
            rest = &rest[(data + size).next_multiple_of(4)..];
        }
    }

    #[test]
    fn every_kind_of_node_has_its_record() {
        expect![[r##"
            1 120777 0:0 links=1 time=1700000000 0:0 bin "usr/bin"
            2 040755 0:0 links=2 time=1700000000 0:0 dev ""
            3 020600 0:0 links=1 time=1700000000 5:1 dev/console ""
            4 010644 0:0 links=1 time=1700000000 0:0 dev/pipe ""
            5 060660 0:0 links=1 time=1700000000 254:300 dev/vda ""
            6 100755 0:0 links=1 time=1700000000 0:0 init "#!/bin/true\n"
            7 040755 0:0 links=2 time=1700000000 0:0 lib ""
            8 100600 0:0 links=1 time=1700000000 0:0 lib/empty ""
            9 040755 0:0 links=2 time=1700000000 0:0 lib/modules ""
            10 100644 0:0 links=1 time=1700000000 0:0 lib/modules/order "a.ko\n"
            11 040755 0:0 links=2 time=1700000000 0:0 usr ""
            12 040755 0:0 links=2 time=1700000000 0:0 usr/bin ""
            13 104755 1:42 links=3 time=1700000000 0:0 usr/bin/doas ""
            13 104755 1:42 links=3 time=1700000000 0:0 usr/bin/su ""
            13 104755 1:42 links=3 time=1700000000 0:0 usr/bin/sudo "x"
        "##]]
        .assert_eq(&dump(&archive(&sample())));
    }

    #[test]
    fn the_bytes_do_not_change_between_builds_of_this_program() {
        let digest = hex::encode(Sha256::digest(archive(&sample())));
        expect!["4787fdd75743ebd4501d545acb2d43d10973eb6a3b40e236c6312f931cc1a22a"]
            .assert_eq(&digest);
    }

    #[test]
    fn gnu_cpio_lists_and_unpacks_the_same_tree() {
        let Some(cpio) = foreign::tool("cpio") else { return };
        let bytes = archive(&sample());
        let list = cpio.feed(&["--list", "--quiet"], &bytes);
        let wanted: Vec<String> = sample()
            .iter()
            .filter(|(path, _)| !path.is_root())
            .map(|(path, _)| String::from_utf8(path.as_bytes().to_vec()).unwrap())
            .collect();
        assert_eq!(list.lines().collect::<Vec<_>>(), wanted);

        let directory = tempfile::tempdir().unwrap();
        let target = directory.path().to_str().unwrap();
        // No device nodes: making them needs root.
        let only = ["init", "lib/*", "bin", "usr/*", "lib", "usr"];
        let mut arguments = vec!["--extract", "-d", "--quiet", "--no-preserve-owner", "-D", target];
        arguments.extend(only);
        cpio.feed(&arguments, &bytes);
        assert_eq!(fs::read(directory.path().join("usr/bin/doas")).unwrap(), b"x");
        assert_eq!(fs::read(directory.path().join("usr/bin/sudo")).unwrap(), b"x");
        assert_eq!(fs::read(directory.path().join("init")).unwrap(), b"#!/bin/true\n");
    }

    #[test]
    fn extended_attributes_are_refused_by_name() {
        let mut tree = Tree::new();
        let mut node = Node::file(Content::bytes(*b"x"), 0o755, "t");
        node.xattrs.insert(b"security.capability".to_vec(), vec![1]);
        tree.insert(path("bin/ping"), node).unwrap();
        let error = write(&tree, 0, Vec::new()).unwrap_err().to_string();
        assert_eq!(
            error,
            "/bin/ping cannot go into a cpio archive: \
             cpio has no extended attributes (security.capability)"
        );
    }
}
