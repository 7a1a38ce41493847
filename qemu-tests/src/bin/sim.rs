//! The crash simulator on the command line; `cargo xtask sim` runs it. See `docs/simulator.md`.
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Instant;

use clap::Parser;
use qemu_tests::sim;

/// Cuts the power of simulated devices at every write, and looks at what comes after
#[derive(Parser)]
#[command(name = "cargo xtask sim")]
struct Args {
    /// How many states to look at; of each planted bug, at most
    #[arg(long, default_value_t = 250_000)]
    states: u64,
    /// Where randomness starts; a run with the same seed looks at the same states
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Play one state again, by the name that a failure printed
    #[arg(long, value_name = "NAME")]
    only: Option<String>,
    /// Look for the planted bugs instead
    #[arg(long)]
    bugs: bool,
    /// Look for the planted bugs too, and write all figures as RELIABILITY.md to this file
    #[arg(long, value_name = "FILE")]
    report: Option<PathBuf>,
}

fn main() -> ExitCode {
    let args = Args::parse();
    match &args.only {
        Some(name) => match sim::replay(name, args.seed) {
            Ok(()) => ExitCode::SUCCESS,
            Err(broken) => fail(&broken),
        },
        None if args.bugs => hunt(&args),
        None => run(&args),
    }
}

fn hunt(args: &Args) -> ExitCode {
    let hunts = sim::hunt(args.states, args.seed);
    print!("{}", sim::report::hunt_table(&hunts));
    let all = hunts.iter().all(|hunt| hunt.found.is_some());
    if all { ExitCode::SUCCESS } else { fail("a planted bug was not found") }
}

fn run(args: &Args) -> ExitCode {
    let start = Instant::now();
    let rows = sim::run_all(args.states, args.seed);
    let seconds = start.elapsed().as_secs_f64();
    print!("{}", sim::report::table(&rows));
    println!("{seconds:.1} s, seed {}", args.seed);
    if let Some(path) = &args.report {
        let hunts = sim::hunt(20_000, args.seed);
        let page = sim::report::page(&rows, &hunts, args.seed, seconds);
        if let Err(error) = std::fs::write(path, page) {
            return fail(&format!("cannot write {}: {error}", path.display()));
        }
    }
    let few =
        |figures: &sim::run::Figures| figures.broken.iter().take(3).cloned().collect::<Vec<_>>();
    let broken: Vec<_> = rows.iter().flat_map(|(_, figures)| few(figures)).collect();
    for (name, broken) in &broken {
        println!("{name}: {broken}\n  {}", sim::replay_command(name, args.seed));
    }
    if broken.is_empty() { ExitCode::SUCCESS } else { fail("rules were broken") }
}

fn fail(message: &str) -> ExitCode {
    eprintln!("error: {message}");
    ExitCode::from(2)
}
