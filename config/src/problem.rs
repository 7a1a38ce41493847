//! What is wrong with a file, where, and what would be right.

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;

use serde_json::{Value, json};

/// A file that is not TOML at all has a problem in each of its lines; nobody reads more than these.
const MOST_PROBLEMS: usize = 100;

/// How much of a line is shown.
const MOST_COLUMNS: usize = 100;

/// One mistake.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// Line, from 1; 0 when it is about the file as a whole.
    pub line: usize,
    /// Column in characters, from 1; 0 when it is about the file as a whole.
    pub column: usize,
    /// The line, free of control characters, cut if it is long.
    pub text: String,
    /// What is wrong, one clause.
    pub message: String,
    /// What would be right.
    pub hint: Option<String>,
}

impl Problem {
    /// A problem of the file as a whole.
    pub(crate) fn of_file(message: impl Into<String>, hint: &str) -> Self {
        let (message, hint) = (message.into(), Some(hint.into()));
        Self { line: 0, column: 0, text: String::new(), message, hint }
    }

    /// A problem at this byte of the text.
    pub(crate) fn at(text: &str, byte: usize, message: String, hint: Option<String>) -> Self {
        let before = text.get(..byte).unwrap_or(text);
        let start = before.rfind('\n').map_or(0, |end| end.saturating_add(1));
        let line = text.get(start..).and_then(|rest| rest.lines().next()).unwrap_or_default();
        let column = before.get(start..).unwrap_or_default().chars().count();
        Self {
            line: before.matches('\n').count().saturating_add(1),
            column: column.saturating_add(1),
            text: shown(line),
            message: shown(&message),
            hint,
        }
    }

    /// Shows of the line only what stands before the mistake, which is in a secret.
    pub(crate) fn conceal(&mut self) {
        self.text = self.text.chars().take(self.mark()).chain(['…']).collect();
    }

    /// Lines for people: the place in the file, the line itself, a mark below it, the hint.
    pub fn render(&self, file: &str) -> String {
        let Self { line, column, text, message, .. } = self;
        let mut lines = match line {
            0 => format!("{file}: {message}\n"),
            _ => {
                let margin = " ".repeat(format!("{line}").len());
                let mark = " ".repeat(self.mark()) + "^";
                let shown = format!("  {line} | {text}\n  {margin} | {mark}\n");
                format!("{file}:{line}:{column}: {message}\n{shown}")
            }
        };
        if let Some(hint) = &self.hint {
            lines.push_str(&format!("hint: {hint}\n"));
        }
        lines
    }

    /// The same for programs.
    pub(crate) fn json(&self) -> Value {
        let Self { line, column, text, message, hint } = self;
        json!({ "line": line, "column": column, "text": text, "message": message, "hint": hint })
    }

    /// Blanks in front of the mark.
    fn mark(&self) -> usize {
        self.column.saturating_sub(1).min(self.text.chars().count())
    }
}

/// One clause: `line 3, column 7: …`.
impl fmt::Display for Problem {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.line > 0 {
            write!(out, "line {}, column {}: ", self.line, self.column)?;
        }
        out.write_str(&self.message)
    }
}

/// Text of a file that may be on its way to a terminal: what controls one becomes a `?`, so that
/// columns stay what they are.
fn shown(line: &str) -> String {
    let plain = |character: char| match character {
        '\t' => ' ',
        other if other.is_control() => '?',
        other => other,
    };
    let mut text: String = line.chars().take(MOST_COLUMNS).map(plain).collect();
    if line.chars().nth(MOST_COLUMNS).is_some() {
        text.push('…');
    }
    text
}

/// All mistakes of a file: at least one, in the order of the file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problems {
    first: Problem,
    rest: Vec<Problem>,
}

impl Problems {
    /// Sorts them; an error if there are none.
    pub(crate) fn new(mut problems: Vec<Problem>) -> Option<Self> {
        problems.sort_by_key(|problem| (problem.line, problem.column));
        problems.truncate(MOST_PROBLEMS);
        let mut problems = problems.into_iter();
        problems.next().map(|first| Self { first, rest: problems.collect() })
    }

    /// Each of them.
    pub fn iter(&self) -> impl Iterator<Item = &Problem> {
        core::iter::once(&self.first).chain(&self.rest)
    }

    /// The first one.
    pub fn first(&self) -> &Problem {
        &self.first
    }
}

/// What a check of a file found, for programs: what `iota config check --json` prints, on the host
/// and on a device.
pub fn document(file: &str, problems: Option<&Problems>) -> Value {
    let problems: Vec<Value> =
        problems.iter().flat_map(|it| it.iter()).map(Problem::json).collect();
    json!({ "file": file, "good": problems.is_empty(), "problems": problems })
}

impl From<Problem> for Problems {
    fn from(first: Problem) -> Self {
        Self { first, rest: Vec::new() }
    }
}

/// The first one, and how many follow.
impl fmt::Display for Problems {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}", self.first)?;
        match self.rest.len() {
            0 => Ok(()),
            1 => out.write_str(" (and 1 more problem)"),
            more => write!(out, " (and {more} more problems)"),
        }
    }
}

impl core::error::Error for Problems {}
