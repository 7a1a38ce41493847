//! Updates over networks and from servers of all kinds: the publisher's real files, the agent's
//! real code, a small disk. The rule of every case: the slot holds the release, whole and staged,
//! or the record is as it was or says that the slot is empty; never anything else.

use std::cell::Cell;
use std::fs;
use std::rc::Rc;

use agent::apply::{Cause, Left};
use agent::online::mirrors::Mirrored;
use agent::online::offer::{Device, Verdict};
use agent::online::session::{Places, ask_through};
use agent::online::web::{Trouble, Web};
use ondisk::boot_record::State as SlotState;
use ondisk::channel::{self, Channel, Conditions, Needs, State, places};
use ondisk::digest::Digest;
use ondisk::layout::Slot;
use qemu_tests::site::{
    BOARD, Server, Site, contents, download, fetch_channel, record, slot_of, transfer,
    transfer_telling, trust,
};

/// Two releases, published one after the other, and a disk with the first one.
struct Setup {
    site: Site,
    channel: Channel,
    disk: Vec<u8>,
}

impl Setup {
    fn new() -> Self {
        let site = Site::new().unwrap();
        site.publish(1).unwrap();
        let channel = site.publish(2).unwrap();
        let disk = site.disk(1).unwrap();
        Self { site, channel, disk }
    }

    fn good(&self) -> Server {
        Server::good(self.site.files().unwrap())
    }

    /// The path of the pack that a device of the first release takes.
    fn pack(&self) -> String {
        let base = self.channel.packs.iter().find(|pack| pack.base.is_some()).unwrap();
        places::pack(&base.table.sha256)
    }

    fn bundle(&self) -> String {
        places::bundle(&self.channel.slot_manifest.sha256)
    }

    fn holds_the_release(&self, disk: &Vec<u8>) -> bool {
        let slot = fs::read(self.site.slot(2).unwrap()).unwrap();
        let staged = record(disk).unwrap().slots.b.state == SlotState::Unproven { tries: 3 };
        let wanted = contents(&slot).unwrap();
        staged && contents(&slot_of(disk, Slot::B)) == Some(wanted)
    }

    /// After whatever happened.
    fn is_safe(&self, disk: &Vec<u8>) -> bool {
        let a_is_untouched = slot_of(disk, Slot::A) == slot_of(&self.disk, Slot::A);
        let b = record(disk).unwrap().slots.b.state;
        a_is_untouched && (b == SlotState::Empty || self.holds_the_release(disk))
    }
}

fn flip(mut bytes: Vec<u8>, place: usize) -> Vec<u8> {
    if let Some(byte) = bytes.get_mut(place) {
        *byte ^= 1;
    }
    bytes
}

#[test]
fn a_device_fetches_only_what_differs_from_the_system_it_runs() {
    let setup = Setup::new();
    let mut disk = setup.disk.clone();
    let done = transfer(&setup.good(), &setup.channel, &mut disk).unwrap();
    assert!(setup.holds_the_release(&disk));
    assert_eq!(done.carrier, "the differences to the system that runs");
    assert!(done.bytes * 20 < setup.channel.bundle_bytes, "{done:?}");
    // Once more: it waits already, and hardly anything is fetched to find that out.
    let error = transfer(&setup.good(), &setup.channel, &mut disk).unwrap_err();
    assert!(error.is_nothing_to_do() && setup.holds_the_release(&disk));
}

#[test]
fn what_was_downloaded_waits_in_the_slot_and_is_installed_without_fetching_it_again() {
    let setup = Setup::new();
    let mut disk = setup.disk.clone();
    let fetched = download(&setup.good(), &setup.channel, &mut disk).unwrap();
    assert_eq!(record(&disk).unwrap().slots.b.state, SlotState::Empty);
    assert_eq!(contents(&slot_of(&disk, Slot::B)), None, "a loader would start it");
    let installed = transfer(&setup.good(), &setup.channel, &mut disk).unwrap();
    assert!(setup.holds_the_release(&disk));
    // The front, and a table that says where pieces would be.
    let most = setup.channel.front_bytes + 20_000;
    assert!(installed.bytes < most && installed.bytes < fetched.bytes, "{installed:?} {fetched:?}");
}

