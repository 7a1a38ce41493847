//! Puts an image on a card so that the card is whole or says that it is not.
//!
//! ```text
//! 1  sector 0: a line that says "incomplete" · flush
//! 2  the rest of the old partition tables, at both ends of the card: zeros · flush
//! 3  every mapped piece behind the first MiB, in ascending order · flush
//! 4  all of that is read back from the card and compared
//! 5  the first MiB without sector 0 · flush · sector 0 · flush · read back
//! ```
//!
//! Until the last write of step 5 nothing boots or mounts the card, whatever ends the work: Ctrl-C,
//! a power cut, a card that is pulled out.
//!
//! Reading order: [`facts`] → [`permit`] (whether), with [`refusal`] → [`source`] (what), with
//! [`block_map`] → [`changes`] (what differs from the image), made by [`config`] and [`table`] →
//! [`write`] (how).

pub mod block_map;
pub mod changes;
pub mod config;
pub mod facts;
pub mod permit;
pub mod refusal;
pub mod source;
pub mod table;
pub mod write;

/// What sector 0 of a card holds from the first write to the last. It has no boot signature, so
/// that no firmware starts the card and no system mounts a part of it.
pub const MARKER: &str = "This card is incomplete: iota flash was interrupted.";

/// True if a device starts with the [`MARKER`].
pub fn is_incomplete(first_sector: &[u8]) -> bool {
    first_sector.starts_with(MARKER.as_bytes())
}

/// What is written last: the start of the card, with the partition table.
pub const HEAD_BYTES: u64 = 1 << 20;
