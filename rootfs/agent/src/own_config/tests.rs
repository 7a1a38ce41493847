//! A start with files in a temporary root, and parts that answer as told.

use std::cell::RefCell;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use config::Config;
use config::values::Key;
use ondisk::layout::Slot;

use super::decide::{Found, Kept, Store};
use super::device::{Base, Device};
use super::disks::{Copies, read_from};
use super::parts::Processes;
use super::*;

/// The one in [`TEXT`].
const KEY: &str =
    "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIAkFG14uhMzsA/P6XR4xFVZ7v5HlZmbImE7M3BxGSxtE a";

const TEXT: &str = r#"hostname = "kiosk-7"

[network]
dns = ["192.168.1.1"]

[[network.interface]]
name = "eth0"
address = ["192.168.1.10/24", "fd00:1::10/64"]
router = "192.168.1.1"

[time]
servers = ["192.168.1.1", "ntp.example.org:1123"]

[ssh]
keys = ["ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIAkFG14uhMzsA/P6XR4xFVZ7v5HlZmbImE7M3BxGSxtE a"]

[console]
image = "example.org/tools:1"

[health]
window-s = 120

[sysctl]
vm.max_map_count = 262144
vm.swappiness = 10
"#;

fn whole() -> Config {
    Config::parse(TEXT.as_bytes()).unwrap()
}

/// What is in force when the boot partition has that file.
fn of_file() -> Report {
    let (text, base) = (TEXT.to_owned(), Base::of(TEXT.as_bytes()));
    Report { source: Source::File, problem: None, config: whole(), text, base }
}

struct Told {
    file: Found,
    kept: Kept,
    device: Device,
    stored: Mutex<Vec<Store>>,
}

impl Told {
    fn new(file: Found, kept: Kept) -> Self {
        Self { file, kept, device: Device::Missing, stored: Mutex::new(Vec::new()) }
    }
}

impl Parts for Told {
    fn read_file(&self) -> Found {
        self.file.clone()
    }
    fn read_kept(&self) -> Kept {
        self.kept.clone()
    }
    fn read_device(&self) -> Device {
        self.device.clone()
    }
    fn store(&self, store: &Store) -> Result<(), String> {
        self.stored.lock().unwrap().push(store.clone());
        Err("disk full".to_owned())
    }
}

/// A temporary root that has one of the two settings.
struct Root {
    directory: tempfile::TempDir,
    places: Places,
}

impl Root {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let path = |name: &str| directory.path().join(name);
        fs::create_dir_all(path("sys/vm")).unwrap();
        fs::write(path("sys/vm/swappiness"), "60").unwrap();
        fs::write(path("dhcpcd.conf"), "clientid\nslaac hwaddr\n").unwrap();
        fs::write(path("chrony.conf"), "pool pool.example.org\nport 0\n").unwrap();
        let places = Places::within(directory.path());
        Self { directory, places }
    }

    /// Loads; the host name that was set.
    fn load(&self, parts: &Told) -> String {
        let system = system();
        let name = RefCell::new(String::new());
        let set = |to: &str| {
            name.replace(to.to_owned());
            Ok(())
        };
        load(&self.places, &system, parts, &set, &Console::new(io::sink()));
        name.into_inner()
    }

    fn read(&self, name: &str) -> String {
        fs::read_to_string(self.directory.path().join(name)).unwrap()
    }
}

fn system() -> System {
    let health = Health { service: "health".to_owned(), window_s: 60, limit_s: 600 };
    System { hostname: "iota".to_owned(), health: Some(health), ..System::default() }
}

