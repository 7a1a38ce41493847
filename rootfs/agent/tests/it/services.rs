//! `iota services`, from an engine that is not up yet to one that dies.

use std::io::{self, Write};
use std::path::Path;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;
use std::time::Duration;

use agent::console::Console;
use agent::engine;
use agent::led::StatusLed;
use agent::services::{Pace, Services};
use ondisk::system::{Again, Container, Led};

use crate::fake::{Answer, Fake, IMAGE};
use Answer::{CutBy, Held, Recorded};

const FIND: &str = "GET /containers/hello/json";
const LOAD: &str = "POST /images/load?quiet=1";
const CREATE: &str = "POST /containers/create?name=hello";
const START: &str = "POST /containers/hello/start";
const REMOVE: &str = "DELETE /containers/hello?force=1&v=1";
const OUTPUT: &str = "GET /containers/hello/logs?follow=1&stdout=1&stderr=1&timestamps=1";

fn image() -> String {
    format!("GET /images/sha256%3A{IMAGE}/json")
}

/// Sends each line on, without its prefix and time.
struct Lines(Sender<String>);

impl Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let line = std::str::from_utf8(bytes).unwrap().strip_suffix('\n').unwrap();
        let line = match line.strip_prefix("iota agent: [") {
            Some(rest) => rest.split_once("] ").unwrap().1,
            None => line,
        };
        // The receiver is gone when its test is over.
        let _ = self.0.send(line.to_owned());
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The LED of a board, in the directory of the test.
fn led() -> Led {
    let pattern = |text: &str| text.parse().unwrap();
    Led {
        name: "ACT".to_owned(),
        starting: pattern("timer"),
        running: pattern("heartbeat"),
        safe: pattern("timer"),
        stopping: pattern("default-on"),
    }
}

/// Runs the services of one container `hello`, as long as the test process lives.
fn run(fake: &Fake, directory: &Path) -> Receiver<String> {
    run_with(fake, directory, || Err("nobody restarts it".to_owned()))
}

fn run_with(
    fake: &Fake,
    directory: &Path,
    restart: impl Fn() -> Result<(), String> + Send + Sync + 'static,
) -> Receiver<String> {
    let container = Container {
        name: "hello".to_owned(),
        image: directory.join("hello.tar").to_str().unwrap().to_owned(),
        arguments: Vec::new(),
        environment: Vec::new(),
        network: "host".to_owned(),
        publish: Vec::new(),
        after: Vec::new(),
        again: Again::Always,
        on_demand: false,
    };
    let (sender, receiver) = channel();
    let engine = engine::open("docker", &fake.socket).unwrap();
    let leds = directory.to_owned();
    thread::spawn(move || {
        let console = Console::new(Lines(sender));
        let pace = Pace { first: Duration::from_millis(1), longest: Duration::from_millis(20) };
        let led = StatusLed::within(Some(led()), leds.clone(), leds.join("running"));
        Services::new(&*engine, "docker", &console, &led, pace, &restart).run(&[container], &[])
    });
    receiver
}

