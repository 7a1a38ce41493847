//! The device's own command `iota`: talks to the engine, keeps the declared containers, reports.
//!
//! Reading order: [`args`] → [`services`] → [`engine`] → [`client`] → [`http`] and [`stream`];
//! for updates [`update`] → [`own_disk`] → [`apply`].

pub mod apply;
pub mod archive;
pub mod args;
pub mod client;
pub mod console;
pub mod engine;
pub mod health;
pub mod http;
pub mod network;
pub mod own_disk;
pub mod port;
pub mod services;
pub mod slots;
pub mod status;
pub mod stick;
pub mod stream;
pub mod time;
pub mod update;
