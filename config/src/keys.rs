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
    /// `true` or `false`.
    Switch,
}

/// Longest and shortest health window. It has to stay far below the time that an image gives a
/// trial, or no update would ever be kept.
pub const HEALTH_WINDOW_S: (u32, u32) = (10, 300);

/// How long a device may lack what its owner wants it to have: from what a start takes to a week.
pub const WATCHDOG_LIMITS_MIN: (u32, u32) = (5, 10_080);

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
        path: "network.wifi-country",
        shape: Shape::Text,
        expected: "the two letters of a country, such as \"DE\"",
        default: "the channels that are allowed everywhere, at the least power",
        example: "wifi-country = \"DE\"",
        text: "Where the device is, for Wi-Fi: which channels and how much power are allowed \
               there.",
    },
    Key {
        path: "network.vlans",
        shape: Shape::List,
        expected: "a list of 1 to 32 names such as \"eth0.10\": an interface, a dot, and a number \
                   from 1 to 4094",
        default: "none",
        example: "vlans = [\"eth0.10\"]",
        text: "Virtual networks (VLANs, IEEE 802.1Q) on the cable of an interface. Each is an \
               interface of that name, made when the cable's is there; it asks its network for \
               addresses, or has a table `[[network.interface]]` like any other.",
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
        path: "network.wifi.ssid",
        shape: Shape::Text,
        expected: "a name of 1 to 32 bytes, such as \"Home\"",
        default: "has to be there",
        example: "ssid = \"Home\"",
        text: "Name of a Wi-Fi network to join: see [wifi.md](wifi.md).",
    },
    Key {
        path: "network.wifi.password",
        shape: Shape::Text,
        expected: "8 to 63 characters of ASCII, or a key of 64 hexadecimal digits, in quotes",
        default: "has to be there, unless the network is open",
        example: "password = \"correct horse\"",
        text: "What its members know. It is shown by no command that is not told to (`--secrets`).",
    },
    Key {
        path: "network.wifi.security",
        shape: Shape::Text,
        expected: "\"wpa2\", \"wpa3\" or \"open\"",
        default: "WPA3 or WPA2, whichever the network offers",
        example: "security = \"wpa3\"",
        text: "The one protection that is accepted. `open` is none: everybody nearby can listen.",
    },
    Key {
        path: "network.wifi.hidden",
        shape: Shape::Switch,
        expected: "true or false",
        default: "`false`",
        example: "hidden = true",
        text: "Whether the network does not tell its name, and has to be asked for by it.",
    },
    Key {
        path: "network.wifi.priority",
        shape: Shape::Number,
        expected: "a number from 0 to 100",
        default: "`0`",
        example: "priority = 10",
        text: "Of several networks in reach, the one with the highest number is joined.",
    },
    Key {
        path: "time.zone",
        shape: Shape::Text,
        expected: "the name of a time zone, such as \"Europe/Berlin\"",
        default: "UTC",
        example: "zone = \"Europe/Berlin\"",
        text: "Which time containers show: the variable `TZ` of those that the image declares and \
               of the console, and of an app whose `compose.yaml` asks for it \
               (`environment: [TZ]`). The device itself, its logs among it, keeps to UTC.",
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
        path: "proxy.http",
        shape: Shape::Text,
        expected: "an address such as \"http://proxy.example.org:3128\"",
        default: "servers without TLS are asked directly",
        example: "http = \"http://proxy.example.org:3128\"",
        text: "Who is asked in place of servers without TLS, by the engine when it fetches images \
               and by the device when it fetches updates. Containers are not told.",
    },
    Key {
        path: "proxy.https",
        shape: Shape::Text,
        expected: "an address such as \"http://proxy.example.org:3128\"",
        default: "servers with TLS are asked directly",
        example: "https = \"http://proxy.example.org:3128\"",
        text: "The same for servers with TLS, registries of images among them.",
    },
    Key {
        path: "proxy.no-proxy",
        shape: Shape::List,
        expected: "a list of 1 to 32 names, domains, addresses or networks, such as \
                   [\".example.org\", \"10.0.0.0/8\"]",
        default: "nobody but this device itself is asked directly",
        example: "no-proxy = [\".example.org\", \"10.0.0.0/8\"]",
        text: "Who is asked directly all the same. `.example.org` is all names below \
               `example.org`. Networks count for the engine alone.",
    },
    Key {
        path: "ca.certificates",
        shape: Shape::List,
        expected: "a list of 1 to 16 certificates, each from `-----BEGIN CERTIFICATE-----` to its \
                   end, in three quotes",
        default: "the public authorities alone",
        example: "certificates = [\"\"\"\n\
                  -----BEGIN CERTIFICATE-----\n\
                  MIIBQDCB86ADAgECAhRWNgrr9BZIsngLPfCo6hjOcN1Z0zAFBgMrZXAwFTETMBEG\n\
                  A1UEAwwKRXhhbXBsZSBDQTAgFw0yNjExMjgyMDE1MzhaGA8yMTI2MTEwNDIwMTUz\n\
                  OFowFTETMBEGA1UEAwwKRXhhbXBsZSBDQTAqMAUGAytlcAMhALykiVfqkPptiZgw\n\
                  w+gwlhx8RC7F1XCzo0PBRT11Cthxo1MwUTAdBgNVHQ4EFgQUkEqHOKtpA/gj59bt\n\
                  qJYefn44sskwHwYDVR0jBBgwFoAUkEqHOKtpA/gj59btqJYefn44sskwDwYDVR0T\n\
                  AQH/BAUwAwEB/zAFBgMrZXADQQC9EkuJ4zGTt4nlO2jZgR+AgkBYCGv2IRfkbdKv\n\
                  z9b14R7EECHNoGmMBBYoDvONMNz8HjPLl9mZ7JimikR2gNoG\n\
                  -----END CERTIFICATE-----\n\
                  \"\"\"]",
        text: "Authorities that the engine and the device's own downloads trust beside the public \
               ones. They sign servers; what is installed is signed by other keys.",
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
        path: "console.serial",
        shape: Shape::Switch,
        expected: "true or false",
        default: "`false`: the serial console shows how it stands, and lets nobody in",
        example: "serial = true",
        text: "Whether `shell` on the serial console opens the console container: everybody who \
               reaches that plug is let in, without a key.",
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
    Key {
        path: "watchdog.engine-min",
        shape: Shape::Number,
        expected: "a number from 5 to 10080",
        default: "the device goes on, and `iota status` says why the engine does not answer",
        example: "engine-min = 15",
        text: "Minutes for which the container engine may not answer before the device restarts. \
               An engine that runs on demand, as Podman does, is not asked. The hardware's \
               watchdog is always on and not set here: it restarts a device that hangs.",
    },
    Key {
        path: "watchdog.network-min",
        shape: Shape::Number,
        expected: "a number from 5 to 10080",
        default: "a device without a network goes on for ever",
        example: "network-min = 120",
        text: "Minutes without an address of any network before the device restarts: for a driver \
               or radio that only comes back that way. Addresses that a device gives itself do \
               not count. Where the network is down for long, the device restarts that often.",
    },
    Key {
        path: "engine.registry-mirrors",
        shape: Shape::List,
        expected: "a list of 1 to 4 addresses, such as [\"https://mirror.example.org\"]",
        default: "Docker Hub itself",
        example: "registry-mirrors = [\"https://mirror.example.org\"]",
        text: "Who is asked for images of Docker Hub before it, in this order.",
    },
    Key {
        path: "engine.insecure-registries",
        shape: Shape::List,
        expected: "a list of 1 to 16 registries, such as [\"registry.lan:5000\"]",
        default: "none: each registry needs TLS and a certificate of an authority",
        example: "insecure-registries = [\"registry.lan:5000\"]",
        text: "Registries that are spoken to without TLS, or with a certificate that nobody \
               vouches for: whoever is on the way can change their images. `[ca]` is the better \
               way.",
    },
    Key {
        path: "kernel.modules",
        shape: Shape::List,
        expected: "a list of names out of bonding, cdc_acm, ch341, cifs, cp210x, dummy, ftdi_sio, \
                   i2c_dev, ip_vs, ipvlan, macvlan, nfsv4, pl2303, tun, vxlan, wireguard",
        default: "what the devices and containers that are found ask for",
        example: "modules = [\"wireguard\"]",
        text: "Modules of the kernel that are loaded at the start, for containers that need them \
               and may not load them.",
    },
    Key {
        path: "logs.persistent",
        shape: Shape::Switch,
        expected: "true or false",
        default: "`false`: what was said since the start is in memory, and gone with it",
        example: "persistent = true",
        text: "Whether the log is kept on the data partition as well: see \
               [logs.md](logs.md).",
    },
    Key {
        path: "logs.most-mb",
        shape: Shape::Number,
        expected: "a number from 1 to 1024",
        default: "`16`",
        example: "most-mb = 64",
        text: "Megabytes (10⁶ bytes) that the kept log takes at most; the oldest lines go first.",
    },
    Key {
        path: "memory.zram-percent",
        shape: Shape::Number,
        expected: "a number from 0 to 100",
        default: "`25`",
        example: "zram-percent = 50",
        text: "How much content of memory may be moved into compressed memory (zram) when memory \
               is short, in hundredths of all memory. It takes about a third of that when it is \
               full, and next to nothing until then. 0 switches it off.",
    },
    Key {
        path: "update.source",
        shape: Shape::Text,
        expected: "an address such as \"http://updates.example.org/iota\"",
        default: "nobody is asked for updates",
        example: "source = \"http://updates.example.org/iota\"",
        text: "The directory on a web server that `iota publish` wrote, or the repository of a \
               container registry: `oci://HOST/NAME`, without TLS `oci+http://HOST/NAME`; see \
               [ota.md](ota.md). What it sends counts only if a key of this system signed it.",
    },
    Key {
        path: "update.mirrors",
        shape: Shape::List,
        expected: "a list of 1 to 8 addresses, such as [\"http://cache.example.org/iota\"]",
        default: "nobody is asked in place of `source`",
        example: "mirrors = [\"http://cache.example.org/iota\"]",
        text: "Who is asked for what `source` does not answer, in this order: other servers with \
               the same files. `user` and `password` are not for them.",
    },
    Key {
        path: "update.user",
        shape: Shape::Text,
        expected: "a name of 1 to 255 characters of ASCII without a colon, in quotes",
        default: "nobody in particular asks",
        example: "user = \"kiosks\"",
        text: "The name by which the server of `source` lets this device in, where it does not let \
               in everybody; see [ota.md](ota.md#who-may-fetch).",
    },
    Key {
        path: "update.password",
        shape: Shape::Text,
        expected: "1 to 4096 characters of ASCII, in quotes, and `user` beside it",
        default: "an empty one, if there is `user`",
        example: "user = \"kiosks\"\npassword = \"correct horse\"",
        text: "The password, or the token, that belongs to `user`. It is shown by no command that \
               is not told to (`--secrets`), and to no other server.",
    },
    Key {
        path: "update.channel",
        shape: Shape::Text,
        expected: "a name of 1 to 32 lower-case letters, digits and `-`, in quotes",
        default: "`stable`",
        example: "channel = \"beta\"",
        text: "Which of the publisher's channels this device follows.",
    },
    Key {
        path: "update.automatic",
        shape: Shape::Text,
        expected: "\"check\", \"stage\" or \"install\"",
        default: "`install`",
        example: "automatic = \"stage\"",
        text: "What the device does by itself when there is an update: say so in `iota status`; \
               put it into the other slot, for the next restart; or restart as well.",
    },
    Key {
        path: "update.window",
        shape: Shape::Text,
        expected: "two times of the day, UTC, such as \"02:00-05:30\"",
        default: "at any time",
        example: "window = \"02:00-05:30\"",
        text: "When the device may restart into an update by itself.",
    },
    Key {
        path: "update.every-min",
        shape: Shape::Number,
        expected: "a number from 5 to 10080",
        default: "`360`",
        example: "every-min = 60",
        text: "Minutes between two looks for an update, give or take a quarter, so that not all \
               devices ask at once.",
    },
    Key {
        path: "update.most-kb-s",
        shape: Shape::Number,
        expected: "a number from 1 to 1000000",
        default: "as fast as it goes",
        example: "most-kb-s = 100",
        text: "Kilobytes that may be fetched in a second, in the mean, so that others can use the \
               line as well.",
    },
    Key {
        path: "update.report",
        shape: Shape::Text,
        expected: "an address such as \"https://fleet.example.org/devices\"",
        default: "nobody is told anything",
        example: "report = \"https://fleet.example.org/devices\"",
        text: "Who is told after each look for an update, by an HTTP POST of a small JSON \
               document: machine id, version, slots, and what came of the look; see \
               [ota.md](ota.md#reports).",
    },
    Key {
        path: "reset.power-cycles",
        shape: Shape::Switch,
        expected: "true or false",
        default: "`false`",
        example: "power-cycles = true",
        text: "Whether power that is cut six times in a row, each time within 10 seconds after \
               this file was read, resets the data partition: for devices without a card reader \
               at hand. Also does so for whatever else restarts that often; see \
               [data.md](data.md#reset).",
    },
];

/// What the kept log may take, in megabytes.
pub const LOG_LIMITS_MB: (u32, u32) = (1, 1024);

/// How much of all memory may be compressed, in hundredths.
pub const ZRAM_LIMITS_PERCENT: (u32, u32) = (0, 100);

/// The numbers that a Wi-Fi network may be preferred by.
pub const WIFI_PRIORITY: (u32, u32) = (0, 100);

/// What its value has to be.
pub(crate) fn expected(path: &str) -> &'static str {
    KEYS.iter().find(|key| key.path == path).map_or("", |key| key.expected)
}

/// Tables that may be there more than once, each with the key that names one of them.
pub(crate) const REPEATED: [(&str, &str); 2] =
    [("network.interface", "name"), ("network.wifi", "ssid")];

/// Keys whose values are for nobody to see.
pub(crate) fn is_secret(path: &str) -> bool {
    path == "update.password" || path.starts_with("network.wifi.") && path.ends_with(".password")
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
