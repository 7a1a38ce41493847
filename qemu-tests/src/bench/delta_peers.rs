//! What other engines make of the same two releases: casync and zchunk of the images, bsdiff and
//! ostree's static delta of the files in them.
//!
//! Files are the root's, unpacked, with kernel and initrd as the loader unpacks them beside them.
//! Owners, modes and attributes are left out: as an ordinary user nobody can give files away.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use builder::error::{Context, Error, Result};
use builder::host::tools::{Tool, Tools};
use builder::payload;
use builder::publish::release::Release;
use ondisk::layout::Extent;
use ondisk::spans;

use super::delta::length;
use super::process::measure;

/// Bytes that each of them has a device fetch.
pub type Sizes = Vec<(&'static str, u64)>;

/// The two images of a pair: files, and what is in them.
pub struct Pair<'a> {
    /// The image that a device has.
    pub old: (&'a Path, &'a Release),
    /// The one that it shall have.
    pub new: (&'a Path, &'a Release),
}

/// Measures all of them; files go to `scratch`, which is emptied before and afterwards.
pub fn sizes(pair: &Pair<'_>, scratch: &Path, tools: &Tools<'_>) -> Result<Sizes> {
    empty(scratch)?;
    let images = (pair.old.0, pair.new.0);
    let mut sizes = vec![
        ("casync", casync(images, scratch, tools)?),
        ("zchunk", zchunk(images, scratch, tools)?),
        ("bsdiff of the image", bsdiff(images, scratch, &tools.find("bsdiff")?)?),
    ];
    let trees = (scratch.join("old"), scratch.join("new"));
    unpack(pair.old, &trees.0, tools)?;
    unpack(pair.new, &trees.1, tools)?;
    sizes.push(("bsdiff, file by file", file_by_file(&trees, scratch, tools)?));
    sizes.push(("ostree static-delta", ostree(&trees, scratch, tools)?));
    empty(scratch)?;
    Ok(sizes)
}

fn empty(scratch: &Path) -> Result<()> {
    let _ = fs::remove_dir_all(scratch);
    fs::create_dir_all(scratch).context(|| format!("cannot make {}", scratch.display()))
}

/// The index and the chunks that the old image does not have.
fn casync((old, new): (&Path, &Path), scratch: &Path, tools: &Tools<'_>) -> Result<u64> {
    let (store, index) = (scratch.join("store"), scratch.join("index.caibx"));
    let casync = tools.find("casync")?;
    let mut stored = Vec::new();
    for image in [old, new] {
        let mut command = casync.command();
        command.arg(format!("--store={}", store.display())).arg("make").arg(&index).arg(image);
        measure(&mut command)?;
        stored.push(tree_bytes(&store)?);
    }
    Ok(stored[1] - stored[0] + length(&index)?)
}

/// As its own tool counts.
fn zchunk((old, new): (&Path, &Path), scratch: &Path, tools: &Tools<'_>) -> Result<u64> {
    let zck = tools.find("zck")?;
    let targets = [scratch.join("old.zck"), scratch.join("new.zck")];
    for (image, target) in [old, new].iter().zip(&targets) {
        measure(zck.command().arg("-o").arg(target).arg(image))?;
    }
    let mut command = tools.find("zck_delta_size")?.command();
    let said = crate::tools::run(command.args(&targets));
    let number = |line: &str| line.split_whitespace().find_map(|word| word.parse().ok());
    let bytes = said.lines().find(|line| line.contains("ownload")).and_then(number);
    bytes.ok_or_else(|| Error::new(format!("zck_delta_size: no number of bytes in `{said}`")))
}

fn bsdiff((old, new): (&Path, &Path), scratch: &Path, bsdiff: &Tool) -> Result<u64> {
    let patch = scratch.join("patch");
    measure(bsdiff.command().arg(old).arg(new).arg(&patch))?;
    length(&patch)
}

/// A patch for each file whose content is new, of nothing if there is no older one of its name.
fn file_by_file(trees: &(PathBuf, PathBuf), scratch: &Path, tools: &Tools<'_>) -> Result<u64> {
    let tool = tools.find("bsdiff")?;
    let (old, new) = (files(&trees.0)?, files(&trees.1)?);
    let mut sum = 0;
    for (name, content) in &new {
        if old.values().any(|known| known == content) {
            continue;
        }
        let target = trees.1.join(name);
        let base = counterpart(name, &old);
        let base = base.map_or_else(|| PathBuf::from("/dev/null"), |name| trees.0.join(name));
        sum += bsdiff((&base, &target), scratch, &tool)?;
    }
    Ok(sum)
}

