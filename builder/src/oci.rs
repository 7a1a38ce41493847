//! A container image made from a tree: one tar that is an OCI image layout and a docker archive.
//!
//! Both descriptions lie over the same blobs, so that Docker's `/images/load` (which reads
//! `manifest.json`) and tools that read OCI layouts (`index.json`) take the same file:
//!
//! ```text
//! manifest.json              docker archive: config, layers, name:tag. First, so that the
//!                            device finds the image's id without reading the layers
//! index.json                 OCI: points to the manifest
//! oci-layout                 OCI: marks the directory as a layout
//! blobs/sha256/<config>      architecture, command, environment; its digest is the image id
//! blobs/sha256/<layer>       the tree as a plain tar
//! blobs/sha256/<manifest>    OCI manifest: config and layer with their sizes
//! ```
//!
//! Guarantees: the same input gives the same bytes (sorted, fixed times, no user names).
//! The layer is not compressed: the root file system that carries the image already is.
//! Specifications: OCI image-spec 1.1 (layout, manifest, config, layer), Docker image spec 1.2.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use config::registry::MANIFEST_TYPE;
use serde::Serialize;
use sha2::{Digest as _, Sha256};
use tar::{EntryType, Header};

use crate::error::{Context, Error, Result};
use crate::hex;
use crate::tree::{Content, Kind, Node, Tree, TreePath};

const INDEX_TYPE: &str = "application/vnd.oci.image.index.v1+json";
const CONFIG_TYPE: &str = "application/vnd.oci.image.config.v1+json";
const LAYER_TYPE: &str = "application/vnd.oci.image.layer.v1.tar";

/// The one time in every image: a build has no clock, and zero shows that none was meant.
const CREATED: &str = "1970-01-01T00:00:00Z";

/// A container image to be made.
#[derive(Clone, Copy, Debug)]
pub struct Image<'a> {
    /// Repository name, for example `iota/hello`.
    pub name: &'a str,
    /// Tag, for example `1.0`.
    pub tag: &'a str,
    /// What runs it.
    pub architecture: Architecture,
    /// The container's root file system.
    pub tree: &'a Tree,
    /// Program and arguments that a container of this image runs unless told otherwise.
    pub command: &'a [&'a str],
    /// Environment, sorted by name when written.
    pub environment: &'a BTreeMap<String, String>,
}

/// A finished image.
#[derive(Clone, Debug)]
pub struct Archive {
    /// The tar file.
    pub bytes: Vec<u8>,
    /// `sha256:HEX` of the config: the id under which an engine knows the image.
    pub id: String,
    /// `sha256:HEX` of the OCI manifest: what a registry would call it.
    pub manifest_digest: String,
}

/// Machine types, by the names that OCI uses (those of Go).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Architecture {
    /// 64-bit ARM.
    Arm64,
    /// 64-bit x86.
    Amd64,
}

