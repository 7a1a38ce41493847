//! Boots of the same image with different programs as PID 1: ours, systemd, a shell script.
//!
//! A machine is started twice over: *directly*, where QEMU itself starts the kernel with the
//! command line that the loader would give it, and *whole*, through firmware and loader, whose time
//! is the same for all and would hide the rest. The probe is the same in all: the agent, which says
//! on the console when the engine answers, and afterwards who started when and holds what memory.

use std::path::{Path, PathBuf};
use std::time::Duration;

use builder::error::{Context, Error, Result};
use builder::host::qemu::{Kernel, Options};
use builder::payload;
use ondisk::boot_args::BootArgs;
use ondisk::layout::Slot;
use ondisk::manifest::{Manifest, PartName};
use serde_json::Value as Json;

use super::process::cpu_seconds_of;
use super::table::{Goal, Row, Value};
use crate::disk::Disk;
use crate::machine::Machine;

/// Emulated processors on a busy machine.
pub(super) const LONG: Duration = Duration::from_secs(240);
/// What the guest's kernel holds ready for the port through which it is asked: 2048 pages, by the
/// kernel's own list of who holds which (`page_owner`). No device has such a port.
const PORT_BUFFERS: u64 = 8 << 20;
/// How long everything is left alone before memory is looked at.
pub(super) const IDLE: Duration = Duration::from_secs(20);

/// How the address begins that QEMU's own DHCP server gives away.
pub(super) const LEASE: &str = "10.0.2.";

/// An image to boot.
pub struct Candidate {
    /// Who is PID 1.
    pub name: &'static str,
    /// The disk image.
    pub disk: PathBuf,
}

/// Boots ours and the peers, each `rounds` times, in turn; the least of each figure counts.
pub fn run(
    ours: &Candidate,
    peers: &[Candidate],
    rounds: usize,
    scratch: &Path,
) -> Result<Vec<Row>> {
    let all: Vec<&Candidate> = std::iter::once(ours).chain(peers).collect();
    let payloads: Vec<Payload> =
        all.iter().map(|candidate| payload(candidate, scratch)).collect::<Result<_>>()?;
    let mut found: Vec<Vec<Boot>> = vec![Vec::new(); all.len()];
    for _ in 0..rounds {
        for ((candidate, payload), found) in all.iter().zip(&payloads).zip(&mut found) {
            found.push(boot(candidate, payload, scratch)?);
        }
    }
    let best: Vec<Boot> = found.iter().filter_map(|boots| least(boots)).collect();
    let [mine, theirs @ ..] = &best[..] else { return Err(Error::new("nothing was booted")) };
    let mut rows = Vec::new();
    for (peer, theirs) in peers.iter().zip(theirs) {
        rows.extend(compare(mine, peer.name, theirs));
    }
    rows.extend(alone(mine));
    Ok(rows)
}

/// What a release reads at a start, as devices have it. A development image, packed with less
/// effort, reads a sixth more.
pub fn reads_of_release(disk: PathBuf, scratch: &Path) -> Result<Vec<Row>> {
    let candidate = Candidate { name: "release", disk };
    let whole = Options::new(&candidate.disk);
    let kernel = Some(payload(&candidate, scratch)?.kernel);
    let direct = Options { kernel, ..whole.clone() };
    let read_until = |line, options| -> Result<Value> {
        let mut machine = Machine::boot("bench-release", options);
        machine.expect(line, LONG);
        Ok(Value::Megabytes(machine.qemu().bytes_read()?))
    };
    let row = |what: &str, read, most| {
        let goal = Goal::AtMost(Value::Megabytes(most));
        Row::new(format!("release: {what}"), read).goal(goal)
    };
    Ok(vec![
        row(ROOT_READ, read_until(ANSWERS, &direct)?, 38_000_000),
        row(KERNEL_READ, read_until("starting kernel", &whole)?, 16_000_000),
    ])
}

