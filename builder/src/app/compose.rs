//! A Compose file, checked: what this OS and its engine cannot honour, each with its place.
//!
//! Compose on the device reads the file once more and for good; this check is there so that a
//! mistake is found on the laptop, by line and column. Pure.

use std::collections::{BTreeMap, BTreeSet};

use config::problem::Problem;
use serde_json::json;

use super::image_name;
use super::rules::{self, Host, Look, Rule};
use super::yaml::{self, Entry, Node, Place, Value};
use crate::suggest;

mod on_demand;

pub use on_demand::{Port, Terms};

/// What a Compose file is checked against.
#[derive(Clone, Debug, Default)]
pub struct Surroundings {
    /// What `.env` sets.
    pub variables: BTreeMap<String, String>,
    /// Files and directories of the app, relative to the Compose file.
    pub files: BTreeSet<String>,
}

/// What was found.
#[derive(Clone, Debug, Default)]
pub struct Checked {
    /// Its services, in the order of the file.
    pub services: Vec<Service>,
    /// What cannot be honoured; an app with any is refused.
    pub problems: Vec<Problem>,
    /// What somebody should know.
    pub notes: Vec<Problem>,
    /// What an image with another engine than Docker cannot honour.
    pub docker_only: Vec<Problem>,
}

/// A service that is started with the app.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Service {
    /// Its name.
    pub name: String,
    /// Its image's name, as the engine shows it: with a tag.
    pub image: String,
    /// If it runs on demand, on which terms.
    pub on_demand: Option<Terms>,
}

impl Service {
    /// As the agent reads it.
    pub fn declaration(&self) -> serde_json::Value {
        let mut declaration = json!({ "name": self.name, "image": self.image });
        if let Some(terms) = &self.on_demand {
            declaration["on-demand"] = terms.declaration();
        }
        declaration
    }
}

/// Checks the text of a Compose file.
pub fn check(text: &str, surroundings: &Surroundings) -> Checked {
    let mut checker = Checker { text, surroundings, checked: Checked::default() };
    let (node, faults) = yaml::read(text, &surroundings.variables);
    for fault in faults {
        checker.problem(fault.place, fault.message, fault.hint);
    }
    if let Some(node) = &node {
        checker.file(node);
    }
    let mut checked = checker.checked;
    for list in [&mut checked.problems, &mut checked.notes, &mut checked.docker_only] {
        list.sort_by_key(|problem| (problem.line, problem.column));
        // An anchor that is used twice has its mistakes once.
        list.dedup();
    }
    checked
}

struct Checker<'a> {
    text: &'a str,
    surroundings: &'a Surroundings,
    checked: Checked,
}

