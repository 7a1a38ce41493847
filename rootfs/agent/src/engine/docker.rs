//! The Docker Engine API, which Podman speaks too.
//!
//! Paths carry no version: an image holds one engine, and the engine's own version of the API is
//! the one that is sure to be there (Docker 29 dropped those below 1.44). Only fields that have
//! kept their meaning since 1.24 are used.

use std::io::Read;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use ondisk::system::{Again, Container};
use serde_json::{Map, Value, json};

use super::exec::console_body;
use super::{Attached, Engine, Exec, Found, Inside, Listed, Member, State};
use crate::client::{self, Content, Error, Request, Response, Result, escape};
use crate::time::Moment;

/// The label that marks a container as made by `iota`, with what it was made from.
pub(super) const LABEL: &str = "iota.declaration";

/// For answers that need no work. Long enough for a slow card under load.
const PATIENCE: Duration = Duration::from_secs(60);

/// For work: unpacking a large image onto a slow card.
pub(super) const LONG_PATIENCE: Duration = Duration::from_secs(30 * 60);

/// An engine behind a unix socket.
#[derive(Clone, Debug)]
pub struct Docker {
    socket: PathBuf,
    /// Podman, which answers while it is asked and has no process otherwise.
    pub(super) is_podman: bool,
}

impl Docker {
    /// Names the socket; nothing is opened yet.
    pub fn new(socket: &Path) -> Self {
        Self { socket: socket.to_owned(), is_podman: false }
    }

    /// The same, of Podman.
    pub fn podman(socket: &Path) -> Self {
        Self { is_podman: true, ..Self::new(socket) }
    }

    pub(super) fn get(&self, target: &str) -> Result<Value> {
        document(self.request("GET", target, Content::None, Some(PATIENCE))?)
    }

    pub(super) fn post(&self, target: &str, content: Content<'_>) -> Result<()> {
        self.request("POST", target, content, Some(LONG_PATIENCE))?.document().map(drop)
    }

    fn delete(&self, target: &str) -> Result<()> {
        self.request("DELETE", target, Content::None, Some(LONG_PATIENCE))?.document().map(drop)
    }

    /// Sends a request; an answer that says no becomes an error with the engine's words.
    pub(super) fn request(
        &self,
        method: &str,
        target: &str,
        content: Content<'_>,
        patience: Option<Duration>,
    ) -> Result<Response<UnixStream>> {
        let request = Request { method, target, content, patience };
        let response = client::send(&self.socket, request)?;
        match response.status {
            // 304: it is already as it was to become.
            200..=299 | 304 => Ok(response),
            status => Err(Error::Refused(status, message(&response.document()?))),
        }
    }
}

impl Engine for Docker {
    fn ping(&self) -> Result<()> {
        self.request("GET", "/_ping", Content::None, Some(PATIENCE))?.document().map(drop)
    }

    fn version(&self) -> Result<String> {
        text(&self.get("/version")?, "Version")
    }

    fn has_image(&self, id: &str) -> Result<bool> {
        found(self.get(&format!("/images/{}/json", escape(id)))).map(|image| image.is_some())
    }

    fn load_image(&self, archive: &mut dyn Read, length: u64) -> Result<()> {
        let content = Content::Stream { media_type: "application/x-tar", length, source: archive };
        let response =
            self.request("POST", "/images/load?quiet=1", content, Some(LONG_PATIENCE))?;
        load_result(&response.document()?)
    }

    fn remove_image(&self, id: &str) -> Result<()> {
        match self.delete(&format!("/images/{}", escape(id))) {
            Err(Error::Refused(404 | 409, _)) => Ok(()),
            result => result,
        }
    }

    fn drop_image(&self, id: &str) -> Result<()> {
        match self.delete(&format!("/images/{}?force=1", escape(id))) {
            Err(Error::Refused(404, _)) => Ok(()),
            result => result,
        }
    }

