//! The device's own `iota` command: parse, do, exit code.

use std::fs;
use std::io::{self, Write as _};
use std::path::Path;
use std::process::{Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use agent::args::{Args, HELP, Verb};
use agent::console::Console;
use agent::engine::{self, Engine};
use agent::health::{self, Gate};
use agent::network::{Event, Files};
use agent::services::{Pace, Services};
use agent::slots::Slots;
use agent::status::Status;
use agent::update::{self, Change, Facts};
use ondisk::system::System;
use rustix::process::{Pid, Signal};

fn main() -> ExitCode {
    let arguments: Vec<String> =
        std::env::args_os().map(|argument| argument.to_string_lossy().into_owned()).collect();
    let result = Args::parse(&arguments)
        .map_err(|error| format!("{error}\nhint: `iota --help` lists the commands"))
        .and_then(|args| run(&args));
    result.unwrap_or_else(|error| {
        let _ = writeln!(io::stderr(), "error: {error}");
        ExitCode::from(2)
    })
}

fn run(args: &Args) -> Result<ExitCode, String> {
    match args.verb {
        Verb::Help => print(HELP),
        Verb::Version => print(concat!("iota ", env!("CARGO_PKG_VERSION"), "\n")),
        Verb::Status { json } => status(&args.system, json),
        Verb::Change { ref change, json } => change_system(change, json),
        Verb::Services => services(&args.system),
        Verb::Health => health(&args.system),
        Verb::Reboot { now: true } => tell_pid_1(Signal::HUP),
        Verb::PowerOff { now: true } => tell_pid_1(Signal::TERM),
        Verb::Reboot { now: false } => soon("reboot"),
        Verb::PowerOff { now: false } => soon("poweroff"),
        Verb::NetworkHook => network_hook(),
        Verb::CommandPort => agent::port::serve().map(|()| ExitCode::SUCCESS),
    }
}

fn status(system: &str, json: bool) -> Result<ExitCode, String> {
    let system = read_system(system)?;
    let facts = Facts::default();
    let engine = open_engine(&system);
    let status = Status::collect(facts.boot(), Slots::find(&facts), &system, engine.as_deref());
    print(&if json { status.json() } else { status.text() })?;
    Ok(ExitCode::from(u8::from(!status.is_well())))
}

fn change_system(change: &Change, json: bool) -> Result<ExitCode, String> {
    let outcome = update::run(change, &Facts::default(), &mut io::stderr());
    if json {
        print(&outcome.json())?;
    } else if outcome.code() == 2 {
        let _ = io::stderr().write_all(outcome.text().as_bytes());
    } else {
        print(&outcome.text())?;
    }
    Ok(ExitCode::from(outcome.code()))
}

fn services(path: &str) -> Result<ExitCode, String> {
    let system = read_system(path)?;
    let Some(described) = &system.engine else {
        return Err(format!("{path} names no engine, so there is nothing to run"));
    };
    let Some(engine) = open_engine(&system) else {
        return Err(format!("this program does not know the API `{}`", described.api));
    };
    let console = Console::new(io::stdout());
    Services::new(&*engine, &described.name, &console, Pace::DEVICE).run(&system.containers)
}

/// Looks at the system until it has been fit for its window; PID 1 limits how long that may take.
fn health(path: &str) -> Result<ExitCode, String> {
    let facts = Facts::default();
    let boot = facts.boot()?;
    let system = read_system(path)?;
    let Some(declared) = system.health.as_ref().filter(|_| health::is_asked(&boot)) else {
        return Ok(ExitCode::SUCCESS);
    };
    let console = Console::new(io::stdout());
    let mut gate = Gate::new(Duration::from_secs(u64::from(declared.window_s)));
    let engine = open_engine(&system);
    let start = Instant::now();
    loop {
        let slots = Err("not looked at".to_owned());
        let status = Status::collect(Ok(boot.clone()), slots, &system, engine.as_deref());
        match gate.look(start.elapsed(), health::amiss(&status)) {
            health::Verdict::Fit => break,
            health::Verdict::Wait(news) => news.iter().for_each(|line| console.say(line)),
        }
        std::thread::sleep(health::PACE);
    }
    let outcome = update::run(&Change::Commit, &facts, &mut io::stderr());
    console.say(&format!("trial: {}", outcome.text().trim_end()));
    // Somebody may have committed it by hand meanwhile.
    let fit = outcome.code() < 2 || !health::is_counted(&boot);
    Ok(ExitCode::from(u8::from(!fit)))
}

/// Goes down in a moment: whoever asked through a connection that goes down too shall hear first
/// that it was done.
fn soon(verb: &str) -> Result<ExitCode, String> {
    let failed = |error: io::Error| format!("cannot start `iota {verb} --now`: {error}");
    let program = std::env::current_exe().map_err(failed)?;
    let mut command = Command::new(program);
    command.args([verb, "--now"]);
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    command.spawn().map(|_| ExitCode::SUCCESS).map_err(failed)
}

/// How long `--now` leaves the one who asked to hear the answer.
const A_MOMENT: Duration = Duration::from_millis(500);

/// PID 1 goes down in order on these signals; what it does is on the console.
fn tell_pid_1(signal: Signal) -> Result<ExitCode, String> {
    std::thread::sleep(A_MOMENT);
    rustix::process::kill_process(Pid::INIT, signal)
        .map(|()| ExitCode::SUCCESS)
        .map_err(|error| format!("cannot signal PID 1: {error}\nhint: this needs root"))
}

fn network_hook() -> Result<ExitCode, String> {
    let event = Event::read(&|name| std::env::var(name).ok())?;
    let said = event
        .apply(Files::device())
        .map_err(|error| format!("cannot keep the network's state in /run: {error}"))?;
    match said {
        Some(line) => print(&format!("{line}\n")),
        None => Ok(ExitCode::SUCCESS),
    }
}

fn read_system(path: &str) -> Result<System, String> {
    let text = fs::read_to_string(path).map_err(|error| format!("cannot read {path}: {error}"))?;
    System::parse(&text).map_err(|error| format!("{path}: {error}"))
}

fn open_engine(system: &System) -> Option<Box<dyn Engine>> {
    let engine = system.engine.as_ref()?;
    engine::open(&engine.api, Path::new(&engine.socket))
}

/// A reader that went away is no failure of ours.
fn print(text: &str) -> Result<ExitCode, String> {
    match io::stdout().write_all(text.as_bytes()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            Err(format!("cannot write: {error}"))
        }
        _ => Ok(ExitCode::SUCCESS),
    }
}
