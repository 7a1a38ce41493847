//! A disk that is booted, used, switched off and booted again.

mod config;
mod host;

use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, TcpStream};
use std::time::{Duration, Instant};

use builder::host::qemu::{Forward, Options};
use qemu_tests::disk::Disk;
use qemu_tests::machine::Machine;
use qemu_tests::ssh::Person;
use qemu_tests::web_server::free_port;
use qemu_tests::{image, slow_tests_wanted, tools};
use serde_json::{Value, json};

/// Emulated processors on a busy machine: nothing is measured here.
const LONG: Duration = Duration::from_secs(400);

/// What the card has beyond the image.
const GROWTH_BYTES: u64 = 1 << 30;

/// What the owner of the disk put onto it.
fn config_of(owner: &Person) -> String {
    let key = owner.public_key();
    format!(
        "\
# Kiosk 7, by the window.
hostname = \"kiosk-7\"

[ssh]
keys = [\"{key}\"]

[network]
vlans = [\"eth0.10\"]

[[network.interface]]
name = \"eth0.10\"
address = \"10.77.0.2/24\"

[logs]
persistent = true

[engine]
registry-mirrors = [\"https://mirror.example.org\"]
insecure-registries = [\"registry.lan:5000\"]

[kernel]
modules = [\"wireguard\"]

[sysctl]
vm.max_map_count = 262144
"
    )
}

/// Whom the engine is to ask, from the second boot on; nobody is there.
const PROXY: &str = "http://10.0.2.2:3128";

/// The container's answer on port 80.
const GREETING: &str = "Hello from a container";

#[test]
fn a_fresh_disk_boots_to_a_container_and_boots_again_with_its_data() {
    if !slow_tests_wanted() {
        return;
    }
    let (owner, stranger) = (Person::new("anna@mill", 1), Person::new("eve@dark", 2));
    let mut disk = Disk::flashed_with_config(image::outputs(), "boot", &config_of(&owner));
    disk.enlarge(GROWTH_BYTES);
    let before = disk.system_digests();
    let (port, ssh) = (free_port(), free_port());
    let options = Options {
        persist: true,
        usb: true,
        forwards: vec![Forward { host: port, guest: 80 }, Forward { host: ssh, guest: 22 }],
        ..Options::new(disk.path())
    };

    let mut machine = Machine::boot("boot-first", &options);
    follows_the_stages(&mut machine);
    machine.expect("image /usr/share/iota/images/hello.tar loaded", LONG);
    machine.expect(&format!("iota app hello: {GREETING}"), LONG);
    answers(port);
    machine.expect_somewhere("data has ", LONG);
    let from = json!({ "source": "file", "problem": null, "imported-from": null, "left-out": [] });
    has_config(&mut machine, &from);
    keeps_the_time(&mut machine);
    tells(&mut machine, &["logs", "hello"], GREETING);
    tells(&mut machine, &["logs", "kernel"], "Linux version ");
    tells(&mut machine, &["status", "--memory"], " MiB  dockerd (");
    lets_in(&owner, ssh);
    let id = machine_id(&owner, ssh);
    lets_nobody_else_in(&stranger, ssh);
    is_found_by_its_name(&owner, ssh);
    host::forwards_a_port(&owner, ssh);
    host::is_reached_with_two_cards_of_one_address(&mut machine, &owner, ssh);
    host::is_in_its_virtual_network(&mut machine, &owner, ssh);
    host::may_compress_memory(&mut machine, &owner, ssh);
    host::has_what_only_an_owner_wants(&owner, ssh);
    host::shows_how_it_stands(&mut machine);
    config::is_read_and_changed(&mut machine, &config_of(&owner));
    tells(&mut machine, &["config", "set", "proxy.http", PROXY], "after a restart: proxy.http");
    tells(&mut machine, &["config", "set", "console.serial", "true"], "console.serial");
    answers(port);
    machine.power_off(LONG);
    let said = machine.console.log();
    drop(machine);
    assert!(!said.contains("NOT mounted"), "{said}");
    data_has_grown(&mut disk);
    assert!(said.contains("config: iota.toml"), "{said}");
    assert!(!said.contains("config: ERROR"), "{said}");
    assert!(said.contains("the network change was not confirmed; what was before"), "{said}");
    assert_eq!(disk.system_digests(), before, "the running system wrote to a system partition");
    data_is_clean(&disk);

    // A slip of the owner's hand: what held before, which was changed on the device, goes on, and
    // the device says why.
    disk.replace_in_boot(b"\nhostname = ", b"\nhostnome = ");
    let before = disk.system_digests();
    let mut machine = Machine::boot("boot-second", &options);
    follows_the_stages(&mut machine);
    machine.expect("container hello", LONG);
    // It had begun before the owner's words were read.
    machine.expect_somewhere("engine docker: starts anew with the owner's proxies", LONG);
    answers(port);
    says(&owner.docker(ssh, &["info", "--format", "proxy {{.HTTPProxy}}"]), 0, PROXY);
    // The same host, as the client sees it, with the key that was good before.
    says(&owner.runs(ssh, &["iota", "status"], ""), 0, "container  hello");
    assert_eq!(machine_id(&owner, ssh), id, "another device since the restart");
    let problem = "iota.toml: line 2, column 1: `hostnome` is not a key";
    config::holds_what_was_changed(&mut machine, problem);
    host::has_kept_its_log(&mut machine, &owner, ssh);
    host::lets_in_whoever_sits_at_it(&mut machine);
    machine.power_off(LONG);
    let said = machine.console.log();
    drop(machine);
    assert!(said.contains(&format!("config: ERROR: {problem}; in force: ")), "{said}");
    assert!(
        !said.contains("hello.tar loaded"),
        "the image did not outlive the first boot:\n{said}"
    );
    assert!(!said.contains("data has "), "it grows once:\n{said}");
    assert_eq!(disk.system_digests(), before, "the running system wrote to a system partition");
    data_is_clean(&disk);
}

#[test]
fn a_disk_that_is_not_kept_stays_as_it_was() {
    if !slow_tests_wanted() {
        return;
    }
    let disk = Disk::copy_of(&image::outputs().join("disk.img"), "throw-away");
    let data = disk.table().data().unwrap().extent;
    let before = disk.digests(data);
    let mut machine = Machine::boot("throw-away", &Options::new(disk.path()));
    // Far too early: the driver of the power button is still to come.
    machine.expect("data mounted", LONG);
    machine.power_off(LONG);
    drop(machine);
    assert_eq!(disk.digests(data), before);
}

/// The stages of the console protocol, in their order.
fn follows_the_stages(machine: &mut Machine) {
    for line in [
        "iota loader: version",
        "iota loader: slot A: proven",
        "iota loader: slot A: kernel verified",
        "iota loader: slot A: initrd verified",
        "iota loader: slot A: starting kernel",
        "iota init: [",
        "root mounted",
        "data mounted",
        "engine docker starting",
        "engine docker ready",
    ] {
        machine.expect(line, LONG);
    }
}

/// A command of the device succeeds and its answer holds a text.
fn tells(machine: &mut Machine, command: &[&str], expected: &str) {
    let (code, text) = machine.execute(command, std::io::empty());
    assert_eq!(code, 0, "{text}");
    assert!(text.contains(expected), "{command:?}: {text}");
}

/// Whoever has a key gets what is promised: the command, a shell with input, exit code and a
/// terminal, and the engine.
fn lets_in(owner: &Person, port: u16) {
    let status = owner.runs(port, &["iota", "status", "--json"], "");
    says(&status, 0, "\"hostname\":\"kiosk-7\"");
    let line = "echo on $(uname -m); cat; iota status | grep ^engine; exit 3";
    let console = owner.runs(port, &[line], "typed\n");
    says(&console, 3, "on aarch64\ntyped\nengine     docker ");
    let shell = owner.types(port, "tty && echo $((6 * 7)) && exit 4\n");
    says(&shell, 4, "\n42\r\n");
    says(&shell, 4, "/dev/pts/");
    says(&owner.docker(port, &["ps"]), 0, "hello");
    limits_containers(owner, port);
}

/// Each limit takes a controller of control groups, which every group above has to pass on.
fn limits_containers(owner: &Person, port: u16) {
    let image = owner.docker(port, &["inspect", "--format", "{{.Image}}", "hello"]);
    let image = tools::text_of(&image);
    let limits = ["--cpus", "0.5", "--memory", "32m", "--pids-limit", "50"];
    let script = "cd /sys/fs/cgroup; cat cpu.max memory.max pids.max";
    let begin = ["run", "--rm", "--network", "none", "--entrypoint", "sh"];
    let words = [&begin[..], &limits, &[image.trim(), "-c", script]].concat();
    says(&owner.docker(port, &words), 0, "50000 100000\n33554432\n50\n");
}

/// As programs in containers find it.
fn machine_id(owner: &Person, port: u16) -> String {
    let output = owner.runs(port, &["cat /host/etc/machine-id"], "");
    let id = tools::text_of(&output);
    assert!(id.len() == 33 && id.trim_end().bytes().all(|b| b.is_ascii_hexdigit()), "{id:?}");
    id
}

fn lets_nobody_else_in(stranger: &Person, port: u16) {
    let refused = stranger.runs(port, &["iota", "status"], "");
    says(&refused, 255, "Permission denied (publickey)");
}

/// Asks for `kiosk-7.local` as RFC 6762, section 6.7, lets simple clients ask. The address is the
/// first that QEMU's DHCP server gives.
fn is_found_by_its_name(owner: &Person, port: u16) {
    let query = "nslookup -type=a kiosk-7.local 10.0.2.15:5353";
    let deadline = Instant::now() + LONG;
    loop {
        // The daemon first asks whether the name is free, and the client does not wait long.
        let output = owner.runs(port, &[query], "");
        let text = tools::text_of(&output);
        if text.contains("Name:\tkiosk-7.local\nAddress: 10.0.2.15\n") {
            return;
        }
        assert!(Instant::now() < deadline, "{text}");
    }
}

fn says(output: &std::process::Output, code: i32, expected: &str) {
    let text = tools::text_of(output);
    assert_eq!(output.status.code(), Some(code), "{text}");
    assert!(text.contains(expected), "{expected:?} is not in {text:?}");
}

/// The program that keeps the time has not ended since its first start: nothing else would tell.
fn keeps_the_time(machine: &mut Machine) {
    let deadline = Instant::now() + LONG;
    while !machine.execute(&["logs", "time"], std::io::empty()).1.contains("chronyd version") {
        assert!(Instant::now() < deadline, "the program that keeps the time does not start");
        std::thread::sleep(Duration::from_secs(1));
    }
    let status = machine.status();
    let mut processes = status["memory"]["processes"].as_array().unwrap().iter();
    assert!(processes.any(|process| process["name"] == "chronyd"), "{status}");
    let (code, text) = machine.execute(&["logs", "time"], std::io::empty());
    assert_eq!((code, text.matches("chronyd version").count()), (0, 1), "{text}");
}

/// Partition and file system reach to the end of the disk; a foreign tool finds nothing wrong.
fn data_has_grown(disk: &mut Disk) {
    let before = disk.table().data().unwrap().extent;
    disk.read_table();
    let after = disk.table().data().unwrap().extent;
    assert_eq!((after.offset, after.length), (before.offset, before.length + GROWTH_BYTES));
    let text = tools::run(tools::tool("sgdisk").command().arg("-v").arg(disk.path()));
    assert!(text.contains("No problems found"), "{text}");
    let data = disk.extract(after, "data");
    let text = tools::run(tools::tool("dumpe2fs").command().arg("-h").arg(data));
    let line = text.lines().find_map(|line| line.strip_prefix("Block count:"));
    let blocks: u64 = line.unwrap().trim().parse().unwrap();
    assert_eq!(blocks * 4096, after.length, "{text}");
}

/// The device is called as its owner wants, and says where it has that from.
fn has_config(machine: &mut Machine, expected: &Value) {
    let status = machine.status();
    assert_eq!(&status["config"], expected, "{status}");
    assert_eq!(status["hostname"], "kiosk-7", "{status}");
    let (code, text) = machine.execute(&["config", "show", "--json"], std::io::empty());
    assert_eq!(code, 0, "{text}");
    let shown: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(shown["source"], expected["source"], "{text}");
    assert_eq!(shown["config"]["hostname"], "kiosk-7", "{text}");
    assert_eq!(shown["config"]["sysctl"], json!({ "vm.max_map_count": 262_144 }), "{text}");
}

fn data_is_clean(disk: &Disk) {
    let data = disk.extract(disk.table().data().unwrap().extent, "data");
    tools::run(tools::tool("e2fsck").command().args(["-f", "-n"]).arg(data));
}

/// Asks the container for its page until it answers.
fn answers(port: u16) {
    let deadline = Instant::now() + LONG;
    loop {
        match get(port) {
            Ok(page) if page.contains(GREETING) => return,
            outcome => assert!(Instant::now() < deadline, "port {port}: {outcome:?}"),
        }
        std::thread::sleep(Duration::from_millis(500));
    }
}

fn get(port: u16) -> std::io::Result<String> {
    let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port))?;
    stream.set_read_timeout(Some(Duration::from_secs(10)))?;
    stream.write_all(b"GET / HTTP/1.0\r\n\r\n")?;
    let mut page = String::new();
    stream.read_to_string(&mut page)?;
    Ok(page)
}
