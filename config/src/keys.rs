//! Every key of `iota.toml` but the kernel's settings: one row each, of which the documentation,
//! the word "expected" of a message and "did you mean" are made.

/// A key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Key {
    /// Tables and name, with dots: `network.interface.name`.
    pub path: &'static str,
    /// How its value is written.
    pub shape: Shape,
    /// What its value has to be, as it follows the word "expected".
    pub expected: &'static str,
    /// What holds without it.
    pub default: &'static str,
    /// A line that says it.
    pub example: &'static str,
    /// What it does.
    pub text: &'static str,
}

/// How a value is written in the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    /// In quotes.
    Text,
    /// A whole number.
    Number,
    /// A list of quoted ones, even of a single one.
    List,
    /// One in quotes, or a list of them.
    TextOrList,
}

/// Longest and shortest health window. It has to stay far below the time that an image gives a
/// trial, or no update would ever be kept.
pub const HEALTH_WINDOW_S: (u32, u32) = (10, 300);

/// All of them, in the order of the documentation.
pub const KEYS: &[Key] = &[
    Key {
        path: "hostname",
        shape: Shape::Text,
        expected: "a name of 1 to 63 lower-case letters, digits and `-`, in quotes",
        default: "the image's, `iota`",
        example: "hostname = \"kiosk-7\"",
        text: "Name of the device. It is also told to DHCP servers, many of which give it a name \
               in the local network, and the device itself answers to NAME.local.",
    },
    Key {
        path: "network.dns",
        shape: Shape::List,
        expected: "a list of 1 to 3 addresses, such as [\"192.168.1.1\", \"2620:fe::fe\"]",
        default: "what the network offers",
        example: "dns = [\"192.168.1.1\"]",
        text: "Name servers, asked in this order. Those that the network offers are not used then.",
    },
    Key {
        path: "network.interface.name",
        shape: Shape::Text,
        expected: "the name of a network interface, such as \"eth0\"",
        default: "has to be there",
        example: "name = \"eth0\"",
        text: "Which interface this table is about. One that the device does not have changes \
               nothing. Interfaces without a table, and those of them that are plugged in later, \
               ask the network (DHCP, router advertisements).",
    },
    Key {
        path: "network.interface.address",
        shape: Shape::TextOrList,
        expected: "an address with the length of its network, such as \"192.168.1.10/24\", or a \
                   list of one of IPv4 and one of IPv6",
        default: "has to be there",
        example: "address = [\"192.168.1.10/24\", \"fd00:1::10/64\"]",
        text: "Fixed addresses. With one of IPv4, DHCP is not asked for another; with one of IPv6, \
               those of router advertisements come on top.",
    },
    Key {
        path: "network.interface.router",
        shape: Shape::Text,
        expected: "an address of IPv4 within the interface's network, such as \"192.168.1.1\"",
        default: "none: only the own network is reached over IPv4",
        example: "router = \"192.168.1.1\"",
        text: "Where packets for everywhere else go. Routers of IPv6 announce themselves.",
    },
    Key {
        path: "time.servers",
        shape: Shape::List,
        expected: "a list of 1 to 8 names or addresses, such as [\"ntp.example.org\", \
                   \"192.168.1.1\"]",
        default: "the image's, four of a pool that is everybody's",
        example: "servers = [\"192.168.1.1\"]",
        text: "Servers that are asked for the time (NTP), in place of the image's. A port that is \
               not 123 follows the name, or the address of IPv4, after a colon.",
    },
    Key {
        path: "ssh.keys",
        shape: Shape::List,
        expected: "a list of 1 to 32 public keys, each a line of a file such as \
                   ~/.ssh/id_ed25519.pub, in quotes",
        default: "there is no SSH server",
        example: "keys = [\"ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIAkFG14uhMzsA/P6\
                  XR4xFVZ7v5HlZmbImE7M3BxGSxtE anna@mill\"]",
        text: "Who may log in, as root, with SSH: see [access.md](access.md). There are no \
               passwords.",
    },
    Key {
        path: "console.image",
        shape: Shape::Text,
        expected: "a name of a container image, such as \"docker.io/library/debian:13\"",
        default: "a shell that the image carries",
        example: "image = \"docker.io/library/debian:13\"",
        text: "The container that a login opens; it needs `sh` and `sleep`. Fetched at the first \
               login. If that fails, the image's own is opened.",
    },
    Key {
        path: "health.window-s",
        shape: Shape::Number,
        expected: "a number from 10 to 300",
        default: "the image's, `60`",
        example: "window-s = 120",
        text: "Seconds for which the engine and every container have to run without a break \
               before an update is kept. At most half of the time that the image gives a trial.",
    },
];

/// What its value has to be.
pub(crate) fn expected(path: &str) -> &'static str {
    KEYS.iter().find(|key| key.path == path).map_or("", |key| key.expected)
}

/// The name of the table with the kernel's settings, whose rows are in [`crate::sysctls`].
pub const SYSCTL: &str = "sysctl";

/// Names that a table may hold: keys, and tables within it. The top one is "".
pub(crate) fn names_in(table: &str) -> impl Iterator<Item = &'static str> {
    let inside = move |key: &Key| {
        let rest = match table {
            "" => Some(key.path),
            _ => key.path.strip_prefix(table)?.strip_prefix('.'),
        };
        rest?.split('.').next()
    };
    let settings = (table.is_empty()).then_some(SYSCTL);
    let mut last = "";
    let names = KEYS.iter().filter_map(inside).filter(move |name| {
        let new = *name != last;
        last = name;
        new
    });
    names.chain(settings)
}

/// The table that has a key of this name.
pub(crate) fn table_with(name: &str) -> Option<&'static str> {
    let mut paths = KEYS.iter().filter_map(|key| key.path.rsplit_once('.'));
    paths.find(|(_, key)| *key == name).map(|(table, _)| table)
}
