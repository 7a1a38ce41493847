//! Good manifests, and good ones with one thing changed.
use alloc::format;
use alloc::string::{String, ToString as _};
use alloc::vec::Vec;

use ed25519_dalek::{Signer as _, SigningKey};
use expect_test::expect;

use super::*;
use crate::envelope::{self, Signature};
use crate::keyring::PublicKey;
use crate::layout::MANIFEST_AREA_BYTES;

const SLOT_BYTES: u64 = 1 << 20;

fn sample() -> Fields {
    let part = |name: &str, offset, length| Part {
        extent: Extent { offset, length },
        sha256: Digest::of(name.as_bytes()),
    };
    Fields {
        board: "generic-aarch64".to_owned(),
        version: "2026.11.0+dev".to_owned(),
        rollback_index: 3,
        profile: Profile::Development,
        root: part("root", 0, 200 * 4096),
        verity: part("verity", 200 * 4096, 3 * 4096),
        kernel: part("kernel", 203 * 4096, 5000),
        kernel_unpacked: Unpacked { length: 9000, sha256: Digest::of(b"unpacked") },
        initrd: part("initrd", 205 * 4096, 1),
        verity_salt: [0x5a; 32],
        verity_root_hash: Digest::of(b"tree"),
        command_line: "panic=5 quiet".to_owned(),
    }
}

/// A manifest for tests of other modules.
pub(crate) fn of_version(version: &str, rollback_index: u64) -> Manifest {
    let fields = Fields { version: version.to_owned(), rollback_index, ..sample() };
    Manifest::new(fields, SLOT_BYTES).expect("a good manifest")
}

/// The only key that [`trust`] knows.
pub(crate) fn secret() -> SigningKey {
    SigningKey::from_bytes(&[1; 32])
}

pub(crate) fn trust() -> TrustRoot {
    let key = PublicKey::from_bytes(secret().verifying_key().as_bytes()).expect("a key");
    TrustRoot::of_one_key(key)
}

/// The manifest area with this text, signed.
fn area(payload: &[u8]) -> Vec<u8> {
    let message = envelope::signed_message(Role::SLOT_MANIFEST, payload).expect("short");
    let bytes = secret().sign(&message).to_bytes();
    let key = trust().release.keys()[0].id();
    let envelope = envelope::encode(Role::SLOT_MANIFEST, payload, &[Signature { key, bytes }]);
    let mut area = envelope.expect("one signature");
    area.resize(usize::try_from(MANIFEST_AREA_BYTES).expect("64 KiB"), 0);
    area
}

/// The same with trust roots behind the manifest.
fn area_with(payload: &[u8], trust_roots: &[Vec<u8>]) -> Vec<u8> {
    let mut bytes =
        Unverified::parse(&area(payload)).and_then(|found| found.exact()).expect("good");
    trust_roots.iter().for_each(|root| bytes.extend_from_slice(root));
    bytes.resize(usize::try_from(MANIFEST_AREA_BYTES).expect("64 KiB"), 0);
    bytes
}

fn verify(payload: &[u8]) -> Result<Manifest, Error> {
    let area = area(payload);
    Unverified::parse(&area)?.verify(&trust(), SLOT_BYTES).map(|(manifest, _)| manifest)
}

