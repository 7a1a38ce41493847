//! Names of a FAT volume: the directories to be written, long names and their short aliases.
//!
//! Each name has a short one of 8 + 3 bytes, which is all that the ROM of a Raspberry Pi reads, and
//! long entries before it unless the two are the same. Guarantees: short names are unique in their
//! directory and depend only on the names before them; two names that differ in case alone are
//! refused, because no program could tell them apart.

use crate::error::{Error, Result};
use crate::tree::Content;

/// UTF-16 units in a long entry.
const LONG_UNITS: usize = 13;
const LONGEST_NAME: usize = 255;
/// The attribute by which long entries are told from short ones.
const ATTRIBUTE_LONG: u8 = 0x0F;
const LAST_LONG: u8 = 0x40;
const SPECIAL: &[u8] = b"$%'-_@~`!(){}^#&";

/// A directory in the order its names were added.
#[derive(Default)]
pub(super) struct Directory<'a> {
    items: Vec<Item<'a>>,
}

/// A name and what it stands for.
pub(super) struct Item<'a> {
    name: String,
    /// Base and extension, each filled up with spaces.
    pub(super) short: [u8; 11],
    /// Contents.
    pub(super) what: What<'a>,
}

/// What a name stands for.
pub(super) enum What<'a> {
    /// A directory.
    Directory(Directory<'a>),
    /// A file, with its whole path for messages.
    File {
        /// Its bytes.
        content: &'a Content,
        /// Its path in the volume.
        path: &'a str,
    },
}

impl<'a> Directory<'a> {
    /// Adds a file and the directories of its path.
    pub(super) fn add(&mut self, path: &'a str, content: &'a Content) -> Result<()> {
        let mut parts: Vec<&str> = path.split('/').filter(|part| !part.is_empty()).collect();
        let name = parts.pop().ok_or_else(|| bad(path, "it is empty"))?;
        let mut directory = self;
        for part in parts {
            directory = directory.inner(part, path)?;
        }
        if directory.position(name).is_some() {
            return Err(bad(path, "it is given twice (FAT does not tell capitals from small)"));
        }
        directory.push(name, path, What::File { content, path })?;
        Ok(())
    }

    fn inner(&mut self, name: &str, path: &str) -> Result<&mut Directory<'a>> {
        let position = match self.position(name) {
            Some(position) => position,
            None => self.push(name, path, What::Directory(Directory::default()))?,
        };
        match &mut self.items[position].what {
            What::Directory(inner) => Ok(inner),
            What::File { .. } => Err(bad(path, &format!("`{name}` is a file already"))),
        }
    }

    fn position(&self, name: &str) -> Option<usize> {
        let folded = name.to_uppercase();
        self.items.iter().position(|item| item.name.to_uppercase() == folded)
    }

    fn push(&mut self, name: &str, path: &str, what: What<'a>) -> Result<usize> {
        check(name, path)?;
        let short = self.short_for(name).ok_or_else(|| bad(path, "too many names are like it"))?;
        self.items.push(Item { name: name.to_owned(), short, what });
        Ok(self.items.len() - 1)
    }

    /// The name itself in capitals if it fits, or its start with `~1`, `~2`…
    fn short_for(&self, name: &str) -> Option<[u8; 11]> {
        let free = |short: &[u8; 11]| self.items.iter().all(|item| item.short != *short);
        let (base, extension) = split(name);
        if let Some(short) = exact(base, extension).filter(free) {
            return Some(short);
        }
        let (base, extension) = (squeezed(base), squeezed(extension));
        (1..100_000).find_map(|number| {
            let tail = format!("~{number}");
            let kept = base.len().min(8 - tail.len());
            let short = joined(&[&base[..kept], tail.as_bytes()].concat(), &extension);
            Some(short).filter(free)
        })
    }

    /// The names in the order they were added.
    pub(super) fn items(&self) -> &[Item<'a>] {
        &self.items
    }

    /// Bytes that the entries of all names take.
    pub(super) fn entries_length(&self) -> usize {
        self.items.iter().map(|item| item.long_entries().len() + super::ENTRY).sum()
    }
}

impl Item<'_> {
    /// The long entries that stand before the short one; none if the short name says it all.
    pub(super) fn long_entries(&self) -> Vec<u8> {
        let (base, extension) = split(&self.name);
        if joined(base.as_bytes(), extension.as_bytes()) == self.short && fits(base, extension) {
            return Vec::new();
        }
        let mut units: Vec<u16> = self.name.encode_utf16().collect();
        let count = units.len().div_ceil(LONG_UNITS);
        if units.len() < count * LONG_UNITS {
            // One zero ends the name, the rest is filled up.
            units.push(0);
        }
        units.resize(count * LONG_UNITS, 0xFFFF);
        let checksum = checksum(&self.short);
        let pieces = units.chunks(LONG_UNITS).enumerate().rev();
        pieces.flat_map(|(index, piece)| long_entry(index, count, piece, checksum)).collect()
    }
}

