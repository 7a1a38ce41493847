//! The verbs that PID 1 starts as services, and the one that dhcpcd runs.

use std::fs::File;
use std::io::{self, BufReader, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::process::{Command, ExitCode};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use agent::apps;
use agent::apps::arrival::Arrivals;
use agent::apps::run::Runner;
use agent::apps::store::Places as AppPlaces;
use agent::console::Console;
use agent::crash;
use agent::data;
use agent::engine::rescue::{self, Store as EngineStore};
use agent::growth;
use agent::health::{self, Gate};
use agent::health_checks;
use agent::identity;
use agent::kept_log::{self, Collector, Store};
use agent::led::StatusLed;
use agent::mend_output::{self, Mended};
use agent::network::{self, Event, Files};
use agent::on_demand::Holder;
use agent::on_demand::compose::Projects;
use agent::online::{follow, session};
use agent::own_config::running::Running;
use agent::own_config::{self, Report};
use agent::own_disk::Devices;
use agent::podman;
use agent::reset;
use agent::screen;
use agent::services::{Pace, Services};
use agent::ssh;
use agent::status::Status;
use agent::time::now_s;
use agent::update::{self, Change, Facts, Lines};
use agent::watchdog::{self, Seen, Watch};
use agent::{sys, vlan, wifi, zram};
use ondisk::calendar::Day;
use ondisk::system::{RUNNING_MARK, System};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::OFlags;
use rustix::process::{Pid, Resource, Signal, getrlimit, setrlimit};

use crate::{app_states, open_engine, print, program, read_system, tell_pid_1, whole_status};

pub(crate) fn services(path: &str) -> Result<ExitCode, String> {
    let system = read_system(path)?;
    let Some(described) = &system.engine else {
        return Err(format!("{path} names no engine, so there is nothing to run"));
    };
    let Some(engine) = open_engine(&system) else {
        return Err(format!("this program does not know the API `{}`", described.api));
    };
    let console = Console::new(io::stdout());
    let led = StatusLed::device(system.led.clone());
    let machine = Running::device(program()?);
    let restart = || machine.end(&described.service);
    let (name, pace) = (&described.name, Pace::DEVICE);
    let services = Services::new(&*engine, name, &console, &led, pace, &restart);
    let places = AppPlaces::device(&described.socket);
    let say = |line: &str| console.say(line);
    let runner = Runner { engine: &*engine, places: &places, say: &say };
    match system.service(&described.service).map_or(Ok(false), |service| machine.renew(service)) {
        Ok(true) => say(&format!("engine {name}: starts anew with the owner's proxies and CAs")),
        Ok(false) => {}
        Err(error) => say(&format!("engine {name}: ERROR: perhaps without proxies: {error}")),
    }
    if engine.runs_on_demand() {
        health_checks::start(Path::new(&described.socket));
    }
    let for_store = system.clone();
    let look_after = if engine.runs_on_demand() { tell_of_rescue } else { rescue_store };
    thread::spawn(move || look_after(&for_store));
    let works = if engine.runs_apps() { runner.works()? } else { Vec::new() };
    Arrivals::device().tidy(SystemTime::now());
    services.run(&own_config::in_their_zone(&system.containers), &works)
}

/// Whether this system is neither on trial nor in safe mode.
fn is_proven() -> bool {
    Facts::default().boot().is_ok_and(|boot| boot.attempt == 0 && !boot.safe)
}

/// Says on the console if the store was put aside by [`podman`], whose lines are in the log alone.
fn tell_of_rescue(system: &System) {
    let (Some(store), Some(engine)) = (EngineStore::of(system), open_engine(system)) else {
        return;
    };
    let (console, before) = (Console::new(io::stdout()), store.put_aside_s());
    while engine.ping().is_err() {
        thread::sleep(rescue::PACE);
    }
    if store.put_aside_s() != before {
        console.say(&store.told("podman", Ok(())));
    }
    tidy(&store, &console);
}

/// Holds Podman's socket, and puts its store aside if it cannot open that.
pub(crate) fn podman(answers: bool, path: &str) -> Result<ExitCode, String> {
    let rescue = || {
        let system = read_system(path).ok()?;
        let store = EngineStore::of(&system).filter(|_| is_proven())?;
        Some(store.told("podman", store.put_aside(now_s())))
    };
    podman::run(answers, &podman::Places::default(), &rescue).map(|()| ExitCode::SUCCESS)
}

/// Until the engine answers for the first time, or has a new store.
fn rescue_store(system: &System) {
    let console = Console::new(io::stdout());
    let (Some(described), Some(engine)) = (&system.engine, open_engine(system)) else { return };
    let (Some(store), Ok(machine)) = (EngineStore::of(system), program().map(Running::device))
    else {
        return;
    };
    let above = system.service(&described.service).map_or(&[][..], |service| &service.after);
    let services: Vec<&String> = above.iter().chain([&described.service]).collect();
    let (start, mut seen) = (Instant::now(), rescue::Seen::default());
    while engine.ping().is_err() {
        for service in &services {
            seen.note(
                service,
                machine.main_process(service).map(Pid::as_raw_nonzero).map(i32::from),
            );
        }
        if seen.is_hopeless(start.elapsed()) && is_proven() {
            let end_all = || services.iter().try_for_each(|service| machine.end(service));
            // Whoever began while things were moved begins once more.
            let done = end_all().and_then(|()| store.put_aside(now_s())).and_then(|()| end_all());
            console.say(&store.told(&described.name, done));
            return;
        }
        thread::sleep(rescue::PACE);
    }
    tidy(&store, &console);
}

/// Removes what was put aside long ago.
fn tidy(store: &EngineStore, console: &Console) {
    match store.tidy(now_s()) {
        Ok(true) => console.say("what was put aside of the engine's store a week ago is removed"),
        Ok(false) => {}
        Err(error) => console.say(&format!("{}: {error}", store.aside_path())),
    }
}

/// Looks at the system until it has been fit for its window; PID 1 limits how long that may take.
pub(crate) fn health(path: &str) -> Result<ExitCode, String> {
    let facts = Facts::default();
    let boot = facts.boot()?;
    let system = read_system(path)?;
    let Some(declared) = system.health.as_ref().filter(|_| health::is_asked(&boot)) else {
        return Ok(ExitCode::SUCCESS);
    };
    let console = Console::new(io::stdout());
    let window_s = own_config::window_s(Report::read(Report::path()).ok().as_ref(), declared);
    let mut gate = Gate::new(Duration::from_secs(u64::from(window_s)));
    let engine = open_engine(&system);
    let start = Instant::now();
    loop {
        let slots = Err("not looked at".to_owned());
        let mut status = Status::collect(Ok(boot.clone()), slots, &system, engine.as_deref());
        status.apps = app_states(&system, engine.as_deref());
        gate.count(status.apps.iter().flatten().map(apps::state::AppState::restarts).sum());
        match gate.look(start.elapsed(), health::amiss(&status)) {
            health::Verdict::Fit => break,
            health::Verdict::Wait(news) => news.iter().for_each(|line| console.say(line)),
        }
        std::thread::sleep(health::PACE);
    }
    let outcome = update::run(&Change::Commit, &facts, &mut Lines::plain(&mut io::stderr()));
    console.say(&format!("trial: {}", outcome.text().trim_end()));
    // Somebody may have committed it by hand meanwhile.
    let fit = outcome.code() < 2 || !health::is_counted(&boot);
    Ok(ExitCode::from(u8::from(!fit)))
}

/// Holds the ports of services that run on demand. Without Compose there are no apps, and an engine
/// that nobody knows runs none.
pub(crate) fn on_demand(path: &str) -> Result<ExitCode, String> {
    let system = read_system(path)?;
    let (Some(described), Some(engine)) = (&system.engine, open_engine(&system)) else {
        return Ok(ExitCode::SUCCESS);
    };
    let places = AppPlaces::device(&described.socket);
    if !places.compose.exists() {
        return Ok(ExitCode::SUCCESS);
    }
    // A line for each start of a container: PID 1 keeps it for `iota logs on-demand`.
    let say = |line: &str| drop(writeln!(io::stdout(), "{line}"));
    let failed = |error: io::Error| format!("ports of services on demand: {error}");
    // Two descriptors for each connection: more than the usual 1024 with several services.
    let mut files = getrlimit(Resource::Nofile);
    files.current = files.maximum;
    setrlimit(Resource::Nofile, files).map_err(|error| failed(error.into()))?;
    let containers = Arc::new(Projects { engine });
    let mut holder = Holder::new(&places.on_demand, containers, &say).map_err(failed)?;
    loop {
        holder.turn().map_err(failed)?;
    }
}

/// Says what became of the data partition; nothing if it was as large as it can be.
pub(crate) fn grow() -> Result<ExitCode, String> {
    let console = Console::new(io::stdout());
    for line in growth::grow(&Devices::default(), &Facts::default().boot()?)? {
        console.say(&line);
    }
    Ok(ExitCode::SUCCESS)
}

/// A request for a reset on the boot partition is done by the next start, which is now.
pub(crate) fn obey_marker() -> Result<ExitCode, String> {
    let console = Console::new(io::stdout());
    match reset::obey_marker(&Facts::default()) {
        Ok(None) => {}
        Ok(Some(reset)) => {
            let word = reset::word(reset);
            console.say(&format!("reset: asked for on the boot partition ({word}); restarting"));
            return tell_pid_1(Signal::HUP);
        }
        Err(error) => console.say(&format!("reset: ERROR: {error}")),
    }
    let wanted = Report::read(Report::path()).is_ok_and(|it| it.config.reset_by_power_cycles());
    match reset::obey_power_cycles(&Facts::default(), wanted, &|line| console.say(line)) {
        Ok(true) => tell_pid_1(Signal::HUP),
        Ok(false) => Ok(ExitCode::SUCCESS),
        Err(error) => Err(format!("reset: starts are not counted: {error}")),
    }
}

pub(crate) fn machine_id() -> Result<ExitCode, String> {
    let console = Console::new(io::stdout());
    identity::machine_id(&identity::Places::default(), &|line| console.say(line))
        .map(|()| ExitCode::SUCCESS)
}

pub(crate) fn follow_updates() -> Result<ExitCode, String> {
    let console = Console::new(io::stdout());
    let mut world = follow::Children { console: &console, program: program()? };
    follow::follow(&session::Places::default(), &mut world).map(|()| ExitCode::SUCCESS)
}

/// Without a report there are no keys either: nobody is let in by accident.
pub(crate) fn ssh_server() -> Result<ExitCode, String> {
    let report = Report::read(Report::path())?;
    let console = Console::new(io::stdout());
    let say = |line: &str| console.say(line);
    ssh::serve(&ssh::Places::default(), &report.config, &say).map(|()| ExitCode::SUCCESS)
}

pub(crate) fn wifi() -> Result<ExitCode, String> {
    let report = Report::read(Report::path())?;
    wifi::serve(&wifi::Places::default(), &report.config).map(|()| ExitCode::SUCCESS)
}

pub(crate) fn network_hook() -> Result<ExitCode, String> {
    let event = Event::read(&|name| std::env::var(name).ok())?;
    // Without a report, as in the first moments of a start, what the network offers is used.
    let config = Report::read(Report::path()).map(|report| report.config).unwrap_or_default();
    let event = event.with_name_servers(config.name_servers());
    let said = event
        .apply(Files::device())
        .map_err(|error| format!("cannot keep the network's state in /run: {error}"))?;
    // An interface has come: so do those on its cable.
    let made = event.arrival().map(|interface| {
        vlan::settle(interface, config.vlans(), vlan::Places::device(), &vlan::Device)
    });
    let lines = said.into_iter().chain(made.into_iter().flatten());
    print(&lines.map(|line| line + "\n").collect::<String>())
}

/// Without a report the default holds.
pub(crate) fn zram() -> Result<ExitCode, String> {
    let config = Report::read(Report::path()).map(|report| report.config).unwrap_or_default();
    let told = rustix::system::sysinfo();
    let memory = told.totalram.saturating_mul(told.mem_unit.into());
    let done = zram::start(&zram::Places::default(), config.zram_percent(), memory, zram::swap_on)?;
    if let Some(bytes) = done {
        let line = format!("memory: {} MiB may be compressed when it is short", bytes >> 20);
        Console::new(io::stdout()).say(&line);
    }
    Ok(ExitCode::SUCCESS)
}

/// Without a report of PID 1's nobody knows, and files are looked at.
pub(crate) fn mend_output() -> Result<ExitCode, String> {
    if data::report().map_or(true, |report| mend_output::is_needed(&report.outcome)) {
        let console = Console::new(io::stdout());
        mend_output::mend_all(Path::new("/var/lib"), &mut |done| match done {
            Ok(Mended { path, lost }) => console.say(&format!(
                "{}: the power cut took the last of a container's output; {lost} bytes are cut out",
                path.display()
            )),
            Err(error) => console.say(&format!("a container's output is left as it is: {error}")),
        });
    }
    Ok(ExitCode::SUCCESS)
}

/// Until PID 1 ends it, which is when the last lines are written.
pub(crate) fn keep_logs() -> Result<ExitCode, String> {
    let config = Report::read(Report::path()).map(|report| report.config).unwrap_or_default();
    if !config.keeps_logs() {
        return Ok(ExitCode::SUCCESS);
    }
    let failed = |error: io::Error| format!("{}: {error}", Store::PLACE);
    let signals = sys::signals(&[Signal::TERM]).map_err(failed)?;
    let store = Store::new(Path::new(Store::PLACE), config.most_log_bytes());
    let (mut sources, begun) = (kept_log::Device::new(), Instant::now());
    let mut collector = Collector::new(heading("start", &Facts::default()), 0);
    let (mut pace, mut told) = (kept_log::FIRST, None);
    loop {
        let time = Timespec::try_from(pace).unwrap_or_default();
        // Nothing to be polled but the signal: a poll that fails is a wait that was too short.
        let _ = poll(&mut [PollFd::new(&signals, PollFlags::IN)], Some(&time));
        let is_last = !sys::take_signals(&signals).is_empty();
        let lines = collector.collect(&mut sources, begun.elapsed().as_secs());
        let trouble = lines.and_then(|lines| store.add(&lines)).map_err(failed).err();
        if trouble.is_some() && trouble != told {
            let line = format!("the log is not kept: ERROR: {}", trouble.as_deref().unwrap_or(""));
            Console::new(io::stdout()).say(&line);
        }
        told = trouble;
        if is_last {
            return Ok(ExitCode::SUCCESS);
        }
        pace = kept_log::PACE;
    }
}

/// What the kernel said last in the start before goes where it can be read.
pub(crate) fn keep_crashes() -> Result<ExitCode, String> {
    let places = crash::Places::default();
    let failed = |error: io::Error| format!("{}: {error}", places.records.display());
    crash::prepare(&places).map_err(failed)?;
    let heading = heading("found", &Facts::default());
    let kept = crash::keep(&places, &heading)
        .map_err(|error| format!("crashes of the kernel are not kept: {error}"))?;
    if let Some(cause) = kept {
        let line =
            format!("the kernel crashed before this start: {cause}; see `iota logs crashes`");
        Console::new(io::stdout()).say(&line);
    }
    Ok(ExitCode::SUCCESS)
}

/// Until something has been lacking for too long. An engine that runs on demand is not kept awake,
/// and one that the system does not have is not missed.
pub(crate) fn watchdog(path: &str) -> Result<ExitCode, String> {
    let limits = Report::read(Report::path())?.config.watchdog();
    let start = Instant::now();
    let Some(mut watch) = Watch::new(limits, start.elapsed()) else {
        return Ok(ExitCode::SUCCESS);
    };
    let system = read_system(path)?;
    let engine = open_engine(&system).filter(|engine| !engine.runs_on_demand());
    loop {
        thread::sleep(watchdog::PACE);
        let seen = Seen {
            engine: engine.as_ref().is_none_or(|engine| engine.ping().is_ok()),
            network: network::has_address(&network::summaries(Files::device().state)),
        };
        if let Some(reason) = watch.look(start.elapsed(), seen) {
            Console::new(io::stdout()).say(&format!("watchdog: {reason}; restarting"));
            return tell_pid_1(Signal::HUP);
        }
    }
}

/// By the clock as it is then, which may be wrong.
fn heading(what: &str, facts: &Facts) -> String {
    let now = now_s();
    let (hour, minute) = (now / 3600 % 24, now / 60 % 60);
    let boot = facts.boot();
    let system = boot.map(|boot| format!("{} in slot {}", boot.version, boot.slot.letter()));
    let system = system.unwrap_or_else(|error| error);
    format!("{what} {} {hour:02}:{minute:02} UTC, {system}", Day(now))
}

/// A machine without a console has no screen either.
pub(crate) fn screen(path: &str) -> Result<ExitCode, String> {
    const CONSOLE: &str = "/dev/console";
    let system = read_system(path)?;
    let open = || {
        let mut options = File::options();
        let own = i32::try_from(OFlags::NOCTTY.bits()).unwrap_or(0);
        options.read(true).write(true).custom_flags(own).open(CONSOLE)
    };
    let (Ok(keys), Ok(mut screen)) = (open(), open()) else { return Ok(ExitCode::SUCCESS) };
    let show = || screen::text(&whole_status(&system, &Facts::default()));
    let shell = || {
        let may = Report::read(Report::path()).is_ok_and(|it| it.config.serial_shell());
        may.then(|| open_shell(open()?, open()?, open()?))
    };
    let failed = |error: io::Error| format!("{CONSOLE}: {error}");
    thread::scope(|scope| {
        scope.spawn(|| {
            while !Path::new(RUNNING_MARK).exists() {
                thread::sleep(Duration::from_secs(1));
            }
            // A console that fails is nobody's loss.
            let _ = open().and_then(|mut screen| screen.write_all(show().as_bytes()));
        });
        screen::serve(BufReader::new(keys), &mut screen, show, shell).map_err(failed)
    })?;
    Ok(ExitCode::SUCCESS)
}

/// Until whoever sits there leaves it.
fn open_shell(input: File, output: File, errors: File) -> io::Result<()> {
    let mut command = Command::new("/usr/lib/iota/shell");
    command.env("TERM", "vt100").stdin(input).stdout(output).stderr(errors);
    command.status().map(drop)
}