#[test]
fn a_device_of_any_release_fetches_only_the_pieces_that_it_lacks() {
    let setup = Setup::new();
    // Release 9 was never published here, but shares most of its files.
    let mut disk = setup.site.disk(9).unwrap();
    let done = transfer(&setup.good(), &setup.channel, &mut disk).unwrap();
    assert!(setup.holds_the_release(&disk));
    assert_eq!(done.carrier, "the pieces that are missing here");
    assert!(done.bytes * 2 < setup.channel.bundle_bytes, "{done:?}");
}

#[test]
fn whatever_carrier_fails_the_next_one_brings_the_release() {
    let setup = Setup::new();
    let missing = |names: &[String]| {
        let mut files = setup.site.files().unwrap();
        files.retain(|name, _| !names.contains(name));
        Server::good(files)
    };
    let any = setup.channel.pack_for(None).unwrap();
    let any = places::pack(&any.table.sha256);
    for (gone, carrier) in [
        (vec![setup.pack()], "the pieces that are missing here"),
        (vec![setup.pack(), any.clone()], "all of it"),
    ] {
        let mut disk = setup.disk.clone();
        let done = transfer(&missing(&gone), &setup.channel, &mut disk).unwrap();
        assert!(setup.holds_the_release(&disk), "{gone:?}");
        assert_eq!(done.carrier, carrier);
    }
    // Damaged behind its table, where only the use shows it; then both packs.
    for damaged in [vec![setup.pack()], vec![setup.pack(), any]] {
        let paths = damaged.clone();
        let table = setup.channel.packs.iter().map(|pack| pack.table.length).max().unwrap();
        let server = Server::with(setup.site.files().unwrap(), move |path, range, bytes| {
            let behind = range.is_some_and(|(from, _)| from >= table / 2);
            let hit = paths.iter().any(|damaged| damaged == path) && behind;
            Ok((if hit { flip(bytes, 40) } else { bytes }, false))
        });
        let mut disk = setup.disk.clone();
        transfer(&server, &setup.channel, &mut disk).unwrap();
        assert!(setup.holds_the_release(&disk), "{damaged:?}");
    }
}

#[test]
fn a_mirror_stands_in_for_a_server_that_goes_away_at_any_moment() {
    let setup = Setup::new();
    let files = setup.site.files().unwrap();
    let whole = {
        let mut disk = setup.disk.clone();
        transfer(&setup.good(), &setup.channel, &mut disk).unwrap().bytes
    };
    for percent in (0..100).step_by(4) {
        let limit = usize::try_from(whole).unwrap() * percent / 100;
        let sent = Cell::new(0);
        let fails = move |_: &str, _: Option<(u64, u64)>, mut bytes: Vec<u8>| {
            let room = limit - sent.get().min(limit);
            if room == 0 {
                return Err(Trouble::Lasting("its disk is broken".to_owned()));
            }
            let breaks = bytes.len() > room;
            bytes.truncate(room);
            sent.set(sent.get() + bytes.len());
            Ok((bytes, breaks))
        };
        let own: Box<dyn Web> = Box::new(Server::with(files.clone(), fails));
        let empty: Box<dyn Web> = Box::new(Server::good([].into()));
        let web = Mirrored::new(vec![own, empty, Box::new(Server::good(files.clone()))]);
        let mut disk = setup.disk.clone();
        let done = transfer(&web, &setup.channel, &mut disk).unwrap();
        assert!(setup.holds_the_release(&disk), "{percent} %");
        assert_eq!(done.carrier, "the differences to the system that runs");
        assert!(done.bytes - whole <= 256 * 1024, "{percent} %");
    }
    // With nobody left, what the owner's own server says counts.
    let gone = |why: &str| -> Box<dyn Web> {
        let why = why.to_owned();
        Box::new(Server::with(files.clone(), move |_, _, _| Err(Trouble::Lasting(why.clone()))))
    };
    let web = Mirrored::new(vec![gone("its own"), gone("another")]);
    assert_eq!(fetch_channel(&web).unwrap_err(), "channel stable: its own");
}

