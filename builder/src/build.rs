//! From a board name to an image: the whole path of a build in one place.
//!
//! Guarantees: same inputs, same bytes; an output is either the old one or the new one, whole; a
//! build whose inputs did not change does nothing.

mod outputs;

use std::path::{Path, PathBuf};
use std::thread;

use ondisk::digest::Digest;
use ondisk::manifest::Unpacked as UnpackedLength;

use crate::app::carried::Carried;
use crate::cli::RootFormat;
use crate::debian::catalog::Trust;
use crate::debian::lock::LockedPackage;
use crate::debian::obtain::{self, obtain};
use crate::definitions::{Definitions, digest_of_inputs};
use crate::error::{Context, Result};
use crate::flash::config::Config;
use crate::hex;
use crate::host::cargo::{Component, Components};
use crate::host::progress::Progress;
use crate::host::store::{Store, write_atomically};
use crate::host::unpack::Unpacked;
use crate::image::erofs;
use crate::image::zstd::Compression;
use crate::payload::{self, Packing};
use crate::recipe::{self, Programs, Trees};
use crate::sign::Profile;
use crate::signer::Signer;
use crate::slot::{self, Compressed, Contents};
use crate::tree::Content;

pub use outputs::{Image, Outputs, Summary};

/// What to build.
pub struct Plan {
    /// Name of the board.
    pub board: String,
    /// Name of the engine.
    pub engine: String,
    /// Development or release.
    pub profile: Profile,
    /// Signs the slot.
    pub signer: Signer,
    /// Directory of the outputs.
    pub out: PathBuf,
    /// Version for people; made from the inputs if absent.
    pub version: Option<String>,
    /// Devices refuse to go below it.
    pub rollback_index: u64,
    /// How the root is stored.
    pub root_format: RootFormat,
    /// Exactly the locked package versions or an error.
    pub locked: bool,
    /// Build even if nothing changed.
    pub force: bool,
    /// Apps and images that the root carries.
    pub carried: Carried,
    /// What its owner tells the device. It is no part of what is signed: with another one, version
    /// and slot are the same.
    pub config: Option<Config>,
}

/// What a build works with.
pub struct Host<'a> {
    /// The source tree.
    pub workspace: &'a Path,
    /// The cache.
    pub store: &'a Store,
    /// `--mirror`.
    pub mirror: Option<&'a str>,
    /// `--offline`.
    pub offline: bool,
    /// Says what happens.
    pub progress: &'a Progress,
}

/// zstd levels of a profile: a person waits for a development build, a device downloads a release.
struct Levels {
    kernel: u8,
    initrd: u8,
    root: i32,
    download: Compression,
}

/// What lies in a slot packed with LZ4 has the same level in each profile: higher ones take many
/// times as long for half a percent.
const LZ4_LEVEL: u8 = 9;

impl Levels {
    fn of(profile: Profile) -> Self {
        match profile {
            Profile::Development => {
                Self { kernel: 9, initrd: 9, root: 3, download: Compression::FAST }
            }
            Profile::Release => {
                Self { kernel: 19, initrd: 19, root: 19, download: Compression::SMALL }
            }
        }
    }
}

/// The package's number, which a release carries unless told otherwise.
const VERSION: &str = env!("CARGO_PKG_VERSION");

/// Builds an image, or finds that the last one is still right.
pub fn build(plan: &Plan, host: &Host<'_>) -> Result<Summary> {
    let definitions = Definitions::load(host.workspace, &plan.board, &plan.engine)?;
    let inputs = inputs_of(plan, host.workspace)?;
    let outputs = Outputs::new(&plan.out.join(&plan.board));
    let all_inputs = with_config(&inputs, plan.config.as_ref());
    if !plan.force
        && let Some(summary) = outputs.unchanged(&all_inputs)
    {
        return Ok(summary);
    }
    let (summary, as_locked) = make(plan, host, &definitions, &inputs, &outputs, |_| Ok(()))?;
    if as_locked {
        outputs.record_inputs(&all_inputs, &summary)?;
    }
    Ok(summary)
}

/// Builds an image whose trees are changed once they are put together: everything else, identities
/// and version too, is that of the plain image. For measurements that hold the two side by side.
pub fn build_changed(
    plan: &Plan,
    host: &Host<'_>,
    change: impl FnOnce(&mut Trees) -> Result<()>,
) -> Result<Summary> {
    let definitions = Definitions::load(host.workspace, &plan.board, &plan.engine)?;
    let inputs = inputs_of(plan, host.workspace)?;
    let outputs = Outputs::new(&plan.out.join(&plan.board));
    make(plan, host, &definitions, &inputs, &outputs, change).map(|(summary, _)| summary)
}

