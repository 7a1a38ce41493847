//! Keys that change, get lost and get stolen, and servers that attack: the publisher's real files,
//! the agent's real code, a small disk. The rule: what is refused leaves disk and kept files as
//! they were, byte by byte, and an honest server afterwards brings the release.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;

use agent::apply::{self, Rules, Source};
use agent::online::offer::{Device as Facts, Verdict};
use agent::online::roots;
use agent::online::session::{Answer, Places, ask};
use agent::online::web::{Trouble, Web};
use builder::host::progress::Progress;
use builder::publish::{self, Offer};
use builder::sign::{Key, Profile};
use builder::signer::Signer;
use builder::trust_roots::{self, Signed, TrustRoots};
use ondisk::boot_record::State as SlotState;
use ondisk::channel::{ALL, Conditions, State, places};
use ondisk::keyring::Keyring;
use ondisk::layout::Slot;
use ondisk::manifest::{self, Unverified};
use ondisk::trust_root::{Quorum, TrustRoot};
use qemu_tests::site::{BOARD, PLACE, Server, Site, record, slot_of, transfer_trusting};

mod attacks;

type Files = BTreeMap<String, Vec<u8>>;

fn key(seed: u8) -> Key {
    Key::from_seed([seed; 32], Profile::Development)
}

fn keys(seeds: &[u8]) -> Vec<Key> {
    seeds.iter().map(|&seed| key(seed)).collect()
}

fn quorum(seeds: &[u8], threshold: u8) -> Quorum {
    let keys = keys(seeds).iter().map(|key| key.trusted().unwrap()).collect();
    Quorum::new(Keyring::new(keys).unwrap(), threshold).unwrap()
}

/// Two of three root keys, and one each for releases and channels.
fn first() -> TrustRoot {
    TrustRoot {
        number: 1,
        root: quorum(&[1, 2, 3], 2),
        release: quorum(&[4], 1),
        channel: quorum(&[5], 1),
        revoked: Vec::new(),
    }
}

/// Somebody who makes and publishes releases.
struct Publisher {
    site: Site,
    trust: tempfile::TempDir,
}

impl Publisher {
    fn new() -> Self {
        let trust = tempfile::tempdir().unwrap();
        let mut publisher = Self { site: Site::new().unwrap(), trust };
        publisher.trusts(&first(), &[1, 2]);
        publisher.signs_with(&[4, 5]);
        publisher
    }

    fn roots(&self) -> TrustRoots {
        TrustRoots::load(self.trust.path()).unwrap()
    }

    /// Makes the next trust root.
    fn trusts(&mut self, next: &TrustRoot, signers: &[u8]) {
        let signed = trust_roots::add(self.trust.path(), next, &keys(signers)).unwrap();
        assert!(matches!(signed, Signed::Finished(_)), "{signed:?}");
    }

    /// Takes these keys and the newest trust root from now on.
    fn signs_with(&mut self, seeds: &[u8]) {
        self.site.signer = Signer::with(keys(seeds), self.roots());
    }

    fn files(&self) -> Files {
        self.site.files().unwrap()
    }

    fn server(&self) -> Server {
        Server::good(self.files())
    }
}

/// A device in the field.
struct Device {
    /// The trust root of the system it runs.
    own: TrustRoot,
    kept: tempfile::TempDir,
    disk: Vec<u8>,
}

impl Device {
    fn with(disk: Vec<u8>) -> Self {
        Self { own: first(), kept: tempfile::tempdir().unwrap(), disk }
    }

    fn places(&self) -> Places {
        let file = |name| self.kept.path().join(name);
        let signed_time = file("signed-time");
        let (seen, trust_roots) = (file("seen"), file("trust-roots"));
        Places { seen, trust_roots, signed_time, ..Places::default() }
    }

    fn known(&self) -> TrustRoot {
        roots::kept(&self.places().trust_roots, self.own.clone())
    }

    fn asks(&self, web: &dyn Web) -> Result<(Answer, Verdict), String> {
        let answer = ask(web, (BOARD, "stable"), self.known(), &self.places(), &mut |_| {})?;
        let facts = Facts {
            board: BOARD,
            machine_id: "0123456789abcdef0123456789abcdef",
            trust: &answer.root,
            running: None,
            running_index: 0,
            other: None,
            other_state: SlotState::Empty,
            failed: None,
            seen: answer.seen,
            now_s: 0,
        };
        let verdict = Verdict::of(&answer.channel, &facts);
        Ok((answer, verdict))
    }

    /// What a device does by itself: whether it installed something, or why not.
    fn follows(&mut self, web: &dyn Web) -> Result<(), String> {
        let (answer, verdict) = self.asks(web)?;
        if verdict != Verdict::Install {
            return Err(verdict.words(&answer.channel, answer.seen));
        }
        transfer_trusting(&answer.root, web, &answer.channel, &mut self.disk)
            .map(drop)
            .map_err(|error| error.cause.to_string())
    }

