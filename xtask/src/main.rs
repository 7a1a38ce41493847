//! One door for people who change this code: `cargo xtask VERB`.
//!
//! Depends on nothing but the standard library, so that it works when the rest does not compile.

use std::process::ExitCode;

mod bench;
mod check;
mod picture;
mod process;
mod repro;
mod sim;
mod test;
mod tidy;

const HELP: &str = "\
cargo xtask VERB

  check    format, clippy, unit tests and tidy: the gate before every commit
  test     every test, those that boot an image in QEMU included
  repro    builds an image twice, in two directories at two times, and compares every byte
  sim      cuts the power of simulated devices at every write: --states N --seed S
  fuzz     feeds the parsers with garbled input: TARGET --seconds N
  bench    measures builds and writers beside other programs and prints one table
  picture  runs an image and makes the README's picture of what was printed
  tidy     only the rules about the source itself
";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let (verb, rest) = match arguments.split_first() {
        Some((verb, rest)) => (verb.as_str(), rest),
        None => ("help", &[][..]),
    };
    let outcome = match verb {
        "check" => check::run(),
        "test" => test::run(rest),
        "repro" => repro::run(rest),
        "sim" | "fuzz" => sim::run(verb, rest),
        "bench" => bench::run(rest),
        "picture" => picture::run(),
        "tidy" => tidy::run(),
        "help" | "--help" | "-h" => {
            print!("{HELP}");
            Ok(())
        }
        other => Err(format!("there is no verb {other}\n\n{HELP}")),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            eprintln!("error: {message}");
            ExitCode::from(2)
        }
    }
}