/// The one path of a build; also says whether the packages were those of the lock.
fn make(
    plan: &Plan,
    host: &Host<'_>,
    definitions: &Definitions,
    inputs: &Digest,
    outputs: &Outputs,
    change: impl FnOnce(&mut Trees) -> Result<()>,
) -> Result<(Summary, bool)> {
    outputs.begin()?;
    let (packages, programs) = gather(plan, host, definitions)?;
    let version = version(plan, inputs, &packages.locked);
    let carried = plan.carried.nodes(host.store)?;
    let parts = recipe::Parts {
        version: &version,
        packages: &packages.unpacked,
        programs: &programs,
        trust: &trust(plan),
        carried: &carried,
    };
    let mut trees = recipe::trees(definitions, &parts)?;
    trees.notes.extend(plan.carried.notes());
    change(&mut trees)?;
    for note in &trees.notes {
        host.progress.warn(note);
    }
    let boot_files = definitions.board.boot.files(&packages.unpacked)?;
    let levels = Levels::of(plan.profile);
    let slot = write_slot(plan, host, definitions, &version, &trees, &levels, outputs)?;
    let image = outputs::Image {
        definitions,
        version: &version,
        plan,
        trees: &trees,
        programs: &programs,
        boot_files: &boot_files,
        packages: &packages.locked,
        slot: &slot,
    };
    let summary = outputs.write(&image, levels.download, host.progress)?;
    Ok((summary, packages.as_locked))
}

/// What the image takes for an update: the board's systems, signed as the trust root says.
fn trust(plan: &Plan) -> ondisk::trust::Trust {
    ondisk::trust::Trust {
        board: plan.board.clone(),
        profile: plan.profile.in_manifests(),
        root: plan.signer.trust().clone(),
    }
}

/// Everything that decides what is signed, in one digest.
fn inputs_of(plan: &Plan, workspace: &Path) -> Result<Digest> {
    let files = digest_of_inputs(workspace, &plan.board)?;
    let Plan { engine, profile, version, rollback_index, root_format, .. } = plan;
    let version = version.as_deref().unwrap_or_default();
    let choices = format!("{engine} {profile} {version:?} {rollback_index} {root_format:?}");
    let carried = plan.carried.digest();
    let carried = carried.as_ref().map_or(&[][..], |digest| digest.as_bytes());
    let (keys, trust) = (plan.signer.ids()?, plan.signer.trust().encode());
    let all = [files.as_slice(), keys.as_bytes(), trust.as_bytes(), choices.as_bytes(), carried];
    Ok(Digest::of(&all.concat()))
}

/// Everything that decides the outputs.
fn with_config(inputs: &Digest, config: Option<&Config>) -> Digest {
    config.map_or(*inputs, |config| {
        Digest::of(&[inputs.as_bytes(), b"\0config\0".as_slice(), config.bytes()].concat())
    })
}

/// `0.1.0` of a release; a development build adds what it was made of, so that two builds are told
/// apart and the same inputs give the same name.
fn version(plan: &Plan, inputs: &Digest, packages: &[LockedPackage]) -> String {
    if let Some(version) = &plan.version {
        return version.clone();
    }
    match plan.profile {
        Profile::Release => VERSION.to_owned(),
        Profile::Development => {
            let mut all = inputs.as_bytes().to_vec();
            for package in packages {
                all.extend_from_slice(package.sha256.as_bytes());
            }
            format!("{VERSION}-dev.{}", hex::encode(&Digest::of(&all).as_bytes()[..4]))
        }
    }
}

struct Packages {
    locked: Vec<LockedPackage>,
    unpacked: Vec<Unpacked>,
    /// False if the mirror had newer versions than the lock.
    as_locked: bool,
}

/// Packages and components: the two have nothing to do with each other and run side by side.
fn gather(plan: &Plan, host: &Host<'_>, definitions: &Definitions) -> Result<(Packages, Programs)> {
    thread::scope(|scope| {
        let programs = scope.spawn(|| build_programs(host, definitions));
        let packages = obtain_packages(plan, host, definitions);
        let programs = programs.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        Ok((packages?, programs?))
    })
}

fn obtain_packages(plan: &Plan, host: &Host<'_>, definitions: &Definitions) -> Result<Packages> {
    let options = obtain::Options {
        mirror: host.mirror.map(str::to_owned),
        locked: plan.locked,
        offline: host.offline,
        groups: [definitions.groups(), plan.carried.groups()].concat(),
        trust: Trust::default(),
    };
    let Definitions { lock, packages, .. } = definitions;
    let locked = obtain(lock, packages, host.store, &options, host.progress)?;
    let groups: Vec<&str> = options.groups.iter().map(String::as_str).collect();
    let as_locked = locked == lock.packages_of(&groups);
    let unpacked = host.store.unpack_all(&locked, host.progress)?;
    Ok(Packages { locked, unpacked, as_locked })
}

