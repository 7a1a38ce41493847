//! A bucket of an object store as the site: what a web server would have, under the same names.
//!
//! All that is done in a directory is done in one of the cache; what the bucket has wins over what
//! is there. Files come before the channel, which is put there last, in one request: a device sees
//! the release before or the new one, whole. Whether devices may read the bucket, and at which
//! address, is its owner's affair; they need nothing but `https://`.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use ondisk::channel::{self, Channel, places};
use ondisk::digest::Digest;

use super::{Site, forget_channel};
use crate::debian::digest::of_reader;
use crate::error::{Context, Result};
use crate::host::progress::{Progress, Task, Unit};
use crate::host::store::Store;
use crate::image::unfinished::{replace, with_room_hint};
use crate::s3::{Client, Object};

/// Named by hashes or numbers, and never another file under the same name.
const FOR_EVER: &str = "public, max-age=31536000, immutable";
/// The only files that change: who is told to withdraw a release waits for a minute.
const SHORTLY: &str = "public, max-age=60";
/// Channels and trust roots; what is longer is neither.
const MOST_SMALL_BYTES: u64 = 256 * 1024;

/// A place in a bucket, and its copy in the cache.
pub struct Bucket<'a> {
    client: Client,
    directory: PathBuf,
    progress: &'a Progress,
}

impl<'a> Bucket<'a> {
    /// To publish with this client in the place that it is for.
    pub fn new(client: Client, store: &Store, progress: &'a Progress) -> Result<Self> {
        let name = Digest::of(client.address().as_bytes()).to_string();
        let directory = store.root().join("published").join(name);
        fs::create_dir_all(&directory).map_err(|error| {
            with_room_hint(format!("cannot make {}", directory.display()), error)
        })?;
        Ok(Self { client, directory, progress })
    }

    /// Brings a small file into the directory, if the bucket has it.
    fn get_small(&self, path: &str) -> Result<Option<Vec<u8>>> {
        let Some(bytes) = self.client.get(path, MOST_SMALL_BYTES)? else { return Ok(None) };
        replace(&self.target(path)?, &bytes)
            .map_err(|error| with_room_hint(format!("cannot write {path}"), error))?;
        Ok(Some(bytes))
    }

    /// Brings a bundle into the directory, if the bucket has it and it is not there already.
    fn get_bundle(&self, path: &str, task: &Task) -> Result<()> {
        let target = self.target(path)?;
        let Some(object) = self.client.head(path)? else { return Ok(()) };
        if describe(&target).is_ok_and(|found| is_same(&object, &found)) {
            return Ok(());
        }
        // Another one, or half of one.
        let _ = fs::remove_file(&target);
        self.client.get_file(path, &object, &target.with_extension("part"), &target, task)
    }

    fn target(&self, path: &str) -> Result<PathBuf> {
        let target = self.directory.join(path);
        let parent = target.parent().unwrap_or(&self.directory);
        fs::create_dir_all(parent).context(|| format!("cannot make {}", parent.display()))?;
        Ok(target)
    }

    /// Sends a file that has its name for ever, unless it is there; whether it had to be sent.
    fn put(&self, path: &str, task: &Task) -> Result<bool> {
        let target = self.directory.join(path);
        let own = describe(&target)?;
        if self.client.head(path)?.is_some_and(|there| is_same(&there, &own)) {
            task.add(own.size);
            return Ok(false);
        }
        task.detail(path);
        let mut file = File::open(&target).context(|| format!("cannot read {path}"))?;
        self.client.put_file(path, &own, FOR_EVER, &mut file, task)?;
        Ok(true)
    }
}

impl Site for Bucket<'_> {
    fn directory(&self) -> &Path {
        &self.directory
    }

    fn fetch(&self, name: &str, board: &str, bundles: bool) -> Result<()> {
        let own = forget_channel(&self.directory, name, board)?;
        if !channel::is_name(name, channel::MAX_NAME_BYTES) {
            return Ok(());
        }
        let mut number = 1;
        while self.get_small(&places::trust_root(number))?.is_some() {
            number += 1;
        }
        let Some(bytes) = self.get_small(&own)? else { return Ok(()) };
        // Whether it is good is found out where it is read.
        let found = channel::Unverified::parse(&bytes).and_then(|it| it.channel_unverified());
        let releases = found.ok().filter(|_| bundles).map(|channel| releases(&channel));
        let task = self.progress.task("fetch releases before", Unit::Bytes, 0);
        for release in releases.unwrap_or_default() {
            self.get_bundle(&places::bundle(&release), &task)?;
        }
        task.finish(format!("fetched what there is of channel {name}"));
        Ok(())
    }

    fn send(&self, channel: &Channel, files: &[String]) -> Result<()> {
        let own = places::channel(&channel.name, &channel.board);
        let size = |path: &String| fs::metadata(self.directory.join(path)).map(|data| data.len());
        let here = files.iter().filter(|path| **path != own && size(path).is_ok());
        let here: Vec<&String> = here.collect();
        let total = here.iter().map(|path| size(path).unwrap_or_default()).sum();
        let task = self.progress.task("send", Unit::Bytes, total);
        let mut sent = 1;
        for path in here {
            sent += usize::from(self.put(path, &task)?);
        }
        let target = self.directory.join(&own);
        let bytes = fs::read(target).context(|| format!("cannot read {own}"))?;
        let object = Object { size: bytes.len() as u64, sha256: Some(Digest::of(&bytes)) };
        self.client.put(&own, &object, SHORTLY, &bytes)?;
        task.finish(format!("sent {sent} of {} files", files.len()));
        Ok(())
    }
}

/// Releases whose bundles the next one's differences start from.
fn releases(channel: &Channel) -> Vec<Digest> {
    let bases = channel.packs.iter().filter_map(|pack| pack.base);
    std::iter::once(channel.slot_manifest.sha256).chain(bases).collect()
}

/// The digest counts if whoever put it there noted one.
fn is_same(there: &Object, own: &Object) -> bool {
    there.size == own.size && there.sha256.is_none_or(|digest| own.sha256 == Some(digest))
}

fn describe(path: &Path) -> Result<Object> {
    let failed = || format!("cannot read {}", path.display());
    let mut file = File::open(path).context(failed)?;
    let (digest, size) = of_reader(&mut file).context(failed)?;
    Ok(Object { size, sha256: Some(digest) })
}
