//! What an owner tells a device and nobody else.

use alloc::borrow::ToOwned as _;
use alloc::string::String;
use core::fmt;

/// What stands in the place of a secret wherever a configuration is shown.
pub const CONCEALED: &str = "********";

/// A secret, printable characters of ASCII. No message and no `Debug` of it shows it.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// One that is made of others.
    pub(crate) fn new(text: String) -> Self {
        Self(text)
    }

    /// The secret.
    pub fn reveal(&self) -> &str {
        &self.0
    }

    /// The same place with nothing in it that anybody may not see.
    pub(crate) fn concealed() -> Self {
        Self(CONCEALED.to_owned())
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(CONCEALED)
    }
}

/// Reads a password of any length; an error is one clause that does not hold it.
pub(crate) fn read(text: &str) -> Result<Secret, String> {
    match () {
        () if text == CONCEALED => {
            Err("a password that was left out when this was printed".to_owned())
        }
        () if !text.bytes().all(|byte| (b' '..=b'~').contains(&byte)) => {
            Err("a character that is not of printable ASCII".to_owned())
        }
        () => Ok(Secret(text.to_owned())),
    }
}
