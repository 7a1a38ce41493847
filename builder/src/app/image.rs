//! Container images from files: an OCI layout (what [`super::pull`] fetched is one) or the archive
//! of `docker save`, read without a daemon, verified, for one machine, and written as an archive
//! that an engine loads.
//!
//! Guarantees: every blob has the digest by which it is named, every layer the one that the
//! image's config has for it, and the image is for linux/arm64. Layers are plain tars: the root
//! that carries them is compressed as a whole, and the engine knows them by that digest.
//!
//! Specifications: OCI image-spec 1.1 (layout, index, manifest, config), Docker image spec 1.2.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::Arc;

use ondisk::digest::Digest;
use serde_json::{Value, json};

use super::image_name;
use super::pull::Reference;
use crate::error::{Context, Error, Result};
use crate::oci;
use crate::tree::Content;

/// Where an image comes from: `[NAME=]docker://REF`, `[NAME=]oci:DIR` or
/// `[NAME=]docker-archive:FILE`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Source {
    /// The name it gets, in place of the one that it has.
    pub name: Option<String>,
    /// The file or directory.
    pub place: Place,
}

/// Where an image lies.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// An OCI layout: a directory with `index.json`.
    Oci(PathBuf),
    /// What `docker save` wrote.
    DockerArchive(PathBuf),
    /// A registry: to be fetched first.
    Registry(Reference),
}

impl FromStr for Source {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let (name, rest) = match text.split_once('=') {
            Some((name, rest))
                if !["oci:", "archive:", "docker:"].iter().any(|kind| name.contains(kind)) =>
            {
                (Some(image_name(name)), rest)
            }
            _ => (None, text),
        };
        let place = match rest.split_once(':') {
            Some(("oci", path)) if !path.is_empty() => Place::Oci(path.into()),
            Some(("docker-archive", path)) if !path.is_empty() => Place::DockerArchive(path.into()),
            Some(("docker", name)) => {
                let reference = name.strip_prefix("//").and_then(Reference::parse);
                Place::Registry(reference.ok_or_else(|| {
                    Error::new(format!("`{text}` is no image of a registry"))
                        .hint("as in docker://nginx:1.27 or docker://ghcr.io/team/web:1")
                })?)
            }
            _ => {
                return Err(Error::new(format!("`{text}` is no source of an image")).hint(
                    "write docker://NAME:TAG, oci:DIR or docker-archive:FILE, with NAME= in \
                         front if need be",
                ));
            }
        };
        Ok(Self { name, place })
    }
}

/// An image. Holding one proves what the module guarantees.
#[derive(Clone, Debug)]
pub struct Image {
    /// Its names, with tags, as the engine shows them.
    pub names: Vec<String>,
    /// `sha256:HEX` of its config: the id under which an engine knows it.
    pub id: String,
    config: Arc<[u8]>,
    layers: Vec<Layer>,
}

/// A layer of an image.
#[derive(Clone, Debug)]
pub struct Layer {
    /// `sha256:HEX` of the plain tar.
    pub diff_id: String,
    content: Content,
}

impl Source {
    /// Reads all images of the source.
    pub fn read(&self) -> Result<Vec<Image>> {
        let (mut images, shown) = match &self.place {
            Place::Oci(path) => (read_layout(path), path),
            Place::DockerArchive(path) => (read_archive(path), path),
            Place::Registry(reference) => {
                return Err(Error::new(format!("{} has not been fetched", reference.name)));
            }
        };
        if let (Some(name), Ok(images)) = (&self.name, &mut images) {
            match images.as_mut_slice() {
                [image] => image.names = vec![name.clone()],
                several => {
                    let count = several.len();
                    return Err(Error::new(format!(
                        "it has {count} images, and one name is given"
                    ))
                    .hint("leave `NAME=` out: their own names are used"))
                    .context(|| shown.display().to_string());
                }
            }
        }
        let images = images.context(|| format!("cannot take an image from {}", shown.display()))?;
        match images.iter().find(|image| image.names.is_empty()) {
            Some(_) => Err(Error::new(format!("{}: the image has no name", shown.display()))
                .hint("write it in front: `--with-image shop/web:1=oci:DIR`")),
            None => Ok(images),
        }
    }
}

