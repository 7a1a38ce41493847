//! What a device has already: groups of the new image that are right in its slot, and groups of the
//! running system that the new one shares.

use std::collections::{HashMap, HashSet};

use ondisk::bundle::cut::Cutter;
use ondisk::bundle::{self, Group};
use ondisk::device::ReadAt;
use ondisk::digest::Digest;
use ondisk::layout::{self, BLOCK_BYTES, Extent};
use ondisk::manifest::Unverified;

/// Where the bytes of a group are on this device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Found {
    /// In the slot, in their place.
    InPlace,
    /// On the disk, at this byte.
    At(u64),
    /// Nowhere.
    Nowhere,
}

/// Identity of the system in a slot: the hash of its slot manifest, as it came in its bundle. What
/// is there was verified by whoever started it, or is not used for more than finding bytes.
pub fn release<D: ReadAt>(disk: &D, slot: Extent) -> Option<Digest> {
    let area = manifest_area(disk, slot)?;
    let exact = Unverified::parse(&area).ok()?.exact().ok()?;
    Some(Digest::of(&exact))
}

/// Rollback index of the system in a slot, as its manifest has it, whoever signed that.
pub fn rollback_index<D: ReadAt>(disk: &D, slot: Extent) -> Option<u64> {
    let area = manifest_area(disk, slot)?;
    Some(Unverified::parse(&area).ok()?.fields_unverified().ok()?.rollback_index)
}

fn manifest_area<D: ReadAt>(disk: &D, slot: Extent) -> Option<Vec<u8>> {
    let area = layout::manifest_area_of(slot)?;
    let mut bytes = vec![0; usize::try_from(area.length).ok()?];
    disk.read_at(area.offset, &mut bytes).ok()?;
    Some(bytes)
}

/// Marks the groups that are right in the slot already.
pub fn in_place<D: ReadAt>(disk: &D, slot: Extent, groups: &[Group]) -> Vec<Found> {
    let mut offset = slot.offset;
    let mut bytes = Vec::new();
    let found = |group: &Group| {
        // OK to convert: 256 KiB at most.
        bytes.resize(usize::try_from(group.bytes()).unwrap_or_default(), 0);
        let read = disk.read_at(offset, &mut bytes);
        offset += group.bytes();
        if read.is_ok() && Digest::of(&bytes) == group.sha256 {
            Found::InPlace
        } else {
            Found::Nowhere
        }
    };
    groups.iter().map(found).collect()
}

/// Looks for what is missing in the system of another slot.
pub fn find_in<D: ReadAt>(disk: &D, slot: Extent, groups: &[Group], found: &mut [Found]) {
    let Some(image_bytes) = image_bytes(disk, slot) else { return };
    let wanted: HashSet<Digest> = groups
        .iter()
        .zip(&*found)
        .filter(|(_, found)| **found == Found::Nowhere)
        .map(|(group, _)| group.sha256)
        .collect();
    let mut places = HashMap::new();
    let mut start = slot.offset;
    let mut note = |group: Group| {
        if wanted.contains(&group.sha256) {
            places.insert(group.sha256, start);
        }
        start += group.bytes();
    };
    let mut cutter = Cutter::default();
    let mut piece = vec![0; 1 << 20];
    let mut done = 0;
    while done < image_bytes {
        let length = (image_bytes - done).min(1 << 20);
        let bytes = &mut piece[..usize::try_from(length).unwrap_or_default()];
        if disk.read_at(slot.offset + done, bytes).is_err() {
            break;
        }
        // OK to convert: 4096.
        bytes
            .chunks(BLOCK_BYTES as usize)
            .filter_map(|block| cutter.put(block))
            .for_each(&mut note);
        done += length;
    }
    cutter.finish().into_iter().for_each(&mut note);
    for (found, group) in found.iter_mut().zip(groups) {
        if let (Found::Nowhere, Some(place)) = (*found, places.get(&group.sha256)) {
            *found = Found::At(*place);
        }
    }
}

/// Size of the image in a slot, within it.
fn image_bytes<D: ReadAt>(disk: &D, slot: Extent) -> Option<u64> {
    let area = manifest_area(disk, slot)?;
    let fields = Unverified::parse(&area).ok()?.fields_unverified().ok()?;
    let manifest = ondisk::manifest::Manifest::new(fields, slot.length).ok()?;
    bundle::image_bytes(&manifest)
}
