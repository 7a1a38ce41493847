//! What an Iota device makes of each key of a Compose file, as tables: fine, fine with a note, or
//! refused, each with its reason.
//!
//! The keys are those of the Compose Specification that Compose 2.26, which devices run, knows.

/// What becomes of a key.
#[derive(Clone, Copy, Debug)]
pub(super) enum Rule {
    /// As Compose has it.
    Fine,
    /// As Compose has it, but somebody should know this.
    Note(&'static str),
    /// It cannot be had: why, and what to do.
    Refused(&'static str, &'static str),
    /// It depends on what the key has.
    Look(Look),
}

/// What is looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Look {
    CapAdd,
    Devices,
    EnvFile,
    Extends,
    Image,
    Logging,
    NetworkMode,
    Platform,
    Privileged,
    Profiles,
    PullPolicy,
    Runtime,
    Volumes,
}

use Rule::{Fine, Note, Refused};

const NEWER: &str = "leave it out: devices run Compose 2.26";
const WINDOWS: &str = "leave it out: it is for Windows";

/// Keys of the file.
pub(super) const TOP: [(&str, Rule); 8] = [
    ("configs", Fine),
    (
        "include",
        Refused("an app is one file", "write the services of the other file into this one"),
    ),
    ("name", Note("the app is called after its directory; this name is not used")),
    ("networks", Fine),
    ("secrets", Fine),
    ("services", Fine),
    ("version", Note("Compose no longer reads it")),
    ("volumes", Fine),
];

