//! Fuzzing of every parser of untrusted bytes, on stable Rust and in this process.
//!
//! Guidance by coverage needs compiler flags that stable cargo does not offer without a second
//! build of everything, so this driver is guided by answers instead: an input that makes a parser
//! answer in a way not seen before (another error, another field) joins the corpus. [`mutate`]
//! knows nothing of formats; each [`Target`] mends what would stop every input at the door, such
//! as checksums and signatures. Same seed, same inputs. See `docs/decisions/fuzzing.md`.
use std::collections::HashSet;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::{Duration, Instant};

use crate::simdisk::scramble;

mod import_target;
mod kernel_target;
mod mutate;
mod network_target;
mod online_targets;
mod targets;

pub use targets::TARGETS;

/// A parser and what must hold of it.
pub struct Target {
    /// Its name on the command line.
    pub name: &'static str,
    /// Good inputs, and inputs that were trouble once.
    pub seeds: fn() -> Vec<Vec<u8>>,
    /// Makes checksums and the like right again.
    pub mend: fn(&mut Vec<u8>),
    /// Parses the input and panics if an invariant is broken. Gives the parser's answer in words.
    pub run: fn(&[u8]) -> String,
}

/// What a time of fuzzing came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// Inputs that were tried.
    pub inputs: u64,
    /// Different kinds of answers.
    pub answers: usize,
    /// The input that broke something, and what it broke.
    pub crash: Option<(Vec<u8>, String)>,
}

/// Longest input: the parsers all know where to stop.
const MOST_BYTES: usize = 128 * 1024;

/// Fuzzes one parser for some time.
pub fn run(target: &Target, time: Duration, seed: u64) -> Outcome {
    let start = Instant::now();
    let mut corpus = (target.seeds)();
    let mut outcome = Outcome { inputs: 0, answers: 0, crash: None };
    let mut answers = HashSet::new();
    for input in corpus.clone() {
        match try_one(target, &input) {
            Ok(answer) => drop(answers.insert(kind(&answer))),
            Err(broken) => return Outcome { crash: Some((input, broken)), ..outcome },
        }
    }
    let mut random = mutate::Random(scramble(seed));
    while start.elapsed() < time {
        let mut input = corpus[random.below(corpus.len())].clone();
        mutate::mutate(&mut input, &corpus, &mut random);
        input.truncate(MOST_BYTES);
        // Now and then the door itself is what is tried.
        if random.below(8) != 0 {
            (target.mend)(&mut input);
        }
        outcome.inputs += 1;
        match try_one(target, &input) {
            Ok(answer) if answers.insert(kind(&answer)) => corpus.push(input),
            Ok(_) => {}
            Err(broken) => {
                outcome.crash = Some((input, broken));
                break;
            }
        }
    }
    outcome.answers = answers.len();
    outcome
}

/// Tries one input; the error is what was broken.
pub fn try_one(target: &Target, input: &[u8]) -> Result<String, String> {
    catch_unwind(AssertUnwindSafe(|| (target.run)(input))).map_err(|panic| {
        let text = panic.downcast_ref::<String>().cloned();
        let text = text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()));
        text.unwrap_or_else(|| "panicked".to_owned())
    })
}

/// An answer without its numbers and names: what tells one path through a parser from another.
fn kind(answer: &str) -> String {
    let plain = |word: &&str| {
        let word = word.trim_end_matches([',', ':', ';']);
        (2..=14).contains(&word.len()) && word.bytes().all(|byte| byte.is_ascii_lowercase())
    };
    answer.split(' ').filter(plain).take(6).collect::<Vec<_>>().join(" ")
}

/// An outcome in a line; a crash with its input, kept in a file, and the command that tries it
/// again.
pub fn line(target: &Target, outcome: &Outcome) -> String {
    let Outcome { inputs, answers, crash } = outcome;
    let line = format!("{:14} {inputs:>9} inputs, {answers:>3} kinds of answers", target.name);
    let Some((input, broken)) = crash else { return line };
    let path = crate::scratch().join(format!("fuzz-{}.input", target.name));
    let kept =
        std::fs::create_dir_all(crate::scratch()).and_then(|()| std::fs::write(&path, input));
    let again = match kept {
        Ok(()) => format!("cargo xtask fuzz {} --input {}", target.name, path.display()),
        Err(error) => format!("{}: {error}", path.display()),
    };
    format!("{line}\nBROKEN: {broken}\n  input: {:?}\n  {again}", input.escape_ascii().to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Panics on inputs that start with `!!` and contain a zero: a driver that finds nothing here
    /// finds nothing anywhere.
    const BROKEN: Target = Target {
        name: "broken",
        seeds: || vec![b"#hello".to_vec()],
        mend: |input| {
            if let Some(first) = input.first_mut() {
                *first = b'!';
            }
        },
        run: |input| {
            assert!(!(input.first() == Some(&b'!') && input.contains(&0)), "a zero in a shout");
            format!("{} bytes", if input.len() > 6 { "more" } else { "few" })
        },
    };

    #[test]
    fn a_planted_panic_is_found_and_plays_again() {
        let outcome = run(&BROKEN, Duration::from_secs(10), 1);
        let (input, broken) = outcome.crash.expect("found");
        assert_eq!(broken, "a zero in a shout");
        assert_eq!(try_one(&BROKEN, &input), Err(broken));
    }

    #[test]
    fn seeds_are_good_inputs() {
        for target in &TARGETS {
            let answers: Vec<_> =
                (target.seeds)().iter().map(|seed| try_one(target, seed)).collect();
            let good = |answer: &Result<String, String>| {
                answer.as_ref().is_ok_and(|answer| answer.starts_with("good"))
            };
            assert!(answers.iter().any(good), "{}: {answers:?}", target.name);
            assert!(answers.iter().all(Result::is_ok), "{}: {answers:?}", target.name);
        }
    }
}
