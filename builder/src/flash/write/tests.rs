//! Cards in memory that fail, lose power or forget, at every step there is.

use std::sync::atomic::AtomicU64;

use ondisk::device::ReadAt;

use super::*;
use crate::flash::changes::Overlay;
use crate::flash::is_incomplete;

const MIB: u64 = 1 << 20;
const IMAGE: u64 = 12 * MIB;
const CARD: u64 = 14 * MIB;

/// What goes wrong with a card.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Trouble {
    None,
    /// This operation fails, and all behind it: the card is pulled out.
    CutAt(u64),
    /// This one fails, the next work again.
    FailAt(u64),
    /// A bit flips on its way to this byte.
    FlipAt(u64),
}

/// What a card without power keeps of the writes since the last flush.
#[derive(Clone, Copy, Debug)]
enum Keeps {
    All,
    Nothing,
    /// Every other sector, the first one not.
    OddSectors,
    EvenSectors,
}

/// A card in memory.
struct Fake {
    /// What survives a loss of power.
    medium: Vec<u8>,
    /// What is read back.
    seen: Vec<u8>,
    /// Written since the last flush.
    unflushed: Vec<(u64, Vec<u8>)>,
    trouble: Trouble,
    /// Writes, reads and flushes so far; reads come from several threads.
    operations: AtomicU64,
    /// Where each write went.
    writes: Vec<Range<u64>>,
}

impl Fake {
    /// A card that was in use: a table, and noise everywhere.
    fn used(trouble: Trouble) -> Self {
        let mut medium = vec![0xE5; length(CARD)];
        medium[510..512].copy_from_slice(&[0x55, 0xAA]);
        Self {
            seen: medium.clone(),
            medium,
            unflushed: Vec::new(),
            trouble,
            operations: AtomicU64::new(0),
            writes: Vec::new(),
        }
    }

    fn step(&self) -> io::Result<()> {
        let now = self.operations.fetch_add(1, Ordering::Relaxed);
        match self.trouble {
            Trouble::CutAt(at) if now >= at => Err(io::Error::other("no such device")),
            Trouble::FailAt(at) if now == at => Err(io::Error::other("input/output error")),
            _ => Ok(()),
        }
    }

    /// What is on the card when it is put in again.
    fn after_power_loss(&self, keeps: Keeps) -> Vec<u8> {
        let mut medium = self.medium.clone();
        for (offset, bytes) in &self.unflushed {
            for (number, sector) in bytes.chunks(SECTOR).enumerate() {
                let kept = match keeps {
                    Keeps::All => true,
                    Keeps::Nothing => false,
                    Keeps::OddSectors => number % 2 == 1,
                    Keeps::EvenSectors => number % 2 == 0,
                };
                if kept {
                    let start = length(*offset) + number * SECTOR;
                    medium[start..start + sector.len()].copy_from_slice(sector);
                }
            }
        }
        medium
    }
}

impl ReadAt for Fake {
    type Error = io::Error;

    fn size(&self) -> u64 {
        CARD
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        self.step()?;
        self.seen.read_at(offset, buffer).map_err(io::Error::other)
    }
}

impl WriteAt for Fake {
    fn write_at(&mut self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.writes.push(offset..offset + bytes.len() as u64);
        let mut bytes = bytes.to_vec();
        if let Trouble::FlipAt(at) = self.trouble
            && let Some(byte) = at.checked_sub(offset).and_then(|at| bytes.get_mut(length(at)))
        {
            *byte ^= 0x10;
        }
        let done = self.step();
        // What was under way when it failed may have arrived in part.
        self.unflushed.push((offset, bytes.clone()));
        if done.is_ok() {
            self.seen.write_at(offset, &bytes).map_err(io::Error::other)?;
        }
        done
    }

    fn flush(&mut self) -> io::Result<()> {
        self.step()?;
        for (offset, bytes) in std::mem::take(&mut self.unflushed) {
            self.medium.write_at(offset, &bytes).map_err(io::Error::other)?;
        }
        Ok(())
    }
}

/// An image in memory.
struct Memory(Vec<u8>);

impl Feed for Memory {
    fn read(&mut self, offset: u64, buffer: &mut [u8]) -> Result<()> {
        self.0.read_at(offset, buffer).map_err(|_| Error::new("behind the image's end"))
    }

    fn finish(&mut self, length: u64) -> Result<()> {
        assert_eq!(length, self.0.len() as u64);
        Ok(())
    }
}

impl ReadAt for Memory {
    type Error = io::Error;

    fn size(&self) -> u64 {
        self.0.len() as u64
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        self.0.read_at(offset, buffer).map_err(io::Error::other)
    }
}

/// Data in the head, across its end, in the middle, at an odd place and at the image's end.
const MAPPED: [Range<u64>; 5] = [
    0..4096,
    8192..3 * MIB,
    4 * MIB - 4096..9 * MIB,
    10 * MIB + 512..10 * MIB + 2048,
    12 * MIB - 4096..12 * MIB,
];

