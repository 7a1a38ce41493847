//! `iota app verify` and `repair`: whether the engine still holds the images that the root carries
//! as they were built, and how those that it lost or that a dying card garbled come back, with no
//! network. The root's own archives are right by construction: it is verified block by block.

use std::fs::File;
use std::path::Path;

use ondisk::system::Container;
use serde_json::{Value, json};

use super::demand::Trial;
use super::run::Runner;
use super::{Carried, Image};
use crate::archive;
use crate::client::Error;
use crate::services;

/// How often an image is freed of its containers: one of them may be made anew in between.
const TRIES: u32 = 10;
/// How often an image is put in order before that counts as hopeless.
const ROUNDS: u32 = 3;

/// How it stands with an image in the engine's store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Health {
    /// Each layer is what it was built as.
    Whole,
    /// The engine does not have it.
    Missing,
    /// It has it, but not as it was built, for this reason.
    Damaged(String),
}

/// An image of the root, looked at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// What people call it.
    pub name: String,
    /// Its id.
    pub id: String,
    /// What was found.
    pub health: Health,
    /// Whether it was put in order since.
    pub repaired: bool,
}

impl Verdict {
    fn is_well(&self) -> bool {
        self.health == Health::Whole || self.repaired
    }

    fn text(&self) -> String {
        let found = match &self.health {
            Health::Whole => "whole".to_owned(),
            Health::Missing => "missing".to_owned(),
            Health::Damaged(why) => format!("damaged: {why}"),
        };
        let repaired = if self.repaired { "; repaired" } else { "" };
        format!("image {}: {found}{repaired}\n", self.name)
    }

    fn json(&self) -> Value {
        let (state, why) = match &self.health {
            Health::Whole => ("whole", None),
            Health::Missing => ("missing", None),
            Health::Damaged(why) => ("damaged", Some(why)),
        };
        json!({
            "name": self.name,
            "id": self.id,
            "state": state,
            "why": why,
            "repaired": self.repaired,
        })
    }
}

/// What was found, for people or programs, and whether all is well now.
pub fn told(verdicts: &[Verdict], json: bool) -> (String, bool) {
    let is_well = verdicts.iter().all(Verdict::is_well);
    let text = match json {
        true => {
            let images: Vec<Value> = verdicts.iter().map(Verdict::json).collect();
            format!("{}\n", json!({ "well": is_well, "images": images }))
        }
        false if verdicts.is_empty() => "this system carries no images\n".to_owned(),
        false => verdicts.iter().map(Verdict::text).collect(),
    };
    (text, is_well)
}

/// Looks at every image that the root carries, and puts in order what is not if `repair`.
pub fn run(
    runner: &Runner<'_>,
    containers: &[Container],
    repair: bool,
) -> Result<Vec<Verdict>, String> {
    let _lock = runner.lock()?;
    let carried = runner.places.carried()?;
    let mut verdicts = Vec::new();
    for image in images(&carried, containers)? {
        let health = look(runner, &image)?;
        let name = image.names.first().unwrap_or(&image.id).clone();
        let mut repaired = false;
        if repair && health != Health::Whole {
            (runner.say)(&format!("image {name} is put in order"));
            repaired = mend_until_whole(runner, &image, &carried)?;
        }
        verdicts.push(Verdict { name, id: image.id, health, repaired });
    }
    Ok(verdicts)
}

/// Those of apps and those of the system's own containers, each once.
fn images(carried: &Carried, containers: &[Container]) -> Result<Vec<Image>, String> {
    let mut images: Vec<Image> = Vec::new();
    for container in containers {
        let id = services::image_id(&container.image).map_err(|error| error.to_string())?;
        // The console and another one may share theirs, so it has the name of its archive.
        if !images.iter().any(|image| image.id == id) {
            let archive = container.image.clone();
            let name = Path::new(&archive).file_stem().unwrap_or_default().to_string_lossy();
            images.push(Image { names: vec![name.into_owned()], id, archive: Some(archive) });
        }
    }
    let others = carried.images.iter().filter(|image| image.archive.is_some());
    images.extend(others.cloned());
    Ok(images)
}

fn look(runner: &Runner<'_>, image: &Image) -> Result<Health, String> {
    let Some(path) = &image.archive else { return Ok(Health::Whole) };
    let failed = |error: archive::Error| format!("{path}: {error}");
    let mut file = File::open(path).map_err(|error| format!("{path}: {error}"))?;
    let layers = archive::layers(&mut file).map_err(failed)?;
    let has = runner.engine.has_image(&image.id).map_err(|error| error.to_string())?;
    if !has {
        return Ok(Health::Missing);
    }
    // An engine that meets damage says so, or breaks off in the middle.
    let given = runner.engine.export_image(&image.id).map_err(|error| error.to_string());
    let found = given.and_then(|mut stream| {
        archive::digests(&mut stream).map_err(|error| format!("the engine broke off: {error}"))
    });
    Ok(match found {
        Err(why) => Health::Damaged(why),
        Ok(found) => match layers.iter().find(|layer| !found.contains(layer)) {
            None => Health::Whole,
            Some(layer) => Health::Damaged(format!("its layer {layer} is another one")),
        },
    })
}

/// What was done is looked at like anything else. A container that somebody made again of the image
/// just before that went keeps its layers, damage and all: then it is done once more.
fn mend_until_whole(runner: &Runner<'_>, image: &Image, carried: &Carried) -> Result<bool, String> {
    for _ in 0..ROUNDS {
        mend(runner, image, carried)?;
        if look(runner, image)? == Health::Whole {
            return Ok(true);
        }
    }
    Ok(false)
}

/// The image goes with the containers made of it, comes back out of the root, and so do they: those
/// of apps by Compose, the system's own by whoever attends to them. Named volumes stay.
fn mend(runner: &Runner<'_>, image: &Image, carried: &Carried) -> Result<(), String> {
    let failed = |error: Error| error.to_string();
    let Some(path) = &image.archive else { return Ok(()) };
    let mut tries = 1..=TRIES;
    loop {
        for container in runner.engine.users_of(&image.id).map_err(failed)? {
            runner.engine.remove(&container).map_err(failed)?;
        }
        match runner.engine.drop_image(&image.id) {
            Ok(()) => break,
            // Whoever attends to the system's containers has been quicker.
            Err(Error::Refused(409, _)) if tries.next().is_some() => {}
            Err(error) => return Err(failed(error)),
        }
    }
    services::give(runner.engine, path, &image.id).map_err(|error| error.to_string())?;
    for name in runner.places.names(carried) {
        if let Some(app) = runner.places.current(&name, carried)?
            && app.images.iter().any(|it| it.id == image.id)
        {
            runner.start(&app, carried, Trial::None)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_found_is_told_to_people_and_programs() {
        let verdict = |name: &str, health, repaired| Verdict {
            name: name.to_owned(),
            id: "sha256:00".to_owned(),
            health,
            repaired,
        };
        let damaged = || Health::Damaged("its layer 12 is another one".to_owned());
        let found = [verdict("hello", Health::Whole, false), verdict("web:1", damaged(), true)];
        let text = "image hello: whole\n\
            image web:1: damaged: its layer 12 is another one; repaired\n";
        assert_eq!(told(&found, false), (text.to_owned(), true));
        let found = [verdict("web:1", Health::Missing, false)];
        assert_eq!(told(&found, false), ("image web:1: missing\n".to_owned(), false));
        let (json, is_well) = told(&found, true);
        let document: Value = serde_json::from_str(&json).unwrap();
        assert_eq!((&document["well"], is_well), (&json!(false), false));
        assert_eq!(document["images"][0]["state"], "missing");
    }
}
