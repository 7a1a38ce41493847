//! The device's own command `iota`: talks to the engine, keeps the declared containers, reports.
//!
//! Reading order: [`args`] → [`services`] → [`engine`] → [`client`] → [`http`] and [`stream`];
//! before the engine, after a power cut, [`mend_output`]; for an engine that runs on demand
//! [`podman`] and [`health_checks`]; for containerd alone [`containerd`], [`container_log`] and
//! [`contained`]; for people who log in [`ssh`] → [`shell`]; for updates [`update`] → [`own_disk`]
//! → [`apply`]; for the data partition [`growth`], [`data`] and [`reset`]; for the owner's
//! `iota.toml` [`own_config`]; for apps [`apps`] and [`on_demand`].

pub mod apply;
pub mod apps;
pub mod archive;
pub mod args;
pub mod client;
pub mod console;
pub mod contained;
pub mod container_log;
pub mod containerd;
pub mod crash;
pub mod data;
pub mod engine;
pub mod files;
pub mod growth;
pub mod health;
pub mod health_checks;
pub mod http;
pub mod identity;
pub mod kept_log;
pub mod led;
pub mod logs;
pub mod memory;
pub mod memory_limit;
pub mod mend_output;
pub mod modprobe;
pub mod network;
pub mod on_demand;
pub mod online;
pub mod own_config;
pub mod own_disk;
pub mod podman;
pub mod port;
pub mod power_cycles;
pub mod read_ahead;
pub mod reset;
pub mod screen;
pub mod services;
pub mod shell;
pub mod slots;
pub mod ssh;
pub mod status;
pub mod stick;
pub mod stream;
pub mod sys;
pub mod time;
pub mod update;
pub mod vlan;
pub mod watchdog;
pub mod wifi;
pub mod zram;
