//! The owner's `iota.toml`: read at each start, kept when it is good, applied.
//!
//! ```text
//! iota config load ─┬─ read-file ── boot partition, read-only ──► bytes, none, or why not
//!                   ├─ read-device ─ /data/iota/config-device.toml ─► changed on the device
//!                   ├─ read-kept ── /data/iota/config-SLOT.toml ─► the last good; if need be
//!                   │  decide ──── what holds, what is said, what is stored
//!                   │  apply ───── host name, settings of the kernel, files for the daemons
//!                   │  report ──── /run/iota/config.json, for everyone who wants to know
//!                   └─ keep, drop, forget ── the copies on the data partition
//!
//! iota config set ──── edit, check ── keep-device, or on trial in /run ── apply, tell daemons
//! ```
//!
//! What touches a disk is a process of its own with a time limit, since a thread that waits for a
//! dead card cannot be ended and would hold up the start of the network. Nothing here keeps a
//! device from starting: what cannot be done is said, and the rest is done.
//!
//! Reading order: [`decide`] → [`device`] → [`disks`] → [`parts`] → [`apply`] → [`report`]; for
//! changes on a device that runs [`trial`] → [`effects`] → [`change`] → [`running`]; [`get`].

use std::io;
use std::path::{Path, PathBuf};

use ondisk::system::{Container, ENVIRONMENT, Health, System};

use crate::console::Console;
use crate::online::tls;
use crate::{modprobe, wifi};

pub mod apply;
pub mod change;
pub mod decide;
pub mod device;
pub mod disks;
pub mod effects;
pub mod get;
pub mod outside;
pub mod parts;
pub mod report;
pub mod running;
pub mod trial;

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
    /// What wpa_supplicant is started with; no part of it is the root's.
    pub wifi: PathBuf,
    /// chronyd's configuration in the root.
    pub chrony: PathBuf,
    /// The one it is started with.
    pub time: PathBuf,
    /// The authorities of the root.
    pub roots: PathBuf,
    /// Those and the owner's.
    pub bundle: PathBuf,
    /// What Docker reads when it starts.
    pub docker: PathBuf,
    /// What Podman reads of registries.
    pub podman: PathBuf,
    /// What loads a module.
    pub modprobe: PathBuf,
    /// What services are started with beside their own environment.
    pub environment: PathBuf,
    /// What holds, and why.
    pub report: PathBuf,
}

impl Default for Places {
    fn default() -> Self {
        Self {
            sysctls: "/proc/sys".into(),
            dhcpcd: "/etc/dhcpcd.conf".into(),
            network: "/run/iota/network.conf".into(),
            wifi: wifi::Places::default().file,
            chrony: "/etc/chrony/chrony.conf".into(),
            time: "/run/iota/time.conf".into(),
            roots: tls::ROOTS.into(),
            bundle: outside::BUNDLE.into(),
            docker: "/run/iota/docker.json".into(),
            podman: "/run/iota/registries.conf".into(),
            modprobe: modprobe::PROGRAM.into(),
            environment: ENVIRONMENT.into(),
            report: Report::path().into(),
        }
    }
}

#[cfg(test)]
impl Places {
    /// All of them in the directory of a test.
    fn within(directory: &std::path::Path) -> Self {
        let path = |name: &str| directory.join(name);
        Self {
            sysctls: path("sys"),
            dhcpcd: path("dhcpcd.conf"),
            network: path("network.conf"),
            wifi: path("wifi.conf"),
            chrony: path("chrony.conf"),
            time: path("time.conf"),
            roots: path("roots.crt"),
            bundle: path("bundle.crt"),
            docker: path("docker.json"),
            podman: path("registries.conf"),
            modprobe: "/bin/true".into(),
            environment: path("environment"),
            report: path("config.json"),
        }
    }
}

/// Reads, decides, applies, keeps; says on the console what came of it.
pub fn load(
    places: &Places,
    system: &System,
    parts: &(dyn Parts + Sync),
    set_hostname: &dyn Fn(&str) -> io::Result<()>,
    console: &Console,
) {
    let say = |trouble: &str| console.say(&format!("config: ERROR: {trouble}"));
    // Before anything that may hang: the network is started whatever becomes of this.
    for trouble in apply::daemons(places, &config::Config::default()) {
        say(&trouble);
    }
    let (file, device) = std::thread::scope(|scope| {
        let device = scope.spawn(|| parts.read_device());
        let file = parts.read_file();
        (file, device.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
    });
    let decision = decide(file, device, || parts.read_kept());
    console.say(&decision.line());
    for line in decision.left_out() {
        console.say(&format!("config: left out: {line}"));
    }
    let troubles = apply::everything(places, system, &decision.config, set_hostname);
    troubles.iter().for_each(|trouble| say(trouble));
    if let Err(error) = Report::of(&decision).write(&places.report) {
        say(&format!("{}: {error}", places.report.display()));
    }
    for store in &decision.store {
        if let Err(error) = parts.store(store) {
            say(&format!("the copy on the data partition: {error}"));
        }
    }
}

/// The health window: the owner's, as far as the image leaves time for it. A trial that cannot end
/// well would be the end of updates.
pub fn window_s(report: Option<&Report>, declared: &Health) -> u32 {
    let wanted = report.and_then(|report| report.config.health_window_s());
    wanted.map_or(declared.window_s, |wanted| wanted.min(declared.limit_s / 2))
}

/// Containers with the time zone of this device; one that was made for another is made anew.
pub fn in_their_zone(containers: &[Container]) -> Vec<Container> {
    let mut containers = containers.to_vec();
    let zone = time_zone(Report::path());
    containers.iter_mut().for_each(|container| container.environment.extend(zone.clone()));
    containers
}

/// The variable that tells a container its time zone, if the owner chose one.
pub fn time_zone(report: &Path) -> Option<String> {
    let report = Report::read(report).ok()?;
    report.config.time_zone().map(|zone| format!("TZ={zone}"))
}

#[cfg(test)]
mod tests;
