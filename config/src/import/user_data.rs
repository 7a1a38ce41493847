//! `user-data`, as far as it is `#cloud-config`, and `meta-data`.

use alloc::format;

use super::draft::Draft;
use super::node::{Entry, Node};

/// What the device does anyway, or what makes no difference to it.
const UNDERSTOOD: [&str; 5] =
    ["manage_etc_hosts", "enable_ssh", "growpart", "resize_rootfs", "instance-id"];

/// What of a user makes no difference: whoever has a key becomes root.
const OF_A_USER: [&str; 11] = [
    "name",
    "gecos",
    "groups",
    "shell",
    "sudo",
    "lock_passwd",
    "lock-passwd",
    "primary_group",
    "homedir",
    "uid",
    "doas",
];

const NO_PASSWORDS: &str = "there are no passwords: who has a key logs in";

/// cloud-init's own rule: the first line decides what the rest is.
pub(super) fn is_cloud_config(text: &str) -> bool {
    text.lines().next().is_some_and(|line| line.trim_end() == "#cloud-config")
}

pub(super) fn user_data(draft: &mut Draft<'_>, root: &Node) {
    // A name is what it says; a longer one is asked only without it.
    let has_hostname = root.get("hostname").is_some();
    for entry in draft.entries(root, "user-data") {
        let value = &entry.value;
        match &*entry.key {
            "hostname" => draft.hostname("hostname", value),
            "fqdn" if has_hostname => {}
            "fqdn" => draft.hostname("fqdn", value),
            "preserve_hostname" if value.truth() == Some(false) => {}
            "ssh_authorized_keys" => draft.ssh_keys("ssh_authorized_keys", value),
            "users" => users(draft, value),
            "user" => user(draft, value),
            "ssh_pwauth" if value.truth() == Some(false) => {}
            "ssh_pwauth" | "password" | "chpasswd" => draft.unsupported(entry, NO_PASSWORDS),
            "ntp" => ntp(draft, value),
            "timezone" => draft.zone("timezone", value),
            "ca_certs" | "ca-certs" => authorities(draft, value),
            "network" => draft.unsupported(entry, "it belongs into the file network-config"),
            key if UNDERSTOOD.contains(&key) => {}
            _ => draft.unsupported(entry, ""),
        }
    }
}

pub(super) fn meta_data(draft: &mut Draft<'_>, root: &Node) {
    for entry in draft.entries(root, "meta-data") {
        match &*entry.key {
            "local-hostname" | "hostname" => draft.hostname(&entry.key, &entry.value),
            "public-keys" | "public_keys" => public_keys(draft, entry),
            key if UNDERSTOOD.contains(&key) => {}
            _ => draft.unsupported(entry, ""),
        }
    }
}

/// A list of keys, or lists of them below names.
fn public_keys(draft: &mut Draft<'_>, entry: &Entry) {
    match entry.value.entries() {
        [] => draft.ssh_keys(&entry.key, &entry.value),
        names => names.iter().for_each(|name| draft.ssh_keys(&entry.key, &name.value)),
    }
}

fn users(draft: &mut Draft<'_>, list: &Node) {
    for item in list.items() {
        match item.text() {
            // Whom the image has anyway: root, who gets the keys of the whole file.
            Some("default" | "root") => {}
            _ => user(draft, item),
        }
    }
}

fn user(draft: &mut Draft<'_>, node: &Node) {
    for entry in draft.entries(node, "a user") {
        match &*entry.key {
            "ssh_authorized_keys" | "ssh-authorized-keys" => {
                draft.ssh_keys("ssh_authorized_keys", &entry.value);
            }
            "passwd" | "plain_text_passwd" | "hashed_passwd" | "plain-text-passwd" => {
                draft.unsupported(entry, NO_PASSWORDS);
            }
            key if OF_A_USER.contains(&key) => {}
            _ => draft.unsupported(entry, "whoever has a key becomes root"),
        }
    }
}

fn authorities(draft: &mut Draft<'_>, node: &Node) {
    for entry in draft.entries(node, "`ca_certs`") {
        match &*entry.key {
            "trusted" => draft.certificates("ca_certs.trusted", &entry.value),
            _ => draft.unsupported(entry, "the public authorities are trusted as well"),
        }
    }
}

fn ntp(draft: &mut Draft<'_>, node: &Node) {
    for entry in draft.entries(node, "`ntp`") {
        match &*entry.key {
            "servers" | "pools" => {
                draft.time_servers(&format!("ntp.{}", entry.key), &entry.value);
            }
            "enabled" if entry.value.truth() == Some(true) => {}
            "ntp_client" if matches!(entry.value.text(), Some("chrony" | "auto")) => {}
            _ => draft.unsupported(entry, ""),
        }
    }
}
