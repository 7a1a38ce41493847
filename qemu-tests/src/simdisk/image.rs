//! The contents of a simulated disk: cheap to copy, cheap to compare.
//!
//! ```text
//! Image ─► [Rc<Chunk>]  512 sectors each, shared until written
//!            └► [u32]   number of a sector's contents in the Store, which holds each contents once
//! ```
//! Two images with equal [`Image::print`] hold the same bytes (as far as 64 bits can tell), which
//! is what lets the simulator work out each state once.
use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;

/// Smallest piece that a disk writes whole.
pub const SECTOR: usize = 512;
/// Number of sectors that are shared together.
const CHUNK: usize = 512;

/// Contents of a sector, by number in its [`Store`].
pub type Id = u32;

/// Every contents that any sector of any image has had, each once.
#[derive(Default)]
pub struct Store {
    sectors: RefCell<Vec<[u8; SECTOR]>>,
    numbers: RefCell<HashMap<[u8; SECTOR], Id>>,
}

impl Store {
    /// The number of these contents.
    pub fn id(&self, contents: &[u8; SECTOR]) -> Id {
        if let Some(id) = self.numbers.borrow().get(contents) {
            return *id;
        }
        let mut sectors = self.sectors.borrow_mut();
        let id = Id::try_from(sectors.len()).expect("fewer than 2^32 different sectors");
        sectors.push(*contents);
        self.numbers.borrow_mut().insert(*contents, id);
        id
    }

    /// The contents with this number.
    pub fn contents(&self, id: Id) -> [u8; SECTOR] {
        self.sectors.borrow()[index(id)]
    }
}

/// Some neighbouring sectors, and a sum over them that changes when one of them does.
#[derive(Clone)]
struct Chunk {
    ids: [Id; CHUNK],
    print: u64,
}

/// A whole disk. A copy shares everything until one of the two is written.
#[derive(Clone)]
pub struct Image {
    chunks: Vec<Rc<Chunk>>,
}

impl Image {
    /// A disk of `sectors` sectors (a multiple of 512), all with the same contents.
    pub fn filled(sectors: usize, id: Id) -> Self {
        assert!(sectors.is_multiple_of(CHUNK), "{sectors} sectors");
        let mut chunk = Chunk { ids: [id; CHUNK], print: 0 };
        chunk.print = (0..CHUNK).fold(0, |sum, at| sum.wrapping_add(mark(at, id)));
        let chunk = Rc::new(chunk);
        Self { chunks: (0..sectors / CHUNK).map(|_| Rc::clone(&chunk)).collect() }
    }

    /// Number of sectors.
    pub fn sectors(&self) -> usize {
        self.chunks.len() * CHUNK
    }

    /// What a sector holds.
    pub fn get(&self, sector: usize) -> Id {
        self.chunks[sector / CHUNK].ids[sector % CHUNK]
    }

    /// Changes a sector.
    pub fn set(&mut self, sector: usize, id: Id) {
        let (chunk, at) = (&mut self.chunks[sector / CHUNK], sector % CHUNK);
        let old = chunk.ids[at];
        if old != id {
            let chunk = Rc::make_mut(chunk);
            chunk.ids[at] = id;
            chunk.print = chunk.print.wrapping_sub(mark(at, old)).wrapping_add(mark(at, id));
        }
    }

    /// Fills some sectors; whole chunks are shared.
    pub fn fill(&mut self, sectors: std::ops::Range<usize>, id: Id) {
        let mut at = sectors.start;
        let mut whole = None;
        while at < sectors.end {
            if at.is_multiple_of(CHUNK) && at + CHUNK <= sectors.end {
                let chunk = whole.get_or_insert_with(|| Self::filled(CHUNK, id).chunks.remove(0));
                self.chunks[at / CHUNK] = Rc::clone(chunk);
                at += CHUNK;
            } else {
                self.set(at, id);
                at += 1;
            }
        }
    }

    /// A number that tells this image from others.
    pub fn print(&self) -> u64 {
        let fold = |sum: u64, (at, chunk): (usize, &Rc<Chunk>)| {
            sum.wrapping_add(scramble(chunk.print ^ scramble(wide(at))))
        };
        self.chunks.iter().enumerate().fold(0, fold)
    }

    /// The same for some of its sectors.
    pub fn print_of(&self, sectors: std::ops::Range<usize>) -> u64 {
        sectors.fold(0, |sum: u64, at| sum.wrapping_add(mark(at, self.get(at))))
    }
}

fn mark(at: usize, id: Id) -> u64 {
    scramble((wide(at) << 32) ^ u64::from(id))
}

/// A mixing function: equal inputs give equal outputs, neighbours give strangers (the finalizer
/// of splitmix64, Steele et al. 2014).
pub fn scramble(value: u64) -> u64 {
    let value = value.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let value = (value ^ (value >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    value ^ (value >> 31)
}

fn wide(number: usize) -> u64 {
    u64::try_from(number).expect("64 bits at most")
}

fn index(id: Id) -> usize {
    usize::try_from(id).expect("32 bits at least")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_contents_have_equal_prints_however_they_came_about() {
        let store = Store::default();
        let (zero, one) = (store.id(&[0; SECTOR]), store.id(&[1; SECTOR]));
        assert_ne!(zero, one);
        assert_eq!(store.id(&[1; SECTOR]), one);
        let base = Image::filled(2 * CHUNK, zero);
        let mut changed = base.clone();
        changed.set(600, one);
        assert_ne!(changed.print(), base.print());
        assert_eq!(base.get(600), zero, "a copy does not change with the original");
        let mut moved = base.clone();
        moved.set(600 - CHUNK, one);
        assert_ne!(changed.print(), moved.print());
        changed.set(600, zero);
        assert_eq!(changed.print(), base.print());
    }

    #[test]
    fn filling_whole_chunks_is_the_same_as_setting_every_sector() {
        let store = Store::default();
        let (zero, one) = (store.id(&[0; SECTOR]), store.id(&[1; SECTOR]));
        let mut filled = Image::filled(3 * CHUNK, zero);
        let mut set = filled.clone();
        filled.fill(100..2 * CHUNK + 7, one);
        (100..2 * CHUNK + 7).for_each(|sector| set.set(sector, one));
        assert_eq!(filled.print(), set.print());
    }
}
