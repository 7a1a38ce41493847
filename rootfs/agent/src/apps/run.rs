//! Runs apps: gives the engine their images and has Compose do the rest.

use std::fs;
use std::io::{self, BufRead as _, BufReader};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use super::demand::{self, Trial};
use super::state::{self, AppState, Demand};
use super::store::Places;
use super::{App, COMPOSE_FILE, Carried, Image, Release};
use crate::engine::Engine;
use crate::health::{Gate, Verdict};
use crate::own_config::{Report, time_zone};
use crate::own_disk::Lock;
use crate::services::{self, Work};

/// How long another `iota` may hold the lock before whoever waits gives up.
const LOCK_PATIENCE: Duration = Duration::from_secs(600);

/// How long an app has to be well before it counts as healthy.
pub const WINDOW: Duration = Duration::from_secs(10);

/// Runs the apps of a device.
pub struct Runner<'a> {
    /// Keeps their containers.
    pub engine: &'a dyn Engine,
    /// Where they lie.
    pub places: &'a Places,
    /// Takes a line for people.
    pub say: &'a (dyn Fn(&str) + Sync),
}

impl Runner<'_> {
    /// What is to be done at each start of the device.
    pub fn works<'a>(&'a self) -> Result<Vec<Work<'a>>, String> {
        let carried = self.places.carried()?;
        let mut works = Vec::new();
        let mut add = |name: String, run: Box<dyn Fn() -> Result<(), String> + Sync + 'a>| {
            works.push(Work { name, run });
        };
        if self.engine.runs_on_demand() {
            let resume = || self.engine.resume().map_err(|error| error.to_string());
            add("containers of before".to_owned(), Box::new(resume));
        }
        for name in self.places.left_over(&carried) {
            let remove = move || self.stop(&name).and_then(|()| self.places.forget_all(&name));
            add("app of a former system removed:".to_owned(), Box::new(remove));
        }
        for name in self.places.names(&carried) {
            let title = format!("app {name}");
            add(title, Box::new(move || self.bring_up(&name)));
        }
        if !carried.images.is_empty() {
            add("images".to_owned(), Box::new(|| self.provide_all()));
        }
        Ok(works)
    }

    /// Held while an app is changed: names of images are the engine's, and all apps share them.
    pub fn lock(&self) -> Result<Lock, String> {
        Lock::take_within(&self.places.lock, LOCK_PATIENCE)
    }

    /// Brings an app up as it is now: at each start of the device, and after a change.
    pub fn bring_up(&self, name: &str) -> Result<(), String> {
        let _lock = self.lock()?;
        let carried = self.places.carried()?;
        let Some(app) = self.places.current(name, &carried)? else { return Ok(()) };
        self.start(&app, &carried, Trial::None)?;
        if app.release == Release::System {
            // What the system before this one ran, and nobody else does.
            let gone = self.places.note_system(&app)?;
            self.remove_images(&gone, &carried);
        }
        Ok(())
    }

    /// Starts an app in this release; whoever calls it has the lock. Ports of services on demand
    /// are held when this has come back.
    pub fn start(&self, app: &App, carried: &Carried, trial: Trial) -> Result<(), String> {
        for image in &app.images {
            self.provide(image, carried)?;
        }
        let ports = demand::Ports { places: &self.places.on_demand, app };
        ports.prepare(trial)?;
        for words in demand::up(app) {
            self.compose(app, &words)?;
        }
        ports.hold(trial)
    }

    /// Stops the containers of a project and removes them; its volumes stay.
    pub fn stop(&self, name: &str) -> Result<(), String> {
        self.places.on_demand.withdraw(name)?;
        self.run(self.command(name).args(["down", "--remove-orphans"]), name)
    }

    /// Stops the containers of an app and starts them again; those on demand wait for a connection.
    pub fn restart(&self, app: &App) -> Result<(), String> {
        demand::restart(app).iter().try_for_each(|words| self.compose(app, words))
    }

    /// Starts those that would wait for a connection, to see whether they come up.
    pub fn start_on_demand(&self, app: &App) -> Result<(), String> {
        let failed = |error: crate::client::Error| error.to_string();
        for (service, _) in app.on_demand() {
            let inside = self.engine.inside(&app.name, &service).map_err(failed)?;
            let inside = inside.ok_or_else(|| format!("{service} has no container"))?;
            self.engine.start(&inside.id).map_err(failed)?;
        }
        Ok(())
    }

    /// The trial of a release that became current is over: from now on those on demand are stopped
    /// when nobody is connected.
    pub fn end_trial(&self, app: &App) -> Result<(), String> {
        demand::Ports { places: &self.places.on_demand, app }.hold(Trial::None)
    }

    /// Images carried for nobody in particular, given to the engine at the start.
    pub fn provide_all(&self) -> Result<(), String> {
        let _lock = self.lock()?;
        let carried = self.places.carried()?;
        let used: Vec<String> = (self.places.names(&carried).iter())
            .filter_map(|name| self.places.current(name, &carried).ok()?)
            .flat_map(|app| app.images.into_iter().map(|image| image.id))
            .collect();
        let mut free = carried.images.iter().filter(|image| !used.contains(&image.id));
        free.try_for_each(|image| self.provide(image, &carried))
    }

    /// The engine has the image, and each of its names means it.
    fn provide(&self, image: &Image, carried: &Carried) -> Result<(), String> {
        let failed = |error: crate::client::Error| error.to_string();
        let Image { names, id, .. } = image;
        if !self.engine.has_image(id).map_err(failed)? {
            let found = carried.images.iter().find(|it| it.id == *id);
            let archive = image.archive.as_ref().or(found.and_then(|it| it.archive.as_ref()));
            let Some(archive) = archive else {
                let name = names.first().unwrap_or(id);
                return Err(format!("the engine no longer has {name}\nhint: push the app again"));
            };
            let began = Instant::now();
            let length = services::give(self.engine, archive, id).map_err(|it| it.to_string())?;
            let (kib, ms) = (length / 1024, began.elapsed().as_millis());
            let name = names.first().unwrap_or(id);
            (self.say)(&format!("image {name} loaded: {kib} KiB in {ms} ms"));
        }
        for name in names {
            if self.engine.image_id(name).map_err(failed)?.as_ref() != Some(id) {
                self.engine.name_image(id, name).map_err(failed)?;
            }
        }
        Ok(())
    }

    /// Removes images unless some release needs them; what the engine still uses stays.
    pub fn remove_images(&self, ids: &[String], carried: &Carried) {
        let needed = self.places.needed_images(carried);
        for id in ids.iter().filter(|id| !needed.contains(id)) {
            if let Err(error) = self.engine.remove_image(id) {
                (self.say)(&format!("image {id} cannot be removed: {error}"));
            }
        }
    }

    /// How it stands with an app.
    pub fn state(&self, app: &App) -> Result<AppState, String> {
        self.state_of(app, Trial::None)
    }

    fn state_of(&self, app: &App, trial: Trial) -> Result<AppState, String> {
        let members = self.engine.members(&app.name).map_err(|error| error.to_string())?;
        let answer = self.places.on_demand.answer(&app.name).unwrap_or_default();
        let demand = Demand { troubles: answer.troubles, must_run: trial == Trial::Runs };
        Ok(state::judge(app, &members, &demand))
    }

    /// How it stands with each.
    pub fn states(&self) -> Result<Vec<AppState>, String> {
        let carried = self.places.carried()?;
        let mut states = Vec::new();
        for name in self.places.names(&carried) {
            if let Some(app) = self.places.current(&name, &carried)? {
                states.push(self.state(&app)?);
            }
        }
        Ok(states)
    }

    /// Waits until an app has been well for the window; what is amiss if that takes too long.
    pub fn follow(&self, app: &App, limit: Duration) -> Result<(), String> {
        let start = Instant::now();
        let (mut told, mut gate) = (String::new(), Gate::new(WINDOW));
        loop {
            let state = self.state_of(app, Trial::Runs)?;
            if state.text() != told {
                told = state.text();
                (self.say)(&told);
            }
            gate.count(state.restarts());
            if gate.look(start.elapsed(), state.amiss()) == Verdict::Fit {
                return Ok(());
            }
            if start.elapsed() >= limit {
                let amiss = state.amiss();
                return Err(amiss.unwrap_or_else(|| format!("app {} restarts", app.name)));
            }
            std::thread::sleep(Duration::from_secs(1));
        }
    }

    /// Says what the containers of an app said last, for whoever asks why it did not become well.
    pub fn say_last_words(&self, name: &str) {
        let mut command = self.command(name);
        let output = command.args(["logs", "--no-color", "--tail", "20"]).output();
        let said = output.map(|output| output.stdout).unwrap_or_default();
        String::from_utf8_lossy(&said).lines().for_each(|line| (self.say)(line));
    }

    fn compose(&self, app: &App, words: &[&str]) -> Result<(), String> {
        let mut command = self.command(&app.name);
        command.arg("--project-directory").arg(&app.directory);
        command.arg("--file").arg(app.directory.join(COMPOSE_FILE));
        let ports = demand::Ports { places: &self.places.on_demand, app };
        if let Some(file) = ports.compose_file()? {
            command.arg("--file").arg(file);
        }
        command.args(words);
        self.run(&mut command, &app.name)
    }

    /// Compose for a project. It inherits nothing: an app has no environment but its own.
    pub fn command(&self, name: &str) -> Command {
        let mut command = Command::new(&self.places.compose);
        command.env_clear();
        command.env("PATH", "/usr/sbin:/usr/bin").env("HOME", "/root");
        // For those that ask for it: `environment: [TZ]`.
        let zone = time_zone(Report::path());
        command.envs(zone.as_deref().and_then(|entry| entry.split_once('=')));
        command.env("DOCKER_HOST", format!("unix://{}", self.places.socket.display()));
        command.args(["--ansi", "never", "--progress", "plain", "--project-name", name]);
        command
    }

    /// Its last line is why it failed, mostly.
    fn run(&self, command: &mut Command, name: &str) -> Result<(), String> {
        let program = self.places.compose.display();
        if !fs::exists(&self.places.compose).unwrap_or(false) {
            return Err("this system has no Compose\nhint: build it with an app, or with \
                        `iota build --compose`"
                .to_owned());
        }
        let failed = |error: io::Error| format!("cannot run {program}: {error}");
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        let mut child = command.spawn().map_err(failed)?;
        let mut last = String::new();
        for line in child.stderr.take().into_iter().flat_map(|it| BufReader::new(it).lines()) {
            let line = line.map_err(failed)?;
            if !line.trim().is_empty() {
                (self.say)(&format!("app {name}: {}", line.trim()));
                last = line.trim().to_owned();
            }
        }
        let status = child.wait().map_err(failed)?;
        match status.success() {
            true => Ok(()),
            false => Err(format!("Compose says: {last}")),
        }
    }
}
