//! The outputs of a build: their names, how they are written, and how a later build knows that
//! they are still right.
//!
//! ```text
//! disk.img        the whole disk, sparse
//! disk.img.zst    the same, compressed: what a user downloads
//! disk.img.bmap   block map of disk.img as bmaptool reads it
//! slot.img        the signed slot as it lies in slot A, sparse
//! manifest.json   what is inside: parts, packages, files, each with its digest
//! report.txt      what takes the space, largest first
//! tree.txt        every file of the root with mode, owner, size and origin
//! firmware.txt    what the firmware of each Raspberry Pi does with the image, as simulated
//! .inputs         digest of all inputs of these files, written last
//! ```

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use ondisk::boot_record::{Entry, Record, Sequence, State, Version};
use ondisk::device::FileDevice;
use ondisk::digest::Digest;
use ondisk::guid::Guid;
use ondisk::key_block;
use ondisk::layout::{PerSlot, Slot};

use super::Plan;
use crate::debian::lock::LockedPackage;
use crate::definitions::Definitions;
use crate::disk_image::{self, Contents, DiskIds, DiskLayout};
use crate::error::{Context, Error, Result};
use crate::host::progress::{Progress, Unit, megabytes};
use crate::host::store::write_atomically;
use crate::image::fat::{FatFile, Volume};
use crate::image::sparse::SparseImage;
use crate::image::{bmap, ext4, zstd};
use crate::manifest_json;
use crate::recipe::{Programs, Trees};
use crate::report::{self, Sizes};
use crate::slot;
use crate::tree::Content;
use crate::videocore::{self, Model};

/// Files whose presence and length make up "nothing changed".
const FILES: [&str; 7] = [
    "disk.img",
    "disk.img.zst",
    "disk.img.bmap",
    "slot.img",
    "manifest.json",
    "report.txt",
    "tree.txt",
];

/// The outputs' directory.
pub struct Outputs {
    directory: PathBuf,
}

/// What a build has to say at its end.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Summary {
    /// Directory of the outputs.
    #[serde(skip)]
    pub directory: PathBuf,
    /// Version of the image.
    pub version: String,
    /// `slot 41 % full (…)`.
    pub slot: String,
    /// Length of the compressed image.
    pub download_bytes: u64,
    /// Id of the key that signed.
    pub key: String,
    /// `development` or `release`.
    pub profile: String,
    /// True if nothing had to be done.
    #[serde(skip)]
    pub unchanged: bool,
}

impl Summary {
    /// The disk image.
    pub fn disk(&self) -> PathBuf {
        self.directory.join("disk.img")
    }
}

/// What `.inputs` holds.
#[derive(Serialize, Deserialize)]
struct Stamp {
    inputs: String,
    summary: Summary,
    /// Length and modification time of each output, so that a file changed by hand is noticed.
    files: BTreeMap<String, (u64, i64, i64)>,
}

/// Everything that goes into the outputs.
pub struct Image<'a> {
    /// The definition.
    pub definitions: &'a Definitions,
    /// Version of the image.
    pub version: &'a str,
    /// What was asked for.
    pub plan: &'a Plan,
    /// Root and initrd.
    pub trees: &'a Trees,
    /// Loader, init, agent.
    pub programs: &'a Programs,
    /// What the boot partition holds besides the loader.
    pub boot_files: &'a [FatFile],
    /// Packages it was made from.
    pub packages: &'a [LockedPackage],
    /// The signed slot.
    pub slot: &'a slot::Slot,
}

impl Outputs {
    /// Outputs in a directory, which need not exist yet.
    pub fn new(directory: &Path) -> Self {
        Self { directory: directory.to_path_buf() }
    }

    /// Where the slot goes.
    pub fn slot(&self) -> PathBuf {
        self.path("slot.img")
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.join(name)
    }

