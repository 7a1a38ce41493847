//! What a host does beside its containers.

use std::time::Instant;

use builder::host::qemu::Network;
use qemu_tests::machine::Machine;
use qemu_tests::ssh::Person;
use qemu_tests::tools;
use qemu_tests::web_server::free_port;

use super::{GREETING, LONG, get, tells};

/// `ssh -L`, as people reach what no port of the host leads to.
pub(super) fn forwards_a_port(owner: &Person, ssh: u16) {
    let port = free_port();
    let _forwarding = owner.forwards(ssh, port, 80);
    let deadline = Instant::now() + LONG;
    loop {
        match get(port) {
            Ok(page) if page.contains(GREETING) => return,
            outcome => assert!(Instant::now() < deadline, "through ssh -L: {outcome:?}"),
        }
        std::thread::sleep(std::time::Duration::from_secs(1));
    }
}

/// Another network gives the device the address that it has already. What came first keeps its
/// routes: who is connected stays so, and others get in.
pub(super) fn is_reached_with_two_cards_of_one_address(
    machine: &mut Machine,
    owner: &Person,
    ssh: u16,
) {
    machine.qemu().plug_network(Network::Own).unwrap();
    machine.expect_somewhere("network usb0 10.0.2.15/24", LONG);
    let status = tools::text_of(&owner.runs(ssh, &["iota", "status"], ""));
    for name in ["eth0", "usb0"] {
        let line = format!("network    {name} 10.0.2.15/24, router 10.0.2.2");
        assert!(status.contains(&line), "no {line:?} in {status}");
    }
    machine.qemu().unplug_network().unwrap();
    machine.expect_somewhere("network usb0 down", LONG);
    tells(machine, &["status"], "network    eth0 10.0.2.15/24");
    let status = tools::text_of(&owner.runs(ssh, &["iota", "status"], ""));
    assert!(!status.contains("usb0"), "{status}");
}

/// The kernel's own words about the interface, and its fixed address.
pub(super) fn is_in_its_virtual_network(machine: &mut Machine, owner: &Person, ssh: u16) {
    machine.expect_somewhere("network eth0.10 added", LONG);
    let line = "cat /proc/net/vlan/eth0.10; ip -o -4 address show dev eth0.10";
    let text = tools::text_of(&owner.runs(ssh, &[line], ""));
    assert!(text.contains("eth0.10  VID: 10"), "{text}");
    assert!(text.contains("inet 10.77.0.2/24"), "{text}");
    tells(machine, &["status"], "network    eth0.10 10.77.0.2/24");
    tells(machine, &["status"], "network    eth0 10.0.2.15/24, router 10.0.2.2");
}

pub(super) fn may_compress_memory(machine: &mut Machine, owner: &Person, ssh: u16) {
    machine.expect_somewhere("may be compressed when it is short", LONG);
    let text = tools::text_of(&owner.runs(ssh, &["cat /proc/swaps"], ""));
    let mut fields = text.lines().nth(1).unwrap_or_default().split_ascii_whitespace();
    assert_eq!(fields.next(), Some("/dev/zram0"), "{text}");
    let kib: u64 = fields.nth(1).and_then(|field| field.parse().ok()).unwrap_or_default();
    let total = machine.status()["memory"]["total"].as_u64().unwrap();
    let quarter = total / 4096;
    assert!((quarter * 95 / 100..=quarter).contains(&kib), "{text}{total}");
}

/// `[engine]` and `[kernel]`, as the engine and the kernel say themselves.
pub(super) fn has_what_only_an_owner_wants(owner: &Person, ssh: u16) {
    let text =
        tools::text_of(&owner.docker(ssh, &["info", "--format", "{{json .RegistryConfig}}"]));
    assert!(text.contains("\"Mirrors\":[\"https://mirror.example.org/\"]"), "{text}");
    assert!(text.contains("\"registry.lan:5000\":{"), "{text}");
    let text = tools::text_of(&owner.runs(ssh, &["ls /sys/module/wireguard"], ""));
    assert!(text.contains("refcnt"), "{text}");
}

/// `console.serial`: a shell of the console container, and the screen again when it ends.
pub(super) fn lets_in_whoever_sits_at_it(machine: &mut Machine) {
    machine.expect("`shell` opens a shell ----", LONG);
    machine.types("shell\n");
    machine.types("echo here on $((6 * 7)) $(uname -m)\n");
    machine.expect_line("what the shell printed", LONG, |line| line.contains("here on 42 aarch64"));
    machine.types("exit\n");
    machine.expect("`shell` opens a shell ----", LONG);
}

/// Once by itself, and once for each Enter; nobody gets in.
pub(super) fn shows_how_it_stands(machine: &mut Machine) {
    let heading = "---- kiosk-7 ----";
    machine.expect(heading, LONG);
    machine.types("\n");
    machine.expect(heading, LONG);
    machine.expect("network    eth0 10.0.2.15/24", LONG);
    machine.expect(" in slot a: proven", LONG);
    machine.expect("health     everything runs", LONG);
    machine.expect("login      ssh root@kiosk-7.local, with a key", LONG);
    machine.expect("---- Enter shows this again ----", LONG);
    machine.types("shell\n");
    machine.expect("---- Enter shows this again ----", LONG);
}

/// Of the start before, up to its end, and of this one once some time has passed.
pub(super) fn has_kept_its_log(machine: &mut Machine, owner: &Person, ssh: u16) {
    let (code, text) = machine.execute(&["logs", "--kept", "init"], std::io::empty());
    assert_eq!(code, 0, "{text}");
    assert!(text.starts_with("== start 20"), "{text}");
    for said in ["iota init: [", "data mounted", "shutting down"] {
        assert!(text.contains(said), "no {said:?} in {text}");
    }
    let (code, text) = machine.execute(&["status"], std::io::empty());
    assert!(code == 0 && text.contains(" MB written since the start"), "{text}");
    let text = tools::text_of(&owner.runs(ssh, &["ls -l /host/data/iota/logs"], ""));
    assert!(text.contains(" log\n") && !text.contains("log.1"), "{text}");
}
