//! Which bytes of a pack to fetch, and which carrier costs least. Pure.

use ondisk::bundle::Group;
use ondisk::pack::{Piece, Table};

use super::local::Found;

/// What a request costs beside its bytes: a way to the server and back, in bytes of a slow link.
pub const REQUEST_COST: u64 = 16 * 1024;
/// Most requests for one pack: some servers count them.
const MOST_RANGES: usize = 64;

/// Where the bytes of one group come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// The disk, at this byte.
    Disk(u64),
    /// The pack: its piece, and where that is in the file.
    Pack {
        /// The piece.
        piece: Piece,
        /// From where on.
        offset: u64,
        /// How many bytes.
        length: u64,
    },
}

/// How a pack makes an image on this device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// One for each group.
    pub origins: Vec<Origin>,
    /// What to ask for, in order and apart: from a byte of the file to before another.
    pub ranges: Vec<(u64, u64)>,
}

impl Plan {
    /// Plans; `target` is where the slot starts, `base` where the pack's base does.
    pub fn new(
        table: &Table,
        table_bytes: u64,
        groups: &[Group],
        found: &[Found],
        (target, base): (u64, u64),
    ) -> Self {
        let offsets = table.offsets(groups);
        let mut at = target;
        let mut origins = Vec::with_capacity(groups.len());
        for (number, (group, piece)) in groups.iter().zip(&table.pieces).enumerate() {
            let place = at;
            at += group.bytes();
            origins.push(match (found[number], piece) {
                (Found::InPlace, _) => Origin::Disk(place),
                (Found::At(offset), _) => Origin::Disk(offset),
                (Found::Nowhere, Piece::Copy(block)) => {
                    Origin::Disk(base + u64::from(*block) * ondisk::layout::BLOCK_BYTES)
                }
                (Found::Nowhere, _) => Origin::Pack {
                    piece: *piece,
                    offset: table_bytes + offsets[number],
                    length: piece.bytes(group),
                },
            });
        }
        let ranges = ranges(&origins);
        Self { origins, ranges }
    }

    /// Bytes that are fetched.
    pub fn bytes(&self) -> u64 {
        self.ranges.iter().map(|(from, to)| to - from).sum()
    }

    /// What it costs, in bytes.
    pub fn cost(&self) -> u64 {
        self.bytes() + self.ranges.len() as u64 * REQUEST_COST
    }
}

/// Pieces that are close to one another are fetched at once, with what is between them: a request
/// costs as much as some bytes. Where there would be too many, wider gaps are bridged.
fn ranges(origins: &[Origin]) -> Vec<(u64, u64)> {
    let mut gap = REQUEST_COST;
    loop {
        let mut ranges: Vec<(u64, u64)> = Vec::new();
        for origin in origins {
            let Origin::Pack { offset, length, .. } = *origin else { continue };
            match ranges.last_mut() {
                Some((_, end)) if offset <= end.saturating_add(gap) => *end = offset + length,
                _ => ranges.push((offset, offset + length)),
            }
        }
        if ranges.len() <= MOST_RANGES {
            return ranges;
        }
        gap *= 2;
    }
}

#[cfg(test)]
mod tests {
    use ondisk::digest::Digest;
    use ondisk::pack::Frame;

    use super::*;

    fn group() -> Group {
        Group { blocks: 8, sha256: Digest::of(b"a group") }
    }

    fn packed(length: u32) -> Piece {
        Piece::Packed(Frame { length, sha256: Digest::of(b"a frame") })
    }

    fn plan(pieces: Vec<Piece>, found: &[Found]) -> Plan {
        let base = Some(Digest::of(b"the base"));
        let release = Digest::of(b"the release");
        let table = Table { release, base, libzstd: None, pieces };
        let groups = vec![group(); found.len()];
        Plan::new(&table, 1000, &groups, found, (1 << 30, 1 << 20))
    }

    #[test]
    fn what_is_on_the_disk_is_not_fetched() {
        let pieces = vec![Piece::Raw, packed(100), Piece::Copy(3), packed(200)];
        let found = [Found::InPlace, Found::At(77), Found::Nowhere, Found::Nowhere];
        let plan = plan(pieces, &found);
        let offset = 1000 + 32_768 + 100;
        assert_eq!(
            plan.origins,
            [
                Origin::Disk(1 << 30),
                Origin::Disk(77),
                Origin::Disk((1 << 20) + 3 * 4096),
                Origin::Pack { piece: packed(200), offset, length: 200 },
            ]
        );
        assert_eq!((plan.ranges.as_slice(), plan.bytes()), (&[(offset, offset + 200)][..], 200));
        assert_eq!(plan.cost(), 200 + REQUEST_COST);
    }

    #[test]
    fn what_is_close_together_is_fetched_at_once() {
        let mut found = vec![Found::Nowhere; 5];
        found[1] = Found::InPlace;
        let lengths =
            |between| vec![packed(100), packed(between), packed(100), packed(50), packed(1)];
        let near = plan(lengths(16_384), &found);
        assert_eq!(near.ranges, [(1000, 1000 + 100 + 16_384 + 151)]);
        let far = plan(lengths(16_385), &found);
        assert_eq!(far.ranges, [(1000, 1100), (17_485, 17_485 + 151)]);
    }

    #[test]
    fn there_are_never_more_requests_than_a_server_stands() {
        let pieces: Vec<Piece> = (0..2000).map(|_| packed(30_000)).collect();
        let found: Vec<Found> = (0..2000)
            .map(|number| if number % 3 == 0 { Found::Nowhere } else { Found::InPlace })
            .collect();
        let plan = plan(pieces, &found);
        assert!((1..=64).contains(&plan.ranges.len()), "{}", plan.ranges.len());
        for origin in &plan.origins {
            if let Origin::Pack { offset, length, .. } = origin {
                let inside = |(from, to): &(u64, u64)| from <= offset && offset + length <= *to;
                assert!(plan.ranges.iter().any(inside));
            }
        }
    }

    #[test]
    fn nothing_to_fetch_is_no_request() {
        assert_eq!(plan(vec![Piece::Raw; 3], &[Found::InPlace; 3]).cost(), 0);
    }
}
