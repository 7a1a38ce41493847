//! Seeds as cloud-init's documentation and Raspberry Pi Imager write them.

use alloc::string::{String, ToString as _};
use alloc::vec::Vec;
use alloc::{format, vec};

use super::*;

const KEY: &str =
    "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIAkFG14uhMzsA/P6XR4xFVZ7v5HlZmbImE7M3BxGSxtE anna@mill";
const PSK: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

fn seed(files: &[(Name, &str)]) -> Seed {
    let mut seed = Seed::default();
    for (name, text) in files {
        seed.add(*name, text.as_bytes().to_vec());
    }
    seed
}

/// The config as a file, and each finding in a line.
fn read(files: &[(Name, &str)]) -> (String, Vec<String>) {
    let imported = seed(files).read().unwrap();
    let text = imported.config.to_string();
    assert_eq!(Config::parse(text.as_bytes()), Ok(imported.config), "{text}");
    (text, imported.findings.iter().map(|finding| finding.to_string()).collect())
}

#[test]
fn what_imager_writes_for_cloud_init_becomes_a_configuration() {
    let user_data = format!(
        "#cloud-config\nmanage_resolv_conf: false\n\nhostname: Pi-Kitchen\nmanage_etc_hosts: true\n\
         packages:\n- avahi-daemon\napt:\n  preserve_sources_list: true\n\
         timezone: Europe/Berlin\nntp:\n  enabled: true\n\
         \x20 servers: [192.168.1.1, ntp.example.org]\n\
         users:\n- name: anna\n  groups: users,adm\n  shell: /bin/bash\n  lock_passwd: false\n\
         \x20 passwd: $5$secret\n  ssh_authorized_keys:\n    - {KEY}\n\
         \x20 sudo: ALL=(ALL) NOPASSWD:ALL\nenable_ssh: true\nssh_pwauth: false\n"
    );
    let network = format!(
        "network:\n  version: 2\n  ethernets:\n    eth0:\n      dhcp4: true\n      optional: true\n\
         \x20 wifis:\n    wlan0:\n      dhcp4: true\n      regulatory-domain: \"de\"\n\
         \x20     access-points:\n        \"Home\":\n          password: \"{PSK}\"\n\
         \x20     optional: true\n"
    );
    let (text, findings) = read(&[(Name::UserData, &user_data), (Name::NetworkConfig, &network)]);
    let expected = format!(
        "hostname = \"pi-kitchen\"\n\n[network]\nwifi-country = \"DE\"\n\n\
         [[network.wifi]]\nssid = \"Home\"\npassword = \"{PSK}\"\n\n\
         [time]\nzone = \"Europe/Berlin\"\nservers = [\"192.168.1.1\", \"ntp.example.org\"]\n\n\
         [ssh]\nkeys = [\n    \"{KEY}\",\n]\n"
    );
    assert_eq!(text, expected);
    assert_eq!(
        findings,
        [
            "user-data, line 2, column 1: `manage_resolv_conf` is not supported",
            "user-data, line 6, column 1: `packages` is not supported",
            "user-data, line 8, column 1: `apt` is not supported",
            "user-data, line 19, column 3: `passwd` is not supported",
        ]
    );
}

#[test]
fn fixed_addresses_of_version_2_are_taken_with_router_and_name_servers() {
    let network = "version: 2\nrenderer: networkd\nethernets:\n  lan:\n    match: {name: eth0}\n\
        \x20   addresses: [192.168.1.10/24, 'fd00::10/64', 192.168.1.11/24]\n\
        \x20   routes:\n    - to: default\n      via: 192.168.1.1\n\
        \x20   - {to: 10.0.0.0/8, via: 192.168.1.2}\n\
        \x20   nameservers:\n      search: [example.org]\n      addresses: [192.168.1.1, 9.9.9.9]\n\
        \x20 other:\n    match: {macaddress: '00:11:22:33:44:55'}\n    addresses: [10.0.0.2/8]\n\
        \x20 asks:\n    match: {name: 'en*'}\n    dhcp4: yes\nbridges:\n  br0: {}\n";
    let (text, findings) = read(&[(Name::NetworkConfig, network)]);
    assert_eq!(
        text,
        "[network]\ndns = [\"192.168.1.1\", \"9.9.9.9\"]\n\n[[network.interface]]\n\
        name = \"eth0\"\n\
         address = [\"192.168.1.10/24\", \"fd00::10/64\"]\nrouter = \"192.168.1.1\"\n"
    );
    let start = |line: &String| line.split_once(", column").unwrap().0.to_string();
    let lines: Vec<String> = findings.iter().map(start).collect();
    let expected = ["6", "10", "12", "14", "20"].map(|line| format!("network-config, line {line}"));
    assert_eq!(lines, expected, "{findings:?}");
    assert!(findings[0].ends_with("192.168.1.11 is a second address of its kind"), "{findings:?}");
}

