//! Packages unpacked once: a pack file with all bytes and an index, or a real directory.
//!
//! The pack keeps what an image may need. Manual pages, translations and the like never ship, so
//! they are not stored; licence texts (`copyright`) are. Unpacking is bounded in memory: a few
//! packages at a time, and only one of them decoded with threads of its own.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, BufReader, BufWriter, Read, Write};
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use serde::{Deserialize, Serialize};

use super::parallel;
use super::progress::{Progress, Task, Unit, megabytes};
use super::store::{Store, explain_full};
use crate::debian::archive::{self, Entry, EntryKind};
use crate::debian::digest::{self, Digest, Hasher};
use crate::debian::lock::LockedPackage;
use crate::error::{Context, Error, Result};
use crate::tree::{Content, Kind, Node, TreePath};

/// A package whose files lie in the cache.
#[derive(Clone, Debug)]
pub struct Unpacked {
    /// The package's name, which is the origin of every node.
    pub name: Arc<str>,
    /// Everything in it, in the order of the package: directories before what they hold.
    ///
    /// The bytes of files are ranges of the pack.
    pub entries: Vec<(TreePath, Node)>,
}

/// Packages at least this large are decoded with several threads.
const LARGE: u64 = 16 << 20;

/// Each worker holds a decoder's dictionary (up to 64 MiB), so their number is bounded too.
const MOST_WORKERS: usize = 4;

impl Store {
    /// Unpacks packages in parallel, those already unpacked read from their index; the results
    /// have the order of `packages`. Every package has to be in the cache (`fetch_all`).
    pub fn unpack_all(
        &self,
        packages: &[LockedPackage],
        progress: &Progress,
    ) -> Result<Vec<Unpacked>> {
        let ready =
            parallel::map(
                packages,
                parallel::processors(),
                |package| Ok(self.read_index(package)),
            )?;
        let missing: Vec<&LockedPackage> = largest_first(
            packages.iter().zip(&ready).filter(|(_, found)| found.is_none()).map(|pair| pair.0),
        );
        if !missing.is_empty() {
            let total = missing.iter().map(|package| package.size).sum();
            let task = progress.task("unpack", Unit::Bytes, total);
            let turn = Mutex::new(());
            parallel::map(&missing, workers(), |package| self.write_pack(package, &task, &turn))?;
            task.finish(format!("unpacked {} packages, {}", missing.len(), megabytes(total)));
        }
        let pairs: Vec<_> = packages.iter().zip(ready).collect();
        let read = |(package, ready): (&LockedPackage, Option<Unpacked>)| {
            ready.or_else(|| self.read_index(package)).ok_or_else(|| {
                Error::new(format!("{} was removed from the cache meanwhile", package.name))
            })
        };
        pairs.into_iter().map(read).collect()
    }

    /// Unpacks one package, or reads its index if that was done before.
    pub fn unpack(&self, package: &LockedPackage) -> Result<Unpacked> {
        let mut all = self.unpack_all(std::slice::from_ref(package), &Progress::quiet())?;
        all.pop().ok_or_else(|| Error::new(format!("{} did not unpack", package.name)))
    }

    /// True if the package looks unpacked; [`Store::unpack_all`] looks closer.
    pub fn has_unpacked(&self, package: &LockedPackage) -> bool {
        self.pack_path(package).exists() && self.index_path(package).exists()
    }

    /// Unpacks packages into a real directory, whole or not at all; a directory that is there is
    /// taken for complete. Ownership is that of the user. The top level is merged (`/bin` is a
    /// link to `usr/bin`), whichever spelling a package uses.
    pub fn unpack_to_directory(
        &self,
        packages: &[LockedPackage],
        target: &Path,
        progress: &Progress,
    ) -> Result<()> {
        if target.is_dir() {
            return Ok(());
        }
        let what = || format!("cannot unpack into {}", target.display());
        let parent = target.parent().filter(|parent| !parent.as_os_str().is_empty());
        let parent = parent.unwrap_or(Path::new("."));
        fs::create_dir_all(parent).context(what)?;
        // Inside of the cache, what a killed build leaves is swept by the next one.
        let unfinished = self.unfinished();
        let place = if target.starts_with(self.root()) { &unfinished } else { parent };
        let root = tempfile::Builder::new().prefix(".unpack-").tempdir_in(place).context(what)?;
        fs::set_permissions(root.path(), fs::Permissions::from_mode(0o755)).context(what)?;
        for name in MERGED {
            fs::create_dir_all(root.path().join("usr").join(name)).context(what)?;
            symlink(Path::new("usr").join(name), root.path().join(name)).context(what)?;
        }
        let total = packages.iter().map(|package| package.size).sum();
        let task = progress.task("unpack", Unit::Bytes, total);
        let turn = Mutex::new(());
        parallel::map(&largest_first(packages.iter()), workers(), |package| {
            let directory = Directory { root: root.path() };
            self.read_deb(package, &task, &turn, |entry, content| directory.put(entry, content))
        })?;
        match fs::rename(root.path(), target) {
            // Another build was faster; both unpacked the same.
            Err(_) if target.is_dir() => {}
            renamed => {
                renamed.context(what)?;
                let _ = root.keep();
            }
        }
        task.finish(format!("unpacked {} packages, {}", packages.len(), megabytes(total)));
        Ok(())
    }

