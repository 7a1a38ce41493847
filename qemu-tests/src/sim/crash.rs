//! Every state that a power cut can leave: from the log of a run, the contents of the disk after
//! a cut at each of its operations.
//!
//! ```text
//!   ── write ── write ── FLUSH ── write ── write ─╳─ cut
//!   └──── on the medium ────┘   └── pending ────┘
//! ```
//! What a cut leaves, worst habits of real cards included (sources: `docs/simulator.md`):
//! - *prefix*: all of the pending writes, in order;
//! - *torn*: the last one only up to some sector;
//! - *subset*: any of the pending sectors, in any combination;
//! - *lied*: the last flush did nothing, so its writes are as good as pending;
//! - *page*: the aligned page around a sector of the last write is lost, with what fills it.
use std::fmt;

use crate::simdisk::{Id, Image, Op, SECTOR, Store, scramble};

/// How many of the states are looked at where there are too many to look at all.
#[derive(Clone, Copy, Debug)]
pub struct Effort {
    /// Up to this many pending sectors, all their subsets.
    pub all_subsets_of: usize,
    /// Of more pending sectors: every one dropped alone, every one kept alone, and this many
    /// random subsets.
    pub random_subsets: usize,
    /// Where the randomness of those starts.
    pub seed: u64,
    /// Whether writes are torn, dropped and kept at every sector or at a few.
    pub every_sector: bool,
}

impl Effort {
    /// What the first cut of a run gets.
    pub const fn full(random_subsets: usize, seed: u64) -> Self {
        Self { all_subsets_of: 14, random_subsets, seed, every_sector: true }
    }

    /// What a cut during the recovery from another cut gets.
    pub const fn second(seed: u64) -> Self {
        Self { all_subsets_of: 4, random_subsets: 1, seed, every_sector: false }
    }
}

/// How a cut garbled what was pending.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// In order, whole.
    Prefix,
    /// The last write only up to this many sectors.
    Torn(usize),
    /// The pending sectors whose bits are set.
    Subset(u64),
    /// Random pending sectors: the random subset of this number.
    Random(u64),
    /// All pending sectors but one.
    Drop(usize),
    /// One pending sector only.
    Keep(usize),
    /// The last flush lied: the sectors of its group whose bits are set, and all pending ones.
    Lied(u64),
    /// The last flush lied: a random subset of its group, by number.
    LiedRandom(u64),
    /// The page of this many sectors that starts at `sector` is lost.
    Page {
        /// Size in sectors.
        size: usize,
        /// First sector.
        sector: usize,
        /// What is there instead.
        fill: Fill,
    },
}

/// What a lost page holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fill {
    /// Zero bits.
    Zeros,
    /// One bits, as after an erase.
    Ones,
    /// Noise.
    Noise,
}

impl Kind {
    /// Whether a medium that keeps its promises can leave this.
    pub const fn is_honest(self) -> bool {
        !matches!(self, Self::Lied(_) | Self::LiedRandom(_) | Self::Page { .. })
    }

    /// Its place in tables of figures.
    pub const fn class(self) -> usize {
        match self {
            Self::Prefix => 0,
            Self::Torn(_) => 1,
            Self::Subset(_) | Self::Random(_) | Self::Drop(_) | Self::Keep(_) => 2,
            Self::Lied(_) | Self::LiedRandom(_) => 3,
            Self::Page { .. } => 4,
        }
    }

    /// Names of the classes.
    pub const CLASSES: [&str; 5] =
        ["in order", "torn write", "subset of unflushed sectors", "flush that lied", "lost page"];
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Prefix => f.write_str("prefix"),
            Self::Torn(sectors) => write!(f, "torn{sectors}"),
            Self::Subset(mask) => write!(f, "subset{mask:x}"),
            Self::Random(number) => write!(f, "random{number}"),
            Self::Drop(at) => write!(f, "drop{at}"),
            Self::Keep(at) => write!(f, "keep{at}"),
            Self::Lied(mask) => write!(f, "lied{mask:x}"),
            Self::LiedRandom(number) => write!(f, "liedrandom{number}"),
            Self::Page { size, sector, fill } => {
                let fill = match fill {
                    Fill::Zeros => "00",
                    Fill::Ones => "ff",
                    Fill::Noise => "noise",
                };
                write!(f, "page{}k@{sector}={fill}", size * SECTOR / 1024)
            }
        }
    }
}

/// A disk after a cut.
#[derive(Clone)]
pub struct State {
    /// Number of operations that had been begun.
    pub after: usize,
    /// What became of them.
    pub kind: Kind,
    /// What the disk holds.
    pub image: Image,
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.after, self.kind)
    }
}

/// Sizes of lost pages, in sectors: 4 KiB, 16 KiB, 64 KiB, 4 MiB.
const PAGES: [usize; 4] = [8, 32, 128, 8192];

