//! `iota status`: what runs on this device, as text for people or JSON for programs.

use std::fmt::Write as _;

use ondisk::boot_args::BootArgs;
use ondisk::calendar::Day;
use ondisk::system::{Again, System};
use serde_json::{Value, json};

use crate::apps::state::AppState;
use crate::crash::Crash;
use crate::data::Data;
use crate::engine::rescue::Store;
use crate::engine::{Engine, Listed};
use crate::memory::Memory;
use crate::online;
use crate::own_config::Report;
use crate::slots::Slots;

/// Everything there is to tell.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Status {
    /// What the loader told, or why that is not known.
    pub boot: Result<BootArgs, String>,
    /// What the disk says about the slots, or why that is not known.
    pub slots: Result<Slots, String>,
    /// The engine's name, and its version and containers or why it does not answer.
    pub engine: Option<(String, Result<Answer, String>)>,
    /// When the engine's store was put aside, in seconds since 1970, and where it is.
    pub aside: Option<(u64, String)>,
    /// The kernel's newest crash, if it has been found of late.
    pub crash: Option<Crash>,
    /// Names of the declared containers that are to run all the time.
    pub declared: Vec<String>,
    /// How it stands with the apps, or why that is not known.
    pub apps: Result<Vec<AppState>, String>,
    /// The name that the kernel has for this device.
    pub hostname: String,
    /// What each interface has, a line for each protocol.
    pub network: Vec<String>,
    /// Which configuration holds, or why that is not known.
    pub config: Result<Report, String>,
    /// How it stands with the data partition, or why that is not known.
    pub data: Result<Data, String>,
    /// What came of looking for updates, if anybody has looked.
    pub update: Option<online::report::Report>,
    /// Seconds that are left to confirm a change of the network, if one waits for that.
    pub confirm_left_s: Option<u64>,
}

/// What an engine that is up tells.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// Its version.
    pub version: String,
    /// All its containers.
    pub containers: Vec<Listed>,
}

impl Status {
    /// Asks everyone but the configuration and the data, which the health gate does not look at.
    pub fn collect(
        boot: Result<BootArgs, String>,
        slots: Result<Slots, String>,
        system: &System,
        engine: Option<&dyn Engine>,
    ) -> Self {
        let ask = |engine: &dyn Engine| -> Result<Answer, String> {
            let version = engine.version().map_err(|error| error.to_string())?;
            let containers = engine.list().map_err(|error| error.to_string())?;
            Ok(Answer { version, containers })
        };
        let unknown = || Err("this program does not know the engine's API".to_owned());
        Self {
            boot,
            slots,
            engine: system
                .engine
                .as_ref()
                .map(|described| (described.name.clone(), engine.map_or_else(unknown, ask))),
            aside: Store::of(system).and_then(|it| Some((it.put_aside_s()?, it.aside_path()))),
            crash: None,
            declared: system
                .containers
                .iter()
                .filter(|container| !container.on_demand && container.again == Again::Always)
                .map(|container| container.name.clone())
                .collect(),
            hostname: rustix::system::uname().nodename().to_string_lossy().into_owned(),
            apps: Ok(Vec::new()),
            network: Vec::new(),
            config: Err("not looked at".to_owned()),
            data: Err("not looked at".to_owned()),
            update: None,
            confirm_left_s: None,
        }
    }

    /// True when the engine answers, every declared container runs and what they keep is kept.
    pub fn is_well(&self) -> bool {
        let engine_is_fine = !matches!(&self.engine, Some((_, Err(_))));
        let data_is_fine = self.data.as_ref().map_or(true, Data::is_well);
        let apps_are_fine = self.apps.as_ref().is_ok_and(|apps| apps.iter().all(AppState::is_well));
        engine_is_fine
            && data_is_fine
            && apps_are_fine
            && self.declared.iter().all(|name| self.runs(name))
    }

    /// True when the engine says that a container of this name runs.
    pub fn runs(&self, name: &str) -> bool {
        let mut containers = self.containers().iter();
        containers.any(|container| container.name == name && container.state == "running")
    }