    /// The last build's summary if it had the same inputs and its outputs are untouched.
    pub fn unchanged(&self, inputs: &Digest) -> Option<Summary> {
        let text = fs::read(self.path(".inputs")).ok()?;
        let stamp: Stamp = serde_json::from_slice(&text).ok()?;
        if stamp.inputs != inputs.to_string() || stamp.files != self.fingerprints().ok()? {
            return None;
        }
        Some(Summary { directory: self.directory.clone(), unchanged: true, ..stamp.summary })
    }

    /// Makes the directory and forgets what it was made from, until this build is complete.
    pub fn begin(&self) -> Result<()> {
        let shown = self.directory.display();
        fs::create_dir_all(&self.directory).context(|| format!("cannot make {shown}"))?;
        match fs::remove_file(self.path(".inputs")) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                Err(Error::caused(format!("cannot write in {shown}"), error))
            }
            _ => Ok(()),
        }
    }

    /// Remembers that the outputs were made from these inputs.
    pub fn record_inputs(&self, inputs: &Digest, summary: &Summary) -> Result<()> {
        let stamp = Stamp {
            inputs: inputs.to_string(),
            summary: summary.clone(),
            files: self.fingerprints()?,
        };
        let text = serde_json::to_vec_pretty(&stamp).context(|| "cannot encode .inputs".into())?;
        write_atomically(&self.path(".inputs"), &text)
    }

    fn fingerprints(&self) -> Result<BTreeMap<String, (u64, i64, i64)>> {
        FILES
            .iter()
            .map(|name| {
                let path = self.path(name);
                let metadata =
                    fs::metadata(&path).context(|| format!("cannot read {}", path.display()))?;
                let fingerprint = (metadata.len(), metadata.mtime(), metadata.mtime_nsec());
                Ok(((*name).to_owned(), fingerprint))
            })
            .collect()
    }

    /// Writes everything but the slot, which is there already.
    pub fn write(
        &self,
        image: &Image<'_>,
        download: zstd::Compression,
        progress: &Progress,
    ) -> Result<Summary> {
        let mut trace = String::new();
        let disk = write_disk(&self.path("disk.img"), image, &mut trace)?;
        if !trace.is_empty() {
            self.write_text("firmware.txt", &trace)?;
        }
        bmap::write(&disk, &self.path("disk.img.bmap"))?;
        let task = progress.task("compress", Unit::Bytes, disk.mapped.bytes());
        let download_bytes =
            zstd::compress(&disk, &self.path("disk.img.zst"), download, |bytes| task.add(bytes))?;
        task.finish(format!("compressed disk image to {}", megabytes(download_bytes)));
        let sizes = Sizes {
            slot_bytes: image.definitions.board.layout.slot_bytes,
            parts: image.slot.parts(),
            boot_bytes: image.definitions.board.layout.boot_bytes,
            boot_files: image.boot_files.iter().map(named_length).collect(),
            kernel_unpacked_bytes: image.slot.manifest.kernel_unpacked.length,
            disk_mapped_bytes: disk.mapped.bytes(),
            disk_bytes: disk.length,
            download_bytes,
        };
        let key = image.plan.signer.ids()?;
        let profile = image.plan.profile.to_string();
        let title = format!("{} {} ({profile} key {key})", image.plan.board, image.version);
        self.write_text("report.txt", &report::render(&title, &sizes, &image.trees.root))?;
        self.write_text("tree.txt", &image.trees.root.dump())?;
        self.write_text("manifest.json", &manifest_json::render(image, &key)?)?;
        Ok(Summary {
            directory: self.directory.clone(),
            version: image.version.to_owned(),
            slot: sizes.slot_line(),
            download_bytes,
            key,
            profile,
            unchanged: false,
        })
    }

    fn write_text(&self, name: &str, text: &str) -> Result<()> {
        write_atomically(&self.path(name), text.as_bytes())
    }
}

fn named_length(file: &FatFile) -> (String, u64) {
    (file.path.clone(), file.content.length())
}

