//! `x-iota: on-demand`: a service whose container a connection starts, checked. The agent holds its
//! ports (`on_demand` there), so they have to be such as it can hold, and nobody else may start it.

use std::net::IpAddr;

use serde_json::{Value as Json, json};

use super::super::yaml::{Entry, Node, Value};
use super::Checker;
use crate::suggest;

/// Our own key of a service.
const KEY: &str = "x-iota";
/// What it has.
const ON_DEMAND: &str = "on-demand";
const KEYS: [&str; 3] = [ON_DEMAND, "idle", "start-within"];

/// Without a connection for so long it is stopped, unless the file says otherwise.
const IDLE_S: u64 = 300;
/// So long a connection waits for the start.
const START_WITHIN_S: u64 = 30;
/// The least and the most of both.
const IDLE_RANGE_S: (u64, u64) = (1, 24 * 60 * 60);
const START_RANGE_S: (u64, u64) = (1, 600);

/// On which terms a service runs on demand.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Terms {
    /// It is stopped when no connection has been open for so long.
    pub idle_s: u64,
    /// So long a connection waits for its start.
    pub start_within_s: u64,
    /// What starts it.
    pub ports: Vec<Port>,
}

/// A port of the host that leads to one of the container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Port {
    /// The host's address; all of them if absent.
    pub address: Option<IpAddr>,
    /// The host's port.
    pub host: u16,
    /// The container's.
    pub container: u16,
}