const ROOT_READ: &str = "read until engine answers, root and data";
const KERNEL_READ: &str = "read until kernel starts, kernel and initrd";

/// What one image needed, directly and whole.
#[derive(Clone, Debug, PartialEq)]
struct Boot {
    /// Seconds from QEMU's start until the engine's program was started, started directly.
    begun_s: f64,
    /// Seconds from QEMU's start until the engine answered, started directly.
    direct_s: f64,
    /// Processor time of the emulator until then: what other programs on this machine change least.
    direct_cpu_s: f64,
    /// Seconds until the first container was started, its image loaded before.
    container_s: f64,
    /// Seconds through firmware and loader.
    whole_s: f64,
    /// Bytes read from the disk until then, started directly: root and data.
    root_bytes: u64,
    /// Bytes read through firmware until the kernel started: boot partition, kernel, initrd.
    kernel_bytes: u64,
    /// Seconds that the loader reads and hashes kernel and initrd, for each 15 MB of them.
    verify_s: f64,
    /// Seconds that it unpacks the kernel and hashes what came out.
    unpack_s: f64,
    /// Seconds from the link to an address by DHCP.
    address_s: f64,
    told: Told,
}

/// What the guest told of itself.
#[derive(Clone, Debug, PartialEq)]
struct Told {
    /// Seconds from the start of PID 1 to that of the engine's first program, and of dockerd.
    engine_start_s: f64,
    dockerd_start_s: f64,
    /// Seconds from the kernel's start to that of dockerd.
    dockerd_s: f64,
    /// Bytes that are not free, not content of files, and not the engine's own.
    above_engine: u64,
    /// Bytes that engine and containers hold for themselves.
    engine: u64,
}

fn least(boots: &[Boot]) -> Option<Boot> {
    let second = |of: fn(&Boot) -> f64| boots.iter().map(of).fold(f64::MAX, f64::min);
    let bytes = |of: fn(&Boot) -> u64| boots.iter().map(of).min();
    Some(Boot {
        begun_s: second(|boot| boot.begun_s),
        direct_s: second(|boot| boot.direct_s),
        direct_cpu_s: second(|boot| boot.direct_cpu_s),
        container_s: second(|boot| boot.container_s),
        whole_s: second(|boot| boot.whole_s),
        root_bytes: bytes(|boot| boot.root_bytes)?,
        kernel_bytes: bytes(|boot| boot.kernel_bytes)?,
        verify_s: second(|boot| boot.verify_s),
        unpack_s: second(|boot| boot.unpack_s),
        address_s: second(|boot| boot.address_s),
        told: Told {
            engine_start_s: second(|boot| boot.told.engine_start_s),
            dockerd_start_s: second(|boot| boot.told.dockerd_start_s),
            dockerd_s: second(|boot| boot.told.dockerd_s),
            above_engine: bytes(|boot| boot.told.above_engine)?,
            engine: bytes(|boot| boot.told.engine)?,
        },
    })
}

