//! Writes an image into a slot and leaves alone what is already right.
//!
//! What is there is read and compared for as long as that finds equal groups, which is so after an
//! interrupted installation and for the parts that two versions share. Where it does not, only
//! one group in [`PROBE_EVERY`] is read, so that a new system costs little more than its writes.
use ondisk::device::WriteAt;
use ondisk::layout::Extent;

use super::Cause;

/// Bytes of neighbouring groups that are written at once.
const BATCH_BYTES: usize = 1024 * 1024;
/// After so many groups that differ, fewer are compared.
const PATIENCE: u32 = 32;
/// Then it is one in so many.
const PROBE_EVERY: u32 = 16;

/// A slot that is being written from its start on.
pub(super) struct Writer<'a, D> {
    disk: &'a mut D,
    slot: Extent,
    /// Bytes from the start of the slot that were put here.
    done: u64,
    kept: u64,
    /// The last ones among them, which still have to be written.
    batch: Vec<u8>,
    found: Vec<u8>,
    /// Groups since the last one that was right.
    misses: u32,
}

impl<'a, D: WriteAt> Writer<'a, D> {
    /// Starts at the first byte of the slot.
    pub(super) fn new(disk: &'a mut D, slot: Extent) -> Self {
        let batch = Vec::with_capacity(BATCH_BYTES);
        Self { disk, slot, done: 0, kept: 0, batch, found: Vec::new(), misses: 0 }
    }

    /// Bytes that were put here.
    pub(super) fn done(&self) -> u64 {
        self.done
    }

    /// Those among them that were already right.
    pub(super) fn kept(&self) -> u64 {
        self.kept
    }

    /// Takes the next bytes of the slot.
    pub(super) fn put(&mut self, bytes: &[u8]) -> Result<(), Cause<D::Error>> {
        // OK to saturate: a group is short.
        let length = u64::try_from(bytes.len()).unwrap_or(u64::MAX);
        if self.is_there(bytes) {
            self.write_batch()?;
            self.kept += length;
            self.misses = 0;
        } else {
            if self.batch.len() + bytes.len() > BATCH_BYTES {
                self.write_batch()?;
            }
            self.batch.extend_from_slice(bytes);
            self.misses = self.misses.saturating_add(1);
        }
        self.done += length;
        Ok(())
    }

    /// Writes what is left and flushes; returns how many bytes were already right.
    pub(super) fn finish(mut self) -> Result<u64, Cause<D::Error>> {
        self.write_batch()?;
        self.disk.flush().map_err(|error| Cause::Write { what: "image", error })?;
        Ok(self.kept)
    }

    /// A place that cannot be read is written: that may well mend it.
    fn is_there(&mut self, bytes: &[u8]) -> bool {
        if self.misses > PATIENCE && !self.misses.is_multiple_of(PROBE_EVERY) {
            return false;
        }
        self.found.resize(bytes.len(), 0);
        let read = self.disk.read_at(self.slot.offset + self.done, &mut self.found);
        read.is_ok() && self.found == bytes
    }

    /// Writes the batch, which ends at `done`.
    fn write_batch(&mut self) -> Result<(), Cause<D::Error>> {
        if self.batch.is_empty() {
            return Ok(());
        }
        // OK to saturate: a batch is short.
        let length = u64::try_from(self.batch.len()).unwrap_or(u64::MAX);
        let offset = self.slot.offset + self.done - length;
        let written = self.disk.write_at(offset, &self.batch);
        self.batch.clear();
        written.map_err(|error| Cause::Write { what: "image", error })
    }
}
