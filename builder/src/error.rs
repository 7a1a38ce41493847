//! The builder's one error type: what failed, where, why, and what to do next.
//!
//! `Display` is one clause without its source; the command line prints the whole chain once,
//! then the hint on a line of its own.

use std::error::Error as StdError;
use std::fmt;

/// Shorthand for results of the builder.
pub type Result<T> = std::result::Result<T, Error>;

/// A failure with an optional cause and an optional next step for the user.
#[derive(Debug)]
pub struct Error {
    message: String,
    hint: Option<String>,
    source: Option<Box<dyn StdError + Send + Sync>>,
}

impl Error {
    /// An error that has no deeper cause.
    pub fn new(message: impl Into<String>) -> Self {
        Self { message: message.into(), hint: None, source: None }
    }

    /// An error caused by another.
    pub fn caused(
        message: impl Into<String>,
        source: impl Into<Box<dyn StdError + Send + Sync>>,
    ) -> Self {
        Self { message: message.into(), hint: None, source: Some(source.into()) }
    }

    /// Adds what the user can do next; an innermost hint is kept.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint.get_or_insert_with(|| hint.into());
        self
    }

    /// The next step for the user: this error's own, or that of its nearest cause that has one.
    pub fn next_step(&self) -> Option<&str> {
        self.hint.as_deref().or_else(|| {
            let cause = self.source.as_deref()?.downcast_ref::<Error>()?;
            cause.next_step()
        })
    }

    /// The whole chain in one line: `message: cause: cause of the cause`.
    pub fn chain(&self) -> String {
        let mut line = self.message.clone();
        let mut cause = self.source();
        while let Some(error) = cause {
            line.push_str(": ");
            line.push_str(&error.to_string());
            cause = error.source();
        }
        line
    }
}

impl fmt::Display for Error {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.message)
    }
}

impl StdError for Error {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.source.as_deref().map(|source| source as _)
    }
}

/// Adds what was being done to any error.
pub trait Context<T> {
    /// Wraps the error with a clause that says what was being done and where.
    fn context(self, message: impl FnOnce() -> String) -> Result<T>;
}

impl<T, E: Into<Box<dyn StdError + Send + Sync>>> Context<T> for std::result::Result<T, E> {
    fn context(self, message: impl FnOnce() -> String) -> Result<T> {
        self.map_err(|source| Error::caused(message(), source))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chain_names_every_cause_once_and_the_nearest_hint_wins() {
        let inner = Error::new("disk is full").hint("free some space");
        let outer = Error::caused("cannot write out/disk.img", inner);
        assert_eq!(outer.chain(), "cannot write out/disk.img: disk is full");
        assert_eq!(outer.next_step(), Some("free some space"));
        assert_eq!(outer.hint("try again").next_step(), Some("try again"));
    }
}
