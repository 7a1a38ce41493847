//! What the boot programs do not care about and our own loader does: nothing lies over its record.

use super::{MIB, Run};
use crate::videocore::card::{PROTECTIVE, Partition};
use crate::videocore::report::{Problem, Stage};

/// Where no partition may be: the two copies of the boot record and what a card may lose with
/// them.
const RECORD: std::ops::Range<u64> = 4 * MIB..12 * MIB;

impl Run<'_> {
    /// Not a step of a boot program, so it ends nothing.
    pub(super) fn check_record(&mut self) {
        let mend = "start the first partition at 16 MiB";
        let mut sorted: Vec<&Partition> = self.card.partitions.iter().collect();
        sorted.sort_by_key(|partition| partition.start);
        for one in &sorted {
            if one.start < RECORD.end && one.end > RECORD.start && one.kind != PROTECTIVE {
                let what = format!("partition {} lies over the boot record", one.number);
                let why = "the record's two copies at 4 and 8 MiB destroy it, and it them";
                self.problems.push(Problem::new(Stage::Loader, what, why, mend));
            }
        }
        for pair in sorted.windows(2) {
            if let [first, second] = pair
                && first.end > second.start
            {
                let what = format!("partitions {} and {} overlap", first.number, second.number);
                self.problems.push(Problem::new(
                    Stage::Loader,
                    what,
                    "each destroys the other",
                    "let the builder lay out the disk",
                ));
            }
        }
        for one in sorted.iter().filter(|one| one.end > self.card.bytes) {
            let what = format!("partition {} ends behind the image", one.number);
            let mend = "let the builder lay out the disk";
            self.problems.push(Problem::new(Stage::Loader, what, "it is not whole", mend));
        }
    }
}