#[test]
fn a_good_file_is_applied_reported_and_kept_even_if_a_part_of_that_fails() {
    let root = Root::new();
    let parts = Told::new(Found::Good(whole(), TEXT.into()), Kept::Missing);
    assert_eq!(root.load(&parts), "kiosk-7");
    assert_eq!(*parts.stored.lock().unwrap(), [Store::Keep(TEXT.into())]);
    assert_eq!(root.read("sys/vm/swappiness"), "10");
    assert!(!root.directory.path().join("sys/vm/max_map_count").exists());
    let expected = "\
clientid
slaac hwaddr

# iota.toml
hostname kiosk-7

# iota.toml
interface eth0
static ip_address=192.168.1.10/24
static ip6_address=fd00:1::10/64
static routers=192.168.1.1
";
    assert_eq!(root.read("network.conf"), expected);
    let expected = "port 0\n\n# iota.toml\nserver 192.168.1.1 iburst\n\
        server ntp.example.org port 1123 iburst\n";
    assert_eq!(root.read("time.conf"), expected);
    let report = Report::read(&root.places.report).unwrap();
    assert_eq!(report, of_file());
    let mode = fs::metadata(&root.places.report).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
}

#[test]
fn a_bad_file_leaves_the_last_good_copy_in_force_and_says_so() {
    let root = Root::new();
    let parts =
        Told::new(Found::Bad("line 1".to_owned(), Vec::new()), Kept::Good(whole(), TEXT.into()));
    assert_eq!(root.load(&parts), "kiosk-7");
    assert_eq!(*parts.stored.lock().unwrap(), []);
    let report = Report::read(&root.places.report).unwrap();
    assert_eq!(report.text(), "copy of the last good iota.toml; ERROR: iota.toml: line 1");
}

#[test]
fn without_a_file_the_image_alone_holds() {
    let root = Root::new();
    let parts = Told::new(Found::Missing, Kept::Good(whole(), TEXT.into()));
    assert_eq!(root.load(&parts), "iota");
    assert_eq!(root.read("network.conf"), "clientid\nslaac hwaddr\n");
    assert_eq!(root.read("time.conf"), "pool pool.example.org\nport 0\n");
    assert_eq!(root.read("sys/vm/swappiness"), "60");
    let report = Report::read(&root.places.report).unwrap();
    assert_eq!(report.source, Source::Defaults);
    assert_eq!(report.config, Config::default());
    let shown = report.show(&system());
    assert!(shown.contains("# The image says: hostname = \"iota\"\n"), "{shown}");
    assert_eq!(Config::parse(shown.as_bytes()), Ok(Config::default()));
}

#[test]
fn what_is_shown_is_a_file_that_says_the_same_and_json_has_every_value() {
    let report = of_file();
    assert_eq!(Config::parse(report.show(&system()).as_bytes()), Ok(whole()));
    let document = report.show_json(&system());
    let expected = serde_json::json!({
        "source": "file",
        "problem": null,
        "imported-from": null,
        "left-out": [],
        "config": {
            "hostname": "kiosk-7",
            "network": {
                "dns": ["192.168.1.1"],
                "wifi-country": null,
                "vlans": [],
                "interface": [{
                    "name": "eth0",
                    "address": ["192.168.1.10/24", "fd00:1::10/64"],
                    "router": "192.168.1.1",
                }],
                "wifi": [],
            },
            "time": { "zone": null, "servers": ["192.168.1.1", "ntp.example.org:1123"] },
            "proxy": { "http": null, "https": null, "no-proxy": [] },
            "ca": { "certificates": [] },
            "ssh": { "keys": [KEY] },
            "console": { "image": "example.org/tools:1", "serial": false },
            "health": { "window-s": 120 },
            "watchdog": { "engine-min": null, "network-min": null },
            "engine": { "registry-mirrors": [], "insecure-registries": [] },
            "kernel": { "modules": [] },
            "logs": { "persistent": false, "most-mb": 16 },
            "memory": { "zram-percent": 25 },
            "update": {
                "source": null,
                "user": null,
                "password": null,
                "channel": "stable",
                "automatic": "install",
                "window": null,
                "every-min": 360,
                "most-kb-s": null,
                "report": null,
            },
            "reset": { "power-cycles": false },
            "sysctl": { "vm.max_map_count": 262_144, "vm.swappiness": 10 },
        },
    });
    assert_eq!(document, expected);
}

