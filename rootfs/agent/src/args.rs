//! The command line. A few verbs and two options need no parser from elsewhere.

use crate::apply::Until;
use crate::apps::verbs::AppVerb;
use crate::own_config::parts::Part;
use crate::own_config::trial;
use crate::reset::Request;
use crate::shell::Session;
use crate::update::Change;
use ondisk::reset::Reset;

/// What `iota --help` prints.
pub const HELP: &str = "\
The command of an Iota device

Usage: iota [OPTIONS] COMMAND

Commands:
  status                 Show the system, its slots, the container engine and the containers
  update install FILE    Install a bundle into the other slot; it is started next, on trial.
                         FILE is - for standard input, usb: for the newest *.bundle on a stick,
                         usb:PATH for a file on a stick. Without FILE: what the server of
                         iota.toml offers
  update check           Ask that server
  update download        Bring what it offers into the other slot, without starting it
  update cancel          Give up the update that waits
  commit                 Keep the system that runs, without waiting for the health check
  rollback               Start the other system next
  logs [UNIT]            Print what was said since the start, oldest first, by everybody or one
                         UNIT: init, agent, docker, network, a container's name, …; kernel.
                         With --kept: what is kept on the data partition of this and earlier starts.
                         UNIT crashes: what the kernel said last when it crashed
  config show            Show the configuration in force, and where it comes from
  config get [KEY]       Print a value in force, such as that of network.dns; without KEY all
  config set KEY VALUE…  Change a value; network.interface.NAME.address for one of an interface
  config check FILE      Say everything that is wrong with an iota.toml; - for standard input
  config apply FILE      Put a whole iota.toml in place of what is in force
  config confirm         Keep a change of the network: without it, what was before comes back
  app list               Say how it stands with each app: a Compose file and its containers
  app logs NAME          Print what the containers of an app have said
  app restart NAME       Stop the containers of an app and start them again
  app history NAME       List the releases of an app: those that were pushed, the system's
  app rollback NAME [N]  Change to the release before the current one, or to release N
  app verify             Say whether the engine holds the images of this system as they were built
  app repair             Put in order what it does not, out of the system itself
  app rm NAME            Stop and forget what was pushed under this name; volumes stay
  reset                  Make the data partition new at the next start: containers, images and
                         volumes go, the system stays
  reset cancel           Take that back
  reboot                 Stop everything in order and start again
  poweroff               Stop everything in order and switch off
  config load            Take over the boot partition's iota.toml (started by PID 1)
  app inventory, app load SHA256 LENGTH FROM, app deploy [SECONDS]
                         What images there are, one more of them, a release to change to, all
                         for `iota push` of the laptop
  services               Run the containers of this image (started by PID 1)
  health                 Judge a system on trial, and commit it when it is fit (started by PID 1)
  grow                   Let the data partition take all of the disk (started by PID 1)
  reset-marker           Obey a file `iota-reset` on the boot partition (started by PID 1)
  identity               Give this device its machine id (started by PID 1)
  update report          Tell update.report of iota.toml how it stands (started by update follow)
  update follow          Look for updates from time to time (started by PID 1)
  ssh-server             Let those log in whose keys iota.toml has (started by PID 1)
  wifi                   Join the Wi-Fi networks of iota.toml (started by PID 1)
  zram                   Let memory be compressed when it is short (started by PID 1)
  keep-logs              Write the log to the data partition if it is to be kept (started by PID 1)
  keep-crashes           Keep what the kernel said last when it crashed (started by PID 1)
  watchdog               Restart if what [watchdog] of iota.toml names is lacking for too long
                         (started by PID 1)
  screen                 Show on the console how it stands (started by PID 1)
  on-demand              Hold the ports of services that run on demand (started by PID 1)
  podman                 Hold the socket of an engine that runs on demand (started by PID 1)
  containerd             Stop all containers at the end (started by PID 1)
  containerd log         Keep what a container says (started by containerd)
  contained PROGRAM…     Run as the first program of a container (started by containerd)
  network-hook           Take over a network change (run by dhcpcd)
  command-port           Run commands for the host of this virtual machine (started by PID 1)

