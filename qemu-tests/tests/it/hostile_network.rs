//! A device in a network whose servers lie or hang: it stays well, tells nothing that it was not
//! told properly, and takes what an honest server gives afterwards.

use std::io::{self, Read as _, Write as _};
use std::net::{Ipv4Addr, TcpListener};
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use builder::host::qemu::{Forward, Network, Options};
use qemu_tests::disk::Disk;
use qemu_tests::machine::Machine;
use qemu_tests::rogue_network::{
    CLIENT, Dhcp, DnsAnswer, Heard, Lease, Manners, RogueNetwork, SERVER, dns_address, dns_answer,
};
use qemu_tests::ssh::Person;
use qemu_tests::web_server::free_port;
use qemu_tests::{image, slow_tests_wanted, tools};

/// Emulated processors on a busy machine: nothing is measured here.
const LONG: Duration = Duration::from_secs(400);
/// What a lie gets to do its harm, once it was told.
const A_MOMENT: Duration = Duration::from_secs(2);
/// This machine, as the network of QEMU's own has it.
const THIS_MACHINE: Ipv4Addr = Ipv4Addr::new(10, 0, 2, 2);
/// A name that nobody could write into `resolv.conf` on purpose.
const PLANTED: &str = "6.6.6.6";
/// From any day of ours to one in the last year of the century after it.
const CENTURY_S: u64 = 73 * 365 * 86_400;

#[test]
fn servers_that_lie_or_hang_do_no_harm_and_honest_ones_are_heard_afterwards() {
    if !slow_tests_wanted() {
        return;
    }
    let (web, ssh) = (TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap(), free_port());
    let owner = Person::new("anna@mill", 1);
    let config = format!(
        "[ssh]\nkeys = [\"{}\"]\n\n[network]\ndns = [\"{SERVER}\"]\n\n[time]\nservers = \
         [\"{SERVER}\"]\n\n[update]\nsource = \"http://updates.example.org:{}/iota\"\n",
        owner.public_key(),
        web.local_addr().unwrap().port()
    );
    let disk = Disk::flashed_with_config(image::outputs(), "hostile-network", &config);
    let options = Options {
        persist: true,
        usb: true,
        forwards: vec![Forward { host: ssh, guest: 22 }],
        ..Options::new(disk.path())
    };
    let mut machine = Machine::boot("hostile-network", &options);
    let network = RogueNetwork::start(Manners::honest());
    machine.expect_somewhere("system ready", LONG);
    let mut device = Device { machine, owner, ssh, network };
    let client = device.dhcp_client();
    for (lie, dhcp) in lies_about_addresses() {
        device.is_told(lie, dhcp);
        assert_eq!(device.dhcp_client(), client, "{lie}: dhcpcd ended and was started anew");
    }
    device.hears_an_honest_server();
    device.asks_for_names(web);
    device.is_told_another_time();
    device.machine.power_off(LONG);
}

/// What a server of addresses may do, each by its name.
fn lies_about_addresses() -> Vec<(&'static str, Dhcp)> {
    let gives = |options: &[(u8, &[u8])]| Dhcp::Gives(Lease::with(options), 1);
    let at = |address: [u8; 4]| {
        Dhcp::Gives(Lease { address: Ipv4Addr::from(address), ..Lease::honest() }, 1)
    };
    let words = format!("x\nnameserver {PLANTED}\n$(reboot)");
    let servers: Vec<u8> = (0..60).flat_map(|n| [10, 66, 1, n]).chain([127, 0, 0, 1]).collect();
    let every_route = [1, 0, 10, 66, 0, 1, 1, 128, 10, 66, 0, 1, 99, 1, 2, 3];
    let empty: Vec<u8> = (1..255).filter(|code| *code != 52).flat_map(|code| [code, 0]).collect();
    vec![
        ("no answer", Dhcp::Silent),
        ("an offer that does not hold", Dhcp::Offers(Lease::honest())),
        ("an offer that is taken back", Dhcp::Refuses(Lease::honest())),
        ("this machine itself as address", at([127, 0, 0, 1])),
        ("an address of a group", at([224, 0, 0, 1])),
        ("no address", at([0; 4])),
        ("everybody's address", at([255; 4])),
        ("a lease that is over at once", gives(&[(51, &[0; 4])])),
        ("all networks and a route to nowhere", gives(&[(1, &[0; 4]), (121, &every_route)])),
        ("frames of no length", gives(&[(26, &[0, 0])])),
        ("names that are lines of a file", {
            let words = words.as_bytes();
            gives(&[(15, words), (12, words), (119, &[0xc0, 0]), (6, &servers)])
        }),
        ("an option beyond the end", Dhcp::Mumbles(vec![53, 1, 2, 54, 4, 10, 66, 0, 1, 6, 255, 1])),
        ("options in the head that do not end", gives(&[(52, &[3])])),
        ("options of no length", Dhcp::Mumbles([&[53, 1, 5][..], &empty].concat())),
        ("noise", Dhcp::Mumbles((0..1200_u32).map(|n| ((n * 167) >> 3) as u8).collect())),
        ("a thousand answers", Dhcp::Gives(Lease::honest(), 1000)),
    ]
}

