//! The changes against their truth table, and the rules that hold for every record.
use alloc::format;
use alloc::string::{String, ToString as _};
use alloc::vec::Vec;

use super::*;
use crate::boot_record::Sequence;
use crate::layout::PerSlot;

const TABLE: &str = include_str!("changes.txt");

#[test]
fn changes_are_the_ones_of_the_truth_table() {
    let lines =
        TABLE.lines().zip(1..).filter(|(line, _)| !line.is_empty() && !line.starts_with('#'));
    let mut cases = 0;
    for (line, number) in lines {
        let columns: Vec<_> = line.split('|').map(str::trim).collect();
        let [running, a, b, floor, change, expected] = columns[..] else {
            panic!("line {number}: {line}")
        };
        let running = if running == "A" { Slot::A } else { Slot::B };
        let before = Record {
            sequence: Sequence(7),
            rollback_floor: floor.parse().expect("a floor"),
            slots: PerSlot { a: entry(a), b: entry(b) },
        };
        let after = apply(&before, running, change);
        assert_eq!(show(&before, &after), expected, "line {number}: {line}");
        cases += 1;
    }
    assert!(cases > 40, "the table has only {cases} lines");
}

fn apply(record: &Record, running: Slot, change: &str) -> Result<Record, Refused> {
    match change.split_whitespace().collect::<Vec<_>>()[..] {
        ["begin"] => begin(record, running),
        ["commit"] => commit(record, running),
        ["roll", "back"] => roll_back(record, running, Reason::REJECTED),
        ["cancel"] => cancel(record, running),
        ["stage", index, version] => {
            let version = Version::new(version).expect("a version");
            stage(record, running, version, index.parse().expect("an index"))
        }
        _ => panic!("not a change: {change:?}"),
    }
}

#[test]
fn no_change_of_any_record_breaks_a_rule() {
    for_every_change(|before, running, change, after| {
        let what = || format!("{running} {change} {before:?}");
        let other = running.other();
        let (old, new) = (&before.slots, &after.slots);
        if before == after {
            return;
        }
        assert_eq!(after.sequence, before.sequence.next(), "{}", what());
        assert!(after.rollback_floor >= before.rollback_floor, "the floor falls: {}", what());
        if after.rollback_floor > before.rollback_floor {
            assert_eq!(change, "commit", "{}", what());
            for slot in Slot::BOTH {
                let reachable = new[slot].state != State::Empty;
                let below = new[slot].rollback_index < after.rollback_floor;
                assert!(!(reachable && below), "slot {slot} is left below the floor: {}", what());
            }
        }
        if matches!(old[running].state, State::Proven) {
            assert_eq!(new[running].state, State::Proven, "{}", what());
        }
        if old[other].state != new[other].state && is_good(&old[other]) {
            assert_eq!(old[running].state, State::Proven, "no way back is left: {}", what());
        }
    });
}

#[test]
fn whatever_could_be_started_before_a_change_something_can_be_after() {
    let some_good = |record: &Record| Slot::BOTH.iter().any(|&slot| is_good(&record.slots[slot]));
    for_every_change(|before, running, change, after| {
        let lost = some_good(before) && !some_good(after);
        assert!(!lost, "{running} {change} {before:?}");
    });
}

#[test]
fn a_version_that_failed_is_held_back_until_it_is_replaced() {
    let check = |b: &str, version: &str, expected: bool| {
        let slots = PerSlot { a: entry("proven @1 #5 v1"), b: entry(b) };
        let record = Record { sequence: Sequence(7), rollback_floor: 0, slots };
        let version = Version::new(version).expect("a version");
        assert_eq!(held_back(&record, Slot::A, &version), expected, "{b}");
    };
    check("bad 5 @2 #6 v2", "v2", true);
    check("bad 5 @2 #6 v2", "v3", false);
    // Reason 4: the bytes were right, and no kernel. 1 to 3: the bytes have changed.
    check("bad 4 @2 #6 v2", "v2", true);
    check("bad 1 @2 #6 v2", "v2", false);
    check("bad 2 @2 #6 v2", "v2", false);
    check("bad 3 @2 #6 v2", "v2", false);
    check("unproven 0 @2 #6 v2", "v2", true);
    check("empty v2", "v2", true);
    check("proven @1 #6 v2", "v2", true);
    check("empty", "v2", false);
    check("unproven 3 @2 #6 v2", "v2", false);
}