#[test]
fn differences_for_another_libzstd_are_not_taken() {
    let setup = Setup::new();
    let mut files = setup.site.files().unwrap();
    let mut pack = files.remove(&setup.pack()).unwrap();
    // The field behind the number of pieces (ondisk/src/pack.rs).
    let version = u32::from_le_bytes(*pack[76..].first_chunk().unwrap());
    assert_eq!(version, ondisk::spans::packer::version(), "the differences are of spans");
    pack[76..80].copy_from_slice(&(version + 1).to_le_bytes());
    let mut renamed = String::new();
    let channel = setup
        .site
        .change(|fields| {
            let entry = fields.packs.iter_mut().find(|pack| pack.base.is_some()).unwrap();
            let length = usize::try_from(entry.table.length).unwrap();
            entry.table.sha256 = Digest::of(&pack[..length]);
            renamed = places::pack(&entry.table.sha256);
        })
        .unwrap();
    files.insert(renamed, pack);
    let mut disk = setup.disk.clone();
    let done = transfer(&Server::good(files), &channel, &mut disk).unwrap();
    assert!(setup.holds_the_release(&disk));
    assert_eq!(done.carrier, "the pieces that are missing here");
}

#[test]
fn a_running_system_that_reads_wrong_is_not_unpacked_for_differences() {
    let setup = Setup::new();
    let mut noticed = 0;
    // All through what runs, past dm-verity.
    for place in (0..1 << 20).step_by(40_000) {
        let mut disk = setup.disk.clone();
        let start = usize::try_from(qemu_tests::site::PLACE.slots.a.offset).unwrap();
        disk[start + place] ^= 1;
        let tell = &mut |line: &str| {
            noticed += usize::from(line.contains("what runs is not what a patch is for"));
        };
        let done = transfer_telling(&setup.good(), &setup.channel, &mut disk, tell).unwrap();
        assert!(setup.holds_the_release(&disk), "{place}");
        assert_ne!(done.carrier, "the differences to the system that runs", "{place}");
    }
    assert!(noticed > 0, "no flip was in the way of a patch");
}

#[test]
fn a_link_that_breaks_anywhere_costs_a_request_and_next_to_no_bytes() {
    let setup = Setup::new();
    for without_packs in [false, true] {
        let mut files = setup.site.files().unwrap();
        if without_packs {
            files.retain(|name, _| !name.ends_with(".pack"));
        }
        let whole = {
            let mut disk = setup.disk.clone();
            transfer(&Server::good(files.clone()), &setup.channel, &mut disk).unwrap().bytes
        };
        for percent in 0..100 {
            let limit = usize::try_from(whole).unwrap() * percent / 100;
            let sent = Cell::new(0);
            let broken = Cell::new(false);
            let server = Server::with(files.clone(), move |_, _, mut bytes| {
                let room = limit - sent.get().min(limit);
                if broken.get() || bytes.len() <= room {
                    sent.set(sent.get() + bytes.len());
                    return Ok((bytes, false));
                }
                broken.set(true);
                bytes.truncate(room);
                Ok((bytes, true))
            });
            let mut disk = setup.disk.clone();
            let done = transfer(&server, &setup.channel, &mut disk).unwrap();
            assert!(setup.holds_the_release(&disk), "{percent} %");
            let twice = done.bytes - whole;
            assert!(twice <= 256 * 1024, "{percent} %: {twice} bytes twice");
        }
    }
}