/// Keys of a service.
pub(super) const SERVICE: [(&str, Rule); 96] = [
    ("annotations", Fine),
    ("attach", Fine),
    ("blkio_config", Fine),
    (
        "build",
        Refused(
            "a device builds no images",
            "build it on the laptop and name the result: `image:`, given with --with-image",
        ),
    ),
    ("cap_add", Rule::Look(Look::CapAdd)),
    ("cap_drop", Fine),
    ("cgroup", Fine),
    (
        "cgroup_parent",
        Refused("control groups of the host are the system's", "use `cpus` and `mem_limit`"),
    ),
    ("command", Fine),
    ("configs", Fine),
    ("container_name", Note("there can be one container of this service only")),
    ("cpu_count", Refused("it is for Windows", WINDOWS)),
    ("cpu_percent", Refused("it is for Windows", WINDOWS)),
    ("cpu_period", Fine),
    ("cpu_quota", Fine),
    ("cpu_rt_period", Refused("the kernel has no real-time groups", "use `cpus`")),
    ("cpu_rt_runtime", Refused("the kernel has no real-time groups", "use `cpus`")),
    ("cpu_shares", Fine),
    ("cpus", Fine),
    ("cpuset", Fine),
    ("credential_spec", Refused("it is for Windows", WINDOWS)),
    ("depends_on", Fine),
    ("deploy", Fine),
    ("develop", Refused("a device does not follow a source tree", "leave it out")),
    (
        "device_cgroup_rules",
        Refused(
            "it would give a container the host's disk or memory by number",
            "name the devices it needs: `devices: [/dev/ttyUSB0]`",
        ),
    ),
    ("devices", Rule::Look(Look::Devices)),
    ("dns", Fine),
    ("dns_opt", Fine),
    ("dns_search", Fine),
    ("domainname", Fine),
    ("entrypoint", Fine),
    ("env_file", Rule::Look(Look::EnvFile)),
    ("environment", Fine),
    ("expose", Fine),
    ("extends", Rule::Look(Look::Extends)),
    ("external_links", Fine),
    ("extra_hosts", Fine),
    ("gpus", Refused("Compose 2.26 does not know it", NEWER)),
    ("group_add", Fine),
    ("healthcheck", Fine),
    ("hostname", Fine),
    ("image", Rule::Look(Look::Image)),
    ("init", Fine),
    ("ipc", Fine),
    ("isolation", Refused("it is for Windows", WINDOWS)),
    ("label_file", Refused("Compose 2.26 does not know it", NEWER)),
    ("labels", Fine),
    ("links", Fine),
    ("logging", Rule::Look(Look::Logging)),
    ("mac_address", Fine),
    ("mem_limit", Fine),
    ("mem_reservation", Fine),
    ("mem_swappiness", Note("a device has no swap")),
    ("memswap_limit", Note("a device has no swap")),
    ("models", Refused("Compose 2.26 does not know it", NEWER)),
    ("network_mode", Rule::Look(Look::NetworkMode)),
    ("networks", Fine),
    ("oom_kill_disable", Refused("cgroup v2 has no such switch", "use `mem_limit`")),
    ("oom_score_adj", Fine),
    ("pid", Note("with `host` the container sees every process of the host")),
    ("pids_limit", Fine),
    ("platform", Rule::Look(Look::Platform)),
    ("ports", Fine),
    ("post_start", Refused("Compose 2.26 does not know it", NEWER)),
    ("pre_stop", Refused("Compose 2.26 does not know it", NEWER)),
    ("privileged", Rule::Look(Look::Privileged)),
    ("profiles", Rule::Look(Look::Profiles)),
    ("provider", Refused("Compose 2.26 does not know it", NEWER)),
    ("pull_policy", Rule::Look(Look::PullPolicy)),
    ("read_only", Fine),
    ("restart", Fine),
    ("runtime", Rule::Look(Look::Runtime)),
    ("scale", Fine),
    ("secrets", Fine),
    ("security_opt", Fine),
    ("shm_size", Fine),
    ("stdin_open", Fine),
    ("stop_grace_period", Fine),
    ("stop_signal", Fine),
    (
        "storage_opt",
        Refused(
            "the engine's storage has no limits for single containers",
            "keep what grows on a volume",
        ),
    ),
    ("sysctls", Fine),
    ("tmpfs", Fine),
    ("tty", Fine),
    ("ulimits", Fine),
    ("use_api_socket", Refused("Compose 2.26 does not know it", NEWER)),
    ("user", Fine),
    ("userns_mode", Fine),
    ("uts", Fine),
    ("volume_driver", Refused("devices have no volume drivers but `local`", "leave it out")),
    ("volumes", Rule::Look(Look::Volumes)),
    ("volumes_from", Fine),
    ("working_dir", Fine),
    ("cpu_rt_limit", Refused("the kernel has no real-time groups", "use `cpus`")),
    ("dockerfile", Refused("a device builds no images", "build it on the laptop")),
    ("net", Refused("Compose no longer knows it", "write `network_mode`")),
    ("log_driver", Refused("Compose no longer knows it", "write `logging`")),
];

/// Devices of the host that no container gets; `*` stands for anything.
pub(super) const DEVICES: [(&str, &str); 16] = [
    ("/dev", "it would be every device, the host's disk among them"),
    ("/dev/mem", "it is the machine's memory"),
    ("/dev/kmem", "it is the kernel's memory"),
    ("/dev/port", "it is the machine's ports"),
    ("/dev/vcio*", "it is the firmware's mailbox"),
    ("/dev/watchdog*", "PID 1 feeds it; a second one would reset the machine"),
    ("/dev/mmcblk*", "it is the host's disk"),
    ("/dev/sd*", "it may be the host's disk"),
    ("/dev/vd*", "it is the host's disk"),
    ("/dev/nvme*", "it is the host's disk"),
    ("/dev/disk*", "it is the host's disk"),
    ("/dev/block*", "it is the host's disk"),
    ("/dev/dm-*", "it is the verified root"),
    ("/dev/mapper*", "it is the verified root"),
    ("/dev/loop*", "it is a disk of the host"),
    ("/dev/zram*", "it is a disk of the host"),
];

