//! Debian's control file format ("deb822", deb-822(5)): paragraphs of `Name: value` fields.
//!
//! Zero-copy: a paragraph borrows from the text. Package indices are 56 MB, so splitting into
//! paragraphs touches every byte once and fields are looked up only where asked for.

use std::str;

use crate::error::{Error, Result};

/// One paragraph: its raw lines, checked to be UTF-8 and well formed.
#[derive(Clone, Copy, Debug)]
pub struct Paragraph<'a> {
    text: &'a str,
}

impl<'a> Paragraph<'a> {
    /// Checks one paragraph: every line is `Name: value` or a continuation of the one before.
    pub fn parse(text: &'a str) -> Result<Self> {
        let mut may_continue = false;
        for line in text.lines() {
            let good = match line.as_bytes().first() {
                Some(b' ' | b'\t') => may_continue,
                _ => line.split_once(':').is_some_and(|(name, _)| valid_name(name)),
            };
            if !good {
                return Err(Error::new(format!("bad control line `{}`", line.escape_debug())));
            }
            may_continue = true;
        }
        Ok(Self { text })
    }

    /// All fields in order: name, value with its continuation lines as they stand, trimmed.
    pub fn fields(&self) -> Fields<'a> {
        Fields { rest: self.text }
    }

    /// The value of a field, its name compared without case; the first if it is there twice.
    pub fn get(&self, name: &str) -> Option<&'a str> {
        self.fields().find(|(field, _)| field.eq_ignore_ascii_case(name)).map(|(_, value)| value)
    }

    /// The value of a field that has to be there.
    pub fn require(&self, name: &str) -> Result<&'a str> {
        self.get(name).ok_or_else(|| Error::new(format!("the field {name} is missing")))
    }
}

/// Iterator over the fields of a paragraph.
pub struct Fields<'a> {
    rest: &'a str,
}

impl<'a> Iterator for Fields<'a> {
    type Item = (&'a str, &'a str);

    fn next(&mut self) -> Option<Self::Item> {
        let (name, after) = self.rest.split_once(':')?;
        let mut end = 0;
        loop {
            end += after[end..].find('\n').unwrap_or(after.len() - end);
            match after.as_bytes().get(end + 1) {
                Some(b' ' | b'\t') => end += 1,
                _ => break,
            }
        }
        self.rest = after.get(end + 1..).unwrap_or("");
        Some((name, after[..end].trim()))
    }
}

/// Field names are printable ASCII without space and colon, and start with neither `#` nor `-`.
fn valid_name(name: &str) -> bool {
    !name.is_empty()
        && !name.starts_with(['#', '-'])
        && name.bytes().all(|byte| byte.is_ascii_graphic())
}

/// The paragraphs of a file, each checked; blank lines separate them.
pub fn paragraphs(text: &[u8]) -> impl Iterator<Item = Result<Paragraph<'_>>> {
    raw_paragraphs(text).map(|raw| {
        let text = str::from_utf8(raw)
            .map_err(|error| Error::caused("a control paragraph is not UTF-8", error))?;
        Paragraph::parse(text)
    })
}

/// The byte ranges between blank lines, unchecked: the fast first step over a large index.
pub fn raw_paragraphs(text: &[u8]) -> RawParagraphs<'_> {
    RawParagraphs { rest: text }
}

/// Iterator of [`raw_paragraphs`].
pub struct RawParagraphs<'a> {
    rest: &'a [u8],
}

impl<'a> Iterator for RawParagraphs<'a> {
    type Item = &'a [u8];

    fn next(&mut self) -> Option<&'a [u8]> {
        while blank_line(self.rest) {
            self.rest = &self.rest[line_end(self.rest)..];
        }
        if self.rest.is_empty() {
            return None;
        }
        let mut end = line_end(self.rest);
        while end < self.rest.len() && !blank_line(&self.rest[end..]) {
            end += line_end(&self.rest[end..]);
        }
        let (paragraph, rest) = self.rest.split_at(end);
        self.rest = rest;
        Some(paragraph)
    }
}

/// Length of the first line with its newline, or of all when there is none.
fn line_end(text: &[u8]) -> usize {
    memchr::memchr(b'\n', text).map_or(text.len(), |newline| newline + 1)
}

/// A line of blanks separates paragraphs as an empty one does.
fn blank_line(text: &[u8]) -> bool {
    let end = text.iter().position(|byte| !matches!(byte, b' ' | b'\t'));
    end.map_or(!text.is_empty(), |end| text[end] == b'\n')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(text: &str) -> Result<Vec<Vec<(&str, &str)>>> {
        paragraphs(text.as_bytes()).map(|one| one.map(|one| one.fields().collect())).collect()
    }

    #[test]
    fn paragraphs_are_separated_by_any_number_of_blank_lines() {
        let expected = vec![vec![("A", "1"), ("B", "2")], vec![("A", "3")]];
        for text in
            ["A: 1\nB: 2\n\nA: 3\n", "\n\nA: 1\nB:2\n\n\n\nA:   3", "A: 1\nB: 2\n \t\nA: 3 \n\n  "]
        {
            assert_eq!(all(text).unwrap(), expected, "{text:?}");
        }
        assert_eq!(all("").unwrap(), Vec::<Vec<_>>::new());
        assert_eq!(all("\n \n").unwrap(), Vec::<Vec<_>>::new());
    }

    #[test]
    fn values_keep_their_continuation_lines_and_colons() {
        let text = "Files:\n one two\n\tthree\nHome: a:b\nEmpty:\nLast: x";
        let expected = vec![vec![
            ("Files", "one two\n\tthree"),
            ("Home", "a:b"),
            ("Empty", ""),
            ("Last", "x"),
        ]];
        assert_eq!(all(text).unwrap(), expected);
        let paragraph = Paragraph::parse(text).unwrap();
        assert_eq!(paragraph.get("hOmE"), Some("a:b"));
        assert_eq!(paragraph.get("Absent"), None);
        let error = paragraph.require("Absent").unwrap_err();
        assert_eq!(error.to_string(), "the field Absent is missing");
    }

    #[test]
    fn bad_input_is_refused_with_the_line_that_is_bad() {
        for (text, message) in [
            ("no colon\n", "bad control line `no colon`"),
            (" continues nothing\n", "bad control line ` continues nothing`"),
            ("A: 1\nB C: 2\n", "bad control line `B C: 2`"),
            (": 1\n", "bad control line `: 1`"),
            ("-----BEGIN: x\n", "bad control line `-----BEGIN: x`"),
        ] {
            assert_eq!(all(text).unwrap_err().to_string(), message);
        }
        let broken = paragraphs(b"A: \xff\n").next().unwrap();
        assert_eq!(broken.unwrap_err().to_string(), "a control paragraph is not UTF-8");
    }
}
