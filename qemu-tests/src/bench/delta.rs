//! The bytes that an update costs, by every carrier and for every root format, beside xdelta3 and
//! `zstd --patch-from` on the same pair of images; for the default format also beside casync,
//! zchunk, bsdiff and ostree.
//!
//! Two pairs, made of Debian's packages as they are now: a month of updates (what the suites for
//! updates and security have over the stable one, with one kernel) and a kernel (with all else the
//! same). What is compared are the slots' images, as the devices hold them.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use agent::online::local::Found;
use agent::online::plan::Plan;
use builder::build::Host;
use builder::bundle::{self, Settings};
use builder::debian::lock::{Lock, LockedPackage};
use builder::error::{Context, Result};
use builder::host::tools::Tools;
use builder::publish::pieces::{self, Pack};
use builder::publish::release::Release;
use builder::sign::{Key, Profile};
use builder::signer::Signer;
use builder::{definitions, verbs};
use ondisk::device::FileDevice;

use super::delta_peers::{self, Pair};
use super::follow::{self, Past};
use super::process::measure;
use super::table::{Goal, Row, Value};
use crate::image::{self, variant_with};
use crate::workspace;

/// How the root is stored.
const FORMATS: [&str; 3] = ["plain", "lz4hc", "zstd"];
/// What an image has unless told otherwise.
const DEFAULT: &str = "zstd";
/// The suites that a month of updates comes from.
const NEWER: [&str; 2] = ["trixie-updates", "trixie-security"];
const KERNEL: &str = "linux-image-";
/// Of issue 7.
const MONTH_GOAL: u64 = 1_000_000;
const KERNEL_GOAL: u64 = 4_100_000;

/// Builds both pairs in all formats and measures; files go to `scratch`.
pub fn run(program: &Path, host: &Host<'_>, scratch: &Path, tools: &Tools<'_>) -> Result<Vec<Row>> {
    fs::create_dir_all(scratch).context(|| format!("cannot make {}", scratch.display()))?;
    let newer = Lock::read(&definitions::lock_path(&workspace()))?;
    let older = older_lock(host, scratch)?;
    let both = |packages: &Lock, kernel: &Lock| -> Result<Lock> {
        let is_kernel = |package: &&LockedPackage| package.name.starts_with(KERNEL);
        let rest = packages.packages().iter().filter(|package| !is_kernel(package));
        let all = rest.chain(kernel.packages().iter().filter(is_kernel)).cloned();
        Lock::new(&definitions::packages(&workspace())?, all.collect())
    };
    let pairs = [
        ("month", both(&older, &newer)?, MONTH_GOAL),
        ("kernel", both(&newer, &older)?, KERNEL_GOAL),
    ];
    let mut rows = Vec::new();
    for format in FORMATS {
        let new = Image::build("new", 2, format, &newer, scratch)?;
        rows.push(Row::new(format!("{format} root: slot"), megabytes(new.release.image.len())));
        let whole = new.release.bundle_bytes;
        rows.push(Row::new(format!("{format} root: all of it"), Value::Megabytes(whole)));
        let mut past = Vec::new();
        for (name, lock, goal) in &pairs {
            let old = Image::build(name, 1, format, lock, scratch)?;
            let goal = (format == DEFAULT).then_some(*goal);
            rows.extend(compare(&format!("{format} root, {name}"), &old, &new, goal, tools)?);
            past.push((*name, old));
        }
        if format == DEFAULT {
            let past: Vec<Past<'_>> = past.iter().map(|(name, image)| image.past(name)).collect();
            let key = development_key()?;
            let new = (new.bundle.as_path(), &new.release);
            rows.extend(follow::run(program, &past, new, key.trust(), scratch)?);
        }
    }
    Ok(rows)
}

fn development_key() -> Result<Signer> {
    Key::load(&workspace().join("keys/development.secret")).map(Signer::from)
}

fn megabytes(bytes: usize) -> Value {
    Value::Megabytes(bytes as u64)
}

/// The packages as the stable suite alone has them.
fn older_lock(host: &Host<'_>, scratch: &Path) -> Result<Lock> {
    let copy = scratch.join("older");
    let rootfs = copy.join("rootfs");
    fs::create_dir_all(&rootfs).context(|| format!("cannot make {}", rootfs.display()))?;
    let from = workspace();
    for directory in ["boards", "rootfs/engines", "rootfs/containers"] {
        image::copy_directory(&from.join(directory), &copy.join(directory));
    }
    let path = from.join("rootfs/packages.toml");
    let text = fs::read_to_string(&path).context(|| format!("cannot read {}", path.display()))?;
    let kept = text.split_inclusive("\n\n").filter(|part| {
        !NEWER.iter().any(|suite| part.contains(&format!("[[suite]]\nname = \"{suite}\"")))
    });
    let text: String = kept.collect();
    fs::write(rootfs.join("packages.toml"), text)
        .context(|| "cannot write packages.toml".into())?;
    verbs::lock_packages_of(&copy, host)?;
    Lock::read(&definitions::lock_path(&copy))
}

