//! The output of containers as an engine's log endpoint sends it: frames, then lines.
//!
//! Pure: bytes go in as they arrive. A frame is one log message of the engine:
//!
//! ```text
//! 0  stream: 1 = output, 2 = errors      4  length of the message, big endian
//! 1  three zero bytes                    8  RFC 3339 time, blank, message
//! ```
//!
//! A message ends with a line feed unless the engine split a long line (Docker: at 16 KiB).
//! Guarantees: a line shown is at most [`MAX_LINE`] bytes of the container, holds no control
//! characters and so can neither move the cursor nor pretend to be another program's line.

use std::fmt;
use std::fmt::Write as _;

use crate::time::Moment;

/// Longest piece of a container's line that is shown as one; more of it follows as the next line.
pub const MAX_LINE: usize = 2048;

/// Longest frame that is believed. Engines split messages long before.
const MAX_FRAME: usize = 1024 * 1024;

const HEADER: usize = 8;

/// The bytes are no frames: the stream belongs to a container with a terminal, or is damaged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NoFrame {
    /// The eight bytes that should have begun a frame.
    pub header: [u8; HEADER],
}

impl fmt::Display for NoFrame {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "the log stream has a malformed frame: {:02x?}", self.header)
    }
}

impl std::error::Error for NoFrame {}

/// Splits a log stream into the lines of its container.
#[derive(Debug, Default)]
pub struct Output {
    frame: Vec<u8>,
    /// Unfinished lines of the output and of the errors.
    unfinished: [Vec<u8>; 2],
    last: Option<Moment>,
}

impl Output {
    /// Goes on after the message of this moment.
    pub fn after(last: Option<Moment>) -> Self {
        Self { last, ..Self::default() }
    }

    /// When the newest message was written, as the engine says.
    pub fn last(&self) -> Option<Moment> {
        self.last
    }

    /// Takes bytes of the stream and calls `show` with each line that they finish.
    pub fn take(&mut self, mut input: &[u8], show: &mut dyn FnMut(&str)) -> Result<(), NoFrame> {
        while !input.is_empty() {
            let wanted = match self.frame.first_chunk() {
                Some(header) => HEADER + message_length(header)?,
                None => HEADER,
            };
            let (now, later) = input.split_at(input.len().min(wanted - self.frame.len()));
            self.frame.extend_from_slice(now);
            input = later;
            if let Some(header) = self.frame.first_chunk()
                && self.frame.len() == HEADER + message_length(header)?
            {
                self.finish_frame(show);
            }
        }
        Ok(())
    }

    /// Shows what is left when the stream ended within a line.
    pub fn finish(&mut self, show: &mut dyn FnMut(&str)) {
        for line in &mut self.unfinished {
            if !line.is_empty() {
                show(&printable(line));
                line.clear();
            }
        }
    }

    fn finish_frame(&mut self, show: &mut dyn FnMut(&str)) {
        let (header, message) = self.frame.split_at(HEADER);
        let (moment, text) = split_time(message);
        self.last = moment.or(self.last);
        let line = &mut self.unfinished[usize::from(header[0] == 2)];
        for piece in text.split_inclusive(|byte| *byte == b'\n') {
            let (piece, ended) = match piece.strip_suffix(b"\n") {
                Some(piece) => (piece, true),
                None => (piece, false),
            };
            line.extend_from_slice(piece);
            while line.len() > MAX_LINE {
                let rest = line.split_off(character_boundary(line, MAX_LINE));
                show(&printable(line));
                *line = rest;
            }
            if ended {
                show(&printable(line.strip_suffix(b"\r").unwrap_or(line)));
                line.clear();
            }
        }
        self.frame.clear();
    }
}

/// Checks a frame's header; the length of its message.
fn message_length(header: &[u8; HEADER]) -> Result<usize, NoFrame> {
    let [stream, z1, z2, z3, length @ ..] = *header;
    let length = usize::try_from(u32::from_be_bytes(length)).unwrap_or(usize::MAX);
    let fine = stream <= 2 && [z1, z2, z3] == [0; 3] && length <= MAX_FRAME;
    fine.then_some(length).ok_or(NoFrame { header: *header })
}

/// The message's time, if it begins with one, and the message.
fn split_time(message: &[u8]) -> (Option<Moment>, &[u8]) {
    let blank = message.iter().take(40).position(|byte| *byte == b' ');
    let parsed = blank.and_then(|blank| {
        let text = std::str::from_utf8(&message[..blank]).ok()?;
        Some((Moment::parse(text)?, &message[blank + 1..]))
    });
    match parsed {
        Some((moment, text)) => (Some(moment), text),
        None => (None, message),
    }
}

