//! What a disk image, slot or bundle holds, and whether it is whole: the same checks as the
//! device's, on the host, with everything read.

use std::fs::File;
use std::path::{Path, PathBuf};

use ondisk::boot_record::{self, Copies, Record, State};
use ondisk::device::{FileDevice, ReadAt};
use ondisk::keyring::{Keyring, PublicKey};
use ondisk::layout::{self, Extent, PerSlot, SECTOR_BYTES, Slot};
use ondisk::manifest::{Fields, PartName, Unverified};
use ondisk::partition_table::{FindError, PartitionTable};
use ondisk::trust_root::TrustRoot;
use ondisk::verify::Check;
use serde::Serialize;

use crate::error::{Context, Error, Result};
use crate::flash;
use crate::trust_roots::TrustRoots;

mod bundle;

pub use bundle::BundleFindings;

/// Everything that was found.
#[derive(Serialize, Debug)]
#[serde(rename_all = "kebab-case")]
pub struct Findings {
    /// The disk around the slots; absent for a slot image.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub disk: Option<DiskFindings>,
    /// The bundle, if it is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bundle: Option<BundleFindings>,
    /// The slots: two of a disk, one of a slot image, none of a bundle.
    pub slots: Vec<SlotFindings>,
}

/// The disk around the slots.
#[derive(Serialize, Debug)]
#[serde(rename_all = "kebab-case")]
pub struct DiskFindings {
    /// GUID of a disk with a GPT, signature of one with an MBR.
    pub id: String,
    /// Which table was read.
    pub table: String,
    /// Partitions in table order.
    pub partitions: Vec<PartitionFindings>,
    /// Both copies of the record, in words.
    pub record: [String; 2],
    /// False if no copy can be read.
    pub record_whole: bool,
}

/// One partition.
#[derive(Serialize, Debug)]
#[serde(rename_all = "kebab-case")]
pub struct PartitionFindings {
    /// Number from 1.
    pub number: u32,
    /// Name in the table.
    pub name: String,
    /// First byte.
    pub offset: u64,
    /// Length in bytes.
    pub length: u64,
}

/// One slot.
#[derive(Serialize, Debug)]
#[serde(rename_all = "kebab-case")]
pub struct SlotFindings {
    /// `A`, `B`, or `image` for a slot image.
    pub name: String,
    /// What the manifest says, line by line; empty without one.
    pub manifest: Vec<String>,
    /// Ids of the keys that claim to have signed it.
    pub signers: Vec<String>,
    /// Each check in words, with its result.
    pub checks: Vec<CheckFinding>,
    /// True if the slot holds nothing at all.
    pub empty: bool,
}

/// One check.
#[derive(Serialize, Debug)]
#[serde(rename_all = "kebab-case")]
pub struct CheckFinding {
    /// What was checked.
    pub what: String,
    /// Whether it holds; absent if it could not be checked.
    pub good: Option<bool>,
    /// Why not, or what it was checked against.
    pub detail: String,
}

impl Findings {
    /// True if nothing that was checked is wrong.
    pub fn whole(&self) -> bool {
        let slots = self.slots.iter().flat_map(|slot| &slot.checks);
        let bundle = self.bundle.iter().flat_map(|bundle| &bundle.checks);
        slots.chain(bundle).map(|check| check.good).all(|good| good != Some(false))
            && self.disk.as_ref().is_none_or(|disk| disk.record_whole)
    }
}

/// Reads a disk image, a block device, a slot image or a bundle.
///
/// `trust` says whose signatures count; if it is nobody, signatures are shown, not checked.
///
/// Errors: unreadable, neither a disk nor a slot of ours.
pub fn inspect(path: &Path, trust: &TrustRoot) -> Result<Findings> {
    let failed = || format!("cannot read {}", path.display());
    let device = FileDevice::new(File::open(path).context(failed)?).context(failed)?;
    if let Ok(table) = PartitionTable::read(&device, SECTOR_BYTES) {
        return inspect_disk(&device, &table, trust);
    }
    let mut start = [0; flash::MARKER.len()];
    if device.read_at(0, &mut start).is_ok() && flash::is_incomplete(&start) {
        return Err(Error::new(format!("{} says: {}", path.display(), flash::MARKER))
            .hint("flash it again"));
    }
    if let Some(bundle) = bundle::inspect(path, &device, trust)? {
        return Ok(Findings { disk: None, bundle: Some(bundle), slots: Vec::new() });
    }
    let slot = Extent { offset: 0, length: device.size() };
    let findings = inspect_slot(&device, slot, "image", trust)?;
    if findings.manifest.is_empty() {
        return Err(Error::new(format!(
            "{} is neither a disk image nor a slot nor a bundle of Iota",
            path.display()
        ))
        .hint("give it disk.img, slot.img or update.bundle of out/BOARD"));
    }
    Ok(Findings { disk: None, bundle: None, slots: vec![findings] })
}

