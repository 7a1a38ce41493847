//! An installation beside the least that puts the same bytes there: `zstd -dc | dd`.
//!
//! Both run in one virtual machine, in turn, from the same USB stick: a script that is in the image
//! for this alone, `qemu-tests/bench/install`. The peer checks nothing and reads nothing back.

use std::path::Path;
use std::time::Duration;

use builder::build::Host;
use builder::error::{Context, Error, Result};
use builder::host::qemu::Options;
use builder::tree::{Content, Kind, Node, Tree, TreePath};
use ondisk::bundle::{Sections, Unverified};
use ondisk::system::{self, Output, Service, System};

use super::peers;
use super::table::{Goal, Row, Value};
use crate::disk::Disk;
use crate::image::{self, variant};
use crate::machine::Machine;
use crate::stick;

/// Emulated processors on a busy machine.
const LONG: Duration = Duration::from_secs(400);
/// 80 % of the peer's speed.
const GOAL: f64 = 1.25;
const PEER: &str = "zstd -dc, dd conv=fsync";
/// Packages with programs, and with libraries that these need.
const PROGRAMS: [(&str, &str); 2] =
    [("zstd", "usr/bin/zstd"), ("busybox-static", "usr/bin/busybox")];
const LIBRARIES: [&str; 4] = ["liblz4-1", "liblzma5", "libxxhash0", "zlib1g"];

/// Builds what it needs below `scratch` and measures.
pub fn run(host: &Host<'_>, scratch: &Path) -> Result<Vec<Row>> {
    let image = peers::image_with("install", ships, image::BOARD, host, scratch, add_service)?;
    let bundle = variant("bench-install", 2, |_| ()).join("update.bundle");
    let stream = scratch.join("stream.zst");
    let bytes = extract_stream(&bundle, &stream)?;
    let disk = Disk::copy_of(&image, "bench-install");
    let stick = disk.path().with_extension("stick");
    stick::write(&stick, &[("update.bundle", bundle), ("stream.zst", stream)], &[]);

    // Written to a file: the host's disk is part of what is measured.
    let options = Options { persist: true, stick: Some(stick), ..Options::new(disk.path()) };
    let mut machine = Machine::boot("bench-install", &options);
    machine.expect("compared", LONG);
    let least = |who: &str| {
        let took = format!("{who} took ");
        let lines = machine.console.lines().iter();
        let times = lines.filter_map(|line| line.text.split_once(&took)?.1.parse::<u32>().ok());
        times.min().map(|hundredths| f64::from(hundredths) / 100.0)
    };
    let (Some(ours), Some(theirs)) = (least("ours"), least("peer")) else {
        return Err(Error::new(format!("nothing was measured:\n{}", machine.console.tail(20))));
    };
    if machine.console.lines().iter().any(|line| line.text.contains("failed")) {
        return Err(Error::new(format!("something failed:\n{}", machine.console.tail(20))));
    }
    let what = format!("installation of {} MB from a stick", bytes / 1_000_000);
    Ok(vec![
        Row::new(what, Value::Seconds(ours))
            .beside(PEER, Value::Seconds(theirs))
            .goal(Goal::Times(GOAL)),
    ])
}

fn ships(package: &str, path: &str) -> bool {
    PROGRAMS.contains(&(package, path))
        || LIBRARIES.contains(&package) && path.starts_with("usr/lib/aarch64-linux-gnu/")
}

/// The script runs as a service of the image; what it says is on the console.
fn add_service(root: &mut Tree) -> Result<()> {
    let path = TreePath::new(system::PATH)?;
    let wrong = |why: &str| Error::new(format!("{}: {why}", system::PATH));
    let text = match root.get(&path).map(|node| &node.kind) {
        Some(Kind::File(content)) => content.read()?,
        _ => return Err(wrong("not in the root")),
    };
    let mut system = System::parse(&String::from_utf8_lossy(&text))
        .map_err(|error| wrong(&error.to_string()))?;
    let health = system.services.iter().find(|service| service.name == "health");
    let health = health.ok_or_else(|| wrong("no service to take after"))?.clone();
    system.services.push(Service {
        name: "compare".to_owned(),
        arguments: vec!["/usr/lib/iota/compare".to_owned()],
        output: Output::Console,
        ..health
    });
    let text = system.encode().map_err(|error| wrong(&error.to_string()))?;
    root.replace(path, Node::file(Content::bytes(text.into_bytes()), 0o644, "benchmark"))
}

/// Writes the stream of a bundle into a file; returns what it unpacks to, in bytes.
fn extract_stream(bundle: &Path, target: &Path) -> Result<u64> {
    let wrong = || Error::new(format!("{} is no bundle", bundle.display()));
    let bytes = std::fs::read(bundle).context(|| format!("cannot read {}", bundle.display()))?;
    let front = bytes.first_chunk().ok_or_else(wrong)?;
    let header = Unverified::parse(front).and_then(|found| found.header_unverified());
    let header = header.map_err(|_| wrong())?;
    let stream = Sections::of(&header).stream;
    let start = usize::try_from(stream.offset).map_err(|_| wrong())?;
    let stream = bytes.get(start..).ok_or_else(wrong)?;
    std::fs::write(target, stream).context(|| format!("cannot write {}", target.display()))?;
    Ok(header.fields().image_bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_two_programs_and_their_libraries_ship() {
        assert!(ships("zstd", "usr/bin/zstd") && ships("busybox-static", "usr/bin/busybox"));
        assert!(ships("zlib1g", "usr/lib/aarch64-linux-gnu/libz.so.1"));
        assert!(!ships("zstd", "usr/bin/zstdless") && !ships("zlib1g", "usr/share/doc/x"));
        assert!(!ships("systemd", "usr/lib/aarch64-linux-gnu/libsystemd.so.0"));
    }
}
