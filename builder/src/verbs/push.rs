//! `iota push`: an app from this machine to a device that runs, over SSH.
//!
//! ```text
//! check the Compose file ─► find its images ─► ask what the device has ─► send missing layers
//!   ─► hand over the release ─► the device starts it, follows it, and goes back if it must
//! ```
//!
//! Everything that can be refused is refused before anything is sent. A connection that breaks
//! while an image is sent is made again, and goes on where the device says.

use std::collections::BTreeMap;
use std::io::{self, BufWriter, Write};
use std::path::Path;
use std::process::{Child, Command, ExitCode, Stdio};
use std::thread;
use std::time::Duration;

use ondisk::digest::{Digest, Hasher};
use serde_json::{Value, json};

use crate::app::App;
use crate::app::compose::Service;
use crate::app::image::{Archive, Image, Place, Source};
use crate::app::pull::Puller;
use crate::cli::{Common, PushArgs};
use crate::error::{Context, Error, Result};
use crate::host::progress::{Progress, Task, Unit, megabytes};
use crate::host::store::Store;

/// Pushes an app; the exit code is the device's.
pub fn run(arguments: &PushArgs, common: &Common) -> Result<ExitCode> {
    let progress = Progress::new(common.quiet);
    let app = App::load(&arguments.directory, arguments.name.as_deref())?;
    for note in &app.checked.notes {
        progress.warn(format!("{}: {note}", app.file.display()));
    }
    let images = find_images(&app, &local(&arguments.with_image, common, &progress)?)?;
    let device = Device { program: &arguments.ssh, host: &arguments.host, port: arguments.port };
    let inventory = device.inventory()?;
    for image in images.values() {
        send(image, &inventory, &device, &progress)?;
    }
    for name in app.images().into_iter().filter(|name| !images.contains_key(*name)) {
        progress
            .warn(format!("{name} is not sent: the device has it, or pulls it from its registry"));
    }
    device.deploy(&release(&app, &images)?, arguments.within)
}

/// Sources on this machine. What a tag stands for now is taken: a push is not built again.
fn local(sources: &[Source], common: &Common, progress: &Progress) -> Result<Vec<Source>> {
    if !sources.iter().any(|source| matches!(source.place, Place::Registry(_))) {
        return Ok(sources.to_vec());
    }
    let store = Store::open(common.cache.as_deref())?;
    let offline = common.offline;
    Puller { store: &store, lock: None, locked: false, offline, progress }.local(sources)
}

/// The images of the app, by name: from the sources, else from Docker on this machine.
fn find_images(app: &App, sources: &[Source]) -> Result<BTreeMap<String, Image>> {
    let mut given: BTreeMap<String, Image> = BTreeMap::new();
    for source in sources {
        for image in source.read()? {
            given.extend(image.names.iter().map(|name| (name.clone(), image.clone())));
        }
    }
    let mut found = BTreeMap::new();
    for name in app.images() {
        let image = match given.remove(name) {
            Some(image) => Some(image),
            None => from_docker(name)?,
        };
        found.extend(image.map(|image| (name.to_owned(), image)));
    }
    match given.keys().find(|name| !found.contains_key(*name)) {
        None => Ok(found),
        Some(unused) => {
            let file = app.file.display();
            Err(Error::new(format!("{file} names no image {unused}"))
                .hint("name it as the file does: `--with-image NAME=…`"))
        }
    }
}

/// An image of Docker on this machine, if there is one and it has that image.
fn from_docker(name: &str) -> Result<Option<Image>> {
    let asked = Command::new("docker").args(["image", "inspect", name]).output();
    if !asked.is_ok_and(|output| output.status.success()) {
        return Ok(None);
    }
    let directory = tempfile::tempdir().context(|| "cannot make a directory".to_owned())?;
    let file = directory.path().join("image.tar");
    let mut save = Command::new("docker");
    save.args(["image", "save", "--output"]).arg(&file).arg(name);
    let output = save.output().context(|| "cannot run docker".to_owned())?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
        return Err(Error::new(format!("docker cannot save {name}: {said}")));
    }
    let place = Place::DockerArchive(file);
    let mut images = Source { name: Some(name.to_owned()), place }.read()?;
    images.pop().map(Image::held).transpose()
}

/// What the device has to know of the release.
fn release(app: &App, images: &BTreeMap<String, Image>) -> Result<Value> {
    let mut files = serde_json::Map::new();
    for (path, bytes) in &app.files {
        let text = std::str::from_utf8(bytes).context(|| {
            format!(
                "{path} is not text: put it into an image, or carry the app (`iota build --app`)"
            )
        })?;
        files.insert(path.clone(), text.into());
    }
    let services = app.checked.services.iter().map(Service::declaration);
    let images = images.iter().map(|(name, image)| json!({ "names": [name], "id": image.id }));
    Ok(json!({
        "name": app.name,
        "files": files,
        "services": services.collect::<Vec<_>>(),
        "images": images.collect::<Vec<_>>(),
    }))
}

