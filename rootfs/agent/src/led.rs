//! The status LED as the agent shows it (`ondisk::system::Led`): everything runs.
//!
//! The other stages are PID 1's. The mark, which the status screen waits for as well, comes before
//! the LED: if the LED is not there yet, PID 1 shows this stage when it comes; and if PID 1 is just
//! showing an earlier stage, it finds the mark afterwards.

use std::fs::{self, OpenOptions};
use std::io::{self, Write as _};
use std::path::PathBuf;

use ondisk::system::{LEDS, Led, RUNNING_MARK, Stage};

/// What shows that everything runs.
pub struct StatusLed {
    led: Option<Led>,
    leds: PathBuf,
    running_mark: PathBuf,
}

impl StatusLed {
    /// The LED of this device, if its board has one.
    pub fn device(led: Option<Led>) -> Self {
        Self::within(led, LEDS.into(), RUNNING_MARK.into())
    }

    /// An LED below the directory `leds`, with the mark in the file `running_mark`.
    pub fn within(led: Option<Led>, leds: PathBuf, running_mark: PathBuf) -> Self {
        Self { led, leds, running_mark }
    }

    /// Shows that everything runs. An LED that is not there is fine.
    ///
    /// Errors: a file that cannot be written, named; worth a line and nothing else.
    pub fn show_running(&self) -> Result<(), String> {
        let failed = |path: &str| {
            let path = path.to_owned();
            move |error: io::Error| format!("LED {path}: {error}")
        };
        let mark = fs::write(&self.running_mark, "");
        mark.map_err(failed(&self.running_mark.display().to_string()))?;
        let Some(led) = &self.led else { return Ok(()) };
        if !self.leds.join(&led.name).exists() {
            return Ok(());
        }
        for (path, value) in led.writes(Stage::Running) {
            // Never made: what is not there is not a file of the LED.
            let file = OpenOptions::new().write(true).truncate(true).open(self.leds.join(&path));
            let written = file.and_then(|mut file| file.write_all(value.as_bytes()));
            written.map_err(failed(&path))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use ondisk::system::Pattern;

    use super::*;

    fn act() -> Led {
        let pattern = |text: &str| -> Pattern { text.parse().unwrap() };
        Led {
            name: "ACT".to_owned(),
            starting: pattern("timer"),
            running: pattern("heartbeat invert=1"),
            safe: pattern("none"),
            stopping: pattern("default-on"),
        }
    }

    /// An LED in a new directory; `files` are those of the LED that are there.
    fn sample(files: &[&str]) -> (tempfile::TempDir, StatusLed) {
        let directory = tempfile::tempdir().unwrap();
        for file in files {
            let path = directory.path().join(file);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, "before").unwrap();
        }
        let mark = directory.path().join("running");
        let led = StatusLed::within(Some(act()), directory.path().into(), mark);
        (directory, led)
    }

    #[test]
    fn an_led_shows_that_everything_runs_and_the_mark_says_so() {
        let (directory, led) = sample(&["ACT/trigger", "ACT/invert"]);
        led.show_running().unwrap();
        let read = |file: &str| fs::read_to_string(directory.path().join(file)).unwrap();
        assert_eq!((read("ACT/trigger"), read("ACT/invert")), ("heartbeat".into(), "1".into()));
        assert!(directory.path().join("running").exists());
    }

    #[test]
    fn an_led_that_is_not_there_yet_leaves_the_mark_for_pid_1() {
        let (directory, led) = sample(&[]);
        led.show_running().unwrap();
        assert!(directory.path().join("running").exists());
        assert!(!directory.path().join("ACT").exists());
    }

    #[test]
    fn a_file_that_is_not_there_is_named_and_not_made() {
        let (directory, led) = sample(&["ACT/trigger"]);
        let error = led.show_running().unwrap_err();
        assert!(error.starts_with("LED ACT/invert: No such file"), "{error}");
        assert!(!directory.path().join("ACT/invert").exists());
    }

    #[test]
    fn a_board_without_an_led_has_the_mark_alone() {
        let directory = tempfile::tempdir().unwrap();
        let mark = directory.path().join("running");
        StatusLed::within(None, directory.path().into(), mark.clone()).show_running().unwrap();
        assert!(mark.exists());
    }
}
