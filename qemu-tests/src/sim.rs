//! The crash simulator: real boots and updates on simulated disks, cut at every write.
//!
//! Reading order: [`fixture`] (the disk and the systems on it) → [`world`] (a device around a
//! disk, and one life of it) → [`session`] (what a started system does) → [`crash`] (what a cut
//! can leave) → [`recover`] (what must hold then) → [`trouble`] (requests that fail) → [`run`]
//! (through all states) → [`scenarios`] → [`report`]. `docs/simulator.md` is the user's page.
pub mod crash;
pub mod fixture;
pub mod planted;
pub mod recover;
pub mod report;
pub mod run;
pub mod scenarios;
pub mod session;
pub mod trouble;
pub mod world;

use std::rc::Rc;
use std::time::Instant;

use crate::simdisk::Store;
use run::{Budget, Figures};
use world::World;

/// Runs every scenario, each with its share of the states.
pub fn run_all(states: u64, seed: u64) -> Vec<(&'static str, Figures)> {
    let store = Rc::new(Store::default());
    let scenarios = scenarios::all();
    let mut left = states;
    let mut rows = Vec::new();
    for (at, scenario) in scenarios.iter().enumerate() {
        let still_to_run = u64::try_from(scenarios.len() - at).unwrap_or(1);
        let budget = Budget { states: left / still_to_run, seed, first_only: false };
        let figures = run::run(&store, scenario, None, budget);
        left = left.saturating_sub(figures.states());
        rows.push((scenario.name, figures));
    }
    rows
}

/// A planted bug, and what was found of it.
pub struct Hunt {
    /// The bug.
    pub name: &'static str,
    /// The state that showed it, and the rule that was broken there.
    pub found: Option<(String, String)>,
    /// States that were looked at until then.
    pub states: u64,
    /// And how long that took.
    pub seconds: f64,
}

/// Looks for every planted bug, in at most so many states each.
pub fn hunt(states: u64, seed: u64) -> Vec<Hunt> {
    planted::BUGS.iter().map(|bug| hunt_one(bug, states, seed)).collect()
}

fn hunt_one(bug: &planted::Planted, states: u64, seed: u64) -> Hunt {
    let start = Instant::now();
    let store = Rc::new(Store::default());
    let scenarios = scenarios::all();
    let mut hunt = Hunt { name: bug.name, found: None, states: 0, seconds: 0.0 };
    for scenario in scenarios.iter().filter(|known| bug.scenarios.contains(&known.name)) {
        let budget = Budget { states, seed, first_only: true };
        let figures = run::run(&store, scenario, Some(&bug.plant), budget);
        hunt.states += figures.states();
        hunt.found = hunt.found.or(figures.broken.into_iter().next());
        if hunt.found.is_some() {
            break;
        }
    }
    hunt.seconds = start.elapsed().as_secs_f64();
    hunt
}

/// Plays one state again, aloud: what was done until the cut, and what comes after it.
pub fn replay(name: &str, seed: u64) -> Result<(), String> {
    let (scenario, path) = name.split_once('/').unwrap_or((name, ""));
    let scenarios = scenarios::all();
    let scenario = scenarios.iter().find(|known| known.name == scenario);
    let scenario = scenario.ok_or_else(|| format!("there is no scenario {name}"))?;
    let store = Rc::new(Store::default());
    let mut world = World::new(&store, scenario);
    let base = world.first_image();
    let troubles = trouble::all(&world, &base);
    if let Some(trouble) = troubles.iter().find(|t| trouble::Name(t).to_string() == path) {
        world.talk = true;
        return trouble::run(&mut world, &base, trouble);
    }
    let path: Vec<&str> = path.split('+').filter(|cut| !cut.is_empty()).collect();
    let (image, expected) = run::find(&mut world, &base, &path, seed)?;
    eprintln!("then ({expected:?}):");
    world.talk = true;
    world.recover(&image, expected).map(|boots| eprintln!("steady after {boots} boots"))
}

/// The command that plays a state again.
pub fn replay_command(name: &str, seed: u64) -> String {
    format!("cargo xtask sim --seed {seed} --only '{name}'")
}
