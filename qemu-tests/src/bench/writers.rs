//! Our EROFS writer and hash tree beside the programs that others use, on the same directory.
//!
//! Every writer is a process of its own, ours too, and reads the same files; processor time
//! counts, since it is what a busy machine changes least. The best of several runs is taken, ours
//! and the peer's in turn.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;

use builder::error::{Context, Error, Result};
use builder::host::tools::Tools;
use builder::image::erofs::{self, Compression, Options};
use builder::image::verity;

use super::directory;
use super::process::{Cost, least, measure};
use super::table::{Goal, Row, Value};

/// Compressed bytes of a cluster, as in our images.
const CLUSTER_BYTES: usize = 65536;

/// The word that makes the benchmark program one of our writers.
pub const WRITE_EROFS: &str = "write-erofs";
/// The word that makes it hash.
pub const WRITE_VERITY: &str = "write-verity";

/// A way to store files, in our words and in those of others.
struct Method {
    /// For people, and our own writer.
    name: &'static str,
    compression: Compression,
    /// `mkfs.erofs -z`; `None` for plain.
    mkfs: Option<&'static str>,
    /// zstd's level, if `mksquashfs` can be held against it.
    squash_level: Option<u8>,
    /// Times each is run: what takes a minute is not disturbed by a tick.
    rounds: usize,
}

const METHODS: [Method; 4] = [
    Method {
        name: "plain",
        compression: Compression::None,
        mkfs: None,
        squash_level: None,
        rounds: 5,
    },
    Method {
        name: "lz4hc 9",
        compression: Compression::Lz4hc { level: 9, cluster_bytes: CLUSTER_BYTES },
        mkfs: Some("lz4hc,9"),
        squash_level: None,
        rounds: 2,
    },
    Method {
        name: "zstd 3",
        compression: Compression::Zstd { level: 3, cluster_bytes: CLUSTER_BYTES },
        mkfs: Some("zstd,3"),
        squash_level: Some(3),
        rounds: 3,
    },
    Method {
        name: "zstd 9",
        compression: Compression::Zstd { level: 9, cluster_bytes: CLUSTER_BYTES },
        mkfs: Some("zstd,9"),
        squash_level: Some(9),
        rounds: 1,
    },
];

/// Measures all writers on the root in `slot`; files go to `scratch`.
pub fn run(slot: &Path, scratch: &Path, tools: &Tools<'_>) -> Result<Vec<Row>> {
    let bench = Bench { tools, scratch, root: scratch.join("root") };
    fs::create_dir_all(scratch).context(|| format!("cannot make {}", scratch.display()))?;
    bench.extract(slot)?;
    let mut rows = Vec::new();
    for method in &METHODS {
        rows.extend(bench.method(method)?);
    }
    rows.extend(bench.hash_tree()?);
    Ok(rows)
}

struct Bench<'a> {
    tools: &'a Tools<'a>,
    scratch: &'a Path,
    /// The root's files as a directory.
    root: PathBuf,
}

/// A written image: what it cost and how long it is.
#[derive(Clone, Copy)]
struct Made {
    cost: Cost,
    bytes: u64,
}

