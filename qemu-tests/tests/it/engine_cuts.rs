//! Power cuts while an engine loads, pulls and starts: what it says it has afterwards is whole, and
//! what is to run comes back.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::Read as _;
use std::path::PathBuf;
use std::process::Output;
use std::time::{Duration, Instant};

use crate::data::{debugfs, listed};
use builder::host::progress::{Progress, Unit};
use builder::host::qemu::{Forward, Options};
use builder::oci::{self, Architecture, Archive};
use builder::registry::{Client, Descriptor, MANIFEST_TYPE};
use builder::tree::{Content, Node, TreePath};
use ondisk::digest::Digest;
use qemu_tests::cuts;
use qemu_tests::disk::Disk;
use qemu_tests::machine::Machine;
use qemu_tests::registry_server::RegistryServer;
use qemu_tests::site::noise;
use qemu_tests::ssh::Person;
use qemu_tests::web_server::free_port;
use qemu_tests::write_log::{self, WriteLog};
use qemu_tests::{image, slow_tests_wanted, tools};

const LONG: Duration = Duration::from_secs(400);
/// Cuts after which a machine starts.
const CUTS: usize = 10;
/// Another number of them, for a run that has more time.
const CUTS_VARIABLE: &str = "IOTA_ENGINE_CUTS";
const SEED: u64 = 3;

/// Files of the image, and bytes of each but for a remainder that differs.
const FILES: usize = 1500;
const FILE_BYTES: usize = 6000;
/// Where the image lists what is in it.
const SUMS: &str = "sums";

#[test]
fn after_any_power_cut_an_engine_has_whole_images_or_none_and_containers_come_back() {
    if !slow_tests_wanted() {
        return;
    }
    let server = RegistryServer::start(false);
    put(&files_image(), &server);
    // QEMU leads 10.0.2.2 to this machine.
    let name = format!("10.0.2.2:{}/files:1", server.port());
    let owner = Person::new("anna@mill", 1);
    let config = format!(
        "[ssh]\nkeys = [\"{}\"]\n[engine]\ninsecure-registries = [\"10.0.2.2:{}\"]\n",
        owner.public_key(),
        server.port()
    );
    let flashed = Disk::flashed_with_config(image::outputs(), "engine-cuts", &config);
    let Recorded { log, pulled, image_kept, run_kept } = record(&flashed, &owner, &name);
    let data = flashed.table().data().unwrap().extent;
    let count = std::env::var(CUTS_VARIABLE).map_or(CUTS, |text| text.parse().unwrap());
    // Half of them once the engine believes in the image: what of it is not on the disk by then
    // would never come.
    let mut cuts = cuts::draw(&log, 0, &[data], count / 2, SEED);
    cuts.extend(cuts::draw(&log, pulled, &[data], count - count / 2, SEED + 1));
    cuts.sort_unstable();
    let base = File::open(flashed.path()).unwrap();
    let (mut number, mut seen) = (0, BTreeSet::new());
    cuts::replay(&log, &base, &cuts, |cut, written, unflushed| {
        let disk = Disk::with_contents_of(&log.disk(&base, written), "engine-cuts-cut");
        let had = comes_back(&disk, &owner, &name)
            .unwrap_or_else(|why| panic!("{cut}: {why}; its disk: {}", disk.path().display()));
        eprintln!("    {cut}, {unflushed} requests at its mercy: {had:?}");
        let least = match cut.after {
            after if after >= run_kept => Had::Running,
            after if after >= image_kept => Had::Image,
            _ => Had::Nothing,
        };
        assert!(had >= least, "{cut}: {had:?}, and {least:?} was there for a while");
        seen.insert(had);
        number += 1;
    });
    assert_eq!(number, count);
    assert!(seen.len() > 1, "all cuts fell on one moment: {seen:?}");
}

/// Docker's client, asked for this, says that.
type Docker<'a> = &'a dyn Fn(&[&str]) -> Result<String, String>;

