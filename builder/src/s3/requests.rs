//! One request to a store: signed, again after trouble that passes, and its refusals in words.

use std::io::Read as _;
use std::thread;
use std::time::Duration;

use ondisk::digest::Digest;
use ureq::http::{HeaderMap, Method, Request as HttpRequest};

use super::Client;
use super::signature::Parts;
use crate::error::{Error, Result};
use crate::host::now_s;

const ATTEMPTS: u32 = 5;
const FIRST_PAUSE: Duration = Duration::from_millis(300);
/// Of an answer: channels, trust roots and refusals are smaller.
const MOST_ANSWER_BYTES: u64 = 1 << 20;

/// What is asked.
pub(super) struct Request<'a> {
    pub(super) method: Method,
    pub(super) name: &'a str,
    /// As it is sent and signed: see [`super::signature`].
    pub(super) query: String,
    pub(super) headers: Vec<(&'static str, String)>,
    pub(super) body: &'a [u8],
}

impl<'a> Request<'a> {
    /// Of an object, with nothing beside its name.
    pub(super) fn new(method: Method, name: &'a str) -> Self {
        Self { method, name, query: String::new(), headers: Vec::new(), body: &[] }
    }
}

/// What came back.
pub(super) struct Answer {
    pub(super) status: u16,
    pub(super) headers: HeaderMap,
    pub(super) body: Vec<u8>,
}

/// Why a store does not do it, in its own words.
#[derive(Default)]
pub(super) struct Refusal {
    pub(super) code: String,
    message: String,
}

impl Answer {
    /// What it says if it is a refusal; nothing where there is no body (HEAD).
    pub(super) fn refusal(&self) -> Refusal {
        let text = str::from_utf8(&self.body).unwrap_or_default();
        let Ok(document) = roxmltree::Document::parse(text) else { return Refusal::default() };
        if document.root_element().tag_name().name() != "Error" {
            return Refusal::default();
        }
        Refusal {
            code: element(&document, "Code").unwrap_or_default(),
            message: element(&document, "Message").unwrap_or_default(),
        }
    }

    /// The text of an element of a good answer.
    pub(super) fn element(&self, name: &str) -> Option<String> {
        element(&roxmltree::Document::parse(str::from_utf8(&self.body).ok()?).ok()?, name)
    }

    /// Whether the same may well succeed a moment later. Some of these come after a good status.
    fn is_passing(&self) -> bool {
        let codes = ["RequestTimeout", "InternalError", "SlowDown", "ServiceUnavailable"];
        matches!(self.status, 408 | 429 | 500..) || codes.contains(&&*self.refusal().code)
    }
}

fn element(document: &roxmltree::Document<'_>, name: &str) -> Option<String> {
    let found = document.descendants().find(|node| node.tag_name().name() == name)?;
    found.text().map(str::to_owned)
}

impl Client {
    /// Sends a request until there is an answer that will not be another one.
    pub(super) fn perform(&self, request: &Request<'_>) -> Result<Answer> {
        let mut failed = 0;
        loop {
            failed += 1;
            match self.attempt(request) {
                Ok(answer) if failed >= ATTEMPTS || !answer.is_passing() => return Ok(answer),
                Err(error) if failed >= ATTEMPTS => {
                    let text = format!("no answer about {}", self.shown(request.name));
                    return Err(Error::caused(text, error).hint(
                        "check the network, and where the store is: --endpoint, AWS_ENDPOINT_URL, \
                         AWS_REGION",
                    ));
                }
                Ok(_) | Err(_) => thread::sleep(FIRST_PAUSE * 2_u32.pow(failed - 1)),
            }
        }
    }

