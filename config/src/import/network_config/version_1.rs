//! Version 1: a list of parts, each of a type.

use alloc::format;

use super::{Fixed, is_default, leftover, prefix};
use crate::import::draft::Draft;
use crate::import::node::Node;

pub(super) fn read(draft: &mut Draft<'_>, root: &Node) {
    for entry in draft.entries(root, "network-config") {
        match &*entry.key {
            "version" => {}
            "config" => entry.value.items().iter().for_each(|part| one(draft, part)),
            _ => leftover(draft, entry),
        }
    }
}

fn one(draft: &mut Draft<'_>, part: &Node) {
    match part.get("type").and_then(Node::text) {
        Some("physical") => physical(draft, part),
        Some("nameserver") => name_servers(draft, part),
        Some("loopback") => {}
        other => {
            let kind = other.unwrap_or("nothing");
            draft.note(part.at, &format!("a part of type `{kind}` is not supported"), "");
        }
    }
}

fn name_servers(draft: &mut Draft<'_>, part: &Node) {
    for entry in draft.entries(part, "a name server") {
        match &*entry.key {
            "type" | "interface" => {}
            "address" => draft.name_servers("address", &entry.value),
            _ => leftover(draft, entry),
        }
    }
}

fn physical(draft: &mut Draft<'_>, part: &Node) {
    let mut fixed = Fixed::default();
    for entry in draft.entries(part, "an interface") {
        match &*entry.key {
            // By its address cloud-init finds an interface to give it that name.
            "type" | "name" | "mac_address" | "accept-ra" => {}
            "subnets" => {
                entry.value.items().iter().for_each(|subnet| one_subnet(draft, &mut fixed, subnet));
            }
            _ => leftover(draft, entry),
        }
    }
    let name = part.get("name").and_then(Node::text);
    fixed.finish(draft, part.at, name.ok_or("addresses for an interface without `name`"));
}

fn one_subnet<'n>(draft: &mut Draft<'_>, fixed: &mut Fixed<'n>, subnet: &'n Node) {
    let text = |key: &str| subnet.get(key).and_then(Node::text);
    let kind = text("type").unwrap_or_default();
    let is_fixed = matches!(kind, "static" | "static6");
    if !is_fixed && !kind.starts_with("dhcp") && !kind.starts_with("ipv6_") {
        draft.note(subnet.at, &format!("a subnet of type `{kind}` is not supported"), "");
    }
    for entry in draft.entries(subnet, "a subnet") {
        match &*entry.key {
            "type" | "netmask" | "ipv4" | "ipv6" => {}
            "address" if is_fixed => {
                let address = entry.value.text().unwrap_or_default();
                let address = match text("netmask").and_then(prefix) {
                    Some(length) if !address.contains('/') => format!("{address}/{length}"),
                    _ => address.into(),
                };
                fixed.addresses.push((entry.value.at, address));
            }
            "gateway" if is_fixed => fixed.router(draft, &entry.value),
            "dns_nameservers" => draft.name_servers("dns_nameservers", &entry.value),
            "routes" => entry.value.items().iter().for_each(|route| one_route(draft, fixed, route)),
            _ => leftover(draft, entry),
        }
    }
}

fn one_route<'n>(draft: &mut Draft<'_>, fixed: &mut Fixed<'n>, route: &'n Node) {
    let text = |key: &str| route.get(key).and_then(Node::text);
    let target = text("network").or_else(|| text("destination"));
    match route.get("gateway").filter(|_| is_default(target, text("netmask"))) {
        Some(gateway) => fixed.router(draft, gateway),
        None => draft.note(route.at, "a route that is not the default one", ""),
    }
}