#[test]
fn registries_of_the_owner_reach_both_engines_and_one_that_runs_is_told() {
    let root = Root::new();
    let load = |text: &str| {
        let config = Config::parse(text.as_bytes()).unwrap();
        root.load(&Told::new(Found::Good(config, text.into()), Kept::Missing));
    };
    load(
        "[engine]\nregistry-mirrors = [\"https://m.example.org\", \"http://10.0.0.6:5000\"]\n\
         insecure-registries = [\"registry.lan:5000\"]\n",
    );
    let document: serde_json::Value = serde_json::from_str(&root.read("docker.json")).unwrap();
    let expected = serde_json::json!({
        "registry-mirrors": ["https://m.example.org", "http://10.0.0.6:5000"],
        "insecure-registries": ["registry.lan:5000"],
    });
    assert_eq!(document, expected);
    assert_eq!(
        root.read("registries.conf"),
        "# From iota.toml.\n[[registry]]\nlocation = \"docker.io\"\n\
         [[registry.mirror]]\nlocation = \"m.example.org\"\ninsecure = false\n\
         [[registry.mirror]]\nlocation = \"10.0.0.6:5000\"\ninsecure = true\n\
         [[registry]]\nlocation = \"registry.lan:5000\"\ninsecure = true\n"
    );
    let all = "https://m.example.org,http://10.0.0.6:5000,registry.lan:5000";
    assert_eq!(root.read("environment"), format!("IOTA_REGISTRIES={all}\n"));
    load("# nothing\n");
    assert_eq!(root.read("registries.conf"), "# From iota.toml.\n");
    for gone in ["docker.json", "environment"] {
        assert!(!root.directory.path().join(gone).exists(), "{gone}");
    }
}

#[test]
fn a_module_that_cannot_be_loaded_is_named() {
    let mut root = Root::new();
    root.places.modprobe = "/bin/false".into();
    let config = Config::parse(b"[kernel]\nmodules = [\"tun\"]\n").unwrap();
    let troubles = apply::everything(&root.places, &system(), &config, |_| Ok(()));
    assert_eq!(troubles, ["kernel.modules: tun: exit status: 1 "]);
}

#[test]
fn passwords_are_in_files_that_only_root_reads_and_shown_to_nobody_who_does_not_ask() {
    let root = Root::new();
    let text = "[update]\nuser = \"kiosks\"\npassword = \"battery horse\"\n\
        [[network.wifi]]\nssid = \"Home\"\npassword = \"correct horse\"\n";
    let config = Config::parse(text.as_bytes()).unwrap();
    root.load(&Told::new(Found::Good(config, text.into()), Kept::Missing));
    assert!(root.read("wifi.conf").contains("psk=\"correct horse\"\n"));
    for file in [&root.places.wifi, &root.places.report] {
        assert_eq!(fs::metadata(file).unwrap().permissions().mode() & 0o777, 0o600, "{file:?}");
    }
    let report = Report::read(&root.places.report).unwrap();
    let (system, places) = (system(), &root.places);
    let all = |secrets| get::lines(&get::all(places, &report, &system, secrets));
    let line = "network.wifi.Home.password 'correct horse'\n";
    assert!(all(true).contains(line) && !all(false).contains("horse"), "{}", all(false));
    assert!(all(false).contains("network.wifi.Home.password '(secret; "), "{}", all(false));
    assert!(all(true).contains("update.password 'battery horse'\n"), "{}", all(true));
    assert!(report.show(&system).contains("correct horse"));
    let shown = report.concealed();
    assert!(!shown.show(&system).contains("horse"));
    assert!(!shown.show_json(&system).to_string().contains("horse"));
    assert!(!format!("{:?}", shown.config).contains("horse"));
}

#[test]
fn the_health_window_is_the_owners_as_far_as_the_image_leaves_time_for_it() {
    let root = Root::new();
    let declared = |limit_s| Health { service: "health".to_owned(), window_s: 60, limit_s };
    let report = || Report::read(&root.places.report).ok();
    let window = |limit_s| window_s(report().as_ref(), &declared(limit_s));
    assert_eq!(window(600), 60, "without a report");
    root.load(&Told::new(Found::Good(whole(), TEXT.into()), Kept::Missing));
    assert_eq!(window(600), 120);
    assert_eq!(window(200), 100);
}

