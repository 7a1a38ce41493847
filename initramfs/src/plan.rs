//! What the late stage does before the first service, as a list computed from facts.
//!
//! No step may stop the start: an image with a broken setting must still come up far enough to be
//! reached and repaired. The list is noted in the log ring before it is carried out by
//! [`crate::linux`].

use std::fmt;

use ondisk::system::{Owner, System};
use rustix::mount::MountFlags;

/// Everything the plan depends on besides the system description.
#[derive(Debug, Default)]
pub(crate) struct Facts {
    /// Names of the file systems in /proc/filesystems.
    pub(crate) filesystems: Vec<String>,
    /// Device of the data partition, if the disk has one.
    pub(crate) data_device: Option<String>,
}

/// One thing to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// Mount a file system.
    Mount(Mount),
    /// Let mounts made later below this one be seen in mount namespaces made meanwhile.
    Share(&'static str),
    /// Make a directory and those above it.
    Directory {
        /// Where.
        path: String,
        /// Permission bits.
        mode: u32,
        /// Owner.
        owner: Owner,
    },
    /// Have contents of files that are made below this directory written through the journal, where
    /// the file system has one.
    Journal(String),
    /// Make a symbolic link.
    Link {
        /// Where.
        path: &'static str,
        /// What it points to.
        target: &'static str,
    },
    /// Let the groups below this one use every controller there is.
    Controllers(&'static str),
    /// Set a kernel setting. One of a module that is not loaded yet is tried again later.
    Sysctl {
        /// File below /proc/sys.
        path: String,
        /// What is written.
        value: String,
    },
    /// Set the host name.
    Hostname(String),
    /// Switch the loopback device on.
    Loopback,
    /// Mount this device on /data, or memory if there is none or it cannot be mounted.
    Data(Option<String>),
    /// Show a directory in a second place.
    Bind {
        /// What is shown.
        source: String,
        /// Where.
        target: String,
    },
}

/// A file system to mount.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Mount {
    /// Type of file system; also its name in the mount table.
    pub(crate) kind: &'static str,
    /// Where; made if it does not exist and can be made.
    pub(crate) path: String,
    /// Mount flags.
    pub(crate) flags: MountFlags,
    /// Options of the file system itself.
    pub(crate) options: String,
}

/// Nothing mounted writable may bring set-user-id programs or device nodes.
const CONFINED: MountFlags = MountFlags::NOSUID.union(MountFlags::NODEV);
const INERT: MountFlags = CONFINED.union(MountFlags::NOEXEC);

/// Where the group of all services is.
pub(crate) const SERVICES_GROUP: &str = "/sys/fs/cgroup/services";

/// The kernel's file systems that every stage needs first.
pub(crate) fn kernel_mounts() -> [Mount; 3] {
    [
        mount("proc", "/proc", INERT, ""),
        mount("sysfs", "/sys", INERT, ""),
        // Device nodes are what it is for, and exec is asked for by some drivers' users.
        mount("devtmpfs", "/dev", MountFlags::NOSUID, "mode=0755"),
    ]
}

/// The steps of the late stage, in order.
pub(crate) fn late(system: &System, facts: &Facts) -> Vec<Step> {
    // Containers are promised that a mount of the host can reach them (`rshared`).
    let mut steps = vec![Step::Share("/")];
    steps.extend(runtime_mounts(facts).into_iter().map(Step::Mount));
    steps.extend(device_links());
    steps.push(Step::Controllers("/sys/fs/cgroup"));
    steps.push(Step::Directory { path: SERVICES_GROUP.into(), mode: 0o755, owner: ROOT });
    steps.push(Step::Controllers(SERVICES_GROUP));
    steps.push(Step::Directory { path: "/run/iota".into(), mode: 0o755, owner: ROOT });
    steps.push(Step::Hostname(system.hostname.clone()));
    steps.push(Step::Loopback);
    steps.extend(system.sysctls.iter().map(|sysctl| Step::Sysctl {
        path: format!("/proc/sys/{}", sysctl.name.replace('.', "/")),
        value: sysctl.value.clone(),
    }));
    steps.extend(described_mounts(system));
    steps.push(Step::Data(facts.data_device.clone()));
    steps.extend(persistent(system));
    steps
}

