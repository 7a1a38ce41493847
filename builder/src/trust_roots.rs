//! A directory of trust roots: file `1` holds the first, `2` the next, and so on. The same files
//! lie on the publisher's disk and on the server.
//!
//! Guarantees: every file that is read leads to the next by the rules of a device; a file is never
//! replaced; a trust root that still lacks signatures has another name (`2.unfinished`) and counts
//! nowhere.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use ondisk::envelope::{self, Envelope, Role};
use ondisk::trust_root::{self, MAX_BYTES, TrustRoot};

use crate::error::{Context, Error, Result};
use crate::image::unfinished::replace;
use crate::sign::Key;
use crate::signer;

/// Ending of a trust root that lacks signatures.
const UNFINISHED: &str = "unfinished";

/// Trust roots from the first to the newest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TrustRoots {
    newest: TrustRoot,
    /// Those before, the oldest first.
    older: Vec<TrustRoot>,
    /// Their files, the first one's too.
    files: Vec<Vec<u8>>,
}

impl TrustRoots {
    /// One that nobody signed, which is good enough for whoever gets it with its image.
    pub fn alone(newest: TrustRoot) -> Self {
        Self { newest, older: Vec::new(), files: Vec::new() }
    }

    /// Reads a directory.
    ///
    /// Errors: no first one, one that does not follow from the one before.
    pub fn load(directory: &Path) -> Result<Self> {
        let first = read(&directory.join("1"))?.ok_or_else(|| {
            Error::new(format!("{} holds no trust root: there is no file 1", directory.display()))
                .hint("`iota trust new` makes the first")
        })?;
        let wrong = |number: u64, error: trust_root::Error| {
            Error::new(format!("{}: {error}", directory.join(number.to_string()).display()))
        };
        let mut newest = first_of(&first).map_err(|error| wrong(1, error))?;
        let (mut older, mut files) = (Vec::new(), vec![first]);
        while let Some(file) = read(&directory.join((newest.number + 1).to_string()))? {
            let number = newest.number + 1;
            let next = Envelope::parse(&file)
                .map_err(trust_root::Error::Envelope)
                .and_then(|envelope| newest.next(&envelope))
                .map_err(|error| wrong(number, error))?;
            let next = next.ok_or_else(|| wrong(number, trust_root::Error::Number(number - 1)))?;
            older.push(std::mem::replace(&mut newest, next));
            files.push(file);
        }
        Ok(Self { newest, older, files })
    }

    /// The one that counts.
    pub fn newest(&self) -> &TrustRoot {
        &self.newest
    }

    /// All of them.
    pub fn newest_first(&self) -> impl Iterator<Item = &TrustRoot> {
        std::iter::once(&self.newest).chain(self.older.iter().rev())
    }

    /// The files by their numbers.
    pub fn files(&self) -> impl Iterator<Item = (u64, &[u8])> {
        (1..).zip(self.files.iter().map(Vec::as_slice))
    }

    /// What a slot carries behind its manifest: all but the first, which every device has.
    pub fn after_the_first(&self) -> Vec<u8> {
        self.files.iter().skip(1).flatten().copied().collect()
    }
}

/// The first one is signed by its own keys alone, to show that somebody has them.
fn first_of(file: &[u8]) -> std::result::Result<TrustRoot, trust_root::Error> {
    let envelope = Envelope::parse(file).map_err(trust_root::Error::Envelope)?;
    let first = TrustRoot::unverified(&envelope)?;
    if first.number != 1 {
        return Err(trust_root::Error::Number(first.number));
    }
    let opened = envelope.open(Role::TRUST_ROOT, &first.root);
    opened.map_err(|error| trust_root::Error::Signature { number: 1, by: 1, error })?;
    Ok(first)
}

fn read(path: &Path) -> Result<Option<Vec<u8>>> {
    match fs::read(path) {
        Ok(bytes) if bytes.len() <= MAX_BYTES => Ok(Some(bytes)),
        Ok(bytes) => Err(Error::new(format!(
            "{} is no trust root: it has {} bytes",
            path.display(),
            bytes.len()
        ))),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(Error::caused(format!("cannot read {}", path.display()), error)),
    }
}

/// How far a new trust root is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Signed {
    /// It counts from now on.
    Finished(PathBuf),
    /// More keys have to sign.
    Unfinished {
        /// Where it waits.
        path: PathBuf,
        /// What is missing, in one clause.
        missing: String,
    },
}

