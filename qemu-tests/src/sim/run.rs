//! Runs a scenario through as many states as it is given: every cut of the first run, cuts during
//! the recovery from each of those, chains of up to five cuts, and requests that fail.
use std::collections::HashSet;
use std::rc::Rc;

use super::crash::{Effort, Kind, State, states};
use super::recover::Expected;
use super::trouble;
use super::world::{Mark, Scenario, World};
use crate::simdisk::{Image, Mutation, Op, Store, scramble};

/// How far to go.
#[derive(Clone, Copy, Debug)]
pub struct Budget {
    /// Most states to look at.
    pub states: u64,
    /// Where randomness starts.
    pub seed: u64,
    /// Whether to end at the first rule that is broken.
    pub first_only: bool,
}

/// What was looked at, and what was found.
#[derive(Clone, Debug, Default)]
pub struct Figures {
    /// After one cut, by [`Kind::class`].
    pub single: [u64; Kind::CLASSES.len()],
    /// With requests that failed.
    pub trouble: u64,
    /// After a cut during the recovery from a cut.
    pub second: u64,
    /// After three to five cuts.
    pub deep: u64,
    /// Different ones among them.
    pub distinct: u64,
    /// Whether every state after one cut was looked at, and every one after two.
    pub complete: [bool; 2],
    /// Operations of the run without a cut: places to cut at.
    pub operations: u64,
    /// Most boots to the end.
    pub boots: usize,
    /// Rules that were broken: the state's name, and how.
    pub broken: Vec<(String, String)>,
}

impl Figures {
    /// All states.
    pub fn states(&self) -> u64 {
        self.single.iter().sum::<u64>() + self.trouble + self.second + self.deep
    }

    /// Adds another scenario's.
    pub fn add(&mut self, other: &Self) {
        for (sum, number) in self.single.iter_mut().zip(other.single) {
            *sum += number;
        }
        self.trouble += other.trouble;
        self.second += other.second;
        self.deep += other.deep;
        self.distinct += other.distinct;
        self.operations += other.operations;
        self.boots = self.boots.max(other.boots);
        self.broken.extend(other.broken.iter().cloned());
    }
}

/// A bug to plant: makes the mutation for one life of the device.
pub type Bug<'a> = &'a dyn Fn() -> Box<dyn Mutation<Mark>>;

/// Runs one scenario.
pub fn run(
    store: &Rc<Store>,
    scenario: &Scenario,
    bug: Option<Bug<'_>>,
    budget: Budget,
) -> Figures {
    let mut world = World::new(store, scenario);
    world.bug = bug;
    let mut run = Run {
        world,
        budget,
        figures: Figures::default(),
        seen: HashSet::new(),
        sample: Vec::new(),
        offered: 0,
    };
    run.all();
    run.figures.distinct = u64::try_from(run.seen.len()).unwrap_or(u64::MAX);
    run.figures
}

/// A state to cut again after: its name, its contents, and what must hold there.
type Sampled = (String, Image, Expected);

/// How many states are looked at after the last cut of a chain.
const LAST_CUTS: usize = 16;

/// How many of them are kept at most.
const MOST_SAMPLED: usize = 3000;

struct Run<'a> {
    world: World<'a>,
    budget: Budget,
    figures: Figures,
    seen: HashSet<(u64, Expected)>,
    sample: Vec<Sampled>,
    /// How many different states there were to choose the sample from.
    offered: u64,
}

