//! What an image runs, as data: `rootfs/host.toml` and one of `rootfs/engines/*.toml`, checked and
//! turned into the system description that PID 1 reads (`ondisk::system`).
//!
//! Both files are strict: unknown keys are refused, and every item that is not explained by the
//! program it names carries a reason. Reasons and comments stay on the host.

use ondisk::system::{
    self, BackOff, Bind, Container, Directory, Led, Leftovers, Output, Owner, Persistent, Ready,
    Restart, Service, Sysctl, System, Tmpfs,
};
use serde::Deserialize;

use crate::board::toml_message;
use crate::error::{Context, Error, Result};

mod lacks;

pub use lacks::Lacks;

/// A container engine. Holding one proves: names, paths and modes are well formed, every reason is
/// there, and its service is one that PID 1 would accept.
#[derive(Clone, Debug)]
pub struct Engine {
    /// Its name, as in `rootfs/engines/NAME.toml`.
    pub name: String,
    /// The Debian packages it needs.
    pub packages: Vec<String>,
    /// Kernel modules it needs, loaded before it starts; the root has to carry them.
    pub modules: Vec<String>,
    /// What other engines have and this one has not.
    pub lacks: Lacks,
    part: Part,
    api: String,
    socket: String,
}

/// What runs on every image besides the engine; same guarantees as [`Engine`].
#[derive(Clone, Debug)]
pub struct Host {
    hostname: String,
    health: Option<system::Health>,
    part: Part,
}

/// What both files can ask of PID 1.
#[derive(Clone, Debug, Default)]
struct Part {
    sysctls: Vec<Sysctl>,
    tmpfs: Vec<Tmpfs>,
    directories: Vec<Directory>,
    binds: Vec<Bind>,
    persistent: Vec<Persistent>,
    services: Vec<Service>,
}

/// The word in `after` that stands for whichever engine the image has.
const ANY_ENGINE: &str = "engine";

impl Engine {
    /// Checks the text of `rootfs/engines/NAME.toml`.
    pub fn parse(text: &str, name: &str) -> Result<Engine> {
        let shown = || format!("rootfs/engines/{name}.toml");
        let raw: RawEngine =
            toml::from_str(text).map_err(|e| Error::new(toml_message(&e))).context(shown)?;
        let engine = raw.check(name).context(shown)?;
        // Nothing but a whole description can be checked by PID 1's own rules.
        let alone = Host { hostname: "check".to_owned(), health: None, part: Part::default() };
        alone.describe(None, Some(&engine), &[]).context(shown)?;
        Ok(engine)
    }
}

impl Host {
    /// Checks the text of `rootfs/host.toml`.
    pub fn parse(text: &str) -> Result<Host> {
        let shown = || "rootfs/host.toml".to_owned();
        let raw: RawHost =
            toml::from_str(text).map_err(|e| Error::new(toml_message(&e))).context(shown)?;
        let host = raw.check().context(shown)?;
        host.describe(None, None, &[]).context(shown)?;
        Ok(host)
    }

    /// The system description of an image with its board's LED, this engine and these containers.
    ///
    /// Order of services: the host's that do not wait for the engine, the engine, the rest.
    pub fn describe(
        &self,
        led: Option<&Led>,
        engine: Option<&Engine>,
        containers: &[Container],
    ) -> Result<System> {
        let waits = |service: &&Service| service.after.iter().any(|name| name == ANY_ENGINE);
        let hostname = self.hostname.clone();
        let (health, led) = (self.health.clone(), led.cloned());
        let mut system = System { hostname, health, led, ..System::default() };
        system.add(&self.part);
        system.services = self.part.services.iter().filter(|s| !waits(s)).cloned().collect();
        if let Some(engine) = engine {
            system.add(&engine.part);
            system.modules.extend(engine.modules.iter().cloned());
            let of_engine =
                |service: &Service| Service { skip_in_safe_mode: true, ..service.clone() };
            system.services.extend(engine.part.services.iter().map(of_engine));
            system.engine = Some(system::Engine {
                name: engine.name.clone(),
                service: engine.name.clone(),
                api: engine.api.clone(),
                socket: engine.socket.clone(),
            });
        }
        for mut service in self.part.services.iter().filter(waits).cloned() {
            service.after.retain(|name| name != ANY_ENGINE);
            service.after.extend(engine.map(|engine| engine.name.clone()));
            service.skip_in_safe_mode = engine.is_some();
            system.services.push(service);
        }
        system.containers = match engine {
            Some(engine) => containers.iter().map(|it| engine.place(it)).collect::<Result<_>>()?,
            None => containers.to_vec(),
        };
        system.encode().context(|| "the system description is not valid".to_owned())?;
        Ok(system)
    }
}

