//! One flipped bit in every part that is signed: refused by name, and never a system that runs.

use std::time::Duration;

use builder::host::qemu::Options;
use ondisk::boot_record::{Reason, State};
use ondisk::layout::Slot;
use ondisk::manifest::PartName;
use qemu_tests::disk::Disk;
use qemu_tests::machine::{End, Machine};
use qemu_tests::{image, slow_tests_wanted};

const LONG: Duration = Duration::from_secs(240);

/// A disk with the same system in both slots.
fn disk(name: &str) -> Disk {
    let disk = Disk::copy_of(&image::outputs().join("disk.img"), name);
    disk.mirror_slot_a_into_b();
    disk
}

/// Boots a disk that no slot of starts; the first line about each slot's refusal is expected.
fn both_slots_are_refused(name: &str, disk: &Disk, refusals: [&str; 2]) {
    let options = Options { persist: true, ..Options::new(disk.path()) };
    let mut machine = Machine::boot(name, &options);
    for refusal in refusals {
        machine.expect(&format!("iota loader: {refusal}"), LONG);
    }
    machine.expect("iota loader: nothing starts", LONG);
    let said = machine.console.log();
    assert!(!said.contains("starting kernel"), "{said}");
}

#[test]
fn a_flipped_bit_in_kernel_or_initrd_is_refused_by_name_and_both_slots_are_marked_bad() {
    if !slow_tests_wanted() {
        return;
    }
    let disk = disk("parts");
    disk.flip_part(Slot::A, PartName::Kernel);
    disk.flip_part(Slot::B, PartName::Initrd);
    both_slots_are_refused("fault-parts", &disk, ["slot A: kernel: ", "slot B: initrd: "]);
    let record = disk.record();
    assert_eq!(record.slots.a.state, State::Bad(Reason::KERNEL));
    assert_eq!(record.slots.b.state, State::Bad(Reason::INITRD));
}

#[test]
fn a_flipped_bit_in_manifest_or_signature_is_refused_by_name_and_both_slots_are_marked_bad() {
    if !slow_tests_wanted() {
        return;
    }
    let disk = disk("manifests");
    disk.flip_manifest(Slot::A);
    disk.flip_signature(Slot::B);
    let refusals = ["slot A: manifest: ", "slot B: manifest: "];
    both_slots_are_refused("fault-manifests", &disk, refusals);
    let record = disk.record();
    assert_eq!(record.slots.a.state, State::Bad(Reason::MANIFEST));
    assert_eq!(record.slots.b.state, State::Bad(Reason::MANIFEST));
}

#[test]
fn a_system_whose_first_slot_is_damaged_starts_from_the_second() {
    if !slow_tests_wanted() {
        return;
    }
    let disk = disk("second-slot");
    disk.flip_part(Slot::A, PartName::Kernel);
    let mut machine = Machine::boot("fault-second-slot", &Options::new(disk.path()));
    machine.expect("iota loader: slot A: kernel: ", LONG);
    machine.expect("iota loader: slot B: starting kernel", LONG);
    machine.expect("root mounted", LONG);
}

#[test]
fn a_flipped_bit_in_a_program_of_the_root_restarts_the_machine_before_it_runs() {
    if !slow_tests_wanted() {
        return;
    }
    let disk = Disk::copy_of(&image::outputs().join("disk.img"), "root-file");
    disk.flip_in_file(Slot::A, "usr/sbin/dockerd");
    let options = Options { restarts: false, ..Options::new(disk.path()) };
    let mut machine = Machine::boot("fault-root-file", &options).expecting_trouble();
    machine.expect("root mounted", LONG);
    assert_eq!(machine.wait_for_end(LONG), End::Restarted, "{}", machine.console.tail(20));
    let said = machine.console.log();
    assert!(!said.contains("engine docker ready"), "{said}");
}

#[test]
fn a_flipped_bit_in_the_first_block_of_the_root_restarts_the_machine() {
    if !slow_tests_wanted() {
        return;
    }
    let disk = Disk::copy_of(&image::outputs().join("disk.img"), "root-block");
    disk.flip(disk.slot(Slot::A).offset + 100);
    let options = Options { restarts: false, ..Options::new(disk.path()) };
    let mut machine = Machine::boot("fault-root-block", &options).expecting_trouble();
    machine.expect("iota loader: slot A: starting kernel", LONG);
    assert_eq!(machine.wait_for_end(LONG), End::Restarted, "{}", machine.console.tail(20));
    let said = machine.console.log();
    assert!(!said.contains("root mounted"), "{said}");
}