    fn pack_path(&self, package: &LockedPackage) -> PathBuf {
        self.unpacked().join(format!("{}.pack", package.sha256))
    }

    fn index_path(&self, package: &LockedPackage) -> PathBuf {
        self.unpacked().join(format!("{}.json", package.sha256))
    }

    /// Reads a package's entries, the decoder taking threads of its own if it is large.
    fn read_deb(
        &self,
        package: &LockedPackage,
        task: &Task,
        turn: &Mutex<()>,
        visit: impl FnMut(&Entry, &mut dyn Read) -> Result<()>,
    ) -> Result<()> {
        let path = self.deb_path(package);
        let what = || format!("cannot unpack {} {}", package.name, package.version);
        let large = package.size >= LARGE;
        let _turn = large.then(|| turn.lock());
        let threads = if large { u32::try_from(parallel::processors()).unwrap_or(1) } else { 1 };
        task.detail(&package.name);
        let file = File::open(&path).map_err(|error| {
            // The next run fetches what is not unpacked.
            let _ = fs::remove_file(self.index_path(package));
            Error::caused(what(), error).hint(AGAIN)
        })?;
        let deb = BufReader::with_capacity(256 << 10, Counted { file, task });
        archive::read_data(deb, threads, visit).context(what)
    }

    fn write_pack(&self, package: &LockedPackage, task: &Task, turn: &Mutex<()>) -> Result<()> {
        let what = || format!("cannot write the files of {} to the cache", package.name);
        // A damaged index must not make the next run believe that the .deb is not needed.
        let _ = fs::remove_file(self.index_path(package));
        let file = tempfile::NamedTempFile::new_in(self.unfinished()).context(what)?;
        let file = BufWriter::with_capacity(1 << 20, file);
        let mut pack = Pack { file, hasher: Hasher::default(), index: Index::of(package) };
        self.read_deb(package, task, turn, |entry, content| pack.put(entry, content))?;
        pack.index.pack_sha256 = pack.hasher.finish().to_string();
        let file = pack.file.into_inner().map_err(|error| explain_full(error.into_error()));
        file.context(what)?.persist(self.pack_path(package)).context(what)?;
        let json = serde_json::to_vec(&pack.index).context(what)?;
        let mut index = tempfile::NamedTempFile::new_in(self.unfinished()).context(what)?;
        let written =
            writeln!(index, "{}", Digest::of(&json)).and_then(|()| index.write_all(&json));
        written.map_err(explain_full).context(what)?;
        index.persist(self.index_path(package)).context(what)?;
        Ok(())
    }

    /// The index of an unpacked package; `None` if anything about it or its pack is amiss. All
    /// bytes are hashed: what a failing disk made of them would be signed and shipped otherwise.
    fn read_index(&self, package: &LockedPackage) -> Option<Unpacked> {
        let bytes = fs::read(self.index_path(package)).ok()?;
        let (line, json) = bytes.split_at_checked(65)?;
        let digest = Digest::from_hex(str::from_utf8(&line[..64]).ok()?)?;
        if Digest::of(json) != digest {
            return None;
        }
        let index: Index = serde_json::from_slice(json).ok()?;
        let pack = self.pack_path(package);
        let (found, length) = digest::of_reader(&mut File::open(&pack).ok()?).ok()?;
        if (index.pack_length, index.pack_sha256.as_str()) != (length, &found.to_string()) {
            return None;
        }
        let (name, pack): (Arc<str>, _) = (package.name.as_str().into(), Arc::new(pack));
        let entries: Option<Vec<_>> =
            index.entries.into_iter().map(|raw| raw.checked(&name, &pack)).collect();
        Some(Unpacked { entries: entries?, name })
    }
}