impl Image {
    /// Checks config and layers against each other.
    fn new(names: Vec<String>, config: Arc<[u8]>, layers: Vec<Content>) -> Result<Self> {
        let id = digest(&config);
        let what = || names.first().cloned().unwrap_or_else(|| id.clone());
        let parsed: Value =
            serde_json::from_slice(&config).context(|| format!("{}: its config", what()))?;
        let word = |key: &str| parsed[key].as_str().unwrap_or("?").to_owned();
        let (system, machine) = (word("os"), word("architecture"));
        if (system.as_str(), machine.as_str()) != ("linux", "arm64") {
            return Err(Error::new(format!("{} is for {system}/{machine}", what()))
                .hint("devices are linux/arm64: build or pull it with `--platform linux/arm64`"));
        }
        let diff_ids = parsed["rootfs"]["diff_ids"].as_array().map(Vec::as_slice);
        let diff_ids = diff_ids.unwrap_or_default();
        if diff_ids.len() != layers.len() {
            let (has, wants) = (layers.len(), diff_ids.len());
            return Err(Error::new(format!("{} has {has} layers, not {wants}", what())));
        }
        let mut checked = Vec::new();
        for (content, diff_id) in layers.into_iter().zip(diff_ids) {
            let diff_id = diff_id.as_str().unwrap_or_default();
            if digest(&content.read()?) != diff_id {
                return Err(Error::new(format!("{}: a layer is not {diff_id}", what()))
                    .hint("the file is damaged: fetch it again"));
            }
            checked.push(Layer { diff_id: diff_id.to_owned(), content });
        }
        Ok(Self { names, id, config, layers: checked })
    }

    /// The same with all layers in memory: for one whose file is about to go.
    pub fn held(mut self) -> Result<Self> {
        for layer in &mut self.layers {
            layer.content = Content::Bytes(layer.content.read()?);
        }
        Ok(self)
    }

    /// Its layers, the lowest first.
    pub fn layers(&self) -> &[Layer] {
        &self.layers
    }

    /// How many of the lowest layers one of these stacks has too.
    pub fn shared_with(&self, stacks: &[Vec<String>]) -> usize {
        let shared = |stack: &Vec<String>| {
            let pairs = self.layers.iter().zip(stack);
            pairs.take_while(|(own, other)| own.diff_id == **other).count()
        };
        stacks.iter().map(shared).max().unwrap_or(0)
    }

    /// The archive with these names, without its lowest layers: an engine that has those takes it.
    pub fn archive(&self, names: &[String], without: usize) -> Archive {
        let blob = |digest: &str| format!("blobs/{}", digest.replacen(':', "/", 1));
        let layers: Vec<String> = self.layers.iter().map(|layer| blob(&layer.diff_id)).collect();
        let manifest =
            json!([{ "Config": blob(&self.id), "RepoTags": names, "Layers": layers.clone() }]);
        let mut entries = vec![
            ("manifest.json".to_owned(), Content::bytes(manifest.to_string().into_bytes())),
            (blob(&self.id), Content::Bytes(self.config.clone())),
        ];
        let mut written = BTreeSet::new();
        let shared: BTreeSet<&String> = layers.iter().take(without).collect();
        for (path, layer) in layers.iter().zip(&self.layers).skip(without) {
            // An image may have the same layer twice, mostly an empty one.
            if !shared.contains(path) && written.insert(path) {
                entries.push((path.clone(), layer.content.clone()));
            }
        }
        Archive { entries }
    }
}

/// A tar that an engine loads.
pub struct Archive {
    entries: Vec<(String, Content)>,
}

impl Archive {
    /// Its length in bytes.
    pub fn length(&self) -> u64 {
        let padded = |length: u64| 512 + length.next_multiple_of(512);
        let entries = self.entries.iter().map(|(_, content)| padded(content.length()));
        entries.sum::<u64>() + 1024
    }

