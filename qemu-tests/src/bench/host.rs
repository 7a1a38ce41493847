//! The host by itself: how soon somebody can log in, and what it holds without an engine.

use std::io::Read as _;
use std::net::{Ipv4Addr, TcpStream};
use std::path::Path;
use std::time::{Duration, Instant};

use builder::error::{Error, Result};
use builder::host::qemu::{Forward, Options};

use super::boot::{Candidate, IDLE, LEASE, LONG, held, payload};
use super::table::{Goal, Row, Value};
use crate::disk::Disk;
use crate::machine::Machine;
use crate::ssh::Person;
use crate::web_server::free_port;

/// How often the SSH server is looked for.
const PACE: Duration = Duration::from_millis(20);
/// How its first line begins (RFC 4253, section 4.2).
const GREETING: &[u8] = b"SSH-2.0";

/// Two boots of an image, whose directory is `outputs`.
pub fn run(ours: &Candidate, outputs: &Path, scratch: &Path) -> Result<Vec<Row>> {
    Ok(vec![
        Row::new("address by DHCP to a greeting by SSH", Value::Seconds(greeted_s(outputs)?))
            .goal(Goal::AtMost(Value::Seconds(3.0))),
        Row::new("memory of a host without an engine", Value::Mebibytes(alone(ours, scratch)?))
            .goal(Goal::AtMost(Value::Mebibytes(40 << 20))),
    ])
}

/// Seconds from the network to a greeting, at a first start, which also makes the host's key, and
/// while the engine starts.
fn greeted_s(outputs: &Path) -> Result<f64> {
    let config = format!("[ssh]\nkeys = [\"{}\"]\n", Person::new("anna@mill", 1).public_key());
    let disk = Disk::flashed_with_config(outputs, "bench-host", &config);
    let port = free_port();
    let forwards = vec![Forward { host: port, guest: 22 }];
    let mut machine =
        Machine::boot("bench-host", &Options { forwards, ..Options::new(disk.path()) });
    machine.expect_somewhere(&format!("network eth0 {LEASE}"), LONG);
    let start = Instant::now();
    while !is_greeted(port) {
        if start.elapsed() > LONG {
            return Err(Error::new("nobody answers on port 22"));
        }
        std::thread::sleep(PACE);
    }
    Ok(start.elapsed().as_secs_f64())
}

/// QEMU takes any connection, and ends those that nobody in the guest takes.
fn is_greeted(port: u16) -> bool {
    let mut greeting = [0; GREETING.len()];
    let greeted = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).and_then(|mut stream| {
        stream.set_read_timeout(Some(LONG))?;
        stream.read_exact(&mut greeting)
    });
    greeted.is_ok() && greeting == *GREETING
}

/// Bytes that are neither free nor content of files once everything but the engine runs, as in safe
/// mode, the port's buffers left out.
fn alone(ours: &Candidate, scratch: &Path) -> Result<u64> {
    let mut kernel = payload(ours, scratch)?.kernel;
    kernel.command_line.push_str(" iota.safe=1");
    let options = Options { kernel: Some(kernel), ..Options::new(&ours.disk) };
    let mut machine = Machine::boot("bench-alone", &options);
    machine.expect_somewhere(&format!("network eth0 {LEASE}"), LONG);
    std::thread::sleep(IDLE);
    let status = machine.status();
    held(&status).ok_or_else(|| Error::new(format!("cannot read {status}")))
}
