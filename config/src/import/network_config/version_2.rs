//! Version 2: tables of interfaces by their names, as netplan has them.

use super::{Fixed, is_default, leftover};
use crate::import::draft::{Draft, Network};
use crate::import::node::{Entry, Node, Value};
use crate::wifi::Security;

pub(super) fn read(draft: &mut Draft<'_>, root: &Node) {
    for entry in draft.entries(root, "network-config") {
        match &*entry.key {
            // Whoever sets it up on this system.
            "version" | "renderer" => {}
            "ethernets" | "wifis" => {
                for interface in draft.entries(&entry.value, &entry.key) {
                    one(draft, interface, name(interface));
                }
            }
            "vlans" => {
                for vlan in draft.entries(&entry.value, "vlans") {
                    if let Some(name) = draft.vlan(vlan) {
                        one(draft, vlan, Ok(&name));
                    }
                }
            }
            _ => leftover(draft, entry),
        }
    }
}

fn one(draft: &mut Draft<'_>, interface: &Entry, name: Result<&str, &'static str>) {
    let mut fixed = Fixed::default();
    for entry in draft.entries(&interface.value, "an interface") {
        let value = &entry.value;
        match &*entry.key {
            // Asking the network is what every interface does, and nothing waits for one.
            "dhcp4" | "dhcp6" | "optional" | "accept-ra" if value.truth().is_some() => {}
            "match" => {}
            // Of a VLAN, which has been read.
            "id" | "link" if interface.value.get("link").is_some() => {}
            "addresses" => addresses(draft, &mut fixed, value),
            "gateway4" | "gateway6" => fixed.router(draft, value),
            "routes" => routes(draft, &mut fixed, value),
            "nameservers" => name_servers(draft, value),
            "regulatory-domain" => draft.country("regulatory-domain", value),
            "access-points" => {
                for point in draft.entries(value, "`access-points`") {
                    access_point(draft, point);
                }
            }
            _ => leftover(draft, entry),
        }
    }
    fixed.finish(draft, interface.at, name);
}

/// A plain name to match is the interface's; anything else is not known before a device starts.
fn name(interface: &Entry) -> Result<&str, &'static str> {
    let Some(matched) = interface.value.get("match") else { return Ok(&interface.key) };
    match matched.get("name").and_then(Node::text) {
        Some(name) if !name.contains(['*', '?', '[']) => Ok(name),
        Some(_) => Err("addresses for whichever interface matches a pattern"),
        None => Err("addresses for an interface that is told by something else than its name"),
    }
}

fn addresses(draft: &mut Draft<'_>, fixed: &mut Fixed<'_>, node: &Node) {
    for item in node.items() {
        match &item.value {
            Value::Text(text) => fixed.addresses.push((item.at, text.clone())),
            // With a label or a lifetime below the address.
            _ => {
                for entry in draft.entries(item, "an address") {
                    fixed.addresses.push((entry.at, entry.key.clone()));
                    for option in draft.entries(&entry.value, "an address") {
                        leftover(draft, option);
                    }
                }
            }
        }
    }
}

fn routes<'n>(draft: &mut Draft<'_>, fixed: &mut Fixed<'n>, node: &'n Node) {
    for route in node.items() {
        let via =
            route.get("via").filter(|_| is_default(route.get("to").and_then(Node::text), None));
        match via {
            Some(via) => fixed.router(draft, via),
            None => draft.note(route.at, "a route that is not the default one", ""),
        }
        for entry in draft.entries(route, "a route") {
            if !["to", "via", "on-link"].contains(&&*entry.key) {
                leftover(draft, entry);
            }
        }
    }
}

fn name_servers(draft: &mut Draft<'_>, node: &Node) {
    for entry in draft.entries(node, "`nameservers`") {
        match &*entry.key {
            "addresses" => draft.name_servers("nameservers", &entry.value),
            _ => leftover(draft, entry),
        }
    }
}

fn access_point(draft: &mut Draft<'_>, point: &Entry) {
    let (mut password, mut security, mut hidden) = (None, None, false);
    for entry in draft.entries(&point.value, "an access point") {
        match &*entry.key {
            "password" => password = Some(&entry.value),
            "hidden" => hidden = entry.value.truth() == Some(true),
            "mode" if entry.value.text() == Some("infrastructure") => {}
            "auth" => {
                for entry in draft.entries(&entry.value, "`auth`") {
                    match (&*entry.key, entry.value.text()) {
                        ("password", _) => password = Some(&entry.value),
                        ("key-management", Some("psk" | "psk-sha256")) => {}
                        ("key-management", Some("sae")) => security = Some(Security::Wpa3),
                        ("key-management", Some("none")) => security = Some(Security::Open),
                        // Joining it without what protects it would be another network.
                        _ => return draft.unsupported(entry, "the network is left out"),
                    }
                }
            }
            _ => leftover(draft, entry),
        }
    }
    let (ssid, at) = (&*point.key, point.at);
    draft.wifi(&Network { ssid, at, password, security, hidden });
}
