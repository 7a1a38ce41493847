//! Engines besides Docker, in a virtual machine.

use std::ffi::OsStr;
use std::io;
use std::path::Path;
use std::time::{Duration, Instant};

use builder::host::qemu::{Forward, Options};
use qemu_tests::disk::Disk;
use qemu_tests::machine::Machine;
use qemu_tests::ssh::Person;
use qemu_tests::tools::text_of;
use qemu_tests::web_server::free_port;
use qemu_tests::{image, scratch, slow_tests_wanted};

use crate::apps::{COMPOSE, build_with, is_well, page, runs_on_demand};

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
    let (port, lazy) = (free_port(), free_port());
    let (hello, ssh) = (free_port(), free_port());
    let forward = |host, guest| Forward { host, guest };
    let apps = [forward(port, 8080), forward(lazy, 8081)];
    let forwards = [&apps[..], &[forward(hello, 80), forward(ssh, 22)]].concat();
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
    assert_eq!(runs_on_demand(&mut machine, lazy), 1);
    is_asleep(&mut machine);
    podman_gets_a_new_store(&mut machine, &owner, ssh, port);
    machine.power_off(LONG);
    let said = machine.console.log();
    assert!(!said.contains("do not stop"), "a container did not stop:\n{said}");
}

/// What Podman knows about everything becomes noise. There is no network to fetch anything from.
fn podman_gets_a_new_store(machine: &mut Machine, owner: &Person, ssh: u16, port: u16) {
    let before = page(port, "starts").matches("started\n").count();
    owner.spoils(ssh, "/var/lib/containers/storage/db.sql", 16);
    machine.restart(LONG);
    machine.expect("image shop/web:1 loaded", LONG);
    machine.expect("app shop ready", LONG);
    machine.expect_somewhere("engine podman ended again and again: its store is put aside", LONG);
    is_well(machine);
    // Its volume has been there all the time.
    assert_eq!(page(port, "starts").matches("started\n").count(), before + 1);
    let (_, text) = machine.execute(&["status"], io::empty());
    assert!(text.contains("the old one is in /var/lib/containers/storage/aside"), "{text}");
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

/// Of the compressed image: it was 66 when this was written, and Docker's 85.
const CONTAINERD_MEGABYTES: u64 = 72;

#[test]
fn containerd_runs_the_systems_containers_keeps_their_output_and_starts_them_again() {
    if !slow_tests_wanted() {
        return;
    }
    let out = build_with_containerd(&scratch().join("containerd"));
    let owner = Person::new("anna@mill", 1);
    let config = format!("[ssh]\nkeys = [\"{}\"]\n", owner.public_key());
    let disk = Disk::flashed_with_config(&out, "containerd", &config);
    let (hello, ssh) = (free_port(), free_port());
    let forward = |host, guest| Forward { host, guest };
    let forwards = vec![forward(hello, 80), forward(ssh, 22)];
    let options = Options { persist: true, forwards, ..Options::new(disk.path()) };

    let mut machine = Machine::boot("containerd-first", &options);
    machine.expect_somewhere("image /usr/share/iota/images/hello.tar loaded", LONG);
    machine.expect_somewhere("container hello started", LONG);
    machine.expect_somewhere("iota app hello: Hello from a container", LONG);
    assert!(page(hello, "").contains("Hello from a container"));
    all_is_well(&mut machine);
    let (code, said) = machine.execute(&["logs", "hello"], io::empty());
    assert!(code == 0 && said.contains("Hello from a container"), "{said}");
    a_shell_in_the_console(&owner, ssh);
    what_ended_runs_again(&mut machine, &owner, ssh);
    apps_are_refused(&mut machine, &owner, ssh);
    machine.power_off(LONG);
    let said = machine.console.log();
    assert!(!said.contains("not stop"), "a container did not stop:\n{said}");
    drop(machine);

    let mut machine = Machine::boot("containerd-second", &options);
    machine.expect_somewhere("container hello started", LONG);
    all_is_well(&mut machine);
    let said = machine.console.log();
    assert!(!said.contains("hello.tar loaded"), "the image was not kept:\n{said}");
    let kept = owner.runs(ssh, &["cat", "note"], "");
    assert_eq!(text_of(&kept), "kept\n", "the console's home");
    an_engine_that_is_killed_leaves_its_containers_alone(&mut machine, &owner, ssh, hello);
    // As a power cut: nobody is told.
    drop(machine);

    let mut machine = Machine::boot("containerd-third", &options);
    machine.expect_somewhere("iota app hello: Hello from a container", LONG);
    all_is_well(&mut machine);
    a_store_that_cannot_be_opened_is_replaced(&mut machine, &owner, ssh);
    machine.power_off(LONG);
}

fn build_with_containerd(directory: &Path) -> std::path::PathBuf {
    let options = ["--engine", "containerd"].map(OsStr::new);
    let built = image::try_to_build(directory, &options);
    let built = built.unwrap_or_else(|error| panic!("{}", error.chain()));
    let bytes = std::fs::metadata(built.join("disk.img.zst")).unwrap().len();
    println!("the image of containerd: {bytes} bytes");
    assert!(bytes < CONTAINERD_MEGABYTES * 1_000_000, "{bytes}");
    let refused =
        image::try_to_build(directory, &[&options[..], &[OsStr::new("--compose")]].concat());
    let error = refused.err().unwrap().chain();
    assert!(error.contains("--compose: the engine containerd runs no apps"), "{error}");
    built
}

fn all_is_well(machine: &mut Machine) {
    machine.expect_somewhere("system ready", LONG);
    let (code, text) = machine.execute(&["status", "--memory"], io::empty());
    assert_eq!(code, 0, "{text}");
    println!("{text}");
    assert!(text.contains("engine     containerd 1.7.") && text.contains(", ready"), "{text}");
    assert!(text.contains("container  hello (") && text.contains("): Up "), "{text}");
}

/// With input, output, errors and exit code, and on a terminal.
fn a_shell_in_the_console(owner: &Person, ssh: u16) {
    let output = owner.runs(ssh, &["read line; echo got $line; echo no >&2; exit 7"], "a line\n");
    let errors = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(7), "{output:?}");
    assert_eq!(String::from_utf8_lossy(&output.stdout), "got a line\n", "{errors}");
    assert!(errors.contains("no\n"), "{errors}");
    let output = owner.runs(ssh, &["ls /host/usr/bin/containerd && echo kept > note"], "");
    assert!(output.status.success(), "{output:?}");
    let typed = text_of(&owner.types(ssh, "tty; echo on $TERM\nexit\n"));
    assert!(typed.contains("/dev/pts/") && typed.contains("on "), "{typed}");
}