#[test]
fn a_vlan_of_version_2_is_named_by_its_cable_and_number() {
    let network = "version: 2\nethernets:\n  eth0: {dhcp4: true}\nvlans:\n\
        \x20 office:\n    id: 10\n    link: eth0\n    addresses: [10.0.0.2/8]\n\
        \x20 eth0.20: {id: 20, link: eth0, dhcp4: true}\n\
        \x20 none: {id: 5000, link: eth0}\n  lost: {id: 7}\n";
    let (text, findings) = read(&[(Name::NetworkConfig, network)]);
    assert_eq!(
        text,
        "[network]\nvlans = [\"eth0.10\", \"eth0.20\"]\n\n[[network.interface]]\n\
        name = \"eth0.10\"\naddress = [\"10.0.0.2/8\"]\n"
    );
    assert_eq!(
        findings,
        [
            "network-config, line 10, column 3: `5000` is no number of a virtual network: \
             1 to 4094",
            "network-config, line 11, column 3: a VLAN without `link` and `id`",
        ]
    );
}

#[test]
fn version_1_is_read_with_masks_and_with_lengths() {
    let network = "version: 1\nconfig:\n- type: physical\n  name: eth0\n\
        \x20 mac_address: '00:11:22:33:44:55'\n\
        \x20 subnets:\n  - type: static\n    address: 192.168.1.10\n    netmask: 255.255.255.0\n\
        \x20   gateway: 192.168.1.1\n    dns_nameservers: [192.168.1.1]\n\
        \x20 - {type: static6, address: 'fd00::2/64'}\n\
        - type: physical\n  name: eth1\n  subnets: [{type: dhcp4}]\n\
        - {type: nameserver, address: 9.9.9.9, search: [a]}\n- type: bond\n  name: bond0\n";
    let (text, findings) = read(&[(Name::NetworkConfig, network)]);
    assert_eq!(
        text,
        "[network]\ndns = [\"192.168.1.1\", \"9.9.9.9\"]\n\n[[network.interface]]\n\
        name = \"eth0\"\n\
         address = [\"192.168.1.10/24\", \"fd00::2/64\"]\nrouter = \"192.168.1.1\"\n"
    );
    assert_eq!(
        findings,
        [
            "network-config, line 16, column 40: `search` is not supported",
            "network-config, line 17, column 3: a part of type `bond` is not supported",
        ]
    );
}

#[test]
fn meta_data_names_a_device_that_user_data_does_not_name() {
    let meta = format!("instance-id: i-1\nlocal-hostname: meta\npublic-keys:\n  a: [{KEY}]\n");
    let (text, findings) =
        read(&[(Name::MetaData, &meta), (Name::UserData, "#cloud-config\n{}\n")]);
    assert!(text.starts_with("hostname = \"meta\"\n") && text.contains(KEY), "{text}");
    let user = "#cloud-config\nfqdn: Box.example.org\n";
    let (text, _) = read(&[(Name::UserData, user), (Name::MetaData, &meta)]);
    assert!(text.starts_with("hostname = \"box\"\n"), "{text}");
    assert!(findings.is_empty(), "{findings:?}");
    let nothing = read(&[(Name::MetaData, ""), (Name::NetworkConfig, ""), (Name::UserData, user)]);
    assert_eq!(nothing, ("hostname = \"box\"\n".into(), vec![]));
}

#[test]
fn custom_toml_of_an_older_imager_is_read() {
    let custom = format!(
        "config_version = 1\n[system]\nhostname = \"shed\"\n[user]\nname = \"pi\"\n\
        password = \"$5$x\"\n\
         password_encrypted = true\n[ssh]\nenabled = true\npassword_authentication = true\n\
         authorized_keys = [ \"{KEY}\" ]\n[wlan]\nssid = \"Home\"\npassword = \"{PSK}\"\n\
         password_encrypted = true\nhidden = true\ncountry = \"GB\"\n[locale]\nkeymap = \"gb\"\n\
         timezone = \"Europe/London\"\n"
    );
    let (text, findings) = read(&[(Name::Custom, &custom)]);
    assert!(
        text.starts_with("hostname = \"shed\"\n\n[network]\nwifi-country = \"GB\"\n"),
        "{text}"
    );
    assert!(text.contains(&format!("password = \"{PSK}\"\nhidden = true\n")), "{text}");
    assert!(text.contains("[time]\nzone = \"Europe/London\"\n"), "{text}");
    assert_eq!(
        findings,
        [
            "custom.toml, line 6, column 1: `password` is not supported",
            "custom.toml, line 10, column 1: `password_authentication` is not supported",
            "custom.toml, line 19, column 1: `keymap` is not supported",
        ]
    );
    // Where there are files of cloud-init, they are the newer ones.
    let both = [(Name::Custom, &*custom), (Name::UserData, "#cloud-config\nhostname: new\n")];
    assert_eq!(read(&both).0, "hostname = \"new\"\n");
}

#[test]
fn a_script_is_named_and_nothing_else_is_made_of_it() {
    let (text, findings) = read(&[(Name::FirstRun, "#!/bin/bash\nset +e\n")]);
    assert_eq!(text, "# nothing is set\n");
    assert!(findings[0].starts_with("firstrun.sh, line 1, column 1: a script"), "{findings:?}");
    let (_, findings) = read(&[(Name::UserData, "#!/bin/sh\necho\n")]);
    assert!(findings[0].contains("does not begin with `#cloud-config`"), "{findings:?}");
}

