//! Containers that an image carries: `rootfs/containers/*.toml`, checked once, made into an image
//! archive in the root and an entry of the system description.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use ondisk::system::{Again, Publish};
use serde::Deserialize;

use crate::board::{Architecture, toml_message};
use crate::error::{Context, Error, Result};
use crate::oci;
use crate::tree::{Content, Kind, Node, TreePath};

/// As other images have it.
const PATH: &str = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Where archives lie in the root.
const DIRECTORY: &str = "usr/share/iota/images";

/// A container.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Definition {
    /// Name of the container.
    pub name: String,
    /// Why it ships.
    pub reason: String,
    /// What it runs.
    pub image: Image,
    /// Network as the engine names it.
    pub network: String,
    /// Ports as `HOST:CONTAINER`.
    #[serde(default)]
    pub publish: Vec<String>,
    /// Containers that are started before it.
    #[serde(default)]
    pub after: Vec<String>,
    /// Containers that are started after it.
    #[serde(default)]
    pub before: Vec<String>,
    /// What becomes of it when it ends.
    #[serde(default)]
    pub restart: Restart,
    /// When it is started.
    #[serde(default)]
    pub start: Start,
}

/// What a container runs.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub enum Image {
    /// An image of its own, `iota/NAME`.
    Own(OwnImage),
    /// The image of the container with this name.
    Of(String),
}

/// An image made from one static program of a Debian package.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct OwnImage {
    /// The Debian package that has the program.
    pub package: String,
    /// Absolute path of the program in the package.
    pub program: String,
    /// Links to the program in the container's `/bin`.
    pub applets: Vec<String>,
    /// Program and arguments.
    pub command: Vec<String>,
}

/// When a container is started.
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "kebab-case")]
pub enum Start {
    /// With the system.
    #[default]
    Boot,
    /// When somebody wants it.
    OnDemand,
}

/// What becomes of a container that ended.
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "kebab-case")]
pub enum Restart {
    /// It is started again; a system without it is not well.
    #[default]
    Always,
    /// It is started again unless it ended with status 0.
    OnFailure,
    /// It does its work once for each start of the system.
    Never,
}

impl From<Restart> for Again {
    fn from(restart: Restart) -> Self {
        match restart {
            Restart::Always => Self::Always,
            Restart::OnFailure => Self::OnFailure,
            Restart::Never => Self::Never,
        }
    }
}

/// Entries of the system description, each below those that it comes after; as they came otherwise.
///
/// Errors: a name that no container has; an order that goes round in a circle.
pub fn entries(definitions: &[Definition]) -> Result<Vec<ondisk::system::Container>> {
    let order = order(definitions)?;
    let mut entries: Vec<ondisk::system::Container> = Vec::new();
    while entries.len() < definitions.len() {
        let is_there = |name: &str| entries.iter().any(|entry| entry.name == name);
        let others = |it: &Definition| order.get(&*it.name).into_iter().flatten().copied();
        let is_next = |it: &&Definition| !is_there(&it.name) && others(it).all(is_there);
        let Some(next) = definitions.iter().find(is_next) else {
            let left = definitions.iter().filter(|it| !is_there(&it.name));
            let names: Vec<&str> = left.map(|it| &*it.name).collect();
            return Err(Error::new(format!(
                "containers wait for each other: {}",
                names.join(", ")
            ))
            .hint("take one `after` or `before` out of rootfs/containers/"));
        };
        let after = others(next).map(str::to_owned).collect();
        entries.push(ondisk::system::Container { after, ..next.entry()? });
    }
    Ok(entries)
}

/// Those that each container comes after, whoever of the two says so.
fn order(definitions: &[Definition]) -> Result<BTreeMap<&str, BTreeSet<&str>>> {
    let mut order: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for Definition { name, after, before, .. } in definitions {
        for (key, other) in
            after.iter().map(|it| ("after", it)).chain(before.iter().map(|it| ("before", it)))
        {
            if !definitions.iter().any(|it| it.name == *other) {
                return Err(Error::new(format!(
                    "rootfs/containers/{name}.toml: {key}: there is no container `{other}`"
                )));
            }
            let (later, earlier) = if key == "after" { (name, other) } else { (other, name) };
            order.entry(later).or_default().insert(earlier);
        }
    }
    Ok(order)
}

impl Definition {
    /// Checks the text of `rootfs/containers/NAME.toml`.
    pub fn parse(text: &str, name: &str) -> Result<Self> {
        let shown = || format!("rootfs/containers/{name}.toml");
        let definition: Self =
            toml::from_str(text).map_err(|e| Error::new(toml_message(&e))).context(shown)?;
        if definition.name != name || definition.reason.trim().is_empty() {
            return Err(Error::new("the name must be the file's and the reason not empty"))
                .context(shown);
        }
        Ok(definition)
    }

    /// What the agent runs, without its place among the others.
    fn entry(&self) -> Result<ondisk::system::Container> {
        let image = match &self.image {
            Image::Own(_) => &self.name,
            Image::Of(other) => other,
        };
        Ok(ondisk::system::Container {
            name: self.name.clone(),
            image: format!("/{DIRECTORY}/{image}.tar"),
            arguments: Vec::new(),
            environment: Vec::new(),
            network: self.network.clone(),
            publish: self.publish.iter().map(|ports| publish(ports)).collect::<Result<_>>()?,
            after: Vec::new(),
            again: self.restart.into(),
            on_demand: self.start == Start::OnDemand,
        })
    }
}

