//! What a build or a publisher signs with: keys, and the trust root that says what they count for.

use std::path::{Path, PathBuf};

use ondisk::envelope::{self, Envelope, Role, Signature};
use ondisk::trust_root::{Quorum, TrustRoot};

use crate::error::{Error, Result};
use crate::sign::{Key, Profile, key_for_build};
use crate::trust_roots::TrustRoots;

/// Keys with the trust root that names them.
#[derive(Debug)]
pub struct Signer {
    keys: Vec<Key>,
    roots: TrustRoots,
}

impl From<Key> for Signer {
    /// One key for everything. A key that cannot be used counts for nothing.
    fn from(key: Key) -> Self {
        let trust = key.trusted().map(TrustRoot::of_one_key).unwrap_or_default();
        Self { keys: vec![key], roots: TrustRoots::alone(trust) }
    }
}

impl Signer {
    /// These keys, for what the newest of the trust roots says.
    pub fn with(keys: Vec<Key>, roots: TrustRoots) -> Self {
        Self { keys, roots }
    }

    /// Loads the keys of a build; whether a development key was made for it.
    ///
    /// Without a directory of trust roots there is one key, which counts for everything.
    pub fn for_build(
        named: &[PathBuf],
        trust: Option<&Path>,
        keys: &Path,
        profile: Profile,
    ) -> Result<(Self, bool)> {
        let Some(directory) = trust else {
            if let [_, second, ..] = named {
                return Err(Error::new(format!("{}: a second key", second.display())).hint(
                    "several keys need a trust root that names them: `iota trust new`, --trust DIR",
                ));
            }
            let (key, made) = key_for_build(named.first().map(PathBuf::as_path), keys, profile)?;
            return Ok((key.into(), made));
        };
        if named.is_empty() {
            return Err(Error::new("with --trust a key has to be named")
                .hint("--key FILE, a release key of the newest trust root"));
        }
        let load = |path: &PathBuf| Ok(key_for_build(Some(path), keys, profile)?.0);
        let loaded = named.iter().map(load).collect::<Result<Vec<_>>>()?;
        Ok((Self { keys: loaded, roots: TrustRoots::load(directory)? }, false))
    }

    /// Which keys count for what.
    pub fn trust(&self) -> &TrustRoot {
        self.roots.newest()
    }

    /// The trust roots that lead to [`Signer::trust`].
    pub fn roots(&self) -> &TrustRoots {
        &self.roots
    }

    /// What may be signed with these keys: a release by release keys only.
    pub fn profile(&self) -> Profile {
        let release = self.keys.iter().all(|key| key.profile() == Profile::Release);
        if release { Profile::Release } else { Profile::Development }
    }

    /// The short names of the keys.
    pub fn ids(&self) -> Result<String> {
        let ids = self.keys.iter().map(|key| Ok(key.id()?.to_string()));
        Ok(ids.collect::<Result<Vec<_>>>()?.join(", "))
    }

    /// A payload in an envelope, signed by those of the keys that have the role.
    ///
    /// Errors: too few of them have it; a payload that is too long; `what` names it.
    pub fn envelope(&self, role: Role, payload: &[u8], what: &str) -> Result<Vec<u8>> {
        let trust = self.trust();
        let (name, quorum) = match role {
            Role::CHANNEL => ("channel", &trust.channel),
            Role::TRUST_ROOT => ("root", &trust.root),
            _ => ("release", &trust.release),
        };
        let signed = sign(&self.keys, quorum, role, payload, what)?;
        let opened = Envelope::parse(&signed).and_then(|found| found.open(role, quorum).map(drop));
        opened.map_err(|error| self.short_of(name, quorum, what, &error))?;
        Ok(signed)
    }

    fn short_of(&self, name: &str, quorum: &Quorum, what: &str, error: &envelope::Error) -> Error {
        let ids: Vec<_> = quorum.keys().iter().map(|key| key.id().to_string()).collect();
        Error::new(format!("cannot sign {what}: {error}")).hint(format!(
            "trust root {} wants {} of these {name} keys, each with --key: {}",
            self.trust().number,
            quorum.threshold(),
            ids.join(", ")
        ))
    }
}

/// A payload with the signatures of those keys that belong to a quorum, be they enough or not.
///
/// Errors: none belongs to it.
pub fn sign(
    keys: &[Key],
    quorum: &Quorum,
    role: Role,
    payload: &[u8],
    what: &str,
) -> Result<Vec<u8>> {
    let refused = |error: envelope::Error| Error::new(format!("cannot sign {what}: {error}"));
    let message = envelope::signed_message(role, payload).map_err(refused)?;
    let mut signatures: Vec<Signature> = Vec::new();
    for key in keys {
        let trusted = key.trusted()?;
        let known = signatures.iter().any(|signature| signature.key == trusted.id());
        if quorum.keys().contains(&trusted) && !known {
            signatures.push(Signature { key: trusted.id(), bytes: key.sign(&message) });
        }
    }
    if signatures.is_empty() {
        let ids = keys.iter().map(Key::id).collect::<Result<Vec<_>>>()?;
        let ids: Vec<_> = ids.iter().map(ToString::to_string).collect();
        let wanted: Vec<_> = quorum.keys().iter().map(|key| key.id().to_string()).collect();
        return Err(Error::new(format!("cannot sign {what} with key {}", ids.join(", ")))
            .hint(format!("it has to be signed by {}", wanted.join(", "))));
    }
    envelope::encode(role, payload, &signatures).map_err(refused)
}
