//! What `ctr` prints, read. Pure. Where it has JSON, that; else tables whose columns are known.

use std::collections::BTreeMap;

use ondisk::system::Container;
use serde_json::Value;

use super::make::{IMAGES, RESTART_POLICY, RESTART_STATUS};
use crate::client::{Error, Result};
use crate::engine::State;
use crate::engine::docker::{LABEL, senseless};
use crate::time::Moment;

/// A container as it was made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Info {
    pub(super) labels: BTreeMap<String, String>,
    pub(super) declaration: Option<String>,
    /// Id of its image.
    pub(super) image: String,
}

/// What runs, or ran, in a container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Task {
    pub(super) container: String,
    /// `RUNNING`, `STOPPED`…
    pub(super) status: String,
}

/// A container in the list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Named {
    pub(super) name: String,
    /// Id of its image.
    pub(super) image: String,
}

/// An image in the list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Image {
    pub(super) name: String,
    /// Of its manifest.
    pub(super) digest: String,
}

impl Info {
    /// Of `containers info`.
    pub(super) fn parse(text: &str) -> Result<Self> {
        let document = json(text)?;
        let labels = document["Labels"].as_object().into_iter().flatten();
        let labels: BTreeMap<String, String> = labels
            .filter_map(|(key, value)| Some((key.clone(), value.as_str()?.to_owned())))
            .collect();
        let image = document["Image"].as_str();
        let image = image.ok_or_else(|| senseless("a container without an image"))?;
        let declaration = labels.get(LABEL).cloned();
        Ok(Self { labels, declaration, image: id_of(image) })
    }

    /// Whether containerd starts it again.
    pub(super) fn is_kept(&self) -> bool {
        self.labels.get(RESTART_STATUS).is_some_and(|status| status == "running")
    }

    /// What it does, with this task.
    pub(super) fn state(&self, task: Option<&Task>, exit_code: i64) -> State {
        let policy = self.labels.get(RESTART_POLICY).map_or("always", String::as_str);
        let starts_again = self.is_kept() && (policy == "always" || exit_code != 0);
        match task {
            Some(task) if task.is_alive() => State::Running,
            Some(_) if starts_again => State::Restarting,
            // Without a task: made and never started, or the device was switched off since.
            _ => State::Ended,
        }
    }
}

impl Task {
    /// Whether its program runs, or is about to, or is paused.
    pub(super) fn is_alive(&self) -> bool {
        matches!(&*self.status, "RUNNING" | "CREATED" | "PAUSED" | "PAUSING")
    }
}

/// Of `tasks list`: name, process, status.
pub(super) fn tasks(text: &str) -> Result<Vec<Task>> {
    let row = |[container, _process, status]: [&str; 3]| Task {
        container: container.to_owned(),
        status: status.to_owned(),
    };
    Ok(rows(text, ["TASK", "PID", "STATUS"])?.into_iter().map(row).collect())
}

/// Of `containers list`: name, image, runtime.
pub(super) fn containers(text: &str) -> Result<Vec<Named>> {
    let row =
        |[name, image, _runtime]: [&str; 3]| Named { name: name.to_owned(), image: id_of(image) };
    Ok(rows(text, ["CONTAINER", "IMAGE", "RUNTIME"])?.into_iter().map(row).collect())
}

/// Of `images list`: name, media type, digest and more.
pub(super) fn images(text: &str) -> Result<Vec<Image>> {
    let row = |[name, _kind, digest]: [&str; 3]| Image {
        name: name.to_owned(),
        digest: digest.to_owned(),
    };
    Ok(rows(text, ["REF", "TYPE", "DIGEST"])?.into_iter().map(row).collect())
}

/// The first three columns of a table with these above them; none of them holds a blank.
fn rows<'a>(text: &'a str, titles: [&str; 3]) -> Result<Vec<[&'a str; 3]>> {
    let first = |line: &'a str| -> Option<[&'a str; 3]> {
        let mut words = line.split_whitespace();
        Some([words.next()?, words.next()?, words.next()?])
    };
    let mut lines = text.lines().filter(|line| !line.trim().is_empty());
    if lines.next().and_then(first) != Some(titles) {
        return Err(senseless(&format!("no table of {}", titles.join(", "))));
    }
    let row = |line| first(line).ok_or_else(|| senseless(&format!("a row `{line}`")));
    lines.map(row).collect()
}

/// Of `version`: the server's.
pub(super) fn version(text: &str) -> Result<String> {
    let server = text.split_once("Server:").map(|(_, server)| server);
    let version = server
        .and_then(|server| server.lines().find_map(|line| line.trim().strip_prefix("Version:")));
    version.map(|it| it.trim().to_owned()).ok_or_else(|| senseless("no version of the server"))
}

