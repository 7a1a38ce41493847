//! A good channel, and good ones with one thing changed.
use alloc::vec;

use ed25519_dalek::Signer as _;
use expect_test::expect;

use super::*;
use crate::envelope::Signature;
use crate::manifest::tests::{secret, trust};

fn sample() -> Fields {
    let blob = |name: &[u8], length| Blob { length, sha256: Digest::of(name) };
    let base = Some(Digest::of(b"the release before"));
    Fields {
        name: "stable".to_owned(),
        board: "generic-aarch64".to_owned(),
        sequence: 7,
        issued_s: 1_764_341_000,
        state: State::Open,
        share: ALL,
        version: "2026.11.1".to_owned(),
        rollback_index: 3,
        slot_manifest: blob(b"a slot manifest", 1402),
        front_bytes: 98_304,
        bundle_bytes: 48_412_345,
        conditions: Conditions::default(),
        packs: vec![
            PackEntry { base: None, table: blob(b"table", 9213), length: 61_234_567 },
            PackEntry { base, table: blob(b"other table", 12_345), length: 812_345 },
        ],
    }
}

fn file_of(payload: &[u8], role: Role) -> Vec<u8> {
    let message = envelope::signed_message(role, payload).expect("short");
    let bytes = secret().sign(&message).to_bytes();
    let key = trust().release.keys()[0].id();
    envelope::encode(role, payload, &[Signature { key, bytes }]).expect("one signature")
}

fn open(file: &[u8]) -> Result<Channel, Error> {
    Ok(Unverified::parse(file)?.verify(&trust())?.0)
}

