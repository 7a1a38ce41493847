//! What is plugged in and pulled out while a machine runs.

use serde_json::json;

use super::Machine;
use crate::error::Result;

impl Machine {
    /// Plugs a second network card into USB. Its network is another one, which gives the address
    /// that the first one gave.
    pub fn plug_network(&self) -> Result<()> {
        let device = json!({ "driver": "usb-net", "id": "card", "netdev": "second" });
        self.qmp.execute("netdev_add", json!({ "type": "user", "id": "second" }))?;
        self.qmp.execute("device_add", device).map(drop)
    }

    /// Pulls it out again.
    pub fn unplug_network(&self) -> Result<()> {
        self.qmp.execute("device_del", json!({ "id": "card" })).map(drop)
    }
}
