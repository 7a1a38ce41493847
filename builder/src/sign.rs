//! Signing keys: making, storing and loading ed25519 key pairs. Private keys live only here.
//!
//! A pair is two text files of one line each. `NAME.secret` (mode 0600) holds
//! `iota-secret-key development|release HEX`, `NAME.pub` holds `iota-public-key
//! development|release HEX`,
//! HEX being the 32-byte seed or public key (RFC 8032). A development key signs only images that
//! say they are for development.

use std::fmt;
use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use ed25519_dalek::{Signer, SigningKey};
use ondisk::keyring::{KeyId, PublicKey};

use crate::error::{Context, Error, Result};
use crate::hex;

/// What a key may sign, and what an image is for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Profile {
    /// For trying things out: made without asking, accepted by no release system.
    Development,
    /// For devices in the field.
    Release,
}

impl fmt::Display for Profile {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Development => "development",
            Self::Release => "release",
        })
    }
}

impl Profile {
    /// The same in the words of what is signed.
    pub fn in_manifests(self) -> ondisk::manifest::Profile {
        match self {
            Self::Development => ondisk::manifest::Profile::Development,
            Self::Release => ondisk::manifest::Profile::Release,
        }
    }

    fn parse(word: &str) -> Option<Self> {
        [Self::Development, Self::Release].into_iter().find(|profile| profile.to_string() == word)
    }
}

/// A private key with its profile. Its `Debug` form shows the public half only.
pub struct Key {
    signing: SigningKey,
    profile: Profile,
}

impl fmt::Debug for Key {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "Key({} {})", self.profile, hex::encode(self.public()))
    }
}

impl Key {
    /// A new random key.
    ///
    /// Errors: the operating system gives no randomness.
    pub fn generate(profile: Profile) -> Result<Self> {
        let mut seed = [0; 32];
        getrandom::fill(&mut seed).context(|| "cannot get random bytes for a key".into())?;
        Ok(Self::from_seed(seed, profile))
    }

    /// The key of a 32-byte seed (RFC 8032, 5.1.5).
    pub fn from_seed(seed: [u8; 32], profile: Profile) -> Self {
        Self { signing: SigningKey::from_bytes(&seed), profile }
    }

    /// The public half.
    pub fn public(&self) -> [u8; 32] {
        self.signing.verifying_key().to_bytes()
    }

    /// The key's short name, as envelopes and messages have it.
    ///
    /// Errors: none for a key that was made here; a seed chosen by hand may give a weak key.
    pub fn id(&self) -> Result<KeyId> {
        Ok(self.trusted()?.id())
    }

    /// The public half as verifiers hold it.
    pub fn trusted(&self) -> Result<PublicKey> {
        PublicKey::from_bytes(&self.public())
            .map_err(|error| Error::new(format!("this key cannot be used: {error}")))
    }

    /// What this key may sign.
    pub fn profile(&self) -> Profile {
        self.profile
    }

    /// Signs a message as it is (no prehash).
    pub fn sign(&self, message: &[u8]) -> [u8; 64] {
        self.signing.sign(message).to_bytes()
    }

    /// Loads a `.secret` file.
    ///
    /// Errors: unreadable, readable by others, not a key file (the public half given by mistake is
    /// named as such).
    pub fn load(path: &Path) -> Result<Self> {
        let shown = path.display();
        let text = fs::read_to_string(path)
            .context(|| format!("cannot read the key {shown}"))
            .map_err(|error| error.hint("make one with `iota key new NAME`"))?;
        let mode =
            fs::metadata(path).context(|| format!("cannot read {shown}"))?.permissions().mode();
        if mode & 0o077 != 0 {
            return Err(Error::new(format!(
                "{shown} can be read by others (mode {:o})",
                mode & 0o777
            ))
            .hint(format!("chmod 600 {shown}")));
        }
        let wrong = |why: &str| Error::new(format!("{shown}: {why}"));
        match text.split_whitespace().collect::<Vec<_>>().as_slice() {
            ["iota-secret-key", profile, seed] => {
                let profile =
                    Profile::parse(profile).ok_or_else(|| wrong("unknown kind of key"))?;
                let seed = hex::decode(seed)
                    .ok_or_else(|| wrong("damaged: expected 64 hexadecimal digits"))?;
                Ok(Self::from_seed(seed, profile))
            }
            ["iota-public-key", ..] => Err(wrong("this is the public half")
                .hint("signing needs the file that ends in .secret")),
            _ => Err(wrong("not an Iota key")),
        }
    }

