//! The engines beside each other: what an image weighs, what it holds while nothing is asked of it,
//! and how long it takes from the machine's start to the first container.
//!
//! The image is the plain one, with the container `hello`, and boots through firmware and loader.

use std::ffi::OsStr;
use std::fs;
use std::path::Path;
use std::time::Duration;

use builder::error::{Context, Error, Result};
use builder::host::qemu::Options;

use super::boot::held;
use super::table::{Goal, Row, Value};
use crate::image;
use crate::machine::Machine;

/// Every engine, and the most that its whole system may hold while nothing is asked of it.
const ENGINES: [(&str, u64); 3] =
    [("docker", 160 << 20), ("podman", 60 << 20), ("containerd", 80 << 20)];

/// Emulated processors on a busy machine.
const LONG: Duration = Duration::from_secs(400);

/// Longer than an engine that runs on demand stays awake.
const IDLE: Duration = Duration::from_secs(40);

/// Builds and boots an image of each engine, `rounds` times; the least of each figure counts.
pub fn run(rounds: usize, scratch: &Path) -> Result<Vec<Row>> {
    let mut found: Vec<(&str, u64, Figures)> = Vec::new();
    for (engine, most) in ENGINES {
        let out = scratch.join("engines").join(engine);
        let built = image::try_to_build(&out, &["--engine", engine].map(OsStr::new))?;
        let mut least = boot(engine, &built)?;
        for _ in 1..rounds {
            least = least.and(&boot(engine, &built)?);
        }
        found.push((engine, most, least));
    }
    let Some((first, rest)) = found.split_first() else { return Ok(Vec::new()) };
    let mut rows = first.2.rows(first.0, first.1, None);
    for (engine, most, figures) in rest {
        rows.extend(figures.rows(engine, *most, Some((first.0, &first.2))));
    }
    Ok(rows)
}

/// What one engine's image needs.
#[derive(Clone, Debug, PartialEq)]
struct Figures {
    /// Bytes of the compressed disk image.
    download: u64,
    /// Seconds from QEMU's start until the container was started.
    container_s: f64,
    /// Bytes that are neither free nor content of files, on a device without the test's port.
    idle: u64,
}

impl Figures {
    fn and(self, other: &Self) -> Self {
        Self {
            container_s: self.container_s.min(other.container_s),
            idle: self.idle.min(other.idle),
            ..self
        }
    }

    fn rows(&self, engine: &str, most: u64, peer: Option<(&str, &Self)>) -> Vec<Row> {
        let row = |what: &str, of: &dyn Fn(&Self) -> Value| {
            let row = Row::new(format!("{engine}: {what}"), of(self));
            match peer {
                Some((name, peer)) => row.beside(name, of(peer)),
                None => row,
            }
        };
        vec![
            row("image to download", &|it| Value::Megabytes(it.download)),
            row("start to first container", &|it| Value::Seconds(it.container_s)),
            row("memory of the idle system", &|it| Value::Mebibytes(it.idle))
                .goal(Goal::AtMost(Value::Mebibytes(most))),
        ]
    }
}

fn boot(engine: &str, built: &Path) -> Result<Figures> {
    let download = built.join("disk.img.zst");
    let failed = || format!("cannot read {}", download.display());
    let download = fs::metadata(&download).context(failed)?.len();
    let mut machine =
        Machine::boot(&format!("bench-{engine}"), &Options::new(built.join("disk.img")));
    let started = machine.expect("container hello started", LONG);
    machine.expect("system ready", LONG);
    std::thread::sleep(IDLE);
    let answer = machine.qemu().execute(&["status", "--json"], std::io::empty(), LONG)?.text();
    // The memory is looked at before the engine is asked.
    let idle = serde_json::from_str(&answer).ok().and_then(|status| held(&status));
    let idle = idle.ok_or_else(|| Error::new(format!("{engine}: cannot read {answer}")))?;
    Ok(Figures { download, container_s: started.at.as_secs_f64(), idle })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_engine_is_held_against_the_first_and_against_its_own_goal() {
        let docker = Figures { download: 80, container_s: 30.0, idle: 100 };
        let podman = Figures { download: 60, container_s: 40.0, idle: 50 };
        let least = docker.clone().and(&Figures { container_s: 20.0, idle: 200, download: 80 });
        assert_eq!(least, Figures { container_s: 20.0, ..docker.clone() });
        let rows = podman.rows("podman", 60, Some(("docker", &docker)));
        assert_eq!(rows.len(), 3);
        let expected = Row::new("podman: image to download", Value::Megabytes(60));
        assert_eq!(rows[0], expected.beside("docker", Value::Megabytes(80)));
    }
}
