//! The status LED: what it does at each stage of a start, in words of the kernel's LED triggers
//! (Documentation/ABI/testing/sysfs-class-led and sysfs-class-led-trigger-*).
//!
//! ```text
//! PID 1: starting ──► agent: running ──► PID 1: stopping
//!        safe (no engine, no agent) ───► PID 1: stopping
//! ```
//! Two programs show stages of one LED, and its driver may come after either has done so. So the
//! agent leaves a mark, [`RUNNING_MARK`], before it shows `running`: whoever shows an earlier stage
//! looks for the mark afterwards, and the last write is that of the later stage.

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;

use super::{Error, fault};

/// Where the kernel shows its LEDs.
pub const LEDS: &str = "/sys/class/leds";

/// A file that is there once the engine answers and everything declared has started.
pub const RUNNING_MARK: &str = "/run/iota/running";

/// Longest names, as the kernel has them (`LED_MAX_NAME_SIZE` and less for the others).
const MAX_NAME: usize = 63;

/// How far a start is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// PID 1 supervises; the engine or a container is still awaited.
    Starting,
    /// The engine answers and everything declared has started.
    Running,
    /// No slot was good: there is no engine, and somebody has to install a good system.
    Safe,
    /// The machine goes down.
    Stopping,
}

impl Stage {
    /// All stages, in the order of the text.
    pub const ALL: [Self; 4] = [Self::Starting, Self::Running, Self::Safe, Self::Stopping];

    /// Its name in the description.
    pub fn name(self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::Running => "running",
            Self::Safe => "safe",
            Self::Stopping => "stopping",
        }
    }
}

/// An LED and what it does at each stage.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Led {
    /// Name below [`LEDS`].
    pub name: String,
    /// At [`Stage::Starting`].
    pub starting: Pattern,
    /// At [`Stage::Running`].
    pub running: Pattern,
    /// At [`Stage::Safe`].
    pub safe: Pattern,
    /// At [`Stage::Stopping`].
    pub stopping: Pattern,
}

/// What an LED does: a trigger of the kernel and its settings, `timer delay_on=100 delay_off=100`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Pattern {
    /// Name of the trigger; empty only in a description that is refused.
    pub trigger: String,
    /// Files that are written after the trigger, in this order.
    pub settings: Vec<Setting>,
}

/// A file of a trigger and what is written to it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Setting {
    /// Name of the file beside `trigger`.
    pub file: String,
    /// What is written.
    pub value: String,
}

impl Led {
    /// What it does at a stage.
    pub fn pattern(&self, stage: Stage) -> &Pattern {
        match stage {
            Stage::Starting => &self.starting,
            Stage::Running => &self.running,
            Stage::Safe => &self.safe,
            Stage::Stopping => &self.stopping,
        }
    }

    /// The writes that show a stage: paths below [`LEDS`] and values, in order.
    pub fn writes(&self, stage: Stage) -> Vec<(String, String)> {
        let Pattern { trigger, settings } = self.pattern(stage);
        let path = |file: &str| format!("{}/{file}", self.name);
        // A trigger brings its files along, so they come second.
        let first = [(path("trigger"), trigger.clone())];
        let settings = settings.iter().map(|set| (path(&set.file), set.value.clone()));
        first.into_iter().chain(settings).collect()
    }

    /// Fails if a stage is missing or a word could be anything but a file of the LED.
    pub fn check(&self) -> Result<(), Error> {
        let named = |error: Error| fault(format!("led {}: {}", self.name, error.problem));
        check_name("LED", &self.name).map_err(named)?;
        Stage::ALL.into_iter().try_for_each(|stage| self.check_stage(stage)).map_err(named)
    }

