//! `iota key`: makes and shows signing keys.

use std::fs;
use std::path::Path;

use crate::error::{Context, Error, Result};
use crate::hex;
use crate::sign::{Key, Profile};

/// `iota key new`: writes a new pair and says what each half is for.
pub fn new(base: &Path, profile: Profile) -> Result<()> {
    let key = Key::generate(profile)?;
    let (secret, public) = key.save(base)?;
    println!("{profile} key {}", key_id_text(&key.public()));
    println!("  {}  signs; keep it secret and keep a copy", secret.display());
    println!("  {}  verifies; hand it to anyone", public.display());
    Ok(())
}

/// `iota key show`: prints id and public key of a `.secret` or `.pub` file.
pub fn show(path: &Path) -> Result<()> {
    let text = fs::read_to_string(path).context(|| format!("cannot read {}", path.display()))?;
    let (profile, public) = match text.split_whitespace().collect::<Vec<_>>().as_slice() {
        ["iota-public-key", profile, public] => {
            let bytes = hex::decode::<32>(public)
                .ok_or_else(|| Error::new(format!("{}: damaged public key", path.display())))?;
            ((*profile).to_owned(), bytes)
        }
        _ => {
            let key = Key::load(path)?;
            (key.profile().to_string(), key.public())
        }
    };
    println!("{profile} key {}", key_id_text(&public));
    println!("public key {}", hex::encode(public));
    Ok(())
}

/// The short name of a key, as images and devices show it.
pub fn key_id_text(public: &[u8; 32]) -> String {
    use sha2::{Digest, Sha256};
    hex::encode(&Sha256::digest(public)[..8])
}