impl Image<'_> {
    /// Makes the archive.
    pub fn build(&self) -> Result<Archive> {
        let what = || format!("container image {}:{}", self.name, self.tag);
        self.check().context(what)?;
        let layer = Blob::new(LAYER_TYPE, layer(self.tree).context(what)?);
        let config = Blob::json(CONFIG_TYPE, &self.config(&layer))?;
        let manifest = Manifest {
            schema_version: 2,
            media_type: MANIFEST_TYPE,
            config: config.descriptor(),
            layers: [layer.descriptor()],
        };
        let manifest = Blob::json(MANIFEST_TYPE, &manifest)?;
        let bytes = self.pack(&config, &layer, &manifest).context(what)?;
        Ok(Archive { bytes, id: config.digest(), manifest_digest: manifest.digest() })
    }

    /// Refuses here what an engine would refuse on the device.
    fn check(&self) -> Result<()> {
        if !is_name(self.name) {
            return Err(Error::new(format!("`{}` is not an image name", self.name))
                .hint("use lower-case letters, digits and . _ - between slashes"));
        }
        if !is_tag(self.tag) {
            return Err(Error::new(format!("`{}` is not an image tag", self.tag))
                .hint("use at most 128 letters, digits and . _ -, not starting with . or -"));
        }
        if self.command.first().is_none_or(|program| program.is_empty()) {
            return Err(Error::new("the command is empty"));
        }
        Ok(())
    }

    fn config(&self, layer: &Blob) -> Config<'_> {
        let (architecture, variant) = self.architecture.names();
        Config {
            created: CREATED,
            architecture,
            variant,
            os: "linux",
            config: RunConfig {
                environment: self
                    .environment
                    .iter()
                    .map(|(name, value)| format!("{name}={value}"))
                    .collect(),
                command: self.command,
            },
            rootfs: RootFs { kind: "layers", diff_ids: [layer.digest()] },
            history: [History { created: CREATED, created_by: "iota build" }],
        }
    }

    fn pack(&self, config: &Blob, layer: &Blob, manifest: &Blob) -> Result<Vec<u8>> {
        let archive_manifest = [ArchiveManifest {
            config: config.path(),
            repo_tags: [format!("{}:{}", self.name, self.tag)],
            layers: [layer.path()],
        }];
        let index = Index {
            schema_version: 2,
            media_type: INDEX_TYPE,
            manifests: [Descriptor {
                annotations: Some(self.reference()),
                ..manifest.descriptor()
            }],
        };
        let mut tar = Writer::default();
        tar.file("manifest.json", &json(&archive_manifest)?)?;
        tar.file("index.json", &json(&index)?)?;
        tar.file("oci-layout", br#"{"imageLayoutVersion":"1.0.0"}"#)?;
        tar.directory("blobs/")?;
        tar.directory("blobs/sha256/")?;
        let mut blobs = [config, layer, manifest];
        blobs.sort_by_key(|blob| blob.hash);
        for blob in blobs {
            tar.file(&blob.path(), &blob.bytes)?;
        }
        tar.finish()
    }

    /// How tools find the name in an OCI layout: the specification's tag, containerd's full name.
    fn reference(&self) -> BTreeMap<&'static str, String> {
        // A name without a host means Docker's registry, in its short form too.
        let full = match self.name.split_once('/') {
            None => format!("docker.io/library/{}:{}", self.name, self.tag),
            Some((host, _)) if host.contains(['.', ':']) => format!("{}:{}", self.name, self.tag),
            Some(_) => format!("docker.io/{}:{}", self.name, self.tag),
        };
        BTreeMap::from([
            ("io.containerd.image.name", full),
            ("org.opencontainers.image.ref.name", self.tag.to_owned()),
        ])
    }
}

impl Architecture {
    fn names(self) -> (&'static str, Option<&'static str>) {
        match self {
            Self::Arm64 => ("arm64", Some("v8")),
            Self::Amd64 => ("amd64", None),
        }
    }
}

/// The tree of a container that holds only busybox: the program, a link for each applet, and the
/// few files that programs look for.
pub fn busybox_tree(busybox: Content, applets: &[&str]) -> Result<Tree> {
    const ORIGIN: &str = "busybox-static";
    let mut tree = Tree::new();
    for (path, mode) in [("dev", 0o755), ("proc", 0o755), ("sys", 0o755), ("tmp", 0o1777)] {
        tree.insert(TreePath::new(path)?, Node::new(Kind::Directory, mode, ORIGIN))?;
    }
    for (path, text) in
        [("etc/group", "root:x:0:\n"), ("etc/passwd", "root:x:0:0:root:/root:/bin/sh\n")]
    {
        tree.insert(
            TreePath::new(path)?,
            Node::file(Content::bytes(text.as_bytes()), 0o644, ORIGIN),
        )?;
    }
    tree.insert(TreePath::new("root")?, Node::new(Kind::Directory, 0o700, ORIGIN))?;
    tree.insert(TreePath::new("bin/busybox")?, Node::file(busybox, 0o755, ORIGIN))?;
    for applet in applets {
        tree.insert(TreePath::new("bin")?.join(applet)?, Node::symlink("busybox", ORIGIN))?;
    }
    Ok(tree)
}

/// The tree as a layer: every node but the root, parents first, numeric owners, time zero.
fn layer(tree: &Tree) -> Result<Vec<u8>> {
    let mut tar = Writer::default();
    for (path, node) in tree.iter().filter(|(path, _)| !path.is_root()) {
        tar.node(path, node)
            .context(|| format!("cannot write {} into the layer", path.display()))?;
    }
    tar.finish()
}

/// Writes a reproducible tar into memory.
struct Writer {
    tar: tar::Builder<Vec<u8>>,
}

impl Default for Writer {
    fn default() -> Self {
        Self { tar: tar::Builder::new(Vec::new()) }
    }
}

