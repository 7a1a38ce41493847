//! Releases on the data partition: which there are, which is current, and how one is added.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::{App, COMPOSE_FILE, Carried, Image, Pushed, Release, images, services};
use crate::files;
use crate::on_demand::plan as on_demand;
use serde_json::Value;

/// How many pushed releases of an app are kept: the current one and those before it.
pub const KEPT: usize = 5;

/// Where apps lie.
#[derive(Clone, Debug)]
pub struct Places {
    /// What the root carries.
    pub carried: PathBuf,
    /// The files of carried apps.
    pub files: PathBuf,
    /// Everything that was pushed.
    pub kept: PathBuf,
    /// Held while an app is changed.
    pub lock: PathBuf,
    /// Compose.
    pub compose: PathBuf,
    /// The engine's socket.
    pub socket: PathBuf,
    /// Between whoever runs apps and whoever holds their ports.
    pub on_demand: on_demand::Places,
}

impl Places {
    /// Those of a device with this engine.
    pub fn device(socket: &str) -> Self {
        Self {
            carried: "/usr/share/iota/apps.json".into(),
            files: "/usr/share/iota/apps".into(),
            kept: "/data/iota/apps".into(),
            lock: "/run/iota/apps.lock".into(),
            compose: "/usr/libexec/docker/cli-plugins/docker-compose".into(),
            socket: socket.into(),
            on_demand: on_demand::Places::device(),
        }
    }

    /// What the root carries; nothing if it has no `apps.json`.
    pub fn carried(&self) -> Result<Carried, String> {
        let failed = |error: &dyn std::fmt::Display| format!("{}: {error}", self.carried.display());
        match fs::read_to_string(&self.carried) {
            Ok(text) => Carried::parse(&text).map_err(|error| failed(&error)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Carried::default()),
            Err(error) => Err(failed(&error)),
        }
    }

    fn of(&self, name: &str) -> PathBuf {
        self.kept.join(name)
    }

    /// The names of all apps that are to run: carried ones and pushed ones.
    pub fn names(&self, carried: &Carried) -> Vec<String> {
        let mut names: Vec<String> = carried.apps.iter().map(|(name, _)| name.clone()).collect();
        for name in files::names(&self.kept) {
            if matches!(self.current_number(&name), Some(Release::Pushed(_))) {
                names.push(name);
            }
        }
        names.sort();
        names.dedup();
        names
    }

    /// Apps that a former system carried and this one does not.
    pub fn left_over(&self, carried: &Carried) -> Vec<String> {
        let is_carried = |name: &String| carried.apps.iter().any(|(it, _)| it == name);
        let was_started = |name: &String| self.of(name).join("system.json").exists();
        let is_pushed = |name: &String| self.current_number(name).is_some();
        let names = files::names(&self.kept).into_iter();
        names.filter(|it| !is_carried(it) && was_started(it) && !is_pushed(it)).collect()
    }

    fn current_number(&self, name: &str) -> Option<Release> {
        let text = fs::read_to_string(self.of(name).join("current")).ok()?;
        text.trim().parse().ok().filter(|release| *release != Release::System)
    }

    /// The app in its current release.
    pub fn current(&self, name: &str, carried: &Carried) -> Result<Option<App>, String> {
        // One that cannot be read any more is no reason to run nothing.
        let pushed = self.current_number(name).map(|release| self.release(name, release, carried));
        match pushed {
            Some(Ok(Some(app))) => Ok(Some(app)),
            other => match self.release(name, Release::System, carried)? {
                Some(app) => Ok(Some(app)),
                None => other.unwrap_or(Ok(None)),
            },
        }
    }

    /// The app in one of its releases, if there is that one.
    pub fn release(
        &self,
        name: &str,
        release: Release,
        carried: &Carried,
    ) -> Result<Option<App>, String> {
        let Release::Pushed(number) = release else {
            let found = carried.apps.iter().find(|(it, _)| it == name);
            return Ok(found.map(|(name, services)| App {
                name: name.clone(),
                release,
                images: images_of(services.iter().map(|it| it.image.as_str()), &carried.images),
                services: services.clone(),
                directory: self.files.join(name),
            }));
        };
        let directory = self.of(name).join(number.to_string());
        let Some(document) = read_declaration(&directory)? else { return Ok(None) };
        Ok(Some(App {
            name: name.to_owned(),
            release,
            services: services(&document["services"])?,
            images: images(&document["images"])?,
            directory: directory.join("files"),
        }))
    }

    /// All releases of an app, the newest first, with the time at which each was pushed.
    pub fn history(&self, name: &str, carried: &Carried) -> Vec<(Release, Option<u64>)> {
        let mut releases: Vec<(Release, Option<u64>)> = files::names(&self.of(name))
            .iter()
            .filter_map(|entry| entry.parse().ok().map(Release::Pushed))
            .filter_map(|release| {
                let directory = self.of(name).join(release.to_string());
                let document = read_declaration(&directory).ok()??;
                Some((release, document["time-s"].as_u64()))
            })
            .collect();
        if carried.apps.iter().any(|(it, _)| it == name) {
            releases.push((Release::System, None));
        }
        releases.sort_by(|one, other| other.cmp(one));
        releases
    }

