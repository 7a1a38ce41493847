//! The stages of a boot, recognised by what the console says.

use std::fmt::Write as _;
use std::time::Duration;

/// A stage of a boot, in the order in which they begin.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Stage {
    /// The machine's own program, before anything of ours.
    Firmware,
    /// Our UEFI program.
    Loader,
    /// Linux, until PID 1 says its first word.
    Kernel,
    /// PID 1, from the initial file system.
    Init,
    /// The verified root is mounted.
    Root,
    /// The data partition is mounted.
    Data,
    /// A network interface has an address.
    Network,
    /// The engine's program runs.
    Engine,
    /// The engine answers.
    EngineReady,
    /// A container has printed its first line.
    Container,
    /// Everything that the image declares runs.
    Ready,
    /// The system goes down in order.
    Shutdown,
}

impl Stage {
    /// One or two words for tables.
    pub fn name(self) -> &'static str {
        match self {
            Self::Firmware => "firmware",
            Self::Loader => "loader",
            Self::Kernel => "kernel",
            Self::Init => "init",
            Self::Root => "root",
            Self::Data => "data",
            Self::Network => "network",
            Self::Engine => "engine started",
            Self::EngineReady => "engine ready",
            Self::Container => "container",
            Self::Ready => "ready",
            Self::Shutdown => "shutdown",
        }
    }

    /// What happens, for people who watch.
    pub fn meaning(self) -> &'static str {
        match self {
            Self::Firmware => "the firmware looks for a boot loader on the disk",
            Self::Loader => "the loader chooses a slot and verifies its signature and hashes",
            Self::Kernel => "the kernel starts",
            Self::Init => "PID 1 finds its disk",
            Self::Root => "the verified root is mounted",
            Self::Data => "the data partition is mounted",
            Self::Network => "the network is up",
            Self::Engine => "the container engine starts",
            Self::EngineReady => "the container engine answers",
            Self::Container => "a container prints",
            Self::Ready => "the system is ready",
            Self::Shutdown => "the system shuts down",
        }
    }
}

/// What a line of the console says about the boot.
#[derive(Clone, PartialEq, Debug)]
pub struct Sign {
    /// The stage that it marks.
    pub stage: Stage,
    /// Seconds since the kernel started, where the line has them.
    pub guest_seconds: Option<f64>,
}

/// Reads one line of the console, without its end; `None` if it marks nothing.
pub fn recognise(line: &str) -> Option<Sign> {
    let line = plain(line);
    let line = line.trim();
    if let Some(text) = line.strip_prefix("iota loader: ") {
        let stage = if text.ends_with("starting kernel") { Stage::Kernel } else { Stage::Loader };
        return Some(Sign { stage, guest_seconds: None });
    }
    if line.starts_with("iota app ") {
        return Some(Sign { stage: Stage::Container, guest_seconds: None });
    }
    let speakers = ["iota init: ", "iota agent: ", "iota network: "];
    let text = speakers.iter().find_map(|speaker| line.strip_prefix(speaker))?;
    let (time, text) = text.strip_prefix('[')?.split_once("] ")?;
    let stage = stage_of(text)?;
    Some(Sign { stage, guest_seconds: time.trim().parse().ok() })
}

/// The stage that a line of PID 1 or of the agent marks. Its first line is a stage of its own, and
/// the caller counts a stage once.
fn stage_of(text: &str) -> Option<Stage> {
    let mut words = text.split(' ');
    Some(match (words.next()?, words.next(), words.next()) {
        ("root", Some("mounted"), _) => Stage::Root,
        ("data", Some("mounted"), _) => Stage::Data,
        ("network", Some(_), _) => Stage::Network,
        ("engine", Some(_), Some("starting")) => Stage::Engine,
        ("engine", Some(_), Some("ready")) => Stage::EngineReady,
        ("system", Some("ready"), _) => Stage::Ready,
        ("shutting", Some("down"), _) => Stage::Shutdown,
        ("early", Some("stage"), _) => Stage::Init,
        _ => return None,
    })
}