impl Run<'_> {
    fn all(&mut self) {
        let base = self.world.first_image();
        let name = self.world.scenario.name.to_owned();
        self.check(&name, &base, Expected::START);
        let ops = self.world.whole_run(&base, 0);
        self.figures.operations = u64::try_from(ops.len()).unwrap_or(u64::MAX);
        let limit = self.budget.states * 6 / 10;
        self.figures.complete[0] =
            self.cuts(&(name.clone(), base.clone(), Expected::START), &ops, limit);
        self.troubles(&name, &base);
        let limit = self.budget.states * 9 / 10;
        self.figures.complete[1] = self.second_cuts(limit);
        self.chains();
    }

    /// Whether there is no reason to look at more.
    fn is_over(&self, limit: u64) -> bool {
        let found = self.budget.first_only && !self.figures.broken.is_empty();
        found || self.figures.broken.len() >= 20 || self.figures.states() >= limit
    }

    fn check(&mut self, name: &str, image: &Image, expected: Expected) -> bool {
        if !self.seen.insert((image.print(), expected)) {
            return false;
        }
        match self.world.recover(image, expected) {
            Ok(boots) => self.figures.boots = self.figures.boots.max(boots),
            Err(broken) => self.figures.broken.push((name.to_owned(), broken)),
        }
        true
    }

    /// Every cut of a first run. Whether that was all of them.
    fn cuts(&mut self, from: &Sampled, ops: &[Op<Mark>], limit: u64) -> bool {
        let share = limit / (self.figures.operations + 1);
        let random = usize::try_from(share.clamp(4, 10_000)).unwrap_or(4);
        let effort = Effort::full(random, self.budget.seed);
        let store = Rc::clone(&self.world.store);
        let expectations = expectations(ops, from.2);
        let mut complete = true;
        states(&store, &from.1, ops, effort, |state| {
            self.figures.single[state.kind.class()] += 1;
            let expected = expectation(&expectations, &state, from.2);
            let name = format!("{}/{state}", from.0);
            if self.check(&name, &state.image, expected) {
                self.offer((name, state.image, expected));
            }
            complete = !self.is_over(limit);
            complete
        });
        complete
    }

    /// Keeps a fair sample of what it is offered.
    fn offer(&mut self, state: Sampled) {
        self.offered += 1;
        if self.sample.len() < MOST_SAMPLED {
            self.sample.push(state);
            return;
        }
        let place = scramble(self.budget.seed ^ self.offered) % self.offered;
        if let Some(slot) = usize::try_from(place).ok().and_then(|at| self.sample.get_mut(at)) {
            *slot = state;
        }
    }

    fn troubles(&mut self, name: &str, base: &Image) {
        for trouble in trouble::all(&self.world, base) {
            let broken = trouble::run(&mut self.world, base, &trouble);
            self.figures.trouble += 1;
            if let Err(broken) = broken {
                self.figures.broken.push((format!("{name}/{}", trouble::Name(&trouble)), broken));
            }
            if self.is_over(u64::MAX) {
                return;
            }
        }
    }

    /// Cuts during the recovery from each sampled state. Whether those were all there are.
    fn second_cuts(&mut self, limit: u64) -> bool {
        let store = Rc::clone(&self.world.store);
        let sample = self.sample.clone();
        let all = u64::try_from(sample.len()).unwrap_or(u64::MAX) == self.offered;
        for at in shuffled(sample.len(), self.budget.seed) {
            let (name, image, expected) = &sample[at];
            let ops = self.world.whole_run(image, expected.done);
            let expectations = expectations(&ops, *expected);
            states(&store, image, &ops, Effort::second(self.budget.seed), |state| {
                self.figures.second += 1;
                let expected = expectation(&expectations, &state, *expected);
                self.check(&format!("{name}+{state}"), &state.image, expected);
                !self.is_over(limit)
            });
            if self.is_over(limit) {
                return false;
            }
        }
        all
    }

    /// Chains of three to five cuts, until the budget is spent or nothing new turns up.
    fn chains(&mut self) {
        let mut random = Random(self.budget.seed ^ 0xc4a1);
        let mut stale = 0;
        while !self.sample.is_empty() && !self.is_over(self.budget.states) && stale < 2000 {
            let at = random.below(self.sample.len());
            let (mut name, mut image, mut expected) = self.sample[at].clone();
            let depth = 2 + random.below(4);
            for _ in 2..depth {
                match self.random_cuts(1, &mut random, &image, expected).pop() {
                    Some((state, next)) => {
                        name = format!("{name}+{state}");
                        (image, expected) = (state.image, next);
                    }
                    None => break,
                }
            }
            // To know what the last cut can leave costs far more than to look at some of it.
            stale += 1;
            for (state, expected) in self.random_cuts(LAST_CUTS, &mut random, &image, expected) {
                self.figures.deep += 1;
                let new = self.check(&format!("{name}+{state}"), &state.image, expected);
                stale = if new { 0 } else { stale + 1 };
                if self.is_over(self.budget.states) {
                    break;
                }
            }
        }
    }

    /// Some of the states after one more cut, chosen fairly.
    fn random_cuts(
        &mut self,
        most: usize,
        random: &mut Random,
        image: &Image,
        before: Expected,
    ) -> Vec<(State, Expected)> {
        let ops = self.world.whole_run(image, before.done);
        let expectations = expectations(&ops, before);
        let mut chosen: Vec<State> = Vec::new();
        let mut count = 0;
        states(&self.world.store, image, &ops, Effort::second(self.budget.seed), |state| {
            count += 1;
            if chosen.len() < most {
                chosen.push(state);
            } else if let Some(slot) = chosen.get_mut(random.below(count)) {
                *slot = state;
            }
            true
        });
        let with = |state| {
            let expected = expectation(&expectations, &state, before);
            (state, expected)
        };
        chosen.into_iter().map(with).collect()
    }
}

