//! The root before any package: directories, links and accounts, declared in
//! `rootfs/skeleton.toml` and `rootfs/overlay/`, in place of what package scripts would do.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use serde::Deserialize;

use crate::board::toml_message;
use crate::engine::mode;
use crate::error::{Context, Error, Result};
use crate::tree::{Content, Kind, Node, TreePath};

/// Who brings these files, for messages and the size report.
pub const ORIGIN: &str = "skeleton";

/// The declared part of the root. Holding one proves: every item has a reason, names and numbers
/// of accounts are unique, every account's group exists.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Skeleton {
    #[serde(default)]
    directory: Vec<Directory>,
    #[serde(default)]
    link: Vec<Link>,
    user: Vec<User>,
    group: Vec<Group>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Directory {
    path: String,
    mode: String,
    reason: String,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Link {
    path: String,
    target: String,
    reason: String,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct User {
    name: String,
    id: u32,
    group: u32,
    home: String,
    /// Nobody logs in without one.
    #[serde(default = "no_shell")]
    shell: String,
    reason: String,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Group {
    name: String,
    id: u32,
    reason: String,
}

fn no_shell() -> String {
    "/nonexistent".to_owned()
}

impl Skeleton {
    /// Checks the text of `rootfs/skeleton.toml`.
    pub fn parse(text: &str) -> Result<Skeleton> {
        let shown = || "rootfs/skeleton.toml".to_owned();
        let skeleton: Skeleton =
            toml::from_str(text).map_err(|e| Error::new(toml_message(&e))).context(shown)?;
        skeleton.check().context(shown)?;
        Ok(skeleton)
    }

    fn check(&self) -> Result<()> {
        let directories = self.directory.iter().map(|item| (&item.path, &item.reason));
        let links = self.link.iter().map(|item| (&item.path, &item.reason));
        let users = self.user.iter().map(|item| (&item.name, &item.reason));
        let groups = self.group.iter().map(|item| (&item.name, &item.reason));
        for (name, reason) in directories.chain(links).chain(users).chain(groups) {
            if reason.trim().is_empty() {
                return Err(Error::new(format!("{name} has no reason")));
            }
        }
        let groups: BTreeSet<u32> = self.group.iter().map(|group| group.id).collect();
        unique("user", self.user.iter().map(|user| (user.name.as_str(), user.id)))?;
        unique("group", self.group.iter().map(|group| (group.name.as_str(), group.id)))?;
        for user in &self.user {
            if !groups.contains(&user.group) {
                let User { name, group, .. } = user;
                return Err(Error::new(format!("user {name}: there is no group {group}")));
            }
        }
        Ok(())
    }

    /// The nodes, accounts as `/etc/passwd` and `/etc/group`; links come first, so that nothing
    /// later turns `/bin` into a directory.
    pub fn nodes(&self) -> Result<Vec<(TreePath, Node)>> {
        let mut nodes = Vec::new();
        for link in &self.link {
            nodes.push((TreePath::new(&link.path)?, Node::symlink(link.target.as_str(), ORIGIN)));
        }
        for directory in &self.directory {
            let bits = mode(&directory.mode)?;
            let bits = u16::try_from(bits).context(|| directory.path.clone())?;
            nodes.push((TreePath::new(&directory.path)?, Node::new(Kind::Directory, bits, ORIGIN)));
        }
        let file = |text: String| Node::file(Content::bytes(text.into_bytes()), 0o644, ORIGIN);
        nodes.push((TreePath::new("etc/passwd")?, file(self.passwd())));
        nodes.push((TreePath::new("etc/group")?, file(self.groups())));
        Ok(nodes)
    }

    /// `*` where the password would be: no login, and no shadow file to look into. See passwd(5).
    fn passwd(&self) -> String {
        self.user.iter().fold(String::new(), |mut text, user| {
            let User { name, id, group, home, shell, .. } = user;
            let _ = writeln!(text, "{name}:*:{id}:{group}::{home}:{shell}");
            text
        })
    }

    /// See group(5).
    fn groups(&self) -> String {
        self.group.iter().fold(String::new(), |mut text, group| {
            let _ = writeln!(text, "{}:*:{}:", group.name, group.id);
            text
        })
    }
}

/// The file that says what system this is; see os-release(5).
pub fn os_release(version: &str, board: &str) -> Result<(TreePath, Node)> {
    for value in [version, board] {
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"._+-~".contains(&byte);
        if value.is_empty() || !value.bytes().all(plain) {
            return Err(Error::new(format!("`{value}` cannot be written into os-release")));
        }
    }
    let text = format!(
        "NAME=Iota\nID=iota\nPRETTY_NAME=\"Iota {version} ({board})\"\nVERSION_ID={version}\n\
         VARIANT_ID={board}\nIMAGE_ID=iota-{board}\nIMAGE_VERSION={version}\n"
    );
    let node = Node::file(Content::bytes(text.into_bytes()), 0o644, ORIGIN);
    Ok((TreePath::new("usr/lib/os-release")?, node))
}

fn unique<'a>(kind: &str, items: impl Iterator<Item = (&'a str, u32)>) -> Result<()> {
    let (mut names, mut ids) = (BTreeSet::new(), BTreeSet::new());
    for (name, id) in items {
        let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
        if name.is_empty() || !name.bytes().all(plain) {
            return Err(Error::new(format!("`{name}` is not a name of a {kind}")));
        }
        if !names.insert(name) || !ids.insert(id) {
            return Err(Error::new(format!("{kind} {name}: name or number {id} is taken")));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHIPPED: &str = include_str!("../../rootfs/skeleton.toml");

    #[test]
    fn the_shipped_skeleton_has_root_without_a_password_and_merged_usr() {
        let skeleton = Skeleton::parse(SHIPPED).unwrap();
        assert!(skeleton.passwd().starts_with("root:*:0:0::/root:/usr/lib/iota/shell\n"));
        let others = skeleton.passwd().lines().skip(1).all(|line| line.ends_with(":/nonexistent"));
        assert!(others, "{}", skeleton.passwd());
        let nodes = skeleton.nodes().unwrap();
        let lib = nodes.iter().find(|(path, _)| path.as_bytes() == b"lib").unwrap();
        assert!(matches!(&lib.1.kind, Kind::Symlink(target) if target == b"usr/lib"));
    }

    #[test]
    fn os_release_holds_version_and_board_and_nothing_that_needs_quoting() {
        let (path, node) = os_release("2026.11.0+dev", "generic-aarch64").unwrap();
        assert_eq!(path.display(), "/usr/lib/os-release");
        let Kind::File(content) = &node.kind else { panic!("not a file") };
        let text = String::from_utf8(content.read().unwrap().to_vec()).unwrap();
        assert!(text.contains("\nVERSION_ID=2026.11.0+dev\n"));
        assert!(os_release("1\nID=debian", "generic-aarch64").is_err());
    }

    #[test]
    fn one_wrong_value_gives_one_exact_error() {
        let cases = [
            ("id = 101", "id = 0", "group docker: name or number 0 is taken"),
            ("group = 65534", "group = 7", "user dhcpcd: there is no group 7"),
            ("name = \"docker\"", "name = \"doc:ker\"", "`doc:ker` is not a name of a group"),
            ("reason = \"mount point of proc\"", "reason = \"\"", "/proc has no reason"),
        ];
        for (old, new, expected) in cases {
            assert!(SHIPPED.contains(old), "the sample has no `{old}`");
            let error = Skeleton::parse(&SHIPPED.replacen(old, new, 1)).unwrap_err().chain();
            assert!(error.ends_with(expected), "{error}");
        }
    }
}
