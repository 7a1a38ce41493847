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
    vec![[&kernel[..], &[7; 4096], &kernel].concat(), kernel]
}

/// Every byte belongs to one run, a walker sees the same ones, and none is longer than it may be.
pub(super) fn spans(input: &[u8]) -> String {
    let runs: Vec<Run<'_>> = spans::runs(input).collect();
    let bytes: Vec<u8> = runs.iter().flat_map(|run| run.blocks()).copied().collect();
    assert!(bytes == input, "bytes of no run, or of two");
    let mut walker = Walker::default();
    let mut found = 0;
    for run in &runs {
        let last = run.blocks().chunks(4096).map(|block| walker.put(block)).last();
        if let Run::Span { blocks, frame, content } = run {
            assert!(blocks.len() <= 64 * 4096 && blocks.ends_with(frame));
            assert_eq!(last, Some(At::End { content: *content }));
            found += 1;
        } else if last == Some(At::Inside) {
            // It may be one that has no end; what follows is seen only by who looks again.
            walker = Walker::default();
        }
    }
    if found > 0 { "good".to_owned() } else { "no span in it".to_owned() }
}
