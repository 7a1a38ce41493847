//! Good trust roots, chains of them, and ones that do not follow.
use alloc::string::ToString as _;
use alloc::vec;

use ed25519_dalek::{Signer as _, SigningKey};
use expect_test::expect;

use super::*;
use crate::envelope::Signature;

/// Who has which role, by the seeds of the keys.
#[derive(Clone)]
pub(crate) struct Secrets {
    pub(crate) root: (Vec<u8>, u8),
    pub(crate) release: (Vec<u8>, u8),
    pub(crate) channel: (Vec<u8>, u8),
}

impl Default for Secrets {
    fn default() -> Self {
        Self { root: (vec![1, 2, 3], 2), release: (vec![4], 1), channel: (vec![5], 1) }
    }
}

fn public(seed: u8) -> PublicKey {
    let secret = SigningKey::from_bytes(&[seed; 32]);
    PublicKey::from_bytes(secret.verifying_key().as_bytes()).expect("a key")
}

fn quorum((seeds, threshold): &(Vec<u8>, u8)) -> Quorum {
    let keys = Keyring::new(seeds.iter().map(|&seed| public(seed)).collect()).expect("few keys");
    Quorum::new(keys, *threshold).expect("enough keys")
}

/// The trust root of this number.
pub(crate) fn root(number: u64, secrets: &Secrets) -> TrustRoot {
    let Secrets { root, release, channel } = secrets;
    let (root, release, channel) = (quorum(root), quorum(release), quorum(channel));
    TrustRoot { number, root, release, channel, revoked: Vec::new() }
}

/// In an envelope, signed by the keys of these seeds.
pub(crate) fn signed(root: &TrustRoot, seeds: &[u8]) -> Vec<u8> {
    signed_as(Role::TRUST_ROOT, root, seeds)
}

fn signed_as(role: Role, root: &TrustRoot, seeds: &[u8]) -> Vec<u8> {
    let payload = root.encode();
    let message = envelope::signed_message(role, payload.as_bytes()).expect("short");
    let sign = |&seed: &u8| Signature {
        key: public(seed).id(),
        bytes: SigningKey::from_bytes(&[seed; 32]).sign(&message).to_bytes(),
    };
    let signatures: Vec<_> = seeds.iter().map(sign).collect();
    envelope::encode(role, payload.as_bytes(), &signatures).expect("few signatures")
}

fn follow(from: &TrustRoot, files: &[Vec<u8>]) -> Result<TrustRoot, Error> {
    let bytes = files.concat();
    from.follow(&chain(&bytes)?)
}

/// Number 2 of the usual keys with another one for releases.
fn second() -> TrustRoot {
    root(2, &Secrets { release: (vec![6], 1), ..Secrets::default() })
}

fn first() -> TrustRoot {
    root(1, &Secrets::default())
}

fn too_few(number: u64, by: u64, found: usize) -> Result<TrustRoot, Error> {
    let error = envelope::Error::TooFew { found, threshold: 2 };
    Err(Error::Signature { number, by, error })
}