fn inspect_disk(
    device: &FileDevice,
    table: &PartitionTable,
    trust: &TrustRoot,
) -> Result<Findings> {
    let missing = |error: FindError| Error::new(format!("not a disk of Iota: {error}"));
    let copies = Copies::read(device, table.record().map_err(missing)?);
    let mut slots = Vec::new();
    for slot in Slot::BOTH {
        let partition = table.slot(slot).map_err(missing)?;
        let name = slot.letter().to_uppercase();
        slots.push(inspect_slot(device, partition.extent, &name, trust)?);
    }
    let partitions = table.partitions.iter().map(|partition| PartitionFindings {
        number: partition.number,
        name: partition.name.clone(),
        offset: partition.extent.offset,
        length: partition.extent.length,
    });
    let disk = DiskFindings {
        id: table.disk.to_string(),
        table: table.source.to_string(),
        partitions: partitions.collect(),
        record: [describe_copy(&copies.first), describe_copy(&copies.second)],
        record_whole: copies.newest().is_some(),
    };
    Ok(Findings { disk: Some(disk), bundle: None, slots })
}

fn describe_copy<E: std::fmt::Display>(
    copy: &std::result::Result<Record, boot_record::CopyError<E>>,
) -> String {
    match copy {
        Ok(record) => {
            let slots = describe_slots(&record.slots);
            format!("sequence {}: {slots}", record.sequence.0)
        }
        Err(error) => format!("not readable: {error}"),
    }
}

fn describe_slots(slots: &PerSlot<boot_record::Entry>) -> String {
    let describe = |slot: Slot| {
        let entry = &slots[slot];
        let version = entry.version.as_ref().map_or("", |version| version.as_str());
        let state = match entry.state {
            State::Empty => return format!("{} empty", slot.letter().to_uppercase()),
            State::Unproven { tries } => format!("unproven, {tries} tries left"),
            State::Proven => "proven".to_owned(),
            State::Bad(reason) => format!("bad ({reason})"),
        };
        format!("{} {state}, priority {}, {version}", slot.letter().to_uppercase(), entry.priority)
    };
    Slot::BOTH.map(describe).join("; ")
}

fn inspect_slot(
    device: &FileDevice,
    slot: Extent,
    name: &str,
    trust: &TrustRoot,
) -> Result<SlotFindings> {
    let mut findings = SlotFindings {
        name: name.to_owned(),
        manifest: Vec::new(),
        signers: Vec::new(),
        checks: Vec::new(),
        empty: false,
    };
    let Some(area) = layout::manifest_area_of(slot) else {
        return Ok(findings);
    };
    let length = usize::try_from(area.length).context(|| "cannot read a manifest".into())?;
    let mut bytes = vec![0; length];
    device.read_at(area.offset, &mut bytes).context(|| "cannot read a manifest".into())?;
    let unverified = match Unverified::parse(&bytes) {
        Ok(unverified) => unverified,
        Err(error) => {
            findings.empty = bytes.iter().all(|byte| *byte == 0);
            if !findings.empty {
                findings.check("manifest", Some(false), error.to_string());
            }
            return Ok(findings);
        }
    };
    findings.signers = unverified.signers_unverified().map(|id| id.to_string()).collect();
    let fields = match unverified.fields_unverified() {
        Ok(fields) => fields,
        Err(error) => {
            findings.check("manifest", Some(false), error.to_string());
            return Ok(findings);
        }
    };
    findings.manifest = fields.encode().lines().map(str::to_owned).collect();
    findings.check_signature(unverified, trust, slot.length);
    for part in PartName::ALL {
        let result = check_part(device, slot, &fields, part);
        let detail = result.as_ref().err().cloned().unwrap_or_else(|| "sha256".to_owned());
        findings.check(&part.to_string(), Some(result.is_ok()), detail);
    }
    Ok(findings)
}

