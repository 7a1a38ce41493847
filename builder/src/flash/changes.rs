//! What a card shall hold that its image does not: a few blocks on top of the image, which itself
//! stays as it is.
//!
//! Guarantees: reading gives the changed blocks where there are some, the image elsewhere, and
//! zeros behind the image's end, as if the card were a file that the image was copied into.

use std::collections::BTreeMap;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::ops::Range;

use ondisk::device::ReadAt;

use crate::image::sparse::{BLOCK, Ranges};

const BLOCK_BYTES: usize = BLOCK as usize;

/// Changed blocks, by their number on the card.
#[derive(Clone, Debug, Default)]
pub struct Changes(BTreeMap<u64, Box<[u8; BLOCK_BYTES]>>);

impl Changes {
    /// The bytes of changed blocks on a card of that length.
    pub fn ranges(&self, card_bytes: u64) -> Ranges {
        let blocks = self.0.keys().map(|block| block * BLOCK);
        blocks.map(|start| start..(start + BLOCK).min(card_bytes)).collect()
    }

    /// True if a byte of the range may differ from the image.
    pub fn touch(&self, range: &Range<u64>) -> bool {
        self.0.range(range.start / BLOCK..range.end.div_ceil(BLOCK)).next().is_some()
    }

    /// Puts the changes into bytes of the image that start at `offset`.
    pub fn apply(&self, offset: u64, bytes: &mut [u8]) {
        let end = offset + bytes.len() as u64;
        for (number, block) in self.0.range(offset / BLOCK..end.div_ceil(BLOCK)) {
            let start = number * BLOCK;
            let (from, to) = (start.max(offset), (start + BLOCK).min(end));
            bytes[index(from - offset)..index(to - offset)]
                .copy_from_slice(&block[index(from - start)..index(to - start)]);
        }
    }
}

/// A card with an image and changes on it, to be read and written in memory.
#[derive(Debug)]
pub struct Overlay<'a, D> {
    image: &'a D,
    card_bytes: u64,
    changes: Changes,
}

impl<'a, D: ReadAt<Error = io::Error>> Overlay<'a, D> {
    /// The image on a card of that length, which is at least the image's.
    pub fn new(image: &'a D, card_bytes: u64) -> Self {
        Self { image, card_bytes, changes: Changes::default() }
    }

    /// What was written.
    pub fn into_changes(self) -> Changes {
        self.changes
    }

    /// A part of the card as a file of its own.
    pub fn window(&mut self, range: Range<u64>) -> Window<'_, 'a, D> {
        let end = range.end.min(self.card_bytes);
        Window { overlay: self, range: range.start.min(end)..end, position: 0 }
    }

    fn read_image(&self, offset: u64, bytes: &mut [u8]) -> io::Result<()> {
        let present = self.image.size().saturating_sub(offset).min(bytes.len() as u64);
        let (inside, beyond) = bytes.split_at_mut(index(present));
        beyond.fill(0);
        if inside.is_empty() { Ok(()) } else { self.image.read_at(offset, inside) }
    }

    fn write_at(&mut self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let end = offset + bytes.len() as u64;
        for number in offset / BLOCK..end.div_ceil(BLOCK) {
            let start = number * BLOCK;
            if !self.changes.0.contains_key(&number) {
                let mut block = Box::new([0; BLOCK_BYTES]);
                self.read_image(start, block.as_mut_slice())?;
                self.changes.0.insert(number, block);
            }
            let (from, to) = (start.max(offset), (start + BLOCK).min(end));
            if let Some(block) = self.changes.0.get_mut(&number) {
                block[index(from - start)..index(to - start)]
                    .copy_from_slice(&bytes[index(from - offset)..index(to - offset)]);
            }
        }
        Ok(())
    }
}

impl<D: ReadAt<Error = io::Error>> ReadAt for Overlay<'_, D> {
    type Error = io::Error;

    fn size(&self) -> u64 {
        self.card_bytes
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        let end = offset.checked_add(buffer.len() as u64);
        if end.is_none_or(|end| end > self.card_bytes) {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.read_image(offset, buffer)?;
        self.changes.apply(offset, buffer);
        Ok(())
    }
}

