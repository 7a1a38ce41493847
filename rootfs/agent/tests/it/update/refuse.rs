//! What a bad bundle does: before the first write nothing at all, later it leaves an empty slot.
use agent::apply::{self, Bytes, Cause, Left, Place, Rules, Source};
use ondisk::boot_record::{Entry, State};
use ondisk::layout::{PerSlot, Slot};
use ondisk::manifest::Profile;
use ondisk::trust_root::TrustRoot;

use super::make::*;

fn system() -> System {
    System::new("2.0", 6, 1)
}

#[test]
fn a_bundle_for_another_board_changes_nothing() {
    let mut other = system();
    other.fields.board = "other-board".to_owned();
    let expected = "the bundle is for other-board, this device is test-board";
    assert_untouched(&bundle(&other), expected);
}

#[test]
fn a_system_that_does_not_fit_the_slot_changes_nothing() {
    let root = noise(1, 489 * 4096);
    let system = System::with_root("2.0", 6, root);
    let end = system.fields.initrd.extent.end().unwrap();
    let limit = SLOT_BYTES - 64 * 1024;
    let verity = system.fields.verity.extent.end().unwrap();
    assert!(verity <= limit && end > limit, "the first part beyond the end is the initrd");
    let expected = format!(
        "slot manifest of the bundle: part initrd ends at {end}, the slot has room up to {limit}"
    );
    assert_untouched(&bundle(&system), &expected);
}

#[test]
fn a_lower_rollback_index_changes_nothing() {
    let old = System::new("0.9", 4, 1);
    let expected = "rollback index 4 is lower than 5, the lowest allowed here";
    assert_untouched(&bundle(&old), expected);
}

#[test]
fn unknown_and_wrong_signatures_change_nothing() {
    let unknown = trust(&[9]).release.keys()[0].id();
    let trusted = trust(&[TRUSTED]).release.keys()[0].id();
    let header = Pieces { header_seed: 9, ..Pieces::of(&system()) };
    let expected = format!("bundle header: signed by no trusted key, but by {unknown}");
    assert_untouched(&header.build(), &expected);
    let manifest = Pieces { manifest: system().manifest(9), ..Pieces::of(&system()) };
    let expected =
        format!("slot manifest of the bundle: signed by no trusted key, but by {unknown}");
    assert_untouched(&manifest.build(), &expected);
    let mut forged = bundle(&system());
    forged[100] ^= 1;
    let expected = format!("bundle header: wrong signature in the name of key {trusted}");
    assert_untouched(&forged, &expected);
}

#[test]
fn without_a_trusted_key_everything_is_refused() {
    let mut disk = disk();
    let before = disk.clone();
    let bundle = bundle(&system());
    let source = Source { bytes: bundle.as_slice(), length: None };
    let error = install_from(&mut disk, source, &TrustRoot::default()).unwrap_err();
    assert_eq!(error.to_string(), "bundle header: no key is trusted here");
    assert!(disk == before);
}

#[test]
fn a_release_system_takes_no_development_system() {
    let mut disk = disk();
    let before = disk.clone();
    let trust = trust(&[TRUSTED]);
    let rules = Rules { board: BOARD, profile: Profile::Release, trust: &trust };
    let run = |disk: &mut Vec<u8>, system: &System| {
        let bundle = bundle(system);
        let source = Source { bytes: bundle.as_slice(), length: None };
        apply::install(disk, &PLACE, &rules, source, &mut |_| {})
    };
    let error = run(&mut disk, &system()).unwrap_err();
    let expected = "this device runs release systems only, the bundle is for development";
    assert_eq!((error.to_string().as_str(), error.left), (expected, Left::Untouched));
    assert!(disk == before);
    let mut release = system();
    release.fields.profile = Profile::Release;
    run(&mut disk, &release).unwrap();
}

#[test]
fn a_trial_does_not_overwrite_what_it_can_fall_back_to() {
    let mut disk = disk();
    let a = entry(State::Unproven { tries: 2 }, 2, 6, "2.0");
    let b = entry(State::Proven, 1, 5, "1.0");
    set_record(&mut disk, PerSlot { a, b });
    let before = disk.clone();
    let error = install(&mut disk, &bundle(&System::new("3.0", 7, 3))).unwrap_err();
    assert_eq!(error.to_string(), "slot A is running on trial");
    assert!(disk == before);
}