/// Sends what the device lacks of an image.
fn send(image: &Image, there: &Inventory, device: &Device<'_>, progress: &Progress) -> Result<()> {
    let name = image.names.first().unwrap_or(&image.id);
    if there.ids.contains(&image.id) {
        progress.line(format!("{name} is there already"));
        return Ok(());
    }
    let shared = image.shared_with(&there.stacks);
    let archive = image.archive(&[], shared);
    let (all, sent) = (image.layers().len(), image.layers().len() - shared);
    let size = megabytes(archive.length());
    progress.line(format!("{name}: sending {sent} of {all} layers, {size}"));
    send_archive(name, &archive, there, device, progress)
}

/// Sends an archive from where the device has it, over as many connections as it takes.
fn send_archive(
    name: &str,
    archive: &Archive,
    there: &Inventory,
    device: &Device<'_>,
    progress: &Progress,
) -> Result<()> {
    let mut hasher = Hashed(Hasher::new());
    archive.write(&mut hasher)?;
    let (digest, length) = (hasher.0.digest(), archive.length());
    let task = progress.task(name, Unit::Bytes, length);
    let mut from = there.has_begun(&digest, length);
    if from > 0 {
        progress.line(format!("{name}: going on after {}", megabytes(from)));
    }
    let mut failures = 0;
    loop {
        task.set_done(from);
        let write = |out: &mut dyn Write| archive.write(Rest { out, left: from, task: &task });
        if device.load(&digest, length, from, write)? {
            task.finish(format!("{name} sent"));
            return Ok(());
        }
        let broken = device.failed("cannot be reached any more");
        failures += 1;
        if failures > ATTEMPTS {
            return Err(broken);
        }
        progress.warn(format!("{name}: {broken}; trying again"));
        thread::sleep(FIRST_PAUSE * 2_u32.pow(failures - 1));
        if let Ok(there) = device.inventory() {
            let has = there.has_begun(&digest, length);
            if has > from {
                failures = 0;
            }
            from = has;
        }
    }
}

/// Connections in a row that bring nothing before giving up.
const ATTEMPTS: u32 = 5;

/// The first pause between connections; each further one is twice as long.
const FIRST_PAUSE: Duration = Duration::from_secs(1);

struct Hashed(Hasher);

impl Write for Hashed {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.add(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Takes the whole archive and passes on what the device does not have.
struct Rest<'a> {
    out: &'a mut dyn Write,
    /// Bytes that are there already.
    left: u64,
    task: &'a Task,
}

impl Write for Rest<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let there = usize::try_from(self.left).unwrap_or(usize::MAX).min(bytes.len());
        self.left -= there as u64;
        self.out.write_all(bytes.split_at(there).1)?;
        self.task.add((bytes.len() - there) as u64);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

/// What the device's engine has.
struct Inventory {
    ids: Vec<String>,
    stacks: Vec<Vec<String>>,
    /// The image that was on its way when a connection broke, and how many bytes of it are there.
    arriving: Option<(Digest, u64)>,
}

impl Inventory {
    /// How many bytes of an archive are there.
    fn has_begun(&self, digest: &Digest, length: u64) -> u64 {
        match self.arriving {
            Some((other, bytes)) if other == *digest && bytes <= length => bytes,
            _ => 0,
        }
    }

    fn parse(text: &[u8]) -> Result<Self> {
        let document: Value = serde_json::from_slice(text)
            .context(|| "the device's answer is not JSON".to_owned())?;
        if document["compose"] != json!(true) {
            return Err(Error::new("the device's system has no Compose")
                .hint("install one that was built with an app, or with `iota build --compose`"));
        }
        let (mut ids, mut stacks) = (Vec::new(), Vec::new());
        for image in document["images"].as_array().into_iter().flatten() {
            ids.extend(image["id"].as_str().map(str::to_owned));
            let layers = image["layers"].as_array().into_iter().flatten();
            stacks.push(layers.filter_map(|it| it.as_str().map(str::to_owned)).collect());
        }
        let arriving = &document["arriving"];
        let digest = arriving["digest"].as_str().and_then(Digest::from_hex);
        Ok(Self { ids, stacks, arriving: digest.zip(arriving["bytes"].as_u64()) })
    }
}

/// What ssh(1) exits with if the connection fails; other codes are those of the program there.
const BROKEN: i32 = 255;

/// A device that is reached over SSH.
struct Device<'a> {
    program: &'a Path,
    host: &'a str,
    port: Option<u16>,
}

