//! A server and others that have the same files: who does not answer is stood in for.

use std::cell::Cell;

use super::web::{Answer, Trouble, Web};

/// Servers, the first of which is the owner's `update.source`.
///
/// None of them is trusted more than another: what they send is checked alike, and one that lags
/// behind offers a channel that this device has outgrown.
pub struct Mirrored {
    servers: Vec<Box<dyn Web>>,
    /// Who answered last. It is asked first, so that a server that is down costs its time-out once.
    last: Cell<usize>,
}

impl Mirrored {
    /// Asks them in this order.
    pub fn new(servers: Vec<Box<dyn Web>>) -> Self {
        Self { servers, last: Cell::new(0) }
    }
}

impl Web for Mirrored {
    /// Errors: what the owner's own server says, unless another one may answer at the next try.
    fn get(&self, path: &str, range: Option<(u64, u64)>) -> Result<Answer, Trouble> {
        let count = self.servers.len();
        let mut troubles = Vec::new();
        for step in 0..count {
            let number = (self.last.get() + step) % count;
            match self.servers[number].get(path, range) {
                Ok(answer) => {
                    self.last.set(number);
                    return Ok(answer);
                }
                Err(trouble) => troubles.push((number, trouble)),
            }
        }
        let passes = |trouble: &Trouble| matches!(trouble, Trouble::Passing { .. });
        let first =
            troubles.into_iter().min_by_key(|(number, trouble)| (!passes(trouble), *number));
        Err(first
            .map(|(_, trouble)| trouble)
            .unwrap_or_else(|| Trouble::Lasting("there is no server to ask".to_owned())))
    }
}
