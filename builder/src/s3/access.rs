//! Where a bucket is and who may use it, from an address, an option and the variables that tools
//! for S3 have in common.

use std::fmt;
use std::sync::Arc;

use super::signature::Signer;
use crate::error::{Error, Result};

/// `s3://BUCKET/PREFIX`. Holding one proves that neither has characters that an address would have
/// to escape, and that the prefix has no empty part and none that leads elsewhere.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// Name of the bucket.
    pub bucket: String,
    /// What the keys of all objects begin with, without a slash at its end; "" is everything.
    pub prefix: String,
}

impl Place {
    /// Reads an address; none if it is not well formed.
    pub fn parse(text: &str) -> Option<Self> {
        let rest = text.strip_prefix("s3://")?.trim_end_matches('/');
        let (bucket, prefix) = rest.split_once('/').unwrap_or((rest, ""));
        let lower = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
        let plain = |byte: u8| lower(byte) || b"-.".contains(&byte);
        let ends = |text: &str| {
            text.bytes().next().is_some_and(lower) && text.bytes().last().is_some_and(lower)
        };
        let is_bucket = (3..=63).contains(&bucket.len()) && bucket.bytes().all(plain);
        let is_part = |part: &str| {
            let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
            !matches!(part, "" | "." | "..") && part.bytes().all(plain)
        };
        let is_prefix = prefix.is_empty() || prefix.split('/').all(is_part);
        let good = is_bucket && ends(bucket) && is_prefix;
        good.then(|| Self { bucket: bucket.to_owned(), prefix: prefix.to_owned() })
    }

    /// The key of an object.
    pub fn key(&self, name: &str) -> String {
        match &*self.prefix {
            "" => name.to_owned(),
            prefix => format!("{prefix}/{name}"),
        }
    }
}

/// Whom to ask, and as whom.
#[derive(Clone)]
pub struct Access {
    endpoint: Option<String>,
    pub(super) signer: Arc<Signer>,
}

/// Secrets are shown to nobody.
impl fmt::Debug for Access {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "Access({:?}, {})", self.endpoint, self.signer.region)
    }
}

/// Where the objects of a bucket are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Endpoint {
    /// With `://`.
    pub(super) scheme: &'static str,
    /// With a port if it is not the usual one.
    pub(super) host: String,
    /// What all paths begin with, without a slash at its end.
    pub(super) path: String,
}

impl Access {
    /// By an option and by variables of the environment.
    ///
    /// Errors: no keys, an endpoint that is no address.
    pub fn of(endpoint: Option<&str>, variable: impl Fn(&str) -> Option<String>) -> Result<Self> {
        let variable = |name: &str| variable(name).filter(|value| !value.is_empty());
        let needed = |name: &str| {
            variable(name).ok_or_else(|| {
                Error::new(format!("a bucket needs a key: {name} is not set")).hint(
                    "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY; files of other tools are not \
                     read: `aws configure export-credentials --format env` prints what they have",
                )
            })
        };
        let endpoint = endpoint.map(str::to_owned);
        let endpoint = endpoint.or_else(|| variable("AWS_ENDPOINT_URL_S3"));
        let region = variable("AWS_REGION").or_else(|| variable("AWS_DEFAULT_REGION"));
        let signer = Signer {
            region: region.unwrap_or_else(|| "us-east-1".to_owned()),
            key: needed("AWS_ACCESS_KEY_ID")?,
            secret: needed("AWS_SECRET_ACCESS_KEY")?,
            token: variable("AWS_SESSION_TOKEN"),
        };
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-';
        if !signer.region.bytes().all(plain) {
            return Err(Error::new(format!("`{}` is no region", signer.region.escape_debug()))
                .hint("AWS_REGION is a name such as eu-central-1"));
        }
        let endpoint = endpoint.or_else(|| variable("AWS_ENDPOINT_URL"));
        Ok(Self { endpoint, signer: Arc::new(signer) })
    }

    /// Amazon wants the bucket in the host's name, unless a dot in it would not fit its
    /// certificate; others have it in the path.
    pub(super) fn endpoint_for(&self, bucket: &str) -> Result<Endpoint> {
        let amazons = || format!("https://s3.{}.amazonaws.com", self.signer.region);
        let address = self.endpoint.clone().unwrap_or_else(amazons);
        let (scheme, host, path) = split(&address).ok_or_else(|| {
            Error::new(format!("`{}` is no address of a store", address.escape_debug()))
                .hint("such as https://s3.example.org: --endpoint, AWS_ENDPOINT_URL")
        })?;
        let is_amazons =
            [".amazonaws.com", ".amazonaws.com.cn"].iter().any(|end| host.ends_with(end));
        Ok(match is_amazons && !bucket.contains('.') {
            true => Endpoint { scheme, host: format!("{bucket}.{host}"), path: path.to_owned() },
            false => Endpoint { scheme, host: host.to_owned(), path: format!("{path}/{bucket}") },
        })
    }
}

