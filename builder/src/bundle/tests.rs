//! Bundles of a small slot, made by the builder's own slot writer and read by the host's reader.
use std::fs;
use std::path::PathBuf;

use expect_test::expect;
use ondisk::device::FileDevice;
use ondisk::manifest::Unpacked;
use ondisk::trust_root::TrustRoot;

use super::*;
use crate::image::erofs;
use crate::inspect;
use crate::sign::Key;
use crate::slot::{self, Compressed, Contents};
use crate::tree::{Content, Node, Tree, TreePath};

const SLOT_BYTES: u64 = 4 << 20;
pub(crate) const SETTINGS: Settings = Settings { level: 3, window_log: 17, chunk_bytes: 64 * 1024 };

/// Bytes that do not compress well, from a small generator.
pub(crate) fn noise(seed: u32, length: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(2_654_435_761) | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 17;
        state ^= state << 5;
        state.to_le_bytes()[2]
    };
    (0..length).map(|_| next()).collect()
}

pub(crate) fn signer(seed: u8) -> Signer {
    key(seed).into()
}

pub(crate) fn key(seed: u8) -> Key {
    Key::from_seed([seed; 32], Profile::Development)
}

/// Writes a slot of about 1 MiB; another `changed` changes one file.
pub(crate) fn slot(directory: &Path, changed: u8) -> PathBuf {
    let mut root = Tree::new();
    let mut file = |name: &str, bytes: Vec<u8>| {
        let node = Node::file(Content::bytes(bytes), 0o644, "test");
        root.insert(TreePath::new(name).unwrap(), node).unwrap();
    };
    file("a", noise(1, 400_000));
    file("b", vec![changed; 10_000]);
    file("c", noise(3, 400_000));
    let kernel = noise(4, 100_000);
    let contents = Contents {
        board: "test-board",
        version: "1.2.3",
        rollback_index: 7,
        command_line: "panic=5",
        root: &root,
        erofs: erofs::Options {
            compression: erofs::Compression::None,
            uuid: [1; 16],
            build_time_s: 0,
            volume_label: "test".to_owned(),
        },
        salt: [2; 32],
        initrd: &noise(5, 5000),
        signer: &signer(1),
    };
    let path = directory.join(format!("slot-{changed}.img"));
    let unpacked = Unpacked { length: 3, sha256: Digest::of(b"abc") };
    slot::write(&path, SLOT_BYTES, &contents, || Ok(Compressed { bytes: kernel, unpacked }))
        .unwrap();
    path
}

pub(crate) fn open(path: &Path) -> FileDevice {
    FileDevice::new(File::open(path).unwrap()).unwrap()
}

/// A directory with a slot and its bundle.
fn made() -> (tempfile::TempDir, PathBuf, PathBuf) {
    let directory = tempfile::tempdir().unwrap();
    let slot = slot(directory.path(), 0);
    let bundle = directory.path().join("update.bundle");
    write(&bundle, &open(&slot), &signer(1), SETTINGS, |_| {}).unwrap();
    (directory, slot, bundle)
}

fn trust(seed: u8) -> TrustRoot {
    signer(seed).trust().clone()
}

#[test]
fn a_bundle_holds_the_slot_and_passes_every_check() {
    let (_directory, slot, bundle) = made();
    let findings = inspect::inspect(&bundle, &trust(1)).unwrap();
    assert!(findings.whole(), "{}", inspect::render(&findings));
    let found = findings.bundle.as_ref().unwrap();
    let in_slot = inspect::inspect(&slot, &trust(1)).unwrap();
    assert_eq!(found.manifest, in_slot.slots[0].manifest);
    let checks: Vec<_> = found.checks.iter().map(|check| check.what.as_str()).collect();
    let expected = "signature file manifest index stream image root verity kernel initrd";
    assert_eq!(checks.join(" "), expected);
}

