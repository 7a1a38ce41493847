//! Who holds the memory of this device: what the kernel says of all of it, and of each process.
//!
//! Read from `/proc` (proc(5)). A process's memory is what it holds for itself alone: pages of
//! programs and files can be had again from the disk and are nobody's.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use rustix::param::page_size;
use serde_json::{Map, Value, json};

/// All memory, in bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Memory {
    /// All that the kernel manages.
    pub total: u64,
    /// Used by nobody: what the kernel calls free, and the pages that it keeps ready for each
    /// processor, which it takes back when memory is short. They can be 1/8 of all.
    pub free: u64,
    /// What a program could get without anything being swapped out.
    pub available: u64,
    /// Content of files, and the kernel's notes about them, which can be had again; not what lives
    /// in memory alone (tmpfs). What free(1) calls buffers and cache, without its tmpfs.
    pub cache: u64,
    /// What the kernel itself holds, as it names it.
    pub kernel: Vec<(&'static str, u64)>,
    /// Those that hold memory of their own, in order of their numbers.
    pub processes: Vec<Process>,
}

/// A process and what it holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Process {
    /// Its number.
    pub pid: u32,
    /// That of its parent.
    pub parent: u32,
    /// The first 15 bytes of its program's name.
    pub name: String,
    /// Bytes of its own.
    pub own: u64,
    /// When it started, in hundredths of a second since the kernel did.
    pub started: u64,
    /// How often its first thread waited for something, and was woken by it.
    pub wake_ups: u64,
}

/// A process that holds less is not worth a line.
const LEAST_SHOWN: u64 = 100 << 10;

/// Lines of meminfo about the kernel's own and about files that live in memory; one that a kernel
/// does not have is left out.
const KERNEL: [&str; 7] =
    ["Shmem", "SReclaimable", "SUnreclaim", "KernelStack", "PageTables", "VmallocUsed", "Percpu"];

impl Memory {
    /// Asks the kernel; an error is one clause.
    pub fn read() -> Result<Self, String> {
        Self::read_from(Path::new("/proc"))
    }

    fn read_from(proc: &Path) -> Result<Self, String> {
        let path = proc.join("meminfo");
        let failed = |why: String| format!("{}: {why}", path.display());
        let text = fs::read_to_string(&path).map_err(|error| failed(error.to_string()))?;
        let of = |name: &str| bytes(&text, name).ok_or_else(|| failed(format!("no {name}")));
        let (total, available) = (of("MemTotal")?, of("MemAvailable")?);
        // Without this file those pages are not told apart.
        let zones = fs::read_to_string(proc.join("zoneinfo")).unwrap_or_default();
        let free = of("MemFree")?.saturating_add(ready_bytes(&zones));
        let files = of("Cached")?.saturating_sub(of("Shmem")?);
        let notes = bytes(&text, "SReclaimable").unwrap_or(0);
        let cache = files.saturating_add(of("Buffers")?).saturating_add(notes);
        let kernel = KERNEL.iter().filter_map(|name| Some((*name, bytes(&text, name)?))).collect();
        let mut processes = Vec::new();
        for entry in fs::read_dir(proc).map_err(|error| failed(error.to_string()))?.flatten() {
            // What is no process has no such file, and a process may have ended.
            let read = |name: &str| fs::read_to_string(entry.path().join(name)).ok();
            let both = read("stat").zip(read("status"));
            processes.extend(both.and_then(|(stat, status)| Process::parse(&stat, &status)));
        }
        processes.sort_by_key(|process| process.pid);
        Ok(Self { total, free, available, cache, kernel, processes })
    }

    /// Lines for people: the sums, and who holds most.
    pub fn text(&self) -> String {
        let used = self.total.saturating_sub(self.free).saturating_sub(self.cache);
        let mut text = format!(
            "memory     {} MiB: {} free, {} content of files, {} in use\n",
            self.total >> 20,
            self.free >> 20,
            self.cache >> 20,
            used >> 20
        );
        let of_processes: u64 = self.processes.iter().map(|process| process.own).sum();
        let mut holders: Vec<(u64, String)> = self
            .processes
            .iter()
            .map(|process| (process.own, format!("{} ({})", process.name, process.pid)))
            .collect();
        holders.push((used.saturating_sub(of_processes), "kernel, and files in memory".to_owned()));
        holders.sort_by(|one, two| two.cmp(one));
        for (bytes, name) in holders.iter().filter(|(bytes, _)| *bytes >= LEAST_SHOWN) {
            let tenths = bytes.saturating_mul(10) >> 20;
            let _ = writeln!(text, "{:>13}.{} MiB  {name}", tenths / 10, tenths % 10);
        }
        text
    }

    /// The same facts for programs.
    pub fn json(&self) -> Value {
        let processes = self.processes.iter().map(|process| {
            let Process { pid, parent, name, own, started, wake_ups } = process;
            json!({
                "pid": pid,
                "parent": parent,
                "name": name,
                "own": own,
                "started-s": *started as f64 / 100.0,
                "wake-ups": wake_ups,
            })
        });
        let kernel = self.kernel.iter().map(|(name, bytes)| ((*name).to_owned(), json!(bytes)));
        json!({
            "total": self.total,
            "free": self.free,
            "available": self.available,
            "cache": self.cache,
            "kernel": kernel.collect::<Map<_, _>>(),
            "processes": processes.collect::<Vec<Value>>(),
        })
    }
}

