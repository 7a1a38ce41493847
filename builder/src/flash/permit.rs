//! Whether a target may be overwritten: a pure decision over what the kernel says of the disks.
//!
//! What is refused here cannot be overruled, but for a disk that is built in: naming it a second
//! time says that it is meant.

use std::path::{Path, PathBuf};

use ondisk::device::is_disk_name;
use ondisk::layout::SECTOR_BYTES;

use super::facts::{DeviceNumber, Disk, Facts, Place, Seen, disk_size};
use super::refusal::Refusal;

/// What is asked for.
#[derive(Clone, Copy, Debug)]
pub struct Request<'a> {
    /// Where the image shall go.
    pub target: &'a Place,
    /// The device that may be erased though it is built in.
    pub erase: Option<&'a Place>,
    /// Files that are read while the target is written.
    pub sources: &'a [Place],
    /// Length of the image; 0 as long as it is not known.
    pub image_bytes: u64,
}

/// Permission to overwrite a target. Holding one proves that [`may_flash`] found no reason against
/// it: nothing of this machine is on the target, and there is room for the image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Permit {
    path: PathBuf,
    target: Target,
}

/// What may be overwritten.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// A disk, as the kernel knew it.
    Disk(Disk),
    /// A regular file that becomes this long; its contents, if any, are given up.
    File {
        /// New length.
        bytes: u64,
    },
}

impl Permit {
    /// Where the target was found.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// What it is.
    pub fn target(&self) -> &Target {
        &self.target
    }

    /// Length of the target.
    pub fn bytes(&self) -> u64 {
        match &self.target {
            Target::Disk(disk) => disk.bytes,
            Target::File { bytes } => *bytes,
        }
    }

    /// True if whatever is not written reads as zeros: a file that starts empty.
    pub fn reads_zeros(&self) -> bool {
        matches!(self.target, Target::File { .. })
    }
}

/// Decides whether a target may be overwritten.
pub fn may_flash(request: &Request<'_>, facts: &Facts) -> Result<Permit, Refusal> {
    let path = request.target.path.clone();
    let target = match request.target.seen {
        Seen::Directory => return Err(Refusal::Directory(path)),
        Seen::Other => return Err(Refusal::NoBytes(path)),
        Seen::Nothing if is_in_dev(&path) => return Err(no_such_device(path, facts)),
        Seen::Nothing => Target::File { bytes: request.image_bytes },
        Seen::File { .. } if is_in_dev(&path) => return Err(no_such_device(path, facts)),
        Seen::File { bytes, .. } => Target::File { bytes: bytes.max(request.image_bytes) },
        Seen::Device(number) => Target::Disk(disk(request, facts, number)?),
    };
    let same = |source: &&Place| request.target.seen.is_the_same_as(&source.seen);
    match request.sources.iter().find(same) {
        Some(source) => Err(Refusal::Source { path, source: source.path.clone() }),
        None => Ok(Permit { path, target }),
    }
}

impl Seen {
    /// True if bytes written to the one are read from the other.
    fn is_the_same_as(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::File { identity: a, .. }, Self::File { identity: b, .. }) => a == b,
            (Self::Device(a), Self::Device(b)) => a == b,
            _ => false,
        }
    }
}

/// The disks to choose from: what is portable, has a medium and does not run this machine.
pub fn candidates(facts: &Facts) -> impl Iterator<Item = Candidate<'_>> {
    let offered = |disk: &&Disk| disk.is_portable() && is_whole_disk(&disk.node.name);
    facts.disks.iter().filter(offered).filter(|disk| disk.bytes > 0).filter_map(|disk| match facts
        .check_use(disk)
    {
        Ok(()) => Some(Candidate { disk, mounted: Vec::new() }),
        Err(Refusal::Mounted { places, .. }) => Some(Candidate { disk, mounted: places }),
        Err(_) => None,
    })
}

/// A disk that could be a target.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Candidate<'a> {
    /// The disk.
    pub disk: &'a Disk,
    /// Where it is mounted, which has to end first.
    pub mounted: Vec<String>,
}

fn is_in_dev(path: &Path) -> bool {
    path.starts_with("/dev") && !path.starts_with("/dev/shm")
}

/// The nearest name would be that of another disk: all of them are named instead.
fn no_such_device(path: PathBuf, facts: &Facts) -> Refusal {
    let name = |found: Candidate<'_>| {
        let Disk { bytes, model, .. } = found.disk;
        format!("{} ({} {model})", found.disk.path(), disk_size(*bytes)).replace(" )", ")")
    };
    Refusal::NoSuchDevice { path, candidates: candidates(facts).map(name).collect() }
}