impl OwnImage {
    /// Makes the image archive of container `name` from the files of the package: its place and
    /// node in the root.
    ///
    /// Errors: the package does not have the program; a name that engines refuse.
    pub fn make(
        &self,
        name: &str,
        files: &[(TreePath, Node)],
        architecture: Architecture,
    ) -> Result<(TreePath, Node)> {
        let applets: Vec<&str> = self.applets.iter().map(String::as_str).collect();
        let tree = oci::busybox_tree(self.find_program(files)?, &applets)?;
        let command: Vec<&str> = self.command.iter().map(String::as_str).collect();
        let path = PATH.split_once('=').map(|(key, value)| (key.into(), value.into()));
        let environment: BTreeMap<String, String> = path.into_iter().collect();
        let archive = oci::Image {
            name: &format!("iota/{name}"),
            tag: "latest",
            architecture: match architecture {
                Architecture::Aarch64 => oci::Architecture::Arm64,
            },
            tree: &tree,
            command: &command,
            environment: &environment,
        }
        .build()?;
        let path = TreePath::new(format!("{DIRECTORY}/{name}.tar"))?;
        let origin: Arc<str> = format!("container {name}").into();
        Ok((path, Node::file(Content::bytes(archive.bytes), 0o644, origin)))
    }

    fn find_program(&self, files: &[(TreePath, Node)]) -> Result<Content> {
        let wanted = TreePath::new(&self.program)?;
        let found = files.iter().find(|(path, _)| *path == wanted).map(|(_, node)| &node.kind);
        match found {
            Some(Kind::File(content)) => Ok(content.clone()),
            _ => {
                Err(Error::new(format!("package {} has no program {}", self.package, self.program)))
            }
        }
    }
}

/// `8080:80` → host port 8080 leads to port 80 of the container.
fn publish(ports: &str) -> Result<Publish> {
    let parse = |text: &str| text.parse::<u16>().ok().filter(|port| *port != 0);
    let pair = ports.split_once(':').and_then(|(host, container)| {
        Some(Publish { host: parse(host)?, container: parse(container)? })
    });
    pair.ok_or_else(|| Error::new(format!("publish: `{ports}` is not HOST:CONTAINER")))
}

#[cfg(test)]
mod tests {
    use super::*;

    const CONSOLE: &str = include_str!("../../rootfs/containers/console.toml");
    const HELLO: &str = include_str!("../../rootfs/containers/hello.toml");

    #[test]
    fn the_shipped_container_becomes_an_archive_and_an_entry() {
        let definition = Definition::parse(HELLO, "hello").unwrap();
        let busybox = Node::file(Content::bytes(*b"\x7fELF"), 0o755, "busybox-static");
        let files = [(TreePath::new("usr/bin/busybox").unwrap(), busybox)];
        let Image::Own(image) = &definition.image else { panic!("{definition:?}") };
        let made = image.make("hello", &files, Architecture::Aarch64).unwrap();
        let entry = definition.entry().unwrap();
        assert_eq!(entry.publish, [Publish { host: 80, container: 80 }]);
        assert_eq!(made.0.display(), entry.image);
        let error = image.make("hello", &[], Architecture::Aarch64).err().unwrap();
        assert_eq!(error.to_string(), "package busybox-static has no program /usr/bin/busybox");
    }

    #[test]
    fn the_console_runs_the_other_ones_image_when_somebody_logs_in() {
        let console = Definition::parse(CONSOLE, "console").unwrap().entry().unwrap();
        let hello = Definition::parse(HELLO, "hello").unwrap().entry().unwrap();
        assert_eq!((console.image, console.on_demand), (hello.image, true));
    }

    fn named(name: &str, more: &str) -> Definition {
        let head = format!("name = \"{name}\"\nreason = \"a test\"\nimage.of = \"hello\"\n");
        Definition::parse(&format!("{head}network = \"none\"\n{more}"), name).unwrap()
    }

    #[test]
    fn containers_are_listed_below_those_that_they_come_after() {
        let all = [
            named("a", "after = [\"c\"]\nrestart = \"never\""),
            named("b", "before = [\"c\"]"),
            named("c", ""),
        ];
        let entries = entries(&all).unwrap();
        let listed: Vec<(&str, &[String])> =
            entries.iter().map(|it| (&*it.name, &*it.after)).collect();
        assert_eq!(listed, [("b", &[][..]), ("c", &["b".to_owned()]), ("a", &["c".to_owned()])]);
        assert_eq!((entries[2].again, entries[0].again), (Again::Never, Again::Always));
    }

    #[test]
    fn an_order_without_a_beginning_is_refused_by_name() {
        let error = |all: &[Definition]| entries(all).unwrap_err().to_string();
        let circle = [named("a", "after = [\"b\"]"), named("b", "after = [\"a\"]"), named("c", "")];
        assert_eq!(error(&circle), "containers wait for each other: a, b");
        for (key, line) in [("before", "before = [\"x\"]"), ("after", "after = [\"x\"]")] {
            let expected = format!("rootfs/containers/a.toml: {key}: there is no container `x`");
            assert_eq!(error(&[named("a", line)]), expected);
        }
    }

    #[test]
    fn ports_are_two_numbers() {
        assert!(publish("80").is_err() && publish("0:80").is_err() && publish("80:http").is_err());
    }
}
