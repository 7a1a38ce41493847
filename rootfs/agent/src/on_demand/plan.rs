//! What is to be held for whom, as files in memory: between `iota services` and `iota app …`, which
//! run apps, and `iota on-demand`, which holds their ports.
//!
//! ```text
//! /run/iota/on-demand/plans/APP.json      what is wanted; whoever changes the app writes it
//! /run/iota/on-demand/states/APP.json     what came of it; the holder writes it
//! /run/iota/on-demand/compose/APP.yaml    what Compose reads beside the app's own file
//! ```
//!
//! A state has the number of the plan that it answers: so whoever changed a plan knows when ports
//! are held, and when they have been given back.

use std::fmt;
use std::fs;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use rustix::time::{ClockId, clock_gettime};
use serde_json::{Value, json};

use crate::files;

/// How long the holder may take to answer a plan.
const PATIENCE: Duration = Duration::from_secs(10);
/// Pause between two looks for its answer.
const PACE: Duration = Duration::from_millis(20);

/// A port of the host that leads to one of a container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Port {
    /// The host's address; all of them if absent.
    pub address: Option<IpAddr>,
    /// The host's port.
    pub host: u16,
    /// The container's.
    pub container: u16,
}

impl Port {
    /// Where to listen. All addresses are those of IPv6, which take connections of IPv4 too.
    pub fn socket(&self) -> SocketAddr {
        SocketAddr::new(self.address.unwrap_or(Ipv6Addr::UNSPECIFIED.into()), self.host)
    }

    /// The same on a host without IPv6, if that is another place.
    pub fn socket_without_ipv6(&self) -> Option<SocketAddr> {
        let any = SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), self.host);
        self.address.is_none().then_some(any)
    }
}

impl fmt::Display for Port {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.address {
            None => write!(out, "{}", self.host),
            Some(address) => SocketAddr::new(address, self.host).fmt(out),
        }
    }
}

/// On which terms a service runs on demand.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Terms {
    /// It is stopped when no connection has been open for so long.
    pub idle_s: u64,
    /// So long a connection waits for its start.
    pub start_within_s: u64,
    /// What starts it; not empty.
    pub ports: Vec<Port>,
}

impl Terms {
    /// Out of what the builder writes of a service; `None` for one that runs all the time.
    pub fn parse(value: &Value) -> Result<Option<Self>, String> {
        if value.is_null() {
            return Ok(None);
        }
        let seconds = |key: &str| {
            let number = value[key].as_u64().filter(|seconds| *seconds > 0);
            number.ok_or_else(|| format!("`{key}` of a service on demand is missing"))
        };
        let ports = value["ports"].as_array().map(Vec::as_slice).unwrap_or_default();
        let ports = ports.iter().map(port).collect::<Result<Vec<Port>, String>>()?;
        if ports.is_empty() {
            return Err("a service on demand has no port".to_owned());
        }
        let (idle_s, start_within_s) = (seconds("idle-s")?, seconds("start-within-s")?);
        Ok(Some(Self { idle_s, start_within_s, ports }))
    }

    /// The same for programs.
    pub fn json(&self) -> Value {
        let ports = self.ports.iter().map(|port| {
            let address = port.address.map(|address| address.to_string());
            json!({ "address": address, "host": port.host, "container": port.container })
        });
        json!({
            "idle-s": self.idle_s,
            "start-within-s": self.start_within_s,
            "ports": ports.collect::<Vec<_>>(),
        })
    }
}

fn port(value: &Value) -> Result<Port, String> {
    let number = |key: &str| {
        let number = value[key].as_u64().and_then(|number| u16::try_from(number).ok());
        number.filter(|it| *it > 0).ok_or_else(|| format!("`{key}` of a port is missing"))
    };
    let address = value["address"]
        .as_str()
        .map(|text| text.parse().map_err(|_| format!("`{text}` is not an address of a port")));
    Ok(Port {
        address: address.transpose()?,
        host: number("host")?,
        container: number("container")?,
    })
}

/// What is to be held for an app.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// Which plan it is; a later one has a higher number.
    pub serial: u64,
    /// The app.
    pub app: String,
    /// Whether containers go on running without a connection: while a release is on trial.
    pub stays: bool,
    /// Its services that run on demand.
    pub services: Vec<(String, Terms)>,
}

impl Plan {
    fn parse(text: &str) -> Result<Self, String> {
        let document: Value = serde_json::from_str(text).map_err(|error| error.to_string())?;
        let app = crate::apps::app_name(document["app"].as_str().unwrap_or_default())?.to_owned();
        let mut services = Vec::new();
        for value in document["services"].as_array().into_iter().flatten() {
            let name = value["name"].as_str().unwrap_or_default().to_owned();
            services.extend(Terms::parse(&value["terms"])?.map(|terms| (name, terms)));
        }
        let serial = document["serial"].as_u64().ok_or("the plan has no number")?;
        Ok(Self { serial, app, stays: document["stays"] == json!(true), services })
    }