/// Calls `visit` with every state of a run that started from `base`, in a fixed order; it says
/// whether to go on.
pub fn states<M>(
    store: &Store,
    base: &Image,
    ops: &[Op<M>],
    effort: Effort,
    mut visit: impl FnMut(State) -> bool,
) {
    let mut run = Run {
        store,
        effort,
        lied_base: base.clone(),
        lied_group: Vec::new(),
        durable: base.clone(),
        pending: Vec::new(),
        current: base.clone(),
        visit: &mut visit,
        going: true,
    };
    for (at, op) in ops.iter().enumerate() {
        run.step(at + 1, op);
        if !run.going {
            return;
        }
    }
}

/// A run up to some operation.
struct Run<'a> {
    store: &'a Store,
    effort: Effort,
    /// The medium before the last flush, and what that flush should have brought there.
    lied_base: Image,
    lied_group: Vec<(usize, Id)>,
    /// The medium, and what is on its way there.
    durable: Image,
    pending: Vec<(usize, Id)>,
    /// Both together: what reads return.
    current: Image,
    visit: &'a mut dyn FnMut(State) -> bool,
    going: bool,
}

impl Run<'_> {
    fn step<M>(&mut self, after: usize, op: &Op<M>) {
        match op {
            Op::Write { sector, ids } => self.write(after, *sector, ids),
            Op::Flush => {
                let group = std::mem::take(&mut self.pending);
                self.lied_base = std::mem::replace(&mut self.durable, self.current.clone());
                self.lied_group = group;
                self.visit(after, Kind::Prefix, self.current.clone());
                self.lie(after);
            }
            Op::Mark(_) => {
                // What is expected of the disk may have changed; its contents have not.
                self.visit(after, Kind::Prefix, self.current.clone());
                self.subsets(after);
            }
        }
    }

    fn write(&mut self, after: usize, sector: usize, ids: &[Id]) {
        let before = self.current.clone();
        for length in self.few(ids.len()).filter(|length| *length > 0) {
            let mut image = before.clone();
            apply(&mut image, (sector..).zip(ids[..length].iter().copied()));
            self.visit(after, Kind::Torn(length), image);
        }
        apply(&mut self.current, (sector..).zip(ids.iter().copied()));
        self.pending.extend((sector..).zip(ids.iter().copied()));
        self.visit(after, Kind::Prefix, self.current.clone());
        self.subsets(after);
        self.pages(after, sector..sector + ids.len());
        if !self.lied_group.is_empty() {
            let mut image = self.lied_base.clone();
            apply(&mut image, self.pending.iter().copied());
            self.visit(after, Kind::Lied(0), image);
        }
    }

    /// Every number below `end`, or the first, the last and a few between.
    fn few(&self, end: usize) -> impl Iterator<Item = usize> + use<> {
        let step = if self.effort.every_sector || end <= 3 { 1 } else { (end - 1) / 2 };
        (0..end).step_by(step.max(1))
    }

    fn subsets(&mut self, after: usize) {
        let count = self.pending.len();
        if count == 0 {
            return;
        }
        if count <= self.effort.all_subsets_of {
            for mask in 0..(1_u64 << count) - 1 {
                self.keep(after, Kind::Subset(mask), |at| mask >> at & 1 == 1);
            }
            return;
        }
        for chosen in self.few(count) {
            self.keep(after, Kind::Drop(chosen), |at| at != chosen);
            self.keep(after, Kind::Keep(chosen), |at| at == chosen);
        }
        for number in 0..wide(self.effort.random_subsets) {
            let coins = Coins { seed: self.effort.seed, number, after };
            self.keep(after, Kind::Random(number), |at| coins.keep(at));
        }
    }

    fn keep(&mut self, after: usize, kind: Kind, kept: impl Fn(usize) -> bool) {
        if !self.going {
            return;
        }
        let mut image = self.durable.clone();
        let chosen = self.pending.iter().enumerate().filter(|(at, _)| kept(*at));
        apply(&mut image, chosen.map(|(_, write)| *write));
        self.visit(after, kind, image);
    }

    fn lie(&mut self, after: usize) {
        let count = self.lied_group.len();
        let lost = |kept: &dyn Fn(usize) -> bool| {
            let mut image = self.lied_base.clone();
            let chosen = self.lied_group.iter().enumerate().filter(|(at, _)| kept(*at));
            apply(&mut image, chosen.map(|(_, write)| *write));
            image
        };
        let mut states = Vec::new();
        if count <= self.effort.all_subsets_of {
            for mask in 0..(1_u64 << count).saturating_sub(1) {
                states.push((Kind::Lied(mask), lost(&|at| mask >> at & 1 == 1)));
            }
        } else {
            states.push((Kind::Lied(0), lost(&|_| false)));
            for number in 0..wide(self.effort.random_subsets) {
                let coins = Coins { seed: self.effort.seed, number, after };
                states.push((Kind::LiedRandom(number), lost(&|at| coins.keep(at))));
            }
        }
        states.into_iter().for_each(|(kind, image)| self.visit(after, kind, image));
    }

    fn pages(&mut self, after: usize, written: std::ops::Range<usize>) {
        for size in PAGES {
            let first = written.start / size;
            let last = (written.end - 1) / size;
            for page in self.few(last - first + 1).map(|at| first + at) {
                for fill in [Fill::Zeros, Fill::Ones, Fill::Noise] {
                    let sector = page * size;
                    let mut image = self.current.clone();
                    let end = (sector + size).min(image.sectors());
                    image.fill(sector..end, self.store.id(&filling(fill)));
                    self.visit(after, Kind::Page { size, sector, fill }, image);
                }
            }
        }
    }

    fn visit(&mut self, after: usize, kind: Kind, image: Image) {
        if self.going {
            self.going = (self.visit)(State { after, kind, image });
        }
    }
}

