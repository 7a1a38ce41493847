//! The bytes and rules that loader, init, agent and builder agree on.
//!
//! No clock, no randomness, no unsafe, no I/O (but a `File` adapter behind the feature `std`).
//! Every number that comes from a disk is checked before it is used, so arithmetic that could
//! overflow and conversions that could lose bits are reported by the lints below.
//!
//! Reading order: what is where on a disk ([`layout`], [`partition_table`] over [`gpt`] and
//! [`mbr`], [`boot_record`]), how the last partition takes what a larger disk has ([`growth`]),
//! what a slot says about itself ([`envelope`], [`manifest`], [`keyring`], [`verify`]) and how it
//! is packed ([`spans`], [`lz4`]), which slot is started ([`boot_state`]), what the started kernel
//! is told ([`boot_args`]) and how a running system changes which slot is started
//! ([`slot_change`]); what brings a new system ([`bundle`], [`trust`]), how a publisher offers it
//! ([`channel`]) and what makes that cheap ([`pack`]), and what remains of one that failed
//! ([`trial_log`]); what is done about the data partition before it is used ([`data_care`] over
//! [`ext4`]) and how it is made new ([`reset`]).
#![cfg_attr(not(feature = "std"), no_std)]
#![forbid(unsafe_code)]
#![cfg_attr(not(test), warn(clippy::arithmetic_side_effects, clippy::as_conversions))]
extern crate alloc;

pub mod boot_args;
pub mod boot_record;
pub mod boot_state;
pub mod bundle;
pub mod calendar;
pub mod channel;
pub mod command_port;
pub mod data_care;
pub mod device;
pub mod digest;
pub mod envelope;
pub mod ext4;
pub mod gpt;
pub mod growth;
pub mod guid;
pub mod key_block;
pub mod keyring;
pub mod layout;
pub mod lz4;
pub mod manifest;
pub mod mbr;
pub mod pack;
pub mod partition_table;
pub mod reset;
pub mod slot_change;
pub mod spans;
pub mod system;
pub mod trial_log;
pub mod trust;
pub mod trust_root;
pub mod verify;
pub mod virtual_machine;