/// The image's id out of its manifest (OCI image specification): the digest of its config.
pub(super) fn config_of(manifest: &str) -> Result<String> {
    let digest = json(manifest)?["config"]["digest"].as_str().map(str::to_owned);
    digest.ok_or_else(|| senseless("an image that is not one for this machine"))
}

/// What a container runs: the declared command, or that of the image's config.
///
/// Errors: neither is there; an image that wants its own program in front.
pub(super) fn command(config: &str, declared: &Container) -> Result<Vec<String>> {
    let config = json(config)?;
    let list = |key: &str| -> Vec<String> {
        let values = config["config"][key].as_array().into_iter().flatten();
        values.filter_map(|value| value.as_str().map(str::to_owned)).collect()
    };
    if !list("Entrypoint").is_empty() {
        let name = &declared.name;
        let text = format!("container {name}: the engine containerd runs no image with Entrypoint");
        return Err(Error::Unsupported(text));
    }
    let own = list("Cmd");
    let command = if declared.arguments.is_empty() { &own } else { &declared.arguments };
    match command.is_empty() {
        true => Err(senseless("an image without a command")),
        false => Ok(command.clone()),
    }
}

/// Of `shim … state`: with what the program ended.
pub(super) fn exit_code(text: &str) -> Result<i64> {
    let document = json(text)?;
    // 0 is left out.
    document["exit_status"].as_i64().map_or_else(
        || match document["id"].is_string() {
            true => Ok(0),
            false => Err(senseless("no state of a task")),
        },
        Ok,
    )
}

/// One word for a container's state, and some for people.
pub(super) fn words(
    task: Option<&Task>,
    exit_code: Option<i64>,
    started: Option<Moment>,
    now: Moment,
) -> (String, String) {
    let (state, status) = match (task, exit_code) {
        (Some(_), Some(code)) => ("exited", format!("Exited ({code})")),
        (Some(_), None) => {
            let up = started.map(|started| now.seconds_since(started));
            ("running", up.map_or("Up".to_owned(), |seconds| format!("Up {}", duration(seconds))))
        }
        (None, _) => ("stopped", "Stopped".to_owned()),
    };
    (state.to_owned(), status)
}

fn duration(seconds: u64) -> String {
    match seconds {
        0..120 => format!("{seconds} seconds"),
        120..7200 => format!("{} minutes", seconds / 60),
        7200..172_800 => format!("{} hours", seconds / 3600),
        _ => format!("{} days", seconds / 86_400),
    }
}

fn id_of(image: &str) -> String {
    image.strip_prefix(IMAGES).unwrap_or(image).to_owned()
}