impl Checker<'_> {
    fn problem(&mut self, place: Place, message: impl Into<String>, hint: Option<String>) {
        let problem = self.at(place, message.into(), hint);
        self.checked.problems.push(problem);
    }

    fn refuse(&mut self, place: Place, message: impl Into<String>, hint: &str) {
        self.problem(place, message, Some(hint.to_owned()));
    }

    fn note(&mut self, place: Place, message: impl Into<String>) {
        let note = self.at(place, message.into(), None);
        self.checked.notes.push(note);
    }

    fn at(&self, place: Place, message: String, hint: Option<String>) -> Problem {
        let line = self.text.lines().nth(place.line.saturating_sub(1)).unwrap_or_default();
        let plain = |c: char| if c.is_control() { ' ' } else { c };
        let text = line.chars().take(100).map(plain).collect();
        Problem { line: place.line, column: place.column, text, message, hint }
    }

    fn file(&mut self, file: &Node) {
        let Value::Map(entries) = &file.value else {
            return self.refuse(file.place, "this is no mapping", "a Compose file has `services:`");
        };
        self.keys(entries, &rules::TOP, "a key of a Compose file");
        match entries.iter().find(|entry| entry.key == "services") {
            None => self.refuse(file.place, "there are no services", "write `services:`"),
            Some(services) if services.node.entries().is_empty() => {
                self.refuse(services.place, "there are no services", "name one and its `image:`");
            }
            Some(services) => {
                let services = services.node.entries();
                services.iter().for_each(|entry| self.service(entry, file));
                self.nobody_depends_on_demand(services);
            }
        }
        self.refuse_key_of_file(entries);
        for kind in ["volumes", "networks", "configs", "secrets"] {
            let declared = entries.iter().find(|entry| entry.key == kind);
            let declared = declared.map_or(&[][..], |entry| entry.node.entries());
            declared.iter().for_each(|entry| self.resource(kind, entry));
        }
    }

    /// Every key by its rule; `x-…` are for whoever wrote them.
    fn keys(&mut self, entries: &[Entry], table: &[(&str, Rule)], what: &str) {
        for entry in entries.iter().filter(|entry| !entry.key.starts_with("x-")) {
            match table.iter().find(|(key, _)| *key == entry.key) {
                None => {
                    let names = table.iter().map(|(key, _)| *key);
                    let nearest = suggest::nearest(&entry.key, names);
                    let hint = nearest.map(|nearest| format!("did you mean `{nearest}`?"));
                    self.problem(entry.place, format!("`{}` is not {what}", entry.key), hint);
                }
                Some((_, Rule::Fine)) => {}
                Some((key, Rule::Note(note))) => self.note(entry.place, format!("{key}: {note}")),
                Some((key, Rule::Refused(why, hint))) => {
                    self.refuse(entry.place, format!("{key}: {why}"), hint);
                }
                Some((_, Rule::Look(look))) => self.look(*look, entry),
            }
        }
    }

    fn service(&mut self, service: &Entry, file: &Node) {
        let fine = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
        if service.key.is_empty() || !service.key.chars().all(fine) {
            let message = format!("`{}` is not a name of a service", service.key);
            self.refuse(service.place, message, "use letters, digits and . _ -");
        }
        let Value::Map(entries) = &service.node.value else {
            return self.refuse(service.place, "the service has no keys", "it needs `image:`");
        };
        self.keys(entries, &rules::SERVICE, "a key of a service");
        let on_demand = self.on_demand(service, file);
        let image = service.node.get("image").and_then(Node::text);
        let has = |key: &str| service.node.get(key).is_some();
        match image {
            Some(_) if has("profiles") => {}
            Some(image) => {
                let (name, image) = (service.key.clone(), image_name(image));
                self.checked.services.push(Service { name, image, on_demand });
            }
            // Each of them says so by itself.
            None if has("build") || has("image") || has("extends") => {}
            None => {
                let message = format!("the service `{}` has no image", service.key);
                self.refuse(service.place, message, "write `image:`");
            }
        }
    }

    fn look(&mut self, look: Look, entry: &Entry) {
        let (node, place) = (&entry.node, entry.node.place);
        let text = node.text().unwrap_or_default();
        match look {
            Look::CapAdd => node.items().iter().for_each(|item| self.capability(item)),
            Look::Devices => node.items().iter().for_each(|item| self.device(item)),
            Look::EnvFile => node.items().iter().for_each(|item| self.env_file(item)),
            Look::Volumes => node.items().iter().for_each(|item| self.volume(item)),
            Look::Extends if node.get("file").is_some() => {
                self.refuse(entry.place, "extends: an app is one file", "extend a service of it");
            }
            Look::Image => self.image(text, place),
            Look::Logging => self.logging(node),
            Look::NetworkMode if text == "host" => self.note(
                entry.place,
                "network_mode: host: its ports are the host's own; port 22 and 5353 are taken",
            ),
            Look::Platform if !matches!(text, "linux/arm64" | "linux/arm64/v8") => {
                let message = format!("platform: `{text}` does not run on this device");
                self.refuse(place, message, "devices are linux/arm64");
            }
            Look::Privileged if text == "true" => self.refuse(
                entry.place,
                "privileged: it would give a container the host's disk, memory and watchdog",
                "name what it needs: `devices:` and `cap_add:`",
            ),
            Look::Profiles => {
                self.note(entry.place, "profiles: the service is not started with the app");
            }
            Look::PullPolicy if text == "build" => {
                self.refuse(place, "pull_policy: a device builds no images", "leave it out")
            }
            Look::PullPolicy if text == "always" => {
                self.note(place, "pull_policy: without a network the app does not start");
            }
            Look::Runtime if text != "runc" => {
                let message = format!("runtime: `{text}` is not on the device");
                self.refuse(place, message, "leave it out: all containers are run by one program");
            }
            _ => {}
        }
    }

    fn capability(&mut self, item: &Node) {
        let name = item.text().unwrap_or_default().to_uppercase();
        match name.strip_prefix("CAP_").unwrap_or(&name) {
            "ALL" => self.refuse(
                item.place,
                "cap_add: ALL is as good as root on the host",
                "name the capabilities that it needs",
            ),
            "SYS_MODULE" => self.refuse(
                item.place,
                "cap_add: modules of the kernel are part of the signed system",
                "the board's definition names modules",
            ),
            "SYS_RAWIO" => self.refuse(
                item.place,
                "cap_add: SYS_RAWIO reaches the machine's memory and disks",
                "leave it out",
            ),
            "SYS_ADMIN" => {
                self.note(item.place, "cap_add: SYS_ADMIN is nearly as good as root on the host");
            }
            _ => {}
        }
    }

    fn device(&mut self, item: &Node) {
        let path = match item.get("source") {
            Some(source) => source.text().unwrap_or_default(),
            None => item.text().and_then(|text| text.split(':').next()).unwrap_or_default(),
        };
        self.device_path(path, "devices", item.place);
    }

    fn device_path(&mut self, path: &str, key: &str, place: Place) {
        if let Some(why) = rules::refused_device(path) {
            let message = format!("{key}: {path} is given to no container: {why}");
            self.refuse(place, message, "name the device that it needs, such as /dev/ttyUSB0");
        }
    }

    fn env_file(&mut self, item: &Node) {
        let path = item.get("path").unwrap_or(item).text().unwrap_or_default();
        let required = item.get("required").and_then(Node::text) != Some("false");
        if required && !self.has(path) {
            let message = format!("env_file: there is no file {path} beside this one");
            self.refuse(item.place, message, "files of an app lie in its directory");
        }
    }

    /// Whether the app has this file or directory.
    fn has(&self, path: &str) -> bool {
        let path = path.trim_start_matches("./").trim_end_matches('/');
        path.is_empty() || path == "." || self.surroundings.files.contains(path)
    }

    fn image(&mut self, text: &str, place: Place) {
        let name = image_name(text);
        let (repository, _) = name.rsplit_once(':').unwrap_or((&name, ""));
        let fine = |c: char| c.is_ascii_alphanumeric() || "._-/:@".contains(c);
        if text.is_empty() || !text.chars().all(fine) || repository.ends_with(['/', ':', '@']) {
            let message = format!("image: `{text}` is not a name of an image");
            return self.refuse(place, message, "write NAME:TAG");
        }
        if repository.chars().any(|c| c.is_ascii_uppercase()) {
            let message = format!("image: `{text}` has capital letters, which engines refuse");
            return self.refuse(place, message, "names of images are in lower case");
        }
        let foreign = ["amd64/", "i386/", "arm32v5/", "arm32v6/", "arm32v7/", "riscv64/", "s390x/"];
        if let Some(found) = foreign.iter().find(|prefix| repository.starts_with(**prefix)) {
            let message = format!("image: `{text}` is for another machine ({found})");
            self.refuse(place, message, "devices are linux/arm64: arm64v8/…, or no prefix at all");
        }
    }

    fn logging(&mut self, node: &Node) {
        let Some(driver) = node.get("driver") else { return };
        match driver.text().unwrap_or_default() {
            "json-file" | "none" => {}
            "local" => {
                let hint = "leave it out: logs are kept, and bounded".to_owned();
                let message = "logging: local is a driver of Docker alone".to_owned();
                let problem = self.at(driver.place, message, Some(hint));
                self.checked.docker_only.push(problem);
            }
            name @ ("journald" | "syslog" | "etwlogs") => {
                let message = format!("logging: there is no {name} on the device");
                self.refuse(driver.place, message, "leave it out: logs are kept, and bounded");
            }
            name => {
                self.note(driver.place, format!("logging: {name} needs the network to start"));
            }
        }
    }

    /// `[SOURCE:]TARGET[:MODE]`, or a mapping.
    fn volume(&mut self, item: &Node) {
        let (source, read_only) = match item.text() {
            Some(text) => {
                let mut parts = text.split(':');
                let (first, second) = (parts.next().unwrap_or_default(), parts.next());
                let mode = parts.next().unwrap_or_default();
                let read_only = mode.split(',').any(|word| word == "ro");
                (second.map(|_| first.to_owned()), read_only)
            }
            None => {
                let kind = item.get("type").and_then(Node::text).unwrap_or("volume");
                let source = item.get("source").and_then(Node::text);
                let read_only = item.get("read_only").and_then(Node::text) == Some("true");
                if matches!(kind, "npipe" | "cluster") {
                    let message = format!("volumes: devices have no volumes of type {kind}");
                    self.refuse(item.place, message, "use `volume` or `bind`");
                }
                (source.filter(|_| kind == "bind").map(bind_source), read_only)
            }
        };
        if let Some(source) = source.filter(|source| source.starts_with(['/', '.', '~'])) {
            self.bind(&source, read_only, item.place);
        }
    }

    fn bind(&mut self, source: &str, read_only: bool, place: Place) {
        if source.starts_with('~') {
            let message = format!("volumes: {source}: there are no home directories");
            return self.refuse(place, message, "use a named volume, or a directory below /data");
        }
        if source.starts_with('.') {
            return self.own_file(source, read_only, place);
        }
        if source.split('/').any(|part| part == "..") {
            let message = format!("volumes: {source} leads upwards");
            return self.refuse(place, message, "write the path itself");
        }
        let path = match source.trim_end_matches('/') {
            "" => "/",
            path => path,
        };
        self.device_path(path, "volumes", place);
        match rules::host(path) {
            Host::Open => {}
            Host::ReadOnly if read_only => {}
            Host::Known(what) => self.note(place, format!("volumes: {path}: {what}")),
            Host::ReadOnly => {
                let message = format!("volumes: {path} is in the root, which is read-only");
                self.refuse(place, message, "add `:ro`, or use a named volume");
            }
            Host::Secret(why) => {
                let message = format!("volumes: {path} is given to no container: {why}");
                self.refuse(place, message, "use a named volume, or a directory below /data");
            }
            Host::Absent(why) => {
                let message = format!("volumes: {path}: {why}");
                self.refuse(place, message, "use a named volume, or a directory below /data");
            }
        }
    }

    /// What lies beside the Compose file is part of the app: it is there, and stays as it is.
    fn own_file(&mut self, source: &str, read_only: bool, place: Place) {
        if source.split('/').any(|part| part == "..") {
            let message = format!("volumes: {source} is outside of the app's directory");
            return self.refuse(place, message, "files of an app lie in its directory");
        }
        if !self.has(source) {
            let message =
                format!("volumes: the app has no {source}, and its directory is read-only");
            return self.refuse(place, message, "keep data on a named volume");
        }
        if !read_only {
            let note = format!("volumes: {source} is part of the app, which is read-only");
            self.note(place, note);
        }
    }

    fn resource(&mut self, kind: &str, entry: &Entry) {
        let driver = entry.node.get("driver");
        let known: &[&str] = match kind {
            "volumes" => &["local"],
            "networks" => &["bridge", "host", "none", "macvlan", "ipvlan"],
            _ => &[],
        };
        if let Some(node) = driver {
            let name = node.text().unwrap_or_default();
            if !known.contains(&name) {
                let message = format!("{kind}: the driver `{name}` is not on the device");
                let hint = format!("drivers: {}", known.join(", "));
                self.problem(node.place, message, Some(hint));
            }
        }
        if kind == "volumes"
            && let Some(device) = entry.node.get("driver_opts").and_then(|it| it.get("device"))
            && let Some(path) = device.text().filter(|path| path.starts_with('/'))
        {
            self.bind(path, false, device.place);
        }
        let external = entry.node.get("external").and_then(Node::text) == Some("true");
        if external {
            let note =
                format!("{kind}: the app starts only once somebody has made `{}`", entry.key);
            self.note(entry.place, note);
        }
        if let Some(file) = entry.node.get("file")
            && let Some(path) = file.text()
            && !self.has(path)
        {
            let message = format!("{kind}: there is no file {path} beside this one");
            self.refuse(file.place, message, "files of an app lie in its directory");
        }
        if matches!(kind, "configs" | "secrets")
            && let Some(node) = entry.node.get("environment")
        {
            let message = format!("{kind}: a device has no environment to take it from");
            self.refuse(node.place, message, "write it into a file of the app: `file:`");
        }
    }
}

