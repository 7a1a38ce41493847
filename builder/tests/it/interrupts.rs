//! Ctrl-C at any moment of a build: every output is the old or the new one, nothing else is left,
//! and the next build makes the bytes that an undisturbed one makes.
//!
//! Two versions take turns, so that "old" and "new" are different bytes. The cache is a copy of the
//! user's: what is left in it can only be ours.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::FileExt as _;
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use builder::debian::lock::{Lock, LockedPackage};
use builder::image::sparse::{SparseImage, is_zero};
use ondisk::digest::Digest;
use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};
use rustix::process::{Pid, Signal, kill_process};

use crate::test_server::TestServer;

const BOARD: &str = "generic-aarch64";
const SEED: u64 = 1;
/// Interrupts over the whole of a build, and over one that downloads first.
const ROUNDS: u32 = 8;
const DOWNLOADING_ROUNDS: u32 = 3;
/// What a shell makes of a program that SIGINT ended (docs/build.md).
const INTERRUPTED: i32 = 130;
const SIGINT: i32 = 2;

/// Content of each output by its name.
type Outputs = BTreeMap<String, Digest>;

/// Directories of this test alone.
struct Place {
    root: PathBuf,
}

impl Place {
    fn new() -> Self {
        let root = workspace().join("target/interrupts");
        if root.exists() {
            fs::remove_dir_all(&root).unwrap();
        }
        fs::create_dir_all(root.join("tmp")).unwrap();
        Self { root }
    }

    fn cache(&self) -> PathBuf {
        self.root.join("cache")
    }

    fn outputs(&self) -> PathBuf {
        self.root.join("out").join(BOARD)
    }

    /// `iota build` of a version, with all that it writes below this place.
    fn build(&self, version: &str) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_iota"));
        command.args(["build", BOARD, "--force", "--image-version", version, "--workspace"]);
        command.arg(workspace()).arg("--out").arg(self.root.join("out"));
        command.arg("--cache").arg(self.cache());
        command.env("TMPDIR", self.root.join("tmp")).env_remove("IOTA_MIRROR");
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    /// Builds undisturbed; with what came of it and how long it took.
    fn undisturbed(&self, mut command: Command) -> (Outputs, Duration) {
        let start = Instant::now();
        let output = command.output().unwrap();
        let seconds = start.elapsed();
        assert!(output.status.success(), "{}", text(&output));
        self.check_leftovers();
        assert!(fs::read_dir(self.cache().join("unfinished")).unwrap().next().is_none());
        (outputs(&self.outputs()), seconds)
    }

    /// Nothing is under a name that only a file in the making has. What lies in the cache's own
    /// `unfinished` is emptied by the next start.
    fn check_leftovers(&self) {
        let mut left = Vec::new();
        for top in ["out", "tmp", "cache/debs", "cache/unpacked-2", "cache/compressed"] {
            files(&self.root.join(top), &mut left);
        }
        left.retain(|path| {
            let name = path.file_name().unwrap().to_str().unwrap();
            path.starts_with(self.root.join("tmp")) || name.starts_with('.') && name != ".inputs"
        });
        assert!(left.is_empty(), "left behind: {left:?}");
    }
}

fn workspace() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap()
}

fn text(output: &Output) -> String {
    [&output.stdout[..], &output.stderr].map(String::from_utf8_lossy).concat()
}

fn files(directory: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(directory).into_iter().flatten() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files(&path, found);
        } else {
            found.push(path);
        }
    }
}

/// The outputs that are there.
fn outputs(directory: &Path) -> Outputs {
    let mut found = Vec::new();
    files(directory, &mut found);
    let name = |path: &Path| path.file_name().unwrap().to_str().unwrap().to_owned();
    let found = found.into_iter().map(|path| (name(&path), digest(&path)));
    found.filter(|(name, _)| name != ".inputs").collect()
}

/// Of what is not zero, with its place: images are sparse, and the same with other holes.
fn digest(path: &Path) -> Digest {
    let image = SparseImage::open(path).unwrap();
    let file = fs::File::open(path).unwrap();
    let mut blocks = Vec::new();
    let mut buffer = vec![0; 1 << 20];
    for range in image.mapped.iter() {
        for start in (range.start..range.end).step_by(buffer.len()) {
            let length = usize::try_from(range.end - start).unwrap().min(buffer.len());
            file.read_exact_at(&mut buffer[..length], start).unwrap();
            for (place, block) in (start..).step_by(4096).zip(buffer[..length].chunks(4096)) {
                if !is_zero(block) {
                    blocks.extend(place.to_le_bytes());
                    blocks.extend(Digest::of(block).as_bytes());
                }
            }
        }
    }
    blocks.extend(image.length.to_le_bytes());
    Digest::of(&blocks)
}

/// Starts a build and interrupts it; whether it was still at work.
fn interrupt(mut command: Command, after: Duration) -> bool {
    let child = command.spawn().unwrap();
    std::thread::sleep(after);
    let pid = Pid::from_raw(child.id().try_into().unwrap()).unwrap();
    // One that has ended is still there to be waited for.
    kill_process(pid, Signal::INT).unwrap();
    let output = child.wait_with_output().unwrap();
    match (output.status.code(), output.status.signal()) {
        (Some(0), _) => false,
        // Before the program can attend to it, the kernel's own way: a shell shows the same 130.
        (Some(INTERRUPTED), _) | (None, Some(SIGINT)) => true,
        (code, signal) => panic!("status {code:?}, signal {signal:?}: {}", text(&output)),
    }
}