fn json(text: &str) -> Result<Value> {
    serde_json::from_str(text).map_err(|error| senseless(&format!("not JSON: {error}")))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// As containerd 1.7.24 prints them.
    const TASKS: &str = "TASK     PID      STATUS    \nhello    15130    RUNNING\n\
        once     15200    STOPPED\n";
    const CONTAINERS: &str = "CONTAINER    IMAGE                     RUNTIME                  \n\
        hello        iota.local/sha256:53ae    io.containerd.runc.v2    \n";
    const IMAGES_TEXT: &str = "REF TYPE DIGEST SIZE PLATFORMS LABELS \n\
        docker.io/iota/hello:latest application/vnd.oci.image.manifest.v1+json sha256:c789 1.9 MiB \
        linux/arm64 -      \n";
    const INFO: &str = r#"{
        "ID": "hello",
        "Labels": {
            "containerd.io/restart.count": "2",
            "containerd.io/restart.policy": "on-failure",
            "containerd.io/restart.status": "running",
            "iota.declaration": "d1"
        },
        "Image": "iota.local/sha256:53ae",
        "SnapshotKey": "hello"
    }"#;
    const VERSION: &str = "Client:\n  Version:  1.7.23\n  Go version: go1.24.4\n\n\
        Server:\n  Version:  1.7.24~ds1\n  Revision: 1\n  UUID: 8a62\n";

    fn task(status: &str) -> Task {
        Task { container: "hello".to_owned(), status: status.to_owned() }
    }

    #[test]
    fn tables_are_read_by_their_columns() {
        let once = Task { container: "once".to_owned(), status: "STOPPED".to_owned() };
        assert_eq!(tasks(TASKS).unwrap(), [task("RUNNING"), once]);
        assert_eq!(tasks("TASK    PID    STATUS    \n").unwrap(), []);
        let hello = Named { name: "hello".to_owned(), image: "sha256:53ae".to_owned() };
        assert_eq!(containers(CONTAINERS).unwrap(), [hello]);
        let name = "docker.io/iota/hello:latest".to_owned();
        assert_eq!(
            images(IMAGES_TEXT).unwrap(),
            [Image { name, digest: "sha256:c789".to_owned() }]
        );
    }

    #[test]
    fn a_table_of_something_else_makes_no_sense() {
        for text in ["", "NAME STATUS PID\n", "TASK PID STATUS\nhello 1\n"] {
            assert!(matches!(tasks(text), Err(Error::Senseless(_))), "{text}");
        }
        assert!(containers(TASKS).is_err() && images(CONTAINERS).is_err());
    }

    #[test]
    fn a_container_is_read_with_its_labels_and_its_image() {
        let info = Info::parse(INFO).unwrap();
        assert_eq!((info.declaration.as_deref(), &*info.image), (Some("d1"), "sha256:53ae"));
        assert!(info.is_kept());
        let foreign = Info::parse(r#"{"ID": "x", "Image": "docker.io/x:1"}"#).unwrap();
        assert_eq!((foreign.declaration, foreign.labels.len()), (None, 0));
        assert!(Info::parse("{}").is_err() && Info::parse("no JSON").is_err());
    }

    #[test]
    fn what_a_container_does_depends_on_its_task_and_on_who_starts_it_again() {
        let mut info = Info::parse(INFO).unwrap();
        assert_eq!(info.state(Some(&task("RUNNING")), 0), State::Running);
        assert_eq!(info.state(Some(&task("STOPPED")), 3), State::Restarting);
        assert_eq!(info.state(Some(&task("STOPPED")), 0), State::Ended, "it ended well");
        assert_eq!(info.state(None, 0), State::Ended, "the device was switched off");
        info.labels.insert(RESTART_POLICY.to_owned(), "always".to_owned());
        assert_eq!(info.state(Some(&task("STOPPED")), 0), State::Restarting);
        info.labels.remove(RESTART_STATUS);
        assert_eq!(info.state(Some(&task("STOPPED")), 3), State::Ended, "it was stopped");
    }

    #[test]
    fn the_servers_version_is_told_and_not_the_clients() {
        assert_eq!(version(VERSION).unwrap(), "1.7.24~ds1");
        assert!(version("Client:\n  Version: 1\n").is_err());
    }

    #[test]
    fn the_command_is_the_declared_one_or_the_images() {
        let declared = |arguments: &[&str]| Container {
            name: "web".to_owned(),
            image: String::new(),
            arguments: arguments.iter().map(|it| (*it).to_owned()).collect(),
            environment: Vec::new(),
            network: "host".to_owned(),
            publish: Vec::new(),
            after: Vec::new(),
            again: ondisk::system::Again::Always,
            on_demand: false,
        };
        let config = json!({ "config": { "Cmd": ["httpd", "-f"] } }).to_string();
        assert_eq!(command(&config, &declared(&[])).unwrap(), ["httpd", "-f"]);
        assert_eq!(command(&config, &declared(&["sh"])).unwrap(), ["sh"]);
        assert!(command("{}", &declared(&[])).is_err());
        let config = json!({ "config": { "Entrypoint": ["/start"] } }).to_string();
        let error = command(&config, &declared(&["sh"])).unwrap_err().to_string();
        assert_eq!(error, "container web: the engine containerd runs no image with Entrypoint");
    }

    #[test]
    fn an_image_is_known_by_the_digest_of_its_config() {
        let manifest = json!({ "config": { "digest": "sha256:53ae" }, "layers": [] }).to_string();
        assert_eq!(config_of(&manifest).unwrap(), "sha256:53ae");
        assert!(config_of(r#"{"manifests": []}"#).is_err(), "an index of images");
    }

    #[test]
    fn an_exit_code_that_is_left_out_is_zero() {
        assert_eq!(exit_code(r#"{"id": "hello", "status": 3, "exit_status": 137}"#).unwrap(), 137);
        assert_eq!(exit_code(r#"{"id": "hello", "status": 3}"#).unwrap(), 0);
        assert!(exit_code("{}").is_err());
    }

    #[test]
    fn the_list_has_a_word_for_programs_and_some_for_people() {
        let at = |text: &str| Moment::parse(text).unwrap();
        let (then, now) = (at("2026-11-28T20:00:00Z"), at("2026-11-28T20:03:20Z"));
        let of = |task: Option<&Task>, code| words(task, code, Some(then), now);
        let pair = |state: &str, status: &str| (state.to_owned(), status.to_owned());
        assert_eq!(of(Some(&task("RUNNING")), None), pair("running", "Up 3 minutes"));
        assert_eq!(of(Some(&task("STOPPED")), Some(3)), pair("exited", "Exited (3)"));
        assert_eq!(of(None, None), pair("stopped", "Stopped"));
        assert_eq!(duration(200_000), "2 days");
    }
}
