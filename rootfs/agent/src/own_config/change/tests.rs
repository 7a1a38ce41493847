//! Changes of a running system: files in a temporary root, a clock that stands, parts that answer
//! as told.

use std::cell::{Cell, RefCell};

use super::super::decide::{Found, Kept};
use super::super::device::{Base, Device};
use super::*;

const FILE: &str = "# Kiosk.\nhostname = \"old\"\n";
const DNS: &str = "# Kiosk.\nhostname = \"old\"\n\n[network]\ndns = [\"10.0.0.1\"]\n";

/// A device that is told what it cannot do, and tells what was done to it.
struct Fake {
    root: tempfile::TempDir,
    places: Places,
    system: System,
    now_s: Cell<u64>,
    is_full: Cell<bool>,
    stored: RefCell<Vec<Store>>,
    done: RefCell<Vec<String>>,
}

impl Parts for Fake {
    fn read_file(&self) -> Found {
        Found::Missing
    }
    fn read_kept(&self) -> Kept {
        Kept::Missing
    }
    fn read_device(&self) -> Device {
        Device::Missing
    }
    fn store(&self, store: &Store) -> Result<(), String> {
        if self.is_full.get() {
            return Err("disk full".to_owned());
        }
        self.stored.borrow_mut().push(store.clone());
        Ok(())
    }
}

impl Machine for Fake {
    fn now_s(&self) -> u64 {
        self.now_s.get()
    }
    fn set_hostname(&self, name: &str) -> io::Result<()> {
        self.did(format!("name {name}"));
        Ok(())
    }
    fn tell(&self, daemon: Daemon) -> Result<(), String> {
        self.did(format!("{daemon:?}"));
        Ok(())
    }
    fn let_in(&self, config: &Config) -> io::Result<()> {
        self.did(format!("{} keys", config.ssh_keys().len()));
        Ok(())
    }
    fn start_keeper(&self) -> Result<(), String> {
        self.did("keeper".to_owned());
        Ok(())
    }
}

impl Fake {
    /// A device whose boot partition has [`FILE`].
    fn new() -> Self {
        let root = tempfile::tempdir().unwrap();
        let path = |name: &str| root.path().join(name);
        fs::write(path("dhcpcd.conf"), "clientid\n").unwrap();
        fs::write(path("chrony.conf"), "port 0\n").unwrap();
        let places = Places::within(root.path());
        before().write(&places.report).unwrap();
        let system = System { hostname: "iota".to_owned(), ..System::default() };
        let (now_s, is_full) = (Cell::new(1000), Cell::new(false));
        let (stored, done) = (RefCell::default(), RefCell::default());
        Self { root, places, system, now_s, is_full, stored, done }
    }

    fn did(&self, what: String) {
        self.done.borrow_mut().push(what);
    }

    fn changer(&self) -> Changer<'_> {
        let run = self.root.path().to_owned();
        Changer { places: &self.places, run, system: &self.system, parts: self, machine: self }
    }

    fn set(&self, key: &str, values: &[&str]) -> Outcome {
        let values = values.iter().map(|value| (*value).to_owned()).collect();
        self.changer().change(&Wish::Set(Key::parse(key).unwrap(), values), 300).unwrap()
    }

    fn apply(&self, text: &str) -> Result<Outcome, Refused> {
        self.changer().change(&Wish::Apply("new.toml".to_owned(), text.into()), 300)
    }

    fn report(&self) -> Report {
        Report::read(&self.places.report).unwrap()
    }

    fn look(&self) -> bool {
        self.changer().watch(&|line| self.did(line.to_owned()))
    }

    /// What was done to the machine since this was asked last.
    fn take(&self) -> String {
        self.done.take().join(", ")
    }

    /// The texts that were written to the disk since this was asked last.
    fn kept(&self) -> Vec<Vec<u8>> {
        let text = |store| match store {
            Store::KeepDevice(bytes) => bytes,
            other => panic!("{other:?}"),
        };
        self.stored.take().into_iter().map(text).collect()
    }
}

fn before() -> Report {
    let config = Config::parse(FILE.as_bytes()).unwrap();
    let (text, base) = (FILE.to_owned(), Base::of(FILE.as_bytes()));
    Report { source: Source::File, problem: None, config, text, base }
}

fn facts(outcome: &Outcome) -> Value {
    serde_json::from_str(&outcome.json()).unwrap()
}

#[test]
fn a_host_name_is_kept_with_the_owners_comments_and_in_force_at_once() {
    let device = Fake::new();
    let outcome = device.set("hostname", &["new"]);
    assert_eq!(outcome.text(), "in force: hostname\n");
    let text = FILE.replace("old", "new");
    assert_eq!(device.kept(), [device::encode(&text, Base::of(FILE.as_bytes()))]);
    assert_eq!(device.take(), "name new, NetworkAgain, NamesAnew");
    let report = device.report();
    assert_eq!((report.source, &*report.text), (Source::Device, &*text));
    let network = fs::read_to_string(&device.places.network).unwrap();
    assert!(network.contains("\nhostname new\n"), "{network}");
    assert_eq!(device.set("hostname", &["new"]).code(), 1, "it is so already");
}

