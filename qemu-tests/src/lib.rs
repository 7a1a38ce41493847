//! Proves the parts together, in virtual machines and by foreign tools; never shipped.
//!
//! Reading order: [`image`] (builds the image under test once) → [`disk`] (copies and damages it) →
//! [`machine`] (boots it, perhaps with a [`stick`]; [`ssh`] logs in) → [`console`] (waits for what
//! the guest says). Then [`write_log`] (what a guest wrote) → [`cuts`] (what of it a power cut
//! leaves). Tests lie in `tests/it`; those that need minutes run when `RUN_SLOW_TESTS` is set, as
//! `cargo xtask test` does. What `cargo xtask bench` measures is in [`bench`].
#![allow(clippy::unwrap_used, reason = "only tests are here: what fails is a test, and says where")]

pub mod bench;
pub mod console;
pub mod cuts;
pub mod damage;
pub mod disk;
pub mod fuzz;
pub mod hostile_fat;
pub mod image;
pub mod machine;
pub mod packages;
pub mod registry_server;
pub mod rogue_network;
pub mod sim;
pub mod simdisk;
pub mod site;
pub mod ssh;
pub mod stacks;
pub mod stick;
pub mod time_server;
pub mod tools;
pub mod web_server;
pub mod write_log;

/// Whether tests that take minutes shall run; says so where they are left out.
pub fn slow_tests_wanted() -> bool {
    let wanted = std::env::var_os("RUN_SLOW_TESTS").is_some_and(|value| !value.is_empty());
    if !wanted {
        eprintln!("left out: takes minutes; runs with RUN_SLOW_TESTS=1 (cargo xtask test)");
        return false;
    }
    time_is_left()
}

/// Whether a slow test may still start, by the limit of whoever runs them all (`cargo xtask test`);
/// its name goes to the list of those that may not.
fn time_is_left() -> bool {
    let until = std::env::var("SLOW_TESTS_UNTIL").ok().and_then(|text| text.parse().ok());
    let Some(until) = until.map(std::time::Duration::from_secs) else { return true };
    let now = std::time::SystemTime::UNIX_EPOCH.elapsed().unwrap();
    if now > until {
        let list = std::env::var_os("SLOW_TESTS_LEFT_OUT").expect("a file for their names");
        let mut list = std::fs::OpenOptions::new().append(true).open(list).unwrap();
        let test = std::thread::current();
        std::io::Write::write_all(&mut list, format!("{}\n", test.name().unwrap()).as_bytes())
            .unwrap();
    }
    now <= until
}

/// The root of the workspace.
pub fn workspace() -> std::path::PathBuf {
    let own = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
    own.parent().unwrap_or(own).to_owned()
}

/// Where the tests keep images, copies and logs.
pub fn scratch() -> std::path::PathBuf {
    workspace().join("target/qemu-tests")
}