    /// Writes it.
    pub fn write(&self, out: impl Write) -> Result<()> {
        let mut tar = tar::Builder::new(out);
        for (path, content) in &self.entries {
            let bytes = content.read()?;
            let mut header = oci::header(tar::EntryType::Regular, 0o644);
            header.set_size(bytes.len() as u64);
            tar.append_data(&mut header, path, &*bytes)
                .context(|| format!("cannot send {path}"))?;
        }
        let mut out = tar.into_inner().context(|| "cannot send an image".to_owned())?;
        out.flush().context(|| "cannot send an image".to_owned())
    }
}

fn digest(bytes: &[u8]) -> String {
    format!("sha256:{}", Digest::of(bytes))
}

/// Longest JSON document that is read.
const MAX_DOCUMENT: u64 = 16 * 1024 * 1024;

/// A layer as engines know it: what is compressed is unpacked.
fn plain(content: Content) -> Result<Content> {
    let mut start = [0; 4];
    let bytes = content.read()?;
    start.iter_mut().zip(bytes.iter()).for_each(|(to, from)| *to = *from);
    let mut unpacked = Vec::new();
    match start {
        [0x1f, 0x8b, ..] => flate2::read::MultiGzDecoder::new(&*bytes).read_to_end(&mut unpacked),
        [0x28, 0xb5, 0x2f, 0xfd] => {
            zstd::Decoder::new(&*bytes).and_then(|mut decoder| decoder.read_to_end(&mut unpacked))
        }
        _ => return Ok(content),
    }
    .context(|| "cannot unpack a layer".to_owned())?;
    Ok(Content::bytes(unpacked))
}

fn read_layout(directory: &Path) -> Result<Vec<Image>> {
    let layout = Layout { directory };
    let index = layout.document(&directory.join("index.json"))?;
    let mut images = Vec::new();
    for descriptor in index["manifests"].as_array().map(Vec::as_slice).unwrap_or_default() {
        let annotations = &descriptor["annotations"];
        let annotation = |key: &str| annotations[key].as_str().map(str::to_owned);
        let name = annotation("io.containerd.image.name")
            // The specification's own may be a tag alone, which is no name.
            .or_else(|| {
                annotation("org.opencontainers.image.ref.name").filter(|it| it.contains(':'))
            });
        images.push(layout.image(descriptor, name.as_deref().map(image_name))?);
    }
    match images.is_empty() {
        true => Err(Error::new("index.json has no manifest")),
        false => Ok(images),
    }
}

struct Layout<'a> {
    directory: &'a Path,
}

impl Layout<'_> {
    fn document(&self, path: &Path) -> Result<Value> {
        let failed = || format!("cannot read {}", path.display());
        let mut bytes = Vec::new();
        let file = File::open(path).context(failed)?;
        file.take(MAX_DOCUMENT).read_to_end(&mut bytes).context(failed)?;
        serde_json::from_slice(&bytes).context(failed)
    }

    /// The blob of a descriptor, which has the digest that the descriptor gives.
    fn blob(&self, descriptor: &Value) -> Result<Content> {
        let name = descriptor["digest"].as_str().unwrap_or_default();
        let hash = name
            .strip_prefix("sha256:")
            .filter(|hash| Digest::from_hex(hash).is_some())
            .ok_or_else(|| Error::new(format!("`{name}` is not a digest: only sha256 is known")))?;
        let path = self.directory.join("blobs/sha256").join(hash);
        let failed = || format!("cannot read {}", path.display());
        let length = fs::metadata(&path).context(failed)?.len();
        let content = Content::Range { path: Arc::new(path.clone()), offset: 0, length };
        match digest(&content.read()?) == name {
            true => Ok(content),
            false => {
                Err(Error::new(format!("{} is damaged", path.display()))
                    .hint("fetch the image again"))
            }
        }
    }

    fn image(&self, descriptor: &Value, name: Option<String>) -> Result<Image> {
        let bytes = self.blob(descriptor)?.read()?;
        let document: Value =
            serde_json::from_slice(&bytes).context(|| "a manifest is not JSON".to_owned())?;
        if let Some(manifests) = document["manifests"].as_array() {
            return self.image(for_device(manifests)?, name);
        }
        let config = self.blob(&document["config"])?.read()?;
        let layers = document["layers"].as_array().map(Vec::as_slice).unwrap_or_default();
        let layers = layers.iter().map(|layer| plain(self.blob(layer)?));
        Image::new(name.into_iter().collect(), config, layers.collect::<Result<_>>()?)
    }
}

