//! Where releases are put, as it is written on the command line.

use std::path::PathBuf;

use config::registry::Repository;

use crate::error::{Error, Result};
use crate::s3::Place;

/// The channel of devices whose configuration names none.
const CHANNEL: &str = "stable";

/// A place for releases.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Destination {
    /// A directory that a web server hands out.
    Directory(PathBuf),
    /// A container registry.
    Registry {
        /// Where in it.
        repository: Repository,
        /// The channel, if the address names one: `oci://HOST/NAME:CHANNEL`.
        channel: Option<String>,
    },
    /// A bucket of an object store.
    Bucket(Place),
}

impl Destination {
    /// Reads it; an error is one clause.
    pub fn parse(text: &str) -> std::result::Result<Self, String> {
        if text.starts_with("s3:") {
            let place = Place::parse(text).map(Self::Bucket);
            return place.ok_or_else(|| "no bucket, such as s3://bucket/iota".to_owned());
        }
        let is_address = ["oci:", "oci+http:"].iter().any(|start| text.starts_with(start));
        if !is_address {
            return match text.split_once("://") {
                Some((scheme, _)) => Err(format!(
                    "{scheme}:// can only be read: name its directory, a registry (oci://) or a \
                     bucket (s3://)"
                )),
                None => Ok(Self::Directory(text.into())),
            };
        }
        let name = text.rfind('/').map_or(0, |slash| slash + 1);
        let (address, channel) = match text[name..].split_once(':') {
            Some((last, channel)) => (&text[..name + last.len()], Some(channel.to_owned())),
            None => (text, None),
        };
        let repository = Repository::parse(address);
        let repository =
            repository.ok_or("no repository, such as oci://registry.example.org/iota")?;
        Ok(Self::Registry { repository, channel })
    }

    /// The channel: that of the address, of an option, or the usual one.
    pub fn channel(&self, option: Option<&str>) -> Result<String> {
        let named = match self {
            Self::Registry { channel, .. } => channel.as_deref(),
            Self::Directory(_) | Self::Bucket(_) => None,
        };
        match (named, option) {
            (Some(one), Some(other)) if one != other => {
                Err(Error::new(format!("the address names channel {one}, --channel names {other}")))
            }
            _ => Ok(named.or(option).unwrap_or(CHANNEL).to_owned()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_registry_is_told_from_a_directory_and_may_name_the_channel() {
        let registry = |text: &str| match Destination::parse(text) {
            Ok(Destination::Registry { repository, channel }) => (repository.base(), channel),
            other => panic!("{text}: {other:?}"),
        };
        assert_eq!(registry("oci://a:5/b/c"), ("https://a:5/v2/b/c".to_owned(), None));
        let named = registry("oci+http://a:5/b:beta");
        assert_eq!(named, ("http://a:5/v2/b".to_owned(), Some("beta".to_owned())));
        let bucket = Place::parse("s3://bucket/a").unwrap();
        assert_eq!(Destination::parse("s3://bucket/a"), Ok(Destination::Bucket(bucket)));
        for text in ["site", "./oci", "a:b/c"] {
            assert_eq!(Destination::parse(text), Ok(Destination::Directory(text.into())));
        }
        for text in ["https://a/b", "oci://a", "oci:a/b", "oci://a/B", "s3:bucket", "s3://a/b"] {
            assert!(Destination::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn two_names_of_a_channel_have_to_be_one() {
        let place = Destination::parse("oci://a/b:beta").unwrap();
        assert_eq!(place.channel(None).unwrap(), "beta");
        assert_eq!(place.channel(Some("beta")).unwrap(), "beta");
        assert!(place.channel(Some("stable")).is_err());
        assert_eq!(Destination::Directory("x".into()).channel(None).unwrap(), "stable");
    }
}
