//! Wi-Fi in a virtual machine: two radios that the kernel simulates. One is the host's; the other
//! is moved to a network of its own, where hostapd makes two access points of it, and dnsmasq gives
//! addresses and answers for names.

use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use builder::host::qemu::Options;
use qemu_tests::disk::Disk;
use qemu_tests::image::{self, variant};
use qemu_tests::machine::Machine;
use qemu_tests::slow_tests_wanted;

use crate::slots::edit;

const LONG: Duration = Duration::from_secs(400);

/// What is in the air, below this directory of the root.
const AIR: &str = "usr/lib/iota/air";

const WPA2_PASSWORD: &str = "correct # \\\"horse\\\" 2";
const WPA3_PASSWORD: &str = "battery staple 3";

/// The second one does not tell its name.
const ACCESS_POINTS: &str = "\
interface=wlan1
driver=nl80211
hw_mode=g
channel=1
ssid=iota two
wpa=2
wpa_key_mgmt=WPA-PSK
rsn_pairwise=CCMP
wpa_passphrase=correct # \"horse\" 2
bss=wlan3
ssid=iota three
ignore_broadcast_ssid=1
wpa=2
wpa_key_mgmt=SAE
ieee80211w=2
sae_pwe=2
rsn_pairwise=CCMP
wpa_passphrase=battery staple 3
";

/// Brings up the access points, after the host has waited for its radio for a while; then watches
/// what the host reaches over the air, and takes its radio away and gives it back once.
const SCRIPT: &str = r#"
here=/usr/lib/iota/air
b=$here/busybox
$b sleep 8
echo "radios appear"
/usr/sbin/modprobe mac80211_hwsim || echo "no simulated radios"
$b unshare -n $b sleep 100000 &
apart=$!
while [ ! -e /sys/class/net/wlan1/phy80211/name ] ||
    [ "$($b readlink /proc/$apart/ns/net)" = "$($b readlink /proc/self/ns/net)" ]; do
    $b sleep 1