    fn text(&self) -> String {
        let services = self.services.iter();
        let services = services.map(|(name, terms)| json!({ "name": name, "terms": terms.json() }));
        json!({
            "serial": self.serial,
            "app": self.app,
            "stays": self.stays,
            "services": services.collect::<Vec<_>>(),
        })
        .to_string()
    }

    /// Whether it holds the same ports for the same services as another.
    pub fn holds_as(&self, other: &Self) -> bool {
        let ports = |plan: &Self| -> Vec<(String, Vec<Port>)> {
            plan.services.iter().map(|(name, it)| (name.clone(), it.ports.clone())).collect()
        };
        ports(self) == ports(other)
    }
}

/// What came of a plan.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct State {
    /// Which plan it was.
    pub serial: u64,
    /// Why a port is not held.
    pub unheld: Option<String>,
    /// Services whose last start failed, with the reason.
    pub troubles: Vec<(String, String)>,
}

impl State {
    fn parse(text: &str) -> Option<Self> {
        let document: Value = serde_json::from_str(text).ok()?;
        let troubles = document["troubles"].as_object().into_iter().flatten();
        let troubles =
            troubles.map(|(name, why)| (name.clone(), why.as_str().unwrap_or_default().into()));
        Some(Self {
            serial: document["serial"].as_u64()?,
            unheld: document["unheld"].as_str().map(str::to_owned),
            troubles: troubles.collect(),
        })
    }

    fn text(&self) -> String {
        let troubles = self.troubles.iter().map(|(name, why)| (name.clone(), json!(why)));
        let troubles: serde_json::Map<String, Value> = troubles.collect();
        json!({ "serial": self.serial, "unheld": self.unheld, "troubles": troubles }).to_string()
    }
}

/// Where those files lie.
#[derive(Clone, Debug)]
pub struct Places {
    /// The directory of all of them.
    pub root: PathBuf,
}

impl Places {
    /// Those of a device.
    pub fn device() -> Self {
        Self { root: "/run/iota/on-demand".into() }
    }

    /// Where plans lie.
    pub fn plans(&self) -> PathBuf {
        self.root.join("plans")
    }

    fn plan(&self, app: &str) -> PathBuf {
        self.plans().join(format!("{app}.json"))
    }

    fn state(&self, app: &str) -> PathBuf {
        self.root.join("states").join(format!("{app}.json"))
    }

    /// What Compose reads beside the file of an app.
    pub fn compose(&self, app: &str) -> PathBuf {
        self.root.join("compose").join(format!("{app}.yaml"))
    }

    /// Makes the directories.
    pub fn make(&self) -> io::Result<()> {
        ["plans", "states", "compose"]
            .iter()
            .try_for_each(|name| fs::create_dir_all(self.root.join(name)))
    }

    /// What a holder of before has told is not true any more: it is gone, and so are its ports.
    pub fn forget_answers(&self) -> io::Result<()> {
        let states = self.root.join("states");
        files::remove_tree(&states)?;
        fs::create_dir_all(states)
    }

    /// What is wanted for an app now.
    pub fn planned(&self, app: &str) -> Option<Plan> {
        Plan::parse(&fs::read_to_string(self.plan(app)).ok()?).ok()
    }

    /// All plans, sorted by app; one that cannot be read is as if it were not there.
    pub fn all(&self) -> Vec<Plan> {
        let entries = fs::read_dir(self.plans()).into_iter().flatten().flatten();
        let paths = entries.map(|entry| entry.path());
        let mut plans: Vec<Plan> = paths
            .filter(|path| path.extension().is_some_and(|it| it == "json"))
            .filter_map(|path| Plan::parse(&fs::read_to_string(path).ok()?).ok())
            .collect();
        plans.sort_by(|one, other| one.app.cmp(&other.app));
        plans
    }

    /// Says what is to be held for an app; comes back when it is held.
    pub fn want(
        &self,
        app: &str,
        stays: bool,
        services: Vec<(String, Terms)>,
    ) -> Result<(), String> {
        let plan = Plan { serial: serial(), app: app.to_owned(), stays, services };
        let path = self.plan(app);
        self.make()
            .and_then(|()| files::replace(&path, plan.text().as_bytes(), 0o600))
            .map_err(|error| format!("cannot write {}: {error}", path.display()))?;
        let answers = |state: Option<State>| state.filter(|state| state.serial == plan.serial);
        match self.wait(app, answers)?.unheld {
            Some(why) => Err(why),
            None => Ok(()),
        }
    }

    /// Nothing is to be held for an app any more; comes back when its ports are free.
    pub fn withdraw(&self, app: &str) -> Result<(), String> {
        let path = self.plan(app);
        match files::remove(&path) {
            Ok(false) => return Ok(()),
            Ok(true) => {}
            Err(error) => return Err(format!("cannot remove {}: {error}", path.display())),
        }
        self.wait(app, |state| state.is_none().then_some(()))
    }

