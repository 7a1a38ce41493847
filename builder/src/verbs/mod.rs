//! One module a verb of the command line: each owns its control flow and its output.

pub mod inspect;
pub mod key;
pub mod lock;
pub mod run;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use crate::cli::{Cli, Common, KeyVerb, Verb};
use crate::error::{Context, Error, Result};
use crate::sign::Profile;

/// Runs what was typed; prints an error once, with its causes and the next step.
pub fn main(cli: Cli) -> ExitCode {
    match run(cli) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("error: {}", error.chain());
            if let Some(hint) = error.next_step() {
                eprintln!("hint: {hint}");
            }
            ExitCode::from(2)
        }
    }
}

fn run(cli: Cli) -> Result<ExitCode> {
    match cli.verb {
        Verb::Inspect(arguments) => return inspect::run(&arguments),
        Verb::Key(KeyVerb::New { name, release }) => {
            key::new(&name, if release { Profile::Release } else { Profile::Development })?;
        }
        Verb::Key(KeyVerb::Show { file }) => key::show(&file)?,
    }
    Ok(ExitCode::SUCCESS)
}

/// The Iota source tree: the one named, else the nearest directory upwards that has `boards/` and
/// `rootfs/`.
pub fn workspace(common: &Common) -> Result<PathBuf> {
    let is_workspace = |path: &Path| path.join("boards").is_dir() && path.join("rootfs").is_dir();
    if let Some(path) = &common.workspace {
        if !is_workspace(path) {
            return Err(Error::new(format!("{} is not an Iota source tree", path.display()))
                .hint("it needs the directories boards/ and rootfs/"));
        }
        return path.canonicalize().context(|| format!("cannot open {}", path.display()));
    }
    let here = std::env::current_dir().context(|| "cannot tell the current directory".into())?;
    here.ancestors().find(|path| is_workspace(path)).map(Path::to_path_buf).ok_or_else(|| {
        Error::new(format!("no Iota source tree around {}", here.display()))
            .hint("run `iota` inside the source tree, or pass --workspace DIR")
    })
}
