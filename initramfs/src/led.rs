//! The status LED as PID 1 shows it (`ondisk::system::Led`): the start, safe mode, the way down.
//!
//! A thread of its own writes: a driver may hold a write up while it registers its LED, and PID 1
//! waits for nobody. The driver may also come long after the first stage was reached, so its
//! arrival makes the thread show the stage of that moment. An LED that is not there, a trigger that
//! the kernel lacks, a write that fails: noted once, and nothing follows from it.

use std::fs::OpenOptions;
use std::io::Write;
use std::path::PathBuf;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;

use ondisk::system::{LEDS, Led, RUNNING_MARK, Stage};

use crate::failure::{Context, Result};
use crate::log::note;
use crate::module_loader::Loader;
use crate::uevent::Uevent;

/// The way to the thread that shows stages.
pub(crate) struct StatusLed {
    name: String,
    thread: Sender<Ask>,
}

/// What the thread is asked to do.
enum Ask {
    /// Show the stage again: the LED has just come.
    Again,
    /// Show that the machine goes down.
    Stopping,
}

impl StatusLed {
    /// Starts the thread, which shows `stage` at once if the LED is there.
    pub(crate) fn start(led: Led, stage: Stage, modules: Loader) -> Result<Self> {
        let name = led.name.clone();
        let load = move |module: &str| {
            // What is built in or another driver's answers to no such name.
            modules.load(module);
        };
        let (thread, asked) = channel();
        let light =
            Light { led, stage, leds: LEDS.into(), running_mark: RUNNING_MARK.into(), load };
        thread::Builder::new()
            .name("led".into())
            .spawn(move || light.serve(&asked))
            .context("LED thread")?;
        Ok(Self { name, thread })
    }

    /// A device has come: perhaps the LED.
    pub(crate) fn device_added(&self, event: &Uevent<'_>) {
        if event.subsystem == "leds" && event.name == self.name {
            self.show_again();
        }
    }

    /// Shows the stage again, whether the LED has come or not.
    pub(crate) fn show_again(&self) {
        self.ask(Ask::Again);
    }

    /// Shows that the machine goes down.
    pub(crate) fn stopping(&self) {
        self.ask(Ask::Stopping);
    }

    fn ask(&self, ask: Ask) {
        // A thread that is gone leaves the LED as it is.
        let _ = self.thread.send(ask);
    }
}

/// The LED and the stage that PID 1 has reached.
struct Light<Load> {
    led: Led,
    stage: Stage,
    /// Where LEDs are.
    leds: PathBuf,
    /// What the agent leaves when everything runs.
    running_mark: PathBuf,
    /// Loads a module, or does not.
    load: Load,
}

impl<Load: Fn(&str)> Light<Load> {
    fn serve(mut self, asked: &Receiver<Ask>) {
        let mut failed = false;
        loop {
            match self.show() {
                None => {}
                Some(Ok(stage)) => note(&format!("LED {} shows {}", self.led.name, stage.name())),
                Some(Err(failure)) if !failed => {
                    note(&format!("LED {failure}"));
                    failed = true;
                }
                Some(Err(_)) => {}
            }
            match asked.recv() {
                Ok(Ask::Again) => {}
                Ok(Ask::Stopping) => self.stage = Stage::Stopping,
                Err(_) => return,
            }
        }
    }

    /// Shows the stage and tells which; `None` if the LED is not there.
    fn show(&self) -> Option<Result<Stage>> {
        if !self.leds.join(&self.led.name).exists() {
            return None;
        }
        // Those of all stages, also for the agent. The kernel loads none when a trigger is written.
        for stage in Stage::ALL {
            (self.load)(&self.led.pattern(stage).module());
        }
        loop {
            let stage = self.reached();
            let written = self.write(stage);
            // The agent may have gone on meanwhile, and its writes come first then.
            if self.reached() == stage {
                return Some(written.map(|()| stage));
            }
        }
    }

    fn reached(&self) -> Stage {
        match self.stage {
            Stage::Starting if self.running_mark.exists() => Stage::Running,
            stage => stage,
        }
    }