impl Terms {
    /// As the agent reads them.
    pub(super) fn declaration(&self) -> Json {
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

impl Checker<'_> {
    /// The terms of a service that runs on demand; what is wrong with them is told.
    pub(super) fn on_demand(&mut self, service: &Entry, file: &Node) -> Option<Terms> {
        let entry = entry(&service.node, KEY)?;
        let before = self.checked.problems.len();
        let (idle_s, start_within_s) = self.times(entry)?;
        let ports = self.held_ports(service, entry);
        self.alone(service);
        self.networks(service, file);
        if self.checked.problems.len() > before {
            return None;
        }
        let hosts: Vec<String> = ports.iter().map(|port| port.host.to_string()).collect();
        self.note(
            entry.place,
            format!(
                "{KEY}: `{}` is started by the first connection to port {}, and stopped when none \
                 has been open for {idle_s} s",
                service.key,
                hosts.join(" or ")
            ),
        );
        Some(Terms { idle_s, start_within_s, ports })
    }

    /// Our key belongs to services.
    pub(super) fn refuse_key_of_file(&mut self, entries: &[Entry]) {
        if let Some(entry) = entries.iter().find(|entry| entry.key == KEY) {
            let message = format!("{KEY}: it is a key of a service");
            self.refuse(entry.place, message, "write it below the service that it is about");
        }
    }

    /// `on-demand`, or a mapping with more of it; `None` if it is not on demand, or wrong.
    fn times(&mut self, entry: &Entry) -> Option<(u64, u64)> {
        let before = self.checked.problems.len();
        let node = &entry.node;
        let entries = match &node.value {
            Value::Text(word) if word == ON_DEMAND => return Some((IDLE_S, START_WITHIN_S)),
            Value::Text(word) => {
                let message = format!("{KEY}: `{word}` is nothing that a service can be");
                self.problem(node.place, message, Some(hint(word, &[ON_DEMAND])));
                return None;
            }
            Value::Map(entries) => entries,
            Value::List(_) | Value::Null => {
                let message = format!("{KEY}: this says nothing");
                self.refuse(node.place, message, "write `x-iota: on-demand`");
                return None;
            }
        };
        for entry in entries.iter().filter(|entry| !KEYS.contains(&entry.key.as_str())) {
            let message = format!("`{}` is not a key of {KEY}", entry.key);
            self.problem(entry.place, message, Some(hint(&entry.key, &KEYS)));
        }
        let wanted = self.switch(entry);
        let idle_s = self.seconds(node, "idle", IDLE_S, IDLE_RANGE_S);
        let start_s = self.seconds(node, "start-within", START_WITHIN_S, START_RANGE_S);
        let is_good = self.checked.problems.len() == before;
        (is_good && wanted).then_some((idle_s, start_s))
    }

    fn switch(&mut self, entry: &Entry) -> bool {
        let Some(node) = entry.node.get(ON_DEMAND) else {
            let message = format!("{KEY}: it does not say `{ON_DEMAND}: true`");
            self.refuse(entry.place, message, "without it the other keys mean nothing");
            return false;
        };
        match node.text() {
            Some("true") => true,
            Some("false") => false,
            _ => {
                let message = format!("{KEY}: {ON_DEMAND} is true or false");
                self.refuse(node.place, message, "write `on-demand: true`");
                false
            }
        }
    }

    fn seconds(&mut self, node: &Node, key: &str, unset_s: u64, range_s: (u64, u64)) -> u64 {
        let Some(node) = node.get(key) else { return unset_s };
        let text = node.text().unwrap_or_default();
        match duration_s(text).filter(|seconds| (range_s.0..=range_s.1).contains(seconds)) {
            Some(seconds) => seconds,
            None => {
                let message = format!("{KEY}: {key} cannot be `{text}`");
                let most = range_s.1;
                let hint = format!("write whole seconds from 1s to {most}s, as in 90s or 1m30s");
                self.problem(node.place, message, Some(hint));
                unset_s
            }
        }
    }

    fn held_ports(&mut self, service: &Entry, entry: &Entry) -> Vec<Port> {
        let items = service.node.get("ports").map_or(&[][..], Node::items);
        if items.is_empty() {
            let message = format!("{KEY}: the service publishes no port: nothing would start it");
            self.refuse(entry.place, message, "write `ports: [\"8080:80\"]`");
        }
        let mut ports: Vec<Port> = Vec::new();
        for item in items {
            match read_port(item) {
                Ok(port) if ports.iter().any(|it| it.host == port.host) => {
                    let message = format!("ports: {} is there twice", port.host);
                    self.refuse(item.place, message, "on demand, each port of the host once");
                }
                Ok(port) => ports.push(port),
                Err(why) => {
                    let hint = "on demand, write HOST:CONTAINER of one TCP port, as in 8080:80";
                    self.refuse(item.place, format!("ports: {why}"), hint);
                }
            }
        }
        ports
    }

    /// Nobody but a connection starts it, and there is one container of it.
    fn alone(&mut self, service: &Entry) {
        let node = &service.node;
        if let Some(policy) = node.get("restart")
            && let Some(text @ ("always" | "unless-stopped")) = policy.text()
        {
            let message = format!("restart: `{text}` would start a service that is on demand");
            self.refuse(policy.place, message, "leave it out, or write `on-failure`");
        }
        let deploy = node.get("deploy");
        if let Some(policy) = deploy.and_then(|it| it.get("restart_policy")) {
            let condition = policy.get("condition").and_then(Node::text).unwrap_or("any");
            if !matches!(condition, "none" | "on-failure") {
                let message = "restart_policy: it would start a service that is on demand";
                self.refuse(
                    policy.place,
                    message,
                    "write `condition: on-failure`, or leave it out",
                );
            }
        }
        for count in [node.get("scale"), deploy.and_then(|it| it.get("replicas"))] {
            if let Some(count) = count.filter(|count| count.text() != Some("1")) {
                let message = "a service on demand has one container";
                self.refuse(count.place, message, "leave it out");
            }
        }
        for key in ["extends", "profiles"] {
            if let Some(entry) = entry(node, key) {
                let message = format!("{key}: not for a service on demand");
                self.refuse(entry.place, message, "write what it has into the service itself");
            }
        }
        let conditions = node.get("depends_on").map_or(&[][..], Node::entries);
        for other in conditions {
            if let Some(condition) = other.node.get("condition")
                && condition.text() != Some("service_started")
            {
                let note = format!("depends_on: a connection does not wait for `{}`", other.key);
                self.note(condition.place, note);
            }
        }
    }

    /// The host has to reach the container in its network.
    fn networks(&mut self, service: &Entry, file: &Node) {
        let hint = "on demand, the host reaches the container in a network of the driver `bridge`";
        if let Some(mode) = service.node.get("network_mode")
            && mode.text() != Some("bridge")
        {
            let text = mode.text().unwrap_or_default();
            let message = format!("network_mode: `{text}` is not for a service on demand");
            self.refuse(mode.place, message, hint);
        }
        let Some(networks) = service.node.get("networks") else { return };
        let named = networks.entries().iter().map(|entry| (entry.key.as_str(), entry.place));
        let listed = networks.items().iter().filter_map(|item| Some((item.text()?, item.place)));
        let own: Vec<_> = named.chain(listed).collect();
        for (name, place) in own {
            let declared = file.get("networks").and_then(|networks| networks.get(name));
            let driver = declared.and_then(|it| it.get("driver")).and_then(Node::text);
            if let Some(driver) = driver.filter(|driver| *driver != "bridge") {
                let message = format!("networks: `{name}` has the driver `{driver}`");
                self.refuse(place, message, hint);
            }
        }
    }

    /// Compose starts what others depend on; then it would not be on demand.
    pub(super) fn nobody_depends_on_demand(&mut self, services: &[Entry]) {
        let on_demand: Vec<&str> = (services.iter())
            .filter(|service| is_on_demand(&service.node))
            .map(|service| service.key.as_str())
            .collect();
        for service in services {
            for (key, name, place) in dependencies(&service.node) {
                if on_demand.contains(&name) {
                    let message = format!("{key}: `{name}` is on demand, and would be started");
                    self.refuse(place, message, "let it run all the time, or depend on nothing");
                }
            }
        }
    }
}

/// What a service needs of others: the key, the other's name, the place.
fn dependencies(service: &Node) -> Vec<(&'static str, &str, super::Place)> {
    let mut found = Vec::new();
    if let Some(node) = service.get("depends_on") {
        found.extend(node.entries().iter().map(|it| ("depends_on", it.key.as_str(), it.place)));
    }
    for key in ["depends_on", "links", "volumes_from"] {
        for item in service.get(key).map_or(&[][..], Node::items) {
            let name = item.text().unwrap_or_default().split(':').next().unwrap_or_default();
            found.push((key, name, item.place));
        }
    }
    for key in ["ipc", "network_mode", "pid"] {
        if let Some(node) = service.get(key)
            && let Some(name) = node.text().and_then(|text| text.strip_prefix("service:"))
        {
            found.push((key, name, node.place));
        }
    }
    found
}

fn is_on_demand(service: &Node) -> bool {
    let Some(node) = service.get(KEY) else { return false };
    node.text().or(node.get(ON_DEMAND).and_then(Node::text)).is_some_and(|it| it != "false")
}

fn entry<'a>(node: &'a Node, key: &str) -> Option<&'a Entry> {
    node.entries().iter().find(|entry| entry.key == key)
}

