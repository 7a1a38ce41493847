//! Updates from a web server with TLS that others wrote: nginx with OpenSSL, an authority of the
//! owner's and one in between, and the device's own client.

use std::fs;
use std::path::Path;

use agent::online::web::Http;
use ondisk::layout::Slot;
use qemu_tests::site::{Site, contents, fetch_channel, slot_of, transfer};
use qemu_tests::web_server::WebServer;
use tempfile::tempdir;

use crate::authority;

const HOST: &str = "127.0.0.1";

/// Whoever trusts this root alone.
fn device(server: &WebServer, directory: &Path, root: &str) -> Http {
    let bundle = directory.join("trusted.pem");
    fs::write(&bundle, root).unwrap();
    let source = format!("https://{HOST}:{}", server.port());
    Http::new(&source, &bundle, &config::Proxy::default())
}

#[test]
fn a_device_follows_a_server_whom_its_owners_authority_vouches_for_through_another_one() {
    let site = Site::new().unwrap();
    site.publish(1).unwrap();
    let channel = site.publish(2).unwrap();
    let directory = tempdir().unwrap();
    let (root, identity) = authority::make(directory.path(), HOST);
    let server = WebServer::start(&site.path(), Some(&identity), "");
    let web = device(&server, directory.path(), &root);
    assert_eq!(fetch_channel(&web).unwrap(), channel);
    let mut disk = site.disk(1).unwrap();
    let done = transfer(&web, &channel, &mut disk).unwrap();
    assert!(done.bytes * 5 < channel.bundle_bytes, "{} of {}", done.bytes, channel.bundle_bytes);
    let slot = fs::read(site.slot(2).unwrap()).unwrap();
    assert_eq!(contents(&slot_of(&disk, Slot::B)), contents(&slot));
    assert!(server.log().contains(" 206 "), "{}", server.log());
}

#[test]
fn a_device_asks_nothing_of_a_server_of_a_strangers_or_of_one_with_a_gap_in_its_chain() {
    let site = Site::new().unwrap();
    site.publish(1).unwrap();
    let directory = tempdir().unwrap();
    let (root, identity) = authority::make(directory.path(), HOST);
    let (stranger, _) = authority::make(tempdir().unwrap().path(), HOST);
    let refused = |root: &str| {
        let server = WebServer::start(&site.path(), Some(&identity), "");
        let why = fetch_channel(&device(&server, directory.path(), root)).unwrap_err();
        let expected = "nobody whom this device trusts has signed the server's certificate\nhint: ";
        assert!(why.contains(expected) && why.contains("those in between"), "{why}");
        assert_eq!(server.log(), "", "something was asked without trust");
    };
    refused(&stranger);
    // The server's own certificate, without the one in between.
    let chain = fs::read_to_string(&identity.chain).unwrap();
    let end = chain.find("-----END CERTIFICATE-----\n").unwrap();
    fs::write(&identity.chain, &chain[..end + "-----END CERTIFICATE-----\n".len()]).unwrap();
    refused(&root);
}
