//! Files of cloud-init and Raspberry Pi Imager: the first byte says which one an input is.

use config::Config;
use config::import::{Imported, Name, Origin};

/// Which file a first byte stands for.
const NAMES: [(u8, Name); 4] = [
    (b'm', Name::MetaData),
    (b'u', Name::UserData),
    (b'n', Name::NetworkConfig),
    (b'c', Name::Custom),
];

const KEY: &str = "ssh-ed25519 \
    AAAAC3NzaC1lZDI1NTE5AAAAIAkFG14uhMzsA/P6XR4xFVZ7v5HlZmbImE7M3BxGSxtE a";

pub(super) fn import_seeds() -> Vec<Vec<u8>> {
    let user = format!(
        "u#cloud-config\nhostname: Box\nfqdn: b.example.org\nmanage_etc_hosts: true\n\
         ssh_authorized_keys:\n  - {KEY}\nusers:\n- default\n- name: a\n  passwd: secret\n\
         \x20 ssh_authorized_keys: [\"{KEY}\"]\nntp: {{enabled: true, servers: [10.0.0.1]}}\n\
         timezone: Europe/Berlin\nruncmd:\n- [ls, -l]\n- |\n  echo\n  echo\n"
    );
    let two = "nnetwork:\n  version: 2\n  ethernets:\n    eth0:\n      match: {name: eth0}\n      \
        addresses: [192.168.1.10/24, 'fd00::10/64']\n      gateway4: 192.168.1.1\n\
        \x20     routes:\n      \
        - {to: default, via: 192.168.1.1}\n      nameservers: {addresses: [9.9.9.9]}\n  wifis:\n\
        \x20   \
        wlan0:\n      regulatory-domain: de\n      access-points:\n\
        \x20       Home: {password: 12345678}\n";
    let one = "nversion: 1\nconfig:\n- type: physical\n  name: eth0\n  subnets:\n\
        \x20 - type: static\n    \
        address: 192.168.1.10\n    netmask: 255.255.255.0\n    gateway: 192.168.1.1\n\
        \x20   routes:\n    \
        - {network: 0.0.0.0, netmask: 0.0.0.0, gateway: 192.168.1.1}\n\
        - {type: nameserver, address: 9.9.9.9}\n";
    let custom = format!(
        "cconfig_version = 1\n[system]\nhostname = 'b'\n[ssh]\nenabled = true\n\
        authorized_keys = ['{KEY}']\n\
         [wlan]\nssid = 'Home'\npassword = '12345678'\nhidden = true\ncountry = 'GB'\n"
    );
    let meta = format!("minstance-id: x\nlocal-hostname: b\npublic-keys: {{a: [{KEY}]}}\n");
    [user, two.to_owned(), one.to_owned(), custom, meta].map(String::into_bytes).to_vec()
}

/// A first byte that means something, and the line that cloud-init wants.
pub(super) fn mend_import(input: &mut Vec<u8>) {
    let Some(first) = input.first_mut() else { return };
    if !NAMES.iter().any(|(byte, _)| byte == first) {
        *first = NAMES[usize::from(*first) % NAMES.len()].0;
    }
    let head = b"u#cloud-config\n";
    if *first == b'u' && !input.starts_with(head) {
        input.splice(..1, *head);
    }
}

pub(super) fn import(input: &[u8]) -> String {
    let name = input.first().and_then(|first| NAMES.iter().find(|(byte, _)| byte == first));
    let Some((_, name)) = name else { return "no name".to_owned() };
    let imported = match Imported::of_file(*name, &input[1..]) {
        Ok(imported) => imported,
        Err(problems) => return plain(&problems.first().message),
    };
    let text = imported.text("0");
    if text.len() <= config::MOST_BYTES {
        assert_eq!(Config::parse(text.as_bytes()).as_ref(), Ok(&imported.config), "{text:?}");
    }
    let origin = Origin::of(&text).expect("an origin");
    assert_eq!(origin.files, name.as_str());
    assert!(origin.left_out.len() >= imported.findings.len().min(1));
    let shown = imported.render("file");
    assert!(!shown.contains(|it: char| it.is_control() && it != '\n'), "{shown:?}");
    match imported.findings.first() {
        None => "good whole".to_owned(),
        Some(finding) => format!("good {}", plain(&finding.problem.message)),
    }
}

/// A message without what it cites: else every word of an input is an answer of its own.
fn plain(message: &str) -> String {
    message.split('`').step_by(2).collect()
}