done
$here/iw phy "$($b cat /sys/class/net/wlan1/phy80211/name)" set netns $apart
inside="$b nsenter -t $apart -n"
$inside $here/hostapd $here/hostapd.conf &
for point in wlan1:2 wlan3:3; do
    until $inside $b ip addr add 192.168.7${point#*:}.1/24 dev ${point%:*}; do $b sleep 1; done
done
$inside $here/dnsmasq --conf-file=$here/dnsmasq.conf &
$inside $b httpd -f -h $here &
for network in 2 3; do
    until $b wget -q -T 5 -O /dev/null http://192.168.7$network.1/page; do $b sleep 1; done
    $b nslookup -type=a page.air$network 192.168.7$network.1
    echo "reached network $network"
done
phy=$($b cat /sys/class/net/wlan0/phy80211/name)
$here/iw dev wlan0 del
$b sleep 5
$here/iw phy $phy interface add wlan0 type managed
echo "the radio is back"
"#;

/// Addresses, and a name that nobody else has, in both networks.
const NAMES_AND_ADDRESSES: &str = "\
keep-in-foreground
user=root
group=root
pid-file=
no-resolv
no-hosts
dhcp-leasefile=/run/leases
dhcp-authoritative
dhcp-range=192.168.72.20,192.168.72.20,10m
dhcp-range=192.168.73.20,192.168.73.20,10m
address=/page.air2/192.168.72.1
address=/page.air3/192.168.73.1
";

/// Libraries of dnsmasq that no image has.
const LIBRARIES: [(&str, &str); 4] = [
    ("libjansson4", "libjansson.so.4"),
    ("libnetfilter-conntrack3", "libnetfilter_conntrack.so.3"),
    ("libnfnetlink0", "libnfnetlink.so.0"),
    ("libnftables1", "libnftables.so.1"),
];

/// The system under test with Wi-Fi, and with the other end of the air.
fn system_with_air() -> PathBuf {
    variant("1.0-wifi", 1, |workspace| {
        edit(
            workspace,
            "boards/generic-aarch64/board.toml",
            "architecture = \"aarch64\"\n",
            "architecture = \"aarch64\"\ngroups = [\"wifi\"]\n",
        );
        append(
            &workspace.join("boards/generic-aarch64/board.toml"),
            "\n[[modules.root]]\nreason = \"simulated radios, and what encrypts on them\"\n\
             names = [\"mac80211_hwsim\", \"ccm\", \"gcm\", \"cmac\", \"ctr\"]\n",
        );
        let air = workspace.join("rootfs/overlay").join(AIR);
        fs::create_dir_all(&air).unwrap();
        for (name, bytes, mode) in [
            ("busybox", image::busybox(), 0o755),
            ("hostapd", image::file_of("hostapd", "usr/sbin/hostapd"), 0o755),
            ("iw", image::file_of("iw", "usr/sbin/iw"), 0o755),
            ("run.sh", SCRIPT.into(), 0o644),
            ("hostapd.conf", ACCESS_POINTS.into(), 0o644),
            ("dnsmasq", image::file_of("dnsmasq-base", "usr/sbin/dnsmasq"), 0o755),
            ("dnsmasq.conf", NAMES_AND_ADDRESSES.into(), 0o644),
            ("page", b"over the air\n".to_vec(), 0o644),
        ] {
            fs::write(air.join(name), bytes).unwrap();
            fs::set_permissions(air.join(name), fs::Permissions::from_mode(mode)).unwrap();
        }
        let libraries = workspace.join("rootfs/overlay/usr/lib/aarch64-linux-gnu");
        fs::create_dir_all(&libraries).unwrap();
        for (package, name) in LIBRARIES {
            fs::write(libraries.join(name), image::library_of(package, name)).unwrap();
        }
        append(
            &workspace.join("rootfs/host.toml"),
            &format!(
                "\n[[service]]\nname = \"air\"\nreason = \"the other end of the air\"\n\
                 command = [\"/{AIR}/busybox\", \"sh\", \"/{AIR}/run.sh\"]\n\
                 environment = []\nready = \"started\"\nrestart = {{ when = \"never\" }}\n\
                 stop-timeout-ms = 1000\nleftovers = \"keep\"\noutput = \"console\"\n\
                 oom-score-adjust = 0\n"
            ),
        );
    })
}

fn append(path: &Path, text: &str) {
    let before = fs::read_to_string(path).unwrap();
    fs::write(path, before + text).unwrap();
}

fn run(machine: &mut Machine, arguments: &[&str]) -> String {
    let (code, text) = machine.execute(arguments, io::empty());
    assert_eq!(code, 0, "{arguments:?}: {text}");
    text
}

#[test]
fn a_device_joins_networks_with_wpa2_and_wpa3_and_tells_nobody_their_passwords() {
    if !slow_tests_wanted() {
        return;
    }
    let config = format!(
        "[network]\nwifi-country = \"DE\"\n\n\
         [[network.wifi]]\nssid = \"iota two\"\npassword = \"{WPA2_PASSWORD}\"\n"
    );
    let disk = Disk::flashed_with_config(&system_with_air(), "wifi", &config);
    let options = Options { persist: true, ..Options::new(disk.path()) };
    let mut machine = Machine::boot("wifi", &options);
    machine.expect("radios appear", LONG);
    joins(&mut machine, 2, "iota two");
    reaches(&mut machine, 2);
    passwords_are_not_told(&mut machine);
    let (_, memory) = machine.execute(&["status", "--memory"], io::empty());
    eprintln!("{memory}");

    let other = format!(
        "[[network.wifi]]\nssid = \"iota three\"\npassword = \"{WPA3_PASSWORD}\"\n\
         security = \"wpa3\"\nhidden = true\n"
    );
    let (code, text) = machine.execute(&["config", "apply", "-"], other.as_bytes());
    assert!(code == 0 && text.contains("on trial: `iota config confirm`"), "{text}");
    joins(&mut machine, 3, "iota three");
    reaches(&mut machine, 3);
    run(&mut machine, &["config", "confirm"]);
    let kernel = run(&mut machine, &["logs", "kernel"]);
    assert!(!kernel.contains("failed to load regulatory.db"), "{kernel}");

    machine.expect("the radio is back", LONG);
    joins(&mut machine, 3, "iota three");
    // Nothing to join any more: the key that came first is a change that needs no restart either.
    let (code, text) = machine.execute(&["config", "apply", "-"], "# nothing\n".as_bytes());
    assert!(code == 0 && text.contains("in force: network.wifi"), "{text}");
    machine.expect("network wlan0 down", LONG);
    let said = run(&mut machine, &["logs"]);
    machine.power_off(LONG);
    for log in [said, machine.console.log()] {
        for password in ["horse", "battery staple"] {
            assert!(!log.contains(password), "{password} is in {log}");
        }
    }
}

/// The device is in a network, with everything that dnsmasq gives it.
fn joins(machine: &mut Machine, network: u8, name: &str) {
    let own = format!("192.168.7{network}");
    let line =
        format!("network wlan0 {own}.20/24, router {own}.1, name server {own}.1, Wi-Fi {name}");
    machine.expect(&line, LONG);
}

/// The other end answers for a name and hands out a page, over the air.
fn reaches(machine: &mut Machine, network: u8) {
    machine.expect(&format!("page.air{network}"), LONG);
    machine.expect(&format!("Address: 192.168.7{network}.1"), LONG);
    machine.expect(&format!("reached network {network}"), LONG);
}

fn passwords_are_not_told(machine: &mut Machine) {
    const KEY: &str = "network.wifi.iota two.password";
    for arguments in [
        &["config", "get"][..],
        &["config", "get", "--json"],
        &["config", "show"],
        &["config", "show", "--json"],
        &["status"],
        &["status", "--json"],
    ] {
        // The state of the containers, which `status` tells by its exit code, is not the matter.
        let (_, text) = machine.execute(arguments, io::empty());
        assert!(text.contains("wifi") || arguments[0] == "status", "{arguments:?}: {text}");
        assert!(!text.contains("horse"), "{arguments:?}: {text}");
    }
    assert_eq!(run(machine, &["config", "get", KEY]), "(secret; --secrets shows it)\n");
    let text = run(machine, &["config", "get", KEY, "--secrets"]);
    assert_eq!(text, "correct # \"horse\" 2\n");
}