    /// Keeps a release; it is not current yet.
    pub fn add(&self, pushed: &Pushed, carried: &Carried, time_s: u64) -> Result<App, String> {
        let newest = self.history(&pushed.name, carried).first().map(|(release, _)| *release);
        let number = match newest {
            Some(Release::Pushed(number)) => number.saturating_add(1),
            _ => 1,
        };
        let release = Release::Pushed(number);
        let directory = self.of(&pushed.name).join(number.to_string());
        let failed = |error: io::Error| format!("cannot keep {}: {error}", directory.display());
        files::remove_tree(&directory).map_err(failed)?;
        for (path, text) in &pushed.files {
            let path = directory.join("files").join(path);
            path.parent().map_or(Ok(()), fs::create_dir_all).map_err(failed)?;
            files::keep(&path, text.as_bytes(), 0o644).map_err(failed)?;
        }
        // Last: without it, the release is not there.
        let text = pushed.declaration(time_s).to_string();
        files::keep(&directory.join("release.json"), text.as_bytes(), 0o644).map_err(failed)?;
        let added = self.release(&pushed.name, release, carried)?;
        added.ok_or_else(|| format!("{} is gone", directory.display()))
    }

    /// Makes a release the current one, and forgets the oldest.
    pub fn make_current(&self, app: &App, carried: &Carried) -> Result<(), String> {
        let path = self.of(&app.name).join("current");
        let failed = |error: io::Error| format!("cannot write {}: {error}", path.display());
        fs::create_dir_all(self.of(&app.name)).map_err(failed)?;
        files::keep(&path, format!("{}\n", app.release).as_bytes(), 0o644).map_err(failed)?;
        let kept = self.history(&app.name, carried).into_iter();
        let pushed = kept.filter(|(it, _)| *it != Release::System && *it != app.release);
        for (release, _) in pushed.skip(KEPT - 1) {
            self.forget(&app.name, release);
        }
        Ok(())
    }

    /// Removes a pushed release.
    pub fn forget(&self, name: &str, release: Release) {
        if let Release::Pushed(number) = release {
            // What is left of it is no release without this file.
            let directory = self.of(name).join(number.to_string());
            let _ = fs::remove_file(directory.join("release.json"));
            let _ = fs::remove_dir_all(directory);
        }
    }

    /// Removes everything that was pushed of an app.
    pub fn forget_all(&self, name: &str) -> Result<(), String> {
        let directory = self.of(name);
        // First, so that a cut leaves an app that is not pushed rather than half of one.
        let _ = fs::remove_file(directory.join("current"));
        let removed = files::remove_tree(&directory).map(drop);
        removed.map_err(|error| format!("cannot remove {}: {error}", directory.display()))
    }

    /// Notes which images the carried release runs; those of the system before, which it no longer
    /// does.
    pub fn note_system(&self, app: &App) -> Result<Vec<String>, String> {
        let path = self.of(&app.name).join("system.json");
        let failed = |error: io::Error| format!("cannot write {}: {error}", path.display());
        let ids: Vec<&String> = app.images.iter().map(|image| &image.id).collect();
        let text = serde_json::json!({ "images": ids }).to_string();
        let before = fs::read_to_string(&path).unwrap_or_default();
        if before == text {
            return Ok(Vec::new());
        }
        fs::create_dir_all(self.of(&app.name)).map_err(failed)?;
        files::keep(&path, text.as_bytes(), 0o644).map_err(failed)?;
        let before: Value = serde_json::from_str(&before).unwrap_or_default();
        let gone = super::list(&before["images"]).iter().filter_map(Value::as_str);
        Ok(gone.filter(|id| ids.iter().all(|own| own != id)).map(str::to_owned).collect())
    }

    /// Every image that some release of some app still needs.
    pub fn needed_images(&self, carried: &Carried) -> Vec<String> {
        let mut ids: Vec<String> = carried.images.iter().map(|image| image.id.clone()).collect();
        for name in files::names(&self.kept) {
            for (release, _) in self.history(&name, carried) {
                if let Ok(Some(app)) = self.release(&name, release, carried) {
                    ids.extend(app.images.into_iter().map(|image| image.id));
                }
            }
        }
        ids
    }
}

fn images_of<'a>(names: impl Iterator<Item = &'a str>, images: &[Image]) -> Vec<Image> {
    let names: Vec<&str> = names.collect();
    let used = |image: &&Image| image.names.iter().any(|name| names.contains(&name.as_str()));
    images.iter().filter(used).cloned().collect()
}