Options:
      --json         Print the same facts as JSON (status, app, update, commit, rollback, reset,
                     config)
      --keep-identity  Leave out who this device is to others: /data/iota/identity (reset)
      --kept         Print what is kept on the data partition (logs)
  -f, --follow       Go on printing what is said from now on (logs, app logs)
      --secrets      Print passwords, too (config show, config get)
      --memory       Show who holds the memory as well (status)
      --confirm-within TIME
                     How long a change of the network waits for `config confirm`, such as 90s or
                     10m; 5m without it (config set, config apply)
      --system FILE  Read another system description than /usr/lib/iota/system
  -h, --help         Print this help
  -V, --version      Print the version

Exit status: 0 done, 1 nothing to do, or something declared does not run or its data is not kept
(status), 2 failed
";

/// What to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verb {
    /// Print [`HELP`].
    Help,
    /// Print the version.
    Version,
    /// Print the state of the device, as JSON if true.
    Status {
        /// For programs.
        json: bool,
        /// With who holds the memory; programs are told anyway.
        memory: bool,
    },
    /// Print what was said.
    Logs {
        /// By whom; everybody if absent.
        unit: Option<String>,
        /// And what is said from now on.
        follow: bool,
        /// What is kept of this start and earlier ones, in place of what is in memory.
        kept: bool,
    },
    /// Change which system is started.
    Change {
        /// How.
        change: Change,
        /// Say what came of it as JSON.
        json: bool,
    },
    /// Ask the server for an update, and say so as JSON if true.
    CheckUpdate {
        /// For programs.
        json: bool,
    },
    /// Tell the owner's server how it stands.
    ReportUpdate {
        /// For programs.
        json: bool,
    },
    /// Look for updates from time to time.
    FollowUpdates,
    /// Ask for a reset of the data partition, or take that back.
    Reset {
        /// Which.
        request: Request,
        /// Say what came of it as JSON.
        json: bool,
    },
    /// Show, check or take over a configuration.
    Config(ConfigVerb),
    /// Look after apps.
    App(AppVerb),
    /// Attend to the containers.
    Services,
    /// Judge a trial.
    Health,
    /// Let the data partition take all of the disk.
    Grow,
    /// Ask PID 1 to restart the machine.
    Reboot {
        /// By this process itself.
        now: bool,
    },
    /// Ask PID 1 to switch the machine off.
    PowerOff {
        /// By this process itself.
        now: bool,
    },
    /// Give the device its machine id.
    Identity,
    /// Obey the owner's request for a reset on the boot partition.
    ObeyMarker,
    /// Let people log in.
    SshServer,
    /// Join Wi-Fi networks.
    Wifi,
    /// What somebody who logged in wants.
    Shell(Session),
    /// Hold Podman's socket.
    Podman {
        /// Become Podman with the socket that is handed over.
        answer: bool,
    },
    /// Stop containerd's containers at the end.
    Containerd,
    /// Keep what a container of containerd says.
    ContainerLog,
    /// Be the first program of a container: program and arguments.
    Contained(Vec<String>),
    /// Hold the ports of services that run on demand.
    OnDemand,
    /// Let memory be compressed.
    Zram,
    /// Make the output of containers readable again after a power cut.
    MendOutput,
    /// Write the log to the data partition.
    KeepLogs,
    /// Keep what the kernel said last when it crashed.
    KeepCrashes,
    /// Restart if what the owner wants is lacking for too long.
    Watchdog,
    /// Show on the console how it stands.
    Screen,
    /// Take over a network change.
    NetworkHook,
    /// Run commands for the host of a virtual machine.
    CommandPort,
}

