//! Kernel settings that an owner may choose.
//!
//! A setting gets into the list if somebody's containers need it, if no value of its range keeps a
//! device from starting or from being reached, and if none makes it easier to attack. So there is
//! no `kernel.*`, no reverse-path filter or redirect of `net.*`, no `vm.overcommit_memory = 2` and
//! no `net.ipv6.conf.*.forwarding`, which makes a device deaf to the routers that it needs.

/// A setting with the range of its values.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sysctl {
    /// Name as in sysctl.conf(5).
    pub name: &'static str,
    /// Least value.
    pub least: u32,
    /// Largest value.
    pub most: u32,
    /// What it does, for whom.
    pub text: &'static str,
}

const fn row(name: &'static str, (least, most): (u32, u32), text: &'static str) -> Sysctl {
    Sysctl { name, least, most, text }
}

/// All of them, sorted.
pub const SYSCTLS: &[Sysctl] = &[
    row("fs.aio-max-nr", (65_536, 4_194_304), "asynchronous requests of all processes; databases"),
    row("fs.inotify.max_queued_events", (16_384, 1_048_576), "events that wait for one watcher"),
    row(
        "fs.inotify.max_user_instances",
        (128, 65_536),
        "watchers of one user; all containers are root's",
    ),
    row(
        "fs.inotify.max_user_watches",
        (8_192, 4_194_304),
        "files and directories watched by one user",
    ),
    row("net.core.netdev_max_backlog", (1_000, 65_536), "packets that wait for a processor"),
    row(
        "net.core.rmem_max",
        (212_992, 67_108_864),
        "largest receive buffer, in bytes; QUIC, video",
    ),
    row("net.core.somaxconn", (128, 65_535), "connections that wait for one listener"),
    row("net.core.wmem_max", (212_992, 67_108_864), "largest send buffer, in bytes; QUIC, video"),
    row(
        "net.ipv4.ip_forward",
        (1, 1),
        "packets pass from one interface to another; engines need it and set it as well",
    ),
    row(
        "net.ipv4.tcp_fin_timeout",
        (5, 120),
        "seconds until a half-closed connection is forgotten",
    ),
    row(
        "net.ipv4.tcp_keepalive_intvl",
        (1, 600),
        "seconds between two probes of a silent connection",
    ),
    row("net.ipv4.tcp_keepalive_probes", (1, 50), "probes without an answer that end a connection"),
    row("net.ipv4.tcp_keepalive_time", (10, 86_400), "seconds of silence before the first probe"),
    row(
        "net.ipv4.tcp_max_syn_backlog",
        (128, 65_536),
        "connections that are being opened to one listener",
    ),
    row(
        "vm.dirty_background_ratio",
        (1, 50),
        "percent of memory that may wait to be written before writing begins",
    ),
    row(
        "vm.dirty_expire_centisecs",
        (100, 60_000),
        "hundredths of a second after which written data has to reach the disk",
    ),
    row(
        "vm.dirty_ratio",
        (5, 80),
        "percent of memory that may wait to be written before writers wait too",
    ),
    row(
        "vm.dirty_writeback_centisecs",
        (100, 60_000),
        "hundredths of a second between two looks for such data",
    ),
    row(
        "vm.max_map_count",
        (65_530, 16_777_216),
        "memory maps of one process; Elasticsearch asks for 262144",
    ),
    row(
        "vm.overcommit_memory",
        (0, 1),
        "1: memory is promised without counting; Redis asks for it",
    ),
    row(
        "vm.swappiness",
        (0, 200),
        "how soon memory of programs is swapped rather than memory of files",
    ),
    row(
        "vm.vfs_cache_pressure",
        (10, 1_000),
        "how soon names of files are forgotten rather than their contents",
    ),
];

/// The setting with this name.
pub fn find(name: &str) -> Option<&'static Sysctl> {
    SYSCTLS.iter().find(|sysctl| sysctl.name == name)
}

impl Sysctl {
    /// The range in words: `0 to 200`.
    pub fn range(&self) -> alloc::string::String {
        range(self.least, self.most)
    }
}

/// A range in words.
pub(crate) fn range(least: u32, most: u32) -> alloc::string::String {
    if least == most { alloc::format!("{least}") } else { alloc::format!("{least} to {most}") }
}