/// The program of the container is killed: the engine starts it again, and says so. It has had the
/// score of an ordinary program, and not the engine's.
fn what_ended_runs_again(machine: &mut Machine, owner: &Person, ssh: u16) {
    let line = "for p in /proc/[0-9]*; do \
        if [ \"$(cat $p/comm 2>/dev/null)\" = httpd ]; then \
        echo score $(cat $p/oom_score_adj); kill -9 ${p#/proc/}; fi; done";
    let output = owner.runs(ssh, &[line], "");
    assert_eq!(String::from_utf8_lossy(&output.stdout), "score 0\n", "{output:?}");
    let deadline = Instant::now() + LONG;
    loop {
        let (code, said) = machine.execute(&["logs", "hello"], io::empty());
        if code == 0 && said.matches("Hello from a container").count() == 2 {
            break;
        }
        assert!(Instant::now() < deadline, "{said}");
        std::thread::sleep(Duration::from_secs(1));
    }
    all_is_well(machine);
}

fn apps_are_refused(machine: &mut Machine, owner: &Person, ssh: u16) {
    let (code, said) = machine.execute(&["app", "list"], io::empty());
    assert!(code == 2 && said.contains("runs no apps"), "{code} {said}");
    let pushed = text_of(&owner.runs(ssh, &["iota", "app", "inventory"], ""));
    assert!(pushed.contains("the engine containerd of this system runs no apps"), "{pushed}");
    assert!(pushed.contains("--engine docker or podman"), "{pushed}");
    let dialled = text_of(&owner.runs(ssh, &["docker", "system", "dial-stdio"], ""));
    assert!(dialled.contains("has no Docker API"), "{dialled}");
}

/// A container knows nothing of it, and the next containerd knows the container.
fn an_engine_that_is_killed_leaves_its_containers_alone(
    machine: &mut Machine,
    owner: &Person,
    ssh: u16,
    hello: u16,
) {
    let line = "for p in /proc/[0-9]*; do \
        [ \"$(cat $p/comm 2>/dev/null)\" = containerd ] && kill -9 ${p#/proc/}; done";
    // This shell's connection goes through it.
    owner.runs(ssh, &[line], "");
    machine.expect("service containerd was killed by signal 9", LONG);
    assert!(page(hello, "").contains("Hello from a container"));
    let deadline = Instant::now() + LONG;
    while machine.execute(&["status"], io::empty()).0 != 0 {
        assert!(Instant::now() < deadline, "{}", machine.console.log());
        std::thread::sleep(Duration::from_secs(1));
    }
    let (_, said) = machine.execute(&["logs", "hello"], io::empty());
    assert_eq!(said.matches("Hello from a container").count(), 1, "it was started again: {said}");
}

/// What containerd knows about everything becomes noise. There is no network to fetch anything
/// from.
fn a_store_that_cannot_be_opened_is_replaced(machine: &mut Machine, owner: &Person, ssh: u16) {
    owner.spoils(ssh, "/var/lib/containerd/io.containerd.metadata.v1.bolt/meta.db", 64);
    machine.restart(LONG);
    machine.expect("engine containerd ended again and again: its store is put aside, in", LONG);
    machine.expect_somewhere("image /usr/share/iota/images/hello.tar loaded", LONG);
    machine.expect_somewhere("container hello started", LONG);
    all_is_well(machine);
    let kept = owner.runs(ssh, &["cat", "note"], "");
    assert_eq!(text_of(&kept), "kept\n", "the console's home");
}