/// What an engine had of the image that its owner pulled and ran, when it came back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Had {
    Nothing,
    Image,
    /// A container that has never been started: nobody but its owner does that.
    Container,
    Running,
}

/// A run that cuts are drawn from.
struct Recorded {
    log: WriteLog,
    /// Number of its entries when the owner was told that the image is there.
    pulled: usize,
    /// A little later, and likewise after the start of its container.
    image_kept: usize,
    run_kept: usize,
}

/// The engine renames its notes into place and does not wait for that: the journal of ext4 has it
/// five seconds later at most.
const A_LITTLE: Duration = Duration::from_secs(10);

/// A first start from which everything follows that an engine does: the system's own image is
/// loaded and started, another one pulled and started.
fn record(flashed: &Disk, owner: &Person, name: &str) -> Recorded {
    let disk = Disk::copy_of(flashed.path(), "engine-cuts-recorded");
    let path: PathBuf = disk.path().with_extension("log");
    let ssh = free_port();
    let options = Options {
        persist: true,
        write_log: Some(path.clone()),
        forwards: vec![Forward { host: ssh, guest: 22 }],
        ..Options::new(disk.path())
    };
    let mut machine = Machine::boot("engine-cuts-recorded", &options);
    machine.expect_somewhere("system ready", LONG);
    let ready = write_log::entries_at_last_flush(&path).unwrap();
    said(&owner.docker(ssh, &["pull", "--quiet", name])).unwrap();
    let entries = || write_log::entries_at_last_flush(&path).unwrap();
    let pulled = entries();
    std::thread::sleep(A_LITTLE);
    let image_kept = entries();
    let run = ["run", "-d", "--name", "files", "--restart", "always", name];
    said(&owner.docker(ssh, &run)).unwrap();
    std::thread::sleep(A_LITTLE);
    let run_kept = entries();
    machine.power_off(LONG);
    drop(machine);
    assert_eq!(flags_of_sums(&disk) & JOURNALED, JOURNALED, "contents are not in the journal");
    let log = WriteLog::open(&path).unwrap();
    eprintln!(
        "    {} requests; {ready} of them until the system was ready, {pulled} until it had \
         pulled, {image_kept} a little later, {run_kept} a little after it had started",
        log.entries.len()
    );
    Recorded { log, pulled, image_kept, run_kept }
}

/// ext4's flag of a file whose contents are written through the journal (`EXT4_JOURNAL_DATA_FL`).
const JOURNALED: u32 = 0x4000;

/// Flags of a file of the pulled image, as the engine unpacked it.
fn flags_of_sums(disk: &Disk) -> u32 {
    let layers = "/docker/overlay2";
    let ids = listed(disk, layers).into_iter().filter(|name| name.len() == 64);
    let told = ids.map(|id| debugfs(disk, &format!("stat {layers}/{id}/diff/{SUMS}\n")));
    let flags = told.filter_map(|text| {
        let (_, rest) = text.split_once("Flags: 0x")?;
        u32::from_str_radix(rest.split_whitespace().next()?, 16).ok()
    });
    let flags: Vec<u32> = flags.collect();
    assert_eq!(flags.len(), 1, "{flags:?}");
    flags[0]
}

/// Starts what a cut has left, and has the image's content looked through.
fn comes_back(disk: &Disk, owner: &Person, name: &str) -> Result<Had, String> {
    let ssh = free_port();
    let forwards = vec![Forward { host: ssh, guest: 22 }];
    let options = Options { forwards, ..Options::new(disk.path()) };
    let mut machine = Machine::boot("engine-cuts", &options);
    machine.expect_somewhere("system ready", LONG);
    let docker = |words: &[&str]| said(&owner.docker(ssh, words));
    runs(&docker, "hello")?;
    let had = what_is_there(&docker, name)?;
    match had {
        // Over whatever the cut has left of it.
        Had::Nothing => {
            docker(&["pull", "--quiet", name]).map_err(|why| format!("pulled again: {why}"))?;
        }
        Had::Image => {}
        Had::Container => {
            docker(&["start", "files"])?;
            runs(&docker, "files")?;
        }
        Had::Running => runs(&docker, "files")?,
    }
    let check = format!("cd / && sha256sum -c {SUMS} | grep -v ': OK$'; wc -l < {SUMS}");
    let words = ["run", "--rm", "--network", "none", "--entrypoint", "sh", name, "-c", &check];
    match docker(&words)?.trim() {
        left if left == FILES.to_string() => Ok(had),
        damage => Err(format!("{had:?}, and files are not whole: {damage}")),
    }
}

