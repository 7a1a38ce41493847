//! Debian packages without apt or dpkg: find, check, pin, fetch and unpack them.
//!
//! Reading order: [`manifest`] (what is wanted) → [`release`] and [`index`] (what there is) →
//! [`resolve`] (what is needed) → [`lock`] (what is pinned) → [`archive`] (what is inside).
//! All of these are pure over bytes; [`catalog`] and [`obtain`] join them with the network and
//! the cache.

pub mod archive;
pub mod catalog;
pub mod deb822;
pub mod digest;
pub mod index;
pub mod lock;
pub mod manifest;
pub mod obtain;
pub mod relation;
pub mod release;
pub mod resolve;
pub mod signature;
pub mod version;

#[cfg(test)]
mod obtain_tests;