impl Writer {
    fn file(&mut self, path: &str, bytes: &[u8]) -> Result<()> {
        let mut header = header(EntryType::Regular, 0o644);
        header.set_size(bytes.len() as u64);
        self.tar.append_data(&mut header, path, bytes).context(|| format!("cannot add {path}"))
    }

    fn directory(&mut self, path: &str) -> Result<()> {
        let mut header = header(EntryType::Directory, 0o755);
        let empty = io::empty();
        self.tar.append_data(&mut header, path, empty).context(|| format!("cannot add {path}"))
    }

    fn node(&mut self, path: &TreePath, node: &Node) -> Result<()> {
        let what = || "bad entry".to_owned();
        let mut header = header(entry_type(&node.kind), u32::from(node.mode));
        header.set_uid(node.uid.into());
        header.set_gid(node.gid.into());
        self.xattrs(node)?;
        let name = as_path(path.as_bytes());
        match &node.kind {
            Kind::File(content) => {
                let bytes = content.read()?;
                header.set_size(bytes.len() as u64);
                self.tar.append_data(&mut header, name, &*bytes).context(what)
            }
            Kind::Directory => {
                let name = [path.as_bytes(), b"/"].concat();
                self.tar.append_data(&mut header, as_path(&name), io::empty()).context(what)
            }
            Kind::Symlink(target) => {
                self.tar.append_link(&mut header, name, as_path(target)).context(what)
            }
            Kind::HardLink(target) => {
                self.tar.append_link(&mut header, name, as_path(target.as_bytes())).context(what)
            }
            Kind::CharDevice { major, minor } | Kind::BlockDevice { major, minor } => {
                header.set_device_major(*major).context(what)?;
                header.set_device_minor(*minor).context(what)?;
                self.tar.append_data(&mut header, name, io::empty()).context(what)
            }
            Kind::Fifo => self.tar.append_data(&mut header, name, io::empty()).context(what),
        }
    }

    /// Extended attributes go into a record before the entry, under the names that GNU tar,
    /// libarchive and Go's tar share.
    fn xattrs(&mut self, node: &Node) -> Result<()> {
        let mut records = Vec::with_capacity(node.xattrs.len());
        for (name, value) in &node.xattrs {
            let name = std::str::from_utf8(name)
                .context(|| format!("attribute name `{}`", name.escape_ascii()))?;
            records.push((format!("SCHILY.xattr.{name}"), value.as_slice()));
        }
        let records = records.iter().map(|(name, value)| (name.as_str(), *value));
        self.tar.append_pax_extensions(records).context(|| "cannot add attributes".to_owned())
    }

    fn finish(self) -> Result<Vec<u8>> {
        self.tar.into_inner().context(|| "cannot finish the archive".to_owned())
    }
}

pub(crate) fn header(kind: EntryType, mode: u32) -> Header {
    let mut header = Header::new_ustar();
    header.set_entry_type(kind);
    header.set_mode(mode);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
    header.set_size(0);
    header
}

fn entry_type(kind: &Kind) -> EntryType {
    match kind {
        Kind::Directory => EntryType::Directory,
        Kind::File(_) => EntryType::Regular,
        Kind::Symlink(_) => EntryType::Symlink,
        Kind::HardLink(_) => EntryType::Link,
        Kind::CharDevice { .. } => EntryType::Char,
        Kind::BlockDevice { .. } => EntryType::Block,
        Kind::Fifo => EntryType::Fifo,
    }
}

fn as_path(bytes: &[u8]) -> &Path {
    Path::new(OsStr::from_bytes(bytes))
}

/// Repository names as engines accept them: parts of lower-case letters and digits, joined by
/// single `.`, `_` or any number of `-`, or by `__`; the first part may be a host with a port.
fn is_name(name: &str) -> bool {
    let part = |part: &str| {
        let bytes = part.as_bytes();
        let word = |byte: &u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
        bytes.first().is_some_and(word)
            && bytes.last().is_some_and(word)
            && bytes.iter().all(|byte| word(byte) || b"._-".contains(byte))
            && !["..", "._", "_.", ".-", "-.", "_-", "-_", "___"]
                .iter()
                .any(|bad| part.contains(bad))
    };
    let (host, rest) = match name.split_once('/') {
        Some((host, rest)) if host.contains(':') => (Some(host), rest),
        _ => (None, name),
    };
    let host_is_fine = host.and_then(|host| host.split_once(':')).is_none_or(|(host, port)| {
        part(host) && (1..=5).contains(&port.len()) && port.bytes().all(|b| b.is_ascii_digit())
    });
    host_is_fine && name.len() <= 255 && rest.split('/').all(part)
}

