//! Releases of a small slot, published one after the other and read as a device would.
use std::fs;

use ondisk::digest::Digest;
use ondisk::layout::BLOCK_BYTES;
use ondisk::pack::{Piece, Table};

use super::*;
use crate::bundle::tests::{SETTINGS, key, open, signer, slot};

struct Setup {
    directory: tempfile::TempDir,
}

impl Setup {
    fn new() -> Self {
        Self { directory: tempfile::tempdir().unwrap() }
    }

    /// The bundle of the release with this change.
    fn bundle(&self, changed: u8) -> PathBuf {
        let slot = slot(self.directory.path(), changed);
        let target = self.directory.path().join(format!("{changed}.bundle"));
        crate::bundle::write(&target, &open(&slot), &signer(1), SETTINGS, |_| {}).unwrap();
        target
    }

    fn site(&self) -> PathBuf {
        self.directory.path().join("site")
    }

    fn publish(&self, changed: u8, bases: usize) -> Result<Channel> {
        let site = self.site();
        let offer = Offer {
            site: &site,
            channel: "stable",
            share: ALL,
            bases,
            now_s: 1_764_341_000,
            conditions: &Conditions::default(),
        };
        publish(&self.bundle(changed), &offer, &signer(1), &Progress::quiet())
    }

    fn release(&self, changed: u8) -> Release {
        Release::read(&self.bundle(changed), signer(1).trust()).unwrap()
    }
}

/// What a device makes of a pack: its image, and how many pieces were of each kind.
fn rebuild(site: &Path, entry: &PackEntry, new: &Release, old: &[u8]) -> (Vec<u8>, [usize; 4]) {
    let file = fs::read(site.join(places::pack(&entry.table.sha256))).unwrap();
    assert_eq!(file.len() as u64, entry.length);
    let (table, frames) = file.split_at(entry.table.length as usize);
    entry.table.check("table", table).unwrap();
    let table = Table::decode(table, &new.groups).unwrap();
    assert_eq!((table.release, table.base), (new.slot_manifest.sha256, entry.base));
    let offsets = table.offsets(&new.groups);
    assert_eq!(offsets.last(), Some(&(frames.len() as u64)));
    let (mut image, mut kinds) = (Vec::new(), [0; 4]);
    let blocks = |block: u32, count: u64| {
        let start = u64::from(block) * BLOCK_BYTES;
        &old[start as usize..(start + count) as usize]
    };
    let numbers = new.groups.iter().enumerate();
    for ((number, group), piece) in numbers.zip(&table.pieces) {
        let stored = &frames[offsets[number] as usize..offsets[number + 1] as usize];
        let (kind, bytes) = match piece {
            Piece::Raw => (0, stored.to_vec()),
            Piece::Packed(frame) => {
                assert_eq!(Digest::of(stored), frame.sha256);
                (1, zstd::bulk::decompress(stored, 1 << 20).unwrap())
            }
            Piece::Copy(block) => (2, blocks(*block, group.bytes()).to_vec()),
            Piece::Patched { frame, block, blocks: count } => {
                assert_eq!(Digest::of(stored), frame.sha256);
                let old = blocks(*block, u64::from(*count) * BLOCK_BYTES);
                (3, pieces::tests::patched(&pieces::tests::unpacked(stored), old, group.blocks))
            }
        };
        kinds[kind] += 1;
        image.extend(bytes);
    }
    (image, kinds)
}

#[test]
fn what_is_published_brings_the_release_to_any_device_and_cheaply_to_those_of_the_one_before() {
    let setup = Setup::new();
    let first = setup.publish(1, 3).unwrap();
    assert_eq!((first.sequence, first.packs.len()), (1, 1));
    let second = setup.publish(2, 3).unwrap();
    assert_eq!((second.sequence, second.packs.len()), (2, 2));

    let (old, new) = (setup.release(1), setup.release(2));
    assert_ne!(old.image, new.image);
    let any = second.pack_for(None).unwrap();
    let (image, kinds) = rebuild(&setup.site(), any, &new, &[]);
    assert!(image == new.image && kinds[2] + kinds[3] == 0, "{kinds:?}");
    let from = second.pack_for(Some(&old.slot_manifest.sha256)).unwrap();
    let (image, kinds) = rebuild(&setup.site(), from, &new, &old.image);
    assert!(image == new.image && kinds[2] > 4 && kinds[3] > 0, "{kinds:?}");
    assert!(from.length * 20 < any.length, "{} of {}", from.length, any.length);

    let bundle = setup.site().join(places::bundle(&second.slot_manifest.sha256));
    assert_eq!(fs::read(bundle).unwrap(), fs::read(setup.bundle(2)).unwrap());
    let file = fs::read(setup.site().join("channels/stable/test-board")).unwrap();
    let (read, signer) =
        channel::Unverified::parse(&file).unwrap().verify(signer(1).trust()).unwrap();
    assert_eq!((read, signer.to_string()), (second, key(1).id().unwrap().to_string()));
}

