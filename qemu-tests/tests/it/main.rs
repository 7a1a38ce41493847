//! Tests that cross crates: the built image, held against foreign tools and booted.

mod boot;
mod components;
mod faults;
mod formats;
