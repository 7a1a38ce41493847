//! A disk in memory that remembers what was done to it, and fails when it is told to.
//!
//! [`SimDisk`] is the device that the real code of loader and agent runs on: it keeps a log of
//! writes and flushes ([`Op`]), from which [`crate::sim::crash`] makes every state that a power cut
//! could have left. It can refuse to read or write ([`Trouble`]), and it can change what it is told
//! ([`Mutation`]), which is how bugs are planted.
use std::cell::{Ref, RefCell};
use std::fmt;
use std::rc::Rc;

use ondisk::device::{ReadAt, WriteAt};

mod image;

pub use image::{Id, Image, SECTOR, Store, scramble};

/// One thing that was done to a disk, or that happened while it was done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Op<M> {
    /// Sectors were written, in one request.
    Write {
        /// The first one.
        sector: usize,
        /// What each of them holds from now on.
        ids: Vec<Id>,
    },
    /// Everything written before is on the medium, if the disk tells the truth.
    Flush,
    /// Not a change of the disk: what whoever uses it had reached by then.
    Mark(M),
}

/// Why a request failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failure {
    /// The medium did not answer.
    Io,
    /// There is no room.
    NoSpace,
    /// The disk has turned itself read-only.
    ReadOnly,
    /// The request goes beyond the end.
    BeyondEnd,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Io => "input/output error",
            Self::NoSpace => "no space left on device",
            Self::ReadOnly => "read-only device",
            Self::BeyondEnd => "beyond the end of the device",
        })
    }
}

/// When requests fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Trouble {
    /// Counted from 0 over the requests of this kind.
    pub from: usize,
    /// Which requests.
    pub on: Request,
    /// How.
    pub failure: Failure,
    /// Only this one request, or it and every later one.
    pub lasts: bool,
    /// How many sectors of a write that fails reach the medium all the same.
    pub sectors_kept: usize,
}

/// The kinds of requests that can fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Request {
    /// Reading.
    Read,
    /// Writing.
    Write,
    /// Flushing.
    Flush,
}

/// Changes requests on their way to the disk. See `docs/decisions/planted-bugs.md`.
///
/// Whoever made a request does not notice: until the next [`SimDisk::switch_on`], reads return
/// what would be there if nothing had been changed. A bug is not found by its own code.
pub trait Mutation<M> {
    /// What is done instead of `op`. Marks pass through too: a write that moves behind one was
    /// made too late.
    fn change(&mut self, disk: &View<'_>, op: Op<M>) -> Vec<Op<M>>;

    /// What is read instead of `bytes`, which the disk holds at `offset`.
    fn read(&mut self, offset: u64, bytes: &mut [u8]) {
        let _ = (offset, bytes);
    }
}

/// The contents of a disk, for a [`Mutation`] to look at.
pub struct View<'a> {
    store: &'a Store,
    image: &'a Image,
}

impl View<'_> {
    /// What a sector holds.
    pub fn sector(&self, sector: usize) -> [u8; SECTOR] {
        self.store.contents(self.image.get(sector))
    }

    /// What a number stands for.
    pub fn contents(&self, id: Id) -> [u8; SECTOR] {
        self.store.contents(id)
    }

    /// The number of some contents.
    pub fn id(&self, contents: &[u8; SECTOR]) -> Id {
        self.store.id(contents)
    }
}

/// A disk that several users share; a copy is the same disk.
pub struct SimDisk<M> {
    inner: Rc<RefCell<Inner<M>>>,
}

struct Inner<M> {
    store: Rc<Store>,
    image: Image,
    /// What the disk would hold without the mutation, while there is one.
    believed: Option<Image>,
    log: Vec<Op<M>>,
    trouble: Option<Trouble>,
    mutation: Option<Box<dyn Mutation<M>>>,
    reads: usize,
    writes: usize,
    flushes: usize,
}

impl<M> Clone for SimDisk<M> {
    fn clone(&self) -> Self {
        Self { inner: Rc::clone(&self.inner) }
    }
}

impl<M: Clone> SimDisk<M> {
    /// A disk that holds this and has an empty log.
    pub fn new(store: &Rc<Store>, image: Image) -> Self {
        let inner = Inner {
            store: Rc::clone(store),
            image,
            believed: None,
            log: Vec::new(),
            trouble: None,
            mutation: None,
            reads: 0,
            writes: 0,
            flushes: 0,
        };
        Self { inner: Rc::new(RefCell::new(inner)) }
    }

