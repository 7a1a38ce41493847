//! The machines that an image can be made for, as their firmware tells them apart.
//!
//! Names and numbers follow the vendor's tables of conditional filters and revision codes.

use std::fmt;

use serde::{Deserialize, Serialize};

/// A Raspberry Pi.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Deserialize, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Model {
    /// Raspberry Pi 3 Model B.
    Pi3B,
    /// Raspberry Pi 3 Model B+.
    Pi3BPlus,
    /// Raspberry Pi 3 Model A+.
    Pi3APlus,
    /// Compute Module 3, and 3+, which the firmware treats alike.
    Cm3,
    /// Raspberry Pi Zero 2 W.
    Zero2W,
    /// Raspberry Pi 4 Model B.
    Pi4B,
    /// Raspberry Pi 400.
    Pi400,
    /// Compute Module 4.
    Cm4,
}

/// What the first program that reads the card is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Family {
    /// The ROM reads `bootcode.bin` from the card.
    Bcm2837,
    /// A boot loader in an EEPROM on the board reads `start4.elf` from the card.
    Bcm2711,
}

/// Which boot loader the EEPROM of a board holds: what it accepts has changed with time.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Eeprom {
    /// The first stable one that boots from USB, 2020-09-03: a board never updated.
    Old,
    /// 2025-02-11 or later: a board bought or updated since.
    New,
}

/// One machine that a card is put into.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Machine {
    /// The board.
    pub model: Model,
    /// Its boot loader, on boards that have one.
    pub eeprom: Option<Eeprom>,
}

impl Model {
    /// The name in `board.toml`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Pi3B => "pi3-b",
            Self::Pi3BPlus => "pi3-b-plus",
            Self::Pi3APlus => "pi3-a-plus",
            Self::Cm3 => "cm3",
            Self::Zero2W => "zero2-w",
            Self::Pi4B => "pi4-b",
            Self::Pi400 => "pi400",
            Self::Cm4 => "cm4",
        }
    }

    /// What reads the card first.
    pub fn family(self) -> Family {
        match self {
            Self::Pi3B | Self::Pi3BPlus | Self::Pi3APlus | Self::Cm3 | Self::Zero2W => {
                Family::Bcm2837
            }
            Self::Pi4B | Self::Pi400 | Self::Cm4 => Family::Bcm2711,
        }
    }

    /// Every machine of this model: one for each boot loader it may have.
    pub fn machines(self) -> Vec<Machine> {
        let eeproms = match self.family() {
            Family::Bcm2837 => vec![None],
            Family::Bcm2711 => vec![Some(Eeprom::Old), Some(Eeprom::New)],
        };
        eeproms.into_iter().map(|eeprom| Machine { model: self, eeprom }).collect()
    }

    /// The filters of `config.txt` that let a setting through on this model.
    ///
    /// A Zero 2 W has the chip of a Pi 3 and yet passes `[pi0]`, never `[pi3]`.
    pub(super) fn filters(self) -> &'static [&'static str] {
        match self {
            Self::Pi3B | Self::Cm3 => &["pi3"],
            Self::Pi3BPlus | Self::Pi3APlus => &["pi3", "pi3+"],
            Self::Zero2W => &["pi0", "pi0w", "pi02"],
            Self::Pi4B => &["pi4"],
            Self::Pi400 => &["pi4", "pi400"],
            Self::Cm4 => &["pi4", "cm4"],
        }
    }

    /// The type field of the board's revision code, as `[board-type=…]` compares it.
    pub(super) fn board_types(self) -> &'static [u32] {
        match self {
            Self::Pi3B => &[0x08],
            Self::Pi3BPlus => &[0x0d],
            Self::Pi3APlus => &[0x0e],
            Self::Cm3 => &[0x0a, 0x10],
            Self::Zero2W => &[0x12],
            Self::Pi4B => &[0x11],
            Self::Pi400 => &[0x13],
            Self::Cm4 => &[0x14],
        }
    }

    /// The device tree that the firmware looks for when `upstream_kernel=1`: `start.elf` builds
    /// the name from chip and model, and holds these very model names.
    pub(super) fn device_tree(self) -> &'static str {
        match self {
            Self::Pi3B => "bcm2837-rpi-3-b.dtb",
            Self::Pi3BPlus => "bcm2837-rpi-3-b-plus.dtb",
            Self::Pi3APlus => "bcm2837-rpi-3-a-plus.dtb",
            Self::Cm3 => "bcm2837-rpi-cm3-io3.dtb",
            Self::Zero2W => "bcm2837-rpi-zero-2-w.dtb",
            Self::Pi4B => "bcm2711-rpi-4-b.dtb",
            Self::Pi400 => "bcm2711-rpi-400.dtb",
            Self::Cm4 => "bcm2711-rpi-cm4-io.dtb",
        }
    }
}

impl fmt::Display for Model {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl fmt::Display for Eeprom {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Old => "EEPROM of 2020-09",
            Self::New => "EEPROM since 2025-02",
        })
    }
}

impl fmt::Display for Machine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.eeprom {
            Some(eeprom) => write!(f, "{} ({eeprom})", self.model),
            None => write!(f, "{}", self.model),
        }
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    pub(crate) const ALL: [Model; 8] = [
        Model::Pi3B,
        Model::Pi3BPlus,
        Model::Pi3APlus,
        Model::Cm3,
        Model::Zero2W,
        Model::Pi4B,
        Model::Pi400,
        Model::Cm4,
    ];

    #[test]
    fn a_model_is_written_in_a_board_as_it_is_shown() {
        for model in ALL {
            let text = format!("\"{model}\"");
            assert_eq!(serde_json::from_str::<Model>(&text).unwrap(), model);
        }
    }
}
