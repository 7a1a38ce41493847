//! A container registry as the site: any that speaks the OCI distribution protocol.
//!
//! ```text
//! tag CHANNEL-BOARD ──► an OCI manifest (artifact type below): one layer for each file of the
//!                       channel, its title the path that a web server would have
//! ```
//! All that is done in a directory is done in one of the cache; what the registry has wins over
//! what is there. The tag is moved last, in one request: a device sees the release before or the
//! new one, whole. `oras pull HOST/NAME:CHANNEL-BOARD` gets the same files.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::path::{Path, PathBuf};

use config::registry::Repository;
use ondisk::channel::{self, Channel, places};
use ondisk::digest::Digest;

use super::{Site, forget_channel};
use crate::debian::digest::of_reader;
use crate::error::{Context, Result};
use crate::host::progress::{Progress, Task, Unit, megabytes};
use crate::host::store::Store;
use crate::image::unfinished::{replace, with_room_hint};
use crate::registry::{Client, Descriptor, EMPTY_TYPE, MANIFEST_TYPE, Manifest, TITLE};

/// What these manifests are.
const ARTIFACT_TYPE: &str = "application/vnd.iota.channel.v1";
const FILE_TYPE: &str = "application/octet-stream";
/// `{}`, as the specification wants a config to be that says nothing.
const EMPTY: &[u8] = b"{}";
/// Channels and trust roots; what is longer is neither.
const MOST_SMALL_BYTES: u64 = 256 * 1024;

/// A repository, and its copy in the cache.
pub struct Remote<'a> {
    client: Client,
    directory: PathBuf,
    progress: &'a Progress,
}

impl<'a> Remote<'a> {
    /// To publish with this client in the repository that it is for.
    pub fn new(
        repository: &Repository,
        client: Client,
        store: &Store,
        progress: &'a Progress,
    ) -> Result<Self> {
        let place = format!("{}/{}", repository.host, repository.name);
        let name = Digest::of(place.as_bytes()).to_string();
        let directory = store.root().join("published").join(name);
        fs::create_dir_all(&directory).map_err(|error| {
            with_room_hint(format!("cannot make {}", directory.display()), error)
        })?;
        Ok(Self { client, directory, progress })
    }

    fn get(&self, path: &str, descriptor: &Descriptor, task: &Task) -> Result<()> {
        let target = self.directory.join(path);
        let parent = target.parent().unwrap_or(&self.directory);
        fs::create_dir_all(parent).context(|| format!("cannot make {}", parent.display()))?;
        if !path.ends_with(".bundle") {
            let bytes = self.client.blob(descriptor, MOST_SMALL_BYTES)?;
            return replace(&target, &bytes)
                .map_err(|error| with_room_hint(format!("cannot write {path}"), error));
        }
        if describe(&target).is_ok_and(|found| found.digest == descriptor.digest) {
            task.add(descriptor.size);
            return Ok(());
        }
        // Another one, or half of one.
        let _ = fs::remove_file(&target);
        let part = target.with_extension("part");
        self.client.blob_to(descriptor, &part, &target, task)
    }

    fn put(&self, path: &str, task: &Task) -> Result<Descriptor> {
        let target = self.directory.join(path);
        let mut descriptor = describe(&target)?;
        let mut file = File::open(&target).context(|| format!("cannot read {path}"))?;
        self.client.put_blob(&descriptor, &mut file, task)?;
        descriptor.annotations.insert(TITLE.to_owned(), path.to_owned());
        Ok(descriptor)
    }
}

