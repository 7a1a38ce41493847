//! How a board's image is run in QEMU: the table `qemu` of its `board.toml`.

use serde::Deserialize;

use crate::device_tree::Edit;
use crate::error::{Context, Error, Result};

/// The table `qemu` of a `board.toml`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct RawEmulation {
    machine: Name,
    kernel: Option<String>,
    device_tree: Option<String>,
    console: Option<Line>,
    commands: Option<Line>,
    #[serde(default)]
    edit: Vec<Edit>,
}

/// A serial line of a Raspberry Pi in QEMU.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Line {
    /// The PL011, which has the Bluetooth chip at its other end on most models.
    Serial0,
    /// The small UART, on pins 8 and 10.
    Serial1,
    /// An adapter on USB.
    Usb,
}

/// Names of QEMU's machines that images are known to run on.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Name {
    Virt,
    Raspi3b,
    Raspi4b,
}

/// The machine that QEMU emulates for a board.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Emulation {
    /// QEMU's own machine, with UEFI firmware.
    Virt,
    /// A Raspberry Pi from U-Boot onward: QEMU takes the place of ROM and firmware.
    RaspberryPi(RaspberryPi),
}

/// What QEMU does in place of the firmware of a Raspberry Pi. Holding one proves: every change of
/// the device tree has a reason.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct RaspberryPi {
    /// QEMU's name of the machine.
    pub machine: &'static str,
    /// The file of the boot partition that is started, as config.txt names it.
    pub kernel: String,
    /// The file of the boot partition with the model's device tree.
    pub device_tree: String,
    /// Where U-Boot and Linux speak.
    pub console: Line,
    /// Where the command port is; another line than the console's. Without one there is no way to
    /// run commands, nor to switch the machine off but by pulling the plug.
    pub commands: Option<Line>,
    /// What is changed in the device tree, since QEMU's machine differs from the model.
    pub edits: Vec<Edit>,
}

impl Emulation {
    /// Whether `iota` commands can be run in the guest.
    pub fn takes_commands(&self) -> bool {
        match self {
            Self::Virt => true,
            Self::RaspberryPi(pi) => pi.commands.is_some(),
        }
    }

    /// Checks what a `board.toml` says.
    pub fn check(raw: RawEmulation) -> Result<Self> {
        let RawEmulation { machine, kernel, device_tree, console, commands, edit: edits } = raw;
        let lines = console.or(commands).is_some();
        let machine = match machine {
            Name::Virt
                if kernel.is_some() || device_tree.is_some() || lines || !edits.is_empty() =>
            {
                return Err(Error::new("qemu: `virt` has firmware and devices of its own"));
            }
            Name::Virt => return Ok(Self::Virt),
            Name::Raspi3b => "raspi3b",
            Name::Raspi4b => "raspi4b",
        };
        let (Some(kernel), Some(device_tree)) = (kernel, device_tree) else {
            return Err(Error::new(format!("qemu: {machine} needs `kernel` and `device-tree`"))
                .hint("name two files of the boot partition"));
        };
        let console = match console {
            Some(Line::Usb) | None => {
                return Err(Error::new(format!("qemu: {machine} needs `console`"))
                    .hint("it is on serial0 or serial1"));
            }
            Some(line) if commands == Some(line) => {
                return Err(Error::new("qemu: console and commands need a line each"));
            }
            Some(line) => line,
        };
        for edit in &edits {
            edit.check().context(|| "qemu.edit".to_owned())?;
        }
        Ok(Self::RaspberryPi(RaspberryPi {
            machine,
            kernel,
            device_tree,
            console,
            commands,
            edits,
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str) -> Result<Emulation> {
        Emulation::check(toml::from_str(text).unwrap())
    }

    #[test]
    fn a_raspberry_pi_needs_what_its_firmware_would_have_loaded() {
        let text = "machine = 'raspi3b'\nkernel = 'u-boot.bin'\n";
        let error = check(text).unwrap_err();
        assert_eq!(error.to_string(), "qemu: raspi3b needs `kernel` and `device-tree`");
        let text = format!("{text}device-tree = 'a.dtb'\n");
        let lines = |console, commands| {
            check(&format!("{text}console = '{console}'\ncommands = '{commands}'\n"))
        };
        let Ok(Emulation::RaspberryPi(pi)) = lines("serial1", "usb") else {
            panic!("not a Raspberry Pi");
        };
        assert_eq!((pi.machine, pi.device_tree.as_str()), ("raspi3b", "a.dtb"));
        assert_eq!((pi.console, pi.commands), (Line::Serial1, Some(Line::Usb)));
        for (error, expected) in [
            (check(&text), "qemu: raspi3b needs `console`"),
            (lines("usb", "serial0"), "qemu: raspi3b needs `console`"),
            (lines("serial0", "serial0"), "qemu: console and commands need a line each"),
        ] {
            assert_eq!(error.unwrap_err().to_string(), expected);
        }
    }

    #[test]
    fn virt_needs_nothing_and_takes_nothing() {
        assert_eq!(check("machine = 'virt'").unwrap(), Emulation::Virt);
        let error = check("machine = 'virt'\nkernel = 'x'").unwrap_err();
        assert_eq!(error.to_string(), "qemu: `virt` has firmware and devices of its own");
    }
}
