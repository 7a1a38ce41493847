//! A good bundle, and good ones with one thing changed.
use alloc::string::{String, ToString as _};
use alloc::vec::Vec;
use alloc::{format, vec};

use ed25519_dalek::Signer as _;
use expect_test::expect;

use super::*;
use crate::envelope::Signature;
use crate::manifest;
use crate::manifest::tests::{secret, trust};

fn index() -> Index {
    let group = |blocks, name: &str| Group { blocks, sha256: Digest::of(name.as_bytes()) };
    Index {
        chunks: vec![Digest::of(b"chunk 1"), Digest::of(b"chunk 2")],
        groups: vec![group(64, "group 1"), group(1, "group 2"), group(5, "group 3")],
    }
}

fn sample() -> Fields {
    Fields {
        slot_manifest: Blob::of(b"a slot manifest"),
        image_bytes: 70 * 4096,
        index: Blob::of(&index().encode()),
        stream_bytes: 150_000,
        chunk_bytes: 100_000,
        window_bytes: 131_072,
    }
}

fn area_of(payload: &[u8], role: Role) -> [u8; HEADER_BYTES] {
    let message = envelope::signed_message(role, payload).expect("short");
    let bytes = secret().sign(&message).to_bytes();
    let key = trust().release.keys()[0].id();
    let envelope = envelope::encode(role, payload, &[Signature { key, bytes }]);
    let mut area = envelope.expect("one signature");
    area.resize(HEADER_BYTES, 0);
    area.try_into().expect("4096 bytes")
}

fn open(area: &[u8; HEADER_BYTES]) -> Result<Header, Error> {
    let (header, signer) = Unverified::parse(area)?.verify(&trust())?;
    assert_eq!(signer.to_string(), trust().release.keys()[0].id().to_string());
    Ok(header)
}

