//! `iota key`: makes and shows signing keys.

use std::path::Path;

use ondisk::keyring::PublicKey;

use crate::error::{Error, Result};
use crate::hex;
use crate::host::output::out;
use crate::sign::{Key, Profile, load_public};

/// `iota key new`: writes a new pair and says what each half is for.
pub fn new(base: &Path, profile: Profile) -> Result<()> {
    let key = Key::generate(profile)?;
    let (secret, public) = key.save(base)?;
    out!("{profile} key {}", key.id()?);
    out!("  {}  signs; keep it secret and keep a copy", secret.display());
    out!("  {}  verifies; hand it to anyone", public.display());
    Ok(())
}

/// `iota key show`: prints id and public key of a `.secret` or `.pub` file.
pub fn show(path: &Path) -> Result<()> {
    let public = load_public(path)?;
    out!("key {}", PublicKey::from_bytes(&public).map_err(bad)?.id());
    out!("public key {}", hex::encode(public));
    Ok(())
}

fn bad(error: ondisk::keyring::Error) -> Error {
    Error::new(format!("this key cannot be used: {error}"))
}
