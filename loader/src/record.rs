//! The boot record as the loader holds it: what counts, and whether changes reach the disk.
use ondisk::boot_record::{self, Copies, Copy, CopyError, Record};
use ondisk::device::WriteAt;
use ondisk::layout::Extent;

/// The record of the disk we booted from.
pub(crate) struct Store<E> {
    copies: Copies<E>,
    /// `None` if the disk has no record partition.
    partition: Option<Extent>,
}

impl<E> Store<E> {
    /// Reads both copies from the record partition, if there is one.
    pub(crate) fn read<D: WriteAt<Error = E>>(disk: &D, partition: Option<Extent>) -> Self {
        let copies = match partition {
            Some(partition) => Copies::read(disk, partition),
            None => Copies { first: Err(CopyError::Outside), second: Err(CopyError::Outside) },
        };
        Self { copies, partition }
    }

    /// The record that counts, if any copy is whole.
    pub(crate) fn newest(&self) -> Option<&Record> {
        self.copies.newest()
    }

    /// What is wrong with the copies.
    pub(crate) fn damage(&self) -> impl Iterator<Item = (Copy, &CopyError<E>)> {
        let first = self.copies.first.as_ref().err().map(|error| (Copy::First, error));
        let second = self.copies.second.as_ref().err().map(|error| (Copy::Second, error));
        first.into_iter().chain(second)
    }

    /// Replaces the older copy. After an error what lies there is unknown, and it is the one to
    /// write next; the newer one has not been touched.
    pub(crate) fn write<D>(&mut self, disk: &mut D, record: &Record) -> Result<(), CopyError<E>>
    where
        D: WriteAt<Error = E>,
    {
        let partition = self.partition.ok_or(CopyError::Outside)?;
        let copy = self.copies.older();
        let written = boot_record::write(disk, partition, copy, record);
        let place = match copy {
            Copy::First => &mut self.copies.first,
            Copy::Second => &mut self.copies.second,
        };
        *place = match &written {
            Ok(()) => Ok(*record),
            Err(_) => Err(CopyError::NotKept),
        };
        written
    }
}
