//! What the simulator prints: tables of figures, and runs as lines.
use std::fmt;

use super::Hunt;
use super::crash::Kind;
use super::fixture::{RECORD, SLOTS, sectors};
use super::run::Figures;
use super::world::Mark;
use crate::simdisk::Op;

/// An operation as a line of a run.
pub struct Line<'a>(pub &'a Op<Mark>);

impl fmt::Display for Line<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Op::Write { sector, ids } => write!(f, "write {} × {}", ids.len(), Place(*sector)),
            Op::Flush => f.write_str("flush"),
            Op::Mark(Mark::PowerOn) => f.write_str("-- power on"),
            Op::Mark(Mark::Started(slot)) => write!(f, "-- slot {slot} started"),
            Op::Mark(Mark::Promise(promise)) => write!(f, "-- promise: {promise:?}"),
            Op::Mark(Mark::Done(done)) => write!(f, "-- {done} of the plan done"),
        }
    }
}

/// A sector, by what lies there.
struct Place(usize);

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let areas = [("record", RECORD), ("slot A", SLOTS.a), ("slot B", SLOTS.b)];
        let area = areas.into_iter().find(|(_, extent)| sectors(*extent).contains(&self.0));
        match area {
            Some((name, extent)) => write!(f, "{name} + {}", self.0 - sectors(extent).start),
            None => write!(f, "sector {}", self.0),
        }
    }
}

/// What became of the planted bugs, as a table.
pub fn hunt_table(hunts: &[Hunt]) -> String {
    let mut text = format!("{:50} {:>7} {:>7}  found by\n", "planted bug", "states", "seconds");
    for Hunt { name, found, states, seconds } in hunts {
        let found =
            found.as_ref().map_or("NOT FOUND".to_owned(), |(at, why)| format!("{at}: {why}"));
        text += &format!("{name:50} {states:>7} {seconds:>7.2}  {found}\n");
    }
    text
}

/// RELIABILITY.md: the figures of one run, and what they mean.
pub fn page(rows: &[(&str, Figures)], hunts: &[Hunt], seed: u64, seconds: f64) -> String {
    let sum = |figure: fn(&Figures) -> u64| rows.iter().map(|(_, row)| figure(row)).sum::<u64>();
    let states = sum(Figures::states);
    let broken = rows.iter().map(|(_, row)| row.broken.len()).sum::<usize>();
    let found = hunts.iter().filter(|hunt| hunt.found.is_some()).count();
    let slowest = hunts.iter().map(|hunt| hunt.seconds).fold(0.0, f64::max);
    format!(
        "# Reliability: what was tried, and what came of it\n\n\
        Made by `cargo xtask sim --states {states} --seed {seed} --report RELIABILITY.md`. Not \
        edited by hand.\n\n\
        | | |\n|---|---|\n\
        | states after power cuts and failing requests | {states} |\n\
        | different ones among them | {} |\n\
        | rules broken | {broken} |\n\
        | time on one core | {seconds:.0} s |\n\
        | planted bugs found | {found} of {}, the slowest in {slowest:.1} s |\n\
        | power cuts on real hardware | 0 |\n\n\
        A state is the contents of a disk after the power was cut, once or more often, while the \
        loader boots or the agent updates. From each of them the device is switched on until it is \
        steady, by the code that ships, and rules I1 to I8 are checked. What is cut, how, and what \
        this does not show: [docs/simulator.md](docs/simulator.md).\n\n\
        ## States\n\n```text\n{}```\n\n\
        ## Planted bugs\n\n\
        Each is planted where the code meets the disk, and has to be found within a minute.\n\n\
        ```text\n{}```\n",
        sum(|row| row.distinct),
        hunts.len(),
        table(rows),
        hunt_table(hunts),
    )
}

/// The figures of all scenarios as a table, with their sum.
pub fn table(rows: &[(&str, Figures)]) -> String {
    let mut sum = Figures { complete: [true; 2], ..Figures::default() };
    for (_, figures) in rows {
        sum.add(figures);
        sum.complete[0] &= figures.complete[0];
        sum.complete[1] &= figures.complete[1];
    }
    let mut text = format!(
        "{:24} {:>6} {:>9} {:>8} {:>9} {:>8} {:>9} {:>9} {:>5} {:>6}\n",
        "scenario",
        "ops",
        "1 cut",
        "failing",
        "2 cuts",
        "3-5 cuts",
        "states",
        "distinct",
        "boots",
        "broken"
    );
    for (name, figures) in rows.iter().map(|(n, f)| (*n, f)).chain([("all", &sum)]) {
        let mark = |complete: bool| if complete { "" } else { "~" };
        let single = figures.single.iter().sum::<u64>();
        text += &format!(
            "{name:24} {:>6} {:>9} {:>8} {:>9} {:>8} {:>9} {:>9} {:>5} {:>6}\n",
            figures.operations,
            format!("{}{single}", mark(figures.complete[0])),
            figures.trouble,
            format!("{}{}", mark(figures.complete[1]), figures.second),
            figures.deep,
            figures.states(),
            figures.distinct,
            figures.boots,
            figures.broken.len(),
        );
    }
    let classes = Kind::CLASSES.iter().zip(sum.single).map(|(name, n)| format!("{name} {n}"));
    text + &format!(
        "~ sampled. States after one cut: {}.\n",
        classes.collect::<Vec<_>>().join(", ")
    )
}
