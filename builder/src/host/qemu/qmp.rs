//! QEMU's control connection: JSON lines over a socket (docs/interop/qmp-spec in QEMU's sources).

use std::io::{self, BufRead, BufReader, Write as _};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::mpsc::{self, Receiver};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::error::{Context, Error, Result};

/// QEMU answers within milliseconds; on a machine that swaps, within seconds.
const PATIENCE: Duration = Duration::from_secs(20);

/// A connection that is ready for commands.
pub(super) struct Qmp {
    stream: UnixStream,
    answers: Receiver<Value>,
}

impl Qmp {
    /// Connects as soon as QEMU listens; `ended` says that it never will. Events go to `on_event`,
    /// called from a thread of its own.
    pub(super) fn connect(
        socket: &Path,
        mut ended: impl FnMut() -> bool,
        on_event: impl FnMut(Value) + Send + 'static,
    ) -> Result<Self> {
        let deadline = Instant::now() + PATIENCE;
        let stream = loop {
            match UnixStream::connect(socket) {
                Ok(stream) => break stream,
                Err(_) if ended() => return Err(Error::new("QEMU ended before it started")),
                Err(cause) if Instant::now() > deadline => {
                    return Err(Error::caused("QEMU does not answer", cause));
                }
                Err(_) => std::thread::sleep(Duration::from_millis(5)),
            }
        };
        let what = || "cannot talk to QEMU".to_owned();
        let reader = BufReader::new(stream.try_clone().context(what)?);
        let (sender, answers) = mpsc::channel();
        std::thread::spawn(move || listen(reader, on_event, |answer| sender.send(answer).is_ok()));
        let connection = Self { stream, answers };
        connection.execute("qmp_capabilities", json!({}))?;
        Ok(connection)
    }

    /// Runs one command and returns its result.
    pub(super) fn execute(&self, command: &str, arguments: Value) -> Result<Value> {
        let what = || format!("QEMU's command {command}");
        let line = format!("{}\n", json!({ "execute": command, "arguments": arguments }));
        (&self.stream).write_all(line.as_bytes()).context(what)?;
        let mut answer = self.answers.recv_timeout(PATIENCE).context(what)?;
        match answer.get_mut("return") {
            Some(result) => Ok(result.take()),
            None => Err(Error::new(format!("{}: {answer}", what()))),
        }
    }
}

/// Sorts what QEMU says into events and answers, until the connection or the listener ends.
fn listen(
    reader: impl BufRead,
    mut on_event: impl FnMut(Value),
    on_answer: impl Fn(Value) -> bool,
) {
    for line in reader.lines().map_while(io::Result::ok) {
        let Ok(message) = serde_json::from_str::<Value>(&line) else { continue };
        if message.get("event").is_some() {
            on_event(message);
        } else if message.get("QMP").is_none() && !on_answer(message) {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn greeting_events_and_answers_are_told_apart() {
        let text = concat!(
            "{\"QMP\": {}}\n",
            "{\"return\": {}}\n",
            "not json\n",
            "{\"event\": \"SHUTDOWN\", \"data\": {\"reason\": \"guest-shutdown\"}}\n",
            "{\"error\": {\"desc\": \"x\"}}\n",
        );
        let (mut events, answers) = (Vec::new(), std::cell::RefCell::new(Vec::new()));
        listen(
            text.as_bytes(),
            |event| events.push(event["event"].clone()),
            |answer| {
                answers.borrow_mut().push(answer.get("return").is_some());
                true
            },
        );
        assert_eq!(events, ["SHUTDOWN"]);
        assert_eq!(*answers.borrow(), [true, false]);
    }
}