/// The whole disk: a loader that trusts the signer's key, a record that says "slot A is proven",
/// the slot, an empty data partition. What the firmware does with it goes to `trace`.
fn write_disk(target: &Path, image: &Image<'_>, trace: &mut String) -> Result<SparseImage> {
    let layout = DiskLayout::plan(&image.definitions.board.layout)?;
    let ids = Identities { board: &image.plan.board, version: image.version };
    let [first, second] = records(image)?;
    let [v0, v1, v2, v3, ..] = ids.bytes("boot volume");
    let mut boot_files = image.boot_files.to_vec();
    boot_files.push(FatFile {
        path: "EFI/BOOT/BOOTAA64.EFI".to_owned(),
        content: Content::bytes(loader_with_key(image)?),
    });
    boot_files.extend(image.plan.config.as_ref().map(|config| FatFile {
        path: ::config::FILE_NAME.to_owned(),
        content: Content::bytes(config.bytes().to_vec()),
    }));
    let contents = Contents {
        boot_volume: Volume { id: u32::from_le_bytes([v0, v1, v2, v3]), label: "IOTA BOOT" },
        boot_files: &boot_files,
        record: [&first, &second],
        slot: &image.slot.image,
        data_identity: ext4::Identity {
            uuid: ids.guid("data file system").to_bytes(),
            hash_seed: ids.guid("data directory hashes").to_bytes(),
            label: "iota-data",
            time: 0,
        },
        data_directories: &[],
    };
    let ids_of_disk = DiskIds {
        signature: ids.signature(),
        disk: ids.guid("disk"),
        boot: ids.guid("boot"),
        record: ids.guid("record"),
        slots: PerSlot { a: ids.guid("slot A"), b: ids.guid("slot B") },
        data: ids.guid("data"),
    };
    disk_image::write(target, &layout, &ids_of_disk, &contents, |disk| {
        *trace = check_firmware(disk, &image.definitions.board.models)?;
        Ok(())
    })
}

/// Reads the image back as the firmware of each model would, and gives what it did.
fn check_firmware(disk: &File, models: &[Model]) -> Result<String> {
    if models.is_empty() {
        return Ok(String::new());
    }
    let what = || "cannot read the image back".to_owned();
    let device = FileDevice::new(disk.try_clone().context(what)?).context(what)?;
    Ok(videocore::check(&device, models)?.into_result()?.text())
}

/// Names of disks and file systems, made from what the image is: same inputs, same names.
struct Identities<'a> {
    board: &'a str,
    version: &'a str,
}

impl Identities<'_> {
    fn bytes(&self, purpose: &str) -> [u8; 32] {
        let text = format!("{purpose}\0{}\0{}", self.board, self.version);
        *Digest::of(text.as_bytes()).as_bytes()
    }

    /// Of a disk with an MBR; 0 would be none.
    fn signature(&self) -> u32 {
        let [b0, b1, b2, b3, ..] = self.bytes("disk signature");
        u32::from_le_bytes([b0, b1, b2, b3]).max(1)
    }

    fn guid(&self, purpose: &str) -> Guid {
        Guid::from_hash(&self.bytes(purpose))
    }
}

/// Both copies of the first record. Slot A counts as proven: there is nothing to fall back to.
fn records(image: &Image<'_>) -> Result<[[u8; 512]; 2]> {
    let manifest = &image.slot.manifest;
    let version = Version::new(&manifest.version)
        .ok_or_else(|| Error::new(format!("`{}` is not a version", manifest.version)))?;
    let slot_a = Entry {
        state: State::Proven,
        priority: 1,
        rollback_index: manifest.rollback_index,
        version: Some(version),
    };
    let slots = PerSlot::from_fn(|slot| match slot {
        Slot::A => slot_a,
        Slot::B => Entry::default(),
    });
    let rollback_floor = manifest.rollback_index;
    let record = |sequence| Record { sequence: Sequence(sequence), rollback_floor, slots };
    Ok([1, 2].map(|sequence| record(sequence).encode()))
}

/// The loader with the build's trust root.
fn loader_with_key(image: &Image<'_>) -> Result<Vec<u8>> {
    let mut program = image.programs.loader.read()?.to_vec();
    key_block::patch(&mut program, image.plan.signer.trust())
        .map_err(|error| Error::new(format!("cannot put keys in the loader: {error}")))?;
    Ok(program)
}