fn hint(word: &str, known: &[&str]) -> String {
    match suggest::nearest(word, known.iter().copied()) {
        Some(nearest) => format!("did you mean `{nearest}`?"),
        None => format!("known: {}", known.join(", ")),
    }
}

/// A duration as Compose writes them (`1h30m`, `90s`), in whole seconds.
fn duration_s(text: &str) -> Option<u64> {
    let mut rest = text;
    let mut sum_ms = 0_u64;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit())?;
        let number: u64 = rest[..digits].parse().ok()?;
        rest = &rest[digits..];
        let end = rest.find(|c: char| c.is_ascii_digit()).unwrap_or(rest.len());
        let unit_ms = match &rest[..end] {
            "ms" => 1,
            "s" => 1_000,
            "m" => 60_000,
            "h" => 3_600_000,
            _ => return None,
        };
        rest = &rest[end..];
        sum_ms = sum_ms.checked_add(number.checked_mul(unit_ms)?)?;
    }
    sum_ms.is_multiple_of(1_000).then_some(sum_ms / 1_000)
}

/// A port of either form; what is wrong with it, in a clause.
fn read_port(item: &Node) -> Result<Port, String> {
    let own = |key: &str| item.get(key).and_then(Node::text).unwrap_or_default().to_owned();
    let (address, host, container, protocol) = match item.text() {
        Some(text) => {
            let (text, protocol) = text.split_once('/').unwrap_or((text, "tcp"));
            let (rest, container) = text.rsplit_once(':').unwrap_or(("", text));
            let (address, host) = rest.rsplit_once(':').unwrap_or(("", rest));
            (address.to_owned(), host.to_owned(), container.to_owned(), protocol.to_owned())
        }
        None => (own("host_ip"), own("published"), own("target"), own("protocol")),
    };
    if !matches!(protocol.as_str(), "" | "tcp") {
        return Err(format!("a connection of {protocol} starts nothing"));
    }
    if host.is_empty() {
        return Err(format!("no port of the host leads to {container}"));
    }
    let number = |text: &str| match text.parse::<u16>() {
        _ if text.contains('-') => Err(format!("`{text}` is more than one port")),
        Ok(number @ 1..) => Ok(number),
        _ => Err(format!("`{text}` is not a port")),
    };
    let plain = address.trim_start_matches('[').trim_end_matches(']');
    let address = match plain {
        "" => None,
        text => Some(text.parse().map_err(|_| format!("`{text}` is not an address"))?),
    };
    Ok(Port { address, host: number(&host)?, container: number(&container)? })
}

