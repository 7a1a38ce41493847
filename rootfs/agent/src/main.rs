//! The device's own `iota` command: parse, do, exit code.

use std::fs;
use std::io::{self, ErrorKind::NotFound, Read as _, Write as _};
use std::os::fd::AsFd as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::time::Duration;

use agent::apps;
use agent::apps::arrival::{Arrivals, Patient};
use agent::apps::run::Runner;
use agent::apps::store::Places as AppPlaces;
use agent::apps::verbs::AppVerb;
use agent::args::{Args, ConfigVerb, HELP, Verb};
use agent::console::Console;
use agent::crash;
use agent::data::Data;
use agent::engine::{self, Engine};
use agent::kept_log::Store;
use agent::logs;
use agent::memory::Memory;
use agent::network::{self, Files};
use agent::online::{self, session};
use agent::own_config::change::{self, Changer, Wish};
use agent::own_config::disks::read_whole;
use agent::own_config::running::Running;
use agent::own_config::{self, Places, Report, get, parts};
use agent::reset;
use agent::shell::{Session, console, pipe};
use agent::slots::Slots;
use agent::status::Status;
use agent::time::now_s;
use agent::update::{self, Facts, Lines, Outcome};
use agent::{contained, container_log, containerd};
use config::problem::document;
use config::values::Key;
use config::{Problems, READ_BYTES, check};
use ondisk::system::System;
use rustix::process::{Pid, Signal};

mod units;

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
        Verb::Logs { ref unit, follow, kept } => print_logs(unit.as_deref(), follow, kept),
        Verb::Change { ref change, json } => {
            let (mut out, facts) = (io::stderr(), Facts::default());
            tell(&update::run(change, &facts, &mut Lines::new(&mut out, json)), json)
        }
        Verb::CheckUpdate { json } => tell(&session::check(&Facts::default()), json),
        Verb::ReportUpdate { json } => tell(&online::tell::report(&Facts::default()), json),
        Verb::FollowUpdates => units::follow_updates(),
        Verb::Reset { request, json } => tell(&reset::run(request, &Facts::default()), json),
        Verb::Config(ref verb) => config(verb, &args.system),
        Verb::App(ref verb) => app(verb, &args.system),
        Verb::Services => units::services(&args.system),
        Verb::Health => units::health(&args.system),
        Verb::Grow => units::grow(),
        Verb::Reboot { now: true } => tell_pid_1(Signal::HUP),
        Verb::PowerOff { now: true } => tell_pid_1(Signal::TERM),
        Verb::Reboot { now: false } => soon("reboot"),
        Verb::PowerOff { now: false } => soon("poweroff"),
        Verb::Identity => units::machine_id(),
        Verb::ObeyMarker => units::obey_marker(),
        Verb::SshServer => units::ssh_server(),
        Verb::Wifi => units::wifi(),
        Verb::Shell(ref session) => shell(session, &args.system),
        Verb::Podman { answer } => units::podman(answer, &args.system),
        Verb::Containerd => containerd::run().map(|()| ExitCode::SUCCESS),
        Verb::ContainerLog => container_log::run().map(|()| ExitCode::SUCCESS),
        Verb::Contained(ref command) => Ok(contain(command)),
        Verb::OnDemand => units::on_demand(&args.system),
        Verb::Zram => units::zram(),
        Verb::MendOutput => units::mend_output(),
        Verb::KeepLogs => units::keep_logs(),
        Verb::KeepCrashes => units::keep_crashes(),
        Verb::Watchdog => units::watchdog(&args.system),
        Verb::Screen => units::screen(&args.system),
        Verb::NetworkHook => units::network_hook(),
        Verb::CommandPort => agent::port::serve().map(|()| ExitCode::SUCCESS),
    }
}

fn print_logs(unit: Option<&str>, follow: bool, kept: bool) -> Result<ExitCode, String> {
    let out = &mut io::stdout().lock();
    if unit == Some(logs::CRASHES_UNIT) {
        logs::print_crashes(&crash::Places::default().kept, out)?;
    } else if kept {
        logs::print_kept(unit, &Store::new(Path::new(Store::PLACE), u64::MAX), out)?;
    } else {
        logs::print(unit, follow, out)?;
    }
    Ok(ExitCode::SUCCESS)
}