/// The modules to load beside the steps, the one that the engine waits for first.
pub(crate) fn modules(system: &System, facts: &Facts) -> Vec<String> {
    let data = facts.data_device.iter().map(|_| DATA_FILESYSTEM.to_owned());
    data.chain(system.modules.iter().cloned()).collect()
}

/// File system of the data partition, and the name of its module.
pub(crate) const DATA_FILESYSTEM: &str = "ext4";

const ROOT: Owner = Owner { user: 0, group: 0 };

fn mount(kind: &'static str, path: &str, flags: MountFlags, options: &str) -> Mount {
    Mount { kind, path: path.to_owned(), flags, options: options.to_owned() }
}

fn runtime_mounts(facts: &Facts) -> Vec<Mount> {
    let all = [
        mount("tmpfs", "/run", CONFINED, "mode=0755,size=20%"),
        mount("tmpfs", "/tmp", CONFINED, "mode=1777,size=25%"),
        mount("devpts", "/dev/pts", MountFlags::NOSUID.union(MountFlags::NOEXEC), DEVPTS),
        mount("tmpfs", "/dev/shm", CONFINED, "mode=1777,size=25%"),
        mount("mqueue", "/dev/mqueue", INERT, ""),
        mount("cgroup2", "/sys/fs/cgroup", INERT, "nsdelegate,memory_recursiveprot"),
        mount("bpf", "/sys/fs/bpf", INERT, "mode=0700"),
        mount("securityfs", "/sys/kernel/security", INERT, ""),
    ];
    let known = |mount: &Mount| facts.filesystems.iter().any(|name| name == mount.kind);
    all.into_iter().filter(known).collect()
}

/// Group 5 is `tty` on Debian; terminals are writable by their user and, for messages, that group.
const DEVPTS: &str = "mode=0620,gid=5,ptmxmode=0666";

/// Links that programs expect and the kernel does not make.
fn device_links() -> [Step; 4] {
    [
        Step::Link { path: "/dev/fd", target: "/proc/self/fd" },
        Step::Link { path: "/dev/stdin", target: "/proc/self/fd/0" },
        Step::Link { path: "/dev/stdout", target: "/proc/self/fd/1" },
        Step::Link { path: "/dev/stderr", target: "/proc/self/fd/2" },
    ]
}

fn described_mounts(system: &System) -> Vec<Step> {
    let mut steps = Vec::new();
    for tmpfs in &system.tmpfs {
        let options = format!("mode={:04o},size={}", tmpfs.mode, tmpfs.size);
        steps.push(Step::Mount(mount("tmpfs", &tmpfs.path, CONFINED, &options)));
    }
    for directory in &system.directories {
        let (path, mode, owner) = (directory.path.clone(), directory.mode, directory.owner);
        steps.push(Step::Directory { path, mode, owner });
    }
    for bind in &system.binds {
        steps.push(Step::Bind { source: bind.source.clone(), target: bind.target.clone() });
    }
    steps
}

fn persistent(system: &System) -> Vec<Step> {
    let mut steps = Vec::new();
    for entry in &system.persistent {
        let source = format!("/data/{}", entry.name);
        let (mode, owner) = (entry.mode, entry.owner);
        steps.push(Step::Directory { path: source.clone(), mode, owner });
        if let Some(layers) = &entry.layers {
            let mut path = source.clone();
            for part in layers.split('/') {
                path = format!("{path}/{part}");
                steps.push(Step::Directory { path: path.clone(), mode, owner });
            }
            steps.push(Step::Journal(path));
        }
        steps.push(Step::Directory { path: entry.path.clone(), mode, owner });
        steps.push(Step::Bind { source, target: entry.path.clone() });
    }
    steps
}