    fn containers(&self) -> &[Listed] {
        match &self.engine {
            Some((_, Ok(answer))) => &answer.containers,
            _ => &[],
        }
    }

    /// Lines for people.
    pub fn text(&self) -> String {
        let mut text = String::new();
        match &self.boot {
            Ok(boot) => {
                let trial = match boot.attempt {
                    _ if boot.safe => "safe mode, without an engine".to_owned(),
                    0 => "proven".to_owned(),
                    attempt => format!("trial {attempt}"),
                };
                let _ = writeln!(text, "version    {}", boot.version);
                let _ = writeln!(text, "slot       {} ({trial})", boot.slot.letter());
            }
            Err(error) => drop(writeln!(text, "slot       unknown: {error}")),
        }
        match &self.slots {
            Ok(slots) => text.push_str(&slots.text()),
            // Without arguments of the loader there is no disk to look at: said above.
            Err(error) if self.boot.is_ok() => drop(writeln!(text, "slots      unknown: {error}")),
            Err(_) => {}
        }
        if let Some(update) = &self.update {
            let _ = writeln!(text, "update     {}", update.line());
            if matches!(update.verdict.as_str(), "install" | "staged") {
                let critical = update.critical.then_some("critical: it is started without a wait");
                for line in critical.into_iter().chain(update.notes.iter().map(String::as_str)) {
                    let _ = writeln!(text, "           {line}");
                }
            }
            if let Some(hint) = &update.hint {
                let _ = writeln!(text, "           hint: {hint}");
            }
        }
        let _ = writeln!(text, "host name  {}", self.hostname);
        for line in &self.network {
            let _ = writeln!(text, "network    {line}");
        }
        match &self.config {
            Ok(report) => {
                let _ = writeln!(text, "config     {}", report.text());
                for line in report.left_out() {
                    let _ = writeln!(text, "           left out: {line}");
                }
            }
            Err(error) => drop(writeln!(text, "config     unknown: {error}")),
        }
        match &self.data {
            Ok(data) => text.push_str(&data.text()),
            Err(error) => drop(writeln!(text, "data       unknown: {error}")),
        }
        if let Some(Crash { found_s, cause }) = &self.crash {
            let day = Day(*found_s);
            let _ = writeln!(text, "crash      of the kernel, found {day}: {cause}");
            text.push_str("           hint: `iota logs crashes` prints what it said last\n");
        }
        if let Some(seconds) = self.confirm_left_s {
            let _ = writeln!(text, "config     network change waits for confirm, {seconds} s left");
        }
        match &self.engine {
            None => text.push_str("engine     none\n"),
            Some((name, Ok(answer))) => {
                let _ = writeln!(text, "engine     {name} {}, ready", answer.version);
            }
            Some((name, Err(error))) => drop(writeln!(text, "engine     {name}: {error}")),
        }
        if let Some((when_s, place)) = &self.aside {
            let day = Day(*when_s);
            let _ = writeln!(
                text,
                "           it could not open its store on {day} and made a \
                 new one; the old one is in {place} for a week"
            );
        }
        for container in self.containers() {
            let Listed { name, image, status, .. } = container;
            let _ = writeln!(text, "container  {name} ({}): {status}", short(image));
        }
        match &self.apps {
            Ok(apps) => {
                for app in apps {
                    let _ = writeln!(text, "app        {}", app.text());
                }
            }
            Err(error) => drop(writeln!(text, "app        unknown: {error}")),
        }
        for name in self.missing() {
            let _ = writeln!(text, "container  {name}: declared, but not there");
        }
        text
    }

    fn missing(&self) -> impl Iterator<Item = &String> {
        let is_there = |name: &String| self.containers().iter().any(|it| it.name == *name);
        self.declared.iter().filter(move |name| !is_there(name))
    }

