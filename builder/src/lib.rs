//! Turns a board, a lock and components into images. Library behind the command `iota`.
//!
//! Reading order: [`error`] → [`tree`] → [`debian`] → [`image`] → [`host`].

pub mod board;
pub mod debian;
pub mod error;
pub mod hex;
pub mod host;
pub mod image;
pub mod sign;
pub mod suggest;
pub mod oci;
pub mod tree;
pub mod verbs;
