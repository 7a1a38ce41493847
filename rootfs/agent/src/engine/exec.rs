//! Programs that somebody starts in a running container, and the container they log in to.

use std::io::Read;
use std::os::unix::net::UnixStream;

use serde_json::{Value, json};

use super::docker::{Docker, LABEL, LONG_PATIENCE, document, found, load_result, senseless, text};
use crate::client::{Content, Result, escape};

/// A program to start in a container.
#[derive(Clone, Debug)]
pub struct Exec<'a> {
    /// Which one.
    pub container: &'a str,
    /// Program and arguments.
    pub command: Vec<String>,
    /// `KEY=VALUE` added to the container's own.
    pub environment: Vec<String>,
    /// Rows and columns of the terminal, if it runs on one.
    pub terminal: Option<(u16, u16)>,
}

/// A program that runs in a container.
pub struct Attached {
    /// The engine's name for it.
    pub id: String,
    /// Its input.
    pub input: UnixStream,
    /// Its output: as it is from a terminal, else in frames.
    pub output: Box<dyn Read>,
}

impl Docker {
    pub(super) fn image_id_of(&self, name: &str) -> Result<Option<String>> {
        let image = found(self.get(&format!("/images/{}/json", escape(name))))?;
        image.map(|image| text(&image, "Id")).transpose()
    }

    pub(super) fn pull_image(&self, name: &str) -> Result<()> {
        // Without a tag the engine would fetch every one there is.
        let last = name.rsplit('/').next().unwrap_or(name);
        let tag = if last.contains([':', '@']) { "" } else { "&tag=latest" };
        let target = format!("/images/create?fromImage={}{tag}", escape(name));
        let response = self.request("POST", &target, Content::None, Some(LONG_PATIENCE))?;
        load_result(&response.document()?)
    }

    pub(super) fn make_console(&self, name: &str, image: &str) -> Result<()> {
        let mut body = console_body(image);
        body["Labels"] = json!({ LABEL: console_body(image).to_string() });
        let target = format!("/containers/create?name={}", escape(name));
        self.post(&target, Content::Json(&body.to_string()))
    }

    pub(super) fn start_exec(&self, exec: &Exec<'_>) -> Result<Attached> {
        let body = exec_body(exec).to_string();
        let target = format!("/containers/{}/exec", escape(exec.container));
        let content = Content::Json(&body);
        let made = document(self.request("POST", &target, content, Some(LONG_PATIENCE))?)?;
        let id = text(&made, "Id")?;
        let size = exec.terminal.map(|(rows, columns)| json!([rows, columns]));
        let body = json!({ "Tty": exec.terminal.is_some(), "ConsoleSize": size }).to_string();
        let target = format!("/exec/{}/start", escape(&id));
        // From here on the connection is the program's: input one way, output the other.
        let output = self.request("POST", &target, Content::Json(&body), None)?;
        let input = output.stream().try_clone()?;
        Ok(Attached { id, input, output: Box::new(output) })
    }

    pub(super) fn resize_exec(&self, id: &str, (rows, columns): (u16, u16)) -> Result<()> {
        let target = format!("/exec/{}/resize?h={rows}&w={columns}", escape(id));
        self.post(&target, Content::None)
    }

    pub(super) fn exit_code_of(&self, id: &str) -> Result<i64> {
        let exec = self.get(&format!("/exec/{}/json", escape(id)))?;
        exec["ExitCode"].as_i64().ok_or_else(|| senseless("a program without an exit code"))
    }
}

/// In the host's namespaces and with its devices, so that the host can be looked at and repaired
/// from there; the root itself stays read-only for everybody.
pub(super) fn console_body(image: &str) -> Value {
    json!({
        "Image": image,
        "Entrypoint": [],
        // It has to stay while nobody is logged in; every image with a shell has `sleep`.
        "Cmd": ["sleep", "2147483647"],
        "WorkingDir": "/root",
        "Hostname": "",
        "StopSignal": "SIGKILL",
        "HostConfig": {
            "Privileged": true,
            "NetworkMode": "host",
            "PidMode": "host",
            "IpcMode": "host",
            "UTSMode": "host",
            "CgroupnsMode": "host",
            "Binds": [
                "/:/host:rslave",
                "/dev:/dev",
                // The directory, so that the engine's socket is there after its restart as well.
                "/run:/run:rslave",
                "/data:/data:rslave",
                "/usr/bin/iota:/usr/bin/iota:ro",
                "/usr/lib/iota:/usr/lib/iota:ro",
                "iota-console-home:/root",
            ],
        },
    })
}

fn exec_body(exec: &Exec<'_>) -> Value {
    json!({
        "AttachStdin": true,
        "AttachStdout": true,
        "AttachStderr": true,
        "Tty": exec.terminal.is_some(),
        "Env": exec.environment,
        "Cmd": exec.command,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_on_a_terminal_and_one_in_a_pipe_are_asked_for_differently() {
        let command = vec!["sh".to_owned(), "-l".to_owned()];
        let mut exec = Exec {
            container: "console",
            command,
            environment: vec!["TERM=xterm".to_owned()],
            terminal: Some((24, 80)),
        };
        let body = exec_body(&exec);
        assert_eq!((&body["Tty"], &body["Cmd"]), (&json!(true), &json!(["sh", "-l"])));
        exec.terminal = None;
        assert_eq!(exec_body(&exec)["Tty"], json!(false));
    }
}