/// What to do with a configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ConfigVerb {
    /// Print the one that holds.
    Show {
        /// For programs.
        json: bool,
        /// With passwords.
        secrets: bool,
    },
    /// Say what is wrong with a file.
    Check {
        /// Its path.
        file: String,
        /// For programs.
        json: bool,
    },
    /// Print values in force.
    Get {
        /// Of one key; of all if absent.
        key: Option<String>,
        /// For programs.
        json: bool,
        /// With passwords.
        secrets: bool,
    },
    /// Change a value.
    Set {
        /// Its key.
        key: String,
        /// What it gets.
        values: Vec<String>,
        /// How long a change of the network waits for its confirmation.
        within_s: u64,
        /// For programs.
        json: bool,
    },
    /// Put a whole file in place of what is in force.
    Apply {
        /// Its path, or `-`.
        file: String,
        /// How long a change of the network waits for its confirmation.
        within_s: u64,
        /// For programs.
        json: bool,
    },
    /// Keep a change of the network.
    Confirm {
        /// For programs.
        json: bool,
    },
    /// Wait for that, and revert the change if it does not come.
    AwaitConfirm,
    /// Take over the owner's.
    Load,
    /// A part of that, in a process of its own.
    Part(Part),
}

/// A parsed command line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Args {
    /// What to do.
    pub verb: Verb,
    /// Path of the system description.
    pub system: String,
}

impl Args {
    /// Reads the program's arguments, its own name first; an error is one clause.
    pub fn parse(arguments: &[String]) -> Result<Self, String> {
        let mut args = Self { verb: Verb::Help, system: ondisk::system::PATH.to_owned() };
        let (program, rest) = arguments.split_first().map_or(("", arguments), |(name, rest)| {
            (name.rsplit('/').next().unwrap_or_default(), rest)
        });
        // The SSH server puts a `-` before the name of a shell that begins a login.
        if matches!(program, "shell" | "-shell") {
            return Ok(Self { verb: Verb::Shell(Session::of(rest)?), ..args });
        }
        // What follows is a command line of its own.
        if let [word, command @ ..] = rest
            && word == "contained"
        {
            return Ok(Self { verb: Verb::Contained(command.to_vec()), ..args });
        }
        let mut words = Vec::new();
        let mut flags = Flags::default();
        let mut rest = rest.iter().map(String::as_str);
        while let Some(argument) = rest.next() {
            match argument {
                "-h" | "--help" | "help" => return Ok(args),
                "-V" | "--version" => return Ok(Self { verb: Verb::Version, ..args }),
                "--json" => flags.json = true,
                "--now" => flags.now = true,
                "--secrets" => flags.secrets = true,
                "--memory" => flags.memory = true,
                "--kept" => flags.kept = true,
                "-f" | "--follow" => flags.follow = true,
                "--keep-identity" => flags.keep_identity = true,
                "--confirm-within" => match rest.next() {
                    Some(time) => flags.within_s = Some(seconds(time)?),
                    None => return Err("--confirm-within needs a time, such as 90s".to_owned()),
                },
                "--system" => match rest.next() {
                    Some(file) => args.system = file.to_owned(),
                    None => return Err("--system needs a file".to_owned()),
                },
                option if is_option(option) => {
                    return Err(format!("there is no option `{option}`"));
                }
                word => words.push(word),
            }
        }
        // dhcpcd gives its script no argument: the name says what is meant.
        if program == "network-hook" && words.is_empty() {
            words.push("network-hook");
        }
        flags.check(&words)?;
        args.verb = verb(&words, flags)?;
        Ok(args)
    }
}

/// A dash or two and a letter; a certificate begins with five.
fn is_option(argument: &str) -> bool {
    let name = argument.strip_prefix("--").or_else(|| argument.strip_prefix('-'));
    name.is_some_and(|name| name.starts_with(|first: char| first.is_ascii_alphanumeric()))
}

/// Options that belong to some commands.
#[derive(Clone, Copy, Default)]
struct Flags {
    within_s: Option<u64>,
    json: bool,
    now: bool,
    memory: bool,
    secrets: bool,
    follow: bool,
    kept: bool,
    keep_identity: bool,
}