    fn attempt(&self, request: &Request<'_>) -> std::result::Result<Answer, ureq::Error> {
        let Request { method, name, query, headers, body } = request;
        let path = self.path(name);
        let parts = Parts {
            method: method.as_str(),
            host: &self.endpoint.host,
            path: &path,
            query,
            headers,
        };
        let mut sent = HttpRequest::builder().method(method.clone()).uri(self.url(name, query));
        for (name, value) in self.signer.headers(&parts, &Digest::of(body), now_s()) {
            sent = sent.header(name, value);
        }
        let mut response = match *method {
            Method::GET | Method::HEAD | Method::DELETE => self.agent.run(sent.body(())?)?,
            _ => self.agent.run(sent.body(*body)?)?,
        };
        let mut bytes = Vec::new();
        let reader = response.body_mut().with_config().limit(u64::MAX).reader();
        reader.take(MOST_ANSWER_BYTES).read_to_end(&mut bytes)?;
        let (status, headers) = (response.status().as_u16(), response.headers().clone());
        Ok(Answer { status, headers, body: bytes })
    }

    pub(super) fn refused(&self, what: &str, name: &str, answer: &Answer) -> Error {
        let Refusal { code, message } = answer.refusal();
        let says = [answer.status.to_string(), code.clone()].join(" ");
        let colon = if message.is_empty() { "" } else { ": " };
        let text = format!("cannot {what} {}: {}{colon}{message}", self.shown(name), says.trim());
        match advice(answer.status, &code) {
            Some(advice) => Error::new(text).hint(advice),
            None => Error::new(text),
        }
    }
}

/// What to do about a refusal ("Error Responses" of Amazon's S3 API reference).
fn advice(status: u16, code: &str) -> Option<&'static str> {
    Some(match (status, code) {
        (_, "InvalidAccessKeyId" | "SignatureDoesNotMatch" | "NotSignedUp") => {
            "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY have to be a pair of this store"
        }
        (_, "ExpiredToken" | "InvalidToken") => {
            "AWS_SESSION_TOKEN and the two keys belong together, and hold for a while only"
        }
        (_, "RequestTimeTooSkewed") => "this machine's clock is wrong",
        (_, "NoSuchBucket") => {
            "make the bucket first; --endpoint and AWS_REGION say where it is looked for"
        }
        (301 | 307, _)
        | (
            _,
            "PermanentRedirect"
            | "AuthorizationHeaderMalformed"
            | "IllegalLocationConstraintException",
        ) => "AWS_REGION has to be the bucket's",
        (401 | 403, _) => {
            "the key has to be allowed s3:GetObject, s3:PutObject, s3:AbortMultipartUpload there, \
             and s3:ListBucket, without which nobody is told what is missing"
        }
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::super::{Access, Place};
    use super::*;

    fn refused(status: u16, body: &str) -> Error {
        let place = Place::parse("s3://a-bucket/iota").unwrap();
        let key = |name: &str| name.contains("KEY").then(|| "x".to_owned());
        let client = Client::new(&place, &Access::of(None, key).unwrap()).unwrap();
        let answer = Answer { status, headers: HeaderMap::new(), body: body.as_bytes().to_vec() };
        client.refused("write", "files/x", &answer)
    }

    #[test]
    fn a_refusal_names_bucket_key_and_the_stores_own_word_and_what_helps() {
        let body = "<?xml version=\"1.0\"?><Error><Code>NoSuchBucket</Code>\
            <Message>There is none</Message><BucketName>x</BucketName></Error>";
        let error = refused(404, body);
        let expected =
            "cannot write iota/files/x of bucket a-bucket: 404 NoSuchBucket: There is none";
        assert_eq!(error.chain(), expected);
        assert!(error.next_step().unwrap().contains("make the bucket first"));
        for body in ["", "<html>", "<Other><Code>x</Code></Other>"] {
            let error = refused(403, body);
            assert_eq!(error.chain(), "cannot write iota/files/x of bucket a-bucket: 403");
            assert!(error.next_step().unwrap().contains("s3:ListBucket"));
        }
        assert!(refused(400, "").next_step().is_none());
    }
}
