//! Tests that cross crates: the built image, held against foreign tools and booted.
#![allow(clippy::unwrap_used, reason = "only tests are here: what fails is a test, and says where")]

mod boot;
mod components;
mod crashes;
mod cuts;
mod data;
mod faults;
mod formats;
mod fuzz;
mod pi;
mod slots;