#[test]
fn values_that_iota_toml_would_refuse_are_left_out_and_the_rest_holds() {
    for (line, finding) in [
        ("hostname: under_score", "`hostname`: `under_score` is no name of a device"),
        ("hostname: [a]", "`hostname`: a list, not a text"),
        ("ssh_authorized_keys: [ssh-dss AAAA]", "`ssh_authorized_keys`: `ssh-dss` is no kind"),
        ("ntp: {servers: ['a b']}", "`ntp.servers`: `a b` is no name and no address"),
        ("timezone: Mars/Olympus", "`timezone`: `Mars/Olympus` is no time zone"),
        ("ca_certs: {trusted: [x]}", "`ca_certs.trusted`: it has to be one certificate"),
        ("runcmd: [[rm, -rf, /]]", "`runcmd` is not supported"),
        ("write_files: []", "`write_files` is not supported"),
        ("ssh_pwauth: true", "`ssh_pwauth` is not supported"),
        ("users: [{name: a, ssh_import_id: [gh:a]}]", "`ssh_import_id` is not supported"),
        ("users: 7\nusers: []", "`users` is there twice"),
    ] {
        let user = format!("#cloud-config\nfqdn: box\n{line}\n");
        let (_, findings) = read(&[(Name::UserData, &user)]);
        assert_eq!(findings.len(), 1, "{findings:?}");
        assert!(findings[0].contains(finding), "{findings:?}");
        assert!(findings[0].contains("line 3, "), "{findings:?}");
    }
}

#[test]
fn networks_that_would_be_joined_without_their_protection_are_left_out() {
    let points = "version: 2\nwifis:\n  wlan0:\n    access-points:\n      Open: {}\n      Three:\n\
        \x20       auth: {key-management: sae, password: long enough}\n      Work:\n\
        \x20       auth: {key-management: eap, method: peap}\n      Short: {password: tooshrt}\n";
    let imported = seed(&[(Name::NetworkConfig, points)]).read().unwrap();
    let names: Vec<&str> = imported.config.wifi().iter().map(|wifi| wifi.ssid()).collect();
    assert_eq!(names, ["Open", "Three"]);
    assert_eq!(imported.findings.len(), 2, "{:?}", imported.findings);
    for finding in &imported.findings {
        assert!(!format!("{finding:?}").contains("tooshrt"), "{finding:?}");
    }
}

#[test]
fn what_cannot_be_read_at_all_is_an_error_with_its_place() {
    let deep = "[".repeat(30);
    let long = format!("#cloud-config\n#{}", "x".repeat(crate::MOST_BYTES));
    for (name, text, error) in [
        (Name::UserData, "", "user-data: the file is empty"),
        (Name::UserData, "#cloud-config\na: [\n", "user-data: line "),
        (Name::UserData, "#cloud-config\na: &a [x]\nb: *a\n", "line 3, column 4: an alias"),
        (Name::UserData, "#cloud-config\na: 1\n---\nb: 1\n", "a second document"),
        (Name::UserData, "#cloud-config\n? [a]\n: 1\n", "a key that is not a text"),
        (Name::UserData, &long, "the file has more than 65536 bytes"),
        (Name::NetworkConfig, &deep, "network-config: line 1, "),
        (Name::MetaData, "a\0b", "meta-data: line 1, column 2: a NUL byte"),
        (Name::Custom, "a = \n", "custom.toml: line 1, "),
    ] {
        let found = seed(&[(name, text)]).read().unwrap_err().to_string();
        assert!(found.contains(error), "{found}");
    }
}

#[test]
fn a_text_says_what_it_was_made_from_and_what_was_left_out() {
    let many: String = (0..40).map(|number| format!("key{number}: 1\n")).collect();
    let user = format!("#cloud-config\nhostname: box\n{many}");
    let seed = seed(&[(Name::UserData, &user), (Name::MetaData, "instance-id: a\n")]);
    let imported = seed.read().unwrap();
    let text = imported.text("0123");
    assert_eq!(Config::parse(text.as_bytes()), Ok(imported.config));
    let origin = Origin::of(&text).unwrap();
    assert_eq!((&*origin.files, &*origin.fingerprint), ("meta-data, user-data", "0123"));
    assert_eq!(origin.left_out[0], "user-data, line 3, column 1: `key0` is not supported");
    assert_eq!(origin.left_out.len(), 31);
    assert_eq!(origin.left_out[30], "10 more");
    assert_eq!(Origin::of("hostname = \"box\"\n"), None);
}

#[test]
fn a_fingerprint_is_made_of_all_that_counts_in_an_order_of_its_own() {
    let one = [(Name::UserData, "#cloud-config\n"), (Name::MetaData, "a: 1\n")];
    let mut other = one;
    other.reverse();
    assert_eq!(seed(&one).bytes(), seed(&other).bytes());
    other[0].1 = "a: 2\n";
    assert_ne!(seed(&one).bytes(), seed(&other).bytes());
}