#[test]
fn a_copy_is_replaced_in_one_step_and_each_slot_has_its_own() {
    let data = tempfile::tempdir().unwrap();
    let directory = data.path().join("iota");
    let (a, b) = (Copies::new(&directory, Slot::A), Copies::new(&directory, Slot::B));
    assert_eq!(a.read(), Ok(None));
    a.forget().unwrap();
    a.keep(b"# first\n").unwrap();
    assert_eq!(b.read(), Ok(Some(b"# first\n".to_vec())), "the other one's, for want of an own");
    b.keep(b"# second\n").unwrap();
    a.keep(b"# third\n").unwrap();
    assert_eq!(b.read(), Ok(Some(b"# second\n".to_vec())));
    // What this system does not understand: the other one may have kept something better.
    fs::write(directory.join("config-b.toml"), "new-key = 1\n").unwrap();
    assert_eq!(b.read(), Ok(Some(b"# third\n".to_vec())));
    fs::write(directory.join("config-a.toml"), "").unwrap();
    assert_eq!(b.read(), Ok(Some(b"new-key = 1\n".to_vec())), "the own one, to be told why not");
    let names = || fs::read_dir(&directory).unwrap().flatten().count();
    assert_eq!(names(), 2, "nothing unfinished is left");
    b.forget().unwrap();
    assert_eq!(names(), 0);
}

#[test]
fn what_was_changed_on_the_device_holds_and_becomes_the_copy() {
    let root = Root::new();
    let mut parts = Told::new(Found::Good(Config::default(), b"# old\n".into()), Kept::Missing);
    parts.device = Device::Good(whole(), TEXT.to_owned(), Base::of(b"# old\n"));
    assert_eq!(root.load(&parts), "kiosk-7");
    assert_eq!(*parts.stored.lock().unwrap(), [Store::Keep(TEXT.into())]);
    let report = Report::read(&root.places.report).unwrap();
    assert_eq!((report.source, report.base), (Source::Device, Base::of(b"# old\n")));
    assert_eq!(report.text, TEXT);
}

#[test]
fn what_was_changed_on_the_device_is_one_file_for_both_systems() {
    let data = tempfile::tempdir().unwrap();
    let directory = data.path().join("iota");
    let (a, b) = (Copies::new(&directory, Slot::A), Copies::new(&directory, Slot::B));
    assert_eq!(a.read_device().unwrap(), None);
    a.drop_device().unwrap();
    let largest = vec![b'#'; config::MOST_BYTES + super::device::HEAD_BYTES];
    a.keep_device(&largest).unwrap();
    assert_eq!(b.read_device().unwrap(), Some(largest));
    b.drop_device().unwrap();
    a.keep_device(b"# mine\n").unwrap();
    b.forget().unwrap();
    assert_eq!(a.read_device().unwrap(), None);
}

#[test]
fn values_in_force_are_the_owners_or_else_the_images_and_the_kernels() {
    let root = Root::new();
    let places = &root.places;
    root.load(&Told::new(Found::Missing, Kept::Missing));
    let of = |path: &str| {
        let report = Report::read(&places.report).unwrap();
        get::values(&Key::parse(path).unwrap(), places, &report, &system()).join(" ")
    };
    assert_eq!(of("hostname"), "iota");
    assert_eq!(of("health.window-s"), "60");
    assert_eq!(of("sysctl.vm.swappiness"), "60");
    assert_eq!(of("network.dns"), "");
    root.load(&Told::new(Found::Good(whole(), TEXT.into()), Kept::Missing));
    assert_eq!(of("hostname"), "kiosk-7");
    assert_eq!(of("network.interface.eth0.address"), "192.168.1.10/24 fd00:1::10/64");
    // A setting that this kernel does not have.
    assert_eq!(of("sysctl.vm.max_map_count"), "262144");
    let report = Report::read(&places.report).unwrap();
    let all = get::lines(&get::all(places, &report, &system(), false));
    assert!(all.starts_with("hostname kiosk-7\nnetwork.dns 192.168.1.1\n"), "{all}");
    assert!(all.contains("\nhealth.window-s 120\nsysctl.vm.max_map_count 262144\n"), "{all}");
}