fn compare(ours: &Boot, peer: &str, theirs: &Boot) -> Vec<Row> {
    // Of what comes before the engine: its own start is as long for all (decisions/boot-goal.md).
    let (begun, starting) = if peer == "systemd" { (0.36, 0.2) } else { (1.0, 1.0) };
    let seconds = |what: &str, of: fn(&Boot) -> f64| {
        Row::new(what, Value::Seconds(of(ours))).beside(peer, Value::Seconds(of(theirs)))
    };
    let bytes = |what: &str, of: fn(&Boot) -> u64| {
        Row::new(what, Value::Megabytes(of(ours))).beside(peer, Value::Megabytes(of(theirs)))
    };
    let memory =
        Row::new("memory above the engine's own", Value::Mebibytes(ours.told.of_a_device()));
    // Beside a PID 1 that does next to nothing, nothing may be in the engine's way.
    let answering = |row: Row| if peer == "systemd" { row } else { row.goal(Goal::Times(1.0)) };
    let emulator = "emulator's processor time until then";
    let emulator = Row::new(emulator, Value::CpuSeconds(ours.direct_cpu_s));
    vec![
        seconds("QEMU's start to dockerd's, kernel started directly", |boot| boot.begun_s)
            .goal(Goal::Times(begun)),
        answering(seconds("QEMU's start to engine answering, kernel started directly", |boot| {
            boot.direct_s
        })),
        emulator.beside(peer, Value::CpuSeconds(theirs.direct_cpu_s)),
        seconds("QEMU's start to first container, kernel started directly", |boot| {
            boot.container_s
        })
        .goal(Goal::Times(1.2)),
        answering(seconds("QEMU's start to engine answering, firmware and loader", |boot| {
            boot.whole_s
        })),
        seconds("PID 1's start to containerd's", |boot| boot.told.engine_start_s)
            .goal(Goal::Times(starting)),
        seconds("PID 1's start to dockerd's", |boot| boot.told.dockerd_start_s),
        bytes(ROOT_READ, |boot| boot.root_bytes),
        memory.beside(peer, Value::Mebibytes(theirs.told.of_a_device())),
    ]
}

fn alone(ours: &Boot) -> Vec<Row> {
    let memory = Value::Mebibytes(ours.told.of_a_device());
    vec![
        Row::new(KERNEL_READ, Value::Megabytes(ours.kernel_bytes)),
        Row::new("loader verifies kernel and initrd, each 15 MB", Value::Seconds(ours.verify_s))
            .goal(Goal::AtMost(Value::Seconds(1.0))),
        Row::new("loader unpacks the kernel and verifies that", Value::Seconds(ours.unpack_s)),
        Row::new("link to an address by DHCP", Value::Seconds(ours.address_s))
            .goal(Goal::AtMost(Value::Seconds(1.0))),
        Row::new("memory above the engine's own", memory)
            .goal(Goal::AtMost(Value::Mebibytes(40 << 20))),
        Row::new("memory of engine and container", Value::Mebibytes(ours.told.engine)),
    ]
}

fn boot(candidate: &Candidate, payload: &Payload, scratch: &Path) -> Result<Boot> {
    let name = format!("bench-{}", candidate.name);
    let whole = Options::new(&candidate.disk);
    let direct = Options { kernel: Some(payload.kernel.clone()), ..whole.clone() };
    let mut machine = Machine::boot(&name, &direct);
    let answered = machine.expect(ANSWERS, LONG);
    let direct_s = answered.at.as_secs_f64();
    let guest_s = guest_seconds(&answered.text)
        .ok_or_else(|| Error::new(format!("{name}: no time in `{}`", answered.text)))?;
    let direct_cpu_s = cpu_seconds_of(machine.qemu().process())?;
    let root_bytes = machine.qemu().bytes_read()?;
    let container_s = machine.expect("container hello started", LONG).at.as_secs_f64();
    machine.expect("system ready", LONG);
    std::thread::sleep(IDLE);
    let answer = machine.qemu().execute(&["status", "--json"], std::io::empty(), LONG)?;
    let kept = scratch.join(format!("{}.status.json", candidate.name));
    std::fs::write(&kept, &answer.output).context(|| format!("cannot write {}", kept.display()))?;
    let told = Told::parse(&answer.text())
        .ok_or_else(|| Error::new(format!("{name}: cannot read {}", answer.text())))?;
    let said = machine.console.log();
    let reached =
        |text: &str| said.lines().find(|line| line.contains(text)).and_then(guest_seconds);
    // A peer has a client of its own, which says nothing on the console.
    let address_s = reached(&format!("network eth0 {LEASE}")).zip(reached("link eth0 up"));
    let address_s = address_s.map_or(f64::MAX, |(end, start)| end - start);
    drop(machine);
    let begun_s = direct_s - (guest_s - told.dockerd_s);

    let mut machine = Machine::boot(&name, &whole);
    let mut reached = |line| machine.expect(line, LONG).at.as_secs_f64();
    let (found, verified) = (reached("signed by"), reached("initrd verified"));
    let unpack_s = reached("kernel unpacked") - verified;
    let verify_s = (verified - found) * 15e6 / payload.packed_bytes as f64;
    machine.expect("starting kernel", LONG);
    let kernel_bytes = machine.qemu().bytes_read()?;
    let whole_s = machine.expect(ANSWERS, LONG).at.as_secs_f64();
    Ok(Boot {
        begun_s,
        direct_s,
        direct_cpu_s,
        container_s,
        whole_s,
        root_bytes,
        kernel_bytes,
        verify_s,
        unpack_s,
        address_s,
        told,
    })
}