/// False for what the kernel makes out of other devices, for drives for discs, and for the small
/// areas beside an eMMC's own.
fn is_whole_disk(name: &str) -> bool {
    let area = name.starts_with("mmcblk") && (name.contains("boot") || name.contains("rpmb"));
    is_disk_name(name) && !area
}

/// Images served as disks: nothing stands below them that this machine could need.
fn is_made_of_a_file(name: &str) -> bool {
    name.starts_with("loop") || name.starts_with("nbd")
}

fn disk(request: &Request<'_>, facts: &Facts, number: DeviceNumber) -> Result<Disk, Refusal> {
    let path = request.target.path.clone();
    let part_of = |disk: &&Disk| disk.partitions.iter().any(|part| part.number == number);
    if let Some(whole) = facts.disks.iter().find(part_of) {
        return Err(Refusal::Partition { path, disk: whole.path() });
    }
    let found = facts.disks.iter().find(|disk| disk.node.number == number);
    let disk = found.ok_or_else(|| no_such_device(path.clone(), facts))?;
    let name = disk.path();
    if !is_whole_disk(&disk.node.name) && !is_made_of_a_file(&disk.node.name) {
        return Err(Refusal::NotAMedium(name));
    }
    facts.check_use(disk)?;
    if disk.bytes == 0 {
        return Err(Refusal::NoMedium(name));
    }
    if disk.read_only {
        return Err(Refusal::ReadOnly(name));
    }
    if disk.sector_bytes != SECTOR_BYTES {
        return Err(Refusal::SectorSize { name, bytes: disk.sector_bytes });
    }
    check_erase(request, disk)?;
    if disk.bytes < request.image_bytes {
        let (has, needs) = (disk.bytes, request.image_bytes);
        return Err(Refusal::TooSmall { name, has, needs });
    }
    Ok(disk.clone())
}

/// A built-in disk has to be named twice; a name that is given says which one is meant in any case.
fn check_erase(request: &Request<'_>, disk: &Disk) -> Result<(), Refusal> {
    match request.erase {
        Some(place) if place.seen == Seen::Device(disk.node.number) => Ok(()),
        Some(place) => Err(Refusal::OtherErased { name: disk.path(), named: place.path.clone() }),
        None if disk.is_portable() => Ok(()),
        None => Err(Refusal::BuiltIn {
            name: disk.path(),
            model: disk.model.clone(),
            bytes: disk.bytes,
        }),
    }
}

impl Facts {
    /// Nothing of this machine may be on the disk, however deep.
    fn check_use(&self, disk: &Disk) -> Result<(), Refusal> {
        let name = disk.path();
        let (numbers, above) = self.standing_on(disk);
        let on_it = |number: &DeviceNumber| numbers.contains(number);
        let mounts = self.mounts.iter();
        let mut places: Vec<String> = mounts
            .filter(|mount| on_it(&mount.device) || mount.source.as_ref().is_some_and(on_it))
            .map(|mount| mount.place.clone())
            .collect();
        if self.swaps.iter().any(on_it) {
            places.push(SWAP.to_owned());
        }
        places.sort();
        places.dedup();
        if places.iter().any(|place| is_of_the_system(place)) {
            return Err(Refusal::System { name, places });
        }
        if !places.is_empty() {
            return Err(Refusal::Mounted { name, places });
        }
        match above {
            Some(by) => Err(Refusal::Held { name, by }),
            None => Ok(()),
        }
    }

    /// The disk's number, those of its partitions, and of whatever was made of them; and the name
    /// of one that was.
    fn standing_on(&self, disk: &Disk) -> (Vec<DeviceNumber>, Option<String>) {
        let (mut found, mut above, mut next) = (vec![disk.node.number], None, 0);
        while let Some(&number) = found.get(next) {
            next += 1;
            let whole = self.disks.iter().filter(|disk| disk.node.number == number);
            let mut more: Vec<DeviceNumber> =
                whole.flat_map(|disk| &disk.partitions).map(|part| part.number).collect();
            for (_, holder) in self.holders.iter().filter(|(below, _)| *below == number) {
                above.get_or_insert_with(|| holder.name.clone());
                more.push(holder.number);
            }
            more.retain(|number| !found.contains(number));
            found.append(&mut more);
        }
        (found, above)
    }
}

/// Stands for a mount point where there is none.
const SWAP: &str = "swap";

fn is_of_the_system(place: &str) -> bool {
    let below = |top: &str| Path::new(place).starts_with(top);
    place == "/" || place == SWAP || below("/boot") || below("/efi") || below("/usr")
}

#[cfg(test)]
mod tests;