fn long_entry(index: usize, count: usize, units: &[u16], checksum: u8) -> [u8; super::ENTRY] {
    // A name has at most 20 pieces.
    let number = (index + 1) as u8;
    let mut entry = [0; super::ENTRY];
    entry[0] = if index + 1 == count { number | LAST_LONG } else { number };
    entry[11] = ATTRIBUTE_LONG;
    entry[13] = checksum;
    let places = (1..11).step_by(2).chain((14..26).step_by(2)).chain((28..32).step_by(2));
    for (place, unit) in places.zip(units) {
        entry[place..place + 2].copy_from_slice(&unit.to_le_bytes());
    }
    entry
}

/// Ties long entries to their short one.
fn checksum(short: &[u8; 11]) -> u8 {
    short.iter().fold(0_u8, |sum, byte| sum.rotate_right(1).wrapping_add(*byte))
}

fn check(name: &str, path: &str) -> Result<()> {
    let forbidden = |character: char| character < ' ' || "\"*:<>?\\|\u{7f}".contains(character);
    if name.chars().any(forbidden) || name.ends_with(['.', ' ']) || name.starts_with(' ') {
        return Err(bad(path, &format!("FAT has no name `{}`", name.escape_debug())));
    }
    if name.encode_utf16().count() > LONGEST_NAME {
        return Err(bad(path, "a name has more than 255 characters"));
    }
    Ok(())
}

/// Before and behind the last dot; a dot at the start begins no extension.
fn split(name: &str) -> (&str, &str) {
    match name.rsplit_once('.') {
        Some((base, extension)) if !base.is_empty() => (base, extension),
        _ => (name, ""),
    }
}

fn is_short(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || SPECIAL.contains(&byte)
}

fn fits(base: &str, extension: &str) -> bool {
    (1..=8).contains(&base.len())
        && extension.len() <= 3
        && base.bytes().chain(extension.bytes()).all(is_short)
}

fn exact(base: &str, extension: &str) -> Option<[u8; 11]> {
    let (upper, extension_upper) = (base.to_ascii_uppercase(), extension.to_ascii_uppercase());
    fits(base, extension).then(|| joined(upper.as_bytes(), extension_upper.as_bytes()))
}

fn squeezed(part: &str) -> Vec<u8> {
    let kept = part.chars().filter(|character| !" .".contains(*character));
    kept.map(|character| match u8::try_from(character) {
        Ok(byte) if is_short(byte) => byte.to_ascii_uppercase(),
        _ => b'_',
    })
    .collect()
}

fn joined(base: &[u8], extension: &[u8]) -> [u8; 11] {
    let mut short = [b' '; 11];
    for (place, byte) in short[..8].iter_mut().zip(base) {
        *place = *byte;
    }
    for (place, byte) in short[8..].iter_mut().zip(extension) {
        *place = *byte;
    }
    short
}

fn bad(path: &str, why: &str) -> Error {
    Error::new(format!("boot partition: cannot write `{path}`: {why}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn short_names_are_the_name_in_capitals_or_its_start_with_a_number() {
        let content = Content::bytes([]);
        let mut directory = Directory::default();
        let cases = [
            ("BOOTAA64.EFI", "BOOTAA64EFI", 0),
            ("bootcode.bin", "BOOTCODEBIN", 1),
            ("iota.toml", "IOTA~1  TOM", 1),
            ("iota.toml.old", "IOTATO~1OLD", 1),
            (".hidden", "HIDDEN~1   ", 1),
            ("bcm2710-rpi-3-b.dtb", "BCM271~1DTB", 2),
            ("bcm2710-rpi-3-b-plus.dtb", "BCM271~2DTB", 2),
            ("übung é.txt", "_BUNG_~1TXT", 1),
            ("EFI", "EFI        ", 0),
            ("thirteen.char", "THIRTE~1CHA", 1),
        ];
        for (name, short, long_entries) in cases {
            directory.add(name, &content).unwrap();
            let item = directory.items().last().unwrap();
            assert_eq!(std::str::from_utf8(&item.short).unwrap(), short, "{name}");
            assert_eq!(item.long_entries().len(), long_entries * super::super::ENTRY, "{name}");
        }
    }

    #[test]
    fn names_that_no_program_could_open_are_refused() {
        let content = Content::bytes([]);
        let mut directory = Directory::default();
        directory.add("EFI/a.txt", &content).unwrap();
        let long = "x".repeat(256);
        let cases = [
            ("efi/A.TXT", "it is given twice"),
            ("EFI/a.txt/b", "`a.txt` is a file already"),
            ("a:b", "FAT has no name `a:b`"),
            ("a.", "FAT has no name `a.`"),
            ("..", "FAT has no name `..`"),
            ("a\nb", "FAT has no name `a\\nb`"),
            ("//", "it is empty"),
            (&long, "more than 255 characters"),
        ];
        for (path, message) in cases {
            let error = directory.add(path, &content).unwrap_err().to_string();
            assert!(error.contains(message), "{error}");
        }
    }
}