    fn wait<T>(&self, app: &str, wanted: impl Fn(Option<State>) -> Option<T>) -> Result<T, String> {
        let began = Instant::now();
        loop {
            if let Some(found) = wanted(self.answer(app)) {
                return Ok(found);
            }
            if began.elapsed() >= PATIENCE {
                return Err("the service on-demand, which holds ports, does not answer\nhint: \
                            `iota logs on-demand` has what it said"
                    .to_owned());
            }
            thread::sleep(PACE);
        }
    }

    /// What came of the plan of an app.
    pub fn answer(&self, app: &str) -> Option<State> {
        State::parse(&fs::read_to_string(self.state(app)).ok()?)
    }

    /// What came of a plan, told; `None` when nothing is held for the app any more.
    pub fn tell(&self, app: &str, state: Option<&State>) -> io::Result<()> {
        let path: &Path = &self.state(app);
        match state {
            Some(state) => files::replace(path, state.text().as_bytes(), 0o600),
            None => files::remove(path).map(drop),
        }
    }
}

/// A number that is higher each time: the nanoseconds since the start of the machine.
fn serial() -> u64 {
    let now = clock_gettime(ClockId::Boottime);
    let (seconds, rest) = (u64::try_from(now.tv_sec), u64::try_from(now.tv_nsec));
    seconds.unwrap_or_default().saturating_mul(1_000_000_000).saturating_add(rest.unwrap_or(0))
}

/// What Compose reads beside the app's own file: these ports are not its business, and nobody but
/// the holder starts these containers again.
pub fn compose_text<'a>(services: impl Iterator<Item = &'a str>) -> String {
    let services = services.map(|name| format!("  \"{name}\":\n    ports: !reset []\n"));
    format!("services:\n{}", services.collect::<String>())
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) fn terms(ports: &[(u16, u16)]) -> Terms {
        let port = |(host, container): &(u16, u16)| Port {
            address: Some(Ipv4Addr::LOCALHOST.into()),
            host: *host,
            container: *container,
        };
        Terms { idle_s: 1, start_within_s: 2, ports: ports.iter().map(port).collect() }
    }

    #[test]
    fn terms_are_read_as_they_are_written() {
        let some = Terms {
            ports: vec![Port { address: None, host: 80, container: 8080 }],
            ..terms(&[(90, 91)])
        };
        for terms in [terms(&[(90, 91)]), some] {
            assert_eq!(Terms::parse(&terms.json()), Ok(Some(terms)));
        }
        assert_eq!(Terms::parse(&Value::Null), Ok(None));
        let good = terms(&[(90, 91)]).json();
        for (key, value) in [
            ("idle-s", json!(0)),
            ("start-within-s", Value::Null),
            ("ports", json!([])),
            ("ports", json!([{ "host": 70_000, "container": 1 }])),
            ("ports", json!([{ "host": 7, "container": 1, "address": "x" }])),
        ] {
            let mut bad = good.clone();
            bad[key] = value;
            assert!(Terms::parse(&bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn who_wants_something_waits_for_the_answer_to_just_that() {
        let directory = tempfile::tempdir().unwrap();
        let places = Places { root: directory.path().join("on-demand") };
        places.make().unwrap();
        let services = vec![("web".to_owned(), terms(&[(90, 91)]))];
        thread::scope(|scope| {
            let holder = places.clone();
            scope.spawn(move || {
                let plan = loop {
                    match holder.planned("shop") {
                        Some(plan) => break plan,
                        None => thread::sleep(PACE),
                    }
                };
                let mut state = State { serial: plan.serial - 1, ..State::default() };
                holder.tell("shop", Some(&state)).unwrap();
                thread::sleep(PACE * 3);
                state.serial = plan.serial;
                state.unheld = Some("port 90 is taken".to_owned());
                state.troubles = vec![("web".to_owned(), "it ended".to_owned())];
                holder.tell("shop", Some(&state)).unwrap();
                while holder.planned("shop").is_some() {
                    thread::sleep(PACE);
                }
                holder.tell("shop", None).unwrap();
            });
            let wanted = places.want("shop", false, services.clone());
            assert_eq!(wanted, Err("port 90 is taken".to_owned()));
            assert_eq!(places.answer("shop").unwrap().troubles[0].1, "it ended");
            assert_eq!(places.all()[0].services, services);
            assert_eq!(places.withdraw("shop"), Ok(()));
        });
        assert_eq!(places.all(), []);
        assert_eq!(places.withdraw("shop"), Ok(()), "nothing to wait for");
    }

    #[test]
    fn compose_is_told_to_leave_the_ports_alone() {
        let text = compose_text(["web", "api.v2"].into_iter());
        let expected = "services:\n  \"web\":\n    ports: !reset []\n  \"api.v2\":\n    ports: \
                        !reset []\n";
        assert_eq!(text, expected);
    }
}
