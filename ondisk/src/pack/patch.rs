//! A patch: new bytes as differences to old ones (Percival, "Naive differences of executable code",
//! 2003).
//!
//! ```text
//! 0     4   number of steps
//! 4     …   the steps: add u32, insert u32, seek i32; all numbers are little-endian
//! …     …   the differences of all steps
//! …     …   the insertions of all steps
//! ```
//! A step takes `add` bytes of the old ones at a cursor and adds a difference to each, then takes
//! `insert` bytes as they are, then moves the cursor by `seek`. Where an address in a program has
//! changed, the same difference occurs at each of its uses, which compresses to next to nothing.
use alloc::vec::Vec;

/// Bytes of one step.
const STEP_BYTES: usize = 12;

/// A step of a patch.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Step {
    /// Differences to the next bytes of the old ones.
    pub add: Vec<u8>,
    /// Bytes that follow.
    pub insert: Vec<u8>,
    /// How far the cursor moves then.
    pub seek: i32,
}

/// The bytes of a patch; `None` for more than numbers can hold.
pub fn encode(steps: &[Step]) -> Option<Vec<u8>> {
    let mut bytes = Vec::from(u32::try_from(steps.len()).ok()?.to_le_bytes());
    for Step { add, insert, seek } in steps {
        bytes.extend_from_slice(&u32::try_from(add.len()).ok()?.to_le_bytes());
        bytes.extend_from_slice(&u32::try_from(insert.len()).ok()?.to_le_bytes());
        bytes.extend_from_slice(&seek.to_le_bytes());
    }
    steps.iter().for_each(|step| bytes.extend_from_slice(&step.add));
    steps.iter().for_each(|step| bytes.extend_from_slice(&step.insert));
    Some(bytes)
}

/// Makes exactly `length` new bytes; `None` for a patch that does anything else.
///
/// Never reads outside of `old` and never takes more memory than `length`, whatever the patch.
pub fn apply(patch: &[u8], old: &[u8], length: usize) -> Option<Vec<u8>> {
    let (count, rest) = patch.split_first_chunk()?;
    let count = usize::try_from(u32::from_le_bytes(*count)).ok()?;
    let (steps, rest) = rest.split_at_checked(count.checked_mul(STEP_BYTES)?)?;
    let (steps, _) = steps.as_chunks::<STEP_BYTES>();
    let added = steps.iter().try_fold(0_usize, |sum, step| sum.checked_add(lengths(step)?.0))?;
    let (mut differences, mut insertions) = rest.split_at_checked(added)?;
    let mut new = Vec::with_capacity(length);
    let mut cursor = 0_usize;
    for step in steps {
        let (add, insert) = lengths(step)?;
        let end = cursor.checked_add(add)?;
        let (difference, rest) = differences.split_at_checked(add)?;
        let (inserted, left) = insertions.split_at_checked(insert)?;
        if new.len().checked_add(add)?.checked_add(insert)? > length {
            return None;
        }
        let pairs = old.get(cursor..end)?.iter().zip(difference);
        new.extend(pairs.map(|(old, difference)| old.wrapping_add(*difference)));
        new.extend_from_slice(inserted);
        cursor = end.checked_add_signed(seek(step)?)?;
        (differences, insertions) = (rest, left);
    }
    (new.len() == length && insertions.is_empty()).then_some(new)
}

fn lengths(step: &[u8; STEP_BYTES]) -> Option<(usize, usize)> {
    let (numbers, _) = step.as_chunks::<4>();
    let [add, insert, _] = numbers else { return None };
    let number = |bytes: &[u8; 4]| usize::try_from(u32::from_le_bytes(*bytes)).ok();
    Some((number(add)?, number(insert)?))
}

fn seek(step: &[u8; STEP_BYTES]) -> Option<isize> {
    isize::try_from(i32::from_le_bytes(*step.last_chunk()?)).ok()
}