fn workers() -> usize {
    parallel::processors().min(MOST_WORKERS)
}

/// The longest jobs first, so that no thread is left alone with one at the end.
fn largest_first<'a>(packages: impl Iterator<Item = &'a LockedPackage>) -> Vec<&'a LockedPackage> {
    let mut sorted: Vec<_> = packages.collect();
    sorted.sort_by_key(|package| std::cmp::Reverse(package.size));
    sorted
}

const AGAIN: &str = "run the command again: it fetches what is missing in the cache";

struct Counted<'a> {
    file: File,
    task: &'a Task,
}

impl Read for Counted<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.file.read(buffer)?;
        self.task.add(count as u64);
        Ok(count)
    }
}

#[derive(Serialize, Deserialize)]
struct Index {
    package: String,
    pack_length: u64,
    pack_sha256: String,
    entries: Vec<RawEntry>,
}

impl Index {
    fn of(package: &LockedPackage) -> Self {
        let package = format!("{} {} {}", package.name, package.version, package.architecture);
        Self { package, pack_length: 0, pack_sha256: String::new(), entries: Vec::new() }
    }
}

#[derive(Serialize, Deserialize)]
struct RawEntry {
    path: String,
    mode: u16,
    #[serde(default, skip_serializing_if = "is_root")]
    uid: u32,
    #[serde(default, skip_serializing_if = "is_root")]
    gid: u32,
    kind: RawKind,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "the signature serde asks for")]
