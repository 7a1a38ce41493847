//! The attacks that the TUF and Uptane specifications name, as far as they have a place here, each
//! against a device that is new, one in the middle of a download, and one that has been updated.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use builder::signer::sign;
use ondisk::channel::{Channel, Fields};
use ondisk::envelope::{self, Envelope, Role, Signature};

use super::*;

/// What the attacker starts from.
struct Scene {
    /// An honest site that offers 3.0, with trust root 2 and its files.
    files: Files,
    /// Its channel before, which offered 2.0.
    before: Vec<u8>,
    channel: Channel,
    second: TrustRoot,
}

impl Scene {
    fn place() -> String {
        places::channel("stable", BOARD)
    }

    /// The channel with something changed, signed by these keys.
    fn channel_by(&self, seeds: &[u8], change: impl FnOnce(&mut Fields)) -> Vec<u8> {
        let mut fields = Fields::clone(&self.channel);
        change(&mut fields);
        let text = fields.encode();
        sign(&keys(seeds), &quorum(seeds, 1), Role::CHANNEL, text.as_bytes(), "it").unwrap()
    }

    fn root_by(seeds: &[u8], root: &TrustRoot) -> Vec<u8> {
        let text = root.encode();
        sign(&keys(seeds), &quorum(seeds, 1), Role::TRUST_ROOT, text.as_bytes(), "it").unwrap()
    }

    fn bundle(&self) -> String {
        places::bundle(&self.channel.slot_manifest.sha256)
    }

    /// Without its packs there is only the bundle to take.
    fn only_bundle(&self, bytes: Vec<u8>) -> Files {
        let mut files = self.files.clone();
        files.retain(|name, _| !name.ends_with(".pack"));
        files.insert(self.bundle(), bytes);
        files
    }

    fn with(&self, place: String, bytes: Vec<u8>) -> Files {
        let mut files = self.files.clone();
        files.insert(place, bytes);
        files
    }
}

type Attack = (&'static str, fn(&Scene) -> Files);

fn flipped(bytes: &[u8], place: usize) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    let place = place % bytes.len();
    bytes[place] ^= 1;
    bytes
}

