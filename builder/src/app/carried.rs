//! What an image carries of apps: their files, the images they run, and Compose itself.
//!
//! ```text
//! /usr/share/iota/apps.json            apps and their services; images by name, id and archive
//! /usr/share/iota/apps/NAME/…          compose.yaml and what lies beside it
//! /usr/share/iota/images/HEX.tar       an image, whose id is sha256:HEX
//! ```
//!
//! The agent reads `apps.json` (its `apps` module has the other half of the format, and both are
//! tested against one sample). An image without apps has none of this, nor Compose.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use ondisk::digest::Digest;
use serde_json::{Value, json};

use super::App;
use super::compose::Service;
use super::image::{Image, Source};
use crate::engine::Lacks;
use crate::error::{Context, Error, Result};
use crate::host::store::Store;
use crate::tree::{Content, Node, TreePath};

/// The group of packages that runs apps.
const GROUP: &str = "compose";

/// Where origins of files are shown.
const ORIGIN: &str = "apps";

/// What a build is asked to carry.
#[derive(Clone, Debug, Default)]
pub struct Wanted {
    /// Directories of apps.
    pub apps: Vec<PathBuf>,
    /// Sources of images.
    pub images: Vec<Source>,
    /// Compose even without an app: for `iota push`.
    pub compose: bool,
}

/// What an image carries; the default is nothing.
#[derive(Clone, Debug, Default)]
pub struct Carried {
    apps: Vec<App>,
    images: Vec<Image>,
    compose: bool,
}

impl Wanted {
    /// Reads and checks all of it, and the apps of the workspace.
    ///
    /// Errors: those of [`App::load`] and [`Source::read`]; two apps or images of one name.
    pub fn load(&self, workspace: &Path) -> Result<Carried> {
        let mut carried = Carried { compose: self.compose, ..Carried::default() };
        for directory in directories(&workspace.join("apps"))?.iter().chain(&self.apps) {
            let app = App::load(directory, None)?;
            if carried.apps.iter().any(|present| present.name == app.name) {
                return Err(Error::new(format!("two apps are called `{}`", app.name))
                    .hint("an app is called after its directory: rename one"));
            }
            carried.apps.push(app);
        }
        for source in &self.images {
            for image in source.read()? {
                carried.add(image)?;
            }
        }
        carried.apps.sort_by(|one, other| one.name.cmp(&other.name));
        carried.images.sort_by(|one, other| one.names.cmp(&other.names));
        Ok(carried)
    }
}

/// Directories below one, which need not be there.
fn directories(path: &Path) -> Result<Vec<PathBuf>> {
    if !path.is_dir() {
        return Ok(Vec::new());
    }
    let failed = || format!("cannot read {}", path.display());
    let mut found = Vec::new();
    for entry in fs::read_dir(path).context(failed)? {
        let entry = entry.context(failed)?.path();
        if entry.is_dir() {
            found.push(entry);
        }
    }
    found.sort();
    Ok(found)
}

impl Carried {
    fn add(&mut self, image: Image) -> Result<()> {
        for present in &mut self.images {
            let same_name = present.names.iter().find(|name| image.names.contains(name));
            match same_name {
                Some(name) if present.id != image.id => {
                    return Err(Error::new(format!("two images are called {name}"))
                        .hint("name one of them otherwise: `--with-image NAME=…`"));
                }
                _ if present.id == image.id => {
                    present.names.extend(image.names);
                    present.names.sort();
                    present.names.dedup();
                    return Ok(());
                }
                _ => {}
            }
        }
        self.images.push(image);
        Ok(())
    }

    /// Refuses what this engine cannot honour, by its place.
    pub fn check_for(&self, engine: &str, lacks: &Lacks) -> Result<()> {
        if let (Some(reason), Some(wanted)) = (&lacks.apps, self.wanted()) {
            let error = format!("{wanted}: the engine {engine} runs no apps: {reason}");
            return Err(Error::new(error).hint("build with --engine docker or podman"));
        }
        let of_app = |app: &App| Some((app.file.clone(), app.checked.docker_only.first()?.clone()));
        match self.apps.iter().find_map(of_app) {
            Some((file, problem)) if engine != "docker" => {
                let error = Error::new(format!("{}: {problem}", file.display()));
                Err(match problem.hint {
                    Some(hint) => error.hint(hint),
                    None => error,
                })
            }
            _ => Ok(()),
        }
    }