/// A part of an [`Overlay`], for writers that want `Read + Write + Seek`.
#[derive(Debug)]
pub struct Window<'a, 'b, D> {
    overlay: &'a mut Overlay<'b, D>,
    range: Range<u64>,
    position: u64,
}

impl<D> Window<'_, '_, D> {
    fn length(&self) -> u64 {
        self.range.end - self.range.start
    }

    fn room(&self, wanted: usize) -> usize {
        let left = self.length().saturating_sub(self.position);
        usize::try_from(left).map_or(wanted, |left| left.min(wanted))
    }
}

impl<D: ReadAt<Error = io::Error>> Read for Window<'_, '_, D> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let room = self.room(buffer.len());
        self.overlay.read_at(self.range.start + self.position, &mut buffer[..room])?;
        self.position += room as u64;
        Ok(room)
    }
}

impl<D: ReadAt<Error = io::Error>> Write for Window<'_, '_, D> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let room = self.room(bytes.len());
        self.overlay.write_at(self.range.start + self.position, &bytes[..room])?;
        self.position += room as u64;
        Ok(room)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<D> Seek for Window<'_, '_, D> {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        let position = match to {
            SeekFrom::Start(offset) => Some(offset),
            SeekFrom::Current(distance) => self.position.checked_add_signed(distance),
            SeekFrom::End(distance) => self.length().checked_add_signed(distance),
        };
        self.position = position.ok_or(io::ErrorKind::InvalidInput)?;
        Ok(self.position)
    }
}

/// A distance within a buffer, which fits into memory.
fn index(distance: u64) -> usize {
    usize::try_from(distance).unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Image(Vec<u8>);

    impl ReadAt for Image {
        type Error = io::Error;
        fn size(&self) -> u64 {
            self.0.len() as u64
        }
        fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
            self.0.read_at(offset, buffer).map_err(io::Error::other)
        }
    }

    #[test]
    fn a_change_is_seen_through_every_window_and_the_image_stays() {
        let image = Image(vec![1; 3 * BLOCK_BYTES]);
        let mut overlay = Overlay::new(&image, 5 * BLOCK);
        let mut window = overlay.window(BLOCK - 2..4 * BLOCK + 2);
        window.write_all(&[2; 4]).unwrap();
        window.seek(SeekFrom::End(-4)).unwrap();
        window.write_all(&[3; 4]).unwrap();
        assert_eq!(window.write(b"full").unwrap(), 0);

        let mut all = vec![9; 5 * BLOCK_BYTES];
        overlay.read_at(0, &mut all).unwrap();
        let mut expected = [vec![1; 3 * BLOCK_BYTES], vec![0; 2 * BLOCK_BYTES]].concat();
        expected[BLOCK_BYTES - 2..BLOCK_BYTES + 2].fill(2);
        expected[4 * BLOCK_BYTES - 2..4 * BLOCK_BYTES + 2].fill(3);
        assert!(all == expected);
        assert!(overlay.read_at(1, &mut all).is_err());
        assert!(image.0.iter().all(|byte| *byte == 1));
    }

    #[test]
    fn changes_are_whole_blocks_cut_at_the_end_of_the_card() {
        let image = Image(vec![1; 100]);
        let mut overlay = Overlay::new(&image, 2 * BLOCK + 512);
        overlay.write_at(2 * BLOCK + 10, b"end").unwrap();
        overlay.write_at(7, b"start").unwrap();
        let changes = overlay.into_changes();
        let ranges: Vec<_> = changes.ranges(2 * BLOCK + 512).iter().collect();
        assert_eq!(ranges, [0..BLOCK, 2 * BLOCK..2 * BLOCK + 512]);
        assert!(changes.touch(&(BLOCK - 1..BLOCK)) && !changes.touch(&(BLOCK..2 * BLOCK)));
        let mut bytes = [0; 6];
        changes.apply(4, &mut bytes);
        assert_eq!(&bytes, &[1, 1, 1, b's', b't', b'a']);
    }
}
