//! A client of container registries: manifests and blobs, both ways (OCI distribution spec 1.1).
//!
//! Written here over the HTTP library that downloads use anyway: what it needs are six requests,
//! and the crates that know them bring an asynchronous runtime and a second HTTP library with them.
//!
//! Guarantees: a blob gets its name only when its bytes have its digest; what a registry has is not
//! sent again; an upload that breaks off goes on where the registry says that it stopped, or begins
//! anew where it says that it does not know (docker-registry, in the middle of a slice). Passwords
//! come from Docker's own file and are sent to the registry that they are for, or to whom it names
//! for tokens.
//!
//! Reading order: [`credentials`] → [`Client`].

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read, Seek as _, SeekFrom};
use std::path::Path;
use std::sync::Mutex;
use std::thread;
use std::time::Duration;

pub use config::registry::{MANIFEST_TYPE, TITLE};

use config::registry::Repository;
use ondisk::digest::Digest;
use serde::{Deserialize, Serialize};
use ureq::http::{Response, header};
use ureq::{Agent, Body};

use crate::error::{Context, Error, Result};
use crate::host::fetch::Expected;
use crate::host::progress::Task;

pub mod credentials;
mod requests;

/// A config without anything in it: the specification's "empty descriptor".
pub const EMPTY_TYPE: &str = "application/vnd.oci.empty.v1+json";

const MOST_MANIFEST_BYTES: u64 = 4 << 20;
/// What is sent at a time: what is lost when a connection breaks.
const SLICE_BYTES: usize = 8 << 20;
const ATTEMPTS: u32 = 4;
const FIRST_PAUSE: Duration = Duration::from_millis(300);
/// Longest wait for a connection, and for an answer to begin: a registry looks at a blob first.
const CONNECT: Duration = Duration::from_secs(20);
const ANSWER: Duration = Duration::from_secs(120);

/// A blob as a manifest names it.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct Descriptor {
    /// What it is.
    pub media_type: String,
    /// `sha256:HEX`.
    pub digest: String,
    /// Length in bytes.
    pub size: u64,
    /// Notes.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
}

impl Descriptor {
    /// Of bytes that are known.
    pub fn of(media_type: &str, digest: &Digest, size: u64) -> Self {
        let (media_type, digest) = (media_type.to_owned(), format!("sha256:{digest}"));
        Self { media_type, digest, size, annotations: BTreeMap::new() }
    }

    /// The digest, if it is one that this client knows.
    pub fn sha256(&self) -> Result<Digest> {
        let hex = self.digest.strip_prefix("sha256:").and_then(Digest::from_hex);
        hex.ok_or_else(|| {
            Error::new(format!("`{}` is no SHA-256 digest", self.digest.escape_debug()))
        })
    }
}

/// What a tag points at.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct Manifest {
    /// 2.
    pub schema_version: u32,
    /// [`MANIFEST_TYPE`].
    #[serde(default)]
    pub media_type: String,
    /// What kind of thing this is, if it is no image.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub artifact_type: Option<String>,
    /// The config.
    pub config: Descriptor,
    /// Layers of an image, or files.
    pub layers: Vec<Descriptor>,
}

/// A repository of a registry.
pub struct Client {
    agent: Agent,
    /// `https://HOST/v2/REPOSITORY`.
    base: String,
    scope: String,
    authorization: Mutex<Option<String>>,
    basic: Option<String>,
    shown: String,
}

impl Client {
    /// For a repository, to read and to write or only to read, with the `Authorization` header of
    /// somebody who has logged in ([`credentials`]).
    pub fn new(repository: &Repository, writes: bool, basic: Option<String>) -> Self {
        let agent = Agent::config_builder()
            .http_status_as_error(false)
            .user_agent(concat!("iota/", env!("CARGO_PKG_VERSION")))
            .timeout_connect(Some(CONNECT))
            .timeout_recv_response(Some(ANSWER))
            .build()
            .new_agent();
        let actions = if writes { "pull,push" } else { "pull" };
        Self {
            agent,
            base: repository.base(),
            scope: format!("repository:{}:{actions}", repository.name),
            authorization: Mutex::default(),
            basic,
            shown: format!("{}/{}", repository.host, repository.name),
        }
    }

