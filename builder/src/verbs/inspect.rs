//! `iota inspect`: shows what a disk image or slot holds, and checks it.

use std::process::ExitCode;

use crate::cli::InspectArgs;
use crate::error::{Context, Result};
use crate::host::output::out;
use crate::inspect;

/// Prints the findings; exit code 1 if something is damaged.
pub fn run(arguments: &InspectArgs) -> Result<ExitCode> {
    let trust = inspect::trust(&arguments.key, arguments.trust.as_deref())?;
    let findings = inspect::inspect(&arguments.file, &trust)?;
    if arguments.json {
        let text = serde_json::to_string_pretty(&findings)
            .context(|| "cannot write the findings as JSON".into())?;
        out!("{text}");
    } else {
        out!("{}", inspect::render(&findings));
    }
    Ok(if findings.whole() { ExitCode::SUCCESS } else { ExitCode::from(1) })
}
