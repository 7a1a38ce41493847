//! Debian's docker-registry as the place of releases and of container images: the publisher's code
//! with a cache of its own, the device's code with a small disk.

use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, Shutdown, TcpListener, TcpStream};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::thread;

use agent::online::registry::Registry;
use agent::online::web::Web as _;
use builder::app::image::Source;
use builder::app::pull::{Puller, update_lock};
use builder::error::Result;
use builder::host::progress::{Progress, Unit};
use builder::host::store::Store;
use builder::publish::remote::Remote;
use builder::publish::{self, Offer};
use builder::registry::{Client, Descriptor, MANIFEST_TYPE, Manifest};
use config::registry::Repository;
use ondisk::boot_record::State as SlotState;
use ondisk::channel::{ALL, Channel, Conditions, State, places};
use ondisk::digest::Digest;
use ondisk::layout::Slot;
use qemu_tests::registry_server::{LOGIN, RegistryServer};
use qemu_tests::site::{BOARD, Site, contents, fetch_channel, record, slot_of, transfer};
use serde_json::json;

const NAME: &str = "team/iota";

/// A publisher's machine: what it has made, and a cache.
struct Publisher {
    site: Site,
    cache: tempfile::TempDir,
    login: Option<String>,
}

impl Publisher {
    fn new() -> Self {
        let site = Site::new().unwrap();
        Self { site, cache: tempfile::tempdir().unwrap(), login: None }
    }

