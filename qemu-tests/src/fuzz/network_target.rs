//! What a network says by way of dhcpcd: variables of an event, a line each, `NAME=VALUE`.

use std::collections::BTreeMap;
use std::fs;
use std::net::IpAddr;

use agent::network::{Event, Files};

pub(super) fn network_seeds() -> Vec<Vec<u8>> {
    [
        "interface=eth0\nreason=BOUND\nprotocol=dhcp\nif_up=true\ninterface_order=eth0 wlan0\n\
         new_ip_address=192.168.1.7\nnew_subnet_cidr=24\nnew_routers=192.168.1.1\n\
         new_domain_name_servers=192.168.1.1 9.9.9.9\nnew_domain_name=example.org\n\
         new_domain_search=a.example.org b.example.org\nifssid=Home\n",
        "interface=eth0\nreason=ROUTERADVERT\nprotocol=ra\nif_up=true\nnd1_from=fe80::1\n\
         nd1_addr1=2001:db8::7/64\nnd1_now=9\nnd1_acquired=1\nnd1_rdnss1_lifetime=600\n\
         nd1_rdnss1_servers=2001:db8::1 fe80::1%eth0\nnd1_dnssl1_lifetime=600\n\
         nd1_dnssl1_search=example.org\n",
        "interface=eth0\nreason=BOUND6\nprotocol=dhcp6\nif_up=true\n\
         new_dhcp6_ia_na1_ia_addr1=2001:db8::9\nnew_dhcp6_name_servers=2001:db8::1\n\
         new_dhcp6_domain_search=example.org\n",
        "interface=eth0.10\nreason=EXPIRE\nprotocol=dhcp\nif_down=true\n",
    ]
    .map(|text| text.as_bytes().to_vec())
    .to_vec()
}

/// Lines end, so that a change of one is not a change of the next.
pub(super) fn mend_network(input: &mut Vec<u8>) {
    if !input.starts_with(b"interface=") {
        input.splice(..0, *b"interface=eth0\nreason=BOUND\nif_up=true\n");
    }
}

pub(super) fn network(input: &[u8]) -> String {
    let text = String::from_utf8_lossy(input);
    let variables: BTreeMap<&str, &str> =
        text.lines().filter_map(|line| line.split_once('=')).collect();
    let event = match Event::read(&|name| variables.get(name).map(|value| (*value).to_owned())) {
        Ok(event) => event,
        Err(error) => return error,
    };
    let directory = tempfile::tempdir().unwrap();
    let (state, resolv_conf) =
        (directory.path().join("state"), directory.path().join("resolv.conf"));
    let files = Files { state: &state, resolv_conf: &resolv_conf };
    // A name may be too long for a file: the event is lost then, and nothing else is.
    let Ok(said) = event.apply(files) else { return "cannot be kept".to_owned() };
    let said = said.unwrap_or_default();
    assert!(!said.contains(char::is_control), "controls a terminal: {said:?}");
    if let Ok(text) = fs::read_to_string(&resolv_conf) {
        text.lines().for_each(is_understood);
    }
    let others = fs::read_dir(directory.path()).unwrap().flatten();
    let others =
        others.filter(|it| !["state", "resolv.conf"].map(Into::into).contains(&it.file_name()));
    assert_eq!(others.count(), 0, "something lies elsewhere");
    // What is new about an event is which interface it is of and what kind of line it makes.
    let words: Vec<&str> = said.split_ascii_whitespace().take(3).collect();
    format!("good {}", words.join(" "))
}

/// See resolv.conf(5): nothing else gets into it.
fn is_understood(line: &str) {
    assert!(!line.contains(char::is_control), "{line:?}");
    match line.split_once(' ') {
        Some(("#", _)) => {}
        Some(("nameserver", server)) => {
            let (address, _) = server.split_once('%').unwrap_or((server, ""));
            assert!(address.parse::<IpAddr>().is_ok(), "{line:?}");
        }
        Some(("search", domains)) => {
            let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._ ".contains(&byte);
            assert!(!domains.is_empty() && domains.bytes().all(plain), "{line:?}");
        }
        _ => panic!("{line:?} is no line of resolv.conf"),
    }
}