struct Setup {
    image: Vec<u8>,
    stretches: Vec<Stretch>,
    changes: Changes,
}

impl Setup {
    fn new() -> Self {
        let mut image = vec![0; length(IMAGE)];
        let mut state = 1_u64;
        for range in MAPPED {
            for byte in &mut image[length(range.start)..length(range.end)] {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                *byte = (state >> 56) as u8;
            }
        }
        image[510..512].copy_from_slice(&[0x55, 0xAA]);
        let stretch = |range: Range<u64>| Stretch {
            sha256: Some(Sha256::digest(&image[length(range.start)..length(range.end)]).into()),
            range,
        };
        let stretches = MAPPED.into_iter().map(stretch).collect();
        // In the head, in data, half in data and half in a hole, in a hole, behind the image.
        let memory = Memory(image.clone());
        let mut card = Overlay::new(&memory, CARD);
        let places = [600, 5 * MIB, 10 * MIB + 500, 3 * MIB + 8192, CARD - 4096, CARD - 600];
        for place in places {
            use std::io::{Seek as _, Write as _};
            let mut window = card.window(0..CARD);
            window.seek(io::SeekFrom::Start(place)).unwrap();
            window.write_all(b"a change").unwrap();
        }
        let changes = card.into_changes();
        Self { image, stretches, changes }
    }

    fn job(&self) -> Job<'_> {
        Job {
            name: "the card",
            stretches: &self.stretches,
            image_bytes: IMAGE,
            changes: &self.changes,
        }
    }

    fn write(&self, card: &mut Fake) -> Result<End> {
        let cancel = AtomicBool::new(false);
        let watch = Watch { cancel: &cancel, written: &|_| {}, checked: &|_| {} };
        write(card, &mut Memory(self.image.clone()), &self.job(), &watch)
    }

    /// Image and changes, as a card holds them that was all zeros.
    fn expected(&self) -> Vec<u8> {
        let mut expected = self.image.clone();
        expected.resize(length(CARD), 0);
        self.changes.apply(0, &mut expected);
        expected
    }

    /// Everything that matters is there.
    fn is_whole(&self, card: &[u8]) -> bool {
        let expected = self.expected();
        let job = self.job();
        let mut ranges = pieces(&job, CARD).into_iter().map(|piece| piece.range);
        ranges.all(|range| {
            let range = length(range.start)..length(range.end);
            card[range.clone()] == expected[range]
        })
    }
}

/// A card whose sector 0 tells neither firmware nor kernel of anything on it.
fn is_marked(card: &[u8]) -> bool {
    is_incomplete(card) && card[510..512] != [0x55, 0xAA]
}

#[test]
fn the_card_gets_the_image_with_its_changes_and_nothing_else() {
    let setup = Setup::new();
    let mut card = Fake::used(Trouble::None);
    let end = setup.write(&mut card).unwrap();
    let mapped: Vec<u8> = MAPPED
        .into_iter()
        .flat_map(|range| setup.image[length(range.start)..length(range.end)].to_vec())
        .collect();
    let done =
        Done { image_bytes: mapped.len() as u64, image_sha256: Sha256::digest(&mapped).into() };
    assert_eq!(end, End::Complete(done));
    assert!(card.unflushed.is_empty());
    assert!(setup.is_whole(&card.medium));
    // What is not mapped keeps what it had.
    assert!(card.medium[length(11 * MIB)..length(11 * MIB) + 4096].iter().all(|&b| b == 0xE5));
}

#[test]
fn everything_ascends_but_the_head_which_is_last_and_sector_0_alone() {
    let setup = Setup::new();
    let mut card = Fake::used(Trouble::None);
    setup.write(&mut card).unwrap();
    let marking = [0..512, 512..MIB, CARD - BACKUP_BYTES..CARD];
    assert_eq!(card.writes[..3], marking);
    let (body, head) = card.writes[3..].split_at(card.writes.len() - 5);
    assert_eq!(head, [512..MIB, 0..512]);
    assert!(body.iter().zip(&body[1..]).all(|(a, b)| a.end <= b.start), "{body:?}");
    assert!(body.iter().all(|range| range.start >= HEAD_BYTES && range.end - range.start <= CHUNK));
}

/// Number of operations of a run without trouble.
fn operations(setup: &Setup) -> u64 {
    let mut card = Fake::used(Trouble::None);
    setup.write(&mut card).unwrap();
    card.operations.into_inner()
}