const ATTACKS: [Attack; 27] = [
    ("arbitrary software: a channel of a stranger", |scene| {
        scene.with(Scene::place(), scene.channel_by(&[66], |_| {}))
    }),
    ("key compromise: a channel by the release key", |scene| {
        scene.with(Scene::place(), scene.channel_by(&[6], |_| {}))
    }),
    ("key compromise: a channel by all root keys", |scene| {
        scene.with(Scene::place(), scene.channel_by(&[1, 2, 3], |_| {}))
    }),
    ("key compromise: a channel by the key that was replaced", |scene| {
        scene.with(Scene::place(), scene.channel_by(&[5], |fields| fields.sequence += 9))
    }),
    ("key compromise: a release by the channel key", |scene| {
        scene.only_bundle(release_by(&[7, 7], 3))
    }),
    ("key compromise: a release by the key that was replaced", |scene| {
        scene.only_bundle(release_by(&[4, 7], 3))
    }),
    ("arbitrary software: a release of a stranger", |scene| {
        scene.only_bundle(release_by(&[66, 7], 3))
    }),
    ("wrong software: the channel of another board", |scene| {
        let other = scene.channel_by(&[7], |fields| fields.board = "other-board".to_owned());
        scene.with(Scene::place(), other)
    }),
    ("wrong software: another channel of the same board", |scene| {
        let other = scene.channel_by(&[7], |fields| fields.name = "beta".to_owned());
        scene.with(Scene::place(), other)
    }),
    ("wrong software: a channel's role for something else", |scene| {
        let text = scene.channel.encode();
        let other = sign(&keys(&[7]), &quorum(&[7], 1), Role::BUNDLE, text.as_bytes(), "it");
        scene.with(Scene::place(), other.unwrap())
    }),
    ("wrong software: a trust root for a channel", |scene| {
        scene.with(Scene::place(), scene.files[&places::trust_root(2)].clone())
    }),
    ("mix and match: the bundle of 2.0 for 3.0", |scene| {
        let older = scene
            .files
            .iter()
            .find(|(name, _)| name.ends_with(".bundle") && **name != scene.bundle());
        scene.only_bundle(older.unwrap().1.clone())
    }),
    ("rollback: a good release below the floor", |scene| {
        let mut files = scene.files.clone();
        let other = publisher_with(&[6, 7]);
        other.site.publish(0).unwrap();
        other.site.change(|fields| fields.sequence = 3).unwrap();
        files.extend(other.files());
        files
    }),
    ("a flipped bit in a channel", |scene| {
        scene.with(Scene::place(), flipped(&scene.files[&Scene::place()], 200))
    }),
    ("a flipped bit in a channel's signature", |scene| {
        let good = &scene.files[&Scene::place()];
        scene.with(Scene::place(), flipped(good, good.len() - 20))
    }),
    ("the same signature twice", |scene| {
        let good = scene.files[&Scene::place()].clone();
        let mut twice = good.clone();
        twice[16] = 2;
        twice.extend_from_slice(&good[good.len() - 72..]);
        scene.with(Scene::place(), twice)
    }),
    ("endless data: a channel of a megabyte", |scene| {
        scene.with(Scene::place(), vec![b'x'; 1 << 20])
    }),
    ("endless data: a trust root of a megabyte", |scene| {
        let mut endless = scene.files[&places::trust_root(2)].clone();
        endless.resize(1 << 20, 1);
        scene.with(places::trust_root(3), endless)
    }),
    ("a partial bundle", |scene| {
        let bytes = &scene.files[&scene.bundle()];
        scene.only_bundle(bytes[..bytes.len() - 1].to_vec())
    }),
    ("a bundle with a flipped bit in its header", |scene| {
        scene.only_bundle(flipped(&scene.files[&scene.bundle()], 100))
    }),
    ("a bundle with a flipped bit in its slot manifest", |scene| {
        scene.only_bundle(flipped(&scene.files[&scene.bundle()], 4096 + 100))
    }),
    ("a trust root of a stranger", |scene| {
        let next = TrustRoot { number: 3, ..scene.second.clone() };
        scene.with(places::trust_root(3), Scene::root_by(&[66, 67], &next))
    }),
    ("a trust root by too few keys", |scene| {
        let next = TrustRoot { number: 3, release: quorum(&[66], 1), ..scene.second.clone() };
        scene.with(places::trust_root(3), Scene::root_by(&[1], &next))
    }),
    ("a trust root by one key twice", |scene| {
        let next = TrustRoot { number: 3, release: quorum(&[66], 1), ..scene.second.clone() };
        let file = Scene::root_by(&[1], &next);
        let own = Envelope::parse(&file).unwrap().signatures()[0];
        // Under the name of another key, for a check that goes by names.
        let other = Signature { key: key(2).id().unwrap(), ..own };
        let both = envelope::encode(Role::TRUST_ROOT, next.encode().as_bytes(), &[own, other]);
        scene.with(places::trust_root(3), both.unwrap())
    }),
    ("a trust root by its own new keys alone", |scene| {
        let next = TrustRoot { number: 3, root: quorum(&[66, 67], 2), ..scene.second.clone() };
        scene.with(places::trust_root(3), Scene::root_by(&[66, 67], &next))
    }),
    ("fast-forward: a trust root with a number far ahead", |scene| {
        let next = TrustRoot { number: 1 << 40, ..scene.second.clone() };
        scene.with(places::trust_root(3), Scene::root_by(&[1, 2], &next))
    }),
    ("rollback: an older trust root in place of the next", |scene| {
        scene.with(places::trust_root(3), scene.files[&places::trust_root(2)].clone())
    }),
];

/// The bundle of a release with other keys: the first for the release, the second for channels.
fn release_by(seeds: &[u8; 2], number: u8) -> Vec<u8> {
    fs::read(publisher_with(seeds).site.bundle(number).unwrap()).unwrap()
}

/// Somebody with these keys for releases and channels and a trust root 2 to go with them.
fn publisher_with(seeds: &[u8; 2]) -> Publisher {
    let mut other = Publisher::new();
    let next = TrustRoot {
        number: 2,
        release: quorum(&seeds[..1], 1),
        channel: quorum(&seeds[1..], 1),
        ..first()
    };
    other.trusts(&next, &[1, 2]);
    other.signs_with(seeds);
    other
}