/// What the engine says of the image, and of its container.
fn what_is_there(docker: Docker, name: &str) -> Result<Had, String> {
    if docker(&["images", "--quiet", name])?.trim().is_empty() {
        return Ok(Had::Nothing);
    }
    let words = ["ps", "--all", "--filter", "name=files", "--format", "{{.State}}"];
    Ok(match docker(&words)?.trim() {
        "" => Had::Image,
        "created" => Had::Container,
        _ => Had::Running,
    })
}

/// A container runs before long.
fn runs(docker: Docker, name: &str) -> Result<(), String> {
    let deadline = Instant::now() + LONG;
    loop {
        let state = docker(&["inspect", "--format", "{{.State.Status}}", name])?;
        if state.trim() == "running" {
            return Ok(());
        }
        if Instant::now() > deadline {
            return Err(format!("container {name} is {}", state.trim()));
        }
        std::thread::sleep(Duration::from_secs(1));
    }
}

fn said(output: &Output) -> Result<String, String> {
    let text = tools::text_of(output);
    if output.status.success() { Ok(text) } else { Err(text) }
}

/// Many small files, none of which is empty.
fn files_image() -> Archive {
    let applets = ["sh", "sha256sum", "grep", "wc", "sleep"];
    let mut tree = oci::busybox_tree(Content::bytes(image::busybox()), &applets).unwrap();
    let mut sums = String::new();
    let mut put = |path: &str, bytes: Vec<u8>| {
        let node = Node::file(Content::bytes(bytes), 0o644, "test");
        tree.insert(TreePath::new(path).unwrap(), node).unwrap();
    };
    for number in 0..FILES {
        let bytes = noise(u32::try_from(number).unwrap(), FILE_BYTES + number);
        let path = format!("files/{}/{number}", number % 40);
        sums.push_str(&format!("{}  {path}\n", Digest::of(&bytes)));
        put(&path, bytes);
    }
    put(SUMS, sums.into_bytes());
    let image = oci::Image {
        name: "files",
        tag: "1",
        architecture: Architecture::Arm64,
        tree: &tree,
        command: &["/bin/sleep", "1000000"],
        environment: &BTreeMap::from([("PATH".to_owned(), "/bin".to_owned())]),
    };
    image.build().unwrap()
}

/// Puts an image into a registry.
fn put(archive: &Archive, server: &RegistryServer) {
    let client = Client::new(&server.repository("files"), true, None);
    let task = Progress::quiet().task("", Unit::Bytes, 0);
    let mut manifest = None;
    for entry in tar::Archive::new(&*archive.bytes).entries().unwrap() {
        let mut entry = entry.unwrap();
        let path = entry.path().unwrap().to_string_lossy().into_owned();
        let Some(hex) = path.strip_prefix("blobs/sha256/") else { continue };
        let mut bytes = Vec::new();
        entry.read_to_end(&mut bytes).unwrap();
        if archive.manifest_digest.ends_with(hex) {
            manifest = Some(bytes);
            continue;
        }
        // A registry keeps blobs, whatever they are.
        let kind = "application/octet-stream";
        let descriptor = Descriptor::of(kind, &Digest::of(&bytes), bytes.len() as u64);
        client.put_blob(&descriptor, &mut &*bytes, &task).unwrap();
    }
    client.put_document("1", MANIFEST_TYPE, &manifest.unwrap()).unwrap();
}