/// Writes the next trust root of a directory with the signatures of these keys.
///
/// Errors: it is not the next, another one waits for signatures, none of the keys may sign it.
pub fn add(directory: &Path, next: &TrustRoot, keys: &[Key]) -> Result<Signed> {
    next.check().map_err(|error| Error::new(format!("this trust root cannot be: {error}")))?;
    let target = directory.join(next.number.to_string());
    let waits = target.with_added_extension(UNFINISHED);
    for path in [&target, &waits] {
        if path.exists() {
            return Err(Error::new(format!("{} is there already", path.display()))
                .hint("`iota trust sign` adds signatures to one that waits; or remove it"));
        }
    }
    let before = before(directory, next.number)?;
    let file = with_signatures(&[], before.as_ref(), next, keys)?;
    fs::create_dir_all(directory).context(|| format!("cannot make {}", directory.display()))?;
    put(&target, &waits, before.as_ref(), &file)
}

/// Adds the signatures of these keys to the trust root that waits for some.
///
/// Errors: none waits, none of the keys may sign it.
pub fn sign(directory: &Path, keys: &[Key]) -> Result<Signed> {
    let before = match directory.join("1").exists() {
        true => Some(TrustRoots::load(directory)?.newest),
        false => None,
    };
    let number = before.as_ref().map_or(1, |before| before.number + 1);
    let target = directory.join(number.to_string());
    let waits = target.with_added_extension(UNFINISHED);
    let file = read(&waits)?.ok_or_else(|| {
        Error::new(format!("nothing waits for a signature: no {}", waits.display()))
    })?;
    let wrong = |error: &dyn std::fmt::Display| Error::new(format!("{}: {error}", waits.display()));
    let envelope = Envelope::parse(&file).map_err(|error| wrong(&error))?;
    let next = TrustRoot::unverified(&envelope).map_err(|error| wrong(&error))?;
    if next.number != number {
        return Err(wrong(&format!("number {}, {number} is the next", next.number)));
    }
    let file = with_signatures(envelope.signatures(), before.as_ref(), &next, keys)?;
    put(&target, &waits, before.as_ref(), &file)
}

fn before(directory: &Path, number: u64) -> Result<Option<TrustRoot>> {
    if number == 1 {
        return Ok(None);
    }
    let roots = TrustRoots::load(directory)?;
    if roots.newest.number + 1 != number {
        return Err(Error::new(format!(
            "{} is at trust root {}, {number} does not follow",
            directory.display(),
            roots.newest.number
        )));
    }
    Ok(Some(roots.newest))
}

/// Keys of the one before and of its own may sign.
fn with_signatures(
    present: &[envelope::Signature],
    before: Option<&TrustRoot>,
    next: &TrustRoot,
    keys: &[Key],
) -> Result<Vec<u8>> {
    let what = format!("trust root {}", next.number);
    let refused = |error: envelope::Error| Error::new(format!("cannot sign {what}: {error}"));
    let payload = next.encode();
    let mut signatures = present.to_vec();
    let (mut added, mut why) = (false, None);
    for quorum in before.iter().map(|before| &before.root).chain([&next.root]) {
        match signer::sign(keys, quorum, Role::TRUST_ROOT, payload.as_bytes(), &what) {
            Ok(file) => {
                let envelope = Envelope::parse(&file).map_err(refused)?;
                for signature in envelope.signatures() {
                    if signatures.iter().all(|other| other.key != signature.key) {
                        signatures.push(*signature);
                        added = true;
                    }
                }
            }
            Err(error) => why = Some(error),
        }
    }
    match why {
        _ if added => {
            envelope::encode(Role::TRUST_ROOT, payload.as_bytes(), &signatures).map_err(refused)
        }
        Some(error) => Err(error),
        None => Err(Error::new(format!("{what} has the signatures of these keys already"))),
    }
}

fn put(target: &Path, waits: &Path, before: Option<&TrustRoot>, file: &[u8]) -> Result<Signed> {
    let missing = match before {
        None => first_of(file).err(),
        Some(before) => Envelope::parse(file)
            .map_err(trust_root::Error::Envelope)
            .and_then(|envelope| before.next(&envelope))
            .err(),
    };
    let written = |path: &Path| {
        replace(path, file)
            .map_err(|error| Error::caused(format!("cannot write {}", path.display()), error))
    };
    if let Some(missing) = missing {
        written(waits)?;
        let missing = missing.to_string();
        return Ok(Signed::Unfinished { path: waits.to_owned(), missing });
    }
    written(target)?;
    if waits.exists() {
        fs::remove_file(waits).context(|| format!("cannot remove {}", waits.display()))?;
    }
    Ok(Signed::Finished(target.to_owned()))
}

#[cfg(test)]
mod tests;
