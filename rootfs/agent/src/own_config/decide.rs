//! Which configuration holds: from what was found on the boot partition, what was changed on the
//! device, and what was kept.
//!
//! Pure. An owner who removes the file wants the defaults; a file that cannot be read or is wrong
//! is nobody's wish, and what held before goes on. A change made on the device is the owner's last
//! word as long as the boot partition has the file that it was based on; another good file there,
//! or its removal, came later and ends the change.

use config::import::Origin;
use config::{Config, FILE_NAME};

use super::device::{Base, Device};

/// What the boot partition has.
#[allow(clippy::large_enum_variant)] // one of them is made at a start
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Found {
    /// A good file, and its bytes.
    Good(Config, Vec<u8>),
    /// A file with a mistake: the first, as one clause, and its bytes.
    Bad(String, Vec<u8>),
    /// No file.
    Missing,
    /// Nobody knows, for this reason.
    Unreadable(String),
}

/// What the data partition has of the last good one.
#[allow(clippy::large_enum_variant)] // one of them is made at a start
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kept {
    /// A good copy, and its bytes.
    Good(Config, Vec<u8>),
    /// None was ever kept.
    Missing,
    /// One that cannot be used, for this reason.
    Unusable(String),
}

/// Where the configuration that holds comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// The owner's file.
    File,
    /// What was changed on the device.
    Device,
    /// The copy of the last good one.
    LastGood,
    /// The image alone.
    Defaults,
}

impl Source {
    const ALL: [(Self, &'static str); 4] = [
        (Self::File, "file"),
        (Self::Device, "device"),
        (Self::LastGood, "last-good"),
        (Self::Defaults, "defaults"),
    ];

    /// The word for it.
    pub fn word(self) -> &'static str {
        Self::ALL.iter().find(|(source, _)| *source == self).map_or("", |(_, word)| word)
    }

    /// Reads what [`Source::word`] writes.
    pub fn from_word(word: &str) -> Option<Self> {
        Self::ALL.iter().find(|(_, known)| *known == word).map(|(source, _)| *source)
    }
}

impl Source {
    /// For people; the origin is that of the text, if it was made of files that others wrote.
    pub fn describe(self, origin: Option<&Origin>) -> String {
        let file = origin.map_or(FILE_NAME, |origin| &origin.files);
        match self {
            Self::File if origin.is_some() => format!("imported from {file}"),
            Self::File => file.to_owned(),
            Self::Device if origin.is_some() => {
                format!("changed on the device, at first imported from {file}")
            }
            Self::Device => "changed on the device".to_owned(),
            Self::LastGood => format!("copy of the last good {file}"),
            Self::Defaults => "defaults".to_owned(),
        }
    }
}

/// What becomes of the files on the data partition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Store {
    /// This becomes the copy of the last good one.
    Keep(Vec<u8>),
    /// This becomes what was changed on the device.
    KeepDevice(Vec<u8>),
    /// What was changed on the device is removed.
    DropDevice,
    /// All of them are removed.
    Forget,
}

/// What holds from now on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decision {
    /// The configuration.
    pub config: Config,
    /// As its owner wrote it; empty if nobody did.
    pub text: String,
    /// Where it comes from.
    pub source: Source,
    /// What a change made from now on is based on.
    pub base: Base,
    /// Why it is not what the owner may have meant.
    pub problem: Option<String>,
    /// What is stored, in this order.
    pub store: Vec<Store>,
}

/// Decides; what was kept is asked for only if it matters.
pub fn decide(found: Found, device: Device, kept: impl FnOnce() -> Kept) -> Decision {
    let base = base(&found, &device);
    let mut troubles = Vec::from_iter(trouble(&found, &device));
    let stands = stands(&device, &found);
    if let Device::Unusable(_, why) = &device {
        troubles.push(format!("what was changed on the device: {why}"));
    }
    let is_sure = !matches!(device, Device::Unusable(None, _));
    let (config, bytes, source, store) = match (found, device) {
        (_, Device::Good(config, text, _)) if stands => {
            let bytes = text.into_bytes();
            (config, bytes.clone(), Source::Device, vec![Store::Keep(bytes)])
        }
        (Found::Good(config, bytes), device) if !stands => {
            let mut store = vec![Store::Keep(bytes.clone())];
            store.extend((device != Device::Missing && is_sure).then_some(Store::DropDevice));
            (config, bytes, Source::File, store)
        }
        (Found::Missing, _) if !stands => {
            let store = is_sure.then_some(Store::Forget).into_iter().collect();
            (Config::default(), Vec::new(), Source::Defaults, store)
        }
        (found, _) => {
            let (config, bytes, source) = what_held(found, kept(), &mut troubles);
            (config, bytes, source, Vec::new())
        }
    };
    let text = String::from_utf8_lossy(&bytes).into_owned();
    let problem = (!troubles.is_empty()).then(|| troubles.join("; "));
    Decision { config, text, source, base, problem, store }
}