    fn export_image(&self, id: &str) -> Result<Box<dyn Read>> {
        let target = format!("/images/{}/get", escape(id));
        Ok(Box::new(self.request("GET", &target, Content::None, Some(LONG_PATIENCE))?))
    }

    fn users_of(&self, id: &str) -> Result<Vec<String>> {
        let filter = json!({ "ancestor": [id] }).to_string();
        let target = format!("/containers/json?all=1&filters={}", escape(&filter));
        let containers = self.get(&target)?;
        let containers = containers.as_array().ok_or_else(|| senseless("no list of containers"))?;
        containers.iter().map(|it| read_listed(it).map(|listed| listed.name)).collect()
    }

    fn find(&self, name: &str) -> Result<Option<Found>> {
        let container = found(self.get(&format!("/containers/{}/json", escape(name))))?;
        container.map(|container| read_container(&container)).transpose()
    }

    fn create(&self, declared: &Container, image: &str) -> Result<()> {
        let declaration = self.declaration(declared, image);
        let mut body = create_body(declared, image);
        body["Labels"] = json!({ LABEL: declaration });
        let target = format!("/containers/create?name={}", escape(&declared.name));
        self.post(&target, Content::Json(&body.to_string()))
    }

    fn start(&self, name: &str) -> Result<()> {
        self.post(&format!("/containers/{}/start", escape(name)), Content::None)
    }

    fn stop(&self, name: &str) -> Result<()> {
        self.post(&format!("/containers/{}/stop", escape(name)), Content::None)
    }

    fn holds_lost_port(&self, refusal: &Error) -> Result<bool> {
        if self.is_podman {
            return Ok(false);
        }
        let Some(port) = refused_port(refusal) else { return Ok(false) };
        let running = self.get("/containers/json")?;
        let containers = running.as_array().ok_or_else(|| senseless("no list of containers"))?;
        let mut ports = containers.iter().filter_map(|it| it["Ports"].as_array()).flatten();
        Ok(!ports.any(|published| published["PublicPort"] == json!(port)))
    }

    fn remove(&self, name: &str) -> Result<()> {
        self.delete(&format!("/containers/{}?force=1&v=1", escape(name)))
    }

    fn output(&self, name: &str, after: Option<Moment>) -> Result<Box<dyn Read>> {
        if self.is_podman {
            // A connection that is held would keep Podman's process.
            return self.follow_file(name, after);
        }
        let since = after.map(|moment| format!("&since={}", moment.next())).unwrap_or_default();
        let target = format!(
            "/containers/{}/logs?follow=1&stdout=1&stderr=1&timestamps=1{since}",
            escape(name)
        );
        Ok(Box::new(self.request("GET", &target, Content::None, None)?))
    }

    fn declaration(&self, declared: &Container, image: &str) -> String {
        create_body(declared, image).to_string()
    }

    fn image_id(&self, name: &str) -> Result<Option<String>> {
        self.image_id_of(name)
    }

    fn pull(&self, name: &str) -> Result<()> {
        self.pull_image(name)
    }

    fn create_console(&self, name: &str, image: &str) -> Result<()> {
        self.make_console(name, image)
    }

    fn console_declaration(&self, image: &str) -> String {
        console_body(image).to_string()
    }

    fn execute(&self, exec: &Exec<'_>) -> Result<Attached> {
        self.start_exec(exec)
    }

    fn resize(&self, exec: &str, size: (u16, u16)) -> Result<()> {
        self.resize_exec(exec, size)
    }

    fn exit_code(&self, exec: &str) -> Result<i64> {
        self.exit_code_of(exec)
    }

    fn members(&self, project: &str) -> Result<Vec<Member>> {
        self.members_of(project)
    }

    fn inside(&self, project: &str, service: &str) -> Result<Option<Inside>> {
        self.inside_of(project, service)
    }

    fn name_image(&self, id: &str, name: &str) -> Result<()> {
        self.tag_image(id, name)
    }

    fn stacks(&self) -> Result<Vec<(String, Vec<String>)>> {
        self.layers_of_images()
    }

