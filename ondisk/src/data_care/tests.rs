//! The sequence against hands that do what a case says, and resets that are cut at every step.
use alloc::vec;
use alloc::vec::Vec;

use super::*;

const BYTES: u64 = 200 << 20;

/// A superblock that needs no check, or one that notes errors.
fn superblock(errors: bool) -> Superblock {
    let mut block = [0; ext4::SUPERBLOCK_BYTES];
    block[0x4..0x8].copy_from_slice(&51_200_u32.to_le_bytes());
    block[0x18] = 2;
    block[0x38..0x3b].copy_from_slice(&[0x53, 0xef, if errors { 3 } else { 1 }]);
    block[0x65] = 4;
    ext4::seal(&mut block);
    block
}

/// Hands that answer from lists and keep what was asked of them.
struct Fake {
    superblocks: Vec<Result<Superblock, String>>,
    checks: Vec<Result<Checked, String>>,
    mounts: Vec<Result<(), String>>,
    done: Vec<&'static str>,
}

fn next<T>(answers: &mut Vec<T>) -> T {
    assert!(!answers.is_empty(), "asked once more than the case says");
    answers.remove(0)
}

impl Partition for Fake {
    fn bytes(&self) -> u64 {
        BYTES
    }
    fn superblock(&mut self) -> Result<Superblock, String> {
        next(&mut self.superblocks)
    }
    fn check(&mut self, mode: Mode) -> Result<Checked, String> {
        self.done.push(mode.arguments()[1]);
        next(&mut self.checks)
    }
    fn mount(&mut self) -> Result<(), String> {
        self.done.push("mount");
        next(&mut self.mounts)
    }
    fn unmount(&mut self) -> Result<(), String> {
        self.done.push("unmount");
        Ok(())
    }
    fn make_new(&mut self) -> Result<(), String> {
        unreachable!("nobody asked")
    }
    fn remove_all_but_identity(&mut self) -> Result<(), String> {
        unreachable!("nobody asked")
    }
    fn take_back(&mut self) -> Result<(), String> {
        unreachable!("nobody asked")
    }
}

fn checked(status: i32, said: &str) -> Result<Checked, String> {
    Ok(Checked { status: Some(status), said: said.to_owned() })
}

fn refused() -> Result<(), String> {
    Err("bad message".to_owned())
}

/// Superblocks (true: errors), checks, mounts; what is done, and the state in words.
fn check(
    superblocks: &[bool],
    checks: &[Result<Checked, String>],
    mounts: &[Result<(), String>],
    done: &str,
    state: &str,
) {
    let mut fake = Fake {
        superblocks: superblocks.iter().map(|errors| Ok(superblock(*errors))).collect(),
        checks: checks.to_vec(),
        mounts: mounts.to_vec(),
        done: vec![],
    };
    let outcome = bring_up(&mut fake, None);
    let said = match outcome.state {
        State::Repaired { why, said } => format!("repaired: {why}: {said}"),
        State::Quarantined { why } => format!("quarantined: {why}"),
        other => format!("{other:?}"),
    };
    assert_eq!((fake.done.join(" ").as_str(), said.as_str()), (done, state));
    assert!(fake.checks.is_empty() && fake.mounts.is_empty() && fake.superblocks.is_empty());
}

#[test]
fn a_clean_partition_is_mounted_and_nothing_else_is_done() {
    check(&[false, false], &[], &[Ok(())], "mount", "Good");
}

#[test]
fn a_journal_to_be_replayed_means_that_the_power_was_cut() {
    for (features, was_cut) in [(0x2c2_u32, false), (0x2c6, true)] {
        let mut left = superblock(false);
        left[0x60..0x64].copy_from_slice(&features.to_le_bytes());
        ext4::seal(&mut left);
        let superblocks = vec![Ok(left), Ok(superblock(false))];
        let (checks, mounts, done) = (vec![], vec![Ok(())], vec![]);
        let outcome = bring_up(&mut Fake { superblocks, checks, mounts, done }, None);
        assert_eq!(outcome, Outcome { was_cut, ..State::Good.into() });
    }
}

