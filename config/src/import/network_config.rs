//! `network-config`, versions 1 and 2 (which is netplan's).
//!
//! A device asks every interface's network for an address anyway, so only what is fixed has to be
//! taken, and only that needs the name of its interface.

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::draft::Draft;
use super::node::{Entry, Node};
use crate::network::{self, Address, Interface};
use crate::read::one_of_each;

mod version_1;
mod version_2;

/// Both versions, with or without the key `network` around them.
pub(super) fn read(draft: &mut Draft<'_>, root: &Node) {
    let root = match root.get("network") {
        Some(inner) if root.entries().len() == 1 => inner,
        _ => root,
    };
    match root.get("version").and_then(Node::text) {
        Some("1") => version_1::read(draft, root),
        Some("2") => version_2::read(draft, root),
        _ if root.entries().is_empty() => drop(draft.entries(root, "network-config")),
        _ => draft.note(root.at, "`version` is neither 1 nor 2", ""),
    }
}

/// What a file says about one interface, as it is found.
#[derive(Default)]
struct Fixed<'n> {
    /// Addresses, each with its place.
    addresses: Vec<(usize, String)>,
    router: Option<&'n Node>,
}

impl<'n> Fixed<'n> {
    /// The way to everywhere else. Routers of IPv6 announce themselves.
    fn router(&mut self, draft: &mut Draft<'_>, node: &'n Node) {
        if node.text().is_some_and(|text| text.parse::<Ipv6Addr>().is_ok()) {
            draft.note(node.at, "routers of IPv6 announce themselves", "");
        } else {
            self.router = Some(node);
        }
    }

    /// Takes it, if there is anything fixed; `name` is the interface's, or why that is not known.
    fn finish(self, draft: &mut Draft<'_>, at: usize, name: Result<&str, &str>) {
        let (mut ipv4, mut ipv6) = (None, None);
        let Ok(name) = name.map_err(|why| {
            if !self.addresses.is_empty() {
                draft.note(at, why, "an interface is told by its name here, such as `eth0`");
            }
        }) else {
            return;
        };
        for (at, text) in &self.addresses {
            address(draft, *at, text, &mut ipv4, &mut ipv6);
        }
        let router = self
            .router
            .and_then(|node| draft.parsed("gateway", node, |text| network::router(text, ipv4)));
        if ipv4.is_none() && ipv6.is_none() {
            return;
        }
        let twice = draft.config.interfaces.iter().any(|other| other.name == name);
        match network::interface_name(name) {
            Err(why) => draft.note(at, &why, ""),
            Ok(()) if twice => draft.note(at, &format!("`{name}` is there twice"), ""),
            Ok(()) => {
                draft.config.interfaces.push(Interface { name: name.into(), ipv4, ipv6, router })
            }
        }
    }
}

fn address(
    draft: &mut Draft<'_>,
    at: usize,
    text: &str,
    ipv4: &mut Option<Address<Ipv4Addr>>,
    ipv6: &mut Option<Address<Ipv6Addr>>,
) {
    // A second one of a kind must not take the place of the first.
    let (first_ipv4, first_ipv6) = (*ipv4, *ipv6);
    let read = network::address(text)
        .and_then(|address| one_of_each(address, &draft.config.interfaces, ipv4, ipv6));
    if let Err(why) = read {
        (*ipv4, *ipv6) = (first_ipv4, first_ipv6);
        draft.note(at, &why, "");
    }
}

/// `255.255.255.0` as `24`.
fn prefix(mask: &str) -> Option<u32> {
    match mask.parse::<IpAddr>() {
        Ok(IpAddr::V4(mask)) => {
            let bits = u32::from(mask);
            (bits.leading_ones() == bits.count_ones()).then(|| bits.count_ones())
        }
        Ok(IpAddr::V6(mask)) => {
            let bits = u128::from(mask);
            (bits.leading_ones() == bits.count_ones()).then(|| bits.count_ones())
        }
        Err(_) => mask.parse().ok(),
    }
}

/// Whether a route leads everywhere.
fn is_default(target: Option<&str>, mask: Option<&str>) -> bool {
    match target {
        Some("default" | "0.0.0.0/0" | "::/0") => true,
        Some("0.0.0.0" | "::") => matches!(mask, Some("0.0.0.0" | "0" | "::")),
        _ => false,
    }
}

/// A key of a part that nothing here stands for.
fn leftover(draft: &mut Draft<'_>, entry: &Entry) {
    draft.unsupported(entry, "");
}
