//! What is plugged in and pulled out while a machine runs.

use std::path::Path;

use serde_json::{Value, json};

use super::Machine;
use crate::error::Result;

/// What is at the other end of a second network card.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Network<'a> {
    /// QEMU's own network, which gives the address that the first card got.
    Own,
    /// Whoever listens on this socket: frames with their length before them, four bytes, the
    /// highest first (`-netdev stream` in qemu(1)).
    Socket(&'a Path),
}

impl Network<'_> {
    fn arguments(self) -> Value {
        match self {
            Self::Own => json!({ "type": "user", "id": "second" }),
            Self::Socket(path) => json!({
                "type": "stream",
                "id": "second",
                "server": false,
                "addr": { "type": "unix", "path": path },
            }),
        }
    }
}

impl Machine {
    /// Plugs a second network card into USB.
    pub fn plug_network(&self, network: Network<'_>) -> Result<()> {
        let device = json!({ "driver": "usb-net", "id": "card", "netdev": "second" });
        self.qmp.execute("netdev_add", network.arguments())?;
        self.qmp.execute("device_add", device).map(drop)
    }

    /// Pulls it out again.
    pub fn unplug_network(&self) -> Result<()> {
        self.qmp.execute("device_del", json!({ "id": "card" }))?;
        self.qmp.execute("netdev_del", json!({ "id": "second" })).map(drop)
    }
}
