//! A file on a server, read in order over a network that breaks.
//!
//! Guarantees: bytes come in order and each at most once to the reader; after a break the next
//! request asks for what is missing, so that nothing but what was under way is fetched twice; no
//! more is fetched than the budget allows, whatever the server sends; a server that gives nothing
//! for several tries in a row, or next to nothing for minutes, is given up.

use std::io::{self, Read};
use std::time::Duration;

use super::web::{Answer, Trouble, Web};

/// What a transfer may cost and has cost; shared by all files of an update.
pub struct Meter<'a> {
    /// Bytes that were received.
    pub bytes: u64,
    /// Requests that were made.
    pub requests: u64,
    /// Most bytes to receive: beyond it, the server is wasting a connection that somebody pays for.
    pub budget: u64,
    /// Most bytes in a second, in the mean.
    pub rate: Option<u64>,
    /// Tells somebody about trouble that passes.
    pub say: &'a mut dyn FnMut(&str),
    /// Waits.
    pub sleep: &'a mut dyn FnMut(Duration),
}

/// Tries in a row that bring less than [`LEAST_BYTES`].
const PATIENCE: u32 = 8;
/// A try that brings so many bytes is one with success: a sixtieth of it is the slowest rate.
const LEAST_BYTES: u64 = 16 * 1024;
const FIRST_WAIT: Duration = Duration::from_millis(500);
const LONGEST_WAIT: Duration = Duration::from_secs(30);

/// A file, from one byte to another.
pub struct Remote<'a, 'm> {
    web: &'a dyn Web,
    meter: &'a mut Meter<'m>,
    path: String,
    /// Size of the whole file: one of another size is another file.
    total: u64,
    position: u64,
    end: u64,
    body: Option<Box<dyn Read + Send>>,
    /// Where this try began, and how many before it brought nothing.
    begin: u64,
    failures: u32,
}

impl<'a, 'm> Remote<'a, 'm> {
    /// The bytes of `range` of a file of `total` bytes.
    pub fn new(
        web: &'a dyn Web,
        meter: &'a mut Meter<'m>,
        path: &str,
        total: u64,
        range: (u64, u64),
    ) -> Self {
        let (position, end) = (range.0, range.1.min(total));
        let path = path.to_owned();
        Self { web, meter, path, total, position, end, body: None, begin: position, failures: 0 }
    }

    /// Goes on at another place, with a request of its own.
    pub fn go_to(&mut self, range: (u64, u64)) {
        (self.position, self.end) = (range.0, range.1.min(self.total));
        (self.body, self.begin, self.failures) = (None, range.0, 0);
    }

    /// The next byte to be read.
    pub fn position(&self) -> u64 {
        self.position
    }

    /// Passes over bytes that the server sends and nobody needs.
    pub fn skip_to(&mut self, position: u64) -> io::Result<()> {
        let mut waste = [0; 4096];
        while self.position < position {
            let count = (position - self.position).min(4096);
            // OK to convert: at most 4096.
            self.read_exact(&mut waste[..usize::try_from(count).unwrap_or_default()])?;
        }
        Ok(())
    }

    fn connect(&mut self) -> Result<Box<dyn Read + Send>, Trouble> {
        self.meter.requests += 1;
        let Answer { from, total, mut body } =
            self.web.get(&self.path, Some((self.position, self.end)))?;
        if total.is_some_and(|total| total != self.total) {
            let found = total.unwrap_or_default();
            return Err(Trouble::Lasting(format!(
                "the server has a file of {found} bytes, the signed length is {}",
                self.total
            )));
        }
        let mut before = self.position.saturating_sub(from);
        let mut waste = [0; 4096];
        while before > 0 {
            let room = waste.len().min(usize::try_from(before).unwrap_or(usize::MAX));
            let count = match body.read(&mut waste[..room]) {
                Ok(0) => return Err(passing("the connection broke off")),
                Ok(count) => count,
                Err(error) => return Err(passing(&error.to_string())),
            };
            self.spend(count)?;
            before -= count as u64;
        }
        Ok(body)
    }

    fn spend(&mut self, count: usize) -> Result<(), Trouble> {
        self.meter.bytes += count as u64;
        if self.meter.bytes > self.meter.budget {
            let budget = self.meter.budget;
            return Err(Trouble::Lasting(format!(
                "given up after {budget} bytes, which is more than all of it should take"
            )));
        }
        Ok(())
    }

    /// One try to get bytes.
    fn fetch(&mut self, buffer: &mut [u8]) -> Result<usize, Trouble> {
        let mut body = match self.body.take() {
            Some(body) => body,
            None => {
                self.begin = self.position;
                self.connect()?
            }
        };
        let left = usize::try_from(self.end - self.position).unwrap_or(usize::MAX);
        let room = buffer.len().min(left);
        let count = match body.read(&mut buffer[..room]) {
            Ok(0) => return Err(passing("the connection broke off")),
            Ok(count) => count,
            Err(error) => return Err(passing(&error.to_string())),
        };
        self.spend(count)?;
        self.position += count as u64;
        self.body = Some(body);
        if let Some(rate) = self.meter.rate {
            // What the bytes themselves took comes on top: a little slower than asked for.
            (self.meter.sleep)(Duration::from_secs_f64(count as f64 / rate.max(1) as f64));
        }
        Ok(count)
    }

    /// Waits after a try that failed; an error ends it all.
    fn wait(&mut self, trouble: Trouble) -> io::Result<()> {
        let Trouble::Passing { why, wait } = trouble else {
            // What to do is told where a look fails; here it is a cause among others.
            return Err(io::Error::other(trouble.why().lines().next().unwrap_or("").to_owned()));
        };
        let progress = self.position.saturating_sub(self.begin) >= LEAST_BYTES;
        self.failures = if progress { 1 } else { self.failures + 1 };
        self.begin = self.position;
        if self.failures >= PATIENCE {
            return Err(io::Error::other(format!("{why}; given up after {PATIENCE} tries")));
        }
        let wait = wait.unwrap_or_else(|| {
            LONGEST_WAIT.min(FIRST_WAIT.saturating_mul(1 << (self.failures - 1).min(10)))
        });
        (self.meter.say)(&format!("{why}; goes on at byte {} in {wait:?}", self.position));
        (self.meter.sleep)(wait);
        Ok(())
    }
}

fn passing(why: &str) -> Trouble {
    Trouble::Passing { why: why.to_owned(), wait: None }
}

impl Read for Remote<'_, '_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            if buffer.is_empty() || self.position >= self.end {
                return Ok(0);
            }
            match self.fetch(buffer) {
                Ok(count) => return Ok(count),
                Err(trouble) => self.wait(trouble)?,
            }
        }
    }
}

#[cfg(test)]
mod tests;
