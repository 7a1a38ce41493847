//! Release files: what a suite offers, with the SHA-256 of each of its indices.

use super::deb822::{self, Paragraph};
use super::digest::{self, Digest};
use super::lock::safe_path;
use crate::error::{Context, Error, Result};

/// A parsed Release file. Says nothing about its signature; see [`super::signature`].
#[derive(Clone, Debug)]
pub struct Release {
    /// Its names: code name (`trixie`) and suite (`stable`).
    names: [String; 2],
    /// When it was made, as written.
    pub date: String,
    /// After this the archive would have made a newer one, as written; stable has none.
    pub valid_until: Option<String>,
    /// Files may be fetched by digest, which cannot race with an update of the mirror.
    pub by_hash: bool,
    /// Packages for all architectures are in an index of their own.
    pub separate_all: bool,
    files: Vec<IndexFile>,
}

/// A file listed in a Release file.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct IndexFile {
    /// Path below `dists/<suite>/`.
    pub path: String,
    /// Length in bytes.
    pub size: u64,
    /// Digest of the content.
    pub sha256: Digest,
}

impl Release {
    /// Reads the text of a Release file, without any signature around it.
    pub fn parse(text: &str) -> Result<Self> {
        let mut paragraphs = deb822::paragraphs(text.as_bytes());
        let paragraph =
            paragraphs.next().ok_or_else(|| Error::new("the Release file is empty"))??;
        if paragraphs.next().is_some() {
            return Err(Error::new("the Release file has more than one paragraph"));
        }
        let words = |name| paragraph.get(name).unwrap_or("").split_whitespace();
        Ok(Self {
            names: [
                paragraph.require("Codename")?.to_owned(),
                paragraph.get("Suite").unwrap_or("").to_owned(),
            ],
            date: paragraph.require("Date")?.to_owned(),
            valid_until: paragraph.get("Valid-Until").map(str::to_owned),
            by_hash: paragraph.get("Acquire-By-Hash") == Some("yes"),
            separate_all: words("Architectures").any(|one| one == "all")
                && !words("No-Support-for-Architecture-all").any(|one| one == "Packages"),
            files: read_files(&paragraph)?,
        })
    }

    /// Fails unless this is the Release file of `suite`: a mirror must not be able to answer with
    /// another suite's, which would be as validly signed.
    pub fn check_suite(&self, suite: &str) -> Result<()> {
        if self.names.iter().any(|name| name == suite) {
            return Ok(());
        }
        Err(Error::new(format!("the mirror answers with the suite {}", self.names.join(", "))))
    }

    /// The index of a component for an architecture, compressed if that is offered.
    pub fn packages_file(&self, component: &str, architecture: &str) -> Result<&IndexFile> {
        let plain = format!("{component}/binary-{architecture}/Packages");
        let compressed = format!("{plain}.xz");
        let find = |path: &str| self.files.iter().find(|file| file.path == path);
        find(&compressed)
            .or_else(|| find(&plain))
            .ok_or_else(|| Error::new(format!("the suite {} has no {plain}", self.names[0])))
    }
}

fn read_files(paragraph: &Paragraph<'_>) -> Result<Vec<IndexFile>> {
    let lines = paragraph.require("SHA256")?.lines().filter(|line| !line.trim().is_empty());
    lines.map(|line| read_file(line).context(|| format!("bad line `{line}`"))).collect()
}

fn read_file(line: &str) -> Result<IndexFile> {
    let words: Vec<&str> = line.split_whitespace().collect();
    let [sha256, size, path] = words[..] else {
        return Err(Error::new("it has to be a digest, a size and a path"));
    };
    if !safe_path(path) {
        return Err(Error::new("the path leads out of the archive"));
    }
    let size = size.parse().context(|| format!("`{size}` is not a size"))?;
    Ok(IndexFile { path: path.to_owned(), size, sha256: digest::parse(sha256)? })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text() -> String {
        let (one, two) = (Digest::of(b"1"), Digest::of(b"2"));
        format!(
            "Origin: Debian\nSuite: stable\nCodename: trixie\nDate: Sat, 21 Nov 2026 09:15:44 UTC\n\
            Acquire-By-Hash: yes\nArchitectures: all arm64\nComponents: main\n\
            No-Support-for-Architecture-all: Packages\nMD5Sum:\n 00 1 main/x\n\
            SHA256:\n {one} 5 main/binary-arm64/Packages\n {two} 3 main/binary-arm64/Packages.xz\n"
        )
    }

    #[test]
    fn a_release_names_the_compressed_index_with_its_digest() {
        let release = Release::parse(&text()).unwrap();
        let file = release.packages_file("main", "arm64").unwrap();
        assert_eq!((file.size, file.sha256), (3, Digest::of(b"2")));
        assert!(release.by_hash && !release.separate_all);
        assert!(release.check_suite("trixie").is_ok() && release.check_suite("stable").is_ok());
        assert_eq!(
            release.check_suite("sid").unwrap_err().to_string(),
            "the mirror answers with the suite trixie, stable"
        );
        assert_eq!(
            release.packages_file("main", "riscv64").unwrap_err().to_string(),
            "the suite trixie has no main/binary-riscv64/Packages"
        );
    }

    #[test]
    fn bad_release_files_are_refused() {
        for (from, to, message) in [
            ("Codename", "Nickname", "the field Codename is missing"),
            ("SHA256:", "SHA1:", "the field SHA256 is missing"),
            (" 3 main/", " x main/", "bad line"),
            (" 3 main/", " 3 ../main/", "bad line"),
            (" 3 main/", " main/", "bad line"),
            ("Suite: stable\n", "\n", "the Release file has more than one paragraph"),
        ] {
            let error = Release::parse(&text().replacen(from, to, 1)).unwrap_err();
            assert!(error.to_string().starts_with(message), "{error} / {message}");
        }
        assert!(Release::parse("").is_err());
    }
}