impl fmt::Display for Step {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Mount(Mount { kind, path, .. }) => write!(out, "mount {kind} on {path}"),
            Self::Share(path) => write!(out, "share {path}"),
            Self::Directory { path, .. } => write!(out, "make {path}"),
            Self::Journal(path) => write!(out, "write contents below {path} through the journal"),
            Self::Link { path, target } => write!(out, "link {path} to {target}"),
            Self::Controllers(path) => write!(out, "enable the controllers of {path}"),
            Self::Sysctl { path, value } => write!(out, "write {value} to {path}"),
            Self::Hostname(name) => write!(out, "set the host name {name}"),
            Self::Loopback => out.write_str("switch the loopback on"),
            Self::Data(Some(device)) => write!(out, "mount {device} on /data"),
            Self::Data(None) => out.write_str("mount memory on /data"),
            Self::Bind { source, target } => write!(out, "show {source} at {target}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn debian() -> Facts {
        let names = ["tmpfs", "devpts", "mqueue", "cgroup2", "bpf", "securityfs", "proc"];
        Facts {
            filesystems: names.map(str::to_owned).to_vec(),
            data_device: Some("/dev/vda5".to_owned()),
        }
    }

    fn lines(text: &str, facts: &Facts) -> Vec<String> {
        let system = System::parse(text).unwrap();
        late(&system, facts).iter().map(Step::to_string).collect()
    }

    #[test]
    fn a_described_system_is_prepared_in_this_order() {
        let text = "\
iota-system 1
hostname iota
sysctl net.ipv4.ip_forward=1
tmpfs /var mode=0755 size=25%
directory /var/log mode=0755 owner=0:0
persistent docker /var/lib/docker mode=0710 owner=0:0
persistent containers /var/lib/containers mode=0711 owner=0:0 layers=storage/overlay
";
        let expected = "\
share /
mount tmpfs on /run
mount tmpfs on /tmp
mount devpts on /dev/pts
mount tmpfs on /dev/shm
mount mqueue on /dev/mqueue
mount cgroup2 on /sys/fs/cgroup
mount bpf on /sys/fs/bpf
mount securityfs on /sys/kernel/security
link /dev/fd to /proc/self/fd
link /dev/stdin to /proc/self/fd/0
link /dev/stdout to /proc/self/fd/1
link /dev/stderr to /proc/self/fd/2
enable the controllers of /sys/fs/cgroup
make /sys/fs/cgroup/services
enable the controllers of /sys/fs/cgroup/services
make /run/iota
set the host name iota
switch the loopback on
write 1 to /proc/sys/net/ipv4/ip_forward
mount tmpfs on /var
make /var/log
mount /dev/vda5 on /data
make /data/docker
make /var/lib/docker
show /data/docker at /var/lib/docker
make /data/containers
make /data/containers/storage
make /data/containers/storage/overlay
write contents below /data/containers/storage/overlay through the journal
make /var/lib/containers
show /data/containers at /var/lib/containers";
        assert_eq!(lines(text, &debian()).join("\n"), expected);
    }

    #[test]
    fn a_small_kernel_gets_only_the_mounts_it_knows_and_data_in_memory() {
        let facts = Facts { filesystems: vec!["tmpfs".to_owned()], data_device: None };
        let lines = lines("iota-system 1\nhostname x\n", &facts);
        let mounts: Vec<&String> = lines.iter().filter(|line| line.starts_with("mount")).collect();
        let expected = [
            "mount tmpfs on /run",
            "mount tmpfs on /tmp",
            "mount tmpfs on /dev/shm",
            "mount memory on /data",
        ];
        assert_eq!(mounts, expected);
    }

    #[test]
    fn everything_writable_is_mounted_without_set_user_id_and_device_nodes() {
        let text = "iota-system 1\nhostname x\ntmpfs /var mode=0755 size=1m\n";
        for step in late(&System::parse(text).unwrap(), &debian()) {
            let Step::Mount(mount) = step else { continue };
            assert!(mount.flags.contains(MountFlags::NOSUID), "{}", mount.path);
            // Terminals are device nodes.
            let devices = mount.kind == "devpts";
            assert_eq!(mount.flags.contains(MountFlags::NODEV), !devices, "{}", mount.path);
        }
    }
}
