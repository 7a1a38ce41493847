//! `iota bundle`: builds, then makes one signed update file of the slot.

use std::fs::File;
use std::path::Path;

use ondisk::device::FileDevice;

use crate::bundle::{self, Settings};
use crate::cli::{BuildArgs, Common};
use crate::error::{Context, Result};
use crate::host::progress::{Progress, Unit, megabytes};
use crate::signer::Signer;

/// Name of the file in the board's directory of outputs.
pub const FILE_NAME: &str = "update.bundle";

/// Builds, makes the bundle unless it is there already, and says where it is.
pub fn run(arguments: &BuildArgs, common: &Common) -> Result<()> {
    let summary = super::build::run(arguments, common)?;
    let progress = Progress::new(common.quiet);
    let workspace = super::workspace(common)?;
    let (signer, profile) = super::build::signer(arguments, &workspace)?;
    let slot = summary.directory.join("slot.img");
    let failed = || format!("cannot read {}", slot.display());
    let device = FileDevice::new(File::open(&slot).context(failed)?).context(failed)?;
    let target = summary.directory.join(FILE_NAME);
    if !arguments.force && bundle::is_of(&target, &device, &signer) {
        progress.line(format!("  {} is up to date", target.display()));
        return Ok(());
    }
    write(&target, &device, &signer, Settings::of(profile), &progress)
}

fn write(
    target: &Path,
    slot: &FileDevice,
    signer: &Signer,
    settings: Settings,
    progress: &Progress,
) -> Result<()> {
    let task = progress.task("bundle", Unit::Bytes, 0);
    let image = bundle::image_bytes(slot, signer)?;
    task.set_total(image);
    let made = bundle::write(target, slot, signer, settings, |bytes| task.add(bytes))?;
    let bundle::Bundle { version, bytes, .. } = made;
    task.finish(format!("bundled {version}: {}", megabytes(bytes)));
    progress.line(format!("  {}", target.display()));
    Ok(())
}
