//! Engines besides Docker, in a virtual machine.

use std::io;
use std::time::{Duration, Instant};

use builder::host::qemu::{Forward, Options};
use qemu_tests::disk::Disk;
use qemu_tests::machine::Machine;
use qemu_tests::ssh::Person;
use qemu_tests::web_server::free_port;
use qemu_tests::{scratch, slow_tests_wanted};

use crate::apps::{COMPOSE, build_with, is_well, page};

const LONG: Duration = Duration::from_secs(400);

#[test]
fn podman_runs_containers_and_apps_and_holds_no_memory_while_nobody_asks_it() {
    if !slow_tests_wanted() {
        return;
    }
    // Seldom enough that Podman ends between two checks.
    let compose = COMPOSE.replace("interval: 2s", "interval: 60s");
    let out = build_with(&scratch().join("podman"), &compose, "podman");
    let owner = Person::new("anna@mill", 1);
    let config = format!("[ssh]\nkeys = [\"{}\"]\n", owner.public_key());
    let disk = Disk::flashed_with_config(&out, "podman", &config);
    let (port, hello, ssh) = (free_port(), free_port(), free_port());
    let forward = |host, guest| Forward { host, guest };
    let forwards = vec![forward(port, 8080), forward(hello, 80), forward(ssh, 22)];
    let options = Options { persist: true, forwards, ..Options::new(disk.path()) };

    let mut machine = Machine::boot("podman", &options);
    machine.expect_somewhere("container hello started", LONG);
    machine.expect_somewhere("image shop/web:1 loaded", LONG);
    machine.expect_somewhere("app shop ready", LONG);
    machine.expect_somewhere("iota app hello: Hello from a container", LONG);
    assert!(page(hello, "").contains("Hello from a container"));
    assert!(page(port, "starts").ends_with("started\n"));
    is_well(&mut machine);
    let listed = owner.docker(ssh, &["ps", "--format", "{{.Names}} {{.Status}}"]);
    let said = String::from_utf8_lossy(&listed.stdout).into_owned();
    assert!(said.contains("shop-web-1 Up") && said.contains("hello Up"), "{listed:?}");
    let (code, said) = machine.execute(&["app", "logs", "shop"], io::empty());
    assert!(code == 0 && said.contains("web is up"), "{said}");
    let (code, said) = machine.execute(&["logs", "hello"], io::empty());
    assert!(code == 0 && said.contains("Hello from a container"), "{said}");
    let (code, said) = machine.execute(&["app", "restart", "shop"], io::empty());
    assert_eq!((code, said.contains("app shop restarted")), (0, true), "{said}");
    assert!(page(port, "starts").ends_with("started\nstarted\n"));
    is_asleep(&mut machine);
    machine.power_off(LONG);
    let said = machine.console.log();
    assert!(!said.contains("do not stop"), "a container did not stop:\n{said}");
}

/// Before long no process of the engine is left but the keepers of containers.
fn is_asleep(machine: &mut Machine) {
    let deadline = Instant::now() + LONG;
    loop {
        // Who looks wakes it: for longer than it stays awake, nobody does.
        std::thread::sleep(Duration::from_secs(20));
        let status = machine.status();
        let processes = status["memory"]["processes"].as_array().unwrap();
        let has = |name: &str| processes.iter().any(|process| process["name"] == name);
        assert!(has("conmon"), "{status}");
        if !has("podman") {
            return;
        }
        assert!(Instant::now() < deadline, "podman is still there: {status}");
    }
}