    /// What somebody asked for first, by its place.
    fn wanted(&self) -> Option<String> {
        let image = |image: &Image| format!("image {}", image.names.first().unwrap_or(&image.id));
        let app = self.apps.first().map(|app| app.file.display().to_string());
        app.or_else(|| self.images.first().map(image))
            .or_else(|| self.compose.then(|| "--compose".to_owned()))
    }

    /// The groups of packages that it needs.
    pub fn groups(&self) -> Vec<String> {
        let needed = self.compose || !self.apps.is_empty();
        needed.then(|| GROUP.to_owned()).into_iter().collect()
    }

    fn is_nothing(&self) -> bool {
        self.apps.is_empty() && self.images.is_empty() && !self.compose
    }

    /// Digest of all of it; none for nothing, so that an image without apps is what it always was.
    pub fn digest(&self) -> Option<Digest> {
        if self.is_nothing() {
            return None;
        }
        let mut text = self.declaration().to_string();
        for app in &self.apps {
            for (path, bytes) in &app.files {
                text.push_str(&format!("\n{} {path} {}", app.name, Digest::of(bytes)));
            }
        }
        Some(Digest::of(text.as_bytes()))
    }

    /// What somebody should look at, one sentence each.
    pub fn notes(&self) -> Vec<String> {
        let mut notes = Vec::new();
        for app in &self.apps {
            let file = app.file.display();
            notes.extend(app.checked.notes.iter().map(|note| format!("{file}: {note}")));
            for name in app.images() {
                if !self.images.iter().any(|image| image.names.iter().any(|it| it == name)) {
                    notes.push(format!(
                        "{file}: the image {name} is not carried: its first start needs a network \
                         (--with-image)"
                    ));
                }
            }
        }
        notes
    }

    fn declaration(&self) -> Value {
        let apps = self.apps.iter().map(|app| {
            let services = app.checked.services.iter().map(Service::declaration);
            json!({ "name": app.name, "services": services.collect::<Vec<_>>() })
        });
        let images = self.images.iter().map(|image| {
            let archive = format!("/{}", archive_path(image));
            json!({ "names": image.names, "id": image.id, "archive": archive })
        });
        json!({ "apps": apps.collect::<Vec<_>>(), "images": images.collect::<Vec<_>>() })
    }

    /// The files of all that, for the root.
    pub fn nodes(&self, store: &Store) -> Result<Vec<(TreePath, Node)>> {
        if self.is_nothing() {
            return Ok(Vec::new());
        }
        let file = |path: String, content| -> Result<(TreePath, Node)> {
            Ok((TreePath::new(path)?, Node::file(content, 0o644, ORIGIN)))
        };
        let text = format!("{:#}\n", self.declaration());
        let mut nodes =
            vec![file("usr/share/iota/apps.json".into(), Content::bytes(text.into_bytes()))?];
        for app in &self.apps {
            for (path, bytes) in &app.files {
                let path = format!("usr/share/iota/apps/{}/{path}", app.name);
                nodes.push(file(path, Content::bytes(bytes.clone()))?);
            }
        }
        for image in &self.images {
            nodes.push(file(archive_path(image), archive(image, store)?)?);
        }
        Ok(nodes)
    }
}

fn archive_path(image: &Image) -> String {
    format!("usr/share/iota/images/{}.tar", image.id.trim_start_matches("sha256:"))
}

/// The archive in a file of the cache: images are large, and trees are held in memory.
fn archive(image: &Image, store: &Store) -> Result<Content> {
    let archive = image.archive(&image.names, 0);
    let directory = store.root().join("images");
    fs::create_dir_all(&directory).context(|| format!("cannot make {}", directory.display()))?;
    // The names are in the archive, and not in the image's id.
    let names = Digest::of(image.names.join(" ").as_bytes());
    let id = image.id.trim_start_matches("sha256:");
    let path = directory.join(format!("{id}-{}.tar", &names.to_string()[..8]));
    let length = archive.length();
    if fs::metadata(&path).map(|metadata| metadata.len()).ok() != Some(length) {
        let unfinished = path.with_extension(format!("{}.new", std::process::id()));
        let failed = || format!("cannot write {}", unfinished.display());
        archive.write(io_buffer(File::create(&unfinished).context(failed)?)).context(failed)?;
        fs::rename(&unfinished, &path).context(failed)?;
    }
    Ok(Content::Range { path: path.into(), offset: 0, length })
}

fn io_buffer(file: File) -> std::io::BufWriter<File> {
    std::io::BufWriter::with_capacity(1 << 20, file)
}

#[cfg(test)]
mod tests {
    use super::super::image::tests::sample;
    use super::*;
    use crate::oci::Architecture;

