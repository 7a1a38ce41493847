//! A config as text: the one way to write it, which reads back as the same.

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;

use crate::{Config, Interface};

impl fmt::Display for Config {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let network = (!self.name_servers.is_empty()).then(|| {
            let servers = self.name_servers.iter().map(quoted).collect::<Vec<_>>();
            format!("[network]\ndns = [{}]\n", servers.join(", "))
        });
        let time = (!self.time_servers.is_empty()).then(|| {
            let servers = self.time_servers.iter().map(quoted).collect::<Vec<_>>();
            format!("[time]\nservers = [{}]\n", servers.join(", "))
        });
        let ssh = (!self.ssh_keys.is_empty()).then(|| {
            let keys: String =
                self.ssh_keys.iter().map(|key| format!("    \"{key}\",\n")).collect();
            format!("[ssh]\nkeys = [\n{keys}]\n")
        });
        let image = self.console_image.as_ref();
        let console = image.map(|image| format!("[console]\nimage = {}\n", quoted(image)));
        let health = self.health_window_s.map(|s| format!("[health]\nwindow-s = {s}\n"));
        let mut sysctls = String::from("[sysctl]\n");
        for (name, value) in &self.sysctls {
            sysctls.push_str(&format!("{name} = {value}\n"));
        }
        let sysctls = (!self.sysctls.is_empty()).then_some(sysctls);
        let hostname = self.hostname.as_ref().map(|name| format!("hostname = {}\n", quoted(name)));
        let first = hostname.into_iter().chain(network);
        let interfaces = self.interfaces.iter().map(interface);
        let last = time.into_iter().chain(ssh).chain(console).chain(health).chain(sysctls);
        let parts: Vec<String> = first.chain(interfaces).chain(last).collect();
        // An empty file would not be read back: it is what a lost write leaves.
        out.write_str(if parts.is_empty() { "# nothing is set\n" } else { "" })?;
        out.write_str(&parts.join("\n"))
    }
}

fn interface(interface: &Interface) -> String {
    let ipv4 = interface.ipv4.map(quoted);
    let ipv6 = interface.ipv6.map(quoted);
    let addresses: Vec<String> = ipv4.into_iter().chain(ipv6).collect();
    let (name, addresses) = (quoted(&interface.name), addresses.join(", "));
    let text = format!("[[network.interface]]\nname = {name}\naddress = [{addresses}]\n");
    match &interface.router {
        Some(router) => format!("{text}router = {}\n", quoted(router)),
        None => text,
    }
}

/// No value of a config holds what a quoted string would have to escape.
fn quoted(value: impl fmt::Display) -> String {
    format!("\"{value}\"")
}