#[cfg(test)]
mod tests {
    use super::super::*;
    use super::*;

    fn checked(service: &str, rest: &str) -> Checked {
        let text = format!("services:\n  web:\n    image: web:1\n{service}{rest}");
        check(&text, &Surroundings::default())
    }

    fn problems(checked: &Checked) -> Vec<String> {
        let line = |it: &Problem| {
            let hint = it.hint.as_deref().unwrap_or_default();
            format!("{}, {}: {} [{hint}]", it.line, it.column, it.message)
        };
        checked.problems.iter().map(line).collect()
    }

    #[test]
    fn a_service_on_demand_has_its_terms_and_a_note() {
        let checked = checked("    x-iota: on-demand\n    ports: [\"8080:80\"]\n", "");
        assert_eq!(problems(&checked), [] as [&str; 0]);
        let port = Port { address: None, host: 8080, container: 80 };
        let terms = Terms { idle_s: 300, start_within_s: 30, ports: vec![port] };
        assert_eq!(checked.services[0].on_demand, Some(terms));
        assert_eq!(
            checked.notes[0].to_string(),
            "line 4, column 5: x-iota: `web` is started by the first connection to port 8080, and \
             stopped when none has been open for 300 s"
        );
        for text in ["    x-iota: { on-demand: false }\n", ""] {
            assert_eq!(super::tests::checked(text, "").services[0].on_demand, None);
        }
    }

    #[test]
    fn times_and_ports_of_every_form_are_read() {
        let text = [
            "    x-iota: { on-demand: true, idle: 1h1m1s, start-within: 2m }",
            "    ports:",
            "      - \"127.0.0.1:1:2/tcp\"",
            "      - \"[::1]:3:4\"",
            "      - { target: 5, published: \"6\", host_ip: 10.0.0.1 }",
            "    restart: on-failure",
            "    networks: [inner]",
            "    depends_on: [db]\n",
        ];
        let rest = "  db:\n    image: db:1\nnetworks:\n  inner: { internal: true }\n";
        let checked = checked(&text.join("\n"), rest);
        assert_eq!(problems(&checked), [] as [&str; 0]);
        let terms = checked.services[0].on_demand.clone().unwrap();
        assert_eq!((terms.idle_s, terms.start_within_s), (3_661, 120));
        let ports = terms.ports.iter().map(|it| (it.address.unwrap(), it.host, it.container));
        let ports: Vec<String> = ports.map(|port| format!("{port:?}")).collect();
        assert_eq!(ports, ["(127.0.0.1, 1, 2)", "(::1, 3, 4)", "(10.0.0.1, 6, 5)"]);
    }