    /// The agent is tested with the same text.
    const SAMPLE: &str = include_str!("../../../rootfs/agent/src/apps/sample.json");

    fn wanted(directory: &Path) -> Wanted {
        let app = directory.join("greeter");
        fs::create_dir_all(&app).unwrap();
        let text = "services:\n  web:\n    image: shop/web:1\n    x-iota: on-demand\n    ports: \
                    [\"127.0.0.1:8080:80\"]\n  db:\n    image: shop/db\n";
        fs::write(app.join("compose.yaml"), text).unwrap();
        let archive = directory.join("web.tar");
        fs::write(&archive, sample("shop/web", Architecture::Arm64)).unwrap();
        let source = format!("docker-archive:{}", archive.display());
        Wanted { apps: vec![app], images: vec![source.parse().unwrap()], compose: false }
    }

    #[test]
    fn what_is_carried_is_declared_as_the_agent_reads_it() {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::open(Some(directory.path())).unwrap();
        let carried = wanted(directory.path()).load(directory.path()).unwrap();
        assert_eq!(carried.groups(), ["compose"]);
        let nodes = carried.nodes(&store).unwrap();
        let paths: Vec<String> = nodes.iter().map(|(path, _)| path.display().to_string()).collect();
        assert_eq!(paths[1], "/usr/share/iota/apps/greeter/compose.yaml");
        let crate::tree::Kind::File(content) = &nodes[0].1.kind else { panic!("no file") };
        assert_eq!(String::from_utf8_lossy(&content.read().unwrap()), SAMPLE);
        assert!(SAMPLE.contains(&paths[2]), "{paths:?}");
        let notes = carried.notes();
        assert!(notes[1].contains("the image shop/db:latest is not carried"), "{notes:?}");
    }

    #[test]
    fn nothing_is_nothing_and_everything_counts() {
        let directory = tempfile::tempdir().unwrap();
        let nothing = Wanted::default().load(directory.path()).unwrap();
        assert_eq!((nothing.digest(), nothing.groups().len()), (None, 0));
        let wanted = wanted(directory.path());
        let first = wanted.load(directory.path()).unwrap().digest();
        fs::write(directory.path().join("greeter/more"), "x").unwrap();
        assert_ne!(wanted.load(directory.path()).unwrap().digest(), first);
    }

    #[test]
    fn what_only_docker_honours_is_refused_for_another_engine_by_its_place() {
        let directory = tempfile::tempdir().unwrap();
        let wanted = wanted(directory.path());
        let text = "services:\n  web:\n    image: shop/web:1\n    logging: { driver: local }\n";
        fs::write(directory.path().join("greeter/compose.yaml"), text).unwrap();
        let carried = wanted.load(directory.path()).unwrap();
        let lacks = Lacks::default();
        carried.check_for("docker", &lacks).unwrap();
        let refused = carried.check_for("podman", &lacks).unwrap_err().chain();
        assert!(refused.contains("logging: local is a driver of Docker alone"), "{refused}");
        assert!(refused.contains("compose.yaml: line 4") || refused.contains(":4:"), "{refused}");
    }

    #[test]
    fn an_engine_without_apps_refuses_whatever_was_asked_for_by_its_place() {
        let directory = tempfile::tempdir().unwrap();
        let lacks = Lacks { apps: Some("no Compose".to_owned()), networks: None };
        let refused = |wanted: &Wanted| {
            let carried = wanted.load(directory.path()).unwrap();
            carried.check_for("small", &lacks).unwrap_err().chain()
        };
        let mut wanted = wanted(directory.path());
        let error = refused(&wanted);
        assert!(error.contains("greeter/compose.yaml: the engine small runs no apps: no Compose"));
        wanted.apps.clear();
        assert!(refused(&wanted).starts_with("image shop/web:1: the engine small runs no apps"));
        wanted.images.clear();
        let wanted = Wanted { compose: true, ..wanted };
        assert!(refused(&wanted).starts_with("--compose: the engine small runs no apps"));
        Carried::default().check_for("small", &lacks).unwrap();
    }

    #[test]
    fn two_images_of_one_name_are_refused() {
        let directory = tempfile::tempdir().unwrap();
        let mut wanted = wanted(directory.path());
        wanted.load(directory.path()).unwrap();
        let other = directory.path().join("other.tar");
        fs::write(&other, sample("shop/other", Architecture::Arm64)).unwrap();
        let text = format!("shop/web:1=docker-archive:{}", other.display());
        wanted.images.push(text.parse().unwrap());
        // The same image under one more name is no conflict.
        assert!(wanted.load(directory.path()).is_ok());
    }
}