    /// Writes `NAME.secret` (0600) and `NAME.pub`; never overwrites either.
    pub fn save(&self, base: &Path) -> Result<(PathBuf, PathBuf)> {
        let secret = base.with_added_extension("secret");
        let public = base.with_added_extension("pub");
        if let Some(directory) = base.parent().filter(|path| !path.as_os_str().is_empty()) {
            fs::create_dir_all(directory)
                .context(|| format!("cannot create {}", directory.display()))?;
        }
        for path in [&secret, &public] {
            if path.exists() {
                return Err(Error::new(format!("{} exists already", path.display()))
                    .hint("choose another name: a key that is lost cannot be made again"));
            }
        }
        let line = |word: &str, bytes: [u8; 32]| {
            format!("{word} {} {}\n", self.profile, hex::encode(bytes))
        };
        write_new(&secret, 0o600, &line("iota-secret-key", self.signing.to_bytes()))?;
        write_new(&public, 0o644, &line("iota-public-key", self.public()))?;
        Ok((secret, public))
    }
}

/// The kind of the key of a `.pub` or `.secret` file.
pub fn load_profile(path: &Path) -> Result<Profile> {
    let text =
        fs::read_to_string(path).context(|| format!("cannot read the key {}", path.display()))?;
    let profile = text.split_whitespace().nth(1).and_then(Profile::parse);
    profile.ok_or_else(|| Error::new(format!("{}: not an Iota key", path.display())))
}

/// The public half from a `.pub` or `.secret` file.
pub fn load_public(path: &Path) -> Result<[u8; 32]> {
    let text =
        fs::read_to_string(path).context(|| format!("cannot read the key {}", path.display()))?;
    match text.split_whitespace().collect::<Vec<_>>().as_slice() {
        ["iota-public-key", _, public] => hex::decode(public).ok_or_else(|| {
            Error::new(format!("{}: damaged: expected 64 hexadecimal digits", path.display()))
        }),
        _ => Ok(Key::load(path)?.public()),
    }
}

fn write_new(path: &Path, mode: u32, text: &str) -> Result<()> {
    let write = || -> std::io::Result<()> {
        let mut file: File =
            OpenOptions::new().write(true).create_new(true).mode(mode).open(path)?;
        file.write_all(text.as_bytes())?;
        file.sync_all()
    };
    write().context(|| format!("cannot write {}", path.display()))
}

/// The key that a build signs with: the one named, else the workspace's development key, which is
/// made on first use.
///
/// Errors: a release build without a named key, or with a development key.
pub fn key_for_build(named: Option<&Path>, keys: &Path, profile: Profile) -> Result<(Key, bool)> {
    let development = keys.join("development.secret");
    let key = match (named, profile) {
        (Some(path), _) => Key::load(path)?,
        (None, Profile::Release) => {
            return Err(Error::new("a release build needs a key")
                .hint("make one with `iota key new NAME --release`, then pass --key NAME.secret"));
        }
        (None, Profile::Development) if development.exists() => Key::load(&development)?,
        (None, Profile::Development) => {
            let key = Key::generate(Profile::Development)?;
            key.save(&keys.join("development"))?;
            return Ok((key, true));
        }
    };
    if profile == Profile::Release && key.profile == Profile::Development {
        return Err(Error::new("a release build refuses a development key")
            .hint("make a release key with `iota key new NAME --release`"));
    }
    Ok((key, false))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_saved_key_loads_again_and_is_never_overwritten() {
        let directory = tempfile::tempdir().unwrap();
        let key = Key::generate(Profile::Release).unwrap();
        let (secret, public) = key.save(&directory.path().join("a.b")).unwrap();
        assert!(secret.ends_with("a.b.secret") && public.ends_with("a.b.pub"));
        assert_eq!(fs::metadata(&secret).unwrap().permissions().mode() & 0o777, 0o600);
        let again = Key::load(&secret).unwrap();
        assert_eq!((again.public(), again.profile()), (key.public(), Profile::Release));
        assert!(
            key.save(&directory.path().join("a.b")).unwrap_err().chain().contains("exists already")
        );
        assert!(Key::load(&public).unwrap_err().chain().contains("can be read by others"));
        fs::set_permissions(&public, fs::Permissions::from_mode(0o600)).unwrap();
        assert!(Key::load(&public).unwrap_err().chain().contains("this is the public half"));
    }

    #[test]
    fn a_first_build_makes_a_development_key_and_a_release_build_refuses_it() {
        let directory = tempfile::tempdir().unwrap();
        let keys = directory.path().join("keys");
        let (first, made) = key_for_build(None, &keys, Profile::Development).unwrap();
        let (second, made_again) = key_for_build(None, &keys, Profile::Development).unwrap();
        assert!(made && !made_again);
        assert_eq!(first.public(), second.public());
        let path = keys.join("development.secret");
        let error = key_for_build(Some(&path), &keys, Profile::Release).unwrap_err();
        assert_eq!(error.to_string(), "a release build refuses a development key");
        assert!(key_for_build(None, &keys, Profile::Release).is_err());
    }

    #[test]
    fn the_signature_is_that_of_rfc_8032_test_1() {
        let seed = hex::decode("9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60")
            .unwrap();
        let key = Key::from_seed(seed, Profile::Development);
        let expected = "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a";
        assert_eq!(hex::encode(key.public()), expected);
        assert!(hex::encode(key.sign(b"")).starts_with("e5564300c360ac729086e2cc806e828a"));
    }
}