/// The one for devices among the images of several machines.
pub(super) fn for_device(manifests: &[Value]) -> Result<&Value> {
    let platform = |manifest: &Value| {
        let word = |key: &str| manifest["platform"][key].as_str().unwrap_or("?").to_owned();
        format!("{}/{}", word("os"), word("architecture"))
    };
    let found = manifests.iter().find(|manifest| platform(manifest) == "linux/arm64");
    found.ok_or_else(|| {
        let all: Vec<String> = manifests.iter().map(platform).collect();
        Error::new(format!("the image is for {}", all.join(", ")))
            .hint("devices are linux/arm64: build or pull it with `--platform linux/arm64`")
    })
}

/// Where the files of an archive are; links of older archives are followed.
struct Members {
    path: Arc<PathBuf>,
    files: BTreeMap<String, (u64, u64)>,
    links: BTreeMap<String, String>,
}

impl Members {
    fn find(path: &Path) -> Result<Self> {
        let failed = || "it is not a tar, or a damaged one".to_owned();
        let file = File::open(path).context(|| "cannot open it".to_owned())?;
        let mut archive = tar::Archive::new(io::BufReader::new(file));
        let (mut files, mut links) = (BTreeMap::new(), BTreeMap::new());
        for entry in archive.entries().context(failed)? {
            let entry = entry.context(failed)?;
            let name = entry.path().context(failed)?.to_string_lossy().into_owned();
            if entry.header().entry_type().is_file() {
                files.insert(name, (entry.raw_file_position(), entry.size()));
            } else if let Some(target) = entry.link_name().context(failed)? {
                let target = target.to_string_lossy().trim_start_matches("../").to_owned();
                links.insert(name, target);
            }
        }
        Ok(Self { path: Arc::new(path.to_owned()), files, links })
    }

    fn content(&self, name: &str) -> Result<Content> {
        let name = self.links.get(name).map_or(name, String::as_str);
        let Some((offset, length)) = self.files.get(name).copied() else {
            return Err(Error::new(format!("it has no file {name}"))
                .hint("make it with `docker save`, not `docker export`"));
        };
        Ok(Content::Range { path: self.path.clone(), offset, length })
    }
}

fn read_archive(path: &Path) -> Result<Vec<Image>> {
    let members = Members::find(path)?;
    let manifest = members.content("manifest.json")?.read()?;
    let manifest: Value =
        serde_json::from_slice(&manifest).context(|| "its manifest.json".to_owned())?;
    let texts = |value: &Value| -> Vec<String> {
        let items = value.as_array().map(Vec::as_slice).unwrap_or_default();
        items.iter().filter_map(|item| item.as_str().map(str::to_owned)).collect()
    };
    let mut images = Vec::new();
    for entry in manifest.as_array().map(Vec::as_slice).unwrap_or_default() {
        let names = texts(&entry["RepoTags"]).iter().map(|name| image_name(name)).collect();
        let config = members.content(entry["Config"].as_str().unwrap_or_default())?.read()?;
        let layers = texts(&entry["Layers"]);
        let layers = layers.iter().map(|layer| plain(members.content(layer)?));
        images.push(Image::new(names, config, layers.collect::<Result<_>>()?)?);
    }
    match images.is_empty() {
        true => Err(Error::new("its manifest.json names no image")),
        false => Ok(images),
    }
}

#[cfg(test)]
pub(crate) mod tests;
