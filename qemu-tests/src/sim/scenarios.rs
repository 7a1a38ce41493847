//! What happens to the simulated devices: from which disk, to what end.
use ondisk::boot_record::{Entry, Reason, State, TRIES};
use ondisk::layout::{RECORD_OFFSETS, Slot};

use super::fixture::{Disk, RECORD, SLOTS, System, entry};
use super::session::Wish;
use super::world::Scenario;

const TRIAL: State = State::Unproven { tries: 3 };

/// All of them, in the order of tables.
pub fn all() -> Vec<Scenario> {
    vec![
        healthy_trial(),
        unhealthy_trial(),
        proven(),
        bad_kernel(),
        record_lost(),
        record_lost_unhealthy(),
        record_copy_lost(),
        record_rot(),
        safe_mode(),
        below_floor(),
        rejected_kernel_on_trial(),
        update_a_to_b(),
        update_b_to_a(),
        update_twice(),
        update_unhealthy(),
        update_and_back(),
        update_resumed(),
        update_refused(),
        update_garbled(),
        update_from_safe_mode(),
        roll_back(),
        cancel(),
    ]
}

/// A scenario from its first disk; boots by itself to its end.
fn from(name: &'static str, disk: Disk) -> Scenario {
    Scenario {
        name,
        disk,
        unhealthy: &[],
        plan: Vec::new(),
        ends: "2.0",
        falls_back: ("1.0", TRIES),
        ends_safe: false,
        damaged: false,
        boots: 6,
    }
}

/// Version 1.0 in slot A and 2.0 in slot B.
fn both() -> Disk {
    Disk::new().with(Slot::A, &System::new("1.0")).with(Slot::B, &System::new("2.0"))
}

fn both_with(a: State, b: State) -> Disk {
    both().with_record(1, entry("1.0", a, 1), entry("2.0", b, 2))
}

fn healthy_trial() -> Scenario {
    from("trial-healthy", both_with(State::Proven, TRIAL))
}

fn unhealthy_trial() -> Scenario {
    let disk = both_with(State::Proven, TRIAL);
    Scenario { unhealthy: &["2.0"], ends: "1.0", ..from("trial-unhealthy", disk) }
}

fn proven() -> Scenario {
    from("proven", both_with(State::Proven, State::Proven))
}

/// The better slot has rotted: marked bad, and the other one starts.
fn bad_kernel() -> Scenario {
    let disk = both_with(State::Proven, State::Proven);
    let disk = disk.damaged(SLOTS.b.offset + 3 * 4096 + 100, b"rot");
    Scenario { ends: "1.0", damaged: true, ..from("mark-bad", disk) }
}

/// Rot found while the slot is on trial.
fn rejected_kernel_on_trial() -> Scenario {
    let disk = both_with(State::Proven, TRIAL);
    let disk = disk.damaged(SLOTS.b.offset + 3 * 4096 + 100, b"rot");
    Scenario { ends: "1.0", damaged: true, ..from("trial-mark-bad", disk) }
}

/// Both copies garbled.
fn record_lost() -> Scenario {
    let disk = RECORD_OFFSETS
        .iter()
        .fold(both(), |disk, offset| disk.damaged(RECORD.offset + offset, &[0x5a; 512]));
    from("record-lost", disk)
}

fn record_lost_unhealthy() -> Scenario {
    Scenario {
        name: "record-lost-unhealthy",
        unhealthy: &["2.0"],
        ends: "1.0",
        // Losing the only copy that was rebuilt starts the trial anew.
        boots: 10,
        ..record_lost()
    }
}

fn record_copy_lost() -> Scenario {
    let disk = both_with(State::Proven, TRIAL).damaged(RECORD.offset, &[0xff; 512]);
    from("record-copy-lost", disk)
}

/// One bit of the newer copy has flipped, and would turn the slots around.
fn record_rot() -> Scenario {
    let disk =
        both().with_record(1, entry("1.0", State::Proven, 2), entry("2.0", State::Proven, 1));
    let disk = disk.damaged(RECORD.offset + 25, &[0]);
    // The good copy fails to answer once: then the record is rebuilt, and the newer system tried.
    Scenario { ends: "1.0", falls_back: ("2.0", 1), ..from("record-rot", disk) }
}

