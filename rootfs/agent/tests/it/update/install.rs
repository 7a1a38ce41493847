//! What a good bundle does.
use agent::apply::{Cause, Left};
use ondisk::boot_record::{Reason, State};
use ondisk::layout::{PerSlot, Slot};
use ondisk::slot_change;

use super::make::*;

#[test]
fn a_bundle_is_written_and_waits_for_its_trial() {
    let mut disk = disk();
    let before = disk.clone();
    let system = System::new("2.0", 6, 1);
    let installed = install(&mut disk, &bundle(&system)).unwrap();
    assert_eq!((installed.slot, installed.version.as_str()), (Slot::B, "2.0"));
    assert_eq!(installed.kept_bytes, 0);
    assert_holds(&disk, &system);
    let record = record(&disk);
    assert_eq!(record.slots.b, entry(State::Unproven { tries: 3 }, 2, 6, "2.0"));
    assert_eq!(record.slots.a, entry(State::Proven, 1, 5, "1.0"));
    assert_eq!(record.rollback_floor, 5);
    let (a, b) = (offset(PLACE.slots.a), offset(PLACE.slots.b));
    assert!(disk[a..b] == before[a..b], "the running slot was written");
}

#[test]
fn a_piped_bundle_gives_the_same_disk_as_a_file() {
    let bundle = bundle(&System::new("2.0", 6, 1));
    let (mut from_file, mut from_pipe) = (disk(), disk());
    install(&mut from_file, &bundle).unwrap();
    install_piped(&mut from_pipe, &bundle).unwrap();
    assert!(from_file == from_pipe);
}

/// Cut at every length, then given whole: what was written is kept, the result is the same.
#[test]
fn an_installation_goes_on_where_it_was_cut() {
    let system = System::new("2.0", 6, 1);
    let bundle = bundle(&system);
    let mut whole = disk();
    install(&mut whole, &bundle).unwrap();
    let slot = offset(PLACE.slots.b)..offset(PLACE.slots.b) + 2 * 1024 * 1024;
    let mut kept_before = 0;
    for length in (150_000..bundle.len()).step_by(50_000) {
        let mut disk = disk();
        let error = install_piped(&mut disk, &bundle[..length]).unwrap_err();
        assert!(matches!(error.cause, Cause::Truncated(_)), "{length}: {error}");
        let installed = install_piped(&mut disk, &bundle).unwrap();
        assert!(installed.kept_bytes >= kept_before, "{length}: less is kept of more");
        kept_before = installed.kept_bytes;
        assert!(disk[slot.clone()] == whole[slot.clone()], "{length}: another result");
    }
    assert!(kept_before > 0, "nothing was ever kept");
}

#[test]
fn groups_that_are_already_right_are_not_written() {
    let old = System::new("2.0", 6, 1);
    let mut root = old.image[..256 * 4096].to_vec();
    root[100 * 4096] ^= 1;
    let new = System::with_root("2.1", 6, root);
    let mut disk = disk();
    put_system(&mut disk, Slot::B, &old);
    let installed = install(&mut disk, &bundle(&new)).unwrap();
    // One group of seven blocks has changed.
    assert_eq!(installed.image_bytes - installed.kept_bytes, 7 * 4096);
    assert_holds(&disk, &new);
}

#[test]
fn a_system_that_waits_or_runs_is_not_installed_again() {
    let mut disk = disk();
    let two = bundle(&System::new("2.0", 6, 1));
    install(&mut disk, &two).unwrap();
    let before = disk.clone();
    let error = install(&mut disk, &two).unwrap_err();
    assert!(error.is_nothing_to_do());
    assert_eq!(error.to_string(), "2.0 waits for the next start already");
    let error = install(&mut disk, &bundle(&System::new("1.0", 5, 100))).unwrap_err();
    assert!(error.is_nothing_to_do());
    assert_eq!(error.to_string(), "1.0 is running already");
    assert!(disk == before);
}

#[test]
fn an_update_that_waits_is_replaced_by_another_one() {
    let mut disk = disk();
    install(&mut disk, &bundle(&System::new("2.0", 6, 1))).unwrap();
    let three = System::new("3.0", 7, 2);
    install(&mut disk, &bundle(&three)).unwrap();
    assert_holds(&disk, &three);
    assert_eq!(record(&disk).slots.b, entry(State::Unproven { tries: 3 }, 2, 7, "3.0"));
}

#[test]
fn a_version_that_failed_is_remembered_and_still_installed_on_request() {
    let mut disk = disk();
    let a = entry(State::Proven, 2, 5, "1.0");
    let b = entry(State::Bad(Reason::UNHEALTHY), 1, 6, "2.0");
    set_record(&mut disk, PerSlot { a, b });
    let two = System::new("2.0", 6, 1);
    let cut = &bundle(&two)[..200_000];
    assert_eq!(install_piped(&mut disk, cut).unwrap_err().left, Left::Empty);
    let failed = record(&disk).slots.b;
    assert_eq!((failed.state, failed.version), (State::Empty, b.version));
    assert!(slot_change::held_back(&record(&disk), Slot::A, &b.version.unwrap()));
    install(&mut disk, &bundle(&two)).unwrap();
    assert_holds(&disk, &two);
}

#[test]
fn one_broken_copy_of_the_record_is_mended_on_the_way() {
    let mut disk = disk();
    disk[65536 + 20] ^= 1;
    assert!(copies(&disk).first.is_err());
    install(&mut disk, &bundle(&System::new("2.0", 6, 1))).unwrap();
    assert!(copies(&disk).first.is_ok() && copies(&disk).second.is_ok());
}
