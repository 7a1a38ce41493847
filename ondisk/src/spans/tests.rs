//! Frames written by hand: blocks of zstd that hold their bytes as they are, or repeat one.
use super::*;

/// A frame that says it has so much content, of these blocks: a type and what follows the header.
fn frame(content: u32, blocks: &[(u32, u32, &[u8])]) -> Vec<u8> {
    // One segment, the length in four bytes, neither checksum nor dictionary.
    let mut bytes = [&MAGIC[..], &[0b1010_0000], &content.to_le_bytes()].concat();
    for (number, (kind, length, rest)) in blocks.iter().enumerate() {
        let last = u32::from(number == blocks.len() - 1);
        bytes.extend_from_slice(&(length << 3 | kind << 1 | last).to_le_bytes()[..3]);
        bytes.extend_from_slice(rest);
    }
    bytes
}

/// Bytes as they are, in one block of a frame.
fn stored(length: usize) -> Vec<u8> {
    let content = vec![7; length];
    let number = u32::try_from(length).unwrap();
    frame(number, &[(0, number, &content)])
}

fn span(frame: &[u8]) -> Vec<u8> {
    let mut blocks = vec![1; frame.len().next_multiple_of(BLOCK)];
    place(frame, &mut blocks).unwrap();
    blocks
}

/// Numbers of blocks of the runs, those of spans with a minus.
fn lengths(blocks: &[u8]) -> Vec<isize> {
    let length = |run: Run<'_>| {
        let blocks = isize::try_from(run.stored().len().div_ceil(BLOCK)).unwrap();
        if matches!(run, Run::Packed { .. }) { -blocks } else { blocks }
    };
    runs(blocks).map(length).collect()
}

#[test]
fn spans_are_told_from_blocks_around_them() {
    let other = [5; BLOCK];
    let all = [
        &other[..],
        &span(&stored(100)),
        &span(&stored(10_000)),
        &[0; BLOCK],
        &span(&frame(9, &[(1, 9, b"x"), (2, 4000, &[9; 4000]), (0, 200, &[8; 200])])),
        &other,
        &[5; 77],
    ]
    .concat();
    assert_eq!(lengths(&all), [1, -1, -3, 1, -2, 1, 1]);
    let contents: Vec<usize> = runs(&all).map(|run| run.content_bytes()).collect();
    assert_eq!(contents, [BLOCK, 100, 10_000, BLOCK, 9, BLOCK, 77]);
    assert_eq!(content_bytes(&all), Some(3 * BLOCK + 100 + 10_000 + 9 + 77));
    let frames: Vec<_> = runs(&all)
        .filter_map(|run| match run {
            Run::Packed { frame, .. } => Some(frame.to_vec()),
            Run::Plain(_) => None,
        })
        .collect();
    assert_eq!((frames.len(), &frames[0], &frames[1]), (3, &stored(100), &stored(10_000)));
    assert_eq!(lengths(&[]), [0_isize; 0]);
    assert!(!is_packed(&all) && !is_packed(&[]) && !is_packed(b"no span"));
    assert!(is_packed(&[span(&stored(100)), span(&stored(10_000))].concat()));
}

/// Lengths of the runs in bytes, those of frames with a minus.
fn bytes_of(blocks: &[u8]) -> Vec<isize> {
    let length = |run: Run<'_>| {
        let bytes = isize::try_from(run.stored().len()).unwrap();
        if matches!(run, Run::Packed { .. }) { -bytes } else { bytes }
    };
    runs(blocks).map(length).collect()
}