    /// The manifest of a tag or digest, its bytes as they are, if there is one.
    pub fn manifest_bytes(&self, name: &str, accept: &str) -> Result<Option<Vec<u8>>> {
        let url = format!("{}/manifests/{name}", self.base);
        let mut response =
            self.call("read", |agent| agent.get(&url).header(header::ACCEPT, accept))?;
        match response.status().as_u16() {
            200 => {}
            404 => return Ok(None),
            status => return Err(self.refused("read", name, status, &mut response)),
        }
        let mut bytes = Vec::new();
        let body = response.body_mut().with_config().limit(u64::MAX).reader();
        body.take(MOST_MANIFEST_BYTES + 1)
            .read_to_end(&mut bytes)
            .context(|| format!("cannot read {name} of {}", self.shown))?;
        if bytes.len() as u64 > MOST_MANIFEST_BYTES {
            return Err(Error::new(format!("the manifest {name} of {} is too long", self.shown)));
        }
        Ok(Some(bytes))
    }

    /// The manifest of a tag, if there is one.
    pub fn manifest(&self, tag: &str) -> Result<Option<Manifest>> {
        let Some(bytes) = self.manifest_bytes(tag, MANIFEST_TYPE)? else { return Ok(None) };
        let parsed = serde_json::from_slice(&bytes);
        parsed.map(Some).context(|| format!("{tag} of {} is no OCI manifest", self.shown))
    }

    /// Lets a tag point at a manifest.
    pub fn put_manifest(&self, tag: &str, manifest: &Manifest) -> Result<()> {
        let bytes = serde_json::to_vec(manifest).context(|| "cannot write JSON".to_owned())?;
        self.put_document(tag, &manifest.media_type, &bytes)
    }

    /// The same for manifests of any kind.
    pub fn put_document(&self, tag: &str, media_type: &str, bytes: &[u8]) -> Result<()> {
        let url = format!("{}/manifests/{tag}", self.base);
        let mut response = self.send("write", bytes, |agent| {
            agent.put(&url).header(header::CONTENT_TYPE, media_type)
        })?;
        match response.status().as_u16() {
            200..=299 => Ok(()),
            status => Err(self.refused("write", tag, status, &mut response)),
        }
    }

    /// A small blob into memory.
    pub fn blob(&self, descriptor: &Descriptor, most: u64) -> Result<Vec<u8>> {
        let wanted = descriptor.sha256()?;
        let url = format!("{}/blobs/{}", self.base, descriptor.digest);
        let read = self.fetcher(&url)?.bytes(&url, most.min(descriptor.size));
        let bytes = read.map_err(|failure| failure.into_error(&url))?;
        if Digest::of(&bytes) != wanted {
            return Err(Error::new(format!(
                "{}: its bytes have another digest",
                descriptor.digest
            )));
        }
        Ok(bytes)
    }

    /// A blob into a file; `part` keeps what has arrived when it breaks off.
    pub fn blob_to(
        &self,
        descriptor: &Descriptor,
        part: &Path,
        target: &Path,
        task: &Task,
    ) -> Result<()> {
        let expected = Expected { size: descriptor.size, sha256: &descriptor.sha256()? };
        let url = format!("{}/blobs/{}", self.base, descriptor.digest);
        let fetched = self.fetcher(&url)?.file(&url, part, target, &expected, task);
        fetched.map_err(|failure| failure.into_error(&url))
    }

    /// Sends a blob unless it is there; whether it had to be sent.
    pub fn put_blob(
        &self,
        descriptor: &Descriptor,
        bytes: &mut dyn Source,
        task: &Task,
    ) -> Result<bool> {
        let url = format!("{}/blobs/{}", self.base, descriptor.digest);
        let there = self.call("ask for", |agent| agent.head(&url))?;
        if there.status().as_u16() == 200 {
            task.add(descriptor.size);
            return Ok(false);
        }
        let mut location = self.begin_upload()?;
        let mut sent = 0;
        let mut failed = 0;
        while sent < descriptor.size {
            match self.send_slice(&location, bytes, sent, descriptor.size) {
                Ok((next, to)) => {
                    task.add(to - sent);
                    (location, sent, failed) = (next, to, 0);
                }
                Err(error) => {
                    failed += 1;
                    if failed >= ATTEMPTS {
                        return Err(error);
                    }
                    thread::sleep(FIRST_PAUSE * 2_u32.pow(failed - 1));
                    let (next, to) = match self.where_it_stopped(&location) {
                        Ok(known) => known,
                        Err(_) => (self.begin_upload()?, 0),
                    };
                    failed = if to > sent { 0 } else { failed };
                    task.take_back(sent.saturating_sub(to));
                    task.add(to.saturating_sub(sent));
                    (location, sent) = (next, to);
                }
            }
        }
        let end = with_query(&location, &format!("digest={}", descriptor.digest));
        let mut response = self.send("end an upload to", &[], |agent| agent.put(&end))?;
        match response.status().as_u16() {
            200..=299 => Ok(true),
            status => Err(self.refused("write", &descriptor.digest, status, &mut response)),
        }
    }