#[test]
fn only_answers_are_nothing_to_do() {
    let nothing = [
        Refused::AlreadyProven(Slot::A),
        Refused::AlreadyPreferred(Slot::A),
        Refused::NothingStaged(Slot::A),
    ];
    assert!(nothing.iter().all(Refused::is_nothing_to_do));
    assert!(!Refused::Downgrade { index: 1, floor: 2 }.is_nothing_to_do());
    assert!(!Refused::OnTrial(Slot::B).is_nothing_to_do());
}

fn for_every_change(mut check: impl FnMut(&Record, Slot, &str, &Record)) {
    let states = ["empty", "proven", "unproven 0", "unproven 1", "unproven 3", "bad 5"];
    let entries = || {
        let numbered = |state: &'static str| {
            (0..3).flat_map(move |priority| {
                [4, 5, 6].map(|index| entry(&format!("{state} @{priority} #{index} v{index}")))
            })
        };
        states.into_iter().flat_map(numbered)
    };
    let mut done = 0;
    for a in entries() {
        for b in entries() {
            for running in Slot::BOTH {
                for change in ["begin", "stage 5 v5", "commit", "roll back", "cancel"] {
                    let slots = PerSlot { a, b };
                    let before = Record { sequence: Sequence(7), rollback_floor: 4, slots };
                    if let Ok(after) = apply(&before, running, change) {
                        done += 1;
                        check(&before, running, change, &after);
                    }
                }
            }
        }
    }
    assert!(done > 5000, "only {done} changes");
}

fn entry(text: &str) -> Entry {
    let mut entry = Entry::default();
    let mut words = text.split_whitespace().peekable();
    let state = words.next().expect("a state");
    let mut number = || words.next_if(|word| word.bytes().all(|byte| byte.is_ascii_digit()));
    let number = number().map(|word| word.parse().expect("a number"));
    entry.state = match (state, number) {
        ("empty", None) => State::Empty,
        ("proven", None) => State::Proven,
        ("unproven", Some(tries)) => State::Unproven { tries },
        ("bad", Some(reason)) => State::Bad(Reason(reason)),
        _ => panic!("not a slot: {text:?}"),
    };
    for word in words {
        match word.split_at(1) {
            ("@", priority) => entry.priority = priority.parse().expect("a priority"),
            ("#", index) => entry.rollback_index = index.parse().expect("an index"),
            _ => entry.version = Version::new(word),
        }
    }
    entry
}

fn show(before: &Record, after: &Result<Record, Refused>) -> String {
    match after {
        Ok(after) if after == before => "same".to_string(),
        Ok(Record { slots: PerSlot { a, b }, rollback_floor, .. }) => {
            format!("{}, {}, {rollback_floor}", show_entry(a), show_entry(b))
        }
        Err(refused) if refused.is_nothing_to_do() => format!("nothing: {refused}"),
        Err(refused) => format!("refused: {refused}"),
    }
}

fn show_entry(entry: &Entry) -> String {
    let mut text = match entry.state {
        State::Empty => "empty".to_string(),
        State::Proven => "proven".to_string(),
        State::Unproven { tries } => format!("unproven {tries}"),
        State::Bad(Reason(reason)) => format!("bad {reason}"),
    };
    if entry.priority != 0 {
        text += &format!(" @{}", entry.priority);
    }
    if entry.rollback_index != 0 {
        text += &format!(" #{}", entry.rollback_index);
    }
    entry.version.iter().for_each(|version| text += &format!(" {version}"));
    text
}