/// Whether what was changed on the device came after what the boot partition has.
fn stands(device: &Device, found: &Found) -> bool {
    let based_on = |now: Base| device.base() == Some(now);
    match found {
        // What is wrong or cannot be read is no later word.
        Found::Bad(..) | Found::Unreadable(_) => *device != Device::Missing,
        Found::Good(_, bytes) => based_on(Base::of(bytes)),
        Found::Missing => based_on(Base::NoFile),
    }
}

/// What is wrong with the boot partition; a wrong file that a change has replaced is not.
fn trouble(found: &Found, device: &Device) -> Option<String> {
    match found {
        Found::Bad(_, bytes) if device.base() == Some(Base::of(bytes)) => None,
        Found::Bad(why, _) => Some(format!("{FILE_NAME}: {why}")),
        Found::Unreadable(why) => Some(format!("{FILE_NAME} cannot be read: {why}")),
        Found::Good(..) | Found::Missing => None,
    }
}

/// While the boot partition cannot be read, what it had when it last could.
fn base(found: &Found, device: &Device) -> Base {
    match found {
        Found::Good(_, bytes) | Found::Bad(_, bytes) => Base::of(bytes),
        Found::Missing => Base::NoFile,
        Found::Unreadable(_) => device.base().unwrap_or(Base::Unknown),
    }
}

/// The last good copy; without one, the file if it is good.
fn what_held(found: Found, kept: Kept, troubles: &mut Vec<String>) -> (Config, Vec<u8>, Source) {
    if let Kept::Unusable(why) = &kept {
        troubles.push(format!("the copy of the last good one: {why}"));
    }
    match (kept, found) {
        (Kept::Good(config, bytes), _) => (config, bytes, Source::LastGood),
        (_, Found::Good(config, bytes)) => (config, bytes, Source::File),
        _ => (Config::default(), Vec::new(), Source::Defaults),
    }
}

impl Decision {
    /// What the console says of files that others wrote, as far as it does not hold.
    pub fn left_out(&self) -> Vec<String> {
        Origin::of(&self.text).map(|origin| origin.left_out).unwrap_or_default()
    }