#[test]
fn what_was_fetched_before_the_power_went_is_not_fetched_again() {
    let setup = Setup::new();
    let mut files = setup.site.files().unwrap();
    // From a release that nobody knows, so that there is much to fetch.
    files.remove(&setup.pack());
    let base = setup.site.disk(9).unwrap();
    let whole = {
        let mut disk = base.clone();
        transfer(&Server::good(files.clone()), &setup.channel, &mut disk).unwrap().bytes
    };
    for percent in (5..100).step_by(5) {
        let limit = whole * percent / 100;
        let sent = Cell::new(0);
        let server = Server::with(files.clone(), move |_, _, mut bytes| {
            let room = limit - limit.min(sent.get());
            if room == 0 {
                return Err(Trouble::Lasting("no power".to_owned()));
            }
            bytes.truncate(usize::try_from(room).unwrap());
            sent.set(sent.get() + bytes.len() as u64);
            Ok((bytes, true))
        });
        let mut disk = base.clone();
        transfer(&server, &setup.channel, &mut disk).unwrap_err();
        let again = transfer(&Server::good(files.clone()), &setup.channel, &mut disk).unwrap();
        assert!(setup.holds_the_release(&disk), "{percent} %");
        let front = setup.channel.front_bytes;
        let table = setup.channel.pack_for(None).unwrap().table.length;
        // Front and table tell what is missing; of the pieces, one group at most comes twice.
        let most = whole - limit + front + table + 256 * 1024;
        assert!(again.bytes <= most, "{percent} %: {} bytes, {most} allowed", again.bytes);
    }
}

#[test]
fn no_server_can_do_more_than_waste_time() {
    let setup = Setup::new();
    let files = setup.site.files().unwrap();
    let mut cases = 0;
    let mut finished = 0;
    let mut check = |name: &str, server: Server| {
        let mut disk = setup.disk.clone();
        let result = transfer(&server, &setup.channel, &mut disk);
        assert!(setup.is_safe(&disk), "{name}");
        if result.is_ok() {
            assert!(setup.holds_the_release(&disk), "{name}");
            finished += 1;
        }
        // And an honest one does it afterwards.
        if result.is_err() {
            transfer(&setup.good(), &setup.channel, &mut disk).unwrap();
            assert!(setup.holds_the_release(&disk), "{name}: afterwards");
        }
        cases += 1;
    };
    let targets = [setup.pack(), setup.bundle()];
    for target in &targets {
        for place in (0..60).map(|step| step * 131) {
            let wanted = target.clone();
            check(
                &format!("{target}: bit {place} of each answer"),
                Server::with(files.clone(), move |path, _, bytes| {
                    Ok((if path == wanted { flip(bytes, place) } else { bytes }, false))
                }),
            );
        }
        for length in [0, 1, 100, 4095, 4096, 20_000] {
            for breaks in [true, false] {
                let wanted = target.clone();
                check(
                    &format!("{target}: {length} bytes of each answer"),
                    Server::with(files.clone(), move |path, _, mut bytes| {
                        if path == wanted {
                            bytes.truncate(length);
                        }
                        Ok((bytes, breaks && path == wanted))
                    }),
                );
            }
        }
        for nth in 0..4 {
            for kind in 0..5 {
                let wanted = target.clone();
                let count = Rc::new(Cell::new(0));
                check(
                    &format!("{target}: request {nth} is answered with {kind}"),
                    Server::with(files.clone(), move |path, _, bytes| {
                        if path != wanted {
                            return Ok((bytes, false));
                        }
                        count.set(count.get() + 1);
                        let hit = count.get() == nth + 1;
                        match kind {
                            _ if !hit => Ok((bytes, false)),
                            0 => Ok((b"<html>Please log in</html>".repeat(1000), false)),
                            1 => Ok((vec![0; bytes.len()], false)),
                            2 => Err(Trouble::Lasting("the server answers 403".to_owned())),
                            3 => {
                                let why = "the server answers 503".to_owned();
                                Err(Trouble::Passing { why, wait: None })
                            }
                            _ => Ok(([bytes.clone(), bytes].concat(), false)),
                        }
                    }),
                );
            }
        }
    }
    // One file in place of another, and servers without ranges.
    for (one, other) in [(0, 1), (1, 0)] {
        let mut swapped = files.clone();
        let bytes = swapped[&targets[other]].clone();
        swapped.insert(targets[one].clone(), bytes);
        check("one file in place of another", Server::good(swapped));
    }
    for limit in (1..=100).map(|percent| percent * 20_000) {
        let mut server = Server::with(files.clone(), move |_, _, mut bytes| {
            bytes.truncate(limit);
            Ok((bytes, false))
        });
        server.ranges = false;
        check(&format!("no ranges, {limit} bytes at most"), server);
    }
    eprintln!("{cases} servers; {finished} of them brought the release all the same");
    assert!(cases >= 250 && finished >= 100, "{cases} {finished}");
}

