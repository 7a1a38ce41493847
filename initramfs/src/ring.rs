//! The last lines of everything that was said, in a bounded amount of memory.

use std::collections::VecDeque;

/// Lines, oldest first; the oldest go when the bytes are used up.
#[derive(Debug)]
pub(crate) struct Ring {
    bytes: VecDeque<u8>,
    capacity: usize,
}

impl Ring {
    /// A ring that holds this many bytes.
    pub(crate) fn new(capacity: usize) -> Self {
        Self { bytes: VecDeque::new(), capacity }
    }

    /// Adds a line; its end is added here. A line longer than the ring loses its end.
    pub(crate) fn push(&mut self, line: &str) {
        let line = line.as_bytes();
        let line = line.get(..self.capacity.saturating_sub(1)).unwrap_or(line);
        while self.bytes.len() + line.len() + 1 > self.capacity && self.drop_oldest() {}
        self.bytes.extend(line);
        self.bytes.push_back(b'\n');
    }

    fn drop_oldest(&mut self) -> bool {
        match self.bytes.iter().position(|&byte| byte == b'\n') {
            Some(end) => {
                self.bytes.drain(..=end);
                true
            }
            None => false,
        }
    }

    /// A copy of all lines.
    pub(crate) fn snapshot(&self) -> Vec<u8> {
        self.bytes.iter().copied().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_lines_make_room_for_new_ones() {
        let mut ring = Ring::new(16);
        for line in ["one", "two", "three", "four"] {
            ring.push(line);
        }
        assert_eq!(ring.snapshot(), b"two\nthree\nfour\n");
    }

    #[test]
    fn a_line_longer_than_the_ring_fills_it_and_no_more() {
        let mut ring = Ring::new(8);
        ring.push("short");
        ring.push("a very long line");
        assert_eq!(ring.snapshot(), b"a very \n");
        ring.push("");
        assert_eq!(ring.snapshot(), b"\n");
    }
}
