//! Virtual networks (VLANs): the interfaces that `iota.toml` asks for on the cable of another one.
//!
//! They are made when dhcpcd says that the other one is there, which may be long after the start,
//! and removed when they are not wanted any more. dhcpcd then finds them as it finds any interface.
//! Ones that somebody else made, such as an engine for its containers, are left alone: those of
//! ours have a file in [`Places::made`].

use std::fs;
use std::io;
use std::net::UdpSocket;
use std::path::{Path, PathBuf};

use config::Vlan;

use crate::{files, sys};

/// Where things are.
#[derive(Clone, Copy, Debug)]
pub struct Places<'a> {
    /// A file for each that was made, by its name.
    pub made: &'a Path,
    /// Where the kernel tells about interfaces.
    pub interfaces: &'a Path,
}

impl Places<'static> {
    /// On the device.
    pub fn device() -> Self {
        Self { made: Path::new("/run/iota/vlans"), interfaces: Path::new("/sys/class/net") }
    }
}

/// What the kernel is asked to do.
pub trait Kernel {
    /// Makes one.
    fn add(&self, vlan: &Vlan) -> io::Result<()>;
    /// Removes one, by its name.
    fn remove(&self, name: &str) -> io::Result<()>;
}

/// The kernel of this device. It loads its module (`8021q`) by itself.
#[derive(Clone, Copy, Debug)]
pub struct Device;

impl Kernel for Device {
    fn add(&self, vlan: &Vlan) -> io::Result<()> {
        Ok(sys::add_vlan(socket()?, vlan.interface(), vlan.id())?)
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        Ok(sys::remove_vlan(socket()?, name)?)
    }
}

/// Any socket will do (`net/socket.c`, `sock_ioctl`).
fn socket() -> io::Result<UdpSocket> {
    UdpSocket::bind("0.0.0.0:0")
}

/// Makes what is wanted on the cable of an interface that is there, and removes what is not; says
/// what was done, and what could not be.
pub fn settle(
    interface: &str,
    wanted: &[Vlan],
    places: Places<'_>,
    kernel: &dyn Kernel,
) -> Vec<String> {
    let wanted: Vec<&Vlan> = wanted.iter().filter(|vlan| vlan.interface() == interface).collect();
    let mut said = Vec::new();
    for (name, mark) in made(interface, places.made) {
        if !wanted.iter().any(|vlan| vlan.to_string() == name) {
            said.push(told(&name, "removed", remove(&name, &mark, places, kernel)));
        }
    }
    for vlan in wanted {
        let name = vlan.to_string();
        if !places.interfaces.join(&name).exists() {
            said.push(told(&name, "added", add(vlan, &name, places, kernel)));
        }
    }
    said
}

fn told(name: &str, done: &str, result: io::Result<()>) -> String {
    match result {
        Ok(()) => format!("network {name} {done}"),
        Err(error) => format!("network {name} is not {done}: ERROR: {error}"),
    }
}

/// Those that were made on this cable and their files, in order.
fn made(interface: &str, directory: &Path) -> Vec<(String, PathBuf)> {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    let names = entries.filter_map(|entry| Some((entry.file_name().into_string().ok()?, entry)));
    let is_ours = |name: &str| name.rsplit_once('.').is_some_and(|(own, _)| own == interface);
    let mut made: Vec<_> =
        names.filter(|(name, _)| is_ours(name)).map(|(name, entry)| (name, entry.path())).collect();
    made.sort();
    made
}

fn add(vlan: &Vlan, name: &str, places: Places<'_>, kernel: &dyn Kernel) -> io::Result<()> {
    // First, so that what is there is known as ours whatever happens next.
    fs::create_dir_all(places.made)?;
    fs::write(places.made.join(name), "")?;
    kernel.add(vlan)
}

fn remove(name: &str, mark: &Path, places: Places<'_>, kernel: &dyn Kernel) -> io::Result<()> {
    // It went with the interface, if that was unplugged in between.
    if places.interfaces.join(name).exists() {
        kernel.remove(name)?;
    }
    files::remove(mark).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;
    use config::Config;

    /// A directory for a kernel: interfaces are files in it.
    struct Directory(PathBuf);

    impl Kernel for Directory {
        fn add(&self, vlan: &Vlan) -> io::Result<()> {
            match self.0.join(vlan.interface()).exists() {
                true => fs::write(self.0.join(vlan.to_string()), ""),
                false => Err(io::Error::from_raw_os_error(19)),
            }
        }

        fn remove(&self, name: &str) -> io::Result<()> {
            fs::remove_file(self.0.join(name))
        }
    }

    fn vlans(names: &[&str]) -> Config {
        let text = format!("[network]\nvlans = {names:?}\n");
        Config::parse(if names.is_empty() { b"# none" } else { text.as_bytes() }).unwrap()
    }

    #[test]
    fn those_of_an_interface_follow_what_is_wanted_and_nobody_elses_are_touched() {
        let directory = tempfile::tempdir().unwrap();
        let (interfaces, made) = (directory.path().join("net"), directory.path().join("made"));
        fs::create_dir(&interfaces).unwrap();
        let kernel = Directory(interfaces.clone());
        let settle = |interface: &str, names: &[&str]| {
            let places = Places { made: &made, interfaces: &interfaces };
            settle(interface, vlans(names).vlans(), places, &kernel)
        };
        let there = || {
            let mut names: Vec<String> = fs::read_dir(&interfaces)
                .unwrap()
                .map(|entry| entry.unwrap().file_name().into_string().unwrap())
                .collect();
            names.sort();
            names.join(" ")
        };
        for name in ["eth0", "eth0.7", "eth1"] {
            fs::write(interfaces.join(name), "").unwrap();
        }
        let wanted = ["eth0.10", "eth1.10", "eth0.7"];
        assert_eq!(settle("eth0", &wanted), ["network eth0.10 added"]);
        assert_eq!(settle("eth0", &wanted), [""; 0]);
        assert_eq!(settle("eth1", &wanted), ["network eth1.10 added"]);
        assert_eq!(there(), "eth0 eth0.10 eth0.7 eth1 eth1.10");
        // eth0.7 was there before: it is somebody else's.
        assert_eq!(
            settle("eth0", &["eth0.20"]),
            ["network eth0.10 removed", "network eth0.20 added"]
        );
        assert_eq!(there(), "eth0 eth0.20 eth0.7 eth1 eth1.10");
        // Unplugged, and what was on its cable went with it.
        fs::remove_file(interfaces.join("eth1")).unwrap();
        fs::remove_file(interfaces.join("eth1.10")).unwrap();
        assert_eq!(settle("eth1", &[]), ["network eth1.10 removed"]);
        let error = settle("eth1", &["eth1.5"]).concat();
        assert!(error.starts_with("network eth1.5 is not added: ERROR: "), "{error}");
    }
}