#[test]
fn a_channel_that_is_not_the_one_asked_for_changes_nothing() {
    let setup = Setup::new();
    let files = setup.site.files().unwrap();
    let place = places::channel("stable", BOARD);
    let answer = |bytes: Vec<u8>| {
        let mut files = files.clone();
        files.insert(place.clone(), bytes);
        fetch_channel(&Server::good(files)).map(|channel| channel.sequence)
    };
    let good = files[&place].clone();
    assert_eq!(answer(good.clone()), Ok(2));
    for bit in 0..good.len() * 8 {
        assert!(answer(flip_bit(&good, bit)).is_err(), "bit {bit}");
    }
    for length in 0..good.len() {
        assert!(answer(good[..length].to_vec()).is_err(), "{length} bytes");
    }
    let login = answer(b"<html><title>Hotel</title></html>".to_vec()).unwrap_err();
    assert!(login.contains("does the network ask for a login?"), "{login}");
    assert!(answer(vec![b'x'; 1 << 20]).unwrap_err().contains("8193 bytes"));
    assert!(answer(files[&setup.bundle()].clone()).is_err());
    let mut none = files.clone();
    none.remove(&place);
    let gone = fetch_channel(&Server::good(none)).unwrap_err();
    assert_eq!(gone, "channel stable: the server answers 404");
}

fn flip_bit(bytes: &[u8], bit: usize) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    bytes[bit / 8] ^= 1 << (bit % 8);
    bytes
}

/// A release that is signed, but not the one that the channel means.
#[test]
fn releases_cannot_be_mixed_and_matched() {
    let setup = Setup::new();
    let third = setup.site.publish(3).unwrap();
    let mut files = setup.site.files().unwrap();
    // The bundle of 2.0 under the name of 3.0.
    let old = files[&setup.bundle()].clone();
    files.insert(places::bundle(&third.slot_manifest.sha256), old);
    let mut disk = setup.disk.clone();
    let error = transfer(&Server::good(files), &third, &mut disk).unwrap_err();
    assert_eq!(error.left, Left::Untouched);
    assert!(disk == setup.disk, "something was written");
}

#[test]
fn a_release_below_the_floor_is_refused_before_the_first_write() {
    let site = Site::new().unwrap();
    let channel = site.publish(1).unwrap();
    let before = site.disk(5).unwrap();
    let mut disk = before.clone();
    let mut floor = record(&disk).unwrap();
    floor.rollback_floor = 5;
    floor.sequence = floor.sequence.next();
    let place = qemu_tests::site::PLACE.record;
    ondisk::boot_record::write(&mut disk, place, ondisk::boot_record::Copy::First, &floor).unwrap();
    let before = disk.clone();
    let web = Server::good(site.files().unwrap());
    let error = transfer(&web, &channel, &mut disk).unwrap_err();
    assert!(matches!(error.cause, Cause::Change(_)) && error.left == Left::Untouched);
    assert!(disk == before, "something was written");
}

/// Asks as a device of this rollback index does.
fn ask_as(site: &Site, running_index: u64) -> Result<Channel, String> {
    let kept = tempfile::tempdir().unwrap();
    let file = |name| kept.path().join(name);
    let (seen, signed_time) = (file("seen"), file("signed-time"));
    let places = Places { seen, signed_time, trust_roots: file("roots"), ..Places::default() };
    let server = |_: &str| {
        let server: Box<dyn Web> = Box::new(Server::good(site.files().unwrap()));
        Ok(server)
    };
    let known = (trust(), running_index);
    ask_through(&server, (BOARD, "stable"), known, &places, &mut |_| {})
        .map(|(answer, _)| answer.channel)
}