#[test]
fn the_text_of_a_manifest_is_pinned() {
    let text = sample().encode();
    // Long values are cut after four digits here; the digest below pins all of the text.
    let mut digits = 0;
    let short = text.chars().filter(|c| {
        digits = if matches!(c, '0'..='9' | 'a'..='f') { digits + 1 } else { 0 };
        digits <= 4
    });
    expect![[r#"
        iota-slot 1
        board generic-aarch64
        version 2026.11.0+dev
        rollback-index 3
        profile development
        part root offset=0 length=8192 sha256=4813
        part verity offset=8192 length=1228 sha256=3cd3
        part kernel offset=8314 length=5000 sha256=6923 unpacked-length=9000 unpacked-sha256=8305
        part initrd offset=8396 length=1 sha256=09e6
        verity salt=5a5a root-hash=dc9c
        command-line panic=5 quiet
    "#]]
    .assert_eq(&short.collect::<String>());
    let digest = expect!["e03aa080b4a533730a8bf5f2ec5195f9eb36952740f8c18bd3a31c2a43595761"];
    digest.assert_eq(&Digest::of(text.as_bytes()).to_string());
}

#[test]
fn a_signed_manifest_reads_back() {
    let manifest = verify(sample().encode().as_bytes()).expect("a good manifest");
    assert_eq!(*manifest, sample());
    let area = area(sample().encode().as_bytes());
    let unverified = Unverified::parse(&area).expect("an envelope");
    assert_eq!(unverified.fields_unverified(), Ok(sample()));
    assert_eq!(
        unverified.signers_unverified().collect::<Vec<_>>(),
        [trust().release.keys()[0].id()]
    );
}

#[test]
fn trust_roots_behind_a_manifest_lead_to_the_key_that_signed_it() {
    use crate::trust_root::tests::{Secrets, root, signed};
    let release = |seed| Secrets { release: (alloc::vec![seed], 1), ..Secrets::default() };
    // The manifest is signed by key 1.
    let roots = [root(1, &release(7)), root(2, &release(8)), root(3, &release(1))];
    let files: Vec<_> = roots[1..].iter().map(|root| signed(root, &[1, 2])).collect();
    let area = area_with(sample().encode().as_bytes(), &files);
    let open = |area: &[u8], from: &TrustRoot| {
        let found = Unverified::parse(area)?;
        found.verify(from, SLOT_BYTES).map(|(_, signers)| signers.to_string())
    };
    let key = trust().release.keys()[0].id().to_string();
    for from in &roots {
        assert_eq!(open(&area, from), Ok(key.clone()), "from {}", from.number);
    }
    // The way is missing, and with it the key; what is left out cannot be told from nothing.
    let short = area_with(sample().encode().as_bytes(), &files[..1]);
    assert!(matches!(open(&short, &roots[0]), Err(Error::Envelope(_))));
    let gap = area_with(sample().encode().as_bytes(), &files[1..]);
    assert!(matches!(open(&gap, &roots[0]), Err(Error::Trust(_))));
    // Whoever has the newest one knows better than an old release key.
    let newer = root(4, &release(9));
    assert!(matches!(open(&area, &newer), Err(Error::Envelope(_))));
    let exact = Unverified::parse(&area).and_then(|found| found.exact()).expect("good");
    assert!(area.starts_with(&exact) && area[exact.len()..].iter().all(|&byte| byte == 0));
    for bit in 0..exact.len() * 8 {
        let mut flipped = area.clone();
        flipped[bit / 8] ^= 1 << (bit % 8);
        assert!(open(&flipped, &roots[0]).is_err(), "bit {bit}");
    }
}

#[test]
fn an_empty_command_line_is_fine() {
    let fields = Fields { command_line: String::new(), ..sample() };
    assert_eq!(*verify(fields.encode().as_bytes()).expect("good"), fields);
}

#[test]
fn text_with_one_thing_changed_is_refused() {
    let check = |from: &str, to: &str, expected: &str| {
        let text = sample().encode();
        assert_eq!(text.matches(from).count(), 1, "{from:?} is not there once");
        let error = verify(text.replace(from, to).as_bytes()).expect_err(expected);
        assert_eq!(error.to_string(), expected, "{from:?} → {to:?}");
    };
    check("iota-slot 1", "iota-slot 2", "iota-slot: cannot read \"2\"");
    check("iota-slot", "IOTA-slot", "line 1 is not the line \"iota-slot\"");
    check("profile development\n", "", "line 5 is not the line \"profile\"");
    check("profile development", "profile debug", "profile: cannot read \"debug\"");
    check("rollback-index 3", "rollback-index -3", "rollback-index: cannot read \"-3\"");
    check("rollback-index 3", "rollback-index 03", "not in canonical form");
    check("rollback-index 3", "rollback-index +3", "not in canonical form");
    check("board ", "board  ", "\" generic-aarch64\" is not a board name");
    check("generic-aarch64", "Generic", "\"Generic\" is not a board name");
    check("2026.11.0+dev", "", "\"\" is not a version");
    check("2026.11.0+dev", "1/0", "\"1/0\" is not a version");
    check(
        "panic=5 quiet",
        "panic=5 iota.slot=b",
        "command line says \"iota.slot=b\", which only the loader may say",
    );
    check("panic=5 quiet", "panic=5\tquiet", "command line has the byte 0x09");
    check("quiet\n", "quiet", "line 11 is not the line \"command-line\"");
    check("quiet\n", "quiet\n\n", "line 12 is one too many");
    check("quiet\n", "quiet\r\n", "command line has the byte 0x0d");
    check(
        &"5a".repeat(32),
        &"5A".repeat(32),
        &format!("verity: cannot read {:?}", {
            format!("salt={} root-hash={}", "5A".repeat(32), sample().verity_root_hash)
        }),
    );
    check("length=9000", "length=09000", "not in canonical form");
}

#[test]
fn fields_with_one_thing_changed_are_refused() {
    let check = |change: fn(&mut Fields), expected: &str| {
        let mut fields = sample();
        change(&mut fields);
        let error = Manifest::new(fields, SLOT_BYTES).expect_err(expected);
        assert_eq!(error.to_string(), expected);
    };
    check(|f| f.board = "x".repeat(33), &format!("{:?} is not a board name", "x".repeat(33)));
    check(|f| f.version = "x".repeat(49), &format!("{:?} is not a version", "x".repeat(49)));
    check(|f| f.command_line = "x".repeat(1025), "command line has 1025 bytes, allowed are 1024");
    check(|f| f.initrd.extent.length = 0, "part initrd is empty");
    check(|f| f.kernel.extent.offset += 1, "part kernel starts at 831489, not at a block");
    check(
        |f| f.kernel.extent.offset -= 4096,
        "part kernel starts at 827392, before the end 831488 of another",
    );
    check(
        |f| f.kernel.extent.length = 1 << 40,
        "part kernel ends at 1099512459264, the slot has room up to 983040",
    );
    check(
        |f| f.initrd.extent.offset = u64::MAX - 4095,
        "part initrd ends at 18446744073709547521, the slot has room up to 983040",
    );
    check(|f| f.kernel.extent.length = u64::MAX, "part kernel ends nowhere");
    check(
        |f| f.root.extent.length += 1,
        "part verity starts at 819200, before the end 819201 of another",
    );
    check(|f| f.root.extent.length -= 1, "root of 819199 bytes is not whole blocks");
    check(
        |f| f.root.extent.length -= 4096,
        "verity is at 819200+12288, the root needs it at 815104+12288",
    );
    check(
        |f| f.verity.extent.length -= 4096,
        "verity is at 819200+8192, the root needs it at 819200+12288",
    );
    check(
        |f| f.root.extent = Extent { offset: 4096, length: 199 * 4096 },
        "root starts at 4096, not at 0",
    );
}

#[test]
fn a_slot_has_room_up_to_its_manifest_area_and_not_a_byte_more() {
    let end = 206 * 4096;
    let mut fields = sample();
    fields.initrd.extent.length = 4096;
    let check = |bytes| Manifest::new(fields.clone(), bytes).map(|_| ());
    assert_eq!(check(end + MANIFEST_AREA_BYTES), Ok(()));
    let short = Error::PartTooLong { name: PartName::Initrd, end: Some(end), limit: end - 1 };
    assert_eq!(check(end + MANIFEST_AREA_BYTES - 1), Err(short));
    assert_eq!(check(MANIFEST_AREA_BYTES - 1), Err(Error::SlotTooSmall(MANIFEST_AREA_BYTES - 1)));
}

#[test]
fn a_manifest_that_nobody_we_trust_signed_is_refused() {
    let area = area(sample().encode().as_bytes());
    let unverified = Unverified::parse(&area).expect("an envelope");
    let error = unverified.verify(&TrustRoot::default(), SLOT_BYTES).expect_err("no keys");
    assert_eq!(error.to_string(), "no key is trusted here");
}

#[test]
fn every_flipped_bit_of_a_signed_area_is_refused() {
    let text = sample().encode();
    let good = area(text.as_bytes());
    // Header, signature and the bytes around them bit by bit; the payload byte by byte.
    for byte in 0..good.len().min(text.len() + 200) {
        for bit in if (24..24 + text.len()).contains(&byte) { 3..4 } else { 0..8 } {
            let mut flipped = good.clone();
            flipped[byte] ^= 1 << bit;
            let verified = Unverified::parse(&flipped).and_then(|f| f.verify(&trust(), SLOT_BYTES));
            assert!(verified.is_err(), "byte {byte}, bit {bit}");
        }
    }
}

#[test]
fn the_hash_tree_has_the_size_that_veritysetup_gives_it() {
    // Data blocks and hash blocks, as printed by veritysetup 2.7.
    for (data, tree) in [(2, 1), (128, 1), (129, 3), (769, 8), (16384, 129), (16385, 132)] {
        assert_eq!(verity_tree_blocks(data), Some(tree), "{data} data blocks");
    }
    assert!(verity_tree_blocks(u64::MAX).is_some_and(|tree| tree < u64::MAX / 100));
}
