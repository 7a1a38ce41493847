//! `iota push` as the device sees it: what images it has, one more image, a release to change to.
//!
//! ```text
//! iota app inventory               → {"compose":true,"images":[{"id":…,"layers":[…]}],
//!                                      "arriving":{"digest":HEX,"bytes":…} or null}
//! iota app load HEX LENGTH FROM    ← an archive, perhaps without layers that are here already,
//!                                      from this byte on
//! iota app deploy SECONDS          ← the release as JSON; → what happens, and exit status
//! ```
//!
//! A change of release is one function, whoever asks for it: start it, follow it until it is well,
//! then make it current; if it does not become well, the former release comes back.

use std::fs::File;
use std::io::Read;
use std::time::Duration;

use serde_json::json;

use super::arrival::{Arrivals, Wanted};
use super::demand::Trial;
use super::run::Runner;
use super::{App, Carried, Pushed, Release};
use crate::time::now_s;
use crate::update::Outcome;

/// Longest document of a release: its files and little else.
const MAX_RELEASE: u64 = 16 * 1024 * 1024;

/// How long a release may take to become well unless somebody says otherwise.
pub const LIMIT_S: u64 = 120;

/// What the laptop has to know before it sends anything.
pub fn inventory(runner: &Runner<'_>, arrivals: &Arrivals) -> Result<String, String> {
    let stacks = runner.engine.stacks().map_err(|error| error.to_string())?;
    let images = stacks.iter().map(|(id, layers)| json!({ "id": id, "layers": layers }));
    let compose = runner.places.compose.exists();
    let arriving = arrivals
        .begun()
        .map(|(digest, bytes)| json!({ "digest": digest.to_string(), "bytes": bytes }));
    Ok(format!(
        "{}\n",
        json!({ "compose": compose, "images": images.collect::<Vec<_>>(), "arriving": arriving })
    ))
}

/// Gives the engine an image that comes in.
pub fn load(
    runner: &Runner<'_>,
    arrivals: &Arrivals,
    wanted: &Wanted,
    input: &mut dyn Read,
) -> Result<(), String> {
    arrivals.take(wanted, input, |archive: &mut File| {
        runner.engine.load_image(archive, wanted.length).map_err(|error| error.to_string())
    })
}

/// Changes to a release that comes in.
pub fn deploy(runner: &Runner<'_>, input: impl Read, limit: Duration) -> Outcome {
    let work = || -> Result<Outcome, String> {
        let mut bytes = Vec::new();
        let read = input.take(MAX_RELEASE).read_to_end(&mut bytes);
        read.map_err(|error| format!("cannot read the release: {error}"))?;
        let pushed = Pushed::parse(&bytes)?;
        let _lock = runner.lock()?;
        let carried = runner.places.carried()?;
        let former = runner.places.current(&pushed.name, &carried)?;
        let app = runner.places.add(&pushed, &carried, now_s())?;
        let outcome = change(runner, &app, former.as_ref(), &carried, limit);
        if outcome.code() != 0 {
            runner.places.forget(&app.name, app.release);
            remove_unneeded(runner, &app, &carried);
        }
        Ok(outcome)
    };
    work().unwrap_or_else(Outcome::from)
}

/// Changes to an earlier release: the one before the current one unless it is named.
pub fn roll_back(runner: &Runner<'_>, name: &str, to: Option<Release>, limit: Duration) -> Outcome {
    let work = || -> Result<Outcome, String> {
        let _lock = runner.lock()?;
        let carried = runner.places.carried()?;
        let current = super::verbs::find(runner, name, &carried)?;
        let mut earlier = runner.places.history(name, &carried).into_iter().map(|(it, _)| it);
        let to = match to {
            Some(release) => Some(release),
            None => earlier.find(|release| *release < current.release),
        };
        let Some(to) = to else {
            return Ok(Outcome::Nothing(format!("app {name} has no earlier release")));
        };
        if to == current.release {
            return Ok(Outcome::Nothing(format!("app {name} runs release {to} already")));
        }
        let app = runner.places.release(name, to, &carried)?.ok_or_else(|| {
            format!("app {name} has no release {to}\nhint: `iota app history {name}` lists them")
        })?;
        Ok(change(runner, &app, Some(&current), &carried, limit))
    };
    work().unwrap_or_else(Outcome::from)
}

fn change(
    runner: &Runner<'_>,
    app: &App,
    former: Option<&App>,
    carried: &Carried,
    limit: Duration,
) -> Outcome {
    let App { name, release, .. } = app;
    let started = runner
        .start(app, carried, Trial::Runs)
        .and_then(|()| runner.start_on_demand(app))
        .and_then(|()| runner.follow(app, limit));
    let before = runner.places.needed_images(carried);
    match started.and_then(|()| runner.places.make_current(app, carried)) {
        Ok(()) => {
            if let Err(error) = runner.end_trial(app) {
                // It serves as it is, and keeps running until the next start of the device.
                (runner.say)(&format!("app {name}: {error}"));
            }
            runner.remove_images(&before, carried);
            let facts = json!({ "app": name, "release": release.to_string() });
            Outcome::Done(format!("app {name}: release {release} is healthy and current"), facts)
        }
        Err(why) => {
            runner.say_last_words(name);
            let left = go_back(runner, name, former, carried);
            let hint =
                Some(format!("what its containers said is above; `iota app list` shows {name}"));
            Outcome::Failed { error: format!("release {release}: {why}"), hint, left: Some(left) }
        }
    }
}

/// The former release again, or none as before.
fn go_back(
    runner: &Runner<'_>,
    name: &str,
    former: Option<&App>,
    carried: &Carried,
) -> &'static str {
    let back = match former {
        Some(app) => {
            runner.start(app, carried, Trial::None).map(|()| "the former release runs again")
        }
        None => runner.stop(name).map(|()| "there was no former release: nothing of it runs"),
    };
    back.unwrap_or_else(|error| {
        (runner.say)(&format!("app {name}: {error}"));
        "the former release did not start either; the next start of the device tries again"
    })
}

fn remove_unneeded(runner: &Runner<'_>, app: &App, carried: &Carried) {
    let images: Vec<String> = app.images.iter().map(|image| image.id.clone()).collect();
    runner.remove_images(&images, carried);
}

/// The releases of an app, the newest first.
pub fn history(runner: &Runner<'_>, name: &str, json: bool) -> Result<String, String> {
    let carried = runner.places.carried()?;
    let current = super::verbs::find(runner, name, &carried)?.release;
    let releases = runner.places.history(name, &carried);
    if json {
        let releases = releases.iter().map(|(release, time_s)| {
            let is_current = *release == current;
            json!({ "release": release.to_string(), "time-s": time_s, "current": is_current })
        });
        return Ok(format!(
            "{}\n",
            json!({ "app": name, "releases": releases.collect::<Vec<_>>() })
        ));
    }
    let line = |(release, time_s): &(Release, Option<u64>)| {
        let mark = if *release == current { "  current" } else { "" };
        let from = match time_s {
            Some(time_s) => format!("pushed at {time_s} s since 1970"),
            None => "carried by the system".to_owned(),
        };
        format!("{release}  {from}{mark}\n")
    };
    Ok(releases.iter().map(line).collect())
}
