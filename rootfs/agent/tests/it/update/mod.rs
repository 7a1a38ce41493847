//! Installations on a disk in memory.

mod install;
mod make;
mod memory;
mod refuse;
mod verbs;
