//! The kernel as it lies in a slot. The loader sees only what was signed; all the same it must end
//! with an answer, whatever a builder of tomorrow signs.

use builder::payload::{self, Packing};

/// Room for a kernel.
const MOST: usize = 4096;

pub(super) fn kernel_seeds() -> Vec<Vec<u8>> {
    let kernel = b"a kernel, and more of it: ".repeat(100);
    let ways = [Packing::Lz4 { level: 9 }, Packing::Zstd { level: 3 }];
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