    fn with<T>(
        &self,
        place: &Repository,
        work: impl FnOnce(&Remote<'_>) -> Result<T>,
    ) -> Result<T> {
        let store = Store::open(Some(self.cache.path()))?;
        let client = Client::new(place, true, self.login.clone());
        work(&Remote::new(place, client, &store, &Progress::quiet())?)
    }

    fn publish(&self, place: &Repository, number: u8) -> Result<Channel> {
        let bundle = self.site.bundle(number)?;
        self.with(place, |site| {
            let offer = Offer {
                site,
                channel: "stable",
                share: ALL,
                bases: 3,
                now_s: 1,
                conditions: &Conditions::default(),
            };
            publish::publish(&bundle, &offer, &self.site.signer, &Progress::quiet())
        })
    }

    fn pause(&self, place: &Repository) -> Result<Channel> {
        let change = |fields: &mut ondisk::channel::Fields| fields.state = State::Paused;
        self.with(place, |site| publish::change(site, "stable", BOARD, change, &self.site.signer))
    }
}

fn device(place: &Repository) -> Registry {
    Registry::new(place, ("stable", BOARD), Path::new("/nowhere"), &config::Proxy::default())
}

#[test]
fn a_release_goes_through_a_registry_and_each_file_only_once() {
    let server = RegistryServer::start(false);
    let place = server.repository(NAME);
    let publisher = Publisher::new();
    assert!(fetch_channel(&device(&place)).unwrap_err().contains("404"));
    publisher.publish(&place, 1).unwrap();
    let channel = publisher.publish(&place, 2).unwrap();

    let web = device(&place);
    assert_eq!(fetch_channel(&web).unwrap(), channel);
    let mut disk = publisher.site.disk(1).unwrap();
    let done = transfer(&web, &channel, &mut disk).unwrap();
    assert!(done.bytes * 5 < channel.bundle_bytes, "{} of {}", done.bytes, channel.bundle_bytes);
    let slot = std::fs::read(publisher.site.slot(2).unwrap()).unwrap();
    assert_eq!(contents(&slot_of(&disk, Slot::B)), contents(&slot));
    assert_eq!(record(&disk).unwrap().slots.b.state, SlotState::Unproven { tries: 3 });

    // Another machine of the publisher's goes on from what the registry has.
    let other = Publisher::new();
    let third = other.publish(&place, 3).unwrap();
    assert_eq!(third.sequence, 3);
    assert_eq!(third.packs.iter().filter(|pack| pack.base.is_some()).count(), 2);
    // What stays is not sent again: the only new blob of a pause is the channel.
    let paused = publisher.pause(&place).unwrap();
    assert_eq!((paused.sequence, paused.state), (4, State::Paused));
    assert_eq!(fetch_channel(&device(&place)).unwrap(), paused);
    let bundle = places::bundle(&third.slot_manifest.sha256);
    assert!(device(&place).get(&bundle, Some((0, 1))).is_ok());
}

#[test]
fn a_registry_with_logins_takes_nothing_from_strangers_and_tells_them() {
    let server = RegistryServer::start(true);
    let place = server.repository(NAME);
    let mut publisher = Publisher::new();
    let refused = publisher.publish(&place, 1).unwrap_err();
    assert!(refused.chain().contains("wants a name and a password"), "{}", refused.chain());
    assert!(refused.next_step().is_some_and(|hint| hint.contains("docker login")));
    publisher.login = Some("Basic bm9ib2R5Om5vdGhpbmc=".to_owned());
    let refused = publisher.publish(&place, 1).unwrap_err();
    assert!(refused.chain().contains("401"), "{}", refused.chain());
    publisher.login = Some(LOGIN.to_owned());
    let channel = publisher.publish(&place, 1).unwrap();
    // So do devices.
    let known = |password: &str| {
        let text = format!("[update]\nuser = \"anna\"\npassword = \"{password}\"\n");
        let config = config::Config::parse(text.as_bytes()).unwrap();
        device(&place).with_login(config.update().authorization())
    };
    let refused = fetch_channel(&device(&place)).unwrap_err();
    assert!(refused.contains("the registry wants a name and a password"), "{refused}");
    let refused = fetch_channel(&known("sekret")).unwrap_err();
    assert!(refused.contains("the registry refuses the name and the password"), "{refused}");
    assert_eq!(fetch_channel(&known("secret")).unwrap(), channel);
    let bundle = places::bundle(&channel.slot_manifest.sha256);
    assert!(known("secret").get(&bundle, Some((0, 1))).is_ok());
}

#[test]
fn an_upload_that_breaks_comes_to_its_end_all_the_same() {
    let server = RegistryServer::start(false);
    let left = Arc::new(AtomicU32::new(3));
    let broken = breaking(server.port(), 500_000, &left);
    let place = Repository { host: format!("127.0.0.1:{broken}"), ..server.repository(NAME) };
    let channel = Publisher::new().publish(&place, 1).unwrap();
    assert!(channel.bundle_bytes > 1_000_000, "too little for a connection to break");
    assert_eq!(left.load(Relaxed), 0, "no connection broke");
    let bundle = places::bundle(&channel.slot_manifest.sha256);
    let answer = device(&server.repository(NAME)).get(&bundle, None).unwrap();
    let mut bytes = Vec::new();
    answer.body.take(1 << 30).read_to_end(&mut bytes).unwrap();
    assert_eq!(bytes.len() as u64, channel.bundle_bytes);
}

const INDEX: &str = "application/vnd.oci.image.index.v1+json";

/// Puts an image for two kinds of machines into a repository; its config for devices.
fn put_image(place: &Repository, tag: &str, word: &str) -> String {
    let client = Client::new(place, true, None);
    let task = Progress::quiet().task("", Unit::Bytes, 0);
    let put = |kind: &str, bytes: &[u8]| {
        let descriptor = Descriptor::of(kind, &Digest::of(bytes), bytes.len() as u64);
        client.put_blob(&descriptor, &mut { bytes }, &task).unwrap();
        descriptor
    };
    let mut manifests = Vec::new();
    let mut own = String::new();
    for machine in ["amd64", "arm64"] {
        // Whoever fetches it does not look into it.
        let layer = word.repeat(1000).into_bytes();
        let diff_id = format!("sha256:{}", Digest::of(&layer));
        let rootfs = json!({ "type": "layers", "diff_ids": [diff_id] });
        let config = json!({ "os": "linux", "architecture": machine, "rootfs": rootfs });
        let config = config.to_string().into_bytes();
        let packed = zstd::encode_all(&*layer, 3).unwrap();
        let manifest = Manifest {
            schema_version: 2,
            media_type: MANIFEST_TYPE.to_owned(),
            artifact_type: None,
            config: put("application/vnd.oci.image.config.v1+json", &config),
            layers: vec![put("application/vnd.oci.image.layer.v1.tar+zstd", &packed)],
        };
        let bytes = serde_json::to_vec(&manifest).unwrap();
        let digest = format!("sha256:{}", Digest::of(&bytes));
        client.put_document(&digest, MANIFEST_TYPE, &bytes).unwrap();
        manifests.push(json!({
            "mediaType": MANIFEST_TYPE, "digest": digest, "size": bytes.len(),
            "platform": { "os": "linux", "architecture": machine },
        }));
        own = format!("sha256:{}", Digest::of(&config));
    }
    let index = json!({ "schemaVersion": 2, "mediaType": INDEX, "manifests": manifests });
    client.put_document(tag, INDEX, index.to_string().as_bytes()).unwrap();
    own
}

#[test]
fn an_image_of_a_registry_is_fetched_for_devices_pinned_and_looked_for_again_only_when_asked() {
    let server = RegistryServer::start(false);
    let place = server.repository("shop/web");
    let name = format!("{}/shop/web:1", place.host);
    let first = put_image(&place, "1", "one");
    let directory = tempfile::tempdir().unwrap();
    let store = Store::open(Some(directory.path())).unwrap();
    let lock = directory.path().join("images.lock");
    let pull = |locked: bool, offline: bool| {
        let (lock, progress) = (Some(lock.clone()), &Progress::quiet());
        let puller = Puller { store: &store, lock, locked, offline, progress };
        let source: Source = format!("docker://{name}").parse().unwrap();
        let images = puller.local(&[source])?.remove(0).read()?;
        Ok::<_, builder::error::Error>((images[0].names.clone(), images[0].id.clone()))
    };
    for (locked, offline) in [(true, false), (false, true)] {
        let refused = pull(locked, offline).unwrap_err();
        assert!(refused.chain().contains("images.lock does not have it"), "{}", refused.chain());
    }
    assert_eq!(pull(false, false).unwrap(), (vec![name.clone()], first.clone()));
    // The tag moves on; the pin does not, with or without a network.
    let second = put_image(&place, "1", "two");
    assert_eq!(pull(true, true).unwrap().1, first);
    assert_eq!(update_lock(&lock).unwrap().len(), 1);
    assert!(update_lock(&lock).unwrap().is_empty());
    assert_eq!(pull(true, false).unwrap().1, second);
    // What somebody damaged in the cache is told, not carried.
    let blobs = walk(&directory.path().join("images"));
    for blob in blobs.iter().filter(|path| !path.ends_with("index.json")) {
        std::fs::write(blob, b"else").unwrap();
    }
    assert!(pull(true, true).unwrap_err().chain().contains("is damaged"));
}

fn walk(directory: &Path) -> Vec<std::path::PathBuf> {
    let entries = std::fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path());
    entries.flat_map(|path| if path.is_dir() { walk(&path) } else { vec![path] }).collect()
}