/// What a bind mount from the host comes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Host {
    /// Nothing to say.
    Open,
    /// To be known.
    Known(&'static str),
    /// It cannot be written.
    ReadOnly,
    /// It is nobody's business.
    Secret(&'static str),
    /// It is not there.
    Absent(&'static str),
}

/// Paths of the host, the longest that fits counts.
pub(super) const PATHS: [(&str, Host); 23] = [
    ("/", Host::Secret("it has the device's own keys, and every container's data")),
    ("/bin", Host::ReadOnly),
    ("/boot", Host::Absent("the boot partition is not mounted")),
    ("/data", Host::Secret("it has the device's own keys; name a directory below it")),
    ("/data/", Host::Open),
    ("/data/containers", Host::Secret("it is the engine's")),
    ("/data/docker", Host::Secret("it is the engine's")),
    ("/data/iota", Host::Secret("it has the device's own keys and configuration")),
    ("/dev/", Host::Open),
    ("/etc", Host::ReadOnly),
    ("/home", Host::Absent("there are no home directories")),
    ("/lib", Host::ReadOnly),
    ("/media", Host::Absent("nothing is mounted there")),
    ("/mnt", Host::ReadOnly),
    ("/opt", Host::Absent("it is not in the root")),
    ("/proc", Host::ReadOnly),
    ("/root", Host::ReadOnly),
    ("/run", Host::Known("it is memory, and gone at each start")),
    ("/run/iota", Host::Secret("it is the system's")),
    ("/srv", Host::Absent("it is not in the root")),
    ("/sys", Host::Known("it is the kernel's")),
    ("/tmp", Host::Known("it is memory, and gone at each start")),
    ("/usr", Host::ReadOnly),
];

/// The rule of the longest path that fits.
pub(super) fn host(path: &str) -> Host {
    match path {
        "/run/docker.sock" | "/var/run/docker.sock" => {
            return Host::Known("whoever has the engine's socket owns the device");
        }
        path if ["/var/lib/docker", "/var/lib/containers"]
            .iter()
            .any(|it| path.starts_with(it)) =>
        {
            return Host::Secret("it is the engine's");
        }
        path if path.starts_with("/var/lib/") => {
            return Host::Known("it is memory, and gone at each start");
        }
        path if path.starts_with("/var/") => return Host::ReadOnly,
        _ => {}
    }
    let below = |prefix: &str| match prefix.strip_suffix('/') {
        Some("") => path == "/",
        Some(_) => path.starts_with(prefix),
        None => {
            path.strip_prefix(prefix).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
        }
    };
    let fitting = PATHS.iter().filter(|(prefix, _)| below(prefix));
    fitting
        .max_by_key(|(prefix, _)| prefix.len())
        .map_or(Host::Absent("there is no such directory in the root"), |(_, host)| *host)
}

/// Why a device is not given away.
pub(super) fn refused_device(path: &str) -> Option<&'static str> {
    let fits = |pattern: &str| match pattern.strip_suffix('*') {
        Some(start) => path.starts_with(start),
        None => path.trim_end_matches('/') == pattern,
    };
    DEVICES.iter().find(|(pattern, _)| fits(pattern)).map(|(_, why)| *why)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_path_that_fits_decides() {
        for (path, expected) in [
            ("/data/web", Host::Open),
            ("/usr/share/x", Host::ReadOnly),
            ("/usrx", Host::Absent("there is no such directory in the root")),
            ("/data/docker/volumes", Host::Secret("it is the engine's")),
            ("/var/lib/containers/storage", Host::Secret("it is the engine's")),
            ("/dev/ttyUSB0", Host::Open),
        ] {
            assert_eq!(host(path), expected, "{path}");
        }
        assert!(matches!(host("/"), Host::Secret(_)));
        assert!(matches!(host("/data"), Host::Secret(_)));
        assert!(matches!(host("/data/iota/identity"), Host::Secret(_)));
    }

    #[test]
    fn disks_memory_and_the_watchdog_are_given_to_nobody() {
        for path in ["/dev", "/dev/", "/dev/mem", "/dev/watchdog0", "/dev/mmcblk0p2", "/dev/vcio"] {
            assert!(refused_device(path).is_some(), "{path}");
        }
        for path in ["/dev/ttyUSB0", "/dev/i2c-1", "/dev/gpiochip0", "/dev/snd", "/dev/memory0"] {
            assert!(refused_device(path).is_none(), "{path}");
        }
    }
}