impl SlotFindings {
    fn check(&mut self, what: &str, good: Option<bool>, detail: String) {
        self.checks.push(CheckFinding { what: what.to_owned(), good, detail });
    }

    fn check_signature(&mut self, unverified: Unverified<'_>, trust: &TrustRoot, slot_bytes: u64) {
        if trust.release.keys().is_empty() {
            let detail =
                format!("by {}; pass --key or --trust to check it", self.signers.join(", "));
            return self.check("signature", None, detail);
        }
        match unverified.verify(trust, slot_bytes) {
            Ok((_, keys)) => self.check("signature", Some(true), format!("by {keys}")),
            Err(error) => self.check("signature", Some(false), error.to_string()),
        }
    }
}

/// Reads a part to its end; `Err` says in words what is wrong with it.
fn check_part(
    device: &FileDevice,
    slot: Extent,
    fields: &Fields,
    name: PartName,
) -> std::result::Result<(), String> {
    let part = fields.part(name);
    let extent = slot.slice(part.extent).ok_or("does not lie inside the slot")?;
    let mut check = Check::part(part);
    let mut buffer = vec![0; 1 << 20];
    let mut done = 0;
    while done < extent.length {
        let count = usize::try_from(extent.length - done).unwrap_or(usize::MAX).min(buffer.len());
        let piece = &mut buffer[..count];
        device.read_at(extent.offset + done, piece).map_err(|error| error.to_string())?;
        check.update(piece);
        done += piece.len() as u64;
    }
    check.finish().map_err(|error| error.to_string())
}

/// The findings for a person.
pub fn render(findings: &Findings) -> String {
    let mut lines = Vec::new();
    if let Some(disk) = &findings.disk {
        lines.push(format!("disk {}, {}", disk.id, disk.table));
        for partition in &disk.partitions {
            lines.push(format!(
                "  {} {:<8} at {:>10}  {:>10}",
                partition.number,
                partition.name,
                crate::report::mib(partition.offset),
                crate::report::mib(partition.length)
            ));
        }
        for (name, copy) in ["first", "second"].iter().zip(&disk.record) {
            lines.push(format!("  record, {name} copy: {copy}"));
        }
    }
    lines.extend(findings.bundle.iter().flat_map(bundle::render));
    for slot in &findings.slots {
        lines.push(format!("slot {}{}", slot.name, if slot.empty { ": empty" } else { "" }));
        lines.extend(slot.manifest.iter().map(|line| format!("  {line}")));
        lines.extend(slot.checks.iter().map(render_check));
    }
    lines.join("\n")
}

fn render_check(check: &CheckFinding) -> String {
    let word = match check.good {
        Some(true) => "ok",
        Some(false) => "BAD",
        None => "not checked",
    };
    format!("  {:<10} {word}: {}", check.what, check.detail)
}

/// Whom to trust: the newest of a directory of trust roots, else the public halves of `.pub` and
/// `.secret` files, else nobody.
pub fn trust(keys: &[PathBuf], directory: Option<&Path>) -> Result<TrustRoot> {
    if let Some(directory) = directory {
        return Ok(TrustRoots::load(directory)?.newest().clone());
    }
    if keys.is_empty() {
        return Ok(TrustRoot::default());
    }
    keyring(keys).map(TrustRoot::fixed)
}

/// The public halves of `.pub` and `.secret` files.
pub fn keyring(paths: &[PathBuf]) -> Result<Keyring> {
    let mut keys = Vec::new();
    for path in paths {
        let key = PublicKey::from_bytes(&crate::sign::load_public(path)?)
            .map_err(|error| Error::new(format!("{}: {error}", path.display())))?;
        keys.push(key);
    }
    Keyring::new(keys).map_err(|error| Error::new(format!("cannot use these keys: {error}")))
}