#[test]
fn frames_within_a_block_are_told_from_the_bytes_around_them() {
    let block = |parts: &[&[u8]]| {
        let mut bytes = parts.concat();
        bytes.resize(BLOCK, 5);
        bytes
    };
    // 12 bytes are before the content.
    let (one, two) = (stored(1000), stored(88));
    let isize = |length: usize| isize::try_from(length).unwrap();
    let rest = |used: usize| isize(BLOCK - used);
    assert_eq!(bytes_of(&block(&[&[5; 64], &one])), [64, -1012, rest(1076)]);
    assert_eq!(bytes_of(&block(&[&one, &two, &[5; 8], &one])), [-1012, -100, 8, -1012, rest(2132)]);
    let to_the_end = block(&[&vec![5; BLOCK - 100], &two]);
    assert_eq!(bytes_of(&to_the_end), [rest(100), -100]);
    // One that starts like a frame, behind it a frame; one that ends in the next block; a short
    // one.
    let open = &stored(5000)[..200];
    assert_eq!(bytes_of(&block(&[open, &one])), [200, -1012, rest(1212)]);
    let long = [&[5; 100], &stored(BLOCK)[..], &[5; BLOCK - 112]].concat();
    assert_eq!(bytes_of(&long), [isize(BLOCK), isize(BLOCK)]);
    assert_eq!(bytes_of(&block(&[&[5; 8], &stored(51)])), [isize(BLOCK)]);
    assert_eq!(bytes_of(&block(&[&[5; 8], &stored(52)])), [8, -64, rest(72)]);
    // Spans and blocks around them, and the content of all.
    let all = [&block(&[&[5; 64], &one])[..], &span(&stored(5000)), &to_the_end].concat();
    assert_eq!(bytes_of(&all), [64, -1012, rest(1076), -2 * isize(BLOCK), rest(100), -100]);
    assert_eq!(content_bytes(&all), Some(2 * BLOCK - 1012 - 100 + 1000 + 5000 + 88));
    assert!(!is_packed(&all));
}

#[test]
fn a_header_of_a_block_may_lie_between_two_blocks_of_the_disk() {
    for first in BLOCK - 20..BLOCK {
        let length = u32::try_from(first).unwrap();
        let two = frame(1, &[(0, length, &vec![1; first]), (0, 5000, &[2; 5000])]);
        assert_eq!(lengths(&span(&two)), [-3], "{first}");
    }
}

#[test]
fn what_is_no_span_are_blocks_as_they_are() {
    let whole = span(&stored(10_000));
    let is_none = |change: fn(&mut Vec<u8>), why: &str| {
        let mut frame = stored(10_000);
        change(&mut frame);
        assert!(lengths(&span(&frame)).iter().all(|length| *length > 0), "{why}");
    };
    is_none(|frame| frame[0] = 0x29, "another magic");
    is_none(|frame| frame[4] |= 0b100, "a checksum");
    is_none(|frame| frame[4] |= 0b1, "a dictionary");
    is_none(|frame| frame[4] |= 0b1000, "a reserved bit");
    is_none(|frame| frame[4] = 0, "no length of the content");
    is_none(|frame| frame[9] |= 0b110, "a block of the type that is reserved");
    is_none(|frame| frame[9] &= !1, "no last block");
    is_none(|frame| frame[10] += 1, "a block that ends elsewhere");
    is_none(|frame| frame.push(0), "something behind the frame");
    is_none(|frame| drop(frame.drain(4096..)), "no end");
    // A block of zeros belongs to no span, and more than 64 blocks are none.
    assert_eq!(lengths(&[&[0; BLOCK][..], &whole].concat()), [1, -3]);
    assert_eq!(lengths(&span(&stored(64 * BLOCK - 12))), [-64]);
    assert!(!lengths(&span(&stored(64 * BLOCK))).contains(&-65));
    // Every cut of a span.
    for length in (0..whole.len()).step_by(97) {
        assert!(lengths(&whole[..length]).iter().all(|length| *length > 0), "{length}");
    }
}

#[test]
fn a_walker_sees_what_runs_sees() {
    let all = [&[3; BLOCK][..], &span(&stored(10_000)), &[4; BLOCK], &span(&stored(1))].concat();
    let mut walker = Walker::default();
    let seen: Vec<At> = all.chunks(BLOCK).map(|block| walker.put(block)).collect();
    use At::{End, Inside, Outside};
    let (long, short) = (End { content: 10_000 }, End { content: 1 });
    assert_eq!(seen, [Outside, Inside, Inside, long, Outside, short]);
}

