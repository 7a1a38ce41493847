//! The fuzz targets on the command line; `cargo xtask fuzz` runs it. See `docs/simulator.md`.
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use qemu_tests::fuzz::{self, TARGETS, Target};

/// Feeds parsers with garbled input and looks whether an invariant breaks
#[derive(Parser)]
#[command(name = "cargo xtask fuzz")]
struct Args {
    /// Which parser; all of them unless named
    target: Option<String>,
    /// How long, for each
    #[arg(long, default_value_t = 30)]
    seconds: u64,
    /// Where randomness starts
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Try one input, the contents of this file, instead
    #[arg(long, value_name = "FILE")]
    input: Option<PathBuf>,
}

fn main() -> ExitCode {
    let args = Args::parse();
    let wanted = |target: &&Target| args.target.as_deref().is_none_or(|name| name == target.name);
    let targets: Vec<_> = TARGETS.iter().filter(wanted).collect();
    if targets.is_empty() {
        let names: Vec<_> = TARGETS.iter().map(|target| target.name).collect();
        eprintln!("error: there is no such target; there are {}", names.join(", "));
        return ExitCode::from(2);
    }
    let failed = targets.into_iter().filter(|target| !run(&args, target)).count();
    if failed == 0 { ExitCode::SUCCESS } else { ExitCode::from(2) }
}

/// Whether nothing broke.
fn run(args: &Args, target: &Target) -> bool {
    if let Some(path) = &args.input {
        let answer = std::fs::read(path).map_err(|error| error.to_string());
        let answer = answer.and_then(|input| fuzz::try_one(target, &input));
        println!("{}: {answer:?}", target.name);
        return answer.is_ok();
    }
    let outcome = fuzz::run(target, Duration::from_secs(args.seconds), args.seed);
    println!("{}", fuzz::line(target, &outcome));
    outcome.crash.is_none()
}