/// A way to a port of this machine on which a connection breaks after so many bytes were sent, as
/// long as there are any `left` that may.
pub(crate) fn breaking(port: u16, most: usize, left: &Arc<AtomicU32>) -> u16 {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let own = listener.local_addr().unwrap().port();
    let left = Arc::clone(left);
    thread::spawn(move || {
        for client in listener.incoming() {
            let (Ok(client), Ok(server)) =
                (client, TcpStream::connect((Ipv4Addr::LOCALHOST, port)))
            else {
                return;
            };
            let (mut from, mut to) = (server.try_clone().unwrap(), client.try_clone().unwrap());
            thread::spawn(move || std::io::copy(&mut from, &mut to).is_ok());
            let left = Arc::clone(&left);
            thread::spawn(move || forward(client, server, most, &left));
        }
    });
    own
}

fn forward(mut from: TcpStream, mut to: TcpStream, most: usize, left: &AtomicU32) {
    let mut buffer = [0; 16 * 1024];
    let mut sent = 0;
    while let Ok(count @ 1..) = from.read(&mut buffer) {
        if to.write_all(&buffer[..count]).is_err() {
            break;
        }
        sent += count;
        let breaks = |left: u32| left.checked_sub(1);
        if sent >= most && left.fetch_update(Relaxed, Relaxed, breaks).is_ok() {
            break;
        }
    }
    let _ = to.shutdown(Shutdown::Both);
    let _ = from.shutdown(Shutdown::Both);
}
