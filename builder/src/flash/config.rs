//! The user's `iota.toml`, checked, and how it gets into the boot partition of a card. That of an
//! image which is being built gets it with its other files (`crate::build`).
//!
//! Follows [`crate::image::fat`] in that it reads no clock: the file is dated 1980-01-01, and the
//! same image and file give the same card.

use std::io::{self, Read as _, Write as _};
use std::ops::Range;

use ::config::FILE_NAME as NAME;
use fatfs::{FileSystem, FsOptions};
use ondisk::device::ReadAt;

use super::changes::Overlay;
use super::table;
use crate::error::{Context, Error, Result};

/// The text of a configuration. Holding one proves: a device that knows the same keys accepts it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config(Vec<u8>);

impl Config {
    /// Checks what a file holds.
    pub fn new(bytes: Vec<u8>) -> Result<Self> {
        match ::config::Config::parse(&bytes) {
            Ok(_) => Ok(Self(bytes)),
            Err(problems) => {
                let hint = problems.first().hint.clone();
                let error = Error::new(problems.to_string());
                Err(match hint {
                    Some(hint) => error.hint(hint),
                    None => error,
                })
            }
        }
    }

    /// The file as it was written.
    pub fn bytes(&self) -> &[u8] {
        &self.0
    }
}

/// Writes the configuration into the root of the boot partition, in place of one that is there.
pub fn put<D: ReadAt<Error = io::Error>>(card: &mut Overlay<'_, D>, config: &Config) -> Result<()> {
    let boot = table::boot_partition(card)?;
    let failed = || format!("cannot put {NAME} into the boot partition");
    write(card, &boot, config).map_err(|error| {
        let full = matches!(error.kind(), io::ErrorKind::WriteZero | io::ErrorKind::StorageFull);
        let error = Error::caused(failed(), error);
        if full { error.hint("the boot partition is full: raise `layout.boot`") } else { error }
    })?;
    let found = read(card, &boot).context(failed)?;
    if found != config.0 {
        return Err(Error::caused(failed(), "it reads back differently"));
    }
    Ok(())
}

fn write<D: ReadAt<Error = io::Error>>(
    card: &mut Overlay<'_, D>,
    boot: &Range<u64>,
    config: &Config,
) -> io::Result<()> {
    let volume = FileSystem::new(card.window(boot.clone()), FsOptions::new())?;
    {
        let mut file = volume.root_dir().create_file(NAME)?;
        file.truncate()?;
        file.write_all(&config.0)?;
        file.flush()?;
    }
    volume.unmount()
}

fn read<D: ReadAt<Error = io::Error>>(
    card: &mut Overlay<'_, D>,
    boot: &Range<u64>,
) -> io::Result<Vec<u8>> {
    let volume = FileSystem::new(card.window(boot.clone()), FsOptions::new())?;
    let mut bytes = Vec::new();
    volume.root_dir().open_file(NAME)?.read_to_end(&mut bytes)?;
    Ok(bytes)
}
