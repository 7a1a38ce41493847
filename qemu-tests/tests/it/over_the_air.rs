//! A device in a virtual machine follows a channel, first in a registry, then handed out by nginx
//! with TLS, whose certificate an authority of the owner's vouches for.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use builder::host::progress::Progress;
use builder::host::qemu::{self, Options};
use builder::host::store::Store;
use builder::publish::remote::Remote;
use builder::publish::{self, Offer, Site};
use builder::registry::Client;
use builder::sign::{Key, Profile};
use builder::signer::Signer;
use builder::trust_roots::{self, Signed, TrustRoots};
use ondisk::channel::{ALL, Channel, Conditions};
use ondisk::keyring::Keyring;
use ondisk::trust_root::{Quorum, TrustRoot};
use qemu_tests::disk::Disk;
use qemu_tests::image::{BOARD, variant, variant_with};
use qemu_tests::machine::Machine;
use qemu_tests::registry_server::RegistryServer;
use qemu_tests::site::noise;
use qemu_tests::web_server::WebServer;
use qemu_tests::{scratch, slow_tests_wanted, workspace};
use serde_json::Value;

use crate::authority;
use crate::slots::{is_committed, saboteur, short_window};

const LONG: Duration = Duration::from_secs(400);
/// This machine, as QEMU's user network shows it to its guest.
const HOST: &str = "10.0.2.2";

/// What every release says of itself.
const NOTE: &str = "Closes the hole in runc.";

/// When everything is signed, by the publisher's clock: 31 December 2027.
const SIGNED_S: u64 = 1_830_211_200;

/// Bytes of the third release that no other has.
const NEW_BYTES: u64 = 12 << 20;

fn development_key() -> Key {
    Key::load(&workspace().join("keys/development.secret")).unwrap()
}

fn publish(site: &dyn Site, outputs: &Path, bases: usize) -> Channel {
    publish_as(&development_key().into(), site, outputs, bases)
}

fn publish_as(signer: &Signer, site: &dyn Site, outputs: &Path, bases: usize) -> Channel {
    let offer = Offer {
        site,
        channel: "stable",
        share: ALL,
        bases,
        now_s: SIGNED_S,
        conditions: &Conditions { notes: vec![NOTE.to_owned()], ..Conditions::default() },
    };
    let bundle = outputs.join("update.bundle");
    publish::publish(&bundle, &offer, signer, &Progress::new(false)).unwrap()
}

/// Trust roots, and the key that signs releases from the second one on. Devices have the first: the
/// development key for everything.
fn new_release_key() -> (PathBuf, PathBuf) {
    let directory = scratch().join("new-release-key");
    let _ = fs::remove_dir_all(&directory);
    let key = Key::from_seed([9; 32], Profile::Development);
    let (secret, _) = key.save(&directory.join("release")).unwrap();
    let first = TrustRoot::of_one_key(development_key().trusted().unwrap());
    let release = Quorum::any_of(Keyring::new(vec![key.trusted().unwrap()]).unwrap());
    let second = TrustRoot { number: 2, release, ..first.clone() };
    let trust = directory.join("trust");
    for root in [first, second] {
        let signed = trust_roots::add(&trust, &root, &[development_key()]).unwrap();
        assert!(matches!(signed, Signed::Finished(_)), "{signed:?}");
    }
    (trust, secret)
}

/// Has the device do something, which has to succeed, and returns what it says about it.
fn facts(machine: &mut Machine, words: &[&str]) -> Value {
    let (code, said) = machine.execute(words, io::empty());
    assert_eq!(code, 0, "{said}");
    serde_json::from_str(said.lines().next().unwrap()).unwrap()
}

/// Installs what is offered; bytes that were fetched for it.
fn install_offered(machine: &mut Machine) -> u64 {
    let facts = facts(machine, &["update", "install", "--json"]);
    let peak = facts["peak-memory-bytes"].as_u64().unwrap_or_else(|| panic!("{facts}"));
    assert!(peak <= 24 << 20, "{facts}");
    eprintln!("    {facts}");
    facts["fetched-bytes"].as_u64().unwrap()
}

