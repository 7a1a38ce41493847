//! The command `iota`: read the command line, do the verb, print an error once, exit.

use std::process::ExitCode;

use builder::cli::Cli;
use clap::Parser;

fn main() -> ExitCode {
    builder::verbs::main(Cli::parse())
}