fn is_tag(tag: &str) -> bool {
    let word = |byte: &u8| byte.is_ascii_alphanumeric() || *byte == b'_';
    tag.len() <= 128
        && tag.as_bytes().first().is_some_and(word)
        && tag.as_bytes().iter().all(|byte| word(byte) || b".-".contains(byte))
}

/// Bytes that are known by their hash.
struct Blob {
    media_type: &'static str,
    bytes: Vec<u8>,
    hash: [u8; 32],
}

impl Blob {
    fn new(media_type: &'static str, bytes: Vec<u8>) -> Self {
        let hash = Sha256::digest(&bytes).into();
        Self { media_type, bytes, hash }
    }

    fn json(media_type: &'static str, value: &impl Serialize) -> Result<Self> {
        Ok(Self::new(media_type, json(value)?))
    }

    fn digest(&self) -> String {
        format!("sha256:{}", hex::encode(self.hash))
    }

    fn path(&self) -> String {
        format!("blobs/sha256/{}", hex::encode(self.hash))
    }

    fn descriptor(&self) -> Descriptor {
        Descriptor {
            media_type: self.media_type,
            digest: self.digest(),
            size: self.bytes.len(),
            annotations: None,
        }
    }
}

fn json(value: &impl Serialize) -> Result<Vec<u8>> {
    serde_json::to_vec(value).context(|| "cannot write JSON".to_owned())
}

// The documents, with the fields in the order in which they are written.

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Descriptor {
    media_type: &'static str,
    digest: String,
    size: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    annotations: Option<BTreeMap<&'static str, String>>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Manifest {
    schema_version: u32,
    media_type: &'static str,
    config: Descriptor,
    layers: [Descriptor; 1],
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Index {
    schema_version: u32,
    media_type: &'static str,
    manifests: [Descriptor; 1],
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct ArchiveManifest {
    config: String,
    repo_tags: [String; 1],
    layers: [String; 1],
}

#[derive(Serialize)]
struct Config<'a> {
    created: &'static str,
    architecture: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    variant: Option<&'static str>,
    os: &'static str,
    config: RunConfig<'a>,
    rootfs: RootFs,
    history: [History; 1],
}

#[derive(Serialize)]
struct RunConfig<'a> {
    #[serde(rename = "Env")]
    environment: Vec<String>,
    #[serde(rename = "Cmd")]
    command: &'a [&'a str],
}

#[derive(Serialize)]
struct RootFs {
    #[serde(rename = "type")]
    kind: &'static str,
    diff_ids: [String; 1],
}

#[derive(Serialize)]
struct History {
    created: &'static str,
    created_by: &'static str,
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;

    use expect_test::expect;
    use serde_json::Value;

    use super::*;

    fn sample_tree() -> Tree {
        let mut tree = busybox_tree(Content::bytes(*b"\x7fELF pretend"), &["sh", "echo"]).unwrap();
        let path = |text: &str| TreePath::new(text).unwrap();
        let mut ping = Node::file(Content::bytes(*b"p"), 0o755, "t");
        ping.uid = 1000;
        ping.gid = 3_000_000; // more than the seven octal digits of a ustar field
        ping.xattrs.insert(b"security.capability".to_vec(), vec![1, 0, 0, 2, 0xff]);
        tree.insert(path("bin/ping"), ping).unwrap();
        let link = Node::new(Kind::HardLink(path("bin/ping")), 0o755, "t");
        tree.insert(path("bin/ping4"), link).unwrap();
        let null = Kind::CharDevice { major: 1, minor: 3 };
        tree.insert(path("dev/null"), Node::new(null, 0o666, "t")).unwrap();
        let long = path(&format!("{}/{}", "d".repeat(90), "f".repeat(180)));
        tree.insert(long, Node::file(Content::bytes(*b"long"), 0o600, "t")).unwrap();
        tree
    }

    fn sample(tree: &Tree) -> Archive {
        let environment = BTreeMap::from([("PATH".to_owned(), "/bin".to_owned())]);
        let image = Image {
            name: "iota/hello",
            tag: "1.0",
            architecture: Architecture::Arm64,
            tree,
            command: &["/bin/echo", "hello"],
            environment: &environment,
        };
        image.build().unwrap()
    }

