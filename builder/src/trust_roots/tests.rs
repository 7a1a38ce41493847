//! Directories of trust roots, made, signed and read.
use ondisk::keyring::{Keyring, PublicKey};
use ondisk::trust_root::Quorum;

use super::*;
use crate::sign::Profile;
use crate::signer::Signer;

fn key(seed: u8) -> Key {
    Key::from_seed([seed; 32], Profile::Release)
}

fn quorum(seeds: &[u8], threshold: u8) -> Quorum {
    let keys: Vec<PublicKey> = seeds.iter().map(|&seed| key(seed).trusted().unwrap()).collect();
    Quorum::new(Keyring::new(keys).unwrap(), threshold).unwrap()
}

fn root(number: u64, release: u8) -> TrustRoot {
    TrustRoot {
        number,
        root: quorum(&[1, 2, 3], 2),
        release: quorum(&[release], 1),
        channel: quorum(&[5], 1),
        revoked: Vec::new(),
    }
}

#[test]
fn a_trust_root_counts_once_enough_keys_have_signed_it() {
    let directory = tempfile::tempdir().unwrap();
    let directory = directory.path().join("trust");
    let waiting = add(&directory, &root(1, 4), &[key(1)]).unwrap();
    let Signed::Unfinished { missing, .. } = waiting else { panic!("one signature is too few") };
    assert!(missing.ends_with("signed by 1 of the 2 trusted keys that it needs"), "{missing}");
    assert!(TrustRoots::load(&directory).unwrap_err().chain().contains("no file 1"));
    assert!(sign(&directory, &[key(1)]).unwrap_err().chain().contains("has the signatures"));
    assert!(sign(&directory, &[key(4)]).unwrap_err().chain().contains("cannot sign trust root 1"));
    let done = sign(&directory, &[key(2)]).unwrap();
    assert_eq!(done, Signed::Finished(directory.join("1")));
    assert!(!directory.join("1.unfinished").exists());
    let roots = TrustRoots::load(&directory).unwrap();
    assert_eq!(roots.newest(), &root(1, 4));
    assert!(roots.after_the_first().is_empty());
}

#[test]
fn each_next_one_follows_from_the_one_before_and_none_is_replaced() {
    let directory = tempfile::tempdir().unwrap();
    let directory = directory.path();
    for number in 1..=3 {
        let next = root(number, 10 + u8::try_from(number).unwrap());
        assert!(matches!(add(directory, &next, &[key(1), key(3)]), Ok(Signed::Finished(_))));
    }
    assert!(add(directory, &root(3, 4), &[key(1)]).unwrap_err().chain().contains("there already"));
    let far = add(directory, &root(5, 4), &[key(1)]).unwrap_err();
    assert!(far.chain().contains("5 does not follow"), "{}", far.chain());
    let roots = TrustRoots::load(directory).unwrap();
    assert_eq!(roots.newest(), &root(3, 13));
    let numbers: Vec<_> = roots.files().map(|(number, _)| number).collect();
    assert_eq!(numbers, [1, 2, 3]);
    // One of another set of keys in between is found out.
    fs::write(directory.join("2"), fs::read(directory.join("3")).unwrap()).unwrap();
    assert!(TrustRoots::load(directory).unwrap_err().chain().contains("others between them"));
}

#[test]
fn a_signer_signs_what_its_keys_count_for_and_says_which_keys_it_lacks() {
    let directory = tempfile::tempdir().unwrap();
    let directory = directory.path();
    let two = TrustRoot { release: quorum(&[6, 7], 2), ..root(1, 4) };
    add(directory, &two, &[key(1), key(2)]).unwrap();
    let files: Vec<PathBuf> = [5, 6, 7].map(|seed| directory.join(format!("key{seed}"))).into();
    for (seed, file) in [5, 6, 7].into_iter().zip(&files) {
        key(seed).save(file).unwrap();
    }
    let secrets: Vec<PathBuf> =
        files.iter().map(|file| file.with_added_extension("secret")).collect();
    let signer = |secrets: &[PathBuf]| {
        Signer::for_build(secrets, Some(directory), directory, Profile::Release).unwrap().0
    };
    let release = signer(&secrets[1..]);
    assert!(release.envelope(Role::SLOT_MANIFEST, b"x", "the manifest").is_ok());
    let error = release.envelope(Role::CHANNEL, b"x", "the channel").unwrap_err();
    assert!(error.chain().contains("cannot sign the channel with key"), "{}", error.chain());
    let error = signer(&secrets[1..2]).envelope(Role::BUNDLE, b"x", "the bundle").unwrap_err();
    assert!(error.chain().contains("signed by 1 of the 2"), "{}", error.chain());
    assert!(error.next_step().unwrap().contains("wants 2 of these release keys"));
    assert!(signer(&secrets[..1]).envelope(Role::CHANNEL, b"x", "the channel").is_ok());
}