#[test]
fn a_cut_at_any_operation_leaves_the_old_card_an_incomplete_one_or_a_whole_one() {
    let setup = Setup::new();
    let old = Fake::used(Trouble::None).medium;
    let (mut untouched, mut marked, mut whole) = (0, 0, 0);
    for at in 0..operations(&setup) {
        let mut card = Fake::used(Trouble::CutAt(at));
        setup.write(&mut card).unwrap_err();
        for keeps in [Keeps::All, Keeps::Nothing, Keeps::OddSectors, Keeps::EvenSectors] {
            let found = card.after_power_loss(keeps);
            let kinds = [found == old, is_marked(&found), setup.is_whole(&found)];
            assert_eq!(kinds.iter().filter(|is| **is).count(), 1, "{at} {keeps:?}: {kinds:?}");
            untouched += u32::from(kinds[0]);
            marked += u32::from(kinds[1]);
            whole += u32::from(kinds[2]);
        }
    }
    // Before the marker has arrived, in between, and when only reading back was left.
    assert!(untouched > 0 && marked > 50 && whole > 0, "{untouched} {marked} {whole}");
}

#[test]
fn an_operation_that_fails_once_is_an_error_and_the_card_says_so() {
    let setup = Setup::new();
    let old = Fake::used(Trouble::None).medium;
    for at in 0..operations(&setup) {
        let mut card = Fake::used(Trouble::FailAt(at));
        let error = setup.write(&mut card).unwrap_err();
        assert!(error.chain().contains("the card"), "{}", error.chain());
        assert!(error.next_step().is_some());
        let found = card.after_power_loss(Keeps::All);
        assert!(is_marked(&found) || found == old, "{at}: {}", error.chain());
    }
}

#[test]
fn a_card_that_gives_other_bytes_back_is_refused_and_marked() {
    let setup = Setup::new();
    let expected = setup.expected();
    for at in [0, 511, 700, MIB, 5 * MIB + 3, 10 * MIB + 1000, CARD - 1] {
        let mut card = Fake::used(Trouble::FlipAt(at));
        let error = setup.write(&mut card).unwrap_err().to_string();
        assert!(error.starts_with("the card does not hold what was written"), "{at}: {error}");
        // The marker itself may have been hit by the flip.
        assert!(!setup.is_whole(&card.medium), "{at}");
        assert!(is_marked(&card.medium) || at == 0, "{at}");
        assert!(card.medium[..512] != expected[..512], "{at}");
    }
}

#[test]
fn an_interrupt_at_any_chunk_leaves_the_marker_and_no_table() {
    let setup = Setup::new();
    let total = bytes_to_write(&setup.job(), CARD);
    let mut cancelled = 0;
    for limit in (0..2 * total).step_by(1 << 20) {
        let mut card = Fake::used(Trouble::None);
        let (cancel, done) = (AtomicBool::new(limit == 0), AtomicU64::new(0));
        let count = |bytes| {
            let done = done.fetch_add(bytes, Ordering::Relaxed) + bytes;
            cancel.fetch_or(done >= limit, Ordering::Relaxed);
        };
        let watch = Watch { cancel: &cancel, written: &count, checked: &count };
        let end = write(&mut card, &mut Memory(setup.image.clone()), &setup.job(), &watch);
        let medium = card.after_power_loss(Keeps::All);
        match end.unwrap() {
            End::Cancelled => {
                assert!(is_marked(&medium));
                let (text, rest) = medium[..length(MIB)].split_at(MARKER.len() + 1);
                assert_eq!(text.last(), Some(&b'\n'));
                assert!(rest.iter().all(|byte| *byte == 0));
                cancelled += 1;
            }
            End::Complete(_) => assert!(setup.is_whole(&medium)),
        }
    }
    assert!(cancelled > 10, "{cancelled}");
}

#[test]
fn progress_adds_up_to_what_was_announced() {
    let setup = Setup::new();
    let (cancel, written, checked) = (AtomicBool::new(false), AtomicU64::new(0), AtomicU64::new(0));
    let add = |to: &AtomicU64, bytes| {
        to.fetch_add(bytes, Ordering::Relaxed);
    };
    let watch = Watch {
        cancel: &cancel,
        written: &|bytes| add(&written, bytes),
        checked: &|bytes| add(&checked, bytes),
    };
    let mut card = Fake::used(Trouble::None);
    write(&mut card, &mut Memory(setup.image.clone()), &setup.job(), &watch).unwrap();
    let total = bytes_to_write(&setup.job(), CARD);
    assert_eq!((written.into_inner(), checked.into_inner()), (total, total));
}

#[test]
fn an_image_that_does_not_fit_its_map_leaves_an_incomplete_card() {
    let setup = Setup::new();
    for at in [100, 9000, 8 * MIB, 12 * MIB - 1] {
        let mut image = setup.image.clone();
        image[length(at)] ^= 1;
        let (cancel, mut card) = (AtomicBool::new(false), Fake::used(Trouble::None));
        let watch = Watch { cancel: &cancel, written: &|_| {}, checked: &|_| {} };
        let error = write(&mut card, &mut Memory(image), &setup.job(), &watch).unwrap_err();
        assert!(error.to_string().starts_with("the image does not fit its block map from byte"));
        assert!(is_marked(&card.after_power_loss(Keeps::All)), "{at}");
    }
}