fn read_declaration(directory: &Path) -> Result<Option<Value>, String> {
    let path = directory.join("release.json");
    let failed = |error: &dyn std::fmt::Display| format!("{}: {error}", path.display());
    if !directory.join("files").join(COMPOSE_FILE).is_file() {
        return Ok(None);
    }
    match fs::read_to_string(&path) {
        Ok(text) => serde_json::from_str(&text).map(Some).map_err(|error| failed(&error)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(failed(&error)),
    }
}

#[cfg(test)]
mod tests {
    use super::super::Service;
    use super::*;

    fn places(directory: &Path) -> Places {
        Places {
            carried: directory.join("apps.json"),
            files: directory.join("files"),
            kept: directory.join("kept"),
            lock: directory.join("lock"),
            compose: "/bin/false".into(),
            socket: directory.join("socket"),
            on_demand: on_demand::Places { root: directory.join("on-demand") },
        }
    }

    fn pushed(name: &str, image: &str) -> Pushed {
        Pushed {
            name: name.to_owned(),
            services: vec![Service { name: "web".into(), image: "web:1".into(), on_demand: None }],
            images: vec![Image { names: vec!["web:1".into()], id: image.into(), archive: None }],
            files: vec![
                ("compose.yaml".into(), "services: {}".into()),
                ("conf/a".into(), image.into()),
            ],
        }
    }

    fn carried() -> Carried {
        let text = r#"{"apps":[{"name":"web","services":[{"name":"web","image":"web:1"}]}],
            "images":[{"names":["web:1"],"id":"sha256:s","archive":"/x.tar"}]}"#;
        Carried::parse(text).unwrap()
    }

    #[test]
    fn a_pushed_release_is_current_once_it_is_made_so() {
        let directory = tempfile::tempdir().unwrap();
        let places = places(directory.path());
        let carried = carried();
        assert_eq!(places.carried().unwrap(), Carried::default());
        let system = places.current("web", &carried).unwrap().unwrap();
        assert_eq!((system.release, system.images.len()), (Release::System, 1));

        let app = places.add(&pushed("web", "sha256:1"), &carried, 5).unwrap();
        assert_eq!(app.release, Release::Pushed(1));
        assert_eq!(fs::read_to_string(app.directory.join("conf/a")).unwrap(), "sha256:1");
        assert_eq!(places.current("web", &carried).unwrap().unwrap().release, Release::System);
        places.make_current(&app, &carried).unwrap();
        assert_eq!(places.current("web", &carried).unwrap().unwrap(), app);
        let history = [(Release::Pushed(1), Some(5)), (Release::System, None)];
        assert_eq!(places.history("web", &carried), history);
        places.forget_all("web").unwrap();
        assert_eq!(places.current("web", &carried).unwrap().unwrap().release, Release::System);
        assert_eq!(places.current("other", &carried), Ok(None));
    }

    #[test]
    fn the_oldest_releases_go_and_what_the_rest_needs_is_known() {
        let directory = tempfile::tempdir().unwrap();
        let places = places(directory.path());
        let carried = carried();
        for number in 1..=7 {
            let app = pushed("shop", &format!("sha256:{number}"));
            let app = places.add(&app, &carried, number).unwrap();
            places.make_current(&app, &carried).unwrap();
        }
        let releases = places.history("shop", &carried);
        assert_eq!(releases.len(), KEPT);
        assert_eq!(releases[0].0, Release::Pushed(7));
        let needed = places.needed_images(&carried);
        assert_eq!(needed.len(), 1 + KEPT, "{needed:?}");
        assert_eq!(places.names(&carried), ["shop", "web"]);
    }

    #[test]
    fn a_release_that_was_cut_off_while_it_was_written_is_not_there() {
        let directory = tempfile::tempdir().unwrap();
        let places = places(directory.path());
        let carried = Carried::default();
        let app = places.add(&pushed("shop", "sha256:1"), &carried, 1).unwrap();
        fs::remove_file(app.directory.parent().unwrap().join("release.json")).unwrap();
        assert_eq!(places.history("shop", &carried), []);
        assert_eq!(
            places.add(&pushed("shop", "sha256:2"), &carried, 2).unwrap().release,
            app.release
        );
    }

    #[test]
    fn apps_of_a_former_system_are_known_and_so_are_its_images() {
        let directory = tempfile::tempdir().unwrap();
        let places = places(directory.path());
        let mut app = places.current("web", &carried()).unwrap().unwrap();
        assert_eq!(places.note_system(&app), Ok(vec![]));
        app.images[0].id = "sha256:t".to_owned();
        assert_eq!(places.note_system(&app), Ok(vec!["sha256:s".to_owned()]));
        assert_eq!(places.note_system(&app), Ok(vec![]));
        assert_eq!(places.left_over(&carried()), [] as [&str; 0]);
        assert_eq!(places.left_over(&Carried::default()), ["web"]);
    }
}
