//! A good table, good ones with one thing changed, and patches.
use alloc::string::ToString as _;
use alloc::vec;

use super::patch::Step;
use super::recipe::{MAX_CONTENT_BYTES, Part, Recipe};
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
        libzstd: Some(10507),
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
    let pinned = "fc39841f48323b1ebebd35271cb4a8656dd7091d50ae06b607a3bbf52e8c63b9";
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

/// Two blocks, a span, and a block with a frame in its middle.
const PARTS: [Part; 5] = [
    Part { stored: 8192, level: 0, content: 8192 },
    Part { stored: 12_288, level: 19, content: 30_000 },
    Part { stored: 1000, level: 0, content: 1000 },
    Part { stored: 1810, level: 3, content: 100 },
    Part { stored: 1286, level: 0, content: 1286 },
];

fn recipe_of(parts: &[Part]) -> Recipe {
    Recipe { base: Digest::of(b"blocks of the base"), parts: parts.to_vec() }
}

#[test]
fn a_recipe_is_pinned_and_read_back_and_leaves_the_patch() {
    let bytes = [&recipe_of(&PARTS).encode()[..], b"patch"].concat();
    let pinned = "31b0c7939aa0487cf01ff2e8dbc0855b3d34b3772713d112a627b7d96eec231a";
    assert_eq!(Digest::of(&bytes).to_string(), pinned);
    assert_eq!(recipe::decode(&bytes, 6), Some((recipe_of(&PARTS), &b"patch"[..])));
    assert_eq!(recipe::content_bytes(&PARTS), Some(40_578));
    assert!((0..79).all(|end| recipe::decode(&bytes[..end], 6).is_none()));
}

#[test]
fn a_recipe_that_is_not_for_its_group_is_refused() {
    let refused = |parts: &[Part], blocks| {
        assert_eq!(recipe::decode(&recipe_of(parts).encode(), blocks), None, "{parts:?}");
    };
    refused(&PARTS, 5);
    refused(&PARTS, 7);
    refused(&[Part { stored: 0, level: 3, content: 100 }], 0);
    refused(&[Part { stored: 4096, level: 0, content: 4095 }], 1);
    refused(&[Part { stored: 4095, level: 3, content: 100 }], 1);
    let much = u32::try_from(MAX_CONTENT_BYTES).unwrap();
    refused(&[Part { stored: 6 * 4096, level: 3, content: much + 1 }], 6);
    refused(&[Part { stored: 3 * 4096, level: 3, content: much / 2 + 1 }; 2], 6);
    let many = [Part { stored: 64, level: 3, content: 1 }; recipe::MAX_PARTS + 64];
    refused(&many, 33);
    let most = recipe_of(&[Part { stored: 6 * 4096, level: 3, content: much }]).encode();
    assert!(recipe::decode(&most, 6).is_some());
    assert!(recipe::decode(&recipe_of(&many[..recipe::MAX_PARTS]).encode(), 32).is_some());
}

#[test]
fn a_group_is_made_of_its_content() {
    // A stand-in for libzstd: a frame is the level so many times, then the content's first bytes.
    let pack = |level: u8, content: &[u8]| {
        let mut frame = vec![level; usize::from(level) * 600];
        frame.extend_from_slice(content.get(..10)?);
        Some(frame)
    };
    let content: Vec<u8> =
        (0..40_578_u32).flat_map(|number| number.to_le_bytes()).step_by(2).take(40_578).collect();
    let group = recipe::make(&PARTS, &content, pack).unwrap();
    assert_eq!(group.len(), 6 * 4096);
    assert_eq!(group[..8192], content[..8192]);
    let frame = [vec![19; 11_400], content[8192..8202].to_vec()].concat();
    let zeros = 3 * 4096 - frame.len();
    assert_eq!(group[8192..8192 + zeros], vec![0; zeros]);
    assert_eq!(group[8192 + zeros..5 * 4096], frame);
    let frame = [vec![3; 1800], content[39_192..39_202].to_vec()].concat();
    let end = [&content[38_192..39_192], &frame, &content[39_292..]].concat();
    assert_eq!(group[5 * 4096..], end);
    // Too little content, too much, a frame that does not fit and one that leaves a whole block.
    assert_eq!(recipe::make(&PARTS, &content[1..], pack), None);
    assert_eq!(recipe::make(&PARTS, &[&content[..], &[0]].concat(), pack), None);
    assert_eq!(recipe::make(&PARTS, &content, |_, _| Some(vec![1; 4097])), None);
    assert_eq!(recipe::make(&PARTS, &content, |_, _| Some(vec![1; 4096])), None);
    assert_eq!(recipe::make(&PARTS, &content, |_, _| None), None);
}
