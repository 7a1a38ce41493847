//! The kernel as it lies in a slot. The loader sees only what was signed; all the same it must end
//! with an answer, whatever a builder of tomorrow signs.

use builder::payload::{self, Packing};
use ondisk::spans::{self, At, Run, Walker};

/// Room for a kernel.
const MOST: usize = 4096;

pub(super) fn kernel_seeds() -> Vec<Vec<u8>> {
    let kernel = b"a kernel, and more of it: ".repeat(100);
    let ways = [Packing::Lz4 { level: 9 }, Packing::Spans { level: 3 }];
    ways.iter().filter_map(|way| way.pack(&kernel).ok()).collect()
}

/// What the loader's decoders make of it is what the libraries that packed it make of it, and never
/// more than there is room for.
pub(super) fn kernel(input: &[u8]) -> String {
    let mut room = vec![0; MOST];
    let Some(count) = loader::kernel::unpack(input, &mut room) else { return "refused".to_owned() };
    assert!(count <= MOST);
    match payload::unpack(input, MOST) {
        Some(theirs) => {
            assert!(theirs == room[..count], "unpacks to something else");
            format!("good, lz4 {}", ondisk::lz4::is_frame(input))
        }
        None => "good for the loader only".to_owned(),
    }
}

pub(super) fn spans_seeds() -> Vec<Vec<u8>> {
    let kernel = kernel_seeds().pop().unwrap_or_default();
    let frame = spans::packer::pack(3, &[b"the end of a file; ".repeat(50), vec![7; 99]].concat());
    let mut within = frame.unwrap_or_default();
    within.splice(0..0, [7; 64]);
    within.resize(4096, 7);
    vec![[&kernel[..], &[7; 4096], &kernel].concat(), [&within[..], &kernel].concat(), kernel]
}

/// Every byte belongs to one run, a walker sees the same spans, and none is longer than it may be.
pub(super) fn spans(input: &[u8]) -> String {
    let runs: Vec<Run<'_>> = spans::runs(input).collect();
    let bytes: Vec<u8> = runs.iter().flat_map(|run| run.stored()).copied().collect();
    assert!(bytes == input, "bytes of no run, or of two");
    let mut walker = Walker::default();
    let (mut at, mut found) = (0_usize, 0);
    for run in &runs {
        let start = at;
        at += run.stored().len();
        found += usize::from(matches!(run, Run::Packed { .. }));
        if start % 4096 != 0 {
            continue;
        }
        let blocks = &input[start..at.next_multiple_of(4096).min(input.len())];
        let last = blocks.chunks(4096).map(|block| walker.put(block)).last();
        match run {
            Run::Packed { stored, frame, content } if stored.len() == blocks.len() => {
                assert!(stored.len() <= 64 * 4096 && stored.ends_with(frame));
                assert_eq!(last, Some(At::End { content: *content }));
            }
            // It may be one that has no end; what follows is seen only by who looks again.
            _ if last == Some(At::Inside) => walker = Walker::default(),
            _ => assert_eq!(last, Some(At::Outside)),
        }
    }
    if found > 0 { "good".to_owned() } else { "no frame in it".to_owned() }
}