    fn runs_on_demand(&self) -> bool {
        self.is_podman
    }

    fn resume(&self) -> Result<()> {
        if self.is_podman { self.start_kept() } else { Ok(()) }
    }

    fn list(&self) -> Result<Vec<Listed>> {
        let containers = self.get("/containers/json?all=1")?;
        let containers = containers.as_array().ok_or_else(|| senseless("no list of containers"))?;
        containers.iter().map(read_listed).collect()
    }
}

fn create_body(declared: &Container, image: &str) -> Value {
    let port = |container: u16| format!("{container}/tcp");
    let exposed = declared.publish.iter().map(|it| (port(it.container), json!({})));
    let mut bindings = Map::new();
    for publish in &declared.publish {
        let hosts = bindings.entry(port(publish.container)).or_insert_with(|| json!([]));
        if let Some(hosts) = hosts.as_array_mut() {
            hosts.push(json!({ "HostPort": publish.host.to_string() }));
        }
    }
    let mut body = json!({
        "Image": image,
        "Env": declared.environment,
        "ExposedPorts": exposed.collect::<Map<_, _>>(),
        "HostConfig": {
            // A program that does not expect to be PID 1 would ignore SIGTERM, and every shutdown
            // would wait for it in vain.
            "Init": true,
            "NetworkMode": declared.network,
            "PortBindings": bindings,
            "RestartPolicy": { "Name": policy(declared.again) },
        },
    });
    if !declared.arguments.is_empty() {
        body["Cmd"] = json!(declared.arguments);
    }
    body
}

/// As the API names it.
fn policy(again: Again) -> &'static str {
    match again {
        Again::Always => "always",
        Again::OnFailure => "on-failure",
        Again::Never => "no",
    }
}

fn read_container(container: &Value) -> Result<Found> {
    let state = &container["State"];
    Ok(Found {
        declaration: container["Config"]["Labels"][LABEL].as_str().map(str::to_owned),
        image: text(container, "Image")?,
        state: match state["Status"].as_str() {
            Some("running" | "paused") => State::Running,
            Some("restarting") => State::Restarting,
            Some("created") => State::Created,
            Some(_) => State::Ended,
            None => return Err(senseless("a container without a state")),
        },
        // A container that never ran has a time of the year 1.
        started: state["StartedAt"].as_str().and_then(Moment::parse).filter(Moment::is_real),
        exit_code: state["ExitCode"].as_i64().unwrap_or_default(),
    })
}

fn read_listed(container: &Value) -> Result<Listed> {
    let name =
        container["Names"][0].as_str().ok_or_else(|| senseless("a container without name"))?;
    Ok(Listed {
        name: name.trim_start_matches('/').to_owned(),
        image: text(container, "Image")?,
        state: text(container, "State")?,
        status: text(container, "Status")?,
    })
}

/// What loading said: progress documents one after another, of which one may be an error although
/// the status was 200 when it began.
pub(super) fn load_result(answer: &[u8]) -> Result<()> {
    for document in serde_json::Deserializer::from_slice(answer).into_iter::<Value>() {
        let document = document.map_err(|error| senseless(&format!("not JSON: {error}")))?;
        if let Some(error) = document["error"].as_str() {
            return Err(Error::Refused(200, error.trim().to_owned()));
        }
    }
    Ok(())
}

pub(super) fn document(response: Response<UnixStream>) -> Result<Value> {
    let bytes = response.document()?;
    serde_json::from_slice(&bytes).map_err(|error| senseless(&format!("not JSON: {error}")))
}

/// The engine's words of a refusal: `{"message": "…"}`, or whatever it sent.
fn message(bytes: &[u8]) -> String {
    let document: Value = serde_json::from_slice(bytes).unwrap_or_default();
    match document["message"].as_str() {
        Some(message) => message.trim().to_owned(),
        None => String::from_utf8_lossy(bytes).trim().chars().take(200).collect(),
    }
}