impl Flags {
    fn check(self, words: &[&str]) -> Result<(), String> {
        let first = words.first().copied().unwrap_or_default();
        if self.now && !matches!(first, "reboot" | "poweroff") {
            return Err("--now belongs after `reboot` or `poweroff`".to_owned());
        }
        if self.within_s.is_some() && !matches!(words, ["config", "set" | "apply", ..]) {
            return Err("--confirm-within belongs after `config set` or `config apply`".to_owned());
        }
        if self.memory && first != "status" {
            return Err("--memory belongs after `status`".to_owned());
        }
        if self.secrets && !matches!(words, ["config", "show" | "get", ..]) {
            return Err("--secrets belongs after `config show` or `config get`".to_owned());
        }
        if self.follow && !matches!(first, "logs" | "app") {
            return Err("--follow belongs after `logs`".to_owned());
        }
        if self.kept && (first != "logs" || self.follow) {
            return Err("--kept belongs after `logs`, without --follow".to_owned());
        }
        if self.keep_identity && words != ["reset"] {
            return Err("--keep-identity belongs after `reset`".to_owned());
        }
        Ok(())
    }
}

fn verb(words: &[&str], flags: Flags) -> Result<Verb, String> {
    let Flags { json, now, memory, follow, kept, keep_identity, .. } = flags;
    let change = |change| Ok(Verb::Change { change, json });
    let (verb, rest): (Result<Verb, String>, &[&str]) = match words {
        [] => return Err("a command is missing".to_owned()),
        ["status", rest @ ..] => (Ok(Verb::Status { json, memory }), rest),
        ["logs", ..] if json => return Err("`logs` has no --json".to_owned()),
        ["logs"] => (Ok(Verb::Logs { unit: None, follow, kept }), &[]),
        ["logs", unit, rest @ ..] => {
            (Ok(Verb::Logs { unit: Some((*unit).to_owned()), follow, kept }), rest)
        }
        ["update", "install", file, rest @ ..] => {
            (change(Change::Install((*file).to_owned())), rest)
        }
        ["update", "install"] => (change(Change::InstallOffered(Until::Staged)), &[]),
        ["update", "download", rest @ ..] => (change(Change::InstallOffered(Until::Written)), rest),
        ["update", "report", rest @ ..] => (Ok(Verb::ReportUpdate { json }), rest),
        ["update", "check", rest @ ..] => (Ok(Verb::CheckUpdate { json }), rest),
        ["update", "follow"] if json => return Err("`update follow` has no --json".to_owned()),
        ["update", "follow", rest @ ..] => (Ok(Verb::FollowUpdates), rest),
        ["update", "cancel", rest @ ..] => (change(Change::Cancel), rest),
        ["update", ..] => {
            return Err(
                "`update` is followed by `check`, `download`, `install` or `cancel`".to_owned()
            );
        }
        ["config", rest @ ..] => return config(rest, flags),
        ["app", rest @ ..] => return AppVerb::parse(rest, json, follow).map(Verb::App),
        ["reset", "cancel", rest @ ..] => {
            (Ok(Verb::Reset { request: Request::Cancel, json }), rest)
        }
        ["reset", rest @ ..] => {
            let reset = if keep_identity { Reset::KeepIdentity } else { Reset::Everything };
            (Ok(Verb::Reset { request: Request::Ask(reset), json }), rest)
        }
        ["commit", rest @ ..] => (change(Change::Commit), rest),
        ["rollback", rest @ ..] => (change(Change::RollBack), rest),
        ["podman", "answer", rest @ ..] if !json => (Ok(Verb::Podman { answer: true }), rest),
        ["containerd", "log", rest @ ..] if !json => (Ok(Verb::ContainerLog), rest),
        [word, rest @ ..] => (silent(word, json, now), rest),
    };
    match rest {
        [] => verb,
        [word, ..] => verb.and(Err(format!("`{word}` is one word too many"))),
    }
}