    #[test]
    fn what_cannot_be_on_demand_is_named_with_its_place() {
        let on = "x-iota: on-demand";
        let port = "ports: [\"8080:80\"]";
        for (lines, expected) in [
            (vec!["x-iota: ondemand", port], "4, 13: x-iota: `ondemand` is nothing that"),
            (vec!["x-iota: [on-demand]", port], "4, 13: x-iota: this says nothing"),
            (vec!["x-iota: { idle: 1m }", port], "4, 5: x-iota: it does not say `on-demand: true`"),
            (
                vec!["x-iota: { on-demand: true, idles: 1m }", port],
                "4, 32: `idles` is not a key of x-iota [did you mean `idle`?]",
            ),
            (vec!["x-iota: { on-demand: yes }", port], "4, 26: x-iota: on-demand is true or false"),
            (
                vec!["x-iota: { on-demand: true, idle: 5 }", port],
                "4, 38: x-iota: idle cannot be `5` [write whole seconds from 1s to 86400s",
            ),
            (
                vec!["x-iota: { on-demand: true, start-within: 11m }", port],
                "4, 46: x-iota: start-within cannot be `11m`",
            ),
            (vec![on], "4, 5: x-iota: the service publishes no port"),
            (vec![on, "ports: [\"80\"]"], "5, 13: ports: no port of the host leads to 80"),
            (vec![on, "ports: [\"53:53/udp\"]"], "5, 13: ports: a connection of udp starts"),
            (vec![on, "ports: [\"80-81:80-81\"]"], "5, 13: ports: `80-81` is more than one"),
            (vec![on, "ports: [\"x:1:2\"]"], "5, 13: ports: `x` is not an address"),
            (vec![on, "ports: [\"1:2\", \"1:3\"]"], "5, 20: ports: 1 is there twice"),
            (vec![on, "ports: [{ target: 80 }]"], "5, 13: ports: no port of the host leads to 80"),
            (vec![on, port, "restart: always"], "6, 14: restart: `always` would start"),
            (vec![on, port, "restart: unless-stopped"], "6, 14: restart: `unless-stopped` would"),
            (vec![on, port, "deploy: { replicas: 2 }"], "6, 25: a service on demand has one"),
            (vec![on, port, "deploy: { restart_policy: { delay: 5s } }"], "6, 31: restart_policy:"),
            (vec![on, port, "scale: 3"], "6, 12: a service on demand has one container"),
            (vec![on, port, "profiles: [debug]"], "6, 5: profiles: not for a service on demand"),
            (vec![on, port, "network_mode: host"], "6, 19: network_mode: `host` is not for"),
            (vec![on, port, "networks: [lan]"], "6, 16: networks: `lan` has the driver `macvlan`"),
        ] {
            let lines: String = lines.iter().map(|line| format!("    {line}\n")).collect();
            let checked = checked(&lines, "networks:\n  lan: { driver: macvlan }\n");
            let said = problems(&checked);
            assert_eq!(said.len(), 1, "{lines}: {said:?}");
            assert!(said[0].starts_with(expected), "{lines}: {said:?}");
        }
        let checked =
            check("x-iota: on-demand\nservices:\n  a:\n    image: a\n", &Surroundings::default());
        assert!(problems(&checked)[0].starts_with("1, 1: x-iota: it is a key of a service"));
    }

    #[test]
    fn nobody_depends_on_a_service_that_is_on_demand() {
        let web = "    x-iota: on-demand\n    ports: [\"8080:80\"]\n";
        for (line, place) in [
            ("depends_on: [web]", "8, 18"),
            ("depends_on: { web: { condition: service_started } }", "8, 19"),
            ("links: [\"web:www\"]", "8, 13"),
            ("volumes_from: [web]", "8, 20"),
            ("network_mode: service:web", "8, 19"),
        ] {
            let checked = checked(web, &format!("  db:\n    image: db:1\n    {line}\n"));
            let key = line.split(':').next().unwrap();
            let expected = format!("{place}: {key}: `web` is on demand, and would be started");
            let said = problems(&checked);
            assert!(said.len() == 1 && said[0].starts_with(&expected), "{said:?}");
        }
    }

    #[test]
    fn a_condition_that_a_connection_does_not_wait_for_is_noted() {
        let web = "    x-iota: on-demand\n    ports: [\"8080:80\"]\n";
        let text = format!("{web}    depends_on:\n      db:\n        condition: service_healthy\n");
        let checked = checked(&text, "  db:\n    image: db:1\n");
        assert_eq!(problems(&checked), [] as [&str; 0]);
        let expected = "line 8, column 20: depends_on: a connection does not wait for `db`";
        assert_eq!(checked.notes[1].to_string(), expected);
    }

    #[test]
    fn durations_are_those_of_compose() {
        for (text, expected) in [
            ("90s", Some(90)),
            ("1h30m", Some(5_400)),
            ("1000ms", Some(1)),
            ("1500ms", None),
            ("", Some(0)),
            ("5", None),
            ("5x", None),
            ("s", None),
            ("-1s", None),
            ("99999999999999999999s", None),
            ("18446744073709551615h", None),
        ] {
            assert_eq!(duration_s(text), expected, "{text}");
        }
    }
}