#[test]
fn a_record_that_is_lost_is_left_to_the_loader() {
    let mut disk = disk();
    disk[65536 + 100] ^= 1;
    disk[65536 + 4 * 1024 * 1024 + 100] ^= 1;
    let before = disk.clone();
    let error = install(&mut disk, &bundle(&system())).unwrap_err();
    assert!(matches!(error.cause, Cause::RecordUnreadable));
    assert!(error.hint().unwrap().starts_with("restart"));
    assert!(disk == before);
}

#[test]
fn an_image_of_another_length_than_the_manifest_lists_changes_nothing() {
    let mut pieces = Pieces::of(&system());
    pieces.image_bytes -= 7 * 4096;
    pieces.index.groups.pop();
    let found = pieces.image_bytes;
    let wanted = system().image.len();
    let expected = format!("image in the bundle has {found} bytes, its manifest lists {wanted}");
    assert_untouched(&pieces.build(), &expected);
}

#[test]
fn a_file_of_the_wrong_length_changes_nothing() {
    let good = bundle(&system());
    assert_untouched(&good[..good.len() - 1], "the bundle is cut short: 1 bytes missing");
    assert_untouched(&[&good[..], b"x"].concat(), "there are bytes after the end of the bundle");
}

/// Header, slot manifest, index and the first chunk are read before the first write: a pipe that
/// ends in one of them changes nothing.
#[test]
fn a_pipe_that_ends_in_the_front_changes_nothing() {
    let good = bundle(&system());
    let front = good.len() - Pieces::of(&system()).stream.len() + 100_000;
    for length in [0, 1, 4095, 4096, 4097, 5000, front - 100_001, front - 1] {
        let mut disk = disk();
        let before = disk.clone();
        let error = install_piped(&mut disk, &good[..length]).unwrap_err();
        assert!(matches!(error.cause, Cause::Truncated(_)), "{length}: {error}");
        assert_eq!(error.left, Left::Untouched, "{length}");
        assert!(disk == before, "{length}");
    }
}

#[test]
fn a_pipe_that_ends_early_or_late_leaves_the_slot_empty() {
    let good = bundle(&system());
    let cause =
        assert_left_empty(&good[..good.len() - 1], "the bundle is cut short: 1 bytes missing");
    assert!(matches!(cause, Cause::Truncated(1)));
    let longer = [&good[..], b"x"].concat();
    assert_left_empty(&longer, "there are bytes after the end of the bundle");
}

/// RAUC CVE-2020-25860: what was checked and what was used were read at different times. Here the
/// bytes that are written are the bytes that were hashed, whatever the file becomes meanwhile.
#[test]
fn rauc_cve_2020_25860_a_bundle_that_changes_while_it_is_read_is_refused() {
    /// Gives good bytes until the index has been read, then those of another system.
    struct Swapped<'a> {
        good: &'a [u8],
        other: &'a [u8],
        position: usize,
        front: usize,
    }
    impl std::io::Read for Swapped<'_> {
        fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
            let bytes = if self.position < self.front { self.good } else { self.other };
            let rest = &bytes[self.position.min(bytes.len())..];
            let count = rest.len().min(buffer.len());
            buffer[..count].copy_from_slice(&rest[..count]);
            self.position += count;
            Ok(count)
        }
    }
    impl Bytes for Swapped<'_> {}
    let (good, other) = (bundle(&system()), bundle(&System::new("2.0", 6, 7)));
    let stream = good.len() - Pieces::of(&system()).stream.len();
    for (front, left) in [(stream, Left::Untouched), (stream + 150_000, Left::Empty)] {
        let mut disk = disk();
        let bytes = Swapped { good: &good, other: &other, position: 0, front };
        let trust = trust(&[TRUSTED]);
        let rules = Rules { board: BOARD, profile: Profile::Development, trust: &trust };
        let source = Source { bytes, length: None };
        let error = apply::install(&mut disk, &PLACE, &rules, source, &mut |_| {}).unwrap_err();
        assert!(matches!(error.cause, Cause::Chunk(_)), "{error}");
        assert_eq!(error.left, left);
        assert_ne!(record(&disk).slots.b.state, State::Unproven { tries: 3 });
    }
}

