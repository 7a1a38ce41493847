//! Image writers: a finished tree or a list of files in, bytes of one format out.

pub mod cpio;
#[cfg(test)]
mod foreign;
pub mod sparse;
