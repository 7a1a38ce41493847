//! `iota build`: from a board name to an image, and what to say about it.

use std::path::Path;

use ondisk::manifest::{MAX_VERSION_BYTES, is_version};

use crate::app::carried::{Carried, Wanted};
use crate::app::pull::{self, Puller};
use crate::build::{self, Host, Plan, Summary};
use crate::cli::{BuildArgs, Common};
use crate::definitions::load_engine;
use crate::error::{Error, Result};
use crate::host::progress::{Progress, megabytes};
use crate::host::store::Store;
use crate::sign::Profile;
use crate::signer::Signer;

/// Builds an image as it is, without anything of its owner's, and says what came of it.
pub fn run(arguments: &BuildArgs, common: &Common) -> Result<Summary> {
    run_with(arguments, None, common)
}

/// Builds an image with this `iota.toml` in its boot partition, and says what came of it.
pub fn run_with(arguments: &BuildArgs, config: Option<&Path>, common: &Common) -> Result<Summary> {
    // Before anything is made: a mistake in it shall cost nobody a build.
    let config = config.map(super::config::load).transpose()?;
    let workspace = super::workspace(common)?;
    // Nor shall a typing error in the board's name leave a pin or a key behind.
    crate::board::Board::load(&workspace, &arguments.board)?;
    check_version(arguments.image_version.as_deref())?;
    let progress = Progress::new(common.quiet);
    let store = Store::open(common.cache.as_deref())?;
    let puller = Puller {
        store: &store,
        lock: Some(pull::lock_path(&workspace)),
        locked: arguments.locked,
        offline: common.offline,
        progress: &progress,
    };
    let carried = wanted(arguments, &puller)?.load(&workspace)?;
    let engine = load_engine(&workspace.join("rootfs"), &arguments.engine)?;
    carried.check_for(&engine.name, &engine.lacks)?;
    let plan = Plan { config, carried, ..plan(arguments, &workspace, &progress)? };
    let host = Host {
        workspace: &workspace,
        store: &store,
        mirror: common.mirror.as_deref(),
        offline: common.offline,
        progress: &progress,
    };
    let summary = build::build(&plan, &host)?;
    for line in lines(&summary) {
        progress.line(line);
    }
    Ok(summary)
}

fn plan(arguments: &BuildArgs, workspace: &Path, progress: &Progress) -> Result<Plan> {
    let profile = profile(arguments);
    let keys = workspace.join("keys");
    let (signer, made) = load_signer(arguments, &keys)?;
    if made {
        let place = keys.join("development.secret");
        progress.line(format!("made a development key {}: {}", signer.ids()?, place.display()));
    }
    Ok(Plan {
        board: arguments.board.clone(),
        engine: arguments.engine.clone(),
        profile,
        signer,
        out: arguments.out.clone(),
        version: arguments.image_version.clone(),
        rollback_index: u64::from(arguments.rollback_index),
        root_format: arguments.root_format,
        locked: arguments.locked,
        force: arguments.force,
        carried: Carried::default(),
        config: None,
    })
}

fn wanted(arguments: &BuildArgs, puller: &Puller<'_>) -> Result<Wanted> {
    let BuildArgs { app, with_image, compose, .. } = arguments;
    Ok(Wanted { apps: app.clone(), images: puller.local(with_image)?, compose: *compose })
}

fn profile(arguments: &BuildArgs) -> Profile {
    if arguments.release { Profile::Release } else { Profile::Development }
}

fn load_signer(arguments: &BuildArgs, keys: &Path) -> Result<(Signer, bool)> {
    let BuildArgs { key, trust, .. } = arguments;
    Signer::for_build(key, trust.as_deref(), keys, profile(arguments))
}

/// The keys that a build with these options has signed with.
pub(super) fn signer(arguments: &BuildArgs, workspace: &Path) -> Result<(Signer, Profile)> {
    let (signer, _) = load_signer(arguments, &workspace.join("keys"))?;
    Ok((signer, profile(arguments)))
}

fn check_version(version: Option<&str>) -> Result<()> {
    match version {
        Some(text) if !is_version(text) => Err(Error::new(format!("`{text}` is not a version"))
            .hint(format!("1 to {MAX_VERSION_BYTES} letters, digits and .+~_-, as in 2026.11.0"))),
        _ => Ok(()),
    }
}

fn lines(summary: &Summary) -> Vec<String> {
    let Summary { directory, version, slot, download_bytes, key, profile, unchanged } = summary;
    let board = directory.file_name().unwrap_or_default().to_string_lossy();
    let built = if *unchanged { "is up to date" } else { "is built" };
    let note = match profile.as_str() {
        "development" => " (development: not for devices in the field)",
        _ => "",
    };
    vec![
        format!("{board} {version} {built}, signed with {profile} key {key}{note}"),
        format!("  {slot}; download {}", megabytes(*download_bytes)),
        format!("  {}", directory.join("disk.img").display()),
        format!("  {}", directory.join("report.txt").display()),
    ]
}
