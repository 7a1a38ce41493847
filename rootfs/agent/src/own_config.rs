//! The owner's `iota.toml`: read at each start, kept when it is good, applied.
//!
//! ```text
//! iota config load ─┬─ read-file ── boot partition, read-only ──► bytes, none, or why not
//!                   ├─ read-kept ── /data/iota/config-SLOT.toml ─► the same; only if need be
//!                   │  decide ──── what holds, what is said, what is stored
//!                   │  apply ───── host name, settings of the kernel, files for the daemons
//!                   │  report ──── /run/iota/config.json, for everyone who wants to know
//!                   └─ keep, forget ── the copy on the data partition
//! ```
//!
//! What touches a disk is a process of its own with a time limit, since a thread that waits for a
//! dead card cannot be ended and would hold up the start of the network. Nothing here keeps a
//! device from starting: what cannot be done is said, and the rest is done.
//!
//! Reading order: [`decide`] → [`disks`] → [`parts`] → [`apply`] → [`report`].

use std::io;
use std::path::{Path, PathBuf};

use ondisk::system::{Health, System};

use crate::console::Console;

pub mod apply;
pub mod decide;
pub mod disks;
pub mod parts;
pub mod report;

pub use decide::{Source, decide};
pub use parts::Parts;
pub use report::Report;

/// What is written at a start, and from what.
#[derive(Clone, Debug)]
pub struct Places {
    /// The kernel's settings.
    pub sysctls: PathBuf,
    /// dhcpcd's configuration in the root.
    pub dhcpcd: PathBuf,
    /// The one it is started with.
    pub network: PathBuf,
    /// chronyd's configuration in the root.
    pub chrony: PathBuf,
    /// The one it is started with.
    pub time: PathBuf,
    /// What holds, and why.
    pub report: PathBuf,
}

impl Default for Places {
    fn default() -> Self {
        Self {
            sysctls: "/proc/sys".into(),
            dhcpcd: "/etc/dhcpcd.conf".into(),
            network: "/run/iota/network.conf".into(),
            chrony: "/etc/chrony/chrony.conf".into(),
            time: "/run/iota/time.conf".into(),
            report: Report::path().into(),
        }
    }
}

/// Reads, decides, applies, keeps; says on the console what came of it.
pub fn load(
    places: &Places,
    system: &System,
    parts: &dyn Parts,
    set_hostname: &dyn Fn(&str) -> io::Result<()>,
    console: &Console,
) {
    let say = |trouble: &str| console.say(&format!("config: ERROR: {trouble}"));
    // Before anything that may hang: the network is started whatever becomes of this.
    for trouble in apply::daemons(places, &config::Config::default()) {
        say(&trouble);
    }
    let decision = decide(parts.read_file(), || parts.read_kept());
    console.say(&decision.line());
    let hostname = decision.config.hostname().unwrap_or(&system.hostname);
    if let Err(error) = set_hostname(hostname) {
        say(&format!("host name: {error}"));
    }
    let troubles = apply::sysctls(places, &decision.config);
    let others = apply::daemons(places, &decision.config);
    troubles.iter().chain(&others).for_each(|trouble| say(trouble));
    if let Err(error) = Report::of(&decision).write(&places.report) {
        say(&format!("{}: {error}", places.report.display()));
    }
    if let Err(error) = parts.store(&decision.store) {
        say(&format!("the copy on the data partition: {error}"));
    }
}

/// The health window: the owner's, as far as the image leaves time for it. A trial that cannot end
/// well would be the end of updates.
pub fn window_s(report: &Path, declared: &Health) -> u32 {
    let wanted = Report::read(report).ok().and_then(|report| report.config.health_window_s());
    wanted.map_or(declared.window_s, |wanted| wanted.min(declared.limit_s / 2))
}

#[cfg(test)]
mod tests;