#[test]
fn the_text_and_the_bytes_of_a_bundle_are_pinned() {
    let (_directory, _, bundle) = made();
    let findings = inspect::inspect(&bundle, &trust(1)).unwrap();
    expect![[r#"
        bundle
          iota-bundle 1
          slot-manifest length=886 sha256=289879acd213dc7d9d20e3802ee4827cca3968e80499241c0dd2ffad7b6d4e82
          image length=929792
          index length=844 sha256=2c2b2f62001e24d478080b39d2e290fa2450a0c06178d63c5666008109db6336
          stream length=912046 chunk=65536 window=131072
        slot in the bundle
          iota-slot 1
          board test-board
          version 1.2.3
          rollback-index 7
          profile development
          part root offset=0 length=806912 sha256=9ecb19639396fb390e3f546e15b0be34fc20cb3e14cd94ac8b9375e091e4e2ad
          part verity offset=806912 length=12288 sha256=caa09f4471316461a58f8d9de67a289df0440746d2853237899eb768e04c9c9d
          part kernel offset=819200 length=100000 sha256=84172c0889322ed480c2b5c262bf10b84ce1d34ac26aeeba40f9a7e8355f0f4c unpacked-length=3 unpacked-sha256=ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad
          part initrd offset=921600 length=5000 sha256=8c59b42177ebb2102d70891a3f18fb5db28b386f6321d1fbbc5c0125be8cffeb
          verity salt=0202020202020202020202020202020202020202020202020202020202020202 root-hash=994bca28e42e7aedbec897c8d266a0c4326e742319c70a16b4ef94d704c5b5e6
          command-line panic=5
          signature  ok: by 34750f98bd59fcfc
          file       ok: length
          manifest   ok: by 34750f98bd59fcfc
          index      ok: 11 groups
          stream     ok: 14 chunks
          image      ok: every group
          root       ok: sha256
          verity     ok: sha256
          kernel     ok: sha256
          initrd     ok: sha256"#]].assert_eq(&inspect::render(&findings));
    expect!["f8837dbee180cf264f2cdab9d2831d7a1f44b0bff34e2d51d4142db61f99406e"]
        .assert_eq(&Digest::of(&fs::read(bundle).unwrap()).to_string());
}

#[test]
fn every_check_can_fail() {
    let (directory, _, bundle) = made();
    let good = fs::read(&bundle).unwrap();
    let area: [u8; HEADER_BYTES] = *good.first_chunk().unwrap();
    let header = bundle::Unverified::parse(&area).unwrap().header_unverified().unwrap();
    let sections = bundle::Sections::of(&header);
    let check = |what: &str, bytes: &[u8]| {
        let path = directory.path().join("bad.bundle");
        fs::write(&path, bytes).unwrap();
        let findings = inspect::inspect(&path, &trust(1)).unwrap();
        let bad = findings.bundle.unwrap().checks.into_iter().find(|c| c.good == Some(false));
        assert_eq!(bad.unwrap().what, what);
    };
    let flipped = |offset: u64| {
        let mut bad = good.clone();
        bad[usize::try_from(offset).unwrap()] ^= 1;
        bad
    };
    check("file", &[&good[..], b"x"].concat());
    check("manifest", &flipped(sections.slot_manifest.offset + 40));
    check("index", &flipped(sections.index.offset));
    check("stream", &flipped(sections.stream.offset + 100_000));
    // The length of a chunk in the header: still a header, but not the one that was signed.
    let at = good.windows(6).position(|bytes| bytes == b"chunk=").unwrap();
    check("signature", &flipped(u64::try_from(at).unwrap() + 10));
}

#[test]
fn signatures_are_shown_and_checked_only_against_given_keys() {
    let (_directory, _, bundle) = made();
    let unchecked = inspect::inspect(&bundle, &TrustRoot::default()).unwrap();
    assert!(unchecked.whole());
    assert_eq!(unchecked.bundle.unwrap().checks[0].good, None);
    let other = inspect::inspect(&bundle, &trust(2)).unwrap();
    assert!(!other.whole());
}

#[test]
fn a_slot_that_another_key_signed_makes_no_bundle() {
    let directory = tempfile::tempdir().unwrap();
    let slot = open(&slot(directory.path(), 0));
    let target = directory.path().join("update.bundle");
    let error = write(&target, &slot, &signer(2), SETTINGS, |_| {}).unwrap_err();
    assert!(error.to_string().contains("signed by no trusted key"), "{error}");
    assert!(error.next_step().is_some());
    assert!(!target.exists());
}

#[test]
fn a_bundle_is_made_again_only_for_another_slot() {
    let (directory, first, bundle) = made();
    assert!(is_of(&bundle, &open(&first), &signer(1)));
    assert!(!is_of(&bundle, &open(&first), &signer(2)));
    let second = slot(directory.path(), 1);
    assert!(!is_of(&bundle, &open(&second), &signer(1)));
    let bytes = fs::read(&bundle).unwrap();
    fs::write(&bundle, &bytes[..bytes.len() - 1]).unwrap();
    assert!(!is_of(&bundle, &open(&first), &signer(1)));
}

#[test]
fn groups_before_and_after_a_change_stay_the_same() {
    let directory = tempfile::tempdir().unwrap();
    let groups = |changed| {
        let device = open(&slot(directory.path(), changed));
        let mut stream = tempfile::tempfile().unwrap();
        let bytes = image_bytes(&device, &signer(1)).unwrap();
        pack(&device, bytes, &mut stream, SETTINGS, |_| {}).unwrap().index.groups
    };
    let (old, new) = (groups(0), groups(1));
    let blocks: u32 = new.iter().map(|group| group.blocks).sum();
    assert!(new.len() > 5 && blocks > 200, "{} groups of {blocks} blocks", new.len());
    let changed = new.iter().filter(|group| !old.contains(group)).count();
    // The file's own three blocks, and the hash tree.
    assert!((1..=5).contains(&changed), "{changed} of {} groups", new.len());
}

#[test]
fn groups_have_at_least_two_and_at_most_sixty_four_blocks() {
    let image = [noise(9, 400 * BLOCK), vec![0; 100 * BLOCK]].concat();
    let groups = ondisk::bundle::cut::groups(&image, BLOCK);
    let (_last, inner) = groups.split_last().unwrap();
    let limits = 2..=64;
    assert!(inner.iter().all(|group| limits.contains(&group.blocks)));
    assert_eq!(groups.iter().map(|group| group.blocks).sum::<u32>(), 500);
}

#[test]
fn progress_ends_at_the_length_of_the_image() {
    let (directory, slot, _bundle) = made();
    let mut done = 0;
    let target = directory.path().join("again.bundle");
    let made = write(&target, &open(&slot), &signer(1), SETTINGS, |bytes| done += bytes).unwrap();
    assert_eq!(done, made.image_bytes);
    assert_eq!(made.bytes, fs::metadata(target).unwrap().len());
}