    /// Plants a bug in whoever writes to the disk.
    #[must_use]
    pub fn with_mutation(self, mutation: Option<Box<dyn Mutation<M>>>) -> Self {
        self.inner.borrow_mut().mutation = mutation;
        self
    }

    /// A new life: what was believed about the disk is forgotten.
    pub fn switch_on(&self) {
        let mut inner = self.inner.borrow_mut();
        inner.believed = inner.mutation.is_some().then(|| inner.image.clone());
    }

    /// From now on, requests fail in this way. Counting starts anew.
    pub fn set_trouble(&self, trouble: Option<Trouble>) {
        let mut inner = self.inner.borrow_mut();
        (inner.reads, inner.writes, inner.flushes) = (0, 0, 0);
        inner.trouble = trouble;
    }

    /// Number of requests of a kind since [`SimDisk::set_trouble`].
    pub fn requests(&self, kind: Request) -> usize {
        let inner = self.inner.borrow();
        match kind {
            Request::Read => inner.reads,
            Request::Write => inner.writes,
            Request::Flush => inner.flushes,
        }
    }

    /// Notes in the log that something was reached.
    pub fn mark(&self, mark: M) {
        self.inner.borrow_mut().perform(Op::Mark(mark));
    }

    /// Everything that was done so far; the log is empty after it.
    pub fn take_log(&self) -> Vec<Op<M>> {
        std::mem::take(&mut self.inner.borrow_mut().log)
    }

    /// What the disk holds, unflushed writes included.
    pub fn image(&self) -> Ref<'_, Image> {
        Ref::map(self.inner.borrow(), |inner| &inner.image)
    }
}

impl<M: Clone> Inner<M> {
    /// Does an operation, or what a planted bug makes of it.
    fn perform(&mut self, op: Op<M>) {
        let ops = match (&mut self.mutation, &mut self.believed) {
            (Some(bug), Some(believed)) => {
                let view = View { store: &self.store, image: believed };
                let ops = bug.change(&view, op.clone());
                if let Op::Write { sector, ids } = &op {
                    ids.iter().enumerate().for_each(|(at, id)| believed.set(sector + at, *id));
                }
                ops
            }
            _ => vec![op],
        };
        for op in ops {
            if let Op::Write { sector, ids } = &op {
                ids.iter().enumerate().for_each(|(at, id)| self.image.set(sector + at, *id));
            }
            self.log.push(op);
        }
    }

    /// Whether the request with this number fails, and how.
    fn failure(&self, request: Request, number: usize) -> Option<Trouble> {
        let hit = |trouble: &Trouble| {
            let reached =
                if trouble.lasts { number >= trouble.from } else { number == trouble.from };
            // A disk that has turned read-only does not flush either, and has nothing to.
            trouble.on == request && reached
        };
        self.trouble.filter(hit)
    }

    fn read(&mut self, offset: u64, buffer: &mut [u8]) -> Result<(), Failure> {
        let number = self.reads;
        self.reads += 1;
        if let Some(trouble) = self.failure(Request::Read, number) {
            return Err(trouble.failure);
        }
        let start = usize::try_from(offset).map_err(|_| Failure::BeyondEnd)?;
        let end = start.checked_add(buffer.len()).ok_or(Failure::BeyondEnd)?;
        if end > self.image.sectors() * SECTOR {
            return Err(Failure::BeyondEnd);
        }
        let image = self.believed.as_ref().unwrap_or(&self.image);
        let (mut at, mut done) = (start, 0);
        while done < buffer.len() {
            let contents = self.store.contents(image.get(at / SECTOR));
            let piece = &contents[at % SECTOR..];
            let length = piece.len().min(buffer.len() - done);
            buffer[done..done + length].copy_from_slice(&piece[..length]);
            at += length;
            done += length;
        }
        if let Some(bug) = &mut self.mutation {
            bug.read(offset, buffer);
        }
        Ok(())
    }

