//! Reads the words of a system description.
//!
//! Order and exact spelling are not looked at here: [`System::parse`] compares with what the writer
//! would have written, which refuses every second spelling at once.

use alloc::borrow::ToOwned;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use core::str::FromStr;

use super::*;

pub(super) fn read(text: &str) -> Result<System, Error> {
    let mut lines = text.lines().enumerate();
    if lines.next().map(|(_, header)| header) != Some(HEADER) {
        return Err(Error { line: 1, problem: format!("not a description: expected `{HEADER}`") });
    }
    let mut system = System::default();
    let mut section = Section::Top;
    for (index, line) in lines {
        let read = match line.strip_prefix("  ") {
            Some(field) => read_field(&mut system, section, field),
            None => read_item(&mut system, line).map(|opened| section = opened),
        };
        read.map_err(|error| Error { line: index.saturating_add(1), ..error })?;
    }
    Ok(system)
}

/// The item that indented lines belong to.
#[derive(Clone, Copy)]
enum Section {
    Top,
    Engine,
    Health,
    Led,
    Service,
    Container,
}

fn read_item(system: &mut System, line: &str) -> Result<Section, Error> {
    let (key, value) = words(line)?;
    match key {
        "hostname" => system.hostname = value.to_owned(),
        "engine" => {
            system.engine = Some(Engine::named(value));
            return Ok(Section::Engine);
        }
        "health" => {
            let service = value.to_owned();
            system.health = Some(Health { service, window_s: 0, limit_s: 0 });
            return Ok(Section::Health);
        }
        "led" => {
            system.led = Some(Led::named(value));
            return Ok(Section::Led);
        }
        "module" => system.modules.push(value.to_owned()),
        "sysctl" => {
            let (name, value) = split(value, '=')?;
            system.sysctls.push(Sysctl { name: name.to_owned(), value: value.to_owned() });
        }
        "service" => {
            system.services.push(Service::named(value));
            return Ok(Section::Service);
        }
        "container" => {
            system.containers.push(Container::named(value));
            return Ok(Section::Container);
        }
        _ => read_mount(system, key, value)?,
    }
    Ok(Section::Top)
}

fn read_mount(system: &mut System, key: &str, value: &str) -> Result<(), Error> {
    let fields: Vec<&str> = value.split(' ').collect();
    match (key, fields.as_slice()) {
        ("tmpfs", [path, mode, size]) => system.tmpfs.push(Tmpfs {
            path: (*path).to_owned(),
            mode: octal(mode)?,
            size: attribute(size, "size=")?.to_owned(),
        }),
        ("directory", [path, mode, owner]) => system.directories.push(Directory {
            path: (*path).to_owned(),
            mode: octal(mode)?,
            owner: attribute(owner, "owner=")?.parse()?,
        }),
        ("bind", [source, target]) => {
            let bind = Bind { source: (*source).to_owned(), target: (*target).to_owned() };
            system.binds.push(bind);
        }
        ("persistent", [name, path, mode, owner, rest @ ..]) if rest.len() <= 1 => {
            let layers = rest.first().map(|layers| attribute(layers, "layers="));
            system.persistent.push(Persistent {
                name: (*name).to_owned(),
                path: (*path).to_owned(),
                mode: octal(mode)?,
                owner: attribute(owner, "owner=")?.parse()?,
                layers: layers.transpose()?.map(str::to_owned),
            });
        }
        ("tmpfs" | "directory" | "bind" | "persistent", _) => {
            return Err(fault(format!("`{key}` does not have that many words")));
        }
        _ => return Err(fault(format!("unknown word `{key}`"))),
    }
    Ok(())
}