fn apply(image: &mut Image, writes: impl Iterator<Item = (usize, Id)>) {
    writes.for_each(|(sector, id)| image.set(sector, id));
}

/// The random subset with this number.
struct Coins {
    seed: u64,
    number: u64,
    after: usize,
}

impl Coins {
    /// Whether a sector is kept: one subset in four is fair, the others keep few or many.
    fn keep(&self, at: usize) -> bool {
        let subset = scramble(self.seed ^ scramble(self.number ^ wide(self.after) << 40));
        let share = [8, 1, 15, 4][usize::try_from(self.number % 4).unwrap_or(0)];
        scramble(subset ^ wide(at)) % 16 < share
    }
}

fn filling(fill: Fill) -> [u8; SECTOR] {
    match fill {
        Fill::Zeros => [0; SECTOR],
        Fill::Ones => [0xff; SECTOR],
        Fill::Noise => {
            let mut noise = [0; SECTOR];
            for (at, byte) in noise.iter_mut().enumerate() {
                *byte = scramble(wide(at)).to_le_bytes()[0];
            }
            noise
        }
    }
}

fn wide(number: usize) -> u64 {
    u64::try_from(number).expect("64 bits at most")
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    const ONE: [u8; SECTOR] = [1; SECTOR];

    /// The states of a log as text: which of sectors 0 to 3 are written, in order of appearance.
    fn seen(ops: &[Op<()>], wanted: fn(Kind) -> bool) -> Vec<String> {
        let store = Store::default();
        let zero = store.id(&[0; SECTOR]);
        let one = store.id(&ONE);
        let base = Image::filled(8192, zero);
        let mut seen = Vec::new();
        states(&store, &base, ops, Effort::full(2, 1), |state| {
            if wanted(state.kind) {
                let bits = (0..4).map(|at| if state.image.get(at) == one { 'x' } else { '.' });
                seen.push(format!("{state} {}", bits.collect::<String>()));
            }
            true
        });
        seen
    }

    fn write(sectors: std::ops::Range<usize>) -> Op<()> {
        // In these tests the first contents that are not zero have the number 1.
        Op::Write { sector: sectors.start, ids: vec![1; sectors.len()] }
    }

    #[test]
    fn before_a_flush_any_sector_may_be_missing_and_after_it_none() {
        let found = seen(&[write(0..2), Op::Flush, write(2..3)], Kind::is_honest);
        let expected = [
            "1.torn1 x...",
            "1.prefix xx..",
            "1.subset0 ....",
            "1.subset1 x...",
            "1.subset2 .x..",
            "2.prefix xx..",
            "3.prefix xxx.",
            "3.subset0 xx..",
        ];
        assert_eq!(found, expected);
    }

    #[test]
    fn a_flush_that_lied_may_have_lost_its_writes_and_kept_later_ones() {
        let found =
            seen(&[write(0..2), Op::Flush, write(2..3)], |kind| matches!(kind, Kind::Lied(_)));
        assert_eq!(found, ["2.lied0 ....", "2.lied1 x...", "2.lied2 .x..", "3.lied0 ..x."]);
    }

    #[test]
    fn of_many_sectors_each_is_dropped_alone_and_kept_alone() {
        let found = seen(&[write(0..20)], |kind| matches!(kind, Kind::Drop(_) | Kind::Keep(_)));
        assert_eq!(found.len(), 40);
        assert_eq!(found[..4], ["1.drop0 .xxx", "1.keep0 x...", "1.drop1 x.xx", "1.keep1 .x.."]);
    }

    #[test]
    fn every_page_size_is_lost_with_every_filling() {
        let found = seen(&[write(1..2)], |kind| matches!(kind, Kind::Page { .. }));
        assert_eq!(found.len(), 12);
        assert_eq!(found[0], "1.page4k@0=00 ....");
        let names: BTreeSet<_> = found.iter().collect();
        assert_eq!(names.len(), 12, "no two states have the same name");
    }
}