/// The last place at or before `limit` where a line may be cut without breaking a UTF-8 sequence.
fn character_boundary(line: &[u8], limit: usize) -> usize {
    let continues = |at: usize| line[at] & 0b1100_0000 == 0b1000_0000;
    (limit.saturating_sub(3)..=limit).rev().find(|at| !continues(*at)).unwrap_or(limit)
}

/// The line as text, control characters written out.
fn printable(line: &[u8]) -> String {
    let mut text = String::with_capacity(line.len());
    for character in String::from_utf8_lossy(line).chars() {
        if character.is_control() && character != '\t' {
            let _ = write!(text, "\\x{:02x}", u32::from(character));
        } else {
            text.push(character);
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(stream: u8, message: &str) -> Vec<u8> {
        let length = u32::try_from(message.len()).unwrap().to_be_bytes();
        [&[stream, 0, 0, 0][..], &length, message.as_bytes()].concat()
    }

    /// The lines of a stream, which must be the same however its bytes are split.
    fn lines(stream: &[u8]) -> Vec<String> {
        let read = |piece: usize| {
            let (mut output, mut lines) = (Output::default(), Vec::new());
            for part in stream.chunks(piece) {
                output.take(part, &mut |line| lines.push(line.to_owned())).unwrap();
            }
            output.finish(&mut |line| lines.push(line.to_owned()));
            lines
        };
        let whole = read(stream.len());
        for piece in [1, 2, 3, 7, 8, 9, 64] {
            assert_eq!(read(piece), whole, "in pieces of {piece}");
        }
        whole
    }

    #[test]
    fn messages_become_lines_without_their_times() {
        let stream = [
            frame(1, "2026-11-23T14:29:30.000000001Z hello\n"),
            frame(2, "2026-11-23T14:29:30.000000002Z trouble: no such file\n"),
            frame(1, "2026-11-23T14:29:30.000000003Z \n"),
            frame(1, "no time at all\r\n"),
        ]
        .concat();
        assert_eq!(lines(&stream), ["hello", "trouble: no such file", "", "no time at all"]);
    }

    #[test]
    fn output_and_errors_do_not_mix_within_a_line() {
        let stream = [
            frame(1, "2026-11-23T14:29:30Z half "),
            frame(2, "2026-11-23T14:29:30Z error\n"),
            frame(1, "2026-11-23T14:29:30Z a line\n"),
            frame(2, "2026-11-23T14:29:31Z cut off"),
        ]
        .concat();
        assert_eq!(lines(&stream), ["error", "half a line", "cut off"]);
    }

    #[test]
    fn the_last_moment_is_where_to_go_on() {
        let mut output = Output::default();
        let stream = frame(1, "2026-11-23T14:29:30.5Z a\n");
        output.take(&stream, &mut |_| ()).unwrap();
        assert_eq!(output.last(), Moment::parse("2026-11-23T14:29:30.5Z"));
        assert_eq!(Output::after(output.last()).last(), output.last());
    }

    #[test]
    fn a_line_cannot_move_the_cursor_or_fake_another_line() {
        let stream = frame(1, "a\x1b[2Jb\riota init: power off\u{85}c\td\x7f\n");
        assert_eq!(lines(&stream), ["a\\x1b[2Jb\\x0diota init: power off\\x85c\td\\x7f"]);
        let stream = [&[1, 0, 0, 0, 0, 0, 0, 3][..], b"\xff\xc3\n"].concat();
        assert_eq!(lines(&stream), ["\u{fffd}\u{fffd}"]);
    }

    #[test]
    fn long_lines_are_cut_between_characters() {
        let long = "é".repeat(MAX_LINE);
        let got = lines(&frame(1, &format!("x{long}\n")));
        assert!(got.iter().all(|line| line.len() <= MAX_LINE));
        assert_eq!(got.concat(), format!("x{long}"));
    }

    #[test]
    fn what_is_no_frame_is_refused() {
        for header in [*b"plain te", [3, 0, 0, 0, 0, 0, 0, 1], [1, 0, 0, 0, 0xff, 0, 0, 0]] {
            let refused = Output::default().take(&header, &mut |_| ());
            assert_eq!(refused, Err(NoFrame { header }));
        }
        assert_eq!(
            NoFrame { header: *b"\x03\0\0\0\0\0\0\x01" }.to_string(),
            "the log stream has a malformed frame: [03, 00, 00, 00, 00, 00, 00, 01]"
        );
    }

    #[test]
    fn an_empty_message_is_no_line() {
        assert_eq!(lines(&[frame(1, ""), frame(1, "a\n")].concat()), ["a"]);
    }
}