#[test]
fn the_same_releases_give_the_same_files() {
    let files = |setup: &Setup| {
        setup.publish(1, 3).unwrap();
        setup.publish(2, 3).unwrap();
        let entries = fs::read_dir(setup.site().join("files")).unwrap();
        let mut files: Vec<_> = entries
            .map(|entry| entry.unwrap().path())
            .map(|path| {
                (path.file_name().unwrap().to_owned(), Digest::of(&fs::read(path).unwrap()))
            })
            .collect();
        files.sort();
        files
    };
    let (one, other) = (files(&Setup::new()), files(&Setup::new()));
    assert!(one.len() == 5 && one == other, "{one:?} {other:?}");
}

#[test]
fn packs_are_made_from_as_many_releases_as_wanted() {
    let setup = Setup::new();
    for (changed, bases, packs) in [(1, 2, 1), (2, 2, 2), (3, 2, 3), (4, 2, 3), (5, 0, 1)] {
        assert_eq!(setup.publish(changed, bases).unwrap().packs.len(), packs, "{changed}");
    }
    // The same one again, as after an interruption: no pack from itself.
    let again = setup.publish(5, 2).unwrap();
    assert_eq!((again.sequence, again.packs.len()), (6, 1));
}

#[test]
fn who_installs_a_release_can_be_changed_and_every_change_counts() {
    let setup = Setup::new();
    let site = setup.site();
    let (name, board) = ("stable", "test-board");
    let missing = change(&site, name, board, |_| {}, &signer(1)).unwrap_err();
    assert!(missing.chain().starts_with("there is no channel stable for test-board"));
    let before = setup.publish(1, 0).unwrap();
    let paused =
        change(&site, name, board, |fields| fields.state = State::Paused, &signer(1)).unwrap();
    assert_eq!((paused.sequence, paused.state), (2, State::Paused));
    assert_eq!(paused.slot_manifest, before.slot_manifest);
    let again = change(&site, name, board, |fields| fields.share = 7, &signer(1)).unwrap();
    assert_eq!((again.sequence, again.state, again.share), (3, State::Paused, 7));
}

#[test]
fn what_devices_would_refuse_is_not_published() {
    let setup = Setup::new();
    setup.publish(1, 0).unwrap();
    let site = setup.site();
    let before = fs::read(site.join("channels/stable/test-board")).unwrap();
    let refused = |bundle: &Path, channel: &str, key: &Signer| {
        let offer = Offer {
            site: &site,
            channel,
            share: ALL,
            bases: 1,
            now_s: 1,
            conditions: &Conditions::default(),
        };
        let error = publish(bundle, &offer, key, &Progress::quiet()).unwrap_err();
        assert_eq!(fs::read(site.join("channels/stable/test-board")).unwrap(), before);
        error.chain()
    };
    let good = setup.bundle(2);
    assert!(refused(&good, "stable", &signer(2)).contains("signed by no trusted key"));
    assert!(refused(&good, "../stable", &signer(1)).contains("is no name of a channel"));
    let bytes = fs::read(&good).unwrap();
    let damaged = setup.directory.path().join("damaged.bundle");
    for place in [10, 5000, 8000, bytes.len() / 2] {
        let mut flipped = bytes.clone();
        flipped[place] ^= 1;
        fs::write(&damaged, flipped).unwrap();
        refused(&damaged, "stable", &signer(1));
    }
    fs::write(&damaged, &bytes[..bytes.len() - 1]).unwrap();
    refused(&damaged, "stable", &signer(1));
    refused(&setup.directory.path().join("none"), "stable", &signer(1));
    // A channel of another key is not continued.
    let other = signer(9);
    let error = change(&site, "stable", "test-board", |_| {}, &other).unwrap_err();
    assert!(error.chain().contains("signed by no trusted key"));
}