/// The port of `… Bind for 0.0.0.0:80 failed: port is already allocated`, which the engine says of
/// ports that it has given away itself; one of another program is "already in use".
fn refused_port(refusal: &Error) -> Option<u16> {
    let Error::Refused(_, message) = refusal else { return None };
    let (address, _) = message.split_once(" failed: port is already allocated")?;
    address.rsplit_once(':')?.1.parse().ok()
}

/// Turns "no such thing" into `None`.
pub(super) fn found(result: Result<Value>) -> Result<Option<Value>> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(Error::Refused(404, _)) => Ok(None),
        Err(error) => Err(error),
    }
}

pub(super) fn text(document: &Value, field: &str) -> Result<String> {
    let text = document[field].as_str().map(str::to_owned);
    text.ok_or_else(|| senseless(&format!("no field {field}")))
}

pub(super) fn senseless(what: &str) -> Error {
    Error::Senseless(format!("the engine's answer makes no sense: {what}"))
}

#[cfg(test)]
mod tests {
    use ondisk::system::Publish;

    use super::*;

    #[test]
    fn a_declaration_becomes_what_the_engine_is_asked_for() {
        let publish = |host, container| Publish { host, container };
        let declared = Container {
            name: "web".to_owned(),
            image: "/usr/share/iota/images/web.tar".to_owned(),
            arguments: vec!["/bin/sh".to_owned(), "-c".to_owned(), "echo \"a b\"".to_owned()],
            environment: vec!["TERM=dumb".to_owned()],
            network: "bridge".to_owned(),
            publish: vec![publish(8080, 80), publish(8081, 80), publish(443, 443)],
            after: Vec::new(),
            again: Again::Always,
            on_demand: false,
        };
        let expected = json!({
            "Image": "sha256:00",
            "Cmd": ["/bin/sh", "-c", "echo \"a b\""],
            "Env": ["TERM=dumb"],
            "ExposedPorts": { "80/tcp": {}, "443/tcp": {} },
            "HostConfig": {
                "Init": true,
                "NetworkMode": "bridge",
                "PortBindings": {
                    "80/tcp": [{ "HostPort": "8080" }, { "HostPort": "8081" }],
                    "443/tcp": [{ "HostPort": "443" }],
                },
                "RestartPolicy": { "Name": "always" },
            },
        });
        assert_eq!(create_body(&declared, "sha256:00"), expected);
        let once = Container { again: Again::Never, ..declared.clone() };
        let body = create_body(&once, "sha256:00");
        assert_eq!(body["HostConfig"]["RestartPolicy"]["Name"], "no");
        let own_command = Container { arguments: Vec::new(), ..declared };
        assert_eq!(create_body(&own_command, "sha256:00").get("Cmd"), None);
    }

    #[test]
    fn loading_fails_if_any_of_its_documents_is_an_error() {
        let fine = br#"{"stream":"Loaded"} {"stream":"image"}"#;
        assert!(load_result(fine).is_ok());
        assert!(load_result(b"").is_ok());
        let error = load_result(b"{\"stream\":\"a\"}\n{\"error\":\"no space\\n\"}").unwrap_err();
        assert_eq!(error.to_string(), "no space (status 200)");
        let error = load_result(b"<html>").unwrap_err().to_string();
        assert!(error.starts_with("the engine's answer makes no sense: not JSON: "), "{error}");
    }

    #[test]
    fn a_refusal_is_told_in_the_engines_words() {
        assert_eq!(message(br#"{"message":"No such container: x\n"}"#), "No such container: x");
        assert_eq!(message(b"page not found\n"), "page not found");
        assert_eq!(message(&[b'x'; 999]).len(), 200);
    }

    #[test]
    fn a_container_without_the_fields_that_matter_makes_no_sense() {
        for document in [json!({}), json!([]), json!({ "Image": "x", "State": { "Status": 1 } })] {
            assert!(matches!(read_container(&document), Err(Error::Senseless(_))), "{document}");
            assert!(matches!(read_listed(&document), Err(Error::Senseless(_))), "{document}");
        }
    }
}