    fn has_staged(&self, version: &str) -> bool {
        let entry = record(&self.disk).unwrap().slots.b;
        entry.state == SlotState::Unproven { tries: 3 }
            && entry.version.is_some_and(|found| found.as_str() == version)
    }

    /// Whether a loader that knows this trust root alone starts what was installed.
    fn loader_takes(&self, trust: &TrustRoot) -> bool {
        let slot = slot_of(&self.disk, Slot::B);
        let area = ondisk::layout::manifest_area(slot.len() as u64).unwrap();
        let area = &slot[usize::try_from(area.offset).unwrap()..];
        let found = Unverified::parse(area).unwrap();
        found.verify(trust, slot.len() as u64).is_ok()
    }

    /// Everything that it remembers.
    fn state(&self) -> (Vec<u8>, Vec<(PathBuf, Vec<u8>)>) {
        let names = fs::read_dir(self.kept.path()).unwrap().map(|entry| entry.unwrap().path());
        let mut files: Vec<_> = names.map(|path| (path.clone(), fs::read(path).unwrap())).collect();
        files.sort();
        (self.disk.clone(), files)
    }
}

/// A publisher with release 1.0 out, and a device that runs it.
fn field() -> (Publisher, Device) {
    let publisher = Publisher::new();
    publisher.site.publish(1).unwrap();
    let device = Device::with(publisher.site.disk(1).unwrap());
    (publisher, device)
}

#[test]
fn a_release_key_is_replaced_and_the_old_one_counts_no_more() {
    let (mut publisher, mut device) = field();
    publisher.trusts(&TrustRoot { number: 2, release: quorum(&[6], 1), ..first() }, &[2, 3]);
    publisher.signs_with(&[6, 5]);
    publisher.site.publish(2).unwrap();
    device.follows(&publisher.server()).unwrap();
    assert!(device.has_staged("2.0"));
    assert_eq!(device.known(), *publisher.roots().newest());
    // The loader was written with the first trust root and is not written again.
    assert!(device.loader_takes(&first()));

    // Whoever has stolen the old key, and the channel's besides, gets nothing installed any more.
    let mut thief = Publisher::new();
    thief.site.publish(7).unwrap();
    thief.site.change(|fields| fields.sequence = 50).unwrap();
    let mut stolen = publisher.files();
    stolen.extend(thief.files());
    let before = device.state().0;
    let why = device.follows(&Server::good(stolen)).unwrap_err();
    assert!(why.contains("signed by no trusted key"), "{why}");
    assert!(device.disk == before, "something was written");
    thief.site.signer = Signer::with(keys(&[4]), thief.roots());
    assert!(thief.site.publish(8).is_err(), "a release key signs no channel");
}

#[test]
fn numbers_that_a_thief_of_the_channel_key_used_up_begin_anew_with_the_next_key() {
    let (mut publisher, mut device) = field();
    let thief = Publisher::new();
    thief.site.publish(1).unwrap();
    thief.site.change(|fields| fields.sequence = u64::MAX - 1).unwrap();
    assert!(device.asks(&thief.server()).is_ok());
    publisher.site.publish(2).unwrap();
    let held_back = device.follows(&publisher.server()).unwrap_err();
    assert!(held_back.contains("this device has seen 18446744073709551614"), "{held_back}");

    publisher.trusts(&TrustRoot { number: 2, channel: quorum(&[7], 1), ..first() }, &[1, 2]);
    publisher.signs_with(&[4, 7]);
    let again = publisher.site.publish(2).unwrap();
    assert_eq!(again.sequence, 1);
    device.follows(&publisher.server()).unwrap();
    assert!(device.has_staged("2.0"));
    assert!(device.asks(&thief.server()).unwrap_err().contains("signed by no trusted key"));
}

#[test]
fn a_lost_root_key_is_replaced_by_the_others() {
    let (mut publisher, mut device) = field();
    publisher.trusts(&TrustRoot { number: 2, root: quorum(&[1, 2, 8], 2), ..first() }, &[1, 2]);
    publisher.trusts(&TrustRoot { number: 3, root: quorum(&[1, 2, 8], 2), ..first() }, &[2, 8]);
    publisher.signs_with(&[4, 5]);
    publisher.site.publish(2).unwrap();
    device.follows(&publisher.server()).unwrap();
    assert!(device.has_staged("2.0") && device.known().number == 3);
}

/// Ten changes, of all keys each time.
fn changed_ten_times(publisher: &mut Publisher) {
    for number in 2..=11_u8 {
        let seed = 20 + number * 4;
        let next = TrustRoot {
            number: number.into(),
            root: quorum(&[seed, seed + 1], 2),
            release: quorum(&[seed + 2], 1),
            channel: quorum(&[seed + 3], 1),
            revoked: Vec::new(),
        };
        let before: &[u8] = if number == 2 { &[1, 2] } else { &[seed - 4, seed - 3] };
        publisher.trusts(&next, &[before, &[seed, seed + 1]].concat());
        publisher.signs_with(&[seed + 2, seed + 3]);
    }
}

