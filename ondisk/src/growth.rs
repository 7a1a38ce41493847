//! How the data partition comes to reach to the end of its disk.
//!
//! An image ends where its content does; the card it is put on goes on. At the first start the
//! last partition takes the rest, in writes after each of which the table can still be read, with
//! all other partitions where they were:
//!
//! - of a GPT the copy at the end of the disk first, where nothing was before, then the one at the
//!   start. While that one is half written, the one at the end counts.
//! - of an MBR one sector, which is written as a whole or not at all. It is the only copy; nothing
//!   else on the disk is written for it.
//!
//! A copy that is found damaged is written anew from the other.
use alloc::vec;
use alloc::vec::Vec;
use core::fmt;

use crate::device::ReadAt;
use crate::gpt;
use crate::layout::Extent;
use crate::mbr;
use crate::partition_table::{self, FindError, Found, PartitionTable};

/// Bytes for one place on the disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Piece {
    /// Where they go, in bytes from the start of the disk.
    pub offset: u64,
    /// The bytes.
    pub bytes: Vec<u8>,
}

/// What is to be written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Growth {
    /// Number of the partition, from 1.
    pub number: u32,
    /// Where it lies now.
    pub before: Extent,
    /// Where it lies afterwards.
    pub after: Extent,
    /// One step after the other, with a flush behind each; within a step the order is free.
    pub steps: Vec<Vec<Piece>>,
}

/// Finds out what has to be written to a disk with logical blocks of `block_bytes`; `None` if its
/// table is as it should be, or if other partitions lie behind the data.
pub fn plan<D: ReadAt>(device: &D, block_bytes: u64) -> Result<Option<Growth>, Error<D::Error>> {
    let found = Found::read(device, block_bytes).map_err(Error::Table)?;
    let table = PartitionTable::from(&found);
    let data = table.data().map_err(Error::NoData)?;
    if table.partitions.iter().any(|other| other.extent.offset > data.extent.offset) {
        return Ok(None);
    }
    let (length, steps) = match &found {
        Found::Mbr(table) => {
            let (length, sector) = mbr::grown(device, table).map_err(Error::Device)?;
            (length, vec![vec![Piece { offset: 0, bytes: sector.to_vec() }]])
        }
        Found::Gpt(table) => {
            let last = table.data().map_err(Error::NoData)?;
            let grown = gpt::growth::grown(device, block_bytes, table, last);
            let grown = grown.map_err(Error::Copy)?;
            (grown.length, vec![grown.backup.to_vec(), grown.primary.to_vec()])
        }
    };
    let steps = missing(device, steps).map_err(Error::Device)?;
    let after = Extent { offset: data.extent.offset, length };
    let growth = Growth { number: data.number, before: data.extent, after, steps };
    Ok((!growth.steps.is_empty()).then_some(growth))
}

/// The pieces that are not on the disk yet: what is there is not touched again.
fn missing<D: ReadAt>(device: &D, steps: Vec<Vec<Piece>>) -> Result<Vec<Vec<Piece>>, D::Error> {
    let mut kept = Vec::new();
    for step in steps {
        let mut pieces = Vec::new();
        for piece in step {
            let mut found = vec![0; piece.bytes.len()];
            device.read_at(piece.offset, &mut found)?;
            if found != piece.bytes {
                pieces.push(piece);
            }
        }
        if !pieces.is_empty() {
            kept.push(pieces);
        }
    }
    Ok(kept)
}

/// Why it cannot be told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Error<E> {
    /// The device failed.
    Device(E),
    /// There is no table of either kind.
    Table(partition_table::Error<E>),
    /// The copy that counts cannot be the model of another.
    Copy(gpt::CopyError<E>),
    /// No data partition.
    NoData(FindError),
}

impl<E: fmt::Display> fmt::Display for Error<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Device(error) => fmt::Display::fmt(error, f),
            Self::Table(error) => fmt::Display::fmt(error, f),
            Self::Copy(error) => fmt::Display::fmt(error, f),
            Self::NoData(error) => fmt::Display::fmt(error, f),
        }
    }
}

impl<E: fmt::Display + fmt::Debug> core::error::Error for Error<E> {}

#[cfg(test)]
mod tests;
