//! Containers that take all they can get, while the host under them is updated.

use std::io;
use std::path::{Path, PathBuf};
use std::process::Output;
use std::time::{Duration, Instant};

use builder::host::qemu::{Forward, Options};
use qemu_tests::disk::Disk;
use qemu_tests::image::variant;
use qemu_tests::machine::Machine;
use qemu_tests::site::noise;
use qemu_tests::ssh::Person;
use qemu_tests::web_server::free_port;
use qemu_tests::{slow_tests_wanted, stick, tools};

use crate::slots::{bundle_of, short_window};

/// Emulated processors on a busy machine: nothing is measured here.
const LONG: Duration = Duration::from_secs(400);
/// What hostility gets to unfold.
const A_MOMENT: Duration = Duration::from_secs(3);
/// Bytes by which the one update differs from the other: each installation has to write them.
const DIFFERENT_BYTES: usize = 12 << 20;

/// What a container is called, what else the engine is told of it, and what it does.
type Hostile = (&'static str, &'static [&'static str], &'static str);

/// Some at a time, so that they make it worse for each other too.
const GROUPS: [[Hostile; 3]; 5] = [
    [
        ("forks", &[], "f() { f | f & }; f; wait"),
        ("descriptors", &[], "i=3; while :; do eval \"exec $i</dev/null\"; i=$((i+1)); done"),
        ("spins", &[], "for i in 1 2 3 4 5 6 7 8; do while :; do :; done & done; wait"),
    ],
    [
        ("memory", &[], "x=aaaaaaaa; while :; do x=$x$x; done"),
        ("memory-files", &["--tmpfs", "/t"], "dd if=/dev/zero of=/t/f bs=1M; sleep 999"),
        ("crashes", &["--restart", "always"], "exit 1"),
    ],
    [
        // The engine has a reserve, and starts the others on a full disk.
        ("disk", &["-v", "/v"], "dd if=/dev/zero of=/v/f bs=1M; sleep 999"),
        ("inodes", &["-v", "/v"], "i=0; while :; do : > /v/$i; i=$((i+1)); done"),
        ("log", &[], "yes this is a log that nobody wants to read"),
    ],
    [
        ("flushes", &["-v", "/v"], "while :; do echo > /v/f; sync; done"),
        ("depth", &["-v", "/v"], "cd /v; while :; do mkdir d; cd d; done"),
        (
            "connections",
            &[],
            "p=1024; while :; do p=$((p+1)); echo | nc -u -w 1 10.0.2.2 $p & \
             [ $((p%50)) != 0 ] || sleep 1; done",
        ),
    ],
    [
        (
            "settings",
            &[],
            "while :; do echo 9 > /proc/sys/kernel/panic; echo c > /proc/sysrq-trigger; \
             echo 0 > /proc/sys/vm/overcommit_memory; echo mem > /sys/power/state; done",
        ),
        (
            "links",
            &["-v", "/v"],
            "cd /v; while :; do ln -sfn /proc/1/root x; echo y > x/etc/z; ln -sfn /etc x; done",
        ),
        (
            "mounts",
            &["--cap-add", "SYS_ADMIN"],
            "i=0; while :; do mkdir -p /m/$i; mount -t tmpfs x /m/$i; i=$((i+1)); done",
        ),
    ],
];

#[test]
fn containers_that_take_all_they_can_get_do_not_keep_a_host_from_its_updates() {
    if !slow_tests_wanted() {
        return;
    }
    let first = variant("1.0-ordered", 1, in_order);
    let updates = [variant("2.0", 2, short_window), larger()];
    let (owner, ssh) = (Person::new("anna@mill", 1), free_port());
    let config = format!("[ssh]\nkeys = [\"{}\"]\n", owner.public_key());
    let disk = Disk::flashed_with_config(&first, "hostile-containers", &config);
    let plugged = disk.path().with_extension("stick");
    let names = ["one.bundle", "other.bundle"];
    let files = [(names[0], bundle_of(&updates[0])), (names[1], bundle_of(&updates[1]))];
    stick::write(&plugged, &files, &[]);
    let options = Options {
        persist: true,
        stick: Some(plugged),
        forwards: vec![Forward { host: ssh, guest: 22 }],
        ..Options::new(disk.path())
    };
    let mut machine = Machine::boot("hostile-containers", &options);
    machine.expect_somewhere("system ready", LONG);
    containers_of_the_system_come_in_their_order_and_come_back(&owner, ssh);
    let image = said(&owner.docker(ssh, &["inspect", "--format", "{{.Image}}", "hello"]));
    for (group, name) in GROUPS.iter().zip(names.iter().cycle()) {
        let before = machine.status();
        for (name, options, script) in group {
            let words = [&["run", "-d", "--name", name][..], options, &["--entrypoint", "sh"]];
            let words = [&words.concat()[..], &[image.trim(), "-c", script]].concat();
            eprintln!("    {name}: {}", said(&owner.docker(ssh, &words)).trim());
        }
        std::thread::sleep(A_MOMENT);
        let bundle = format!("usb:{name}");
        let (code, text) = machine.execute(&["update", "install", &bundle], io::empty());
        assert_eq!(code, 0, "{}: {text}", group[0].0);
        let (code, text) = machine.execute(&["update", "cancel"], io::empty());
        assert_eq!(code, 0, "{}: {text}", group[0].0);
        let after = machine.status();
        assert_eq!(after["boot"], before["boot"], "{}: started anew", group[0].0);
        for (name, ..) in group {
            let removed = tools::text_of(&owner.docker(ssh, &["rm", "-f", "-v", name]));
            eprintln!("    {name}: {}", removed.trim());
        }
    }
    // Nobody took what others need: the engine, a container, the way in.
    let words = ["run", "--rm", "--entrypoint", "echo", image.trim(), "all is well"];
    let output = owner.docker(ssh, &words);
    assert!(said(&output).contains("all is well"), "{output:?}");
    let console = machine.console.log();
    assert!(!console.contains("Kernel panic"), "{console}");
    machine.power_off(LONG);
}

/// Two more containers of the system, against the order of their names.
fn in_order(workspace: &Path) {
    short_window(workspace);
    for (name, order) in [("a-late", "after = [\"z-early\"]"), ("z-early", "")] {
        let file = workspace.join(format!("rootfs/containers/{name}.toml"));
        let text = format!(
            "name = \"{name}\"\nreason = \"comes in its order\"\nimage.of = \"hello\"\n\
             network = \"bridge\"\n{order}\n"
        );
        std::fs::write(file, text).unwrap();
    }
}

fn containers_of_the_system_come_in_their_order_and_come_back(owner: &Person, ssh: u16) {
    let about = |name: &str, format: &str| -> String {
        said(&owner.docker(ssh, &["inspect", "--format", format, name])).trim().to_owned()
    };
    let started = |name: &str| about(name, "{{.State.StartedAt}}");
    let (early, late) = (started("z-early"), started("a-late"));
    // RFC 3339 in UTC, without zeros at the end: with them it sorts as text.
    let sorts = |time: &str| {
        let (seconds, fraction) = time.trim_end_matches('Z').split_once('.').unwrap_or((time, ""));
        format!("{seconds}.{fraction:0<9}")
    };
    assert!(sorts(&early) < sorts(&late), "{early} {late}");
    let pid = about("z-early", "{{.State.Pid}}");
    said(&owner.runs(ssh, &[&format!("kill -9 {pid}")], ""));
    let deadline = Instant::now() + LONG;
    while about("z-early", "{{.RestartCount}} {{.State.Running}}") != "1 true" {
        assert!(Instant::now() < deadline, "a container that was killed stays away");
        std::thread::sleep(Duration::from_secs(1));
    }
    assert_eq!(started("a-late"), late, "its neighbour was started anew with it");
}

/// An update most of whose bytes every other one has, and some of whose bytes none has.
fn larger() -> PathBuf {
    variant("3.0-larger", 3, |workspace| {
        short_window(workspace);
        let file = workspace.join("rootfs/overlay/usr/lib/iota/larger");
        std::fs::create_dir_all(file.parent().unwrap()).unwrap();
        std::fs::write(file, noise(12, DIFFERENT_BYTES)).unwrap();
    })
}

fn said(output: &Output) -> String {
    assert!(output.status.success(), "{output:?}");
    tools::text_of(output)
}