fn read_field(system: &mut System, section: Section, field: &str) -> Result<(), Error> {
    let (key, value) = words(field)?;
    let known = match section {
        Section::Top => false,
        Section::Engine => match &mut system.engine {
            Some(engine) => engine.read(key, value),
            None => false,
        },
        Section::Health => match &mut system.health {
            Some(health) => health.read(key, value)?,
            None => false,
        },
        Section::Led => match &mut system.led {
            Some(led) => led.read(key, value)?,
            None => false,
        },
        Section::Service => match system.services.last_mut() {
            Some(service) => service.read(key, value)?,
            None => false,
        },
        Section::Container => match system.containers.last_mut() {
            Some(container) => container.read(key, value)?,
            None => false,
        },
    };
    if known { Ok(()) } else { Err(fault(format!("`{key}` does not belong here"))) }
}

impl Engine {
    fn named(name: &str) -> Self {
        let empty = String::new;
        Self { name: name.to_owned(), service: empty(), api: empty(), socket: empty() }
    }

    fn read(&mut self, key: &str, value: &str) -> bool {
        match key {
            "service" => self.service = value.to_owned(),
            "api" => self.api = value.to_owned(),
            "socket" => self.socket = value.to_owned(),
            _ => return false,
        }
        true
    }
}

impl Health {
    fn read(&mut self, key: &str, value: &str) -> Result<bool, Error> {
        match key {
            "window-s" => self.window_s = number(value)?,
            "limit-s" => self.limit_s = number(value)?,
            _ => return Ok(false),
        }
        Ok(true)
    }
}

impl Led {
    fn named(name: &str) -> Self {
        let missing = Pattern::default;
        Self {
            name: name.to_owned(),
            starting: missing(),
            running: missing(),
            safe: missing(),
            stopping: missing(),
        }
    }

    fn read(&mut self, key: &str, value: &str) -> Result<bool, Error> {
        match key {
            "starting" => self.starting = value.parse()?,
            "running" => self.running = value.parse()?,
            "safe" => self.safe = value.parse()?,
            "stopping" => self.stopping = value.parse()?,
            _ => return Ok(false),
        }
        Ok(true)
    }
}

impl Service {
    /// A service with the settings that most have: root, restarted always, output on the console.
    pub fn named(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            arguments: Vec::new(),
            environment: Vec::new(),
            user: Owner::default(),
            after: Vec::new(),
            ready: Ready::Started,
            restart: Restart::Always(BackOff { first_ms: 500, longest_ms: 30_000 }),
            stop_timeout_ms: 10_000,
            leftovers: Leftovers::Kill,
            output: Output::Console,
            oom_score_adjust: 0,
            cpu_weight: Self::CPU_WEIGHT,
            skip_in_safe_mode: false,
        }
    }

    fn read(&mut self, key: &str, value: &str) -> Result<bool, Error> {
        match key {
            "argument" => self.arguments.push(value.to_owned()),
            "environment" => self.environment.push(value.to_owned()),
            "user" => self.user = value.parse()?,
            "after" => self.after.push(value.to_owned()),
            "ready" => self.ready = value.parse()?,
            "restart" => self.restart = value.parse()?,
            "stop-timeout-ms" => self.stop_timeout_ms = number(value)?,
            "leftovers" => self.leftovers = value.parse()?,
            "output" => self.output = value.parse()?,
            "oom-score-adjust" => self.oom_score_adjust = number(value)?,
            "cpu-weight" => self.cpu_weight = number(value)?,
            "safe-mode" if value == "skip" => self.skip_in_safe_mode = true,
            _ => return Ok(false),
        }
        Ok(true)
    }
}

impl Container {
    /// A container of an image, with the image's command and no network.
    pub fn named(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            image: String::new(),
            arguments: Vec::new(),
            environment: Vec::new(),
            network: "none".to_owned(),
            publish: Vec::new(),
            after: Vec::new(),
            again: Again::Always,
            on_demand: false,
        }
    }

    fn read(&mut self, key: &str, value: &str) -> Result<bool, Error> {
        match key {
            "image" => self.image = value.to_owned(),
            "argument" => self.arguments.push(value.to_owned()),
            "environment" => self.environment.push(value.to_owned()),
            "network" => self.network = value.to_owned(),
            "publish" => {
                let (host, container) = split(value, ':')?;
                let publish = Publish { host: number(host)?, container: number(container)? };
                self.publish.push(publish);
            }
            "after" => self.after.push(value.to_owned()),
            "restart" if value == "on-failure" => self.again = Again::OnFailure,
            "restart" if value == "never" => self.again = Again::Never,
            "start" if value == "on-demand" => self.on_demand = true,
            _ => return Ok(false),
        }
        Ok(true)
    }
}