fn is_root(id: &u32) -> bool {
    *id == 0
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum RawKind {
    Directory,
    /// Offset and length in the pack.
    File(u64, u64),
    Symlink(String),
    HardLink(String),
}

impl RawEntry {
    fn checked(self, name: &Arc<str>, pack: &Arc<PathBuf>) -> Option<(TreePath, Node)> {
        let kind = match self.kind {
            RawKind::Directory => Kind::Directory,
            RawKind::File(offset, length) => {
                Kind::File(Content::Range { path: pack.clone(), offset, length })
            }
            RawKind::Symlink(target) => Kind::Symlink(target.into_bytes()),
            RawKind::HardLink(target) => Kind::HardLink(TreePath::new(target).ok()?),
        };
        let (mode, uid, gid) = (self.mode, self.uid, self.gid);
        let node = Node { kind, mode, uid, gid, xattrs: BTreeMap::new(), origin: name.clone() };
        Some((TreePath::new(self.path).ok()?, node))
    }
}

struct Pack {
    file: BufWriter<tempfile::NamedTempFile>,
    hasher: Hasher,
    index: Index,
}

/// Everything written is hashed on its way.
impl Write for Pack {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let count = self.file.write(bytes)?;
        self.hasher.update(&bytes[..count]);
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

impl Pack {
    fn put(&mut self, entry: &Entry, content: &mut dyn Read) -> Result<()> {
        if never_ships(entry.path.as_bytes()) {
            return Ok(());
        }
        let kind = match &entry.kind {
            EntryKind::Directory => RawKind::Directory,
            EntryKind::File(length) => {
                let offset = self.index.pack_length;
                let copied = io::copy(content, self).map_err(explain_full);
                let copied =
                    copied.context(|| format!("cannot unpack {}", entry.path.display()))?;
                if copied != *length {
                    return Err(Error::new(format!("{} is cut short", entry.path.display())));
                }
                self.index.pack_length += length;
                RawKind::File(offset, *length)
            }
            EntryKind::Symlink(target) => RawKind::Symlink(utf8(target)?),
            EntryKind::HardLink(target) => RawKind::HardLink(utf8(target.as_bytes())?),
        };
        let path = utf8(entry.path.as_bytes())?;
        let Entry { mode, uid, gid, .. } = *entry;
        self.index.entries.push(RawEntry { path, mode, uid, gid, kind });
        Ok(())
    }
}

/// Policy 10.10 wants file names to be UTF-8; slices, which are text, could not name others.
fn utf8(name: &[u8]) -> Result<String> {
    String::from_utf8(name.to_vec())
        .map_err(|_| Error::new(format!("the name `{}` is not UTF-8", name.escape_ascii())))
}

/// Documentation for people at a desk; `copyright` stays, since its terms may ask for it.
fn never_ships(path: &[u8]) -> bool {
    let Some(rest) = path.strip_prefix(b"usr/share/") else { return false };
    let (directory, rest) = match rest.iter().position(|byte| *byte == b'/') {
        Some(slash) => (&rest[..slash], &rest[slash..]),
        None => return false,
    };
    match directory {
        b"man" | b"info" | b"locale" | b"lintian" | b"bug" | b"doc-base" => true,
        b"doc" => !rest.ends_with(b"/copyright") && rest[1..].contains(&b'/'),
        _ => false,
    }
}

/// Top-level directories that are links into `usr` on a merged system.
const MERGED: [&str; 4] = ["bin", "sbin", "lib", "lib64"];

struct Directory<'a> {
    root: &'a Path,
}

impl Directory<'_> {
    fn put(&self, entry: &Entry, content: &mut dyn Read) -> Result<()> {
        let is_merged = MERGED.iter().any(|name| entry.path.as_bytes() == name.as_bytes());
        if is_merged || never_ships(entry.path.as_bytes()) {
            return Ok(());
        }
        let path = self.place(&entry.path)?;
        let written = self.write(&path, entry, content).map_err(explain_full);
        written.context(|| format!("cannot write {}", path.display()))
    }

    fn write(&self, path: &Path, entry: &Entry, content: &mut dyn Read) -> io::Result<()> {
        // Directories stay writable for the owner, or their contents could not be made.
        let mode = u32::from(entry.mode & 0o777);
        match &entry.kind {
            EntryKind::Directory => fs::create_dir_all(path),
            EntryKind::File(_) => {
                let mut file =
                    File::options().write(true).create_new(true).mode(mode | 0o600).open(path)?;
                io::copy(content, &mut file).map(|_| ())
            }
            EntryKind::Symlink(target) => {
                use std::os::unix::ffi::OsStrExt as _;
                symlink(std::ffi::OsStr::from_bytes(target), path)
            }
            EntryKind::HardLink(target) => {
                let target = self.place(target).map_err(io::Error::other)?;
                fs::hard_link(target, path)
            }
        }
    }

    /// The real place of a path: below `usr` if its top level is merged, its parent made, and
    /// inside of the root whatever links packages brought.
    fn place(&self, path: &TreePath) -> Result<PathBuf> {
        let text = utf8(path.as_bytes())?;
        let top = text.split('/').next().unwrap_or("");
        let text = if MERGED.contains(&top) { format!("usr/{text}") } else { text };
        let place = self.root.join(text);
        let what = || format!("cannot make a place for {}", place.display());
        let parent = place.parent().unwrap_or(self.root);
        fs::create_dir_all(parent).context(what)?;
        let (real, root) =
            (parent.canonicalize().context(what)?, self.root.canonicalize().context(what)?);
        if !real.starts_with(&root) {
            return Err(Error::new(format!("{} leads out of the directory", path.display())));
        }
        Ok(place)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::debian::archive::tests::deb;
    use crate::debian::lock::tests::package;

    /// A cache that holds one downloaded package.
    pub(crate) fn store_with(bytes: &[u8]) -> (tempfile::TempDir, Store, LockedPackage) {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::open(Some(directory.path())).unwrap();
        let mut package = package("tool", "1.0", bytes.len() as u64);
        package.sha256 = Digest::of(bytes);
        fs::write(store.deb_path(&package), bytes).unwrap();
        (directory, store, package)
    }

    fn listing(unpacked: &Unpacked) -> Vec<String> {
        let line = |(path, node): &(TreePath, Node)| {
            let content = match &node.kind {
                Kind::File(content) => content.read().unwrap().escape_ascii().to_string(),
                Kind::HardLink(target) => target.display(),
                Kind::Symlink(target) => target.escape_ascii().to_string(),
                _ => String::new(),
            };
            format!("{} {:o} {content}", path.display(), node.mode)
        };
        unpacked.entries.iter().map(line).collect()
    }

    #[test]
    fn a_package_is_unpacked_once_and_read_back_alike() {
        let (_directory, store, package) = store_with(&deb("data.tar.xz", b"big"));
        let first = store.unpack(&package).unwrap();
        fs::remove_file(store.deb_path(&package)).unwrap();
        let second = store.unpack(&package).unwrap();
        assert_eq!(listing(&first), listing(&second));
        let lines = listing(&first);
        assert_eq!(
            &lines[..4],
            [
                "/usr 755 ",
                "/usr/bin/tool 4755 #!tool",
                "/usr/bin/alias 777 tool",
                "/usr/bin/twin 755 /usr/bin/tool",
            ]
        );
        assert_eq!(lines[4], "/usr/share/doc/tool/copyright 644 terms");
        assert!(lines[5].ends_with("/x 600 big"));
        assert_eq!(first.entries[1].1.gid, 42);
        assert_eq!(fs::read_dir(store.unfinished()).unwrap().count(), 0);
    }

    #[test]
    fn a_damaged_unpacked_package_is_noticed_and_made_again() {
        let (_directory, store, package) = store_with(&deb("data.tar.xz", b"big"));
        let good = listing(&store.unpack(&package).unwrap());
        let index = fs::read(store.index_path(&package)).unwrap();
        let mut flipped = index.clone();
        flipped[100] ^= 1;
        for bad in [&b""[..], &index[..index.len() - 1], &flipped] {
            fs::write(store.index_path(&package), bad).unwrap();
            assert_eq!(listing(&store.unpack(&package).unwrap()), good);
            assert_eq!(fs::read(store.index_path(&package)).unwrap(), index);
        }
        let pack = fs::read(store.pack_path(&package)).unwrap();
        let mut flipped = pack.clone();
        flipped[1] ^= 1;
        for bad in [&pack[..3], &flipped] {
            fs::write(store.pack_path(&package), bad).unwrap();
            assert_eq!(listing(&store.unpack(&package).unwrap()), good);
            assert_eq!(fs::read(store.pack_path(&package)).unwrap(), pack);
        }
    }

    #[test]
    fn a_damaged_index_without_its_package_asks_for_another_run_which_fetches() {
        let (_directory, store, package) = store_with(&deb("data.tar.xz", b"big"));
        store.unpack(&package).unwrap();
        fs::remove_file(store.deb_path(&package)).unwrap();
        fs::write(store.index_path(&package), "damaged").unwrap();
        assert!(store.has_unpacked(&package));
        assert_eq!(store.unpack(&package).unwrap_err().next_step(), Some(AGAIN));
        assert!(!store.has_unpacked(&package));
    }

    #[test]
    fn a_broken_package_leaves_nothing_behind() {
        let mut bytes = deb("data.tar.xz", &[7; 9999]);
        let middle = bytes.len() - 100;
        bytes[middle] ^= 1;
        let (directory, store, package) = store_with(&bytes);
        let error = store.unpack(&package).unwrap_err();
        assert!(error.chain().starts_with("cannot unpack tool 1.0: "), "{}", error.chain());
        let target = directory.path().join("target");
        let unpacked =
            store.unpack_to_directory(std::slice::from_ref(&package), &target, &Progress::quiet());
        assert!(unpacked.is_err() && !target.exists());
        assert!(!store.has_unpacked(&package));
        assert_eq!(fs::read_dir(store.unfinished()).unwrap().count(), 0);
    }

    #[test]
    fn what_a_killed_build_left_is_swept_when_nobody_works() {
        let (directory, store, _package) = store_with(b"");
        let left = store.unfinished().join("left");
        fs::write(&left, "").unwrap();
        let _second = Store::open(Some(directory.path())).unwrap();
        assert!(left.exists(), "the first one may be writing it");
        drop((store, _second));
        Store::open(Some(directory.path())).unwrap();
        assert!(!left.exists());
    }

    #[test]
    fn a_directory_gets_links_modes_and_a_merged_top_level() {
        let (directory, store, package) = store_with(&deb("data.tar.zst", b"big"));
        let target = directory.path().join("tools/tree");
        store.unpack_to_directory(&[package], &target, &Progress::quiet()).unwrap();
        let tool = fs::metadata(target.join("bin/tool")).unwrap();
        assert_eq!(tool.permissions().mode() & 0o7777, 0o755);
        assert_eq!(fs::read_link(target.join("usr/bin/alias")).unwrap(), Path::new("tool"));
        assert_eq!(fs::read(target.join("usr/bin/twin")).unwrap(), b"#!tool");
        assert!(!target.join("usr/share/man").exists());
        assert_eq!(fs::read_dir(target.parent().unwrap()).unwrap().count(), 1);
    }

    #[test]
    fn documentation_is_not_stored_but_terms_are() {
        for (path, skipped) in [
            ("usr/share/man/man1/x.1", true),
            ("usr/share/locale", false),
            ("usr/share/locale/de/x.mo", true),
            ("usr/share/doc/x", false),
            ("usr/share/doc/x/README", true),
            ("usr/share/doc/x/copyright", false),
            ("usr/share/manual/x", false),
            ("usr/lib/x", false),
        ] {
            assert_eq!(never_ships(path.as_bytes()), skipped, "{path}");
        }
    }
}