/// Scheme, host and path; a port that is the usual one is left out, as HTTP leaves it out.
fn split(address: &str) -> Option<(&'static str, &str, &str)> {
    let address = address.trim_end_matches('/');
    let (scheme, rest, port) = match address.strip_prefix("https://") {
        Some(rest) => ("https://", rest, ":443"),
        None => ("http://", address.strip_prefix("http://")?, ":80"),
    };
    let (host, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
    let host = host.strip_suffix(port).unwrap_or(host);
    let in_host = |byte: u8| byte.is_ascii_alphanumeric() || b".-:[]".contains(&byte);
    let in_path = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~/".contains(&byte);
    let good = !host.is_empty() && host.bytes().all(in_host) && path.bytes().all(in_path);
    good.then_some((scheme, host, path))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn access(endpoint: Option<&str>, variables: &[(&str, &str)]) -> Result<Access> {
        let keys = [("AWS_ACCESS_KEY_ID", "a"), ("AWS_SECRET_ACCESS_KEY", "b")];
        let all = [variables, &keys].concat();
        let find = |name: &str| all.iter().find(|(own, _)| *own == name);
        Access::of(endpoint, |name| find(name).map(|(_, value)| (*value).to_owned()))
    }

    fn url(endpoint: Option<&str>, variables: &[(&str, &str)], bucket: &str) -> String {
        let found = access(endpoint, variables).unwrap().endpoint_for(bucket).unwrap();
        format!("{}{}{}", found.scheme, found.host, found.path)
    }

    #[test]
    fn an_address_is_a_bucket_and_what_keys_begin_with() {
        let parse = |text| Place::parse(text).map(|place| (place.key("a"), place.bucket));
        let found = |key: &str, bucket: &str| Some((key.to_owned(), bucket.to_owned()));
        assert_eq!(parse("s3://my.bucket"), found("a", "my.bucket"));
        assert_eq!(parse("s3://bucket/Iota/v1/"), found("Iota/v1/a", "bucket"));
        for text in [
            "s3://",
            "s3://ab",
            "s3://Bucket",
            "s3://-bucket",
            "s3://buc ket",
            "s3://bucket/a//b",
            "s3://bucket/../b",
            "s3://bucket/a?b",
            "s3://bucket/a%20b",
            "bucket/a",
        ] {
            assert_eq!(parse(text), None, "{text}");
        }
    }

    #[test]
    fn amazons_buckets_are_hosts_and_those_of_others_are_paths() {
        let region = [("AWS_REGION", "eu-central-1")];
        let amazons = "https://s3.eu-central-1.amazonaws.com";
        assert_eq!(url(None, &[], "abc"), "https://abc.s3.us-east-1.amazonaws.com");
        assert_eq!(url(None, &region, "abc"), "https://abc.s3.eu-central-1.amazonaws.com");
        assert_eq!(url(None, &region, "a.b.c"), format!("{amazons}/a.b.c"));
        assert_eq!(url(Some(amazons), &[], "abc"), "https://abc.s3.eu-central-1.amazonaws.com");
        let other = [("AWS_ENDPOINT_URL", "http://store.example:9000/")];
        assert_eq!(url(None, &other, "abc"), "http://store.example:9000/abc");
        assert_eq!(
            url(Some("https://x.example:443/s3"), &other, "abc"),
            "https://x.example/s3/abc"
        );
        for bad in ["store.example", "ftp://a", "https://", "https://a/?b", "https://me@a"] {
            assert!(access(Some(bad), &[]).unwrap().endpoint_for("abc").is_err(), "{bad}");
        }
    }

    #[test]
    fn without_keys_it_is_told_which_variable_is_missing_and_no_message_has_a_secret() {
        let error = Access::of(None, |_| None).unwrap_err();
        assert!(error.chain().contains("AWS_ACCESS_KEY_ID is not set"), "{}", error.chain());
        assert!(access(None, &[("AWS_REGION", "a/b")]).is_err());
        let secret = access(None, &[("AWS_SESSION_TOKEN", "hush")]).unwrap();
        assert_eq!(format!("{secret:?}"), "Access(None, us-east-1)");
    }
}