#[test]
fn a_device_follows_a_channel_goes_on_after_a_power_cut_and_does_not_try_twice_what_failed() {
    if !slow_tests_wanted() {
        return;
    }
    let first = variant("1.0", 1, short_window);
    let second = variant("2.0", 2, short_window);
    let third = variant("3.0-new", 3, |workspace| {
        short_window(workspace);
        // So that there is something to fetch.
        let file = workspace.join("rootfs/overlay/usr/lib/iota/new");
        fs::create_dir_all(file.parent().unwrap()).unwrap();
        fs::write(file, noise(11, usize::try_from(NEW_BYTES).unwrap())).unwrap();
    });
    let bad = saboteur("4.0-bad", 4, "echo c > /proc/sysrq-trigger");
    let (trust, secret) = new_release_key();
    let key = Key::load(&secret).unwrap().id().unwrap();
    let words = ["--trust", trust.to_str().unwrap(), "--key", secret.to_str().unwrap()];
    let fifth = variant_with(BOARD, "5.0", 5, &words, short_window);
    let registry = RegistryServer::start(false);
    let place = registry.repository("team/iota");
    let cache = tempfile::tempdir_in(scratch()).unwrap();
    let store = Store::open(Some(cache.path())).unwrap();
    let (client, progress) = (Client::new(&place, true, None), Progress::new(false));
    let remote = Remote::new(&place, client, &store, &progress).unwrap();
    publish(&remote, &first, 1);
    // What is sent to a registry is a directory that any server can hand out.
    let site = remote.directory().to_owned();
    let (root, identity) = authority::make(cache.path(), HOST);
    let server = WebServer::start(&site, Some(&identity), "location /fleet { return 204; }");
    let address = format!("https://{HOST}:{}", server.port());

    let disk = Disk::copy_of(&first.join("disk.img"), "over-the-air");
    // No clock is right: the first begins in 1970, the second one's 32 bits run over on the way.
    let options = Options { persist: true, ..Options::new(disk.path()) };
    let options = Options { clock: Some("1970-01-01T00:00:10"), ..options };
    let mut machine = Machine::boot("over-the-air", &options).expecting_trouble();
    machine.expect("system ready", LONG);
    let (code, said) = machine.execute(&["update", "check"], io::empty());
    assert_eq!(code, 2, "{said}");
    assert!(said.contains("there is no server to ask"), "{said}");
    // Nobody of Mozilla's list knows the server; the owner's authority counts from the next start.
    set(&mut machine, "update.source", &address);
    let (code, said) = machine.execute(&["update", "check"], io::empty());
    let refusal = "nobody whom this device trusts has signed the server's certificate";
    assert!(code == 2 && said.contains(refusal), "{said}");
    assert!(machine.status()["update"]["error"].as_str().is_some_and(|it| it.contains(refusal)));
    assert_eq!(server.log(), "", "something was asked without trust");
    set(&mut machine, "ca.certificates", &root);
    set(&mut machine, "update.source", &format!("oci+http://{HOST}:{}/team/iota", registry.port()));
    set(&mut machine, "update.automatic", "check");
    let (code, said) = machine.execute(&["update", "check"], io::empty());
    assert_eq!((code, said.trim()), (1, "nothing to do: 1.0 runs already"));

    // The next release, as differences.
    let channel = publish(&remote, &second, 1);
    let checked = facts(&mut machine, &["update", "check", "--json"]);
    assert_eq!((&checked["verdict"], &checked["version"]), (&"install".into(), &"2.0".into()));
    assert_eq!(checked["notes"], Value::from(vec![NOTE]));
    let (code, said) = machine.execute(&["status"], io::empty());
    assert!(code == 0 && said.contains(&format!("2.0 is there\n           {NOTE}\n")), "{said}");
    let brought = facts(&mut machine, &["update", "download", "--json"]);
    let fetched = brought["fetched-bytes"].as_u64().unwrap();
    assert!(fetched * 20 < channel.bundle_bytes, "{fetched} of {}", channel.bundle_bytes);
    assert_eq!(brought["staged"], false);
    assert_eq!(machine.status()["slots"]["next"], "a");
    let again = install_offered(&mut machine);
    assert!(again < fetched || again < 200_000, "{again} after {fetched}");
    assert_eq!(machine.status()["update"]["verdict"], "staged");
    machine.restart(LONG);
    is_committed(&mut machine, "B", 1);
    assert_eq!(machine.status()["boot"]["version"], "2.0");
    // The clock of this machine began in 1970; what it has accepted meanwhile is the new floor.
    machine.expect_somewhere("clock set to the time that was signed: 2027-12-31", LONG);

    let fleet = format!("{address}/fleet");
    set(&mut machine, "update.source", &address);
    set(&mut machine, "update.report", &fleet);
    let (code, said) = machine.execute(&["update", "check"], io::empty());
    assert_eq!((code, said.trim()), (1, "nothing to do: 2.0 runs already"));
    assert_eq!(facts(&mut machine, &["update", "report", "--json"])["told"], fleet);
    assert!(server.log().contains("POST /fleet"), "{}", server.log());
    // The power goes while the next one is being written, as pieces.
    publish(&site, &third, 0);
    begins(&machine, NEW_BYTES / 2);
    // Dropped, the machine loses its power. What the disk may lose then is another test's matter.
    drop(machine);
    let options = Options { clock: Some("2038-01-19T03:12:30"), ..options };
    let mut machine = Machine::boot("over-the-air-cut", &options).expecting_trouble();
    machine.expect("slot B: proven", LONG);
    machine.expect("system ready", LONG);
    assert_eq!(machine.status()["slots"]["record"]["a"]["state"], "empty");
    let installed = facts(&mut machine, &["update", "install", "--json"]);
    let fetched = installed["fetched-bytes"].as_u64().unwrap();
    assert!(fetched < NEW_BYTES * 3 / 4, "what was fetched before is fetched again: {installed}");
    machine.restart(LONG);
    is_committed(&mut machine, "A", 1);
    assert_eq!(machine.status()["boot"]["version"], "3.0-new");

    // From here on the device restarts by itself. A release that fails is taken back, and not
    // tried again; the one after it is taken.
    set(&mut machine, "update.automatic", "install");
    publish(&site, &bad, 0);
    install_offered(&mut machine);
    machine.expect("update: restarts into what is installed", LONG);
    for trial in 1..=3 {
        machine.expect(&format!("slot B: trial {trial}"), LONG);
    }
    machine.expect("slot A: proven", LONG);
    machine.expect("system ready", LONG);
    machine.expect_somewhere("update: 4.0-bad failed here and is not tried again by itself", LONG);
    // It is signed by a key that the device learns of on the way, and the loader, which is the one
    // of the first day, from the slot.
    let channel_key = Signer::with(vec![development_key()], TrustRoots::load(&trust).unwrap());
    publish_as(&channel_key, &site, &fifth, 0);
    install_offered(&mut machine);
    machine.expect("update: restarts into what is installed", LONG);
    is_committed(&mut machine, "B", 1);
    machine.expect_somewhere(&format!("slot B: version 5.0, signed by {key}"), LONG);
    assert_eq!(machine.status()["boot"]["version"], "5.0");
    let log = server.log();
    assert!(log.contains("iota/") && log.contains(" 206 "), "{log}");
    machine.power_off(LONG);
}

fn set(machine: &mut Machine, name: &str, value: &str) {
    let (code, said) = machine.execute(&["config", "set", name, value], io::empty());
    assert_eq!(code, 0, "{said}");
}

/// Starts an installation and waits until it has written so many bytes.
fn begins(machine: &Machine, bytes: u64) {
    let written = || machine.qemu().bytes_written().unwrap();
    let before = written();
    let socket = machine.qemu().commands_socket();
    // It does not come to its end: what it says then does not matter.
    thread::spawn(move || {
        qemu::execute(&socket, &["update", "install"], io::empty(), LONG).is_ok()
    });
    let deadline = Instant::now() + LONG;
    while written() < before + bytes {
        assert!(Instant::now() < deadline, "nothing was written");
        thread::sleep(Duration::from_millis(20));
    }
}
