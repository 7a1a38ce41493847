//! A client of object stores that speak S3: Amazon's, and the many that are built like it.
//!
//! What publishing needs are seven requests. Each is signed (version 4) over its body, too, so that
//! what arrives is what was sent. Keys come from the variables that every tool for S3 knows, and go
//! to nobody: what is sent is a signature.
//!
//! Guarantees: an object is there whole or not at all; a request that failed for reasons that pass
//! is tried again after a while, of a large object one part; what is refused is told with bucket,
//! key and the store's own word for it.
//!
//! Reading order: [`access`] → [`signature`] → [`Client`] → [`requests`] → [`upload`].

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use ondisk::digest::Digest;
use ureq::Agent;
use ureq::http::Method;

use crate::error::{Error, Result};
use crate::host::fetch::{Expected, Fetcher};
use crate::host::now_s;
use crate::host::progress::Task;
use crate::image::unfinished::{replace, with_room_hint};
use access::Endpoint;
use requests::Request;
use signature::{Parts, Signer};

pub mod access;
mod requests;
mod signature;
mod upload;

pub use access::{Access, Place};
pub use upload::PART_BYTES;

const CONNECT: Duration = Duration::from_secs(20);
const ANSWER: Duration = Duration::from_secs(120);
/// Longest that one part may take: 8 MiB at 14 KB/s.
const SEND: Duration = Duration::from_secs(600);
/// The name by which objects keep their digest.
const SHA256: &str = "x-amz-meta-sha256";

/// What is known of an object without reading it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Object {
    /// Length in bytes.
    pub size: u64,
    /// Its digest, if whoever put it there has noted it, as this client does.
    pub sha256: Option<Digest>,
}

/// A place in a bucket.
pub struct Client {
    agent: Agent,
    place: Place,
    endpoint: Endpoint,
    signer: Arc<Signer>,
}

impl Client {
    /// For the objects of a place.
    pub fn new(place: &Place, access: &Access) -> Result<Self> {
        let agent = Agent::config_builder()
            .http_status_as_error(false)
            .user_agent(concat!("iota/", env!("CARGO_PKG_VERSION")))
            .timeout_connect(Some(CONNECT))
            .timeout_send_body(Some(SEND))
            .timeout_recv_response(Some(ANSWER))
            // A signature is for one host: a store that sends elsewhere is asked there.
            .max_redirects(0)
            .build()
            .new_agent();
        let endpoint = access.endpoint_for(&place.bucket)?;
        let signer = Arc::clone(&access.signer);
        Ok(Self { agent, place: place.clone(), endpoint, signer })
    }

    /// Where it is, as names of copies are made of it.
    pub fn address(&self) -> String {
        format!("{}{}/{}", self.endpoint.scheme, self.endpoint.host, self.path(""))
    }

    /// A small object, if it is there.
    pub fn get(&self, name: &str, most: u64) -> Result<Option<Vec<u8>>> {
        let answer = self.perform(&Request::new(Method::GET, name))?;
        match answer.status {
            200 if answer.body.len() as u64 <= most => Ok(Some(answer.body)),
            200 => Err(Error::new(format!("{} is too long", self.shown(name)))),
            404 if answer.refusal().code != "NoSuchBucket" => Ok(None),
            _ => Err(self.refused("read", name, &answer)),
        }
    }

    /// Looks for an object.
    pub fn head(&self, name: &str) -> Result<Option<Object>> {
        let answer = self.perform(&Request::new(Method::HEAD, name))?;
        let text = |header| answer.headers.get(header).and_then(|value| value.to_str().ok());
        match answer.status {
            200 => {
                let size = text("content-length").and_then(|length| length.parse().ok());
                let size = size.ok_or_else(|| {
                    Error::new(format!("the store does not tell how long {} is", self.shown(name)))
                })?;
                Ok(Some(Object { size, sha256: text(SHA256).and_then(Digest::from_hex) }))
            }
            404 => Ok(None),
            _ => Err(self.refused("look for", name, &answer)),
        }
    }

    /// A large object into a file; `part` keeps what has arrived when it breaks off.
    pub fn get_file(
        &self,
        name: &str,
        object: &Object,
        part: &Path,
        target: &Path,
        task: &Task,
    ) -> Result<()> {
        let url = self.url(name, "");
        let (host, path) = (self.endpoint.host.clone(), self.path(name));
        let signer = Arc::clone(&self.signer);
        // Signed anew for each request: signatures hold for minutes.
        let fetcher = Fetcher::new().with_headers(move || {
            let parts = Parts { method: "GET", host: &host, path: &path, query: "", headers: &[] };
            signer.headers(&parts, &Digest::of(b""), now_s())
        });
        let Some(sha256) = &object.sha256 else {
            // Somebody else's copy: what it is, whoever reads it finds out by its signature.
            let fetched = fetcher.bytes(&url, object.size);
            let bytes = fetched.map_err(|failure| failure.into_error(&url))?;
            task.add(object.size);
            return replace(target, &bytes).map_err(|error| {
                with_room_hint(format!("cannot write {}", target.display()), error)
            });
        };
        let expected = Expected { size: object.size, sha256 };
        let fetched = fetcher.file(&url, part, target, &expected, task);
        fetched.map_err(|failure| failure.into_error(&url))
    }

    /// Path of an object in an address; every character of it may stand there as it is.
    fn path(&self, name: &str) -> String {
        format!("{}/{}", self.endpoint.path, self.place.key(name))
    }

    fn url(&self, name: &str, query: &str) -> String {
        let Endpoint { scheme, host, .. } = &self.endpoint;
        let mark = if query.is_empty() { "" } else { "?" };
        format!("{scheme}{host}{}{mark}{query}", self.path(name))
    }

    /// An object in words.
    fn shown(&self, name: &str) -> String {
        format!("{} of bucket {}", self.place.key(name), self.place.bucket)
    }
}
