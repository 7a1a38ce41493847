//! Modules of the kernel, asked for by the program that the kernel itself asks (`modprobe(8)`;
//! PID 1 under another name).

use std::path::Path;
use std::process::Command;

/// Where it is on a device.
pub const PROGRAM: &str = "/usr/sbin/modprobe";

/// Loads a module; one that is loaded already is fine. An error is one clause.
pub fn load(program: &Path, name: &str) -> Result<(), String> {
    let output = Command::new(program).arg(name).output();
    let output = output.map_err(|error| format!("{}: {error}", program.display()))?;
    match output.status.success() {
        true => Ok(()),
        false => {
            let said = String::from_utf8_lossy(&output.stderr);
            Err(format!("{} {}", output.status, said.trim()))
        }
    }
}
