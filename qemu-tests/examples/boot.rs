//! Boots any disk image as `iota run` does: `cargo run -p qemu-tests --example boot -- disk.img`.
//!
//! For work on the guest's programs: no build, no board. `ready` as a second argument ends it
//! there.

use std::process::ExitCode;
use std::time::Duration;

use builder::host::progress::Progress;
use builder::host::store::Store;
use builder::host::tools::Tools;
use builder::verbs::run::stages::Stage;
use builder::verbs::run::{self, Options};

fn main() -> ExitCode {
    let mut arguments = std::env::args().skip(1);
    let Some(disk) = arguments.next() else {
        eprintln!("error: name a disk image");
        return ExitCode::from(2);
    };
    let until = arguments.next().is_some_and(|word| word == "ready").then_some(Stage::Ready);
    let limit = until.map(|_| Duration::from_secs(300));
    let options = Options { timings: true, until, limit, ..Options::new(disk) };
    let outcome = Store::open(None).and_then(|store| {
        let progress = Progress::new(false);
        let tools = Tools { store: &store, mirror: None, offline: false, progress: &progress };
        run::run(&options, &tools)
    });
    outcome.unwrap_or_else(|error| {
        eprintln!("error: {}", error.chain());
        ExitCode::from(2)
    })
}