    /// The same facts for programs, in one line, and who holds the memory: reading that costs too
    /// much for the health gate, which looks at everything else each second.
    pub fn json(&self, memory: &Result<Memory, String>) -> String {
        let boot = match &self.boot {
            Ok(boot) => json!({
                "slot": boot.slot.letter(),
                "attempt": boot.attempt,
                "version": boot.version,
                "safe": boot.safe,
                "disk": boot.disk.to_string(),
            }),
            Err(error) => json!({ "error": error }),
        };
        let slots = match &self.slots {
            Ok(slots) => slots.json(),
            Err(error) => json!({ "error": error }),
        };
        let config = match &self.config {
            Ok(report) => report.json(),
            Err(error) => json!({ "error": error }),
        };
        let data = match &self.data {
            Ok(data) => data.json(),
            Err(error) => json!({ "error": error }),
        };
        let engine = self.engine.as_ref().map(|(name, answer)| match answer {
            Ok(answer) => json!({ "name": name, "ready": true, "version": answer.version }),
            Err(error) => json!({ "name": name, "ready": false, "error": error }),
        });
        let memory = match memory {
            Ok(memory) => memory.json(),
            Err(error) => json!({ "error": error }),
        };
        let containers = self.containers().iter().map(|container| {
            let Listed { name, image, state, status } = container;
            json!({
                "name": name,
                "image": image,
                "state": state,
                "status": status,
                "declared": self.declared.contains(name),
            })
        });
        let apps = match &self.apps {
            Ok(apps) => apps.iter().map(AppState::json).collect(),
            Err(error) => json!({ "error": error }),
        };
        let document = json!({
            "well": self.is_well(),
            "boot": boot,
            "slots": slots,
            "hostname": self.hostname,
            "network": self.network,
            "config": config,
            "data": data,
            "update": self.update.as_ref().map(online::report::Report::json),
            "confirm-left-s": self.confirm_left_s,
            "engine": engine,
            "crash": self.crash.as_ref().map(Crash::json),
            "engine-store-put-aside-s": self.aside.as_ref().map(|(when_s, _)| when_s),
            "containers": containers.collect::<Vec<Value>>(),
            "apps": apps,
            "missing": self.missing().collect::<Vec<_>>(),
            "memory": memory,
        });
        format!("{document}\n")
    }
}