trait Add {
    fn add(&mut self, part: &Part);
}

impl Add for System {
    fn add(&mut self, part: &Part) {
        self.sysctls.extend(part.sysctls.iter().cloned());
        self.tmpfs.extend(part.tmpfs.iter().cloned());
        self.directories.extend(part.directories.iter().cloned());
        self.binds.extend(part.binds.iter().cloned());
        self.persistent.extend(part.persistent.iter().cloned());
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct RawEngine {
    name: String,
    api: String,
    socket: String,
    #[serde(default)]
    lacks: Lacks,
    package: Vec<RawPackage>,
    #[serde(default)]
    modules: Vec<RawModules>,
    #[serde(default)]
    sysctl: Vec<RawSysctl>,
    #[serde(default)]
    tmpfs: Vec<RawTmpfs>,
    #[serde(default)]
    directory: Vec<RawDirectory>,
    #[serde(default)]
    bind: Vec<RawBind>,
    #[serde(default)]
    persistent: Vec<RawPersistent>,
    service: Vec<RawService>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct RawHealth {
    service: String,
    window_s: u32,
    limit_s: u32,
    reason: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct RawHost {
    hostname: String,
    health: Option<RawHealth>,
    #[serde(default)]
    sysctl: Vec<RawSysctl>,
    #[serde(default)]
    tmpfs: Vec<RawTmpfs>,
    #[serde(default)]
    directory: Vec<RawDirectory>,
    #[serde(default)]
    bind: Vec<RawBind>,
    #[serde(default)]
    persistent: Vec<RawPersistent>,
    service: Vec<RawService>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawPackage {
    name: String,
    reason: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawModules {
    names: Vec<String>,
    reason: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawSysctl {
    name: String,
    value: String,
    reason: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawTmpfs {
    path: String,
    mode: String,
    size: String,
    reason: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawDirectory {
    path: String,
    mode: String,
    owner: String,
    reason: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawBind {
    source: String,
    target: String,
    reason: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawPersistent {
    name: String,
    path: String,
    mode: String,
    owner: String,
    layers: Option<String>,
    reason: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct RawService {
    name: String,
    reason: String,
    command: Vec<String>,
    environment: Vec<String>,
    #[serde(default)]
    after: Vec<String>,
    ready: String,
    restart: RawRestart,
    stop_timeout_ms: u32,
    leftovers: RawLeftovers,
    output: RawOutput,
    oom_score_adjust: i32,
    #[serde(default)]
    cpu_weight: Option<u32>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", tag = "when")]
enum RawRestart {
    Never,
    #[serde(rename_all = "kebab-case")]
    OnFailure {
        first_ms: u32,
        longest_ms: u32,
    },
    #[serde(rename_all = "kebab-case")]
    Always {
        first_ms: u32,
        longest_ms: u32,
    },
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
enum RawLeftovers {
    Keep,
    Kill,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
enum RawOutput {
    Console,
    Log,
    Verbatim,
}

impl RawEngine {
    fn check(self, file: &str) -> Result<Engine> {
        if self.name != file {
            return Err(Error::new(format!("name is `{}`, but the file is `{file}`", self.name)));
        }
        if self.name == ANY_ENGINE {
            return Err(Error::new(format!("`{ANY_ENGINE}` stands for every engine")));
        }
        let mut packages = Vec::new();
        for package in self.package {
            reason("package", &package.name, &package.reason)?;
            packages.push(package.name);
        }
        let mut modules = Vec::new();
        for group in self.modules {
            reason("modules", &group.names.join(", "), &group.reason)?;
            modules.extend(group.names);
        }
        self.lacks.check()?;
        let check = |service: RawService| service.check(Some(&self.socket));
        let services = all(self.service, check)?;
        Ok(Engine {
            packages,
            modules,
            lacks: self.lacks,
            part: Part {
                sysctls: all(self.sysctl, RawSysctl::check)?,
                tmpfs: all(self.tmpfs, RawTmpfs::check)?,
                directories: all(self.directory, RawDirectory::check)?,
                binds: all(self.bind, RawBind::check)?,
                persistent: all(self.persistent, RawPersistent::check)?,
                services,
            },
            name: self.name,
            api: self.api,
            socket: self.socket,
        })
    }
}

impl RawHost {
    fn check(self) -> Result<Host> {
        let health = |raw: RawHealth| {
            reason("health", &raw.service, &raw.reason)?;
            let RawHealth { service, window_s, limit_s, .. } = raw;
            Ok(system::Health { service, window_s, limit_s })
        };
        Ok(Host {
            hostname: self.hostname,
            health: self.health.map(health).transpose()?,
            part: Part {
                sysctls: all(self.sysctl, RawSysctl::check)?,
                tmpfs: all(self.tmpfs, RawTmpfs::check)?,
                directories: all(self.directory, RawDirectory::check)?,
                binds: all(self.bind, RawBind::check)?,
                persistent: all(self.persistent, RawPersistent::check)?,
                services: all(self.service, |service| service.check(None))?,
            },
        })
    }
}

fn all<Raw, Good>(raw: Vec<Raw>, check: impl Fn(Raw) -> Result<Good>) -> Result<Vec<Good>> {
    raw.into_iter().map(check).collect()
}

fn reason(kind: &str, what: &str, reason: &str) -> Result<()> {
    if reason.trim().is_empty() {
        return Err(Error::new(format!("{kind} {what} has no reason")));
    }
    Ok(())
}

impl RawSysctl {
    fn check(self) -> Result<Sysctl> {
        reason("sysctl", &self.name, &self.reason)?;
        Ok(Sysctl { name: self.name, value: self.value })
    }
}

impl RawTmpfs {
    fn check(self) -> Result<Tmpfs> {
        reason("tmpfs", &self.path, &self.reason)?;
        Ok(Tmpfs { mode: mode(&self.mode)?, path: self.path, size: self.size })
    }
}

impl RawDirectory {
    fn check(self) -> Result<Directory> {
        reason("directory", &self.path, &self.reason)?;
        Ok(Directory { mode: mode(&self.mode)?, owner: owner(&self.owner)?, path: self.path })
    }
}

impl RawBind {
    fn check(self) -> Result<Bind> {
        reason("bind", &self.target, &self.reason)?;
        Ok(Bind { source: self.source, target: self.target })
    }
}

impl RawPersistent {
    fn check(self) -> Result<Persistent> {
        reason("persistent", &self.path, &self.reason)?;
        let (mode, owner) = (mode(&self.mode)?, owner(&self.owner)?);
        Ok(Persistent { name: self.name, path: self.path, mode, owner, layers: self.layers })
    }
}

impl RawService {
    /// What the words mean; whether they are good is checked by `ondisk::system` as a whole.
    /// Only an engine has a socket to ask.
    fn check(self, socket: Option<&str>) -> Result<Service> {
        reason("service", &self.name, &self.reason)?;
        let ready = match (self.ready.as_str(), socket) {
            ("started", _) => Ready::Started,
            ("exit", _) => Ready::Exit,
            (path, Some(socket)) => {
                Ready::Http { socket: socket.to_owned(), path: path.to_owned() }
            }
            (_, None) => {
                return Err(Error::new(format!("service {} has no socket to ask", self.name)));
            }
        };
        Ok(Service {
            name: self.name,
            arguments: self.command,
            environment: self.environment,
            user: Owner::default(),
            after: self.after,
            ready,
            restart: self.restart.into(),
            stop_timeout_ms: self.stop_timeout_ms,
            leftovers: match self.leftovers {
                RawLeftovers::Keep => Leftovers::Keep,
                RawLeftovers::Kill => Leftovers::Kill,
            },
            output: match self.output {
                RawOutput::Console => Output::Console,
                RawOutput::Log => Output::Log,
                RawOutput::Verbatim => Output::Verbatim,
            },
            skip_in_safe_mode: false,
            oom_score_adjust: self.oom_score_adjust,
            cpu_weight: self.cpu_weight.unwrap_or(Service::CPU_WEIGHT),
        })
    }
}

impl From<RawRestart> for Restart {
    fn from(raw: RawRestart) -> Self {
        match raw {
            RawRestart::Never => Self::Never,
            RawRestart::OnFailure { first_ms, longest_ms } => {
                Self::OnFailure(BackOff { first_ms, longest_ms })
            }
            RawRestart::Always { first_ms, longest_ms } => {
                Self::Always(BackOff { first_ms, longest_ms })
            }
        }
    }
}

/// `0755` → bits; always four digits, so that special bits are seen to be there or not.
pub(crate) fn mode(text: &str) -> Result<u32> {
    let octal = text.len() == 4 && text.bytes().all(|byte| matches!(byte, b'0'..=b'7'));
    octal.then(|| u32::from_str_radix(text, 8).ok()).flatten().ok_or_else(|| {
        Error::new(format!("`{text}` is not a mode")).hint("write four octal digits: \"0755\"")
    })
}

fn owner(text: &str) -> Result<Owner> {
    let parsed = text
        .split_once(':')
        .and_then(|(user, group)| Some((user.parse().ok()?, group.parse().ok()?)));
    let (user, group) = parsed.ok_or_else(|| {
        Error::new(format!("`{text}` is not an owner")).hint("write numbers: \"0:0\"")
    })?;
    Ok(Owner { user, group })
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOST: &str = include_str!("../../rootfs/host.toml");
    const DOCKER: &str = include_str!("../../rootfs/engines/docker.toml");
    const PODMAN: &str = include_str!("../../rootfs/engines/podman.toml");
    const CONTAINERD: &str = include_str!("../../rootfs/engines/containerd.toml");

    #[test]
    fn the_shipped_host_and_engine_make_a_description_that_pid_1_reads_back() {
        let engine = Engine::parse(DOCKER, "docker").unwrap();
        let system = Host::parse(HOST).unwrap().describe(None, Some(&engine), &[]).unwrap();
        let names: Vec<&str> = system.services.iter().map(|service| &*service.name).collect();
        assert_eq!(
            names,
            [
                "config",
                "identity",
                "reset-marker",
                "network",
                "wifi",
                "time",
                "names",
                "ssh",
                "commands",
                "updates",
                "logs",
                "crash",
                "watchdog",
                "screen",
                "output",
                "containerd",
                "docker",
                "zram",
                "on-demand",
                "agent",
                "grow",
                "health"
            ]
        );
        assert_eq!(system.service("agent").unwrap().after, ["config", "docker"]);
        assert_eq!(system.service("docker").unwrap().after, ["containerd", "output"]);
        let safe: Vec<&str> = system
            .services
            .iter()
            .filter(|service| !service.skip_in_safe_mode)
            .map(|service| &*service.name)
            .collect();
        assert_eq!(
            safe,
            [
                "config",
                "identity",
                "reset-marker",
                "network",
                "wifi",
                "time",
                "names",
                "ssh",
                "commands",
                "updates",
                "logs",
                "crash",
                "watchdog",
                "screen"
            ],
            "what is left without an engine"
        );
        assert!(matches!(&system.service("docker").unwrap().ready,
            Ready::Http { socket, path } if socket == "/run/docker.sock" && path == "/_ping"));
        let text = system.encode().unwrap();
        assert_eq!(System::parse(&text).unwrap(), system);
    }

    #[test]
    fn containers_of_an_engine_without_networks_have_the_hosts_or_none() {
        let engine = Engine::parse(CONTAINERD, "containerd").unwrap();
        let host = Host::parse(HOST).unwrap();
        let container = |network: &str, publish: &[(u16, u16)]| Container {
            name: "web".to_owned(),
            image: "/usr/share/iota/images/web.tar".to_owned(),
            arguments: Vec::new(),
            environment: Vec::new(),
            network: network.to_owned(),
            publish: (publish.iter())
                .map(|(host, container)| system::Publish { host: *host, container: *container })
                .collect(),
            after: Vec::new(),
            again: system::Again::Always,
            on_demand: false,
        };
        let described = |it: Container| host.describe(None, Some(&engine), &[it]);
        let system = described(container("bridge", &[(80, 80)])).unwrap();
        assert_eq!(system.containers, [container("host", &[])]);
        assert_eq!(system.service("containerd").unwrap().after, ["output"]);
        assert_eq!(system.service("containers").unwrap().after, ["containerd"]);
        assert_eq!(system.service("agent").unwrap().after, ["config", "containerd"]);
        assert_eq!(System::parse(&system.encode().unwrap()).unwrap(), system);
        for network in ["host", "none"] {
            let system = described(container(network, &[])).unwrap();
            assert_eq!(system.containers, [container(network, &[])]);
        }
        let error = described(container("bridge", &[(8080, 80)])).unwrap_err().chain();
        assert!(error.contains("container web, engine containerd: it makes none"), "{error}");
        assert!(error.contains("publish `8080:80`: its port 80 is the host's port 80"), "{error}");
        let error = described(container("macvlan", &[])).unwrap_err().chain();
        assert!(error.contains("network `macvlan`: there is `host` or `none`"), "{error}");
        let docker = Engine::parse(DOCKER, "docker").unwrap();
        let published = container("bridge", &[(8080, 80)]);
        let system = host.describe(None, Some(&docker), std::slice::from_ref(&published)).unwrap();
        assert_eq!(system.containers, [published]);
    }

    #[test]
    fn every_shipped_engine_has_a_socket_that_dockers_clients_find() {
        for (name, text) in [("docker", DOCKER), ("podman", PODMAN)] {
            let engine = Engine::parse(text, name).unwrap();
            let system = Host::parse(HOST).unwrap().describe(None, Some(&engine), &[]).unwrap();
            let described = system.engine.as_ref().unwrap();
            assert_eq!((&*described.api, &*described.socket), (name, "/run/docker.sock"));
            assert_eq!(system.service("agent").unwrap().after, ["config", name]);
            assert_eq!(System::parse(&system.encode().unwrap()).unwrap(), system);
        }
    }

    #[test]
    fn the_led_of_the_board_reaches_the_description() {
        let stage = |text: &str| text.parse().unwrap();
        let led = Led {
            name: "ACT".to_owned(),
            starting: stage("timer delay_on=100 delay_off=100"),
            running: stage("heartbeat"),
            safe: stage("none"),
            stopping: stage("default-on"),
        };
        let system = Host::parse(HOST).unwrap().describe(Some(&led), None, &[]).unwrap();
        assert_eq!(System::parse(&system.encode().unwrap()).unwrap().led, Some(led));
    }

    #[test]
    fn an_image_without_an_engine_waits_for_none() {
        let system = Host::parse(HOST).unwrap().describe(None, None, &[]).unwrap();
        assert!(system.engine.is_none());
        assert_eq!(system.service("agent").unwrap().after, ["config"]);
    }

    #[test]
    fn one_wrong_value_gives_one_exact_error() {
        let cases = [
            ("name = \"docker\"", "name = \"podman\"", "name is `podman`, but the file is"),
            ("\nname = \"docker\"\nreason", "\nname = \"x\"\nreason", "no service `docker`"),
            ("reason = \"layers of images\"", "reason = \"\"", "modules overlay has no reason"),
            ("mode = \"0710\"", "mode = \"710\"", "`710` is not a mode"),
            ("owner = \"0:0\"", "owner = \"root\"", "`root` is not an owner"),
            ("\"/usr/sbin/dockerd\"", "\"dockerd\"", "`dockerd` is not a plain absolute path"),
            ("when = \"always\"", "when = \"sometimes\"", "unknown variant `sometimes`"),
            ("leftovers", "leftover", "unknown field `leftover`"),
            ("\n[[package]]", "\n[lacks]\napps = \"\"\n[[package]]", "lacks apps has no reason"),
        ];
        for (old, new, expected) in cases {
            assert!(DOCKER.contains(old), "the sample has no `{old}`");
            let error = Engine::parse(&DOCKER.replacen(old, new, 1), "docker").unwrap_err();
            assert!(error.chain().contains(expected), "{}", error.chain());
        }
    }

    #[test]
    fn modes_are_four_octal_digits() {
        let cases = [("0755", Some(0o755)), ("1777", Some(0o1777)), ("755", None), ("9", None)];
        for (text, expected) in cases {
            assert_eq!(mode(text).ok(), expected, "{text}");
        }
    }
}
