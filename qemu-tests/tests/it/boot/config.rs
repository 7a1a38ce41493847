//! The life of a configuration on a machine that runs: read, changed, on trial, confirmed. The one
//! that boots comes from the boot partition.

use std::time::{Duration, Instant};

use qemu_tests::machine::Machine;
use serde_json::Value;

/// A name server that QEMU's network, which offers 10.0.2.3, does not.
const OWN: &str = "10.0.2.2";

/// Time to be reached again on a machine that emulates and has other work besides, and more than a
/// revert takes.
const PATIENCE: Duration = Duration::from_secs(240);

/// Everything that a running device does with its configuration; it is named `kiosk-8` afterwards,
/// and asks another name server.
pub(super) fn is_read_and_changed(machine: &mut Machine, file: &str) {
    assert_eq!(run(machine, &["config", "get", "hostname"]), (0, "kiosk-7\n".to_owned()));
    let (code, text) = run(machine, &["config", "get"]);
    assert_eq!(code, 0, "{text}");
    assert!(text.contains("hostname kiosk-7\n"), "{text}");
    assert!(text.contains("sysctl.vm.max_map_count 262144\n"), "{text}");

    let (code, text) = run(machine, &["config", "set", "hostname", "Kiosk 8"]);
    assert!(code == 2 && text.contains("iota.toml:2:12: `Kiosk 8` is no name"), "{text}");
    let (code, text) = run(machine, &["config", "set", "hostnam", "kiosk-8"]);
    assert!(code == 2 && text.contains("did you mean `hostname`?"), "{text}");
    assert_eq!(machine.status()["hostname"], "kiosk-7");

    let set = run(machine, &["config", "set", "hostname", "kiosk-8"]);
    assert_eq!(set, (0, "in force: hostname\n".to_owned()));
    let status = machine.status();
    assert_eq!(
        (&status["hostname"], &status["config"]["source"]),
        (&"kiosk-8".into(), &"device".into())
    );
    assert_eq!(run(machine, &["config", "get", "sysctl.vm.swappiness"]), (0, "60\n".to_owned()));
    assert_eq!(run(machine, &["config", "set", "sysctl.vm.swappiness", "10"]).0, 0);
    assert_eq!(run(machine, &["config", "get", "sysctl.vm.swappiness"]), (0, "10\n".to_owned()));
    network_changes_are_on_trial(machine, file);
}

/// A minute on trial: the questions in between have to be answered before it ends, on a machine
/// that emulates two others and compiles.
fn network_changes_are_on_trial(machine: &mut Machine, file: &str) {
    assert_eq!(run(machine, &["config", "confirm"]).0, 1);
    let set = ["config", "set", "network.dns", OWN, "--confirm-within", "60s"];
    let (code, text) = run(machine, &set);
    assert!(code == 0 && text.contains("`iota config confirm` within 60 s"), "{text}");
    assert_eq!(run(machine, &["config", "get", "network.dns"]), (0, format!("{OWN}\n")));
    let left = machine.status()["confirm-left-s"].as_u64();
    assert!(left.is_some_and(|seconds| seconds <= 60), "{left:?}");
    let (_, text) = run(machine, &["status"]);
    assert!(text.contains("network change waits for confirm, "), "{text}");

    until(machine, "it is reverted", |status| {
        status["confirm-left-s"].is_null()
            && status["config"]["problem"].as_str().is_some_and(|why| why.contains("not confirmed"))
    });
    assert_eq!(run(machine, &["config", "get", "network.dns"]).0, 1);
    machine.expect_somewhere(&format!("name server {OWN}"), PATIENCE);
    assert_eq!(machine.status()["hostname"], "kiosk-8");

    let file = file.replace("kiosk-7", "kiosk-8");
    let file = file.replace("vlans = [\"eth0.10\"]", "dns = [\"10.0.2.2\"]");
    let (code, text) = machine.execute(&["config", "apply", "-"], file.as_bytes());
    assert!(code == 0 && text.contains("in force: network.dns"), "{text}");
    assert!(text.contains("in force after a restart: sysctl."), "{text}");
    assert_eq!(run(machine, &["config", "confirm"]).0, 0);
    assert!(machine.status()["confirm-left-s"].is_null());
    machine.expect_somewhere("network eth0.10 removed", PATIENCE);
    let (code, text) = machine.execute(&["config", "check", "-"], "hostnam = 1\n".as_bytes());
    assert!(code == 2 && text.contains("-:1:1: `hostnam` is not a key"), "{text}");
}

/// At the next start the boot partition has another file, which is wrong.
pub(super) fn holds_what_was_changed(machine: &mut Machine, problem: &str) {
    let status = machine.status();
    let config = &status["config"];
    assert_eq!((&config["source"], &config["problem"]), (&"device".into(), &problem.into()));
    assert_eq!(status["hostname"], "kiosk-8", "{status}");
    let (code, text) = run(machine, &["config", "get", "network.dns"]);
    assert_eq!((code, &*text), (0, "10.0.2.2\n"));
}

fn run(machine: &mut Machine, command: &[&str]) -> (u8, String) {
    machine.execute(command, std::io::empty())
}

fn until(machine: &mut Machine, what: &str, is_so: impl Fn(&Value) -> bool) {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let status = machine.status();
        if is_so(&status) {
            return;
        }
        assert!(Instant::now() < deadline, "{what}: not within {PATIENCE:?}: {status}");
        std::thread::sleep(Duration::from_secs(2));
    }
}