fn config(words: &[&str], flags: Flags) -> Result<Verb, String> {
    let Flags { json, secrets, .. } = flags;
    let within_s = flags.within_s.unwrap_or(trial::WITHIN_S);
    let verb = match *words {
        ["show"] => ConfigVerb::Show { json, secrets },
        ["get"] => ConfigVerb::Get { key: None, json, secrets },
        ["get", key] => ConfigVerb::Get { key: Some(key.to_owned()), json, secrets },
        ["set", key, ref values @ ..] if !values.is_empty() => {
            let values = values.iter().map(|value| (*value).to_owned()).collect();
            ConfigVerb::Set { key: key.to_owned(), values, within_s, json }
        }
        ["set", ..] => return Err("`config set` needs a key and a value".to_owned()),
        ["check", file] => ConfigVerb::Check { file: file.to_owned(), json },
        ["apply", file] => ConfigVerb::Apply { file: file.to_owned(), within_s, json },
        [word @ ("check" | "apply")] => return Err(format!("`config {word}` needs a file")),
        ["confirm"] => ConfigVerb::Confirm { json },
        ["check" | "apply" | "get", _, word, ..] | [_, word, ..] => {
            return Err(format!("`{word}` is one word too many"));
        }
        ["load" | "await-confirm"] if json => {
            return Err(format!("`config {}` has no --json", words.concat()));
        }
        ["load"] => ConfigVerb::Load,
        ["await-confirm"] => ConfigVerb::AwaitConfirm,
        [word] => ConfigVerb::Part(Part::from_word(word).ok_or(CONFIG_VERBS)?),
        [] => return Err(CONFIG_VERBS.to_owned()),
    };
    Ok(Verb::Config(verb))
}

const CONFIG_VERBS: &str =
    "`config` is followed by `show`, `get`, `set`, `check`, `apply` or `confirm`";

/// Reads `90s`, `10m` or `90`.
fn seconds(text: &str) -> Result<u64, String> {
    let (number, unit_s) = match text.strip_suffix('m') {
        Some(minutes) => (minutes, 60),
        None => (text.strip_suffix('s').unwrap_or(text), 1),
    };
    let (least, most) = trial::WITHIN_RANGE_S;
    let seconds = number.parse::<u64>().ok().and_then(|number| number.checked_mul(unit_s));
    seconds.filter(|seconds| (least..=most).contains(seconds)).ok_or_else(|| {
        format!("--confirm-within takes {least}s to {most}s, or minutes as in 5m, not `{text}`")
    })
}