impl Device<'_> {
    fn command(&self, line: &str) -> Command {
        let mut command = Command::new(self.program);
        // A link that is dead is noticed after 45 s.
        command.args(["-o", "ServerAliveInterval=15", "-o", "ServerAliveCountMax=3"]);
        if let Some(port) = self.port {
            command.args(["-p", &port.to_string()]);
        }
        // A device has one account that somebody can log in to.
        let host = match self.host.contains('@') {
            true => self.host.to_owned(),
            false => format!("root@{}", self.host),
        };
        command.arg("--").arg(host).arg(line);
        command
    }

    fn failed(&self, what: &str) -> Error {
        Error::new(format!("{} {what}", self.host))
            .hint(format!("try `ssh root@{} iota status`; docs/access.md", self.host))
    }

    fn inventory(&self) -> Result<Inventory> {
        let mut command = self.command("iota app inventory");
        let output = command.stdin(Stdio::null()).stderr(Stdio::inherit()).output();
        let output = output.context(|| format!("cannot run {}", self.program.display()))?;
        match output.status.success() {
            true => Inventory::parse(&output.stdout),
            false => Err(self.failed("did not say what it has")),
        }
    }

    /// Sends an archive from a byte on; false if the connection broke.
    fn load(
        &self,
        digest: &Digest,
        length: u64,
        from: u64,
        write: impl FnOnce(&mut dyn Write) -> Result<()>,
    ) -> Result<bool> {
        let mut child = self.start(&format!("iota app load {digest} {length} {from}"))?;
        let written = match child.stdin.take() {
            Some(input) => write(&mut BufWriter::with_capacity(1 << 20, input)),
            None => Ok(()),
        };
        let status = child.wait().context(|| "cannot wait for ssh".to_owned())?;
        match status.code() {
            Some(0) => written.map(|()| true),
            Some(BROKEN) | None => Ok(false),
            // What the device said is on standard error already.
            Some(_) => Err(self.failed("did not take the image")),
        }
    }

    fn deploy(&self, release: &Value, within_s: u32) -> Result<ExitCode> {
        let mut child = self.start(&format!("iota app deploy {within_s}"))?;
        if let Some(mut input) = child.stdin.take() {
            // Whoever says no does not listen to the end.
            let _ = input.write_all(release.to_string().as_bytes());
        }
        let status = child.wait().context(|| "cannot wait for ssh".to_owned())?;
        match status.code() {
            Some(BROKEN) | None => Err(self.failed("went away; what it began it goes on with")),
            Some(code) => Ok(ExitCode::from(u8::try_from(code).unwrap_or(2))),
        }
    }

    fn start(&self, line: &str) -> Result<Child> {
        let mut command = self.command(line);
        let child = command.stdin(Stdio::piped()).spawn();
        child.context(|| format!("cannot run {}", self.program.display()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_device_without_compose_is_told_apart() {
        let good = br#"{"compose":true,"images":[{"id":"sha256:1","layers":["a","b"]}]}"#;
        let inventory = Inventory::parse(good).unwrap();
        assert_eq!((inventory.ids.len(), inventory.stacks[0].len()), (1, 2));
        let error = Inventory::parse(br#"{"compose":false,"images":[]}"#).err().unwrap();
        assert!(error.next_step().unwrap().contains("--compose"));
        assert!(Inventory::parse(b"<html>").is_err());
    }

    #[test]
    fn only_what_is_there_of_the_same_archive_is_not_sent() {
        let digest = Digest::of(b"archive");
        let text = format!(
            r#"{{"compose":true,"images":[],"arriving":{{"digest":"{digest}","bytes":5}}}}"#
        );
        let inventory = Inventory::parse(text.as_bytes()).unwrap();
        assert_eq!(inventory.has_begun(&digest, 7), 5);
        assert_eq!(inventory.has_begun(&digest, 4), 0);
        assert_eq!(inventory.has_begun(&Digest::of(b"another"), 7), 0);
        let none = Inventory::parse(br#"{"compose":true,"images":[],"arriving":null}"#).unwrap();
        assert_eq!(none.has_begun(&digest, 7), 0);

        let (mut sent, task) = (Vec::new(), Progress::quiet().task("", Unit::Bytes, 7));
        let mut rest = Rest { out: &mut sent, left: 5, task: &task };
        for piece in ["arc", "hi", "ve", ""] {
            rest.write_all(piece.as_bytes()).unwrap();
        }
        assert_eq!(sent, b"ve");
    }

    #[test]
    fn the_account_is_root_unless_another_is_named() {
        for (host, port, expected) in [
            ("box.local", None, vec!["--", "root@box.local", "iota x"]),
            ("me@box", Some(22), vec!["-p", "22", "--", "me@box", "iota x"]),
        ] {
            let device = Device { program: Path::new("ssh"), host, port };
            let command = device.command("iota x");
            let alive = ["-o", "ServerAliveInterval=15", "-o", "ServerAliveCountMax=3"];
            let expected = [&alive[..], &expected].concat();
            assert_eq!(command.get_args().collect::<Vec<_>>(), expected);
        }
    }
}