/// In the long form a source without a slash in front is beside the file too.
fn bind_source(source: &str) -> String {
    match source.starts_with(['/', '.', '~']) {
        true => source.to_owned(),
        false => format!("./{source}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = include_str!("sample.yaml");

    fn surroundings() -> Surroundings {
        Surroundings {
            variables: BTreeMap::from([("TAG".to_owned(), "3".to_owned())]),
            files: ["web.env", "conf", "conf/site.conf"].map(str::to_owned).into(),
        }
    }

    fn lines(problems: &[Problem]) -> Vec<String> {
        problems.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn a_good_file_has_its_services_and_notes_and_no_problem() {
        let checked = check(GOOD, &surroundings());
        assert_eq!(lines(&checked.problems), [] as [&str; 0]);
        let service = |name: &str, image: &str| Service {
            name: name.into(),
            image: image.into(),
            on_demand: None,
        };
        let expected = [
            service("web", "registry.example:5000/shop/web:3"),
            service("db", "postgres:17"),
            service("sensor", "shop/sensor:latest"),
        ];
        assert_eq!(checked.services, expected);
        assert_eq!(
            lines(&checked.notes),
            [
                "line 2, column 1: name: the app is called after its directory; this name is not \
                 used",
                "line 19, column 9: volumes: ./conf is part of the app, which is read-only",
                "line 35, column 5: network_mode: host: its ports are the host's own; port 22 and \
                 5353 are taken",
                "line 41, column 5: profiles: the service is not started with the app",
            ]
        );
    }

    #[test]
    fn each_thing_that_cannot_be_honoured_is_named_with_its_place() {
        let cases = [
            ("build: .", "3, 5: build: a device builds no images"),
            ("imagee: x", "3, 5: `imagee` is not a key of a service [did you mean `image`?]"),
            ("privileged: true", "3, 5: privileged: it would give"),
            ("devices: [\"/dev/mem:/dev/mem\"]", "3, 15: devices: /dev/mem is given to no"),
            ("devices: [/dev/sda]", "3, 15: devices: /dev/sda is given to no"),
            ("volumes: [\"/dev/watchdog:/dev/watchdog\"]", "3, 15: volumes: /dev/watchdog is"),
            ("volumes: [/etc/ssl:/ssl]", "3, 15: volumes: /etc/ssl is in the root, which is"),
            ("volumes: [/data/iota:/x:ro]", "3, 15: volumes: /data/iota is given to no"),
            ("volumes: [/opt/x:/x]", "3, 15: volumes: /opt/x: it is not in the root"),
            ("volumes: [./none:/x]", "3, 15: volumes: the app has no ./none, and its"),
            ("volumes: [{type: bind, source: none, target: /x}]", "3, 15: volumes: the app has no"),
            ("volumes: [../up:/x]", "3, 15: volumes: ../up is outside of the app's directory"),
            ("platform: linux/amd64", "3, 15: platform: `linux/amd64` does not run on this"),
            ("cap_add: [CAP_SYS_MODULE]", "3, 15: cap_add: modules of the kernel are part of"),
            ("env_file: none.env", "3, 15: env_file: there is no file none.env beside this one"),
            ("command: $WHO", "3, 14: the variable `WHO` is not set"),
            ("logging: {driver: journald}", "3, 23: logging: there is no journald on the device"),
            ("runtime: nvidia", "3, 14: runtime: `nvidia` is not on the device"),
            ("extends: {file: a.yaml, service: b}", "3, 5: extends: an app is one file"),
        ];
        for (line, expected) in cases {
            let text = format!("services:\n  web:\n    {line}\n    image: web:1\n");
            let checked = check(&text, &surroundings());
            let said = checked.problems.iter().map(|problem| {
                let hint = problem.hint.as_deref().unwrap_or_default();
                format!("{}, {}: {} [{hint}]", problem.line, problem.column, problem.message)
            });
            let said: Vec<String> = said.collect();
            assert_eq!(said.len(), 1, "{line}: {said:?}");
            assert!(said[0].starts_with(expected), "{line}: {said:?}");
        }
    }

    #[test]
    fn what_is_allowed_is_not_refused() {
        for line in [
            "devices: [/dev/ttyUSB0]",
            "volumes: [data:/data, /data/web:/x, \"/etc/ssl:/ssl:ro\", /run/docker.sock:/s]",
            "volumes: [{type: tmpfs, target: /x}, /anonymous]",
            "cap_add: [NET_ADMIN]",
            "env_file: {path: none.env, required: false}",
            "x-mine: {anything: goes}",
        ] {
            let text = format!("services:\n  web:\n    {line}\n    image: web:1\n");
            let checked = check(&text, &surroundings());
            assert_eq!(lines(&checked.problems), [] as [&str; 0], "{line}");
        }
    }

    #[test]
    fn images_are_named_and_are_for_this_machine() {
        for (image, problems) in [
            ("web", 0),
            ("arm64v8/debian:13", 0),
            ("amd64/debian:13", 1),
            ("Web:1", 1),
            ("a b", 1),
            ("\"\"", 1),
        ] {
            let text = format!("services:\n  web:\n    image: {image}\n");
            assert_eq!(check(&text, &surroundings()).problems.len(), problems, "{image}");
        }
        for text in ["services:\n", "services: {}\n", "a: 1\n", "- x\n", "services:\n  web:\n"] {
            assert!(!check(text, &surroundings()).problems.is_empty(), "{text}");
        }
    }
}
