//! What a simulated boot says: its steps, and what stops it or goes wrong.

use std::fmt;

use super::model::{Eeprom, Machine, Model};
use crate::error::{Error, Result};

/// The program of the boot that meets a problem.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Stage {
    /// The chip's own ROM, of the Pi 3 family.
    Rom,
    /// `bootcode.bin`, which the ROM of the Pi 3 family starts.
    Bootcode,
    /// The boot loader in the EEPROM of the Pi 4 family.
    Eeprom,
    /// `start.elf` or `start4.elf`.
    StartElf,
    /// U-Boot, which takes the place of a kernel.
    UBoot,
    /// Our own boot loader.
    Loader,
}

impl fmt::Display for Stage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Rom => "rom",
            Self::Bootcode => "bootcode.bin",
            Self::Eeprom => "eeprom",
            Self::StartElf => "start.elf",
            Self::UBoot => "u-boot",
            Self::Loader => "loader",
        })
    }
}

/// What one machine would stumble over.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Problem {
    /// Who stumbles.
    pub stage: Stage,
    /// What was found on the card.
    pub what: String,
    /// What the stage makes of it.
    pub why: String,
    /// What to change.
    pub mend: String,
}

impl Problem {
    pub(super) fn new(
        stage: Stage,
        what: impl Into<String>,
        why: impl Into<String>,
        mend: impl Into<String>,
    ) -> Self {
        Self { stage, what: what.into(), why: why.into(), mend: mend.into() }
    }
}

/// A problem with all the machines that have it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Finding {
    /// The program that stops or misbehaves.
    pub stage: Stage,
    /// On which machines.
    pub machines: Vec<Machine>,
    /// What was found on the card.
    pub what: String,
    /// What the program makes of it.
    pub why: String,
    /// How to mend it.
    pub mend: String,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} on {}: {}; {}", self.stage, list(&self.machines), self.what, self.why)
    }
}

/// Machines in words: a model whose EEPROMs all have the problem is named once.
fn list(machines: &[Machine]) -> String {
    let has = |model, eeprom| machines.contains(&Machine { model, eeprom: Some(eeprom) });
    let mut names: Vec<String> = Vec::new();
    for machine in machines {
        let both = has(machine.model, Eeprom::Old) && has(machine.model, Eeprom::New);
        let name = if both { machine.model.to_string() } else { machine.to_string() };
        if !names.contains(&name) {
            names.push(name);
        }
    }
    names.join(", ")
}

/// The steps of one simulated boot.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Trace {
    /// The machine.
    pub machine: Machine,
    /// `stage: what it found`, in order.
    pub steps: Vec<String>,
}

impl fmt::Display for Trace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}", self.machine)?;
        self.steps.iter().try_for_each(|step| writeln!(f, "  {step}"))
    }
}

/// All simulated boots of a card.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Report {
    /// One for each machine, in the order of the models asked for.
    pub traces: Vec<Trace>,
    /// What was found, in the order in which a boot meets it.
    pub findings: Vec<Finding>,
}

impl Report {
    pub(super) fn add(&mut self, trace: Trace, problems: Vec<Problem>) {
        let machine = trace.machine;
        self.traces.push(trace);
        for Problem { stage, what, why, mend } in problems {
            let known = self
                .findings
                .iter_mut()
                .find(|known| known.stage == stage && (&known.what, &known.why) == (&what, &why));
            match known {
                Some(known) => known.machines.push(machine),
                None => {
                    self.findings.push(Finding { stage, machines: vec![machine], what, why, mend });
                }
            }
        }
    }

    /// The traces, for a file beside the image.
    pub fn text(&self) -> String {
        self.traces.iter().map(Trace::to_string).collect::<Vec<_>>().join("\n")
    }

    /// Ok if every machine reaches the kernel.
    ///
    /// Errors: names the first findings and how to mend the first.
    pub fn into_result(self) -> Result<Self> {
        const SHOWN: usize = 3;
        let Some(first) = self.findings.first() else { return Ok(self) };
        let mut lines: Vec<String> =
            self.findings.iter().take(SHOWN).map(ToString::to_string).collect();
        let more = self.findings.len().saturating_sub(SHOWN);
        if more > 0 {
            lines.push(format!("and {more} more"));
        }
        let message = format!("the image would not boot as it should: {}", lines.join("\n  "));
        Err(Error::new(message).hint(first.mend.clone()))
    }

    /// The models of the traces, each once.
    pub fn models(&self) -> Vec<Model> {
        let mut models: Vec<Model> = self.traces.iter().map(|trace| trace.machine.model).collect();
        models.dedup();
        models
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_problem_of_many_machines_is_one_finding_that_names_each_model_once() {
        let mut report = Report::default();
        let problem = Problem::new(Stage::Eeprom, "what", "why", "mend");
        let machines = Model::Pi4B
            .machines()
            .into_iter()
            .chain([Machine { model: Model::Cm4, eeprom: Some(Eeprom::Old) }]);
        for machine in machines {
            report.add(Trace { machine, steps: Vec::new() }, vec![problem.clone()]);
        }
        let error = report.into_result().unwrap_err();
        assert_eq!(
            error.to_string(),
            "the image would not boot as it should: \
             eeprom on pi4-b, cm4 (EEPROM of 2020-09): what; why"
        );
        assert_eq!(error.next_step(), Some("mend"));
    }
}
