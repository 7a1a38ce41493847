//! Every parser of untrusted bytes, fed with garbled input for a while.

use std::io::Write as _;
use std::thread;
use std::time::Duration;

use qemu_tests::fuzz::{self, TARGETS};

#[test]
fn no_parser_panics_or_breaks_its_invariants() {
    let slow = std::env::var_os("RUN_SLOW_TESTS").is_some_and(|value| !value.is_empty());
    let time = Duration::from_secs(if slow { 30 } else { 1 });
    let check = |target: &fuzz::Target| {
        let outcome = fuzz::run(target, time, 1);
        let line = fuzz::line(target, &outcome);
        let _ = writeln!(std::io::stderr(), "{line}");
        assert!(outcome.crash.is_none(), "{line}");
        assert!(outcome.inputs > 100, "{} is too slow to be tested", target.name);
    };
    let (one, other) = TARGETS.split_at(TARGETS.len() / 2);
    thread::scope(|scope| {
        scope.spawn(|| one.iter().for_each(check));
        other.iter().for_each(check);
    });
}
