//! Package indices: 60,000 paragraphs in 56 MB, of which a build needs fifty.
//!
//! Opening an index touches each byte once, to find names and provisions; a paragraph is parsed
//! when it is asked for.

use std::collections::HashMap;
use std::ops::Range;

use memchr::memmem;

use super::deb822::{self, Paragraph};
use super::digest::{self, Digest};
use super::lock::safe_path;
use super::relation::{self, Relation};
use super::version::Version;
use crate::error::{Context, Error, Result};

/// One index file, searchable by package name.
pub struct Index {
    text: Vec<u8>,
    by_name: HashMap<Box<[u8]>, Vec<Range<usize>>>,
    /// Virtual name → paragraphs that mention it under `Provides`.
    by_provided: HashMap<Box<[u8]>, Vec<Range<usize>>>,
}

/// A package as an index describes it.
#[derive(Clone, Debug)]
pub struct Package {
    /// Its name.
    pub name: String,
    /// Its version.
    pub version: Version,
    /// `arm64`, `amd64`, `all`.
    pub architecture: String,
    /// Path of the .deb below the archive's base address.
    pub path: String,
    /// Size of the .deb.
    pub size: u64,
    /// SHA-256 of the .deb.
    pub sha256: Digest,
    /// `Pre-Depends` and `Depends`.
    pub depends: Vec<Relation>,
    /// `Conflicts` and `Breaks`.
    pub conflicts: Vec<Relation>,
    /// Virtual packages, each with its version if it has one.
    pub provides: Vec<(String, Option<Version>)>,
}

impl Index {
    /// Opens the plain text of a `Packages` file.
    pub fn new(text: Vec<u8>) -> Result<Self> {
        let (mut by_name, mut by_provided) = (HashMap::new(), HashMap::new());
        let provides = memmem::Finder::new(b"\nProvides:");
        let start = text.as_ptr() as usize;
        for raw in deb822::raw_paragraphs(&text) {
            let at = raw.as_ptr() as usize - start;
            let range = at..at + raw.len();
            let name = raw_field(raw, b"Package:").ok_or_else(|| {
                let line = raw.split(|byte| *byte == b'\n').next().unwrap_or(raw);
                Error::new(format!("no package name in the paragraph `{}`", line.escape_ascii()))
            })?;
            push(&mut by_name, name, range.clone());
            let Some(found) = provides.find(raw) else { continue };
            for name in provided_names(&raw[found + b"\nProvides:".len()..]) {
                push(&mut by_provided, name, range.clone());
            }
        }
        Ok(Self { text, by_name, by_provided })
    }

    /// Number of package names.
    pub fn len(&self) -> usize {
        self.by_name.len()
    }

    /// True if there is no package.
    pub fn is_empty(&self) -> bool {
        self.by_name.is_empty()
    }

    /// All package names, in no order.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.by_name.keys().filter_map(|name| str::from_utf8(name).ok())
    }

    /// All versions of a package.
    pub fn find(&self, name: &str) -> Result<Vec<Package>> {
        self.read(self.by_name.get(name.as_bytes()))
    }

    /// All packages that provide a virtual package.
    pub fn providers(&self, name: &str) -> Result<Vec<Package>> {
        self.read(self.by_provided.get(name.as_bytes()))
    }

    fn read(&self, ranges: Option<&Vec<Range<usize>>>) -> Result<Vec<Package>> {
        ranges
            .into_iter()
            .flatten()
            .map(|range| Package::parse(&self.text[range.clone()]))
            .collect()
    }
}

fn push(map: &mut HashMap<Box<[u8]>, Vec<Range<usize>>>, name: &[u8], range: Range<usize>) {
    match map.get_mut(name) {
        Some(ranges) => ranges.push(range),
        None => drop(map.insert(name.into(), vec![range])),
    }
}

/// The value of a field of one line, found without parsing the paragraph.
fn raw_field<'a>(paragraph: &'a [u8], name: &[u8]) -> Option<&'a [u8]> {
    let mut rest = paragraph;
    loop {
        let end = memchr::memchr(b'\n', rest).unwrap_or(rest.len());
        if let Some(value) = rest[..end].strip_prefix(name) {
            return Some(value.trim_ascii());
        }
        rest = rest.get(end + 1..).filter(|rest| !rest.is_empty())?;
    }
}

/// The names in `a (= 1), b:any, c` up to the end of the field.
fn provided_names(value: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut end = 0;
    while let Some(newline) = memchr::memchr(b'\n', &value[end..]) {
        end += newline + 1;
        if !matches!(value.get(end), Some(b' ' | b'\t')) {
            break;
        }
    }
    let value = if end == 0 { value } else { &value[..end] };
    value.split(|byte| *byte == b',').filter_map(|one| {
        let one = one.trim_ascii();
        let is_end = |byte: &u8| byte.is_ascii_whitespace() || matches!(byte, b'(' | b':');
        let name = &one[..one.iter().position(is_end).unwrap_or(one.len())];
        (!name.is_empty()).then_some(name)
    })
}

