//! The device's own `iota` command: parse, do, exit code.

use std::fs;
use std::io::{self, ErrorKind::NotFound, Read as _, Write as _};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use agent::apps;
use agent::apps::run::Runner;
use agent::apps::store::Places as AppPlaces;
use agent::apps::verbs::AppVerb;
use agent::args::{Args, ConfigVerb, HELP, Verb};
use agent::console::Console;
use agent::data::Data;
use agent::engine::{self, Engine};
use agent::growth;
use agent::health::{self, Gate};
use agent::health_checks;
use agent::identity;
use agent::led::StatusLed;
use agent::logs;
use agent::memory::Memory;
use agent::network::{Event, Files};
use agent::online::{self, follow, session};
use agent::own_config::change::{self, Changer, Wish};
use agent::own_config::disks::read_whole;
use agent::own_config::running::Running;
use agent::own_config::{self, Places, Report, get, parts};
use agent::own_disk::Devices;
use agent::podman;
use agent::reset;
use agent::services::{Pace, Services};
use agent::shell::{Session, console, pipe};
use agent::slots::Slots;
use agent::ssh;
use agent::status::Status;
use agent::update::{self, Change, Facts, Lines, Outcome};
use agent::wifi;
use config::problem::document;
use config::values::Key;
use config::{Problems, READ_BYTES, check};
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
        Verb::Status { json, memory } => status(&args.system, json, memory),
        Verb::Logs { ref unit, follow } => {
            let out = &mut io::stdout().lock();
            logs::print(unit.as_deref(), follow, out).map(|()| ExitCode::SUCCESS)
        }
        Verb::Change { ref change, json } => {
            let (mut out, facts) = (io::stderr(), Facts::default());
            tell(&update::run(change, &facts, &mut Lines::new(&mut out, json)), json)
        }
        Verb::CheckUpdate { json } => tell(&session::check(&Facts::default()), json),
        Verb::ReportUpdate { json } => tell(&online::tell::report(&Facts::default()), json),
        Verb::FollowUpdates => follow_updates(),
        Verb::Reset { request, json } => tell(&reset::run(request, &Facts::default()), json),
        Verb::Config(ref verb) => config(verb, &args.system),
        Verb::App(ref verb) => app(verb, &args.system),
        Verb::Services => services(&args.system),
        Verb::Health => health(&args.system),
        Verb::Grow => grow(),
        Verb::Reboot { now: true } => tell_pid_1(Signal::HUP),
        Verb::PowerOff { now: true } => tell_pid_1(Signal::TERM),
        Verb::Reboot { now: false } => soon("reboot"),
        Verb::PowerOff { now: false } => soon("poweroff"),
        Verb::Identity => machine_id(),
        Verb::ObeyMarker => obey_marker(),
        Verb::SshServer => ssh_server(),
        Verb::Wifi => wifi(),
        Verb::Shell(ref session) => shell(session, &args.system),
        Verb::Podman { answer } => {
            podman::run(answer, &podman::Places::default()).map(|()| ExitCode::SUCCESS)
        }
        Verb::NetworkHook => network_hook(),
        Verb::CommandPort => agent::port::serve().map(|()| ExitCode::SUCCESS),
    }
}

fn status(system: &str, json: bool, memory: bool) -> Result<ExitCode, String> {
    let system = read_system(system)?;
    // First: to ask an engine that runs on demand changes who holds the memory.
    let held = Memory::read();
    let facts = Facts::default();
    let engine = open_engine(&system);
    let mut status = Status::collect(facts.boot(), Slots::find(&facts), &system, engine.as_deref());
    status.config = Report::read(Report::path());
    status.apps = app_states(&system, engine.as_deref());
    status.data = Data::read(&facts);
    status.update = online::report::Report::read(&facts.online.report);
    status.confirm_left_s = with_changer(&system, |changer| Ok(changer.left_s()))?;
    let mut text = if json { status.json(&held) } else { status.text() };
    if memory && !json {
        text.push_str(&held?.text());
    }
    print(&text)?;
    Ok(ExitCode::from(u8::from(!status.is_well())))
}