fn build_programs(host: &Host<'_>, definitions: &Definitions) -> Result<Programs> {
    let components = Components {
        workspace: host.workspace,
        store: host.store,
        mirror: host.mirror,
        offline: host.offline,
        progress: host.progress,
    };
    let build = |component| {
        let built = components.build(component, definitions.board.architecture)?;
        let bytes = std::fs::read(&built.path)
            .context(|| format!("cannot read {}", built.path.display()))?;
        Ok(Content::bytes(bytes))
    };
    Ok(Programs {
        loader: build(Component::Loader)?,
        init: build(Component::Init)?,
        agent: build(Component::Agent)?,
    })
}

fn write_slot(
    plan: &Plan,
    host: &Host<'_>,
    definitions: &Definitions,
    version: &str,
    trees: &Trees,
    levels: &Levels,
    outputs: &Outputs,
) -> Result<slot::Slot> {
    let format = plan.root_format;
    let initrd = recipe::pack_initrd(&trees.initrd)?;
    let initrd = packing(format, levels.initrd).pack(&initrd)?;
    // The same in each version of a board, so that hashes of what did not change are the same:
    // all of the tree would be another one with another salt.
    let identity = |purpose: &str| {
        let text = format!("{purpose}\0{}", plan.board);
        *Digest::of(text.as_bytes()).as_bytes()
    };
    let mut uuid = [0; 16];
    uuid.copy_from_slice(&identity("erofs")[..16]);
    let contents = Contents {
        board: &plan.board,
        version,
        rollback_index: plan.rollback_index,
        command_line: &definitions.board.command_line,
        root: &trees.root,
        erofs: erofs::Options {
            compression: compression(format, levels.root),
            uuid,
            build_time_s: 0,
            volume_label: "iota-root".to_owned(),
        },
        salt: identity("verity"),
        initrd: &initrd,
        signer: &plan.signer,
    };
    let slot_bytes = definitions.board.layout.slot_bytes;
    slot::write(&outputs.slot(), slot_bytes, &contents, || {
        compress_cached(host.store, &trees.kernel, packing(format, levels.kernel))
    })
}

/// Clusters of 64 KiB: larger ones save little and make each page fault read more.
fn compression(format: RootFormat, level: i32) -> erofs::Compression {
    let cluster_bytes = 65536;
    match format {
        RootFormat::Plain => erofs::Compression::None,
        RootFormat::Lz4 => erofs::Compression::Lz4 { cluster_bytes },
        RootFormat::Lz4hc => erofs::Compression::Lz4hc { level: LZ4_LEVEL, cluster_bytes },
        RootFormat::Zstd => erofs::Compression::Zstd { level, cluster_bytes },
    }
}

/// Kernel and initrd: like the root, if that is packed.
fn packing(format: RootFormat, level: u8) -> Packing {
    match format {
        RootFormat::Plain | RootFormat::Lz4 | RootFormat::Lz4hc => {
            Packing::Lz4 { level: LZ4_LEVEL }
        }
        RootFormat::Zstd => Packing::Spans { level },
    }
}

/// Compresses a kernel, or takes the result of the last time from the cache: kernels change once a
/// month and take longer than the rest of a build.
fn compress_cached(store: &Store, content: &Content, packing: Packing) -> Result<Compressed> {
    let bytes = content.read()?;
    let sha256 = Digest::of(&bytes);
    let unpacked = UnpackedLength { length: bytes.len() as u64, sha256 };
    let directory = store.root().join("compressed");
    let path = directory.join(format!("{sha256}-{}", packing.suffix()));
    if let Ok(cached) = std::fs::read(&path)
        && payload::unpack(&cached, bytes.len()).is_some_and(|back| back == *bytes)
    {
        return Ok(Compressed { bytes: cached, unpacked });
    }
    let compressed = packing.pack(&bytes)?;
    std::fs::create_dir_all(&directory)
        .context(|| format!("cannot make {}", directory.display()))?;
    write_atomically(&path, &compressed)?;
    Ok(Compressed { bytes: compressed, unpacked })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_build_with_another_config_is_another_build() {
        let config = |text: &str| Config::new(text.into()).unwrap();
        let inputs = Digest::of(b"inputs");
        let (one, other) = (config("# one\n"), config("# other\n"));
        assert_eq!(with_config(&inputs, None), inputs);
        assert_ne!(with_config(&inputs, Some(&one)), inputs);
        assert_ne!(with_config(&inputs, Some(&one)), with_config(&inputs, Some(&other)));
    }
}