#[test]
fn what_the_kernel_noted_is_repaired_before_the_mount_or_after_its_journal() {
    let state = "repaired: the kernel met errors on it: fixed";
    check(&[true], &[checked(1, "fixed")], &[Ok(())], "-p mount", state);
    let done = "mount unmount -p mount";
    check(&[false, true], &[checked(1, "fixed")], &[Ok(()), Ok(())], done, state);
}

#[test]
fn what_cannot_be_mended_carefully_is_mended_with_all_means_until_nothing_is_found() {
    let checks = [checked(4, "by hand"), checked(1, "fixed"), checked(1, "more"), checked(0, "")];
    let state = "repaired: the kernel met errors on it: fixed";
    check(&[true], &checks, &[Ok(())], "-p -y -y -y mount", state);
    let checks = [checked(4, "by hand"), checked(1, "fixed"), checked(1, ""), checked(1, "")];
    let state = "quarantined: the kernel met errors on it; \
                 e2fsck -y found more in each of 3 rounds";
    check(&[true], &checks, &[], "-p -y -y -y", state);
    let checks = [checked(8, ""), checked(8, "Bad magic number")];
    let state = "quarantined: the kernel met errors on it; \
                 e2fsck -y ended with status 8: Bad magic number";
    check(&[true], &checks, &[], "-p -y", state);
    let checks = [checked(4, ""), Ok(Checked { status: None, said: String::new() })];
    let state = "quarantined: the kernel met errors on it; e2fsck -y was ended by a signal";
    check(&[true], &checks, &[], "-p -y", state);
}

#[test]
fn a_check_that_takes_too_long_is_not_followed_by_another() {
    let late = [Err("e2fsck took longer than 120 s".to_owned())];
    let state = "quarantined: the kernel met errors on it; e2fsck took longer than 120 s";
    check(&[true], &late, &[], "-p", state);
}

#[test]
fn what_the_kernel_refuses_is_checked_once_and_then_left_alone() {
    let state = "repaired: it cannot be mounted: bad message: ";
    check(&[false], &[checked(0, "")], &[refused(), Ok(())], "mount -p mount", state);
    let state = "quarantined: repaired, but it cannot be mounted: bad message";
    check(&[false], &[checked(1, "")], &[refused(), refused()], "mount -p mount", state);
    check(&[true], &[checked(1, "")], &[refused()], "-p mount", state);
}

/// A data partition and a request, on a medium that stays when the power is cut.
#[derive(Clone, Debug)]
struct Medium {
    request: Option<Reset>,
    /// Whole; `None` while it is being made.
    whole: bool,
    old_files: u32,
    identity: bool,
}

/// Hands that stop after so many changes of the medium.
struct Cut<'a> {
    medium: &'a mut Medium,
    left: u32,
}

impl Cut<'_> {
    fn change(&mut self, change: impl FnOnce(&mut Medium)) -> Result<(), String> {
        self.left = self.left.checked_sub(1).ok_or("the power is gone")?;
        change(self.medium);
        Ok(())
    }
}

impl Partition for Cut<'_> {
    fn bytes(&self) -> u64 {
        BYTES
    }
    fn superblock(&mut self) -> Result<Superblock, String> {
        if self.medium.whole { Ok(superblock(false)) } else { Err("garbage".to_owned()) }
    }
    fn check(&mut self, _: Mode) -> Result<Checked, String> {
        Ok(Checked { status: Some(if self.medium.whole { 0 } else { 8 }), said: String::new() })
    }
    fn mount(&mut self) -> Result<(), String> {
        if self.medium.whole { Ok(()) } else { Err("garbage".to_owned()) }
    }
    fn unmount(&mut self) -> Result<(), String> {
        Ok(())
    }
    fn make_new(&mut self) -> Result<(), String> {
        self.change(|medium| medium.whole = false)?;
        self.change(|medium| {
            *medium = Medium { whole: true, old_files: 0, identity: false, ..medium.clone() };
        })
    }
    fn remove_all_but_identity(&mut self) -> Result<(), String> {
        while self.medium.old_files > 0 {
            self.change(|medium| medium.old_files -= 1)?;
        }
        Ok(())
    }
    fn take_back(&mut self) -> Result<(), String> {
        self.change(|medium| medium.request = None)
    }
}

