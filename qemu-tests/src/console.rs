//! What a guest has said so far, as lines with the time of their arrival.

use std::time::Duration;

/// A finished line of a console.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Line {
    /// Since the machine was started.
    pub at: Duration,
    /// The line without its end and without what firmware paints with.
    pub text: String,
}

/// Turns a stream of bytes into lines.
#[derive(Default, Debug)]
pub struct Console {
    lines: Vec<Line>,
    unfinished: Vec<u8>,
    /// Lines that a wait has already gone past.
    passed: usize,
}

impl Console {
    /// Adds bytes as they come.
    pub fn add(&mut self, at: Duration, bytes: &[u8]) {
        for &byte in bytes {
            if byte == b'\n' {
                let line = std::mem::take(&mut self.unfinished);
                self.lines.push(Line { at, text: plain(&String::from_utf8_lossy(&line)) });
            } else {
                self.unfinished.push(byte);
            }
        }
    }

    /// The next line, not passed before, that `matches`; it and all before it count as passed.
    pub fn take(&mut self, matches: impl Fn(&str) -> bool) -> Option<Line> {
        let found = self.lines[self.passed..].iter().position(|line| matches(&line.text));
        match found {
            Some(index) => {
                let line = self.lines[self.passed + index].clone();
                self.passed += index + 1;
                Some(line)
            }
            None => None,
        }
    }

    /// Every line so far.
    pub fn lines(&self) -> &[Line] {
        &self.lines
    }

    /// The whole log, each line with its time.
    pub fn log(&self) -> String {
        let lines = self.lines.iter();
        let mut log: String =
            lines.map(|line| format!("[{:8.3}] {}\n", line.at.as_secs_f64(), line.text)).collect();
        log.push_str(&plain(&String::from_utf8_lossy(&self.unfinished)));
        log
    }

    /// The last lines, for a message.
    pub fn tail(&self, count: usize) -> String {
        let log = self.log();
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(count)..].join("\n")
    }
}

/// A line without escape sequences and other control characters.
fn plain(line: &str) -> String {
    let mut text = String::new();
    let mut characters = line.chars();
    while let Some(character) = characters.next() {
        if character == '\x1b' {
            if characters.next() == Some('[') {
                characters.by_ref().find(char::is_ascii_alphabetic);
            }
        } else if !character.is_control() {
            text.push(character);
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_found_in_order_and_once() {
        let mut console = Console::default();
        console.add(Duration::from_secs(1), b"\x1b[2J\x1b[01;01Hone\r\ntw");
        console.add(Duration::from_secs(2), b"o\r\none\r\n");
        assert_eq!(console.take(|line| line == "one").unwrap().at, Duration::from_secs(1));
        assert_eq!(console.take(|line| line == "one").unwrap().at, Duration::from_secs(2));
        assert_eq!(console.take(|line| line == "two"), None);
        assert_eq!(console.lines()[1].text, "two");
    }

    #[test]
    fn the_tail_shows_an_unfinished_line_too() {
        let mut console = Console::default();
        console.add(Duration::ZERO, b"one\ntwo\nthr");
        assert_eq!(console.tail(2), "[   0.000] two\nthr");
    }
}