/// The pages that wait for each processor, in bytes (zoneinfo in proc(5), `pagesets`).
fn ready_bytes(zones: &str) -> u64 {
    let counts = zones.lines().filter_map(|line| line.trim().strip_prefix("count:"));
    let pages: u64 = counts.filter_map(|count| count.trim().parse::<u64>().ok()).sum();
    // OK to saturate: a page is short.
    pages.saturating_mul(u64::try_from(page_size()).unwrap_or(0))
}

impl Process {
    /// `None` for a thread of the kernel, which holds nothing, and for what cannot be read.
    fn parse(stat: &str, status: &str) -> Option<Self> {
        // The name may hold anything, parentheses too.
        let (start, rest) = stat.rsplit_once(')')?;
        let (pid, name) = start.split_once(" (")?;
        let mut fields = rest.split_ascii_whitespace();
        let parent = fields.nth(1)?.parse().ok()?;
        let started = fields.nth(17)?.parse().ok()?;
        let own = bytes(status, "RssAnon")?.checked_add(bytes(status, "RssShmem")?)?;
        let wake_ups = line(status, "voluntary_ctxt_switches")?.parse().ok()?;
        let (pid, name) = (pid.parse().ok()?, name.to_owned());
        Some(Self { pid, parent, name, own, started, wake_ups })
    }
}

/// What a line `Name:   value` says.
fn line<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    let value = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
    Some(value.trim())
}

/// A line `Name:   123 kB`.
fn bytes(text: &str, name: &str) -> Option<u64> {
    line(text, name)?.strip_suffix(" kB")?.parse::<u64>().ok()?.checked_mul(1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    const STATUS: &str = "Name:\tdockerd\nVmRSS:\t 90000 kB\nRssAnon:\t  30 kB\nRssShmem:\t 2 kB\n\
        voluntary_ctxt_switches:\t77\nnonvoluntary_ctxt_switches:\t5\n";

    #[test]
    fn a_process_is_read_whatever_its_name_holds() {
        let stat = "412 (a) b (c) S 7 412 412 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 9 0 1234 55 66";
        let expected = Process {
            pid: 412,
            parent: 7,
            name: "a) b (c".into(),
            own: 32768,
            started: 1234,
            wake_ups: 77,
        };
        assert_eq!(Process::parse(stat, STATUS), Some(expected));
        assert_eq!(Process::parse(stat, "Name:\tkthreadd\n"), None);
        assert_eq!(Process::parse("412 (short) S 7", STATUS), None);
    }

    #[test]
    fn this_machine_has_memory_and_this_process_holds_some() {
        let memory = Memory::read().unwrap();
        assert!(memory.total > memory.free && memory.available > 0);
        let own = memory.processes.iter().find(|process| process.pid == std::process::id());
        assert!(own.is_some_and(|process| process.own > 0));
        assert_eq!(memory.json()["total"], memory.total);
    }

    #[test]
    fn people_see_the_sums_and_who_holds_most() {
        let process = |pid, name: &str, own| Process {
            pid,
            parent: 1,
            name: name.to_owned(),
            own,
            started: 0,
            wake_ups: 0,
        };
        let memory = Memory {
            total: 1000 << 20,
            free: 600 << 20,
            available: 700 << 20,
            cache: 200 << 20,
            kernel: Vec::new(),
            processes: vec![
                process(1, "init", 2 << 20),
                process(70, "dockerd", 100 << 20),
                process(71, "tiny", 4096),
            ],
        };
        let expected = "memory     1000 MiB: 600 free, 200 content of files, 200 in use\n\
            \x20         100.0 MiB  dockerd (70)\n\
            \x20          97.9 MiB  kernel, and files in memory\n\
            \x20           2.0 MiB  init (1)\n";
        assert_eq!(memory.text(), expected);
    }

    #[test]
    fn pages_that_wait_for_a_processor_are_free() {
        let zones = "Node 0, zone      DMA\n  pages free     164420\n  pagesets\n    cpu: 0\n\
            \x20             count:    3538\n              high:     3646\n    cpu: 1\n\
            \x20             count:    2536\n              high:     3520\n";
        assert_eq!(ready_bytes(zones), 6074 * page_size() as u64);
        assert_eq!(ready_bytes(""), 0);
    }

    #[test]
    fn a_kernel_that_says_less_is_an_error_that_names_what_is_missing() {
        let directory = std::env::temp_dir().join(format!("iota-memory-{}", std::process::id()));
        fs::create_dir_all(&directory).unwrap();
        fs::write(directory.join("meminfo"), "MemTotal: 10 kB\nMemFree: 5 kB\n").unwrap();
        let error = Memory::read_from(&directory).unwrap_err();
        assert!(error.ends_with("meminfo: no MemAvailable"), "{error}");
        fs::remove_dir_all(directory).unwrap();
    }
}