#[test]
fn the_text_is_pinned_and_read_back() {
    let mut root = first();
    root.revoked.push(Digest::of(b"bad"));
    expect![[r#"
        iota-trust-root 1
        number 1
        role root threshold=2
        key 8a88e3dd7409f195fd52db2d3cba5d72ca6709bf1d94121bf3748801b40f6f5c
        key 8139770ea87d175f56a35466c34c7ecccb8d8a91b4ee37a25df60f5b8fc9b394
        key ed4928c628d1c2c6eae90338905995612959273a5c63f93636c14614ac8737d1
        role release threshold=1
        key ca93ac1705187071d67b83c7ff0efe8108e8ec4530575d7726879333dbdabe7c
        role channel threshold=1
        key 6e7a1cdd29b0b78fd13af4c5598feff4ef2a97166e3ca6f2e4fbfccd80505bf1
        revoked 2f05d4b689d270cafb02285f35f44866f7dc8a2d368a3f9d1124373eeab31fb1
    "#]]
    .assert_eq(&root.encode());
    assert_eq!(TrustRoot::decode(&root.encode()), Ok(root));
}

#[test]
fn a_text_with_one_thing_changed_is_refused() {
    let check = |from: &str, to: &str, expected: &str| {
        let text = first().encode();
        assert!(text.contains(from), "{from:?} is not there");
        let error = TrustRoot::decode(&text.replacen(from, to, 1)).expect_err(expected);
        assert_eq!(error.to_string(), expected);
    };
    check("root 1\n", "root 2\n", "unknown format");
    check("number 1", "number 0", "0 is no number of a trust root");
    check(
        "number 1",
        "number 18446744073709551615",
        "18446744073709551615 is no number of a trust root",
    );
    check("number 1", "number +1", "not in canonical form");
    check("role root threshold=2", "role root threshold=0", "a threshold of 0 with 3 keys");
    check("role root threshold=2", "role root threshold=4", "a threshold of 4 with 3 keys");
    check("role root threshold=2", "role root", "cannot read the line \"role root threshold=\"");
    check("role release", "role channel", "cannot read the line \"role release threshold=\"");
    check("key ca", "key CA", "cannot read the line \"key\"");
    check(
        "\nrole channel threshold=1",
        "\nrevoked 00",
        "cannot read the line \"role channel threshold=\"",
    );
    let twice = first().encode().lines().nth(3).expect("a key").to_string();
    let other = first().encode().lines().nth(4).expect("a key").to_string();
    check(&other, &twice, &alloc::format!("key {} is listed twice", public(1).id()));
    let text = first().encode() + "revoked 12\n";
    assert_eq!(TrustRoot::decode(&text), Err(Error::Line("revoked ")));
}

#[test]
fn the_next_needs_enough_keys_of_the_one_before_and_of_its_own() {
    assert_eq!(follow(&first(), &[signed(&second(), &[1, 2])]), Ok(second()));
    assert_eq!(follow(&first(), &[signed(&second(), &[1, 2, 3])]), Ok(second()));
    assert_eq!(follow(&first(), &[signed(&second(), &[1])]), too_few(2, 1, 1));
    // Release and channel keys sign no trust root, however many there are.
    assert_eq!(follow(&first(), &[signed(&second(), &[1, 4, 5, 6])]), too_few(2, 1, 1));
    // Other root keys: both sets have to agree.
    let others = root(2, &Secrets { root: (vec![7, 8], 2), ..Secrets::default() });
    assert_eq!(follow(&first(), &[signed(&others, &[1, 2, 7, 8])]), Ok(others.clone()));
    assert_eq!(follow(&first(), &[signed(&others, &[1, 2, 7])]), too_few(2, 2, 1));
    assert_eq!(follow(&first(), &[signed(&others, &[1, 7, 8])]), too_few(2, 1, 1));
}

#[test]
fn one_lost_root_key_is_replaced_by_the_others() {
    let next = root(2, &Secrets { root: (vec![1, 2, 9], 2), ..Secrets::default() });
    assert_eq!(follow(&first(), &[signed(&next, &[1, 2])]), Ok(next));
}

#[test]
fn a_raised_threshold_holds_from_the_next_on_and_for_it() {
    let strict = root(2, &Secrets { root: (vec![1, 2, 3], 3), ..Secrets::default() });
    let error = envelope::Error::TooFew { found: 2, threshold: 3 };
    let refused = Err(Error::Signature { number: 2, by: 2, error: error.clone() });
    assert_eq!(follow(&first(), &[signed(&strict, &[1, 2])]), refused);
    assert_eq!(follow(&first(), &[signed(&strict, &[1, 2, 3])]), Ok(strict.clone()));
    let third = TrustRoot { number: 3, ..first() };
    let refused = Err(Error::Signature { number: 3, by: 2, error });
    assert_eq!(follow(&strict, &[signed(&third, &[1, 2])]), refused);
}

#[test]
fn ten_rotations_are_caught_up_with_from_any_of_them() {
    let number = |count: u8| {
        let secrets = Secrets { root: (vec![count, count + 1], 1), ..Secrets::default() };
        root(u64::from(count), &secrets)
    };
    let files: Vec<_> = (2..=11).map(|count| signed(&number(count), &[count])).collect();
    for behind in 1..=11 {
        assert_eq!(follow(&number(behind), &files), Ok(number(11)), "from {behind}");
    }
    // One that is left out is missed, not jumped over.
    let gap = [&files[..4], &files[5..]].concat();
    let missed = Err(Error::Gap { found: 7, after: 5 });
    assert_eq!(follow(&number(1), &gap), missed);
    assert_eq!(follow(&number(6), &gap), Ok(number(11)));
}

#[test]
fn older_ones_and_the_same_say_nothing() {
    let forged = signed(&second(), &[66]);
    assert_eq!(follow(&second(), &[forged]), Ok(second()));
    assert_eq!(follow(&second(), &[signed(&first(), &[1, 2])]), Ok(second()));
    assert_eq!(follow(&second(), &[]), Ok(second()));
}

#[test]
fn a_signature_for_another_purpose_does_not_count() {
    let other = signed_as(Role::CHANNEL, &second(), &[1, 2]);
    let refused = envelope::Error::Role { found: Role::CHANNEL, wanted: Role::TRUST_ROOT };
    assert_eq!(follow(&first(), &[other]), Err(Error::Envelope(refused)));
}

#[test]
fn every_flipped_bit_of_the_next_is_refused_or_means_an_older_one() {
    let good = signed(&second(), &[1, 2]);
    for bit in 0..good.len() * 8 {
        let mut flipped = good.clone();
        flipped[bit / 8] ^= 1 << (bit % 8);
        let followed = follow(&first(), &[flipped]);
        assert!(followed != Ok(second()), "bit {bit}");
        assert!(followed.is_err() || followed == Ok(first()), "bit {bit}: {followed:?}");
    }
}

#[test]
fn a_device_that_trusts_nobody_or_fixed_keys_follows_nobody() {
    let next = signed(&first(), &[1, 2]);
    let nobody = follow(&TrustRoot::default(), &[next]).expect_err("it trusts nobody");
    assert_eq!(nobody.to_string(), "trust root 1 by the keys of 0: no key is trusted here");
    let fixed = TrustRoot::fixed(Keyring::new(vec![public(9)]).expect("a key"));
    assert_eq!(follow(&fixed, &[signed(&second(), &[1, 2])]), Ok(fixed));
}

#[test]
fn a_chain_is_not_endless() {
    let one = signed(&second(), &[1]);
    assert_eq!(chain(&one.repeat(MAX_CHAIN)).map(|found| found.len()), Ok(MAX_CHAIN));
    assert_eq!(chain(&one.repeat(MAX_CHAIN + 1)), Err(Error::TooMany));
}
