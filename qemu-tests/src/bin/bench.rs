//! Measures and prints one table: `cargo xtask bench [PART…]`.

use std::path::PathBuf;
use std::process::ExitCode;

use builder::error::Result;
use builder::host::progress::Progress;
use builder::host::store::Store;
use builder::host::tools::Tools;
use clap::{Parser, ValueEnum};
use qemu_tests::bench::builds::Builds;
use qemu_tests::bench::table::{Row, table};
use qemu_tests::bench::writers;
use qemu_tests::{image, workspace};

/// What can be measured.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
enum Part {
    /// Whole builds: time and peak memory.
    Builds,
    /// The EROFS writer and the hash tree beside other programs.
    Writers,
}

/// Measures speed, size and memory, beside others where there are others, and prints one table
#[derive(Parser)]
struct Arguments {
    /// What to measure; everything if nothing is named
    parts: Vec<Part>,
    /// Also build a release image, which takes minutes, for its size
    #[arg(long)]
    release: bool,
    /// The program `iota` to measure
    #[arg(long, default_value = "target/release/iota")]
    program: PathBuf,
}

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let done = match words.split_first() {
        Some((word, rest)) if word == writers::WRITE_EROFS => writers::write_erofs(rest),
        Some((word, rest)) if word == writers::WRITE_VERITY => writers::write_verity(rest),
        _ => run(&Arguments::parse()),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {}", error.chain());
            ExitCode::from(2)
        }
    }
}

fn run(arguments: &Arguments) -> Result<()> {
    let wanted = |part| arguments.parts.is_empty() || arguments.parts.contains(&part);
    let load = load();
    let mut rows = Vec::new();
    if wanted(Part::Builds) {
        rows.extend(builds(arguments)?);
    }
    if wanted(Part::Writers) {
        rows.extend(compare_writers()?);
    }
    print!("{}", table(&rows));
    println!("\nLoad of this machine at the start {load}, at the end {}.", self::load());
    Ok(())
}

fn scratch() -> PathBuf {
    workspace().join("target/bench")
}

fn builds(arguments: &Arguments) -> Result<Vec<Row>> {
    let (workspace, scratch) = (workspace(), scratch());
    let program = workspace.join(&arguments.program);
    let builds =
        Builds { program: &program, workspace: &workspace, scratch: &scratch, board: image::BOARD };
    let mut rows = builds.run()?;
    if arguments.release {
        rows.extend(builds.release()?);
    }
    Ok(rows)
}

fn compare_writers() -> Result<Vec<Row>> {
    let progress = Progress::new(false);
    let store = Store::open(None)?;
    let tools = Tools { store: &store, mirror: None, offline: false, progress: &progress };
    let outputs = image::build_into(&scratch().join("out"));
    writers::run(&outputs.join("slot.img"), &scratch().join("writers"), &tools)
}

/// What else this machine does: programs that want a processor, one minute's average.
fn load() -> String {
    let text = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    text.split(' ').next().unwrap_or("unknown").to_owned()
}