/// The verbs that have no facts to tell.
fn silent(word: &str, json: bool, now: bool) -> Result<Verb, String> {
    let verb = match word {
        "services" => Verb::Services,
        "health" => Verb::Health,
        "grow" => Verb::Grow,
        "reboot" => Verb::Reboot { now },
        "poweroff" => Verb::PowerOff { now },
        "identity" => Verb::Identity,
        "reset-marker" => Verb::ObeyMarker,
        "ssh-server" => Verb::SshServer,
        "wifi" => Verb::Wifi,
        "zram" => Verb::Zram,
        "mend-output" => Verb::MendOutput,
        "keep-logs" => Verb::KeepLogs,
        "keep-crashes" => Verb::KeepCrashes,
        "watchdog" => Verb::Watchdog,
        "screen" => Verb::Screen,
        "on-demand" => Verb::OnDemand,
        "podman" => Verb::Podman { answer: false },
        "containerd" => Verb::Containerd,
        "network-hook" => Verb::NetworkHook,
        "command-port" => Verb::CommandPort,
        other => return Err(format!("there is no command `{other}`")),
    };
    if json { Err(format!("`{word}` has no --json")) } else { Ok(verb) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Result<Args, String> {
        Args::parse(&line.split(' ').map(str::to_owned).collect::<Vec<_>>())
    }

    fn install(file: &str, json: bool) -> Verb {
        Verb::Change { change: Change::Install(file.to_owned()), json }
    }

    fn offered(until: Until) -> Verb {
        Verb::Change { change: Change::InstallOffered(until), json: false }
    }

    fn reset(request: Request, json: bool) -> Verb {
        Verb::Reset { request, json }
    }

    fn get(key: &str) -> Verb {
        Verb::Config(ConfigVerb::Get { key: Some(key.to_owned()), json: false, secrets: false })
    }

    fn logs(unit: Option<&str>, follow: bool, kept: bool) -> Verb {
        Verb::Logs { unit: unit.map(str::to_owned), follow, kept }
    }

    fn show(secrets: bool) -> Verb {
        Verb::Config(ConfigVerb::Show { json: false, secrets })
    }

    fn set(within_s: u64) -> Verb {
        let (key, values) = ("network.dns".to_owned(), ["1.1.1.1", "9.9.9.9"]);
        let values = values.map(str::to_owned).to_vec();
        Verb::Config(ConfigVerb::Set { key, values, within_s, json: false })
    }

    #[test]
    fn command_lines_mean_what_they_say() {
        for (line, verb) in [
            ("iota status", Verb::Status { json: false, memory: false }),
            ("/usr/bin/iota status --json", Verb::Status { json: true, memory: false }),
            ("iota --help", Verb::Help),
            ("iota status -h", Verb::Help),
            ("iota -V", Verb::Version),
            ("iota --json status", Verb::Status { json: true, memory: false }),
            ("iota update install -", install("-", false)),
            ("iota update install usb:a/b.bundle --json", install("usb:a/b.bundle", true)),
            ("iota status --memory", Verb::Status { json: false, memory: true }),
            ("iota logs", logs(None, false, false)),
            ("iota logs -f docker", logs(Some("docker"), true, false)),
            ("iota logs init --kept", logs(Some("init"), false, true)),
            ("iota update cancel", Verb::Change { change: Change::Cancel, json: false }),
            ("iota update install", offered(Until::Staged)),
            ("iota update download", offered(Until::Written)),
            ("iota update report", Verb::ReportUpdate { json: false }),
            ("iota update check --json", Verb::CheckUpdate { json: true }),
            ("iota update follow", Verb::FollowUpdates),
            ("iota podman", Verb::Podman { answer: false }),
            ("iota podman answer", Verb::Podman { answer: true }),
            ("iota containerd", Verb::Containerd),
            ("iota containerd log", Verb::ContainerLog),
            (
                "/.iota contained sh --json -c",
                Verb::Contained(["sh", "--json", "-c"].map(str::to_owned).to_vec()),
            ),
            ("iota commit --json", Verb::Change { change: Change::Commit, json: true }),
            ("iota rollback", Verb::Change { change: Change::RollBack, json: false }),
            ("iota config show", show(false)),
            ("iota config show --secrets", show(true)),
            ("iota config load", Verb::Config(ConfigVerb::Load)),
            (
                "iota config get",
                Verb::Config(ConfigVerb::Get { key: None, json: false, secrets: false }),
            ),
            ("iota config get hostname", get("hostname")),
            ("iota config set network.dns 1.1.1.1 9.9.9.9", set(300)),
            ("iota config set --confirm-within 20s network.dns 1.1.1.1 9.9.9.9", set(20)),
            ("iota config set network.dns 1.1.1.1 9.9.9.9 --confirm-within 2m", set(120)),
            (
                "iota config apply - --json",
                Verb::Config(ConfigVerb::Apply { file: "-".to_owned(), within_s: 300, json: true }),
            ),
            ("iota config confirm", Verb::Config(ConfigVerb::Confirm { json: false })),
            ("iota config await-confirm", Verb::Config(ConfigVerb::AwaitConfirm)),
            ("iota config read-kept", Verb::Config(ConfigVerb::Part(Part::ReadKept))),
            (
                "iota config check a.toml --json",
                Verb::Config(ConfigVerb::Check { file: "a.toml".to_owned(), json: true }),
            ),
            ("iota reset", reset(Request::Ask(Reset::Everything), false)),
            ("iota reset --keep-identity", reset(Request::Ask(Reset::KeepIdentity), false)),
            ("iota reset cancel --json", reset(Request::Cancel, true)),
            ("iota services", Verb::Services),
            ("iota grow", Verb::Grow),
            ("iota identity", Verb::Identity),
            ("iota reset-marker", Verb::ObeyMarker),
            ("iota ssh-server", Verb::SshServer),
            ("iota wifi", Verb::Wifi),
            ("iota zram", Verb::Zram),
            ("iota mend-output", Verb::MendOutput),
            ("iota keep-logs", Verb::KeepLogs),
            ("iota keep-crashes", Verb::KeepCrashes),
            ("iota watchdog", Verb::Watchdog),
            ("iota screen", Verb::Screen),
            ("/usr/lib/iota/shell", Verb::Shell(Session::Console(None))),
            ("-shell", Verb::Shell(Session::Console(None))),
            ("shell -c ls", Verb::Shell(Session::Console(Some("ls".to_owned())))),
            ("iota network-hook", Verb::NetworkHook),
            ("/usr/lib/iota/network-hook", Verb::NetworkHook),
        ] {
            let args = Args { verb, system: "/usr/lib/iota/system".to_owned() };
            assert_eq!(parse(line), Ok(args), "{line}");
        }
        let words = ["iota", "config", "set", "ca.certificates", "-----BEGIN A-----\n"];
        let args = Args::parse(&words.map(str::to_owned)).unwrap();
        assert!(matches!(args.verb, Verb::Config(ConfigVerb::Set { .. })), "{args:?}");
        assert!(parse("iota -x").is_err() && parse("iota --nothing").is_err());
        assert_eq!(parse("iota --system x status").map(|args| args.system), Ok("x".to_owned()));
    }

    #[test]
    fn mistakes_are_named() {
        for (line, error) in [
            ("iota", "a command is missing"),
            ("iota stauts", "there is no command `stauts`"),
            ("iota status now", "`now` is one word too many"),
            ("iota services --json", "`services` has no --json"),
            ("iota containerd log now", "`now` is one word too many"),
            ("iota update", "`update` is followed by `check`, `download`, `install` or `cancel`"),
            (
                "iota update instal x",
                "`update` is followed by `check`, `download`, `install` or `cancel`",
            ),
            ("iota logs --kept -f", "--kept belongs after `logs`, without --follow"),
            ("iota status --kept", "--kept belongs after `logs`, without --follow"),
            ("iota update install x y", "`y` is one word too many"),
            ("iota commit now", "`now` is one word too many"),
            ("iota config", CONFIG_VERBS),
            ("iota config sett a b", "`a` is one word too many"),
            ("iota config set", "`config set` needs a key and a value"),
            ("iota config set hostname", "`config set` needs a key and a value"),
            ("iota config get a b", "`b` is one word too many"),
            ("iota config apply", "`config apply` needs a file"),
            ("iota config apply a b", "`b` is one word too many"),
            ("iota config confirm now", "`now` is one word too many"),
            ("iota config await-confirm --json", "`config await-confirm` has no --json"),
            (
                "iota config confirm --confirm-within 20s",
                "--confirm-within belongs after `config set` or `config apply`",
            ),
            (
                "iota config apply - --confirm-within 2h",
                "--confirm-within takes 5s to 3600s, or minutes as in 5m, not `2h`",
            ),
            ("iota config check", "`config check` needs a file"),
            ("iota config show now", "`now` is one word too many"),
            ("iota config load now", "`now` is one word too many"),
            ("iota config load --json", "`config load` has no --json"),
            ("iota reset now", "`now` is one word too many"),
            ("iota reset cancel --keep-identity", "--keep-identity belongs after `reset`"),
            ("iota status --keep-identity", "--keep-identity belongs after `reset`"),
            ("iota --frob", "there is no option `--frob`"),
            ("iota logs a b", "`b` is one word too many"),
            ("iota logs --json", "`logs` has no --json"),
            ("iota status --follow", "--follow belongs after `logs`"),
            ("iota logs --memory", "--memory belongs after `status`"),
            ("iota status --now", "--now belongs after `reboot` or `poweroff`"),
            ("iota status --system", "--system needs a file"),
        ] {
            assert_eq!(parse(line), Err(error.to_owned()), "{line}");
        }
    }
}
