//! The image under test: built once for all tests, by the very code behind `iota build`.

use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use builder::cli::{Cli, Verb};
use clap::Parser as _;

use crate::{scratch, workspace};

/// The board that virtual machines are.
pub const BOARD: &str = "generic-aarch64";

/// The directory with `disk.img`, `slot.img` and everything else that a build leaves.
pub fn outputs() -> &'static Path {
    static OUTPUTS: OnceLock<PathBuf> = OnceLock::new();
    OUTPUTS.get_or_init(|| build_into(&scratch().join("out")))
}

/// Builds the image into a directory of its own.
pub fn build_into(out: &Path) -> PathBuf {
    let workspace = workspace();
    let words = ["iota".as_ref(), "build".as_ref(), BOARD.as_ref(), "--workspace".as_ref()];
    let rest = [workspace.as_os_str(), "--out".as_ref(), out.as_os_str()];
    let cli = Cli::parse_from(words.into_iter().chain(rest));
    let Verb::Build(arguments) = &cli.verb else { unreachable!("the verb is above") };
    match builder::verbs::build::run(arguments, &cli.common) {
        Ok(summary) => summary.directory,
        Err(error) => panic!("{}", error.chain()),
    }
}