    fn files(tar: &[u8]) -> BTreeMap<String, Vec<u8>> {
        let mut files = BTreeMap::new();
        for entry in tar::Archive::new(tar).entries().unwrap() {
            let mut entry = entry.unwrap();
            let mut bytes = Vec::new();
            entry.read_to_end(&mut bytes).unwrap();
            let path = entry.path().unwrap().to_str().unwrap().to_owned();
            assert!(files.insert(path, bytes).is_none(), "no path comes twice");
        }
        files
    }

    fn blob<'a>(files: &'a BTreeMap<String, Vec<u8>>, digest: &Value) -> &'a [u8] {
        let hash = digest.as_str().unwrap().strip_prefix("sha256:").unwrap();
        let bytes = &files[&format!("blobs/sha256/{hash}")];
        assert_eq!(hex::encode(Sha256::digest(bytes)), hash, "a blob is what its name says");
        bytes
    }

    #[test]
    fn both_descriptions_lead_to_the_same_config_and_layer() {
        let archive = sample(&sample_tree());
        let files = files(&archive.bytes);
        let index: Value = serde_json::from_slice(&files["index.json"]).unwrap();
        let manifest = blob(&files, &index["manifests"][0]["digest"]);
        assert_eq!(index["manifests"][0]["size"], manifest.len());
        assert_eq!(index["manifests"][0]["digest"], archive.manifest_digest);
        let manifest: Value = serde_json::from_slice(manifest).unwrap();
        let config = blob(&files, &manifest["config"]["digest"]);
        assert_eq!(manifest["config"]["size"], config.len());
        assert_eq!(manifest["config"]["digest"], archive.id);
        let config: Value = serde_json::from_slice(config).unwrap();
        let layer = blob(&files, &manifest["layers"][0]["digest"]);
        assert_eq!(manifest["layers"][0]["size"], layer.len());
        assert_eq!(config["rootfs"]["diff_ids"][0], manifest["layers"][0]["digest"]);

        let docker: Value = serde_json::from_slice(&files["manifest.json"]).unwrap();
        let path = |digest: &Value| digest.as_str().unwrap().replace("sha256:", "blobs/sha256/");
        assert_eq!(docker[0]["Config"], path(&manifest["config"]["digest"]));
        assert_eq!(docker[0]["Layers"][0], path(&manifest["layers"][0]["digest"]));
        assert_eq!(docker[0]["RepoTags"][0], "iota/hello:1.0");
        assert_eq!(files["oci-layout"], br#"{"imageLayoutVersion":"1.0.0"}"#);
    }

    #[test]
    fn documents_read_as_pinned() {
        let archive = sample(&sample_tree());
        let files = files(&archive.bytes);
        let text = |digest: &str| {
            let value: Value = serde_json::from_slice(blob(&files, &digest.into())).unwrap();
            let mut text = serde_json::to_string_pretty(&value).unwrap();
            while let Some(at) = text.find("sha256:") {
                // Enough of a digest to tell it from others, within the width of a line.
                text.replace_range(at..at + 71, &format!("sha-256 {}", &text[at + 7..at + 19]));
            }
            text
        };
        expect![[r#"
            {
              "architecture": "arm64",
              "config": {
                "Cmd": [
                  "/bin/echo",
                  "hello"
                ],
                "Env": [
                  "PATH=/bin"
                ]
              },
              "created": "1970-01-01T00:00:00Z",
              "history": [
                {
                  "created": "1970-01-01T00:00:00Z",
                  "created_by": "iota build"
                }
              ],
              "os": "linux",
              "rootfs": {
                "diff_ids": [
                  "sha-256 16e4cd0eac2d"
                ],
                "type": "layers"
              },
              "variant": "v8"
            }"#]]
        .assert_eq(&text(&archive.id));
        expect![[r#"
            {
              "config": {
                "digest": "sha-256 e8b3146106e5",
                "mediaType": "application/vnd.oci.image.config.v1+json",
                "size": 331
              },
              "layers": [
                {
                  "digest": "sha-256 16e4cd0eac2d",
                  "mediaType": "application/vnd.oci.image.layer.v1.tar",
                  "size": 14336
                }
              ],
              "mediaType": "application/vnd.oci.image.manifest.v1+json",
              "schemaVersion": 2
            }"#]]
        .assert_eq(&text(&archive.manifest_digest));
    }

    #[test]
    fn the_layer_reads_back_as_the_tree() {
        let bytes = layer(&sample_tree()).unwrap();
        let mut text = String::new();
        for entry in tar::Archive::new(&bytes[..]).entries().unwrap() {
            let mut entry = entry.unwrap();
            let mut attributes = String::new();
            for record in entry.pax_extensions().unwrap().into_iter().flatten() {
                let record = record.unwrap();
                let name = record.key().unwrap().strip_prefix("SCHILY.xattr.").unwrap();
                let value = record.value_bytes().escape_ascii();
                attributes.push_str(&format!(" {name}={value}"));
            }
            let header = entry.header();
            assert_eq!(header.mtime().unwrap(), 0);
            text.push_str(&format!(
                "{:?} {:04o} {}:{} {} {}{}{attributes}\n",
                header.entry_type(),
                header.mode().unwrap(),
                header.uid().unwrap(),
                header.gid().unwrap(),
                header.size().unwrap(),
                entry
                    .path()
                    .unwrap()
                    .to_str()
                    .unwrap()
                    .replace(&"d".repeat(90), "d{90}")
                    .replace(&"f".repeat(180), "f{180}"),
                entry
                    .link_name()
                    .unwrap()
                    .map(|target| format!(" -> {}", target.display()))
                    .unwrap_or_default(),
            ));
        }
        expect![[r#"
            Directory 0755 0:0 0 bin/
            Regular 0755 0:0 12 bin/busybox
            Symlink 0777 0:0 0 bin/echo -> busybox
            Regular 0755 1000:3000000 1 bin/ping security.capability=\x01\x00\x00\x02\xff
            Link 0755 0:0 0 bin/ping4 -> bin/ping
            Symlink 0777 0:0 0 bin/sh -> busybox
            Directory 0755 0:0 0 d{90}/
            Regular 0600 0:0 4 d{90}/f{180}
            Directory 0755 0:0 0 dev/
            Char 0666 0:0 0 dev/null
            Directory 0755 0:0 0 etc/
            Regular 0644 0:0 10 etc/group
            Regular 0644 0:0 30 etc/passwd
            Directory 0755 0:0 0 proc/
            Directory 0700 0:0 0 root/
            Directory 0755 0:0 0 sys/
            Directory 1777 0:0 0 tmp/
        "#]]
        .assert_eq(&text);
    }

    #[test]
    fn the_same_input_gives_the_pinned_bytes() {
        let archive = sample(&sample_tree());
        assert_eq!(archive.bytes, sample(&sample_tree()).bytes);
        expect!["3ae806a4308e5090c0b144d4abf4ed4db6b838f241fade6e96ce56f2c3ce20cb"]
            .assert_eq(&hex::encode(Sha256::digest(&archive.bytes)));
    }

    #[test]
    fn the_id_stands_in_the_first_file_so_that_the_device_need_not_read_on() {
        let archive = sample(&sample_tree());
        let mut tar = tar::Archive::new(&archive.bytes[..]);
        let first = tar.entries().unwrap().next().unwrap().unwrap();
        assert_eq!(first.path().unwrap(), Path::new("manifest.json"));
    }

    #[test]
    fn names_and_tags_that_an_engine_refuses_are_refused_here() {
        for name in ["hello", "iota/hello", "a.b/c_d/e--f", "localhost:5000/x", "a__b"] {
            assert!(is_name(name), "{name}");
        }
        for name in ["", "Hello", "a//b", "/a", "a/", "a..b", "-a", "a_", "a:b", "h:x/y", "ü"] {
            assert!(!is_name(name), "{name}");
        }
        for (tag, fine) in [("1.0", true), ("_x", true), ("", false), (".1", false), ("a:b", false)]
        {
            assert_eq!(is_tag(tag), fine, "{tag}");
        }
    }

    #[test]
    fn an_empty_command_is_an_error_that_names_the_image() {
        let tree = Tree::new();
        let environment = BTreeMap::new();
        let image = Image {
            name: "x",
            tag: "1",
            architecture: Architecture::Amd64,
            tree: &tree,
            command: &[],
            environment: &environment,
        };
        let error = image.build().unwrap_err();
        assert_eq!(error.chain(), "container image x:1: the command is empty");
    }
}
