//! The decision against its truth table, and the rules that hold for every record.
use alloc::format;
use alloc::string::{String, ToString as _};
use alloc::vec::Vec;

use super::*;
use crate::manifest;

const TABLE: &str = include_str!("decisions.txt");

#[test]
fn decisions_are_the_ones_of_the_truth_table() {
    let lines =
        TABLE.lines().zip(1..).filter(|(line, _)| !line.is_empty() && !line.starts_with('#'));
    let mut cases = 0;
    for (line, number) in lines {
        let columns: Vec<_> = line.split('|').map(str::trim).collect();
        let [a, b, refused, below, record, expected] = columns[..] else {
            panic!("line {number}: {line}")
        };
        let situation = Situation {
            record: record_of(entry(a), entry(b)),
            refused: PerSlot { a: refused.contains('A'), b: refused.contains('B') },
            below_floor: PerSlot { a: below.contains('A'), b: below.contains('B') },
            record_writable: match record {
                "writable" => true,
                "broken" => false,
                other => panic!("line {number}: record is {other}"),
            },
        };
        assert_eq!(show(&situation, decide(&situation)), expected, "line {number}: {line}");
        cases += 1;
    }
    assert!(cases > 30, "the table has only {cases} lines");
}

#[test]
fn no_situation_at_all_breaks_a_rule() {
    for_every_situation(|situation| {
        let slots = &situation.record.slots;
        match decide(situation) {
            Decision::Nothing => assert!(
                Slot::BOTH.iter().all(|&s| situation.refused[s] || slots[s].state == State::Empty)
            ),
            Decision::Start(Start { slot, rule, write_first }) => {
                assert!(!situation.refused[slot], "a refused slot is not started");
                assert_ne!(slots[slot].state, State::Empty, "an empty slot is not started");
                assert_eq!(rule == Rule::Safe, !could_start(situation, slot));
                assert!(rule != Rule::Proven || slots[slot].state == State::Proven);
                if rule == Rule::Safe {
                    assert!(Slot::BOTH.iter().all(|&s| !could_start(situation, s)));
                }
                assert_eq!(write_first.is_some(), matches!(rule, Rule::Trial { .. }));
                let Some(next) = write_first else { return };
                assert!(situation.record_writable);
                assert!(next.sequence > situation.record.sequence);
                assert_eq!(next.slots[slot.other()], slots[slot.other()]);
                let tries = |entry: &Entry| match entry.state {
                    State::Unproven { tries } => tries,
                    other => panic!("{other:?} is counted down"),
                };
                assert_eq!(tries(&next.slots[slot]) + 1, tries(&slots[slot]));
            }
        }
    });
}

#[test]
fn refusing_slot_after_slot_comes_to_an_end() {
    for_every_situation(|situation| {
        let mut situation = *situation;
        for _ in 0..4 {
            match decide(&situation) {
                Decision::Nothing => return,
                Decision::Start(start) => situation.refused[start.slot] = true,
            }
        }
        panic!("never gives up: {situation:?}");
    });
}

#[test]
fn a_bad_slot_is_marked_with_its_reason_and_nothing_else_changes() {
    let slots = PerSlot { a: entry("proven @2"), b: entry("proven @1") };
    let before = record_of(slots.a, slots.b);
    let after = mark_bad(&before, Slot::A, Reason::INITRD);
    assert_eq!(after.sequence, Sequence(8));
    assert_eq!(after.slots.a, Entry { state: State::Bad(Reason::INITRD), ..before.slots.a });
    assert_eq!(after.slots.b, before.slots.b);
}