/// What resolvers may hear in place of an answer.
const LIES_ABOUT_NAMES: [(&str, Option<DnsAnswer>); 7] = [
    ("no answer", None),
    (
        "another question's answer",
        Some(|asked| vec![dns_address(&[&[9, 9], &asked[2..]].concat(), SERVER)]),
    ),
    (
        "a name that points to itself",
        Some(|asked| {
            vec![dns_answer(
                asked,
                0x8180,
                1,
                &[0xc0, 0x21, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4, 1, 2, 3, 4],
            )]
        }),
    ),
    ("cut short, and nobody listens on TCP", Some(|asked| vec![dns_answer(asked, 0x8380, 0, &[])])),
    (
        "fewer bytes than it says",
        Some(|asked| {
            vec![dns_answer(asked, 0x8180, 9, &[0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 60, 255, 255, 1])]
        }),
    ),
    ("half a head, and noise", Some(|asked| vec![asked[..7].to_vec(), vec![0xff; 1400]])),
    ("no such name", Some(|asked| vec![dns_answer(asked, 0x8183, 0, &[])])),
];

struct Device {
    machine: Machine,
    owner: Person,
    ssh: u16,
    network: RogueNetwork,
}

impl Device {
    /// Is plugged into a network that behaves like this, and stays well.
    fn is_told(&mut self, lie: &str, dhcp: Dhcp) {
        eprintln!("    {lie}");
        self.network.behaves(Manners { dhcp, ..Manners::honest() });
        self.machine.qemu().plug_network(Network::Socket(&self.network.socket())).unwrap();
        self.until_heard(lie, |heard| heard.dhcp > 0);
        thread::sleep(A_MOMENT);
        let said = self.runs("iota status; cat /host/run/resolv.conf");
        assert!(said.contains("network    eth0 10.0.2.15/24"), "{lie}: {said}");
        assert!(said.contains(&format!("nameserver {SERVER}\n")), "{lie}: {said}");
        assert!(!said.contains(PLANTED) && !said.contains("reboot"), "{lie}: {said}");
        for line in said.lines().filter(|line| line.contains("usb0")) {
            eprintln!("      {line}");
        }
        self.machine.qemu().unplug_network().unwrap();
    }

    fn hears_an_honest_server(&mut self) {
        self.network.behaves(Manners::honest());
        self.machine.qemu().plug_network(Network::Socket(&self.network.socket())).unwrap();
        let deadline = Instant::now() + LONG;
        let line = format!("network    usb0 {CLIENT}/24");
        while !self.runs("iota status").contains(&line) {
            assert!(Instant::now() < deadline, "no {line:?} in {}", self.runs("iota status"));
            thread::sleep(A_MOMENT);
        }
    }

    /// `iota update check` has an end whatever the resolver hears, and finds a server that is
    /// there.
    fn asks_for_names(&mut self, web: TcpListener) {
        for (lie, dns) in LIES_ABOUT_NAMES {
            eprintln!("    {lie}");
            self.network.behaves(Manners { dns, ..Manners::honest() });
            let (code, text) = self.machine.execute(&["update", "check"], io::empty());
            assert!(self.network.heard().dns > 0, "{lie}: nobody asked");
            assert!(code == 2 && text.contains("updates.example.org"), "{lie}: {code} {text}");
            eprintln!("      {}", text.lines().next().unwrap_or_default());
        }
        thread::spawn(move || {
            for mut stream in web.incoming().flatten() {
                let answer = b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n";
                let _ = stream.read(&mut [0; 1000]).and_then(|_| stream.write_all(answer));
            }
        });
        let dns: DnsAnswer = |asked| vec![dns_address(asked, THIS_MACHINE)];
        self.network.behaves(Manners { dns: Some(dns), ..Manners::honest() });
        let (code, text) = self.machine.execute(&["update", "check"], io::empty());
        assert!(code == 2 && text.contains("404"), "{text}");
    }

    /// The clock follows the only server it was given, into another century; the device works
    /// there, and the next start is in the present again.
    fn is_told_another_time(&mut self) {
        self.network.behaves(Manners { ahead_s: CENTURY_S, ..Manners::honest() });
        let (code, text) =
            self.machine.execute(&["config", "set", "hostname", "late"], io::empty());
        assert_eq!(code, 0, "{text}");
        self.restarts("a century ahead", |clock_s, now_s| clock_s >= now_s + CENTURY_S - 86_400);
        let (code, text) = self.machine.execute(&["status"], io::empty());
        assert!(code == 0 && text.contains("slot a     "), "{text}");
        self.network.behaves(Manners::honest());
        self.restarts("in the present", |clock_s, now_s| clock_s.abs_diff(now_s) < 3600);
    }

    fn restarts(&mut self, what: &str, is_right: impl Fn(u64, u64) -> bool) {
        self.machine.restart(LONG);
        self.machine.expect("engine docker ready", LONG);
        self.until_heard(what, |heard| heard.ntp > 0);
        let deadline = Instant::now() + LONG;
        loop {
            let clock = self.runs("date +%s");
            let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
            if clock.trim().parse().is_ok_and(|clock| is_right(clock, now)) {
                return;
            }
            assert!(Instant::now() < deadline, "{what}: {clock} and now {now}");
            thread::sleep(A_MOMENT);
        }
    }

    fn until_heard(&self, what: &str, is_enough: impl Fn(Heard) -> bool) {
        let deadline = Instant::now() + LONG;
        while !is_enough(self.network.heard()) {
            assert!(Instant::now() < deadline, "{what}: only {:?}", self.network.heard());
            thread::sleep(Duration::from_millis(200));
        }
    }

    /// The number of the process that asks for addresses.
    fn dhcp_client(&mut self) -> u64 {
        let status = self.machine.status();
        let processes = status["memory"]["processes"].as_array().unwrap();
        let is_it = |it: &&serde_json::Value| it["name"] == "dhcpcd" && it["parent"] == 1;
        processes.iter().find(is_it).and_then(|it| it["pid"].as_u64()).unwrap()
    }

    /// Through the network that does not lie.
    fn runs(&self, command: &str) -> String {
        let output = self.owner.runs(self.ssh, &[command], "");
        tools::text_of(&output)
    }
}