    fn begin_upload(&self) -> Result<String> {
        let url = format!("{}/blobs/uploads/", self.base);
        let mut response = self.send("begin an upload to", &[], |agent| agent.post(&url))?;
        match response.status().as_u16() {
            202 => self.location(&response),
            status => Err(self.refused("write", "a blob", status, &mut response)),
        }
    }

    /// Sends the bytes from `from` on; where to go on, and how far it has come.
    fn send_slice(
        &self,
        location: &str,
        bytes: &mut dyn Source,
        from: u64,
        total: u64,
    ) -> Result<(String, u64)> {
        let room = SLICE_BYTES.min(usize::try_from(total - from).unwrap_or(SLICE_BYTES));
        let mut slice = vec![0; room];
        bytes.read_at(from, &mut slice).context(|| "cannot read what is sent".to_owned())?;
        let to = from + room as u64;
        let mut response = self.send("send to", &slice, |agent| {
            agent
                .patch(location)
                .header(header::CONTENT_TYPE, "application/octet-stream")
                .header(header::CONTENT_RANGE, format!("{from}-{}", to - 1))
        })?;
        match response.status().as_u16() {
            202 => Ok((self.location(&response)?, to)),
            status => Err(self.refused("write", "a blob", status, &mut response)),
        }
    }

    /// Of an upload that broke off.
    fn where_it_stopped(&self, location: &str) -> Result<(String, u64)> {
        let mut response = self.call("ask", |agent| agent.get(location))?;
        if response.status().as_u16() != 204 {
            let status = response.status().as_u16();
            return Err(self.refused("go on with", "an upload", status, &mut response));
        }
        let range = response.headers().get(header::RANGE).and_then(|value| value.to_str().ok());
        // `0-0` stands for nothing, and for one byte, which is sent again then.
        let last = range.and_then(|range| range.rsplit_once('-')?.1.parse::<u64>().ok());
        let to = last.filter(|last| *last > 0).map_or(0, |last| last + 1);
        Ok((self.location(&response)?, to))
    }

    /// Where an upload goes on; addresses may be given without their host.
    fn location(&self, response: &Response<Body>) -> Result<String> {
        let value = response.headers().get(header::LOCATION).and_then(|value| value.to_str().ok());
        let value = value.ok_or_else(|| {
            Error::new(format!("{} does not say where an upload goes on", self.shown))
        })?;
        if !value.starts_with('/') {
            return Ok(value.to_owned());
        }
        let host_end = self.base.find("/v2/").unwrap_or(self.base.len());
        Ok(format!("{}{value}", &self.base[..host_end]))
    }
}

/// Bytes to send, perhaps twice.
pub trait Source {
    /// Reads all of `buffer` from a place.
    fn read_at(&mut self, from: u64, buffer: &mut [u8]) -> io::Result<()>;
}

impl Source for File {
    fn read_at(&mut self, from: u64, buffer: &mut [u8]) -> io::Result<()> {
        self.seek(SeekFrom::Start(from))?;
        self.read_exact(buffer)
    }
}

impl Source for &[u8] {
    fn read_at(&mut self, from: u64, buffer: &mut [u8]) -> io::Result<()> {
        let mut cursor = io::Cursor::new(*self);
        cursor.set_position(from);
        cursor.read_exact(buffer)
    }
}

fn with_query(address: &str, query: &str) -> String {
    let sign = if address.contains('?') { '&' } else { '?' };
    format!("{address}{sign}{query}")
}