    fn write(&mut self, offset: u64, bytes: &[u8]) -> Result<(), Failure> {
        let mut ids = self.whole_sectors(offset, bytes)?;
        let sector = usize::try_from(offset).map_err(|_| Failure::BeyondEnd)? / SECTOR;
        let number = self.writes;
        self.writes += 1;
        let trouble = self.failure(Request::Write, number);
        if let Some(trouble) = trouble {
            ids.truncate(trouble.sectors_kept);
        }
        if !ids.is_empty() {
            self.perform(Op::Write { sector, ids });
        }
        trouble.map_or(Ok(()), |trouble| Err(trouble.failure))
    }

    /// The sectors that a write changes, with what it leaves of them at its ends.
    fn whole_sectors(&self, offset: u64, bytes: &[u8]) -> Result<Vec<Id>, Failure> {
        let start = usize::try_from(offset).map_err(|_| Failure::BeyondEnd)?;
        let end = start.checked_add(bytes.len()).ok_or(Failure::BeyondEnd)?;
        if end > self.image.sectors() * SECTOR {
            return Err(Failure::BeyondEnd);
        }
        let first = start / SECTOR;
        let sectors = first..end.div_ceil(SECTOR);
        Ok(sectors
            .map(|sector| {
                let image = self.believed.as_ref().unwrap_or(&self.image);
                let mut contents = self.store.contents(image.get(sector));
                let from = start.max(sector * SECTOR);
                let to = end.min((sector + 1) * SECTOR);
                let target = &mut contents[from - sector * SECTOR..to - sector * SECTOR];
                target.copy_from_slice(&bytes[from - start..to - start]);
                self.store.id(&contents)
            })
            .collect())
    }

    fn flush(&mut self) -> Result<(), Failure> {
        let number = self.flushes;
        self.flushes += 1;
        match self.failure(Request::Flush, number) {
            Some(trouble) => Err(trouble.failure),
            None => {
                self.perform(Op::Flush);
                Ok(())
            }
        }
    }
}

impl<M: Clone> ReadAt for SimDisk<M> {
    type Error = Failure;

    fn size(&self) -> u64 {
        u64::try_from(self.image().sectors() * SECTOR).unwrap_or(u64::MAX)
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> Result<(), Failure> {
        self.inner.borrow_mut().read(offset, buffer)
    }
}

impl<M: Clone> WriteAt for SimDisk<M> {
    fn write_at(&mut self, offset: u64, bytes: &[u8]) -> Result<(), Failure> {
        self.inner.borrow_mut().write(offset, bytes)
    }

    fn flush(&mut self) -> Result<(), Failure> {
        self.inner.borrow_mut().flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn disk() -> SimDisk<()> {
        let store = Rc::new(Store::default());
        let zero = store.id(&[0; SECTOR]);
        SimDisk::new(&store, Image::filled(512, zero))
    }

    #[test]
    fn what_is_written_is_read_back_at_any_byte_and_logged_by_sector() {
        let mut disk = disk();
        assert_eq!(disk.write_at(510, b"abcd"), Ok(()));
        assert_eq!(disk.flush(), Ok(()));
        let mut bytes = [9; 6];
        assert_eq!(disk.read_at(509, &mut bytes), Ok(()));
        assert_eq!(&bytes, b"\0abcd\0");
        let log = disk.take_log();
        assert!(matches!(&log[0], Op::Write { sector: 0, ids } if ids.len() == 2));
        assert_eq!(log[1..], [Op::Flush]);
        assert_eq!(disk.write_at(512 * 512 - 1, b"ab"), Err(Failure::BeyondEnd));
        assert_eq!(disk.read_at(512 * 512 - 1, &mut bytes), Err(Failure::BeyondEnd));
    }

    #[test]
    fn a_write_fails_when_told_and_may_have_happened_in_part() {
        let mut disk = disk();
        let trouble = Trouble {
            from: 1,
            on: Request::Write,
            failure: Failure::Io,
            lasts: false,
            sectors_kept: 1,
        };
        disk.set_trouble(Some(trouble));
        assert_eq!(disk.write_at(0, &[1; 1024]), Ok(()));
        assert_eq!(disk.write_at(0, &[2; 1024]), Err(Failure::Io));
        assert_eq!(disk.write_at(2048, &[3; 512]), Ok(()));
        let mut bytes = [0; 1024];
        assert_eq!(disk.read_at(0, &mut bytes), Ok(()));
        assert_eq!((bytes[511], bytes[512]), (2, 1));
    }
}