impl Site for Remote<'_> {
    fn directory(&self) -> &Path {
        &self.directory
    }

    fn fetch(&self, channel: &str, board: &str, bundles: bool) -> Result<()> {
        let own = forget_channel(&self.directory, channel, board)?;
        if !channel::is_name(channel, channel::MAX_NAME_BYTES) {
            return Ok(());
        }
        let Some(manifest) = self.client.manifest(&places::tag(channel, board))? else {
            return Ok(());
        };
        let files = files(&manifest);
        let wanted = |path: &str| {
            path == own || path.starts_with("trust/") || bundles && path.ends_with(".bundle")
        };
        let wanted: Vec<_> = files.iter().filter(|(path, _)| wanted(path)).collect();
        let total = wanted.iter().map(|(_, descriptor)| descriptor.size).sum();
        let task = self.progress.task("fetch releases before", Unit::Bytes, total);
        for (path, descriptor) in &wanted {
            self.get(path, descriptor, &task)?;
        }
        task.finish(format!("fetched {} files of channel {channel}", wanted.len()));
        Ok(())
    }

    fn send(&self, channel: &Channel, files: &[String]) -> Result<()> {
        let tag = places::tag(&channel.name, &channel.board);
        let before = self.client.manifest(&tag)?;
        let before = before.as_ref().map(self::files).unwrap_or_default();
        let own = places::channel(&channel.name, &channel.board);
        let here = |path: &String| self.directory.join(path).exists();
        let known = |path: &String| *path != own && before.contains_key(path.as_str());
        let new: Vec<&String> = files.iter().filter(|path| here(path) && !known(path)).collect();
        let size = |path: &&String| fs::metadata(self.directory.join(path)).map_or(0, |d| d.len());
        let task = self.progress.task("send", Unit::Bytes, new.iter().map(size).sum());
        let mut layers = Vec::new();
        for path in files {
            if let Some(descriptor) = before.get(path.as_str()).filter(|_| known(path)) {
                layers.push((*descriptor).clone());
            } else if here(path) {
                task.detail(path.as_str());
                layers.push(self.put(path, &task)?);
            }
        }
        let config = Descriptor::of(EMPTY_TYPE, &Digest::of(EMPTY), EMPTY.len() as u64);
        let quiet = Progress::quiet().task("", Unit::Bytes, config.size);
        self.client.put_blob(&config, &mut { EMPTY }, &quiet)?;
        let bytes = layers.iter().map(|layer| layer.size).sum();
        let manifest = Manifest {
            schema_version: 2,
            media_type: MANIFEST_TYPE.to_owned(),
            artifact_type: Some(ARTIFACT_TYPE.to_owned()),
            config,
            layers,
        };
        self.client.put_manifest(&tag, &manifest)?;
        task.finish(format!(
            "sent {} of {} files; tag {tag} has {}",
            new.len(),
            files.len(),
            megabytes(bytes)
        ));
        Ok(())
    }
}

/// Files by their paths. A registry is not trusted to name places outside of the directory.
fn files(manifest: &Manifest) -> BTreeMap<&str, &Descriptor> {
    let plain =
        |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"-./_".contains(&byte);
    let good = |path: &&str| {
        path.bytes().all(plain)
            && !path.contains("..")
            && ["channels/", "files/", "trust/"].iter().any(|start| path.starts_with(start))
    };
    let named = |layer| {
        let Descriptor { annotations, .. }: &Descriptor = layer;
        Some((annotations.get(TITLE).map(String::as_str).filter(good)?, layer))
    };
    manifest.layers.iter().filter_map(named).collect()
}

fn describe(path: &Path) -> Result<Descriptor> {
    let failed = || format!("cannot read {}", path.display());
    let mut file = File::open(path).context(failed)?;
    let (digest, size) = of_reader(&mut file).context(failed)?;
    Ok(Descriptor::of(FILE_TYPE, &digest, size))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_registry_names_no_place_outside_of_its_copy() {
        let layer = |path: &str| {
            let mut layer = Descriptor::of(FILE_TYPE, &Digest::of(b""), 0);
            layer.annotations.insert(TITLE.to_owned(), path.to_owned());
            layer
        };
        let paths = ["trust/1", "files/../../x", "/etc/passwd", "channels/stable/pi4", "a", ""];
        let mut layers = paths.map(layer).to_vec();
        layers.push(Descriptor::of(FILE_TYPE, &Digest::of(b""), 0));
        let config = Descriptor::of(EMPTY_TYPE, &Digest::of(EMPTY), 2);
        let (media_type, artifact_type) = (MANIFEST_TYPE.to_owned(), None);
        let manifest = Manifest { schema_version: 2, media_type, artifact_type, config, layers };
        let found: Vec<&str> = files(&manifest).into_keys().collect();
        assert_eq!(found, ["channels/stable/pi4", "trust/1"]);
    }
}
