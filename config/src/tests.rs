//! Files as owners write them, and one mistake at a time.

extern crate std; // expect_file names it

use alloc::format;
use alloc::string::{String, ToString as _};
use alloc::vec;
use alloc::vec::Vec;

use expect_test::{Expect, expect, expect_file};

use super::*;

const WHOLE: &str = r#"# Everything there is.
hostname = "kiosk-7"

[network]
dns = ["192.168.1.1", "2620:fe::fe"]
wifi-country = "DE"
vlans = ["enp1s0.7", "eth0.4094"]

[[network.interface]]
name = "eth0"
address = ["192.168.1.10/24", "fd00:1::10/64"]
router = "192.168.1.1"

[[network.interface]]
name = "enp1s0.7"
address = "10.0.0.5/8"

[[network.wifi]]
ssid = "Bob's \"office\""
password = 'correct \ horse'
security = "wpa3"
hidden = true
priority = 10

[[network.wifi]]
ssid = "Café"
security = "open"

[time]
zone = "Europe/Berlin"
servers = ["ntp.example.org", "10.0.0.1:1123"]

[proxy]
http = "http://proxy.example.org:3128/"
https = "http://proxy.example.org:3128"
no-proxy = [".example.org", "10.0.0.0/8"]

[ca]
certificates = ["""
-----BEGIN CERTIFICATE-----
MIIBQDCB86ADAgECAhRWNgrr9BZIsngLPfCo6hjOcN1Z0zAFBgMrZXAwFTETMBEG
A1UEAwwKRXhhbXBsZSBDQTAgFw0yNjExMjgyMDE1MzhaGA8yMTI2MTEwNDIwMTUz
OFowFTETMBEGA1UEAwwKRXhhbXBsZSBDQTAqMAUGAytlcAMhALykiVfqkPptiZgw
w+gwlhx8RC7F1XCzo0PBRT11Cthxo1MwUTAdBgNVHQ4EFgQUkEqHOKtpA/gj59bt
qJYefn44sskwHwYDVR0jBBgwFoAUkEqHOKtpA/gj59btqJYefn44sskwDwYDVR0T
AQH/BAUwAwEB/zAFBgMrZXADQQC9EkuJ4zGTt4nlO2jZgR+AgkBYCGv2IRfkbdKv
z9b14R7EECHNoGmMBBYoDvONMNz8HjPLl9mZ7JimikR2gNoG
-----END CERTIFICATE-----
"""]

[ssh]
keys = [
    "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIAkFG14uhMzsA/P6XR4xFVZ7v5HlZmbImE7M3BxGSxtE anna@mill",
]

[console]
image = "docker.io/library/debian:13"
serial = true

[health]
window-s = 120

[watchdog]
engine-min = 15
network-min = 120

[engine]
registry-mirrors = ["https://mirror.example.org"]
insecure-registries = ["registry.lan:5000"]

[kernel]
modules = ["wireguard", "tun"]

[logs]
persistent = true
most-mb = 64

[memory]
zram-percent = 50

[update]
source = "http://updates.example.org/iota/"
mirrors = ["http://cache.lan/iota/", "oci://registry.lan/iota"]
user = "kiosks"
password = "battery horse"
channel = "beta"
automatic = "stage"
window = "22:00-05:30"
every-min = 60
most-kb-s = 250
report = "https://fleet.example.org/devices"

[reset]
power-cycles = true

[sysctl]
vm.swappiness = 10
"fs.inotify.max_user_watches" = 524_288
"#;

fn good(text: &str) -> Config {
    Config::parse(text.as_bytes()).unwrap_or_else(|problems| panic!("{problems}"))
}

/// Each problem in a line, with its hint.
fn problems(bytes: &[u8]) -> Vec<String> {
    let problems = Config::parse(bytes).expect_err("the file is good");
    let line = |problem: &Problem| match &problem.hint {
        Some(hint) => format!("{problem}; {hint}"),
        None => problem.to_string(),
    };
    problems.iter().map(line).collect()
}

