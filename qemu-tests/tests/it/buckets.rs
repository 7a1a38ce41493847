//! A bucket of an object store as the place of releases: the publisher's code with a cache of its
//! own, the device's code with a small disk.

use std::fs::{self, File};
use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, TcpStream};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

use agent::online::web::{Http, Web as _};
use builder::error::Result;
use builder::host::progress::{Progress, Unit};
use builder::host::store::Store;
use builder::publish::bucket::Bucket;
use builder::publish::{self, Offer, Site as _};
use builder::s3::{Access, Client, Object, PART_BYTES, Place};
use ondisk::boot_record::State as SlotState;
use ondisk::channel::{ALL, Channel, Conditions, Fields, State, places};
use ondisk::digest::Digest;
use ondisk::layout::Slot;
use qemu_tests::site::{BOARD, Site, contents, fetch_channel, noise, record, slot_of, transfer};

use crate::registries::breaking;
use server::{BUCKET, StoreServer, access, access_as};

mod server;

fn place() -> Place {
    Place::parse(&format!("s3://{BUCKET}/team/iota")).unwrap()
}

/// A publisher's machine: what it has made, and a cache.
struct Publisher {
    site: Site,
    cache: tempfile::TempDir,
    access: Access,
}

impl Publisher {
    fn new(access: Access) -> Self {
        Self { site: Site::new().unwrap(), cache: tempfile::tempdir().unwrap(), access }
    }

    fn with<T>(&self, work: impl FnOnce(&Bucket<'_>) -> Result<T>) -> Result<T> {
        let store = Store::open(Some(self.cache.path()))?;
        work(&Bucket::new(Client::new(&place(), &self.access)?, &store, &Progress::quiet())?)
    }

    fn publish(&self, number: u8) -> Result<Channel> {
        let bundle = self.site.bundle(number)?;
        self.with(|site| {
            let offer = Offer {
                site,
                channel: "stable",
                share: ALL / 10,
                bases: 3,
                now_s: 1,
                conditions: &Conditions::default(),
            };
            publish::publish(&bundle, &offer, &self.site.signer, &Progress::quiet())
        })
    }

    fn change(&self, change: impl FnOnce(&mut Fields)) -> Result<Channel> {
        self.with(|site| publish::change(site, "stable", BOARD, change, &self.site.signer))
    }
}

fn device(port: u16) -> Http {
    let source = format!("http://127.0.0.1:{port}/{BUCKET}/team/iota");
    Http::new(&source, Path::new("/nowhere"), &config::Proxy::default())
}

/// What was sent, in the order of its sending.
fn sent(server: &StoreServer) -> Vec<String> {
    let put = |line: String| line.strip_prefix("PutObject updates/team/iota/").map(str::to_owned);
    server.asked().into_iter().filter_map(put).collect()
}

/// The head of an answer to everybody.
fn head(server: &StoreServer, path: &str) -> String {
    let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, server.port())).unwrap();
    let request = format!("GET /{BUCKET}/team/iota/{path} HTTP/1.0\r\nhost: x\r\n\r\n");
    stream.write_all(request.as_bytes()).unwrap();
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes).unwrap();
    let text = String::from_utf8_lossy(&bytes).to_lowercase();
    text.split("\r\n\r\n").next().unwrap_or_default().to_owned()
}

#[test]
fn a_release_goes_through_a_bucket_and_each_file_only_once() {
    let server = StoreServer::start();
    let publisher = Publisher::new(access(server.port()));
    assert!(fetch_channel(&device(server.port())).unwrap_err().contains("404"));
    publisher.publish(1).unwrap();
    let first = sent(&server);
    let own = places::channel("stable", BOARD);
    assert_eq!(first.iter().position(|path| *path == own), Some(first.len() - 1), "{first:?}");
    let channel = publisher.publish(2).unwrap();
    let second = sent(&server);
    assert!(second.iter().all(|path| *path == own || !first.contains(path)), "{second:?}");

    let web = device(server.port());
    assert_eq!(fetch_channel(&web).unwrap(), channel);
    let mut disk = publisher.site.disk(1).unwrap();
    let done = transfer(&web, &channel, &mut disk).unwrap();
    assert!(done.bytes * 5 < channel.bundle_bytes, "{} of {}", done.bytes, channel.bundle_bytes);
    let slot = fs::read(publisher.site.slot(2).unwrap()).unwrap();
    assert_eq!(contents(&slot_of(&disk, Slot::B)), contents(&slot));
    assert_eq!(record(&disk).unwrap().slots.b.state, SlotState::Unproven { tries: 3 });
    // Caches may keep all but the channel.
    assert!(head(&server, &own).contains("cache-control: public, max-age=60"));
    let bundle = places::bundle(&channel.slot_manifest.sha256);
    let answer = head(&server, &bundle);
    assert!(answer.contains("cache-control: public, max-age=31536000, immutable"), "{answer}");
}