#[test]
fn what_is_unpacked_fills_its_room_or_is_nothing() {
    let all = [&[3; BLOCK][..], &span(&stored(100)), &span(&stored(50))].concat();
    let decode = |frame: &[u8], room: &mut [u8]| {
        room.copy_from_slice(frame.get(frame.len().checked_sub(room.len())?..)?);
        Some(room.len())
    };
    let content = content(&all, BLOCK + 150, decode).unwrap();
    assert_eq!(content, [vec![3; BLOCK], vec![7; 150]].concat());
    assert_eq!(super::content(&all, BLOCK + 149, decode), None);
    assert_eq!(super::content(&all, 1 << 20, |_, room| Some(room.len() - 1)), None);
    assert_eq!(super::content(&all, 1 << 20, |_, _| None), None);
    let mut room = vec![9; BLOCK + 200];
    assert_eq!(unpack(&all, &mut room, decode), Some(BLOCK + 150));
    assert!(room[..BLOCK + 150] == content && room[BLOCK + 150..] == [9; 50]);
    // What a frame says of itself may be anything.
    let giant = span(&frame(u32::MAX, &[(0, 3, b"abc")]));
    assert_eq!(super::content(&giant, 1 << 20, decode), None);
}

#[test]
fn a_frame_is_placed_at_the_end_and_only_where_it_makes_a_span() {
    let mut blocks = [9; 2 * BLOCK];
    place(&stored(5000), &mut blocks).unwrap();
    assert_eq!(lengths(&blocks), [-2]);
    assert_eq!(place(&stored(4000), &mut blocks), None);
    assert_eq!(place(&stored(2 * BLOCK), &mut blocks), None);
}

#[test]
fn groups_hold_no_more_content_than_a_patch_may_have() {
    // A few bytes that stand for 256 KiB, whose checksum ends no group.
    let zeros = span(&frame(256 * 1024, &[(1, 131_072, b"1"), (1, 131_072, b"2")]));
    let image = zeros.repeat(100);
    let groups = crate::bundle::cut::groups(&image, BLOCK);
    let most = groups.iter().map(|group| group.blocks).max().unwrap();
    assert!(groups.len() < 50 && most == 4, "{groups:?}");
}

#[test]
fn groups_end_between_spans() {
    let mut state = 1_u32;
    let mut number = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        state >> 16
    };
    let mut image = Vec::new();
    let mut boundaries = alloc::collections::BTreeSet::new();
    for _ in 0..300 {
        boundaries.insert(image.len() / BLOCK);
        // Up to 49 blocks: two of them need not fit in one group.
        let mut length = usize::try_from(number() * 3).unwrap();
        // A frame whose header does not fit in its first block is no span.
        if (1..20).contains(&(stored(length).len() % BLOCK)) {
            length += 20;
        }
        let content: Vec<u8> = (0..length).map(|_| number().to_le_bytes()[0]).collect();
        let length = u32::try_from(length).unwrap();
        image.extend(span(&frame(length, &[(0, length, &content)])));
    }
    let groups = crate::bundle::cut::groups(&image, BLOCK);
    assert!(groups.len() > 20);
    let mut at = 0;
    for group in &groups {
        assert!(boundaries.contains(&at), "a group starts inside of a span, at block {at}");
        at += usize::try_from(group.blocks).unwrap();
    }
    assert_eq!(at, image.len() / BLOCK);
    // What moves by whole blocks stays the same groups.
    let moved = [&[1; 5 * BLOCK][..], &image].concat();
    let again = crate::bundle::cut::groups(&moved, BLOCK);
    let same = again.iter().filter(|group| groups.contains(group)).count();
    assert!(same + 3 > groups.len(), "{same} of {}", groups.len());
}
