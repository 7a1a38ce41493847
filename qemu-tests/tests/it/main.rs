//! Tests that cross crates: the built image, held against foreign tools and booted.
#![allow(clippy::unwrap_used, reason = "only tests are here: what fails is a test, and says where")]

mod apps;
mod authority;
mod boot;
mod buckets;
mod components;
mod crashes;
mod cuts;
mod damaged_starts;
mod data;
mod engine_cuts;
mod engines;
mod faults;
mod formats;
mod fuzz;
mod hostile_containers;
mod hostile_network;
mod https;
mod keys;
mod online;
mod over_the_air;
mod pi;
mod push;
mod registries;
mod slots;
mod stacks;
mod wifi;
