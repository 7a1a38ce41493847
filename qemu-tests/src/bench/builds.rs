//! How long builds of an image take, how much memory they need, how large their outputs are.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use builder::error::{Context, Result};

use super::process::{Cost, measure};
use super::table::{Goal, Row, Value};

/// Builds with a cache of their own.
pub struct Builds<'a> {
    /// The program `iota`.
    pub program: &'a Path,
    /// The source tree.
    pub workspace: &'a Path,
    /// Where cache and outputs go.
    pub scratch: &'a Path,
    /// The board.
    pub board: &'a str,
}

impl Builds<'_> {
    /// Three development builds, each knowing more than the one before.
    pub fn run(&self) -> Result<Vec<Row>> {
        // Downloads and components first: neither belongs to what is measured.
        self.build(&[])?;
        self.forget_unpacked()?;
        let mut rows = Vec::new();
        for (what, fresh, seconds) in [
            ("build, packages never unpacked", true, 10.0),
            ("build, packages unpacked once", true, 4.0),
            ("build, nothing changed", false, 0.5),
        ] {
            if fresh {
                remove(&self.out())?;
            }
            let cost = self.build(&[])?;
            let goal = Goal::AtMost(Value::Seconds(seconds));
            rows.push(Row::new(format!("{what}: clock"), Value::Seconds(cost.seconds)).goal(goal));
            rows.push(Row::new(format!("{what}: processors"), cpu(cost)));
            rows.push(peak(what, cost));
        }
        let bytes = Value::Megabytes(self.download_bytes()?);
        rows.push(Row::new("download, development", bytes));
        Ok(rows)
    }

    /// A release build: minutes of compression, for what a user downloads.
    pub fn release(&self) -> Result<Vec<Row>> {
        let cost = self.build_release()?;
        let bytes = Value::Megabytes(self.download_bytes()?);
        Ok(vec![
            Row::new("build, release: processors", cpu(cost)),
            peak("build, release", cost),
            Row::new("download, release", bytes).goal(Goal::AtMost(Value::Megabytes(80_000_000))),
        ])
    }

    /// The disk of a release, as devices have it.
    pub fn release_disk(&self) -> Result<PathBuf> {
        self.build_release()?;
        Ok(self.out().join(self.board).join("disk.img"))
    }

    fn build_release(&self) -> Result<Cost> {
        let key = self.scratch.join("release");
        self.new_release_key(&key)?;
        let secret = key.with_extension("secret");
        self.build(&["--release".as_ref(), "--key".as_ref(), secret.as_os_str()])
    }
}

fn cpu(cost: Cost) -> Value {
    Value::CpuSeconds(cost.cpu_seconds)
}

fn peak(what: &str, cost: Cost) -> Row {
    let peak = Value::Mebibytes(cost.peak_bytes);
    Row::new(format!("{what}: peak memory"), peak).goal(Goal::AtMost(Value::Mebibytes(1 << 30)))
}

impl Builds<'_> {
    fn out(&self) -> PathBuf {
        self.scratch.join("out")
    }

    fn iota(&self) -> Command {
        let mut command = Command::new(self.program);
        command.current_dir(self.workspace).env("IOTA_CACHE", self.scratch.join("cache"));
        command
    }

    fn build(&self, more: &[&std::ffi::OsStr]) -> Result<Cost> {
        let mut command = self.iota();
        command.args(["build", self.board, "--out"]).arg(self.out()).args(more);
        measure(&mut command)
    }

    fn new_release_key(&self, base: &Path) -> Result<()> {
        for ending in ["secret", "pub"] {
            let _ = fs::remove_file(base.with_extension(ending));
        }
        measure(self.iota().args(["key", "new", "--release"]).arg(base)).map(|_| ())
    }

    fn download_bytes(&self) -> Result<u64> {
        let path = self.out().join(self.board).join("disk.img.zst");
        let metadata = fs::metadata(&path).context(|| format!("no {}", path.display()))?;
        Ok(metadata.len())
    }

    /// Forgets what packages hold and compressed kernels; downloads stay.
    fn forget_unpacked(&self) -> Result<()> {
        let cache = self.scratch.join("cache");
        let what = || format!("cannot read {}", cache.display());
        for entry in fs::read_dir(&cache).context(what)? {
            let entry = entry.context(what)?;
            let name = entry.file_name();
            let name = name.to_string_lossy();
            if name.starts_with("unpacked") || name == "compressed" {
                remove(&entry.path())?;
            }
        }
        Ok(())
    }
}

fn remove(directory: &Path) -> Result<()> {
    match fs::remove_dir_all(directory) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).context(|| format!("cannot remove {}", directory.display()))
        }
        _ => Ok(()),
    }
}