/// The honest site, and the three devices.
fn scene() -> (Scene, [(&'static str, Device); 3]) {
    let publisher = publisher_with(&[6, 7]);
    let second = publisher.roots().newest().clone();
    publisher.site.publish(1).unwrap();
    publisher.site.publish(2).unwrap();
    let before = publisher.files()[&Scene::place()].clone();
    let channel = publisher.site.publish(3).unwrap();
    let files = publisher.files();

    let knows = |device: &Device| {
        // The trust root is old news to all of them, as to a device that is looked after.
        roots::catch_up(
            &Server::good(files.clone()),
            first(),
            &device.places().trust_roots,
            &mut |_| {},
        )
        .unwrap();
    };
    let new = Device::with(publisher.site.disk(1).unwrap());
    knows(&new);
    let mut downloading = Device::with(publisher.site.disk(1).unwrap());
    // The last byte does not come: what was before the last piece is in the slot.
    let mut left = bytes_of_a_download(&files, publisher.site.disk(1).unwrap()) - 1;
    let cut = Server::with(files.clone(), move |path, _, bytes| {
        if !path.starts_with("files/") {
            return Ok((bytes, false));
        }
        if left == 0 {
            return Err(Trouble::Lasting("no power".to_owned()));
        }
        let sent = bytes.len().min(left);
        left -= sent;
        Ok((bytes[..sent].to_vec(), true))
    });
    let empty = slot_of(&downloading.disk, Slot::B);
    downloading.follows(&cut).unwrap_err();
    assert!(slot_of(&downloading.disk, Slot::B) != empty, "nothing was downloaded");
    let updated = Device::with(publisher.site.disk(2).unwrap());
    updated.asks(&Server::good(files.clone())).unwrap();
    let scene = Scene { files, before, channel, second };
    (scene, [("new", new), ("downloading", downloading), ("updated", updated)])
}

/// What a device fetches of the files of a release.
fn bytes_of_a_download(files: &Files, disk: Vec<u8>) -> usize {
    let fetched = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&fetched);
    let server = Server::with(files.clone(), move |path, _, bytes| {
        if path.starts_with("files/") {
            counter.fetch_add(bytes.len(), Relaxed);
        }
        Ok((bytes, false))
    });
    Device::with(disk).follows(&server).unwrap();
    fetched.load(Relaxed)
}

#[test]
fn every_attack_is_refused_and_changes_nothing() {
    let (scene, mut devices) = scene();
    let mut cases = 0;
    for (state, device) in &mut devices {
        for (name, attack) in &ATTACKS {
            let before = device.state();
            let server = Server::good(attack(&scene));
            let refused = device.follows(&server);
            let why = refused.expect_err(name);
            let after = device.state();
            // The number of an honest channel may be noted while its bundle is refused.
            assert!(after.0 == before.0, "{state}: {name}: {why}: the disk was changed");
            let kept = |files: &[(PathBuf, Vec<u8>)]| {
                files.iter().filter(|(path, _)| path.ends_with("trust-roots")).cloned().collect()
            };
            let (was, is): (Vec<_>, Vec<_>) = (kept(&before.1), kept(&after.1));
            assert!(was == is, "{state}: {name}: {why}: another trust root was kept");
            cases += 1;
        }
        device.follows(&Server::good(scene.files.clone())).unwrap();
        assert!(device.has_staged("3.0"), "{state}");
    }
    assert!(cases >= 80, "{cases} cases");
}

#[test]
fn a_stream_that_is_mixed_up_leaves_an_empty_slot_and_the_running_system() {
    let (scene, mut devices) = scene();
    let mut bytes = scene.files[&scene.bundle()].clone();
    let end = bytes.len();
    bytes[end / 2..].rotate_left(4096);
    let server = Server::good(scene.only_bundle(bytes));
    for (state, device) in &mut devices {
        let before = slot_of(&device.disk, Slot::A);
        let why = device.follows(&server).unwrap_err();
        assert!(why.contains("the bundle is damaged"), "{state}: {why}");
        assert_eq!(record(&device.disk).unwrap().slots.b.state, SlotState::Empty, "{state}");
        assert!(slot_of(&device.disk, Slot::A) == before, "{state}");
        device.follows(&Server::good(scene.files.clone())).unwrap();
        assert!(device.has_staged("3.0"), "{state}");
    }
}

#[test]
fn a_device_that_has_seen_the_newest_channel_takes_no_older_one() {
    let (scene, [_, _, (_, mut updated)]) = scene();
    let before = updated.state();
    let why = updated.follows(&Server::good(scene.with(Scene::place(), scene.before.clone())));
    assert!(why.unwrap_err().contains("this device has seen"));
    assert!(updated.state() == before);
}
