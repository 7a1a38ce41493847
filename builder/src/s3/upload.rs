//! Objects on their way into a bucket: small ones in one request, large ones in parts, of which
//! each is tried again by itself.

use std::fs::File;
use std::io::{Read as _, Seek as _, SeekFrom};

use ureq::http::Method;

use super::requests::{Answer, Request};
use super::{Client, Object, SHA256};
use crate::error::{Context, Result};
use crate::host::progress::Task;

/// What is sent at a time: what is lost when a connection breaks. At least 5 MiB; a store takes
/// 10,000 of them.
pub const PART_BYTES: u64 = 8 << 20;

impl Client {
    /// Puts an object there in one step, for caches to keep as `cache` says.
    pub fn put(&self, name: &str, object: &Object, cache: &str, bytes: &[u8]) -> Result<()> {
        let request = Request {
            headers: headers(object, cache),
            body: bytes,
            ..Request::new(Method::PUT, name)
        };
        let answer = self.perform(&request)?;
        match answer.status {
            200..=299 => Ok(()),
            _ => Err(self.refused("write", name, &answer)),
        }
    }

    /// The same for a file of any size.
    pub fn put_file(
        &self,
        name: &str,
        object: &Object,
        cache: &str,
        file: &mut File,
        task: &Task,
    ) -> Result<()> {
        if object.size <= PART_BYTES {
            self.put(name, object, cache, &read(file, 0, object.size)?)?;
            task.add(object.size);
            return Ok(());
        }
        let id = self.begin(name, object, cache)?;
        let done = self.parts(name, &id, object, file, task);
        let done = done.and_then(|tags| self.complete(name, &id, object, &tags));
        if done.is_err() {
            // Parts of an upload that does not end would be paid for; a store that cannot be
            // reached keeps them.
            let query = format!("uploadId={}", escaped(&id));
            let _ = self.perform(&Request { query, ..Request::new(Method::DELETE, name) });
        }
        done
    }

    fn begin(&self, name: &str, object: &Object, cache: &str) -> Result<String> {
        let answer = self.perform(&Request {
            query: "uploads=".to_owned(),
            headers: headers(object, cache),
            ..Request::new(Method::POST, name)
        })?;
        let id = answer.element("UploadId").filter(|_| answer.status == 200);
        id.ok_or_else(|| self.refused("write", name, &answer))
    }

    /// Sends all parts; their tags.
    fn parts(
        &self,
        name: &str,
        id: &str,
        object: &Object,
        file: &mut File,
        task: &Task,
    ) -> Result<Vec<String>> {
        let mut tags = Vec::new();
        let mut from = 0;
        while from < object.size {
            let length = PART_BYTES.min(object.size - from);
            let bytes = read(file, from, length)?;
            let query = format!("partNumber={}&uploadId={}", tags.len() + 1, escaped(id));
            let answer =
                self.perform(&Request { query, body: &bytes, ..Request::new(Method::PUT, name) })?;
            tags.push(tag(&answer).ok_or_else(|| self.refused("write a part of", name, &answer))?);
            from += length;
            task.add(length);
        }
        Ok(tags)
    }

    fn complete(&self, name: &str, id: &str, object: &Object, tags: &[String]) -> Result<()> {
        let part = |(index, tag): (usize, &String)| {
            format!("<Part><PartNumber>{}</PartNumber><ETag>{tag}</ETag></Part>", index + 1)
        };
        let parts: String = tags.iter().enumerate().map(part).collect();
        let body = format!("<CompleteMultipartUpload>{parts}</CompleteMultipartUpload>");
        let query = format!("uploadId={}", escaped(id));
        let request = Request { query, body: body.as_bytes(), ..Request::new(Method::POST, name) };
        let answer = self.perform(&request)?;
        // A refusal may come after the status: "CompleteMultipartUpload" of the API reference.
        if answer.status == 200 && answer.refusal().code.is_empty() {
            return Ok(());
        }
        // The answer to a request before may have been lost.
        match self.head(name)? {
            Some(found) if found == *object => Ok(()),
            _ => Err(self.refused("end an upload to", name, &answer)),
        }
    }
}

fn headers(object: &Object, cache: &str) -> Vec<(&'static str, String)> {
    let digest = object.sha256.map(|digest| (SHA256, digest.to_string()));
    let fixed = [("cache-control", cache), ("content-type", "application/octet-stream")];
    fixed.map(|(name, value)| (name, value.to_owned())).into_iter().chain(digest).collect()
}

/// What names a part of an upload; it becomes part of a document.
fn tag(answer: &Answer) -> Option<String> {
    let tag = answer.headers.get("etag").filter(|_| answer.status == 200)?.to_str().ok()?;
    tag.bytes().all(|byte| !b"<>&".contains(&byte)).then(|| tag.to_owned())
}

fn read(file: &mut File, from: u64, length: u64) -> Result<Vec<u8>> {
    let mut bytes = vec![0; usize::try_from(length).unwrap_or_default()];
    let read = file.seek(SeekFrom::Start(from)).and_then(|_| file.read_exact(&mut bytes));
    read.context(|| "cannot read what is sent".to_owned())?;
    Ok(bytes)
}

/// As a part of a query, in the one way that is signed.
fn escaped(text: &str) -> String {
    let one = |byte: u8| match byte {
        b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => {
            char::from(byte).to_string()
        }
        other => format!("%{other:02X}"),
    };
    text.bytes().map(one).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_escaped_as_signatures_have_it() {
        assert_eq!(escaped("a-Z_0.~"), "a-Z_0.~");
        assert_eq!(escaped("a+b/c=ü "), "a%2Bb%2Fc%3D%C3%BC%20");
    }
}
