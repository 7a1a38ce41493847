//! Images of `docker://` sources: fetched from their registries into OCI layouts of the cache,
//! without a daemon and without root, and pinned.
//!
//! ```text
//! <cache>/images/<digest>/     a layout with one image, for linux/arm64; index.json comes last
//! rootfs/images.lock           which digest a tag stood for when it was first built with
//! ```
//! Guarantees: a build with a pin fetches those bytes or none; what arrived before a break is not
//! fetched again; whatever a registry sends is held against the digest that it was asked for.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use config::registry::Repository;
use ondisk::digest::Digest;
use serde::Deserialize as _;
use serde_json::{Value, json};

use super::image::{Place, Source, for_device};
use super::image_name;
use crate::error::{Context, Error, Result};
use crate::host::progress::{Progress, Unit, megabytes};
use crate::host::store::{Store, write_atomically};
use crate::registry::{Client, Descriptor, credentials};

/// Manifests of one image and of several, in OCI's words and in Docker's before.
const ACCEPT: &str = "application/vnd.oci.image.index.v1+json, \
                      application/vnd.oci.image.manifest.v1+json, \
                      application/vnd.docker.distribution.manifest.list.v2+json, \
                      application/vnd.docker.distribution.manifest.v2+json";
const HEADER: &str =
    "# Digests of container images, by `iota build`; `iota lock` looks for newer ones.\n";

/// An image of a registry, as it is written behind `docker://`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reference {
    /// Its name, as engines show it: `nginx:1.27`.
    pub name: String,
    repository: Repository,
    /// A tag or a digest.
    version: String,
}

impl Reference {
    /// Reads `[HOST/]NAME[:TAG|@sha256:…]`; a name without a host is one of Docker's own registry.
    pub fn parse(text: &str) -> Option<Self> {
        let name = image_name(text);
        let last = name.rfind('/').map_or(0, |slash| slash + 1);
        let (end, version) = match name[last..].split_once('@') {
            Some((before, digest)) => (last + before.find(':').unwrap_or(before.len()), digest),
            None => name[last..].split_once(':').map(|(it, tag)| (last + it.len(), tag))?,
        };
        let whole = &name[..end];
        if whole.is_empty() {
            return None;
        }
        let is_host = |part: &str| part.contains(['.', ':']) || part == "localhost";
        let (host, path) = match whole.split_once('/') {
            Some((host, path)) if is_host(host) => (host, path.to_owned()),
            Some(_) => ("registry-1.docker.io", whole.to_owned()),
            None => ("registry-1.docker.io", format!("library/{whole}")),
        };
        // As Docker does: what is on this machine needs no TLS.
        let own = host == "localhost" || host.starts_with("localhost:") || host.starts_with("127.");
        let scheme = if own { "oci+http" } else { "oci" };
        let repository = Repository::parse(&format!("{scheme}://{host}/{path}"))?;
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._:".contains(&byte);
        let good = !version.is_empty() && version.bytes().all(plain);
        good.then(|| Self { name: name.clone(), repository, version: version.to_owned() })
    }

    fn digest(&self) -> Option<Digest> {
        Digest::from_hex(self.version.strip_prefix("sha256:")?)
    }
}

/// Where images are fetched to, and by what rules.
pub struct Puller<'a> {
    /// The cache.
    pub store: &'a Store,
    /// Where tags are pinned, if they are.
    pub lock: Option<PathBuf>,
    /// Refuse what is not pinned.
    pub locked: bool,
    /// Use the cache alone.
    pub offline: bool,
    /// Told what goes on.
    pub progress: &'a Progress,
}