/// A built release and its image in a file.
struct Image {
    release: Release,
    file: PathBuf,
    bundle: PathBuf,
    slot: PathBuf,
}

impl Image {
    fn build(name: &str, index: u32, format: &str, lock: &Lock, scratch: &Path) -> Result<Self> {
        let variant = format!("delta-{format}-{name}");
        let options = ["--root-format", format];
        let outputs = variant_with(image::BOARD, &variant, index, &options, |workspace| {
            let written = lock.write(&definitions::lock_path(workspace));
            written.unwrap_or_else(|error| panic!("{}", error.chain()));
        });
        let key = development_key()?;
        let failed = || format!("cannot read the slot of {variant}");
        let path = outputs.join("slot.img");
        let slot = File::open(&path).and_then(FileDevice::new).context(failed)?;
        let target = scratch.join(format!("{variant}.bundle"));
        bundle::write(&target, &slot, &key, Settings::of(Profile::Release), |_| {})?;
        let release = Release::read(&target, key.trust())?;
        let file = scratch.join(format!("{variant}.img"));
        fs::write(&file, &release.image).context(|| format!("cannot write {}", file.display()))?;
        Ok(Self { release, file, bundle: target, slot: path })
    }

    fn past<'a>(&'a self, name: &'a str) -> Past<'a> {
        let Self { release, bundle, slot, .. } = self;
        Past { name, bundle, slot, release }
    }
}

fn compare(
    what: &str,
    old: &Image,
    new: &Image,
    goal: Option<u64>,
    tools: &Tools<'_>,
) -> Result<Vec<Row>> {
    let progress = |_| ();
    let differences = pieces::make(&new.release, Some(&old.release), &progress)?;
    let any = pieces::make(&new.release, None, &progress)?;
    let fetched = new.release.front_bytes + file_bytes(&differences);
    let missing = new.release.front_bytes + missing_bytes(&any, old, new);
    let (xdelta, zstd) = (xdelta3(old, new, tools)?, patch_from(old, new, tools)?);
    let row = |of: &str, bytes| Row::new(format!("{what}: {of}"), Value::Megabytes(bytes));
    let beside = |peer, bytes| row("differences", fetched).beside(peer, Value::Megabytes(bytes));
    let first = beside("xdelta3 -9", xdelta);
    let mut rows = vec![
        match goal {
            Some(goal) => first.goal(Goal::AtMost(Value::Megabytes(goal))),
            None => first,
        },
        beside("zstd -19 --patch-from", zstd),
    ];
    // A goal is what the default has.
    if goal.is_some() {
        let pair = Pair { old: (&old.file, &old.release), new: (&new.file, &new.release) };
        let peers = delta_peers::sizes(&pair, &new.file.with_extension("peers"), tools)?;
        rows.extend(peers.into_iter().map(|(peer, bytes)| beside(peer, bytes)));
    }
    rows.push(row("missing pieces", missing));
    Ok(rows)
}

fn file_bytes(pack: &Pack) -> u64 {
    (pack.table.encode().len() + pack.frames.len()) as u64
}

/// What a device that runs `old` fetches of a pack without a base, its table included.
fn missing_bytes(any: &Pack, old: &Image, new: &Image) -> u64 {
    let here: std::collections::HashSet<_> =
        old.release.groups.iter().map(|group| group.sha256).collect();
    let found = |sha256| if here.contains(sha256) { Found::At(0) } else { Found::Nowhere };
    let found: Vec<Found> = new.release.groups.iter().map(|group| found(&group.sha256)).collect();
    let table = any.table.encode().len() as u64;
    table + Plan::new(&any.table, table, &new.release.groups, &found, (0, 0)).bytes()
}

fn xdelta3(old: &Image, new: &Image, tools: &Tools<'_>) -> Result<u64> {
    let target = new.file.with_extension("xdelta3");
    let mut command = tools.find("xdelta3")?.command();
    command.args(["-e", "-f", "-9", "-S", "lzma", "-B", "536870912", "-s"]);
    command.arg(&old.file).arg(&new.file).arg(&target);
    measure(&mut command)?;
    length(&target)
}

fn patch_from(old: &Image, new: &Image, tools: &Tools<'_>) -> Result<u64> {
    let target = new.file.with_extension("zst");
    let mut command = tools.find("zstd")?.command();
    command.args(["-q", "-f", "-19", "--long=30", "--ultra"]);
    command.arg(format!("--patch-from={}", old.file.display()));
    command.arg(&new.file).arg("-o").arg(&target);
    measure(&mut command)?;
    length(&target)
}

/// Size of a file.
pub(super) fn length(path: &Path) -> Result<u64> {
    let data = fs::metadata(path).context(|| format!("cannot read {}", path.display()))?;
    Ok(data.len())
}
