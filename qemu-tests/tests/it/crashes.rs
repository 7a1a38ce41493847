//! The crash simulator: no state breaks a rule, and every planted bug does.

use std::io::Write as _;
use std::time::Instant;

use qemu_tests::sim;

/// States in a quick run of the tests, and with `RUN_SLOW_TESTS`: about two minutes, in which some
/// 250,000 of them are different ones.
const QUICK_STATES: u64 = 60_000;
const ALL_STATES: u64 = 3_300_000;
/// States in which each planted bug has to show itself.
const HUNT_STATES: u64 = 20_000;
const SEED: u64 = 1;

#[test]
fn no_cut_and_no_failing_request_breaks_a_rule() {
    let slow = std::env::var_os("RUN_SLOW_TESTS").is_some_and(|value| !value.is_empty());
    let start = Instant::now();
    let rows = sim::run_all(if slow { ALL_STATES } else { QUICK_STATES }, SEED);
    let seconds = start.elapsed().as_secs_f64();
    show(&format!("{}{seconds:.1} s, seed {SEED}", sim::report::table(&rows)));
    let mut broken = String::new();
    for (name, rule) in rows.iter().flat_map(|(_, figures)| figures.broken.iter().take(3)) {
        broken += &format!("{name}: {rule}\n  {}\n", sim::replay_command(name, SEED));
    }
    assert!(broken.is_empty(), "\n{broken}");
}

#[test]
fn every_planted_bug_is_found_within_a_minute() {
    let hunts = sim::hunt(HUNT_STATES, SEED);
    show(&sim::report::hunt_table(&hunts));
    for hunt in &hunts {
        assert!(hunt.found.is_some(), "not found: {}", hunt.name);
        assert!(hunt.seconds <= 60.0, "{} took {:.0} s", hunt.name, hunt.seconds);
    }
}

/// Figures are part of the result, so the runner does not get to hide them.
fn show(table: &str) {
    let _ = writeln!(std::io::stderr(), "\n{table}");
}

#[test]
fn a_printed_name_plays_the_same_state_again() {
    assert_eq!(sim::replay("trial-healthy/4.prefix+2.page4k@8192=00", SEED), Ok(()));
    assert_eq!(sim::replay("update-a-b/write2=EIO", SEED), Ok(()));
    let missing = sim::replay("update-a-b/999.prefix", SEED);
    assert_eq!(missing, Err("there is no state 999.prefix".to_owned()));
}