impl Puller<'_> {
    /// The same sources, with layouts of the cache in the place of registries.
    pub fn local(&self, sources: &[Source]) -> Result<Vec<Source>> {
        sources.iter().map(|source| self.one(source)).collect()
    }

    fn one(&self, source: &Source) -> Result<Source> {
        let Place::Registry(reference) = &source.place else { return Ok(source.clone()) };
        let failed = || format!("cannot fetch {}", reference.name);
        let digest = self.pinned(reference).context(failed)?;
        let directory = self.store.root().join("images").join(digest.to_string());
        if !directory.join("index.json").exists() {
            if self.offline {
                return Err(Error::new(format!("{} is not in the cache", reference.name))
                    .hint("build once without --offline"));
            }
            self.fetch(reference, &digest, &directory).context(failed)?;
        }
        let name = source.name.clone().unwrap_or_else(|| reference.name.clone());
        Ok(Source { name: Some(name), place: Place::Oci(directory) })
    }

    /// The digest that a reference stands for in this build.
    fn pinned(&self, reference: &Reference) -> Result<Digest> {
        if let Some(digest) = reference.digest() {
            return Ok(digest);
        }
        let Some(lock) = &self.lock else { return resolve(reference) };
        let mut pins = read(lock)?;
        if let Some(digest) = pins.get(&reference.name) {
            return Ok(*digest);
        }
        let shown = lock.file_name().unwrap_or_default().display();
        if self.locked || self.offline {
            let option = if self.locked { "--locked" } else { "--offline" };
            return Err(Error::new(format!("{shown} does not have it"))
                .hint(format!("build once without {option}, which writes it down")));
        }
        let digest = resolve(reference)?;
        pins.insert(reference.name.clone(), digest);
        write(lock, &pins)?;
        self.progress.line(format!("pinned {} in {shown}: sha256:{digest:.12}…", reference.name));
        Ok(digest)
    }

    fn fetch(&self, reference: &Reference, digest: &Digest, directory: &Path) -> Result<()> {
        let blobs = directory.join("blobs/sha256");
        fs::create_dir_all(&blobs).context(|| format!("cannot make {}", blobs.display()))?;
        let client = client(reference)?;
        let mut digest = *digest;
        let mut manifest = document(&client, &digest)?;
        let mut document = parse(&manifest)?;
        if let Some(several) = document["manifests"].as_array() {
            digest = descriptor(for_device(several)?)?.sha256()?;
            manifest = self::document(&client, &digest)?;
            document = parse(&manifest)?;
        }
        write_atomically(&blobs.join(digest.to_string()), &manifest)?;
        let layers = document["layers"].as_array().map(Vec::as_slice).unwrap_or_default();
        let parts = std::iter::once(&document["config"]).chain(layers);
        let parts: Vec<Descriptor> = parts.map(descriptor).collect::<Result<_>>()?;
        let total = parts.iter().map(|part| part.size).sum();
        let task = self.progress.task(format!("fetch {}", reference.name), Unit::Bytes, total);
        for part in &parts {
            let target = blobs.join(part.sha256()?.to_string());
            client.blob_to(part, &target.with_extension("part"), &target, &task)?;
        }
        task.finish(format!("fetched {}: {}", reference.name, megabytes(total)));
        let size = manifest.len();
        let index = json!({ "schemaVersion": 2, "manifests": [{
            "mediaType": document["mediaType"], "digest": format!("sha256:{digest}"), "size": size,
        }]});
        write_atomically(&directory.join("index.json"), index.to_string().as_bytes())
    }
}

/// Looks again what the tags of a lock stand for; what changed, a line each.
pub fn update_lock(lock: &Path) -> Result<Vec<String>> {
    let mut pins = read(lock)?;
    let mut lines = Vec::new();
    for (name, digest) in &mut pins {
        let reference = Reference::parse(name)
            .ok_or_else(|| Error::new(format!("{}: `{name}` is no image", lock.display())))?;
        let now = resolve(&reference).context(|| format!("cannot look for {name}"))?;
        if now != *digest {
            lines.push(format!("changed {name} sha256:{digest:.12}… → sha256:{now:.12}…"));
            *digest = now;
        }
    }
    if !lines.is_empty() {
        write(lock, &pins)?;
    }
    Ok(lines)
}

/// Where the images of a workspace are pinned.
pub fn lock_path(workspace: &Path) -> PathBuf {
    workspace.join("rootfs/images.lock")
}

fn client(reference: &Reference) -> Result<Client> {
    let repository = &reference.repository;
    Ok(Client::new(repository, false, credentials::of(&repository.host)?))
}

fn resolve(reference: &Reference) -> Result<Digest> {
    let found = client(reference)?.manifest_bytes(&reference.version, ACCEPT)?;
    let bytes = found.ok_or_else(|| {
        Error::new(format!("the registry has no {}", reference.name))
            .hint("is the name right, and may this account see it?")
    })?;
    Ok(Digest::of(&bytes))
}

