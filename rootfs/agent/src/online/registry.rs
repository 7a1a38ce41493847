//! A container registry as a server of updates: the OCI distribution protocol, read only.
//!
//! ```text
//! oci://HOST/REPOSITORY ── tag CHANNEL-BOARD ──► a manifest; each layer is a file of the site:
//!                                                digest of a blob, title = its path
//! ```
//! The registry is trusted with as little as any other server: its manifest only says where bytes
//! lie, and what they have to be is signed elsewhere. Registries want a token even of strangers;
//! it is asked for when the registry says so, once, and sent to that registry alone.

use std::collections::BTreeMap;
use std::io::Read as _;
use std::path::Path;
use std::sync::{Mutex, PoisonError};

use config::registry::{MANIFEST_TYPE, Repository, TITLE, challenge_parameter};
use ondisk::channel::places;
use ondisk::digest::Digest;
use serde_json::Value;
use ureq::http::{Response, header};
use ureq::{Agent, Body};

use super::web::{self, Answer, Trouble, Web};

/// A site of 300 files.
const MOST_MANIFEST_BYTES: u64 = 256 * 1024;
const MOST_TOKEN_BYTES: u64 = 64 * 1024;

/// The files of a channel in a repository.
pub struct Registry {
    agent: Agent,
    /// `https://HOST/v2/REPOSITORY`.
    base: String,
    /// What a token has to allow: `repository:NAME:pull`.
    scope: String,
    tag: String,
    known: Mutex<Known>,
}

/// What has been learned since the look began.
#[derive(Default)]
struct Known {
    token: Option<String>,
    /// Digests by path.
    files: Option<BTreeMap<String, String>>,
}

impl Registry {
    /// The files of a channel for a board.
    pub fn new(
        repository: &Repository,
        (channel, board): (&str, &str),
        bundle: &Path,
        proxy: &config::Proxy,
    ) -> Self {
        let base = repository.base();
        Self {
            agent: web::agent(&base, bundle, proxy),
            base,
            scope: format!("repository:{}:pull", repository.name),
            tag: places::tag(channel, board),
            known: Mutex::default(),
        }
    }

    /// One request, and another one with a token if the registry wants one.
    fn request(
        &self,
        known: &mut Known,
        path: &str,
        range: Option<(u64, u64)>,
    ) -> Result<Response<Body>, Trouble> {
        let response = self.send(known.token.as_deref(), path, range)?;
        if response.status().as_u16() != 401 {
            return Ok(response);
        }
        let challenge = response.headers().get(header::WWW_AUTHENTICATE);
        let challenge = challenge.and_then(|value| value.to_str().ok()).unwrap_or_default();
        known.token = Some(self.token(challenge)?);
        self.send(known.token.as_deref(), path, range)
    }

    fn send(
        &self,
        token: Option<&str>,
        path: &str,
        range: Option<(u64, u64)>,
    ) -> Result<Response<Body>, Trouble> {
        let mut request = self.agent.get(format!("{}/{path}", self.base));
        request = request.header(header::ACCEPT, format!("{MANIFEST_TYPE}, */*;q=0.1"));
        if let Some(range) = range {
            request = request.header(header::RANGE, web::range(range));
        }
        if let Some(token) = token {
            request = request.header(header::AUTHORIZATION, format!("Bearer {token}"));
        }
        request.call().map_err(|error| web::trouble(&error))
    }

    fn token(&self, challenge: &str) -> Result<String, Trouble> {
        let lasting = |why: &str| Trouble::Lasting(format!("the registry {why}"));
        let realm = challenge_parameter(challenge, "realm");
        let realm = realm.filter(|_| challenge.starts_with("Bearer "));
        let realm = realm.ok_or_else(|| lasting("wants a password, which this device has not"))?;
        let mut request = self.agent.get(realm).query("scope", &self.scope);
        if let Some(service) = challenge_parameter(challenge, "service") {
            request = request.query("service", service);
        }
        let answer = web::read(request.call().map_err(|error| web::trouble(&error))?, 0)?;
        let document = document(answer, MOST_TOKEN_BYTES).map_err(|why| lasting(&why))?;
        let token = ["token", "access_token"].iter().find_map(|name| document[*name].as_str());
        let plain = |token: &&str| token.bytes().all(|byte| byte.is_ascii_graphic());
        let token = token.filter(plain).ok_or_else(|| lasting("gives no token"))?;
        Ok(token.to_owned())
    }

    fn files(&self, known: &mut Known) -> Result<BTreeMap<String, String>, Trouble> {
        let response = self.request(known, &format!("manifests/{}", self.tag), None)?;
        let document = document(web::read(response, 0)?, MOST_MANIFEST_BYTES)
            .map_err(|why| Trouble::Lasting(format!("the registry {why}")))?;
        Ok(layers(&document))
    }
}

impl Web for Registry {
    fn get(&self, path: &str, range: Option<(u64, u64)>) -> Result<Answer, Trouble> {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let files = match known.files.take() {
            Some(files) => files,
            None => self.files(&mut known)?,
        };
        let digest = files.get(path).cloned();
        known.files = Some(files);
        let digest = digest.ok_or_else(|| {
            Trouble::Missing(format!("{path} is not among the files of tag {}", self.tag))
        })?;
        let response = self.request(&mut known, &format!("blobs/{digest}"), range)?;
        web::read(response, range.map_or(0, |(from, _)| from))
    }
}

/// Digests of a manifest's layers by their titles; a layer without either is somebody else's.
fn layers(manifest: &Value) -> BTreeMap<String, String> {
    let layers = manifest["layers"].as_array().map(Vec::as_slice).unwrap_or_default();
    let file = |layer: &Value| {
        let digest = layer["digest"].as_str().filter(|digest| is_digest(digest))?;
        Some((layer["annotations"][TITLE].as_str()?.to_owned(), digest.to_owned()))
    };
    layers.iter().filter_map(file).collect()
}

/// The only kind that is asked for: it becomes part of an address.
fn is_digest(text: &str) -> bool {
    text.strip_prefix("sha256:").and_then(Digest::from_hex).is_some()
}

fn document(answer: Answer, most: u64) -> Result<Value, String> {
    let mut bytes = Vec::new();
    let read = answer.body.take(most + 1).read_to_end(&mut bytes);
    read.map_err(|error| format!("breaks off: {error}"))?;
    if bytes.len() as u64 > most {
        return Err(format!("sends more than {most} bytes where a document is due"));
    }
    serde_json::from_slice(&bytes).map_err(|_| "sends something else than a document".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_a_manifest_only_what_names_a_blob_and_a_file_is_taken() {
        let digest = format!("sha256:{}", "a".repeat(64));
        let layer = |digest: &str, title: Value| {
            let annotations = serde_json::json!({ TITLE: title });
            serde_json::json!({ "digest": digest, "annotations": annotations })
        };
        let manifest = serde_json::json!({ "layers": [
            layer(&digest, "trust/1".into()),
            layer("sha256:../../evil", "trust/2".into()),
            layer(&digest, 7.into()),
            { "digest": digest },
            "nothing",
        ]});
        let found: Vec<_> = layers(&manifest).into_iter().collect();
        assert_eq!(found, [("trust/1".to_owned(), digest)]);
        assert!(layers(&Value::Null).is_empty());
    }
}
