//! A server of time that others wrote: chronyd, which says what this machine's clock says.

use std::net::{Ipv4Addr, UdpSocket};
use std::process::{Child, Stdio};

use crate::tools;

/// A running server; it ends when this is dropped.
pub struct TimeServer {
    child: Child,
    port: u16,
    _directory: tempfile::TempDir,
}

impl TimeServer {
    /// Starts it on a port of its own, for whoever is on this machine, as any user.
    pub fn start() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let port = free_port();
        let settings = format!(
            "port {port}\nbindaddress 127.0.0.1\nallow\nlocal stratum 5\ncmdport 0\n\
             bindcmdaddress /\npidfile {}\n",
            directory.path().join("pid").display()
        );
        let file = directory.path().join("chrony.conf");
        std::fs::write(&file, settings).unwrap();
        let mut command = tools::tool("chronyd").command();
        // It shall not touch this machine's clock (-x) and needs no right to (-U).
        command.args(["-x", "-U", "-u", "root", "-d", "-f"]).arg(file);
        command.stdin(Stdio::null()).stdout(Stdio::null());
        let child = command.spawn().unwrap_or_else(|error| panic!("{command:?}: {error}"));
        Self { child, port, _directory: directory }
    }

    /// Its port of UDP.
    pub fn port(&self) -> u16 {
        self.port
    }
}

impl Drop for TimeServer {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn free_port() -> u16 {
    UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap().port()
}