/// No slot is good: the newest one runs, restricted, and nothing is written.
fn safe_mode() -> Scenario {
    let disk = both_with(State::Bad(Reason::UNHEALTHY), State::Unproven { tries: 0 });
    Scenario { ends_safe: true, ..from("safe-mode", disk) }
}

/// A slot below the floor gives way to an empty record's best.
fn below_floor() -> Scenario {
    let a = Entry { rollback_index: 2, ..entry("2.0", State::Proven, 2) };
    let disk = Disk::new()
        .with(Slot::A, &System::new("1.0"))
        .with(Slot::B, &System::new("2.0"))
        .with_record(2, a, entry("2.0", State::Proven, 1));
    Scenario { damaged: true, ..from("below-floor", disk) }
}

/// Version 1.0 runs from slot A, and nothing is in slot B.
fn fresh() -> Disk {
    let a = entry("1.0", State::Proven, 2);
    Disk::new().with(Slot::A, &System::new("1.0")).with_record(1, a, Entry::default())
}

fn update_a_to_b() -> Scenario {
    Scenario { plan: vec![Wish::Install("2.0")], ..from("update-a-b", fresh()) }
}

fn update_b_to_a() -> Scenario {
    Scenario {
        plan: vec![Wish::Install("3.0")],
        ends: "3.0",
        falls_back: ("2.0", TRIES),
        ..from("update-b-a", both_with(State::Proven, State::Proven))
    }
}

/// A to B to A.
fn update_twice() -> Scenario {
    Scenario {
        plan: vec![Wish::Install("2.0"), Wish::Install("3.0")],
        ends: "3.0",
        falls_back: ("2.0", TRIES),
        boots: 10,
        ..from("update-a-b-a", fresh())
    }
}

/// The new system is never found healthy: the old one is back, and the new one is not tried again.
fn update_unhealthy() -> Scenario {
    Scenario {
        plan: vec![Wish::Install("2.0")],
        unhealthy: &["2.0"],
        ends: "1.0",
        boots: 12,
        ..from("update-unhealthy", fresh())
    }
}

/// The floor must not keep the user from going back.
fn update_and_back() -> Scenario {
    Scenario {
        plan: vec![Wish::Install("2.0"), Wish::RollBack("1.0")],
        ends: "1.0",
        boots: 10,
        ..from("update-and-back", fresh())
    }
}

/// Half of the new system is there from a time before.
fn update_resumed() -> Scenario {
    let half = &System::new("2.0").slot[..9000];
    let disk = fresh().damaged(SLOTS.b.offset, half);
    Scenario { plan: vec![Wish::Install("2.0")], ..from("update-resumed", disk) }
}

/// Wrong bundles change nothing; a good one after them is installed.
fn update_refused() -> Scenario {
    let disk = both().with_record(
        2,
        entry("1.0", State::Bad(Reason::UNHEALTHY), 1),
        entry("2.0", State::Proven, 2),
    );
    Scenario {
        plan: vec![Wish::RefuseAll, Wish::Install("3.0")],
        ends: "3.0",
        falls_back: ("2.0", TRIES),
        ..from("update-refused", disk)
    }
}

/// A bundle that turns out wrong at its end leaves an empty slot; a good one is installed.
fn update_garbled() -> Scenario {
    let plan = vec![Wish::FailAtTheEnd("2.0"), Wish::Install("2.0")];
    Scenario { plan, ..from("update-garbled", fresh()) }
}

/// No slot is good: safe mode is where an update gets the device out of it.
fn update_from_safe_mode() -> Scenario {
    let disk = both_with(State::Bad(Reason::UNHEALTHY), State::Unproven { tries: 0 });
    Scenario {
        plan: vec![Wish::Install("3.0")],
        ends: "3.0",
        boots: 10,
        ..from("update-from-safe-mode", disk)
    }
}

fn roll_back() -> Scenario {
    Scenario {
        plan: vec![Wish::RollBack("1.0")],
        ends: "1.0",
        ..from("roll-back", both_with(State::Proven, State::Proven))
    }
}

/// A cut between the two wishes starts what was staged: then it is too late to cancel.
fn cancel() -> Scenario {
    Scenario {
        plan: vec![Wish::Stage("2.0"), Wish::Cancel("2.0")],
        ends: "1.0",
        falls_back: ("2.0", 1),
        ..from("cancel", fresh())
    }
}