/// A manifest by its digest.
fn document(client: &Client, digest: &Digest) -> Result<Vec<u8>> {
    let name = format!("sha256:{digest}");
    let found = client.manifest_bytes(&name, ACCEPT)?;
    let bytes = found.ok_or_else(|| {
        Error::new(format!("the registry no longer has {name}"))
            .hint("`iota lock` looks what the tag stands for now")
    })?;
    if Digest::of(&bytes) != *digest {
        return Err(Error::new(format!("the registry sends something else for {name}")));
    }
    Ok(bytes)
}

fn descriptor(value: &Value) -> Result<Descriptor> {
    Descriptor::deserialize(value).context(|| "its manifest".to_owned())
}

fn parse(manifest: &[u8]) -> Result<Value> {
    serde_json::from_slice(manifest).context(|| "a manifest is not JSON".to_owned())
}

/// Lines of a name and a digest; none if there is no file.
fn read(lock: &Path) -> Result<BTreeMap<String, Digest>> {
    let text = match fs::read_to_string(lock) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(BTreeMap::new()),
        read => read.context(|| format!("cannot read {}", lock.display()))?,
    };
    let lines = text.lines().enumerate().filter(|(_, line)| !line.starts_with('#'));
    let pin = |(number, line): (usize, &str)| {
        let pin = line.split_once(" sha256:");
        let pin = pin.and_then(|(name, hex)| Some((name.to_owned(), Digest::from_hex(hex)?)));
        pin.ok_or_else(|| {
            let (file, number) = (lock.display(), number + 1);
            Error::new(format!("{file}: line {number} is not `NAME sha256:DIGEST`"))
                .hint("remove it: the next build looks what the tag stands for")
        })
    };
    lines.map(pin).collect()
}

fn write(lock: &Path, pins: &BTreeMap<String, Digest>) -> Result<()> {
    let lines = pins.iter().map(|(name, digest)| format!("{name} sha256:{digest}\n"));
    let text: String = std::iter::once(HEADER.to_owned()).chain(lines).collect();
    write_atomically(lock, text.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reference_is_read_as_docker_reads_it() {
        let read = |text: &str| {
            let it = Reference::parse(text).unwrap_or_else(|| panic!("{text}"));
            (it.name, it.repository.base(), it.version)
        };
        let hub = "https://registry-1.docker.io/v2/library/nginx";
        let digest = format!("sha256:{}", "a".repeat(64));
        let exact = format!("nginx@{digest}");
        for (text, name, base, version) in [
            ("nginx", "nginx:latest", hub, "latest"),
            ("docker.io/library/nginx:1.27", "nginx:1.27", hub, "1.27"),
            ("a/b:1", "a/b:1", "https://registry-1.docker.io/v2/a/b", "1"),
            ("ghcr.io/a/b:1", "ghcr.io/a/b:1", "https://ghcr.io/v2/a/b", "1"),
            ("localhost:5000/b", "localhost:5000/b:latest", "http://localhost:5000/v2/b", "latest"),
            (exact.as_str(), exact.as_str(), hub, digest.as_str()),
        ] {
            assert_eq!(read(text), (name.to_owned(), base.to_owned(), version.to_owned()));
        }
        for text in ["", "A/b", "a b", "a:", "a//b", "ghcr.io/../a"] {
            assert_eq!(Reference::parse(text), None, "{text}");
        }
    }

    #[test]
    fn a_lock_is_read_back_and_a_damaged_line_named() {
        let directory = tempfile::tempdir().unwrap();
        let lock = directory.path().join("images.lock");
        assert!(read(&lock).unwrap().is_empty());
        let pins: BTreeMap<_, _> = [("b:1", "x"), ("a:2", "y")]
            .map(|(name, text)| (name.to_owned(), Digest::of(text.as_bytes())))
            .into();
        write(&lock, &pins).unwrap();
        assert_eq!(read(&lock).unwrap(), pins);
        fs::write(&lock, format!("{HEADER}a:2 sha256:12\n")).unwrap();
        assert!(read(&lock).unwrap_err().chain().contains("line 2"));
    }
}