    /// What the console says.
    pub fn line(&self) -> String {
        let source = self.source.describe(Origin::of(&self.text).as_ref());
        match &self.problem {
            Some(problem) => format!("config: ERROR: {problem}; in force: {source}"),
            None => format!("config: {source}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(name: &str) -> String {
        format!("hostname = \"{name}\"\n")
    }

    fn named(name: &str) -> (Config, Vec<u8>) {
        (Config::parse(text(name).as_bytes()).unwrap(), text(name).into_bytes())
    }

    fn good(name: &str) -> Found {
        let (config, bytes) = named(name);
        Found::Good(config, bytes)
    }

    fn kept(name: &str) -> Kept {
        let (config, bytes) = named(name);
        Kept::Good(config, bytes)
    }

    /// Changed on the device while the boot partition had this.
    fn changed(name: &str, base: Base) -> Device {
        Device::Good(named(name).0, text(name), base)
    }

    fn bad() -> Found {
        Found::Bad(BAD.to_owned(), b"bad".to_vec())
    }

    fn dead() -> Found {
        Found::Unreadable("no answer".to_owned())
    }

    fn keep(name: &str) -> Vec<Store> {
        vec![Store::Keep(text(name).into_bytes())]
    }

    const BAD: &str = "line 1, column 1: no";

    /// Source, host name, store, and the line on the console.
    fn check(
        found: &Found,
        device: &Device,
        kept: &Kept,
        (source, name, store, line): (Source, &str, Vec<Store>, &str),
    ) {
        let decision = decide(found.clone(), device.clone(), || kept.clone());
        let place = format!("{found:?} {device:?} {kept:?}");
        assert_eq!(decision.line(), line, "{place}");
        assert_eq!(decision.source, source, "{place}");
        assert_eq!(decision.config.hostname().unwrap_or("-"), name, "{place}");
        assert_eq!(decision.store, store, "{place}");
        assert_eq!(decision.text, if name == "-" { String::new() } else { text(name) }, "{place}");
        assert_eq!(decision.problem.is_some(), line.contains("ERROR"), "{place}");
    }

    #[test]
    fn what_is_found_and_what_was_kept_decide_together() {
        use Source::{Defaults, File, LastGood};
        let broken = || Kept::Unusable("I/O error".to_owned());
        let none = Device::Missing;
        let last = "copy of the last good iota.toml";
        let bad_line = format!("config: ERROR: iota.toml: {BAD}");
        let dead_line = "config: ERROR: iota.toml cannot be read: no answer".to_owned();
        let also = "the copy of the last good one: I/O error";
        let forget = || vec![Store::Forget];
        for kept in [kept("old"), Kept::Missing, broken()] {
            check(&good("new"), &none, &kept, (File, "new", keep("new"), "config: iota.toml"));
            check(&Found::Missing, &none, &kept, (Defaults, "-", forget(), "config: defaults"));
        }
        for (found, line) in [(bad(), bad_line), (dead(), dead_line)] {
            for (kept, source, name, rest) in [
                (kept("old"), LastGood, "old", format!("in force: {last}")),
                (Kept::Missing, Defaults, "-", "in force: defaults".to_owned()),
                (broken(), Defaults, "-", format!("{also}; in force: defaults")),
            ] {
                let line = format!("{line}; {rest}");
                check(&found, &none, &kept, (source, name, Vec::new(), &line));
            }
        }
    }

    #[test]
    fn a_change_on_the_device_holds_until_the_boot_partition_has_another_good_file_or_none() {
        use Source::{Defaults, Device, File};
        let (old, bad_base) = (Base::of(text("old").as_bytes()), Base::of(b"bad"));
        let line = "config: changed on the device";
        let dropped = || [keep("new"), vec![Store::DropDevice]].concat();
        let forget = || vec![Store::Forget];
        for (found, base, expected) in [
            (good("old"), old, (Device, "mine", keep("mine"), line)),
            (good("new"), old, (File, "new", dropped(), "config: iota.toml")),
            (good("new"), Base::NoFile, (File, "new", dropped(), "config: iota.toml")),
            (good("new"), Base::Unknown, (File, "new", dropped(), "config: iota.toml")),
            (Found::Missing, Base::NoFile, (Device, "mine", keep("mine"), line)),
            (Found::Missing, old, (Defaults, "-", forget(), "config: defaults")),
            (bad(), bad_base, (Device, "mine", keep("mine"), line)),
        ] {
            check(&found, &changed("mine", base), &kept("other"), expected);
        }
        let bad_line = format!("config: ERROR: iota.toml: {BAD}; in force: changed on the device");
        let dead_line = "config: ERROR: iota.toml cannot be read: no answer; \
            in force: changed on the device";
        for (found, line) in [(bad(), &*bad_line), (dead(), dead_line)] {
            check(
                &found,
                &changed("mine", old),
                &kept("other"),
                (Device, "mine", keep("mine"), line),
            );
        }
    }

    #[test]
    fn a_change_that_this_system_does_not_understand_leaves_in_force_what_it_accepted_last() {
        use Source::{File, LastGood};
        let old = Base::of(text("old").as_bytes());
        let foreign = |base| Device::Unusable(base, "no".to_owned());
        let why = "config: ERROR: what was changed on the device: no; in force: ";
        let last = format!("{why}copy of the last good iota.toml");
        let file = format!("{why}iota.toml");
        let (none, new) = (Vec::new, || [keep("new"), vec![Store::DropDevice]].concat());
        let (found, own) = (good("old"), kept("mine"));
        check(&found, &foreign(Some(old)), &own, (LastGood, "mine", none(), &last));
        check(&found, &foreign(Some(old)), &Kept::Missing, (File, "old", none(), &file));
        check(&good("new"), &foreign(Some(old)), &own, (File, "new", new(), &file));
        // Damaged or out of reach: nothing is said about when, and nothing is removed.
        check(&good("new"), &foreign(None), &own, (File, "new", keep("new"), &file));
        let line = format!("{why}defaults");
        check(&Found::Missing, &foreign(None), &own, (Source::Defaults, "-", none(), &line));
    }

    #[test]
    fn the_next_change_is_based_on_what_the_boot_partition_has() {
        let old = Base::of(text("old").as_bytes());
        let base = |found, device| decide(found, device, || Kept::Missing).base;
        assert_eq!(base(good("old"), Device::Missing), old);
        assert_eq!(base(bad(), changed("mine", old)), Base::of(b"bad"));
        assert_eq!(base(Found::Missing, Device::Missing), Base::NoFile);
        assert_eq!(base(dead(), changed("mine", old)), old);
        assert_eq!(base(dead(), Device::Missing), Base::Unknown);
    }

    #[test]
    fn what_was_kept_is_not_read_when_it_cannot_matter() {
        for found in [good("new"), Found::Missing] {
            decide(found, Device::Missing, || panic!("it was read"));
        }
    }

    #[test]
    fn the_words_for_sources_are_read_back() {
        for source in [Source::File, Source::Device, Source::LastGood, Source::Defaults] {
            assert_eq!(Source::from_word(source.word()), Some(source));
        }
        assert_eq!(Source::from_word("elsewhere"), None);
    }
}