fn check(text: &str, expected: Expect) {
    expected.assert_eq(&problems(text.as_bytes()).join("\n"));
}

#[test]
fn a_file_with_every_key_is_read_and_printed() {
    let config = good(WHOLE);
    assert_eq!(config.hostname(), Some("kiosk-7"));
    assert_eq!(config.name_servers().len(), 2);
    assert_eq!(config.interfaces()[0].ipv4().unwrap().to_string(), "192.168.1.10/24");
    assert_eq!(config.interfaces()[1].ipv6(), None);
    assert_eq!(config.health_window_s(), Some(120));
    let expected = expect![[r#"
        hostname = "kiosk-7"

        [network]
        dns = ["192.168.1.1", "2620:fe::fe"]
        wifi-country = "DE"
        vlans = ["enp1s0.7", "eth0.4094"]

        [[network.interface]]
        name = "eth0"
        address = ["192.168.1.10/24", "fd00:1::10/64"]
        router = "192.168.1.1"

        [[network.interface]]
        name = "enp1s0.7"
        address = ["10.0.0.5/8"]

        [[network.wifi]]
        ssid = "Bob's \"office\""
        password = "correct \\ horse"
        security = "wpa3"
        hidden = true
        priority = 10

        [[network.wifi]]
        ssid = "Café"
        security = "open"

        [time]
        zone = "Europe/Berlin"
        servers = ["ntp.example.org", "10.0.0.1:1123"]

        [proxy]
        http = "http://proxy.example.org:3128"
        https = "http://proxy.example.org:3128"
        no-proxy = [".example.org", "10.0.0.0/8"]

        [ca]
        certificates = ["""
        -----BEGIN CERTIFICATE-----
        MIIBQDCB86ADAgECAhRWNgrr9BZIsngLPfCo6hjOcN1Z0zAFBgMrZXAwFTETMBEG
        A1UEAwwKRXhhbXBsZSBDQTAgFw0yNjExMjgyMDE1MzhaGA8yMTI2MTEwNDIwMTUz
        OFowFTETMBEGA1UEAwwKRXhhbXBsZSBDQTAqMAUGAytlcAMhALykiVfqkPptiZgw
        w+gwlhx8RC7F1XCzo0PBRT11Cthxo1MwUTAdBgNVHQ4EFgQUkEqHOKtpA/gj59bt
        qJYefn44sskwHwYDVR0jBBgwFoAUkEqHOKtpA/gj59btqJYefn44sskwDwYDVR0T
        AQH/BAUwAwEB/zAFBgMrZXADQQC9EkuJ4zGTt4nlO2jZgR+AgkBYCGv2IRfkbdKv
        z9b14R7EECHNoGmMBBYoDvONMNz8HjPLl9mZ7JimikR2gNoG
        -----END CERTIFICATE-----
        """,]

        [ssh]
        keys = [
            "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIAkFG14uhMzsA/P6XR4xFVZ7v5HlZmbImE7M3BxGSxtE anna@mill",
        ]

        [console]
        image = "docker.io/library/debian:13"
        serial = true

        [health]
        window-s = 120

        [watchdog]
        engine-min = 15
        network-min = 120

        [engine]
        registry-mirrors = ["https://mirror.example.org"]
        insecure-registries = ["registry.lan:5000"]

        [kernel]
        modules = ["wireguard", "tun"]

        [logs]
        persistent = true
        most-mb = 64

        [memory]
        zram-percent = 50

        [update]
        source = "http://updates.example.org/iota"
        mirrors = ["http://cache.lan/iota", "oci://registry.lan/iota"]
        user = "kiosks"
        password = "battery horse"
        channel = "beta"
        automatic = "stage"
        window = "22:00-05:30"
        every-min = 60
        most-kb-s = 250
        report = "https://fleet.example.org/devices"

        [reset]
        power-cycles = true

        [sysctl]
        fs.inotify.max_user_watches = 524288
        vm.swappiness = 10
    "#]];
    expected.assert_eq(&config.to_string());
    assert_eq!(good(&config.to_string()), config);
}

#[test]
fn comments_alone_are_the_defaults() {
    for text in ["# nothing\n", "\n", "[network]\n[sysctl]\n", "\u{feff}# with a mark\r\n"] {
        assert_eq!(good(text), Config::default(), "{text:?}");
    }
    assert_eq!(good(&Config::default().to_string()), Config::default());
}

#[test]
fn every_example_of_the_documentation_is_good() {
    for key in keys::KEYS {
        let text = match key.path.rsplit_once('.') {
            None => key.example.to_string(),
            Some(("network.interface", name)) => {
                let rest = ["name = \"eth9\"\n", "address = \"192.168.1.10/24\"\n"];
                let rest = rest.into_iter().filter(|line| !line.starts_with(name));
                let rest = rest.collect::<String>();
                format!("[[network.interface]]\n{rest}{}\n", key.example)
            }
            Some(("network.wifi", name)) => {
                let rest = ["ssid = \"Home\"\n", "password = \"correct horse\"\n"];
                let rest = rest.into_iter().filter(|line| !line.starts_with(name));
                format!("[[network.wifi]]\n{}{}\n", rest.collect::<String>(), key.example)
            }
            Some((table, _)) => format!("[{table}]\n{}\n", key.example),
        };
        assert_ne!(good(&text), Config::default(), "{text}");
    }
    let mut introduction = reference::document();
    let start = introduction.find("```toml\n").unwrap() + 8;
    introduction.drain(..start);
    good(&introduction[..introduction.find("```").unwrap()]);
}

#[test]
fn both_ends_of_every_range_are_good_and_what_lies_beyond_is_not() {
    assert!(sysctls::SYSCTLS.is_sorted_by_key(|sysctl| sysctl.name));
    for sysctls::Sysctl { name, least, most, .. } in sysctls::SYSCTLS {
        for value in [*least, *most] {
            let config = good(&format!("[sysctl]\n{name} = {value}\n"));
            assert_eq!(config.sysctls(), [(*name, value)]);
        }
        let more = format!("[sysctl]\n{name} = {}\n", u64::from(*most) + 1);
        assert!(problems(more.as_bytes())[0].contains("out of range"), "{name}");
    }
}

#[test]
fn the_documentation_is_made_of_the_keys() {
    expect_file!["../../docs/config.md"].assert_eq(&reference::document());
}

#[test]
fn all_mistakes_of_a_file_are_told_at_once() {
    let text = "\
hostnme = \"x\"
hostname = \"Kiosk 7\"
dns = [\"1.1.1.1\"]
= 5

[network]
dns = \"1.1.1.1\"

[health]
window-s = 5

[sysctl]
vm.swapiness = 10
kernel.sysrq = 1
vm.dirty_ratio = \"20\"
";
    check(
        text,
        expect![[r#"
        line 1, column 1: `hostnme` is not a key; did you mean `hostname`?
        line 2, column 12: `Kiosk 7` is no name of a device; expected a name of 1 to 63 lower-case letters, digits and `-`, in quotes
        line 3, column 1: `dns` is not a key; `dns` is a key of [network]
        line 4, column 1: unquoted keys cannot be empty, expected letters, numbers, `-`, `_`
        line 7, column 7: a string, not a list; expected a list of 1 to 3 addresses, such as ["192.168.1.1", "2620:fe::fe"]
        line 10, column 12: 5 is out of range; expected 10 to 300
        line 13, column 4: `vm.swapiness` is not a kernel setting that can be chosen here; did you mean `vm.swappiness`?
        line 14, column 8: `kernel.sysrq` is not a kernel setting that can be chosen here; docs/config.md lists those that are, and says why others are not
        line 15, column 18: a string, not a number: leave out the quotes; expected 5 to 80"#]],
    );
}

#[test]
fn mistakes_about_addresses_are_named() {
    for (address, more, expected) in [
        (
            "192.168.1.10",
            "",
            "`192.168.1.10` lacks the length of its network, as in 192.168.1.10/24",
        ),
        ("192.168.1/24", "", "`192.168.1` is no address"),
        ("192.168.1.10/33", "", "`/33` is no length of a network: 8 to 32"),
        ("192.168.1.10/+24", "", "`/+24` is no length of a network: 8 to 32"),
        ("192.168.1.0/24", "", "192.168.1.0 is the network itself, not a host in it"),
        ("192.168.1.255/24", "", "192.168.1.255 is the broadcast address of its network"),
        ("127.0.0.1/8", "", "127.0.0.1 means this device itself"),
        ("169.254.1.1/16", "", "169.254.1.1 is a link-local address, which a device gives itself"),
        ("255.255.255.255/32", "", "255.255.255.255 is reserved"),
        ("224.0.0.5/24", "", "224.0.0.5 is an address of a group"),
        ("fe80::1/64", "", "fe80::1 is a link-local address, which a device gives itself"),
        ("::ffff:10.0.0.1/104", "", "::ffff:10.0.0.1 is one of IPv4: write it so"),
        ("10.0.0.1/8", "router = \"11.0.0.1\"", "11.0.0.1 is not in the network of 10.0.0.1/8"),
        ("10.0.0.1/8", "router = \"10.0.0.1\"", "10.0.0.1 is the device itself"),
        (
            "fd00::1/64",
            "router = \"10.0.0.1\"",
            "a router needs an address of IPv4 in the same table",
        ),
        ("fd00::1/64", "router = \"fd00::2\"", "`fd00::2` is no address of IPv4"),
        ("10.0.0.1/8", "gateway = 5", "`gateway` is not a key of [network.interface]"),
    ] {
        let text =
            format!("[[network.interface]]\nname = \"eth0\"\naddress = \"{address}\"\n{more}\n");
        let problems = Config::parse(text.as_bytes()).unwrap_err();
        assert_eq!(problems.first().message, expected);
        assert_eq!(problems.iter().count(), 1, "{problems}");
        assert_eq!(problems.first().line, if more.is_empty() { 3 } else { 4 });
    }
}

#[test]
fn mistakes_about_virtual_networks_are_named() {
    check(
        r#"
[network]
vlans = ["eth0", "eth0.0", "eth0.4095", "eth0.010", "eth0.1.2", ".5", "docker0.5", "a.1", "a.1", 7]
"#,
        expect![[r#"
            line 3, column 10: `eth0` lacks the number of the virtual network, as in eth0.10; expected a list of 1 to 32 names such as "eth0.10": an interface, a dot, and a number from 1 to 4094
            line 3, column 18: `0` is no number of a virtual network: 1 to 4094; expected a list of 1 to 32 names such as "eth0.10": an interface, a dot, and a number from 1 to 4094
            line 3, column 28: `4095` is no number of a virtual network: 1 to 4094; expected a list of 1 to 32 names such as "eth0.10": an interface, a dot, and a number from 1 to 4094
            line 3, column 41: `010` is no number of a virtual network: 1 to 4094; expected a list of 1 to 32 names such as "eth0.10": an interface, a dot, and a number from 1 to 4094
            line 3, column 53: `eth0.1` is no interface with a cable; expected a list of 1 to 32 names such as "eth0.10": an interface, a dot, and a number from 1 to 4094
            line 3, column 65: `.5` cannot name an interface; expected a list of 1 to 32 names such as "eth0.10": an interface, a dot, and a number from 1 to 4094
            line 3, column 71: `docker0.5` belongs to the system or its engine; expected a list of 1 to 32 names such as "eth0.10": an interface, a dot, and a number from 1 to 4094
            line 3, column 91: a.1 is there twice; expected a list of 1 to 32 names such as "eth0.10": an interface, a dot, and a number from 1 to 4094
            line 3, column 98: a number, not a string; expected a list of 1 to 32 names such as "eth0.10": an interface, a dot, and a number from 1 to 4094"#]],
    );
}

#[test]
fn interfaces_do_not_share_names_or_addresses() {
    check(
        r#"
[[network.interface]]
name = "eth0"
address = ["10.0.0.1/8", "10.0.0.2/8"]
[[network.interface]]
name = "eth1"
address = "10.0.0.3/8"
[[network.interface]]
name = "eth1"
address = "10.0.0.3/16"
[[network.interface]]
name = "docker0"
[network.interfaces]
"#,
        expect![[r#"
            line 4, column 26: 10.0.0.2 is a second address of its kind; expected an address with the length of its network, such as "192.168.1.10/24", or a list of one of IPv4 and one of IPv6
            line 9, column 8: `eth1` has a table already; expected the name of a network interface, such as "eth0"
            line 10, column 11: 10.0.0.3 is the address of eth1; expected an address with the length of its network, such as "192.168.1.10/24", or a list of one of IPv4 and one of IPv6
            line 11, column 1: an interface without `address`; expected an address with the length of its network, such as "192.168.1.10/24", or a list of one of IPv4 and one of IPv6
            line 12, column 8: `docker0` belongs to the system or its engine; expected the name of a network interface, such as "eth0"
            line 13, column 10: `interfaces` is not a key of [network]; did you mean `interface`?"#]],
    );
    check(
        "[network.interface]\nname = \"eth0\"\n",
        expect![[r#"
            line 1, column 1: `network.interface` is a table, not a list of tables; expected [[network.interface]], with two brackets, for each interface"#]],
    );
    check(
        "network = 5\nsysctl = []\n[health]\nwindow = 5\n",
        expect![[r#"
        line 1, column 11: `network` is a number, not a table; expected a table: [network] on a line of its own
        line 2, column 10: `sysctl` is a list, not a table; expected a table: [sysctl] on a line of its own
        line 4, column 1: `window` is not a key of [health]; did you mean `window-s`?"#]],
    );
}

#[test]
fn one_setting_spelt_in_two_ways_is_there_twice() {
    check(
        "[sysctl]\nvm.swappiness = 1\n\"vm.swappiness\" = 2\n",
        expect!["line 3, column 1: `vm.swappiness` is there twice"],
    );
}

#[test]
fn what_is_no_text_is_told_by_name() {
    let wide: Vec<u8> = "hostname".bytes().flat_map(|byte| [byte, 0]).collect();
    let marked: Vec<u8> = [0xFF, 0xFE].into_iter().chain(wide.clone()).collect();
    let long = vec![b'#'; MOST_BYTES + 1];
    for (bytes, expected) in [
        (&b""[..], "the file is empty"),
        (b"\xEF\xBB\xBF", "the file is empty"),
        (&wide, "the file is UTF-16"),
        (&marked, "the file is UTF-16"),
        (&long, "the file has more than 65536 bytes"),
        (b"hostname = \"a\"\n\0\0\0", "line 2, column 1: a NUL byte"),
        (b"hostname = \"a\"\n# \xff", "line 2, column 3: not UTF-8 from here on"),
        (&[0; 512], "line 1, column 1: a NUL byte"),
    ] {
        let problems = Config::parse(bytes).unwrap_err();
        assert_eq!(problems.to_string(), expected);
        assert!(problems.first().hint.is_some(), "{expected}");
    }
    let most = vec![b'#'; MOST_BYTES];
    assert_eq!(Config::parse(&most), Ok(Config::default()));
}

#[test]
fn deep_nesting_ends_in_a_problem_and_not_in_the_stack() {
    for text in [
        format!("{}1\n", "a.".repeat(30_000)),
        format!("[[{}a]]\n", "a.".repeat(30_000)),
        format!("a = {}\n", "[".repeat(60_000)),
        format!("a = {}\n", "{a=".repeat(20_000)),
        format!("a = {}\n", format!("{{{}a=", "a.".repeat(79)).repeat(400)),
    ] {
        assert!(!problems(text.as_bytes()).is_empty());
    }
}

#[test]
fn a_file_of_nothing_but_mistakes_has_a_hundred() {
    let text = "x = 1\n".repeat(1000).replace('x', "?");
    assert_eq!(problems(text.as_bytes()).len(), 100);
}

#[test]
fn a_problem_shows_its_line_without_what_would_control_a_terminal() {
    let text = "# ä\nhostname = \"\u{1b}[31m\"  # é\n";
    let rendered = |text: &str| {
        let problems = Config::parse(text.as_bytes()).unwrap_err();
        problems.iter().map(|problem| problem.render("iota.toml")).collect::<String>()
    };
    expect![[r#"
        iota.toml:2:13: invalid basic string, expected non-double-quote visible characters, `\`
          2 | hostname = "?[31m"  # é
            |             ^
    "#]]
    .assert_eq(&rendered(text));
    expect![[r#"
        iota.toml:1:12: a number, not a string
          1 | hostname = 5
            |            ^
        hint: expected a name of 1 to 63 lower-case letters, digits and `-`, in quotes
        iota.toml:2:1: `ä` is not a key
          2 | "ä" = 1
            | ^
        hint: there are hostname, network, time, proxy, ca, ssh, console, health, watchdog, engine, kernel, logs, memory, update, reset, sysctl
    "#]]
    .assert_eq(&rendered("hostname = 5\n\"ä\" = 1\n"));
    expect![[r#"
        iota.toml: the file is empty
        hint: write it again; for the defaults remove the file, or leave a comment in it
    "#]]
    .assert_eq(&rendered(""));
}

#[test]
fn mistakes_about_wifi_are_named_without_a_password() {
    check(
        r#"
[network]
wifi-country = "de"
[[network.wifi]]
ssid = "one"
[[network.wifi]]
ssid = "two"
password = "hush"
[[network.wifi]]
ssid = "three"
password = "correct horse"
security = "open"
[[network.wifi]]
password = "correct horse"
[[network.wifi]]
ssid = "five"
password = "correct horse"
security = "wep"
[[network.wifi]]
ssid = "six"
password = 12345678
hidden = 1
priority = 101
[[network.wifi]]
ssid = "seven"
password = "correct horse"
[[network.wifi]]
ssid = "seven"
pasword = "correct horse"
[[network.wifi]]
ssid = "seven"
security = "open"
"#,
        expect![[r#"
            line 3, column 16: `de` is no code of a country; expected the two letters of a country, such as "DE"
            line 4, column 1: a network without `password` that is not said to be open; `password` is what its members know; `security = "open"` is for one without
            line 8, column 12: 4 characters; expected 8 to 63 characters of ASCII, or a key of 64 hexadecimal digits, in quotes
            line 9, column 1: an open network has no password; `password` is what its members know; `security = "open"` is for one without
            line 13, column 1: a network without `ssid`; expected a name of 1 to 32 bytes, such as "Home"
            line 18, column 12: `wep` is no protection; expected "wpa2", "wpa3" or "open"
            line 21, column 12: a number, not a string; expected 8 to 63 characters of ASCII, or a key of 64 hexadecimal digits, in quotes
            line 22, column 10: a number, neither true nor false; expected true or false
            line 23, column 12: 101 is out of range; expected 0 to 100
            line 29, column 1: `pasword` is not a key of [network.wifi]; did you mean `password`?
            line 30, column 1: `seven` has a table already"#]],
    );
    let text = "[[network.wifi]]\nssid = \"two\"\npassword = \"hush\"\n";
    let problems = Config::parse(text.as_bytes()).unwrap_err();
    let rendered = problems.first().render("iota.toml");
    assert!(!rendered.contains("hush"), "{rendered}");
    expect![[r#"
        iota.toml:3:12: 4 characters
          3 | password = …
            |            ^
        hint: expected 8 to 63 characters of ASCII, or a key of 64 hexadecimal digits, in quotes
    "#]]
    .assert_eq(&rendered);
}

#[test]
fn a_concealed_config_has_no_password_and_is_no_file() {
    let config = good(WHOLE);
    let shown = config.concealed().to_string();
    assert!(!shown.contains("horse"), "{shown}");
    assert!(shown.contains("password = \"********\""), "{shown}");
    let problems = Config::parse(shown.as_bytes()).unwrap_err();
    assert_eq!(problems.first().message, "a password that was left out when this was printed");
}
