//! Signatures of Release files, checked against Debian's archive keys.
//!
//! The trust anchor is [`DEBIAN_KEYS`]: fingerprints in this repository. Key material may come from
//! anywhere, even from the mirror that is to be checked: of all keys in it, only those with a
//! pinned
//! fingerprint are used, and a fingerprint is a digest of the key.
//!
//! Expiry dates of keys and of Release files do not fail a check. A build machine's clock may be
//! wrong, and what is installed is decided by the lock; an index older than it should be is worth
//! a warning ([`super::catalog`]), and shows as `OLDER` in what `iota lock` prints.

use pgp::composed::CleartextSignedMessage;
use pgp::packet::{Packet, PacketParser, PublicKey, PublicSubkey, Signature, SignatureType};
use pgp::types::KeyDetails as _;

use crate::error::{Context, Error, Result};

/// Keys that sign Debian's Release files, by full fingerprint: those for Debian 13 (trixie), and
/// those for Debian 12 (bookworm), which sign everything too until they are retired. Where a
/// primary key leaves signing to a subkey, this is the subkey. Published by the project on
/// <https://ftp-master.debian.org/keys.html>.
pub const DEBIAN_KEYS: [&str; 6] = [
    "B8E5F13176D2A7A75220028078DBA3BC47EF2265", // 13, automatic signing, subkey of 04B5…88BD
    "89C87ACEA5DD6B8E6A7068808E9F831205B4BA95", // 13, security, subkey of 5E04…68C6
    "41587F7DB8C774BCCF131416762F67A0B2C39DE4", // 13, stable release
    "4CB50190207B4758A3F73A796ED0E7B82643E131", // 12, automatic signing, subkey of B8B8…47F8
    "B0CAB9266E8C3929798B3EEEBDE6D2B9216EC7A8", // 12, security, subkey of 05AB…A8F0
    "4D64FEC119C2029067D6E791F8D2585B8783D481", // 12, stable release
];

/// Keys whose fingerprints are pinned.
#[derive(Default)]
pub struct Keyring {
    keys: Vec<Key>,
}

enum Key {
    Primary(PublicKey),
    Subkey(PublicSubkey),
}

impl Key {
    fn made(&self, signature: &Signature, message: &CleartextSignedMessage) -> bool {
        let text = message.signed_text();
        let bytes = text.as_bytes();
        match self {
            Self::Primary(key) => signature.verify(key, bytes).is_ok(),
            Self::Subkey(key) => signature.verify(key, bytes).is_ok(),
        }
    }
}

impl Keyring {
    /// Adds the keys of a binary keyring file whose fingerprints are among `pinned`. Whatever else
    /// is in it is passed over, damaged packets too.
    pub fn add(&mut self, material: &[u8], pinned: &[&str]) {
        let known = |fingerprint: String| pinned.contains(&fingerprint.to_uppercase().as_str());
        for packet in PacketParser::new(material).flatten() {
            match packet {
                Packet::PublicKey(key) if known(key.fingerprint().to_string()) => {
                    self.keys.push(Key::Primary(key));
                }
                Packet::PublicSubkey(key) if known(key.fingerprint().to_string()) => {
                    self.keys.push(Key::Subkey(key));
                }
                _ => {}
            }
        }
    }

    /// The text of an InRelease file that one of these keys has signed. What is returned is what
    /// the signature covers, nothing around it.
    pub fn verified(&self, in_release: &[u8]) -> Result<String> {
        let message = parse(in_release)?;
        let is_text = |signature: &&Signature| {
            matches!(signature.typ(), Some(SignatureType::Text | SignatureType::Binary))
        };
        let good = message
            .signatures()
            .iter()
            .filter(is_text)
            .any(|signature| self.keys.iter().any(|key| key.made(signature, &message)));
        if good {
            return Ok(text(&message));
        }
        Err(Error::new("no key of the Debian archive that iota knows has signed it"))
    }
}

/// The text of an InRelease file that nobody has checked: only to find the keyring package, whose
/// keys are then held against the pinned fingerprints.
pub fn unverified(in_release: &[u8]) -> Result<String> {
    Ok(text(&parse(in_release)?))
}

fn parse(in_release: &[u8]) -> Result<CleartextSignedMessage> {
    let text = str::from_utf8(in_release).context(|| "it is not UTF-8".to_owned())?;
    let parsed = CleartextSignedMessage::from_string(text);
    Ok(parsed.context(|| "it is not a clear-signed file".to_owned())?.0)
}

fn text(message: &CleartextSignedMessage) -> String {
    message.signed_text().replace("\r\n", "\n")
}

