//! One module a verb of the command line: each owns its control flow and its output.

pub mod app;
pub mod build;
pub mod bundle;
pub mod config;
pub mod flash;
pub mod inspect;
pub mod key;
pub mod lock;
pub mod publish;
pub mod push;
pub mod run;
pub mod trust;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use crate::app::pull;
use crate::board::Board;
use crate::build::Host;
use crate::cli::{AppVerb, Cli, Common, ConfigVerb, KeyVerb, RunArgs, Verb};
use crate::debian::catalog::Trust;
use crate::definitions;
use crate::error::{Context, Error, Result};
use crate::host::output::{self, out};
use crate::host::progress::Progress;
use crate::host::signals;
use crate::host::store::Store;
use crate::host::tools::Tools;
use crate::sign::Profile;

/// Runs what was typed; prints an error once, with its causes and the next step.
pub fn main(cli: Cli) -> ExitCode {
    // Nobody listens yet: an interrupt removes unfinished outputs and ends the process.
    drop(signals::interrupts());
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
    let common = &cli.common;
    match cli.verb {
        Verb::Build(arguments) => {
            build::run_with(&arguments.build, arguments.config.as_deref(), common)?;
        }
        Verb::Bundle(arguments) => bundle::run(&arguments, common)?,
        Verb::Publish(arguments) => publish::run(&arguments, common)?,
        Verb::Release(verb) => publish::change(&verb, common)?,
        Verb::Run(arguments) => return boot(&arguments, common),
        Verb::Flash(arguments) => return flash::run(&arguments, common),
        Verb::Inspect(arguments) => return inspect::run(&arguments),
        Verb::Config(ConfigVerb::Check { file, json }) => return config::check(&file, json),
        Verb::App(AppVerb::Check { file, json }) => return app::check(&file, json),
        Verb::Push(arguments) => return push::run(&arguments, common),
        Verb::Lock => lock_packages(common)?,
        Verb::Key(KeyVerb::New { name, release }) => {
            key::new(&name, if release { Profile::Release } else { Profile::Development })?;
        }
        Verb::Key(KeyVerb::Show { file }) => key::show(&file)?,
        Verb::Trust(verb) => trust::run(&verb)?,
    }
    Ok(ExitCode::SUCCESS)
}

/// `iota run`: builds, then boots what was built.
fn boot(arguments: &RunArgs, common: &Common) -> Result<ExitCode> {
    // Ports are read before the build, which may take a while.
    let forwards = arguments.forward.iter().map(|ports| ports.parse()).collect::<Result<_>>()?;
    let summary = build::run(&arguments.build, common)?;
    let board = Board::load(&workspace(common)?, &arguments.build.board)?;
    let options = run::Options {
        emulation: board.emulation,
        persist: arguments.persist,
        memory_mib: arguments.memory,
        forwards,
        timings: arguments.timings,
        until: arguments.until_ready.then_some(run::stages::Stage::Ready),
        commands: arguments.exec.clone(),
        ..run::Options::new(summary.disk())
    };
    let progress = Progress::new(common.quiet);
    let store = Store::open(common.cache.as_deref())?;
    let tools = Tools {
        store: &store,
        mirror: common.mirror.as_deref(),
        offline: common.offline,
        progress: &progress,
    };
    run::run(&options, &tools)
}

fn lock_packages(common: &Common) -> Result<()> {
    let workspace = workspace(common)?;
    let progress = Progress::new(common.quiet);
    let store = Store::open(common.cache.as_deref())?;
    let options = lock::Options {
        manifest: definitions::packages(&workspace)?,
        lock: definitions::lock_path(&workspace),
        mirror: common.mirror.clone(),
        offline: common.offline,
        trust: Trust::default(),
    };
    output::print(format_args!("{}", lock::run(&options, &store, &progress)?));
    if !common.offline {
        for line in pull::update_lock(&pull::lock_path(&workspace))? {
            out!("{line}");
        }
    }
    Ok(())
}

/// Makes the lock of another source tree, for those who measure with other packages.
pub fn lock_packages_of(workspace: &Path, host: &Host<'_>) -> Result<()> {
    let options = lock::Options {
        manifest: definitions::packages(workspace)?,
        lock: definitions::lock_path(workspace),
        mirror: host.mirror.map(str::to_owned),
        offline: host.offline,
        trust: Trust::default(),
    };
    lock::run(&options, host.store, host.progress).map(drop)
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
