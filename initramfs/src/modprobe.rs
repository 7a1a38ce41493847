//! The same program under the name `modprobe`: the kernel and engines ask it for modules.
//!
//! The kernel runs /sbin/modprobe when a file system, protocol or firewall rule is wanted whose
//! module is not loaded. With this nothing has to be loaded in advance just in case.

use std::process::ExitCode;

use crate::module_loader::Loader;

/// Loads each argument that is not an option; 1 if one of them has no module.
pub(crate) fn main(arguments: impl Iterator<Item = String>) -> ExitCode {
    let loader = Loader::open();
    let requests = arguments.filter(|argument| !argument.starts_with('-'));
    // All of them are tried, also after one that fails.
    let missing = requests.filter(|request| !loader.load(request)).count();
    if missing == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