#[cfg(test)]
pub(crate) mod tests {
    use pgp::composed::{ArmorOptions, KeyType, SecretKeyParamsBuilder, SignedSecretKey};
    use pgp::ser::Serialize as _;
    use pgp::types::Password;
    use rand::SeedableRng as _;
    use rand::rngs::StdRng;

    use super::*;

    /// A key made of a seed; the same for the same seed but for its time, hence its fingerprint.
    pub(crate) struct Signer {
        key: SignedSecretKey,
        random: StdRng,
    }

    impl Signer {
        pub(crate) fn new(seed: u64) -> Self {
            let mut random = StdRng::seed_from_u64(seed);
            let parameters = SecretKeyParamsBuilder::default()
                .key_type(KeyType::Ed25519Legacy)
                .can_sign(true)
                .primary_user_id("archive of a test".to_owned())
                .build()
                .unwrap();
            Self { key: parameters.generate(&mut random).unwrap(), random }
        }

        pub(crate) fn fingerprint(&self) -> String {
            self.key.fingerprint().to_string().to_uppercase()
        }

        pub(crate) fn keyring(&self) -> Vec<u8> {
            self.key.to_public_key().to_bytes().unwrap()
        }

        pub(crate) fn sign(&mut self, text: &str) -> Vec<u8> {
            let (random, key) = (&mut self.random, &self.key.primary_key);
            CleartextSignedMessage::sign(random, text, key, &Password::empty())
                .unwrap()
                .to_armored_bytes(ArmorOptions::default())
                .unwrap()
        }
    }

    const TEXT: &str = "Codename: trixie\n- dashed\nDate: today\nSHA256:\n 00 1 x\n";

    fn keyring(signer: &Signer) -> Keyring {
        let mut keyring = Keyring::default();
        keyring.add(&signer.keyring(), &[&signer.fingerprint()]);
        keyring
    }

    #[test]
    fn a_pinned_key_opens_the_text_it_signed() {
        let mut signer = Signer::new(1);
        let signed = signer.sign(TEXT);
        let text = keyring(&signer).verified(&signed).unwrap();
        assert_eq!(text.trim_end(), TEXT.trim_end());
    }

    #[test]
    fn a_key_that_is_not_pinned_is_not_used_even_if_it_is_in_the_keyring() {
        let (mut signer, other) = (Signer::new(1), Signer::new(2));
        let signed = signer.sign(TEXT);
        assert!(keyring(&other).verified(&signed).is_err());
        let mut keyring = Keyring::default();
        keyring.add(&signer.keyring(), &[&other.fingerprint()]);
        keyring.add(&signer.keyring(), &DEBIAN_KEYS);
        let error = keyring.verified(&signed).unwrap_err();
        assert_eq!(error.to_string(), "no key of the Debian archive that iota knows has signed it");
    }

    #[test]
    fn every_change_of_the_signed_text_is_refused() {
        let mut signer = Signer::new(1);
        let signed = signer.sign(TEXT);
        let keyring = keyring(&signer);
        let start = signed.windows(8).position(|window| window == b"Codename").unwrap();
        let end = signed.windows(10).position(|window| window == b"-----BEGIN").unwrap();
        let end =
            signed[end + 1..].windows(10).position(|window| window == b"-----BEGIN").unwrap() + end;
        for at in start..end - 1 {
            if signed[at].is_ascii_whitespace() {
                continue;
            }
            let mut bad = signed.clone();
            bad[at] ^= 1;
            assert!(keyring.verified(&bad).is_err(), "byte {at}");
        }
        let text = String::from_utf8(signed).unwrap();
        for bad in [
            text.replacen("Codename", "Extra: line\nCodename", 1),
            format!("Extra: line\n{text}"),
            format!("{text}Extra: line\n"),
            text.replacen("-----BEGIN PGP SIGNED", "-----BEGIN PGP SIGMED", 1),
            TEXT.to_owned(),
            String::new(),
        ] {
            assert!(keyring.verified(bad.as_bytes()).is_err(), "{bad}");
        }
    }

    #[test]
    fn damaged_key_material_gives_no_keys_and_no_panic() {
        let mut signer = Signer::new(1);
        let (signed, material) = (signer.sign(TEXT), signer.keyring());
        for length in 0..material.len() / 4 {
            let mut keyring = Keyring::default();
            keyring.add(&material[..length], &[&signer.fingerprint()]);
            assert!(keyring.verified(&signed).is_err() || length > 40, "cut to {length}");
        }
    }
}
