//! Writes an image into a slot and leaves alone what is already right.
//!
//! What is there is read and compared for as long as that finds equal groups, which is so after an
//! interrupted installation and for the parts that two versions share. Where it does not, only
//! one group in [`PROBE_EVERY`] is read, so that a new system costs little more than its writes.
use ondisk::device::WriteAt;
use ondisk::layout::{BLOCK_BYTES, Extent};

use super::read_back::{Sum, Written};
use super::{Cause, bytes_in_memory};

/// Bytes of neighbouring groups that are written at once.
const BATCH_BYTES: usize = 2 * 1024 * 1024;
/// After so many groups that differ, fewer are compared.
const PATIENCE: u32 = 8;
/// Then it is one in so many.
const PROBE_EVERY: u32 = 64;

/// A slot that is being written from its start on.
pub(super) struct Writer<'a, D> {
    disk: &'a mut D,
    slot: Extent,
    /// Bytes from the start of the slot that were put here.
    done: u64,
    written: Written,
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
        let written = Written::default();
        Self { disk, slot, done: 0, written, batch, found: Vec::new(), misses: 0 }
    }

    /// What the slot is a part of. The last groups may not be there yet.
    pub(super) fn disk(&self) -> &D {
        self.disk
    }

    /// Bytes that were put here.
    pub(super) fn done(&self) -> u64 {
        self.done
    }

    /// Those among them that were already right.
    pub(super) fn kept(&self) -> u64 {
        self.written.kept_bytes
    }

    /// Takes the next bytes of the slot.
    pub(super) fn put(&mut self, bytes: &[u8]) -> Result<(), Cause<D::Error>> {
        // OK to saturate: a group is short.
        let length = u64::try_from(bytes.len()).unwrap_or(u64::MAX);
        if self.is_there(bytes) {
            self.write_batch()?;
            self.written.kept_bytes += length;
            self.misses = 0;
        } else {
            if self.batch.len() + bytes.len() > BATCH_BYTES {
                self.write_batch()?;
            }
            self.batch.extend_from_slice(bytes);
            self.misses = self.misses.saturating_add(1);
        }
        self.done += length;
        self.written.groups.push(Sum::of(bytes));
        Ok(())
    }

    /// Writes what is left and flushes.
    pub(super) fn finish(mut self) -> Result<Written, Cause<D::Error>> {
        self.write_batch()?;
        self.disk.flush().map_err(|error| Cause::Write { what: "image", error })?;
        Ok(self.written)
    }

    /// A place that cannot be read is written: that may well mend it. Groups that differ mostly do
    /// so from their first block on, and one block is read sooner than all of them.
    fn is_there(&mut self, bytes: &[u8]) -> bool {
        if self.misses > PATIENCE && !self.misses.is_multiple_of(PROBE_EVERY) {
            return false;
        }
        let block = bytes.len().min(bytes_in_memory(BLOCK_BYTES));
        let offset = self.slot.offset + self.done;
        self.is_at(offset, &bytes[..block]) && self.is_at(offset, bytes)
    }

    fn is_at(&mut self, offset: u64, bytes: &[u8]) -> bool {
        self.found.resize(bytes.len(), 0);
        self.disk.read_at(offset, &mut self.found).is_ok() && self.found == bytes
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