/// The old file in whose place a new one is: of the same name, or of the same module in the
/// directory of an older kernel.
fn counterpart<'a>(name: &Path, old: &'a BTreeMap<PathBuf, Vec<u8>>) -> Option<&'a Path> {
    if let Some((same, _)) = old.get_key_value(name) {
        return Some(same);
    }
    let within_modules = |path: &Path| -> Option<PathBuf> {
        let rest = path.strip_prefix("usr/lib/modules").ok()?;
        Some(rest.components().skip(1).collect())
    };
    let wanted = within_modules(name)?;
    old.keys().find(|path| within_modules(path).as_ref() == Some(&wanted)).map(PathBuf::as_path)
}

fn ostree(trees: &(PathBuf, PathBuf), scratch: &Path, tools: &Tools<'_>) -> Result<u64> {
    let (repository, delta) = (scratch.join("repository"), scratch.join("delta"));
    let ostree = tools.find("ostree")?;
    let run = |verb: &[&str], more: &[String]| {
        let mut command = ostree.command();
        command.arg(format!("--repo={}", repository.display())).args(verb).args(more);
        measure(&mut command).map(drop)
    };
    run(&["init", "--mode=archive"], &[])?;
    for (branch, tree) in [("old", &trees.0), ("new", &trees.1)] {
        let tree = format!("--tree=dir={}", tree.display());
        let options = ["commit", "--owner-uid=0", "--owner-gid=0", "--no-xattrs", "-b", branch];
        run(&options, &[tree])?;
    }
    // All in one file, and nothing left to be fetched as a whole file.
    let options = ["static-delta", "generate", "--inline", "--min-fallback-size=0"];
    let pair = ["--from=old".to_owned(), "--to=new".to_owned()];
    run(&options, &[&pair[..], &[format!("--filename={}", delta.display())]].concat())?;
    length(&delta)
}

/// All files of a release below a directory.
fn unpack((image, release): (&Path, &Release), target: &Path, tools: &Tools<'_>) -> Result<()> {
    let failed = || format!("cannot write {}", target.display());
    let root = target.with_extension("erofs");
    fs::write(&root, part(release, release.manifest.root.extent)).context(failed)?;
    let mut command: Command = tools.find("fsck.erofs")?.command();
    command.args(["--no-preserve-owner", "--force", "--overwrite"]);
    command.arg(format!("--extract={}", target.display())).arg(&root);
    measure(&mut command)?;
    let fields = &release.manifest;
    let parts = [("kernel", fields.kernel.extent), ("initrd", fields.initrd.extent)];
    for (name, extent) in parts {
        let content = spans::content(part(release, extent), usize::MAX, payload::decode)
            .ok_or_else(|| Error::new(format!("{}: no {name} in spans", image.display())))?;
        fs::write(target.join(name), content).context(failed)?;
    }
    Ok(())
}

fn part(release: &Release, extent: Extent) -> &[u8] {
    let at = |bytes: u64| usize::try_from(bytes).unwrap_or(usize::MAX);
    let start = at(extent.offset);
    release.image.get(start..start.saturating_add(at(extent.length))).unwrap_or_default()
}

/// Paths from the top and contents of all plain files.
fn files(top: &Path) -> Result<BTreeMap<PathBuf, Vec<u8>>> {
    let mut files = BTreeMap::new();
    walk(top, &mut |path| {
        let content = fs::read(path).context(|| format!("cannot read {}", path.display()))?;
        let name = path.strip_prefix(top).unwrap_or(path).to_owned();
        files.insert(name, content);
        Ok(())
    })?;
    Ok(files)
}

fn tree_bytes(top: &Path) -> Result<u64> {
    let mut sum = 0;
    walk(top, &mut |path| {
        sum += length(path)?;
        Ok(())
    })?;
    Ok(sum)
}

fn walk(directory: &Path, each: &mut dyn FnMut(&Path) -> Result<()>) -> Result<()> {
    let failed = || format!("cannot read {}", directory.display());
    for entry in fs::read_dir(directory).context(failed)? {
        let entry = entry.context(failed)?;
        let (kind, path) = (entry.file_type().context(failed)?, entry.path());
        if kind.is_dir() {
            walk(&path, each)?;
        } else if kind.is_file() {
            each(&path)?;
        }
    }
    Ok(())
}