fn status(system: &str, json: bool, memory: bool) -> Result<ExitCode, String> {
    let system = read_system(system)?;
    // First: to ask an engine that runs on demand changes who holds the memory.
    let held = Memory::read();
    let facts = Facts::default();
    let mut status = whole_status(&system, &facts);
    status.update = online::report::Report::read(&facts.online.report);
    status.confirm_left_s = with_changer(&system, |changer| Ok(changer.left_s()))?;
    let mut text = if json { status.json(&held) } else { status.text() };
    if memory && !json {
        text.push_str(&held?.text());
    }
    print(&text)?;
    Ok(ExitCode::from(u8::from(!status.is_well())))
}

/// All but what somebody has to be asked about who is not on this device.
fn whole_status(system: &System, facts: &Facts) -> Status {
    let engine = open_engine(system);
    let mut status = Status::collect(facts.boot(), Slots::find(facts), system, engine.as_deref());
    status.network = network::summaries(Files::device().state);
    status.config = Report::read(Report::path());
    status.apps = app_states(system, engine.as_deref());
    status.data = Data::read(facts);
    status.crash = crash::newest(&crash::Places::default().kept, now_s());
    status
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

/// The first program of a container has no other way to say why it did not start the second.
fn contain(command: &[String]) -> ExitCode {
    ExitCode::from(contained::run(command).unwrap_or_else(|(error, code)| {
        let _ = writeln!(io::stderr(), "error: {error}");
        code
    }))
}

/// What cannot be done with an engine that has not Docker's API.
fn without_api(engine: &ondisk::system::Engine, what: &str) -> String {
    let name = &engine.name;
    format!(
        "the engine {name} of this system {what}\n\
         hint: build the system with --engine docker or podman"
    )
}

fn no_apps(engine: &ondisk::system::Engine) -> String {
    without_api(engine, "runs no apps: it has no Docker API, which Compose needs")
}

fn app_states(
    system: &System,
    engine: Option<&dyn Engine>,
) -> Result<Vec<apps::state::AppState>, String> {
    let (Some(engine), Some(described)) = (engine, &system.engine) else { return Ok(Vec::new()) };
    let places = AppPlaces::device(&described.socket);
    if !engine.runs_apps() {
        // Apps that were pushed to a system before this one make a trial of this one fail.
        return match places.names(&places.carried()?).first() {
            None => Ok(Vec::new()),
            Some(app) => Err(format!("{app}: {}", no_apps(described))),
        };
    }
    Runner { engine, places: &places, say: &|_| () }.states()
}

fn app(verb: &AppVerb, path: &str) -> Result<ExitCode, String> {
    let system = read_system(path)?;
    let described = system.engine.as_ref().ok_or("this image has no container engine")?;
    let engine = open_engine(&system).ok_or("this program does not know the engine's API")?;
    if !engine.runs_apps() {
        return Err(no_apps(described));
    }
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
        AppVerb::Verify { repair, json } => {
            let found = apps::verify::run(&runner, &system.containers, *repair)?;
            let (text, is_well) = apps::verify::told(&found, *json);
            print(&text)?;
            Ok(ExitCode::from(u8::from(!is_well)))
        }
        AppVerb::Inventory => print(&apps::push::inventory(&runner, &Arrivals::device())?),
        AppVerb::Load(wanted) => {
            // Not Rust's standard input, which keeps bytes where nobody can wait for them.
            let input = io::stdin().as_fd().try_clone_to_owned();
            let input = input.map_err(|error| format!("standard input: {error}"))?;
            let mut input = Patient(fs::File::from(input));
            apps::push::load(&runner, &Arrivals::device(), wanted, &mut input)
                .map(|()| ExitCode::SUCCESS)
        }
        AppVerb::Deploy(seconds) => {
            tell(&apps::push::deploy(&runner, io::stdin(), Duration::from_secs(*seconds)), false)
        }
        AppVerb::Remove { name, json } => tell(&apps::verbs::remove(&runner, name), *json),
    }
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

fn shell(session: &Session, path: &str) -> Result<ExitCode, String> {
    match session {
        Session::Iota(words) => {
            let error = Command::new("/usr/bin/iota").args(words).exec();
            Err(format!("/usr/bin/iota: {error}"))
        }
        Session::Engine => {
            let system = read_system(path)?;
            let engine = open_engine(&system).zip(system.engine.as_ref());
            let (engine, described) = engine.ok_or("this image has no container engine")?;
            if !engine.runs_apps() {
                return Err(without_api(described, "has no Docker API"));
            }
            let engine = described;
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