#[test]
fn a_copy_that_is_the_same_is_not_written_again() {
    let data = tempfile::tempdir().unwrap();
    let copies = Copies::new(&data.path().join("iota"), Slot::A);
    copies.keep(b"# same\n").unwrap();
    let path = data.path().join("iota/config-a.toml");
    let inode = || std::os::unix::fs::MetadataExt::ino(&fs::metadata(&path).unwrap());
    let before = inode();
    copies.keep(b"# same\n").unwrap();
    assert_eq!(inode(), before);
}

#[test]
fn on_the_boot_partition_only_a_file_of_the_right_name_is_one() {
    let boot = tempfile::tempdir().unwrap();
    let path = |name: &str| boot.path().join(name);
    assert_eq!(read_from(boot.path()), Ok(None));
    fs::write(path("iota.toml.txt"), "# hello\n").unwrap();
    let wrong = Err("it is named iota.toml.txt: take away the `.txt`".to_owned());
    assert_eq!(read_from(boot.path()), wrong);
    fs::write(path("iota.toml"), "# hello\n").unwrap();
    assert_eq!(read_from(boot.path()), Ok(Some(b"# hello\n".to_vec())));
    // Read just far enough to see that it is too long.
    fs::write(path("iota.toml"), vec![b'#'; 1 << 20]).unwrap();
    assert_eq!(read_from(boot.path()).unwrap().unwrap().len(), config::MOST_BYTES + 4);
    fs::remove_file(path("iota.toml")).unwrap();
    fs::create_dir(path("iota.toml")).unwrap();
    assert_eq!(read_from(boot.path()), Err("it is not a file".to_owned()));
}

#[test]
fn files_of_cloud_init_are_imported_where_there_is_no_file_of_ours() {
    let boot = tempfile::tempdir().unwrap();
    let put = |name: &str, text: &str| fs::write(boot.path().join(name), text).unwrap();
    let read = || String::from_utf8(read_from(boot.path()).unwrap().unwrap()).unwrap();
    put("user-data", "#cloud-config\nhostname: kitchen\nruncmd: []\n");
    put("meta-data", "");
    let text = read();
    assert!(text.starts_with("# Made from meta-data, user-data of the boot partition; sha256 "));
    assert!(
        text.ends_with(
            "\n# Left out: user-data, line 3, column 1: `runcmd` is not supported\n\n\
        hostname = \"kitchen\"\n"
        ),
        "{text}"
    );
    // What was changed on the device stays until these files are other ones, whatever a newer
    // system makes of them.
    let base = Base::of(text.as_bytes());
    assert_eq!(Base::of(text.replace("hostname", "# hostname").as_bytes()), base);
    put("meta-data", "local-hostname: other\n");
    assert_ne!(Base::of(read().as_bytes()), base);
    put("user-data", "#cloud-config\nhostname: [\n");
    let error = read_from(boot.path()).unwrap_err();
    assert!(error.starts_with("there is none, and user-data: line "), "{error}");
    put("iota.toml", "# ours\n");
    assert_eq!(read(), "# ours\n");
}

