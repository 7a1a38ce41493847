//! A good table, good ones with one thing changed, and patches.
use alloc::string::ToString as _;
use alloc::vec;

use super::patch::Step;
use super::*;

fn groups() -> Vec<Group> {
    let group = |blocks, name: &[u8]| Group { blocks, sha256: Digest::of(name) };
    vec![group(2, b"one"), group(32, b"two"), group(5, b"three"), group(3, b"four")]
}

fn frame(length: u32) -> Frame {
    Frame { length, sha256: Digest::of(b"a frame") }
}

fn sample() -> Table {
    Table {
        release: Digest::of(b"the new slot manifest"),
        base: Some(Digest::of(b"the old slot manifest")),
        pieces: vec![
            Piece::Raw,
            Piece::Packed(frame(70_000)),
            Piece::Copy(17),
            Piece::Patched { frame: frame(300), block: 20, blocks: 64 },
        ],
    }
}

#[test]
fn a_table_is_pinned_and_read_back() {
    let bytes = sample().encode();
    let pinned = "9e04e0cac02545c557c63f53d5da6a1695351253e3815e9cc1e5bd9d6a01d0d1";
    assert_eq!(Digest::of(&bytes).to_string(), pinned);
    assert_eq!(Table::decode(&bytes, &groups()), Ok(sample()));
    assert_eq!(sample().offsets(&groups()), [0, 8192, 78_192, 78_192, 78_492]);
}

#[test]
fn a_table_with_one_thing_changed_is_refused() {
    let check = |change: fn(&mut Vec<u8>), expected: Error| {
        let mut bytes = sample().encode();
        change(&mut bytes);
        assert_eq!(Table::decode(&bytes, &groups()), Err(expected));
    };
    check(|bytes| bytes[0] = b'i', Error::Magic);
    check(|bytes| bytes[72] = 3, Error::Count { found: 3, wanted: 4 });
    check(|bytes| bytes[76] = 1, Error::Reserved(1));
    check(|bytes| bytes[80] = 4, Error::Piece(0));
    // Piece 1 is at 81: a frame of nothing, and one that is longer than its group.
    check(|bytes| bytes[82..86].fill(0), Error::Piece(1));
    check(|bytes| bytes[85] = 1, Error::Piece(1));
    // Piece 2 is at 118: beyond what blocks can be counted to.
    check(|bytes| bytes[119..123].fill(0xff), Error::Piece(2));
    // Piece 3 is at 123: its window starts at 160.
    check(|bytes| bytes[164] = 129, Error::Piece(3));
    check(|bytes| bytes[164] = 0, Error::Piece(3));
    // Without a base nothing can be copied from it.
    check(|bytes| bytes[40..72].fill(0), Error::Piece(2));
    check(|bytes| bytes.push(0), Error::Trailing);
    for length in 0..sample().encode().len() {
        let bytes = sample().encode();
        assert_eq!(Table::decode(&bytes[..length], &groups()), Err(Error::Cut), "{length}");
    }
}

fn patch(steps: &[(&[u8], &[u8], i32)]) -> Vec<u8> {
    let step = |(add, insert, seek): &(&[u8], &[u8], i32)| Step {
        add: add.to_vec(),
        insert: insert.to_vec(),
        seek: *seek,
    };
    patch::encode(&steps.iter().map(step).collect::<Vec<_>>()).expect("a short patch")
}

#[test]
fn a_patch_adds_inserts_and_goes_back() {
    let steps = patch(&[(&[0, 1, 0], b"xy", -2), (&[0, 255], b"", 0)]);
    assert_eq!(patch::apply(&steps, b"abcdef", 7).as_deref(), Some(&b"accxybb"[..]));
    assert_eq!(patch::apply(&patch(&[]), b"abc", 0).as_deref(), Some(&b""[..]));
}

#[test]
fn a_patch_that_leaves_its_bounds_is_refused() {
    let refused = |steps: &[(&[u8], &[u8], i32)], length| {
        assert_eq!(patch::apply(&patch(steps), b"abcdef", length), None, "{steps:?}");
    };
    refused(&[(&[0; 7], b"", 0)], 7);
    refused(&[(&[0; 3], b"", -4), (&[0], b"", 0)], 4);
    refused(&[(&[0; 3], b"", i32::MAX), (&[0], b"", 0)], 4);
    refused(&[(&[0; 3], b"", 0)], 2);
    refused(&[(&[0; 3], b"", 0)], 4);
    refused(&[(&[], b"too many", 0)], 7);
    let good = patch(&[(&[0, 1, 0], b"xy", -2), (&[0, 255], b"", 0)]);
    assert!((0..good.len()).all(|end| patch::apply(&good[..end], b"abcdef", 7).is_none()));
    assert_eq!(patch::apply(&[&good[..], b"x"].concat(), b"abcdef", 7), None);
    assert_eq!(patch::apply(&[255; 64], b"abcdef", 7), None);
}