#[test]
fn the_text_is_pinned_and_read_back() {
    let text = sample().encode();
    expect![[r#"
        iota-channel 1
        name stable
        board generic-aarch64
        sequence 7
        issued 1764341000
        state open
        share 65536
        version 2026.11.1
        rollback-index 3
        slot-manifest length=1402 sha256=938487c790500af758e2d0cd67709bdc0dfb57cd3b785e00d94ebc2ac75c5fad
        front length=98304
        bundle length=48412345
        pack base=none table-length=9213 table-sha256=0d4fc4a78d3706edccafb665a8b2fdd9309e82c78625bb0f2b8e7bb9e1c4d21c length=61234567
        pack base=0f3eec0b23b00b6fae9106fcc4245e516b17f34be27943e1a47ff068338119c5 table-length=12345 table-sha256=85ef9dbe41b12948e562c7d82210589289b1855f92035d53d07f5b4352729aec length=812345
    "#]]
    .assert_eq(&text);
    assert_eq!(open(&file_of(text.as_bytes(), Role::CHANNEL)).as_deref(), Ok(&sample()));
}

/// Signed with one thing changed, a channel is refused for this.
fn refused(fields: &Fields, from: &str, to: &str, expected: &str) {
    let text = fields.encode();
    assert!(text.contains(from), "{from:?} is not there");
    let file = file_of(text.replacen(from, to, 1).as_bytes(), Role::CHANNEL);
    let error = open(&file).expect_err(expected);
    assert_eq!(error.to_string(), expected);
}

#[test]
fn a_channel_with_one_thing_changed_is_refused() {
    let check = |from: &str, to: &str, expected: &str| refused(&sample(), from, to, expected);
    check("channel 1", "channel 2", "a format that this system does not know");
    check("name ", "nam ", "no line \"name\" where it should be");
    check("name stable", "name ../stable", "cannot read the value of \"name\"");
    check("board g", "board G", "cannot read the value of \"board\"");
    check("sequence 7", "sequence -7", "cannot read the value of \"sequence\"");
    check("sequence 7", "sequence 07", "not in canonical form");
    check("state open", "state opened", "cannot read the value of \"state\"");
    check("share 65536", "share 65537", "cannot read the value of \"share\"");
    check("version 2026.11.1", "version 2026 11", "cannot read the value of \"version\"");
    check("length=1402", "length=49153", "slot manifest of 49153 bytes, allowed are 1 to 49152");
    check("front length=98304", "front length=0", "front of 0 bytes, allowed are 1 to 2150400");
    check(
        "bundle length=48412345",
        "bundle length=98303",
        "front of 98304 bytes, allowed are 1 to 98303",
    );
    check("base=none", "base=None", "cannot read the value of \"pack\"");
    check(
        "table-length=9213",
        "table-length=4194305",
        "table of a pack of 4194305 bytes, allowed are 1 to 4194304",
    );
    check(
        " length=61234567",
        " length=9212",
        "table of a pack of 9213 bytes, allowed are 1 to 9212",
    );
    let base = Digest::of(b"the release before").to_string();
    check(&base, "none", "two packs for one base");
    check("\npack base=none", "\npac base=none", "no line \"pack\" where it should be");
}

#[test]
fn only_a_signature_for_a_channel_counts() {
    let text = sample().encode();
    let file = file_of(text.as_bytes(), Role::BUNDLE);
    let (found, wanted) = (Role::BUNDLE, Role::CHANNEL);
    assert_eq!(open(&file), Err(Error::Envelope(envelope::Error::Role { found, wanted })));
    let file = file_of(text.as_bytes(), Role::CHANNEL);
    for bit in 0..file.len() * 8 {
        let mut flipped = file.clone();
        flipped[bit / 8] ^= 1 << (bit % 8);
        assert!(open(&flipped).is_err(), "bit {bit}");
    }
    assert_eq!(open(&vec![0; MAX_BYTES + 1]), Err(Error::TooLong(MAX_BYTES + 1)));
}

#[test]
fn a_share_admits_that_part_of_the_devices_and_another_part_for_another_release() {
    let admitted = |share, release: &[u8]| -> Vec<usize> {
        let mut fields = Fields { share, ..sample() };
        fields.slot_manifest.sha256 = Digest::of(release);
        let channel = Channel::new(fields).expect("a good channel");
        (0..1000).filter(|number| channel.admits(&alloc::format!("{number:032x}"), 0)).collect()
    };
    assert_eq!(admitted(ALL, b"one").len(), 1000);
    assert_eq!(admitted(0, b"one").len(), 0);
    let (one, other) = (admitted(ALL / 10, b"one"), admitted(ALL / 10, b"other"));
    assert!((70..130).contains(&one.len()) && (70..130).contains(&other.len()));
    let both = one.iter().filter(|number| other.contains(number)).count();
    assert!(both < 30, "{both} devices are first both times");
    // Whoever was admitted stays so while the share grows.
    let half = admitted(ALL / 2, b"one");
    assert!(one.iter().all(|number| half.contains(number)));
}

#[test]
fn what_is_paused_or_withdrawn_admits_nobody() {
    for state in [State::Paused, State::Withdrawn] {
        let channel = Channel::new(Fields { state, ..sample() }).expect("a good channel");
        assert!(!channel.admits("0123456789abcdef0123456789abcdef", u64::MAX), "{state}");
    }
}

#[test]
fn a_pack_is_found_by_its_base() {
    let channel = Channel::new(sample()).expect("a good channel");
    let length = |base: Option<&Digest>| channel.pack_for(base).map(|pack| pack.length);
    assert_eq!(length(None), Some(61_234_567));
    assert_eq!(length(Some(&Digest::of(b"the release before"))), Some(812_345));
    assert_eq!(length(Some(&Digest::of(b"another"))), None);
}

fn with_conditions() -> Fields {
    let needs = Some(Needs { rollback_index: 2, through: Some("stable-2".to_owned()) });
    let notes = vec!["Closes a hole.".to_owned(), "Starts sooner.".to_owned()];
    let open_by_s = Some(1_764_427_400);
    let conditions = Conditions { open_by_s, critical: true, needs, notes };
    Fields { conditions, ..sample() }
}

#[test]
fn conditions_stand_between_bundle_and_packs_and_are_read_back() {
    let text = with_conditions().encode();
    let (_, behind) = text.split_once("bundle length=48412345\n").expect("the line before");
    let (lines, _) = behind.split_once("pack base=none").expect("the line behind");
    expect![[r#"
        open-by 1764427400
        critical
        needs rollback-index=2 through=stable-2
        note Closes a hole.
        note Starts sooner.
    "#]]
    .assert_eq(lines);
    let file = file_of(text.as_bytes(), Role::CHANNEL);
    assert_eq!(open(&file).as_deref(), Ok(&with_conditions()));
}

#[test]
fn conditions_with_one_thing_changed_are_refused() {
    let check =
        |from: &str, to: &str, expected: &str| refused(&with_conditions(), from, to, expected);
    check("open-by 1", "open-by +1", "not in canonical form");
    check("open-by 1764427400", "open-by tomorrow", "cannot read the value of \"open-by\"");
    check("critical", "critical indeed", "not in canonical form");
    check("critical\n", "critical\ncritical\n", "no line \"pack\" where it should be");
    check("rollback-index=2 ", "rollback-index=02 ", "not in canonical form");
    check("needs rollback-index=", "needs index=", "cannot read the value of \"needs\"");
    check("through=stable-2", "through=stable", "cannot read the value of \"needs\"");
    check("through=stable-2", "through=../x", "cannot read the value of \"needs\"");
    check("note Starts", "note  Starts", "cannot read the value of \"note\"");
    check("note Starts sooner.", "note \u{1b}[2J", "cannot read the value of \"note\"");
    check("note Starts sooner.", "note ", "cannot read the value of \"note\"");
    let long = alloc::format!("note {}", "x".repeat(161));
    check("note Starts sooner.", &long, "cannot read the value of \"note\"");
    let many = "note more\n".repeat(15) + "note Starts";
    check("note Starts", &many, "cannot read the value of \"note\"");
}

#[test]
fn a_share_rises_evenly_until_all_devices_are_in_it() {
    let share_at = |share, open_by_s, now_s| {
        let conditions = Conditions { open_by_s, ..Conditions::default() };
        let fields = Fields { share, issued_s: 1000, conditions, ..sample() };
        Channel::new(fields).expect("a good channel").share_at(now_s)
    };
    let tenth = ALL / 10;
    assert_eq!(share_at(tenth, None, u64::MAX), tenth);
    // A clock that is behind lets nobody in too soon.
    assert_eq!([0, 999, 1000].map(|now| share_at(tenth, Some(2000), now)), [tenth; 3]);
    assert_eq!(share_at(tenth, Some(2000), 1500), tenth + (ALL - tenth) / 2);
    assert_eq!([2000, 2001, u64::MAX].map(|now| share_at(tenth, Some(2000), now)), [ALL; 3]);
    // Open at once, or before it was signed: then the share stays what it is.
    assert_eq!(share_at(tenth, Some(1000), 1000), ALL);
    assert_eq!(share_at(tenth, Some(999), 5000), tenth);
    assert_eq!(share_at(0, Some(u64::MAX), 1 << 40), 0);
}

#[test]
fn a_release_follows_systems_of_its_index_or_above() {
    let channel = Channel::new(with_conditions()).expect("a good channel");
    assert_eq!([0, 1, 2, 3].map(|index| channel.follows(index)), [false, false, true, true]);
    assert!(Channel::new(sample()).expect("a good channel").follows(0));
}
