//! The late stage: from the verified root to running services.

use std::fs;

use ondisk::boot_args::BootArgs;
use ondisk::system::{self, Led, Stage, System};
use rustix::process::{Resource, Rlimit, setrlimit};
use rustix::system::{RebootCommand, reboot, uname};

use crate::clock::Clock;
use crate::data::Care;
use crate::disk::RecordPlace;
use crate::early::{DATA_ARGUMENT, RECORD_ARGUMENT, WATCHDOG_ARGUMENT};
use crate::failure::{Context, Result};
use crate::led::StatusLed;
use crate::log::{self, note, say};
use crate::module_loader::{self, Loader};
use crate::plan::{self, Facts};
use crate::supervisor::Supervisor;
use crate::trial::Trial;
use crate::watchdog::Watchdog;
use crate::{linux, netlink, sys};

/// Open files: the soft limit is what old programs that use select() survive, the hard one is what
/// engines raise theirs to.
const OPEN_FILES: (u64, u64) = (1024, 524_288);

/// Runs the late stage until the machine goes down.
pub(crate) fn run(arguments: impl Iterator<Item = String>) -> ! {
    let arguments: Vec<String> = arguments.collect();
    // First of all: the number must not have been used again.
    let watchdog = value(&arguments, WATCHDOG_ARGUMENT);
    let mut watchdog = watchdog.and_then(|number| Watchdog::inherit(&number, log::now_ms()));
    log::open_console();
    log::keep_lines();
    say("late stage");
    let mut clock = Clock::start(&uname().version().to_string_lossy());
    let signals = sys::signals(crate::power::SIGNALS);
    let events = netlink::open_events();
    set_limits();
    let system = description();
    let record = record_place(value(&arguments, RECORD_ARGUMENT));
    let (mut trial, safe) = started_as(&system, record.clone());
    if let Some(trial) = &mut trial {
        trial.reached("root mounted");
    }
    let modules = Loader::open();
    let facts = Facts { filesystems: filesystems(), data_device: value(&arguments, DATA_ARGUMENT) };
    let plan = plan::late(&system, &facts);
    // The modules come in while the mounts are made; a mount that needs one waits for it alone.
    let work = module_loader::start(modules.clone(), plan::modules(&system, &facts));
    let mut care = Care { modules: &modules, watchdog: watchdog.as_mut(), record };
    let settings = linux::perform(plan, &mut |device| care.bring_up(device));
    clock.go_on(log::now_ms());
    say("system prepared");
    let engine = system.engine.map(|engine| engine.service);
    let mut services = system.services;
    if safe {
        say("safe mode: no engine; install a good system with `iota update install`");
        services.retain(|service| !service.skip_in_safe_mode);
    }
    let mut supervisor = Supervisor::new(services, engine, trial, watchdog);
    supervisor.keeps(clock);
    // Before the devices want the processors and the disk.
    supervisor.start_services();
    if let Some(led) = system.led.and_then(|led| status_led(led, safe, modules)) {
        supervisor.shown_by(led);
    }
    match work {
        Ok(work) => supervisor.modules_from(work, settings),
        Err(failure) => say(&failure.to_string()),
    }
    match events {
        Ok(events) => supervisor.events_from(events),
        Err(failure) => say(&failure.to_string()),
    }
    match signals {
        Ok(signals) => supervisor.signals_from(signals),
        Err(error) => say(&format!("signals: {error}")),
    }
    supervisor.run()
}

/// What shows the stage of this start; a start that nobody sees goes on all the same.
fn status_led(led: Led, safe: bool, modules: Loader) -> Option<StatusLed> {
    let stage = if safe { Stage::Safe } else { Stage::Starting };
    StatusLed::start(led, stage, modules).inspect_err(|failure| note(&failure.to_string())).ok()
}

/// A root whose description cannot be read still comes up, so that it can be seen and replaced.
fn description() -> System {
    read_description().unwrap_or_else(|failure| {
        say(&failure.to_string());
        System { hostname: "iota".to_owned(), ..System::default() }
    })
}

fn read_description() -> Result<System> {
    let text = fs::read_to_string(system::PATH).context(system::PATH)?;
    System::parse(&text).context(system::PATH)
}

fn set_limits() {
    let (current, maximum) = OPEN_FILES;
    let limit = Rlimit { current: Some(current), maximum: Some(maximum) };
    if let Err(error) = setrlimit(Resource::Nofile, limit) {
        say(&format!("limit of open files: {error}"));
    }
    // Three keys on a keyboard then end in an orderly shutdown instead of a reset.
    if let Err(error) = reboot(RebootCommand::CadOff) {
        say(&format!("ctrl-alt-del: {error}"));
    }
}

fn filesystems() -> Vec<String> {
    let text = fs::read_to_string("/proc/filesystems").unwrap_or_default();
    text.lines().filter_map(|line| line.split_whitespace().last()).map(str::to_owned).collect()
}

/// What the early stage passed on under this name.
fn value(arguments: &[String], name: &str) -> Option<String> {
    arguments.iter().find_map(|argument| argument.strip_prefix(name)).map(str::to_owned)
}

/// Where the record is, as the early stage passed it on.
fn record_place(text: Option<String>) -> Option<RecordPlace> {
    text?.parse::<RecordPlace>().inspect_err(|failure| say(&failure.to_string())).ok()
}

/// The trial that this start is, if it is one, and whether it is in safe mode.
fn started_as(system: &System, place: Option<RecordPlace>) -> (Option<Trial>, bool) {
    let line = fs::read_to_string("/proc/cmdline").unwrap_or_default();
    let args = match BootArgs::parse(&line) {
        Ok(args) => args,
        // The early stage read the same line; without a loader's words nothing is on trial.
        Err(error) => {
            say(&format!("kernel command line: {error}"));
            return (None, false);
        }
    };
    (Trial::of(&args, place, system.health.clone(), log::now_ms()), args.safe)
}
