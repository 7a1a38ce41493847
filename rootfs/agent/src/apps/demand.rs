//! Services on demand as Compose sees them: it makes their containers, does not start them, and
//! leaves their ports to `iota on-demand` ([`crate::on_demand`]).

use std::path::PathBuf;

use super::App;
use crate::files;
use crate::on_demand::plan::{Places, Plan, compose_text};

/// Whether a release has to show that it works.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trial {
    /// It has, or nobody asks.
    None,
    /// It is new: what would wait for a connection is started too, and is not stopped.
    Runs,
}

/// What Compose is asked in turn to bring an app up.
///
/// First what runs all the time, with all that it depends on, which is never a service on demand;
/// then the containers of the others are made.
pub fn up(app: &App) -> Vec<Vec<&str>> {
    let (waiting, running) = split(app);
    let command = |how| ["up", how, "--remove-orphans", "--no-build", "--quiet-pull"].into_iter();
    let mut commands = Vec::new();
    if !running.is_empty() {
        // Without names Compose would start all of them.
        let names = if waiting.is_empty() { Vec::new() } else { running };
        commands.push(command("--detach").chain(names).collect());
    }
    if !waiting.is_empty() {
        commands.push(command("--no-start").chain(waiting).collect());
    }
    commands
}

/// What Compose is asked in turn to restart an app.
pub fn restart(app: &App) -> Vec<Vec<&str>> {
    let (waiting, running) = split(app);
    let mut commands = Vec::new();
    if !running.is_empty() {
        let names = if waiting.is_empty() { Vec::new() } else { running };
        commands.push(["restart"].into_iter().chain(names).collect());
    }
    if !waiting.is_empty() {
        commands.push(["stop"].into_iter().chain(waiting).collect());
    }
    commands
}

/// The names of the services that wait for a connection, and of the others.
fn split(app: &App) -> (Vec<&str>, Vec<&str>) {
    let of = |waits: bool| {
        let services = app.services.iter().filter(move |it| it.on_demand.is_some() == waits);
        services.map(|it| it.name.as_str()).collect()
    };
    (of(true), of(false))
}

/// The ports of an app that are held for it.
pub struct Ports<'a> {
    /// Where that is told.
    pub places: &'a Places,
    /// The app.
    pub app: &'a App,
}

impl Ports<'_> {
    /// Before Compose changes anything: ports that are held already stay so, and no connection is
    /// lost; if the release before held others, they are free when this comes back.
    pub fn prepare(&self, trial: Trial) -> Result<(), String> {
        let name = &self.app.name;
        let Some(before) = self.places.planned(name) else { return Ok(()) };
        let wanted = Plan { services: self.app.on_demand(), ..before.clone() };
        match wanted.holds_as(&before) {
            true => self.hold(trial),
            false => self.places.withdraw(name),
        }
    }

    /// After it: they are held when this comes back.
    pub fn hold(&self, trial: Trial) -> Result<(), String> {
        let services = self.app.on_demand();
        match services.is_empty() {
            true => self.places.withdraw(&self.app.name),
            false => self.places.want(&self.app.name, trial == Trial::Runs, services),
        }
    }

    /// What Compose reads beside the app's own file, if there are ports that it is to leave alone.
    pub fn compose_file(&self) -> Result<Option<PathBuf>, String> {
        let (waiting, _) = split(self.app);
        if waiting.is_empty() {
            return Ok(None);
        }
        let path = self.places.compose(&self.app.name);
        let text = compose_text(waiting.into_iter());
        self.places
            .make()
            .and_then(|()| files::replace(&path, text.as_bytes(), 0o600))
            .map_err(|error| format!("cannot write {}: {error}", path.display()))?;
        Ok(Some(path))
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Release, Service};
    use super::*;
    use crate::on_demand::plan::tests::terms;

    fn app(services: &[(&str, bool)]) -> App {
        let service = |(name, waits): &(&str, bool)| Service {
            name: (*name).to_owned(),
            image: "x:1".to_owned(),
            on_demand: waits.then(|| terms(&[(80, 80)])),
        };
        App {
            name: "shop".to_owned(),
            release: Release::System,
            services: services.iter().map(service).collect(),
            images: Vec::new(),
            directory: "/".into(),
        }
    }

    fn lines(commands: &[Vec<&str>]) -> Vec<String> {
        commands.iter().map(|words| words.join(" ")).collect()
    }

    #[test]
    fn an_app_without_services_on_demand_is_composes_alone() {
        let app = app(&[("web", false), ("db", false)]);
        let up = "up --detach --remove-orphans --no-build --quiet-pull";
        assert_eq!(lines(&super::up(&app)), [up]);
        assert_eq!(lines(&restart(&app)), ["restart"]);
        let directory = tempfile::tempdir().unwrap();
        let places = Places { root: directory.path().join("on-demand") };
        let ports = Ports { places: &places, app: &app };
        assert_eq!(ports.compose_file(), Ok(None));
        // Nobody is there to be asked, and nobody is.
        assert_eq!(ports.prepare(Trial::None).and_then(|()| ports.hold(Trial::None)), Ok(()));
    }

    #[test]
    fn containers_on_demand_are_made_and_not_started() {
        let mixed = app(&[("web", true), ("db", false), ("api", true)]);
        let rest = "--remove-orphans --no-build --quiet-pull";
        let expected = [format!("up --detach {rest} db"), format!("up --no-start {rest} web api")];
        assert_eq!(lines(&up(&mixed)), expected);
        assert_eq!(lines(&restart(&mixed)), ["restart db", "stop web api"]);
        let alone = app(&[("web", true)]);
        assert_eq!(lines(&up(&alone)), [format!("up --no-start {rest} web")]);
        assert_eq!(lines(&restart(&alone)), ["stop web"]);
    }
}
