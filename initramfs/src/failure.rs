//! Why a step failed: one line, from what was tried to what the kernel said.

use std::fmt;

/// Shorthand for results of PID 1.
pub(crate) type Result<T> = std::result::Result<T, Failure>;

/// A failure, ready to be printed behind the name of the stage.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Failure(String);

impl Failure {
    /// A failure with nothing beneath it.
    pub(crate) fn new(what: impl Into<String>) -> Self {
        Self(what.into())
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(&self.0)
    }
}

/// Puts what was tried in front of an error.
pub(crate) trait Context<T> {
    /// `what: error`
    fn context(self, what: impl fmt::Display) -> Result<T>;
}

impl<T, E: fmt::Display> Context<T> for std::result::Result<T, E> {
    fn context(self, what: impl fmt::Display) -> Result<T> {
        self.map_err(|error| Failure(format!("{what}: {error}")))
    }
}