/// An id as engines show it to people; a name as it is.
fn short(image: &str) -> &str {
    image.strip_prefix("sha256:").and_then(|id| id.get(..12)).unwrap_or(image)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::own_config::Source;
    use crate::own_config::device::Base;

    fn listed(name: &str, state: &str) -> Listed {
        let status = format!("{state} a while");
        Listed { name: name.into(), image: "iota/x:1".into(), state: state.into(), status }
    }

    fn status(answer: Result<Answer, String>) -> Status {
        let command_line = format!(
            "panic=5 iota.slot=b iota.attempt=2 iota.disk=0badcafe \
             iota.verity={0},{0},3,3 iota.version=2026.11.0+dev quiet",
            "00".repeat(32)
        );
        Status {
            boot: BootArgs::parse(&command_line).map_err(|error| error.to_string()),
            slots: Err("no disk here".to_owned()),
            engine: Some(("docker".to_owned(), answer)),
            aside: None,
            crash: None,
            declared: vec!["hello".to_owned(), "web".to_owned()],
            apps: Ok(Vec::new()),
            hostname: "kiosk-7".to_owned(),
            network: vec!["eth0 192.168.1.7/24, router 192.168.1.1".to_owned()],
            config: Ok(Report {
                source: Source::LastGood,
                problem: Some("iota.toml: line 3, column 1: no".to_owned()),
                config: config::Config::default(),
                text: String::new(),
                base: Base::NoFile,
            }),
            data: Err("no report".to_owned()),
            update: None,
            confirm_left_s: None,
        }
    }

    #[test]
    fn text_says_what_runs_and_what_is_missing() {
        let containers = vec![listed("hello", "running"), listed("mine", "exited")];
        let id = format!("sha256:0123456789ab{}", "c".repeat(52));
        let containers =
            [containers, vec![Listed { image: id, ..listed("id", "exited") }]].concat();
        let status = status(Ok(Answer { version: "26.1.5".to_owned(), containers }));
        let expected = "version    2026.11.0+dev\nslot       b (trial 2)\n\
            slots      unknown: no disk here\n\
            host name  kiosk-7\n\
            network    eth0 192.168.1.7/24, router 192.168.1.1\n\
            config     copy of the last good iota.toml; ERROR: iota.toml: line 3, column 1: no\n\
            data       unknown: no report\n\
            engine     docker 26.1.5, ready\ncontainer  hello (iota/x:1): running a while\n\
            container  mine (iota/x:1): exited a while\n\
            container  id (0123456789ab): exited a while\n\
            container  web: declared, but not there\n";
        assert_eq!(status.text(), expected);
        assert!(!status.is_well());
    }

    #[test]
    fn safe_mode_is_told_as_such() {
        let mut status = status(Err("cannot connect".to_owned()));
        if let Ok(boot) = &mut status.boot {
            boot.safe = true;
        }
        let expected = "slot       b (safe mode, without an engine)\n";
        assert!(status.text().contains(expected), "{}", status.text());
    }

    #[test]
    fn json_carries_the_same_facts() {
        let containers = vec![listed("hello", "running"), listed("web", "running")];
        let mut status = status(Ok(Answer { version: "26.1.5".to_owned(), containers }));
        status.confirm_left_s = Some(287);
        let says = "2.0 is there; other devices come first".to_owned();
        let hint = Some("wait".to_owned());
        status.update =
            Some(online::report::Report { says, hint, number: 7, ..Default::default() });
        assert!(status.text().contains("come first\n           hint: wait\n"));
        let line = "config     network change waits for confirm, 287 s left\n";
        assert!(status.text().contains(line), "{}", status.text());
        let document: Value =
            serde_json::from_str(&status.json(&Err("not asked".to_owned()))).unwrap();
        assert_eq!(document["well"], true);
        assert_eq!(document["boot"]["slot"], "b");
        assert_eq!(document["boot"]["attempt"], 2);
        let problem = "iota.toml: line 3, column 1: no";
        let config = json!({
            "source": "last-good",
            "problem": problem,
            "imported-from": null,
            "left-out": [],
        });
        assert_eq!(document["config"], config);
        assert_eq!(document["confirm-left-s"], 287);
        assert_eq!(document["update"]["number"], 7);
        assert_eq!(
            document["engine"],
            json!({"name": "docker", "ready": true, "version": "26.1.5"})
        );
        assert_eq!(document["containers"][1]["name"], "web");
        assert_eq!(document["missing"], json!([]));
    }

    #[test]
    fn an_engine_that_is_down_is_not_well_and_a_host_without_one_is() {
        let down = status(Err("cannot connect".to_owned()));
        assert!(!down.is_well());
        assert!(down.text().contains("engine     docker: cannot connect\n"));
        let (boot, slots) = (Err("no".to_owned()), Err("no".to_owned()));
        let (config, hostname) = (Err("no report".to_owned()), "iota".to_owned());
        let (engine, declared, data) = (None, Vec::new(), Err("no report".to_owned()));
        let (apps, update, confirm_left_s) = (Ok(Vec::new()), None, None);
        #[rustfmt::skip]
        let plain = Status {
            engine, declared, apps, boot, slots, config, data, hostname, update, confirm_left_s,
            network: Vec::new(), aside: Some((86_400, "/var/lib/docker/aside".to_owned())),
            crash: Some(Crash { found_s: 86_400, cause: "Kernel panic - not syncing".to_owned() }),
        };
        assert!(plain.is_well());
        assert_eq!(
            plain.text(),
            "slot       unknown: no\nhost name  iota\nconfig     unknown: no report\n\
            data       unknown: no report\n\
            crash      of the kernel, found 1970-01-02: Kernel panic - not syncing\n\
            \x20          hint: `iota logs crashes` prints what it said last\nengine     none\n\
            \x20          it could not open its store on 1970-01-02 and made a new one; the old \
            one is in /var/lib/docker/aside for a week\n"
        );
    }
}