impl FromStr for Pattern {
    type Err = Error;
    fn from_str(text: &str) -> Result<Self, Error> {
        let mut words = text.split(' ');
        let trigger = words.next().unwrap_or_default().to_owned();
        let setting = |word| {
            let (file, value) = split(word, '=')?;
            Ok(Setting { file: file.to_owned(), value: value.to_owned() })
        };
        Ok(Self { trigger, settings: words.map(setting).collect::<Result<_, Error>>()? })
    }
}

impl FromStr for Owner {
    type Err = Error;
    fn from_str(text: &str) -> Result<Self, Error> {
        let (user, group) = split(text, ':')?;
        Ok(Self { user: number(user)?, group: number(group)? })
    }
}

impl FromStr for Ready {
    type Err = Error;
    fn from_str(text: &str) -> Result<Self, Error> {
        let words: Vec<&str> = text.split(' ').collect();
        match words.as_slice() {
            ["started"] => Ok(Self::Started),
            ["exit"] => Ok(Self::Exit),
            ["http", socket, path] => {
                Ok(Self::Http { socket: (*socket).to_owned(), path: (*path).to_owned() })
            }
            _ => Err(fault(format!("`{text}` is no way to be ready"))),
        }
    }
}

impl FromStr for Restart {
    type Err = Error;
    fn from_str(text: &str) -> Result<Self, Error> {
        let words: Vec<&str> = text.split(' ').collect();
        let back_off = |first, longest| {
            Ok(BackOff {
                first_ms: number(attribute(first, "first=")?)?,
                longest_ms: number(attribute(longest, "longest=")?)?,
            })
        };
        match words.as_slice() {
            ["never"] => Ok(Self::Never),
            ["on-failure", first, longest] => back_off(first, longest).map(Self::OnFailure),
            ["always", first, longest] => back_off(first, longest).map(Self::Always),
            _ => Err(fault(format!("`{text}` is no restart rule"))),
        }
    }
}

impl FromStr for Leftovers {
    type Err = Error;
    fn from_str(text: &str) -> Result<Self, Error> {
        match text {
            "keep" => Ok(Self::Keep),
            "kill" => Ok(Self::Kill),
            _ => Err(fault(format!("leftovers are `keep` or `kill`, not `{text}`"))),
        }
    }
}

impl FromStr for Output {
    type Err = Error;
    fn from_str(text: &str) -> Result<Self, Error> {
        match text {
            "console" => Ok(Self::Console),
            "log" => Ok(Self::Log),
            "verbatim" => Ok(Self::Verbatim),
            _ => Err(fault(format!("output goes to console, log or verbatim, not `{text}`"))),
        }
    }
}

fn words(line: &str) -> Result<(&str, &str), Error> {
    line.split_once(' ').ok_or_else(|| fault(format!("`{line}` has no value")))
}

fn split(value: &str, at: char) -> Result<(&str, &str), Error> {
    value.split_once(at).ok_or_else(|| fault(format!("`{value}` has no `{at}`")))
}

fn attribute<'a>(word: &'a str, key: &str) -> Result<&'a str, Error> {
    word.strip_prefix(key).ok_or_else(|| fault(format!("expected `{key}…`, found `{word}`")))
}

fn number<T: FromStr>(text: &str) -> Result<T, Error> {
    text.parse().map_err(|_| fault(format!("`{text}` is not a number in range")))
}

fn octal(word: &str) -> Result<u32, Error> {
    let digits = attribute(word, "mode=")?;
    u32::from_str_radix(digits, 8).map_err(|_| fault(format!("`{digits}` is not a mode")))
}