    fn check_stage(&self, stage: Stage) -> Result<(), Error> {
        let Pattern { trigger, settings } = self.pattern(stage);
        if trigger.is_empty() {
            return Err(fault(format!("the stage `{}` is missing", stage.name())));
        }
        check_name("trigger", trigger)?;
        for Setting { file, value } in settings {
            check_name("setting", file)?;
            if value.is_empty() || !value.bytes().all(|byte| byte.is_ascii_alphanumeric()) {
                return Err(fault(format!(
                    "`{file}={value}` is not a value of letters and digits"
                )));
            }
        }
        Ok(())
    }
}

impl Pattern {
    /// The module that brings the trigger, if there is one: triggers of the kernel's own
    /// directory are in modules of this name, or built in; other drivers bring their own.
    pub fn module(&self) -> String {
        format!("ledtrig_{}", self.trigger.replace('-', "_"))
    }
}

/// The names become parts of a path: no `/`, and without `.` no way up.
fn check_name(what: &str, name: &str) -> Result<(), Error> {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b':');
    if !name.is_empty() && name.len() <= MAX_NAME && name.bytes().all(plain) {
        return Ok(());
    }
    Err(fault(format!("{what} `{name}` is not a name of letters, digits, `-`, `_` and `:`")))
}

impl fmt::Display for Pattern {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(&self.trigger)?;
        self.settings.iter().try_for_each(|set| write!(out, " {}={}", set.file, set.value))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn led() -> Led {
        let pattern = |text: &str| text.parse().unwrap();
        Led {
            name: "ACT".into(),
            starting: pattern("timer delay_on=100 delay_off=200"),
            running: pattern("heartbeat"),
            safe: pattern("timer delay_on=1000 delay_off=1000"),
            stopping: pattern("default-on"),
        }
    }

    #[test]
    fn a_stage_is_its_trigger_and_then_the_settings() {
        let written = |stage| {
            let writes = led().writes(stage);
            let lines: Vec<String> =
                writes.iter().map(|(at, what)| format!("{at} {what}")).collect();
            lines.join(", ")
        };
        let starting = "ACT/trigger timer, ACT/delay_on 100, ACT/delay_off 200";
        assert_eq!(written(Stage::Starting), starting);
        assert_eq!(written(Stage::Running), "ACT/trigger heartbeat");
        let safe = "ACT/trigger timer, ACT/delay_on 1000, ACT/delay_off 1000";
        assert_eq!(written(Stage::Safe), safe);
        assert_eq!(written(Stage::Stopping), "ACT/trigger default-on");
    }

    #[test]
    fn a_trigger_is_in_a_module_of_its_name() {
        let led = led();
        let modules = [&led.safe, &led.stopping].map(Pattern::module);
        assert_eq!(modules, ["ledtrig_timer", "ledtrig_default_on"]);
    }

    #[test]
    fn names_of_the_kernel_are_good_and_ways_out_of_the_directory_are_not() {
        for name in ["ACT", "input3::capslock", "green:status-1", "mmc0::"] {
            assert_eq!(Led { name: name.into(), ..led() }.check(), Ok(()), "{name}");
        }
        for name in ["", "..", "a/b", "../ACT", "a b", "ACT\n", "\u{e4}", &"x".repeat(64)] {
            assert!(Led { name: name.into(), ..led() }.check().is_err(), "{name:?}");
        }
    }

    #[test]
    fn one_wrong_word_gives_one_exact_error() {
        for (running, expected) in [
            ("", "led ACT: the stage `running` is missing"),
            ("a/b", "led ACT: trigger `a/b` is not a name of letters, digits, `-`, `_` and `:`"),
            (
                "timer ../x=1",
                "led ACT: setting `../x` is not a name of letters, digits, `-`, `_` and `:`",
            ),
            ("timer delay_on=1.5", "led ACT: `delay_on=1.5` is not a value of letters and digits"),
            ("timer delay_on=", "led ACT: `delay_on=` is not a value of letters and digits"),
        ] {
            let error = Led { running: running.parse().unwrap(), ..led() }.check().unwrap_err();
            assert_eq!(error.to_string(), expected);
        }
    }
}
