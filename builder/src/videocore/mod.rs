//! A second opinion on images for Raspberry Pis: a simulation of what ROM, EEPROM and `start.elf`
//! do with a card, from the vendor's documents, up to the start of our own loader.
//!
//! None of these programs can be run here, and all of them fail silently: a wrong partition type,
//! a device tree of the wrong name or a firmware file of another build is a board that stays dark
//! or has a quarter of its memory. So every image is read back as those programs would read it,
//! with readers of its own, and refused if a covered model would not start. What is simulated and
//! what is not: `docs/boards/videocore.md`.
//!
//! Pure: a device and models in, traces and findings out.

mod card;
mod config;
mod firmware;
mod model;
mod report;
mod simulate;
mod uboot;
mod volume;

use ondisk::device::ReadAt;

pub use model::{Eeprom, Family, Machine, Model};
pub use report::{Finding, Report, Stage, Trace};

use crate::error::Result;

/// Boots the card in every machine of the models.
///
/// Errors: the image cannot be read; what is wrong with it is in the report.
pub fn check<D: ReadAt>(device: &D, models: &[Model]) -> Result<Report> {
    let card = card::Card::read(device)?;
    let mut report = Report::default();
    for machine in models.iter().flat_map(|model| model.machines()) {
        let (trace, problems) = simulate::boot(&card, machine);
        report.add(trace, problems);
    }
    Ok(report)
}

#[cfg(test)]
mod tests;