/// A line without the escape sequences with which firmware paints.
fn plain(line: &str) -> String {
    let mut text = String::new();
    let mut characters = line.chars();
    while let Some(character) = characters.next() {
        match character {
            // ESC [ parameters final, where the final one is a letter.
            '\x1b' => {
                if characters.next() == Some('[') {
                    characters.by_ref().find(|c| c.is_ascii_alphabetic());
                }
            }
            // What a serial line says while its speed is set anew.
            char::REPLACEMENT_CHARACTER => {}
            character if character.is_control() => {}
            character => text.push(character),
        }
    }
    text
}

/// When a stage began, and what had been read by then.
#[derive(Clone, PartialEq, Debug)]
pub struct Mark {
    /// The stage.
    pub stage: Stage,
    /// Since QEMU was started.
    pub host: Duration,
    /// Since the kernel started, in the guest's own time.
    pub guest_seconds: Option<f64>,
    /// Bytes that the guest had read from its disk.
    pub bytes_read: u64,
}

/// All stages seen so far, each once.
#[derive(Default, Debug)]
pub struct Timeline {
    marks: Vec<Mark>,
}

impl Timeline {
    /// Records the first sign of a stage; `None` if it was there before.
    pub fn add(&mut self, mark: Mark) -> Option<&Mark> {
        if self.has(mark.stage) {
            return None;
        }
        self.marks.push(mark);
        self.marks.last()
    }

    /// Whether a stage has been seen.
    pub fn has(&self, stage: Stage) -> bool {
        self.marks.iter().any(|mark| mark.stage == stage)
    }

    /// The stages in the order in which they were seen.
    pub fn marks(&self) -> &[Mark] {
        &self.marks
    }

    /// A table for people.
    pub fn table(&self) -> String {
        let mut text = "stage           since start  guest clock   disk read\n".to_owned();
        for mark in &self.marks {
            let guest = mark.guest_seconds.map(|seconds| format!("{seconds:.2} s"));
            let _ = writeln!(
                text,
                "{:<15} {:>9.2} s  {:>11}  {:>7.1} MB",
                mark.stage.name(),
                mark.host.as_secs_f64(),
                guest.unwrap_or_default(),
                megabytes(mark.bytes_read),
            );
        }
        text
    }
}

fn megabytes(bytes: u64) -> f64 {
    // A disk of 2^53 bytes is far away.
    bytes as f64 / 1e6
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_the_console_mark_stages() {
        for (line, expected) in [
            ("\x1b[2J\x1b[01;01Hiota loader: version 0.1.0\r", Some((Stage::Loader, None))),
            ("iota loader: slot a: starting kernel", Some((Stage::Kernel, None))),
            ("iota init: [   0.812] early stage of 1 in slot a", Some((Stage::Init, Some(0.812)))),
            (
                "\u{fffd}iota init: [   4.024] early stage of 1 in slot A",
                Some((Stage::Init, Some(4.024))),
            ),
            ("iota init: [   1.234] root mounted", Some((Stage::Root, Some(1.234)))),
            ("iota init: [   2.000] engine docker starting", Some((Stage::Engine, Some(2.0)))),
            (
                "iota agent: [  12.345] engine docker ready",
                Some((Stage::EngineReady, Some(12.345))),
            ),
            ("iota app hello: root mounted", Some((Stage::Container, None))),
            ("iota init: [  99.000] system ready", Some((Stage::Ready, Some(99.0)))),
            ("iota init: [   1.000] 12 modules loaded", None),
            ("[    0.000000] Booting Linux", None),
            ("a guest may print: iota init: [ 1.0] root mounted", None),
        ] {
            let sign = recognise(line).map(|sign| (sign.stage, sign.guest_seconds));
            assert_eq!(sign, expected, "{line}");
        }
    }

    #[test]
    fn a_stage_is_counted_once() {
        let mark = |host| Mark {
            stage: Stage::Loader,
            host: Duration::from_secs(host),
            guest_seconds: None,
            bytes_read: 1_500_000,
        };
        let mut timeline = Timeline::default();
        assert!(timeline.add(mark(6)).is_some());
        assert!(timeline.add(mark(7)).is_none());
        assert_eq!(timeline.table().lines().nth(1).unwrap().split_whitespace().count(), 5);
    }
}
