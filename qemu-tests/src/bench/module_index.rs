//! The binary module indices that libkmod wants, from the text ones that our root has: what
//! depmod(8) would make on the machine.
//!
//! A trie by the bytes of keys; all numbers are big endian:
//!
//! ```text
//! file   magic, version, reference of the root node, nodes
//! node   [prefix, NUL] [first byte, last byte, reference of each child between] [count of values,
//!        priority and text and NUL of each]
//! ```
//! A reference is an offset in the file, with the parts that the node has in its upper bits.
//! Source: libkmod/libkmod-index.h of kmod.

use std::collections::BTreeMap;

const MAGIC: u32 = 0xB007_F457;
const VERSION: u32 = 0x0002_0001;
const PREFIX: u32 = 0x8000_0000;
const VALUES: u32 = 0x4000_0000;
const CHILDREN: u32 = 0x2000_0000;

/// Keys and what each stands for; of several values the first counts most.
pub(super) type Entries = BTreeMap<Vec<u8>, Vec<String>>;

/// An index of all entries.
pub(super) fn encode(entries: &Entries) -> Vec<u8> {
    let mut file: Vec<u8> =
        [MAGIC, VERSION, 0].iter().flat_map(|word| word.to_be_bytes()).collect();
    let all: Vec<(&[u8], &[String])> =
        entries.iter().map(|(key, values)| (key.as_slice(), values.as_slice())).collect();
    let root = node(&all, 0, &mut file);
    file[8..12].copy_from_slice(&root.to_be_bytes());
    file
}

/// Writes the node of entries that agree in their first `depth` bytes, its children before it.
fn node(entries: &[(&[u8], &[String])], depth: usize, file: &mut Vec<u8>) -> u32 {
    let common = common_length(entries, depth);
    let (own, longer) = match entries.split_first() {
        Some(((key, values), rest)) if key.len() == common => (*values, rest),
        _ => (&[][..], entries),
    };
    let groups: Vec<_> = longer.chunk_by(|one, next| one.0[common] == next.0[common]).collect();
    let children: Vec<(u8, u32)> = groups
        .into_iter()
        .map(|group| (group[0].0[common], node(group, common + 1, file)))
        .collect();
    let mut reference = u32::try_from(file.len()).unwrap_or(0);
    if common > depth {
        reference |= PREFIX;
        file.extend_from_slice(&entries[0].0[depth..common]);
        file.push(0);
    }
    if let (Some((first, _)), Some((last, _))) = (children.first(), children.last()) {
        reference |= CHILDREN;
        file.extend([*first, *last]);
        for byte in *first..=*last {
            let child = children.iter().find(|(key, _)| *key == byte);
            file.extend(child.map_or(0, |(_, child)| *child).to_be_bytes());
        }
    }
    if !own.is_empty() {
        reference |= VALUES;
        file.extend(u32::try_from(own.len()).unwrap_or(0).to_be_bytes());
        for (priority, value) in (0_u32..).zip(own) {
            file.extend(priority.to_be_bytes());
            file.extend_from_slice(value.as_bytes());
            file.push(0);
        }
    }
    reference
}

/// How many bytes all keys have in common. They are sorted: the first and the last decide.
fn common_length(entries: &[(&[u8], &[String])], depth: usize) -> usize {
    match (entries.first(), entries.last()) {
        (Some((first, _)), Some((last, _))) => {
            depth + first[depth..].iter().zip(&last[depth..]).take_while(|(a, b)| a == b).count()
        }
        _ => depth,
    }
}

/// `modules.dep`: by name of the module, the whole line.
pub(super) fn dependencies(text: &str) -> Entries {
    let mut entries = Entries::new();
    for line in text.lines() {
        let path = line.split(':').next().unwrap_or_default();
        entries.entry(module_name(path)).or_default().push(line.to_owned());
    }
    entries
}

/// `modules.alias`: by pattern, the modules.
pub(super) fn aliases(text: &str) -> Entries {
    let mut entries = Entries::new();
    for line in text.lines() {
        let mut words = line.split(' ').skip(1);
        if let (Some(pattern), Some(module)) = (words.next(), words.next()) {
            entries.entry(normal(pattern)).or_default().push(module.to_owned());
        }
    }
    entries
}

/// `modules.builtin`: by name of the module, nothing.
pub(super) fn builtin(text: &str) -> Entries {
    text.lines().map(|path| (module_name(path), vec![String::new()])).collect()
}

fn module_name(path: &str) -> Vec<u8> {
    let file = path.rsplit('/').next().unwrap_or_default();
    normal(file.split(".ko").next().unwrap_or_default())
}

/// With underscores for dashes, but within brackets, where a dash is a range.
fn normal(text: &str) -> Vec<u8> {
    let mut bracket = false;
    text.bytes()
        .map(|byte| {
            bracket = (bracket || byte == b'[') && byte != b']';
            if byte == b'-' && !bracket { b'_' } else { byte }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_trie_shares_what_keys_have_in_common() {
        let file = encode(&builtin("kernel/a/ab-c.ko\nkernel/a/abd.ko.xz\n"));
        let expected: &[&[u8]] = &[
            &[0xB0, 0x07, 0xF4, 0x57, 0, 2, 0, 1],
            &(PREFIX | CHILDREN | 32).to_be_bytes(),
            // ab_c behind `ab_`: prefix, one empty value.
            b"c\0",
            &[0, 0, 0, 1, 0, 0, 0, 0, 0],
        ];
        assert_eq!(file[..23], expected.concat());
    }

    #[test]
    fn lines_become_entries_as_depmod_makes_them() {
        let entries = dependencies("kernel/fs/nf-x.ko: kernel/lib/a.ko\n");
        assert_eq!(entries[&b"nf_x"[..]], ["kernel/fs/nf-x.ko: kernel/lib/a.ko"]);
        let entries = aliases("alias fs-ext4 ext4\nalias pci:[0-9]-x y\nalias fs-ext4 z\n");
        assert_eq!(entries[&b"fs_ext4"[..]], ["ext4", "z"]);
        assert_eq!(entries[&b"pci:[0-9]_x"[..]], ["y"]);
    }
}
