//! Who asks: AWS Signature Version 4, in the header `Authorization`.
//!
//! The hash and its keyed form are crates'; what is here is the order in which a request is written
//! down before it is hashed ("Authenticating Requests: Using the Authorization Header" of Amazon's
//! S3 API reference, whose examples are the tests).

use hmac::{Hmac, KeyInit as _, Mac as _};
use ondisk::calendar::date_of;
use ondisk::digest::Digest;
use sha2::Sha256;

use crate::hex;

/// Keys, and for where.
pub(super) struct Signer {
    pub(super) region: String,
    pub(super) key: String,
    pub(super) secret: String,
    pub(super) token: Option<String>,
}

/// What of a request is signed. Path and query are written as they are sent.
pub(super) struct Parts<'a> {
    pub(super) method: &'a str,
    pub(super) host: &'a str,
    pub(super) path: &'a str,
    /// Sorted by names, with a `=` in each part.
    pub(super) query: &'a str,
    /// Others than those for the signature itself; names in lower case.
    pub(super) headers: &'a [(&'static str, String)],
}

impl Signer {
    /// The headers to send, without `Host`, which whoever sends adds by itself.
    pub(super) fn headers(
        &self,
        parts: &Parts<'_>,
        payload: &Digest,
        now_s: u64,
    ) -> Vec<(&'static str, String)> {
        let (date, time) = date_and_time(now_s);
        let mut headers = parts.headers.to_vec();
        headers.push(("x-amz-content-sha256", payload.to_string()));
        headers.push(("x-amz-date", time.clone()));
        headers.extend(self.token.clone().map(|token| ("x-amz-security-token", token)));
        let mut signed = headers.clone();
        signed.push(("host", parts.host.to_owned()));
        signed.sort_unstable();
        let names = signed.iter().map(|(name, _)| *name).collect::<Vec<_>>().join(";");
        let lines: String =
            signed.iter().map(|(name, value)| format!("{name}:{}\n", value.trim())).collect();
        let Parts { method, path, query, .. } = parts;
        let request = format!("{method}\n{path}\n{query}\n{lines}\n{names}\n{payload}");
        let scope = format!("{date}/{}/s3/aws4_request", self.region);
        let request = Digest::of(request.as_bytes());
        let text = format!("AWS4-HMAC-SHA256\n{time}\n{scope}\n{request}");
        let signature = hex::encode(keyed(&self.signing_key(&date), &text));
        let who = format!("Credential={}/{scope},SignedHeaders={names}", self.key);
        let shown = format!("AWS4-HMAC-SHA256 {who},Signature={signature}");
        headers.push(("authorization", shown));
        headers
    }

    /// A key for a day, a region and a service.
    fn signing_key(&self, date: &str) -> [u8; 32] {
        let first = keyed(format!("AWS4{}", self.secret).as_bytes(), date);
        ["s3", "aws4_request"]
            .iter()
            .fold(keyed(&first, &self.region), |key, word| keyed(&key, word))
    }
}

fn keyed(key: &[u8], text: &str) -> [u8; 32] {
    // OK to unwrap: keys of any length are good (RFC 2104).
    #[allow(clippy::unwrap_used, reason = "see above")]
    let mut hmac = Hmac::<Sha256>::new_from_slice(key).unwrap();
    hmac.update(text.as_bytes());
    hmac.finalize().into_bytes().into()
}

/// `20130524` and `20130524T000000Z`.
fn date_and_time(now_s: u64) -> (String, String) {
    let (days, second) = (now_s / 86_400, now_s % 86_400);
    let (year, month, day) = date_of(i64::try_from(days).unwrap_or_default());
    let date = format!("{year:04}{month:02}{day:02}");
    let (hour, minute) = (second / 3600, second / 60 % 60);
    let time = format!("{date}T{hour:02}{minute:02}{:02}Z", second % 60);
    (date, time)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The signature of a request of the specification's bucket, at its time.
    fn check(
        method: &str,
        path: &str,
        query: &str,
        headers: &[(&'static str, String)],
        body: &str,
        signature: &str,
    ) {
        let signer = Signer {
            region: "us-east-1".to_owned(),
            key: "AKIAIOSFODNN7EXAMPLE".to_owned(),
            secret: "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY".to_owned(),
            token: None,
        };
        let host = "examplebucket.s3.amazonaws.com";
        let parts = Parts { method, host, path, query, headers };
        let found = signer.headers(&parts, &Digest::of(body.as_bytes()), 1_369_353_600);
        let (_, shown) = found.iter().find(|(name, _)| *name == "authorization").unwrap();
        assert!(shown.ends_with(&format!("Signature={signature}")), "{shown}");
        assert!(found.contains(&("x-amz-date", "20130524T000000Z".to_owned())));
    }

    #[test]
    fn the_examples_of_the_specification_have_its_signatures() {
        let range = [("range", "bytes=0-9".to_owned())];
        let put = [
            ("date", "Fri, 24 May 2013 00:00:00 GMT".to_owned()),
            ("x-amz-storage-class", "REDUCED_REDUNDANCY".to_owned()),
        ];
        let get = "f0e8bdb87c964420e857bd35b5d6ed310bd44f0170aba48dd91039c6036bdb41";
        check("GET", "/test.txt", "", &range, "", get);
        let body = "Welcome to Amazon S3.";
        let expected = "98ad721746da40c64f1a55b78f14c238d841ea1380cd77a1b5971af0ece108bd";
        check("PUT", "/test%24file.text", "", &put, body, expected);
        let expected = "fea454ca298b7da1c68078a5d1bdbfbbe0d65c699e0f91ac7a200a0136783543";
        check("GET", "/", "lifecycle=", &[], "", expected);
        let expected = "34b48302e7b5fa45bde8084f4b7868a86f0a534bc59db6670ed5711ef69dc6f7";
        check("GET", "/", "max-keys=2&prefix=J", &[], "", expected);
    }
}
