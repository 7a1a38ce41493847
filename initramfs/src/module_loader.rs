//! Loads kernel modules: those the description names, and those of devices as they appear.
//!
//! Loading a module probes its devices and may take seconds, so it is done beside the main loop,
//! which never waits for it. Two loads of the same module at once are the kernel's to sort out.

use std::collections::{HashMap, HashSet};
use std::ffi::{CString, OsStr};
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;

use rustix::io::Errno;
use rustix::process::setpriority_process;
use rustix::system::{finit_module, uname};

use crate::failure::{Context, Failure, Result};
use crate::linux;
use crate::log::{note, say};
use crate::modules::{self, Index};
use crate::plan::Step;

/// `MODULE_INIT_COMPRESSED_FILE`: the kernel unpacks it.
const COMPRESSED: i32 = 4;
/// The least a thread can want to run (`nice(1)`; on Linux each thread has its own).
const IDLE_NICE: i32 = 19;

/// The modules of the running kernel.
#[derive(Clone)]
pub(crate) struct Loader(Arc<Inner>);

struct Inner {
    directory: PathBuf,
    index: Index,
    /// What is being loaded, was loaded or found hopeless.
    states: Mutex<HashMap<String, State>>,
    /// A load has ended.
    ended: Condvar,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    Loading,
    Loaded,
    Hopeless,
}

impl Loader {
    /// Reads the index of the running kernel's modules; without one there are no modules.
    pub(crate) fn open() -> Self {
        let release = uname().release().to_string_lossy().into_owned();
        let directory = Path::new("/usr/lib/modules").join(release);
        let read = |name| fs::read_to_string(directory.join(name)).unwrap_or_default();
        let index =
            Index::parse(&read("modules.dep"), &read("modules.alias"), &read("modules.softdep"));
        let (states, ended) = (Mutex::default(), Condvar::new());
        Self(Arc::new(Inner { directory, index, states, ended }))
    }

    /// Loads what answers a module name or alias; gives whether everything is there now.
    pub(crate) fn load(&self, request: &str) -> bool {
        let order = self.0.index.load_order(request);
        if order.is_empty() {
            return self.is_built_in(request);
        }
        // All of them are tried: a soft dependency that fails spares the rest.
        let failed = order.iter().filter(|path| !self.load_file(path)).count();
        failed == 0
    }

    /// Whether this is the name of a module that is part of the kernel itself. The list is only
    /// read when somebody asks: devices without a module, which are most, have no such name.
    fn is_built_in(&self, request: &str) -> bool {
        let name = |path: &str| modules::name_of(path) == modules::name_of(request);
        let list = || fs::read_to_string(self.0.directory.join("modules.builtin"));
        !request.contains(':') && list().is_ok_and(|list| list.lines().any(name))
    }

    fn load_file(&self, path: &str) -> bool {
        if let Some(state) = self.begin(path) {
            return state == State::Loaded;
        }
        // Looking is cheap; the kernel would read and check the whole file before it says so.
        let loaded = if is_live(path) { Ok(()) } else { insert(&self.0.directory.join(path)) };
        let state = match loaded {
            Ok(()) => State::Loaded,
            Err(failure) => {
                note(&failure.to_string());
                State::Hopeless
            }
        };
        self.states().insert(path.to_owned(), state);
        self.0.ended.notify_all();
        state == State::Loaded
    }

    /// Claims a module for the caller, or waits for whoever loads it and gives how that ended.
    fn begin(&self, path: &str) -> Option<State> {
        let mut states = self.states();
        loop {
            match states.get(path) {
                None => {
                    states.insert(path.to_owned(), State::Loading);
                    return None;
                }
                Some(State::Loading) => {
                    states = self.0.ended.wait(states).unwrap_or_else(PoisonError::into_inner);
                }
                Some(state) => return Some(*state),
            }
        }
    }