/// RAUC CVE-2026-34155: a signature that does not cover all of the payload. Every byte of a bundle
/// is covered: a flip in any region ends the installation, and the slot is never started.
#[test]
fn rauc_cve_2026_34155_every_region_of_a_bundle_is_covered_by_the_signature() {
    let good = bundle(&system());
    for at in (0..good.len()).step_by(good.len() / 97).chain([4095, 4096, good.len() - 1]) {
        let mut bad = good.clone();
        bad[at] ^= 0x10;
        let mut disk = disk();
        let error = install_piped(&mut disk, &bad).unwrap_err();
        let entry = record(&disk).slots.b;
        assert_eq!(entry, Entry { priority: entry.priority, ..Entry::default() }, "{at}: {error}");
    }
}

/// A digit that became no digit is told as what it is: a header that nobody signed.
#[test]
fn any_damage_to_the_text_of_a_header_is_told_as_a_wrong_signature() {
    let good = bundle(&system());
    let text = b"iota-bundle 1\n";
    let start = good.windows(text.len()).position(|found| found == text).unwrap();
    let end = start + good[start..].iter().position(|&byte| byte == 0).unwrap();
    for at in start..end {
        let mut bad = good.clone();
        bad[at] ^= 1;
        let mut disk = disk();
        let before = disk.clone();
        let error = install_piped(&mut disk, &bad).unwrap_err();
        let told = error.to_string();
        assert!(told.contains("sign"), "{at}: {told}");
        assert!(disk == before, "{at}");
    }
}

/// Mender CVE-2025-67903: parts of an artifact that its signed list does not mention were used.
/// Here there is no list that could be left out: sections follow from the header's lengths.
#[test]
fn mender_cve_2025_67903_unlisted_bytes_between_sections_are_refused() {
    let good = bundle(&system());
    for at in [4096, good.len() - Pieces::of(&system()).stream.len()] {
        let more = [&good[..at], b"unlisted", &good[at..]].concat();
        assert_untouched(&more, "there are bytes after the end of the bundle");
        let mut disk = disk();
        let before = disk.clone();
        let error = install_piped(&mut disk, &more).unwrap_err();
        assert_eq!(error.left, Left::Untouched, "{error}");
        assert!(disk == before);
    }
}

/// SWUpdate CVE-2026-28525: a bundle with a valid signature and a wrong length field wrote beyond
/// the place it was for. A stream that unpacks to more than its image never gets past the image.
#[test]
fn swupdate_cve_2026_28525_a_signed_stream_of_the_wrong_length_stays_in_its_slot() {
    let mut long = system().image;
    long.extend_from_slice(&noise(9, 900 * 4096));
    let pieces = Pieces { stream: pack(&long, 17), ..Pieces::of(&system()) };
    let end = offset(PLACE.slots.b) + usize::try_from(SLOT_BYTES).unwrap();
    let mut disk = disk();
    disk.extend_from_slice(&[0xaa; 4096]);
    let error = install_piped(&mut disk, &pieces.build()).unwrap_err();
    assert_eq!(error.to_string(), "the bundle's stream unpacks to too many bytes");
    assert!(disk[end..].iter().all(|&byte| byte == 0xaa));
    assert_eq!(record(&disk).slots.b.state, State::Empty);

    let short = pack(&system().image[..4096 * 200], 17);
    let pieces = Pieces { stream: short, ..Pieces::of(&system()) };
    assert_left_empty(&pieces.build(), "the bundle's stream unpacks to too few bytes");
    let mut stream = Pieces::of(&system()).stream;
    stream.extend_from_slice(b"more");
    let pieces = Pieces { stream, ..Pieces::of(&system()) };
    assert_left_empty(&pieces.build(), "the bundle's stream goes on after its end");
}

#[test]
fn a_stream_of_another_image_of_the_same_length_leaves_the_slot_empty() {
    let mut image = system().image;
    image[200 * 4096] ^= 1;
    let stream = pack(&image, 17);
    let pieces = Pieces { stream, ..Pieces::of(&system()) };
    assert_left_empty(&pieces.build(), "the bundle's group 28 is not the one listed");
}

#[test]
fn a_window_that_the_header_does_not_allow_is_refused_before_memory_is_taken() {
    let stream = pack(&system().image, 24);
    let pieces = Pieces { stream, ..Pieces::of(&system()) };
    let mut disk = disk();
    let before = disk.clone();
    let error = install(&mut disk, &pieces.build()).unwrap_err();
    assert!(matches!(error.cause, Cause::Unpack(_)), "{error}");
    assert!(disk == before);
}

#[test]
fn the_slot_that_runs_is_never_the_target() {
    for running in Slot::BOTH {
        assert_ne!(Place { running, ..PLACE }.target(), running);
    }
}