impl Package {
    fn parse(raw: &[u8]) -> Result<Self> {
        let text = str::from_utf8(raw).context(|| "a package paragraph is not UTF-8".to_owned())?;
        let paragraph = Paragraph::parse(text)?;
        let name = paragraph.require("Package")?;
        Self::read(name, &paragraph).context(|| format!("the index entry of {name} is bad"))
    }

    fn read(name: &str, paragraph: &Paragraph<'_>) -> Result<Self> {
        let path = paragraph.require("Filename")?;
        if !relation::valid_name(name) || !safe_path(path) {
            return Err(Error::new(format!("bad name or path `{path}`")));
        }
        let relations = |fields: [&str; 2]| -> Result<Vec<Relation>> {
            let mut all = Vec::new();
            for field in fields {
                all.extend(relation::parse(paragraph.get(field).unwrap_or(""))?);
            }
            Ok(all)
        };
        let provided = relation::parse(paragraph.get("Provides").unwrap_or(""))?;
        let provided = provided.into_iter().flat_map(|relation| relation.alternatives);
        let size = paragraph.require("Size")?;
        Ok(Self {
            name: name.to_owned(),
            version: Version::new(paragraph.require("Version")?)?,
            architecture: paragraph.require("Architecture")?.to_owned(),
            path: path.to_owned(),
            size: size.parse().context(|| format!("`{size}` is not a size"))?,
            sha256: digest::parse(paragraph.require("SHA256")?)?,
            depends: relations(["Pre-Depends", "Depends"])?,
            conflicts: relations(["Conflicts", "Breaks"])?,
            provides: provided.map(|one| (one.name, one.version.map(|pair| pair.1))).collect(),
        })
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// The paragraph of a package: `name version`, then further fields as they are.
    pub(crate) fn paragraph(name: &str, version: &str, fields: &str) -> String {
        let sha256 = Digest::of(format!("{name} {version}").as_bytes());
        let fields = if fields.is_empty() { String::new() } else { format!("{fields}\n") };
        format!(
            "Package: {name}\nVersion: {version}\nArchitecture: arm64\n{fields}\
            Filename: pool/{name}_{version}.deb\nSize: 7\nSHA256: {sha256}\n\n"
        )
    }

    #[test]
    fn packages_are_found_by_their_names_and_by_what_they_provide() {
        let text = paragraph("one", "1", "Provides: virt (= 2), extra:any,\n more")
            + &paragraph("one", "2", "")
            + &paragraph("two", "1", "Provides: virt\nDescription: more, virt");
        let index = Index::new(text.into_bytes()).unwrap();
        let versions = |found: Vec<Package>| -> Vec<String> {
            found.iter().map(|one| format!("{} {}", one.name, one.version)).collect()
        };
        assert_eq!(index.len(), 2);
        assert_eq!(versions(index.find("one").unwrap()), ["one 1", "one 2"]);
        assert_eq!(versions(index.find("virt").unwrap()), [""; 0]);
        assert_eq!(versions(index.providers("virt").unwrap()), ["one 1", "two 1"]);
        assert_eq!(versions(index.providers("extra").unwrap()), ["one 1"]);
        assert_eq!(versions(index.providers("more").unwrap()), ["one 1"]);
        let one = &index.find("one").unwrap()[0];
        assert_eq!(one.provides[0], ("virt".to_owned(), Some(Version::new("2").unwrap())));
        assert_eq!(one.provides[1], ("extra".to_owned(), None));
    }

    #[test]
    fn a_bad_entry_is_refused_when_it_is_asked_for_and_named() {
        let good = paragraph("good", "1", "");
        for (from, to, cause) in [
            ("Version: 1", "Version: 1_1", "`1_1` is not a Debian version"),
            ("Size: 7", "Size: -7", "`-7` is not a size: invalid digit found in string"),
            ("pool/", "../pool/", "bad name or path `../pool/bad_1.deb`"),
            ("SHA256: ", "SHA256: 0", "is not a SHA-256 value"),
            ("Filename", "File", "the field Filename is missing"),
            ("Filename", "Depends: a b\nFilename", "bad package relation `a b`"),
        ] {
            let bad = paragraph("bad", "1", "").replacen(from, to, 1);
            let index = Index::new(format!("{good}{bad}").into_bytes()).unwrap();
            assert_eq!(index.find("good").unwrap().len(), 1);
            let error = index.find("bad").unwrap_err().chain();
            assert!(error.starts_with("the index entry of bad is bad: "), "{error}");
            assert!(error.ends_with(cause), "{error} / {cause}");
        }
        assert!(Index::new(b"Version: 1\n".to_vec()).is_err());
    }
}