#[test]
fn another_machine_of_the_publishers_goes_on_and_a_promotion_sends_the_channel_alone() {
    let server = StoreServer::start();
    let publisher = Publisher::new(access(server.port()));
    publisher.publish(1).unwrap();
    publisher.publish(2).unwrap();
    let other = Publisher::new(access(server.port()));
    let third = other.publish(3).unwrap();
    assert_eq!((third.sequence, third.share), (3, ALL / 10));
    assert_eq!(third.packs.iter().filter(|pack| pack.base.is_some()).count(), 2);
    server.asked();
    // The first machine has an older copy; what the bucket has wins.
    let promoted = publisher.change(|fields| fields.share = ALL).unwrap();
    assert_eq!((promoted.sequence, promoted.share), (4, ALL));
    assert_eq!(promoted.slot_manifest, third.slot_manifest);
    assert_eq!(sent(&server), [places::channel("stable", BOARD)]);
    assert_eq!(fetch_channel(&device(server.port())).unwrap(), promoted);
    let withdrawn = other.change(|fields| fields.state = State::Withdrawn).unwrap();
    assert_eq!(fetch_channel(&device(server.port())).unwrap(), withdrawn);
}

#[test]
fn a_bundle_that_is_another_one_in_the_cache_is_fetched_again_also_if_others_put_it_there() {
    let server = StoreServer::start();
    let publisher = Publisher::new(access(server.port()));
    let check = |channel: &Channel, noted: bool, spoil: &dyn Fn(&mut Vec<u8>), next: u8| {
        let bundle = places::bundle(&channel.slot_manifest.sha256);
        let path = publisher.with(|site| Ok(site.directory().join(&bundle))).unwrap();
        let whole = fs::read(&path).unwrap();
        if !noted {
            let client = Client::new(&place(), &publisher.access).unwrap();
            let object = Object { size: whole.len() as u64, sha256: None };
            client.put(&bundle, &object, "no-cache", &whole).unwrap();
        }
        let mut bytes = whole.clone();
        spoil(&mut bytes);
        fs::write(&path, &bytes).unwrap();
        let channel = publisher.publish(next).unwrap();
        assert!(fs::read(&path).unwrap() == whole, "before release {next}");
        assert!(channel.packs.iter().any(|pack| pack.base.is_some()));
        channel
    };
    let first = publisher.publish(1).unwrap();
    let second = check(&first, true, &|bytes| bytes[1_000_000] ^= 1, 2);
    check(&second, false, &|bytes| bytes.truncate(1000), 3);
}

#[test]
fn what_a_store_refuses_is_told_in_its_words_with_what_helps() {
    let server = StoreServer::start();
    let refused = |access: Access| {
        let client = Client::new(&place(), &access).unwrap();
        let error = client.get("channels/stable/pi4", 1000).unwrap_err();
        (error.chain(), error.next_step().unwrap_or_default().to_owned())
    };
    let (error, hint) = refused(access_as(server.port(), "AKIAEXAMPLE", "another"));
    assert!(
        error.contains("cannot read team/iota/channels/stable/pi4 of bucket updates"),
        "{error}"
    );
    assert!(error.contains("403 SignatureDoesNotMatch"), "{error}");
    assert!(hint.contains("AWS_SECRET_ACCESS_KEY"), "{hint}");
    let (error, hint) = refused(access_as(server.port(), "AKIAOTHER", "another"));
    assert!(error.contains(" 403 ") && hint.contains("AWS_ACCESS_KEY_ID"), "{error} {hint}");
    // Nothing of a publisher without a good key is sent.
    let stranger = Publisher::new(access_as(server.port(), "AKIAEXAMPLE", "another"));
    assert!(stranger.publish(1).unwrap_err().chain().contains("SignatureDoesNotMatch"));
    assert!(sent(&server).is_empty());
}

#[test]
fn a_release_and_a_large_file_arrive_whole_over_connections_that_break() {
    let server = StoreServer::start();
    let left = Arc::new(AtomicU32::new(3));
    let broken = breaking(server.port(), 500_000, &left);
    let channel = Publisher::new(access(broken)).publish(1).unwrap();
    assert!(channel.bundle_bytes > 1_000_000, "too little for a connection to break");
    assert_eq!(left.load(Relaxed), 0, "no connection broke");
    assert_eq!(fetch_channel(&device(server.port())).unwrap(), channel);
    server.asked();

    let bytes = noise(1, usize::try_from(PART_BYTES * 2 + 1000).unwrap());
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("large");
    fs::write(&path, &bytes).unwrap();
    let object = Object { size: bytes.len() as u64, sha256: Some(Digest::of(&bytes)) };
    let task = Progress::quiet().task("", Unit::Bytes, object.size);
    left.store(2, Relaxed);
    let client = Client::new(&place(), &access(broken)).unwrap();
    let mut file = File::open(&path).unwrap();
    client.put_file("files/large", &object, "no-cache", &mut file, &task).unwrap();
    assert_eq!(left.load(Relaxed), 0, "no connection broke");
    let asked = server.asked();
    let count = |what: &str| asked.iter().filter(|line| line.starts_with(what)).count();
    assert_eq!(count("CreateMultipartUpload"), 1, "{asked:?}");
    assert!(count("UploadPart") >= 3, "{asked:?}");
    assert_eq!((count("CompleteMultipartUpload"), count("Abort")), (1, 0), "{asked:?}");
    assert_eq!(client.head("files/large").unwrap(), Some(object));
    let answer = device(server.port()).get("files/large", None).unwrap();
    let mut found = Vec::new();
    answer.body.take(1 << 30).read_to_end(&mut found).unwrap();
    assert!(found == bytes, "another file arrived");
}
