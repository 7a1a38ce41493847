//! `iota app …`, for people and for `iota push`.

use std::os::unix::process::CommandExt as _;
use std::process::ExitCode;

use ondisk::digest::Digest;
use serde_json::{Value, json};

use super::arrival::Wanted;
use super::demand::Trial;
use super::push::LIMIT_S;
use super::run::Runner;
use super::{App, Carried, Release};
use crate::update::Outcome;

/// What to do with apps.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AppVerb {
    /// Say how it stands with each.
    List {
        /// For programs.
        json: bool,
    },
    /// Print what the containers of one have said.
    Logs {
        /// Which one.
        name: String,
        /// And what they say from now on.
        follow: bool,
    },
    /// Stop and start the containers of one.
    Restart {
        /// Which one.
        name: String,
        /// For programs.
        json: bool,
    },
    /// List the releases of one.
    History {
        /// Which one.
        name: String,
        /// For programs.
        json: bool,
    },
    /// Change to an earlier release of one.
    RollBack {
        /// Which one.
        name: String,
        /// Which release; the one before the current one if absent.
        to: Option<Release>,
        /// For programs.
        json: bool,
    },
    /// Tell a laptop what images there are.
    Inventory,
    /// Take an image in.
    Load(Wanted),
    /// Take a release in, which has so many seconds to become well.
    Deploy(u64),
    /// Look whether the engine holds the images of the root as they were built.
    Verify {
        /// And put in order what it does not.
        repair: bool,
        /// For programs.
        json: bool,
    },
    /// Take back what was pushed.
    Remove {
        /// Which one.
        name: String,
        /// For programs.
        json: bool,
    },
}

impl AppVerb {
    /// From the words after `app`.
    pub fn parse(words: &[&str], json: bool, follow: bool) -> Result<Self, String> {
        let name = |name: &str| super::app_name(name).map(str::to_owned);
        if follow && !matches!(words, ["logs", ..]) {
            return Err("--follow belongs after `app logs`".to_owned());
        }
        Ok(match *words {
            ["list"] => Self::List { json },
            ["logs", ..] if json => return Err("`app logs` has no --json".to_owned()),
            ["logs", app] => Self::Logs { name: name(app)?, follow },
            ["restart", app] => Self::Restart { name: name(app)?, json },
            ["rm", app] => Self::Remove { name: name(app)?, json },
            ["history", app] => Self::History { name: name(app)?, json },
            ["rollback", app] => Self::RollBack { name: name(app)?, to: None, json },
            ["rollback", app, to] => {
                Self::RollBack { name: name(app)?, to: Some(to.parse()?), json }
            }
            ["verify"] => Self::Verify { repair: false, json },
            ["repair"] => Self::Verify { repair: true, json },
            ["inventory"] => Self::Inventory,
            ["load", digest, length, from] => Self::Load(Wanted {
                digest: Digest::from_hex(digest)
                    .ok_or_else(|| format!("`{digest}` is not a SHA-256"))?,
                length: number(length)?,
                from: number(from)?,
            }),
            ["deploy"] => Self::Deploy(LIMIT_S),
            ["deploy", seconds] => Self::Deploy(number(seconds)?),
            ["logs" | "restart" | "rm" | "history" | "rollback"] => {
                return Err(format!("`app {}` needs the name of an app", words.concat()));
            }
            ["list" | "verify" | "repair", word, ..]
            | ["rollback", _, _, word, ..]
            | [_, _, word, ..] => {
                return Err(format!("`{word}` is one word too many"));
            }
            _ => return Err(VERBS.to_owned()),
        })
    }
}

const VERBS: &str = "`app` is followed by `list`, `logs`, `restart`, `history`, `rollback`, \
                     `rm`, `verify` or `repair`";

fn number(text: &str) -> Result<u64, String> {
    text.parse().map_err(|_| format!("`{text}` is not a number"))
}

/// All apps, as text or JSON, and whether all are well.
pub fn list(runner: &Runner<'_>, json: bool) -> Result<(String, bool), String> {
    let states = runner.states()?;
    let is_well = states.iter().all(super::state::AppState::is_well);
    let text = match json {
        true => {
            let apps: Vec<Value> = states.iter().map(super::state::AppState::json).collect();
            format!("{}\n", json!({ "well": is_well, "apps": apps }))
        }
        false if states.is_empty() => "no apps\n".to_owned(),
        false => states.iter().map(|state| format!("{}\n", state.text())).collect(),
    };
    Ok((text, is_well))
}