    fn states(&self) -> MutexGuard<'_, HashMap<String, State>> {
        self.0.states.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether the module of this file is in the kernel already and has finished its start.
fn is_live(path: &str) -> bool {
    let state = format!("/sys/module/{}/initstate", modules::name_of(path));
    fs::read_to_string(state).is_ok_and(|state| state.trim() == "live")
}

/// Loads a module from its file, with what the kernel command line says for it. One that is there
/// already is fine, and so is one that finds nothing to drive.
pub(crate) fn insert(path: &Path) -> Result<()> {
    let name = path.display();
    let file = File::open(path).context(&name)?;
    let flags = if path.extension() == Some(OsStr::new("ko")) { 0 } else { COMPRESSED };
    let line = fs::read_to_string("/proc/cmdline").unwrap_or_default();
    let settings = modules::settings(&line, &modules::name_of(&name.to_string()));
    let settings = CString::new(settings).context(&name)?;
    match finit_module(&file, &settings, flags) {
        Ok(()) | Err(Errno::EXIST) => Ok(()),
        Err(Errno::NODEV) => Err(Failure::new(format!("{name}: finds no device"))),
        Err(error) => Err(error).context(name),
    }
}

/// What the thread beside the main loop is asked to do.
pub(crate) enum Work {
    /// Load what answers this alias of a device that appeared.
    Device(String),
    /// Look at all devices: at the start, and when events about some were lost.
    AllDevices,
    /// Apply settings that wait for the named modules.
    Settings(Vec<Step>),
}

/// Starts the thread. It loads the named modules, then does what it is asked.
pub(crate) fn start(loader: Loader, names: Vec<String>) -> Result<Sender<Work>> {
    let (sender, receiver) = channel();
    let work = move || {
        for name in names {
            if !loader.load(&name) {
                say(&format!("module {name}: not loaded"));
            }
        }
        serve(&loader, &receiver);
    };
    thread::Builder::new().name("modules".into()).spawn(work).context("module thread")?;
    Ok(sender)
}

fn serve(loader: &Loader, receiver: &Receiver<Work>) {
    let mut seen = HashSet::new();
    let mut processor_done = false;
    while let Ok(work) = receiver.recv() {
        match work {
            Work::Device(alias) => load_new(loader, &mut seen, alias),
            Work::AllDevices => {
                load_all(loader, &mut seen);
                note("the modules of all devices are loaded");
                if !std::mem::replace(&mut processor_done, true) {
                    load_for_processor(loader.clone());
                }
            }
            Work::Settings(steps) => apply(steps),
        }
    }
}

fn apply(steps: Vec<Step>) {
    for step in steps {
        if let Err(failure) = linux::perform_step(&step, &mut |_| Ok(())) {
            say(&format!("{step}: {failure}"));
        }
    }
}

fn load_all(loader: &Loader, seen: &mut HashSet<String>) {
    for alias in aliases(Path::new("/sys"), &["bus/*/devices/*", "class/*/*"]) {
        load_new(loader, seen, alias);
    }
}

/// Loads what the processor has instructions for, which is ciphers, and only while nothing else
/// wants to run: they take long, and an engine that starts has more use for the time.
fn load_for_processor(loader: Loader) {
    let work = move || {
        // Without the lower priority it is done all the same.
        let _ = setpriority_process(None, IDLE_NICE);
        for alias in aliases(Path::new("/sys"), &["devices/system/cpu"]) {
            loader.load(&alias);
        }
    };
    if let Err(error) = thread::Builder::new().name("modules-cpu".into()).spawn(work) {
        note(&format!("modules of the processor: {error}"));
    }
}

fn load_new(loader: &Loader, seen: &mut HashSet<String>, alias: String) {
    if !seen.contains(&alias) {
        loader.load(&alias);
        seen.insert(alias);
    }
}

/// The modalias of every device that one of the patterns names.
///
/// The lists of buses and classes are looked into; the tree of devices itself has ten times as many
/// directories.
fn aliases(sysfs: &Path, patterns: &[&str]) -> Vec<String> {
    patterns
        .iter()
        .flat_map(|pattern| matching(sysfs, pattern))
        .filter_map(|device| fs::read_to_string(device.join("modalias")).ok())
        .map(|alias| alias.trim().to_owned())
        .filter(|alias| !alias.is_empty())
        .collect()
}

/// The paths that a pattern names; `*` stands for any name.
fn matching(directory: &Path, pattern: &str) -> Vec<PathBuf> {
    let mut found = vec![directory.to_owned()];
    for part in pattern.split('/') {
        let step = |path: &PathBuf| match part {
            "*" => fs::read_dir(path).into_iter().flatten().flatten().map(|it| it.path()).collect(),
            name => vec![path.join(name)],
        };
        found = found.iter().flat_map(step).collect();
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn devices_of_buses_and_classes_are_found_and_the_processor_by_itself() {
        let sysfs = std::env::temp_dir().join(format!("iota-aliases-{}", std::process::id()));
        for (device, alias) in [
            ("devices/system/cpu", "cpu:type:aarch64:feature:,0003\n"),
            ("bus/virtio/devices/virtio0", "virtio:d00000001v00001AF4\n"),
            ("bus/pci/devices/0000:00:01.0", "pci:v00001AF4d00001041\n"),
            ("bus/pci/devices/0000:00:02.0", "\n"),
            ("class/input/input0", "input:b0019v0000\n"),
            ("devices/virtio0", "not looked at: it is on its bus"),
        ] {
            fs::create_dir_all(sysfs.join(device)).unwrap();
            fs::write(sysfs.join(device).join("modalias"), alias).unwrap();
        }
        fs::create_dir_all(sysfs.join("class/mem/null")).unwrap();
        let mut devices = aliases(&sysfs, &["bus/*/devices/*", "class/*/*"]);
        let processor = aliases(&sysfs, &["devices/system/cpu"]);
        fs::remove_dir_all(&sysfs).unwrap();
        devices.sort();
        let expected = ["input:b0019v0000", "pci:v00001AF4d00001041", "virtio:d00000001v00001AF4"];
        assert_eq!(devices, expected);
        assert_eq!(processor, ["cpu:type:aarch64:feature:,0003"]);
    }
}