#[test]
fn an_old_device_comes_to_a_release_through_the_channels_that_lead_there() {
    let site = Site::new().unwrap();
    let needs = |rollback_index, through: &str| Conditions {
        needs: Some(Needs { rollback_index, through: Some(through.to_owned()) }),
        ..Conditions::default()
    };
    site.publish_in("to-2", 2, &Conditions::default()).unwrap();
    site.publish_in("to-4", 4, &needs(2, "to-2")).unwrap();
    site.publish_in("stable", 6, &needs(4, "to-4")).unwrap();
    for (running, version) in [(1, "2.0"), (2, "4.0"), (3, "4.0"), (4, "6.0"), (9, "6.0")] {
        assert_eq!(ask_as(&site, running).unwrap().version, version, "from {running}");
    }
    // One that leads back, and one that is not there.
    site.publish_in("to-2", 2, &needs(2, "to-4")).unwrap();
    let round = ask_as(&site, 1).unwrap_err();
    assert_eq!(round, "channel stable: 8 others lead to it, and none ends");
    assert_eq!(ask_as(&site, 4).unwrap().version, "6.0");
    site.publish_in("to-2", 2, &needs(2, "gone")).unwrap();
    assert!(ask_as(&site, 1).unwrap_err().starts_with("channel gone: "));
}

#[test]
fn what_a_device_does_follows_from_the_channel_and_what_it_runs() {
    let setup = Setup::new();
    let trust = trust();
    let release = Some(setup.channel.slot_manifest.sha256);
    let device = |seen| Device {
        board: BOARD,
        machine_id: "0123456789abcdef0123456789abcdef",
        trust: &trust,
        running: Some(Digest::of(b"another system")),
        running_index: 1,
        other: None,
        other_state: SlotState::Empty,
        failed: None,
        seen,
        now_s: 1_000_000,
    };
    let staged = SlotState::Unproven { tries: 3 };
    let open = &setup.channel;
    let changed = |change: fn(&mut channel::Fields)| setup.site.change(change).unwrap();
    let paused = changed(|fields| fields.state = State::Paused);
    let withdrawn = changed(|fields| fields.state = State::Withdrawn);
    let nobody = changed(|fields| (fields.state, fields.share) = (State::Open, 0));
    let by_the_clock = changed(|fields| fields.conditions.open_by_s = Some(1_000_000));
    let newer_ones = changed(|fields| {
        fields.conditions.open_by_s = None;
        fields.share = channel::ALL;
        fields.conditions.needs = Some(Needs { rollback_index: 2, through: None });
    });
    for (channel, device, verdict) in [
        (open, device(0), Verdict::Install),
        (open, device(2), Verdict::Install),
        (open, device(3), Verdict::Older),
        (open, Device { running: release, ..device(2) }, Verdict::Runs),
        (open, Device { other: release, other_state: staged, ..device(2) }, Verdict::Staged),
        // In the slot, but given up: it can be staged again.
        (open, Device { other: release, ..device(2) }, Verdict::Install),
        (open, Device { failed: Some("2.0"), ..device(2) }, Verdict::Failed),
        (open, Device { failed: Some("1.9"), ..device(2) }, Verdict::Install),
        (&paused, device(2), Verdict::Paused),
        (&paused, Device { running: release, ..device(2) }, Verdict::Runs),
        (&withdrawn, device(2), Verdict::Withdrawn),
        (
            &withdrawn,
            Device { other: release, other_state: staged, ..device(2) },
            Verdict::Withdrawn,
        ),
        (&nobody, device(2), Verdict::NotYet),
        (&by_the_clock, device(2), Verdict::Install),
        (&by_the_clock, Device { now_s: 999_000, ..device(2) }, Verdict::Install),
        (&by_the_clock, Device { now_s: 2, ..device(2) }, Verdict::NotYet),
        (&newer_ones, device(2), Verdict::NeedsAnother),
        (&newer_ones, Device { running_index: 2, ..device(2) }, Verdict::Install),
    ] {
        assert_eq!(Verdict::of(channel, &device), verdict, "{device:?}");
    }
}