/// Every output is the one of one version or the other's.
fn check_whole(found: &Outputs, old: &Outputs, new: &Outputs) {
    for (name, digest) in found {
        let whole = old.get(name) == Some(digest) || new.get(name) == Some(digest);
        assert!(whole, "{name} is neither the old nor the new one");
    }
    assert_eq!(found.len(), old.len(), "{found:?}");
}

/// One moment in each of the equal parts of a build: the share of it that has passed.
fn moments(rounds: u32, random: &mut StdRng) -> Vec<f64> {
    (0..rounds)
        .map(|round| (f64::from(round) + random.r#gen::<f64>()) / f64::from(rounds))
        .collect()
}

#[test]
fn ctrl_c_at_any_moment_of_a_build_leaves_whole_outputs_and_nothing_else() {
    if std::env::var_os("RUN_SLOW_TESTS").is_none_or(|value| value.is_empty()) {
        eprintln!("left out: takes minutes; runs with RUN_SLOW_TESTS=1 (cargo xtask test)");
        return;
    }
    let place = Place::new();
    let used = fill_cache(&place);
    let (a, _) = place.undisturbed(place.build("1.0-a"));
    let (b, mut whole) = place.undisturbed(place.build("1.0-b"));
    assert!(a.keys().eq(b.keys()) && a["disk.img"] != b["disk.img"], "{a:?}");
    eprintln!("an undisturbed build takes {whole:.2?}");
    let versions = [("1.0-a", &a), ("1.0-b", &b)];
    let mut random = StdRng::seed_from_u64(SEED);

    let mut at_work = 0;
    for (round, share) in moments(ROUNDS, &mut random).into_iter().enumerate() {
        let after = whole.mul_f64(share);
        let (version, new) = versions[round % 2];
        let (_, old) = versions[(round + 1) % 2];
        eprintln!("round {round} of seed {SEED}: interrupted after {after:.2?}");
        at_work += u32::from(interrupt(place.build(version), after));
        place.check_leftovers();
        check_whole(&outputs(&place.outputs()), old, new);
        // As long as the next one takes on a machine that has other work, too.
        let (next, now) = place.undisturbed(place.build(version));
        assert!(next == *new, "the next build makes other bytes");
        whole = now;
    }
    assert!(at_work >= ROUNDS - 2, "only {at_work} builds were interrupted");

    let server = serve(&used);
    for round in 0..DOWNLOADING_ROUNDS {
        let (version, new) = versions[round as usize % 2];
        forget(&place, &used);
        let mirror = format!("{0},{0}", server.address());
        let build = || {
            let mut command = place.build(version);
            command.args(["--mirror", &mirror, "--locked"]);
            command
        };
        let after = Duration::from_millis(random.gen_range(30..400));
        let interrupted = interrupt(build(), after);
        let asked = server.requests().len();
        eprintln!("downloading, after {after:.2?}: interrupted {interrupted}, {asked} requests");
        assert!(interrupted);
        place.check_leftovers();
        let (next, _) = place.undisturbed(build());
        assert!(next == *new, "the next build makes other bytes");
        assert!(asked + server.requests().len() > 0, "nothing was downloaded");
    }
}

/// Copies the user's cache, after a build has filled it; returns packages that images hold and
/// whose downloads are still there.
fn fill_cache(place: &Place) -> Vec<(LockedPackage, PathBuf)> {
    let mut first = Command::new(env!("CARGO_BIN_EXE_iota"));
    first.args(["build", BOARD, "--force", "--workspace"]).arg(workspace());
    let output = first.arg("--out").arg(place.root.join("first")).output().unwrap();
    assert!(output.status.success(), "{}", text(&output));
    fs::remove_dir_all(place.root.join("first")).unwrap();
    let store = builder::host::store::Store::open(None).unwrap();
    for directory in ["debs", "unpacked-2", "compressed"] {
        let target = place.cache().join(directory);
        fs::create_dir_all(&target).unwrap();
        for entry in fs::read_dir(store.root().join(directory)).unwrap() {
            let source = entry.unwrap().path();
            let target = target.join(source.file_name().unwrap());
            // Nothing in the cache is ever changed in place.
            if fs::hard_link(&source, &target).is_err() {
                fs::copy(&source, &target).unwrap();
            }
        }
    }
    let lock = Lock::read(&builder::definitions::lock_path(workspace())).unwrap();
    let packages = lock.packages_of(&["docker"]).into_iter().filter(|it| it.size < 4_000_000);
    let kept = packages.map(|it| (it.clone(), store.deb_path(&it)));
    kept.filter(|(_, path)| path.is_file()).collect()
}

/// A mirror that has these packages.
fn serve(packages: &[(LockedPackage, PathBuf)]) -> TestServer {
    assert!(packages.len() >= 5, "too few downloads are kept in the cache: {}", packages.len());
    let server = TestServer::start();
    for (package, path) in packages {
        server.put(&package.path, fs::read(path).unwrap());
    }
    server
}

/// Takes packages out of the copy of the cache.
fn forget(place: &Place, packages: &[(LockedPackage, PathBuf)]) {
    for (LockedPackage { sha256, .. }, _) in packages {
        for file in [format!("debs/{sha256}.deb"), format!("debs/{sha256}.part")]
            .into_iter()
            .chain(["pack", "json"].map(|ending| format!("unpacked-2/{sha256}.{ending}")))
        {
            let _ = fs::remove_file(place.cache().join(file));
        }
    }
}