/// The guest's clock in a line such as `iota agent: [  12.190] engine docker ready`.
fn guest_seconds(line: &str) -> Option<f64> {
    line.split_once('[')?.1.split_once(']')?.0.trim().parse().ok()
}

/// What the agent says when the engine has answered it.
const ANSWERS: &str = "engine docker ready";

/// What the loader starts, and how much it has to verify before.
pub struct Payload {
    /// Kernel, initrd and command line.
    pub kernel: Kernel,
    /// Kernel and initrd as they lie in the slot.
    packed_bytes: u64,
}

/// No initrd has so many bytes.
const INITRD_MOST: usize = 64 << 20;

/// Takes out of the image what the loader would start, and the words it would give.
pub fn payload(candidate: &Candidate, scratch: &Path) -> Result<Payload> {
    let disk = Disk::copy_of(&candidate.disk, &format!("bench-{}", candidate.name));
    let slot = disk.slot(Slot::A);
    let fields = disk.manifest(Slot::A);
    let part = |name| slot.slice(fields.part(name).extent).ok_or_else(|| Error::new("bad part"));
    let packed = disk.bytes(part(PartName::Kernel)?);
    let most = usize::try_from(fields.kernel_unpacked.length).unwrap_or_default();
    let unpacked = payload::unpack(&packed, most);
    let unpacked = unpacked.ok_or_else(|| Error::new("cannot unpack the kernel"))?;
    let keep = |what: &str, bytes: &[u8]| -> Result<PathBuf> {
        let path = scratch.join(format!("{}.{what}", candidate.name));
        std::fs::write(&path, bytes).context(|| format!("cannot write {}", path.display()))?;
        Ok(path)
    };
    let packed_bytes = fields.kernel.extent.length + fields.initrd.extent.length;
    let image = keep("kernel", &unpacked)?;
    let initrd = payload::unpack(&disk.bytes(part(PartName::Initrd)?), INITRD_MOST);
    let initrd = keep("initrd", &initrd.ok_or_else(|| Error::new("cannot unpack the initrd"))?)?;
    let manifest = Manifest::new(fields, slot.length)
        .map_err(|error| Error::new(format!("{}: {error}", candidate.disk.display())))?;
    let words = BootArgs::new(Slot::A, 0, disk.table().disk, &manifest);
    let command_line = format!("{} {words}", manifest.command_line);
    Ok(Payload { kernel: Kernel { image, initrd, command_line }, packed_bytes })
}

impl Told {
    /// From what `iota status --json` printed.
    fn parse(text: &str) -> Option<Self> {
        let document: Json = serde_json::from_str(text).ok()?;
        let memory = &document["memory"];
        let processes = memory["processes"].as_array()?;
        let started = |name: &str| {
            processes.iter().filter(|it| it["name"] == name).find_map(|it| it["started-s"].as_f64())
        };
        let first = processes.iter().find(|it| it["pid"] == 1)?["started-s"].as_f64()?;
        let engine = processes.iter().filter(|it| is_engine(it, processes));
        let engine = engine.filter_map(|it| it["own"].as_u64()).sum();
        Some(Self {
            engine_start_s: started("containerd")? - first,
            dockerd_start_s: started("dockerd")? - first,
            dockerd_s: started("dockerd")?,
            above_engine: in_use(&document)?.checked_sub(engine)?,
            engine,
        })
    }

