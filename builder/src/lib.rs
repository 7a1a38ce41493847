//! Turns a board, a lock and components into images. Library behind the command `iota`.
//!
//! Reading order: [`error`] → [`tree`] → [`debian`] → [`image`] → [`host`].

pub mod app;
pub mod assemble;
pub mod board;
pub mod boot_files;
pub mod build;
pub mod bundle;
pub mod cli;
pub mod container;
pub mod debian;
pub mod definitions;
pub mod device_tree;
pub mod disk_image;
pub mod elf;
pub mod emulation;
pub mod engine;
pub mod error;
pub mod flash;
pub mod hex;
pub mod host;
pub mod image;
pub mod inspect;
pub mod manifest_json;
pub mod modules;
pub mod oci;
pub mod payload;
pub mod publish;
pub mod recipe;
pub mod registry;
pub mod report;
pub mod s3;
pub mod sign;
pub mod signer;
pub mod skeleton;
pub mod slice;
pub mod slot;
pub use config::suggest;
pub mod tree;
pub mod trust_roots;
pub mod uboot_environment;
pub mod verbs;
pub mod videocore;
