//! The two conversations PID 1 has with the kernel over netlink: devices, and the loopback.
//!
//! No network code: nothing here leaves the machine, addresses are the DHCP daemon's business.

use std::os::fd::OwnedFd;

use rustix::io::Errno;
use rustix::net::netlink::{self, SocketAddrNetlink};
use rustix::net::{
    AddressFamily, Protocol, RecvFlags, SendFlags, SocketFlags, SocketType, bind, recv, recvfrom,
    send, socket_with, sockopt,
};

use crate::failure::{Context, Failure, Result};

/// Room for the events of a whole machine that appears at once.
const EVENT_QUEUE_BYTES: usize = 2 * 1024 * 1024;

/// Largest message of the kernel about a device.
pub(crate) const EVENT_BYTES: usize = 8192;

/// Opens the socket on which the kernel announces devices.
pub(crate) fn open_events() -> Result<OwnedFd> {
    let socket = open(Some(netlink::KOBJECT_UEVENT), 1).context("device events")?;
    // Without the larger queue events may be lost; the caller then looks at all devices again.
    let _ = sockopt::set_socket_recv_buffer_size_force(&socket, EVENT_QUEUE_BYTES);
    Ok(socket)
}

/// What one look at the event socket gave.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Received<'a> {
    /// A message of the kernel.
    Message(&'a [u8]),
    /// A message of somebody else, not to be believed.
    Foreign,
    /// Messages were lost.
    Lost,
    /// Nothing more for now.
    Nothing,
}

/// Takes the next event without waiting.
pub(crate) fn next_event<'a>(socket: &OwnedFd, buffer: &'a mut [u8; EVENT_BYTES]) -> Received<'a> {
    match recvfrom(socket, &mut buffer[..], RecvFlags::DONTWAIT) {
        Ok((length, _, Some(sender))) => match SocketAddrNetlink::try_from(sender) {
            Ok(sender) if sender.pid() == 0 => {
                Received::Message(buffer.get(..length).unwrap_or_default())
            }
            _ => Received::Foreign,
        },
        Ok(_) => Received::Foreign,
        Err(Errno::NOBUFS) => Received::Lost,
        Err(_) => Received::Nothing,
    }
}

/// Switches the loopback device on; the kernel gives it its addresses.
pub(crate) fn loopback_up() -> Result<()> {
    // Routes are netlink's protocol 0, which rustix writes as no protocol.
    let socket = open(None, 0).context("loopback")?;
    send(&socket, &loopback_request(), SendFlags::empty()).context("loopback")?;
    let mut reply = [0; 256];
    let length = recv(&socket, &mut reply, RecvFlags::DONTWAIT).context("loopback")?.0;
    match reply.get(..length).and_then(|reply| reply.get(16..20)) {
        Some([0, 0, 0, 0]) => Ok(()),
        _ => Err(Failure::new("loopback: refused by the kernel")),
    }
}

fn open(protocol: Option<Protocol>, groups: u32) -> rustix::io::Result<OwnedFd> {
    let socket = socket_with(
        AddressFamily::NETLINK,
        SocketType::RAW,
        SocketFlags::CLOEXEC | SocketFlags::NONBLOCK,
        protocol,
    )?;
    bind(&socket, &SocketAddrNetlink::new(0, groups))?;
    Ok(socket)
}

/// `RTM_NEWLINK` for interface 1, which is the loopback of every network namespace, with `IFF_UP`.
fn loopback_request() -> Vec<u8> {
    let mut bytes = Vec::with_capacity(32);
    bytes.extend(32_u32.to_ne_bytes()); // length
    bytes.extend(16_u16.to_ne_bytes()); // RTM_NEWLINK
    bytes.extend(5_u16.to_ne_bytes()); // NLM_F_REQUEST | NLM_F_ACK
    bytes.extend([0; 8]); // sequence, port
    bytes.extend([0; 4]); // family, padding, type
    bytes.extend(1_u32.to_ne_bytes()); // interface
    bytes.extend(1_u32.to_ne_bytes()); // flags: IFF_UP
    bytes.extend(1_u32.to_ne_bytes()); // which of them to change
    bytes
}