    fn write(&self, stage: Stage) -> Result<()> {
        for (path, value) in self.led.writes(stage) {
            // Never made: what is not there is not a file of the LED.
            let file = OpenOptions::new().write(true).truncate(true).open(self.leds.join(&path));
            file.and_then(|mut file| file.write_all(value.as_bytes())).context(path)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;
    use std::fs;

    use super::*;

    /// A directory with an LED, a light over it, and what it loaded.
    struct Sample {
        directory: PathBuf,
        loaded: RefCell<Vec<String>>,
    }

    impl Sample {
        fn new(name: &str) -> Self {
            let directory =
                std::env::temp_dir().join(format!("iota-led-{name}-{}", std::process::id()));
            fs::create_dir_all(directory.join("leds")).unwrap();
            Self { directory, loaded: RefCell::default() }
        }

        /// The LED's driver comes, with the files of the trigger `timer`.
        fn add_led(&self) {
            fs::create_dir(self.directory.join("leds/ACT")).unwrap();
            for file in ["trigger", "delay_on", "delay_off"] {
                fs::write(self.directory.join("leds/ACT").join(file), "before").unwrap();
            }
        }

        fn light(&self, stage: Stage) -> Light<impl Fn(&str)> {
            let system = "iota-system 1\nhostname x\nled ACT\n  \
                starting timer delay_on=100 delay_off=200\n  running heartbeat\n  \
                safe timer delay_on=1000 delay_off=1000\n  stopping default-on\n";
            Light {
                led: ondisk::system::System::parse(system).unwrap().led.unwrap(),
                stage,
                leds: self.directory.join("leds"),
                running_mark: self.directory.join("running"),
                load: |module: &str| self.loaded.borrow_mut().push(module.to_owned()),
            }
        }

        fn read(&self, file: &str) -> String {
            fs::read_to_string(self.directory.join("leds/ACT").join(file)).unwrap()
        }
    }

    impl Drop for Sample {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.directory);
        }
    }

    #[test]
    fn an_led_that_comes_late_shows_the_start() {
        let sample = Sample::new("late");
        let light = sample.light(Stage::Starting);
        assert_eq!(light.show(), None, "not there yet");
        assert!(sample.loaded.borrow().is_empty(), "no module for an LED that is not there");
        sample.add_led();
        assert_eq!(light.show(), Some(Ok(Stage::Starting)));
        let files = ["trigger", "delay_on", "delay_off"].map(|file| sample.read(file));
        assert_eq!(files, ["timer", "100", "200"]);
        let modules = ["ledtrig_timer", "ledtrig_heartbeat", "ledtrig_timer", "ledtrig_default_on"];
        assert_eq!(*sample.loaded.borrow(), modules);
    }

    #[test]
    fn an_led_that_comes_after_the_system_is_ready_shows_that_it_runs() {
        let sample = Sample::new("ready");
        sample.add_led();
        fs::write(sample.directory.join("running"), "").unwrap();
        assert_eq!(sample.light(Stage::Starting).show(), Some(Ok(Stage::Running)));
        assert_eq!(sample.read("trigger"), "heartbeat");
    }

    #[test]
    fn the_way_down_is_shown_whatever_ran_before() {
        let sample = Sample::new("down");
        sample.add_led();
        fs::write(sample.directory.join("running"), "").unwrap();
        assert_eq!(sample.light(Stage::Stopping).show(), Some(Ok(Stage::Stopping)));
        assert_eq!(sample.read("trigger"), "default-on");
    }

    #[test]
    fn the_thread_goes_from_stage_to_stage_and_ends_with_its_supervisor() {
        let sample = Sample::new("thread");
        sample.add_led();
        let (thread, asked) = channel();
        thread.send(Ask::Again).unwrap();
        thread.send(Ask::Stopping).unwrap();
        drop(thread);
        sample.light(Stage::Safe).serve(&asked);
        assert_eq!(sample.read("trigger"), "default-on");
        assert_eq!(sample.read("delay_on"), "1000", "safe mode was shown before");
    }

    #[test]
    fn a_trigger_without_its_files_fails_and_makes_none() {
        let sample = Sample::new("bare");
        sample.add_led();
        fs::remove_file(sample.directory.join("leds/ACT/delay_off")).unwrap();
        let failure = sample.light(Stage::Safe).show().unwrap().unwrap_err();
        assert!(failure.to_string().starts_with("ACT/delay_off: No such file"), "{failure}");
        assert!(!sample.directory.join("leds/ACT/delay_off").exists());
    }

    #[test]
    fn only_the_arrival_of_this_led_asks_for_its_stage_again() {
        let (thread, asked) = channel();
        let led = StatusLed { name: "ACT".to_owned(), thread };
        for (subsystem, name, expected) in
            [("leds", "ACT", true), ("leds", "PWR", false), ("input", "ACT", false)]
        {
            led.device_added(&Uevent { action: "add", subsystem, name, ..Uevent::default() });
            assert_eq!(asked.try_recv().is_ok(), expected, "{subsystem} {name}");
        }
        drop(asked);
        led.stopping(); // the thread is gone, and nothing follows from it
    }
}