#[test]
fn a_reset_that_is_cut_anywhere_is_done_again_or_completed() {
    for (whole, reset) in
        [(true, Reset::Everything), (false, Reset::Everything), (true, Reset::KeepIdentity)]
    {
        let before = Medium { request: Some(reset), whole, old_files: 3, identity: true };
        for first in 0..8 {
            for second in 0..8 {
                let mut medium = before.clone();
                for left in [first, second, 100] {
                    let request = medium.request;
                    bring_up(&mut Cut { medium: &mut medium, left }, request);
                    let emptied = medium.whole && medium.old_files == 0;
                    assert!(emptied || medium.request.is_some(), "{medium:?}");
                    assert!(medium.identity || reset == Reset::Everything, "{medium:?}");
                }
                assert_eq!((medium.request, medium.old_files), (None, 0));
                assert_eq!(medium.identity, reset == Reset::KeepIdentity);
            }
        }
    }
}

#[test]
fn a_request_stands_where_an_identity_cannot_be_kept() {
    let request = Some(Reset::KeepIdentity);
    let mut medium = Medium { request, whole: false, old_files: 3, identity: true };
    let outcome = bring_up(&mut Cut { medium: &mut medium, left: 100 }, request);
    let State::Quarantined { why } = outcome.state else { panic!("{outcome:?}") };
    assert!(why.contains("without --keep-identity makes it new"), "{why}");
    assert_eq!((medium.request, medium.old_files), (request, 3));
}

#[test]
fn a_request_that_cannot_be_taken_back_is_told() {
    let request = Some(Reset::Everything);
    let mut medium = Medium { request, whole: true, old_files: 3, identity: true };
    let outcome = bring_up(&mut Cut { medium: &mut medium, left: 2 }, request);
    assert_eq!(outcome.state, State::New { kept_identity: false });
    assert!(outcome.problem.is_some_and(|problem| problem.starts_with("the next start resets")));
}

#[test]
fn what_e2fsck_says_becomes_one_line() {
    let mut brief = Brief::default();
    assert_eq!(brief.text(), "");
    for line in [
        "e2fsck 1.47.2 (1-Jan-2025)",
        "Pass 1: Checking inodes, blocks, and sizes",
        "data: Backing up journal inode block information.",
        "data: Inode 12, i_blocks is 9, should be 8.  FIXED.\t",
        "data: Inode 13 \u{1b}[2J",
        "",
        "data: ***** FILE SYSTEM WAS MODIFIED *****",
        "data: 12/51200 files (0.0% non-contiguous), 7358/51200 blocks",
    ] {
        brief.add(line);
    }
    let first = "data: Inode 12, i_blocks is 9, should be 8.  FIXED.";
    assert_eq!(brief.text(), format!("{first} (and 1 more)"));
}

#[test]
fn a_report_is_read_back_and_nothing_else_is() {
    let why = "why".to_owned();
    for state in [
        State::Missing,
        State::Good,
        State::Repaired { why: why.clone(), said: "said".to_owned() },
        State::New { kept_identity: false },
        State::New { kept_identity: true },
        State::Quarantined { why },
    ] {
        for problem in [None, Some("problem".to_owned())] {
            let device = (state != State::Missing).then(|| "/dev/vda5".to_owned());
            let was_cut = problem.is_some();
            let outcome = Outcome { state: state.clone(), was_cut, problem };
            let report = Report { device, outcome };
            assert_eq!(Report::parse(&report.encode()), Some(report));
        }
    }
    for wrong in ["", "iota-data 1\n", "iota-data 1\nstate well\n", "iota-data 2\nstate good\n"] {
        assert_eq!(Report::parse(wrong), None, "{wrong:?}");
    }
    let strange = State::Quarantined { why: "a\nstate good\u{1b}".to_owned() };
    let text = Report { device: None, outcome: strange.into() }.encode();
    assert_eq!(text, "iota-data 1\nstate quarantined\nwhy a state good \n");
}

#[test]
fn a_check_has_two_to_five_minutes() {
    assert_eq!(check_limit_ms(BYTES), 120_000);
    assert_eq!(check_limit_ms(64 << 30), 184_000);
    assert_eq!(check_limit_ms(u64::MAX), 300_000);
}
