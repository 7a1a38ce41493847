//! The size report: what takes the space, largest first. Pure text from a finished tree and the
//! lengths of the slot's parts.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use crate::tree::{Kind, Tree};

/// How many files the report lists.
const LARGEST_FILES: usize = 15;

/// Lengths in bytes of everything the report speaks of.
#[derive(Clone, Debug, Default)]
pub struct Sizes {
    /// Size of the slot partition.
    pub slot_bytes: u64,
    /// Parts of the slot by name, in slot order.
    pub parts: Vec<(&'static str, u64)>,
    /// Size of the boot partition.
    pub boot_bytes: u64,
    /// Files of the boot partition besides the loader, by name.
    pub boot_files: Vec<(String, u64)>,
    /// The uncompressed kernel.
    pub kernel_unpacked_bytes: u64,
    /// Mapped bytes of the disk image.
    pub disk_mapped_bytes: u64,
    /// Length of the disk image.
    pub disk_bytes: u64,
    /// The compressed disk image: what a user downloads.
    pub download_bytes: u64,
}

impl Sizes {
    /// Bytes of the slot in use.
    pub fn slot_used_bytes(&self) -> u64 {
        self.parts.iter().map(|(_, bytes)| bytes).sum()
    }

    /// How full the slot is, rounded up to whole per cent.
    pub fn slot_percent(&self) -> u64 {
        (self.slot_used_bytes() * 100).div_ceil(self.slot_bytes.max(1))
    }

    /// One line for the end of a build: `slot 41 % full (210.3 of 512.0 MiB)`.
    pub fn slot_line(&self) -> String {
        format!(
            "slot {} % full ({} of {})",
            self.slot_percent(),
            mib(self.slot_used_bytes()),
            mib(self.slot_bytes)
        )
    }
}

/// `1234567` → `1.2 MiB`.
pub fn mib(bytes: u64) -> String {
    let tenths = (bytes * 10 + 512 * 1024) / (1024 * 1024);
    format!("{}.{} MiB", tenths / 10, tenths % 10)
}

/// File bytes of a tree by origin, largest first; hard links count once.
pub fn by_origin(tree: &Tree) -> Vec<(String, u64)> {
    let mut sums: BTreeMap<&str, u64> = BTreeMap::new();
    for (_, node) in tree.iter() {
        if let Kind::File(content) = &node.kind {
            *sums.entry(&node.origin).or_default() += content.length();
        }
    }
    let mut sorted: Vec<(String, u64)> =
        sums.into_iter().map(|(origin, bytes)| (origin.to_owned(), bytes)).collect();
    sorted.sort_by_key(|(_, bytes)| std::cmp::Reverse(*bytes));
    sorted
}

/// The whole report as text.
pub fn render(title: &str, sizes: &Sizes, root: &Tree) -> String {
    let mut text = format!("{title}\n\n{}\n", sizes.slot_line());
    for (name, bytes) in &sizes.parts {
        let _ = writeln!(text, "{:>12}  {name}", mib(*bytes));
    }
    let _ =
        writeln!(text, "{:>12}  kernel, unpacked by the loader", mib(sizes.kernel_unpacked_bytes));
    let _ = write!(text, "\ndisk image {}", mib(sizes.disk_bytes));
    let _ = writeln!(
        text,
        ", of which {} are written; download {}",
        mib(sizes.disk_mapped_bytes),
        mib(sizes.download_bytes)
    );

    boot_partition(&mut text, sizes);

    let origins = by_origin(root);
    let total: u64 = origins.iter().map(|(_, bytes)| bytes).sum();
    let _ = writeln!(text, "\nroot content by origin, {} in all", mib(total));
    for (origin, bytes) in &origins {
        let percent = bytes * 100 / total.max(1);
        let _ = writeln!(text, "{:>12}  {percent:>3} %  {origin}", mib(*bytes));
    }

    let mut files: Vec<_> = root
        .iter()
        .filter_map(|(path, node)| match &node.kind {
            Kind::File(content) => Some((content.length(), path.display(), &node.origin)),
            _ => None,
        })
        .collect();
    files.sort_by(|left, right| right.0.cmp(&left.0).then_with(|| left.1.cmp(&right.1)));
    let _ = writeln!(text, "\nlargest files");
    for (bytes, path, origin) in files.iter().take(LARGEST_FILES) {
        let _ = writeln!(text, "{:>12}  {path} ({origin})", mib(*bytes));
    }
    text
}

/// What a board's firmware takes; nothing where the machine has its own.
fn boot_partition(text: &mut String, sizes: &Sizes) {
    let mut files: Vec<_> = sizes.boot_files.iter().collect();
    if files.is_empty() {
        return;
    }
    files.sort_by_key(|(_, bytes)| std::cmp::Reverse(*bytes));
    let total: u64 = files.iter().map(|(_, bytes)| bytes).sum();
    let (total, all) = (mib(total), mib(sizes.boot_bytes));
    let _ = writeln!(text, "\nboot partition, {total} of {all}, and the loader");
    for (name, bytes) in files {
        let _ = writeln!(text, "{:>12}  {name}", mib(*bytes));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tree::{Content, Node, TreePath};

    #[test]
    fn the_report_lists_the_largest_first_and_counts_the_slot() {
        let mut tree = Tree::new();
        for (path, length, origin) in [("a", 1 << 20, "small"), ("b", 3 << 20, "large")] {
            let content = Content::bytes(vec![0; length]);
            tree.insert(TreePath::new(path).unwrap(), Node::file(content, 0o644, origin)).unwrap();
        }
        let sizes = Sizes {
            slot_bytes: 16 << 20,
            parts: vec![("root", 5 << 20), ("kernel", 1)],
            boot_bytes: 64 << 20,
            boot_files: vec![("config.txt".to_owned(), 9), ("start.elf".to_owned(), 3 << 20)],
            kernel_unpacked_bytes: 2 << 20,
            disk_mapped_bytes: 6 << 20,
            disk_bytes: 40 << 20,
            download_bytes: 3 << 20,
        };
        expect_test::expect![[r#"
            test 1

            slot 32 % full (5.0 MiB of 16.0 MiB)
                 5.0 MiB  root
                 0.0 MiB  kernel
                 2.0 MiB  kernel, unpacked by the loader

            disk image 40.0 MiB, of which 6.0 MiB are written; download 3.0 MiB

            boot partition, 3.0 MiB of 64.0 MiB, and the loader
                 3.0 MiB  start.elf
                 0.0 MiB  config.txt

            root content by origin, 4.0 MiB in all
                 3.0 MiB   75 %  large
                 1.0 MiB   25 %  small

            largest files
                 3.0 MiB  /b (large)
                 1.0 MiB  /a (small)
        "#]]
        .assert_eq(&render("test 1", &sizes, &tree));
    }
}