#[test]
fn a_device_ten_changes_behind_catches_up_in_one_look() {
    let (mut publisher, mut device) = field();
    changed_ten_times(&mut publisher);
    publisher.site.publish(2).unwrap();
    device.follows(&publisher.server()).unwrap();
    assert!(device.has_staged("2.0") && device.known().number == 11);
    assert!(device.loader_takes(&first()));
}

#[test]
fn a_device_ten_changes_behind_takes_a_bundle_from_a_stick() {
    let (mut publisher, mut device) = field();
    changed_ten_times(&mut publisher);
    let bundle = fs::read(publisher.site.bundle(2).unwrap()).unwrap();
    let (own, profile) = (first(), manifest::Profile::Development);
    let rules = Rules { board: BOARD, profile, trust: &own };
    let source = Source { length: Some(bundle.len() as u64), bytes: &*bundle };
    apply::install(&mut device.disk, &PLACE, &rules, source, &mut |_| {}).unwrap();
    assert!(device.has_staged("2.0") && device.loader_takes(&first()));
}

#[test]
fn a_trust_root_that_is_missing_on_the_server_is_not_jumped_over() {
    let (mut publisher, mut device) = field();
    changed_ten_times(&mut publisher);
    publisher.site.publish(2).unwrap();
    let mut files = publisher.files();
    let sixth = files.remove(&places::trust_root(6)).unwrap();
    let before = device.disk.clone();
    let why = device.follows(&Server::good(files.clone())).unwrap_err();
    assert!(why.contains("signed by no trusted key"), "{why}");
    assert!(device.disk == before && device.known().number == 5);
    files.insert(places::trust_root(6), sixth);
    device.follows(&Server::good(files)).unwrap();
    assert!(device.has_staged("2.0"));
}

#[test]
fn a_raised_threshold_asks_for_more_signatures() {
    let (mut publisher, mut device) = field();
    publisher.trusts(&TrustRoot { number: 2, release: quorum(&[4, 6, 9], 2), ..first() }, &[1, 3]);
    publisher.signs_with(&[4, 5]);
    let alone = publisher.site.publish(2).unwrap_err();
    assert!(alone.chain().contains("signed by 1 of the 2 trusted keys"), "{}", alone.chain());
    publisher.signs_with(&[4, 9, 5]);
    publisher.site.publish(2).unwrap();
    device.follows(&publisher.server()).unwrap();
    assert!(device.has_staged("2.0") && device.loader_takes(&first()));
}

#[test]
fn a_revoked_release_is_not_installed_again() {
    let (mut publisher, mut device) = field();
    let bad = publisher.site.publish(2).unwrap();
    let old = publisher.files();
    let revoked = vec![bad.slot_manifest.sha256];
    publisher.trusts(&TrustRoot { number: 2, revoked, ..first() }, &[1, 2]);
    publisher.signs_with(&[4, 5]);
    let path = publisher.site.path().join(places::bundle(&bad.slot_manifest.sha256));
    let site = publisher.site.path();
    let offer = Offer {
        site: &site,
        channel: "stable",
        share: ALL,
        bases: 0,
        now_s: 1,
        conditions: &Conditions::default(),
    };
    let again = publish::publish(&path, &offer, &publisher.site.signer, &Progress::quiet());
    assert!(again.unwrap_err().chain().contains("2.0 is revoked by trust root 2"));
    publisher.site.change(|fields| fields.state = State::Open).unwrap();
    let why = device.follows(&publisher.server()).unwrap_err();
    assert_eq!(why, "2.0 was revoked by its publisher");
    // Nor from a server that lags behind, nor from a stick.
    let why = device.follows(&Server::good(old)).unwrap_err();
    assert!(why.contains("this device has seen 3"), "{why}");
    let (bundle, known) = (fs::read(path).unwrap(), device.known());
    let profile = manifest::Profile::Development;
    let rules = Rules { board: BOARD, profile, trust: &known };
    let source = Source { length: None, bytes: &*bundle };
    let refused = apply::install(&mut device.disk, &PLACE, &rules, source, &mut |_| {});
    assert_eq!(refused.unwrap_err().cause.to_string(), "2.0 was revoked by its publisher");
    publisher.site.publish(3).unwrap();
    device.follows(&publisher.server()).unwrap();
    assert!(device.has_staged("3.0"));
}

#[test]
fn trust_roots_that_were_kept_and_got_damaged_are_fetched_again() {
    let (mut publisher, mut device) = field();
    changed_ten_times(&mut publisher);
    publisher.site.publish(2).unwrap();
    device.asks(&publisher.server()).unwrap();
    let path = device.places().trust_roots;
    let good = fs::read(&path).unwrap();
    for place in (0..good.len()).step_by(97) {
        let mut damaged = good.clone();
        damaged[place] ^= 1;
        fs::write(&path, damaged).unwrap();
        let (answer, _) = device.asks(&publisher.server()).unwrap();
        assert_eq!(answer.root.number, 11, "byte {place}");
        assert_eq!(fs::read(&path).unwrap(), good, "byte {place}");
    }
    device.follows(&publisher.server()).unwrap();
}