fn tell(outcome: &Outcome, json: bool) -> Result<ExitCode, String> {
    if json {
        print(&outcome.json())?;
    } else if outcome.code() == 2 {
        let _ = io::stderr().write_all(outcome.text().as_bytes());
    } else {
        print(&outcome.text())?;
    }
    Ok(ExitCode::from(outcome.code()))
}

fn config(verb: &ConfigVerb, system: &str) -> Result<ExitCode, String> {
    match verb {
        ConfigVerb::Show { json, secrets } => {
            let (report, system) = (Report::read(Report::path())?, read_system(system)?);
            let report = if *secrets { report } else { report.concealed() };
            match json {
                true => print(&format!("{}\n", report.show_json(&system))),
                false => print(&report.show(&system)),
            }
        }
        ConfigVerb::Get { key, json, secrets } => {
            get_config(key.as_deref(), *json, *secrets, &read_system(system)?)
        }
        ConfigVerb::Check { file, json } => check_config(file, *json),
        ConfigVerb::Load => load_config(&read_system(system)?),
        ConfigVerb::Part(part) => part.run(&Facts::default()),
        ConfigVerb::Set { .. } | ConfigVerb::Apply { .. } | ConfigVerb::Confirm { .. } => {
            with_changer(&read_system(system)?, |changer| change_config(verb, changer))
        }
        ConfigVerb::AwaitConfirm => with_changer(&read_system(system)?, await_confirm),
    }
}

fn get_config(
    key: Option<&str>,
    json: bool,
    secrets: bool,
    system: &System,
) -> Result<ExitCode, String> {
    let (places, report) = (Places::default(), Report::read(Report::path())?);
    let Some(path) = key else {
        let all = get::all(&places, &report, system, secrets);
        return match json {
            true => print(&format!("{}\n", get::document(&all))),
            false => print(&get::lines(&all)),
        };
    };
    let key = match Key::parse(path) {
        Ok(key) => key,
        Err(problems) => return refuse("iota config get", &problems, json),
    };
    let values = get::values(&key, &places, &report, system);
    let values = get::shown(&key, values, secrets);
    let nothing = values.is_empty();
    if json {
        print(&format!("{}\n", get::document(&[(key.path(), values)])))?;
    } else if nothing {
        let _ = writeln!(io::stderr(), "{path} is not set: {}", key.default());
    } else {
        print(&format!("{}\n", values.join("\n")))?;
    }
    Ok(ExitCode::from(u8::from(nothing)))
}

/// All that is wrong, as `iota config check` says it.
fn refuse(file: &str, problems: &Problems, json: bool) -> Result<ExitCode, String> {
    if json {
        print(&format!("{}\n", document(file, Some(problems))))?;
    } else {
        let lines: String = problems.iter().map(|problem| problem.render(file)).collect();
        let _ = io::stderr().write_all(lines.as_bytes());
    }
    Ok(ExitCode::from(2))
}