#[test]
fn the_header_is_pinned_and_read_back() {
    let text = sample().encode();
    expect![[r#"
        iota-bundle 1
        slot-manifest length=15 sha256=938487c790500af758e2d0cd67709bdc0dfb57cd3b785e00d94ebc2ac75c5fad
        image length=286720
        index length=172 sha256=877813a1a2fe28f511ba92fe6d6b1c24e019acddb577f71ff4f8e3a91c6a1942
        stream length=150000 chunk=100000 window=131072
    "#]]
    .assert_eq(&text);
    let area = area_of(text.as_bytes(), Role::BUNDLE);
    let digest = expect!["afb6311366b0b9bf639ae6543e51ecafcfdfc5ff62679bf7f6c7dff97ff2de9a"];
    digest.assert_eq(&Digest::of(&area).to_string());
    let header = open(&area).expect("a good header");
    assert_eq!(*header.fields(), sample());
    assert_eq!(header.chunks(), 2);
    assert_eq!(header.total_bytes(), 4096 + 15 + 172 + 150_000);
    let sections = Sections::of(&header);
    assert_eq!(sections.stream, Extent { offset: 4096 + 15 + 172, length: 150_000 });
    assert_eq!(sections.stream.end(), Some(header.total_bytes()));
}

#[test]
fn every_flipped_bit_of_a_header_is_refused() {
    let good = area_of(sample().encode().as_bytes(), Role::BUNDLE);
    for bit in 0..HEADER_BYTES * 8 {
        let mut flipped = good;
        flipped[bit / 8] ^= 1 << (bit % 8);
        assert!(open(&flipped).is_err(), "bit {bit}");
    }
}

#[test]
fn a_slot_manifest_is_no_bundle_header_and_the_other_way_round() {
    let area = area_of(sample().encode().as_bytes(), Role::SLOT_MANIFEST);
    let error = open(&area).expect_err("another role");
    assert_eq!(error.to_string(), "bundle header: signed as slot manifest, not as bundle header");
    assert_eq!(Unverified::parse(&area).and_then(|u| u.header_unverified()), Err(error));
}

#[test]
fn a_header_with_one_line_changed_is_refused() {
    let check = |from: &str, to: &str, expected: &str| {
        let text = sample().encode();
        assert!(text.contains(from), "{from:?} is not there");
        let area = area_of(text.replacen(from, to, 1).as_bytes(), Role::BUNDLE);
        assert_eq!(open(&area).expect_err(expected).to_string(), expected);
    };
    check("bundle 1", "bundle 2", "bundle has a format that this program does not know");
    check("iota-bundle 1\n", "", "bundle header: the line \"iota-bundle\" is missing");
    check("window=131072\n", "window=131072", "bundle header: the line \"stream\" is missing");
    check("window=131072\n", "window=131072\nmore\n", "bundle header has a line too many");
    check("image length=", "image length=+", "bundle header is not in canonical form");
    check("image length=", "image length=0", "bundle header is not in canonical form");
    check("image length=", "image size=", "bundle header: cannot read the line \"image\"");
    check(" chunk=", " chunk=x", "bundle header: cannot read the line \"stream\"");
    check(" window=", " more=1 window=", "bundle header: cannot read the line \"stream\"");
    check("sha256=", "sha256=0", "bundle header: cannot read the line \"slot-manifest\"");
    check(
        "length=15 ",
        "length=49153 ",
        "slot manifest of the bundle has 49153 bytes, allowed are 1 to 49152",
    );
    check(
        "window=131072",
        "window=8388609",
        "window of the bundle has 8388609 bytes, allowed are 1 to 8388608",
    );
    check("chunk=100000", "chunk=0", "chunk of the bundle has 0 bytes, allowed are 1 to 1048576");
    check("=286720", "=286721", "image of 286721 bytes in the bundle is not whole blocks");
    check("stream length=150000", "stream length=18446744073709551615", "bundle ends nowhere");
}

#[test]
fn an_index_reads_back_and_describes_the_whole_image() {
    let header = Header::new(sample()).expect("a good header");
    assert_eq!(Index::decode(&header, &index().encode()), Ok(index()));
    let check = |change: fn(&mut Index), expected: Error| {
        let mut index = index();
        change(&mut index);
        let bytes = index.encode();
        let header = Header::new(Fields { index: Blob::of(&bytes), ..sample() }).expect("a header");
        assert_eq!(Index::decode(&header, &bytes), Err(expected));
    };
    check(|index| index.groups[1].blocks = 2, Error::IndexSum(71 * 4096));
    check(|index| index.groups[1].blocks = 0, Error::GroupBlocks(0));
    check(|index| index.groups[1].blocks = 65, Error::GroupBlocks(65));
    check(|index| index.groups.truncate(2), Error::IndexSum(65 * 4096));
    check(|index| index.chunks.truncate(1), Error::IndexLength(140));
    check(|index| index.chunks.clear(), Error::IndexLength(108));
}

#[test]
fn an_index_that_the_header_does_not_list_is_refused() {
    let header = Header::new(sample()).expect("a good header");
    let good = index().encode();
    for bit in 0..good.len() * 8 {
        let mut flipped = good.clone();
        flipped[bit / 8] ^= 1 << (bit % 8);
        assert_eq!(Index::decode(&header, &flipped), Err(Error::Section("index")), "bit {bit}");
    }
    assert_eq!(Index::decode(&header, &good[1..]), Err(Error::Section("index")));
}

#[test]
fn the_image_is_the_one_of_the_manifest() {
    let manifest = manifest::tests::of_version("1.0", 1);
    let wanted = image_bytes(&manifest).expect("a number");
    assert_eq!(wanted, 206 * 4096);
    let with = |image_bytes| Header::new(Fields { image_bytes, ..sample() }).expect("a header");
    assert_eq!(with(wanted).check_manifest(&manifest), Ok(()));
    let found = wanted - 4096;
    let error = Error::NotTheImage { found, wanted };
    assert_eq!(with(found).check_manifest(&manifest), Err(error));
}

/// Every error is one clause that names what is wrong; no two are the same.
#[test]
fn errors_are_told_apart_by_their_words() {
    let errors = [
        Error::NotText,
        Error::Format,
        Error::ExtraLine,
        Error::NotCanonical,
        Error::ImageLength(1),
        Error::TooLong,
        Error::Section("index"),
        Error::NotTheImage { found: 1, wanted: 2 },
        Error::IndexLength(3),
        Error::GroupBlocks(4),
        Error::IndexSum(5),
    ];
    let mut words: Vec<String> = errors.iter().map(|error| format!("{error}")).collect();
    words.sort();
    words.dedup();
    assert_eq!(words.len(), errors.len());
}
