//! Requests that fail while the device goes on: every read, write and flush of a whole run, one
//! at a time, in each way that a card can fail. While it lasts, something verified must start at
//! every boot; when it is over, the plan must be fulfilled as if nothing had been.
use std::fmt;

use super::recover::Expected;
use super::world::{Mark, Next, World};
use crate::simdisk::{Failure, Image, Request, SimDisk, Trouble};

/// Boots with a disk that makes trouble, before it is well again.
const BOOTS_IN_TROUBLE: usize = 5;

/// Every trouble that a run from this disk can be in.
pub fn all(world: &World<'_>, base: &Image) -> Vec<Trouble> {
    let disk = world.disk(base.clone());
    live_through(world, &disk, world.scenario.boots);
    let count = |on| disk.requests(on);
    let once = |on, from| Trouble { from, on, failure: Failure::Io, lasts: false, sectors_kept: 0 };
    let mut all: Vec<_> = (0..count(Request::Read)).map(|from| once(Request::Read, from)).collect();
    for from in 0..count(Request::Write) {
        for sectors_kept in [0, 1, usize::MAX] {
            all.push(Trouble { sectors_kept, ..once(Request::Write, from) });
        }
        for failure in [Failure::NoSpace, Failure::ReadOnly] {
            all.push(Trouble { failure, lasts: true, ..once(Request::Write, from) });
        }
    }
    for from in 0..count(Request::Flush) {
        all.push(once(Request::Flush, from));
        all.push(Trouble { lasts: true, ..once(Request::Flush, from) });
    }
    all
}

/// Lives through one trouble and, after it, to the end.
pub fn run(world: &mut World<'_>, base: &Image, trouble: &Trouble) -> Result<(), String> {
    let disk = world.disk(base.clone());
    disk.set_trouble(Some(*trouble));
    let done = live_through_trouble(world, &disk, trouble)?;
    disk.set_trouble(None);
    let image = disk.image().clone();
    // A count that was written but not flushed has cost a try.
    let cuts = if trouble.lasts && trouble.on == Request::Flush { u8::MAX } else { 1 };
    world
        .recover(&image, Expected { done, cuts, beyond_promises: true, ..Expected::START })
        .map(|_| ())
}

fn live_through_trouble(
    world: &World<'_>,
    disk: &SimDisk<Mark>,
    trouble: &Trouble,
) -> Result<usize, String> {
    let mut done = 0;
    for _ in 0..BOOTS_IN_TROUBLE {
        let step = world.live_on(disk, done);
        if let Some(broken) = step.broken.or_else(|| world.check_writes(&disk.take_log())) {
            return Err(broken);
        }
        done = step.done;
        match step.next {
            // One read that fails may cost one boot: the loader waits and resets.
            Next::Dead if trouble.on == Request::Read && !trouble.lasts => {}
            Next::Dead => return Err("I1: nothing starts".to_owned()),
            Next::Steady => break,
            Next::Reboot => {}
        }
    }
    Ok(done)
}

fn live_through(world: &World<'_>, disk: &SimDisk<Mark>, boots: usize) {
    let mut done = 0;
    for _ in 0..boots {
        let step = world.live_on(disk, done);
        done = step.done;
        if step.next != Next::Reboot {
            return;
        }
    }
}

/// A trouble as the name of a state.
pub struct Name<'a>(pub &'a Trouble);

impl fmt::Display for Name<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Trouble { from, on, failure, lasts, sectors_kept } = self.0;
        let on = match on {
            Request::Read => "read",
            Request::Write => "write",
            Request::Flush => "flush",
        };
        let failure = match failure {
            Failure::Io => "EIO",
            Failure::NoSpace => "ENOSPC",
            Failure::ReadOnly => "EROFS",
            Failure::BeyondEnd => "end",
        };
        write!(f, "{on}{from}={failure}")?;
        match sectors_kept {
            0 => {}
            &usize::MAX => f.write_str(".written")?,
            sectors => write!(f, ".written{sectors}")?,
        }
        f.write_str(if *lasts { ".lasting" } else { "" })
    }
}
