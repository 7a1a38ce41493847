//! A disk that is booted, used, switched off and booted again.

use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::time::{Duration, Instant};

use builder::host::qemu::{Forward, Options};
use ondisk::layout::{ESP_NAME, ESP_TYPE, Extent, Slot};
use qemu_tests::disk::Disk;
use qemu_tests::machine::Machine;
use qemu_tests::{image, slow_tests_wanted, tools};

/// Emulated processors on a busy machine: nothing is measured here.
const LONG: Duration = Duration::from_secs(400);

/// The container's answer on port 80.
const GREETING: &str = "Hello from a container";

#[test]
fn a_fresh_disk_boots_to_a_container_and_boots_again_with_its_data() {
    if !slow_tests_wanted() {
        return;
    }
    let disk = Disk::copy_of(&image::outputs().join("disk.img"), "boot");
    let before = system_partitions(&disk);
    let port = free_port();
    let options = Options {
        persist: true,
        forwards: vec![Forward { host: port, guest: 80 }],
        ..Options::new(disk.path())
    };

    let mut machine = Machine::boot("boot-first", &options);
    follows_the_stages(&mut machine);
    machine.expect("image /usr/share/iota/images/hello.tar loaded", LONG);
    machine.expect(&format!("iota app hello: {GREETING}"), LONG);
    answers(port);
    machine.power_off(LONG);
    let said = machine.console.log();
    drop(machine);
    assert!(!said.contains("NOT mounted"), "{said}");
    assert_eq!(system_partitions(&disk), before, "the running system wrote to a system partition");
    data_is_clean(&disk);

    let mut machine = Machine::boot("boot-second", &options);
    follows_the_stages(&mut machine);
    machine.expect("container hello", LONG);
    answers(port);
    machine.power_off(LONG);
    let said = machine.console.log();
    drop(machine);
    assert!(
        !said.contains("hello.tar loaded"),
        "the image did not outlive the first boot:\n{said}"
    );
    assert_eq!(system_partitions(&disk), before, "the running system wrote to a system partition");
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

/// What nothing may write to while the system runs, piece by piece.
fn system_partitions(disk: &Disk) -> Vec<Vec<ondisk::digest::Digest>> {
    let table = disk.table();
    let extents: [Extent; 4] = [
        table.find(ESP_TYPE, ESP_NAME).unwrap().extent,
        table.record().unwrap().extent,
        disk.slot(Slot::A),
        disk.slot(Slot::B),
    ];
    extents.map(|extent| disk.digests(extent)).to_vec()
}

fn data_is_clean(disk: &Disk) {
    let data = disk.extract(disk.table().data().unwrap().extent, "data");
    tools::run(tools::tool("e2fsck").command().args(["-f", "-n"]).arg(data));
}

/// A port that nobody listens on at the moment.
fn free_port() -> u16 {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap().port()
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
