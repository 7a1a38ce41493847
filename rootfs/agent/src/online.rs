//! Updates from a web server or a container registry: what a channel offers, and how it gets into
//! the slot.
//!
//! ```text
//! channel ── signature, board, sequence ──► is there something for this device?
//! front of the bundle ── the same checks as for a bundle from a stick
//! packs' tables ── plan: which carrier costs least; how much that is
//! groups: already in the slot │ in the running one │ fetched ──► the slot, checked group by group
//! ```
//! The slot is the journal: whatever ends a transfer, the next one fetches only what is missing.
//! A carrier that fails is followed by the next cheapest, at last by the whole stream. The server
//! is not trusted with anything but bytes and time: whatever it sends is held against hashes that a
//! key of this device signed, and how much is fetched is limited by what those say.
//!
//! Reading order: [`web`] → [`tls`] → `login` → [`registry`] → [`remote`] → [`offer`] →
//! [`local`] → [`plan`] → [`pieces`] → [`transfer`] → [`session`] → [`follow`]; [`tell`].

pub mod follow;
pub mod local;
mod login;
pub mod mirrors;
pub mod offer;
pub mod pieces;
pub mod plan;
pub mod registry;
pub mod remote;
pub mod report;
pub mod roots;
pub mod seen;
pub mod session;
pub mod signed_time;
pub mod tell;
pub mod tls;
pub mod transfer;
pub mod web;
