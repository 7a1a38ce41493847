//! `iota reset`: asks for the data partition to be made new at the next start, by PID 1 and before
//! anybody uses it ([`ondisk::reset`]); and the owner's way to ask with a card reader alone.
//!
//! ```text
//! iota reset ───────────────────────► request in the record partition ──► `iota reboot`
//! `iota-reset` on the boot partition ─► the same, then the file is removed ─► restart
//! ```
//! The file is removed before the restart and after the request: a cut between the two leads to a
//! second reset of an empty partition. A file that cannot be removed would lead to one at every
//! start, so the request is taken back then.

use std::fs;
use std::path::Path;

use ondisk::boot_record::CopyError;
use ondisk::reset::{self, Reset};
use serde_json::json;

use crate::own_config::disks::{self, Mounted, Use, read_whole};
use crate::own_disk::{Lock, OwnDisk};
use crate::power_cycles::{self, Meaning};
use crate::update::{Facts, Outcome};

/// How many starts in a row did not last.
const STARTS: &str = "/data/iota/starts";
/// The owner's file, and what an editor on Windows makes of its name.
const MARKERS: [&str; 2] = ["iota-reset", "iota-reset.txt"];
/// What it may say.
const KEEP_IDENTITY: &str = "keep-identity";

/// What to do about a reset.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Request {
    /// Ask for one.
    Ask(Reset),
    /// Take it back.
    Cancel,
}

/// Does it; gives what came of it.
pub fn run(request: Request, facts: &Facts) -> Outcome {
    let result = match request {
        Request::Ask(reset) => ask(facts, reset).map(|()| {
            let text = format!(
                "{reset} on the data partition goes at the next start: `iota reboot`; \
                 `iota reset cancel` takes that back"
            );
            Outcome::Done(text, json!({ "reset": word(reset) }))
        }),
        Request::Cancel => cancel(facts).map(|stood| match stood {
            Some(_) => Outcome::Done("nothing is reset".to_owned(), json!({ "reset": null })),
            None => Outcome::Nothing("no reset was asked for".to_owned()),
        }),
    };
    result.unwrap_or_else(Outcome::from)
}

/// The word for programs.
pub fn word(reset: Reset) -> &'static str {
    match reset {
        Reset::Everything => "everything",
        Reset::KeepIdentity => KEEP_IDENTITY,
    }
}

fn open(facts: &Facts) -> Result<(Lock, OwnDisk), String> {
    let lock = Lock::take(&facts.run.join("update.lock"))?;
    let disk = OwnDisk::open_to_write(&facts.devices, &facts.boot()?)?;
    Ok((lock, disk))
}

fn failed(disk: &str, error: &CopyError<std::io::Error>) -> String {
    format!("{disk}: the request for a reset: {error}")
}

fn ask(facts: &Facts, reset: Reset) -> Result<(), String> {
    let (name, table) = facts.devices.find(facts.boot()?.disk)?;
    table.data().map_err(|error| format!("{name}: {error}, so there is nothing to reset"))?;
    let (_lock, mut disk) = open(facts)?;
    let asked = reset::ask(&mut disk.device, disk.place.record, reset);
    asked.map_err(|error| failed(&disk.name, &error))
}

/// Gives the request that stood.
fn cancel(facts: &Facts) -> Result<Option<Reset>, String> {
    let (_lock, mut disk) = open(facts)?;
    let stood = reset::read(&disk.device, disk.place.record);
    let taken = reset::take_back(&mut disk.device, disk.place.record);
    taken.map_err(|error| failed(&disk.name, &error)).map(|()| stood)
}

/// Asks for a reset if the owner's file does, and removes it; gives what was asked for.
pub fn obey_marker(facts: &Facts) -> Result<Option<Reset>, String> {
    let found = {
        let boot = Mounted::boot_partition(facts, Use::Read)?;
        marker_in(boot.path())?
    };
    let Some((name, reset)) = found else { return Ok(None) };
    ask(facts, reset)?;
    let removed = Mounted::boot_partition(facts, Use::Change).and_then(|boot| {
        let path = boot.path().join(name);
        fs::remove_file(&path).map_err(|error| format!("{name} cannot be removed: {error}"))?;
        boot.finish()
    });
    match removed {
        Ok(()) => Ok(Some(reset)),
        Err(error) => {
            cancel(facts)?;
            Err(format!("{error}; nothing is reset, as each start would do so again"))
        }
    }
}

/// Counts this start if the owner wants that, and asks for a reset if it is one too many: true.
pub fn obey_power_cycles(facts: &Facts, wanted: bool, say: &dyn Fn(&str)) -> Result<bool, String> {
    let file = Path::new(STARTS);
    let failed = |error: std::io::Error| format!("{STARTS}: {error}");
    // A trial restarts by itself, a few times in quick succession.
    if !wanted || facts.boot()?.attempt > 0 {
        return power_cycles::forget(file).map(|()| false).map_err(failed);
    }
    disks::is_on_disk(file.parent().unwrap_or(file))?;
    match power_cycles::count(file).map_err(failed)? {
        Meaning::Reset => {
            ask(facts, Reset::Everything)?;
            let cycles = power_cycles::CYCLES;
            say(&format!("reset: asked for by {cycles} starts in quick succession; restarting"));
            Ok(true)
        }
        Meaning::Counts(now) => {
            if let Some(line) = power_cycles::told(now) {
                say(&line);
            }
            let waited = power_cycles::wait_until_it_lasts();
            waited.and_then(|()| power_cycles::forget(file)).map(|()| false).map_err(failed)
        }
    }
}

/// The owner's file in the top directory of a mounted boot partition.
fn marker_in(directory: &Path) -> Result<Option<(&'static str, Reset)>, String> {
    for name in MARKERS {
        let found =
            read_whole(&directory.join(name)).map_err(|error| format!("{name}: {error}"))?;
        if let Some(bytes) = found {
            let text = String::from_utf8_lossy(&bytes);
            let keeps = text.lines().any(|line| line.trim() == KEEP_IDENTITY);
            return Ok(Some((name, if keeps { Reset::KeepIdentity } else { Reset::Everything })));
        }
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_owners_file_is_found_under_both_names_and_may_keep_the_identity() {
        let directory = tempfile::tempdir().unwrap();
        let top = directory.path();
        assert_eq!(marker_in(top), Ok(None));
        fs::write(top.join("iota-reset.txt"), "").unwrap();
        assert_eq!(marker_in(top), Ok(Some(("iota-reset.txt", Reset::Everything))));
        fs::write(top.join("iota-reset"), "keep-identity\r\n").unwrap();
        assert_eq!(marker_in(top), Ok(Some(("iota-reset", Reset::KeepIdentity))));
        fs::write(top.join("iota-reset"), "please").unwrap();
        assert_eq!(marker_in(top), Ok(Some(("iota-reset", Reset::Everything))));
    }
}