fn write_archive(directory: &Path) -> Vec<u8> {
    let manifest = format!(r#"[{{"Config":"blobs/sha256/{IMAGE}","Layers":[]}}]"#);
    let mut tar = tar::Builder::new(Vec::new());
    for (name, bytes) in [("manifest.json", manifest.as_bytes()), ("layer", &[7; 100_000])] {
        let mut header = tar::Header::new_ustar();
        header.set_size(bytes.len() as u64);
        tar.append_data(&mut header, name, bytes).unwrap();
    }
    let bytes = tar.into_inner().unwrap();
    std::fs::write(directory.join("hello.tar"), &bytes).unwrap();
    bytes
}

/// The next lines, in this order. A line that does not come is a failure, not a wait for ever.
#[track_caller]
fn expect(lines: &Receiver<String>, expected: &[&str]) {
    for expected in expected {
        match lines.recv_timeout(Duration::from_secs(30)) {
            // How long loading took is not the same every time.
            Ok(line) if expected.ends_with('…') => {
                let beginning = expected.trim_end_matches('…');
                assert!(line.starts_with(beginning), "{line} is not {expected}");
            }
            Ok(line) => assert_eq!(line, *expected),
            Err(_) => panic!("`{expected}` did not come"),
        }
    }
}

#[test]
fn a_first_boot_loads_creates_starts_and_shows_the_output() {
    let directory = tempfile::tempdir().unwrap();
    let archive = write_archive(directory.path());
    let fake = Fake::new(
        directory.path(),
        &[
            (FIND, &[Recorded("find-absent"), Recorded("find-ended")]),
            (&image(), &[Recorded("image-absent"), Recorded("image")]),
            (LOAD, &[Recorded("load")]),
            (CREATE, &[Recorded("create")]),
            (START, &[Recorded("start")]),
            (OUTPUT, &[Recorded("output-ended")]),
        ],
    );
    let trigger = directory.path().join("ACT/trigger");
    std::fs::create_dir(directory.path().join("ACT")).unwrap();
    std::fs::write(&trigger, "timer").unwrap();
    let lines = run(&fake, directory.path());
    thread::sleep(Duration::from_millis(30)); // patience: the engine comes up later
    assert_eq!(std::fs::read_to_string(&trigger).unwrap(), "timer", "not running yet");
    fake.start();
    let loaded = format!("image {}/hello.tar loaded: …", directory.path().display());
    expect(&lines, &["engine docker ready", &loaded, "container hello started", "system ready"]);
    expect(&lines, &["iota app hello: trouble", "iota app hello: hello from x86_64"]);
    expect(&lines, &["iota app hello: done", "container hello ended with status 7"]);
    assert_eq!(std::fs::read_to_string(&trigger).unwrap(), "heartbeat", "the LED shows it");

    let asked = fake.asked();
    let order = [FIND, &image(), LOAD, &image(), CREATE, START, OUTPUT, FIND];
    assert_eq!(fake.lines()[..order.len()], order);
    assert!(asked[2].body == archive, "the archive arrives as it is");
    let body: serde_json::Value = serde_json::from_slice(&asked[4].body).unwrap();
    assert_eq!(body["Image"], format!("sha256:{IMAGE}"));
    assert_eq!(body["HostConfig"]["RestartPolicy"]["Name"], "always");
}

#[test]
fn a_second_boot_makes_nothing_and_shows_only_what_is_new() {
    let directory = tempfile::tempdir().unwrap();
    write_archive(directory.path());
    // The recorded container was started at 15:08:22.047…; nothing before that is asked for.
    let since = format!("{OUTPUT}&since=1795446502.047017789");
    let fake = Fake::new(
        directory.path(),
        &[(FIND, &[Recorded("find-running")]), (&since, &[Held("output-broken-off")])],
    );
    fake.start();
    let lines = run(&fake, directory.path());
    expect(&lines, &["engine docker ready", "container hello running", "system ready"]);
    expect(&lines, &["iota app hello: hello from x86_64", "iota app hello: trouble"]);
    assert_eq!(fake.lines(), [FIND, &since]);
}

#[test]
fn a_container_that_had_ended_is_started_at_boot() {
    let directory = tempfile::tempdir().unwrap();
    write_archive(directory.path());
    let fake = Fake::new(
        directory.path(),
        &[(FIND, &[Recorded("find-exited")]), (START, &[Recorded("start-already")])],
    );
    fake.start();
    let lines = run(&fake, directory.path());
    expect(&lines, &["engine docker ready", "container hello started", "system ready"]);
    assert_eq!(fake.lines()[..2], [FIND, START]);
}

#[test]
fn an_engine_that_dies_is_waited_for_and_no_line_comes_twice() {
    let directory = tempfile::tempdir().unwrap();
    write_archive(directory.path());
    let since = format!("{OUTPUT}&since=1795446502.047017789");
    // One nanosecond after the last line that was shown.
    let later = format!("{OUTPUT}&since=1795446502.063678253");
    let fake = Fake::new(
        directory.path(),
        &[
            (FIND, &[Recorded("find-running")]),
            (&since, &[Held("output-broken-off")]),
            (&later, &[Held("output-ended")]),
        ],
    );
    fake.start();
    let lines = run(&fake, directory.path());
    expect(&lines, &["engine docker ready", "container hello running", "system ready"]);
    expect(&lines, &["iota app hello: hello from x86_64", "iota app hello: trouble"]);
    fake.stop();
    expect(&lines, &["engine docker does not answer: …"]);
    fake.start();
    expect(&lines, &["engine docker ready", "iota app hello: trouble"]);
    assert_eq!(fake.lines(), [FIND, &since, FIND, &later]);
}

#[test]
fn output_that_is_cut_within_a_frame_goes_on_after_the_last_whole_one() {
    let directory = tempfile::tempdir().unwrap();
    write_archive(directory.path());
    let since = format!("{OUTPUT}&since=1795446502.047017789");
    let later = format!("{OUTPUT}&since=1795446502.063104269");
    let fake = Fake::new(
        directory.path(),
        &[
            (FIND, &[Recorded("find-running")]),
            (&since, &[CutBy(12, "output-broken-off")]),
            (&later, &[Held("output-ended")]),
        ],
    );
    fake.start();
    let lines = run(&fake, directory.path());
    expect(&lines, &["engine docker ready", "container hello running", "system ready"]);
    expect(&lines, &["iota app hello: hello from x86_64", "iota app hello: trouble"]);
    assert_eq!(fake.lines(), [FIND, &since, FIND, &later]);
}

#[test]
fn a_container_of_an_older_image_is_replaced_once_the_new_image_is_there() {
    let directory = tempfile::tempdir().unwrap();
    write_archive(directory.path());
    let remove_image =
        "DELETE /images/sha256%3Ae87ea8b11c2ea5886cc21109f6e2d52edd0aa4fc658a3e342d35b8faa2c5c131";
    let fake = Fake::new(
        directory.path(),
        &[
            (FIND, &[Recorded("find-older")]),
            (&image(), &[Recorded("image-absent"), Recorded("image")]),
            (LOAD, &[Recorded("load")]),
            (REMOVE, &[Recorded("remove")]),
            (CREATE, &[Recorded("create")]),
            (START, &[Recorded("start")]),
            (remove_image, &[Recorded("remove-image")]),
            (OUTPUT, &[Held("output-ended")]),
        ],
    );
    fake.start();
    let lines = run(&fake, directory.path());
    let changed = "container hello changed with the system image, replacing it";
    expect(
        &lines,
        &["engine docker ready", changed, "image …", "container hello started", "system ready"],
    );
    expect(&lines, &["iota app hello: trouble"]);
    let order =
        [FIND, &image(), LOAD, &image(), REMOVE, &image(), CREATE, START, remove_image, OUTPUT];
    assert_eq!(fake.lines(), order);
}

#[test]
fn a_container_of_somebody_else_is_left_alone() {
    let directory = tempfile::tempdir().unwrap();
    write_archive(directory.path());
    let fake = Fake::new(directory.path(), &[(FIND, &[Recorded("find-foreign")])]);
    fake.start();
    let lines = run(&fake, directory.path());
    let refused = "container hello: a container of this name was made by somebody else; \
        remove or rename it";
    expect(&lines, &["engine docker ready", refused]);
    assert!(lines.recv_timeout(Duration::from_millis(100)).is_err(), "said once");
    assert!(fake.lines().len() > 2, "and looked at again and again");
    assert!(fake.lines().iter().all(|line| line == FIND));
}

#[test]
fn an_image_that_the_engine_refuses_is_reported_in_its_words_and_tried_again() {
    let directory = tempfile::tempdir().unwrap();
    write_archive(directory.path());
    let fake = Fake::new(
        directory.path(),
        &[
            (FIND, &[Recorded("find-absent")]),
            (&image(), &[Recorded("image-absent"), Recorded("image-absent"), Recorded("image")]),
            (LOAD, &[Recorded("load-error"), Recorded("load")]),
            (CREATE, &[Recorded("create")]),
            (START, &[Recorded("start-error"), Recorded("start")]),
            (OUTPUT, &[Held("output-ended")]),
        ],
    );
    fake.start();
    let lines = run(&fake, directory.path());
    expect(&lines, &["engine docker ready", "container hello: open /var/lib/docker/tmp/docker-…"]);
    expect(&lines, &["image …", "container hello: failed to create task for container: …"]);
    expect(&lines, &["container hello started", "system ready", "iota app hello: trouble"]);
}

#[test]
fn an_engine_that_keeps_a_port_which_nobody_uses_is_restarted_once() {
    let directory = tempfile::tempdir().unwrap();
    write_archive(directory.path());
    let fake = Fake::new(
        directory.path(),
        &[
            (FIND, &[Recorded("find-exited")]),
            (START, &[Recorded("start-port")]),
            ("GET /containers/json", &[Recorded("list-none")]),
        ],
    );
    fake.start();
    let (sender, restarts) = channel();
    let lines =
        run_with(&fake, directory.path(), move || sender.send(()).map_err(|e| e.to_string()));
    let refused = "container hello: driver failed programming external connectivity …";
    let restarted = "engine docker holds a port that nobody uses, restarting it";
    expect(&lines, &["engine docker ready", refused, restarted]);
    restarts.recv_timeout(Duration::from_secs(30)).unwrap();
    let starts = || fake.lines().iter().filter(|line| *line == START).count();
    assert!(starts() >= 5, "it was given time: {}", starts());
    while starts() < 20 {
        thread::sleep(Duration::from_millis(10));
    }
    assert!(restarts.try_recv().is_err(), "a second restart would not help either");
}

#[test]
fn an_engine_whose_port_a_container_has_is_not_restarted() {
    let directory = tempfile::tempdir().unwrap();
    write_archive(directory.path());
    let fake = Fake::new(
        directory.path(),
        &[
            (FIND, &[Recorded("find-exited")]),
            (START, &[Recorded("start-port")]),
            ("GET /containers/json", &[Recorded("list-port")]),
        ],
    );
    fake.start();
    let lines = run(&fake, directory.path());
    expect(&lines, &["engine docker ready", "container hello: driver failed …"]);
    while fake.lines().iter().filter(|line| *line == START).count() < 10 {
        thread::sleep(Duration::from_millis(10));
    }
    assert!(lines.try_recv().is_err(), "nothing else is said");
}

#[test]
fn an_archive_that_is_not_there_is_named() {
    let directory = tempfile::tempdir().unwrap();
    let fake = Fake::new(directory.path(), &[]);
    fake.start();
    let lines = run(&fake, directory.path());
    let path = directory.path().join("hello.tar");
    let missing = format!("container hello: {}: No such file or directory …", path.display());
    expect(&lines, &["engine docker ready", &missing]);
    assert!(fake.lines().is_empty());
}