/// Goes to one named state and gives its contents and what must hold there. Says what is done on
/// the way there.
pub fn find(
    world: &mut World<'_>,
    base: &Image,
    path: &[&str],
    seed: u64,
) -> Result<(Image, Expected), String> {
    let (mut image, mut expected) = (base.clone(), Expected::START);
    for (depth, name) in path.iter().enumerate() {
        let ops = world.whole_run(&image, expected.done);
        let effort = if depth == 0 { Effort::full(10_000, seed) } else { Effort::second(seed) };
        let mut found = None;
        states(&world.store, &image, &ops, effort, |state| {
            if state.to_string() == *name {
                found = Some(state);
            }
            found.is_none()
        });
        let state = found.ok_or_else(|| format!("there is no state {name}"))?;
        eprintln!("run to the cut at operation {} ({}):", state.after, state.kind);
        for (at, op) in ops.iter().take(state.after).enumerate() {
            eprintln!("  {:3} {}", at + 1, super::report::Line(op));
        }
        expected = expectation(&expectations(&ops, expected), &state, expected);
        image = state.image;
    }
    Ok((image, expected))
}

/// What must hold after so many operations.
fn expectations(ops: &[Op<Mark>], start: Expected) -> Vec<Expected> {
    let after = |expected: &mut Expected, op| {
        *expected = expected.after(op);
        Some(*expected)
    };
    std::iter::once(start).chain(ops.iter().scan(start, after)).collect()
}

/// What must hold in a state. A flush that lied takes all promises back, and so does a second
/// fault of the medium: the record has two copies, not three.
fn expectation(expectations: &[Expected], state: &State, before: Expected) -> Expected {
    let expected = expectations.get(state.after).copied().unwrap_or(before);
    let lied = matches!(state.kind, Kind::Lied(_) | Kind::LiedRandom(_));
    let second_fault = before.cuts > 0 && !state.kind.is_honest();
    let beyond_promises = before.beyond_promises || lied || second_fault;
    Expected { cuts: before.cuts + 1, beyond_promises, ..expected }
}

/// The numbers below `count` in an order that the seed decides.
fn shuffled(count: usize, seed: u64) -> Vec<usize> {
    let mut order: Vec<usize> = (0..count).collect();
    order.sort_by_key(|at| scramble(seed ^ scramble(u64::try_from(*at).unwrap_or(0))));
    order
}

/// Numbers that look random and depend on the seed only.
struct Random(u64);

impl Random {
    fn below(&mut self, end: usize) -> usize {
        self.0 = self.0.wrapping_add(1);
        let end = u64::try_from(end).unwrap_or(1).max(1);
        usize::try_from(scramble(self.0) % end).unwrap_or(0)
    }
}
