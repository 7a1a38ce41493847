//! On what conditions a release is offered: lines of a channel that most do without, in this order,
//! behind the length of the bundle.
//!
//! ```text
//! open-by 1764427741
//! critical
//! needs rollback-index=3 through=stable-3
//! note Closes the hole in runc of November.
//! ```
//! A device whose program is older than a line of these refuses the channel, and stays as it is.
use alloc::borrow::ToOwned as _;
use alloc::string::{String, ToString as _};
use alloc::vec::Vec;
use core::fmt;
use core::iter::Peekable;
use core::str::Lines;

use super::{ALL, Error, MAX_NAME_BYTES, is_name, number};

/// Most lines of notes.
pub const MAX_NOTES: usize = 16;
/// Most bytes of one of them.
pub const MAX_NOTE_BYTES: usize = 160;

/// What a release asks of devices, and says to people.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Conditions {
    /// When it is open to all devices, in seconds since 1970: the share rises evenly until then. A
    /// device whose clock is behind waits longer, and one without a clock is let in by
    /// `iota release promote`.
    pub open_by_s: Option<u64>,
    /// Whether devices restart into it at once, whatever hours their owners want for that.
    pub critical: bool,
    /// What has to run before.
    pub needs: Option<Needs>,
    /// What is new, line by line.
    pub notes: Vec<String>,
}

/// Systems from which a release can be reached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Needs {
    /// Those with at least this rollback index.
    pub rollback_index: u64,
    /// The channel that brings others there.
    pub through: Option<String>,
}

impl fmt::Display for Conditions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(open_by_s) = self.open_by_s {
            writeln!(f, "open-by {open_by_s}")?;
        }
        if self.critical {
            writeln!(f, "critical")?;
        }
        if let Some(Needs { rollback_index, through }) = &self.needs {
            write!(f, "needs rollback-index={rollback_index}")?;
            match through {
                Some(channel) => writeln!(f, " through={channel}")?,
                None => writeln!(f)?,
            }
        }
        self.notes.iter().try_for_each(|note| writeln!(f, "note {note}"))
    }
}

impl Conditions {
    /// Takes the lines that are conditions.
    pub(super) fn read(lines: &mut Peekable<Lines<'_>>) -> Result<Self, Error> {
        let mut next = |name: &str| lines.next_if(|line| line.starts_with(name));
        let open_by = next("open-by ").and_then(|line| line.strip_prefix("open-by "));
        let open_by_s = open_by.map(|text| number(text, "open-by")).transpose()?;
        let critical = next("critical").is_some();
        let needs = next("needs ").map(read_needs).transpose()?;
        let note = || next("note ").and_then(|line| line.strip_prefix("note ")).map(str::to_owned);
        Ok(Self { open_by_s, critical, needs, notes: core::iter::from_fn(note).collect() })
    }

    /// Whether they make sense in the channel of this name.
    pub(super) fn check(&self, name: &str) -> Result<(), Error> {
        let through = self.needs.as_ref().and_then(|needs| needs.through.as_deref());
        let is_other = |channel: &str| is_name(channel, MAX_NAME_BYTES) && channel != name;
        if through.is_some_and(|channel| !is_other(channel)) {
            return Err(Error::Value("needs"));
        }
        let all = self.notes.iter().all(|note| is_note(note));
        if self.notes.len() > MAX_NOTES || !all {
            return Err(Error::Value("note"));
        }
        Ok(())
    }

    /// The share at a time, of one that was this large when the channel was signed.
    pub(super) fn share_at(&self, share: u32, issued_s: u64, now_s: u64) -> u32 {
        let risen = || {
            let open_by_s = self.open_by_s?;
            let all = open_by_s.checked_sub(issued_s)?;
            let done = now_s.checked_sub(issued_s)?.min(all);
            let rest = u64::from(ALL.checked_sub(share)?);
            let more = rest.checked_mul(done)?.checked_div(all).unwrap_or(rest);
            share.checked_add(u32::try_from(more).ok()?)
        };
        risen().unwrap_or(share)
    }
}

/// Whether a text can be a line of notes: short, and nothing that a terminal would act on.
pub fn is_note(text: &str) -> bool {
    let fits = (1..=MAX_NOTE_BYTES).contains(&text.len());
    fits && text.trim() == text && !text.chars().any(char::is_control)
}

fn read_needs(line: &str) -> Result<Needs, Error> {
    let words = line.strip_prefix("needs rollback-index=").ok_or(Error::Value("needs"))?;
    let (index, through) = match words.split_once(" through=") {
        Some((index, channel)) => (index, Some(channel.to_string())),
        None => (words, None),
    };
    Ok(Needs { rollback_index: number(index, "needs")?, through })
}