    /// Memory above the engine's that a device without the port would hold as well.
    fn of_a_device(&self) -> u64 {
        self.above_engine.saturating_sub(PORT_BUFFERS)
    }
}

/// Bytes that are neither free nor content of files, by what `iota status --json` printed.
fn in_use(status: &Json) -> Option<u64> {
    let of = |name: &str| status["memory"][name].as_u64();
    of("total")?.checked_sub(of("free")?)?.checked_sub(of("cache")?)
}

/// The same on a device, which has no such port.
pub(super) fn held(status: &Json) -> Option<u64> {
    in_use(status).map(|bytes| bytes.saturating_sub(PORT_BUFFERS))
}

/// Programs of the engine, and everything in its containers.
fn is_engine(process: &Json, all: &[Json]) -> bool {
    let name = process["name"].as_str().unwrap_or_default();
    if ["dockerd", "containerd", "containerd-shim", "docker-proxy"].contains(&name) {
        return true;
    }
    let parent = all.iter().find(|it| it["pid"] == process["parent"]);
    // Only shims have containers as children; nobody is its own ancestor.
    parent.is_some_and(|parent| {
        parent["name"] != "containerd" && parent["name"] != "dockerd" && is_engine(parent, all)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const STATUS: &str = r#"{"memory": {"total": 1000, "free": 300, "available": 500, "cache": 200,
        "processes": [
            {"pid": 1, "parent": 0, "name": "init", "own": 1, "started-s": 0.5},
            {"pid": 7, "parent": 1, "name": "containerd", "own": 20, "started-s": 2.0},
            {"pid": 8, "parent": 1, "name": "dockerd", "own": 30, "started-s": 2.5},
            {"pid": 9, "parent": 1, "name": "containerd-shim", "own": 5, "started-s": 9.0},
            {"pid": 10, "parent": 9, "name": "busybox", "own": 2, "started-s": 9.5},
            {"pid": 11, "parent": 1, "name": "iota", "own": 4, "started-s": 3.0}]}}"#;

    #[test]
    fn what_containers_hold_is_the_engines_and_what_pid_1_holds_is_not() {
        let expected = Told {
            engine_start_s: 1.5,
            dockerd_start_s: 2.0,
            dockerd_s: 2.5,
            above_engine: 443,
            engine: 57,
        };
        assert_eq!(Told::parse(STATUS), Some(expected));
        assert_eq!(Told::parse(&STATUS.replace("dockerd", "podman")), None);
        assert_eq!(Told::parse("{}"), None);
    }

    #[test]
    fn what_is_neither_free_nor_of_files_is_in_use() {
        let text = r#"{"memory": {"total": 1000, "free": 300, "cache": 200}}"#;
        assert_eq!(in_use(&serde_json::from_str(text).unwrap()), Some(500));
        assert_eq!(in_use(&serde_json::json!({})), None);
    }

    #[test]
    fn what_a_device_holds_is_that_without_the_ports() {
        let memory = serde_json::json!({ "total": 100 << 20, "free": 50 << 20, "cache": 12 << 20 });
        assert_eq!(held(&serde_json::json!({ "memory": memory })), Some(30 << 20));
        assert_eq!(held(&serde_json::json!({})), None);
    }

    #[test]
    fn a_line_of_the_console_tells_the_guests_clock() {
        let line = "iota agent: [  12.190] engine docker ready";
        assert_eq!(guest_seconds(line), Some(12.19));
        assert_eq!(guest_seconds("iota agent: engine docker ready"), None);
    }
}
