//! Apps: Compose files that this device runs, those that the root carries and those that somebody
//! pushed. Compose itself runs them; the engine keeps them running by the rules of their files.
//!
//! ```text
//! /usr/share/iota/apps.json                 what the root carries (the builder's `app::carried`)
//! /usr/share/iota/apps/NAME/compose.yaml
//! /data/iota/apps/NAME/system.json          the carried release was started, with these images
//! /data/iota/apps/NAME/N/release.json       a pushed release: services, images, time
//! /data/iota/apps/NAME/N/files/compose.yaml
//! /data/iota/apps/NAME/current              N; without it the carried release is current
//! ```
//!
//! `current` is written last, when a release has been found healthy: a release that was cut off
//! by a power failure was never current, and the next start runs the one before it.
//!
//! Reading order: this file (what there is, pure) → [`store`] → [`state`] → [`run`] → [`verbs`],
//! [`push`] with [`arrival`], and [`verify`].

pub mod arrival;
pub mod demand;
pub mod push;
pub mod run;
pub mod state;
pub mod store;
pub mod verbs;
pub mod verify;

use std::path::PathBuf;

use serde_json::{Value, json};

use crate::on_demand::plan::Terms;

/// An app in one of its releases.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct App {
    /// Its name, which is that of the Compose project.
    pub name: String,
    /// Which release it is.
    pub release: Release,
    /// What it consists of.
    pub services: Vec<Service>,
    /// The images that came with it.
    pub images: Vec<Image>,
    /// Where `compose.yaml` lies.
    pub directory: PathBuf,
}

/// Which release of an app.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Release {
    /// The one that the root carries.
    System,
    /// One that was pushed.
    Pushed(u32),
}

/// A service of an app.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Service {
    /// Its name.
    pub name: String,
    /// Its image's name.
    pub image: String,
    /// If it runs on demand, on which terms.
    pub on_demand: Option<Terms>,
}

/// An image that came with an app or with the root.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Image {
    /// Its names, with tags.
    pub names: Vec<String>,
    /// `sha256:HEX`: what the engine knows it by.
    pub id: String,
    /// Its archive in the root, from which the engine's own can be restored.
    pub archive: Option<String>,
}

/// What the root carries.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Carried {
    /// Apps by name, with their services.
    pub apps: Vec<(String, Vec<Service>)>,
    /// Images, those of apps and others.
    pub images: Vec<Image>,
}

/// The word for the release of the root.
const SYSTEM: &str = "system";

impl std::fmt::Display for Release {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::System => out.write_str(SYSTEM),
            Self::Pushed(number) => number.fmt(out),
        }
    }
}

impl std::str::FromStr for Release {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            SYSTEM => Ok(Self::System),
            text => text.parse().map(Self::Pushed).map_err(|_| {
                format!("`{text}` is no release\nhint: `iota app history NAME` lists them")
            }),
        }
    }
}

impl App {
    /// Those of its services that run on demand, with their terms.
    pub fn on_demand(&self) -> Vec<(String, Terms)> {
        let terms = |it: &Service| Some((it.name.clone(), it.on_demand.clone()?));
        self.services.iter().filter_map(terms).collect()
    }
}

impl Carried {
    /// Reads `apps.json`.
    pub fn parse(text: &str) -> Result<Self, String> {
        let document: Value = serde_json::from_str(text).map_err(|error| error.to_string())?;
        let apps = list(&document["apps"]).iter().map(|app| {
            let name = app_name(word(&app["name"], "an app's name")?)?;
            Ok((name.to_owned(), services(&app["services"])?))
        });
        Ok(Self {
            apps: apps.collect::<Result<_, String>>()?,
            images: images(&document["images"])?,
        })
    }
}

fn list(value: &Value) -> &[Value] {
    value.as_array().map(Vec::as_slice).unwrap_or_default()
}

fn word<'a>(value: &'a Value, what: &str) -> Result<&'a str, String> {
    value.as_str().filter(|text| !text.is_empty()).ok_or_else(|| format!("{what} is missing"))
}

fn services(value: &Value) -> Result<Vec<Service>, String> {
    let service = |value: &Value| {
        Ok(Service {
            name: word(&value["name"], "a service's name")?.to_owned(),
            image: word(&value["image"], "a service's image")?.to_owned(),
            on_demand: Terms::parse(&value["on-demand"])?,
        })
    };
    list(value).iter().map(service).collect()
}

fn images(value: &Value) -> Result<Vec<Image>, String> {
    let image = |value: &Value| {
        let names = list(&value["names"]).iter();
        let names = names.map(|name| Ok(word(name, "an image's name")?.to_owned()));
        Ok(Image {
            names: names.collect::<Result<_, String>>()?,
            id: word(&value["id"], "an image's id")?.to_owned(),
            archive: value["archive"].as_str().map(str::to_owned),
        })
    };
    list(value).iter().map(image).collect()
}