/// Becomes Compose, which prints what the containers have said.
pub fn logs(runner: &Runner<'_>, name: &str, follow: bool) -> Result<ExitCode, String> {
    find(runner, name, &runner.places.carried()?)?;
    let mut command = runner.command(name);
    command.args(["logs", "--no-color"]).args(follow.then_some("--follow"));
    Err(format!("cannot run Compose: {}", command.exec()))
}

/// The current release of an app; without it, what else was meant.
pub(super) fn find(runner: &Runner<'_>, name: &str, carried: &Carried) -> Result<App, String> {
    let found = runner.places.current(name, carried)?;
    found.ok_or_else(|| {
        let names = runner.places.names(carried);
        match config::suggest::nearest(name, names.iter().map(String::as_str)) {
            Some(nearest) => format!("there is no app `{name}`\nhint: did you mean `{nearest}`?"),
            None => format!("there is no app `{name}`\nhint: `iota app list` lists them"),
        }
    })
}

/// Stops the containers of an app and starts them again.
pub fn restart(runner: &Runner<'_>, name: &str) -> Outcome {
    let work = || -> Result<Outcome, String> {
        let _lock = runner.lock()?;
        let app = find(runner, name, &runner.places.carried()?)?;
        runner.restart(&app)?;
        Ok(Outcome::Done(format!("app {name} restarted"), json!({ "app": name })))
    };
    work().unwrap_or_else(Outcome::from)
}

/// Stops what was pushed and forgets it; the release that the system carries comes back.
pub fn remove(runner: &Runner<'_>, name: &str) -> Outcome {
    let work = || -> Result<Outcome, String> {
        let _lock = runner.lock()?;
        let carried = runner.places.carried()?;
        let app = find(runner, name, &carried)?;
        if app.release == Release::System {
            return Err(format!(
                "app {name} is part of this system\nhint: build an image without it; what is \
                 pushed under its name takes its place"
            ));
        }
        runner.stop(name)?;
        let images: Vec<String> = app.images.iter().map(|image| image.id.clone()).collect();
        runner.places.forget_all(name)?;
        let back = runner.places.release(name, Release::System, &carried)?;
        if let Some(app) = &back {
            runner.start(app, &carried, Trial::None)?;
            runner.places.note_system(app)?;
        }
        runner.remove_images(&images, &carried);
        let text = match back {
            Some(_) => format!("app {name}: the system's own release runs again"),
            None => format!("app {name} is gone; its volumes stay"),
        };
        Ok(Outcome::Done(text, json!({ "app": name })))
    };
    work().unwrap_or_else(Outcome::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn command_lines_mean_what_they_say() {
        let parse = |line: &str| AppVerb::parse(&line.split(' ').collect::<Vec<_>>(), false, false);
        let name = || "web".to_owned();
        assert_eq!(parse("list"), Ok(AppVerb::List { json: false }));
        assert_eq!(parse("restart web"), Ok(AppVerb::Restart { name: name(), json: false }));
        assert_eq!(parse("verify"), Ok(AppVerb::Verify { repair: false, json: false }));
        assert_eq!(parse("repair"), Ok(AppVerb::Verify { repair: true, json: false }));
        assert_eq!(parse("rm web"), Ok(AppVerb::Remove { name: name(), json: false }));
        let logs = AppVerb::parse(&["logs", "web"], false, true);
        assert_eq!(logs, Ok(AppVerb::Logs { name: name(), follow: true }));
        let digest = Digest::of(b"archive");
        let load = parse(&format!("load {digest} 10 4"));
        assert_eq!(load, Ok(AppVerb::Load(Wanted { digest, length: 10, from: 4 })));
        for line in ["", "list x", "rm", "rm a b", "rm ../a", "start web", "load 00 10 4"] {
            assert!(parse(line).is_err(), "{line}");
        }
        assert!(AppVerb::parse(&["list"], false, true).is_err());
        assert!(AppVerb::parse(&["logs", "web"], true, false).is_err());
    }
}
