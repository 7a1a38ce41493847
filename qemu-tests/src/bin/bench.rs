//! Measures and prints one table: `cargo xtask bench [PART…]`.

use std::path::PathBuf;
use std::process::ExitCode;

use builder::build::Host;
use builder::error::Result;
use builder::host::progress::Progress;
use builder::host::store::Store;
use builder::host::tools::Tools;
use clap::{Parser, ValueEnum};
use qemu_tests::bench::boot::{self, Candidate};
use qemu_tests::bench::builds::Builds;
use qemu_tests::bench::delta;
use qemu_tests::bench::engines;
use qemu_tests::bench::flash;
use qemu_tests::bench::host;
use qemu_tests::bench::idle;
use qemu_tests::bench::install;
use qemu_tests::bench::peers::{self, Peer};
use qemu_tests::bench::table::{Row, table};
use qemu_tests::bench::writers;
use qemu_tests::tools::with_host;
use qemu_tests::{image, stacks, workspace};

/// The word that makes the benchmark program choose the packages of peers, stacks and tools anew.
const LOCK_PACKAGES: &str = "lock-packages";

/// What can be measured.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
enum Part {
    /// Whole builds: time and peak memory.
    Builds,
    /// The EROFS writer and the hash tree beside other programs.
    Writers,
    /// Writing an image to a card, beside bmaptool: time, processor, memory.
    Flash,
    /// Boots beside systemd and a shell script: time, bytes read, memory.
    Boot,
    /// The host by itself: how soon SSH answers, and its memory without an engine.
    Host,
    /// An image of each engine: its size, its memory, the time to its first container.
    Engines,
    /// A device that nobody uses, for half an hour: wake-ups, and bytes written in a day.
    Idle,
    /// An update in a virtual machine beside zstd and dd.
    Install,
    /// The bytes that an update costs, beside xdelta3 and zstd, for each root format.
    Delta,
}

/// Measures speed, size and memory, beside others where there are others, and prints one table
#[derive(Parser)]
struct Arguments {
    /// What to measure; everything if nothing is named
    parts: Vec<Part>,
    /// Also build a release image, which takes minutes, for its size and what a start reads of it
    #[arg(long)]
    release: bool,
    /// The program `iota` to measure
    #[arg(long, default_value = "target/release/iota")]
    program: PathBuf,
    /// How often each image is booted
    #[arg(long, default_value_t = 2)]
    boots: usize,
}

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let done = match words.split_first() {
        Some((word, rest)) if word == writers::WRITE_EROFS => writers::write_erofs(rest),
        Some((word, rest)) if word == writers::WRITE_VERITY => writers::write_verity(rest),
        Some((word, [])) if word == LOCK_PACKAGES => with_host(lock_packages),
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
    if wanted(Part::Flash) {
        rows.extend(flash_files(arguments)?);
    }
    if wanted(Part::Boot) {
        rows.extend(boots(arguments)?);
    }
    if wanted(Part::Host) {
        rows.extend(host()?);
    }
    if wanted(Part::Engines) {
        rows.extend(engines::run(arguments.boots, &scratch())?);
    }
    if wanted(Part::Idle) {
        rows.extend(idle::run(&image::build_into(&scratch().join("out")))?);
    }
    if wanted(Part::Install) {
        rows.extend(with_host(|host| install::run(host, &scratch()))?);
    }
    if wanted(Part::Delta) {
        let scratch = scratch().join("delta");
        let program = workspace().join(&arguments.program);
        rows.extend(with_host(|host| {
            with_tools(|tools| delta::run(&program, host, &scratch, tools))
        })?);
    }
    print!("{}", table(&rows));
    println!("\nLoad of this machine at the start {load}, at the end {}.", self::load());
    Ok(())
}

fn scratch() -> PathBuf {
    workspace().join("target/bench")
}

fn builds(arguments: &Arguments) -> Result<Vec<Row>> {
    builds_with(arguments, |builds| {
        let mut rows = builds.run()?;
        if arguments.release {
            rows.extend(builds.release()?);
        }
        Ok(rows)
    })
}

fn builds_with<T>(arguments: &Arguments, job: impl FnOnce(&Builds<'_>) -> T) -> T {
    let (workspace, scratch) = (workspace(), scratch());
    let program = workspace.join(&arguments.program);
    job(&Builds {
        program: &program,
        workspace: &workspace,
        scratch: &scratch,
        board: image::BOARD,
    })
}

fn compare_writers() -> Result<Vec<Row>> {
    let outputs = image::build_into(&scratch().join("out"));
    with_tools(|tools| writers::run(&outputs.join("slot.img"), &scratch().join("writers"), tools))
}

fn flash_files(arguments: &Arguments) -> Result<Vec<Row>> {
    let program = workspace().join(&arguments.program);
    with_tools(|tools| flash::run(&program, &scratch().join("flash"), tools))
}

fn boots(arguments: &Arguments) -> Result<Vec<Row>> {
    let scratch = scratch();
    let outputs = image::build_into(&scratch.join("out"));
    let ours = Candidate { name: "iota", disk: outputs.join("disk.img") };
    let peers = [Peer::Systemd, Peer::Busybox].map(|peer| {
        let disk = with_host(|host| peers::build(peer, image::BOARD, host, &scratch))?;
        Ok(Candidate { name: peer.name(), disk })
    });
    let peers: Vec<Candidate> = peers.into_iter().collect::<Result<_>>()?;
    let mut rows = boot::run(&ours, &peers, arguments.boots, &scratch)?;
    if arguments.release {
        let disk = builds_with(arguments, |builds| builds.release_disk())?;
        rows.extend(boot::reads_of_release(disk, &scratch)?);
    }
    Ok(rows)
}

fn host() -> Result<Vec<Row>> {
    let scratch = scratch();
    let outputs = image::build_into(&scratch.join("out"));
    let ours = Candidate { name: "iota", disk: outputs.join("disk.img") };
    host::run(&ours, &outputs, &scratch)
}

fn lock_packages(host: &Host<'_>) -> Result<()> {
    peers::packages(host.workspace).lock(host)?;
    stacks::packages(host.workspace).lock(host)?;
    with_tools(|tools| tools.lock_again(host.workspace))
}

/// Calls a job with the programs of others.
fn with_tools<T>(job: impl FnOnce(&Tools<'_>) -> Result<T>) -> Result<T> {
    let (progress, store) = (Progress::new(false), Store::open(None)?);
    job(&Tools { store: &store, mirror: None, offline: false, progress: &progress })
}

/// What else this machine does: programs that want a processor, one minute's average.
fn load() -> String {
    let text = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    text.split(' ').next().unwrap_or("unknown").to_owned()
}
