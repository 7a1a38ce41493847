//! A container registry as a server of updates: the OCI distribution protocol, read only.
//!
//! ```text
//! oci://HOST/REPOSITORY ── tag CHANNEL-BOARD ──► a manifest; each layer is a file of the site:
//!                                                digest of a blob, title = its path
//! ```
//! The registry is trusted with as little as any other server: its manifest only says where bytes
//! lie, and what they have to be is signed elsewhere. Registries want a token even of strangers;
//! it is asked for when the registry says so, once, and sent to that registry alone. A name and a
//! password are shown to whom the registry names for tokens, or to the registry if it asks for them
//! itself; what answers where a redirect leads to is not asked what it wants.

use std::collections::BTreeMap;
use std::io::Read as _;
use std::path::Path;
use std::sync::{Mutex, PoisonError};

use config::Secret;
use config::registry::{MANIFEST_TYPE, Repository, TITLE, challenge_parameter};
use ondisk::channel::places;
use ondisk::digest::Digest;
use serde_json::Value;
use ureq::http::{Response, header};
use ureq::{Agent, Body};

use super::login::{self, Challenge};
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
    login: Option<Secret>,
    known: Mutex<Known>,
}

/// What has been learned since the look began.
#[derive(Default)]
struct Known {
    /// What the registry wants to be shown, as the value of the header `Authorization`.
    shown: Option<String>,
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
            login: None,
            known: Mutex::default(),
        }
    }

    /// With a name and a password, for a repository that is not for everybody.
    #[must_use]
    pub fn with_login(self, login: Option<Secret>) -> Self {
        Self { login, ..self }
    }

    /// One request, and another one that shows who asks if the registry wants to know.
    fn request(
        &self,
        known: &mut Known,
        path: &str,
        range: Option<(u64, u64)>,
    ) -> Result<Response<Body>, Trouble> {
        let response = self.send(known.shown.as_deref(), path, range)?;
        if response.status().as_u16() != 401 {
            return Ok(response);
        }
        self.is_own(&response)?;
        known.shown = Some(self.answer_to(Challenge::of(&response))?);
        let response = self.send(known.shown.as_deref(), path, range)?;
        if response.status().as_u16() == 401 {
            self.is_own(&response)?;
            return Err(self.refused());
        }
        Ok(response)
    }

    fn send(
        &self,
        shown: Option<&str>,
        path: &str,
        range: Option<(u64, u64)>,
    ) -> Result<Response<Body>, Trouble> {
        let mut request = self.agent.get(format!("{}/{path}", self.base));
        request = request.header(header::ACCEPT, format!("{MANIFEST_TYPE}, */*;q=0.1"));
        if let Some(range) = range {
            request = request.header(header::RANGE, web::range(range));
        }
        if let Some(shown) = shown {
            request = request.header(header::AUTHORIZATION, shown);
        }
        request.call().map_err(|error| web::trouble(&error))
    }

    fn is_own(&self, response: &Response<Body>) -> Result<(), Trouble> {
        login::elsewhere(response, &self.base).map_or(Ok(()), Err)
    }

    fn refused(&self) -> Trouble {
        login::refused("the registry", self.login.is_some())
    }

    /// What to show to a registry that asks like this.
    fn answer_to(&self, challenge: Option<Challenge>) -> Result<String, Trouble> {
        match (challenge, &self.login) {
            (Some(Challenge::Token(parameters)), _) => {
                self.token(&parameters).map(|token| format!("Bearer {token}"))
            }
            (Some(Challenge::Password), Some(login)) => Ok(login.reveal().to_owned()),
            (Some(Challenge::Password), None) => Err(self.refused()),
            (None, _) => Err(lasting("wants to be shown who asks in a way that is not known here")),
        }
    }

    fn token(&self, challenge: &str) -> Result<String, Trouble> {
        let realm = challenge_parameter(challenge, "realm");
        let realm = realm.ok_or_else(|| lasting("does not say who gives tokens"))?;
        let mut request = self.agent.get(realm).query("scope", &self.scope);
        if let Some(service) = challenge_parameter(challenge, "service") {
            request = request.query("service", service);
        }
        if let Some(login) = &self.login {
            request = request.header(header::AUTHORIZATION, login.reveal());
        }
        let response = request.call().map_err(|error| web::trouble(&error))?;
        if matches!(response.status().as_u16(), 401 | 403) {
            login::elsewhere(&response, realm).map_or(Ok(()), Err)?;
            return Err(self.refused());
        }
        let document = document(web::read(response, 0)?, MOST_TOKEN_BYTES);
        let document = document.map_err(|why| lasting(&why))?;
        let token = ["token", "access_token"].iter().find_map(|name| document[*name].as_str());
        let plain = |token: &&str| token.bytes().all(|byte| byte.is_ascii_graphic());
        let token = token.filter(plain).ok_or_else(|| lasting("gives no token"))?;
        Ok(token.to_owned())
    }

    fn files(&self, known: &mut Known) -> Result<BTreeMap<String, String>, Trouble> {
        let response = self.request(known, &format!("manifests/{}", self.tag), None)?;
        let document = document(web::read(response, 0)?, MOST_MANIFEST_BYTES);
        Ok(layers(&document.map_err(|why| lasting(&why))?))
    }
}

fn lasting(why: &str) -> Trouble {
    Trouble::Lasting(format!("the registry {why}"))
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