/// Whatever changes the configuration of a device that runs.
fn with_changer<T>(
    system: &System,
    work: impl FnOnce(&Changer<'_>) -> Result<T, String>,
) -> Result<T, String> {
    let program = program()?;
    let places = Places::default();
    let parts = parts::Processes::new(program.clone(), parts::LIMIT);
    let machine = Running::device(program);
    let run = Facts::default().run;
    work(&Changer { places: &places, run, system, parts: &parts, machine: &machine })
}

fn change_config(verb: &ConfigVerb, changer: &Changer<'_>) -> Result<ExitCode, String> {
    let (wish, within_s, json) = match verb {
        ConfigVerb::Set { key, values, within_s, json } => match Key::parse(key) {
            Ok(key) => (Wish::Set(key, values.clone()), *within_s, *json),
            Err(problems) => return refuse("iota config set", &problems, *json),
        },
        ConfigVerb::Apply { file, within_s, json } => {
            (Wish::Apply(file.clone(), read_config(file)?), *within_s, *json)
        }
        ConfigVerb::Confirm { json } => return tell(&changer.confirm(), *json),
        _ => return Err("no change of the configuration".to_owned()),
    };
    match changer.change(&wish, within_s) {
        Ok(outcome) => tell(&outcome, json),
        Err(refused) => refuse(&refused.file, &refused.problems, json),
    }
}

/// Until what is on trial is confirmed or reverted. Nobody hears this process but the console.
fn await_confirm(changer: &Changer<'_>) -> Result<ExitCode, String> {
    change::stand_alone(&Facts::default().groups);
    let console = fs::File::options().write(true).open("/dev/console").map(Console::new);
    let say = |line: &str| console.iter().for_each(|console| console.say(line));
    while changer.watch(&say) {
        std::thread::sleep(Duration::from_secs(1));
    }
    Ok(ExitCode::SUCCESS)
}

/// The bytes of a file or of standard input, no more than shows that it is too long.
fn read_config(file: &str) -> Result<Vec<u8>, String> {
    let failed = |error: io::Error| format!("cannot read {file}: {error}");
    if file == "-" {
        let mut bytes = Vec::new();
        let most = u64::try_from(READ_BYTES).unwrap_or(u64::MAX);
        io::stdin().take(most).read_to_end(&mut bytes).map_err(failed)?;
        return Ok(bytes);
    }
    let bytes = read_whole(Path::new(file)).and_then(|found| found.ok_or(NotFound.into()));
    bytes.map_err(failed)
}

fn check_config(file: &str, json: bool) -> Result<ExitCode, String> {
    match check::check(file, &read_config(file)?) {
        Ok(good) if json => print(&format!("{}\n", good.document)),
        Ok(good) => print(&good.text),
        Err(problems) => refuse(file, &problems, json),
    }
}

/// Never fails for the sake of a file: what comes after it in the start waits for its end alone.
fn load_config(system: &System) -> Result<ExitCode, String> {
    let program = program()?;
    let parts = parts::Processes::new(program, parts::LIMIT);
    let set_hostname = |name: &str| Ok(rustix::system::sethostname(name.as_bytes())?);
    let console = Console::new(io::stdout());
    own_config::load(&Places::default(), system, &parts, &set_hostname, &console);
    Ok(ExitCode::SUCCESS)
}

/// A request for a reset on the boot partition is done by the next start, which is now.
fn obey_marker() -> Result<ExitCode, String> {
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

fn services(path: &str) -> Result<ExitCode, String> {
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
    services.run(&own_config::in_their_zone(&system.containers), &runner.works()?)
}

fn app_states(
    system: &System,
    engine: Option<&dyn Engine>,
) -> Result<Vec<apps::state::AppState>, String> {
    let (Some(engine), Some(described)) = (engine, &system.engine) else { return Ok(Vec::new()) };
    let places = AppPlaces::device(&described.socket);
    Runner { engine, places: &places, say: &|_| () }.states()
}

fn app(verb: &AppVerb, path: &str) -> Result<ExitCode, String> {
    let system = read_system(path)?;
    let described = system.engine.as_ref().ok_or("this image has no container engine")?;
    let engine = open_engine(&system).ok_or("this program does not know the engine's API")?;
    let places = AppPlaces::device(&described.socket);
    let say = |line: &str| drop(writeln!(io::stderr(), "{line}"));
    let runner = Runner { engine: &*engine, places: &places, say: &say };
    match verb {
        AppVerb::List { json } => {
            let (text, is_well) = apps::verbs::list(&runner, *json)?;
            print(&text)?;
            Ok(ExitCode::from(u8::from(!is_well)))
        }
        AppVerb::Logs { name, follow } => apps::verbs::logs(&runner, name, *follow),
        AppVerb::Restart { name, json } => tell(&apps::verbs::restart(&runner, name), *json),
        AppVerb::History { name, json } => print(&apps::push::history(&runner, name, *json)?),
        AppVerb::RollBack { name, to, json } => {
            let limit = Duration::from_secs(apps::push::LIMIT_S);
            tell(&apps::push::roll_back(&runner, name, *to, limit), *json)
        }
        AppVerb::Inventory => print(&apps::push::inventory(&runner)?),
        AppVerb::Load(length) => {
            apps::push::load(&runner, &mut io::stdin(), *length).map(|()| ExitCode::SUCCESS)
        }
        AppVerb::Deploy(seconds) => {
            tell(&apps::push::deploy(&runner, io::stdin(), Duration::from_secs(*seconds)), false)
        }
        AppVerb::Remove { name, json } => tell(&apps::verbs::remove(&runner, name), *json),
    }
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

/// Says what became of the data partition; nothing if it was as large as it can be.
fn grow() -> Result<ExitCode, String> {
    let console = Console::new(io::stdout());
    for line in growth::grow(&Devices::default(), &Facts::default().boot()?)? {
        console.say(&line);
    }
    Ok(ExitCode::SUCCESS)
}

/// Goes down in a moment: whoever asked through a connection that goes down too shall hear first
/// that it was done.
fn soon(verb: &str) -> Result<ExitCode, String> {
    let failed = |error: io::Error| format!("cannot start `iota {verb} --now`: {error}");
    let mut command = Command::new(program()?);
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

fn machine_id() -> Result<ExitCode, String> {
    let console = Console::new(io::stdout());
    identity::machine_id(&identity::Places::default(), &|line| console.say(line))
        .map(|()| ExitCode::SUCCESS)
}

fn follow_updates() -> Result<ExitCode, String> {
    let console = Console::new(io::stdout());
    let mut world = follow::Children { console: &console, program: program()? };
    follow::follow(&session::Places::default(), &mut world).map(|()| ExitCode::SUCCESS)
}

/// Without a report there are no keys either: nobody is let in by accident.
fn ssh_server() -> Result<ExitCode, String> {
    let report = Report::read(Report::path())?;
    let console = Console::new(io::stdout());
    let say = |line: &str| console.say(line);
    ssh::serve(&ssh::Places::default(), &report.config, &say).map(|()| ExitCode::SUCCESS)
}

fn wifi() -> Result<ExitCode, String> {
    let report = Report::read(Report::path())?;
    wifi::serve(&wifi::Places::default(), &report.config).map(|()| ExitCode::SUCCESS)
}

fn shell(session: &Session, path: &str) -> Result<ExitCode, String> {
    match session {
        Session::Iota(words) => {
            let error = Command::new("/usr/bin/iota").args(words).exec();
            Err(format!("/usr/bin/iota: {error}"))
        }
        Session::Engine => {
            let system = read_system(path)?;
            let engine = system.engine.ok_or("this image has no container engine")?;
            pipe::dial(Path::new(&engine.socket)).map(|()| ExitCode::SUCCESS)
        }
        Session::Console(line) => {
            let system = read_system(path)?;
            let engine = open_engine(&system).ok_or("this image has no container engine")?;
            let report = Report::read(Report::path()).ok();
            let wanted = report.as_ref().and_then(|report| report.config.console_image());
            console::open(engine.into(), &system, wanted, line.as_deref())
        }
    }
}

fn network_hook() -> Result<ExitCode, String> {
    let event = Event::read(&|name| std::env::var(name).ok())?;
    // Without a report, as in the first moments of a start, what the network offers is used.
    let event = match Report::read(Report::path()) {
        Ok(report) => event.with_name_servers(report.config.name_servers()),
        Err(_) => event,
    };
    let said = event
        .apply(Files::device())
        .map_err(|error| format!("cannot keep the network's state in /run: {error}"))?;
    match said {
        Some(line) => print(&format!("{line}\n")),
        None => Ok(ExitCode::SUCCESS),
    }
}

fn program() -> Result<PathBuf, String> {
    std::env::current_exe().map_err(|error| format!("own program: {error}"))
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
