//! Modules of the kernel that an owner may have loaded (`[kernel]`): those of an image that nothing
//! loads by itself until somebody asks, which a container without the right to cannot.

use alloc::format;
use alloc::string::String;

use crate::suggest;

/// All of them, in alphabetical order. Every board's image has them.
pub const MODULES: [&str; 16] = [
    "bonding",
    "cdc_acm",
    "ch341",
    "cifs",
    "cp210x",
    "dummy",
    "ftdi_sio",
    "i2c_dev",
    "ip_vs",
    "ipvlan",
    "macvlan",
    "nfsv4",
    "pl2303",
    "tun",
    "vxlan",
    "wireguard",
];

/// Reads a name; an error is one clause.
pub(crate) fn module(name: &str) -> Result<&'static str, String> {
    if let Some(known) = MODULES.iter().find(|known| **known == name) {
        return Ok(known);
    }
    let shown = name.escape_debug();
    Err(match suggest::nearest(name, MODULES) {
        Some(near) => format!("`{shown}` cannot be chosen here; did you mean `{near}`?"),
        None => format!("`{shown}` cannot be chosen here"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_modules_of_the_list_can_be_chosen() {
        assert!(MODULES.windows(2).all(|pair| pair[0] < pair[1]));
        assert_eq!(module("tun"), Ok("tun"));
        let error = module("wiregard").unwrap_err();
        assert_eq!(error, "`wiregard` cannot be chosen here; did you mean `wireguard`?");
        assert_eq!(module("../evil").unwrap_err(), "`../evil` cannot be chosen here");
    }
}