#[test]
fn what_is_wrong_or_cannot_be_kept_changes_nothing() {
    let device = Fake::new();
    let wrong = device.apply("hostname = \"old\"\n[network]\ndns = [\"nowhere\"]\n").unwrap_err();
    assert_eq!((&*wrong.file, wrong.problems.first().line), ("new.toml", 3));
    device.is_full.set(true);
    let outcome = device.set("hostname", &["new"]);
    let expected =
        "error: nothing was changed: the data partition cannot keep it: disk full\nhint: ";
    assert!(outcome.text().starts_with(expected), "{outcome:?}");
    assert_eq!((outcome.code(), device.take()), (2, String::new()));
    assert_eq!(device.report(), before());
}

#[test]
fn what_has_to_wait_for_a_restart_is_told() {
    let device = Fake::new();
    let outcome = device.set("health.window-s", &["90"]);
    assert_eq!(outcome.text(), "in force after a restart: health.window-s\n");
    assert_eq!(device.kept().len(), 1);
    let facts = facts(&device.apply("# all gone\n").unwrap());
    assert_eq!(facts["in-force"], json!(["hostname"]));
    assert_eq!(facts["after-restart"], json!(["health.window-s"]));
    assert_eq!(device.take(), "name old, name iota, NetworkAgain, NamesAnew");
}

#[test]
fn a_network_change_reaches_no_disk_until_it_is_confirmed() {
    let device = Fake::new();
    let outcome = device.set("network.dns", &["10.0.0.1"]);
    assert_eq!(facts(&outcome)["confirm-within-s"], 300);
    assert!(outcome.text().contains("`iota config confirm` within 300 s"), "{outcome:?}");
    assert_eq!(device.take(), "keeper, name old, NetworkAnew");
    assert_eq!(device.report().text, DNS);
    assert_eq!((device.kept().len(), device.changer().left_s()), (0, Some(300)));
    device.now_s.set(1299);
    assert!(device.look());
    assert_eq!(device.changer().confirm().text(), "the network change is kept\n");
    assert_eq!(device.kept(), [device::encode(DNS, Base::of(FILE.as_bytes()))]);
    assert!(!device.look(), "nothing is left to watch");
    assert_eq!(device.changer().confirm().code(), 1);
    assert_eq!((device.take(), device.changer().left_s()), (String::new(), None));
}

#[test]
fn a_network_change_that_nobody_confirms_is_reverted_and_leaves_a_note() {
    let device = Fake::new();
    device.set("network.dns", &["10.0.0.1"]);
    device.take();
    device.now_s.set(1300);
    assert!(!device.look());
    let done = device.take();
    assert!(done.starts_with("name old, NetworkAnew, config: the network change"), "{done}");
    let report = device.report();
    assert_eq!((report.source, &*report.text), (Source::File, FILE));
    assert!(report.problem.unwrap().contains("was not confirmed"));
    assert_eq!(device.kept().len(), 0);
}

#[test]
fn a_confirmation_that_comes_too_late_reverts_as_time_would_have() {
    let device = Fake::new();
    device.set("network.dns", &["10.0.0.1"]);
    device.now_s.set(1300);
    let outcome = device.changer().confirm();
    assert_eq!(outcome.code(), 2);
    assert!(outcome.text().starts_with("error: too late: "), "{outcome:?}");
    assert_eq!((device.report().text, device.kept().len()), (FILE.to_owned(), 0));
}

#[test]
fn what_is_changed_during_a_trial_is_on_trial_with_it_and_its_time_starts_anew() {
    let device = Fake::new();
    device.set("network.dns", &["10.0.0.1"]);
    device.now_s.set(1200);
    device.set("hostname", &["new"]);
    assert_eq!((device.kept().len(), device.changer().left_s()), (0, Some(300)));
    device.now_s.set(1500);
    assert!(!device.look());
    assert_eq!(device.report().text, FILE);
    assert!(device.take().ends_with("what was before is in force"));
}

#[test]
fn a_trial_ends_when_the_network_is_what_it_was() {
    let device = Fake::new();
    device.set("network.dns", &["10.0.0.1"]);
    let outcome = device.apply(FILE).unwrap();
    assert_eq!(outcome.text(), "the network change is taken back\n");
    assert_eq!((device.report(), device.changer().left_s()), (before(), None));
    device.set("network.dns", &["10.0.0.1"]);
    device.apply("hostname = \"new\"\n").unwrap();
    assert_eq!((device.kept().len(), device.changer().left_s()), (1, None));
}

#[test]
fn a_trial_that_cannot_be_kept_goes_on() {
    let device = Fake::new();
    device.set("network.dns", &["10.0.0.1"]);
    device.is_full.set(true);
    assert_eq!(device.changer().confirm().code(), 2);
    assert_eq!(device.changer().left_s(), Some(300));
}

#[test]
fn a_trial_that_nobody_watched_is_reverted_before_the_next_change() {
    let device = Fake::new();
    device.set("network.dns", &["10.0.0.1"]);
    device.now_s.set(1300);
    device.set("hostname", &["new"]);
    assert_eq!(device.report().text, FILE.replace("old", "new"));
    assert_eq!(device.kept().len(), 1);
}