#[test]
fn a_lost_record_is_rebuilt_from_the_manifests() {
    let check = |a: Option<u64>, b: Option<u64>, expected: &str| {
        let manifest =
            |index: Option<u64>| index.map(|index| manifest::tests::of_version("1.0", index));
        let (index_a, index_b) = (a, b);
        let (a, b) = (manifest(a), manifest(b));
        let record = rebuild(PerSlot { a: a.as_ref(), b: b.as_ref() });
        let show = |entry: &Entry| format!("{:?} @{}", entry.state, entry.priority);
        let found = format!("{}, {}", show(&record.slots.a), show(&record.slots.b));
        assert_eq!(found, expected);
        assert_eq!(record.sequence, Sequence(1));
        assert_eq!(
            record.rollback_floor,
            [index_a, index_b].into_iter().flatten().min().unwrap_or(0)
        );
        assert_eq!(record.slots.a.version, a.and_then(|m| Version::new(&m.version)));
    };
    check(None, None, "Empty @0, Empty @0");
    check(Some(5), None, "Proven @2, Empty @0");
    check(None, Some(0), "Empty @0, Proven @2");
    check(Some(5), Some(6), "Proven @1, Unproven { tries: 3 } @2");
    check(Some(6), Some(5), "Unproven { tries: 3 } @2, Proven @1");
    check(Some(5), Some(5), "Unproven { tries: 3 } @2, Proven @1");
}

#[test]
fn a_slot_whose_entry_is_below_the_floor_is_passed_over_but_not_locked_out() {
    let with_floor = |a_index, b_index, rollback_floor| {
        let a = Entry { rollback_index: a_index, ..entry("proven @2") };
        let b = Entry { rollback_index: b_index, ..entry("proven @1") };
        let record = Record { rollback_floor, ..record_of(a, b) };
        let situation = Situation {
            record,
            refused: PerSlot::default(),
            below_floor: PerSlot::default(),
            record_writable: true,
        };
        show(&situation, decide(&situation))
    };
    assert_eq!(with_floor(5, 6, 5), "A proven");
    assert_eq!(with_floor(5, 6, 6), "B proven");
    assert_eq!(with_floor(5, 6, 7), "B safe");
    assert_eq!(with_floor(6, 5, 7), "A safe");
}

/// Whether the rules before safe mode could start a slot.
fn could_start(situation: &Situation, slot: Slot) -> bool {
    let state = situation.record.slots[slot].state;
    let good = matches!(state, State::Proven | State::Unproven { tries: 1.. });
    good && !situation.refused[slot] && !situation.below_floor[slot]
}

fn for_every_situation(mut check: impl FnMut(&Situation)) {
    let states = ["empty @", "proven @", "unproven 0 @", "unproven 1 @", "unproven 3 @", "bad @"];
    let entries = || {
        let with_priority =
            |state: &'static str| (0..3).map(move |p| entry(&format!("{state}{p}")));
        states.into_iter().flat_map(with_priority)
    };
    for a in entries() {
        for b in entries() {
            for bits in 0..32_u8 {
                check(&Situation {
                    record: record_of(a, b),
                    refused: PerSlot { a: bits & 1 != 0, b: bits & 2 != 0 },
                    below_floor: PerSlot { a: bits & 8 != 0, b: bits & 16 != 0 },
                    record_writable: bits & 4 != 0,
                });
            }
        }
    }
}

fn record_of(a: Entry, b: Entry) -> Record {
    Record { sequence: Sequence(7), rollback_floor: 0, slots: PerSlot { a, b } }
}

fn entry(text: &str) -> Entry {
    let (state, priority) = text.split_once('@').unwrap_or((text, "0"));
    let state = match state.split_whitespace().collect::<Vec<_>>()[..] {
        ["empty"] => State::Empty,
        ["proven"] => State::Proven,
        ["unproven", tries] => State::Unproven { tries: tries.parse().expect("tries") },
        ["bad"] => State::Bad(Reason::UNHEALTHY),
        _ => panic!("not a slot: {text:?}"),
    };
    let priority = priority.trim().parse().expect("priority");
    Entry { state, priority, rollback_index: 0, version: None }
}

fn show(situation: &Situation, decision: Decision) -> String {
    let Decision::Start(Start { slot, rule, write_first }) = decision else {
        return "nothing".to_string();
    };
    match (rule, write_first) {
        (Rule::Proven, None) => format!("{slot} proven"),
        (Rule::Uncounted, None) => format!("{slot} uncounted"),
        (Rule::Safe, None) => format!("{slot} safe"),
        (Rule::Trial { attempt }, Some(record)) => {
            assert_eq!(record.sequence, situation.record.sequence.next());
            let State::Unproven { tries } = record.slots[slot].state else {
                panic!("{record:?}");
            };
            format!("{slot} trial {attempt}, writes {tries}")
        }
        other => panic!("a rule and a write that do not go together: {other:?}"),
    }
}