impl Bench<'_> {
    fn extract(&self, slot: &Path) -> Result<()> {
        if self.root.exists() {
            let what = || format!("cannot remove {}", self.root.display());
            fs::remove_dir_all(&self.root).context(what)?;
        }
        let mut command = self.tools.find("fsck.erofs")?.command();
        command.arg(format!("--extract={}", self.root.display())).arg(slot);
        measure(&mut command).map(|_| ())
    }

    fn method(&self, method: &Method) -> Result<Vec<Row>> {
        let name = method.name;
        let (ours, theirs) = self.compare(
            method.rounds,
            || Ok(self.our_writer(name)),
            || self.mkfs_erofs(method.mkfs),
        )?;
        let mut rows = vec![
            Row::new(format!("EROFS {name}: time"), cpu(ours))
                .beside("mkfs.erofs", cpu(theirs))
                .goal(Goal::Times(1.0)),
            Row::new(format!("EROFS {name}: size"), size(ours))
                .beside("mkfs.erofs", size(theirs))
                .goal(Goal::Times(1.03)),
        ];
        if let Some(level) = method.squash_level {
            let squash = self.make(&mut self.mksquashfs(level)?)?;
            let at = format!("mksquashfs zstd {level}, 128 KiB");
            let what = |of: &str| format!("EROFS {name}: {of}");
            rows.push(Row::new(what("time"), cpu(ours)).beside(&at, cpu(squash)));
            rows.push(Row::new(what("size"), size(ours)).beside(&at, size(squash)));
        }
        Ok(rows)
    }

    fn hash_tree(&self) -> Result<Vec<Row>> {
        // The plain image: the largest, so that starting a program does not count.
        let plain = self.make(&mut self.our_writer("plain"))?;
        let data = self.scratch.join("plain.img");
        fs::rename(self.image(), &data).context(|| format!("cannot make {}", data.display()))?;
        let (ours, theirs) =
            self.compare(5, || Ok(self.our_hasher(&data)), || self.veritysetup(&data))?;
        let row = Row::new("hash tree of the plain root: time", cpu(ours));
        let content = Row::new("root content, plain", size(plain));
        Ok(vec![
            row.beside("veritysetup format", cpu(theirs)).goal(Goal::Times(1.0)),
            content.goal(Goal::AtMost(Value::Megabytes(260_000_000))),
        ])
    }

    /// Ours and theirs in turn.
    fn compare(
        &self,
        rounds: usize,
        ours: impl Fn() -> Result<Command>,
        theirs: impl Fn() -> Result<Command>,
    ) -> Result<(Made, Made)> {
        let mut all = [Vec::new(), Vec::new()];
        for _ in 0..rounds {
            all[0].push(self.make(&mut ours()?)?);
            all[1].push(self.make(&mut theirs()?)?);
        }
        let [ours, theirs] = all.map(|made| {
            let costs: Vec<Cost> = made.iter().map(|made| made.cost).collect();
            Made { cost: least(&costs), bytes: made.last().map_or(0, |made| made.bytes) }
        });
        Ok((ours, theirs))
    }

    fn make(&self, command: &mut Command) -> Result<Made> {
        let image = self.image();
        // Some add to what is there.
        let _ = fs::remove_file(&image);
        let cost = measure(command)?;
        let metadata = fs::metadata(&image).context(|| format!("no {}", image.display()))?;
        Ok(Made { cost, bytes: metadata.len() })
    }

    fn image(&self) -> PathBuf {
        self.scratch.join("image")
    }

    fn our_writer(&self, method: &str) -> Command {
        let mut command = ourselves();
        command.arg(WRITE_EROFS).arg(method).arg(&self.root).arg(self.image());
        command
    }

    fn our_hasher(&self, data: &Path) -> Command {
        let mut command = ourselves();
        command.arg(WRITE_VERITY).arg(data).arg(self.image());
        command
    }

    fn mkfs_erofs(&self, compressor: Option<&str>) -> Result<Command> {
        let mut command = self.tools.find("mkfs.erofs")?.command();
        // One time for all files, as in our images: inodes are shorter then.
        command.args(["--quiet", "-T0", "-U00000000-0000-0000-0000-000000000000"]);
        if let Some(compressor) = compressor {
            command.arg(format!("-z{compressor}")).arg(format!("-C{CLUSTER_BYTES}"));
        }
        command.arg(self.image()).arg(&self.root);
        Ok(command)
    }

    fn mksquashfs(&self, level: u8) -> Result<Command> {
        let mut command = self.tools.find("mksquashfs")?.command();
        command.arg(&self.root).arg(self.image()).args(["-comp", "zstd", "-Xcompression-level"]);
        command.arg(level.to_string()).args(["-quiet", "-no-progress", "-all-time", "0"]);
        Ok(command)
    }

    fn veritysetup(&self, data: &Path) -> Result<Command> {
        let mut command = self.tools.find("veritysetup")?.command();
        command.args(["format", "--no-superblock", "--hash=sha256", "--data-block-size=4096"]);
        command.args(["--hash-block-size=4096", "--salt"]).arg("00".repeat(verity::SALT));
        command.arg(data).arg(self.image());
        Ok(command)
    }
}

fn ourselves() -> Command {
    Command::new("/proc/self/exe")
}

fn cpu(made: Made) -> Value {
    Value::CpuSeconds(made.cost.cpu_seconds)
}

fn size(made: Made) -> Value {
    Value::Megabytes(made.bytes)
}

/// `write-erofs METHOD DIRECTORY IMAGE`: what the benchmark runs as our writer.
pub fn write_erofs(arguments: &[String]) -> Result<()> {
    let [name, root, image] = arguments else {
        return Err(Error::new("write-erofs takes a method, a directory and an image"));
    };
    let method = METHODS.iter().find(|method| method.name == *name);
    let method = method.ok_or_else(|| Error::new(format!("there is no method {name}")))?;
    let tree = directory::read(Path::new(root))?;
    let options = Options {
        compression: method.compression,
        uuid: [0; 16],
        build_time_s: 0,
        volume_label: String::new(),
    };
    let mut sink = File::create(image).context(|| format!("cannot make {image}"))?;
    erofs::write(&tree, &options, &mut sink).map(|_| ())
}

/// `write-verity DATA TREE`: what the benchmark runs as our hasher.
pub fn write_verity(arguments: &[String]) -> Result<()> {
    let [data, tree] = arguments else {
        return Err(Error::new("write-verity takes a file and where the tree goes"));
    };
    let what = || format!("cannot read {data}");
    let file = File::open(data).context(what)?;
    let length = file.metadata().context(what)?.len();
    let built = verity::build(&file, Path::new(data), length, &[0; verity::SALT])?;
    fs::write(tree, built.bytes).context(|| format!("cannot write {tree}"))
}