#[test]
fn what_was_imported_is_kept_and_everybody_is_told_what_was_left_out() {
    let root = Root::new();
    let mut seed = config::import::Seed::default();
    seed.add(config::import::Name::UserData, b"#cloud-config\nhostname: box\nbootcmd: []\n".into());
    let text = seed.read().unwrap().text(&"0".repeat(64));
    let config = Config::parse(text.as_bytes()).unwrap();
    let parts = Told::new(Found::Good(config.clone(), text.clone().into()), Kept::Missing);
    assert_eq!(root.load(&parts), "box");
    let report = Report::read(&root.places.report).unwrap();
    let left_out = "user-data, line 3, column 1: `bootcmd` is not supported";
    assert_eq!(report.text(), "imported from user-data");
    assert_eq!(report.left_out(), [left_out]);
    assert_eq!(report.json()["imported-from"], "user-data");
    let shown = report.show(&system());
    let head = format!("# imported from user-data\n# Left out: {left_out}\n");
    assert!(shown.starts_with(&head), "{shown}");
    // At the next start the card does not answer.
    let kept = Kept::Good(config, text.into());
    let parts = Told::new(Found::Unreadable("no answer".to_owned()), kept);
    assert_eq!(root.load(&parts), "box");
    let report = Report::read(&root.places.report).unwrap();
    assert!(report.text().starts_with("copy of the last good user-data; ERROR: "), "{report:?}");
}

#[test]
fn the_engine_is_told_of_proxies_and_authorities_and_of_nothing_if_there_are_none() {
    let root = Root::new();
    fs::write(&root.places.roots, "the public ones").unwrap();
    let key = config::keys::KEYS.iter().find(|key| key.path == "ca.certificates").unwrap();
    let text = format!(
        "[proxy]\nhttps = \"http://proxy:3128\"\nno-proxy = [\".a.org\", \"10.0.0.0/8\"]\n\
         [ca]\n{}\n",
        key.example
    );
    let config = Config::parse(text.as_bytes()).unwrap();
    root.load(&Told::new(Found::Good(config.clone(), text.into()), Kept::Missing));
    let bundle = root.places.bundle.display();
    let expected = format!(
        "HTTPS_PROXY=http://proxy:3128\nNO_PROXY=.a.org,10.0.0.0/8\nSSL_CERT_FILE={bundle}\n"
    );
    assert_eq!(root.read("environment"), expected);
    let certificate = config.certificates()[0].to_string();
    assert_eq!(root.read("bundle.crt"), format!("the public ones\n{certificate}"));
    assert_eq!(crate::online::tls::authorities(&root.places.bundle).len(), 1);
    root.load(&Told::new(Found::Missing, Kept::Missing));
    assert!(!root.places.environment.exists() && !root.places.bundle.exists());
}

/// A program that stands in for this one; it gets `config read-file` and the like as arguments.
fn program(script: &str) -> (tempfile::TempDir, Processes) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("iota");
    fs::write(&path, format!("#!/bin/sh\n{script}\n")).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    (directory, Processes::new(path, Duration::from_secs(2)))
}

#[test]
fn what_a_part_says_and_how_it_ends_is_what_was_found() {
    let (_here, parts) = program("echo '# good'");
    assert_eq!(parts.read_file(), Found::Good(Config::default(), b"# good\n".to_vec()));
    let (_here, parts) = program("echo nonsense");
    assert!(matches!(parts.read_file(), Found::Bad(why, _) if why.starts_with("line 1, ")));
    let (_here, parts) = program("exit 1");
    assert_eq!(parts.read_file(), Found::Missing);
    assert_eq!(parts.read_kept(), Kept::Missing);
    let (_here, parts) = program("echo 'error: cannot mount vda1: gone' >&2; exit 2");
    assert_eq!(parts.read_file(), Found::Unreadable("cannot mount vda1: gone".to_owned()));
    let (_here, parts) = program("kill -9 $$");
    assert!(matches!(parts.read_kept(), Kept::Unusable(why) if why.contains("signal")));
    let (here, parts) = program("cat > \"$0.$2\"");
    assert_eq!(parts.store(&Store::Keep(b"# kept\n".to_vec())), Ok(()));
    assert_eq!(fs::read(here.path().join("iota.keep")).unwrap(), b"# kept\n");
}

#[test]
fn a_part_that_hangs_is_left_behind() {
    let (_here, parts) = program("exec sleep 60");
    let start = Instant::now();
    assert_eq!(parts.read_file(), Found::Unreadable("no answer within 2 s".to_owned()));
    assert!(start.elapsed() < Duration::from_secs(30), "{:?}", start.elapsed());
}