/// The name of an app as the builder allows it; it becomes a directory and a Compose project.
pub fn app_name(name: &str) -> Result<&str, String> {
    let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    let good = !name.is_empty() && name.len() <= 40 && name.bytes().all(plain);
    match good && !name.starts_with('-') {
        true => Ok(name),
        false => Err(format!("`{name}` is not a name of an app")),
    }
}

/// A release that is pushed: what `iota app deploy` reads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pushed {
    /// Name of the app.
    pub name: String,
    /// What it consists of.
    pub services: Vec<Service>,
    /// The images that were sent for it; the engine has them.
    pub images: Vec<Image>,
    /// Its files by their path, `compose.yaml` among them.
    pub files: Vec<(String, String)>,
}

impl Pushed {
    /// Reads and checks what came over the wire.
    pub fn parse(bytes: &[u8]) -> Result<Self, String> {
        let document: Value = serde_json::from_slice(bytes)
            .map_err(|error| format!("this is no release: {error}"))?;
        let name = app_name(word(&document["name"], "the app's name")?)?.to_owned();
        let mut files = Vec::new();
        for (path, text) in document["files"].as_object().into_iter().flatten() {
            let up = path.split('/').any(|part| matches!(part, "" | "." | ".."));
            if up || path.contains('\0') {
                return Err(format!("`{path}` is not a path of a file of an app"));
            }
            files.push((path.clone(), word(text, path).unwrap_or_default().to_owned()));
        }
        if !files.iter().any(|(path, _)| path == COMPOSE_FILE) {
            return Err(format!("the release has no {COMPOSE_FILE}"));
        }
        let (services, images) = (services(&document["services"])?, images(&document["images"])?);
        if services.is_empty() {
            return Err("the release has no service".to_owned());
        }
        Ok(Self { name, services, images, files })
    }

    /// What is kept of it beside its files.
    fn declaration(&self, time_s: u64) -> Value {
        let services = self.services.iter().map(|it| {
            let terms = it.on_demand.as_ref().map(Terms::json);
            json!({ "name": it.name, "image": it.image, "on-demand": terms })
        });
        let images = self.images.iter().map(|it| json!({ "names": it.names, "id": it.id }));
        json!({
            "time-s": time_s,
            "services": services.collect::<Vec<_>>(),
            "images": images.collect::<Vec<_>>(),
        })
    }
}

/// What an app's Compose file is called on a device.
pub const COMPOSE_FILE: &str = "compose.yaml";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_builder_writes_is_read() {
        let carried = Carried::parse(include_str!("sample.json")).unwrap();
        let (name, services) = &carried.apps[0];
        assert_eq!((name.as_str(), services.len()), ("greeter", 2));
        let terms = services[0].on_demand.as_ref().unwrap();
        assert_eq!((terms.idle_s, terms.start_within_s), (300, 30));
        assert_eq!(terms.ports[0].to_string(), "127.0.0.1:8080");
        assert_eq!(terms.ports[0].container, 80);
        let db = Service { name: "db".into(), image: "shop/db:latest".into(), on_demand: None };
        assert_eq!(services[1], db);
        assert_eq!(carried.images[0].names, ["shop/web:1"]);
        let archive = carried.images[0].archive.as_deref().unwrap();
        assert_eq!(format!("/usr/share/iota/images/{}.tar", &carried.images[0].id[7..]), archive);
    }

    fn document(path: &str, name: &str) -> Vec<u8> {
        json!({
            "name": name,
            "files": { "compose.yaml": "services: {}", path: "x" },
            "services": [{ "name": "web", "image": "web:1" }],
            "images": [{ "names": ["web:1"], "id": "sha256:00" }],
        })
        .to_string()
        .into_bytes()
    }

    #[test]
    fn a_release_that_leads_out_of_its_directory_is_refused() {
        assert_eq!(Pushed::parse(&document("conf/a", "web")).unwrap().files.len(), 2);
        for path in ["../a", "a/../../b", "/etc/passwd", "a//b", "", ".", "a/."] {
            assert!(Pushed::parse(&document(path, "web")).is_err(), "{path}");
        }
        for name in ["", "../x", "A", "-a", "a/b", &"x".repeat(41)] {
            assert!(Pushed::parse(&document("a", name)).is_err(), "{name}");
        }
        for bytes in [&b"{}"[..], b"[]", b"", b"\xff", br#"{"name":"a"}"#] {
            assert!(Pushed::parse(bytes).is_err());
        }
    }

    #[test]
    fn releases_are_numbers_or_the_systems() {
        assert_eq!("7".parse(), Ok(Release::Pushed(7)));
        assert_eq!("system".parse(), Ok(Release::System));
        assert!("x".parse::<Release>().is_err());
        assert!(Release::System < Release::Pushed(0));
    }
}
